//! What is agreed with publishers.

use super::*;
use crate::codec::MediaKind;
use crate::webrtc::dtls::DtlsRole;
use crate::webrtc::negotiated::{ExtensionIds, ReceiveTrack, SsrcPair};
use crate::webrtc::sdp::{
    CodecOrder, NegotiationError, PublisherAnswer, PublisherRules, SetupRole, answer_publisher,
};

fn answer(text: &str) -> PublisherAnswer {
    answer_publisher(&parse(text), &local(), &PublisherRules::default()).unwrap()
}

fn video(answer: &PublisherAnswer) -> &ReceiveTrack {
    answer.tracks.iter().find(|track| track.info.kind() == MediaKind::Video).unwrap()
}

#[test]
fn chromium_camera_is_taken_in_its_first_codec() {
    let answer = answer(CHROMIUM_CAMERA);
    let [audio, video] = answer.tracks.as_slice() else { panic!("{:?}", answer.tracks) };
    assert_eq!(audio.info, opus());
    assert_eq!((audio.mid.as_str(), audio.payload_type, audio.rtx_payload_type), ("0", 111, None));
    assert_eq!(audio.ssrcs.len(), 1);
    assert!(!audio.nack && !audio.pli);
    assert_eq!(video.info, track(Codec::Vp8, ""));
    assert_eq!((video.mid.as_str(), video.payload_type), ("1", 96));
    assert_eq!(video.rtx_payload_type, Some(97));
    assert!(matches!(video.ssrcs.as_slice(), [SsrcPair { rtx: Some(_), .. }]));
    assert!(video.nack && video.pli);
    let expected = ExtensionIds {
        mid: Some(4),
        rid: Some(10),
        repaired_rid: Some(11),
        transport_cc: Some(3),
        ..ExtensionIds::default()
    };
    assert_eq!(video.extensions, expected);
    assert_eq!(answer.dtls_role, DtlsRole::Server);
}

#[test]
fn the_order_of_the_page_decides_on_the_codec() {
    for (offer, codec, fmtp) in [
        (CHROMIUM_AV1, Codec::Av1, "level-idx=5;profile=0;tier=0"),
        (CHROMIUM_VP9, Codec::Vp9, "profile-id=0"),
        (
            CHROMIUM_H264,
            Codec::H264,
            "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42001f",
        ),
    ] {
        let answer = answer(offer);
        assert_eq!(video(&answer).info, track(codec, fmtp));
        assert!(answer.sdp.contains(fmtp), "{}", answer.sdp);
    }
}

#[test]
fn the_order_of_the_rules_decides_when_they_say_so() {
    let rules = PublisherRules { order: CodecOrder::Rules, ..PublisherRules::default() };
    let answer = answer_publisher(&parse(CHROMIUM_CAMERA), &local(), &rules).unwrap();
    assert_eq!(video(&answer).info.codec, Codec::H264);
}

#[test]
fn simulcast_layers_are_answered_in_the_order_of_the_offer() {
    let answer = answer(CHROMIUM_SIMULCAST);
    let video = video(&answer);
    assert_eq!(video.info.rids, ["q", "h", "f"]);
    assert_eq!(video.ssrcs, []);
    let lines = section(&answer.sdp, "video");
    assert!(lines.contains(&"a=simulcast:recv q;h;f"), "{lines:?}");
    let rids: Vec<_> = lines.iter().filter(|line| line.starts_with("a=rid:")).collect();
    assert_eq!(rids, [&"a=rid:q recv", &"a=rid:h recv", &"a=rid:f recv"]);
}

#[test]
fn simulcast_takes_alternatives_paused_layers_and_no_more_than_four() {
    let rids = ["a", "b", "c", "d", "e"].map(|rid| format!("a=rid:{rid} send\r\n")).concat();
    let offer = CHROMIUM_SIMULCAST
        .replace("a=simulcast:send q;h;f", &format!("{rids}a=simulcast:send a,q;~b;x;c;d;e"));
    assert_eq!(video(&answer(&offer)).info.rids, ["a", "b", "c", "d"]);
    let no_rid_extension = CHROMIUM_SIMULCAST.replace(":rtp-stream-id", ":unknown");
    assert_eq!(video(&answer(&no_rid_extension)).info.rids, [""]);
}

