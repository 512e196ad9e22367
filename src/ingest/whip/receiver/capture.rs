//! When the publisher captured what a packet carries, on *our* UTC clock.
//!
//! Policy, best source first:
//! 1. `abs-capture-time` (sent on some packets): between two of them the RTP
//!    timestamp carries the time on.
//! 2. The sender reports of the stream (RFC 3550 §6.4.1: RTP time ↔ NTP).
//! 3. Before either came: the arrival time of the least delayed packet.
//!
//! 1 and 2 are by the publisher's clock. Its offset from ours is the least
//! `arrival − sender time` of the last 10 to 20 s, which is the true offset plus
//! the shortest one-way delay. Below 10 s the sender is taken to keep UTC and is
//! trusted as it is: NTP keeps clocks better than we can measure over a path of
//! unknown asymmetry. Above, its clock is not UTC (a camera that starts in 1970)
//! and is moved by the offset. All streams of a publisher share the estimate, so
//! a change never moves sound against picture.
//!
//! A layer's capture times run with its RTP timestamps. When the sources say
//! otherwise they are slewed: by 5 ms per second of media, after a change to a
//! better source by 100 ms per second until it is met; so time never goes back
//! in decode order. Only a difference over a second (the publisher's clock was
//! set) is stepped over.

use std::time::{Duration, Instant};

use crate::time::Utc;

/// Offsets below it are trusted to be UTC, in microseconds. Half a second either
/// way before the judgement changes, so that it does not flicker.
const TRUSTED_OFFSET: i64 = 10_000_000;
const HYSTERESIS: i64 = 500_000;
/// A minimum is over one to two of these.
const WINDOW: Duration = Duration::from_secs(10);
/// An `abs-capture-time` this young outranks sender reports.
const ABSOLUTE_LIFETIME: Duration = Duration::from_secs(10);
/// Larger differences are stepped over, in microseconds.
const STEP: i64 = 1_000_000;
/// Slew per media time: 1/200 is 5 ms/s, 1/10 is 100 ms/s.
const SLEW: i64 = 200;
const FIRST_SLEW: i64 = 10;
/// A new source is met when the difference is below it, in microseconds.
const MET: i64 = 500;
/// The arrival line is anchored anew after so much media, in microseconds, far
/// from where timestamps wrap.
const REANCHOR: i64 = 60_000_000;

/// The least of the values of the last one to two windows.
#[derive(Default)]
struct SlidingMin {
    current: Option<i64>,
    previous: Option<i64>,
    began: Option<Instant>,
}

impl SlidingMin {
    fn add(&mut self, value: i64, now: Instant) {
        let began = *self.began.get_or_insert(now);
        if now.saturating_duration_since(began) >= WINDOW {
            self.previous = self.current.take();
            self.began = Some(now);
        }
        self.current = Some(self.current.map_or(value, |least| least.min(value)));
    }

    fn get(&self) -> Option<i64> {
        self.current.into_iter().chain(self.previous).min()
    }
}

/// The publisher's clock against ours. owner: the receiver.
#[derive(Default)]
pub(super) struct SenderClock {
    offset: SlidingMin,
    moved: bool,
}

impl SenderClock {
    /// Something that says `sender` arrived at `arrival`, which is `now`.
    pub(super) fn observe(&mut self, sender: Utc, arrival: Utc, now: Instant) {
        self.offset.add(arrival.micros_since(sender), now);
        let offset = self.offset.get().unwrap_or(0).saturating_abs();
        let limit = TRUSTED_OFFSET + if self.moved { -HYSTERESIS } else { HYSTERESIS };
        self.moved = offset > limit;
    }

    /// Microseconds to add to the sender's time.
    fn correction(&self) -> i64 {
        if self.moved { self.offset.get().unwrap_or(0) } else { 0 }
    }
}

/// A point that an RTP timestamp and the sender's clock share.
struct Reference {
    timestamp: u32,
    sender: Utc,
    /// When it came, and whether as `abs-capture-time`.
    came: Instant,
    absolute: bool,
}

/// Least delayed arrivals: UTC as a line over the RTP timestamp.
struct ArrivalLine {
    timestamp: u32,
    utc: Utc,
    excess: SlidingMin,
}

