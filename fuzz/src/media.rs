//! What is in the packets: payload formats and the codecs' own headers.

use std::time::Duration;

use bytes::Bytes;
use railbird::codec::{self as codecs, Codec, av1, h264, h265, opus, vp8, vp9};
use railbird::media::Packet;
use railbird::rtp::{Depacketizer, resolution_of_keyframe_payload, starts_keyframe};
use railbird::time::Utc;

use super::records::{Records, choice};
use super::session::start;

/// Payloads of one track. The first byte chooses the codec; a record's tag says
/// marker (1), new timestamp (2) and packets lost before it (4).
pub fn depacketizer(data: &[u8]) {
    let (first, data) = choice(data);
    let codec = Codec::ALL[first % Codec::ALL.len()];
    let mut depacketizer = Depacketizer::new(codec);
    let (mut seq, mut timestamp, mut frames, mut packets) = (0, 90_000, 0, 0);
    for (tag, payload) in Records(data).take(512) {
        seq += if tag & 4 == 0 { 1 } else { 1 + u64::from(tag >> 3) };
        timestamp += if tag & 2 == 0 { 0 } else { 3_000 };
        packets += 1;
        let packet = Packet {
            seq,
            timestamp,
            marker: tag & 1 != 0,
            keyframe: starts_keyframe(codec, payload),
            capture: Utc::from_micros(1_700_000_000_000_000),
            received: start() + Duration::from_millis(seq),
            payload: Bytes::copy_from_slice(payload),
        };
        check_size(resolution_of_keyframe_payload(codec, payload));
        if let Some(frame) = depacketizer.push(&packet) {
            frames += 1;
            assert!(!frame.data.is_empty() && frame.pts <= timestamp);
            // Length prefixes and size fields add to what came, in proportion.
            assert!(frame.data.len() <= 8 * data.len() + 1024, "{}", frame.data.len());
            read_frame(codec, &frame.data);
        }
    }
    assert!(frames + depacketizer.dropped() <= packets);
}

/// One frame, access unit, NAL unit or OBU. The first byte chooses the codec.
pub fn codec(data: &[u8]) {
    let (first, data) = choice(data);
    let codec = Codec::ALL[first % Codec::ALL.len()];
    read_frame(codec, data);
    match codec {
        Codec::H264 => {
            h264::SliceStart::parse(data);
            check_size(h264::Sps::parse(data).map(|sps| (sps.width, sps.height)));
        }
        Codec::H265 => check_size(h265::Sps::parse(data).map(|sps| (sps.width, sps.height))),
        Codec::Vp9 => {
            check_size(vp9::KeyframeHeader::parse(data).map(|key| (key.width, key.height)));
        }
        Codec::Av1 => {
            av1::SequenceHeader::parse(data);
            if let Some((value, _)) = av1::read_leb128(data) {
                let mut written = Vec::new();
                av1::write_leb128(&mut written, value);
                assert_eq!(av1::read_leb128(&written).map(|(again, _)| again), Some(value));
            }
        }
        Codec::Vp8 | Codec::Opus => {}
    }
}

fn read_frame(codec: Codec, data: &[u8]) {
    check_size(codecs::resolution(codec, data));
    if let Some(text) = codecs::codec_string(codec, data) {
        assert!(text.len() < 64 && text.is_ascii(), "{text}");
    }
    match codec {
        Codec::H264 | Codec::H265 => {
            let total: usize = codecs::nal_units(data).map(|unit| unit.len() + 4).sum();
            assert!(total <= data.len());
            h264::ParameterSets::collect(data);
            h265::ParameterSets::collect(data);
            codecs::nal_units(data).for_each(|unit| _ = h265::is_first_slice(unit));
        }
        Codec::Av1 => {
            let mut out = Vec::new();
            for obu in av1::obus(data) {
                obu.write_sized(&mut out);
                av1::is_shown_keyframe(obu.payload, obu.kind() & 1 == 0);
            }
        }
        Codec::Vp8 => _ = vp8::is_keyframe(data),
        Codec::Vp9 => _ = (vp9::is_keyframe(data), vp9::resolution(data)),
        Codec::Opus => {
            // RFC 6716 §3.2.5: 120 ms at 48 kHz.
            assert!(opus::duration(data).is_none_or(|ticks| (1..=5_760).contains(&ticks)));
        }
    }
}

fn check_size(size: Option<(u32, u32)>) {
    if let Some((width, height)) = size {
        assert!((1..=1 << 16).contains(&width) && (1..=1 << 16).contains(&height));
    }
}
