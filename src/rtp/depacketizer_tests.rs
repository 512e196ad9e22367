//! Against the packetizers of another implementation: what they take apart must
//! come back together, and what is lost must be missed.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rtc::rtp::codec::av1::Av1Payloader;
use rtc::rtp::codec::h264::H264Payloader;
use rtc::rtp::codec::h265::HevcPayloader;
use rtc::rtp::codec::opus::OpusPayloader;
use rtc::rtp::codec::vp8::Vp8Payloader;
use rtc::rtp::codec::vp9::Vp9Payloader;
use rtc::rtp::packetizer::Payloader;

use super::*;
use crate::codec::{av1, nal_units};
use crate::rtp::{resolution_of_keyframe_payload, starts_keyframe};

/// An access unit as the packetizer takes it and as the frame must hold it.
struct Sample {
    input: Vec<u8>,
    data: Vec<u8>,
    keyframe: bool,
}

/// Bytes without zeros, so that no start code is among them.
fn noise(rng: &mut StdRng, len: usize) -> Vec<u8> {
    (0..len).map(|_| rng.random_range(1..=255)).collect()
}

fn nal_sample(rng: &mut StdRng, codec: Codec, keyframe: bool, size: usize) -> Sample {
    let h264 = codec == Codec::H264;
    let mut starts: Vec<Vec<u8>> = Vec::new();
    if keyframe && h264 {
        starts.extend([vec![0x67, 0x42, 0xc0, 0x1f], vec![0x68, 0xce]]);
    } else if keyframe {
        starts.extend([vec![0x40, 1], vec![0x42, 1], vec![0x44, 1]]);
    }
    let mut units: Vec<Vec<u8>> = starts.into_iter().map(|s| [s, noise(rng, 9)].concat()).collect();
    for slice in 0..rng.random_range(1..4) {
        // H264: header, then ue(first_mb), ue(slice_type). H265: the flag is the third byte's top bit.
        let start = match (h264, keyframe) {
            (true, true) => vec![0x65, if slice == 0 { 0x88 } else { 0x44 }],
            (true, false) => vec![0x41, if slice == 0 { 0x9a } else { 0x4d }],
            (false, true) => vec![0x26, 1, if slice == 0 { 0xaf } else { 0x2f }],
            (false, false) => vec![0x02, 1, if slice == 0 { 0xd0 } else { 0x50 }],
        };
        let len = rng.random_range(size / 2..=size);
        units.push([start, noise(rng, len)].concat());
    }
    let (mut input, mut data) = (Vec::new(), Vec::new());
    for unit in &units {
        input.extend([&[0, 0, 0, 1][..], unit].concat());
        data.extend([&(unit.len() as u32).to_be_bytes()[..], unit].concat());
    }
    Sample { input, data, keyframe }
}

fn av1_sample(rng: &mut StdRng, keyframe: bool, size: usize) -> Sample {
    let sized = |header: &[u8], payload: &[u8]| {
        let mut out = header.to_vec();
        av1::write_leb128(&mut out, payload.len());
        out.extend_from_slice(payload);
        out
    };
    let mut data = Vec::new();
    if keyframe {
        let sequence = [0, 0, 0, 0x0c, 0xc4, 0xf7, 0x5d, 0x36, 0xbe, 0x40, 0x10];
        data.extend(sized(&[0x0a], &sequence));
    }
    let first = if keyframe { 0x10 } else { 0x30 };
    // OBU_FRAME, with and without the second header byte.
    let header: &[u8] = if rng.random() { &[0x32] } else { &[0x36, 0x20] };
    data.extend(sized(header, &[vec![first], noise(rng, size)].concat()));
    for _ in 0..rng.random_range(0..5) {
        let len = rng.random_range(1..=size / 2 + 1);
        data.extend(sized(&[0x22], &noise(rng, len))); // OBU_TILE_GROUP
    }
    let input = [&[0x12, 0][..], &data].concat(); // a temporal delimiter in front
    Sample { input, data, keyframe }
}

fn sample(rng: &mut StdRng, codec: Codec, keyframe: bool, size: usize) -> Sample {
    let start: &[u8] = match (codec, keyframe) {
        (Codec::H264 | Codec::H265, _) => return nal_sample(rng, codec, keyframe, size),
        (Codec::Av1, _) => return av1_sample(rng, keyframe, size),
        (Codec::Vp8, true) => &[0x10, 2, 0, 0x9d, 1, 0x2a, 0x80, 2, 0x68, 1],
        (Codec::Vp8, false) => &[0x91, 0x25],
        (Codec::Vp9, true) => &[0x82, 0x49, 0x83, 0x42, 0, 0x27, 0xf0, 0x16, 0x70],
        (Codec::Vp9, false) => &[0x86, 0, 0x40],
        (Codec::Opus, _) => &[0x78],
    };
    let data = [start, &noise(rng, size)].concat();
    Sample { input: data.clone(), data, keyframe: keyframe || codec == Codec::Opus }
}