#[test]
fn a_layer_restricted_to_another_payload_type_is_left_out() {
    let offer = CHROMIUM_SIMULCAST
        .replace("a=rid:q send", "a=rid:q send pt=102,108")
        .replace("a=rid:h send", "a=rid:h send pt=96;max-width=640");
    let answer = answer(&offer);
    assert_eq!(video(&answer).info.rids, ["h", "f"]);
    assert!(answer.sdp.contains("a=rid:h recv pt=96;max-width=640\r\n"));
}

#[test]
fn the_answer_to_a_camera_reads_as_expected() {
    let answer = answer(CHROMIUM_H264);
    let expected = [
        "video 9 UDP/TLS/RTP/SAVPF 102 103",
        "c=IN IP4 0.0.0.0",
        "a=ice-ufrag:edge0001",
        "a=ice-pwd:0123456789abcdefghijklmn",
        "a=fingerprint:sha-256 A5:A5:A5:A5:A5:A5:A5:A5:A5:A5:A5:A5:A5:A5:A5:A5:A5:A5:A5:A5:A5:A5:A5:A5:A5:A5:A5:A5:A5:A5:A5:A5",
        "a=setup:passive",
        "a=mid:1",
        "a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01",
        "a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid",
        "a=extmap:10 urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id",
        "a=extmap:11 urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id",
        "a=recvonly",
        "a=rtcp-mux",
        "a=rtcp-rsize",
        "a=rtpmap:102 H264/90000",
        "a=rtcp-fb:102 transport-cc",
        "a=rtcp-fb:102 ccm fir",
        "a=rtcp-fb:102 nack",
        "a=rtcp-fb:102 nack pli",
        "a=fmtp:102 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42001f",
        "a=rtpmap:103 rtx/90000",
        "a=fmtp:103 apt=102",
    ];
    assert_eq!(section(&answer.sdp, "video"), expected);
    let head = "v=0\r\no=- 42 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\n\
                a=extmap-allow-mixed\r\na=ice-lite\r\na=ice-options:ice2 trickle\r\nm=audio 9 ";
    assert!(answer.sdp.starts_with(head), "{}", answer.sdp);
    // IPv4 is listed first, the caller's first choice has the higher priority.
    let candidates = "a=candidate:2 1 udp 2130706175 192.0.2.1 8443 typ host\r\n\
                      a=candidate:1 1 udp 2130706431 2001:db8::1 8443 typ host\r\n\
                      a=end-of-candidates\r\n";
    assert_eq!(answer.sdp.matches(candidates).count(), 1);
    assert_eq!(answer.sdp.matches("a=candidate").count(), 2);
}

#[test]
fn data_channels_and_second_tracks_are_rejected_in_place() {
    let answer = answer(CHROMIUM_DATA);
    assert_eq!(answer.tracks.len(), 2);
    let data = ["application 0 UDP/DTLS/SCTP webrtc-datachannel", "c=IN IP4 0.0.0.0", "a=mid:2"];
    assert_eq!(section(&answer.sdp, "application"), data);
    assert!(answer.sdp.contains("a=group:BUNDLE 0 1\r\n"));
}

#[test]
fn ffmpeg_waits_for_our_client_hello() {
    let offer = parse(FFMPEG);
    assert_eq!(offer.setup, SetupRole::Passive);
    let answer = answer(FFMPEG);
    assert_eq!(answer.dtls_role, DtlsRole::Client);
    assert!(answer.sdp.contains("a=setup:active\r\n"));
    let video = video(&answer);
    assert_eq!(video.info, h264("42001e"));
    assert_eq!((video.payload_type, video.rtx_payload_type), (106, Some(105)));
    assert_eq!(video.ssrcs, [SsrcPair { media: 1_857_951_795, rtx: Some(1_857_951_796) }]);
    assert!(video.nack && !video.pli);
    assert_eq!(video.extensions, ExtensionIds::default());
}

