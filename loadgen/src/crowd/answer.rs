//! What a viewer needs of an answer: where to send, whom to trust, and what the
//! payload types mean. A reader of its own, lenient where servers differ.

use std::net::{IpAddr, SocketAddr};

/// Longest line looked at, and most lines; an answer of 4 KiB is usual.
const MAX_LINES: usize = 4096;
/// Candidates kept; more add nothing to a viewer.
const MAX_CANDIDATES: usize = 16;

/// Why an answer cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// A line that every answer must have is missing.
    #[error("the answer has no {0}")]
    Missing(&'static str),
    /// The hash of the fingerprint is not SHA-256.
    #[error("the answer's fingerprint is not a sha-256")]
    Fingerprint,
    /// All sections were refused.
    #[error("the answer refuses video and audio")]
    Refused,
}

/// Codec of a video stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// H.264 (RFC 6184).
    H264,
    /// H.265 (RFC 7798).
    H265,
    /// VP8 (RFC 7741).
    Vp8,
    /// VP9 (RFC 9628).
    Vp9,
    /// AV1.
    Av1,
}

/// What a payload type carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Video.
    Video(Codec),
    /// Audio, with ticks a second.
    Audio(u32),
    /// Retransmissions of another payload type.
    Rtx(u8),
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// User fragment of the server.
    pub ufrag: String,
    /// Password of the server.
    pub pwd: String,
    /// SHA-256 of its certificate.
    pub fingerprint: [u8; 32],
    /// `a=setup:active`: the server says hello in DTLS.
    pub server_is_client: bool,
    /// Where it can be reached over UDP, best first as it says.
    pub candidates: Vec<SocketAddr>,
    /// Payload types and what they carry.
    pub formats: Vec<(u8, Format)>,
    /// Id of the absolute capture time extension.
    pub capture_time: Option<u8>,
    /// Whether there is a video section that is not refused.
    pub has_video: bool,
}

impl Answer {
    /// Reads an answer.
    ///
    /// # Errors
    /// [`AnswerError`].
    pub fn parse(sdp: &str) -> Result<Self, AnswerError> {
        let mut reader = Reader::default();
        for line in sdp.lines().take(MAX_LINES) {
            reader.line(line.trim_end());
        }
        reader.finish()
    }

    /// What payload type `pt` carries.
    pub fn format(&self, pt: u8) -> Option<Format> {
        self.formats.iter().find(|(number, _)| *number == pt).map(|&(_, format)| format)
    }
}

#[derive(Default)]
struct Reader {
    /// Kind of the section, and whether it was refused by port 0.
    section: Option<(String, bool)>,
    accepted: bool,
    has_video: bool,
    ufrag: Option<String>,
    pwd: Option<String>,
    fingerprint: Option<Option<[u8; 32]>>,
    setup: Option<String>,
    candidates: Vec<(u32, SocketAddr)>,
    formats: Vec<(u8, Format)>,
    associated: Vec<(u8, u8)>,
    capture_time: Option<u8>,
}

impl Reader {
    fn line(&mut self, line: &str) {
        if let Some(media) = line.strip_prefix("m=") {
            let mut words = media.split(' ');
            let kind = words.next().unwrap_or_default().to_owned();
            let refused = words.next() == Some("0");
            self.accepted |= !refused;
            self.has_video |= !refused && kind == "video";
            self.section = Some((kind, refused));
        } else if let Some(attribute) = line.strip_prefix("a=")
            && !matches!(self.section, Some((_, true)))
        {
            let (name, value) = attribute.split_once(':').unwrap_or((attribute, ""));
            self.attribute(name, value);
        }
    }

    fn attribute(&mut self, name: &str, value: &str) {
        let keep = |slot: &mut Option<String>| {
            slot.get_or_insert_with(|| value.to_owned());
        };
        match name {
            "ice-ufrag" => keep(&mut self.ufrag),
            "ice-pwd" => keep(&mut self.pwd),
            "setup" => keep(&mut self.setup),
            "fingerprint" => {
                let read = fingerprint(value);
                if self.fingerprint.flatten().is_none() {
                    self.fingerprint = Some(read);
                }
            }
            "candidate" => {
                if let Some(candidate) = candidate(value)
                    && self.candidates.len() < MAX_CANDIDATES
                    && !self.candidates.iter().any(|(_, known)| *known == candidate.1)
                {
                    self.candidates.push(candidate);
                }
            }
            "rtpmap" => self.formats.extend(self.format(value)),
            "fmtp" => self.associated.extend(associated(value)),
            "extmap" => {
                let (id, uri) = value.split_once(' ').unwrap_or_default();
                if uri.trim() == crate::peer::ABS_CAPTURE_TIME {
                    let id = id.split('/').next().unwrap_or_default();
                    self.capture_time = id.parse().ok();
                }
            }
            _ => {}
        }
    }

    fn format(&self, rtpmap: &str) -> Option<(u8, Format)> {
        let (pt, encoding) = rtpmap.split_once(' ')?;
        let mut parts = encoding.trim().split('/');
        let (name, clock) = (parts.next()?.to_ascii_uppercase(), parts.next()?.parse().ok()?);
        let format = match name.as_str() {
            "H264" => Format::Video(Codec::H264),
            "H265" => Format::Video(Codec::H265),
            "VP8" => Format::Video(Codec::Vp8),
            "VP9" => Format::Video(Codec::Vp9),
            "AV1" => Format::Video(Codec::Av1),
            // The fmtp line that says of what may come later.
            "RTX" => Format::Rtx(0),
            _ if matches!(&self.section, Some((kind, _)) if kind == "audio") => {
                Format::Audio(clock)
            }
            _ => return None,
        };
        Some((pt.parse().ok()?, format))
    }

