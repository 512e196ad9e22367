//! The gateway's own fan-out: the same types, sockets and passes that a worker runs.

use std::net::UdpSocket;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use railbird::codec::Codec;
use railbird::egress::fanout::{FanoutStream, PassContext, ViewerSpec, Watching};
use railbird::hub::{PublishRequest, Publisher, Registry};
use railbird::media::{LayerId, Packet, TrackInfo};
use railbird::net::udp::{SendBatch, UdpSettings, open_sockets};
use railbird::route::Route;
use railbird::rtp::extensions::PlayoutDelay;
use railbird::time::Utc;
use railbird::webrtc::negotiated::{ExtensionIds, SendTrack};
use railbird::webrtc::srtp::{KeyingMaterial, Profile, Sealer};

use crate::cpu::{Cost, thread_nanos};
use crate::network::{LOCAL, viewer};
use crate::{FRAME, PACKET};

/// Header with the one extension that every packet carries.
const HEADER: usize = 12 + 4 + 4;
const FRAME_TIME: Duration = Duration::from_micros(33_333);
const AUDIO_TIME: Duration = Duration::from_millis(20);
const GOP: u64 = 60;
/// As a worker's turn.
const BUDGET: usize = 4096;

const VIDEO: LayerId = LayerId { track: 0, layer: 0 };
const AUDIO: LayerId = LayerId { track: 1, layer: 0 };

pub(crate) struct Engine {
    stream: FanoutStream,
    sink: SendBatch,
    now: Instant,
    frame: u64,
    next_audio: Option<Instant>,
    audio: u64,
    started: Vec<usize>,
    _socket: UdpSocket,
    _publisher: Publisher,
}

impl Engine {
    pub(crate) fn new(viewers: usize, with_audio: bool) -> Self {
        let settings = UdpSettings::default();
        let socket = open_sockets(&settings, 1).expect("a media socket").remove(0);
        let registry = Registry::new(1);
        let publisher = registry
            .publish(PublishRequest {
                table: "bench".parse().expect("a table name"),
                tracks: vec![track(Codec::H264, 0), track(Codec::Opus, 2)],
                credentials: None,
                now: Utc::default(),
                waker: Waker::noop().clone(),
            })
            .expect("the table is free");
        let mut stream = FanoutStream::new(publisher.stream().clone());
        let now = Instant::now();
        for n in 0..viewers {
            let spec = spec(n, &stream);
            stream.join(now, spec);
        }
        Self {
            stream,
            sink: SendBatch::new(&socket, &settings),
            now,
            frame: 0,
            next_audio: with_audio.then_some(now),
            audio: 0,
            started: Vec::new(),
            _socket: socket,
            _publisher: publisher,
        }
    }

    /// Sends frames as fast as it can; time in the stream runs as in life.
    pub(crate) fn run(&mut self, time: Duration) -> Cost {
        let end = Instant::now() + time;
        let sent_before = self.stream.stream().egress.snapshot().packets;
        let before = thread_nanos();
        while Instant::now() < end {
            self.now += FRAME_TIME;
            while let Some(at) = self.next_audio.filter(|at| *at <= self.now) {
                self.next_audio = Some(at + AUDIO_TIME);
                self.audio += 1;
                let packet = packet(self.audio, self.audio * 960, true, false, 120, self.now);
                self.stream.push(self.now, AUDIO, packet);
            }
            for n in 0..FRAME as u64 {
                let (seq, last) = (self.frame * FRAME as u64 + n, n + 1 == FRAME as u64);
                let key = self.frame.is_multiple_of(GOP);
                // As browsers cut frames: one byte more or less.
                let len = PACKET - HEADER - usize::from(n % 3 == 1);
                let packet = packet(seq, self.frame * 3000, last, key, len, self.now);
                self.stream.push(self.now, VIDEO, packet);
            }
            self.frame += 1;
            let context = PassContext::new(self.now, utc(self.frame));
            while self.stream.poll_timeout(self.now).is_some_and(|at| at <= self.now) {
                self.stream.pass(&context, BUDGET, &mut self.sink, &mut self.started);
                self.sink.flush();
            }
            self.started.clear();
        }
        let cpu_nanos = thread_nanos() - before;
        let packets = self.stream.stream().egress.snapshot().packets - sent_before;
        let counts = self.sink.take_counts();
        assert_eq!(counts.dropped.iter().sum::<u64>(), 0, "{counts:?}");
        Cost { packets, cpu_nanos }
    }
}

fn utc(frame: u64) -> Utc {
    Utc::from_micros(1_700_000_000_000_000 + frame as i64 * 33_333)
}

fn track(codec: Codec, channels: u8) -> TrackInfo {
    TrackInfo { codec, channels, fmtp: String::new(), rids: vec![String::new()] }
}

fn packet(
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

fn spec(n: usize, stream: &FanoutStream) -> ViewerSpec {
    let profile = Profile::AeadAes128Gcm;
    let bytes: Vec<u8> = (0..profile.keying_material_len()).map(|i| (i + n) as u8).collect();
    let material = KeyingMaterial::new(profile, &bytes).expect("as long as it must be");
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
        to: Route { peer: viewer(n), local: Some(LOCAL.into()) },
        sealer: Sealer::new(&material, false).expect("keys"),
        watching: Watching::new(stream.stream().clone(), &tracks),
        tracks,
        seeds: vec![n as u64 * 7, n as u64 * 13],
        cname: n.to_string(),
        playout_delay: PlayoutDelay::from_millis(0, 150),
    }
}
