//! The packets of one stream that did not come, and when to ask for them again
//! (RFC 4585 §6.2.1).
//!
//! A hole is asked for once it is no mere reordering: some later packets came
//! ([`REORDER_PACKETS`], more on a path that reorders), or [`REORDER_DELAY`] passed. It is asked for again each round
//! trip, [`MAX_TRIES`] times at most. The round trip is measured on the answers
//! to holes that were asked for once (Karn's rule: a second request makes the
//! answer ambiguous).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Later packets that make a hole a loss, at first. Doubled by each request that
/// a mere straggler answered, up to the most; lowered by each that was needed.
const REORDER_PACKETS: u64 = 2;
const MAX_REORDER_PACKETS: u64 = 64;
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

/// Whether a packet that fills a hole answers a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It came on the SSRC of retransmissions.
    Yes,
    /// It came on the media SSRC while there is one for retransmissions: overtaken.
    No,
    /// No RTX is agreed, it may be either; by the time it took.
    Maybe,
}

struct Hole {
    detected: Instant,
    tries: u8,
    /// Of the last request; `detected` before the first.
    asked: Instant,
}

/// The holes of one stream. owner: its layer.
pub(super) struct Missing {
    holes: BTreeMap<u64, Hole>,
    rtt: Option<Duration>,
    reorder_packets: u64,
}

/// When to ask, given what the path is like.
#[derive(Clone, Copy)]
struct Pace {
    retry: Duration,
    reorder_packets: u64,
}

impl Missing {
    pub(super) fn new() -> Self {
        Self { holes: BTreeMap::new(), rtt: None, reorder_packets: REORDER_PACKETS }
    }

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

    /// `seq` came after all. `Some(true)` when that answers a request, `None`
    /// when it was no hole.
    pub(super) fn filled(&mut self, seq: u64, answer: Answer, now: Instant) -> Option<bool> {
        let hole = self.holes.remove(&seq)?;
        let sample = now.saturating_duration_since(hole.asked);
        let answered = hole.tries > 0
            && match answer {
                Answer::Yes => true,
                Answer::No => false,
                Answer::Maybe => sample >= REORDER_DELAY,
            };
        if answered && hole.tries == 1 {
            self.rtt = Some(self.rtt.map_or(sample, |rtt| (rtt * 7 + sample) / 8));
        }
        if answered {
            self.reorder_packets = (self.reorder_packets - 1).max(REORDER_PACKETS);
        } else if hole.tries > 0 {
            self.reorder_packets = (self.reorder_packets * 2).min(MAX_REORDER_PACKETS);
        }
        Some(answered)
    }

    /// Forgets the holes before `seq`.
    pub(super) fn give_up_before(&mut self, seq: u64) {
        self.holes = self.holes.split_off(&seq);
    }

    /// The sequence numbers to ask for at `now`, in rising order; counted as asked.
    pub(super) fn take_due(&mut self, highest: u64, now: Instant) -> Vec<u16> {
        let pace = self.pace();
        let due = self
            .holes
            .iter_mut()
            .filter(|(seq, hole)| hole.due(**seq, highest, pace).is_some_and(|due| due <= now));
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
        let pace = self.pace();
        self.holes.iter().filter_map(|(seq, hole)| hole.due(*seq, highest, pace)).min()
    }

    /// The measured round trip.
    pub(super) fn rtt(&self) -> Option<Duration> {
        self.rtt
    }

    fn pace(&self) -> Pace {
        // A quarter more than the mean: an answer on its way needs no second request.
        let retry = (self.rtt.unwrap_or(INITIAL_RTT) * 5 / 4).max(MIN_RETRY);
        Pace { retry, reorder_packets: self.reorder_packets }
    }
}

impl Hole {
    fn due(&self, seq: u64, highest: u64, pace: Pace) -> Option<Instant> {
        match self.tries {
            0 if highest.saturating_sub(seq) >= pace.reorder_packets => Some(self.detected),
            0 => Some(self.detected + REORDER_DELAY),
            MAX_TRIES.. => None,
            _ => Some(self.asked + pace.retry),
        }
    }
}
