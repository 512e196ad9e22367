//! The IVF container: a header of 32 bytes, then frames behind 12 bytes of size and
//! time each, all little endian.

use std::time::Duration;

use bytes::Bytes;

use super::{Clip, ClipFrame, Video};

/// Longest time that a frame may last; a jump of the clock counts as the usual time.
const LONGEST: Duration = Duration::from_secs(1);

/// Reads a file; frames whose times say nothing last 1 / `fps` s.
///
/// # Errors
/// What is wrong with it, in words.
pub fn read(data: &[u8], fps: u32) -> Result<Clip, &'static str> {
    let header = data.get(..32).filter(|header| header.starts_with(b"DKIF"));
    let header = header.ok_or("not an IVF file")?;
    let video = match &header[8..12] {
        b"VP80" => Video::Vp8,
        b"VP90" => Video::Vp9,
        b"AV01" => Video::Av1,
        b"H264" => Video::H264,
        _ => return Err("a codec that is not VP8, VP9, AV1 or H264"),
    };
    let word = |at: usize| {
        u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    let (rate, scale) = (f64::from(word(16)), f64::from(word(20)));
    let tick = if rate > 0.0 { scale / rate } else { 0.0 };
    let mut rest = data.get(usize::from(u16::from_le_bytes([header[6], header[7]]))..);
    let mut frames: Vec<(Bytes, u64)> = Vec::new();
    while let Some((head, body)) = rest.and_then(|rest| rest.split_first_chunk::<12>()) {
        let [a, b, c, d, time @ ..] = *head;
        let Some((frame, after)) = body.split_at_checked(u32::from_le_bytes([a, b, c, d]) as usize)
        else {
            break;
        };
        frames.push((Bytes::copy_from_slice(frame), u64::from_le_bytes(time)));
        rest = Some(after);
    }
    let usual = Duration::from_secs(1) / fps.max(1);
    let lasts = |index: usize| {
        let (now, next) = (frames.get(index)?.1, frames.get(index + 1)?.1);
        let seconds = next.checked_sub(now)? as f64 * tick;
        Duration::try_from_secs_f64(seconds).ok().filter(|time| !time.is_zero() && *time <= LONGEST)
    };
    let clip = frames.iter().enumerate().map(|(index, (data, _))| ClipFrame {
        data: data.clone(),
        keyframe: is_keyframe(video, data),
        lasts: lasts(index).unwrap_or(usual),
    });
    Clip::from_frames(video, clip.collect())
}

fn is_keyframe(video: Video, data: &[u8]) -> bool {
    match video {
        // RFC 6386 §9.1: the lowest bit is clear.
        Video::Vp8 => data.first().is_some_and(|byte| byte & 1 == 0),
        // VP9 §6.2: frame marker 2, profile 0 to 2, no existing frame shown, frame type 0.
        Video::Vp9 => data.first().is_some_and(|byte| byte >> 6 == 2 && byte & 0x0c == 0),
        Video::Av1 => has_sequence_header(data),
        Video::H264 => crate::dealer::video::nal_units(data)
            .any(|nal| nal.first().is_some_and(|head| head & 0x1f == 5)),
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

    fn file(codec: &[u8; 4], frames: &[(&[u8], u64)]) -> Vec<u8> {
        let mut file = b"DKIF\0\0\x20\0".to_vec();
        file.extend(codec);
        file.extend([128, 2, 104, 1]);
        file.extend(30u32.to_le_bytes());
        file.extend(1u32.to_le_bytes());
        file.extend([0; 8]);
        for (data, time) in frames {
            file.extend((data.len() as u32).to_le_bytes());
            file.extend(time.to_le_bytes());
            file.extend(*data);
        }
        file
    }

    #[test]
    fn frames_last_as_long_as_their_times_say() {
        let frames: [(&[u8], u64); 3] = [(&[0x10, 1], 0), (&[0x11, 2], 3), (&[0x11, 3], 4)];
        let clip = read(&file(b"VP80", &frames), 25).unwrap();
        let lasts: Vec<_> = clip.frames.iter().map(|f| f.lasts.as_millis()).collect();
        assert_eq!((clip.video, lasts), (Video::Vp8, vec![100, 33, 40]));
        let keyframes: Vec<_> = clip.frames.iter().map(|frame| frame.keyframe).collect();
        assert_eq!(keyframes, [true, false, false]);
    }

    #[test]
    fn keyframes_of_each_codec_are_known_and_rubbish_is_refused() {
        assert!(is_keyframe(Video::Vp9, &[0x82]) && !is_keyframe(Video::Vp9, &[0x86]));
        assert!(is_keyframe(Video::Av1, &[0x12, 0, 0x0a, 1, 0]));
        assert!(!is_keyframe(Video::Av1, &[0x12, 0, 0x32, 1, 0]));
        assert!(!is_keyframe(Video::Av1, &[0x12, 0xff, 0xff, 0xff, 0xff]));
        let whole = file(b"VP80", &[(&[0x10; 40], 0)]);
        for len in 0..whole.len() {
            assert!(read(&whole[..len], 25).is_err(), "{len}");
        }
        assert!(read(&file(b"MJPG", &[]), 25).is_err());
    }
}
