//! The answer to a WHIP publisher (RFC 9725 §4.2): which of its tracks are
//! taken, in which codec, with which simulcast layers.

use super::answer::{Accepted, LocalIdentity, our_role, write};
use super::error::NegotiationError;
use super::extension::{Known, agree};
use super::format::{Feedback, Format, answer_parameters, is_receivable, list, packetization_mode};
use super::offer::Offer;
use super::section::{Direction, MediaSection};
use super::simulcast::Rid;
use crate::codec::{Codec, MediaKind};
use crate::media::TrackInfo;
use crate::webrtc::dtls::DtlsRole;
use crate::webrtc::negotiated::{ReceiveTrack, SsrcPair};

/// Most simulcast layers of one track; the first of a longer list are taken.
pub const MAX_LAYERS: usize = 4;

/// Whose order of codecs decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CodecOrder {
    /// The offer's: a page says what it wants with `setCodecPreferences`.
    #[default]
    Offer,
    /// That of [`PublisherRules::codecs`].
    Rules,
}

/// What a publisher may send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublisherRules {
    /// The codecs that are taken.
    pub codecs: Vec<Codec>,
    /// Whose order decides between several.
    pub order: CodecOrder,
    /// Agree on transport-wide feedback (`transport-cc`). A browser then sends
    /// no faster than that feedback allows, so the receiver must send it.
    pub transport_cc: bool,
}

impl Default for PublisherRules {
    fn default() -> Self {
        Self { codecs: Codec::ALL.to_vec(), order: CodecOrder::Offer, transport_cc: true }
    }
}

/// The answer to a publisher.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublisherAnswer {
    /// The SDP, `application/sdp`.
    pub sdp: String,
    /// The tracks that will arrive, in the order of the sections: at most one
    /// audio and one video track, at least one of them.
    pub tracks: Vec<ReceiveTrack>,
    /// Who sends the ClientHello.
    pub dtls_role: DtlsRole,
}

/// Negotiates with a publisher: the first usable audio and the first usable
/// video section that it sends are taken, further ones and data channels are
/// rejected; sections that it does not send are answered inactive.
///
/// # Errors
/// [`NegotiationError::NoMedia`] when it sends nothing;
/// [`NegotiationError::NoUsableCodec`] when it sends a kind of media and none of
/// its codecs is taken (half a table on air would be found out too late).
pub fn answer_publisher(
    offer: &Offer,
    local: &LocalIdentity,
    rules: &PublisherRules,
) -> Result<PublisherAnswer, NegotiationError> {
    let dtls_role = our_role(offer);
    let mut tracks: Vec<ReceiveTrack> = Vec::new();
    let mut sections = Vec::with_capacity(offer.sections.len());
    for section in &offer.sections {
        let decided = accept(section, rules).filter(|accepted| {
            let taken = tracks.iter().any(|track| Some(track.info.kind()) == section.media_kind());
            accepted.direction == Direction::Inactive || !taken
        });
        if let Some(accepted) = &decided {
            tracks.extend(receive_track(section, accepted));
        }
        sections.push(decided);
    }
    check_all_kinds_served(offer, &tracks, rules)?;
    Ok(PublisherAnswer { sdp: write(offer, local, dtls_role, &sections), tracks, dtls_role })
}

/// Each kind of media that the client sends must have found a track.
fn check_all_kinds_served(
    offer: &Offer,
    tracks: &[ReceiveTrack],
    rules: &PublisherRules,
) -> Result<(), NegotiationError> {
    for kind in [MediaKind::Video, MediaKind::Audio] {
        let sent = |section: &&MediaSection| {
            section.direction.sends() && section.media_kind() == Some(kind)
        };
        let served = tracks.iter().any(|track| track.info.kind() == kind);
        if !served && offer.sections.iter().any(|section| sent(&section)) {
            let formats = offer.sections.iter().filter(sent).flat_map(|section| &section.formats);
            let supported = rules.codecs.iter().filter(|codec| codec.kind() == kind);
            return Err(NegotiationError::NoUsableCodec {
                kind,
                offered: list(formats.map(Format::describe)),
                supported: list(supported.map(ToString::to_string)),
            });
        }
    }
    if tracks.is_empty() {
        return Err(NegotiationError::NoMedia { wanted: "sending" });
    }
    Ok(())
}

