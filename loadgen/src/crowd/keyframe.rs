//! Whether an RTP payload begins a keyframe, per codec: a look at its first bytes.

use super::answer::Codec;

/// Whether a keyframe begins in `payload`, or for H.264 and H.265 goes on in it.
pub fn begins_keyframe(codec: Codec, payload: &[u8]) -> bool {
    match codec {
        Codec::H264 => h264(payload),
        Codec::H265 => h265(payload),
        Codec::Vp8 => vp8(payload).unwrap_or_default(),
        // RFC 9628 §4.2: P clear (not inter-predicted) and B set (start of a frame).
        Codec::Vp9 => payload.first().is_some_and(|first| first & 0x48 == 0x08),
        // AV1 RTP §4.4: N, the first packet of a coded video sequence.
        Codec::Av1 => payload.first().is_some_and(|first| first & 0x08 != 0),
    }
}

/// RFC 6184 §5.2: an IDR slice, alone, aggregated (STAP-A) or fragmented (FU-A).
fn h264(payload: &[u8]) -> bool {
    let is_idr = |head: u8| head & 0x1f == 5;
    match payload {
        [head, units @ ..] if head & 0x1f == 24 => aggregated(units, is_idr),
        [head, fragment, ..] if head & 0x1f == 28 => is_idr(*fragment),
        [head, ..] => is_idr(*head),
        [] => false,
    }
}

/// RFC 7798 §4.4: a slice of an intra random access point (types 16 to 21).
fn h265(payload: &[u8]) -> bool {
    let is_irap = |head: u8| (16..=21).contains(&(head >> 1 & 0x3f));
    match payload {
        [head, _, units @ ..] if head >> 1 & 0x3f == 48 => aggregated(units, is_irap),
        [head, _, fragment, ..] if head >> 1 & 0x3f == 49 => is_irap(fragment << 1),
        [head, ..] => is_irap(*head),
        [] => false,
    }
}

/// Whether one of the units of an aggregation packet, each behind its size, has a
/// header that fits.
fn aggregated(mut units: &[u8], fits: impl Fn(u8) -> bool) -> bool {
    while let Some((size, rest)) = units.split_first_chunk::<2>() {
        if rest.first().is_some_and(|&head| fits(head)) {
            return true;
        }
        units = rest.get(usize::from(u16::from_be_bytes(*size))..).unwrap_or_default();
    }
    false
}

/// RFC 7741 §4.2 and §4.3: the first partition's first byte has the P bit clear.
fn vp8(payload: &[u8]) -> Option<bool> {
    let (&descriptor, mut rest) = payload.split_first()?;
    if descriptor & 0x80 != 0 {
        let (&extensions, after) = rest.split_first()?;
        rest = after;
        if extensions & 0x80 != 0 {
            let long = rest.first()? & 0x80 != 0;
            rest = rest.get(if long { 2 } else { 1 }..)?;
        }
        rest = rest.get(usize::from(extensions & 0x40 != 0)..)?;
        rest = rest.get(usize::from(extensions & 0x30 != 0)..)?;
    }
    let starts = descriptor & 0x10 != 0 && descriptor & 0x07 == 0;
    Some(starts && rest.first()? & 1 == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keyframes_of_each_codec_are_told_from_other_frames() {
        let cases: [(Codec, &[u8], bool); 15] = [
            (Codec::H264, &[0x65, 1], true),
            (Codec::H264, &[0x41, 1], false),
            (Codec::H264, &[0x78, 0, 1, 0x67, 0, 1, 0x65], true),
            (Codec::H264, &[0x78, 0, 9, 0x67], false),
            (Codec::H264, &[0x7c, 0x85, 1], true),
            (Codec::H264, &[0x7c, 0x81, 1], false),
            (Codec::H265, &[19 << 1, 1, 0], true),
            (Codec::H265, &[1 << 1, 1, 0], false),
            (Codec::H265, &[49 << 1, 1, 0x80 | 19], true),
            (Codec::Vp8, &[0x10, 0x00], true),
            (Codec::Vp8, &[0x90, 0x80, 0x81, 0x02, 0x01], false),
            (Codec::Vp8, &[0x90, 0x80, 0x81, 0x02, 0x00], true),
            (Codec::Vp9, &[0x88], true),
            (Codec::Vp9, &[0xc8], false),
            (Codec::Av1, &[0x18], true),
        ];
        for (codec, payload, expected) in cases {
            assert_eq!(begins_keyframe(codec, payload), expected, "{codec:?} {payload:?}");
        }
        for codec in [Codec::H264, Codec::H265, Codec::Vp8, Codec::Vp9, Codec::Av1] {
            assert!(!begins_keyframe(codec, &[]));
        }
    }
}
