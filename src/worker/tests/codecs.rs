//! What a client's stack is told of codecs: H264 with RTX, Opus.

use rtc::peer_connection::configuration::media_engine::{
    MIME_TYPE_H264, MIME_TYPE_OPUS, MIME_TYPE_RTX, MediaEngine,
};
use rtc::rtp_transceiver::rtp_sender::{
    RTCPFeedback, RTCRtpCodec, RTCRtpCodecParameters, RTCRtpCodingParameters,
    RTCRtpEncodingParameters, RTCRtpRtxParameters, RtpCodecKind,
};

pub(super) const VIDEO_PT: u8 = 102;
pub(super) const RTX_PT: u8 = 103;
pub(super) const AUDIO_PT: u8 = 111;

pub(super) fn register_codecs(engine: &mut MediaEngine, with_rtx: bool) {
    let rtx = RTCRtpCodec {
        mime_type: MIME_TYPE_RTX.to_owned(),
        clock_rate: 90_000,
        channels: 0,
        sdp_fmtp_line: format!("apt={VIDEO_PT}"),
        rtcp_feedback: vec![],
    };
    let codecs = [
        (video_codec(), VIDEO_PT, RtpCodecKind::Video),
        (rtx, RTX_PT, RtpCodecKind::Video),
        (audio_codec(), AUDIO_PT, RtpCodecKind::Audio),
    ];
    for (rtp_codec, payload_type, kind) in codecs {
        if payload_type == RTX_PT && !with_rtx {
            continue;
        }
        engine.register_codec(RTCRtpCodecParameters { rtp_codec, payload_type }, kind).unwrap();
    }
}

pub(super) fn video_codec() -> RTCRtpCodec {
    let feedback = |typ: &str, parameter: &str| RTCPFeedback {
        typ: typ.to_owned(),
        parameter: parameter.to_owned(),
    };
    RTCRtpCodec {
        mime_type: MIME_TYPE_H264.to_owned(),
        clock_rate: 90_000,
        channels: 0,
        sdp_fmtp_line: "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f"
            .to_owned(),
        rtcp_feedback: vec![feedback("nack", ""), feedback("nack", "pli")],
    }
}

pub(super) fn audio_codec() -> RTCRtpCodec {
    RTCRtpCodec {
        mime_type: MIME_TYPE_OPUS.to_owned(),
        clock_rate: 48_000,
        channels: 2,
        sdp_fmtp_line: "minptime=10;useinbandfec=1".to_owned(),
        rtcp_feedback: vec![],
    }
}

pub(super) fn encoding(
    ssrc: u32,
    rid: &str,
    rtx: Option<RTCRtpRtxParameters>,
    codec: RTCRtpCodec,
) -> RTCRtpEncodingParameters {
    let rtp_coding_parameters =
        RTCRtpCodingParameters { rid: rid.to_owned(), ssrc: Some(ssrc), rtx, fec: None };
    RTCRtpEncodingParameters { rtp_coding_parameters, codec, ..Default::default() }
}
