//! Writes an answer (RFC 8829 §5.3): the same sections in the same order, each
//! accepted or rejected with port 0 (RFC 3264 §6). One function decides nothing;
//! it writes what the publisher's or the viewer's negotiation decided.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use super::extension::{Agreed, answered_direction};
use super::format::{Feedback, Format};
use super::offer::Offer;
use super::section::{Direction, MediaSection, SectionKind};
use super::simulcast::Rid;
use super::transport::SetupRole;
use crate::webrtc::dtls::DtlsRole;
use crate::webrtc::ice_lite::IceCredentials;

/// What this side writes of itself into an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalIdentity {
    /// ICE credentials of the session; the ufrag finds the peer on the media port.
    pub ice: IceCredentials,
    /// SHA-256 of the server's DTLS certificate.
    pub fingerprint: [u8; 32],
    /// Where the media port can be reached: concrete addresses, best first.
    pub candidates: Vec<SocketAddr>,
    /// The `o=` session id; below 2^63, as some parsers take it for signed.
    pub session_id: u64,
    /// RTCP canonical name of what is sent (RFC 3550 §6.5.1).
    pub cname: String,
}

/// The DTLS role that the offer leaves for this side (RFC 8842 §5.3).
pub(super) const fn our_role(offer: &Offer) -> DtlsRole {
    match offer.setup {
        SetupRole::ActPass | SetupRole::Active => DtlsRole::Server,
        SetupRole::Passive => DtlsRole::Client,
    }
}

const fn setup_of(role: DtlsRole) -> &'static str {
    match role {
        DtlsRole::Server => "passive",
        DtlsRole::Client => "active",
    }
}

/// What is agreed for one section.
#[derive(Debug)]
pub(super) struct Accepted<'a> {
    pub direction: Direction,
    pub format: &'a Format,
    pub fmtp: String,
    pub feedback: Feedback,
    pub rtx: Option<u8>,
    pub extensions: Agreed<'a>,
    /// Simulcast layers that are received.
    pub rids: Vec<&'a Rid>,
    /// What this side sends; `None` when it sends nothing.
    pub source: Option<Source>,
}

/// What this side sends in a section.
#[derive(Debug)]
pub(super) struct Source {
    /// Names the track inside the stream.
    pub name: String,
    pub ssrc: u32,
    /// With RTX only.
    pub rtx_ssrc: Option<u32>,
}

