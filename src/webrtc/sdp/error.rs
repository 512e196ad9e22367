//! What can be wrong with an offer (`SdpError`, an HTTP 400) and why a sound
//! offer may still not be answered (`NegotiationError`, an HTTP 406 or 422).
//! The words are for the person who wrote the client.

use crate::codec::MediaKind;

/// Why a body is not an offer that this server can read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SdpError {
    /// Longer than [`MAX_SDP_BYTES`](super::MAX_SDP_BYTES).
    #[error("the description is longer than {} bytes", super::MAX_SDP_BYTES)]
    TooLarge,
    /// Does not begin with `v=0`.
    #[error("not a session description: the first line must be v=0")]
    NotSdp,
    /// A line breaks the grammar; lines count from 1.
    #[error("line {line}: {what}")]
    Malformed {
        /// The line, counted from 1.
        line: usize,
        /// What is wrong with it.
        what: &'static str,
    },
    /// More than [`MAX_SECTIONS`](super::MAX_SECTIONS) `m=` lines.
    #[error("more than {} media sections", super::MAX_SECTIONS)]
    TooManySections,
    /// No `m=` line at all.
    #[error("no media section")]
    NoSections,
    /// Several media sections that are not in one BUNDLE group (RFC 9143).
    #[error("the media sections are not in a BUNDLE group; this server has one port for all media")]
    NotBundled,
    /// Two sections with one `a=mid` (RFC 5888 §4).
    #[error("two media sections have the same a=mid")]
    DuplicateMid,
    /// Bundled sections give different values for what they must share.
    #[error("the bundled media sections do not agree on {0}")]
    TransportsDisagree(&'static str),
    /// No `a=ice-ufrag` or no `a=ice-pwd`.
    #[error("a=ice-ufrag and a=ice-pwd are required")]
    NoIceCredentials,
    /// An ICE-lite client: neither side would ever send a check.
    #[error(
        "a=ice-lite in the offer: this server is ICE-lite itself, the client must be a full agent"
    )]
    IceLite,
    /// No `a=fingerprint` (RFC 8122).
    #[error("a=fingerprint is required")]
    NoFingerprint,
    /// Fingerprints, but none with SHA-256 (RFC 8122 §5).
    #[error("no a=fingerprint with sha-256")]
    NoSha256Fingerprint,
    /// An RTP section without `a=rtcp-mux` (RFC 5761).
    #[error("a=rtcp-mux is required in every media section; this server has no RTCP port")]
    NoRtcpMux,
    /// One header extension id with two meanings inside a BUNDLE (RFC 9143 §10).
    #[error("header extension id {0} has two meanings in the BUNDLE group")]
    ExtensionConflict(u8),
    /// One payload type with two meanings inside a BUNDLE (RFC 9143 §9).
    #[error("payload type {0} has two meanings in the BUNDLE group")]
    PayloadTypeConflict(u8),
}

/// Why an offer cannot be answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NegotiationError {
    /// No audio or video section has a direction that this side can serve.
    #[error("the offer has no {wanted} audio or video section")]
    NoMedia {
        /// The direction that was looked for: `sending` or `receiving`.
        wanted: &'static str,
    },
    /// A publisher sends this kind of media in none of the supported codecs.
    #[error("no usable {} codec: offered {offered}; supported {supported}", kind.as_str())]
    NoUsableCodec {
        /// The kind of media.
        kind: MediaKind,
        /// What the offer has, in its order.
        offered: String,
        /// What the server takes.
        supported: String,
    },
    /// A viewer can decode none of the stream's tracks.
    #[error("no codec in common: the table is published in {published}; the offer has {offered}")]
    NoCommonCodec {
        /// The codecs of the stream.
        published: String,
        /// What the offer has, in its order.
        offered: String,
    },
}
