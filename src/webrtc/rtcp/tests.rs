//! Our RTCP against `rtc::rtcp`, and against garbage.

use bytes::BytesMut;
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};
use rtc::rtcp::packet::Packet;
use rtc::rtcp::{
    goodbye::Goodbye,
    payload_feedbacks::{
        full_intra_request::{FirEntry, FullIntraRequest},
        picture_loss_indication::PictureLossIndication,
        receiver_estimated_maximum_bitrate::ReceiverEstimatedMaximumBitrate,
    },
    reception_report::ReceptionReport as TheirBlock,
    sender_report::SenderReport as TheirSenderReport,
    source_description::{SdesType, SourceDescription},
    transport_feedbacks::{
        transport_layer_cc::TransportLayerCc,
        transport_layer_nack::{NackPair, TransportLayerNack},
    },
};

use super::*;

fn theirs(bytes: &[u8]) -> Vec<Box<dyn Packet>> {
    rtc::rtcp::packet::unmarshal(&mut BytesMut::from(bytes)).expect("their parser takes it")
}

fn downcast<T: 'static>(packet: &dyn Packet) -> &T {
    packet.as_any().downcast_ref().expect("the expected kind")
}

fn block(source_ssrc: u32) -> ReportBlock {
    ReportBlock {
        source_ssrc,
        fraction_lost: 13,
        cumulative_lost: 0x1234,
        highest_seq: 0x0002_fffe,
        jitter: 77,
        last_sr: 0xaabb_ccdd,
        delay: 65_536,
    }
}

const REPORT: SenderReport = SenderReport {
    ssrc: 7,
    ntp: 0xe000_0001_8000_0000,
    rtp_time: 90_000,
    packets: 5,
    octets: 6000,
};

#[test]
fn reads_what_the_reference_writes() {
    let packets: Vec<Box<dyn Packet>> = vec![
        Box::new(TheirSenderReport {
            ssrc: 7,
            ntp_time: 0xe000_0001_8000_0000,
            rtp_time: 90_000,
            packet_count: 5,
            octet_count: 6000,
            reports: vec![TheirBlock {
                ssrc: 9,
                fraction_lost: 13,
                total_lost: 0x1234,
                last_sequence_number: 0x0002_fffe,
                jitter: 77,
                last_sender_report: 0xaabb_ccdd,
                delay: 65_536,
            }],
            ..Default::default()
        }),
        Box::new(TransportLayerNack {
            sender_ssrc: 1,
            media_ssrc: 9,
            nacks: vec![NackPair { packet_id: 65_534, lost_packets: 0b1000_0000_0000_0101 }],
        }),
        Box::new(PictureLossIndication { sender_ssrc: 1, media_ssrc: 10 }),
        Box::new(FullIntraRequest {
            sender_ssrc: 1,
            media_ssrc: 0,
            fir: vec![
                FirEntry { ssrc: 11, sequence_number: 3 },
                FirEntry { ssrc: 12, sequence_number: 4 },
            ],
        }),
        Box::new(ReceiverEstimatedMaximumBitrate {
            sender_ssrc: 1,
            bitrate: 2_500_096.0,
            ssrcs: vec![9, 10],
        }),
        Box::new(Goodbye { sources: vec![9, 10], reason: "studio closed".into() }),
    ];
    let bytes = rtc::rtcp::packet::marshal(&packets).expect("marshals");
    assert_eq!(
        parse(&bytes).expect("parses"),
        vec![
            Rtcp::SenderReport(REPORT),
            Rtcp::ReceptionReport(ReceptionReport { reporter_ssrc: 7, block: block(9) }),
            Rtcp::Nack {
                media_ssrc: 9,
                seqs: NackSeqs { pairs: vec![(65_534, 0b1000_0000_0000_0101)] }
            },
            Rtcp::Pli { media_ssrc: 10 },
            Rtcp::Fir { media_ssrc: 11 },
            Rtcp::Fir { media_ssrc: 12 },
            Rtcp::Remb { bitrate_bps: 2_500_096, ssrcs: vec![9, 10] },
            Rtcp::Bye { ssrcs: vec![9, 10] },
        ]
    );
}

#[test]
fn nack_sequence_numbers_wrap() {
    let seqs = NackSeqs { pairs: vec![(65_534, 0b1000_0000_0000_0101), (100, 0)] };
    assert_eq!(seqs.iter().collect::<Vec<_>>(), [65_534, 65_535, 1, 14, 100]);
}

