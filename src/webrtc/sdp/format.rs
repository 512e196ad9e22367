//! Payload formats: `a=rtpmap`, `a=fmtp`, `a=rtcp-fb`, and whether a format can
//! carry a codec as it was published. Sources: RFC 8866 §6.6 and §6.15, RFC 4585
//! §4.2, and each codec's payload specification for its parameters.

use crate::codec::Codec;

/// Formats that an error lists; more say nothing new.
const MAX_LISTED: usize = 16;

/// The RTCP feedback of one payload format (RFC 4585, RFC 5104), as far as known here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Feedback {
    /// `nack`: generic NACK.
    pub nack: bool,
    /// `nack pli`: picture loss indication.
    pub pli: bool,
    /// `ccm fir`: full intra request.
    pub fir: bool,
    /// `goog-remb`: receiver estimated maximum bitrate.
    pub remb: bool,
    /// `transport-cc`: transport-wide congestion control.
    pub transport_cc: bool,
}

impl Feedback {
    pub(super) fn take(&mut self, value: &str) {
        match value.trim() {
            "nack" => self.nack = true,
            "nack pli" => self.pli = true,
            "ccm fir" => self.fir = true,
            "goog-remb" => self.remb = true,
            "transport-cc" => self.transport_cc = true,
            _ => {}
        }
    }

    /// What both have: an answer only takes away (RFC 4585 §4.2).
    pub(super) const fn and(self, other: Self) -> Self {
        Self {
            nack: self.nack && other.nack,
            pli: self.pli && other.pli,
            fir: self.fir && other.fir,
            remb: self.remb && other.remb,
            transport_cc: self.transport_cc && other.transport_cc,
        }
    }

    /// The values of the `a=rtcp-fb` lines.
    pub(super) fn values(self) -> impl Iterator<Item = &'static str> {
        [
            (self.remb, "goog-remb"),
            (self.transport_cc, "transport-cc"),
            (self.fir, "ccm fir"),
            (self.nack, "nack"),
            (self.pli, "nack pli"),
        ]
        .into_iter()
        .filter_map(|(on, value)| on.then_some(value))
    }
}

/// One payload type of a media section and what the offer says of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Format {
    /// 0 to 127.
    pub payload_type: u8,
    /// The encoding name of `a=rtpmap`; empty for a static payload type without one.
    pub encoding: String,
    /// RTP ticks per second; 0 without `a=rtpmap`.
    pub clock_rate: u32,
    /// Audio channels; 1 when not given.
    pub channels: u8,
    /// The format parameters; empty when there are none.
    pub fmtp: String,
    /// Feedback offered for it.
    pub feedback: Feedback,
}

impl Format {
    pub(super) fn new(payload_type: u8) -> Self {
        Self { payload_type, channels: 1, ..Self::default() }
    }

    /// `<encoding name>/<clock rate>[/<channels>]`; left alone when malformed.
    pub(super) fn take_rtpmap(&mut self, value: &str) {
        let mut parts = value.trim().split('/');
        let (Some(encoding), Some(Ok(clock_rate))) = (parts.next(), parts.next().map(str::parse))
        else {
            return;
        };
        self.encoding = encoding.to_owned();
        self.clock_rate = clock_rate;
        self.channels = parts.next().and_then(|channels| channels.parse().ok()).unwrap_or(1);
    }

    /// The codec, when it is one that passes through the gateway.
    pub fn codec(&self) -> Option<Codec> {
        Codec::from_encoding_name(&self.encoding)
            .filter(|codec| codec.clock_rate() == self.clock_rate)
    }

    /// The payload type that this format repairs, for RTX (RFC 4588 §8.1).
    pub fn repairs(&self) -> Option<u8> {
        if !self.encoding.eq_ignore_ascii_case("rtx") {
            return None;
        }
        parameter(&self.fmtp, "apt")?.parse().ok()
    }

    /// Words for an error: `H264 (42e01f, mode 1)`.
    pub(super) fn describe(&self) -> String {
        match self.codec() {
            Some(codec) => describe(codec, &self.fmtp),
            None => self.encoding.chars().take(32).collect(),
        }
    }
}

/// One parameter of an `a=fmtp` value; names compare without case.
pub(super) fn parameter<'a>(fmtp: &'a str, name: &str) -> Option<&'a str> {
    fmtp.split(';').find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        key.trim().eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

