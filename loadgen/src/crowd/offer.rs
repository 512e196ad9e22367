//! The viewer's offer (RFC 8829, RFC 8843, WHEP draft §4.2): one video and one audio
//! section to receive, bundled, with what any server may send.
//!
//! No transport-cc: REMB tells the server enough, at a message a second. The one
//! candidate is the viewer's socket, so that a full ICE agent has a pair to check.

use std::fmt::Write as _;
use std::net::SocketAddr;

/// H.264 formats by payload type: profile and packetisation mode.
const H264: [(u8, &str, u8); 6] = [
    (102, "42e01f", 1),
    (104, "42001f", 1),
    (106, "4d001f", 1),
    (108, "64001f", 1),
    (112, "42e01f", 0),
    (114, "42001f", 0),
];
/// The other video formats by payload type.
const OTHERS: [(u8, &str, &str); 4] =
    [(96, "VP8", ""), (98, "VP9", "profile-id=0"), (45, "AV1", ""), (49, "H265", "")];
/// Feedback that a viewer gives to every video format.
const FEEDBACK: [&str; 4] = ["goog-remb", "ccm fir", "nack", "nack pli"];
/// Header extensions asked for, by their ids.
const EXTENSIONS: [(u8, &str); 3] = [
    (1, crate::peer::ABS_CAPTURE_TIME),
    (2, "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time"),
    (3, "urn:ietf:params:rtp-hdrext:sdes:mid"),
];

/// What an offer is made of.
#[derive(Clone, Debug)]
pub struct Offer<'a> {
    /// User fragment of our side.
    pub ufrag: &'a str,
    /// Password of our side.
    pub pwd: &'a str,
    /// `a=fingerprint` of our certificate, with its hash's name.
    pub fingerprint: &'a str,
    /// The viewer's socket.
    pub local: SocketAddr,
    /// Session id.
    pub id: u64,
    /// Whether to ask for sound too.
    pub audio: bool,
}

impl Offer<'_> {
    /// The SDP.
    pub fn text(&self) -> String {
        let family = if self.local.is_ipv4() { "IP4" } else { "IP6" };
        let mids = if self.audio { "0 1" } else { "0" };
        let mut sdp = format!(
            "v=0\r\no=- {} 1 IN {family} {}\r\ns=-\r\nt=0 0\r\na=group:BUNDLE {mids}\r\n\
             a=msid-semantic: WMS *\r\n",
            self.id & (u64::MAX >> 2),
            self.local.ip(),
        );
        let mut payload_types = Vec::new();
        let mut formats = String::new();
        for (pt, profile, mode) in H264 {
            let parameters = format!(
                "level-asymmetry-allowed=1;packetization-mode={mode};profile-level-id={profile}"
            );
            video_format(&mut formats, &mut payload_types, pt, "H264", &parameters);
        }
        for (pt, name, parameters) in OTHERS {
            video_format(&mut formats, &mut payload_types, pt, name, parameters);
        }
        self.section(&mut sdp, "video", &payload_types, 0);
        sdp += &formats;
        if self.audio {
            self.section(&mut sdp, "audio", &["111".to_owned()], 1);
            sdp += "a=rtpmap:111 opus/48000/2\r\na=fmtp:111 minptime=10;useinbandfec=1\r\n";
        }
        sdp
    }

    fn section(&self, sdp: &mut String, kind: &str, payload_types: &[String], mid: u8) {
        let (family, ip) = (if self.local.is_ipv4() { "IP4" } else { "IP6" }, self.local.ip());
        let port = self.local.port();
        // Writing to a string cannot fail, here and below.
        let _ = write!(
            sdp,
            "m={kind} {port} UDP/TLS/RTP/SAVPF {}\r\nc=IN {family} {ip}\r\na=rtcp:9 IN IP4 0.0.0.0\r\n\
             a=candidate:1 1 udp 2130706431 {ip} {port} typ host\r\na=end-of-candidates\r\n\
             a=ice-ufrag:{}\r\na=ice-pwd:{}\r\na=fingerprint:{}\r\na=setup:actpass\r\n\
             a=mid:{mid}\r\na=recvonly\r\na=rtcp-mux\r\na=rtcp-rsize\r\n",
            payload_types.join(" "),
            self.ufrag,
            self.pwd,
            self.fingerprint,
        );
        for (id, uri) in EXTENSIONS {
            let _ = write!(sdp, "a=extmap:{id} {uri}\r\n");
        }
    }
}

/// Adds a video format and its retransmission format (RFC 4588 §8), the number after it.
fn video_format(
    sdp: &mut String,
    payload_types: &mut Vec<String>,
    pt: u8,
    name: &str,
    parameters: &str,
) {
    let rtx = pt + 1;
    payload_types.extend([pt.to_string(), rtx.to_string()]);
    let _ = write!(sdp, "a=rtpmap:{pt} {name}/90000\r\n");
    for feedback in FEEDBACK {
        let _ = write!(sdp, "a=rtcp-fb:{pt} {feedback}\r\n");
    }
    if !parameters.is_empty() {
        let _ = write!(sdp, "a=fmtp:{pt} {parameters}\r\n");
    }
    let _ = write!(sdp, "a=rtpmap:{rtx} rtx/90000\r\na=fmtp:{rtx} apt={pt}\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use rtc::sdp::SessionDescription;
    use std::collections::HashSet;

    fn offer(audio: bool) -> String {
        let local = "127.0.0.1:4000".parse().unwrap();
        Offer { ufrag: "u", pwd: "p", fingerprint: "sha-256 AA", local, id: 1, audio }.text()
    }

    #[test]
    fn another_implementation_reads_two_bundled_sections() {
        let sdp = SessionDescription::unmarshal(&mut std::io::Cursor::new(offer(true))).unwrap();
        assert_eq!(sdp.media_descriptions.len(), 2);
        assert_eq!(sdp.attribute("group"), Some(&"BUNDLE 0 1".to_owned()));
        for section in &sdp.media_descriptions {
            for name in ["recvonly", "rtcp-mux", "ice-ufrag", "fingerprint", "setup", "candidate"] {
                assert!(section.has_attribute(name) || section.attribute(name).is_some(), "{name}");
            }
        }
        assert!(!offer(true).contains("transport-cc") && !offer(false).contains("m=audio"));
    }

    #[test]
    fn payload_types_are_unique_and_each_format_has_its_retransmission() {
        let text = offer(true);
        let maps: Vec<&str> = text.lines().filter_map(|l| l.strip_prefix("a=rtpmap:")).collect();
        let numbers: HashSet<&str> = maps.iter().map(|m| m.split(' ').next().unwrap()).collect();
        assert_eq!(numbers.len(), maps.len());
        assert!(numbers.iter().all(|number| number.parse::<u8>().unwrap() < 128));
        assert_eq!(text.matches("apt=").count(), H264.len() + OTHERS.len());
    }
}
