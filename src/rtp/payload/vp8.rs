//! VP8 payloads (RFC 7741 §4.2): a descriptor, then a piece of the frame.
//!
//! ```text
//!      0 1 2 3 4 5 6 7
//!     |X|R|N|S|R| PID |  required
//! X:  |I|L|T|K|  RSV  |
//! I:  |M|  PictureID  |  15 bits in two bytes if M
//! L:  |   TL0PICIDX   |
//! T/K:|TID|Y| KEYIDX  |
//! ```

use super::{Assembler, Malformed, Unit};
use crate::codec::vp8;

/// A payload taken apart.
struct Payload<'a> {
    /// It starts the frame: S set and partition 0.
    starts_frame: bool,
    data: &'a [u8],
}

impl<'a> Payload<'a> {
    fn parse(payload: &'a [u8]) -> Option<Self> {
        let (&first, mut rest) = payload.split_first()?;
        if first & 0x80 != 0 {
            let (&fields, after) = rest.split_first()?;
            rest = after;
            if fields & 0x80 != 0 {
                let long = rest.first()? & 0x80 != 0;
                rest = rest.get(if long { 2 } else { 1 }..)?;
            }
            if fields & 0x40 != 0 {
                rest = rest.get(1..)?;
            }
            if fields & 0x30 != 0 {
                rest = rest.get(1..)?;
            }
        }
        let starts_frame = first & 0x10 != 0 && first & 0x07 == 0;
        (!rest.is_empty()).then_some(Self { starts_frame, data: rest })
    }
}

/// The start of a frame, when the payload holds it.
fn frame_start(payload: &[u8]) -> Option<&[u8]> {
    Payload::parse(payload).filter(|payload| payload.starts_frame).map(|payload| payload.data)
}

/// True when the payload is the first of a key frame.
pub(in crate::rtp) fn starts_keyframe(payload: &[u8]) -> bool {
    frame_start(payload).is_some_and(vp8::is_keyframe)
}

/// Picture size, when the payload is the first of a key frame.
pub(in crate::rtp) fn resolution(payload: &[u8]) -> Option<(u32, u32)> {
    frame_start(payload).and_then(vp8::resolution)
}

/// Frames of VP8.
#[derive(Default)]
pub(in crate::rtp) struct Vp8Assembler {
    data: Vec<u8>,
}

impl Assembler for Vp8Assembler {
    fn append(&mut self, payload: &[u8]) -> Result<(), Malformed> {
        let payload = Payload::parse(payload).ok_or(Malformed)?;
        // S is set again where other partitions start; only partition 0 starts
        // the frame, and only its first payload may say so.
        if payload.starts_frame != self.data.is_empty() {
            return Err(Malformed);
        }
        self.data.extend_from_slice(payload.data);
        Ok(())
    }

    fn len(&self) -> usize {
        self.data.len()
    }

    fn finish(&mut self) -> Result<Unit, Malformed> {
        let data = std::mem::take(&mut self.data);
        let keyframe = vp8::is_keyframe(&data);
        Ok(Unit { data, keyframe, head_intact: true })
    }

    fn reset(&mut self) {
        self.data.clear();
    }
}
