//! The picture numbers of payloads, and their shift after a change of layer.

use railbird::codec::Codec;
use railbird::rtp::rewrite::{NumberShift, PictureNumbers};
use railbird::rtp::{resolution_of_keyframe_payload, starts_keyframe};

use super::records::{Records, choice};

/// Payloads that a viewer is sent, one after the other. The first byte chooses the
/// codec; a record's odd tag begins another layer.
pub fn rewrite(data: &[u8]) {
    let (first, data) = choice(data);
    let codec = Codec::ALL[first % Codec::ALL.len()];
    let mut shift = NumberShift::NONE;
    let mut last = PictureNumbers::default();
    for (tag, payload) in Records(data).take(512) {
        let numbers = PictureNumbers::parse(codec, payload);
        if tag & 1 != 0 {
            shift = NumberShift::joining(shift, &last, &numbers);
        }
        let mut patched = payload.to_vec();
        shift.patch(&numbers, &mut patched);
        let again = PictureNumbers::parse(codec, &patched);
        assert_eq!(again.is_empty(), numbers.is_empty());
        if numbers.is_empty() || shift == NumberShift::NONE {
            assert_eq!(patched, payload);
        }
        // What is behind the descriptor stays: the picture is the same.
        assert_eq!(starts_keyframe(codec, &patched), starts_keyframe(codec, payload));
        assert_eq!(
            resolution_of_keyframe_payload(codec, &patched),
            resolution_of_keyframe_payload(codec, payload)
        );
        // The same packet is the same again, and shorter copies do no harm.
        let mut second = payload.to_vec();
        shift.patch(&numbers, &mut second);
        assert_eq!(second, patched);
        for end in 0..payload.len().min(8) {
            shift.patch(&numbers, &mut second[..end]);
        }
        last = numbers;
    }
}
