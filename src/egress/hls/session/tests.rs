//! Sessions on a virtual clock: players of several kinds, on good paths and bad ones.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::playback::Span;
use super::*;
use crate::time::Utc;

/// The profiles: part and segment in milliseconds.
const BALANCED: (u64, u64) = (500, 2000);
const PROFILES: [(u64, u64); 3] = [BALANCED, (200, 1000), (1000, 4000)];

/// A table whose media is captured in real time, from 0 ms on.
struct World {
    sessions: Sessions,
    metrics: Metrics,
    table: TableName,
    base: Instant,
    part: u64,
    pace: Pace,
}

impl World {
    fn new(profile: (u64, u64)) -> Self {
        Self::with_max(profile, 100)
    }

    fn with_max((part, segment): (u64, u64), max: usize) -> Self {
        let (metrics, base) = (Metrics::new(), Instant::now());
        let pace = Pace { part: ms(part), segment: ms(segment) };
        let sessions = Sessions::new(base, &[7; 32], max, metrics.clone());
        Self { sessions, metrics, table: "demo".parse().unwrap(), base, part, pace }
    }

    fn at(&self, millis: u64) -> Instant {
        self.base + ms(millis)
    }

    fn pass(&self, at: u64, session: u64) -> String {
        self.sessions.issue(self.at(at), &self.table, session)
    }

    fn ask(&self, at: u64, pass: &str, begins: bool) -> Visit {
        let request = Request { table: &self.table, pass: Some(pass), begins };
        self.sessions.handle_request(self.at(at), request, self.pace)
    }

    fn done(&self, at: u64, visit: &Visit) {
        self.sessions.handle_done(self.at(at), visit);
    }

    /// A playlist that is answered at once.
    fn reload(&self, at: u64, pass: &str) {
        let visit = self.ask(at, pass, true);
        self.offer(at, &visit, at / self.part * self.part);
        self.done(at, &visit);
    }

    fn offer(&self, at: u64, visit: &Visit, edge: u64) {
        self.sessions.handle_offer(self.at(at), visit, Utc::from_micros(edge as i64 * 1000));
    }

    /// Media that was asked for at one time and taken at another.
    fn fetch(&self, asked: u64, taken: u64, pass: &str, media: (u64, u64)) -> Outcome {
        let visit = self.ask(asked, pass, false);
        let utc = |millis: u64| Utc::from_micros(millis as i64 * 1000);
        let span = Span { start: utc(media.0), end: utc(media.1) };
        let fetched = Fetched { rendition: 0, span, behind: ms(0) };
        let outcome =
            self.sessions.handle_media(self.at(taken), &visit, &fetched, ms(taken - asked));
        self.done(taken, &visit);
        outcome
    }

    fn expire(&self, at: u64) {
        self.sessions.poll_expired(self.at(at), |_| true);
    }

    fn viewers(&self) -> u64 {
        self.sessions.audience(&self.table).map_or(0, |a| a.viewers.load(Ordering::Relaxed))
    }

    /// Stalls, and the milliseconds that they lasted.
    fn stalls(&self) -> (u64, u64) {
        let audience = self.sessions.audience(&self.table).unwrap();
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (read(&audience.stalls), read(&audience.stalled_micros) / 1000)
    }

    fn assert_metric(&self, line: &str) {
        let text = self.metrics.render();
        assert!(text.lines().any(|l| l == line), "no `{line}` in\n{text}");
    }
}

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A low-latency player from `join` to `leave`: a playlist request is always held, parts
/// are fetched as they come and one after the other, each in the time that `transfer`
/// gives for the time it is. Returns when it fetched the last one, and which.
fn low_latency(
    world: &World,
    pass: &str,
    (join, leave): (u64, u64),
    available: impl Fn(u64) -> u64,
    mut transfer: impl FnMut(u64) -> u64,
) -> (u64, u64) {
    let mut held = world.ask(join, pass, true);
    let mut now = join;
    // PART-HOLD-BACK before the end of what there is.
    let mut part = join / world.part - 4;
    while now < leave {
        let asked = now.max(available(part));
        now = asked + transfer(asked);
        world.fetch(asked, now, pass, (part * world.part, (part + 1) * world.part));
        let next = world.ask(now, pass, true);
        world.offer(now, &held, now / world.part * world.part);
        world.done(now, &held);
        held = next;
        part += 1;
    }
    world.done(now, &held);
    (now, part - 1)
}

