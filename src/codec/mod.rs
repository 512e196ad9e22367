//! What the gateway must know of each codec: its name in SDP, its clock, its
//! parameter sets and its random access points. Nothing here encodes or decodes.

use std::fmt;

pub use nal::units as nal_units;

mod bits;
mod nal;

pub mod av1;
pub mod h264;
pub mod h264_profile;
pub mod h265;
pub mod opus;
pub mod vp8;
pub mod vp9;

#[cfg(test)]
mod tests;

/// Audio or video.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MediaKind {
    /// Sound.
    Audio,
    /// Picture.
    Video,
}

impl MediaKind {
    /// The media name of an SDP `m=` line and the value of metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Audio => "audio",
            Self::Video => "video",
        }
    }
}

/// The codecs that pass through the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Codec {
    /// H.264 / AVC, RFC 6184.
    H264,
    /// H.265 / HEVC, RFC 7798.
    H265,
    /// VP8, RFC 7741.
    Vp8,
    /// VP9, RFC 9628.
    Vp9,
    /// AV1, the AOM RTP payload specification.
    Av1,
    /// Opus, RFC 7587.
    Opus,
}

/// Pixels of a picture's side. The widest fields of all the codecs have 16 bits
/// (AV1, VP9); a parameter set that claims more is broken or hostile.
const PICTURE_SIDE: std::ops::RangeInclusive<u32> = 1..=1 << 16;

impl Codec {
    /// Every codec, in the order in which the gateway prefers them.
    pub const ALL: [Self; 6] =
        [Self::H264, Self::Vp8, Self::Vp9, Self::Av1, Self::H265, Self::Opus];

    /// Audio or video.
    pub const fn kind(self) -> MediaKind {
        match self {
            Self::Opus => MediaKind::Audio,
            _ => MediaKind::Video,
        }
    }

    /// RTP ticks per second.
    pub const fn clock_rate(self) -> u32 {
        match self {
            Self::Opus => 48_000,
            _ => 90_000,
        }
    }

    /// The encoding name of `a=rtpmap`, as its payload specification writes it.
    pub const fn encoding_name(self) -> &'static str {
        match self {
            Self::H264 => "H264",
            Self::H265 => "H265",
            Self::Vp8 => "VP8",
            Self::Vp9 => "VP9",
            Self::Av1 => "AV1",
            Self::Opus => "opus",
        }
    }

    /// The codec with this encoding name; names compare without case (RFC 4566 §6).
    pub fn from_encoding_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|codec| codec.encoding_name().eq_ignore_ascii_case(name))
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.encoding_name())
    }
}

/// Width and height in pixels of a key frame in the format of
/// [`Frame::data`](crate::media::Frame::data); `None` when the frame does not tell.
pub fn resolution(codec: Codec, data: &[u8]) -> Option<(u32, u32)> {
    match codec {
        Codec::H264 => h264_sps(data).map(|sps| (sps.width, sps.height)),
        Codec::H265 => h265_sps(data).map(|sps| (sps.width, sps.height)),
        Codec::Vp8 => vp8::resolution(data),
        Codec::Vp9 => vp9::resolution(data),
        Codec::Av1 => av1::SequenceHeader::find(data).map(|header| (header.width, header.height)),
        Codec::Opus => None,
    }
}

/// The codec string (RFC 6381) for playlists and `MediaSource`, out of a key
/// frame in the format of [`Frame::data`](crate::media::Frame::data).
pub fn codec_string(codec: Codec, data: &[u8]) -> Option<String> {
    match codec {
        Codec::H264 => h264_sps(data).map(|sps| sps.codec_string()),
        Codec::H265 => h265_sps(data).map(|sps| sps.codec_string()),
        Codec::Vp8 => vp8::resolution(data).map(|_| "vp8".to_owned()),
        Codec::Vp9 => vp9::KeyframeHeader::parse(data).map(|header| header.codec_string()),
        Codec::Av1 => av1::SequenceHeader::find(data).map(|header| header.codec_string()),
        Codec::Opus => Some("opus".to_owned()),
    }
}

fn h264_sps(data: &[u8]) -> Option<h264::Sps> {
    nal::units(data).find_map(h264::Sps::parse)
}

fn h265_sps(data: &[u8]) -> Option<h265::Sps> {
    nal::units(data).find_map(h265::Sps::parse)
}
