//! RTCP that no honest viewer sends: as large as a datagram allows, and with values at
//! the edges of their fields (RFC 3550 §6.4, RFC 4585 §6, RFC 5104 §4.3.1,
//! draft-alvestrand-rmcat-remb-03).

const RECEIVER_REPORT: u8 = 201;
const TRANSPORT_FEEDBACK: u8 = 205;
const PAYLOAD_FEEDBACK: u8 = 206;
const NACK: u8 = 1;
const PLI: u8 = 1;
const FIR: u8 = 4;
const REMB: u8 = 15;

/// Entries of a NACK that fill a datagram of 1200 bytes; each asks for 17 packets.
const NACK_ENTRIES: u16 = 285;
/// Packets that one NACK asks for.
const NACKED: u16 = NACK_ENTRIES.wrapping_mul(17);
/// Report blocks that the count field allows.
const BLOCKS: u32 = 31;
/// Requests for a keyframe that fit behind a full report.
const REQUESTS: u32 = 12;

/// Streams of a viewer: SSRC, and the sequence number after the newest.
pub(super) type Streams = [(u32, u16)];

/// Asks for thousands of packets, the newest first: every second time from the last one
/// on, and between them from ever older ones, all the way round.
pub(super) fn nack(sender: u32, streams: &Streams, turn: u64) -> Vec<u8> {
    let Some(&(media, next)) = pick(streams, turn / 2) else { return Vec::new() };
    let back = if turn.is_multiple_of(2) { 0 } else { (turn / 4 % 14) as u16 };
    let newest = next.wrapping_sub(NACKED.wrapping_mul(back));
    let first = |n: u16| newest.wrapping_sub((n + 1).wrapping_mul(17));
    let entry = |n: u16| u32::from(first(n)) << 16 | u32::from(u16::MAX);
    let words: Vec<u32> = [sender, media].into_iter().chain((0..NACK_ENTRIES).map(entry)).collect();
    packet(NACK, TRANSPORT_FEEDBACK, &words)
}

/// Reports and estimates that contradict each other and everything else.
pub(super) fn feedback(sender: u32, streams: &Streams, turn: u64, random: u64) -> Vec<u8> {
    let (low, high) = (random as u32, (random >> 32) as u32);
    // Every fourth is of a stream that nobody has.
    let media =
        pick(streams, turn).filter(|_| !turn.is_multiple_of(4)).map_or(low, |&(ssrc, _)| ssrc);
    let exponent_and_mantissa = match turn % 3 {
        0 => 0,
        // 2^63 times 2^18 - 1: more than 64 bits hold.
        1 => 0x00ff_ffff,
        _ => random as u32 & 0x00ff_ffff,
    };
    let estimate =
        [sender, 0, u32::from_be_bytes(*b"REMB"), 1 << 24 | exponent_and_mantissa, media];
    let lost = [0xff7f_ffff, 0xff80_0000, 0x0080_0000][turn as usize % 3];
    let block = [media, lost, 0xffff_0000 | high & 0xffff, u32::MAX, high, u32::MAX - (low & 1)];
    let report: Vec<u32> = [sender].into_iter().chain(block).collect();
    [packet(1, RECEIVER_REPORT, &report), packet(REMB, PAYLOAD_FEEDBACK, &estimate)].concat()
}

/// A full report and a dozen requests for a keyframe, of two kinds.
pub(super) fn flood(sender: u32, streams: &Streams, turn: u64) -> Vec<u8> {
    let Some(&(media, next)) = pick(streams, 0) else { return Vec::new() };
    let block = |n: u32| [media ^ (n % 2), 0, u32::from(next), n, 0, 0];
    let report: Vec<u32> = [sender].into_iter().chain((0..BLOCKS).flat_map(block)).collect();
    let mut compound = packet(BLOCKS as u8, RECEIVER_REPORT, &report);
    for n in 0..REQUESTS / 2 {
        compound.extend(packet(PLI, PAYLOAD_FEEDBACK, &[sender, media]));
        // Another number each time, or it would be a repetition of the former request.
        let number = (turn as u32).wrapping_mul(REQUESTS).wrapping_add(n) << 24;
        compound.extend(packet(FIR, PAYLOAD_FEEDBACK, &[sender, 0, media, number]));
    }
    compound
}

fn pick(streams: &Streams, turn: u64) -> Option<&(u32, u16)> {
    streams.get(turn as usize % streams.len().max(1))
}

fn packet(count: u8, kind: u8, words: &[u32]) -> Vec<u8> {
    let len = (words.len() as u16).to_be_bytes();
    let head = [0x80 | count, kind, len[0], len[1]];
    head.into_iter().chain(words.iter().flat_map(|word| word.to_be_bytes())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rtc::rtcp::packet::unmarshal;
    use rtc::rtcp::transport_feedbacks::transport_layer_nack::TransportLayerNack;

    #[test]
    fn another_implementation_reads_them_and_they_fit_a_datagram() {
        let streams = [(7, 100), (8, 65_000)];
        for turn in 0..40 {
            for compound in [
                nack(1, &streams, turn),
                feedback(1, &streams, turn, 0x1234_5678_9abc_def0),
                flood(1, &streams, turn),
            ] {
                assert!((40..=1200).contains(&compound.len()), "{}", compound.len());
                assert!(!unmarshal(&mut bytes::Bytes::from(compound)).unwrap().is_empty());
            }
        }
    }

    #[test]
    fn a_storm_asks_for_the_newest_and_in_time_for_all() {
        let mut asked = vec![false; 1 << 16];
        for turn in 0..64 {
            let read = unmarshal(&mut bytes::Bytes::from(nack(1, &[(7, 100)], turn))).unwrap();
            let nack = read[0].as_any().downcast_ref::<TransportLayerNack>().unwrap();
            let sequences: Vec<u16> =
                nack.nacks.iter().flat_map(|pair| pair.packet_list()).collect();
            assert!(turn % 2 == 1 || sequences[16] == 99);
            sequences.iter().for_each(|sequence| asked[usize::from(*sequence)] = true);
        }
        assert!(asked.iter().all(|asked| *asked));
    }

    #[test]
    fn without_streams_there_is_nothing_to_ask_for() {
        assert!(nack(1, &[], 3).is_empty() && flood(1, &[], 3).is_empty());
    }
}
