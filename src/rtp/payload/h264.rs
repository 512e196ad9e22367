//! H.264 payloads (RFC 6184): single NAL units, STAP-A and FU-A. The
//! interleaved formats (STAP-B, MTAP, FU-B) are refused: nobody negotiates them.

use super::nal::{NalBuffer, aggregated};
use super::{Assembler, Malformed, Unit};
use crate::codec::h264::{SliceStart, nal_type};
use crate::codec::nal_units;

/// Aggregate of NAL units (RFC 6184 §5.7.1).
const STAP_A: u8 = 24;
/// Fragment of a NAL unit (RFC 6184 §5.8).
const FU_A: u8 = 28;

/// A payload taken apart (RFC 6184 §5.2).
enum Payload<'a> {
    Single(&'a [u8]),
    /// The units, still after their lengths.
    Aggregate(&'a [u8]),
    Fragment {
        /// Header of the unit that is fragmented.
        header: u8,
        start: bool,
        end: bool,
        data: &'a [u8],
    },
}

impl<'a> Payload<'a> {
    fn parse(payload: &'a [u8]) -> Result<Self, Malformed> {
        let (&header, rest) = payload.split_first().ok_or(Malformed)?;
        match nal_type::of(header) {
            1..=23 => Ok(Self::Single(payload)),
            STAP_A => Ok(Self::Aggregate(rest)),
            FU_A => {
                let (&fu, data) = rest.split_first().ok_or(Malformed)?;
                let inner = nal_type::of(fu);
                if !(1..=23).contains(&inner) {
                    return Err(Malformed);
                }
                let (start, end) = (fu & 0x80 != 0, fu & 0x40 != 0);
                Ok(Self::Fragment { header: header & 0xe0 | inner, start, end, data })
            }
            _ => Err(Malformed),
        }
    }
}

/// The first NAL unit of interest in a payload, found by `wanted(type)`, without
/// its end when it is fragmented.
fn find(payload: &[u8], wanted: impl Fn(u8) -> bool) -> Option<&[u8]> {
    match Payload::parse(payload).ok()? {
        Payload::Single(unit) => wanted(nal_type::of(unit[0])).then_some(unit),
        Payload::Aggregate(units) => aggregated(units)
            .map_while(|unit| unit)
            .find(|unit| unit.first().is_some_and(|&header| wanted(nal_type::of(header)))),
        // What a fragment holds of its unit has no header: its type is all it tells.
        Payload::Fragment { header, start, .. } => {
            (start && wanted(nal_type::of(header))).then_some(&payload[..0])
        }
    }
}

/// True when the payload holds an SPS or the start of an IDR slice.
pub(in crate::rtp) fn starts_keyframe(payload: &[u8]) -> bool {
    find(payload, |kind| matches!(kind, nal_type::SPS | nal_type::IDR)).is_some()
}

/// The SPS NAL unit in the payload, when it is whole.
pub(in crate::rtp) fn sps(payload: &[u8]) -> Option<&[u8]> {
    find(payload, |kind| kind == nal_type::SPS).filter(|unit| !unit.is_empty())
}

/// Access units of H.264.
#[derive(Default)]
pub(in crate::rtp) struct H264Assembler {
    nals: NalBuffer,
}

impl H264Assembler {
    fn push(&mut self, unit: &[u8]) -> Result<(), Malformed> {
        self.nals.note_picture(unit.first().is_some_and(|&header| is_slice(header)));
        self.nals.push(unit)
    }
}

const fn is_slice(header: u8) -> bool {
    matches!(nal_type::of(header), nal_type::SLICE..=nal_type::IDR)
}

impl Assembler for H264Assembler {
    fn append(&mut self, payload: &[u8]) -> Result<(), Malformed> {
        match Payload::parse(payload)? {
            Payload::Single(unit) => self.push(unit),
            Payload::Aggregate(units) => {
                for unit in aggregated(units) {
                    let unit = unit.ok_or(Malformed)?;
                    match unit.first().map(|&header| nal_type::of(header)) {
                        Some(1..=23) => self.push(unit)?,
                        _ => return Err(Malformed),
                    }
                }
                Ok(())
            }
            Payload::Fragment { header, start, end, data } => {
                self.nals.note_picture(is_slice(header));
                self.nals.push_fragment(&[header], data, start, end)
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
        let content = Content::of(&data);
        let keyframe = content.idr || (content.sps && content.all_intra);
        // Senders put parameter sets in front of each keyframe: none means lost ones.
        let sets_missing = keyframe && !content.sps;
        Ok(Unit { data, keyframe, head_intact: content.first_slice && !sets_missing })
    }

    fn reset(&mut self) {
        self.nals.reset();
    }
}

/// What an access unit holds.
struct Content {
    sps: bool,
    idr: bool,
    /// The first slice found is the first of the picture.
    first_slice: bool,
    /// All slices are intra coded: together with an SPS, encoders with an open
    /// GOP mean a random access point.
    all_intra: bool,
}

impl Content {
    fn of(data: &[u8]) -> Self {
        let (mut sps, mut idr, mut first, mut all_intra) = (false, false, None, true);
        for unit in nal_units(data) {
            match nal_type::of(unit[0]) {
                nal_type::SPS => sps = true,
                kind @ (nal_type::SLICE | nal_type::PARTITION_A | nal_type::IDR) => {
                    let start = SliceStart::parse(unit);
                    idr |= kind == nal_type::IDR;
                    all_intra &= start.is_some_and(|slice| slice.intra);
                    first = first.or(Some(start.is_some_and(|slice| slice.first)));
                }
                _ => {}
            }
        }
        Self { sps, idr, first_slice: first == Some(true), all_intra: all_intra && first.is_some() }
    }
}
