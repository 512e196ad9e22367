//! Binding, padding, restarts, feedback and capture times.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use rtc::rtcp::transport_feedbacks::transport_layer_cc::{
    PacketStatusChunk, SymbolTypeTcc, TransportLayerCc,
};

use super::link::{
    CLEAN, LAYER, MEDIA, PT, RTX, RTX_PT, UTC_AT_START, World, number, padded, rtp, video, vp8,
};
use super::stats;
use crate::ingest::whip::receiver::{Receiver, ReceiverSettings, Reject};
use crate::media::LayerId;
use crate::rtp::HeaderFields;
use crate::rtp::extensions::AbsCaptureTime;
use crate::time::{Clock, Utc};
use crate::webrtc::negotiated::ReceiveTrack;
use crate::webrtc::rtcp::{Rtcp, SenderReport};

const MS: Duration = Duration::from_millis(1);

fn media(ssrc: u32, sequence: u16, extensions: &[(u8, &[u8])]) -> Bytes {
    let timestamp = u32::from(sequence) * 2970;
    let fields = HeaderFields { marker: true, payload_type: PT, sequence, timestamp, ssrc };
    rtp(fields, extensions, &vp8(true, sequence == 0, u32::from(sequence)))
}

fn rtx(ssrc: u32, original: u16, extensions: &[(u8, &[u8])]) -> Bytes {
    let timestamp = u32::from(original) * 2970;
    let fields = HeaderFields { marker: true, payload_type: RTX_PT, sequence: 9, timestamp, ssrc };
    let mut payload = original.to_be_bytes().to_vec();
    payload.extend_from_slice(&vp8(true, false, u32::from(original)));
    rtp(fields, extensions, &payload)
}

fn simulcast() -> ReceiveTrack {
    let mut track = video();
    track.ssrcs.clear();
    track.info.rids = ["h", "m", "l"].map(str::to_owned).to_vec();
    track
}

#[test]
fn simulcast_layers_are_told_apart_by_rid_and_repaired_rid() {
    let mut world = World::new(simulcast(), CLEAN, 1);
    let layer = |layer| LayerId { track: 0, layer };
    assert_eq!(world.deliver(media(30, 0, &[])), Err(Reject::UnknownSsrc));
    assert_eq!(world.deliver(media(30, 0, &[(1, b"7"), (2, b"l")])), Err(Reject::UnknownMid));
    assert_eq!(world.deliver(media(30, 0, &[(1, b"0"), (2, b"x")])), Err(Reject::UnknownRid));
    assert_eq!(world.deliver(media(30, 0, &[(1, b"0"), (2, b"l")])), Ok(()));
    assert_eq!(world.deliver(media(10, 0, &[(1, b"0"), (2, b"h")])), Ok(()));
    // The name of an RTX stream is the repaired one, and learned once.
    assert_eq!(world.deliver(rtx(31, 0, &[(1, b"0"), (2, b"h")])), Err(Reject::UnknownSsrc));
    assert_eq!(world.deliver(media(30, 2, &[])), Ok(()));
    assert_eq!(world.deliver(rtx(31, 1, &[(1, b"0"), (3, b"l")])), Ok(()));
    assert_eq!(world.deliver(media(10, 1, &[])), Ok(()));
    assert_eq!(world.deliver(media(30, 4, &[])), Ok(()));
    assert_eq!(world.deliver(rtx(31, 3, &[])), Ok(()));
    let of = |id: LayerId| {
        let mine = world.packets.iter().filter(|(layer, _)| *layer == id);
        mine.map(|(_, packet)| number(packet)).collect::<Vec<_>>()
    };
    assert_eq!(of(layer(2)), [0, 1, 2, 3, 4]);
    assert_eq!(of(layer(0)), [0, 1]);
    assert!(of(layer(1)).is_empty());
    assert_eq!(world.deliver(rtx(30, 5, &[])), Err(Reject::PayloadType));
}

