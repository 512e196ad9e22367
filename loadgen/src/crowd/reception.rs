//! What came of one RTP stream and what is missing: counters, holes, NACKs, and the
//! figures of a receiver report (RFC 3550 §6.4.1, A.3, A.8).
//!
//! A hole is asked for a little after it was seen, so that mere reordering costs
//! nothing, then again about every round trip, and given up after [`PATIENCE`].

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long a hole may be filled; then its packet is lost for good.
pub const PATIENCE: Duration = Duration::from_secs(1);
/// Reordering that is waited for before the first NACK.
const TOLERANCE: Duration = Duration::from_millis(10);
/// Bounds of the pause between two NACKs for one packet.
const REPEAT: (Duration, Duration) = (Duration::from_millis(40), Duration::from_millis(300));
/// Holes remembered; of more, the oldest are given up at once.
const HOLES: usize = 1024;

/// A packet that has not come.
#[derive(Clone, Copy, Debug)]
struct Hole {
    seen: Instant,
    ask: Instant,
}

/// What a packet was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// Comes for the first time, with its extended number.
    New(u64),
    /// A copy, or one that was given up before.
    Old,
}

/// Figures of a receiver report block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Share lost since the last report, in 1/256.
    pub fraction_lost: u8,
    /// Packets expected less packets received, signed 24 bits.
    pub lost: i32,
    /// Extended highest sequence number.
    pub highest: u32,
    /// Interarrival jitter in ticks.
    pub jitter: u32,
}

/// The account of one stream.
#[derive(Debug, Default)]
pub struct Reception {
    first: u64,
    highest: Option<u64>,
    holes: BTreeMap<u64, Hole>,
    /// Packets that came, each counted once.
    pub packets: u64,
    /// Copies, and packets that came after they were given up.
    pub duplicates: u64,
    /// Packets that filled a hole.
    pub recovered: u64,
    /// Packets given up.
    pub lost: u64,
    jitter: f64,
    transit: Option<i64>,
    reported: (u64, u64),
}

impl Reception {
    /// Counts a packet.
    pub fn handle(&mut self, now: Instant, sequence: u16) -> Arrival {
        let Some(highest) = self.highest else {
            // One turn up, so that the numbers before the first are numbers too.
            self.first = u64::from(sequence) + (1 << 16);
            self.highest = Some(self.first);
            self.packets = 1;
            return Arrival::New(self.first);
        };
        let step = sequence.wrapping_sub(highest as u16) as i16;
        let number = highest.wrapping_add_signed(i64::from(step));
        if step > 0 {
            self.highest = Some(number);
            if step > 1 {
                self.open(now, highest + 1, number);
            }
        } else if self.holes.remove(&number).is_some() {
            self.recovered += 1;
        } else {
            self.duplicates += 1;
            return Arrival::Old;
        }
        self.packets += 1;
        Arrival::New(number)
    }

    fn open(&mut self, now: Instant, from: u64, to: u64) {
        let hole = Hole { seen: now, ask: now + TOLERANCE };
        self.holes.extend((from..to).map(|number| (number, hole)));
        while self.holes.len() > HOLES {
            self.holes.pop_first();
            self.lost += 1;
        }
    }

    /// Updates the jitter with the first packet of a frame, whose timestamp is new.
    pub fn time(&mut self, arrived_micros: i64, timestamp: u32, clock: u32) {
        let ticks = (arrived_micros as i128 * i128::from(clock) / 1_000_000) as i64;
        let transit = ticks.wrapping_sub(i64::from(timestamp)) & 0xffff_ffff;
        if let Some(before) = self.transit.replace(transit) {
            let change = f64::from(transit.wrapping_sub(before) as i32).abs();
            self.jitter += (change - self.jitter) / 16.0;
        }
    }

    /// The holes to ask for now; each is asked for again after about `rtt`.
    pub fn nacks(&mut self, now: Instant, rtt: Duration) -> Vec<u16> {
        let pause = (rtt + rtt / 2).clamp(REPEAT.0, REPEAT.1);
        let mut due = Vec::new();
        for (&number, hole) in &mut self.holes {
            if hole.ask <= now {
                hole.ask = now + pause;
                due.push(number as u16);
            }
        }
        due
    }

    /// Gives up the holes that have waited too long; returns the highest of them.
    pub fn give_up(&mut self, now: Instant) -> Option<u64> {
        let mut last = None;
        while let Some(entry) = self.holes.first_entry()
            && entry.get().seen + PATIENCE <= now
        {
            last = Some(*entry.key());
            entry.remove();
            self.lost += 1;
        }
        last
    }

    /// The first hole: everything below it came or was given up.
    pub fn first_hole(&self) -> Option<u64> {
        self.holes.first_key_value().map(|(&number, _)| number)
    }

