//! H.264: NAL unit types, the sequence parameter set (ITU-T H.264 §7.3.2.1.1,
//! Annex E) and what of a slice header tells where a picture starts.

use super::bits::BitReader;
use super::{PICTURE_SIDE, nal};

/// Types of NAL units (H.264 table 7-1).
pub mod nal_type {
    /// Type of a NAL unit, from its first byte.
    pub const fn of(header: u8) -> u8 {
        header & 0x1f
    }

    /// Slice of a picture that is not IDR.
    pub const SLICE: u8 = 1;
    /// Slice data partition A: slice header and motion.
    pub const PARTITION_A: u8 = 2;
    /// Slice of an IDR picture: a decoder may start there.
    pub const IDR: u8 = 5;
    /// Supplemental enhancement information.
    pub const SEI: u8 = 6;
    /// Sequence parameter set.
    pub const SPS: u8 = 7;
    /// Picture parameter set.
    pub const PPS: u8 = 8;
    /// Access unit delimiter.
    pub const AUD: u8 = 9;
}

/// What the start of a slice NAL unit says (H.264 §7.3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SliceStart {
    /// It holds the first macroblock of the picture.
    pub first: bool,
    /// It is an I or SI slice.
    pub intra: bool,
}

impl SliceStart {
    /// Reads the start of a slice NAL unit (header included).
    pub fn parse(unit: &[u8]) -> Option<Self> {
        // Two Exp-Golomb codes: ten bytes hold them with any emulation prevention.
        let start = nal::rbsp(unit.get(1..unit.len().min(11))?);
        let mut reader = BitReader::new(&start);
        let first = reader.ue()? == 0;
        let slice_type = reader.ue()?;
        Some(Self { first, intra: matches!(slice_type, 2 | 4 | 7 | 9) })
    }
}

/// A sequence parameter set, as far as the gateway uses it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sps {
    /// `profile_idc`.
    pub profile: u8,
    /// The byte of `constraint_set` flags between profile and level.
    pub constraints: u8,
    /// `level_idc`: ten times the level.
    pub level: u8,
    /// Width in luma samples after cropping.
    pub width: u32,
    /// Height in luma samples after cropping.
    pub height: u32,
    /// `chroma_format_idc`: 1 is 4:2:0.
    pub chroma_format: u8,
    /// Bits per luma sample.
    pub bit_depth_luma: u8,
    /// Bits per chroma sample.
    pub bit_depth_chroma: u8,
    /// True when all pictures are progressive frames (`frame_mbs_only_flag`).
    pub frames_only: bool,
    /// `max_num_reorder_frames` of the bitstream restriction, when it is there;
    /// 0 says that there are no B-frames to reorder.
    pub max_reorder_frames: Option<u32>,
}

impl Sps {
    /// Reads an SPS NAL unit (header included). `None` when it is no valid SPS.
    pub fn parse(unit: &[u8]) -> Option<Self> {
        let (&header, rest) = unit.split_first()?;
        if nal_type::of(header) != nal_type::SPS {
            return None;
        }
        let rbsp = nal::rbsp(rest);
        let r = &mut BitReader::new(&rbsp);
        let (profile, constraints, level) = (r.byte()?, r.byte()?, r.byte()?);
        r.ue()?; // seq_parameter_set_id
        let format = SampleFormat::parse(r, profile)?;
        r.ue()?; // log2_max_frame_num_minus4
        skip_picture_order(r)?;
        r.ue()?; // max_num_ref_frames
        r.flag()?; // gaps_in_frame_num_value_allowed_flag
        let (width_mbs, height_units) = (r.ue()?.checked_add(1)?, r.ue()?.checked_add(1)?);
        let frames_only = r.flag()?;
        if !frames_only {
            r.flag()?; // mb_adaptive_frame_field_flag
        }
        r.flag()?; // direct_8x8_inference_flag
        let fields = if frames_only { 1 } else { 2 };
        let (mut width, mut height) =
            (width_mbs.checked_mul(16)?, height_units.checked_mul(16 * fields)?);
        if r.flag()? {
            let (unit_x, unit_y) = format.crop_unit(fields);
            let (left, right, top, bottom) = (r.ue()?, r.ue()?, r.ue()?, r.ue()?);
            width = width.checked_sub(left.checked_add(right)?.checked_mul(unit_x)?)?;
            height = height.checked_sub(top.checked_add(bottom)?.checked_mul(unit_y)?)?;
        }
        if !PICTURE_SIDE.contains(&width) || !PICTURE_SIDE.contains(&height) {
            return None;
        }
        // A VUI that is cut short costs its hints and not the stream.
        let vui_present = r.flag().unwrap_or(false);
        let max_reorder_frames = if vui_present { vui_max_reorder_frames(r) } else { None };
        Some(Self {
            profile,
            constraints,
            level,
            width,
            height,
            chroma_format: format.chroma,
            bit_depth_luma: format.luma_depth,
            bit_depth_chroma: format.chroma_depth,
            frames_only,
            max_reorder_frames,
        })
    }

    /// The codec string of RFC 6381 §3.3, e.g. `avc1.42e01f`.
    pub fn codec_string(&self) -> String {
        format!("avc1.{:02x}{:02x}{:02x}", self.profile, self.constraints, self.level)
    }
}

