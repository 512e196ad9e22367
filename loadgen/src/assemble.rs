//! From RTP packets to frames, and the account of what never came.
//!
//! Sans-IO: packets and time go in, frames in order come out. A hole is waited for
//! (retransmission) and given up after [`PATIENCE`]; the frame it was in is damaged. With a
//! whole keyframe behind it there is no need to wait long: players go on there, and so
//! what is lost at a change of layers holds nothing up.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rtc::rtp::codec::h264::H264Packet;
use rtc::rtp::packetizer::Depacketizer as _;

/// How long a hole holds up the frames behind it.
pub const PATIENCE: Duration = Duration::from_millis(1000);
/// The same with a whole keyframe behind the hole: time for a resend or two.
pub const PATIENCE_AT_KEYFRAME: Duration = Duration::from_millis(300);
/// Packets held back behind a hole; beyond it the hole is given up at once.
const HELD: usize = 2048;
/// Holes remembered; beyond it the oldest count as lost for good.
const HOLES: usize = 65_536;
/// Bytes of one frame; what exceeds it is cut off and the frame is damaged.
const FRAME_BYTES: usize = 4 << 20;

/// NAL unit type of a sequence parameter set.
const SPS: u8 = 7;
/// NAL unit type of an aggregation packet.
const STAP_A: u8 = 24;
/// Bytes of the start code before each unit of a frame.
const START_CODE: usize = 4;

/// Extends 16-bit sequence numbers and keeps the list of holes.
#[derive(Debug, Default)]
pub struct Sequence {
    highest: Option<u64>,
    missing: BTreeSet<u64>,
    /// Holes that fell off the list.
    forgotten: u64,
    /// Packets counted once.
    pub packets: u64,
    /// Copies of packets that had come already.
    pub duplicates: u64,
    /// Packets that filled a hole.
    pub filled: u64,
}

impl Sequence {
    /// Counts a packet. Returns its extended number, or `None` for a copy.
    pub fn arrived(&mut self, number: u16) -> Option<u64> {
        let Some(highest) = self.highest else {
            // One turn up, so that an earlier packet may still follow.
            let first = u64::from(number) + (1 << 16);
            self.highest = Some(first);
            self.packets = 1;
            return Some(first);
        };
        let step = number.wrapping_sub(highest as u16) as i16;
        let extended = highest.wrapping_add_signed(i64::from(step));
        if step > 0 {
            self.missing.extend(highest + 1..extended);
            while self.missing.len() > HOLES {
                self.missing.pop_first();
                self.forgotten += 1;
            }
            self.highest = Some(extended);
        } else if self.missing.remove(&extended) {
            self.filled += 1;
        } else {
            self.duplicates += 1;
            return None;
        }
        self.packets += 1;
        Some(extended)
    }

    /// The highest number seen.
    pub fn highest(&self) -> Option<u64> {
        self.highest
    }

    /// Forgets the holes that are open now: they belong to a time before the count.
    pub fn begin_here(&mut self) {
        self.missing.clear();
    }

    /// Holes at or below `until` that are still open.
    pub fn lost(&self, until: u64) -> u64 {
        self.forgotten + self.missing.range(..=until).count() as u64
    }
}

/// Whether there is an IDR slice in what a packet completed: `data` is the unit, and of
/// an aggregation packet (STAP-A, RFC 6184 §5.7.1) the `payload` tells them apart.
/// Encoders put a small picture into one packet with its parameter sets.
fn holds_idr(payload: &[u8], data: &[u8]) -> bool {
    let is_idr = |header: Option<&u8>| header.is_some_and(|header| header & 0x1f == 5);
    let Some((_, mut units)) = payload.split_first().filter(|(first, _)| *first & 0x1f == STAP_A)
    else {
        return is_idr(data.get(START_CODE));
    };
    while let Some((size, rest)) = units.split_first_chunk::<2>() {
        if is_idr(rest.first()) {
            return true;
        }
        units = rest.get(usize::from(u16::from_be_bytes(*size))..).unwrap_or_default();
    }
    false
}

/// A frame in decoding order.
#[derive(Clone, Debug)]
pub struct Assembled {
    /// RTP timestamp.
    pub timestamp: u32,
    /// NAL units with Annex B start codes.
    pub data: Vec<u8>,
    /// Whether no packet of it is missing.
    pub complete: bool,
    /// Whether it holds an IDR slice.
    pub keyframe: bool,
}

struct Held {
    arrived: Instant,
    timestamp: u32,
    marker: bool,
    payload: Bytes,
}

