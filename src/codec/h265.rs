//! H.265: NAL unit types, parameter sets, the size and the codec string that a
//! sequence parameter set tells (ITU-T H.265 §7.3.2.2, ISO/IEC 14496-15 Annex E).

use std::fmt::Write;

use super::bits::BitReader;
use super::{PICTURE_SIDE, nal};

/// Types of NAL units (H.265 table 7-1).
pub mod nal_type {
    /// Type of a NAL unit, from its first byte.
    pub const fn of(header: u8) -> u8 {
        header >> 1 & 0x3f
    }

    /// First and last type of pictures at which a decoder may start (IRAP).
    pub const IRAP: std::ops::RangeInclusive<u8> = 16..=23;
    /// Types from here on are not slices.
    pub const FIRST_NON_VCL: u8 = 32;
    /// Video parameter set.
    pub const VPS: u8 = 32;
    /// Sequence parameter set.
    pub const SPS: u8 = 33;
    /// Picture parameter set.
    pub const PPS: u8 = 34;
}

/// True when a slice NAL unit (header included) is the first of its picture (H.265 §7.3.6.1).
pub fn is_first_slice(unit: &[u8]) -> bool {
    unit.get(2).is_some_and(|byte| byte & 0x80 != 0)
}

/// The parameter sets of a frame's data, in its order and without repeats of the same bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParameterSets<'a> {
    /// Video parameter sets.
    pub vps: Vec<&'a [u8]>,
    /// Sequence parameter sets.
    pub sps: Vec<&'a [u8]>,
    /// Picture parameter sets.
    pub pps: Vec<&'a [u8]>,
}

impl<'a> ParameterSets<'a> {
    /// Of each kind at most this many; no encoder sends near as many, and what is past it is ignored.
    const MAX: usize = 16;

    /// Collects from the data of a frame.
    pub fn collect(data: &'a [u8]) -> Self {
        let mut sets = Self::default();
        for unit in nal::units(data) {
            let list = match nal_type::of(unit[0]) {
                nal_type::VPS => &mut sets.vps,
                nal_type::SPS => &mut sets.sps,
                nal_type::PPS => &mut sets.pps,
                _ => continue,
            };
            if list.len() < Self::MAX && !list.contains(&unit) {
                list.push(unit);
            }
        }
        sets
    }
}

/// A sequence parameter set, as far as the gateway uses it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sps {
    /// `general_profile_space`, 0 to 3.
    pub profile_space: u8,
    /// High tier rather than main tier.
    pub high_tier: bool,
    /// `general_profile_idc`: 1 Main, 2 Main 10.
    pub profile: u8,
    /// `general_profile_compatibility_flag`s, the first in the top bit.
    pub compatibility: u32,
    /// The six bytes of constraint flags.
    pub constraints: [u8; 6],
    /// `general_level_idc`: thirty times the level.
    pub level: u8,
    /// Width in luma samples inside the conformance window.
    pub width: u32,
    /// Height in luma samples inside the conformance window.
    pub height: u32,
    /// `chroma_format_idc`: 1 is 4:2:0.
    pub chroma_format: u8,
    /// Bits per luma sample.
    pub bit_depth_luma: u8,
    /// Bits per chroma sample.
    pub bit_depth_chroma: u8,
}

impl Sps {
    /// Reads an SPS NAL unit (both header bytes included). `None` when it is no valid SPS.
    pub fn parse(unit: &[u8]) -> Option<Self> {
        let (header, rest) = unit.split_first_chunk::<2>()?;
        if nal_type::of(header[0]) != nal_type::SPS {
            return None;
        }
        let rbsp = nal::rbsp(rest);
        let r = &mut BitReader::new(&rbsp);
        r.skip(4)?; // sps_video_parameter_set_id
        let sub_layers_minus1 = r.bits(3)?;
        r.flag()?; // sps_temporal_id_nesting_flag
        let profile_space = r.bits(2)? as u8;
        let high_tier = r.flag()?;
        let profile = r.bits(5)? as u8;
        let compatibility = r.bits(32)?;
        let mut constraints = [0; 6];
        for byte in &mut constraints {
            *byte = r.byte()?;
        }
        let level = r.byte()?;
        skip_sub_layers(r, sub_layers_minus1)?;
        r.ue()?; // sps_seq_parameter_set_id
        let chroma_format = u8::try_from(r.ue()?).ok().filter(|&chroma| chroma <= 3)?;
        if chroma_format == 3 {
            r.flag()?; // separate_colour_plane_flag
        }
        let (mut width, mut height) = (r.ue()?, r.ue()?);
        if r.flag()? {
            let (unit_x, unit_y) = match chroma_format {
                1 => (2, 2),
                2 => (2, 1),
                _ => (1, 1),
            };
            let (left, right, top, bottom) = (r.ue()?, r.ue()?, r.ue()?, r.ue()?);
            width = width.checked_sub(left.checked_add(right)?.checked_mul(unit_x)?)?;
            height = height.checked_sub(top.checked_add(bottom)?.checked_mul(unit_y)?)?;
        }
        if !PICTURE_SIDE.contains(&width) || !PICTURE_SIDE.contains(&height) {
            return None;
        }
        let mut depth = || u8::try_from(r.ue()?).ok().filter(|&extra| extra <= 8).map(|d| d + 8);
        let (bit_depth_luma, bit_depth_chroma) = (depth()?, depth()?);
        Some(Self {
            profile_space,
            high_tier,
            profile,
            compatibility,
            constraints,
            level,
            width,
            height,
            chroma_format,
            bit_depth_luma,
            bit_depth_chroma,
        })
    }

    /// The codec string of ISO/IEC 14496-15 §E.3, e.g. `hvc1.1.6.L93.B0`.
    pub fn codec_string(&self) -> String {
        let space = ["", "A", "B", "C"][usize::from(self.profile_space & 3)];
        let tier = if self.high_tier { 'H' } else { 'L' };
        let flags = self.compatibility.reverse_bits();
        let mut text = format!("hvc1.{space}{}.{flags:X}.{tier}{}", self.profile, self.level);
        let used = self.constraints.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        for byte in &self.constraints[..used] {
            // Writing to a String cannot fail.
            let _ = write!(text, ".{byte:X}");
        }
        text
    }
}

/// The part of `profile_tier_level` that follows the general level (H.265 §7.3.3).
fn skip_sub_layers(r: &mut BitReader<'_>, sub_layers_minus1: u32) -> Option<()> {
    if sub_layers_minus1 == 0 {
        return Some(());
    }
    let present = r.bits(16)?; // two flags for each of eight layers
    for layer in 0..sub_layers_minus1 {
        let flags = present >> (14 - 2 * layer.min(7));
        if flags & 2 != 0 {
            r.skip(88)?;
        }
        if flags & 1 != 0 {
            r.skip(8)?;
        }
    }
    Some(())
}