#[test]
fn a_steady_player_never_stalls_in_any_profile() {
    for profile in PROFILES {
        for seed in 0..20 {
            let world = World::new(profile);
            let mut random = StdRng::seed_from_u64(seed);
            let join = 20_000 + random.random_range(0..profile.1);
            let pass = world.pass(join, seed);
            // Parts come up to a third of their length late, and take as long to arrive.
            let late: Vec<u64> = (0..4096).map(|_| random.random_range(0..profile.0 / 3)).collect();
            let available = |part: u64| (part + 1) * profile.0 + late[part as usize % 4096];
            let third = profile.0 / 3;
            let (end, _) = low_latency(&world, &pass, (join, join + 1_800_000), available, |_| {
                random.random_range(5..third)
            });
            assert_eq!(world.stalls(), (0, 0), "{profile:?} {seed}");
            assert_eq!(world.viewers(), 1);
            world.expire(end + 60_000);
            assert_eq!(world.viewers(), 0);
        }
    }
}

/// Clocks of publisher and gateway differ by up to 200 ppm: media of two hours lacks
/// 1.4 s then, which no viewer notices.
#[test]
fn clocks_that_drift_are_no_stall() {
    let world = World::new(BALANCED);
    let pass = world.pass(20_000, 1);
    let available = |part: u64| (part + 1) * 500 + part * 500 / 5000;
    low_latency(&world, &pass, (20_000, 7_220_000), available, |_| 20);
    assert_eq!(world.stalls(), (0, 0));
}

#[test]
fn a_player_on_a_path_below_the_bitrate_stalls_again_and_again() {
    for profile in PROFILES {
        for percent in [110, 125, 200, 400] {
            let world = World::new(profile);
            let pass = world.pass(20_000, 1);
            let (end, last) = low_latency(
                &world,
                &pass,
                (20_000, 140_000),
                |part| (part + 1) * profile.0,
                |_| profile.0 * percent / 100,
            );
            let (stalls, stalled) = world.stalls();
            let (passed, played) = (end - 20_000, (last - 20_000 / profile.0 + 5) * profile.0);
            // All but what it may have had in store is found, less what is forgiven.
            let missed = (passed - played).saturating_sub(stalled);
            assert!(stalls >= 2, "{profile:?} {percent} %: {stalls}");
            assert!(stalled <= passed - played, "{profile:?} {percent} %: {stalled}");
            let bound = profile.0 * 6 * percent / 100 + passed / 50;
            assert!(missed <= bound, "{profile:?} {percent} %: {missed} > {bound}");
        }
    }
}

#[test]
fn a_path_that_breaks_down_for_a_while_is_one_stall() {
    let world = World::new(BALANCED);
    let pass = world.pass(20_000, 1);
    let outage = |now: u64| if (60_000..60_600).contains(&now) { 6000 } else { 50 };
    low_latency(&world, &pass, (20_000, 120_000), |part| (part + 1) * 500, outage);
    let (stalls, stalled) = world.stalls();
    assert_eq!(stalls, 1);
    // Six seconds less what was in store.
    assert!((3500..6000).contains(&stalled), "{stalled}");
}

/// A player that knows no parts: it asks for a playlist every TARGETDURATION, or half of
/// it when nothing was new, and nothing is open in between.
fn legacy(world: &World, pass: &str, (join, leave): (u64, u64), transfer: impl Fn(u64) -> u64) {
    let segment = world.pace.segment.as_millis() as u64;
    let mut now = join;
    let mut next = join / segment - 3;
    while now < leave {
        world.reload(now, pass);
        let (newest, before) = (now / segment, next);
        while next < newest {
            let taken = now + transfer(now);
            world.fetch(now, taken, pass, (next * segment, (next + 1) * segment));
            (now, next) = (taken, next + 1);
        }
        now += if next > before { segment } else { segment / 2 };
        world.expire(now);
    }
}

