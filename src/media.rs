//! The two views of a track: packets and frames. Both are immutable and shared.

use std::time::Instant;

use bytes::Bytes;

use crate::codec::{Codec, MediaKind};
use crate::time::Utc;

/// Which layer of which track of a stream. Indexes into [`TrackInfo`] lists;
/// they do not change while the stream lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LayerId {
    /// Index of the track in the stream.
    pub track: u8,
    /// Index of the simulcast layer in the track; 0 when there is only one.
    pub layer: u8,
}

/// What a publisher announced for one track.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackInfo {
    /// The codec; it does not change while the stream lives.
    pub codec: Codec,
    /// Audio channels (2 for Opus, RFC 7587 §7); 0 for video.
    pub channels: u8,
    /// The format parameters as published, e.g.
    /// `level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f`.
    pub fmtp: String,
    /// The `rid`s of the simulcast layers in the publisher's order; one empty
    /// string when the track is not simulcast. Never empty.
    pub rids: Vec<String>,
}

impl TrackInfo {
    /// Audio or video.
    pub const fn kind(&self) -> MediaKind {
        self.codec.kind()
    }
}

/// One RTP payload and what is common to all its viewers. What differs between
/// viewers (SSRC, sequence number, header extensions, key) is added when it is sealed.
#[derive(Clone, Debug)]
pub struct Packet {
    /// Place in the layer's own order, extended to 64 bits. Packets come in
    /// rising order; a hole is a packet that was lost for good.
    pub seq: u64,
    /// RTP timestamp in ticks of the codec's clock, extended to 64 bits.
    pub timestamp: u64,
    /// The RTP marker bit: last packet of a video frame (RFC 3550 §5.1).
    pub marker: bool,
    /// True on each packet of an access unit that starts a GOP.
    pub keyframe: bool,
    /// When the source captured what is in it, on the UTC clock.
    pub capture: Utc,
    /// When it reached this process.
    pub received: Instant,
    /// The RTP payload, without header, header extensions and padding.
    pub payload: Bytes,
}

/// One access unit: everything that is decoded at one instant.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Presentation time in ticks of the codec's clock, extended to 64 bits.
    pub pts: u64,
    /// Decode time in ticks; equals `pts` where the source does not reorder.
    pub dts: u64,
    /// A decoder may start here.
    pub keyframe: bool,
    /// Frames before this one were lost: it may not decode unless `keyframe`.
    pub discontinuity: bool,
    /// When the source captured it, on the UTC clock.
    pub capture: Utc,
    /// When its last byte reached this process.
    pub received: Instant,
    /// The coded bytes. H264/H265: NAL units, each after its length in four
    /// bytes big-endian, parameter sets left in place. AV1: OBUs with size
    /// fields, without temporal delimiters. VP8/VP9: the frame (VP9: the
    /// superframe). Opus: the packet.
    pub data: Bytes,
}
