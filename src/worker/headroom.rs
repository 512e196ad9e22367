//! Whether one more viewer could be served well: admission by egress headroom. Sans-IO.
//!
//! Once a second [`Headroom::measure`] is told how busy each worker was and what was
//! sent. Two things are judged, each against its limit: the mean load of the workers,
//! and the bits per second on the wire. What a worker's own overload means for
//! placement is [`Measured::states`].
//!
//! - *A spike refuses nobody.* What counts is the mean over [`FAST`]: an idle gateway
//!   must be busy for more than two seconds before it refuses, so that neither a
//!   keyframe burst nor a compiler beside it on a small machine does it.
//! - *Recovery is slow.* The mean over [`SLOW`] counts too, the greater of the two; and
//!   what was refused is admitted again only [`REOPEN`] below the limit. So readiness
//!   does not flap, and a node is not filled again by those who were just sent away.
//! - *A storm of joins does not slip through.* A viewer costs what it is expected to
//!   cost from the moment it is admitted, until the means have caught up with it.
//!
//! Viewers that are there stay: only new ones are refused.

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use super::placement::WorkerState;

/// The shortest time of which the mean is trusted.
const FAST: Duration = Duration::from_secs(3);
/// How long a load is remembered.
const SLOW: Duration = Duration::from_secs(10);
/// Ticks are a second apart, and late on a busy machine, never early.
const JITTER: Duration = Duration::from_millis(500);
/// Readings kept at most, should they come more often than once a second. Past it the
/// oldest go, and the means are over less time.
const MAX_READINGS: usize = 32;
/// Share of its limit below which a resource takes viewers again.
const REOPEN: f64 = 0.9;
/// The same of places, which are counted exactly: only readiness waits for it.
const REOPEN_PLACES: f64 = 0.98;
/// Share of the egress bandwidth that may be used: what comes in bursts needs the rest.
const EGRESS_SHARE: f64 = 0.9;

/// What a viewer costs of one worker while that cannot be measured: 3000 to a core.
const TYPICAL_COST: f64 = 1.0 / 3000.0;
/// Bounds of what may be measured: nothing is for free, and noise is not a viewer.
const COSTS: [f64; 2] = [1.0 / 20_000.0, 1.0 / 100.0];
/// Viewers over whose expected costs the mean is taken.
const ASKED_MEMORY: f64 = 8.0;
/// So many more viewers than at the quietest moment tell what one costs.
const ENOUGH_VIEWERS: f64 = 32.0;

/// What may be used.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct HeadroomLimits {
    /// Mean share of its time that a worker may be busy, 0 to 1; 0 is no limit.
    pub worker_load: f64,
    /// Bit/s on the wire, of which [`EGRESS_SHARE`] may be used; 0 is no limit.
    pub egress_bps: u64,
}

/// Why a viewer was not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There are as many as configured.
    Viewers,
    /// The bandwidth is used.
    Egress,
    /// The workers have too much to do.
    WorkerBusy,
}

impl Refusal {
    /// The value of the `reason` metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewers => "viewers",
            Self::Egress => "egress",
            Self::WorkerBusy => "worker_busy",
        }
    }
}

/// What is measured once a second.
pub(super) struct Sample<'a> {
    /// Nanoseconds that each worker was busy since it started.
    pub(super) busy_nanos: &'a [u64],
    /// Bytes on the wire since the start.
    pub(super) sent_bytes: u64,
    /// Viewers now.
    pub(super) viewers: usize,
    /// Share of the places that are taken, also by viewers who have not come yet.
    pub(super) places: f64,
}

/// Viewers admitted, and the bit/s they are expected to cost.
#[derive(Clone, Copy, Default)]
struct Joins {
    viewers: f64,
    bps: f64,
}

struct Reading {
    at: Instant,
    busy_nanos: Vec<u64>,
    sent_bytes: u64,
    viewers: usize,
    /// Between the reading before and this one.
    joins: Joins,
}

/// Two readings apart give means.
struct Means {
    loads: Vec<f64>,
    bps: f64,
    viewers: f64,
}

/// A limit with hysteresis.
#[derive(Clone, Copy, Default)]
struct Gate {
    closed: bool,
}

impl Gate {
    /// `used` is a share of the limit, below `reopen` of which a closed gate opens.
    fn update(&mut self, used: f64, reopen: f64) {
        self.closed = used >= if self.closed { reopen } else { 1.0 };
    }
}