fn packetizer(codec: Codec) -> Box<dyn Payloader> {
    match codec {
        Codec::H264 => Box::new(H264Payloader::default()),
        Codec::H265 => Box::new(HevcPayloader),
        Codec::Vp8 => {
            let mut packetizer = Vp8Payloader::default();
            packetizer.enable_picture_id = true;
            Box::new(packetizer)
        }
        Codec::Vp9 => Box::new(Vp9Payloader::default()),
        Codec::Av1 => Box::new(Av1Payloader::default()),
        Codec::Opus => Box::new(OpusPayloader),
    }
}

/// Samples of these sizes, the first of them a keyframe, and their packets.
fn stream(
    rng: &mut StdRng,
    codec: Codec,
    mtu: usize,
    sizes: &[usize],
) -> (Vec<Sample>, Vec<Packet>) {
    let start = Instant::now();
    let (mut samples, mut packets) = (Vec::new(), Vec::<Packet>::new());
    let mut packetizer = packetizer(codec);
    for (index, &size) in sizes.iter().enumerate() {
        let sample = sample(rng, codec, index == 0, size);
        let mtu = if codec == Codec::Opus { usize::MAX } else { mtu };
        let payloads = packetizer.payload(mtu, &Bytes::from(sample.input.clone())).unwrap();
        let count = payloads.len();
        for (position, payload) in payloads.into_iter().enumerate() {
            packets.push(Packet {
                seq: 70_000 + packets.len() as u64,
                timestamp: 9_000_000_000 + 3_000 * index as u64,
                marker: position + 1 == count,
                keyframe: index == 0,
                capture: Utc::from_micros(33_000 * index as i64),
                received: start + Duration::from_millis(packets.len() as u64),
                payload,
            });
        }
        samples.push(sample);
    }
    (samples, packets)
}

fn index_of(packet: &Packet) -> usize {
    ((packet.timestamp - 9_000_000_000) / 3_000) as usize
}

fn assert_is(frame: &Frame, sample: &Sample, index: usize) {
    assert_eq!(frame.data, sample.data);
    assert_eq!(frame.keyframe, sample.keyframe);
    assert_eq!((frame.pts, frame.dts), (9_000_000_000 + 3_000 * index as u64, frame.pts));
    assert_eq!(frame.capture.micros(), 33_000 * index as i64);
}

#[test]
fn what_a_packetizer_took_apart_comes_back_together() {
    for codec in Codec::ALL {
        let mut rng = StdRng::seed_from_u64(10);
        for mtu in [60, 200, 1_200] {
            let sizes: Vec<usize> = (0..60)
                .map(|index| rng.random_range(1..[40, mtu, 4 * mtu, 40 * mtu][index % 4]))
                .collect();
            let (samples, packets) = stream(&mut rng, codec, mtu, &sizes);
            let mut depacketizer = Depacketizer::new(codec);
            let mut delivered = 0;
            for packet in &packets {
                if let Some(frame) = depacketizer.push(packet) {
                    assert!(packet.marker, "{codec}: a frame before its last packet");
                    assert_is(&frame, &samples[delivered], delivered);
                    assert!(!frame.discontinuity);
                    assert_eq!(frame.received, packet.received);
                    delivered += 1;
                }
            }
            assert_eq!((delivered, depacketizer.dropped()), (samples.len(), 0), "{codec}");
        }
    }
}