fn number(fmtp: &str, name: &str, default: u32) -> u32 {
    parameter(fmtp, name).map_or(default, |value| value.parse().unwrap_or(u32::MAX))
}

/// Words for an error: the codec with the parameters that decide on a match.
pub(super) fn describe(codec: Codec, fmtp: &str) -> String {
    let detail = match codec {
        Codec::H264 => {
            let profile: String =
                parameter(fmtp, "profile-level-id").unwrap_or("42000a").chars().take(6).collect();
            format!(" ({profile}, mode {})", number(fmtp, "packetization-mode", 0))
        }
        Codec::H265 => format!(" (profile {})", number(fmtp, "profile-id", 1)),
        Codec::Vp9 => format!(" (profile {})", number(fmtp, "profile-id", 0)),
        Codec::Av1 => format!(" (profile {})", number(fmtp, "profile", 0)),
        Codec::Vp8 | Codec::Opus => String::new(),
    };
    format!("{codec}{detail}")
}

/// Each name once, in order, for an error's words; at most [`MAX_LISTED`].
pub(super) fn list(names: impl Iterator<Item = String>) -> String {
    let mut listed: Vec<String> = Vec::new();
    for name in names {
        if listed.len() == MAX_LISTED {
            break;
        }
        if !name.is_empty() && !name.eq_ignore_ascii_case("rtx") && !listed.contains(&name) {
            listed.push(name);
        }
    }
    if listed.is_empty() { "nothing".to_owned() } else { listed.join(", ") }
}

/// The H.264 packetization mode (RFC 6184 §8.1); 0 when not given.
pub(super) fn packetization_mode(fmtp: &str) -> u32 {
    number(fmtp, "packetization-mode", 0)
}

/// Whether the gateway can read what a sender sends in this format: H.264
/// without interleaving, H.265 in one stream.
pub(super) fn is_receivable(codec: Codec, fmtp: &str) -> bool {
    match codec {
        Codec::H264 => packetization_mode(fmtp) <= 1,
        Codec::H265 => is_single_stream(fmtp),
        Codec::Vp8 | Codec::Vp9 | Codec::Av1 | Codec::Opus => true,
    }
}

fn is_single_stream(fmtp: &str) -> bool {
    // RFC 7798 §7.1: without `tx-mode`, one RTP stream in one transport.
    parameter(fmtp, "tx-mode").is_none_or(|mode| mode.eq_ignore_ascii_case("SRST"))
}

/// How well an offered format suits a published one, for one and the same
/// codec; smaller is better, `None` not at all.
pub(super) fn fitness(codec: Codec, published: &str, offered: &str) -> Option<u8> {
    match codec {
        Codec::Vp8 | Codec::Opus => Some(0),
        Codec::Vp9 => {
            let same = number(published, "profile-id", 0) == number(offered, "profile-id", 0);
            same.then_some(0)
        }
        // AV1 specification, annex A.2: a decoder of a profile decodes the lower ones.
        Codec::Av1 => superset(number(published, "profile", 0), number(offered, "profile", 0), 2),
        // RFC 7798 §7.1, H.265 §A.3: Main 10 (2) decodes Main (1); others only themselves.
        Codec::H265 if !is_single_stream(offered) => None,
        Codec::H265 => {
            superset(number(published, "profile-id", 1), number(offered, "profile-id", 1), 2)
        }
        Codec::H264 => h264_fitness(published, offered),
    }
}

/// Equal is best; a higher number up to `top` includes the lower ones.
fn superset(published: u32, offered: u32, top: u32) -> Option<u8> {
    match published {
        _ if published == offered => Some(0),
        _ if published < offered && offered <= top => Some(1),
        _ => None,
    }
}

/// The profiles of H.264 that differ for a decoder (RFC 6184 §8.1, table 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum H264Profile {
    ConstrainedBaseline,
    Baseline,
    Main,
    ConstrainedHigh,
    High,
    /// Any other, told apart by its first two bytes.
    Other(u8, u8),
}