/// Measures and admits. owner: the pool, behind a lock that no media thread takes.
pub(super) struct Headroom {
    limits: HeadroomLimits,
    /// Oldest first; [`SLOW`] back at most.
    readings: VecDeque<Reading>,
    /// Since the last reading.
    joins: Joins,
    /// The load of all workers together, and bit/s, in the last means.
    load: f64,
    bps: f64,
    workers: f64,
    /// Admitted, and not yet in the means.
    unmeasured: Joins,
    /// What those who asked lately were expected to cost, on the average.
    asked_bps: f64,
    /// Viewers and load at the moment with the fewest viewers.
    quietest: Option<(f64, f64)>,
    cost: f64,
    /// The last sample's.
    places_used: f64,
    places: Gate,
    cpu: Gate,
    egress: Gate,
    /// Of each worker.
    busy: Vec<Gate>,
}

impl Headroom {
    pub(super) fn new(limits: HeadroomLimits) -> Self {
        Self {
            limits,
            readings: VecDeque::new(),
            joins: Joins::default(),
            load: 0.0,
            bps: 0.0,
            workers: 1.0,
            unmeasured: Joins::default(),
            asked_bps: 0.0,
            quietest: None,
            cost: TYPICAL_COST,
            places_used: 0.0,
            places: Gate::default(),
            cpu: Gate::default(),
            egress: Gate::default(),
            busy: Vec::new(),
        }
    }

    /// Takes a reading. To be called about once a second.
    pub(super) fn measure(&mut self, now: Instant, sample: &Sample<'_>) {
        let joins = std::mem::take(&mut self.joins);
        let Sample { busy_nanos, sent_bytes, viewers, places } = *sample;
        let busy_nanos = busy_nanos.to_vec();
        self.workers = (busy_nanos.len() as f64).max(1.0);
        self.busy.resize(busy_nanos.len(), Gate::default());
        self.readings.push_back(Reading { at: now, busy_nanos, sent_bytes, viewers, joins });
        let too_old = |reading: &Reading| now.saturating_duration_since(reading.at) > SLOW + JITTER;
        while self.readings.front().is_some_and(too_old) || self.readings.len() > MAX_READINGS {
            self.readings.pop_front();
        }
        self.unmeasured = self.unmeasured_at(now);
        if let (Some(fast), Some(slow)) = (self.means(now, FAST), self.means(now, SLOW)) {
            self.learn_cost(&fast);
            let loads = fast.loads.iter().zip(&slow.loads).map(|(fast, slow)| fast.max(*slow));
            let loads: Vec<f64> = loads.collect();
            self.load = loads.iter().sum();
            self.bps = fast.bps.max(slow.bps);
            for (gate, load) in self.busy.iter_mut().zip(&loads) {
                gate.update(share(*load, self.limits.worker_load), REOPEN);
            }
        }
        self.places_used = places;
        self.places.update(places, REOPEN_PLACES);
        self.cpu.update(self.cpu_with_one_more(), REOPEN);
        self.egress.update(self.egress_with(self.one_more_bps()), REOPEN);
    }

    /// Whether a viewer that is expected to cost `bps` could be served well now. That
    /// there is a place for it is the directory's to say.
    ///
    /// # Errors
    /// What there is too little of.
    pub(super) fn check(&mut self, bps: u64) -> Result<(), Refusal> {
        self.asked_bps += (bps as f64 - self.asked_bps) / ASKED_MEMORY;
        if self.egress.closed || self.egress_with(bps as f64) >= 1.0 {
            return Err(Refusal::Egress);
        }
        if self.cpu.closed || self.cpu_with_one_more() >= 1.0 {
            return Err(Refusal::WorkerBusy);
        }
        Ok(())
    }

