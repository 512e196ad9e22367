//! An SDP offer as the negotiation needs it (RFC 8829 §5.8, RFC 9143). Hostile
//! text is normal: size first, then lines, then what the whole must satisfy.

use super::error::SdpError;
use super::line::{Attribute, Line, lines};
use super::section::{Direction, Extension, MediaSection, parse_extension};
use super::transport::{SetupRole, TransportAttributes};
use crate::webrtc::ice_lite::IceCredentials;

/// Longest description that is looked at, in bytes; Chromium's offer of one
/// audio and one video section has 8 KiB.
pub const MAX_SDP_BYTES: usize = 64 * 1024;
/// Most media sections of one description.
pub const MAX_SECTIONS: usize = 64;
/// Session-level header extensions that are kept.
const MAX_SESSION_EXTENSIONS: usize = 16;

/// A parsed offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The client's ICE credentials.
    pub ice: IceCredentials,
    /// SHA-256 of the client's DTLS certificate.
    pub fingerprint: [u8; 32],
    /// The DTLS role that the client offers.
    pub setup: SetupRole,
    /// The mids of the BUNDLE group in its order; empty without one.
    pub bundle: Vec<String>,
    /// `a=extmap-allow-mixed` at session level.
    pub extmap_allow_mixed: bool,
    /// The media sections in order; an answer has as many.
    pub sections: Vec<MediaSection>,
}

/// What stands above the first `m=` line.
#[derive(Default)]
struct Session {
    transport: TransportAttributes,
    direction: Direction,
    bundle: Vec<String>,
    extensions: Vec<Extension>,
    extmap_allow_mixed: bool,
    ice_lite: bool,
}

impl Session {
    fn take(&mut self, attribute: Attribute<'_>) -> Result<(), &'static str> {
        match attribute.name {
            "group" if self.bundle.is_empty() => {
                if let Some(mids) = attribute.value.strip_prefix("BUNDLE ") {
                    let mids = mids.split_ascii_whitespace().take(MAX_SECTIONS);
                    self.bundle = mids.map(str::to_owned).collect();
                }
            }
            "ice-lite" => self.ice_lite = true,
            "extmap-allow-mixed" => self.extmap_allow_mixed = true,
            "extmap" if self.extensions.len() < MAX_SESSION_EXTENSIONS => {
                self.extensions.extend(parse_extension(attribute.value));
            }
            name => match Direction::from_name(name) {
                Some(direction) => self.direction = direction,
                None => self.transport.take(attribute)?,
            },
        }
        Ok(())
    }
}

impl Offer {
    /// Parses and checks an offer.
    ///
    /// # Errors
    /// The first thing found wrong; see [`SdpError`].
    pub fn parse(text: &str) -> Result<Self, SdpError> {
        if text.len() > MAX_SDP_BYTES {
            return Err(SdpError::TooLarge);
        }
        let (session, mut sections) = read(text)?;
        if sections.is_empty() {
            return Err(SdpError::NoSections);
        }
        if session.ice_lite {
            return Err(SdpError::IceLite);
        }
        mark_bundled(&mut sections, &session.bundle)?;
        check_shared_numbers(&sections)?;
        let transport = join_transports(&sections, &session.transport)?;
        let fingerprint = match transport.sha256 {
            Some(digest) => digest,
            None if transport.other_hash => return Err(SdpError::NoSha256Fingerprint),
            None => return Err(SdpError::NoFingerprint),
        };
        Ok(Self {
            ice: transport.credentials().ok_or(SdpError::NoIceCredentials)?,
            fingerprint,
            setup: transport.setup.unwrap_or_default(),
            bundle: session.bundle,
            extmap_allow_mixed: session.extmap_allow_mixed,
            sections,
        })
    }
}

fn read(text: &str) -> Result<(Session, Vec<MediaSection>), SdpError> {
    let mut session = Session::default();
    let mut sections: Vec<MediaSection> = Vec::new();
    let mut lines = lines(text);
    match lines.next() {
        Some((_, Ok(Line::Other(b'v', value)))) if value.trim() == "0" => {}
        _ => return Err(SdpError::NotSdp),
    }
    for (number, line) in lines {
        let malformed = |what| SdpError::Malformed { line: number, what };
        match line.map_err(malformed)? {
            Line::Media(_) if sections.len() == MAX_SECTIONS => {
                return Err(SdpError::TooManySections);
            }
            Line::Media(value) => {
                let mut section =
                    MediaSection::parse(value, session.direction).map_err(malformed)?;
                section.extensions.clone_from(&session.extensions);
                sections.push(section);
            }
            Line::Attribute(attribute) => match sections.last_mut() {
                Some(section) => section.take(attribute).map_err(malformed)?,
                None => session.take(attribute).map_err(malformed)?,
            },
            Line::Other(..) => {}
        }
    }
    Ok((session, sections))
}

/// Sections outside the group would need a port of their own; the answer
/// rejects them. An offer of a single section needs no group.
fn mark_bundled(sections: &mut [MediaSection], bundle: &[String]) -> Result<(), SdpError> {
    for (index, section) in sections.iter().enumerate() {
        let earlier = sections.iter().take(index);
        if !section.mid.is_empty() && earlier.into_iter().any(|other| other.mid == section.mid) {
            return Err(SdpError::DuplicateMid);
        }
    }
    let live = sections.iter().filter(|section| !section.is_rejected()).count();
    if bundle.is_empty() && live > 1 {
        return Err(SdpError::NotBundled);
    }
    for section in sections {
        section.bundled = match bundle {
            [] => !section.is_rejected(),
            group => !section.mid.is_empty() && group.contains(&section.mid),
        };
        if section.media_kind().is_some() && !section.rtcp_mux && !section.bundle_only {
            return Err(SdpError::NoRtcpMux);
        }
    }
    Ok(())
}

fn join_transports(
    sections: &[MediaSection],
    session: &TransportAttributes,
) -> Result<TransportAttributes, SdpError> {
    let mut joined = TransportAttributes::default();
    for section in sections.iter().filter(|section| section.bundled && !section.is_rejected()) {
        joined.join(&section.transport.or(session))?;
    }
    Ok(joined)
}

/// Packets of all bundled sections arrive on one port, so an extension id or a
/// payload type must mean the same in each of them (RFC 9143 §9 and §10).
fn check_shared_numbers(sections: &[MediaSection]) -> Result<(), SdpError> {
    let mut extensions: [Option<&str>; 15] = [None; 15];
    let mut formats: [Option<(&str, u32)>; 128] = [None; 128];
    for section in sections.iter().filter(|section| section.bundled && !section.is_rejected()) {
        for extension in &section.extensions {
            let Some(slot) = extensions.get_mut(usize::from(extension.id)) else { continue };
            if slot.get_or_insert(&extension.uri) != &extension.uri {
                return Err(SdpError::ExtensionConflict(extension.id));
            }
        }
        for format in section.formats.iter().filter(|format| !format.encoding.is_empty()) {
            let Some(slot) = formats.get_mut(usize::from(format.payload_type)) else { continue };
            let meaning = (format.encoding.as_str(), format.clock_rate);
            if *slot.get_or_insert(meaning) != meaning {
                return Err(SdpError::PayloadTypeConflict(format.payload_type));
            }
        }
    }
    Ok(())
}
