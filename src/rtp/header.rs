//! RTP packet headers: a parser that copies nothing and a writer that allocates
//! nothing (RFC 3550 §5.1; header extensions: RFC 8285).
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! |V=2|P|X|  CC   |M|     PT      |       sequence number         |
//! |                           timestamp                           |
//! |                             SSRC                              |
//! |                 CSRC (CC times), then, if X:                  |
//! |            profile            |       length in words         |
//! |                        extension elements                     |
//! ```

use std::ops::Range;

use thiserror::Error;

/// Bytes of the header without CSRCs and extensions.
pub const FIXED_LEN: usize = 12;

/// `profile` of one-byte extension elements (RFC 8285 §4.2).
const ONE_BYTE: u16 = 0xbede;
/// `profile` of two-byte extension elements, without its four application bits (RFC 8285 §4.3).
const TWO_BYTE: u16 = 0x1000;
const TWO_BYTE_MASK: u16 = 0xfff0;
/// Largest id of a one-byte element; 15 is reserved.
const ONE_BYTE_MAX_ID: u8 = 14;
/// Largest value of a one-byte element.
const ONE_BYTE_MAX_LEN: usize = 16;

/// Why bytes are no RTP packet, or a header cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RtpError {
    /// Shorter than the header says it is.
    #[error("RTP packet is cut short")]
    Truncated,
    /// The version is not 2.
    #[error("RTP version {0} is not 2")]
    Version(u8),
    /// The padding count is 0 or larger than the payload (RFC 3550 §5.1).
    #[error("RTP padding does not fit the payload")]
    Padding,
    /// An extension to write has id 0, or a value longer than 255 bytes.
    #[error("RTP header extension cannot be written")]
    Extension,
    /// The buffer to write to is too small.
    #[error("buffer too small for the RTP header")]
    NoRoom,
}

/// A parsed header, with references into its packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RtpHeader<'a> {
    /// The marker bit.
    pub marker: bool,
    /// Payload type, 7 bits.
    pub payload_type: u8,
    /// Sequence number.
    pub sequence: u16,
    /// Timestamp in ticks of the codec's clock.
    pub timestamp: u32,
    /// Synchronization source.
    pub ssrc: u32,
    /// Where the payload lies in the packet, padding left out.
    pub payload_range: Range<usize>,
    /// Bytes of padding after the payload.
    pub padding: u8,
    csrcs: &'a [u8],
    extension_profile: u16,
    extensions: &'a [u8],
}

impl<'a> RtpHeader<'a> {
    /// Parses a packet that is not encrypted.
    pub fn parse(packet: &'a [u8]) -> Result<Self, RtpError> {
        let mut header = Self::parse_protected(packet)?;
        if packet[0] & 0x20 != 0 {
            let payload = &packet[header.payload_range.clone()];
            let padding = *payload.last().ok_or(RtpError::Padding)?;
            if padding == 0 || usize::from(padding) > payload.len() {
                return Err(RtpError::Padding);
            }
            header.padding = padding;
            header.payload_range.end -= usize::from(padding);
        }
        Ok(header)
    }

    /// Parses an SRTP packet: its header is in the clear, while the padding
    /// count is still encrypted. `payload_range` reaches to the packet's end and
    /// starts where the encrypted part does.
    pub fn parse_protected(packet: &'a [u8]) -> Result<Self, RtpError> {
        let (fixed, rest) = packet.split_first_chunk::<FIXED_LEN>().ok_or(RtpError::Truncated)?;
        let [b0, b1, s0, s1, t0, t1, t2, t3, c0, c1, c2, c3] = *fixed;
        if b0 >> 6 != 2 {
            return Err(RtpError::Version(b0 >> 6));
        }
        let (csrcs, rest) =
            rest.split_at_checked(usize::from(b0 & 0x0f) * 4).ok_or(RtpError::Truncated)?;
        let (mut extension_profile, mut extensions, mut payload) = (0, &rest[..0], rest);
        if b0 & 0x10 != 0 {
            let (word, rest) = rest.split_first_chunk::<4>().ok_or(RtpError::Truncated)?;
            extension_profile = u16::from_be_bytes([word[0], word[1]]);
            let words = usize::from(u16::from_be_bytes([word[2], word[3]]));
            (extensions, payload) = rest.split_at_checked(words * 4).ok_or(RtpError::Truncated)?;
        }
        Ok(Self {
            marker: b1 & 0x80 != 0,
            payload_type: b1 & 0x7f,
            sequence: u16::from_be_bytes([s0, s1]),
            timestamp: u32::from_be_bytes([t0, t1, t2, t3]),
            ssrc: u32::from_be_bytes([c0, c1, c2, c3]),
            payload_range: packet.len() - payload.len()..packet.len(),
            padding: 0,
            csrcs,
            extension_profile,
            extensions,
        })
    }

    /// Contributing sources.
    pub fn csrcs(&self) -> impl Iterator<Item = u32> + use<'a> {
        self.csrcs.chunks_exact(4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]))
    }

    /// The extension elements in their order; ends at a malformed one.
    pub fn extensions(&self) -> Extensions<'a> {
        let form = match self.extension_profile {
            ONE_BYTE => Form::OneByte,
            profile if profile & TWO_BYTE_MASK == TWO_BYTE => Form::TwoByte,
            _ => return Extensions { rest: &[], form: Form::OneByte },
        };
        Extensions { rest: self.extensions, form }
    }

    /// The value of the first extension element with this id.
    pub fn extension(&self, id: u8) -> Option<&'a [u8]> {
        self.extensions().find(|(found, _)| *found == id).map(|(_, value)| value)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    OneByte,
    TwoByte,
}