/// The SPS and PPS NAL units of a frame's data, in its order and without repeats of the same bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParameterSets<'a> {
    /// Sequence parameter sets.
    pub sps: Vec<&'a [u8]>,
    /// Picture parameter sets.
    pub pps: Vec<&'a [u8]>,
}

impl<'a> ParameterSets<'a> {
    /// At most 32 SPS and 256 PPS can be told apart (H.264 §7.4.2); no encoder
    /// sends near as many, and what is past this count is ignored.
    const MAX: usize = 32;

    /// Collects from the data of a frame.
    pub fn collect(data: &'a [u8]) -> Self {
        let mut sets = Self::default();
        for unit in nal::units(data) {
            let list = match nal_type::of(unit[0]) {
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

/// Chroma format and bit depths.
struct SampleFormat {
    chroma: u8,
    separate_planes: bool,
    luma_depth: u8,
    chroma_depth: u8,
}

impl SampleFormat {
    fn parse(r: &mut BitReader<'_>, profile: u8) -> Option<Self> {
        let mut format = Self { chroma: 1, separate_planes: false, luma_depth: 8, chroma_depth: 8 };
        if !matches!(
            profile,
            100 | 110 | 122 | 244 | 44 | 83 | 86 | 118 | 128 | 138 | 139 | 134 | 135
        ) {
            return Some(format);
        }
        format.chroma = u8::try_from(r.ue()?).ok().filter(|&chroma| chroma <= 3)?;
        if format.chroma == 3 {
            format.separate_planes = r.flag()?;
        }
        let mut depth = || u8::try_from(r.ue()?).ok().filter(|&extra| extra <= 6).map(|d| d + 8);
        (format.luma_depth, format.chroma_depth) = (depth()?, depth()?);
        r.flag()?; // qpprime_y_zero_transform_bypass_flag
        if r.flag()? {
            let lists = if format.chroma == 3 { 12 } else { 8 };
            for list in 0..lists {
                if r.flag()? {
                    skip_scaling_list(r, if list < 6 { 16 } else { 64 })?;
                }
            }
        }
        Some(format)
    }

    /// Luma samples of one cropping step (H.264 §7.4.2.1.1, 7-19 to 7-22).
    const fn crop_unit(&self, fields: u32) -> (u32, u32) {
        match self.chroma {
            1 => (2, 2 * fields),
            2 => (2, fields),
            _ => (1, fields),
        }
    }
}

/// H.264 §7.3.2.1.1.1.
fn skip_scaling_list(r: &mut BitReader<'_>, size: usize) -> Option<()> {
    let (mut last, mut next) = (8i32, 8i32);
    for _ in 0..size {
        if next != 0 {
            let delta = r.se()?;
            next = last.checked_add(delta)?.rem_euclid(256);
        }
        last = if next == 0 { last } else { next };
    }
    Some(())
}

fn skip_picture_order(r: &mut BitReader<'_>) -> Option<()> {
    match r.ue()? {
        0 => {
            r.ue()?; // log2_max_pic_order_cnt_lsb_minus4
        }
        1 => {
            r.flag()?; // delta_pic_order_always_zero_flag
            r.se()?; // offset_for_non_ref_pic
            r.se()?; // offset_for_top_to_bottom_field
            let cycle = r.ue()?;
            if cycle > 255 {
                return None;
            }
            for _ in 0..cycle {
                r.se()?;
            }
        }
        2 => {}
        _ => return None,
    }
    Some(())
}

/// `max_num_reorder_frames` out of the VUI (H.264 §E.1.1).
fn vui_max_reorder_frames(r: &mut BitReader<'_>) -> Option<u32> {
    const EXTENDED_SAR: u32 = 255;
    if r.flag()? && r.bits(8)? == EXTENDED_SAR {
        r.skip(32)?;
    }
    if r.flag()? {
        r.flag()?; // overscan_appropriate_flag
    }
    if r.flag()? {
        r.skip(4)?; // video_format, video_full_range_flag
        if r.flag()? {
            r.skip(24)?; // colour description
        }
    }
    if r.flag()? {
        r.ue()?; // chroma_sample_loc_type_top_field
        r.ue()?; // chroma_sample_loc_type_bottom_field
    }
    if r.flag()? {
        r.skip(65)?; // num_units_in_tick, time_scale, fixed_frame_rate_flag
    }
    let nal_hrd = r.flag()?;
    if nal_hrd {
        skip_hrd(r)?;
    }
    let vcl_hrd = r.flag()?;
    if vcl_hrd {
        skip_hrd(r)?;
    }
    if nal_hrd || vcl_hrd {
        r.flag()?; // low_delay_hrd_flag
    }
    r.flag()?; // pic_struct_present_flag
    if !r.flag()? {
        return None;
    }
    r.flag()?; // motion_vectors_over_pic_boundaries_flag
    for _ in 0..4 {
        r.ue()?; // max_bytes_per_pic_denom to log2_max_mv_length_vertical
    }
    r.ue()
}

/// H.264 §E.1.2.
fn skip_hrd(r: &mut BitReader<'_>) -> Option<()> {
    let count = r.ue()?.checked_add(1).filter(|&count| count <= 32)?;
    r.skip(8)?; // bit_rate_scale, cpb_size_scale
    for _ in 0..count {
        r.ue()?; // bit_rate_value_minus1
        r.ue()?; // cpb_size_value_minus1
        r.flag()?; // cbr_flag
    }
    r.skip(20) // four lengths of five bits
}