#[test]
fn a_player_without_parts_is_one_viewer_that_does_not_stall() {
    for profile in PROFILES {
        for join in 0..20 {
            let world = World::new(profile);
            let pass = world.pass(0, 1);
            let join = 40_000 + join * profile.1 / 20;
            legacy(&world, &pass, (join, join + 600_000), |_| 150);
            assert_eq!((world.viewers(), world.stalls()), (1, (0, 0)), "{profile:?} {join}");
            world.assert_metric(
                "railbird_sessions_started_total{kind=\"viewer\",transport=\"llhls\"} 1",
            );
        }
    }
}

#[test]
fn a_player_without_parts_stalls_on_a_path_below_the_bitrate() {
    let world = World::new(BALANCED);
    let pass = world.pass(0, 1);
    legacy(&world, &pass, (40_000, 160_000), |_| 2600);
    let (stalls, stalled) = world.stalls();
    assert!(stalls >= 10 && stalled > 20_000, "{stalls} {stalled}");
}

#[test]
fn a_pause_is_an_end_by_idle_and_no_stall() {
    let world = World::new(BALANCED);
    let pass = world.pass(20_000, 1);
    let steady = |from, to| low_latency(&world, &pass, (from, to), |part| (part + 1) * 500, |_| 20);
    let (paused, _) = steady(20_000, 40_000);
    world.expire(paused + 6500);
    assert_eq!(world.viewers(), 1);
    world.expire(paused + 6501);
    assert_eq!(world.viewers(), 0);
    world.assert_metric(
        "railbird_sessions_ended_total{kind=\"viewer\",reason=\"idle\",transport=\"llhls\"} 1",
    );
    // It comes back with the same pass: a session anew.
    steady(100_000, 120_000);
    assert_eq!((world.viewers(), world.stalls()), (1, (0, 0)));
    world.assert_metric("railbird_sessions_started_total{kind=\"viewer\",transport=\"llhls\"} 2");
}

#[test]
fn a_pause_that_is_too_short_for_an_end_is_no_stall_either() {
    let world = World::new(BALANCED);
    let pass = world.pass(20_000, 1);
    let (now, part) = low_latency(&world, &pass, (20_000, 40_000), |part| (part + 1) * 500, |_| 20);
    // Nothing for five seconds, then on from where it was.
    let mut now = now + 5000;
    world.reload(now, &pass);
    for part in part + 1..part + 40 {
        now = now.max((part + 1) * 500) + 20;
        world.fetch(now - 20, now, &pass, (part * 500, (part + 1) * 500));
        world.reload(now, &pass);
    }
    assert_eq!((world.viewers(), world.stalls()), (1, (0, 0)));
}

/// As hls.js does, whose playlist requests go on: each is answered with a new part.
#[test]
fn a_pause_during_which_playlists_are_reloaded_is_no_stall() {
    for profile in PROFILES {
        for minutes in [1, 10] {
            let (part, world) = (profile.0, World::new(profile));
            let pass = world.pass(20_000, 1);
            let steady =
                |from, to| low_latency(&world, &pass, (from, to), |n| (n + 1) * part, |_| 20);
            let (paused, last) = steady(20_000, 40_000);
            let mut held = world.ask(paused, &pass, true);
            let mut now = paused;
            while now < paused + minutes * 60_000 {
                now = (now / part + 1) * part + 5;
                world.offer(now, &held, now / part * part);
                let next = world.ask(now, &pass, true);
                world.done(now, &held);
                held = next;
                world.expire(now);
            }
            world.done(now, &held);
            // On from where it was, and then at the live edge.
            world.fetch(now, now + 20, &pass, ((last + 1) * part, (last + 2) * part));
            steady(now + 20, now + 20_000);
            assert_eq!((world.viewers(), world.stalls()), (1, (0, 0)), "{profile:?} {minutes}");
        }
    }
}

