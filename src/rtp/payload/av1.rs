//! AV1 payloads (RTP Payload Format For AV1 §4.4, §4.5): an aggregation header,
//! then OBU elements, of which the first and the last may be fragments of OBUs.
//!
//! ```text
//!  0 1 2 3 4 5 6 7
//! |Z|Y| W |N|-|-|-|  Z: the first element continues an OBU; Y: the last one will
//!                    be continued; W: count of elements, the last of which has no
//!                    size, or 0: each has one; N: a coded video sequence starts
//! ```

use super::{Assembler, Malformed, Unit};
use crate::codec::av1::{Obu, SequenceHeader, is_shown_keyframe, obu_type, obus, read_leb128};

/// A payload taken apart.
struct Payload<'a> {
    continues: bool,
    to_be_continued: bool,
    new_sequence: bool,
    /// W.
    count: u8,
    elements: &'a [u8],
}

impl<'a> Payload<'a> {
    fn parse(payload: &'a [u8]) -> Option<Self> {
        let (&header, elements) = payload.split_first()?;
        let payload = Self {
            continues: header & 0x80 != 0,
            to_be_continued: header & 0x40 != 0,
            new_sequence: header & 0x08 != 0,
            count: header >> 4 & 3,
            elements,
        };
        // A coded video sequence cannot start in the middle of an OBU (§4.4).
        let impossible = payload.continues && payload.new_sequence;
        (!elements.is_empty() && !impossible).then_some(payload)
    }

    /// The elements; `None` in place of a malformed one, and then no more.
    fn elements(&self) -> impl Iterator<Item = Option<&'a [u8]>> + use<'a> {
        let (mut rest, count, mut index) = (self.elements, self.count, 0u8);
        std::iter::from_fn(move || {
            if count > 0 && index == count {
                // What is left over after the last element is malformed.
                return (!std::mem::take(&mut rest).is_empty()).then_some(None);
            }
            if rest.is_empty() {
                let missing = count > 0 && index < count;
                index = count;
                return missing.then_some(None);
            }
            index = index.saturating_add(u8::from(count > 0));
            let element = if count > 0 && index == count {
                Some((rest, &rest[rest.len()..]))
            } else {
                read_leb128(rest).and_then(|(size, after)| after.split_at_checked(size))
            };
            rest = element.map_or(&[], |(_, after)| after);
            if element.is_none() {
                index = count;
            }
            Some(element.map(|(element, _)| element))
        })
    }
}

/// True when the payload starts a coded video sequence: the N bit, or a sequence header.
pub(in crate::rtp) fn starts_keyframe(payload: &[u8]) -> bool {
    Payload::parse(payload).is_some_and(|payload| payload.new_sequence)
        || sequence_header(payload).is_some()
}

/// Picture size, when the payload holds a sequence header.
pub(in crate::rtp) fn resolution(payload: &[u8]) -> Option<(u32, u32)> {
    let header = SequenceHeader::parse(sequence_header(payload)?.payload)?;
    Some((header.width, header.height))
}

/// The sequence header OBU in the payload; it may be cut short when it is fragmented.
fn sequence_header(payload: &[u8]) -> Option<Obu<'_>> {
    let payload = Payload::parse(payload)?;
    payload
        .elements()
        .map_while(|element| element)
        .skip(usize::from(payload.continues))
        .filter_map(|element| Obu::split(element).map(|(obu, _)| obu))
        .find(|obu| obu.kind() == obu_type::SEQUENCE_HEADER)
}

/// Temporal units of AV1.
#[derive(Default)]
pub(in crate::rtp) struct Av1Assembler {
    /// Whole OBUs, with size fields.
    data: Vec<u8>,
    /// The OBU whose last fragment is still to come.
    fragment: Vec<u8>,
    /// A fragment is open, even if no byte of it has come yet.
    open: bool,
}

impl Av1Assembler {
    fn push_obu(data: &mut Vec<u8>, element: &[u8]) -> Result<(), Malformed> {
        if element.is_empty() {
            return Ok(());
        }
        // Elements should come without size field (§4.5), and with one they hold a single OBU.
        let (obu, after) = Obu::split(element).ok_or(Malformed)?;
        if !after.is_empty() {
            return Err(Malformed);
        }
        // Receivers ignore these two (§5).
        if !matches!(obu.kind(), obu_type::TEMPORAL_DELIMITER | obu_type::TILE_LIST) {
            obu.write_sized(data);
        }
        Ok(())
    }
}

impl Assembler for Av1Assembler {
    fn append(&mut self, payload: &[u8]) -> Result<(), Malformed> {
        let payload = Payload::parse(payload).ok_or(Malformed)?;
        if payload.continues != self.open {
            return Err(Malformed);
        }
        let mut elements = payload.elements().peekable();
        while let Some(element) = elements.next() {
            let element = element.ok_or(Malformed)?;
            let continued = payload.to_be_continued && elements.peek().is_none();
            if self.open || continued {
                self.fragment.extend_from_slice(element);
                self.open = continued;
                if !continued {
                    Self::push_obu(&mut self.data, &self.fragment)?;
                    self.fragment.clear();
                }
            } else {
                Self::push_obu(&mut self.data, element)?;
            }
        }
        Ok(())
    }

    fn len(&self) -> usize {
        self.data.len() + self.fragment.len()
    }

    fn finish(&mut self) -> Result<Unit, Malformed> {
        let data = std::mem::take(&mut self.data);
        let cut = self.open;
        self.reset();
        if cut || data.is_empty() {
            return Err(Malformed);
        }
        let first = obus(&data).next().ok_or(Malformed)?;
        // A tile group follows a frame header, an upper layer a lower one.
        let head_intact = first.kind() != obu_type::TILE_GROUP && first.spatial_id() == 0;
        let keyframe = is_random_access_point(&data);
        Ok(Unit { data, keyframe, head_intact })
    }

    fn reset(&mut self) {
        self.data.clear();
        self.fragment.clear();
        self.open = false;
    }
}

/// A sequence header, and then a shown key frame (AV1 §7.5).
fn is_random_access_point(data: &[u8]) -> bool {
    let mut sequence = None;
    for obu in obus(data) {
        match obu.kind() {
            obu_type::SEQUENCE_HEADER => sequence = SequenceHeader::parse(obu.payload),
            obu_type::FRAME | obu_type::FRAME_HEADER => {
                return sequence.is_some_and(|sequence| {
                    is_shown_keyframe(obu.payload, sequence.reduced_still_picture)
                });
            }
            _ => {}
        }
    }
    false
}
