//! What single steps of the packet path cost: `cargo bench --bench packet`.

#![allow(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
#![allow(missing_docs, reason = "a program, not a library")]

#[path = "../common/mod.rs"]
mod common;

use std::cell::RefCell;
use std::hint::black_box;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use railbird::egress::fanout::{FanoutStream, PassContext, Seat};
use railbird::ingest::whip::receiver::{Receiver, ReceiverSettings};
use railbird::media::TrackInfo;
use railbird::net::udp::{DatagramSink, MAX_SEND, Traffic};
use railbird::route::Route;
use railbird::rtp::{HeaderFields, write_header};
use railbird::time::Clock;
use railbird::webrtc::negotiated::{ExtensionIds, ReceiveTrack, SsrcPair};
use railbird::webrtc::rtcp::{self, CompoundBuilder};
use railbird::webrtc::srtp::{KeyingMaterial, Opener, Profile};

use self::common::{HEADER, VIDEO, packet, publisher, sealer, utc, viewer};

/// Bytes of an RTP packet before it is sealed.
const PACKET: usize = 1200;

/// A network that takes everything and does nothing.
struct Nowhere(Box<[u8; MAX_SEND]>);

impl DatagramSink for Nowhere {
    fn push(
        &mut self,
        _to: Route,
        _traffic: Traffic,
        write: impl FnOnce(&mut [u8]) -> Option<usize>,
    ) {
        black_box(write(&mut self.0[..]));
    }
}

/// A stream with one viewer.
struct Fanout {
    stream: FanoutStream,
    seat: Seat,
    now: Instant,
    seq: u64,
    sink: Nowhere,
}

impl Fanout {
    fn new() -> Self {
        let publisher = publisher();
        let mut stream = FanoutStream::new(publisher.stream().clone());
        let now = Instant::now();
        let to = Route::from(SocketAddr::from(([192, 0, 2, 1], 4000)));
        let seat = stream.join(now, viewer(1, to, publisher.stream()));
        Self { stream, seat, now, seq: 0, sink: Nowhere(Box::new([0; MAX_SEND])) }
    }

    fn send_one(&mut self) {
        self.now += Duration::from_millis(4);
        let packet = packet(
            self.seq,
            self.seq * 3000,
            true,
            self.seq.is_multiple_of(60),
            PACKET - HEADER,
            self.now,
        );
        self.stream.push(self.now, VIDEO, packet);
        self.seq += 1;
        let context = PassContext::new(self.now, utc(self.seq));
        let left = self.stream.pass(&context, 64, &mut self.sink, &mut Vec::new());
        assert!(left < 64);
    }
}

fn sealing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("seal");
    group.throughput(Throughput::Bytes(PACKET as u64));
    for profile in [Profile::AeadAes128Gcm, Profile::Aes128CmSha1_80] {
        let sealer = sealer(profile, 1);
        let mut buffer = vec![0x80; PACKET + 16];
        let mut index = 0;
        group.bench_function(profile.as_str(), |bencher| {
            bencher.iter(|| {
                index += 1;
                sealer.seal_rtp(&mut buffer, PACKET, index).expect("sealed")
            });
        });
    }
    group.finish();
}

fn fan_out(criterion: &mut Criterion) {
    let mut fanout = Fanout::new();
    criterion.bench_function("a packet into the ring and out to one viewer", |bencher| {
        bencher.iter(|| fanout.send_one());
    });
    let to = SocketAddr::from(([192, 0, 2, 1], 4000)).into();
    let spec = viewer(1, to, fanout.stream.stream());
    let fanout = RefCell::new(fanout);
    let (ssrc, first) = (spec.tracks[0].ssrc, spec.seeds[0]);
    let nack = || {
        let mut fanout = fanout.borrow_mut();
        // So that the viewer's share for resends is never used up.
        for _ in 0..30 {
            fanout.send_one();
        }
        let newest = first + fanout.seq - 1;
        let lost: Vec<u16> = (0..10).rev().map(|back| (newest - back * 2) as u16).collect();
        CompoundBuilder::new(7).nack(ssrc, &lost).finish()
    };
    let answer = |nack: Vec<u8>| {
        let fanout = &mut *fanout.borrow_mut();
        let messages = rtcp::parse(&nack).expect("a NACK");
        let context = PassContext::new(fanout.now, utc(fanout.seq));
        fanout.stream.handle_rtcp(fanout.seat, &messages, &context, &mut fanout.sink)
    };
    let name = "a NACK for ten packets, parsed and answered";
    criterion.bench_function(name, |bencher| {
        bencher.iter_batched(nack, answer, BatchSize::NumIterations(1));
    });
    let counts = fanout.borrow().stream.stream().egress.snapshot();
    assert!(counts.resent > 0 && counts.resend_missed + counts.resend_refused == 0, "{counts:?}");
}

fn receiving(criterion: &mut Criterion) {
    let profile = Profile::AeadAes128Gcm;
    let bytes: Vec<u8> = (0..profile.keying_material_len()).map(|i| (i + 1) as u8).collect();
    let material = KeyingMaterial::new(profile, &bytes).expect("as long as it must be");
    let mut opener = Opener::new(&material, false).expect("keys");
    let sealer = sealer(profile, 1);
    let info = TrackInfo {
        codec: railbird::codec::Codec::H264,
        channels: 0,
        fmtp: String::new(),
        rids: vec![String::new()],
    };
    let track = ReceiveTrack {
        mid: "0".to_owned(),
        info,
        payload_type: 96,
        rtx_payload_type: None,
        ssrcs: vec![SsrcPair { media: 9, rtx: None }],
        extensions: ExtensionIds::default(),
        nack: true,
        pli: true,
    };
    let mut now = Instant::now();
    let clock = Clock::fixed(now, utc(0));
    let mut receiver = Receiver::new(vec![track], clock, ReceiverSettings::default());
    let mut index = 0u64;
    criterion.bench_function("a publisher's packet, opened, bound and put in order", |bencher| {
        let sealed = || {
            index += 1;
            let fields = HeaderFields {
                marker: index.is_multiple_of(9),
                payload_type: 96,
                sequence: index as u16,
                timestamp: (index / 9 * 3000) as u32,
                ssrc: 9,
            };
            let mut buffer = vec![0x41; PACKET + 16];
            write_header(&mut buffer, &fields, &[]).expect("room");
            sealer.seal_rtp(&mut buffer, PACKET, index).expect("sealed");
            buffer
        };
        let open = |mut buffer: Vec<u8>| {
            now += Duration::from_millis(3);
            let len = opener.open_rtp(&mut buffer).expect("opened");
            receiver.handle_rtp(now, Bytes::copy_from_slice(&buffer[..len])).expect("taken");
            while receiver.poll_rtcp(now).is_some() {}
            receiver.poll_packet()
        };
        bencher.iter_batched(sealed, open, BatchSize::NumIterations(1));
    });
}

criterion_group!(benches, sealing, fan_out, receiving);
criterion_main!(benches);