/// Iterates over `(id, value)` of a header's extension elements.
#[derive(Clone, Debug)]
pub struct Extensions<'a> {
    rest: &'a [u8],
    form: Form,
}

impl<'a> Iterator for Extensions<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (&first, rest) = self.rest.split_first()?;
            if first == 0 {
                self.rest = rest; // padding
                continue;
            }
            let (id, len, rest) = match self.form {
                // Id 15 ends the list, whatever follows (RFC 8285 §4.2).
                Form::OneByte if first >> 4 > ONE_BYTE_MAX_ID => return None,
                Form::OneByte => (first >> 4, usize::from(first & 0x0f) + 1, rest),
                Form::TwoByte => {
                    let (&len, rest) = rest.split_first()?;
                    (first, usize::from(len), rest)
                }
            };
            let (value, rest) = rest.split_at_checked(len)?;
            self.rest = rest;
            // A one-byte element of id 0 with a length is padding that carries data: passed over.
            if id != 0 {
                return Some((id, value));
            }
        }
    }
}

/// What a sender writes into the fixed part of a header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeaderFields {
    /// The marker bit.
    pub marker: bool,
    /// Payload type; its top bit is ignored.
    pub payload_type: u8,
    /// Sequence number.
    pub sequence: u16,
    /// Timestamp in ticks of the codec's clock.
    pub timestamp: u32,
    /// Synchronization source.
    pub ssrc: u32,
}

/// Writes a header with these extension elements to the front of `out` and
/// returns its length. Elements are one-byte ones unless an id or a value needs
/// the two-byte form; without elements there is no extension block.
pub fn write_header(
    out: &mut [u8],
    fields: &HeaderFields,
    extensions: &[(u8, &[u8])],
) -> Result<usize, RtpError> {
    let len = header_len(extensions)?;
    let out = out.get_mut(..len).ok_or(RtpError::NoRoom)?;
    let (fixed, block) = out.split_first_chunk_mut::<FIXED_LEN>().ok_or(RtpError::NoRoom)?;
    fixed[0] = 2 << 6 | u8::from(!extensions.is_empty()) << 4;
    fixed[1] = u8::from(fields.marker) << 7 | fields.payload_type & 0x7f;
    fixed[2..4].copy_from_slice(&fields.sequence.to_be_bytes());
    fixed[4..8].copy_from_slice(&fields.timestamp.to_be_bytes());
    fixed[8..12].copy_from_slice(&fields.ssrc.to_be_bytes());
    if let Some((word, elements)) = block.split_first_chunk_mut::<4>() {
        let form = form_for(extensions);
        let profile = if form == Form::OneByte { ONE_BYTE } else { TWO_BYTE };
        word[..2].copy_from_slice(&profile.to_be_bytes());
        word[2..].copy_from_slice(&((elements.len() / 4) as u16).to_be_bytes());
        write_elements(elements, form, extensions).ok_or(RtpError::NoRoom)?;
    }
    Ok(len)
}

/// Length of the header that [`write_header`] makes of these extension elements.
pub fn header_len(extensions: &[(u8, &[u8])]) -> Result<usize, RtpError> {
    if extensions.is_empty() {
        return Ok(FIXED_LEN);
    }
    if extensions.iter().any(|(id, value)| *id == 0 || value.len() > 255) {
        return Err(RtpError::Extension);
    }
    let per_element = if form_for(extensions) == Form::OneByte { 1 } else { 2 };
    let elements: usize = extensions.iter().map(|(_, value)| per_element + value.len()).sum();
    let padded = elements.next_multiple_of(4);
    if padded / 4 > usize::from(u16::MAX) {
        return Err(RtpError::Extension);
    }
    Ok(FIXED_LEN + 4 + padded)
}

fn form_for(extensions: &[(u8, &[u8])]) -> Form {
    let fits = |(id, value): &(u8, &[u8])| {
        *id <= ONE_BYTE_MAX_ID && (1..=ONE_BYTE_MAX_LEN).contains(&value.len())
    };
    if extensions.iter().all(fits) { Form::OneByte } else { Form::TwoByte }
}

fn write_elements(mut out: &mut [u8], form: Form, extensions: &[(u8, &[u8])]) -> Option<()> {
    for (id, value) in extensions {
        let prefix = match form {
            Form::OneByte => [id << 4 | (value.len() - 1) as u8, 0],
            Form::TwoByte => [*id, value.len() as u8],
        };
        let prefix = &prefix[..if form == Form::OneByte { 1 } else { 2 }];
        let (to, rest) = out.split_at_mut_checked(prefix.len() + value.len())?;
        let (head, tail) = to.split_at_mut(prefix.len());
        head.copy_from_slice(prefix);
        tail.copy_from_slice(value);
        out = rest;
    }
    out.fill(0);
    Some(())
}

#[cfg(test)]
#[path = "header_tests.rs"]
mod tests;
