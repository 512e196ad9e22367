//! Distributions: histograms of bounded size instead of lists of samples.
//!
//! Latency is that of whole frames: from the capture time that the stream carries to
//! the arrival of the packet that completes the frame. Keyframes are told from other
//! frames by the viewers that open their packets; the others learn it from them, for
//! one capture time is one frame for all viewers of a table.

use hdrhistogram::Histogram;
use serde::Serialize;

/// Longest time told apart, in microseconds; longer ones count as this.
const MAX_MICROS: u64 = 60_000_000;
/// Frames whose kind is remembered, or awaited: about ten seconds of one table.
const RECENT: usize = 512;
/// Latencies that wait for the kind of their frame; more are told from none.
const WAITING: usize = 65_536;

/// A distribution of times.
#[derive(Clone, Debug)]
pub struct Spread(Histogram<u64>);

impl Default for Spread {
    fn default() -> Self {
        // Fails only for bounds or precision out of range, which these are not.
        Self(Histogram::new_with_bounds(1, MAX_MICROS, 3).expect("fixed, valid bounds"))
    }
}

/// Percentiles in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// Values measured.
    pub samples: u64,
    /// Median.
    pub p50: f64,
    /// 95th percentile.
    pub p95: f64,
    /// 99th percentile.
    pub p99: f64,
    /// Longest.
    pub max: f64,
    /// 99th less 1st percentile: what the way adds beyond its shortest time, free of
    /// the difference of the two clocks.
    pub spread: f64,
}

impl Spread {
    /// Counts a time in microseconds; one below zero (clocks that differ) counts as 0.
    pub fn record(&mut self, micros: i64) {
        self.0.saturating_record(micros.clamp(0, MAX_MICROS as i64) as u64);
    }

    /// Takes in another distribution.
    pub fn merge(&mut self, other: &Self) {
        // Cannot fail: all have the same bounds.
        let _ = self.0.add(&other.0);
    }

    /// Percentiles; `None` when nothing was counted.
    pub fn summary(&self) -> Option<Summary> {
        if self.0.is_empty() {
            return None;
        }
        let at = |percent| self.0.value_at_percentile(percent) as f64 / 1000.0;
        Some(Summary {
            samples: self.0.len(),
            p50: at(50.0),
            p95: at(95.0),
            p99: at(99.0),
            max: self.0.max() as f64 / 1000.0,
            spread: (at(99.0) - at(1.0)).max(0.0),
        })
    }
}

/// Latencies of a group of viewers.
#[derive(Clone, Debug, Default)]
pub struct Latencies {
    /// All frames.
    pub all: Spread,
    /// Keyframes.
    pub keyframes: Spread,
    /// Frames known to be none.
    pub others: Spread,
    /// Whether capture times had to be taken from sender reports.
    pub by_report: bool,
}

impl Latencies {
    /// Takes in those of another thread.
    pub fn merge(&mut self, other: &Self) {
        self.all.merge(&other.all);
        self.keyframes.merge(&other.keyframes);
        self.others.merge(&other.others);
        self.by_report |= other.by_report;
    }

    fn of_kind(&mut self, keyframe: bool) -> &mut Spread {
        if keyframe { &mut self.keyframes } else { &mut self.others }
    }
}

struct Seen {
    captured: i64,
    keyframe: Option<bool>,
    waiting: Vec<(usize, i64)>,
}

/// Collects the latencies of all viewers of a thread.
pub struct Collector {
    groups: Vec<Latencies>,
    recent: Vec<Option<Seen>>,
    waiting: usize,
}

impl Collector {
    /// For so many groups of viewers.
    pub fn new(groups: usize) -> Self {
        Self {
            groups: vec![Latencies::default(); groups],
            recent: (0..RECENT).map(|_| None).collect(),
            waiting: 0,
        }
    }

    /// A frame captured at `captured` was complete after `micros` for a viewer of `group`.
    pub fn frame(&mut self, group: usize, captured: i64, micros: i64, keyframe: Option<bool>) {
        let Some(latencies) = self.groups.get_mut(group) else { return };
        latencies.all.record(micros);
        let hash = (captured as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let slot = &mut self.recent[(hash >> 32) as usize % RECENT];
        let seen = match slot {
            Some(seen) if seen.captured == captured => seen,
            _ => {
                let before = slot.take();
                self.waiting -= before.map_or(0, |before| before.waiting.len());
                slot.insert(Seen { captured, keyframe: None, waiting: Vec::new() })
            }
        };
        seen.keyframe = seen.keyframe.or(keyframe);
        match seen.keyframe {
            Some(kind) => {
                latencies.of_kind(kind).record(micros);
                self.waiting -= seen.waiting.len();
                for (group, micros) in seen.waiting.drain(..) {
                    self.groups[group].of_kind(kind).record(micros);
                }
            }
            None if self.waiting < WAITING => {
                seen.waiting.push((group, micros));
                self.waiting += 1;
            }
            None => {}
        }
    }

    /// A latency by sender reports, which says nothing of one frame for all.
    pub fn frame_by_report(&mut self, group: usize, micros: i64, keyframe: Option<bool>) {
        let Some(latencies) = self.groups.get_mut(group) else { return };
        latencies.by_report = true;
        latencies.all.record(micros);
        if let Some(keyframe) = keyframe {
            latencies.of_kind(keyframe).record(micros);
        }
    }

    /// The latencies by group.
    pub fn finish(self) -> Vec<Latencies> {
        self.groups
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_in_milliseconds_and_within_a_thousandth() {
        let mut spread = Spread::default();
        assert_eq!(spread.summary(), None);
        (1..=1000).for_each(|n| spread.record(n * 100));
        spread.record(-5);
        let summary = spread.summary().unwrap();
        assert_eq!(summary.samples, 1001);
        for (got, expected) in [(summary.p50, 50.0), (summary.p95, 95.0), (summary.p99, 99.0)] {
            assert!((got - expected).abs() <= expected / 500.0, "{got} for {expected}");
        }
        assert!((summary.spread - 98.0).abs() < 0.3 && summary.max >= 100.0);
        spread.record(i64::MAX);
        assert!((spread.summary().unwrap().max - 60_000.0).abs() < 60.0);
    }

    #[test]
    fn two_threads_add_up() {
        let (mut one, mut two) = (Spread::default(), Spread::default());
        (0..10).for_each(|_| one.record(1000));
        (0..30).for_each(|_| two.record(3000));
        one.merge(&two);
        let summary = one.summary().unwrap();
        assert_eq!((summary.samples, summary.p50.round()), (40, 3.0));
    }

    #[test]
    fn a_frames_kind_reaches_the_viewers_that_saw_it_before_and_after() {
        let mut collector = Collector::new(2);
        collector.frame(0, 111, 5_000, None);
        collector.frame(1, 222, 6_000, None);
        collector.frame(0, 111, 7_000, Some(true));
        collector.frame(1, 111, 8_000, None);
        collector.frame(0, 222, 9_000, Some(false));
        assert_eq!(collector.waiting, 0);
        let groups = collector.finish();
        let count = |spread: &Spread| spread.summary().map_or(0, |s| s.samples);
        let counts = groups.iter().map(|g| (count(&g.all), count(&g.keyframes), count(&g.others)));
        assert_eq!(counts.collect::<Vec<_>>(), [(3, 2, 1), (2, 1, 1)]);
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut collector = Collector::new(1);
        for frame in 0..200_000 {
            collector.frame(0, frame / 300, 1, None);
        }
        assert!(collector.waiting <= WAITING);
    }
}