#[test]
fn aiortc_is_taken_by_the_sha256_of_its_three_fingerprints() {
    let offer = parse(AIORTC_PUBLISHER);
    assert_eq!(offer.fingerprint[..4], [0xa1, 0x04, 0x8c, 0xd2]);
    let answer = answer(AIORTC_PUBLISHER);
    let video = video(&answer);
    assert_eq!(video.info, track(Codec::Vp8, ""));
    assert_eq!(video.ssrcs, [SsrcPair { media: 3_045_855_883, rtx: Some(3_402_017_511) }]);
    assert_eq!(video.extensions, ExtensionIds { mid: Some(1), ..ExtensionIds::default() });
}

#[test]
fn obs_and_gstreamer_are_taken() {
    let obs = answer(OBS);
    let [audio, video] = obs.tracks.as_slice() else { panic!("{:?}", obs.tracks) };
    assert!(audio.info.fmtp.contains("stereo=1"));
    assert!(obs.sdp.contains("useinbandfec=1;stereo=1;sprop-stereo=1\r\n"), "{}", obs.sdp);
    assert_eq!((video.info.codec, video.rtx_payload_type), (Codec::H264, None));
    let gstreamer = answer(GSTREAMER);
    let [video, audio] = gstreamer.tracks.as_slice() else { panic!("{:?}", gstreamer.tracks) };
    assert_eq!((video.mid.as_str(), audio.mid.as_str()), ("video0", "audio1"));
    assert!(video.info.fmtp.contains("sprop-parameter-sets=Z0LA"));
    assert!(!gstreamer.sdp.contains("sprop-parameter-sets"));
    assert_eq!(audio.info.codec, Codec::Opus);
    assert!(gstreamer.sdp.contains("a=group:BUNDLE video0 audio1\r\n"));
}

#[test]
fn what_cannot_be_served_is_refused_in_words() {
    let rules = PublisherRules { codecs: vec![Codec::H264, Codec::Opus], ..Default::default() };
    let offer = AIORTC_PUBLISHER.replace("H264", "theora");
    let error = answer_publisher(&parse(&offer), &local(), &rules).unwrap_err();
    assert_eq!(error.to_string(), "no usable video codec: offered VP8, theora; supported H264");
    let silent = CHROMIUM_CAMERA.replace("a=sendonly", "a=recvonly");
    let error = answer_publisher(&parse(&silent), &local(), &rules).unwrap_err();
    assert_eq!(error, NegotiationError::NoMedia { wanted: "sending" });
}

#[test]
fn a_section_that_does_not_send_is_answered_inactive() {
    let offer = CHROMIUM_CAMERA.replacen("a=sendonly", "a=recvonly", 1);
    let answer = answer(&offer);
    assert_eq!(answer.tracks.len(), 1);
    assert!(section(&answer.sdp, "audio 9").contains(&"a=inactive"));
}

#[test]
fn h264_mode_1_is_preferred_and_interleaving_is_not_taken() {
    let swap = CHROMIUM_H264.replacen("packetization-mode=1", "packetization-mode=0", 1);
    let preferred = answer(&swap);
    assert_eq!(video(&preferred).payload_type, 108);
    let only_0 = CHROMIUM_H264.replace("packetization-mode=1", "packetization-mode=2");
    assert_eq!(video(&answer(&only_0)).payload_type, 104);
}

#[test]
fn bundle_only_sections_and_an_offer_of_one_section_are_taken() {
    let bundle_only = GSTREAMER.replace("m=audio 9", "m=audio 0");
    assert_eq!(answer(&bundle_only).tracks.len(), 2);
    let audio_only = OBS.split("m=video").next().unwrap().replace("a=group:BUNDLE 0 1\n", "");
    let answer = answer(&audio_only);
    assert_eq!(answer.tracks.len(), 1);
    assert!(!answer.sdp.contains("a=group"));
}

#[test]
fn transport_feedback_is_agreed_only_with_its_extension_and_by_rule() {
    let no_extension = CHROMIUM_CAMERA.replace("transport-wide-cc-extensions-01", "gone");
    assert!(!answer(&no_extension).sdp.contains("transport-cc"));
    let rules = PublisherRules { transport_cc: false, ..PublisherRules::default() };
    let answer = answer_publisher(&parse(CHROMIUM_CAMERA), &local(), &rules).unwrap();
    assert!(!answer.sdp.contains("transport-"));
    assert_eq!(video(&answer).extensions.transport_cc, None);
}