/// It asks for nothing because there is nothing, which is no pause.
#[test]
fn playlists_without_anything_new_do_not_excuse_a_stall() {
    let world = World::new(BALANCED);
    let pass = world.pass(20_000, 1);
    let (now, last) = low_latency(&world, &pass, (20_000, 40_000), |part| (part + 1) * 500, |_| 20);
    let edge = (last + 1) * 500;
    for reload in 1..20 {
        let visit = world.ask(now + reload * 500, &pass, true);
        world.offer(now + reload * 500, &visit, edge);
        world.done(now + reload * 500, &visit);
    }
    let back = now + 10_000;
    let outcome = world.fetch(back, back + 20, &pass, (back / 500 * 500, back / 500 * 500 + 500));
    assert!(outcome.stalled.is_some_and(|stalled| stalled > ms(7000)), "{outcome:?}");
}

#[test]
fn seeking_back_and_to_the_live_edge_again_is_no_stall() {
    let world = World::new(BALANCED);
    let pass = world.pass(20_000, 1);
    let steady = |from, to| low_latency(&world, &pass, (from, to), |part| (part + 1) * 500, |_| 20);
    let (mut now, _) = steady(40_000, 60_000);
    // Ten seconds from twenty back, whole segments, fetched ahead of playing.
    let mut played = now;
    for segment in 0..5 {
        let start = 40_000 + segment * 2000;
        world.fetch(now, now + 300, &pass, (start, start + 2000));
        now = (now + 300).max(played);
        played += 2000;
        world.reload(now, &pass);
    }
    steady(now, now + 20_000);
    assert_eq!((world.viewers(), world.stalls()), (1, (0, 0)));
}

#[test]
fn a_source_that_stands_still_stalls_its_viewers() {
    let world = World::new(BALANCED);
    let pass = world.pass(20_000, 1);
    // Nothing is captured for eight seconds; the timeline jumps over them.
    let visits = |from, to| low_latency(&world, &pass, (from, to), |part| (part + 1) * 500, |_| 20);
    let (paused, _) = visits(20_000, 40_000);
    let held = world.ask(paused, &pass, true);
    world.expire(paused + 8000);
    world.done(paused + 8000, &held);
    let resumed = paused + 8000;
    let first = resumed / 500 * 500;
    let outcome = world.fetch(resumed, resumed + 20, &pass, (first - 500, first));
    let stalled = outcome.stalled.expect("a stall");
    assert!((ms(5500)..ms(8000)).contains(&stalled), "{stalled:?}");
    assert_eq!(world.viewers(), 1);
}

#[test]
fn two_tabs_are_two_viewers() {
    let world = World::new(BALANCED);
    for tab in [1, 2] {
        let pass = world.pass(1000, tab);
        world.reload(1010, &pass);
        // Picture and sound of one tab are one viewer.
        world.reload(1020, &pass);
    }
    assert_eq!(world.viewers(), 2);
}

#[test]
fn who_has_a_request_held_is_there() {
    let world = World::new(BALANCED);
    let pass = world.pass(0, 1);
    let held = world.ask(0, &pass, true);
    world.expire(3_600_000);
    assert_eq!(world.viewers(), 1);
    world.done(3_600_000, &held);
    world.expire(3_600_000 + 6500);
    assert_eq!(world.viewers(), 1);
    world.sessions.poll_expired(world.at(3_600_000 + 6501), |_| false);
    assert_eq!(world.viewers(), 0);
    let ended = "railbird_sessions_ended_total{kind=\"viewer\",reason=\"stream_ended\",transport=\"llhls\"} 1";
    world.assert_metric(ended);
    assert!(world.sessions.audience(&world.table).is_some(), "a request still has it");
    drop(held);
    world.sessions.poll_expired(world.at(3_700_000), |_| false);
    assert!(world.sessions.audience(&world.table).is_none());
}

#[test]
fn the_first_frame_counts_from_the_multivariant_playlist() {
    let world = World::new(BALANCED);
    let pass = world.pass(1000, 1);
    world.reload(1200, &pass);
    assert_eq!(world.fetch(1210, 1400, &pass, (0, 500)).first_frame, Some(ms(400)));
    assert_eq!(world.fetch(1500, 1510, &pass, (500, 1000)).first_frame, None);
    // A pass that was kept for a while says nothing about the start.
    let kept = world.pass(1000, 2);
    world.reload(60_000, &kept);
    assert_eq!(world.fetch(60_010, 60_100, &kept, (58_000, 60_000)).first_frame, Some(ms(100)));
    world.assert_metric("railbird_time_to_first_frame_seconds_count{transport=\"llhls\"} 2");
}

