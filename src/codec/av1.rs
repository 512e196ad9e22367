//! AV1: OBUs and the sequence header (AV1 bitstream specification §5.3, §5.5).

use super::bits::BitReader;

/// OBU types (AV1 §6.2.2).
pub mod obu_type {
    /// Sequence header.
    pub const SEQUENCE_HEADER: u8 = 1;
    /// Temporal delimiter.
    pub const TEMPORAL_DELIMITER: u8 = 2;
    /// Frame header without tiles.
    pub const FRAME_HEADER: u8 = 3;
    /// Tiles of the last frame header.
    pub const TILE_GROUP: u8 = 4;
    /// Metadata.
    pub const METADATA: u8 = 5;
    /// Frame header and tiles.
    pub const FRAME: u8 = 6;
    /// List of tiles for large scale tile decoding.
    pub const TILE_LIST: u8 = 8;
}

/// Set in the first byte of an OBU that has a second header byte.
const EXTENSION_FLAG: u8 = 0x04;
/// Set in the first byte of an OBU whose header is followed by its size.
pub const SIZE_FLAG: u8 = 0x02;

/// One OBU, its header taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Obu<'a> {
    /// The one or two header bytes as found.
    pub header: &'a [u8],
    /// What follows header and size field.
    pub payload: &'a [u8],
}

impl<'a> Obu<'a> {
    /// Reads the OBU at the start of `data`; returns it and what follows it.
    /// An OBU without size field reaches to the end.
    pub fn split(data: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let first = *data.first()?;
        if first & 0x80 != 0 {
            return None; // obu_forbidden_bit
        }
        let header_len = if first & EXTENSION_FLAG != 0 { 2 } else { 1 };
        let (header, mut rest) = data.split_at_checked(header_len)?;
        let mut after = &rest[rest.len()..];
        if first & SIZE_FLAG != 0 {
            let (size, body) = read_leb128(rest)?;
            (rest, after) = body.split_at_checked(size)?;
        }
        Some((Self { header, payload: rest }, after))
    }

    /// Its [`obu_type`].
    pub fn kind(&self) -> u8 {
        self.header.first().map_or(0, |first| first >> 3 & 0x0f)
    }

    /// Spatial layer; 0 when the header does not say.
    pub fn spatial_id(&self) -> u8 {
        self.header.get(1).map_or(0, |second| second >> 3 & 3)
    }

    /// Appends it with a size field.
    pub fn write_sized(&self, out: &mut Vec<u8>) {
        if let Some((&first, extension)) = self.header.split_first() {
            out.push(first | SIZE_FLAG);
            out.extend_from_slice(extension);
            write_leb128(out, self.payload.len());
            out.extend_from_slice(self.payload);
        }
    }
}

/// The OBUs of a temporal unit whose OBUs have size fields; stops at the first malformed one.
pub fn obus(data: &[u8]) -> impl Iterator<Item = Obu<'_>> {
    let mut rest = data;
    std::iter::from_fn(move || {
        let (obu, after) = Obu::split(rest)?;
        rest = after;
        Some(obu)
    })
}

/// Reads a `leb128()` of at most 32 bits (AV1 §4.10.5); returns it and what follows.
pub fn read_leb128(data: &[u8]) -> Option<(usize, &[u8])> {
    let mut value = 0u64;
    for (index, &byte) in data.iter().take(8).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            let value = u32::try_from(value).ok()?;
            return Some((usize::try_from(value).ok()?, data.get(index + 1..)?));
        }
    }
    None
}

