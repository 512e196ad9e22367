//! VP9: the uncompressed header of a frame (VP9 bitstream specification §6.2)
//! and the index of a superframe (Annex B).

use super::bits::BitReader;

/// A superframe holds at most eight frames (Annex B.3).
pub const MAX_FRAMES: usize = 8;

/// What a key frame's header tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyframeHeader {
    /// Profile, 0 to 3.
    pub profile: u8,
    /// Bits per sample: 8, 10 or 12.
    pub bit_depth: u8,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
}

impl KeyframeHeader {
    /// Reads the start of a frame; `None` unless it is a key frame.
    pub fn parse(frame: &[u8]) -> Option<Self> {
        let r = &mut BitReader::new(frame);
        let start = FrameStart::parse(r)?;
        if !start.key {
            return None;
        }
        sync_code(r)?;
        let bit_depth = color_config(r, start.profile)?;
        let (width, height) = frame_size(r)?;
        Some(Self { profile: start.profile, bit_depth, width, height })
    }

    /// The codec string of the VP9 ISO BMFF binding, e.g. `vp09.00.31.08`: the
    /// level is the lowest that allows this picture size.
    pub fn codec_string(&self) -> String {
        let level = level_for(self.width, self.height);
        format!("vp09.{:02}.{level:02}.{:02}", self.profile, self.bit_depth)
    }
}

/// True when the frame that starts with these bytes is a key frame.
pub fn is_keyframe(frame: &[u8]) -> bool {
    FrameStart::parse(&mut BitReader::new(frame)).is_some_and(|start| start.key)
}

/// Largest picture size that the frames of a superframe spell out: the size of
/// the top spatial layer. `None` unless the first of them is a key frame.
pub fn resolution(superframe: &[u8]) -> Option<(u32, u32)> {
    let (first, others) = match superframe_index(superframe) {
        Some((mut sizes, count)) => {
            let first = sizes.next()?;
            (superframe.get(..first)?, Some((first, sizes.take(count - 1))))
        }
        None => (superframe, None),
    };
    let key = KeyframeHeader::parse(first)?;
    let mut largest = (key.width, key.height);
    if let Some((mut offset, sizes)) = others {
        for size in sizes {
            let frame = superframe.get(offset..offset.checked_add(size)?)?;
            offset += size;
            if let Some(found) = explicit_size(frame).filter(|found| found.0 > largest.0) {
                largest = found;
            }
        }
    }
    Some(largest)
}

/// Appends the superframe index that lets a decoder find the frames of these sizes
/// (Annex B.2). Nothing is appended for fewer than two frames.
pub fn append_superframe_index(data: &mut Vec<u8>, sizes: &[usize]) {
    if sizes.len() < 2 || sizes.len() > MAX_FRAMES {
        return;
    }
    let largest = sizes.iter().copied().max().unwrap_or(0);
    let width = (1..4).find(|&bytes| largest >> (8 * bytes) == 0).unwrap_or(4);
    let marker = 0b1100_0000 | (width as u8 - 1) << 3 | (sizes.len() as u8 - 1);
    data.push(marker);
    for size in sizes {
        data.extend_from_slice(&(*size as u32).to_le_bytes()[..width]);
    }
    data.push(marker);
}

/// The frame sizes that the index at the end of a superframe lists, and their count.
fn superframe_index(data: &[u8]) -> Option<(impl Iterator<Item = usize>, usize)> {
    let marker = *data.last()?;
    if marker & 0b1110_0000 != 0b1100_0000 {
        return None;
    }
    let (count, width) = (usize::from(marker & 7) + 1, usize::from(marker >> 3 & 3) + 1);
    let start = data.len().checked_sub(2 + count * width)?;
    let (&opening, sizes) = data.get(start..data.len() - 1)?.split_first()?;
    let size =
        |bytes: &[u8]| bytes.iter().rev().fold(0, |value, &byte| value << 8 | usize::from(byte));
    (opening == marker).then(|| (sizes.chunks_exact(width).map(size), count))
}

struct FrameStart {
    profile: u8,
    key: bool,
    show: bool,
    error_resilient: bool,
}

impl FrameStart {
    fn parse(r: &mut BitReader<'_>) -> Option<Self> {
        if r.bits(2)? != 0b10 {
            return None;
        }
        let profile = u8::from(r.flag()?) | u8::from(r.flag()?) << 1;
        if profile == 3 && r.flag()? {
            return None;
        }
        if r.flag()? {
            // show_existing_frame: no picture of its own.
            return None;
        }
        let key = !r.flag()?;
        let show = r.flag()?;
        let error_resilient = r.flag()?;
        Some(Self { profile, key, show, error_resilient })
    }
}

fn sync_code(r: &mut BitReader<'_>) -> Option<()> {
    (r.bits(24)? == 0x49_83_42).then_some(())
}

/// Returns the bit depth.
fn color_config(r: &mut BitReader<'_>, profile: u8) -> Option<u8> {
    const RGB: u32 = 7;
    let bit_depth = match profile >= 2 {
        true if r.flag()? => 12,
        true => 10,
        false => 8,
    };
    if r.bits(3)? == RGB {
        if profile & 1 == 0 {
            return None;
        }
        r.flag()?; // reserved_zero
    } else {
        r.flag()?; // color_range
        if profile & 1 == 1 {
            r.skip(3)?; // subsampling_x, subsampling_y, reserved_zero
        }
    }
    Some(bit_depth)
}

fn frame_size(r: &mut BitReader<'_>) -> Option<(u32, u32)> {
    Some((r.bits(16)? + 1, r.bits(16)? + 1))
}

/// The size in the header of an interframe, unless it is that of a reference.
fn explicit_size(frame: &[u8]) -> Option<(u32, u32)> {
    let r = &mut BitReader::new(frame);
    let start = FrameStart::parse(r)?;
    if start.key {
        return KeyframeHeader::parse(frame).map(|key| (key.width, key.height));
    }
    let intra_only = !start.show && r.flag()?;
    if !start.error_resilient {
        r.skip(2)?; // reset_frame_context
    }
    if intra_only {
        sync_code(r)?;
        if start.profile > 0 {
            color_config(r, start.profile)?;
        }
        r.skip(8)?; // refresh_frame_flags
        return frame_size(r);
    }
    r.skip(8 + 3 * 4)?; // refresh_frame_flags; index and sign bias of three references
    for _ in 0..3 {
        if r.flag()? {
            return None; // found_ref: as large as that reference
        }
    }
    frame_size(r)
}

/// Ten times the lowest level whose largest picture holds this one (VP9 levels, luma picture size).
const fn level_for(width: u32, height: u32) -> u8 {
    const LEVELS: [(u64, u8); 9] = [
        (36_864, 10),
        (73_728, 11),
        (122_880, 20),
        (245_760, 21),
        (552_960, 30),
        (983_040, 31),
        (2_228_224, 40),
        (8_912_896, 50),
        (35_651_584, 60),
    ];
    let samples = width as u64 * height as u64;
    let mut i = 0;
    while i + 1 < LEVELS.len() && samples > LEVELS[i].0 {
        i += 1;
    }
    LEVELS[i].1
}
