//! Two encoders that number on their own, and a viewer that is switched between them.

use super::*;

/// A VP8 payload with every field.
fn vp8(picture_id: u16, base_index: u8, key_index: u8) -> Vec<u8> {
    let [high, low] = (picture_id | 0x8000).to_be_bytes();
    vec![0x90, 0xf0, high, low, base_index, 0x60 | key_index, 0xaa, 0xbb]
}

/// A VP9 payload in non-flexible mode with layer indices.
fn vp9(picture_id: u16, base_index: u8) -> Vec<u8> {
    let [high, low] = (picture_id | 0x8000).to_be_bytes();
    vec![0xaa, high, low, 0x10, base_index, 0xaa, 0xbb]
}

fn patched(codec: Codec, shift: NumberShift, payload: &[u8]) -> Vec<u8> {
    let mut copy = payload.to_vec();
    shift.patch(&PictureNumbers::parse(codec, payload), &mut copy);
    copy
}

#[test]
fn vp8_numbers_go_on_over_two_switches() {
    let parse = |payload: &[u8]| PictureNumbers::parse(Codec::Vp8, payload);
    let shift = NumberShift::joining(
        NumberShift::NONE,
        &parse(&vp8(700, 30, 4)),
        &parse(&vp8(20, 250, 31)),
    );
    assert_eq!(patched(Codec::Vp8, shift, &vp8(20, 250, 31)), vp8(701, 31, 5));
    assert_eq!(patched(Codec::Vp8, shift, &vp8(25, 252, 0)), vp8(706, 33, 6));
    // Back to an encoder whose numbers are about to wrap.
    let shift =
        NumberShift::joining(shift, &parse(&vp8(25, 252, 0)), &parse(&vp8(0x7ffe, 255, 30)));
    assert_eq!(patched(Codec::Vp8, shift, &vp8(0x7ffe, 255, 30)), vp8(707, 34, 7));
    assert_eq!(patched(Codec::Vp8, shift, &vp8(1, 1, 31)), vp8(710, 36, 8));
}

#[test]
fn numbers_wrap_within_their_fields() {
    let parse = |payload: &[u8]| PictureNumbers::parse(Codec::Vp8, payload);
    let last = parse(&vp8(0x7fff, 255, 31));
    let shift = NumberShift::joining(NumberShift::NONE, &last, &parse(&vp8(9, 9, 9)));
    assert_eq!(patched(Codec::Vp8, shift, &vp8(9, 9, 9)), vp8(0, 0, 0));
    // Seven bits stay seven bits.
    let short = [0x90, 0x80, 126, 0xaa];
    let shift = NumberShift::joining(NumberShift::NONE, &parse(&short), &parse(&[0x90, 0x80, 3]));
    assert_eq!(patched(Codec::Vp8, shift, &[0x90, 0x80, 3, 1]), [0x90, 0x80, 127, 1]);
    assert_eq!(patched(Codec::Vp8, shift, &[0x90, 0x80, 4, 1]), [0x90, 0x80, 0, 1]);
}

#[test]
fn vp9_numbers_go_on_and_the_rest_stays() {
    let parse = |payload: &[u8]| PictureNumbers::parse(Codec::Vp9, payload);
    let shift =
        NumberShift::joining(NumberShift::NONE, &parse(&vp9(0x7ffe, 7)), &parse(&vp9(100, 200)));
    assert_eq!(patched(Codec::Vp9, shift, &vp9(100, 200)), vp9(0x7fff, 8));
    assert_eq!(patched(Codec::Vp9, shift, &vp9(101, 201)), vp9(0, 9));
    // Flexible mode has no TL0PICIDX: what stands there is a reference.
    let flexible = [0xfa, 0x80, 100, 0x10, 0x02, 0xaa];
    assert_eq!(patched(Codec::Vp9, shift, &flexible), [0xfa, 0xff, 0xff, 0x10, 0x02, 0xaa]);
}

#[test]
fn numbers_that_one_layer_lacks_stay() {
    let parse = |payload: &[u8]| PictureNumbers::parse(Codec::Vp8, payload);
    let bare = [0x10, 0xaa];
    assert!(parse(&bare).is_empty());
    let from_bare = NumberShift::joining(NumberShift::NONE, &parse(&bare), &parse(&vp8(5, 6, 7)));
    assert_eq!(from_bare, NumberShift::NONE);
    let to_bare = NumberShift::joining(NumberShift::NONE, &parse(&vp8(5, 6, 7)), &parse(&bare));
    assert_eq!(patched(Codec::Vp8, to_bare, &bare), bare);
    // TID without K: the five bits are none of a keyframe index.
    let shift = NumberShift { picture_id: 1, base_index: 1, key_index: 1 };
    assert_eq!(patched(Codec::Vp8, shift, &[0x90, 0x20, 0x7f, 1]), [0x90, 0x20, 0x7f, 1]);
}

#[test]
fn a_patch_is_the_same_each_time_and_undone_by_its_opposite() {
    let shift = NumberShift { picture_id: 31_000, base_index: 200, key_index: 17 };
    let opposite = NumberShift {
        picture_id: shift.picture_id.wrapping_neg(),
        base_index: shift.base_index.wrapping_neg(),
        key_index: shift.key_index.wrapping_neg(),
    };
    for id in (0..0x8000).step_by(977) {
        let payload = vp8(id, id as u8, id as u8 & 0x1f);
        let once = patched(Codec::Vp8, shift, &payload);
        assert_eq!(once, patched(Codec::Vp8, shift, &payload));
        assert_eq!(patched(Codec::Vp8, opposite, &once), payload);
    }
}

#[test]
fn cut_payloads_and_other_codecs_have_nothing_to_patch() {
    for end in 0..6 {
        assert!(PictureNumbers::parse(Codec::Vp8, &vp8(5, 6, 7)[..end]).is_empty(), "{end}");
    }
    for end in 0..5 {
        assert!(PictureNumbers::parse(Codec::Vp9, &vp9(5, 6)[..end]).is_empty(), "{end}");
    }
    for codec in [Codec::H264, Codec::H265, Codec::Av1, Codec::Opus] {
        assert!(PictureNumbers::parse(codec, &vp8(5, 6, 7)).is_empty());
    }
    // A copy that is shorter than what was parsed is patched as far as it goes.
    let numbers = PictureNumbers::parse(Codec::Vp8, &vp8(5, 6, 7));
    for end in 0..6 {
        let mut cut = vp8(5, 6, 7)[..end].to_vec();
        NumberShift { picture_id: 1, base_index: 1, key_index: 1 }.patch(&numbers, &mut cut);
        assert_eq!(cut.len(), end);
    }
}
