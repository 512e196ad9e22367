//! The IVF container: a header of 32 bytes, then frames behind 12 bytes of size and
//! time each, all little endian.

use std::time::Duration;

use bytes::Bytes;

use super::{Clip, ClipFrame, LONGEST, Reason, Video, is_keyframe};

/// Reads a file; frames whose times say nothing last 1 / `fps` s.
///
/// # Errors
/// What is wrong with it, in words.
pub fn read(data: &[u8], fps: u32) -> Result<Clip, Reason> {
    let header = data.get(..32).filter(|header| header.starts_with(b"DKIF"));
    let header = header.ok_or("not an IVF file")?;
    let video = match &header[8..12] {
        b"VP80" => Video::Vp8,
        b"VP90" => Video::Vp9,
        b"AV01" => Video::Av1,
        b"H264" => Video::H264,
        _ => return Err("a codec that is not VP8, VP9, AV1 or H264".into()),
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
    fn a_file_that_is_cut_or_of_another_codec_is_refused() {
        let whole = file(b"VP80", &[(&[0x10; 40], 0)]);
        for len in 0..whole.len() {
            assert!(read(&whole[..len], 25).is_err(), "{len}");
        }
        assert!(read(&file(b"MJPG", &[]), 25).is_err());
    }
}
