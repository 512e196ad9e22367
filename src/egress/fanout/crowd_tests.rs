//! Newcomers and those who watch already, on one stream.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use super::*;
use crate::codec::Codec;
use crate::hub::{PublishRequest, Publisher, Registry};
use crate::media::{LayerId, Packet, TrackInfo};
use crate::net::udp::{DatagramSink, Traffic};
use crate::route::Route;
use crate::rtp::extensions::PlayoutDelay;
use crate::time::Utc;
use crate::webrtc::negotiated::{ExtensionIds, SendTrack};
use crate::webrtc::srtp::{KeyingMaterial, Profile, Sealer};

const VIDEO: LayerId = LayerId { track: 0, layer: 0 };
const BUDGET: usize = 4096;

/// Counts what each viewer is sent, by its port.
#[derive(Default)]
struct Counts(HashMap<u16, usize>);

impl DatagramSink for Counts {
    fn push(&mut self, to: Route, _: Traffic, write: impl FnOnce(&mut [u8]) -> Option<usize>) {
        if write(&mut [0; 1500]).is_some() {
            *self.0.entry(to.peer.port()).or_default() += 1;
        }
    }
}

struct Rig {
    now: Instant,
    stream: FanoutStream,
    sent: Counts,
    seq: u64,
    frames: u64,
    _publisher: Publisher,
}

impl Rig {
    fn new() -> Self {
        let track = TrackInfo {
            codec: Codec::H264,
            channels: 0,
            fmtp: String::new(),
            rids: vec![String::new()],
        };
        let request = PublishRequest {
            table: "demo".parse().unwrap(),
            tracks: vec![track],
            credentials: None,
            now: Utc::default(),
            waker: Waker::noop().clone(),
        };
        let publisher = Registry::new(1).publish(request).unwrap();
        let stream = FanoutStream::new(publisher.stream().clone());
        let (now, sent) = (Instant::now(), Counts::default());
        Self { now, stream, sent, seq: 0, frames: 0, _publisher: publisher }
    }

    fn join(&mut self, port: u16) {
        let track = SendTrack {
            mid: "0".to_owned(),
            track: 0,
            payload_type: 96,
            rtx_payload_type: Some(97),
            ssrc: u32::from(port),
            rtx_ssrc: 1 << 16 | u32::from(port),
            extensions: ExtensionIds::default(),
            nack: true,
            pli: true,
        };
        let keys = KeyingMaterial::new(Profile::AeadAes128Gcm, &[7; 56]).unwrap();
        let tracks = vec![track];
        let spec = ViewerSpec {
            peer: usize::from(port),
            to: SocketAddr::from(([192, 0, 2, 1], port)).into(),
            sealer: Sealer::new(&keys, false).unwrap(),
            watching: Watching::new(self.stream.stream().clone(), &tracks),
            tracks,
            seeds: vec![u64::from(port)],
            cname: port.to_string(),
            playout_delay: PlayoutDelay::from_millis(0, 100),
        };
        self.stream.join(self.now, spec);
    }

    fn frame(&mut self, packets: u64, keyframe: bool) {
        for n in 0..packets {
            let packet = Packet {
                seq: self.seq,
                timestamp: self.frames * 3000,
                marker: n + 1 == packets,
                keyframe,
                capture: Utc::default().offset_micros(self.frames as i64 * 33_333),
                received: self.now,
                payload: vec![0x41; 100].into(),
            };
            self.stream.push(self.now, VIDEO, Arc::new(packet));
            self.seq += 1;
        }
        self.frames += 1;
    }

    fn pass(&mut self) {
        let utc = Utc::default().offset_micros(self.frames as i64 * 33_333);
        let context = PassContext::new(self.now, utc);
        self.stream.pass(&context, BUDGET, &mut self.sent, &mut Vec::new());
    }

    fn sent_to(&self, port: u16) -> usize {
        self.sent.0.get(&port).copied().unwrap_or_default()
    }
}

#[test]
fn who_watches_is_not_starved_by_newcomers() {
    let mut rig = Rig::new();
    rig.join(1);
    rig.frame(1500, true);
    for _ in 0..200 {
        rig.pass();
        rig.now += Duration::from_millis(4);
    }
    let before = rig.sent_to(1);
    assert_eq!(before, 1500);
    (2..1002).for_each(|port| rig.join(port));
    rig.frame(9, false);
    let mut passes = 0;
    while rig.sent_to(1) < before + 9 {
        passes += 1;
        // As long as so many packets take: those who had a slice are due again.
        rig.now += Duration::from_millis(5);
        rig.pass();
        assert!(passes <= 6, "the audience waits while newcomers are served");
    }
}

#[test]
fn who_takes_long_to_catch_up_is_not_late() {
    let mut rig = Rig::new();
    rig.frame(1800, true);
    rig.pass();
    rig.join(1);
    for _ in 0..100 {
        rig.now += Duration::from_millis(33);
        rig.frame(2, false);
        // A busy worker gets round to it twice a frame.
        for _ in 0..2 {
            rig.pass();
            rig.now += Duration::from_millis(5);
        }
    }
    let egress = rig.stream.stream().egress.snapshot();
    assert_eq!((egress.overrun, egress.frames_late), (0, 0));
    assert_eq!(rig.sent_to(1) as u64, rig.seq);
}
