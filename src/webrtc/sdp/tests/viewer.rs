//! What is agreed with viewers.

use super::*;
use crate::webrtc::negotiated::{ExtensionIds, SendTrack};
use crate::webrtc::sdp::{NegotiationError, ViewerAnswer, answer_viewer};

fn try_answer(text: &str, stream: &[TrackInfo]) -> Result<ViewerAnswer, NegotiationError> {
    let mut next = 1000;
    answer_viewer(&parse(text), &local(), stream, &mut || {
        next += 1;
        next
    })
}

fn answer(text: &str, stream: &[TrackInfo]) -> ViewerAnswer {
    try_answer(text, stream).unwrap()
}

/// The payload type that a viewer's H.264 is sent under, or `None`.
fn h264_payload_type(text: &str, profile_level_id: &str) -> Option<u8> {
    try_answer(text, &[h264(profile_level_id)]).ok().map(|answer| answer.tracks[0].payload_type)
}

#[test]
fn chromium_gets_both_tracks_with_the_best_matching_profile() {
    // The stream's order of tracks need not be that of the sections.
    let answer = answer(CHROMIUM_VIEWER, &[h264("42e01f"), opus()]);
    let audio = SendTrack {
        mid: "0".into(),
        track: 1,
        payload_type: 111,
        rtx_payload_type: None,
        ssrc: 1001,
        rtx_ssrc: 1002,
        extensions: ExtensionIds { mid: Some(4), ..ExtensionIds::default() },
        nack: false,
        pli: false,
    };
    let video = SendTrack {
        mid: "1".into(),
        track: 0,
        payload_type: 108,
        rtx_payload_type: Some(109),
        ssrc: 1003,
        rtx_ssrc: 1004,
        extensions: ExtensionIds {
            mid: Some(4),
            abs_send_time: Some(2),
            playout_delay: Some(5),
            ..ExtensionIds::default()
        },
        nack: true,
        pli: true,
    };
    assert_eq!(answer.tracks, [audio, video]);
    let lines = section(&answer.sdp, "video 9");
    for line in [
        "a=sendonly",
        "a=msid:railbird video0",
        "a=rtcp-fb:108 goog-remb",
        "a=rtcp-fb:108 nack pli",
        "a=fmtp:108 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f",
        "a=fmtp:109 apt=108",
        "a=ssrc-group:FID 1003 1004",
        "a=ssrc:1003 cname:railbird",
        "a=ssrc:1004 cname:railbird",
    ] {
        assert!(lines.contains(&line), "{line} not in {lines:?}");
    }
    assert!(!answer.sdp.contains("transport-cc"));
    assert!(!answer.sdp.contains("transport-wide"));
}

#[test]
fn h264_profiles_go_only_to_decoders_that_decode_them() {
    // Chromium here: 42001f, 42e01f, 4d001f and f4001f.
    assert_eq!(h264_payload_type(CHROMIUM_VIEWER, "42001f"), Some(102));
    assert_eq!(h264_payload_type(CHROMIUM_VIEWER, "42c028"), Some(108));
    assert_eq!(h264_payload_type(CHROMIUM_VIEWER, "4d0028"), Some(116));
    assert_eq!(h264_payload_type(CHROMIUM_VIEWER, "640028"), None);
    // Safari: Constrained High and Constrained Baseline.
    assert_eq!(h264_payload_type(SAFARI_VIEWER, "42001f"), Some(98));
    assert_eq!(h264_payload_type(SAFARI_VIEWER, "640028"), Some(96));
    assert_eq!(h264_payload_type(SAFARI_VIEWER, "4d401f"), Some(96));
    // Firefox: Constrained Baseline, and its mode 0 is not taken for mode 1.
    assert_eq!(h264_payload_type(FIREFOX_VIEWER, "42e01f"), Some(126));
    assert_eq!(h264_payload_type(FIREFOX_VIEWER, "4d001f"), None);
    assert_eq!(h264_payload_type(AIORTC_VIEWER, "42001f"), Some(99));
}

#[test]
fn profiles_of_the_other_codecs_are_compared() {
    let payload_type = |codec, fmtp: &str| {
        let stream = [track(codec, fmtp)];
        try_answer(CHROMIUM_VIEWER, &stream).ok().map(|answer| answer.tracks[0].payload_type)
    };
    assert_eq!(payload_type(Codec::Vp8, ""), Some(96));
    assert_eq!(payload_type(Codec::Vp9, ""), Some(98));
    assert_eq!(payload_type(Codec::Vp9, "profile-id=2"), Some(100));
    assert_eq!(payload_type(Codec::Av1, ""), Some(45));
    assert_eq!(payload_type(Codec::Av1, "profile=1"), Some(47));
    assert_eq!(payload_type(Codec::Av1, "profile=2"), None);
    assert_eq!(payload_type(Codec::H265, ""), None);
    let safari = |fmtp| try_answer(SAFARI_VIEWER, &[track(Codec::H265, fmtp)]).is_ok();
    assert!(safari("") && !safari("profile-id=2"));
}

#[test]
fn stereo_is_passed_on_when_it_was_published() {
    let stereo = track(Codec::Opus, "minptime=10;stereo=1;sprop-stereo=1;useinbandfec=1");
    let answer = answer(CHROMIUM_VIEWER, &[stereo]);
    let fmtp = "a=fmtp:111 minptime=10;useinbandfec=1;stereo=1;sprop-stereo=1";
    assert!(section(&answer.sdp, "audio").contains(&fmtp));
}

#[test]
fn a_section_without_a_track_is_rejected_and_leaves_the_bundle() {
    let answer = answer(CHROMIUM_VIEWER, &[h264("42e01f")]);
    assert_eq!(answer.tracks.len(), 1);
    let rejected = ["audio 0 UDP/TLS/RTP/SAVPF 111", "c=IN IP4 0.0.0.0", "a=mid:0", "a=inactive"];
    assert_eq!(section(&answer.sdp, "audio"), rejected);
    assert!(answer.sdp.contains("a=group:BUNDLE 1\r\n"));
    assert!(section(&answer.sdp, "video 9").contains(&"a=end-of-candidates"));
}

#[test]
fn no_codec_in_common_names_both_sides() {
    let error = try_answer(AIORTC_VIEWER, &[h264("640028")]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "no codec in common: the table is published in H264 (640028, mode 1); the offer has \
         opus, G722, PCMU, PCMA, VP8, H264 (42001f, mode 1), H264 (42e01f, mode 1)"
    );
    let error = try_answer(CHROMIUM_CAMERA, &[opus()]).unwrap_err();
    assert_eq!(error, NegotiationError::NoMedia { wanted: "receiving" });
}

#[test]
fn firefox_extension_directions_are_answered_reversed() {
    let answer = answer(FIREFOX_VIEWER, &[opus(), h264("42e01f")]);
    let uri = "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay";
    let line = format!("a=extmap:6/sendonly {uri}");
    assert!(section(&answer.sdp, "video").contains(&line.as_str()));
}

#[test]
fn ssrcs_are_unique_even_when_the_random_numbers_are_not() {
    let stream = [opus(), h264("42e01f")];
    let answer =
        answer_viewer(&parse(CHROMIUM_VIEWER), &local(), &stream, &mut || u32::MAX).unwrap();
    let ssrcs: Vec<u32> = answer.tracks.iter().flat_map(|t| [t.ssrc, t.rtx_ssrc]).collect();
    assert_eq!(ssrcs, [u32::MAX, 1, 2, 3]);
}