    /// [`Self::check`], and counts the viewer as one that will soon cost `bps`.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub(super) fn admit(&mut self, bps: u64) -> Result<(), Refusal> {
        self.check(bps)?;
        self.joins.viewers += 1.0;
        self.joins.bps += bps as f64;
        Ok(())
    }

    /// What is left for viewers: 1 all, 0 nothing.
    pub(super) fn ratio(&self) -> f64 {
        match self.full() {
            Some(_) => 0.0,
            None => {
                let used = self.cpu_with_one_more().max(self.egress_with(0.0));
                (1.0 - used.max(self.places_used)).clamp(0.0, 1.0)
            }
        }
    }

    /// What there is too little of for any viewer.
    pub(super) fn full(&self) -> Option<Refusal> {
        let gates = [
            (self.places, Refusal::Viewers),
            (self.egress, Refusal::Egress),
            (self.cpu, Refusal::WorkerBusy),
        ];
        gates.iter().find(|(gate, _)| gate.closed).map(|(_, refusal)| *refusal)
    }

    /// Which workers have too much to do, whatever the others have.
    pub(super) fn states(&self) -> Vec<WorkerState> {
        let state = |gate: &Gate| if gate.closed { WorkerState::Busy } else { WorkerState::Fit };
        self.busy.iter().map(state).collect()
    }

    /// Joins whose cost is not in the means: all of those since the last reading, and a
    /// falling share of those before, as they have sent for a part of [`FAST`].
    fn unmeasured_at(&self, now: Instant) -> Joins {
        let mut sum = Joins::default();
        for reading in &self.readings {
            let age = now.saturating_duration_since(reading.at).as_secs_f64();
            let weight = (1.0 - age / FAST.as_secs_f64()).max(0.0);
            sum.viewers += reading.joins.viewers * weight;
            sum.bps += reading.joins.bps * weight;
        }
        sum
    }

    /// Means over about `window`, or over what there is of it; `None` while that is
    /// less than [`FAST`].
    fn means(&self, now: Instant, window: Duration) -> Option<Means> {
        let age = |reading: &Reading| now.saturating_duration_since(reading.at);
        let last = self.readings.back()?;
        // The shortest that is long enough, or else the longest.
        let long_enough = |reading: &&Reading| age(reading) + JITTER >= window;
        let first = self.readings.iter().rev().find(long_enough).or(self.readings.front())?;
        if age(first) + JITTER < FAST {
            return None;
        }
        let seconds = age(first).as_secs_f64();
        let busy = last.busy_nanos.iter().zip(&first.busy_nanos);
        let within = self.readings.iter().filter(|reading| reading.at >= first.at);
        let (count, viewers) =
            within.fold((0.0, 0.0), |(n, sum), reading| (n + 1.0, sum + reading.viewers as f64));
        Some(Means {
            loads: busy.map(|(b, a)| b.saturating_sub(*a) as f64 / 1e9 / seconds).collect(),
            bps: last.sent_bytes.saturating_sub(first.sent_bytes) as f64 * 8.0 / seconds,
            viewers: viewers / count,
        })
    }

    /// What one viewer costs of a worker: how much more load there is than at the
    /// quietest moment, for how many more viewers. So what publishers cost is no
    /// viewer's.
    fn learn_cost(&mut self, fast: &Means) {
        let load: f64 = fast.loads.iter().sum();
        let (viewers_then, load_then) = match self.quietest {
            Some(quietest) if quietest.0 < fast.viewers => quietest,
            _ => *self.quietest.insert((fast.viewers, load)),
        };
        let more = fast.viewers - viewers_then;
        let [least, most] = COSTS;
        self.cost = if more < ENOUGH_VIEWERS {
            TYPICAL_COST
        } else {
            ((load - load_then) / more).clamp(least, most)
        };
    }

    /// The workers' mean load with one more viewer, as a share of its limit. Who gets
    /// it is decided later; the placement passes busy workers over.
    fn cpu_with_one_more(&self) -> f64 {
        let coming = self.unmeasured.viewers + self.joins.viewers + 1.0;
        share((self.load + coming * self.cost) / self.workers, self.limits.worker_load)
    }

    /// What the next viewer may cost, for the decision that nobody waits for. Bounded,
    /// so that a gateway whose last caller wanted more than it ever has opens again.
    fn one_more_bps(&self) -> f64 {
        self.asked_bps.min(self.limits.egress_bps as f64 * EGRESS_SHARE * (1.0 - REOPEN))
    }

    /// The wire with `bps` more, as a share of what may be used.
    fn egress_with(&self, bps: f64) -> f64 {
        let coming = self.unmeasured.bps + self.joins.bps + bps;
        share(self.bps + coming, self.limits.egress_bps as f64 * EGRESS_SHARE)
    }
}

/// For operators: what is used and what may be.
impl fmt::Display for Headroom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |share: f64| (share * 100.0).round();
        match self.full() {
            None => f.write_str("there is room for viewers"),
            Some(Refusal::Viewers) => {
                f.write_str("there are as many viewers as media.max_viewers allows")
            }
            Some(Refusal::Egress) => write!(
                f,
                "egress is full: {:.1} of {:.1} Mbit/s are in use or promised, {} % may be",
                (self.bps + self.unmeasured.bps + self.joins.bps) / 1e6,
                self.limits.egress_bps as f64 / 1e6,
                percent(EGRESS_SHARE),
            ),
            Some(Refusal::WorkerBusy) => write!(
                f,
                "the media workers are busy {} % of their time, with all who have been admitted; \
                 {} % are allowed",
                percent(self.cpu_with_one_more() * self.limits.worker_load),
                percent(self.limits.worker_load),
            ),
        }
    }
}

/// `used` of `limit`; nothing without one.
fn share(used: f64, limit: f64) -> f64 {
    if limit > 0.0 { used / limit } else { 0.0 }
}

#[cfg(test)]
#[path = "headroom_tests.rs"]
mod tests;
