//! The RTP header extensions that the gateway knows (RFC 8285), and which of
//! them an answer takes.

use super::section::{Direction, Extension, MediaSection};
use crate::webrtc::negotiated::ExtensionIds;

/// An extension that the gateway reads or writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    Mid,
    Rid,
    RepairedRid,
    AbsCaptureTime,
    TransportCc,
    AbsSendTime,
    PlayoutDelay,
}

impl Known {
    const ALL: [Self; 7] = [
        Self::Mid,
        Self::Rid,
        Self::RepairedRid,
        Self::AbsCaptureTime,
        Self::TransportCc,
        Self::AbsSendTime,
        Self::PlayoutDelay,
    ];

    const fn uri(self) -> &'static str {
        match self {
            Self::Mid => "urn:ietf:params:rtp-hdrext:sdes:mid",
            Self::Rid => "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id",
            Self::RepairedRid => "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id",
            Self::AbsCaptureTime => "http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time",
            Self::TransportCc => {
                "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01"
            }
            Self::AbsSendTime => "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time",
            Self::PlayoutDelay => "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay",
        }
    }

    fn slot(self, ids: &mut ExtensionIds) -> &mut Option<u8> {
        match self {
            Self::Mid => &mut ids.mid,
            Self::Rid => &mut ids.rid,
            Self::RepairedRid => &mut ids.repaired_rid,
            Self::AbsCaptureTime => &mut ids.abs_capture_time,
            Self::TransportCc => &mut ids.transport_cc,
            Self::AbsSendTime => &mut ids.abs_send_time,
            Self::PlayoutDelay => &mut ids.playout_delay,
        }
    }
}

/// The extensions agreed for a section.
#[derive(Debug, Default)]
pub(super) struct Agreed<'a> {
    pub ids: ExtensionIds,
    /// As offered, in the offer's order; to be answered.
    pub lines: Vec<&'a Extension>,
}

/// Takes the offered extensions that are `wanted`; an offer may restrict one to a
/// direction, so it matters whether the client is the one who sends packets.
pub(super) fn agree<'a>(
    section: &'a MediaSection,
    client_sends: bool,
    wanted: impl Fn(Known) -> bool,
) -> Agreed<'a> {
    let mut agreed = Agreed::default();
    for extension in &section.extensions {
        let direction = extension.direction.unwrap_or_default();
        let flows = if client_sends { direction.sends() } else { direction.receives() };
        let known = Known::ALL.into_iter().find(|known| known.uri() == extension.uri);
        let Some(known) = known.filter(|known| flows && wanted(*known)) else { continue };
        let slot = known.slot(&mut agreed.ids);
        // One URI may be offered under two ids; the first is taken.
        if slot.is_none() {
            *slot = Some(extension.id);
            agreed.lines.push(extension);
        }
    }
    agreed
}

/// The suffix of the id in the answer: the offered direction seen from here.
pub(super) const fn answered_direction(offered: Option<Direction>) -> &'static str {
    match offered {
        Some(Direction::SendOnly) => "/recvonly",
        Some(Direction::RecvOnly) => "/sendonly",
        Some(Direction::Inactive) => "/inactive",
        Some(Direction::SendRecv) | None => "",
    }
}