#[test]
fn the_reference_reads_what_we_write() {
    let long_name = "n".repeat(300);
    for cname in ["", "a", "ab", "abc", "railbird@host", &long_name] {
        let bytes = CompoundBuilder::new(1)
            .sender_report(&REPORT, &[block(9), block(10)], cname)
            .nack(9, &[65_530, 65_534, 0, 10, 11, 500])
            .pli(9)
            .bye(&[7])
            .finish();
        let packets = theirs(&bytes);
        assert_eq!(packets.len(), 5);
        let report: &TheirSenderReport = downcast(&*packets[0]);
        assert_eq!((report.ssrc, report.ntp_time, report.rtp_time), (7, REPORT.ntp, 90_000));
        assert_eq!(report.reports.len(), 2);
        assert_eq!(report.reports[1].total_lost, 0x1234);
        let description: &SourceDescription = downcast(&*packets[1]);
        assert_eq!(description.chunks[0].source, 7);
        assert_eq!(description.chunks[0].items[0].sdes_type, SdesType::SdesCname);
        assert_eq!(
            &description.chunks[0].items[0].text[..],
            &cname.as_bytes()[..cname.len().min(255)]
        );
        let nack: &TransportLayerNack = downcast(&*packets[2]);
        let asked: Vec<u16> = nack.nacks.iter().flat_map(NackPair::packet_list).collect();
        assert_eq!(asked, [65_530, 65_534, 0, 10, 11, 500]);
        assert_eq!(nack.nacks.len(), 3);
        assert_eq!(downcast::<PictureLossIndication>(&*packets[3]).media_ssrc, 9);
        assert_eq!(downcast::<Goodbye>(&*packets[4]).sources, [7]);
    }
}

#[test]
fn what_we_write_we_read() {
    let negative = ReportBlock { cumulative_lost: -3, ..block(10) };
    let bytes = CompoundBuilder::new(1)
        .receiver_report(&[block(9), negative], "railbird")
        .nack(9, &[1, 2, 3])
        .finish();
    assert_eq!(
        parse(&bytes),
        Ok(vec![
            Rtcp::ReceptionReport(ReceptionReport { reporter_ssrc: 1, block: block(9) }),
            Rtcp::ReceptionReport(ReceptionReport { reporter_ssrc: 1, block: negative }),
            Rtcp::Other,
            Rtcp::Nack { media_ssrc: 9, seqs: NackSeqs { pairs: vec![(1, 0b11)] } },
        ])
    );
    assert!(CompoundBuilder::new(1).nack(9, &[]).is_empty());
}

/// Sequence numbers and ticks that a feedback packet tells, by the reference's reading.
fn told(packet: &TransportLayerCc) -> Vec<(u16, u64)> {
    use rtc::rtcp::transport_feedbacks::transport_layer_cc::{PacketStatusChunk, SymbolTypeTcc};
    let statuses = packet.packet_chunks.iter().flat_map(|chunk| match chunk {
        PacketStatusChunk::RunLengthChunk(run) => {
            vec![run.packet_status_symbol; usize::from(run.run_length)]
        }
        PacketStatusChunk::StatusVectorChunk(vector) => vector.symbol_list.clone(),
    });
    let mut deltas = packet.recv_deltas.iter();
    let mut ticks = i64::from(packet.reference_time) * 256;
    let mut out = Vec::new();
    for (place, status) in statuses.take(usize::from(packet.packet_status_count)).enumerate() {
        if status != SymbolTypeTcc::PacketNotReceived {
            ticks += deltas.next().expect("a delta for each arrival").delta / 250;
            out.push((packet.base_sequence_number.wrapping_add(place as u16), ticks as u64));
        }
    }
    assert!(deltas.next().is_none());
    out
}

