//! H.265 payloads (RFC 7798): single NAL units, aggregation packets and
//! fragmentation units, without decoding order numbers (`sprop-max-don-diff=0`,
//! the only mode that browsers negotiate). PACI packets are refused.

use super::nal::{NalBuffer, aggregated};
use super::{Assembler, Malformed, Unit};
use crate::codec::h265::{is_first_slice, nal_type};
use crate::codec::nal_units;

/// Aggregation packet (RFC 7798 §4.4.2).
const AP: u8 = 48;
/// Fragmentation unit (RFC 7798 §4.4.3).
const FU: u8 = 49;
/// NAL units of the bitstream have types below the packet types.
const MAX_TYPE: u8 = 47;

/// A payload taken apart (RFC 7798 §4.4).
enum Payload<'a> {
    Single(&'a [u8]),
    /// The units, still after their lengths.
    Aggregate(&'a [u8]),
    Fragment {
        /// Header of the unit that is fragmented.
        header: [u8; 2],
        start: bool,
        end: bool,
        data: &'a [u8],
    },
}

impl<'a> Payload<'a> {
    fn parse(payload: &'a [u8]) -> Result<Self, Malformed> {
        let (header, rest) = payload.split_first_chunk::<2>().ok_or(Malformed)?;
        match nal_type::of(header[0]) {
            0..=MAX_TYPE => Ok(Self::Single(payload)),
            AP => Ok(Self::Aggregate(rest)),
            FU => {
                let (&fu, data) = rest.split_first().ok_or(Malformed)?;
                let inner = fu & 0x3f;
                if inner > MAX_TYPE {
                    return Err(Malformed);
                }
                let header = [header[0] & 0x81 | inner << 1, header[1]];
                Ok(Self::Fragment { header, start: fu & 0x80 != 0, end: fu & 0x40 != 0, data })
            }
            _ => Err(Malformed),
        }
    }
}

fn find(payload: &[u8], wanted: impl Fn(u8) -> bool) -> Option<&[u8]> {
    match Payload::parse(payload).ok()? {
        Payload::Single(unit) => wanted(nal_type::of(unit[0])).then_some(unit),
        Payload::Aggregate(units) => aggregated(units)
            .map_while(|unit| unit)
            .find(|unit| unit.first().is_some_and(|&header| wanted(nal_type::of(header)))),
        // What a fragment holds of its unit has no header: its type is all it tells.
        Payload::Fragment { header, start, .. } => {
            (start && wanted(nal_type::of(header[0]))).then_some(&payload[..0])
        }
    }
}

/// True when the payload holds a VPS, an SPS or the start of an IRAP slice.
pub(in crate::rtp) fn starts_keyframe(payload: &[u8]) -> bool {
    find(payload, |kind| {
        matches!(kind, nal_type::VPS | nal_type::SPS) || nal_type::IRAP.contains(&kind)
    })
    .is_some()
}

/// The SPS NAL unit in the payload, when it is whole.
pub(in crate::rtp) fn sps(payload: &[u8]) -> Option<&[u8]> {
    find(payload, |kind| kind == nal_type::SPS).filter(|unit| !unit.is_empty())
}

/// Access units of H.265.
#[derive(Default)]
pub(in crate::rtp) struct H265Assembler {
    nals: NalBuffer,
}

impl H265Assembler {
    fn push(&mut self, unit: &[u8]) -> Result<(), Malformed> {
        self.nals.note_picture(unit.first().is_some_and(|&header| is_slice(header)));
        self.nals.push(unit)
    }
}

const fn is_slice(header: u8) -> bool {
    nal_type::of(header) < nal_type::FIRST_NON_VCL
}

impl Assembler for H265Assembler {
    fn append(&mut self, payload: &[u8]) -> Result<(), Malformed> {
        match Payload::parse(payload)? {
            Payload::Single(unit) => self.push(unit),
            Payload::Aggregate(units) => {
                for unit in aggregated(units) {
                    let unit = unit.filter(|unit| unit.len() >= 2).ok_or(Malformed)?;
                    if nal_type::of(unit[0]) > MAX_TYPE {
                        return Err(Malformed);
                    }
                    self.push(unit)?;
                }
                Ok(())
            }
            Payload::Fragment { header, start, end, data } => {
                self.nals.note_picture(is_slice(header[0]));
                self.nals.push_fragment(&header, data, start, end)
            }
        }
    }

    fn len(&self) -> usize {
        self.nals.len()
    }

    fn has_picture(&self) -> bool {
        self.nals.has_picture()
    }

    fn finish(&mut self) -> Result<Unit, Malformed> {
        let data = self.nals.finish()?;
        let (mut vps, mut sps, mut keyframe, mut first) = (false, false, false, None);
        for unit in nal_units(&data) {
            match nal_type::of(unit[0]) {
                nal_type::VPS => vps = true,
                nal_type::SPS => sps = true,
                kind if is_slice(unit[0]) => {
                    keyframe |= nal_type::IRAP.contains(&kind);
                    first = first.or(Some(is_first_slice(unit)));
                }
                _ => {}
            }
        }
        // Senders put parameter sets in front of each keyframe: none means lost ones.
        let sets_missing = keyframe && !(vps && sps);
        Ok(Unit { data, keyframe, head_intact: first == Some(true) && !sets_missing })
    }

    fn reset(&mut self) {
        self.nals.reset();
    }
}
