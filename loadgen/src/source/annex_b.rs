//! An H.264 byte stream (Annex B) cut into access units (ITU-T H.264 §7.4.1.2.3).

use std::time::Duration;

use bytes::Bytes;

use super::{Clip, ClipFrame, Reason, Video};
use crate::dealer::video::nal_units;

const SLICE: u8 = 1;
const IDR: u8 = 5;
const SPS: u8 = 7;
const PPS: u8 = 8;

/// Reads a stream of `fps` frames a second.
///
/// # Errors
/// What is wrong with it, in words.
pub fn read(data: &[u8], fps: u32) -> Result<Clip, Reason> {
    let lasts = Duration::from_secs(1) / fps.max(1);
    let mut cutter = Cutter::default();
    for nal in nal_units(data).filter(|nal| !nal.is_empty()) {
        cutter.push(nal);
    }
    cutter.end();
    let frame =
        |(data, keyframe): (Vec<u8>, bool)| ClipFrame { data: data.into(), keyframe, lasts };
    Clip::from_frames(Video::H264, cutter.units.into_iter().map(frame).collect())
}

#[derive(Default)]
struct Cutter {
    units: Vec<(Vec<u8>, bool)>,
    current: Vec<u8>,
    has_slice: bool,
    keyframe: bool,
    has_parameters: bool,
    /// The last of each, for keyframes that come without.
    parameters: [Bytes; 2],
}

impl Cutter {
    fn push(&mut self, nal: &[u8]) {
        let kind = nal[0] & 0x1f;
        let is_slice = (SLICE..=IDR).contains(&kind);
        // A slice that starts with the first macroblock has a 1 in front (ue(v) of 0).
        let starts = if is_slice {
            nal.get(1).is_some_and(|byte| byte & 0x80 != 0)
        } else {
            matches!(kind, 6..=9 | 14..=18)
        };
        if starts && self.has_slice {
            self.end();
        }
        if let SPS | PPS = kind {
            self.has_parameters = true;
            self.parameters[usize::from(kind == PPS)] = Bytes::copy_from_slice(nal);
        }
        if kind == IDR && !self.has_slice && !self.has_parameters {
            for set in self.parameters.clone() {
                append(&mut self.current, &set);
            }
        }
        self.has_slice |= is_slice;
        self.keyframe |= kind == IDR;
        append(&mut self.current, nal);
    }

    fn end(&mut self) {
        let unit = std::mem::take(&mut self.current);
        if self.has_slice {
            self.units.push((unit, self.keyframe));
        }
        (self.has_slice, self.keyframe, self.has_parameters) = (false, false, false);
    }
}

fn append(unit: &mut Vec<u8>, nal: &[u8]) {
    if !nal.is_empty() {
        unit.extend([0, 0, 0, 1]);
        unit.extend(nal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(nals: &[&[u8]]) -> Vec<u8> {
        nals.iter().flat_map(|nal| [&[0, 0, 1], *nal].concat()).collect()
    }

    #[test]
    fn slices_of_one_picture_stay_together_and_keyframes_get_their_parameters() {
        let (sps, pps): (&[u8], &[u8]) = (&[0x67, 1], &[0x68, 2]);
        let data = stream(&[
            &[0x41, 0x9a], // before the first keyframe
            sps,
            pps,
            &[0x65, 0x88],
            &[0x65, 0x08], // the second slice of the keyframe
            &[0x41, 0x9a],
            &[0x06, 5], // belongs to what follows
            &[0x65, 0x88],
        ]);
        let clip = read(&data, 25).unwrap();
        let shape: Vec<_> = clip.frames.iter().map(|f| (f.keyframe, f.data.len())).collect();
        assert_eq!(shape, [(true, 24), (false, 6), (true, 24)]);
        assert!(clip.frames[2].data.windows(2).any(|pair| pair == pps));
        assert_eq!(clip.frames[0].lasts, Duration::from_millis(40));
        assert!(read(&data[..5], 25).is_err() && read(b"rubbish", 25).is_err());
    }
}
