//! The numbers of a VP8 payload descriptor (RFC 7741 §4.2).
//!
//! ```text
//!      |X|R|N|S|R| PID |  required
//! X:   |I|L|T|K|  RSV  |
//! I:   |M|  PictureID  |  15 bits in two bytes if M
//! L:   |   TL0PICIDX   |
//! T/K: |TID|Y| KEYIDX  |  KEYIDX is valid if K
//! ```

use super::{Field, PictureNumbers, read_field, read_picture_id};

/// KEYIDX in its byte.
pub(super) const KEY_INDEX_BITS: u8 = 0x1f;

/// The numbers; `None` when the descriptor is cut off.
pub(super) fn numbers(payload: &[u8]) -> Option<PictureNumbers> {
    let mut numbers = PictureNumbers::default();
    if payload.first()? & 0x80 == 0 {
        return Some(numbers);
    }
    let present = *payload.get(1)?;
    let mut at = 2;
    if present & 0x80 != 0 {
        let (id, len) = read_picture_id(payload, at)?;
        numbers.picture_id = Some(id);
        at += len;
    }
    if present & 0x40 != 0 {
        numbers.base_index = Some(read_field(payload, at)?);
        at += 1;
    }
    if present & 0x30 != 0 {
        let Field { offset, value } = read_field(payload, at)?;
        if present & 0x10 != 0 {
            numbers.key_index = Some(Field { offset, value: value & KEY_INDEX_BITS });
        }
    }
    Some(numbers)
}
