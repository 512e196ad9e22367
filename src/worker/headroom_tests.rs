//! Loads and joins on a virtual clock.

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const MBIT: u64 = 1_000_000;

/// A pool whose workers and viewers do as they are told.
struct Pool {
    now: Instant,
    headroom: Headroom,
    busy_nanos: Vec<u64>,
    sent_bytes: u64,
    viewers: usize,
}

impl Pool {
    fn new(workers: usize, worker_load: f64, egress_mbps: u64) -> Self {
        let limits = HeadroomLimits { worker_load, egress_bps: egress_mbps * MBIT };
        Self {
            now: Instant::now(),
            headroom: Headroom::new(limits),
            busy_nanos: vec![0; workers],
            sent_bytes: 0,
            viewers: 0,
        }
    }

    /// A tick after `time` of these loads and this bit rate.
    fn run_for(&mut self, time: Duration, loads: &[f64], bps: u64) {
        self.now += time;
        for (nanos, load) in self.busy_nanos.iter_mut().zip(loads) {
            *nanos += (time.as_nanos() as f64 * load) as u64;
        }
        self.sent_bytes += (bps as f64 / 8.0 * time.as_secs_f64()) as u64;
        let sample = Sample {
            busy_nanos: &self.busy_nanos,
            sent_bytes: self.sent_bytes,
            viewers: self.viewers,
            places: self.viewers as f64 / 20_000.0,
        };
        self.headroom.measure(self.now, &sample);
    }

    fn run(&mut self, seconds: usize, loads: &[f64], bps: u64) {
        (0..seconds).for_each(|_| self.run_for(SECOND, loads, bps));
    }

    /// How many of `count` viewers of `bps` are admitted now.
    fn join(&mut self, count: usize, bps: u64) -> usize {
        let admitted = (0..count).filter(|_| self.headroom.admit(bps).is_ok()).count();
        self.viewers += admitted;
        admitted
    }
}

#[test]
fn two_seconds_of_full_load_refuse_nobody_and_a_third_does() {
    let mut pool = Pool::new(2, 0.85, 0);
    pool.run(20, &[0.1, 0.1], 0);
    pool.run(2, &[1.0, 1.0], 0);
    assert_eq!(pool.headroom.check(MBIT), Ok(()));
    assert!(pool.headroom.ratio() > 0.0);
    pool.run(1, &[1.0, 1.0], 0);
    assert_eq!(pool.headroom.check(MBIT), Err(Refusal::WorkerBusy));
    assert_eq!(pool.headroom.full(), Some(Refusal::WorkerBusy));
    assert_eq!(pool.headroom.ratio(), 0.0);
    let said = pool.headroom.to_string();
    assert!(said.contains("busy 100 % of their time") && said.contains("85 % are"), "{said}");
}

#[test]
fn the_first_seconds_of_a_process_are_not_judged() {
    let mut pool = Pool::new(1, 0.85, 0);
    pool.run(3, &[1.0], 0);
    assert_eq!(pool.headroom.check(MBIT), Ok(()), "two seconds lie between the readings");
    pool.run(1, &[1.0], 0);
    assert_eq!(pool.headroom.check(MBIT), Err(Refusal::WorkerBusy));
}

#[test]
fn recovery_takes_its_time_and_does_not_flap() {
    let mut pool = Pool::new(1, 0.85, 0);
    pool.run(20, &[0.95], 0);
    // Just below the limit is not room: it is where it comes from.
    for _ in 0..30 {
        pool.run(1, &[0.80], 0);
        assert_eq!(pool.headroom.full(), Some(Refusal::WorkerBusy));
    }
    let mut states = Vec::new();
    for _ in 0..20 {
        pool.run(1, &[0.5], 0);
        states.push(pool.headroom.full().is_none());
    }
    assert_eq!(states.iter().filter(|open| **open).count(), 19, "{states:?}");
    // A load that swings around the limit closes once and stays closed.
    let mut changes = 0;
    let mut before = pool.headroom.full();
    for second in 0..60 {
        pool.run(1, &[if second % 4 < 2 { 0.95 } else { 0.78 }], 0);
        changes += usize::from(std::mem::replace(&mut before, pool.headroom.full()) != before);
    }
    assert_eq!(changes, 1);
}

#[test]
fn a_storm_between_two_ticks_stops_at_the_bandwidth() {
    let mut pool = Pool::new(2, 0.85, 1000);
    pool.run(10, &[0.05, 0.05], 0);
    // 90 % of 1 Gbit/s are 359 viewers of 2.5 Mbit/s and a part of one.
    assert_eq!(pool.join(1000, 2_500_000), 359);
    assert_eq!(pool.headroom.check(2_500_000), Err(Refusal::Egress));
    // Their media comes up while more ask every second: none too many gets in.
    for bps in [300 * MBIT, 800 * MBIT, 897 * MBIT, 897 * MBIT, 897 * MBIT, 897 * MBIT] {
        pool.run(1, &[0.2, 0.2], bps);
        pool.join(1000, 2_500_000);
        assert!(pool.viewers <= 360, "{}", pool.viewers);
    }
    assert_eq!(pool.headroom.full(), Some(Refusal::Egress));
    let said = pool.headroom.to_string();
    assert!(said.contains("of 1000.0 Mbit/s") && said.contains("90 % may be"), "{said}");
}

