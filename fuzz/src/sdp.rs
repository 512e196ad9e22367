//! Session descriptions: offers with both their answers, and trickled fragments.

use std::net::{Ipv6Addr, SocketAddr};

use railbird::codec::Codec;
use railbird::media::TrackInfo;
use railbird::webrtc::ice_lite::IceCredentials;
use railbird::webrtc::sdp::{
    IceFragment, LocalIdentity, MAX_LAYERS, MAX_SDP_BYTES, Offer, PublisherRules, answer_publisher,
    answer_viewer,
};

/// What an answer may have beyond twice its offer, in bytes.
const OWN_LINES: usize = 4096;

/// An offer, answered to a publisher and to a viewer.
pub fn sdp_offer(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(offer) = Offer::parse(text) else { return };
    assert!(text.len() <= MAX_SDP_BYTES);
    let mut random = 0;
    let mut ssrc = || {
        random += 1;
        random / 2
    };
    let published = answer_publisher(&offer, &local(), &PublisherRules::default());
    let viewed = answer_viewer(&offer, &local(), &stream(), &mut ssrc);
    if let Ok(answer) = &published {
        assert!((1..=2).contains(&answer.tracks.len()));
        for track in &answer.tracks {
            assert!((1..=MAX_LAYERS).contains(&track.info.rids.len()));
        }
    }
    if let Ok(answer) = &viewed {
        let mut ssrcs: Vec<u32> =
            answer.tracks.iter().flat_map(|track| [track.ssrc, track.rtx_ssrc]).collect();
        ssrcs.sort_unstable();
        ssrcs.dedup();
        assert_eq!(ssrcs.len(), answer.tracks.len() * 2);
    }
    for sdp in published.map(|a| a.sdp).into_iter().chain(viewed.map(|a| a.sdp)) {
        assert!(sdp.len() < 2 * text.len() + OWN_LINES, "{}", sdp.len());
        assert_eq!(sdp.matches("\r\nm=").count(), offer.sections.len());
        assert_lines(&sdp);
    }
}

/// A trickled fragment, and the answer to it as an ICE restart.
pub fn sdp_fragment(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(fragment) = IceFragment::parse(text) else { return };
    let local = local();
    let answer = fragment.write_restart(&local.ice, &local.candidates);
    assert!(answer.len() < 2 * text.len() + OWN_LINES);
    assert_lines(&answer);
}

/// Nothing of the client's can begin a line of its own in an answer.
fn assert_lines(sdp: &str) {
    assert!(sdp.ends_with("\r\n"));
    assert_eq!(sdp.matches('\r').count(), sdp.matches("\r\n").count(), "{sdp}");
    assert!(sdp.lines().all(|line| line.as_bytes().get(1) == Some(&b'=')), "{sdp}");
}

pub(super) fn local() -> LocalIdentity {
    LocalIdentity {
        ice: IceCredentials { ufrag: "edge0001".into(), pwd: "0123456789abcdefghijklmn".into() },
        fingerprint: [0xa5; 32],
        candidates: vec![SocketAddr::from((Ipv6Addr::LOCALHOST, 8443))],
        session_id: 42,
        cname: "railbird".into(),
    }
}

fn stream() -> Vec<TrackInfo> {
    let track = |codec, channels, fmtp: &str| TrackInfo {
        codec,
        channels,
        fmtp: fmtp.into(),
        rids: vec![String::new()],
    };
    vec![
        track(Codec::Opus, 2, "minptime=10;useinbandfec=1"),
        track(Codec::H264, 0, "packetization-mode=1;profile-level-id=42e01f"),
        track(Codec::Vp8, 0, ""),
        track(Codec::Vp9, 0, "profile-id=0"),
        track(Codec::Av1, 0, ""),
        track(Codec::H265, 0, "profile-id=1"),
    ]
}
