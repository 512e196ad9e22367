//! A receiver's estimate of its path (REMB), by the idea of libwebrtc's receive side and
//! a small part of its means: while frames queue up on the way, what gets through is
//! all there is, and less of it empties the queue. Without a queue there is room for half
//! more than what comes, and a stream that pauses for breath takes nothing back of that.
//!
//! The queue is seen in the frames' one-way delay against the least of late, from the
//! arrival of each frame's first packet, so that the size of a frame does not matter.
//! Sources: draft-alvestrand-rmcat-remb-03, draft-ietf-rmcat-gcc-02 §4 and §5.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Delay above the least that means a queue, and how long every frame must have it: what
/// a busy machine holds up comes all at once.
const QUEUED: Duration = Duration::from_millis(75);
const LASTING: Duration = Duration::from_millis(100);
/// The least delay is that of one to two such spans.
const LEAST_FOR: Duration = Duration::from_secs(10);
/// The rate is what came in such a span. Out of a queue packets come at the pace of the
/// path, so that a short one tells; else there are keyframes and pauses.
const WINDOW: Duration = Duration::from_millis(500);
const WINDOW_QUEUED: Duration = Duration::from_millis(150);
/// Arrivals remembered for it; of more the oldest are forgotten, and the rate is low.
const ARRIVALS: usize = 8192;
/// Between two estimates; while there is a queue.
const EVERY: Duration = Duration::from_secs(1);
const EVERY_QUEUED: Duration = Duration::from_millis(200);
/// Of what gets through, in percent: with a queue, without.
const LESS: u64 = 85;
const MORE: u64 = 150;
/// RTP clock of video, ticks a millisecond.
const TICKS: i64 = 90;

/// Estimates for one viewer. Sans-IO: every time is an argument.
#[derive(Debug, Default)]
pub struct Estimator {
    arrivals: VecDeque<(Instant, usize)>,
    /// Bits a second.
    estimate: u64,
    /// Arrival and timestamp of the first frame, which delays count from.
    origin: Option<(Instant, u32)>,
    /// Timestamp of the last frame.
    last: u32,
    /// Least delay in milliseconds, of the span before and of this one since when.
    least: [i64; 2],
    least_since: Option<Instant>,
    /// Every frame was in a queue since.
    queued_since: Option<Instant>,
    told: Option<Instant>,
    told_of_queue: bool,
}

impl Estimator {
    /// Takes a packet of any kind: its bytes got through.
    pub fn handle_bytes(&mut self, now: Instant, bytes: usize) {
        self.arrivals.push_back((now, bytes));
        let old = |at: Instant| now.saturating_duration_since(at) > WINDOW;
        while self.arrivals.len() > ARRIVALS
            || self.arrivals.front().is_some_and(|&(at, _)| old(at))
        {
            self.arrivals.pop_front();
        }
    }

    /// Takes the RTP timestamp of a packet of video; only the first of a frame counts, and
    /// none that is older than the last.
    pub fn handle_frame(&mut self, now: Instant, timestamp: u32) {
        let Some((at, first)) = self.origin else {
            (self.origin, self.last, self.least_since) =
                (Some((now, timestamp)), timestamp, Some(now));
            return;
        };
        if timestamp.wrapping_sub(self.last) as i32 <= 0 {
            return;
        }
        self.last = timestamp;
        // A signed difference: a day of ticks would wrap, and a viewer here lives minutes.
        let media = i64::from(timestamp.wrapping_sub(first) as i32) / TICKS;
        let delay = now.saturating_duration_since(at).as_millis() as i64 - media;
        if self.least_since.is_none_or(|since| now.saturating_duration_since(since) > LEAST_FOR) {
            (self.least, self.least_since) = ([self.least[1], delay], Some(now));
        }
        self.least[1] = self.least[1].min(delay);
        let above = delay - self.least[0].min(self.least[1]);
        let is_queued = above > QUEUED.as_millis() as i64;
        self.queued_since = is_queued.then(|| self.queued_since.unwrap_or(now));
    }