#[test]
fn a_storm_between_two_ticks_stops_at_the_workers() {
    let mut pool = Pool::new(2, 0.85, 0);
    // Nobody at first: so publishers are known to cost 0.2.
    pool.run(10, &[0.1, 0.1], 0);
    // Then 1000 viewers cost half a core in all.
    pool.viewers = 1000;
    pool.run(10, &[0.35, 0.35], 0);
    // There is room for 2000 of that cost.
    let admitted = pool.join(10_000, MBIT);
    assert!((1950..2050).contains(&admitted), "{admitted}");
    assert_eq!(pool.headroom.check(MBIT), Err(Refusal::WorkerBusy));
}

#[test]
fn a_thousand_joins_on_a_quiet_gateway_are_admitted() {
    let mut pool = Pool::new(1, 0.85, 10_000);
    pool.run(10, &[0.1], 0);
    pool.join(1, 2_500_000);
    pool.run(5, &[0.12], 3 * MBIT);
    assert_eq!(pool.join(1000, 2_500_000), 1000);
}

#[test]
fn joins_count_until_they_are_measured_and_no_longer() {
    let mut pool = Pool::new(1, 0.0, 1000);
    pool.run(10, &[0.0], 0);
    assert_eq!(pool.join(200, 2_500_000), 200);
    let used = |pool: &Pool| (1.0 - pool.headroom.ratio()) * 900.0;
    assert!((used(&pool) - 500.0).abs() < 1.0);
    for _ in 0..6 {
        pool.run(1, &[0.0], 500 * MBIT);
        assert!((499.0..670.0).contains(&used(&pool)), "{}", used(&pool));
    }
    assert!((used(&pool) - 500.0).abs() < 1.0, "{}", used(&pool));
    // Those who never came cost nothing in the end.
    assert_eq!(pool.join(100, 2_500_000), 100);
    pool.run(12, &[0.0], 500 * MBIT);
    assert!((used(&pool) - 500.0).abs() < 1.0, "{}", used(&pool));
}

#[test]
fn readiness_ends_where_viewers_are_refused() {
    // Room for twelve viewers, not for thirteen.
    let mut pool = Pool::new(1, 0.0, 10);
    pool.run(5, &[0.0], 0);
    assert_eq!(pool.join(20, 700_000), 12);
    pool.run(10, &[0.0], 12 * 700_000);
    assert_eq!(pool.headroom.full(), Some(Refusal::Egress));
    // Two leave: there is room again, once the slow mean has seen it.
    pool.viewers = 10;
    pool.run(12, &[0.0], 10 * 700_000);
    assert_eq!(pool.headroom.full(), None);
    assert_eq!(pool.join(20, 700_000), 2);
}

#[test]
fn a_viewer_too_large_for_the_gateway_does_not_close_it_for_good() {
    let mut pool = Pool::new(1, 0.0, 10);
    pool.run(5, &[0.0], MBIT);
    assert_eq!(pool.join(100, 50 * MBIT), 0);
    pool.run(5, &[0.0], MBIT);
    assert_eq!(pool.headroom.full(), None);
    assert_eq!(pool.join(1, MBIT), 1);
}

#[test]
fn readiness_waits_for_more_than_one_free_place() {
    let mut pool = Pool::new(1, 0.85, 0);
    let full = |pool: &mut Pool, viewers| {
        pool.viewers = viewers;
        pool.run(1, &[0.0], 0);
        assert_eq!(pool.headroom.check(MBIT), Ok(()), "the directory counts places");
        pool.headroom.full()
    };
    assert_eq!(full(&mut pool, 19_999), None);
    assert_eq!(full(&mut pool, 20_000), Some(Refusal::Viewers));
    assert_eq!(full(&mut pool, 19_700), Some(Refusal::Viewers));
    assert_eq!(full(&mut pool, 19_500), None);
    assert!((pool.headroom.ratio() - 0.025).abs() < 1e-9);
}

#[test]
fn one_busy_worker_is_passed_over_and_refuses_nobody() {
    let mut pool = Pool::new(3, 0.85, 0);
    pool.run(10, &[0.95, 0.2, 0.2], 0);
    assert_eq!(pool.headroom.check(MBIT), Ok(()));
    let expected = [WorkerState::Busy, WorkerState::Fit, WorkerState::Fit];
    assert_eq!(pool.headroom.states(), expected);
    pool.run(20, &[0.5, 0.2, 0.2], 0);
    assert_eq!(pool.headroom.states(), [WorkerState::Fit; 3]);
}

#[test]
fn without_limits_everybody_is_admitted() {
    let mut pool = Pool::new(1, 0.0, 0);
    pool.run(20, &[1.0], u64::from(u32::MAX));
    assert_eq!(pool.join(10_000, 100 * MBIT), 10_000);
    assert_eq!(pool.headroom.full(), None);
    assert_eq!(pool.headroom.ratio(), 1.0);
    assert_eq!(pool.headroom.states(), [WorkerState::Fit]);
}

#[test]
fn late_and_early_ticks_give_the_same_means() {
    let mut pool = Pool::new(1, 0.85, 0);
    for millis in [1000, 1900, 400, 5000, 100, 30, 2500, 900, 1000, 1000] {
        pool.run_for(Duration::from_millis(millis), &[0.6], 0);
    }
    let load = (1.0 - pool.headroom.ratio()) * 0.85;
    assert!((load - 0.6).abs() < 0.01, "{load}");
    for _ in 0..1000 {
        pool.run_for(Duration::from_millis(1), &[0.6], 0);
    }
    assert!(pool.headroom.readings.len() <= MAX_READINGS);
}