#[test]
fn each_lost_packet_costs_its_access_unit_and_marks_the_next() {
    for codec in Codec::ALL {
        let mut rng = StdRng::seed_from_u64(11);
        for mtu in [70, 300] {
            for _ in 0..20 {
                let sizes: Vec<usize> = (0..5).map(|_| rng.random_range(1..3 * mtu)).collect();
                let (samples, packets) = stream(&mut rng, codec, mtu, &sizes);
                for lost in &packets {
                    let lost_unit = index_of(lost);
                    let mut depacketizer = Depacketizer::new(codec);
                    let frames: Vec<Frame> = packets
                        .iter()
                        .filter(|packet| packet.seq != lost.seq)
                        .filter_map(|packet| depacketizer.push(packet))
                        .collect();
                    let kept: Vec<usize> = (0..5).filter(|index| *index != lost_unit).collect();
                    assert_eq!(frames.len(), kept.len(), "{codec}: lost seq {}", lost.seq);
                    for (frame, &index) in frames.iter().zip(&kept) {
                        assert_is(frame, &samples[index], index);
                        let first_after = index == lost_unit + 1;
                        // A stream that starts with its second Opus packet lost nothing it knows of.
                        let unknown = codec == Codec::Opus && lost_unit == 0;
                        assert_eq!(frame.discontinuity, first_after && !unknown, "{codec}");
                    }
                    let others = packets.iter().filter(|p| index_of(p) == lost_unit).count() - 1;
                    if lost_unit < 4 {
                        assert_eq!(depacketizer.dropped(), u64::from(others > 0), "{codec}");
                    }
                }
            }
        }
    }
}

#[test]
fn without_markers_the_next_timestamp_ends_a_unit() {
    for codec in Codec::ALL {
        let mut rng = StdRng::seed_from_u64(12);
        let sizes: Vec<usize> = (0..40).map(|_| rng.random_range(1..900)).collect();
        let (samples, mut packets) = stream(&mut rng, codec, 200, &sizes);
        // Units with and without marker in all orders; the last one has it, and
        // packets of a unit to come fetch what is ready.
        for packet in &mut packets {
            packet.marker &= index_of(packet).is_multiple_of(3) || index_of(packet) == 39;
        }
        let mut depacketizer = Depacketizer::new(codec);
        let mut frames: Vec<Frame> =
            packets.iter().filter_map(|packet| depacketizer.push(packet)).collect();
        frames.extend(depacketizer.push(packets.last().unwrap()));
        assert_eq!(frames.len(), samples.len(), "{codec}");
        for (index, (frame, sample)) in frames.iter().zip(&samples).enumerate() {
            assert_is(frame, sample, index);
            assert!(!frame.discontinuity);
        }
    }
}

#[test]
fn a_stream_entered_in_the_middle_of_a_unit_starts_with_the_next() {
    for codec in [Codec::H264, Codec::H265, Codec::Vp8, Codec::Vp9, Codec::Av1] {
        let mut rng = StdRng::seed_from_u64(13);
        let (samples, packets) = stream(&mut rng, codec, 100, &[900, 900, 900]);
        let mut depacketizer = Depacketizer::new(codec);
        let frames: Vec<Frame> = packets[1..].iter().filter_map(|p| depacketizer.push(p)).collect();
        assert_eq!(frames.len(), 2);
        assert_is(&frames[0], &samples[1], 1);
        assert!(frames[0].discontinuity && !frames[1].discontinuity);
    }
}

#[test]
fn keyframes_are_seen_in_their_first_payload() {
    for codec in [Codec::H264, Codec::H265, Codec::Vp8, Codec::Vp9, Codec::Av1] {
        let mut rng = StdRng::seed_from_u64(14);
        for size in [10, 100, 5_000] {
            let (_, packets) = stream(&mut rng, codec, 300, &[size, size]);
            assert!(starts_keyframe(codec, &packets[0].payload), "{codec}");
            for packet in packets.iter().filter(|packet| index_of(packet) == 1) {
                assert!(!starts_keyframe(codec, &packet.payload), "{codec}");
            }
            let size = resolution_of_keyframe_payload(codec, &packets[0].payload);
            match codec {
                Codec::Vp8 | Codec::Vp9 => assert_eq!(size, Some((640, 360))),
                Codec::Av1 => assert_eq!(size, Some((636, 350))),
                _ => {} // the parameter sets of the samples are noise
            }
        }
    }
}

#[test]
fn a_unit_over_the_limit_is_dropped_once() {
    let (mut depacketizer, now) = (Depacketizer::new(Codec::H264), Instant::now());
    let packet = |seq: u64, timestamp, marker, payload: &[u8]| Packet {
        seq,
        timestamp,
        marker,
        keyframe: false,
        capture: Utc::default(),
        received: now,
        payload: Bytes::copy_from_slice(payload),
    };
    let mut fragment = vec![0x5c; 60_000];
    for seq in 0..200 {
        fragment[1] = if seq == 0 { 0x81 } else { 0x01 };
        assert!(depacketizer.push(&packet(seq, 0, false, &fragment)).is_none());
        assert!(depacketizer.assembler.as_ref().unwrap().len() <= MAX_UNIT + fragment.len());
    }
    assert_eq!(depacketizer.dropped(), 1);
    let next = depacketizer.push(&packet(200, 3_000, true, &[0x41, 0x9a, 1])).unwrap();
    assert!(next.discontinuity);
    assert_eq!(&next.data[..], [0, 0, 0, 3, 0x41, 0x9a, 1]);
    assert!(depacketizer.push(&packet(200, 6_000, true, &[0x41, 0x9a, 1])).is_none(), "repeated");
}

