//! Which frames decoding can start at, by the first bits of each format.

use super::Video;
use crate::dealer::video::nal_units;

/// Whether decoding can start at a frame of `video`.
pub fn is_keyframe(video: Video, data: &[u8]) -> bool {
    let any_nal =
        |is: fn(u8) -> bool| nal_units(data).filter_map(<[u8]>::first).any(|&byte| is(byte));
    match video {
        // RFC 6386 §9.1: the lowest bit is clear.
        Video::Vp8 => data.first().is_some_and(|byte| byte & 1 == 0),
        // VP9 §6.2: frame marker 2, profile 0 to 2, no existing frame shown, frame type 0.
        Video::Vp9 => data.first().is_some_and(|byte| byte >> 6 == 2 && byte & 0x0c == 0),
        Video::Av1 => has_sequence_header(data),
        Video::H264 => any_nal(|header| header & 0x1f == 5),
        // H.265 §7.4.2.2: random access pictures have types 16 to 21.
        Video::H265 => any_nal(|header| (16..=21).contains(&(header >> 1 & 0x3f))),
    }
}

/// AV1 §5.3: whether an OBU of the temporal unit is a sequence header (type 1), which
/// comes with every keyframe.
fn has_sequence_header(mut data: &[u8]) -> bool {
    while let Some((&head, mut rest)) = data.split_first() {
        if head >> 3 & 0x0f == 1 {
            return true;
        }
        rest = rest.get(usize::from(head & 0x04 != 0)..).unwrap_or_default();
        if head & 0x02 == 0 {
            return false;
        }
        let mut size = 0usize;
        for shift in (0..28).step_by(7) {
            let Some((&byte, after)) = rest.split_first() else { return false };
            size |= usize::from(byte & 0x7f) << shift;
            rest = after;
            if byte & 0x80 == 0 {
                break;
            }
        }
        data = rest.get(size..).unwrap_or_default();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keyframes_of_each_codec_are_known() {
        assert!(is_keyframe(Video::Vp8, &[0x10]) && !is_keyframe(Video::Vp8, &[0x11]));
        assert!(is_keyframe(Video::Vp9, &[0x82]) && !is_keyframe(Video::Vp9, &[0x86]));
        assert!(is_keyframe(Video::Av1, &[0x12, 0, 0x0a, 1, 0]));
        assert!(!is_keyframe(Video::Av1, &[0x12, 0, 0x32, 1, 0]));
        assert!(!is_keyframe(Video::Av1, &[0x12, 0xff, 0xff, 0xff, 0xff]));
        let nal = |header| [0, 0, 1, header, 1];
        assert!(is_keyframe(Video::H264, &nal(0x65)) && !is_keyframe(Video::H264, &nal(0x41)));
        assert!(is_keyframe(Video::H265, &nal(0x26)) && is_keyframe(Video::H265, &nal(0x2a)));
        assert!(!is_keyframe(Video::H265, &nal(0x02)) && !is_keyframe(Video::H265, &nal(0x42)));
    }
}