#[test]
fn switches_between_renditions_are_noticed() {
    let world = World::new(BALANCED);
    let pass = world.pass(0, 1);
    let visit = world.ask(0, &pass, true);
    let fetch = |at: u64, rendition| {
        let utc = |millis: u64| Utc::from_micros(millis as i64 * 1000);
        let span = Span { start: utc(at), end: utc(at + 500) };
        let fetched = Fetched { rendition, span, behind: ms(0) };
        world.sessions.handle_media(world.at(at + 500), &visit, &fetched, ms(10)).switched
    };
    let switches = [fetch(0, 1), fetch(500, 1), fetch(1000, 0), fetch(1500, 2)];
    assert_eq!(switches, [None, None, Some((1, 0)), Some((0, 2))]);
}

#[test]
fn whoever_is_not_accounted_for_is_counted_by_why() {
    let world = World::with_max(BALANCED, 1);
    let (first, second) = (world.pass(0, 1), world.pass(0, 2));
    // Passes alone fill nothing, and neither does media without a playlist.
    world.fetch(10, 20, &first, (0, 500));
    assert!(!world.ask(30, "video0-0", true).is_accounted());
    assert!(!world.ask(30, &first.replace(|c: char| c != '.', "s"), true).is_accounted());
    world.reload(40, &first);
    assert!(!world.ask(50, &second, true).is_accounted());
    let none = Request { table: &world.table, pass: None, begins: true };
    assert!(!world.sessions.handle_request(world.at(60), none, world.pace).is_accounted());
    let counts = [("no_pass", 1), ("invalid_pass", 2), ("not_begun", 1), ("full", 1)];
    assert_eq!(world.sessions.unaccounted(), counts);
    assert_eq!(world.viewers(), 1);
    // The place is free again when its viewer has gone.
    world.expire(10_000);
    world.reload(10_010, &second);
    assert_eq!(world.viewers(), 1);
}

/// Requests that come at once from many threads leave the counts right.
#[test]
fn counts_hold_under_concurrency() {
    let world = World::with_max(BALANCED, 1000);
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let world = &world;
            scope.spawn(move || {
                for viewer in 0..400 {
                    // Each viewer is asked for by two threads.
                    let pass = world.pass(0, thread / 2 * 400 + viewer);
                    world.reload(viewer, &pass);
                    world.fetch(viewer, viewer + 10, &pass, (0, 500));
                }
            });
        }
    });
    assert_eq!(world.viewers(), 800);
    world.expire(60_000);
    assert_eq!((world.viewers(), world.sessions.count.load(Ordering::Relaxed)), (0, 0));
}

#[test]
fn a_session_is_small() {
    assert_eq!(size_of::<(u64, Session)>(), 176, "docs/ll-hls.md says so");
}

/// `cargo test --lib hls::session -- --ignored --nocapture`
#[test]
#[ignore = "a measurement"]
fn cost_of_a_request() {
    const VIEWERS: u64 = 20_000;
    let world = World::with_max(BALANCED, VIEWERS as usize);
    let passes: Vec<_> = (0..VIEWERS).map(|_| world.pass(0, rand::random())).collect();
    let timed = |what: &str, each: &dyn Fn(&str)| {
        let begun = Instant::now();
        passes.iter().for_each(|pass| each(pass));
        eprintln!("{what}: {} ns", begun.elapsed().as_nanos() as u64 / VIEWERS);
    };
    timed("first playlist", &|pass| world.reload(10, pass));
    timed("playlist", &|pass| world.reload(20, pass));
    timed("part", &|pass| _ = world.fetch(20, 30, pass, (0, 500)));
    timed("verify alone", &|pass| _ = world.sessions.passes.verify(&world.table, pass));
    timed("issue", &|_| _ = world.pass(0, 7));
    let begun = Instant::now();
    world.expire(1000);
    eprintln!(
        "sweep: {} us; {} bytes each",
        begun.elapsed().as_micros(),
        size_of::<(u64, Session)>()
    );
}