#[test]
fn garbage_and_truncations_never_panic_nor_break_the_format() {
    for codec in Codec::ALL {
        let mut rng = StdRng::seed_from_u64(15);
        let (_, packets) = stream(&mut rng, codec, 90, &[30, 60, 200, 400, 30]);
        let mut depacketizer = Depacketizer::new(codec);
        let mut seq = 0;
        let mut push = |rng: &mut StdRng, payload: Bytes| {
            let _ = starts_keyframe(codec, &payload);
            let _ = resolution_of_keyframe_payload(codec, &payload);
            seq += rng.random_range(1..20) / 18 + 1;
            let packet = Packet {
                seq,
                timestamp: seq / 4,
                marker: rng.random_range(0..4) == 0,
                payload,
                ..packets[0].clone()
            };
            let Some(frame) = depacketizer.push(&packet) else { return };
            assert!(!frame.data.is_empty());
            match codec {
                Codec::H264 | Codec::H265 => {
                    let units: usize = nal_units(&frame.data).map(|unit| unit.len() + 4).sum();
                    assert_eq!(units, frame.data.len());
                }
                Codec::Av1 => {
                    let mut written = Vec::new();
                    av1::obus(&frame.data).for_each(|obu| obu.write_sized(&mut written));
                    assert_eq!(written, frame.data);
                }
                _ => {}
            }
        };
        for packet in &packets {
            for end in 0..packet.payload.len() {
                push(&mut rng, packet.payload.slice(..end));
            }
        }
        for _ in 0..30_000 {
            let at = rng.random_range(0..packets.len());
            let mut payload = packets[at].payload.to_vec();
            let reach = if rng.random() { payload.len() } else { payload.len().min(6) };
            for _ in 0..rng.random_range(0..4) {
                payload[rng.random_range(0..reach)] = rng.random();
            }
            push(&mut rng, payload.into());
            let len = rng.random_range(0..40);
            let garbage = (0..len).map(|_| rng.random()).collect();
            push(&mut rng, garbage);
        }
    }
}

#[test]
fn parameter_sets_with_their_own_marker_wait_for_their_picture() {
    let now = Instant::now();
    let packet = |seq: u64, timestamp, marker, payload: &'static [u8]| Packet {
        seq,
        timestamp,
        marker,
        keyframe: true,
        capture: Utc::from_micros(timestamp as i64),
        received: now,
        payload: Bytes::from_static(payload),
    };
    let mut depacketizer = Depacketizer::new(Codec::H264);
    // One sender repeats the picture's timestamp, another gives them an earlier one.
    assert!(depacketizer.push(&packet(1, 0, true, &[0x67, 0x42])).is_none());
    assert!(depacketizer.push(&packet(2, 3_000, true, &[0x68, 0xce])).is_none());
    let frame = depacketizer.push(&packet(3, 3_000, true, &[0x65, 0x88])).unwrap();
    assert_eq!(
        &frame.data[..],
        [0, 0, 0, 2, 0x67, 0x42, 0, 0, 0, 2, 0x68, 0xce, 0, 0, 0, 2, 0x65, 0x88]
    );
    assert!(frame.keyframe && !frame.discontinuity);
    assert_eq!((frame.pts, frame.capture.micros(), depacketizer.dropped()), (3_000, 3_000, 0));
    // What comes for a picture that was delivered is missing in it.
    assert!(depacketizer.push(&packet(4, 3_000, true, &[0x41, 0x4d])).is_none());
    assert!(depacketizer.push(&packet(5, 3_000, true, &[0x41, 0x4d])).is_none());
    assert_eq!(depacketizer.dropped(), 1);
    assert!(depacketizer.push(&packet(6, 6_000, true, &[0x41, 0x9a])).unwrap().discontinuity);
}

#[test]
fn a_hole_between_opus_packets_is_a_discontinuity() {
    let mut rng = StdRng::seed_from_u64(16);
    let (_, packets) = stream(&mut rng, Codec::Opus, 1_200, &[80; 4]);
    let mut depacketizer = Depacketizer::new(Codec::Opus);
    let marks = [0, 2, 3].map(|index| depacketizer.push(&packets[index]).unwrap().discontinuity);
    assert_eq!(marks, [false, true, false]);
}
