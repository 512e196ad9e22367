//! What a change of layer must mend in the payload: the picture numbers.
//!
//! The encoders of a simulcast number their pictures independently, and a decoder
//! takes a jump of these numbers for lost pictures. VP8 (RFC 7741 §4.2) and VP9
//! (RFC 9628 §4.2) write them in plain fields of a fixed size. So the fields are
//! found once per packet ([`PictureNumbers`]), and a viewer keeps three additions
//! ([`NumberShift`]) that change nowhere but at a switch: the patch is a pure
//! function of the packet and the shift, and never changes a payload's size.
//!
//! H264, H265 and Opus have no such numbers. AV1 has them in a header extension that
//! is not forwarded (`docs/decisions/0013-no-dependency-descriptor.md`).

mod vp8;
mod vp9;

#[cfg(test)]
mod tests;

use crate::codec::Codec;

/// A field of the payload descriptor: where it starts, and what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Field {
    offset: u8,
    value: u8,
}

/// The picture number, in 7 or 15 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PictureId {
    offset: u8,
    /// 15 bits in two bytes; else 7 bits in one.
    long: bool,
    value: u16,
}

/// The picture numbers of one payload and where they stand. Parsed once per packet;
/// holds no reference to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PictureNumbers {
    picture_id: Option<PictureId>,
    /// TL0PICIDX: counts the pictures of the lowest temporal layer.
    base_index: Option<Field>,
    /// KEYIDX, the low five bits of its byte: counts keyframes (VP8 only).
    key_index: Option<Field>,
}

impl PictureNumbers {
    /// Finds the numbers of `payload`; those that it lacks, or that are cut off, are absent.
    pub fn parse(codec: Codec, payload: &[u8]) -> Self {
        match codec {
            Codec::Vp8 => vp8::numbers(payload),
            Codec::Vp9 => vp9::numbers(payload),
            Codec::H264 | Codec::H265 | Codec::Av1 | Codec::Opus => None,
        }
        .unwrap_or_default()
    }

    /// There is nothing to patch.
    pub const fn is_empty(&self) -> bool {
        self.picture_id.is_none() && self.base_index.is_none() && self.key_index.is_none()
    }
}

/// What is added to the numbers of every packet of a layer, modulo the size of each
/// field. Part of a viewer's mapping of a layer: it changes only with that mapping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NumberShift {
    picture_id: u16,
    base_index: u8,
    key_index: u8,
}

impl NumberShift {
    /// Changes nothing: what a viewer begins with.
    pub const NONE: Self = Self { picture_id: 0, base_index: 0, key_index: 0 };

    /// The shift under which `first`, the first packet of a keyframe, comes right
    /// after `last`, the last packet sent of the former layer, to which `former` was
    /// added. Numbers that one of the two lacks stay as they are.
    pub fn joining(former: Self, last: &PictureNumbers, first: &PictureNumbers) -> Self {
        let field = |last: Option<Field>, former: u8, first: Option<Field>| {
            let (Some(last), Some(first)) = (last, first) else { return 0 };
            last.value.wrapping_add(former).wrapping_add(1).wrapping_sub(first.value)
        };
        let picture_id = match (last.picture_id, first.picture_id) {
            (Some(last), Some(first)) => {
                let next = last.value.wrapping_add(former.picture_id).wrapping_add(1);
                next.wrapping_sub(first.value)
            }
            _ => 0,
        };
        Self {
            picture_id,
            base_index: field(last.base_index, former.base_index, first.base_index),
            key_index: field(last.key_index, former.key_index, first.key_index),
        }
    }

    /// Adds the shift to the numbers in `payload`, a copy of the payload that
    /// `numbers` was parsed from. A shorter one is patched as far as it goes.
    pub fn patch(&self, numbers: &PictureNumbers, payload: &mut [u8]) {
        if let Some(id) = numbers.picture_id {
            let value = id.value.wrapping_add(self.picture_id);
            write_picture_id(payload, id, value);
        }
        if let Some(field) = numbers.base_index
            && let Some(byte) = payload.get_mut(usize::from(field.offset))
        {
            *byte = field.value.wrapping_add(self.base_index);
        }
        if let Some(field) = numbers.key_index
            && let Some(byte) = payload.get_mut(usize::from(field.offset))
        {
            let value = field.value.wrapping_add(self.key_index) & vp8::KEY_INDEX_BITS;
            *byte = (*byte & !vp8::KEY_INDEX_BITS) | value;
        }
    }
}

/// Reads `|M| PictureID |`, which both formats have alike, at `offset`; returns it
/// and how many bytes it takes.
fn read_picture_id(payload: &[u8], offset: usize) -> Option<(PictureId, usize)> {
    let first = *payload.get(offset)?;
    let at = u8::try_from(offset).ok()?;
    if first & 0x80 == 0 {
        return Some((PictureId { offset: at, long: false, value: u16::from(first) }, 1));
    }
    let second = *payload.get(offset + 1)?;
    let value = u16::from_be_bytes([first & 0x7f, second]);
    Some((PictureId { offset: at, long: true, value }, 2))
}

fn write_picture_id(payload: &mut [u8], id: PictureId, value: u16) {
    let at = usize::from(id.offset);
    if id.long {
        if let Some(bytes) = payload.get_mut(at..at + 2) {
            bytes.copy_from_slice(&(value | 0x8000).to_be_bytes());
        }
    } else if let Some(byte) = payload.get_mut(at) {
        *byte = (value & 0x7f) as u8;
    }
}

fn read_field(payload: &[u8], offset: usize) -> Option<Field> {
    let value = *payload.get(offset)?;
    Some(Field { offset: u8::try_from(offset).ok()?, value })
}