/// Puts H.264 frames together.
#[derive(Default)]
pub struct Assembler {
    next: Option<u64>,
    held: BTreeMap<u64, Held>,
    depacketizer: H264Packet,
    partial: Option<Assembled>,
    /// The next frame starts in a hole.
    torn: bool,
}

impl Assembler {
    /// Takes a packet with its extended sequence number.
    pub fn handle(
        &mut self,
        now: Instant,
        number: u64,
        timestamp: u32,
        marker: bool,
        payload: Bytes,
    ) {
        let next = *self.next.get_or_insert(number);
        // Too late: its frame has gone. Empty payloads are padding and only close gaps.
        if number >= next {
            self.held.insert(number, Held { arrived: now, timestamp, marker, payload });
        }
    }

    /// The next frame, complete or damaged.
    pub fn poll(&mut self, now: Instant) -> Option<Assembled> {
        loop {
            let (&number, first) = self.held.first_key_value()?;
            let next = self.next?;
            if number != next {
                let waited = now.saturating_duration_since(first.arrived);
                if waited >= PATIENCE_AT_KEYFRAME
                    && let Some(keyframe) = self.whole_keyframe()
                {
                    return Some(self.go_on_at(keyframe));
                }
                if waited < PATIENCE && self.held.len() < HELD {
                    return None;
                }
                self.next = Some(number);
                self.torn = true;
                if let Some(partial) = &mut self.partial {
                    partial.complete = false;
                }
            }
            // A frame whose marker was lost ends where the next one begins.
            if self.partial.as_ref().is_some_and(|p| p.timestamp != first.timestamp) {
                self.depacketizer = H264Packet::default();
                return self.partial.take();
            }
            let (_, packet) = self.held.pop_first()?;
            self.next = Some(number + 1);
            if let Some(frame) = self.append(packet) {
                return Some(frame);
            }
        }
    }

    /// Where a keyframe begins of which every packet is there.
    fn whole_keyframe(&self) -> Option<u64> {
        let mut starts = self.held.iter().filter(|(_, packet)| starts_a_keyframe(&packet.payload));
        let whole = |&(&start, first): &(&u64, &Held)| {
            let packets = (start..).zip(self.held.range(start..));
            let of_it = |&(expected, (&number, packet)): &(u64, (&u64, &Held))| {
                number == expected && packet.timestamp == first.timestamp
            };
            packets.take_while(of_it).any(|(_, (_, packet))| packet.marker)
        };
        starts.find(whole).map(|(&number, _)| number)
    }

    /// Gives up what is before `keyframe`; returns that as one damaged frame.
    fn go_on_at(&mut self, keyframe: u64) -> Assembled {
        let kept = self.held.split_off(&keyframe);
        let given_up = std::mem::replace(&mut self.held, kept);
        (self.next, self.torn) = (Some(keyframe), false);
        self.depacketizer = H264Packet::default();
        let timestamp = given_up.values().next().map_or(0, |packet| packet.timestamp);
        let damaged = Assembled { timestamp, data: Vec::new(), complete: false, keyframe: false };
        Assembled { complete: false, ..self.partial.take().unwrap_or(damaged) }
    }

    fn append(&mut self, packet: Held) -> Option<Assembled> {
        if packet.payload.is_empty() {
            return None;
        }
        let torn = std::mem::take(&mut self.torn);
        let partial = self.partial.get_or_insert_with(|| Assembled {
            timestamp: packet.timestamp,
            data: Vec::new(),
            complete: !torn && starts_a_unit(&packet.payload),
            keyframe: false,
        });
        partial.complete &= !torn;
        match self.depacketizer.depacketize(&packet.payload) {
            Ok(data) if partial.data.len() + data.len() <= FRAME_BYTES => {
                partial.keyframe |= holds_idr(&packet.payload, &data);
                partial.data.extend_from_slice(&data);
            }
            _ => partial.complete = false,
        }
        if packet.marker { self.partial.take() } else { None }
    }
}

/// Whether a payload begins a keyframe: with a sequence parameter set, by itself or first
/// in an aggregation packet.
fn starts_a_keyframe(payload: &[u8]) -> bool {
    match payload {
        [header, _, _, first, ..] if header & 0x1f == STAP_A => first & 0x1f == SPS,
        [header, ..] => header & 0x1f == SPS,
        [] => false,
    }
}