/// Appends `value` as a `leb128()`.
pub fn write_leb128(out: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A sequence header, as far as the gateway uses it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SequenceHeader {
    /// `seq_profile`: 0 Main, 1 High, 2 Professional.
    pub profile: u8,
    /// `seq_level_idx` of the first operating point: `(major - 2) * 4 + minor`.
    pub level: u8,
    /// `seq_tier` of the first operating point: high tier rather than main.
    pub high_tier: bool,
    /// Largest frame width of the sequence.
    pub width: u32,
    /// Largest frame height of the sequence.
    pub height: u32,
    /// Bits per sample: 8, 10 or 12.
    pub bit_depth: u8,
    /// No colour planes.
    pub monochrome: bool,
    /// All frames are key frames with short headers.
    pub reduced_still_picture: bool,
}

impl SequenceHeader {
    /// Reads the payload of a sequence header OBU (AV1 §5.5.1).
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let r = &mut BitReader::new(payload);
        let profile = r.bits(3)? as u8;
        r.flag()?; // still_picture
        let reduced_still_picture = r.flag()?;
        let (level, high_tier) =
            if reduced_still_picture { (r.bits(5)? as u8, false) } else { operating_points(r)? };
        let (width_bits, height_bits) = (r.bits(4)? + 1, r.bits(4)? + 1);
        let (width, height) = (r.bits(width_bits)? + 1, r.bits(height_bits)? + 1);
        skip_tools(r, reduced_still_picture)?;
        let high_bit_depth = r.flag()?;
        let bit_depth = match (profile, high_bit_depth) {
            (_, false) => 8,
            (2, true) if r.flag()? => 12,
            (_, true) => 10,
        };
        let monochrome = profile != 1 && r.flag()?;
        Some(Self {
            profile,
            level,
            high_tier,
            width,
            height,
            bit_depth,
            monochrome,
            reduced_still_picture,
        })
    }

    /// The sequence header of a temporal unit whose OBUs have size fields.
    pub fn find(data: &[u8]) -> Option<Self> {
        obus(data)
            .find(|obu| obu.kind() == obu_type::SEQUENCE_HEADER)
            .and_then(|obu| Self::parse(obu.payload))
    }

    /// The codec string of the AV1 ISO BMFF binding §5, e.g. `av01.0.04M.08`.
    pub fn codec_string(&self) -> String {
        let tier = if self.high_tier { 'H' } else { 'M' };
        format!("av01.{}.{:02}{tier}.{:02}", self.profile, self.level, self.bit_depth)
    }
}

/// True when a frame (or frame header) OBU with this payload starts with a key
/// frame that is shown: with a sequence header before it a decoder may start there (AV1 §7.5).
pub fn is_shown_keyframe(frame: &[u8], reduced_still_picture: bool) -> bool {
    // show_existing_frame = 0, frame_type = 0 (KEY_FRAME), show_frame = 1 (§5.9.2).
    reduced_still_picture || frame.first().is_some_and(|byte| byte >> 4 == 0b0001)
}

/// Passes over timing, decoder model and operating points; returns level and
/// tier of the first point (AV1 §5.5.1).
fn operating_points(r: &mut BitReader<'_>) -> Option<(u8, bool)> {
    let mut delay_bits = None;
    if r.flag()? {
        r.skip(64)?; // num_units_in_display_tick, time_scale
        if r.flag()? {
            r.ue()?; // num_ticks_per_picture_minus_1, a uvlc(): the same code as ue(v)
        }
        if r.flag()? {
            delay_bits = Some(r.bits(5)? as usize + 1);
            r.skip(32 + 5 + 5)?; // num_units_in_decoding_tick and two lengths
        }
    }
    let initial_display_delay = r.flag()?;
    let mut first = None;
    for _ in 0..=r.bits(5)? {
        r.skip(12)?; // operating_point_idc
        let level = r.bits(5)? as u8;
        let high_tier = level > 7 && r.flag()?;
        if let Some(bits) = delay_bits
            && r.flag()?
        {
            r.skip(2 * bits + 1)?; // two buffer delays, low_delay_mode_flag
        }
        if initial_display_delay && r.flag()? {
            r.skip(4)?;
        }
        first = first.or(Some((level, high_tier)));
    }
    first
}

/// From the frame id flag up to the colour configuration (AV1 §5.5.1).
fn skip_tools(r: &mut BitReader<'_>, reduced_still_picture: bool) -> Option<()> {
    const SELECT: u32 = 2;
    if !reduced_still_picture && r.flag()? {
        r.skip(4 + 3)?; // lengths of frame ids
    }
    r.skip(3)?; // 128x128 superblocks, filter intra, intra edge filter
    if !reduced_still_picture {
        r.skip(4)?; // interintra, masked compound, warped motion, dual filter
        let order_hint = r.flag()?;
        if order_hint {
            r.skip(2)?; // jnt_comp, ref_frame_mvs
        }
        let screen_content = if r.flag()? { SELECT } else { r.bits(1)? };
        if screen_content > 0 && !r.flag()? {
            r.flag()?; // seq_force_integer_mv
        }
        if order_hint {
            r.skip(3)?; // order_hint_bits_minus_1
        }
    }
    r.skip(3) // superres, cdef, restoration
}
