//! Transport-wide feedback: when each packet came, told back often enough that
//! a browser's bandwidth estimate grows to the full bitrate
//! (draft-holmer-rmcat-transport-wide-cc-extensions-01).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::rtp::SequenceUnwrapper;
use crate::webrtc::rtcp::{ARRIVAL_TICK, Arrival, CompoundBuilder, MAX_STATUSES};

/// Arrivals kept for the next feedback (100 ms at 100 Mbit/s). At half of it
/// feedback is due at once; at all of it the oldest are forgotten, which the
/// sender takes for losses.
const MAX_PENDING: usize = 1_000;

/// After so many bytes of messages no further one is begun: the largest, on top
/// of them, still fits an MTU.
const MAX_BEFORE_LAST: usize = 100;

/// Arrivals that were not told yet. owner: the receiver.
pub(super) struct ArrivalLog {
    interval: Duration,
    unwrapper: SequenceUnwrapper,
    /// Ticks of arrival by extended transport-wide sequence number.
    pending: BTreeMap<u64, u64>,
    /// What the next message begins with: the number after the last one told.
    next: Option<u64>,
    epoch: Option<Instant>,
    /// When the oldest of `pending` came.
    since: Option<Instant>,
    /// Feedback messages sent, mod 256.
    count: u8,
}

impl ArrivalLog {
    pub(super) fn new(interval: Duration) -> Self {
        Self {
            interval,
            unwrapper: SequenceUnwrapper::default(),
            pending: BTreeMap::new(),
            next: None,
            epoch: None,
            since: None,
            count: 0,
        }
    }

    pub(super) fn record(&mut self, seq: u16, now: Instant) {
        let epoch = *self.epoch.get_or_insert(now);
        let ticks = now.saturating_duration_since(epoch).as_micros() / ARRIVAL_TICK.as_micros();
        let seq = self.unwrapper.unwrap(seq);
        self.pending.entry(seq).or_insert(ticks as u64);
        if self.pending.len() > MAX_PENDING {
            self.pending.pop_first();
        }
        self.since.get_or_insert(now);
    }

    /// When feedback is due.
    pub(super) fn due(&self) -> Option<Instant> {
        let full = self.pending.len() >= MAX_PENDING / 2;
        self.since.map(|since| if full { since } else { since + self.interval })
    }

    /// Writes messages until all is told or the compound is full; the rest is
    /// then due at once.
    pub(super) fn write(&mut self, mut to: CompoundBuilder, media_ssrc: u32) -> CompoundBuilder {
        let before = to.len();
        while to.len() <= before + MAX_BEFORE_LAST {
            let Some((&first, _)) = self.pending.first_key_value() else { break };
            let (base, end) = match self.next {
                // Came after a later one was told: a message of its own, with what
                // adjoins it, so that nothing told before is told again.
                Some(next) if first < next => (first, self.run_end(first, next)),
                // The losses since the last message are part of this one.
                Some(next) if first - next < MAX_STATUSES as u64 => (next, u64::MAX),
                _ => (first, u64::MAX),
            };
            let arrivals: Vec<Arrival> = self
                .pending
                .range(first..end)
                .take(MAX_STATUSES)
                .take_while(|(seq, _)| **seq - base < MAX_STATUSES as u64)
                .map(|(&seq, &ticks)| Arrival { seq: seq as u16, ticks })
                .collect();
            let covered;
            (to, covered) = to.transport_cc(media_ssrc, self.count, base as u16, &arrivals);
            self.count = self.count.wrapping_add(1);
            for _ in 0..covered.max(1) {
                if let Some((seq, _)) = self.pending.pop_first() {
                    self.next = self.next.max(Some(seq + 1));
                }
            }
        }
        if self.pending.is_empty() {
            self.since = None;
        }
        to
    }

    /// End of the run of neighbours that begins at `first`, at most `limit`.
    fn run_end(&self, first: u64, limit: u64) -> u64 {
        (first..limit).find(|seq| !self.pending.contains_key(seq)).unwrap_or(limit)
    }

    #[cfg(test)]
    pub(super) fn pending(&self) -> usize {
        self.pending.len()
    }
}
