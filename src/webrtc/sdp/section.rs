//! One media section of an offer: its `m=` line and the attributes below it
//! (RFC 8866 §5.14, RFC 8829 §5.2). What is optional and malformed is passed
//! over; what the session cannot do without is an error with its line.

use std::fmt;

use super::format::Format;
use super::line::{Attribute, is_token};
use super::simulcast::{Rid, parse_rid, parse_send_streams};
use super::transport::TransportAttributes;
use crate::codec::MediaKind;

/// Header extensions, SSRCs, SSRC groups and rids kept of one section; more are
/// passed over, as no client has so many.
const MAX_ITEMS: usize = 64;
/// Bytes of an `a=mid`: a UUID fits.
const MAX_MID_BYTES: usize = 64;

/// What a media section is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SectionKind {
    /// `m=audio`.
    Audio,
    /// `m=video`.
    Video,
    /// `m=application`: data channels.
    Application,
    /// Anything else.
    Other,
}

/// Who sends, as the side that wrote it sees it (RFC 8866 §6.7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    /// Both sides.
    #[default]
    SendRecv,
    /// The writer only.
    SendOnly,
    /// The other side only.
    RecvOnly,
    /// Nobody.
    Inactive,
}

impl Direction {
    pub(super) fn from_name(name: &str) -> Option<Self> {
        match name {
            "sendrecv" => Some(Self::SendRecv),
            "sendonly" => Some(Self::SendOnly),
            "recvonly" => Some(Self::RecvOnly),
            "inactive" => Some(Self::Inactive),
            _ => None,
        }
    }

    /// The attribute's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SendRecv => "sendrecv",
            Self::SendOnly => "sendonly",
            Self::RecvOnly => "recvonly",
            Self::Inactive => "inactive",
        }
    }

    /// Whether the writer sends.
    pub const fn sends(self) -> bool {
        matches!(self, Self::SendRecv | Self::SendOnly)
    }

    /// Whether the writer receives.
    pub const fn receives(self) -> bool {
        matches!(self, Self::SendRecv | Self::RecvOnly)
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One `a=extmap` (RFC 8285 §8).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extension {
    /// The id in the packet.
    pub id: u8,
    /// The direction, when the offer restricts it.
    pub direction: Option<Direction>,
    /// What the extension is.
    pub uri: String,
}

/// One `a=ssrc-group` (RFC 5576 §4.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SsrcGroup {
    /// `FID`, `SIM`, `FEC-FR`, …
    pub semantics: String,
    /// The SSRCs, in the group's order.
    pub ssrcs: Vec<u32>,
}

/// One media section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaSection {
    /// What it is for.
    pub kind: SectionKind,
    /// The media name as written; an answer repeats it.
    pub media: String,
    /// 0: the offer itself rejects the section, unless it is `bundle_only`.
    pub port: u16,
    /// The protocol as written, such as `UDP/TLS/RTP/SAVPF`.
    pub protocol: String,
    /// The first format as written; an answer that rejects repeats it.
    pub first_format: String,
    /// The `a=mid`; empty when there is none.
    pub mid: String,
    /// Who sends.
    pub direction: Direction,
    /// The payload types of an RTP section in the offer's order.
    pub formats: Vec<Format>,
    /// Header extensions.
    pub extensions: Vec<Extension>,
    /// Each SSRC once, in the order of the `a=ssrc` lines.
    pub ssrcs: Vec<u32>,
    /// SSRC groups.
    pub ssrc_groups: Vec<SsrcGroup>,
    /// `a=msid`: `<stream> <track>`; empty when there is none.
    pub msid: String,
    /// `a=rid` lines with direction `send` (RFC 8851).
    pub rids: Vec<Rid>,
    /// The ids of the streams of `a=simulcast:send` (RFC 8853), in order; of
    /// alternatives the first.
    pub simulcast: Vec<String>,
    /// `a=rtcp-mux`.
    pub rtcp_mux: bool,
    /// `a=rtcp-rsize`.
    pub rtcp_rsize: bool,
    /// `a=bundle-only`.
    pub bundle_only: bool,
    /// `a=extmap-allow-mixed` in this section.
    pub extmap_allow_mixed: bool,
    /// It is in the BUNDLE group, or it is the only section.
    pub bundled: bool,
    pub(super) transport: TransportAttributes,
}