#[test]
fn transport_feedback_tells_the_exact_arrivals() {
    let mut rng = StdRng::seed_from_u64(4);
    for round in 0..2_000u32 {
        let base: u16 = rng.random();
        let loss = [0.0, 0.02, 0.3, 0.9][round as usize % 4];
        let (mut ticks, mut arrivals) = (rng.random_range(300_000..9_000_000u64), Vec::new());
        for place in 0..rng.random_range(1..MAX_STATUSES as u16) {
            if rng.random_bool(loss) {
                continue;
            }
            // Mostly close together, at times far apart, at times overtaken.
            ticks = match rng.random_range(0..20) {
                0 => ticks + rng.random_range(0..30_000),
                1 => ticks - rng.random_range(0..300),
                _ => ticks + rng.random_range(0..256),
            };
            arrivals.push(Arrival { seq: base.wrapping_add(place), ticks });
        }
        let (builder, covered) = CompoundBuilder::new(1)
            .receiver_report(&[], "railbird")
            .transport_cc(9, round as u8, base, &arrivals);
        assert_eq!(covered, arrivals.len());
        let bytes = builder.finish();
        assert!(bytes.len() <= 1100 && bytes.len() % 4 == 0);
        assert_eq!(parse(&bytes).is_ok_and(|m| m.contains(&Rtcp::TransportCc)), covered > 0);
        if covered == 0 {
            continue;
        }
        let packets = theirs(&bytes);
        let feedback: &TransportLayerCc = downcast(&*packets[2]);
        assert_eq!((feedback.fb_pkt_count, feedback.media_ssrc), (round as u8, 9));
        let expected: Vec<_> = arrivals.iter().map(|a| (a.seq, a.ticks)).collect();
        assert_eq!(told(feedback), expected);
    }
}

#[test]
fn transport_feedback_ends_where_its_fields_do() {
    let at = |seq, ticks| Arrival { seq, ticks };
    let too_late = [at(0, 1000), at(1, 1000 + 40_000), at(2, 41_001)];
    assert_eq!(CompoundBuilder::new(1).transport_cc(9, 0, 0, &too_late).1, 1);
    let too_far = [at(0, 1000), at(MAX_STATUSES as u16, 1001)];
    assert_eq!(CompoundBuilder::new(1).transport_cc(9, 0, 0, &too_far).1, 1);
    let (empty, covered) = CompoundBuilder::new(1).transport_cc(9, 0, 5, &[at(4, 1)]);
    assert!(empty.is_empty() && covered == 0);
}

#[test]
fn round_trip_subtracts_the_hold_time() {
    let sent = Utc::from_micros(1_700_000_000_000_000);
    let block = ReportBlock {
        last_sr: ntp_middle(sent.to_ntp()),
        delay: 65_536 / 2,
        ..ReportBlock::default()
    };
    let back = sent.offset_micros(500_000 + 80_000);
    let rtt = round_trip(back, &block).expect("answers a report");
    assert!(rtt.abs_diff(Duration::from_millis(80)) < Duration::from_micros(50), "{rtt:?}");
    let rounded = round_trip(sent.offset_micros(499_990), &block);
    assert_eq!(rounded, Some(Duration::ZERO));
    assert_eq!(round_trip(sent, &block), None, "answered before it was sent");
    assert_eq!(round_trip(back, &ReportBlock { last_sr: 0, ..block }), None);
}

#[test]
fn truncation_is_refused_and_never_panics() {
    let bytes = CompoundBuilder::new(1)
        .sender_report(&REPORT, &[block(9)], "railbird")
        .nack(9, &[1, 40])
        .finish();
    for length in 0..bytes.len() {
        let cut = parse(&bytes[..length]);
        // A cut between two parts leaves a shorter but whole compound.
        let whole = [52, 52 + 20].contains(&length);
        assert_eq!(cut.is_ok(), whole, "{length}");
    }
}

#[test]
fn garbage_never_panics_nor_unfolds() {
    let mut rng = StdRng::seed_from_u64(1);
    let valid = CompoundBuilder::new(1)
        .sender_report(&REPORT, &[block(9)], "railbird")
        .nack(9, &[1, 40])
        .pli(4)
        .transport_cc(9, 0, 5, &[Arrival { seq: 7, ticks: 900 }])
        .0
        .bye(&[1, 2])
        .finish();
    for round in 0..200_000 {
        let mut bytes = if round % 2 == 0 {
            valid.clone()
        } else {
            let mut random = vec![0; rng.random_range(0..200)];
            rng.fill_bytes(&mut random);
            if let [first, kind, high, ..] = &mut random[..] {
                *first = *first & 0x3f | 0x80;
                *kind = 200 + *kind % 8;
                *high = 0;
            }
            random
        };
        for _ in 0..rng.random_range(0..4) {
            let place = rng.random_range(0..bytes.len().max(1));
            if let Some(byte) = bytes.get_mut(place) {
                *byte = rng.random();
            }
        }
        if let Ok(messages) = parse(&bytes) {
            let seqs: usize = messages
                .iter()
                .map(|m| if let Rtcp::Nack { seqs, .. } = m { seqs.iter().count() } else { 0 })
                .sum();
            assert!(messages.len() <= 64 && seqs <= bytes.len() / 4 * 17);
        }
    }
}
