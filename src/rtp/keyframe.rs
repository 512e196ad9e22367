//! What a single payload tells before its access unit is complete: whether a
//! random access point starts in it, and the picture size. Both are asked for
//! each packet of a publisher, so they look at a few bytes only.

use super::payload;
use crate::codec::{Codec, h264, h265};

/// True when this payload belongs to the start of a random access point: where
/// a GOP begins for a viewer that joins.
///
/// H264: an SPS or the start of an IDR slice, alone, in a STAP-A or in a FU-A.
/// H265: a VPS, an SPS or the start of an IRAP slice, likewise. VP8 and VP9: the
/// first payload of a key frame (of the base layer). AV1: the N bit or a
/// sequence header. Opus: always.
pub fn starts_keyframe(codec: Codec, payload: &[u8]) -> bool {
    match codec {
        Codec::H264 => payload::h264::starts_keyframe(payload),
        Codec::H265 => payload::h265::starts_keyframe(payload),
        Codec::Vp8 => payload::vp8::starts_keyframe(payload),
        Codec::Vp9 => payload::vp9::starts_keyframe(payload),
        Codec::Av1 => payload::av1::starts_keyframe(payload),
        Codec::Opus => true,
    }
}

/// Width and height in pixels, when this payload of a random access point tells them.
pub fn resolution_of_keyframe_payload(codec: Codec, payload: &[u8]) -> Option<(u32, u32)> {
    match codec {
        Codec::H264 => {
            let sps = h264::Sps::parse(payload::h264::sps(payload)?)?;
            Some((sps.width, sps.height))
        }
        Codec::H265 => {
            let sps = h265::Sps::parse(payload::h265::sps(payload)?)?;
            Some((sps.width, sps.height))
        }
        Codec::Vp8 => payload::vp8::resolution(payload),
        Codec::Vp9 => payload::vp9::resolution(payload),
        Codec::Av1 => payload::av1::resolution(payload),
        Codec::Opus => None,
    }
}
