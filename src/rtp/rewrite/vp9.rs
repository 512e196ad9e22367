//! The numbers of a VP9 payload descriptor (RFC 9628 §4.2).
//!
//! ```text
//!     |I|P|L|F|B|E|V|Z|  required
//! I:  |M| PICTURE ID  |  15 bits in two bytes if M
//! L:  | TID |U| SID |D|  and, if not F, a byte of TL0PICIDX
//! ```
//! What follows refers to other pictures by the distance to them, which no shift changes.

use super::{PictureNumbers, read_field, read_picture_id};

/// The numbers; `None` when the descriptor is cut off.
pub(super) fn numbers(payload: &[u8]) -> Option<PictureNumbers> {
    let mut numbers = PictureNumbers::default();
    let first = *payload.first()?;
    let mut at = 1;
    if first & 0x80 != 0 {
        let (id, len) = read_picture_id(payload, at)?;
        numbers.picture_id = Some(id);
        at += len;
    }
    let (layer_indices, flexible) = (first & 0x20 != 0, first & 0x10 != 0);
    if layer_indices && !flexible {
        numbers.base_index = Some(read_field(payload, at + 1)?);
    }
    Some(numbers)
}
