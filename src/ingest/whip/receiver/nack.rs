//! The packets of one stream that did not come, and when to ask for them again
//! (RFC 4585 §6.2.1).
//!
//! A hole is asked for once it is no mere reordering: [`REORDER_PACKETS`] later
//! packets came, or [`REORDER_DELAY`] passed. It is asked for again each round
//! trip, [`MAX_TRIES`] times at most. The round trip is measured on the answers
//! to holes that were asked for once (Karn's rule: a second request makes the
//! answer ambiguous).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Later packets that make a hole a loss.
const REORDER_PACKETS: u64 = 2;
/// Time that makes a hole a loss.
const REORDER_DELAY: Duration = Duration::from_millis(10);
/// Shortest time between two requests for the same packet.
const MIN_RETRY: Duration = Duration::from_millis(20);
/// Round trip that is assumed before one is measured.
const INITIAL_RTT: Duration = Duration::from_millis(100);
/// Requests for the same packet at most.
const MAX_TRIES: u8 = 10;
/// Holes at most. Past it the path is broken for a while, not lossy: all of
/// them are given up and a keyframe is asked for, which repairs more with less.
pub(super) const MAX_HOLES: usize = 250;
/// Packets asked for in one message; the others follow in the next one.
const MAX_PER_MESSAGE: usize = 64;

struct Hole {
    detected: Instant,
    tries: u8,
    /// Of the last request; `detected` before the first.
    asked: Instant,
}

/// The holes of one stream. owner: its layer.
#[derive(Default)]
pub(super) struct Missing {
    holes: BTreeMap<u64, Hole>,
    rtt: Option<Duration>,
}

impl Missing {
    pub(super) fn len(&self) -> usize {
        self.holes.len()
    }

    pub(super) fn add(&mut self, seq: u64, now: Instant) {
        self.holes.insert(seq, Hole { detected: now, tries: 0, asked: now });
    }

    /// When `seq` was found to be missing.
    pub(super) fn detected(&self, seq: u64) -> Option<Instant> {
        self.holes.get(&seq).map(|hole| hole.detected)
    }

    /// `seq` came after all. `Some(true)` when it had been asked for, `None`
    /// when it was no hole.
    pub(super) fn filled(&mut self, seq: u64, now: Instant) -> Option<bool> {
        let hole = self.holes.remove(&seq)?;
        if hole.tries == 1 {
            let sample = now.saturating_duration_since(hole.asked);
            self.rtt = Some(self.rtt.map_or(sample, |rtt| (rtt * 7 + sample) / 8));
        }
        Some(hole.tries > 0)
    }

    /// Forgets the holes before `seq`.
    pub(super) fn give_up_before(&mut self, seq: u64) {
        self.holes = self.holes.split_off(&seq);
    }

    /// The sequence numbers to ask for at `now`, in rising order; counted as asked.
    pub(super) fn take_due(&mut self, highest: u64, now: Instant) -> Vec<u16> {
        let retry = self.retry();
        let due = self
            .holes
            .iter_mut()
            .filter(|(seq, hole)| hole.due(**seq, highest, retry).is_some_and(|due| due <= now));
        due.take(MAX_PER_MESSAGE)
            .map(|(seq, hole)| {
                hole.tries += 1;
                hole.asked = now;
                *seq as u16
            })
            .collect()
    }

    /// When [`Self::take_due`] has something to give.
    pub(super) fn next_due(&self, highest: u64) -> Option<Instant> {
        let retry = self.retry();
        self.holes.iter().filter_map(|(seq, hole)| hole.due(*seq, highest, retry)).min()
    }

    /// The measured round trip.
    pub(super) fn rtt(&self) -> Option<Duration> {
        self.rtt
    }

    fn retry(&self) -> Duration {
        self.rtt.unwrap_or(INITIAL_RTT).max(MIN_RETRY)
    }
}

impl Hole {
    fn due(&self, seq: u64, highest: u64, retry: Duration) -> Option<Instant> {
        match self.tries {
            0 if highest.saturating_sub(seq) >= REORDER_PACKETS => Some(self.detected),
            0 => Some(self.detected + REORDER_DELAY),
            MAX_TRIES.. => None,
            _ => Some(self.asked + retry),
        }
    }
}
