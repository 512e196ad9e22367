//! A stream, its packets and its viewers, as an offer and an answer would make them.

use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

use railbird::codec::Codec;
use railbird::egress::fanout::{ViewerSpec, Watching};
use railbird::hub::{PublishRequest, Publisher, Registry, Stream};
use railbird::media::{LayerId, Packet, TrackInfo};
use railbird::route::Route;
use railbird::rtp::extensions::PlayoutDelay;
use railbird::time::Utc;
use railbird::webrtc::negotiated::{ExtensionIds, SendTrack};
use railbird::webrtc::srtp::{KeyingMaterial, Profile, Sealer};

/// Header with the one extension that every packet carries.
pub const HEADER: usize = 12 + 4 + 4;
pub const VIDEO: LayerId = LayerId { track: 0, layer: 0 };

/// A table with video and audio.
pub fn publisher() -> Publisher {
    let track = |codec, channels| TrackInfo {
        codec,
        channels,
        fmtp: String::new(),
        rids: vec![String::new()],
    };
    let request = PublishRequest {
        table: "bench".parse().expect("a table name"),
        tracks: vec![track(Codec::H264, 0), track(Codec::Opus, 2)],
        credentials: None,
        now: Utc::default(),
        waker: Waker::noop().clone(),
    };
    Registry::new(1).publish(request).expect("the table is free")
}

/// When frame `n` of a stream of 30 a second was captured.
pub fn utc(frame: u64) -> Utc {
    Utc::from_micros(1_700_000_000_000_000 + frame as i64 * 33_333)
}

/// A packet of `len` bytes.
pub fn packet(
    seq: u64,
    timestamp: u64,
    marker: bool,
    keyframe: bool,
    len: usize,
    received: Instant,
) -> Arc<Packet> {
    let payload = vec![seq as u8; len].into();
    let capture = utc(timestamp / 3000);
    Arc::new(Packet { seq, timestamp, marker, keyframe, capture, received, payload })
}

/// Keys of session `n`.
pub fn sealer(profile: Profile, n: usize) -> Sealer {
    let bytes: Vec<u8> = (0..profile.keying_material_len()).map(|i| (i + n) as u8).collect();
    let material = KeyingMaterial::new(profile, &bytes).expect("as long as it must be");
    Sealer::new(&material, false).expect("keys")
}

/// Viewer `n` of `stream`, whose packets go to `to`.
pub fn viewer(n: usize, to: Route, stream: &Arc<Stream>) -> ViewerSpec {
    let extensions = ExtensionIds {
        abs_capture_time: Some(3),
        abs_send_time: Some(2),
        playout_delay: Some(5),
        ..ExtensionIds::default()
    };
    let send = |track: u8, payload_type: u8, rtx: Option<u8>| SendTrack {
        mid: track.to_string(),
        track,
        payload_type,
        rtx_payload_type: rtx,
        ssrc: (n * 4) as u32 + u32::from(track),
        rtx_ssrc: (n * 4) as u32 + 2 + u32::from(track),
        extensions,
        nack: true,
        pli: true,
    };
    let tracks = vec![send(0, 96, Some(97)), send(1, 111, None)];
    ViewerSpec {
        peer: n,
        to,
        sealer: sealer(Profile::AeadAes128Gcm, n),
        watching: Watching::new(stream.clone(), &tracks),
        tracks,
        seeds: vec![n as u64 * 7, n as u64 * 13],
        cname: n.to_string(),
        playout_delay: PlayoutDelay::from_millis(0, 150),
    }
}