#[test]
fn a_unique_payload_type_is_name_enough() {
    let mut audio = video();
    audio.mid = "1".to_owned();
    audio.info.codec = crate::codec::Codec::Opus;
    (audio.payload_type, audio.rtx_payload_type) = (111, None);
    audio.ssrcs.clear();
    let mut first = video();
    first.ssrcs.clear();
    let clock = Clock::fixed(Instant::now(), UTC_AT_START);
    let now = Instant::now() + MS;
    let mut receiver =
        Receiver::new(vec![first.clone(), audio.clone()], clock, ReceiverSettings::default());
    let fields = HeaderFields { payload_type: 111, ssrc: 5, ..HeaderFields::default() };
    assert_eq!(receiver.handle_rtp(now, rtp(fields, &[], b"opus")), Ok(()));
    let (id, packet) = receiver.poll_packet().expect("a packet");
    assert_eq!((id, packet.keyframe), (LayerId { track: 1, layer: 0 }, true));
    let unknown = HeaderFields { payload_type: 100, ssrc: 6, ..HeaderFields::default() };
    assert_eq!(receiver.handle_rtp(now, rtp(unknown, &[], b"x")), Err(Reject::PayloadType));
    audio.payload_type = PT;
    let mut receiver = Receiver::new(vec![first, audio], clock, ReceiverSettings::default());
    assert_eq!(receiver.handle_rtp(now, media(5, 0, &[])), Err(Reject::UnknownSsrc));
    assert_eq!(receiver.handle_rtp(now, media(5, 0, &[(1, b"1")])), Ok(()));
}

#[test]
fn padding_leaves_no_hole() {
    let mut world = World::new(video(), CLEAN, 1);
    for seq in 0..100u16 {
        let packet = media(MEDIA, seq, &[]);
        let packet = match seq % 4 {
            3 => padded(&packet.slice(..12), 255),
            2 => padded(&packet, 9),
            _ => packet,
        };
        assert_eq!(world.deliver(packet), Ok(()));
        // A probe: RTX without an original sequence number.
        let fields = HeaderFields { payload_type: RTX_PT, ssrc: RTX, ..HeaderFields::default() };
        assert_eq!(world.deliver(padded(&rtp(fields, &[], &[]), 200)), Ok(()));
    }
    let places: Vec<u64> = world.packets.iter().map(|(_, packet)| packet.seq).collect();
    assert_eq!(places, (0..75).collect::<Vec<_>>());
    assert!(
        world
            .packets
            .iter()
            .all(|(_, packet)| packet.payload == vp8(true, number(packet) == 0, number(packet)))
    );
    assert_eq!((stats(&world).lost_for_good, stats(&world).nacks_sent), (0, 0));
}

#[test]
fn a_new_ssrc_or_a_jump_continues_the_layer_with_a_seam() {
    let mut world = World::new(video(), CLEAN, 1);
    world.run(990, 5);
    world.idle(100);
    // The encoder restarts: new SSRC, sequence numbers and timestamps.
    (world.ssrc, world.seq, world.timestamp) = (0x7777, 30_000, 5);
    world.run(990, 5);
    world.idle(100);
    assert_eq!(world.deliver(media(MEDIA, 1, &[])), Err(Reject::ReplacedSsrc));
    // It jumps on the same SSRC.
    (world.seq, world.timestamp) = (world.seq.wrapping_add(20_000), 2_000_000_000);
    world.run(990, 5);
    world.idle(100);
    assert_eq!(world.numbers(), (0..world.sent).collect::<Vec<_>>());
    let mut seams = 0;
    for pair in world.packets.windows(2) {
        let (a, b) = (&pair[0].1, &pair[1].1);
        seams += b.seq - a.seq - 1;
        let media = (b.timestamp - a.timestamp) as i64;
        let elapsed = ((b.received - a.received).as_micros() * 90 / 1000) as i64;
        assert!((media - elapsed).abs() <= 2 * 90, "{media} {elapsed}");
        assert!(b.capture >= a.capture);
    }
    assert_eq!(seams, 2);
    assert!(world.plis.len() >= 2, "each seam asks for a keyframe");
    assert_eq!(stats(&world).lost_for_good, 0);
}