fn h264_profile(idc: u8, constraints: u8) -> H264Profile {
    use H264Profile::{Baseline, ConstrainedBaseline, ConstrainedHigh, High, Main, Other};
    match idc {
        0x42 if constraints & 0x40 != 0 => ConstrainedBaseline,
        0x4d if constraints & 0x80 != 0 => ConstrainedBaseline,
        0x58 if constraints & 0xc0 == 0xc0 => ConstrainedBaseline,
        0x42 => Baseline,
        0x58 if constraints & 0x80 != 0 => Baseline,
        0x4d => Main,
        0x64 if constraints & 0x0c == 0x0c => ConstrainedHigh,
        0x64 => High,
        _ => Other(idc, constraints),
    }
}

/// `profile-level-id`: three bytes in hex; Baseline at level 1 when not given.
fn profile_level_id(fmtp: &str) -> Option<(H264Profile, u8)> {
    let Some(text) = parameter(fmtp, "profile-level-id") else {
        return Some((H264Profile::Baseline, 10));
    };
    if text.len() != 6 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let [_, idc, constraints, level] = u32::from_str_radix(text, 16).ok()?.to_be_bytes();
    Some((h264_profile(idc, constraints), level))
}

/// The profile must be one that the offered decoder decodes. The level only
/// ranks: browsers decode more than the level they write.
fn h264_fitness(published: &str, offered: &str) -> Option<u8> {
    use H264Profile::{Baseline, ConstrainedBaseline, ConstrainedHigh, High, Main};
    let offered_mode = packetization_mode(offered);
    // Mode 1 also takes the single NAL units of mode 0 (RFC 6184 §6.3); mode 2 is interleaved.
    if offered_mode > 1 || packetization_mode(published) > offered_mode {
        return None;
    }
    let (profile, level) = profile_level_id(published)?;
    let (offered_profile, offered_level) = profile_level_id(offered)?;
    let rank = match (profile, offered_profile) {
        (a, b) if a == b => 0,
        // Encoders write either for the same tools: nobody uses FMO or ASO.
        (ConstrainedBaseline | Baseline, ConstrainedBaseline | Baseline) => 1,
        // Constrained High differs by B and interlaced pictures, which do not pass anyway.
        (ConstrainedHigh | High, ConstrainedHigh | High) => 1,
        // The tools of the lower profile are part of the higher one (H.264 §A.2).
        (ConstrainedBaseline | Baseline, Main) => 2,
        (ConstrainedBaseline | Baseline | Main, ConstrainedHigh | High) => 3,
        _ => return None,
    };
    let level_fits =
        offered_level >= level || parameter(offered, "level-asymmetry-allowed") == Some("1");
    Some(rank * 2 + u8::from(!level_fits))
}

/// The format parameters of an answer: those that name the configuration, as
/// offered; parameter sets and limits of the other direction are left out.
pub(super) fn answer_parameters(codec: Codec, offered: &str) -> String {
    let keep: &[&str] = match codec {
        Codec::H264 => return h264_answer_parameters(offered),
        Codec::H265 => &["level-id", "profile-id", "tier-flag", "tx-mode"],
        Codec::Vp9 => &["profile-id"],
        Codec::Av1 => &["level-idx", "profile", "tier"],
        Codec::Vp8 => &[],
        Codec::Opus => &["minptime", "useinbandfec", "usedtx", "stereo", "sprop-stereo"],
    };
    join_parameters(keep.iter().filter_map(|name| Some((*name, parameter(offered, name)?))))
}

fn h264_answer_parameters(offered: &str) -> String {
    let mode = if packetization_mode(offered) == 1 { "1" } else { "0" };
    let fixed = [("level-asymmetry-allowed", "1"), ("packetization-mode", mode)];
    let profile = parameter(offered, "profile-level-id").map(|id| ("profile-level-id", id));
    join_parameters(fixed.into_iter().chain(profile))
}

/// Opus for a viewer: its own `minptime`, and what the published stream has
/// (RFC 7587 §6.1; `sprop-stereo` tells the decoder to open two channels).
pub(super) fn opus_viewer_parameters(published: &str, offered: &str) -> String {
    let has = |name| parameter(published, name) == Some("1");
    let stereo = has("stereo") || has("sprop-stereo");
    let minptime = parameter(offered, "minptime").map(|value| ("minptime", value));
    let fec = has("useinbandfec").then_some(("useinbandfec", "1"));
    let stereo = stereo.then_some([("stereo", "1"), ("sprop-stereo", "1")]);
    join_parameters(minptime.into_iter().chain(fec).chain(stereo.into_iter().flatten()))
}

fn join_parameters<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    pairs.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(";")
}
