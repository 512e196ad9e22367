//! Hostile text: refused in words, never a panic, never more than a bounded answer.

use super::*;
use crate::webrtc::sdp::{
    IceFragment, MAX_SDP_BYTES, PublisherRules, SdpError, answer_publisher, answer_viewer,
};

/// SplitMix64: the tests must do the same on every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % (limit.max(1) as u64)).unwrap()
    }
}

fn mutate(text: &str, random: &mut Random) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for _ in 0..=random.below(4) {
        let at = random.below(lines.len());
        let other = random.below(lines.len());
        match random.below(6) {
            0 => drop(lines.remove(at)),
            1 => lines.insert(at, lines[other].clone()),
            2 => lines.swap(at, other),
            3 => {
                let mut bytes = lines[at].clone().into_bytes();
                if !bytes.is_empty() {
                    let index = random.below(bytes.len());
                    bytes[index] = u8::try_from(random.below(256)).unwrap();
                }
                lines[at] = String::from_utf8_lossy(&bytes).into_owned();
            }
            4 => {
                let keep = random.below(lines[at].chars().count());
                lines[at] = lines[at].chars().take(keep).collect();
            }
            _ => lines.truncate(at.max(1)),
        }
        if lines.is_empty() {
            break;
        }
    }
    lines.join("\r\n")
}

fn drive(text: &str) -> bool {
    let _ = IceFragment::parse(text);
    let Ok(offer) = Offer::parse(text) else { return false };
    let stream = [opus(), h264("42e01f"), track(Codec::Av1, "")];
    let mut seed = 0;
    let mut ssrc = || {
        seed += 1;
        seed
    };
    let published = answer_publisher(&offer, &local(), &PublisherRules::default());
    let viewed = answer_viewer(&offer, &local(), &stream, &mut ssrc);
    for sdp in published.map(|a| a.sdp).into_iter().chain(viewed.map(|a| a.sdp)) {
        assert!(sdp.len() < 2 * text.len() + 4096, "{}", sdp.len());
        assert_eq!(sdp.matches("\r\nm=").count(), offer.sections.len());
        assert!(sdp.lines().all(|line| line.as_bytes().get(1) == Some(&b'=')), "{sdp}");
    }
    true
}

#[test]
fn mutated_offers_neither_panic_nor_grow() {
    let mut random = Random(7);
    let mut parsed = 0;
    for sample in PUBLISHERS.iter().chain(&VIEWERS) {
        assert!(drive(sample));
        for _ in 0..400 {
            parsed += usize::from(drive(&mutate(sample, &mut random)));
        }
    }
    // Enough of them got past the parser to try the negotiation.
    assert!(parsed > 1000, "{parsed}");
}

#[test]
fn each_prefix_of_an_offer_is_survived() {
    for end in 0..CHROMIUM_DATA.len() {
        drive(&CHROMIUM_DATA[..end]);
    }
}

#[test]
fn size_and_count_are_bounded() {
    let long = format!("v=0\r\n{}", "a".repeat(MAX_SDP_BYTES));
    assert_eq!(Offer::parse(&long), Err(SdpError::TooLarge));
    let sections = "m=audio 9 UDP/TLS/RTP/SAVPF 0\r\n".repeat(65);
    assert_eq!(Offer::parse(&format!("v=0\r\n{sections}")), Err(SdpError::TooManySections));
    let ssrcs: String = (0..3000).map(|ssrc| format!("a=ssrc:{ssrc} x\r\n")).collect();
    let offer = parse(&format!("{OBS}{ssrcs}"));
    assert_eq!(offer.sections[1].ssrcs.len(), 64);
}

#[test]
fn what_is_missing_or_wrong_is_named() {
    let error = |text: &str| Offer::parse(text).unwrap_err();
    let without = |part: &str| error(&CHROMIUM_CAMERA.replace(part, "a=x-gone"));
    assert_eq!(error("hello"), SdpError::NotSdp);
    assert_eq!(error("v=0\r\ns=-\r\n"), SdpError::NoSections);
    assert_eq!(without("a=group"), SdpError::NotBundled);
    assert_eq!(without("a=ice-pwd"), SdpError::NoIceCredentials);
    assert_eq!(without("a=fingerprint"), SdpError::NoFingerprint);
    assert_eq!(without("a=rtcp-mux"), SdpError::NoRtcpMux);
    let sha1 = CHROMIUM_CAMERA.replace("fingerprint:sha-256", "fingerprint:sha-1");
    assert_eq!(error(&sha1), SdpError::NoSha256Fingerprint);
    assert_eq!(error(&CHROMIUM_CAMERA.replace("mid:1", "mid:0")), SdpError::DuplicateMid);
    let lite = CHROMIUM_CAMERA.replace("a=extmap-allow-mixed", "a=ice-lite");
    assert_eq!(error(&lite), SdpError::IceLite);
    let moved = CHROMIUM_CAMERA.replacen("a=extmap:4 ", "a=extmap:3 ", 1);
    assert_eq!(error(&moved), SdpError::ExtensionConflict(3));
    let reused = CHROMIUM_CAMERA.replace("a=rtpmap:96 VP8", "a=rtpmap:96 VP9");
    assert!(Offer::parse(&reused).is_ok());
    let reused = OBS.replace(" 96", " 111").replace(":96", ":111");
    assert_eq!(error(&reused), SdpError::PayloadTypeConflict(111));
    let other_ufrag = OBS.replace("a=mid:1", "a=mid:1\na=ice-ufrag:other");
    assert_eq!(error(&other_ufrag), SdpError::TransportsDisagree("a=ice-ufrag"));
    let short = OBS.replace("a=ice-ufrag:Xh2z", "a=ice-ufrag:abc");
    let expected = "line 9: a=ice-ufrag must be 4 to 256 ice-chars";
    assert_eq!(error(&short).to_string(), expected);
    let stray = OBS.replace("a=mid:1", "a=fmtp:96 a=b\ra=evil");
    assert!(matches!(error(&stray), SdpError::Malformed { what: "control character", .. }));
}

#[test]
fn trickled_candidates_are_counted_and_a_restart_is_answered() {
    let trickle = "a=ice-ufrag:EsAw\r\na=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\n\
                   a=group:BUNDLE 0 1\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\n\
                   a=candidate:1387637174 1 udp 2122260223 192.0.2.1 61764 typ host\r\n\
                   a=candidate:3471623853 1 udp 2122194687 198.51.100.2 61765 typ host\r\n\
                   a=end-of-candidates\r\n";
    let fragment = IceFragment::parse(trickle).unwrap();
    let ice = fragment.ice.clone().unwrap();
    assert_eq!((ice.ufrag.as_str(), ice.pwd.len()), ("EsAw", 24));
    assert_eq!((fragment.candidates, fragment.end_of_candidates), (2, true));
    assert_eq!(fragment.mids, ["0"]);
    let local = local();
    assert_eq!(
        fragment.write_restart(&local.ice, &local.candidates[1..]),
        "a=ice-lite\r\na=ice-options:ice2 trickle\r\na=ice-ufrag:edge0001\r\n\
         a=ice-pwd:0123456789abcdefghijklmn\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\n\
         a=candidate:1 1 udp 2130706431 192.0.2.1 8443 typ host\r\na=end-of-candidates\r\n"
    );
    assert!(IceFragment::parse("").unwrap().ice.is_none());
    let half = IceFragment::parse("a=ice-ufrag:EsAw\r\n");
    assert_eq!(half, Err(SdpError::NoIceCredentials));
}