impl MediaSection {
    /// Reads `<media> <port>[/<count>] <protocol> <format>...`.
    pub(super) fn parse(value: &str, direction: Direction) -> Result<Self, &'static str> {
        const SHAPE: &str = "an m= line must be <media> <port> <protocol> <format> ...";
        let mut words = value.split_ascii_whitespace();
        let (Some(media), Some(port), Some(protocol)) = (words.next(), words.next(), words.next())
        else {
            return Err(SHAPE);
        };
        let protocol_is_well_formed = protocol.split('/').all(|part| is_token(part, 16));
        if !is_token(media, 32) || !protocol_is_well_formed || protocol.len() > 64 {
            return Err(SHAPE);
        }
        let port = port.split('/').next().unwrap_or(port);
        let port = port.parse().map_err(|_| "the port of an m= line must be 0 to 65535")?;
        let mut words = words.peekable();
        let first_format = words.peek().filter(|word| is_token(word, 64)).ok_or(SHAPE)?.to_string();
        let formats = if protocol.contains("RTP/") { parse_formats(words)? } else { Vec::new() };
        Ok(Self {
            kind: match media {
                "audio" => SectionKind::Audio,
                "video" => SectionKind::Video,
                "application" => SectionKind::Application,
                _ => SectionKind::Other,
            },
            media: media.to_owned(),
            port,
            protocol: protocol.to_owned(),
            first_format,
            mid: String::new(),
            direction,
            formats,
            extensions: Vec::new(),
            ssrcs: Vec::new(),
            ssrc_groups: Vec::new(),
            msid: String::new(),
            rids: Vec::new(),
            simulcast: Vec::new(),
            rtcp_mux: false,
            rtcp_rsize: false,
            bundle_only: false,
            extmap_allow_mixed: false,
            bundled: false,
            transport: TransportAttributes::default(),
        })
    }

    pub(super) fn take(&mut self, attribute: Attribute<'_>) -> Result<(), &'static str> {
        let value = attribute.value;
        match attribute.name {
            "mid" if is_token(value, MAX_MID_BYTES) => self.mid = value.to_owned(),
            "mid" => return Err("a=mid must be a token of at most 64 bytes"),
            "rtcp-mux" | "rtcp-mux-only" => self.rtcp_mux = true,
            "rtcp-rsize" => self.rtcp_rsize = true,
            "bundle-only" => self.bundle_only = true,
            "extmap-allow-mixed" => self.extmap_allow_mixed = true,
            "msid" if self.msid.is_empty() => self.msid = value.to_owned(),
            "rtpmap" => self.with_format(value, Format::take_rtpmap),
            "fmtp" => self.with_format(value, |format, value| {
                if format.fmtp.is_empty() {
                    format.fmtp = value.trim().to_owned();
                }
            }),
            "rtcp-fb" => self.take_feedback(value),
            "extmap" => push(&mut self.extensions, parse_extension(value)),
            "ssrc" => self.take_ssrc(value),
            "ssrc-group" => push(&mut self.ssrc_groups, parse_ssrc_group(value)),
            "rid" => push(&mut self.rids, parse_rid(value)),
            "simulcast" if self.simulcast.is_empty() => self.simulcast = parse_send_streams(value),
            name => match Direction::from_name(name) {
                Some(direction) => self.direction = direction,
                None => self.transport.take(attribute)?,
            },
        }
        Ok(())
    }

    fn with_format(&mut self, value: &str, apply: impl FnOnce(&mut Format, &str)) {
        let Some((payload_type, value)) = value.split_once(' ') else { return };
        if let Some(format) = payload_type.parse().ok().and_then(|pt| self.format_mut(pt)) {
            apply(format, value);
        }
    }

    fn take_feedback(&mut self, value: &str) {
        match value.split_once(' ') {
            Some(("*", value)) => {
                self.formats.iter_mut().for_each(|format| format.feedback.take(value));
            }
            _ => self.with_format(value, |format, value| format.feedback.take(value)),
        }
    }

    fn take_ssrc(&mut self, value: &str) {
        let ssrc = value.split_ascii_whitespace().next().and_then(|word| word.parse().ok());
        let new = ssrc.filter(|ssrc| !self.ssrcs.contains(ssrc));
        push(&mut self.ssrcs, new);
    }

    fn format_mut(&mut self, payload_type: u8) -> Option<&mut Format> {
        self.formats.iter_mut().find(|format| format.payload_type == payload_type)
    }

    /// Audio or video over RTP that the offer itself has not rejected and that
    /// shares the one transport.
    pub fn media_kind(&self) -> Option<MediaKind> {
        let protocol = self.protocol.ends_with("RTP/SAVPF") || self.protocol.ends_with("RTP/SAVP");
        if !self.bundled || self.is_rejected() || !protocol {
            return None;
        }
        match self.kind {
            SectionKind::Audio => Some(MediaKind::Audio),
            SectionKind::Video => Some(MediaKind::Video),
            SectionKind::Application | SectionKind::Other => None,
        }
    }

    /// Port 0 rejects, but for `a=bundle-only` (RFC 9143 §6).
    pub fn is_rejected(&self) -> bool {
        self.port == 0 && !self.bundle_only
    }

    /// The RTX payload type that repairs this one.
    pub fn rtx_for(&self, payload_type: u8) -> Option<u8> {
        let repairs = |format: &&Format| format.repairs() == Some(payload_type);
        self.formats.iter().find(repairs).map(|format| format.payload_type)
    }
}