    fn finish(mut self) -> Result<Answer, AnswerError> {
        if !self.accepted {
            return Err(AnswerError::Refused);
        }
        for (pt, format) in &mut self.formats {
            if let Format::Rtx(of) = format {
                let found = self.associated.iter().find(|(rtx, _)| rtx == pt);
                *of = found.map_or(0, |&(_, apt)| apt);
            }
        }
        // Highest priority first; the order of equals is the server's.
        self.candidates.sort_by_key(|&(priority, _)| std::cmp::Reverse(priority));
        let fingerprint = self.fingerprint.ok_or(AnswerError::Missing("fingerprint"))?;
        Ok(Answer {
            ufrag: self.ufrag.ok_or(AnswerError::Missing("ice-ufrag"))?,
            pwd: self.pwd.ok_or(AnswerError::Missing("ice-pwd"))?,
            fingerprint: fingerprint.ok_or(AnswerError::Fingerprint)?,
            server_is_client: self.setup.as_deref() == Some("active"),
            candidates: self.candidates.into_iter().map(|(_, address)| address).collect(),
            formats: self.formats,
            capture_time: self.capture_time,
            has_video: self.has_video,
        })
    }
}

/// `sha-256 AA:BB:…` (RFC 8122 §5).
fn fingerprint(value: &str) -> Option<[u8; 32]> {
    let (hash, digits) = value.split_once(' ')?;
    let mut bytes = [0; 32];
    let mut pairs = digits.trim().split(':');
    for byte in &mut bytes {
        *byte = u8::from_str_radix(pairs.next()?, 16).ok()?;
    }
    (hash.eq_ignore_ascii_case("sha-256") && pairs.next().is_none()).then_some(bytes)
}

/// Priority and address of a UDP candidate for RTP (RFC 8839 §5.1); names (mDNS) are not
/// resolved.
fn candidate(value: &str) -> Option<(u32, SocketAddr)> {
    let words: Vec<&str> = value.split_ascii_whitespace().collect();
    let [_, component, transport, priority, ip, port, ..] = words[..] else { return None };
    let ip: IpAddr = ip.parse().ok()?;
    let address = SocketAddr::new(ip, port.parse().ok().filter(|&port| port > 0)?);
    let fits = component == "1" && transport.eq_ignore_ascii_case("udp");
    fits.then_some((priority.parse().ok()?, address))
}

/// `103 apt=102` of a retransmission format.
fn associated(value: &str) -> Option<(u8, u8)> {
    let (pt, parameters) = value.split_once(' ')?;
    let apt = parameters.split(';').find_map(|part| part.trim().strip_prefix("apt="))?;
    Some((pt.parse().ok()?, apt.trim().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sdp() -> String {
        let print = vec!["AB"; 32].join(":");
        format!(
            "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=ice-lite\r\n\
             a=group:BUNDLE 0 1\r\nm=video 9 UDP/TLS/RTP/SAVPF 102 103\r\na=mid:0\r\n\
             a=ice-ufrag:srv\r\na=ice-pwd:secret\r\na=fingerprint:sha-256 {print}\r\n\
             a=setup:passive\r\na=candidate:2 1 udp 100 10.0.0.1 8443 typ host\r\n\
             a=candidate:1 1 UDP 200 127.0.0.1 8443 typ host\r\n\
             a=candidate:3 1 tcp 900 127.0.0.1 8443 typ host tcptype passive\r\n\
             a=candidate:4 2 udp 900 127.0.0.1 8444 typ host\r\n\
             a=candidate:5 1 udp 900 a.local 8444 typ host\r\n\
             a=fmtp:103 apt=102\r\na=rtpmap:102 H264/90000\r\na=rtpmap:103 rtx/90000\r\n\
             a=extmap:1/sendonly {}\r\n\
             m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=rtpmap:111 opus/48000/2\r\n",
            crate::peer::ABS_CAPTURE_TIME
        )
    }

    #[test]
    fn a_servers_answer_is_read() {
        let answer = Answer::parse(&sdp()).unwrap();
        assert_eq!((answer.ufrag.as_str(), answer.pwd.as_str()), ("srv", "secret"));
        assert_eq!(answer.fingerprint, [0xab; 32]);
        let expected: [SocketAddr; 2] =
            ["127.0.0.1:8443", "10.0.0.1:8443"].map(|text| text.parse().unwrap());
        assert_eq!(answer.candidates, expected);
        assert_eq!(answer.format(102), Some(Format::Video(Codec::H264)));
        assert_eq!(answer.format(103), Some(Format::Rtx(102)));
        assert_eq!(answer.format(111), Some(Format::Audio(48_000)));
        assert_eq!((answer.capture_time, answer.server_is_client), (Some(1), false));
    }

    #[test]
    fn a_refused_section_gives_nothing_and_two_refuse_all() {
        let refused = sdp().replace("m=audio 9", "m=audio 0");
        assert_eq!(Answer::parse(&refused).unwrap().format(111), None);
        let all = refused.replace("m=video 9", "m=video 0");
        assert_eq!(Answer::parse(&all), Err(AnswerError::Refused));
    }

    #[test]
    fn what_is_missing_is_named() {
        let without = |line: &str| {
            let kept: Vec<_> =
                sdp().lines().filter(|l| !l.contains(line)).map(String::from).collect();
            Answer::parse(&kept.join("\n"))
        };
        assert_eq!(without("ice-pwd"), Err(AnswerError::Missing("ice-pwd")));
        assert_eq!(without("fingerprint"), Err(AnswerError::Missing("fingerprint")));
        let other = sdp().replace("sha-256", "sha-512");
        assert_eq!(Answer::parse(&other), Err(AnswerError::Fingerprint));
        assert!(Answer::parse("").is_err());
    }
}
