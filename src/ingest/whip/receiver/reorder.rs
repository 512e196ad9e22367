//! Puts the packets of one RTP stream back in order.
//!
//! What is in order passes at once. Behind a hole packets are held until it is
//! filled (late arrival or retransmission) or given up: after `wait`, when more
//! than `max_held` packets are held, or when there are too many holes to hope.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::nack::{Answer, MAX_HOLES, Missing};

/// A jump this far ahead or back is no loss and no reordering: the sender
/// started anew. RFC 3550 A.1 takes 3000 (MAX_DROPOUT) ahead.
const MAX_JUMP: i16 = 3000;

/// Given-up sequence numbers remembered, to tell what comes too late from what
/// comes twice; older ones count as duplicates.
const MAX_GIVEN_UP: usize = 256;

/// A packet with what is still needed of its header.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub(super) timestamp: u32,
    pub(super) marker: bool,
    pub(super) received: Instant,
    /// Empty: padding only.
    pub(super) payload: Bytes,
}

/// Where a sequence number belongs.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// At this extended sequence number.
    At(u64),
    /// In no relation to what came before.
    Elsewhere,
}

/// What became of a packet.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Inserted {
    /// It extends the stream.
    Newest,
    /// It fills a hole, and no request was needed.
    Reordered,
    /// It fills a hole because it was asked for.
    Recovered,
    /// It was there already.
    Duplicate,
    /// Its place was given up before.
    TooLate,
}

/// What comes out, in order.
#[derive(Debug)]
pub(super) enum Released {
    Packet(Slot),
    /// So many packets are lost for good.
    Lost(u64),
}

/// The reordering buffer of one stream. owner: its layer.
pub(super) struct Reorder {
    /// Extended sequence number of the next packet to release.
    next: u64,
    /// Highest that came. Every number from `next` to it is held or missing.
    highest: u64,
    held: BTreeMap<u64, Slot>,
    pub(super) missing: Missing,
    /// Holes before it are given up.
    give_up_before: u64,
    given_up: VecDeque<u64>,
    wait: Duration,
    max_held: usize,
}

impl Reorder {
    /// For a stream that begins with `first`, which is placed a cycle above
    /// zero: what overtook it has a place too.
    pub(super) fn new(first: u16, wait: Duration, max_held: usize) -> Self {
        let next = (1 << 16) + u64::from(first);
        Self {
            next,
            highest: next - 1,
            held: BTreeMap::new(),
            missing: Missing::new(),
            give_up_before: 0,
            given_up: VecDeque::new(),
            wait,
            max_held,
        }
    }

    /// The highest extended sequence number that came.
    pub(super) fn highest(&self) -> u64 {
        self.highest
    }

    pub(super) fn place(&self, seq: u16) -> Place {
        let distance = seq.wrapping_sub(self.highest as u16) as i16;
        match self.highest.checked_add_signed(i64::from(distance)) {
            Some(place) if (-MAX_JUMP..MAX_JUMP).contains(&distance) => Place::At(place),
            _ => Place::Elsewhere,
        }
    }

    /// Takes the packet with the extended sequence number `seq` of [`Self::place`].
    pub(super) fn insert(
        &mut self,
        seq: u64,
        slot: Slot,
        answer: Answer,
        now: Instant,
    ) -> Inserted {
        if seq > self.highest {
            if seq - self.highest > MAX_HOLES as u64 {
                self.give_up_before = seq;
            } else {
                (self.highest + 1..seq).for_each(|hole| self.missing.add(hole, now));
            }
            if self.missing.len() > MAX_HOLES {
                self.give_up_before = seq;
            }
            self.highest = seq;
            self.held.insert(seq, slot);
            return Inserted::Newest;
        }
        match self.missing.filled(seq, answer, now) {
            Some(answered) => {
                self.held.insert(seq, slot);
                if answered { Inserted::Recovered } else { Inserted::Reordered }
            }
            None if self.given_up.contains(&seq) => Inserted::TooLate,
            None => Inserted::Duplicate,
        }
    }

    /// The next packet or the next loss; `None` while waiting.
    pub(super) fn release(&mut self, now: Instant) -> Option<Released> {
        let (&first, _) = self.held.first_key_value()?;
        if first == self.next {
            let (_, slot) = self.held.pop_first()?;
            self.next += 1;
            return Some(Released::Packet(slot));
        }
        let lost_until = if self.next < self.give_up_before {
            first.min(self.give_up_before)
        } else if self.held.len() > self.max_held || self.deadline().is_none_or(|at| at <= now) {
            self.next + 1
        } else {
            return None;
        };
        Some(Released::Lost(self.skip_to(lost_until)))
    }

    /// When the hole that holds the others up is given up.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let (&first, _) = self.held.first_key_value()?;
        if first == self.next {
            return None;
        }
        Some(self.missing.detected(self.next)? + self.wait)
    }

    /// Gives all holes up: the stream ends here.
    pub(super) fn give_up(&mut self) {
        self.give_up_before = self.highest + 1;
    }

    /// Packets held.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    fn skip_to(&mut self, seq: u64) -> u64 {
        let lost = seq - self.next;
        for hole in self.next.max(seq.saturating_sub(MAX_GIVEN_UP as u64))..seq {
            if self.given_up.len() == MAX_GIVEN_UP {
                self.given_up.pop_front();
            }
            self.given_up.push_back(hole);
        }
        self.missing.give_up_before(seq);
        self.next = seq;
        lost
    }
}