    /// The number after the highest seen.
    pub fn next(&self) -> u64 {
        self.highest.map_or(0, |highest| highest + 1)
    }

    /// When [`Self::nacks`] or [`Self::give_up`] has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.holes.values().map(|hole| hole.ask.min(hole.seen + PATIENCE)).min()
    }

    /// Counts what is still open as lost; the end.
    pub fn close(&mut self) {
        self.lost += self.holes.len() as u64;
        self.holes.clear();
    }

    /// Whether a packet would be new at the upper end.
    pub fn is_ahead(&self, sequence: u16) -> bool {
        self.highest.is_none_or(|highest| sequence.wrapping_sub(highest as u16) as i16 > 0)
    }

    /// The figures of a report, and the start of the next one's interval.
    pub fn report(&mut self) -> Block {
        let highest = self.highest.unwrap_or_default();
        let expected = highest.saturating_sub(self.first) + 1;
        let interval = expected.saturating_sub(self.reported.0);
        let received = self.packets.saturating_sub(self.reported.1);
        self.reported = (expected, self.packets);
        let missing = interval.saturating_sub(received);
        let fraction = (missing * 256).checked_div(interval).unwrap_or_default();
        Block {
            fraction_lost: fraction.min(255) as u8,
            lost: (expected as i64 - self.packets as i64).clamp(-0x80_0000, 0x7f_ffff) as i32,
            highest: highest.wrapping_sub(1 << 16) as u32,
            jitter: self.jitter as u32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fed(numbers: &[u16]) -> (Reception, Instant) {
        let (mut reception, now) = (Reception::default(), Instant::now());
        for &number in numbers {
            reception.handle(now, number);
        }
        (reception, now)
    }

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn holes_are_asked_for_after_a_while_and_then_each_round_trip() {
        let (mut reception, now) = fed(&[65_534, 65_535, 2]);
        assert_eq!(reception.poll_timeout(), Some(now + TOLERANCE));
        assert!(reception.nacks(now + 9 * MS, 20 * MS).is_empty());
        assert_eq!(reception.nacks(now + 10 * MS, 20 * MS), [0, 1]);
        assert!(reception.nacks(now + 49 * MS, 20 * MS).is_empty());
        reception.handle(now + 50 * MS, 1);
        assert_eq!(reception.nacks(now + 50 * MS, 200 * MS), [0]);
        assert!(reception.nacks(now + 349 * MS, 200 * MS).is_empty());
        assert_eq!((reception.recovered, reception.packets), (1, 4));
    }

    #[test]
    fn a_hole_is_lost_after_its_patience_and_its_packet_then_a_copy() {
        let (mut reception, now) = fed(&[10, 12]);
        assert_eq!(reception.give_up(now + PATIENCE - MS), None);
        assert_eq!(reception.give_up(now + PATIENCE), Some((1 << 16) + 11));
        assert_eq!(reception.handle(now, 11), Arrival::Old);
        assert_eq!((reception.lost, reception.duplicates), (1, 1));
    }

    #[test]
    fn copies_do_not_count_and_open_holes_are_lost_at_the_end() {
        let (mut reception, _) = fed(&[1, 2, 2, 5, 1]);
        reception.close();
        assert_eq!((reception.packets, reception.duplicates, reception.lost), (3, 2, 2));
    }

    #[test]
    fn a_jump_keeps_a_bounded_list() {
        let (mut reception, now) = fed(&[0, 30_000]);
        assert_eq!(reception.lost, 29_999 - HOLES as u64);
        assert_eq!(reception.nacks(now + TOLERANCE, MS).len(), HOLES);
    }

    #[test]
    fn reports_count_from_one_to_the_next() {
        let (mut reception, now) = fed(&[100, 101, 103, 104]);
        let block = reception.report();
        assert_eq!((block.fraction_lost, block.lost, block.highest), (51, 1, 104));
        reception.handle(now, 102);
        reception.handle(now, 105);
        let block = reception.report();
        assert_eq!((block.fraction_lost, block.lost, block.highest), (0, 0, 105));
    }

    #[test]
    fn jitter_follows_the_spread_of_transit_times() {
        let (mut reception, _) = fed(&[1]);
        for frame in 0..200i64 {
            reception.time(1_000_000 + frame * 33_333, (frame * 3000) as u32, 90_000);
        }
        assert!(reception.report().jitter <= 1);
        for frame in 200..400i64 {
            let late = (frame % 2) * 10_000;
            reception.time(1_000_000 + frame * 33_333 + late, (frame * 3000) as u32, 90_000);
        }
        assert!((850..=900).contains(&reception.report().jitter));
    }
}
