//! Answers are read by an independent stack: the `rtc` peer connection makes an
//! offer and takes our answer, and its SDP parser reads every answer of the samples.

use std::io::Cursor;
use std::time::Instant;

use rtc::peer_connection::configuration::media_engine::MediaEngine;
use rtc::peer_connection::sdp::RTCSessionDescription;
use rtc::peer_connection::{RTCPeerConnection, RTCPeerConnectionBuilder};
use rtc::rtp_transceiver::rtp_sender::RtpCodecKind;
use rtc::rtp_transceiver::{RTCRtpTransceiverDirection, RTCRtpTransceiverInit};
use rtc::sdp::SessionDescription;

use super::*;
use crate::webrtc::sdp::{PublisherRules, answer_publisher, answer_viewer};

fn counter() -> impl FnMut() -> u32 {
    let mut next = 0;
    move || {
        next += 1;
        next
    }
}

#[test]
fn answers_to_all_samples_are_read_by_another_parser() {
    let stream = [opus(), h264("42e01f"), track(Codec::Vp8, "")];
    let published = PUBLISHERS.iter().map(|text| {
        answer_publisher(&parse(text), &local(), &PublisherRules::default()).unwrap().sdp
    });
    let viewed = VIEWERS
        .iter()
        .map(|text| answer_viewer(&parse(text), &local(), &stream, &mut counter()).unwrap().sdp);
    for sdp in published.chain(viewed) {
        let read = SessionDescription::unmarshal(&mut Cursor::new(sdp.as_bytes())).unwrap();
        assert!(read.attribute("group").is_some_and(|group| group.starts_with("BUNDLE ")));
        for media in read.media_descriptions.iter().filter(|m| m.media_name.port.value != 0) {
            assert_eq!(media.attribute("ice-ufrag"), Some(Some("edge0001")));
            assert!(media.attribute("mid").is_some());
        }
    }
}

fn viewing_peer() -> RTCPeerConnection {
    let mut engine = MediaEngine::default();
    engine.register_default_codecs().unwrap();
    let builder = RTCPeerConnectionBuilder::new().with_media_engine(engine);
    let mut peer = builder.build(Instant::now()).unwrap();
    for kind in [RtpCodecKind::Audio, RtpCodecKind::Video] {
        let init = RTCRtpTransceiverInit {
            direction: RTCRtpTransceiverDirection::Recvonly,
            streams: vec![],
            send_encodings: vec![],
        };
        peer.add_transceiver_from_kind(kind, Some(init)).unwrap();
    }
    peer
}

#[test]
fn an_independent_peer_connection_takes_the_answer_to_its_offer() {
    let mut peer = viewing_peer();
    let offer = peer.create_offer(None).unwrap();
    peer.set_local_description(Instant::now(), offer.clone()).unwrap();
    let offer = Offer::parse(&offer.sdp).unwrap();
    let stream = [opus(), h264("42e01f")];
    let answer = answer_viewer(&offer, &local(), &stream, &mut counter()).unwrap();
    assert_eq!(answer.tracks.len(), 2);
    let answer = RTCSessionDescription::answer(answer.sdp).unwrap();
    peer.set_remote_description(Instant::now(), answer).unwrap();
}
