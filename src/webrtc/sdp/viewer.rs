//! The answer to a WHEP viewer: which of the stream's tracks each of its
//! sections gets, under which of its payload types. The stream is as published;
//! nothing is transcoded, so the viewer must offer what the publisher sends.

use super::answer::{Accepted, LocalIdentity, Source, our_role, write};
use super::error::NegotiationError;
use super::extension::{Known, agree};
use super::format::{
    Feedback, Format, answer_parameters, describe, fitness, list, opus_viewer_parameters,
};
use super::offer::Offer;
use super::section::{Direction, MediaSection};
use crate::codec::Codec;
use crate::media::TrackInfo;
use crate::webrtc::dtls::DtlsRole;
use crate::webrtc::negotiated::SendTrack;

/// The answer to a viewer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewerAnswer {
    /// The SDP, `application/sdp`.
    pub sdp: String,
    /// The tracks to send, in the order of the sections; at least one.
    pub tracks: Vec<SendTrack>,
    /// Who sends the ClientHello.
    pub dtls_role: DtlsRole,
}

/// Negotiates with a viewer. Each audio or video section that it wants to
/// receive gets the stream's next track of the kind that it can decode; all
/// other sections are rejected. `random_ssrc` gives random numbers; SSRCs are
/// made unique within the answer and never 0.
///
/// # Errors
/// [`NegotiationError::NoMedia`] when it wants to receive nothing;
/// [`NegotiationError::NoCommonCodec`] when no track of the stream fits.
pub fn answer_viewer(
    offer: &Offer,
    local: &LocalIdentity,
    stream: &[TrackInfo],
    random_ssrc: &mut impl FnMut() -> u32,
) -> Result<ViewerAnswer, NegotiationError> {
    let dtls_role = our_role(offer);
    let mut tracks: Vec<SendTrack> = Vec::new();
    let mut sections = Vec::with_capacity(offer.sections.len());
    for section in &offer.sections {
        let matched = next_match(section, stream, &tracks);
        let decided = matched.map(|(index, track, format)| {
            let [ssrc, rtx_ssrc] = fresh_ssrcs(&tracks, random_ssrc);
            let accepted = accept(section, track, format, index, ssrc, rtx_ssrc);
            tracks.push(send_track(section, &accepted, index, ssrc, rtx_ssrc));
            accepted
        });
        sections.push(decided);
    }
    if tracks.is_empty() {
        return Err(nothing_fits(offer, stream));
    }
    Ok(ViewerAnswer { sdp: write(offer, local, dtls_role, &sections), tracks, dtls_role })
}

fn wants_media(section: &MediaSection) -> bool {
    section.media_kind().is_some() && section.direction.receives()
}

/// The first track of the section's kind that has no section yet and that one
/// of the offered formats can carry; the best such format.
fn next_match<'a>(
    section: &'a MediaSection,
    stream: &'a [TrackInfo],
    bound: &[SendTrack],
) -> Option<(u8, &'a TrackInfo, &'a Format)> {
    let kind = section.media_kind().filter(|_| wants_media(section))?;
    stream
        .iter()
        .enumerate()
        .filter_map(|(index, track)| Some((u8::try_from(index).ok()?, track)))
        .filter(|(index, track)| {
            track.kind() == kind && bound.iter().all(|sent| sent.track != *index)
        })
        .find_map(|(index, track)| Some((index, track, best_format(section, track)?)))
}

fn best_format<'a>(section: &'a MediaSection, track: &TrackInfo) -> Option<&'a Format> {
    section
        .formats
        .iter()
        .filter(|format| format.codec() == Some(track.codec))
        .filter_map(|format| Some((fitness(track.codec, &track.fmtp, &format.fmtp)?, format)))
        // The first of equals, which is the one the client prefers.
        .min_by_key(|(rank, _)| *rank)
        .map(|(_, format)| format)
}

fn accept<'a>(
    section: &'a MediaSection,
    track: &TrackInfo,
    format: &'a Format,
    index: u8,
    ssrc: u32,
    rtx_ssrc: u32,
) -> Accepted<'a> {
    let supported = Feedback { nack: true, pli: true, fir: true, remb: true, transport_cc: false };
    let feedback = format.feedback.and(supported);
    let extensions = agree(section, false, |known| match known {
        Known::Mid | Known::AbsCaptureTime | Known::PlayoutDelay => true,
        // It serves the estimate behind REMB and nothing else.
        Known::AbsSendTime => feedback.remb,
        Known::Rid | Known::RepairedRid | Known::TransportCc => false,
    });
    let fmtp = match track.codec {
        Codec::Opus => opus_viewer_parameters(&track.fmtp, &format.fmtp),
        codec => answer_parameters(codec, &format.fmtp),
    };
    let rtx = section.rtx_for(format.payload_type);
    let name = format!("{}{index}", track.kind().as_str());
    Accepted {
        direction: Direction::SendOnly,
        format,
        fmtp,
        feedback,
        rtx,
        extensions,
        rids: Vec::new(),
        source: Some(Source { name, ssrc, rtx_ssrc: rtx.map(|_| rtx_ssrc) }),
    }
}

fn send_track(
    section: &MediaSection,
    accepted: &Accepted<'_>,
    track: u8,
    ssrc: u32,
    rtx_ssrc: u32,
) -> SendTrack {
    SendTrack {
        mid: section.mid.clone(),
        track,
        payload_type: accepted.format.payload_type,
        rtx_payload_type: accepted.rtx,
        ssrc,
        rtx_ssrc,
        extensions: accepted.extensions.ids,
        nack: accepted.feedback.nack,
        pli: accepted.feedback.pli,
    }
}

/// Two SSRCs that no other track of the answer has (RFC 3550 §8.1).
fn fresh_ssrcs(tracks: &[SendTrack], random_ssrc: &mut impl FnMut() -> u32) -> [u32; 2] {
    let taken = |ssrc: u32| {
        ssrc == 0 || tracks.iter().any(|track| track.ssrc == ssrc || track.rtx_ssrc == ssrc)
    };
    // Counting up from a taken number ends: fewer than 2^32 are taken.
    let mut ssrc = random_ssrc();
    while taken(ssrc) {
        ssrc = ssrc.wrapping_add(1);
    }
    let mut rtx_ssrc = random_ssrc();
    while taken(rtx_ssrc) || rtx_ssrc == ssrc {
        rtx_ssrc = rtx_ssrc.wrapping_add(1);
    }
    [ssrc, rtx_ssrc]
}

fn nothing_fits(offer: &Offer, stream: &[TrackInfo]) -> NegotiationError {
    let wanted: Vec<_> = offer.sections.iter().filter(|section| wants_media(section)).collect();
    if wanted.is_empty() {
        return NegotiationError::NoMedia { wanted: "receiving" };
    }
    NegotiationError::NoCommonCodec {
        published: list(stream.iter().map(|track| describe(track.codec, &track.fmtp))),
        offered: list(wanted.iter().flat_map(|section| &section.formats).map(Format::describe)),
    }
}
