//! Tests on real offers: those of Chromium, aiortc and ffmpeg were recorded,
//! those of OBS, GStreamer, Firefox and Safari are written by hand in their
//! style (`testdata/`); addresses are of the documentation ranges.

mod hostile;
mod peers;
mod publisher;
mod viewer;

use std::net::SocketAddr;

use super::{LocalIdentity, Offer};
use crate::codec::Codec;
use crate::media::TrackInfo;
use crate::webrtc::ice_lite::IceCredentials;

const CHROMIUM_VIEWER: &str = include_str!("../testdata/chromium_viewer.sdp");
const CHROMIUM_CAMERA: &str = include_str!("../testdata/chromium_camera.sdp");
const CHROMIUM_SIMULCAST: &str = include_str!("../testdata/chromium_simulcast.sdp");
const CHROMIUM_AV1: &str = include_str!("../testdata/chromium_av1_first.sdp");
const CHROMIUM_VP9: &str = include_str!("../testdata/chromium_vp9_first.sdp");
const CHROMIUM_H264: &str = include_str!("../testdata/chromium_h264_first.sdp");
const CHROMIUM_DATA: &str = include_str!("../testdata/chromium_sendrecv_data.sdp");
const AIORTC_PUBLISHER: &str = include_str!("../testdata/aiortc_publisher.sdp");
const AIORTC_VIEWER: &str = include_str!("../testdata/aiortc_viewer.sdp");
const FFMPEG: &str = include_str!("../testdata/ffmpeg_whip.sdp");
const OBS: &str = include_str!("../testdata/obs_whip.sdp");
const GSTREAMER: &str = include_str!("../testdata/gstreamer_whip.sdp");
const FIREFOX_VIEWER: &str = include_str!("../testdata/firefox_viewer.sdp");
const SAFARI_VIEWER: &str = include_str!("../testdata/safari_viewer.sdp");

const PUBLISHERS: [&str; 10] = [
    CHROMIUM_CAMERA,
    CHROMIUM_SIMULCAST,
    CHROMIUM_AV1,
    CHROMIUM_VP9,
    CHROMIUM_H264,
    CHROMIUM_DATA,
    AIORTC_PUBLISHER,
    FFMPEG,
    OBS,
    GSTREAMER,
];
const VIEWERS: [&str; 5] =
    [CHROMIUM_VIEWER, AIORTC_VIEWER, FIREFOX_VIEWER, SAFARI_VIEWER, CHROMIUM_DATA];

fn local() -> LocalIdentity {
    LocalIdentity {
        ice: IceCredentials { ufrag: "edge0001".into(), pwd: "0123456789abcdefghijklmn".into() },
        fingerprint: [0xa5; 32],
        candidates: vec![address("[2001:db8::1]:8443"), address("192.0.2.1:8443")],
        session_id: 42,
        cname: "railbird".into(),
    }
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn parse(text: &str) -> Offer {
    Offer::parse(text).unwrap()
}

fn track(codec: Codec, fmtp: &str) -> TrackInfo {
    let channels = if codec == Codec::Opus { 2 } else { 0 };
    TrackInfo { codec, channels, fmtp: fmtp.into(), rids: vec![String::new()] }
}

fn h264(profile_level_id: &str) -> TrackInfo {
    let fmtp = format!(
        "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id={profile_level_id}"
    );
    track(Codec::H264, &fmtp)
}

fn opus() -> TrackInfo {
    track(Codec::Opus, "minptime=10;useinbandfec=1")
}

/// Lines of the answer's section with this `m=` beginning.
fn section<'a>(sdp: &'a str, media: &str) -> Vec<&'a str> {
    let mut sections = sdp.split("\r\nm=").skip(1);
    let found = sections.find(|section| section.starts_with(media)).unwrap();
    found.lines().collect()
}
