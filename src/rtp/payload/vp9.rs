//! VP9 payloads (RFC 9628 §4.2): a descriptor, then a piece of one spatial
//! layer's frame. The layers of one picture become a superframe.
//!
//! ```text
//!      0 1 2 3 4 5 6 7
//!     |I|P|L|F|B|E|V|Z|  required
//! I:  |M| PICTURE ID  |  15 bits in two bytes if M
//! L:  | TID |U| SID |D|  and, if not F, a byte of TL0PICIDX
//! P,F:|   P_DIFF    |N|  up to three, another follows while N
//! V:  scalability structure: | N_S |Y|G|-|-|-|, sizes if Y, picture group if G
//! ```

use super::{Assembler, Malformed, Unit};
use crate::codec::vp9;

/// References of one picture (RFC 9628 §4.2).
const MAX_REFERENCES: usize = 3;

/// A payload taken apart.
struct Payload<'a> {
    /// B: it starts a layer's frame.
    starts_layer: bool,
    /// P: the layer's frame is predicted from earlier pictures.
    predicted: bool,
    /// SID; 0 without layer indices.
    spatial_layer: u8,
    /// Size of the largest layer that the scalability structure lists.
    largest: Option<(u32, u32)>,
    data: &'a [u8],
}

impl<'a> Payload<'a> {
    fn parse(payload: &'a [u8]) -> Option<Self> {
        let (&first, mut rest) = payload.split_first()?;
        let has = |bit: u8| first & bit != 0;
        let (predicted, flexible) = (has(0x40), has(0x10));
        if has(0x80) {
            let long = rest.first()? & 0x80 != 0;
            rest = rest.get(if long { 2 } else { 1 }..)?;
        }
        let mut spatial_layer = 0;
        if has(0x20) {
            spatial_layer = rest.first()? >> 1 & 0x07;
            rest = rest.get(if flexible { 1 } else { 2 }..)?;
        }
        if predicted && flexible {
            rest = skip_references(rest)?;
        }
        let mut largest = None;
        if has(0x02) {
            (largest, rest) = scalability_structure(rest)?;
        }
        let starts_layer = has(0x08);
        let payload = Self { starts_layer, predicted, spatial_layer, largest, data: rest };
        (!rest.is_empty()).then_some(payload)
    }

    /// It starts the picture with a frame that needs no other.
    fn starts_keyframe(&self) -> bool {
        self.starts_layer
            && self.spatial_layer == 0
            && !self.predicted
            && vp9::is_keyframe(self.data)
    }
}

fn skip_references(mut rest: &[u8]) -> Option<&[u8]> {
    for _ in 0..MAX_REFERENCES {
        let (&reference, after) = rest.split_first()?;
        rest = after;
        if reference & 1 == 0 {
            return Some(rest);
        }
    }
    None
}

/// A picture size, and the bytes that follow the structure it came from.
type SizeAndRest<'a> = (Option<(u32, u32)>, &'a [u8]);

/// Reads the scalability structure (RFC 9628 §4.2.1).
fn scalability_structure(rest: &[u8]) -> Option<SizeAndRest<'_>> {
    let (&first, mut rest) = rest.split_first()?;
    let mut largest = None;
    if first & 0x10 != 0 {
        let layers = usize::from(first >> 5) + 1;
        let (sizes, after) = rest.split_at_checked(layers * 4)?;
        let size = |b: &[u8]| {
            (
                u32::from(u16::from_be_bytes([b[0], b[1]])),
                u32::from(u16::from_be_bytes([b[2], b[3]])),
            )
        };
        largest = sizes.chunks_exact(4).map(size).max().filter(|(w, h)| *w > 0 && *h > 0);
        rest = after;
    }
    if first & 0x08 != 0 {
        let (&pictures, mut after) = rest.split_first()?;
        for _ in 0..pictures {
            let (&picture, references) = after.split_first()?;
            after = references.get(usize::from(picture >> 2 & 3)..)?;
        }
        rest = after;
    }
    Some((largest, rest))
}

/// True when the payload is the first of a key picture.
pub(in crate::rtp) fn starts_keyframe(payload: &[u8]) -> bool {
    Payload::parse(payload).is_some_and(|payload| payload.starts_keyframe())
}

/// Picture size of the top layer that is announced, when the payload is the
/// first of a key picture.
pub(in crate::rtp) fn resolution(payload: &[u8]) -> Option<(u32, u32)> {
    let payload = Payload::parse(payload).filter(Payload::starts_keyframe)?;
    let own = || vp9::KeyframeHeader::parse(payload.data).map(|key| (key.width, key.height));
    payload.largest.or_else(own)
}

/// Superframes of VP9.
#[derive(Default)]
pub(in crate::rtp) struct Vp9Assembler {
    data: Vec<u8>,
    /// Where each layer's frame starts in `data`; at most [`vp9::MAX_FRAMES`].
    starts: Vec<usize>,
    keyframe: bool,
    base_layer_first: bool,
}

impl Assembler for Vp9Assembler {
    fn append(&mut self, payload: &[u8]) -> Result<(), Malformed> {
        let payload = Payload::parse(payload).ok_or(Malformed)?;
        if self.data.is_empty() {
            if !payload.starts_layer {
                return Err(Malformed);
            }
            self.keyframe = payload.starts_keyframe();
            self.base_layer_first = payload.spatial_layer == 0;
        }
        if payload.starts_layer {
            if self.starts.len() == vp9::MAX_FRAMES {
                return Err(Malformed);
            }
            self.starts.push(self.data.len());
        }
        self.data.extend_from_slice(payload.data);
        Ok(())
    }

    fn len(&self) -> usize {
        self.data.len()
    }

    fn finish(&mut self) -> Result<Unit, Malformed> {
        let mut data = std::mem::take(&mut self.data);
        let mut sizes = [0; vp9::MAX_FRAMES];
        let mut end = data.len();
        for (size, start) in sizes[..self.starts.len()].iter_mut().zip(&self.starts).rev() {
            *size = end - start;
            end = *start;
        }
        vp9::append_superframe_index(&mut data, &sizes[..self.starts.len()]);
        self.starts.clear();
        Ok(Unit { data, keyframe: self.keyframe, head_intact: self.base_layer_first })
    }

    fn reset(&mut self) {
        self.data.clear();
        self.starts.clear();
    }
}