#[test]
fn a_replaced_ssrc_takes_its_layer_back_when_the_other_is_silent() {
    let mut world = World::new(video(), CLEAN, 1);
    assert_eq!(world.deliver(media(MEDIA, 0, &[])), Ok(()));
    assert_eq!(world.deliver(media(8, 500, &[(1, b"0")])), Ok(()));
    assert_eq!(world.deliver(media(MEDIA, 1, &[])), Err(Reject::ReplacedSsrc));
    world.now += Duration::from_secs(3);
    assert_eq!(world.deliver(media(MEDIA, 2, &[])), Ok(()));
    assert_eq!(world.deliver(media(8, 501, &[])), Err(Reject::ReplacedSsrc));
    let places: Vec<u64> = world.packets.iter().map(|(_, packet)| packet.seq).collect();
    assert_eq!(places, [0, 2, 4], "a seam at each change");
}

#[test]
fn one_stray_sequence_number_restarts_nothing() {
    let mut world = World::new(video(), CLEAN, 1);
    world.run(100, 5);
    world.idle(50);
    assert_eq!(world.deliver(media(MEDIA, 20_000, &[])), Ok(()));
    world.run(100, 5);
    world.idle(50);
    assert_eq!(world.numbers(), (0..world.sent).collect::<Vec<_>>());
    world.assert_in_order();
}

#[test]
fn transport_feedback_tells_all_arrivals() {
    let start = Instant::now();
    let clock = Clock::fixed(start, UTC_AT_START);
    let mut receiver = Receiver::new(vec![video()], clock, ReceiverSettings::default());
    let (mut sent, mut told) = (Vec::new(), Vec::new());
    let mut order: Vec<u16> = (0..3_000).filter(|i| i % 37 != 5).collect();
    order.chunks_exact_mut(100).for_each(|chunk| chunk.swap(40, 95));
    let mut count = 0u8;
    for (place, index) in order.into_iter().enumerate() {
        let now = start + Duration::from_micros(place as u64 * 2_250);
        let seq = 64_000u16.wrapping_add(index);
        let packet = media(MEDIA, index, &[(5, &seq.to_be_bytes())]);
        assert_eq!(receiver.handle_rtp(now, packet), Ok(()));
        sent.push((seq, place as i64 * 9));
        let due = receiver.poll_timeout().expect("reports at least");
        if due > now && place % 50 != 49 {
            continue;
        }
        while let Some(compound) = receiver.poll_rtcp(now) {
            let packets = rtc::rtcp::packet::unmarshal(&mut BytesMut::from(&compound[..]));
            for packet in packets.expect("valid") {
                let Some(feedback) = packet.as_any().downcast_ref::<TransportLayerCc>() else {
                    continue;
                };
                assert_eq!((feedback.fb_pkt_count, feedback.media_ssrc), (count, MEDIA));
                count = count.wrapping_add(1);
                told.extend(arrivals(feedback));
            }
        }
    }
    told.sort_by_key(|(_, ticks)| *ticks);
    assert!(told.len() + 40 > sent.len());
    assert_eq!(told[..], sent[..told.len()]);
}

