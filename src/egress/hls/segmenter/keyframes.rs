//! When to ask a source for a random access point, so that it comes at a boundary.
//!
//! Browsers send no keyframes of their own accord, but answer a request after a
//! while: a round trip and what their encoder takes. That while is learned, in media
//! time, and boundaries are asked for so much ahead. Encoders with a fixed GOP answer
//! nothing; two keyframes at the same distance that nobody asked for show one, and
//! then none is asked for as long as they go on coming.

use std::time::Duration;

/// What a source takes from a request to its keyframe, until it is known.
const FIRST_RESPONSE: u64 = 250_000;

/// A keyframe that comes later than this after a request is no answer to it.
const MAX_RESPONSE: u64 = 1_000_000;

/// Requests for one layer are at least this far apart.
const ASK_INTERVAL: u64 = 300_000;

/// Random access points of one layer: those that came, and those asked for.
/// All times are media times in microseconds.
#[derive(Debug)]
pub struct Keyframes {
    response: u64,
    /// The layer's newest frame at the first request since the newest keyframe.
    asked: Option<u64>,
    /// When the newest request was made.
    asked_at: Option<u64>,
    /// That request, or one before it, was made for the boundary to come.
    for_boundary: bool,
    newest: Option<u64>,
    /// Distance of the newest keyframe that came by itself from the one before it.
    distance: Option<u64>,
    period: Option<u64>,
}

impl Keyframes {
    /// Nothing is known. `segment`: the length of a segment.
    pub fn new(segment: Duration) -> Self {
        Self {
            response: FIRST_RESPONSE.min(segment.as_micros() as u64 / 4),
            asked: None,
            asked_at: None,
            for_boundary: false,
            newest: None,
            distance: None,
            period: None,
        }
    }

    /// A keyframe came. `interval`: from frame to frame. Returns whether it was asked
    /// for as the start of a segment.
    pub fn came(&mut self, time: u64, interval: u64) -> bool {
        let answer = self.asked.take().map(|asked| time.saturating_sub(asked));
        let distance = self.newest.map(|newest| time.saturating_sub(newest));
        let same = |a: u64, b: u64| a.abs_diff(b) < a / 20;
        let answered = answer.filter(|answer| *answer <= MAX_RESPONSE + 2 * interval);
        if let Some(answer) = answered {
            self.response = (self.response * 3 + answer) / 4;
        }
        self.period = distance.filter(|new| self.distance.is_some_and(|old| same(*new, old)));
        self.distance = if answered.is_some() { self.period } else { distance };
        self.newest = Some(time);
        std::mem::take(&mut self.for_boundary) && answered.is_some()
    }

    /// When the source will send a keyframe by itself, the first one after `time`.
    pub fn expected_after(&self, time: u64) -> Option<u64> {
        let (newest, period) = (self.newest?, self.period.filter(|period| *period > 0)?);
        let periods = time.saturating_sub(newest) / period + 1;
        newest.checked_add(period.checked_mul(periods)?)
    }

    /// Whether it is time to ask for a keyframe at `boundary`. `newest`: the layer's
    /// newest frame.
    pub fn is_time(&mut self, newest: u64, boundary: u64, interval: u64) -> bool {
        if let Some(expected) = self.newest.zip(self.period).map(|(last, period)| last + period)
            && newest > expected + 2 * interval
        {
            (self.period, self.distance) = (None, None);
        }
        // Half a frame more, because a frame is the smallest step that a source can take.
        newest + self.response.max(interval) + interval / 2 >= boundary
    }

    /// Whether a request may be made at `now`; if so, it is made. `newest`: the layer's
    /// newest frame.
    pub fn ask(&mut self, now: u64, newest: u64, for_boundary: bool) -> bool {
        self.for_boundary |= for_boundary;
        let pause = ASK_INTERVAL.max(self.response * 3 / 2);
        if self.asked_at.is_some_and(|at| now.saturating_sub(at) < pause) {
            return false;
        }
        self.asked_at = Some(now);
        self.asked.get_or_insert(newest);
        true
    }

    /// The boundary was decided: what was asked for it is over.
    pub const fn decided(&mut self) {
        self.for_boundary = false;
    }
}