/// Writes the answer; `sections` are the decisions for the offer's sections in
/// order, `None` rejects.
pub(super) fn write(
    offer: &Offer,
    local: &LocalIdentity,
    role: DtlsRole,
    sections: &[Option<Accepted<'_>>],
) -> String {
    let mut out = Lines(String::with_capacity(2048));
    out.session(offer, local, sections);
    let mut candidates = local.candidates.as_slice();
    for (index, section) in offer.sections.iter().enumerate() {
        match sections.get(index) {
            Some(Some(accepted)) => {
                out.accepted(section, accepted, local, role);
                // The first section carries the transport of the BUNDLE (RFC 9143 §7.3.3).
                if !candidates.is_empty() {
                    write_candidates(&mut out.0, std::mem::take(&mut candidates));
                }
            }
            _ => out.rejected(section),
        }
    }
    out.0
}

/// Lines with CRLF, into a string.
struct Lines(String);

impl Lines {
    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a string does not fail.
        let _ = self.0.write_fmt(line);
        self.0.push_str("\r\n");
    }

    fn session(&mut self, offer: &Offer, local: &LocalIdentity, sections: &[Option<Accepted<'_>>]) {
        self.line(format_args!("v=0"));
        self.line(format_args!("o=- {} 1 IN IP4 127.0.0.1", local.session_id));
        self.line(format_args!("s=-"));
        self.line(format_args!("t=0 0"));
        let accepted = offer.sections.iter().zip(sections).filter(|(_, decided)| decided.is_some());
        let mids: Vec<&str> = accepted.map(|(section, _)| section.mid.as_str()).collect();
        if !offer.bundle.is_empty() {
            self.line(format_args!("a=group:BUNDLE {}", mids.join(" ")));
        }
        if offer.extmap_allow_mixed {
            self.line(format_args!("a=extmap-allow-mixed"));
        }
        self.line(format_args!("a=ice-lite"));
        // All candidates are here, but the client's may trickle in (RFC 9725 §4.3.2).
        self.line(format_args!("a=ice-options:ice2 trickle"));
    }

    fn rejected(&mut self, section: &MediaSection) {
        let MediaSection { media, protocol, first_format, .. } = section;
        self.line(format_args!("m={media} 0 {protocol} {first_format}"));
        self.line(format_args!("c=IN IP4 0.0.0.0"));
        self.mid(section);
        if section.kind != SectionKind::Application {
            self.line(format_args!("a=inactive"));
        }
    }

    fn accepted(
        &mut self,
        section: &MediaSection,
        accepted: &Accepted<'_>,
        local: &LocalIdentity,
        role: DtlsRole,
    ) {
        let payload_type = accepted.format.payload_type;
        let rtx = accepted.rtx.map(|rtx| format!(" {rtx}")).unwrap_or_default();
        let MediaSection { media, protocol, .. } = section;
        self.line(format_args!("m={media} 9 {protocol} {payload_type}{rtx}"));
        self.line(format_args!("c=IN IP4 0.0.0.0"));
        self.line(format_args!("a=ice-ufrag:{}", local.ice.ufrag));
        self.line(format_args!("a=ice-pwd:{}", local.ice.pwd));
        self.line(format_args!("a=fingerprint:sha-256 {}", hex_with_colons(&local.fingerprint)));
        self.line(format_args!("a=setup:{}", setup_of(role)));
        self.mid(section);
        if section.extmap_allow_mixed {
            self.line(format_args!("a=extmap-allow-mixed"));
        }
        for extension in &accepted.extensions.lines {
            let direction = answered_direction(extension.direction);
            self.line(format_args!("a=extmap:{}{direction} {}", extension.id, extension.uri));
        }
        self.line(format_args!("a={}", accepted.direction));
        if let Some(source) = &accepted.source {
            self.line(format_args!("a=msid:railbird {}", source.name));
        }
        self.line(format_args!("a=rtcp-mux"));
        if section.rtcp_rsize {
            self.line(format_args!("a=rtcp-rsize"));
        }
        self.formats(accepted);
        self.simulcast(&accepted.rids);
        if let Some(source) = &accepted.source {
            self.source(source, &local.cname);
        }
    }

    fn mid(&mut self, section: &MediaSection) {
        if !section.mid.is_empty() {
            self.line(format_args!("a=mid:{}", section.mid));
        }
    }

    fn formats(&mut self, accepted: &Accepted<'_>) {
        let Format { payload_type, encoding, clock_rate, channels, .. } = accepted.format;
        let channels = if *channels > 1 { format!("/{channels}") } else { String::new() };
        self.line(format_args!("a=rtpmap:{payload_type} {encoding}/{clock_rate}{channels}"));
        for value in accepted.feedback.values() {
            self.line(format_args!("a=rtcp-fb:{payload_type} {value}"));
        }
        if !accepted.fmtp.is_empty() {
            self.line(format_args!("a=fmtp:{payload_type} {}", accepted.fmtp));
        }
        if let Some(rtx) = accepted.rtx {
            self.line(format_args!("a=rtpmap:{rtx} rtx/{clock_rate}"));
            self.line(format_args!("a=fmtp:{rtx} apt={payload_type}"));
        }
    }

    fn simulcast(&mut self, rids: &[&Rid]) {
        for rid in rids {
            let separator = if rid.restrictions.is_empty() { "" } else { " " };
            self.line(format_args!("a=rid:{} recv{separator}{}", rid.id, rid.restrictions));
        }
        if !rids.is_empty() {
            let ids: Vec<&str> = rids.iter().map(|rid| rid.id.as_str()).collect();
            self.line(format_args!("a=simulcast:recv {}", ids.join(";")));
        }
    }

    fn source(&mut self, source: &Source, cname: &str) {
        if let Some(rtx) = source.rtx_ssrc {
            self.line(format_args!("a=ssrc-group:FID {} {rtx}", source.ssrc));
        }
        for ssrc in std::iter::once(source.ssrc).chain(source.rtx_ssrc) {
            self.line(format_args!("a=ssrc:{ssrc} cname:{cname}"));
        }
    }
}

/// Host candidates for RTP and RTCP on one UDP port (RFC 8839 §5.1). The caller's
/// order is the preference; IPv4 is listed first because simple clients (ffmpeg)
/// look at the first line only and understand no IPv6.
pub(super) fn write_candidates(out: &mut String, candidates: &[SocketAddr]) {
    let mut ranked: Vec<(usize, IpAddr, u16)> = candidates
        .iter()
        .enumerate()
        .map(|(rank, address)| (rank, address.ip().to_canonical(), address.port()))
        .collect();
    ranked.sort_by_key(|(rank, ip, _)| (ip.is_ipv6(), *rank));
    for (rank, ip, port) in ranked {
        let priority = host_priority(rank);
        let foundation = rank + 1;
        let _ = write!(out, "a=candidate:{foundation} 1 udp {priority} {ip} {port} typ host\r\n");
    }
    out.push_str("a=end-of-candidates\r\n");
}

/// RFC 8445 §5.1.2.1: type preference 126 of a host candidate, local preference
/// falling from 65535, component 1.
fn host_priority(rank: usize) -> u32 {
    let local = 65_535 - u32::from(u16::try_from(rank).unwrap_or(u16::MAX));
    (126 << 24) + (local << 8) + 255
}

fn hex_with_colons(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
}
