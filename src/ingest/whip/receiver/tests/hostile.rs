//! Nothing that a publisher sends may panic or grow without bound.

use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};

use super::link::{MEDIA, PT, RTX, RTX_PT, UTC_AT_START, rtp, video, vp8};
use crate::ingest::whip::receiver::bind::MAX_SSRCS_PER_TRACK;
use crate::ingest::whip::receiver::nack::MAX_HOLES;
use crate::ingest::whip::receiver::{Receiver, ReceiverSettings};
use crate::media::LayerId;
use crate::rtp::HeaderFields;
use crate::time::Clock;
use crate::webrtc::negotiated::ReceiveTrack;
use crate::webrtc::rtcp::{Rtcp, SenderReport};

fn tracks() -> Vec<ReceiveTrack> {
    let mut simulcast = video();
    simulcast.mid = "1".to_owned();
    (simulcast.payload_type, simulcast.rtx_payload_type) = (98, Some(99));
    simulcast.ssrcs.clear();
    simulcast.info.rids = ["a", "b"].map(str::to_owned).to_vec();
    vec![video(), simulcast]
}

fn assert_bounded(receiver: &Receiver) {
    let settings = ReceiverSettings::default();
    assert!(receiver.binder.len() <= 2 * MAX_SSRCS_PER_TRACK);
    for stream in receiver.layers.iter().flatten().filter_map(|layer| layer.stream.as_ref()) {
        assert!(stream.reorder.held() <= settings.max_reorder_packets + 1);
        assert!(stream.reorder.missing.len() <= MAX_HOLES);
    }
    assert!(receiver.arrivals.as_ref().is_none_or(|(_, log)| log.pending() <= 1_000));
}

fn random_packet(rng: &mut StdRng) -> Bytes {
    let fields = HeaderFields {
        marker: rng.random(),
        payload_type: [PT, RTX_PT, 98, 99, 50][rng.random_range(0..5)],
        sequence: match rng.random_range(0..4) {
            0 => rng.random(),
            1 => rng.random_range(0..6) * 2_999,
            _ => rng.random_range(0..600),
        },
        timestamp: if rng.random() { rng.random() } else { rng.random_range(0..90_000) },
        ssrc: match rng.random_range(0..8) {
            0 => RTX,
            1 => rng.random(),
            2 => rng.random_range(0..40),
            _ => MEDIA,
        },
    };
    let transport: [u8; 2] = rng.random();
    let capture: [u8; 16] = rng.random();
    let rid = [b"a", b"b", b"c"][rng.random_range(0..3)];
    let mid = [b"0", b"1", b"2"][rng.random_range(0..3)];
    let all: [(u8, &[u8]); 5] = [(1, mid), (2, rid), (3, rid), (5, &transport), (4, &capture)];
    let count = rng.random_range(0..=all.len());
    let mut payload = vp8(rng.random(), rng.random(), 0);
    payload.truncate(rng.random_range(0..=payload.len()));
    let mut packet = rtp(fields, &all[..count], &payload).to_vec();
    if rng.random_bool(0.1) {
        let place = rng.random_range(0..packet.len());
        packet[place] = rng.random();
    }
    if rng.random_bool(0.02) {
        rng.fill_bytes(&mut packet);
    }
    packet.into()
}

#[test]
fn hostile_input_neither_panics_nor_grows() {
    for (seed, polled) in [(1, true), (2, true), (3, false)] {
        let mut rng = StdRng::seed_from_u64(seed);
        let start = Instant::now() + Duration::from_secs(10_000);
        let clock = Clock::fixed(start, UTC_AT_START);
        let mut receiver = Receiver::new(tracks(), clock, ReceiverSettings::default());
        let mut now = start;
        for _ in 0..100_000 {
            // Mostly on, at times a step back: threads do not agree on the time.
            now = match rng.random_range(0..200) {
                0 => now - Duration::from_millis(rng.random_range(0..20)),
                1 => now + Duration::from_millis(rng.random_range(0..2_000)),
                _ => now + Duration::from_micros(rng.random_range(0..900)),
            };
            let _ = receiver.handle_rtp(now, random_packet(&mut rng));
            if rng.random_bool(0.05) {
                let report = SenderReport {
                    ssrc: if rng.random() { MEDIA } else { rng.random_range(0..40) },
                    ntp: rng.random(),
                    rtp_time: rng.random(),
                    packets: rng.random(),
                    octets: rng.random(),
                };
                receiver.handle_rtcp(now, &[Rtcp::SenderReport(report), Rtcp::Other]);
                let layer = LayerId { track: rng.random(), layer: rng.random_range(0..3) };
                receiver.request_keyframe(layer);
                receiver.handle_timeout(now);
            }
            if polled && rng.random_bool(0.3) {
                let mut polls = 0;
                while let Some(compound) = receiver.poll_rtcp(now) {
                    assert!(compound.len() <= 1200);
                    polls += 1;
                    assert!(polls < 50, "ends");
                }
                let _ = receiver.poll_timeout();
                while receiver.poll_packet().is_some() {}
            }
            assert_bounded(&receiver);
        }
        let waiting = std::iter::from_fn(|| receiver.poll_packet()).count();
        assert!(waiting <= super::super::layer::MAX_READY);
    }
}

#[test]
fn packets_of_a_layer_always_come_in_rising_order() {
    let mut rng = StdRng::seed_from_u64(11);
    let start = Instant::now();
    let clock = Clock::fixed(start, UTC_AT_START);
    let mut receiver = Receiver::new(tracks(), clock, ReceiverSettings::default());
    let mut last = std::collections::HashMap::new();
    let mut came = 0;
    for step in 0..100_000u32 {
        let now = start + Duration::from_micros(300) * step;
        let _ = receiver.handle_rtp(now, random_packet(&mut rng));
        while receiver.poll_rtcp(now).is_some() {}
        while let Some((id, packet)) = receiver.poll_packet() {
            came += 1;
            let before = last.insert(id, packet.seq);
            assert!(before.is_none_or(|before| packet.seq > before));
            assert!(!packet.payload.is_empty());
        }
    }
    assert!(came > 1_000);
}