/// Whether a payload begins a NAL unit (RFC 6184 §5.8: an FU-A without start bit does not).
fn starts_a_unit(payload: &[u8]) -> bool {
    match payload {
        [indicator, header, ..] if indicator & 0x1f == 28 => header & 0x80 != 0,
        [] => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nal(kind: u8, last: u8) -> Bytes {
        Bytes::copy_from_slice(&[kind, 1, 2, last])
    }

    #[test]
    fn holes_before_the_count_begins_are_forgotten() {
        let mut sequence = Sequence::default();
        for number in [10, 12, 15] {
            sequence.arrived(number);
        }
        sequence.begin_here();
        sequence.arrived(17);
        assert_eq!(sequence.lost(u64::MAX), 1);
        assert_eq!(sequence.arrived(13), None);
        assert_eq!((sequence.filled, sequence.duplicates), (0, 1));
    }

    #[test]
    fn holes_are_counted_across_the_wrap_and_filled_late() {
        let mut sequence = Sequence::default();
        for number in [65_533u16, 65_534, 1, 2, 65_535, 2, 5] {
            sequence.arrived(number);
        }
        let end = sequence.highest().unwrap();
        assert_eq!((sequence.packets, sequence.duplicates, sequence.filled), (6, 1, 1));
        assert_eq!(sequence.lost(end), 3, "0, 3 and 4 never came");
        assert_eq!(sequence.lost(end - 3), 1);
    }

    #[test]
    fn reordered_packets_give_frames_in_order() {
        let (mut assembler, now) = (Assembler::default(), Instant::now());
        assembler.handle(now, 10, 100, true, nal(5, 0));
        assembler.handle(now, 12, 300, true, nal(1, 2));
        assembler.handle(now, 11, 200, true, nal(1, 1));
        let frames: Vec<_> = std::iter::from_fn(|| assembler.poll(now)).collect();
        assert!(frames.iter().map(|f| f.timestamp).eq([100, 200, 300]));
        assert!(frames.iter().all(|f| f.complete) && frames[0].keyframe && !frames[1].keyframe);
        assert_eq!(frames[0].data, [0, 0, 0, 1, 5, 1, 2, 0]);
    }

    #[test]
    fn a_keyframe_in_one_packet_with_its_parameter_sets_is_one() {
        let (mut assembler, now) = (Assembler::default(), Instant::now());
        let together = |slice| Bytes::from(vec![24, 0, 2, 0x67, 1, 0, 2, 0x68, 2, 0, 2, slice, 3]);
        assembler.handle(now, 1, 100, true, together(0x65));
        assembler.handle(now, 2, 200, true, together(0x61));
        let frames: Vec<_> = std::iter::from_fn(|| assembler.poll(now)).collect();
        assert!(frames.iter().map(|f| (f.complete, f.keyframe)).eq([(true, true), (true, false)]));
        assert!(!holds_idr(&[24, 255, 255, 1], &[]), "a size that goes past the end");
    }

    #[test]
    fn a_whole_keyframe_behind_a_hole_is_gone_on_with_soon() {
        let (mut assembler, now) = (Assembler::default(), Instant::now());
        let together = Bytes::from(vec![24, 0, 2, 0x67, 1, 0, 2, 0x68, 2]);
        assembler.handle(now, 1, 100, true, nal(1, 0));
        assembler.handle(now, 3, 200, true, nal(1, 1));
        assembler.handle(now, 4, 300, false, together);
        assert!(assembler.poll(now).is_some_and(|frame| frame.complete));
        let soon = now + PATIENCE_AT_KEYFRAME;
        assert!(assembler.poll(soon).is_none(), "the keyframe is not whole");
        assembler.handle(soon, 5, 300, true, nal(5, 2));
        let frames: Vec<_> = std::iter::from_fn(|| assembler.poll(soon)).collect();
        let seen: Vec<_> = frames.iter().map(|f| (f.timestamp, f.complete, f.keyframe)).collect();
        assert_eq!(seen, [(200, false, false), (300, true, true)]);
    }

    #[test]
    fn a_hole_is_waited_for_and_then_damages_its_frame_only() {
        let (mut assembler, now) = (Assembler::default(), Instant::now());
        assembler.handle(now, 1, 100, false, nal(1, 0));
        assembler.handle(now, 3, 100, true, nal(1, 2));
        assembler.handle(now, 4, 200, true, nal(1, 3));
        assert!(assembler.poll(now).is_none(), "the hole may still fill");
        let later = now + PATIENCE;
        let frames: Vec<_> = std::iter::from_fn(|| assembler.poll(later)).collect();
        assert!(frames.iter().map(|f| (f.timestamp, f.complete)).eq([(100, false), (200, true)]));
        assembler.handle(later, 2, 100, false, nal(1, 1));
        assert!(assembler.poll(later).is_none(), "too late to matter");
    }
}