    /// The estimate in bits a second, when it is time to tell it: once a second, and at
    /// once and more often while there is a queue.
    pub fn poll(&mut self, now: Instant) -> Option<u64> {
        let lasts = |since: Instant| now.saturating_duration_since(since) >= LASTING;
        let is_queued = self.queued_since.is_some_and(lasts);
        let since = self.told.map(|told| now.saturating_duration_since(told));
        let due = since.is_none_or(|since| {
            since >= if is_queued { EVERY_QUEUED } else { EVERY }
                || is_queued && !self.told_of_queue
        });
        if !due || self.origin.is_none_or(|(at, _)| now.saturating_duration_since(at) < WINDOW) {
            return None;
        }
        (self.told, self.told_of_queue) = (Some(now), is_queued);
        self.estimate = match is_queued {
            true => self.rate(now, WINDOW_QUEUED) * LESS / 100,
            false => self.estimate.max(self.rate(now, WINDOW) * MORE / 100),
        };
        Some(self.estimate)
    }

    /// Bits a second of the last `span`.
    fn rate(&self, now: Instant, span: Duration) -> u64 {
        let recent = |&&(at, _): &&(Instant, usize)| now.saturating_duration_since(at) <= span;
        let bytes: usize =
            self.arrivals.iter().rev().take_while(recent).map(|(_, bytes)| bytes).sum();
        bytes as u64 * 8000 / span.as_millis() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::impair::{Impairment, Link};

    /// Frames of 5000 bytes 25 times a second (1 Mbit/s) over a line of `rates`, each for
    /// five seconds; returns the estimates, each with its millisecond.
    fn run(rates: &[u64]) -> Vec<(u64, u64)> {
        let line = |rate| Impairment { rate: Some(rate), ..Impairment::default() };
        let (mut link, start) = (Link::new(line(rates[0]), 1), Instant::now());
        let (mut estimator, mut told) = (Estimator::default(), Vec::new());
        for tick in 0..5000 * rates.len() as u64 {
            let now = start + Duration::from_millis(tick);
            link.change(line(rates[(tick / 5000) as usize]));
            if tick % 40 == 0 {
                (0..5).for_each(|_| link.handle(now, &[0; 1000], (tick * 90) as u32));
            }
            while let Some((packet, timestamp)) = link.poll(now) {
                estimator.handle_bytes(now, packet.len());
                estimator.handle_frame(now, timestamp.wrapping_sub(50_000));
            }
            told.extend(estimator.poll(now).map(|bits| (tick, bits)));
        }
        told
    }

    #[test]
    fn a_path_with_room_is_half_more_than_what_comes_and_told_each_second() {
        let told = run(&[3_000_000]);
        assert_eq!(told.len(), 5, "{told:?}");
        assert!(told.iter().all(|(_, bits)| (1_400_000..1_700_000).contains(bits)), "{told:?}");
    }

    #[test]
    fn a_path_that_narrows_is_told_at_once_and_when_it_widens_again() {
        let told = run(&[3_000_000, 600_000, 3_000_000]);
        let (first, _) = told.iter().find(|(at, bits)| *at > 5000 && *bits < 1_000_000).unwrap();
        assert!(*first < 5400, "{told:?}");
        let narrow = told.iter().filter(|(at, _)| (5500..10_000).contains(at));
        assert!(narrow.clone().count() > 10);
        assert!(narrow.clone().all(|(_, bits)| (400_000..600_000).contains(bits)), "{told:?}");
        let wide = told.iter().filter(|(at, _)| *at > 11_500);
        assert!(wide.clone().all(|(_, bits)| *bits > 1_400_000), "{told:?}");
        assert!(wide.count() <= 4);
    }

    #[test]
    fn frames_that_come_again_or_late_say_nothing() {
        let (mut estimator, now) = (Estimator::default(), Instant::now());
        assert_eq!(estimator.poll(now), None);
        estimator.handle_frame(now, 90_000);
        for late in 1..50 {
            let now = now + Duration::from_millis(late * 100);
            estimator.handle_frame(now, 90_000);
            estimator.handle_frame(now, 0);
        }
        assert_eq!(estimator.queued_since, None);
    }
}
