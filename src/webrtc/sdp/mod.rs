//! SDP offer and answer (RFC 8829, RFC 9725) for a server that is ICE-lite,
//! takes one BUNDLE on one port, and answers in one round trip.
//!
//! [`Offer::parse`] reads, [`answer_publisher`] (WHIP) and [`answer_viewer`]
//! (WHEP) negotiate and write; what was agreed leaves as
//! [`ReceiveTrack`](super::negotiated::ReceiveTrack) and
//! [`SendTrack`](super::negotiated::SendTrack). [`IceFragment`] is what trickles
//! in later. Nothing here keeps state or allocates more than in proportion to
//! an input of at most [`MAX_SDP_BYTES`].

mod answer;
mod error;
mod extension;
mod format;
mod fragment;
mod line;
mod offer;
mod publisher;
mod section;
mod simulcast;
mod transport;
mod viewer;

#[cfg(test)]
mod tests;

pub use answer::LocalIdentity;
pub use error::{NegotiationError, SdpError};
pub use format::{Feedback, Format};
pub use fragment::IceFragment;
pub use offer::{MAX_SDP_BYTES, MAX_SECTIONS, Offer};
pub use publisher::{CodecOrder, MAX_LAYERS, PublisherAnswer, PublisherRules, answer_publisher};
pub use section::{Direction, Extension, MediaSection, SectionKind, SsrcGroup};
pub use simulcast::Rid;
pub use transport::SetupRole;
pub use viewer::{ViewerAnswer, answer_viewer};
