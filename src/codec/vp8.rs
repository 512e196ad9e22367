//! VP8: the header of a key frame (RFC 6386 §9.1).

/// True when the frame that starts with these bytes is a key frame.
pub fn is_keyframe(frame: &[u8]) -> bool {
    frame.first().is_some_and(|tag| tag & 1 == 0)
}

/// Width and height of a key frame in pixels, before its scaling hint; `None`
/// for an interframe and for what is not VP8.
pub fn resolution(frame: &[u8]) -> Option<(u32, u32)> {
    if !is_keyframe(frame) {
        return None;
    }
    let header = frame.first_chunk::<10>()?;
    if header[3..6] != [0x9d, 0x01, 0x2a] {
        return None;
    }
    let size = |low: u8, high: u8| u32::from(u16::from_le_bytes([low, high]) & 0x3fff);
    let (width, height) = (size(header[6], header[7]), size(header[8], header[9]));
    (width > 0 && height > 0).then_some((width, height))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_of_a_key_frame() {
        let mut frame = vec![0x10, 0x02, 0x00, 0x9d, 0x01, 0x2a, 0x00, 0x05, 0xd0, 0x42, 7];
        assert_eq!(resolution(&frame), Some((1280, 720)), "the scale bits are no part of it");
        for end in 0..10 {
            assert_eq!(resolution(&frame[..end]), None);
        }
        frame[3] = 0;
        assert_eq!(resolution(&frame), None);
        frame[0] |= 1;
        assert!(!is_keyframe(&frame));
    }
}