/// Payload types of an `m=` line; there are 128, so each is kept at most once.
fn parse_formats<'a>(words: impl Iterator<Item = &'a str>) -> Result<Vec<Format>, &'static str> {
    let mut formats: Vec<Format> = Vec::new();
    for word in words {
        let payload_type: u8 = word
            .parse()
            .ok()
            .filter(|payload_type| *payload_type <= 127)
            .ok_or("the formats of an RTP m= line must be payload types 0 to 127")?;
        if !formats.iter().any(|format| format.payload_type == payload_type) {
            formats.push(Format::new(payload_type));
        }
    }
    Ok(formats)
}

fn push<T>(list: &mut Vec<T>, item: Option<T>) {
    if let Some(item) = item
        && list.len() < MAX_ITEMS
    {
        list.push(item);
    }
}

/// `<id>[/<direction>] <uri> [<attributes>]`. Only ids of the one-byte form, 1
/// to 14 (RFC 8285 §4.2), are kept: the packets are written in that form.
pub(super) fn parse_extension(value: &str) -> Option<Extension> {
    let mut words = value.split_ascii_whitespace();
    let (id, uri) = (words.next()?, words.next()?);
    let (id, direction) = match id.split_once('/') {
        Some((id, direction)) => (id, Some(Direction::from_name(direction)?)),
        None => (id, None),
    };
    let id = id.parse().ok().filter(|id| (1..=14).contains(id))?;
    Some(Extension { id, direction, uri: uri.to_owned() })
}

fn parse_ssrc_group(value: &str) -> Option<SsrcGroup> {
    let mut words = value.split_ascii_whitespace();
    let semantics = words.next()?.to_owned();
    let ssrcs = words.take(MAX_ITEMS).map(|word| word.parse().ok()).collect::<Option<Vec<_>>>()?;
    Some(SsrcGroup { semantics, ssrcs })
}