fn accept<'a>(section: &'a MediaSection, rules: &PublisherRules) -> Option<Accepted<'a>> {
    let kind = section.media_kind()?;
    let (format, codec) = choose_format(section, kind, rules)?;
    let sends = section.direction.sends();
    let supported = Feedback {
        nack: true,
        pli: true,
        fir: true,
        remb: false,
        transport_cc: rules.transport_cc,
    };
    let mut feedback = format.feedback.and(supported);
    let transport_cc = feedback.transport_cc;
    let extensions = agree(section, true, |known| match known {
        Known::Mid | Known::Rid | Known::RepairedRid | Known::AbsCaptureTime => true,
        Known::TransportCc => transport_cc,
        Known::AbsSendTime | Known::PlayoutDelay => false,
    });
    // Feedback about sequence numbers that no packet carries would be empty.
    feedback.transport_cc = extensions.ids.transport_cc.is_some();
    // Layers are told apart by the rid in their packets.
    let has_layers = sends && extensions.ids.rid.is_some();
    let rids = if has_layers { layers(section, format.payload_type) } else { Vec::new() };
    Some(Accepted {
        direction: if sends { Direction::RecvOnly } else { Direction::Inactive },
        format,
        fmtp: answer_parameters(codec, &format.fmtp),
        feedback,
        rtx: section.rtx_for(format.payload_type),
        extensions,
        rids,
        source: None,
    })
}

/// The format to take: its codec by the rules' order, and of H.264 one with
/// non-interleaved packets (mode 1) before one with single NAL units.
fn choose_format<'a>(
    section: &'a MediaSection,
    kind: MediaKind,
    rules: &PublisherRules,
) -> Option<(&'a Format, Codec)> {
    let usable = |codec| {
        section.formats.iter().filter(move |format| {
            format.codec() == Some(codec) && is_receivable(codec, &format.fmtp)
        })
    };
    let taken = |codec: &Codec| {
        codec.kind() == kind && rules.codecs.contains(codec) && usable(*codec).next().is_some()
    };
    let codec = match rules.order {
        CodecOrder::Offer => section.formats.iter().filter_map(Format::codec).find(taken),
        CodecOrder::Rules => rules.codecs.iter().copied().find(taken),
    }?;
    let preferred =
        usable(codec).find(|format| codec != Codec::H264 || packetization_mode(&format.fmtp) == 1);
    Some((preferred.or_else(|| usable(codec).next())?, codec))
}

/// The layers in the order of `a=simulcast`; those without an `a=rid` line or
/// not allowed this payload type are left out (RFC 8853 §5.3).
fn layers(section: &MediaSection, payload_type: u8) -> Vec<&Rid> {
    section
        .simulcast
        .iter()
        .filter_map(|id| section.rids.iter().find(|rid| rid.id == *id))
        .filter(|rid| rid.allows(payload_type))
        .take(MAX_LAYERS)
        .collect()
}

fn receive_track(section: &MediaSection, accepted: &Accepted<'_>) -> Option<ReceiveTrack> {
    if accepted.direction == Direction::Inactive {
        return None;
    }
    let codec = accepted.format.codec()?;
    let mut rids: Vec<String> = accepted.rids.iter().map(|rid| rid.id.clone()).collect();
    let ssrcs = if rids.is_empty() { announced_ssrc(section) } else { Vec::new() };
    if rids.is_empty() {
        rids.push(String::new());
    }
    Some(ReceiveTrack {
        mid: section.mid.clone(),
        info: TrackInfo {
            codec,
            channels: if codec == Codec::Opus { 2 } else { 0 },
            fmtp: accepted.format.fmtp.clone(),
            rids,
        },
        payload_type: accepted.format.payload_type,
        rtx_payload_type: accepted.rtx,
        ssrcs,
        extensions: accepted.extensions.ids,
        nack: accepted.feedback.nack,
        pli: accepted.feedback.pli,
    })
}

/// The first SSRC that carries media, with its RTX. Further ones are FEC, or
/// the layers of a simulcast without rids, of which the first is taken.
fn announced_ssrc(section: &MediaSection) -> Vec<SsrcPair> {
    let repair = |ssrc: &u32| {
        section.ssrc_groups.iter().any(|group| {
            matches!(group.semantics.as_str(), "FID" | "FEC-FR" | "FEC")
                && group.ssrcs.iter().skip(1).any(|repair| repair == ssrc)
        })
    };
    let grouped = section.ssrc_groups.iter().filter_map(|group| group.ssrcs.first());
    let mut announced = section.ssrcs.iter().chain(grouped);
    let Some(media) = announced.find(|ssrc| !repair(ssrc)).copied() else { return Vec::new() };
    let rtx = section.ssrc_groups.iter().find_map(|group| match group.ssrcs.as_slice() {
        [first, rtx] if group.semantics == "FID" && *first == media => Some(*rtx),
        _ => None,
    });
    vec![SsrcPair { media, rtx }]
}