/// The capture times of one stream. owner: its layer.
pub(super) struct CaptureTimeline {
    clock_rate: u32,
    reference: Option<Reference>,
    arrivals: Option<ArrivalLine>,
    /// The newest timestamp given out, and its time.
    position: Option<(u32, Utc)>,
    /// The current source was met once.
    met: bool,
}

impl CaptureTimeline {
    pub(super) fn new(clock_rate: u32) -> Self {
        Self { clock_rate, reference: None, arrivals: None, position: None, met: true }
    }

    /// A packet arrived; retransmissions are not told.
    pub(super) fn arrival(&mut self, timestamp: u32, arrival: Utc, now: Instant) {
        let rate = self.clock_rate;
        let line = self.arrivals.get_or_insert_with(|| ArrivalLine {
            timestamp,
            utc: arrival,
            excess: SlidingMin::default(),
        });
        if micros_between(line.timestamp, timestamp, rate).abs() > REANCHOR {
            // An offset that grew past a step is no delay: the media stood still.
            let carried = line.at(timestamp, rate);
            let broken = arrival.micros_since(carried).abs() > STEP;
            let utc = if broken { arrival } else { carried };
            *line = ArrivalLine { timestamp, utc, excess: SlidingMin::default() };
        }
        let expected = line.utc.offset_micros(micros_between(line.timestamp, timestamp, rate));
        line.excess.add(arrival.micros_since(expected), now);
    }

    /// A packet carried its capture time, already on the sender's clock.
    pub(super) fn absolute(&mut self, timestamp: u32, sender: Utc, now: Instant) {
        self.refer(Reference { timestamp, sender, came: now, absolute: true });
    }

    /// A sender report of this stream came.
    pub(super) fn sender_report(&mut self, timestamp: u32, sender: Utc, now: Instant) {
        let outranked = self.reference.as_ref().is_some_and(|reference| {
            reference.absolute && now.saturating_duration_since(reference.came) < ABSOLUTE_LIFETIME
        });
        if !outranked {
            self.refer(Reference { timestamp, sender, came: now, absolute: false });
        }
    }

    /// The capture time of the next packet in order.
    pub(super) fn capture(&mut self, timestamp: u32, received: Utc, clock: &SenderClock) -> Utc {
        let target = self.target(timestamp, clock).unwrap_or(received);
        let Some((newest, utc)) = self.position else {
            self.position = Some((timestamp, target));
            return target;
        };
        let advance = micros_between(newest, timestamp, self.clock_rate);
        let expected = utc.offset_micros(advance);
        let error = target.micros_since(expected);
        if error.saturating_abs() > STEP {
            self.position = Some((timestamp, target));
            return target;
        }
        if advance <= 0 {
            return expected; // the same frame, or one that is shown earlier
        }
        let limit = advance / if self.met { SLEW } else { FIRST_SLEW };
        self.met |= error.abs() <= MET.max(limit);
        let out = expected.offset_micros(error.clamp(-limit, limit));
        self.position = Some((timestamp, out));
        out
    }

    fn refer(&mut self, reference: Reference) {
        let better = self.reference.as_ref().is_none_or(|r| r.absolute != reference.absolute);
        self.met &= !better;
        self.reference = Some(reference);
    }

    fn target(&self, timestamp: u32, clock: &SenderClock) -> Option<Utc> {
        let rate = self.clock_rate;
        match &self.reference {
            Some(reference) => {
                let since = micros_between(reference.timestamp, timestamp, rate);
                Some(reference.sender.offset_micros(since).offset_micros(clock.correction()))
            }
            None => self.arrivals.as_ref().map(|line| line.at(timestamp, rate)),
        }
    }
}

impl ArrivalLine {
    fn at(&self, timestamp: u32, clock_rate: u32) -> Utc {
        let since = micros_between(self.timestamp, timestamp, clock_rate);
        self.utc.offset_micros(since).offset_micros(self.excess.get().unwrap_or(0))
    }
}

/// Media time from `earlier` to `later`, the shorter way around the wrap.
fn micros_between(earlier: u32, later: u32, clock_rate: u32) -> i64 {
    let ticks = i64::from(later.wrapping_sub(earlier) as i32);
    (ticks * 1_000_000).div_euclid(i64::from(clock_rate))
}

#[cfg(test)]
#[path = "capture_tests.rs"]
mod tests;