fn arrivals(feedback: &TransportLayerCc) -> Vec<(u16, i64)> {
    let statuses = feedback.packet_chunks.iter().flat_map(|chunk| match chunk {
        PacketStatusChunk::RunLengthChunk(run) => {
            vec![run.packet_status_symbol; usize::from(run.run_length)]
        }
        PacketStatusChunk::StatusVectorChunk(vector) => vector.symbol_list.clone(),
    });
    let mut ticks = i64::from(feedback.reference_time) * 256;
    let mut deltas = feedback.recv_deltas.iter();
    let mut out = Vec::new();
    for (place, status) in statuses.take(usize::from(feedback.packet_status_count)).enumerate() {
        if status != SymbolTypeTcc::PacketNotReceived {
            ticks += deltas.next().expect("a delta").delta / 250;
            out.push((feedback.base_sequence_number.wrapping_add(place as u16), ticks));
        }
    }
    out
}

/// Plays 30 s of frames that are captured each 33 ms and arrive 60 to 75 ms
/// later; returns for each how far its capture time is from the truth, in µs.
fn capture_errors(sender_offset: i64, absolute: bool) -> Vec<i64> {
    let start = Instant::now();
    let clock = Clock::fixed(start, UTC_AT_START);
    let mut receiver = Receiver::new(vec![video()], clock, ReceiverSettings::default());
    let mut errors = Vec::new();
    let mut last = Utc::from_micros(0);
    for frame in 0..900u16 {
        let captured = start + MS * 33 * u32::from(frame);
        let now = captured + MS * (60 + u32::from(frame) * 7 % 16);
        let by_sender = clock.utc(captured).offset_micros(sender_offset);
        let value = AbsCaptureTime::write_short(by_sender);
        let extensions = [(4, &value[..])];
        let carries = absolute && frame % 30 == 0;
        let packet = media(MEDIA, frame, if carries { &extensions } else { &[] });
        assert_eq!(receiver.handle_rtp(now, packet), Ok(()));
        if !absolute && frame % 30 == 15 {
            // The report speaks of the moment it is sent, 20 ms before it comes.
            let sent = now - MS * 20;
            let report = SenderReport {
                ssrc: MEDIA,
                ntp: clock.utc(sent).offset_micros(sender_offset).to_ntp(),
                rtp_time: u32::from(frame) * 2970 + (sent - captured).as_millis() as u32 * 90,
                packets: 0,
                octets: 0,
            };
            receiver.handle_rtcp(now, &[Rtcp::SenderReport(report)]);
        }
        let (_, packet) = receiver.poll_packet().expect("in order");
        assert!(packet.capture > last, "time goes on");
        last = packet.capture;
        errors.push(packet.capture.micros_since(clock.utc(captured)));
    }
    errors
}

#[test]
fn absolute_capture_time_is_utc_from_the_first_packet() {
    assert!(capture_errors(0, true).iter().all(|error| error.abs() < 1_000));
    let ahead = capture_errors(3_000_000, true);
    assert!(ahead.iter().all(|error| (error - 3_000_000).abs() < 1_000), "trusted under 10 s");
}

#[test]
fn sender_reports_lead_to_utc_without_a_jump() {
    let errors = capture_errors(0, false);
    // Arrival times first; then 100 ms per second until the reports are met.
    assert!((60_000..76_000).contains(&errors[0]));
    assert!(errors[70..].iter().all(|error| error.abs() < 1_000), "{:?}", &errors[60..80]);
    assert!(errors.windows(2).all(|pair| (pair[1] - pair[0]).abs() <= 3_300));
}

#[test]
fn a_sender_clock_that_is_hours_off_is_moved_to_ours() {
    for hours in [-9, 9] {
        // What stays is the least one-way delay: 20 ms of a report.
        let errors = capture_errors(hours * 3_600_000_000, false);
        assert!(errors[120..].iter().all(|e| (19_000..=21_000).contains(e)), "{:?}", errors[120]);
    }
}

#[test]
fn statistics_name_every_layer() {
    let world = World::new(simulcast(), CLEAN, 1);
    let layers: Vec<LayerId> = world.receiver.stats().map(|(id, _)| id).collect();
    assert_eq!(layers.len(), 3);
    assert_eq!(layers[0], LAYER);
}
