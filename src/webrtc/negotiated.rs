//! What an offer and an answer agreed on, in the form the media path needs it.

use crate::media::TrackInfo;

/// Header extension ids (RFC 8285) agreed for one media section; `None`: not agreed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExtensionIds {
    /// `urn:ietf:params:rtp-hdrext:sdes:mid` (RFC 9143).
    pub mid: Option<u8>,
    /// `urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id` (RFC 8852).
    pub rid: Option<u8>,
    /// `urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id` (RFC 8852).
    pub repaired_rid: Option<u8>,
    /// `http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time`.
    pub abs_capture_time: Option<u8>,
    /// `http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01`.
    pub transport_cc: Option<u8>,
    /// `http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time`; makes a
    /// viewer's browser estimate bandwidth and send REMB.
    pub abs_send_time: Option<u8>,
    /// `http://www.webrtc.org/experiments/rtp-hdrext/playout-delay`.
    pub playout_delay: Option<u8>,
}

/// An SSRC that the offer announced, and the one that repairs it (RFC 4588, `ssrc-group:FID`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SsrcPair {
    /// Carries the media.
    pub media: u32,
    /// Carries its retransmissions.
    pub rtx: Option<u32>,
}

/// One track that a WHIP publisher will send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceiveTrack {
    /// The media section's `a=mid`.
    pub mid: String,
    /// Codec, parameters and simulcast layers as the hub needs them.
    pub info: TrackInfo,
    /// Payload type of the media.
    pub payload_type: u8,
    /// Payload type of RTX for it, when agreed.
    pub rtx_payload_type: Option<u8>,
    /// The SSRCs of the offer, in its order; empty when it names none (simulcast
    /// by rid, or a publisher without `a=ssrc`): they are learned from packets.
    pub ssrcs: Vec<SsrcPair>,
    /// Agreed header extensions.
    pub extensions: ExtensionIds,
    /// Generic NACK agreed (RFC 4585 §6.2.1).
    pub nack: bool,
    /// Picture loss indication agreed (RFC 4585 §6.3.1).
    pub pli: bool,
}

/// One track that a WHEP viewer will get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SendTrack {
    /// The media section's `a=mid`.
    pub mid: String,
    /// Index of the track in the stream.
    pub track: u8,
    /// Payload type that the viewer gave the codec.
    pub payload_type: u8,
    /// Payload type of RTX for it, when agreed.
    pub rtx_payload_type: Option<u8>,
    /// SSRC of the media, as announced in the answer.
    pub ssrc: u32,
    /// SSRC of its retransmissions, as announced in the answer; used only with
    /// an agreed RTX payload type.
    pub rtx_ssrc: u32,
    /// Agreed header extensions.
    pub extensions: ExtensionIds,
    /// Generic NACK agreed (RFC 4585 §6.2.1).
    pub nack: bool,
    /// Picture loss indication agreed (RFC 4585 §6.3.1).
    pub pli: bool,
}
