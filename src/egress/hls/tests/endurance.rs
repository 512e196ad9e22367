//! Simulcast on a bad day: everything that can happen to a timeline, for half an hour of
//! stream time, with every version of every playlist held against the rules; and many
//! shorter days, for what must hold on all of them.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::fixture::{AUDIO, Feed, h264, opus};
use super::parser::Playlist;
use super::rules;
use super::sim::{Sim, Weather};

const CALM: Weather = Weather { loss: 0, jitter: 0, response: (100, 100), together: true };
const FAIR: Weather = Weather { loss: 0, jitter: 15, response: (60, 140), together: true };
const FOUL: Weather = Weather { loss: 700, jitter: 45, response: (60, 200), together: false };

/// What is known of the segments of one rendition, by number.
type Known = BTreeMap<u64, Seen>;

#[derive(Clone, Copy)]
struct Seen {
    millis: i64,
    gap: bool,
    independent: bool,
    length: f64,
}

/// Checks versions as they come, so that not all have to be kept.
struct Checker {
    known: Vec<Known>,
    /// When each rendition had its newest part and its newest segment.
    newest: Vec<Option<(u64, u64, usize)>>,
    slowest_part: u64,
    slowest_segment: u64,
    versions: usize,
}

impl Checker {
    fn new(renditions: usize) -> Self {
        Self {
            known: vec![Known::new(); renditions],
            newest: vec![None; renditions],
            slowest_part: 0,
            slowest_segment: 0,
            versions: 0,
        }
    }

    /// Looks at the versions of the newest step. P9 is told from the clock.
    fn step(&mut self, sim: &mut Sim) {
        for index in 0..self.known.len() {
            let versions = &sim.rig.playlists[index];
            let Some((before, segment_at, count)) = self.newest[index] else {
                self.newest[index] =
                    (!versions.is_empty()).then_some((sim.now, sim.now, versions.len()));
                continue;
            };
            if versions.len() == count {
                self.slowest_part = self.slowest_part.max(sim.now - before);
                self.slowest_segment = self.slowest_segment.max(sim.now - segment_at);
                continue;
            }
            let complete = |playlist: &Playlist| playlist.complete().last().map(|s| s.msn);
            let old = count.checked_sub(1).and_then(|at| complete(&versions[at]));
            let is_new = versions.last().and_then(complete) > old;
            let segment_at = if is_new { sim.now } else { segment_at };
            self.newest[index] = Some((sim.now, segment_at, versions.len()));
        }
        if sim.rig.playlists.iter().map(Vec::len).sum::<usize>() > 2000 {
            self.check(sim);
        }
    }

    /// Holds the versions against the rules, and keeps only the newest.
    fn check(&mut self, sim: &mut Sim) {
        let history = &sim.rig.playlists;
        self.versions += history.iter().map(Vec::len).sum::<usize>();
        rules::p1_parts_are_no_longer_than_part_target(history);
        rules::p2_parts_fill_part_target(history);
        rules::p3_p4_hold_backs(history);
        rules::p5_targets_are_constant_and_kept(history);
        rules::p6_sequences_never_decrease(history);
        rules::p7_enough_is_listed(history);
        rules::p8_old_parts_are_unlisted(history);
        rules::p12_dates_are_consistent(history);
        rules::p13_rendition_reports(history);
        rules::p14_the_hint_is_the_next_part(history);
        rules::p15_version(history);
        rules::p17_gaps(history);
        rules::p18_breaks_are_everywhere(history);
        rules::p20_the_end(history);
        for (known, versions) in self.known.iter_mut().zip(history) {
            for segment in versions.iter().flat_map(|playlist| &playlist.segments) {
                let Some(first) = segment.parts.first() else { continue };
                known.insert(
                    segment.msn,
                    Seen {
                        millis: segment.millis(),
                        gap: segment.gap,
                        independent: first.independent,
                        length: segment.length(),
                    },
                );
            }
        }
        for (versions, newest) in sim.rig.playlists.iter_mut().zip(&mut self.newest) {
            let last = versions.pop();
            versions.clear();
            versions.extend(last);
            if let Some((_, _, count)) = newest {
                *count = versions.len();
            }
        }
    }

    /// Segments with media that do not begin with a random access point (P11).
    fn unaligned(&self) -> u64 {
        let all = self.known.iter().flat_map(BTreeMap::values);
        all.filter(|segment| !segment.gap && !segment.independent).count() as u64
    }

    /// Seconds of gaps of a rendition that begin between two times, in seconds.
    fn gaps(&self, index: usize, from: f64, to: f64) -> f64 {
        let start = super::fixture::START.millis();
        let between = |seen: &&Seen| {
            let at = (seen.millis - start) as f64 / 1000.0;
            seen.gap && (from..to).contains(&at)
        };
        self.known[index].values().filter(between).map(|seen| seen.length).sum()
    }

    /// How far the segments of one number begin from each other, with media, in
    /// milliseconds, for all numbers and pairs of renditions.
    fn skews(&self) -> Vec<i64> {
        let mut skews = Vec::new();
        for (index, known) in self.known.iter().enumerate() {
            for other in &self.known[index + 1..] {
                for (number, one) in known.iter().filter(|(_, one)| !one.gap) {
                    if let Some(two) = other.get(number).filter(|two| !two.gap) {
                        skews.push((one.millis - two.millis).abs());
                    }
                }
            }
        }
        skews
    }
}

/// A stream of half an hour; the comments say when, in seconds.
#[test]
fn p1_to_p20_hold_for_half_an_hour_of_everything_that_can_happen() {
    let mut sim = Sim::new(20_231_114, 3, FAIR);
    let mut checker = Checker::new(4);
    let go = |sim: &mut Sim, checker: &mut Checker, until: u64| {
        sim.until(until, |sim| checker.step(sim));
    };
    sim.lines[2].on = false;
    go(&mut sim, &mut checker, 95_000);
    sim.lines[2].on = true; // The lowest layer comes late.
    go(&mut sim, &mut checker, 200_000);
    sim.lines[0].on = false; // The best layer, which leads, is shed for 30 s…
    go(&mut sim, &mut checker, 230_000);
    sim.lines[0].on = true;
    go(&mut sim, &mut checker, 300_000);
    sim.lines[1].on = false; // …and another for 2 s.
    go(&mut sim, &mut checker, 302_000);
    sim.lines[1].on = true;
    go(&mut sim, &mut checker, 400_000);
    for (from, to) in [(400_000, 405_000), (600_000, 640_000)] {
        go(&mut sim, &mut checker, from); // Outages of 5 s and of 40 s.
        sim.lines.iter_mut().for_each(|line| line.on = false);
        go(&mut sim, &mut checker, to);
        sim.lines.iter_mut().for_each(|line| line.on = true);
    }
    sim.weather = FOUL;
    go(&mut sim, &mut checker, 800_000);
    sim.lines.iter_mut().for_each(|line| line.changed = true); // Another resolution.
    go(&mut sim, &mut checker, 900_000);
    sim.lines[1].changed = false; // Another resolution of one layer.
    go(&mut sim, &mut checker, 1_000_000);
    for (from, to) in [(1_000_000, 1_001_500), (1_020_000, 1_026_000)] {
        go(&mut sim, &mut checker, from); // Holes in the sound.
        sim.lines[3].on = false;
        go(&mut sim, &mut checker, to);
        sim.lines[3].on = true;
    }
    go(&mut sim, &mut checker, 1_200_000);
    // The source's clock is set: the reports of its streams say so one after the other.
    for (index, at) in [(0, 1_201_000), (1, 1_202_500), (3, 1_204_000), (2, 1_205_000)] {
        sim.lines[index].capture_offset -= 3_600_000_000;
        go(&mut sim, &mut checker, at);
    }
    go(&mut sim, &mut checker, 1_300_000);
    sim.lines[1].ticks_offset += 900_000_000; // One layer counts its ticks anew.
    go(&mut sim, &mut checker, 1_400_000);
    sim.lines[1].slow_answers = 700; // Keyframes of one layer are late.
    go(&mut sim, &mut checker, 1_440_000);
    sim.lines[1].slow_answers = 0;
    go(&mut sim, &mut checker, 1_500_000);
    sim.lines[..3].iter_mut().for_each(|line| line.on = false); // No picture for 20 s.
    go(&mut sim, &mut checker, 1_520_000);
    sim.lines[..3].iter_mut().for_each(|line| line.on = true);
    go(&mut sim, &mut checker, 1_800_000);
    sim.rig.finish();
    checker.check(&mut sim);

    assert_alignment(&checker);
    assert_eq!(checker.unaligned(), sim.rig.segmenter.counts().unaligned);
    assert!(checker.unaligned() <= 10, "{}", checker.unaligned());
    assert!(checker.versions > 15_000);
    // P9: a part each PART-TARGET, and the bound of lateness when one has to be waited for.
    assert!(checker.slowest_part <= 700_000, "{}", checker.slowest_part);
    assert!(checker.slowest_segment <= 3_000_000, "{}", checker.slowest_segment);
    // P17: what was missing everywhere is gaps everywhere, within a part; what one
    // rendition missed, up to the boundaries around.
    for index in 0..4 {
        for (from, missing) in [(400.0, 5.0), (600.0, 40.0)] {
            let gaps = checker.gaps(index, from - 0.5, from + missing + 5.0);
            assert!((gaps - missing).abs() <= 0.5, "{index}: {gaps} of {missing}");
        }
    }
    assert!((28.0..=32.0).contains(&checker.gaps(0, 199.0, 235.0)));
    assert!(checker.gaps(1, 199.0, 235.0) + checker.gaps(3, 199.0, 235.0) == 0.0);
    assert!((4.0..=8.0).contains(&checker.gaps(3, 1019.0, 1030.0)));
    assert!((18.0..=22.0).contains(&checker.gaps(0, 1499.0 - 3600.0, 1530.0 - 3600.0)));
}

/// The same number is the same time in all renditions: mostly within a frame, nearly
/// always within the time that a source takes to answer, and never a segment apart.
fn assert_alignment(checker: &Checker) {
    let mut skews = checker.skews();
    skews.sort_unstable();
    let percentile = |percent: usize| skews[(skews.len() - 1) * percent / 100];
    assert!(percentile(50) <= 34 && percentile(95) <= 300, "{:?}", [50, 95].map(percentile));
    assert!(percentile(100) <= 1_000, "{}", percentile(100));
}

#[test]
fn p18_a_source_that_returns_with_another_resolution_is_back_at_once() {
    let mut sim = Sim::new(3, 2, FAIR);
    let mut checker = Checker::new(3);
    sim.until(10_000, |sim| checker.step(sim));
    sim.lines.iter_mut().for_each(|line| line.on = false);
    sim.until(15_300, |sim| checker.step(sim));
    sim.lines.iter_mut().for_each(|line| (line.on, line.changed) = (true, true));
    sim.until(25_000, |sim| checker.step(sim));
    checker.check(&mut sim);
    for index in 0..3 {
        let gaps = checker.gaps(index, 9.0, 25.0);
        assert!((4.8..=5.8).contains(&gaps), "{index}: {gaps}");
        let breaks = sim.rig.newest(index).segments.iter().map(|s| s.discontinuities).sum::<u64>();
        assert_eq!(breaks, 1, "{index}");
    }
    assert_alignment(&checker);
}

#[test]
fn layers_not_seen_yet_and_late_ones_delay_nobody() {
    let mut sim = Sim::new(4, 3, CALM);
    let mut checker = Checker::new(4);
    sim.lines[0].on = false;
    sim.lines[2].on = false;
    sim.until(1_100, |sim| checker.step(sim));
    for index in [1, 3] {
        assert!(sim.rig.newest(index).complete().count() >= 1, "{index} is there");
    }
    sim.lines[0].on = true;
    sim.until(5_000, |sim| checker.step(sim));
    sim.lines[1].on = false;
    sim.lines[2].on = true;
    sim.until(20_000, |sim| checker.step(sim));
    checker.check(&mut sim);
    // The best layer leads, the one that led is gaps, and all have the same numbers.
    let newest = [0, 1, 2, 3].map(|index| sim.rig.newest(index).segments.last().unwrap().msn);
    assert!(newest.iter().all(|msn| msn.abs_diff(newest[0]) <= 1), "{newest:?}");
    assert!((12.0..=16.0).contains(&checker.gaps(1, 4.0, 20.0)));
    assert_eq!(checker.gaps(0, 0.0, 20.0) + checker.gaps(2, 0.0, 20.0), 0.0);
    assert_alignment(&checker);
}

#[test]
fn a_source_that_only_stands_still_is_not_an_outage() {
    let mut sim = Sim::new(5, 1, CALM);
    sim.until(6_000, |_| ());
    // Like a shared screen: no frames while nothing moves, but an answer when asked.
    sim.lines[0].interval = 1_000_000;
    sim.lines[0].still = true;
    sim.until(20_000, |_| ());
    sim.lines[0].interval = 33_333;
    sim.until(30_000, |_| ());
    let newest = sim.rig.newest(0);
    assert!(newest.segments.iter().all(|segment| !segment.gap), "{newest:?}");
    let mut checker = Checker::new(2);
    checker.check(&mut sim);
}

/// What a source of one layer and sound makes of `millis`: lengths of its complete
/// segments, and how many keyframes were asked for.
fn lengths(mut sim: Sim, millis: u64) -> (Vec<f64>, u64, Sim) {
    sim.until(millis, |_| ());
    let newest = sim.rig.newest(0);
    let lengths = newest.complete().map(|segment| segment.length()).collect();
    (lengths, sim.asked[0], sim)
}

#[test]
fn segments_have_the_target_length_where_the_source_answers() {
    for (response, most) in [((20, 20), 35), ((100, 100), 35), ((400, 400), 35), ((60, 180), 75)] {
        let weather = Weather { response, ..CALM };
        let (lengths, asked, sim) = lengths(Sim::new(1, 1, weather), 40_000);
        assert!(lengths.len() > 12 && sim.rig.segmenter.counts().unaligned == 0);
        for length in &lengths[1..] {
            assert!((length - 2.0).abs() * 1000.0 <= f64::from(most), "{response:?} {lengths:?}");
        }
        assert!(asked <= 22, "once for each boundary: {asked}");
    }
}

#[test]
fn encoders_with_a_fixed_gop_are_cut_at_their_keyframes() {
    let gops = [(15, 2.0), (30, 2.0), (45, 1.5), (57, 1.9), (60, 2.0), (72, 2.4)];
    for (frames, expected) in gops {
        let mut sim = Sim::new(1, 1, CALM);
        sim.lines[0].gop = Some(frames);
        let (lengths, asked, sim) = lengths(sim, 60_000);
        assert!(lengths.iter().all(|length| (length - expected).abs() < 0.04), "{lengths:?}");
        assert_eq!(sim.rig.segmenter.counts().unaligned, 0);
        assert!(asked <= 12, "it is left alone once it is known: {asked} for {frames}");
    }
}

#[test]
fn a_gop_longer_than_a_segment_can_be_costs_alignment_and_nothing_else() {
    let mut sim = Sim::new(1, 1, CALM);
    sim.lines[0].gop = Some(90);
    let (lengths, _, mut sim) = lengths(sim, 60_000);
    assert!(lengths.iter().all(|length| length.round() <= 2.0), "{lengths:?}");
    let mut checker = Checker::new(2);
    checker.check(&mut sim);
    let all = sim.rig.segmenter.counts().unaligned;
    // Every other segment begins with the keyframe.
    assert!((15..=21).contains(&all), "{all}");
}

/// One thing that happens to a source.
fn happen(sim: &mut Sim, random: &mut StdRng) {
    let all = sim.lines.len();
    let index = random.random_range(0..all);
    match random.random_range(0..10) {
        0 | 1 => sim.lines[index].on ^= true,
        2 => sim.lines.iter_mut().for_each(|line| line.on = false),
        3 | 4 => sim.lines.iter_mut().for_each(|line| line.on = true),
        5 => sim.lines[index].changed ^= true,
        6 => sim.lines.iter_mut().for_each(|line| line.changed ^= true),
        7 => sim.lines[index].ticks_offset += random.random_range(0..1 << 40),
        8 => {
            let by = random.random_range(-8_000_000_000..8_000_000_000);
            sim.lines.iter_mut().for_each(|line| line.capture_offset += by);
        }
        _ => {
            sim.lines[index].interval = [20_000, 33_333, 66_667, 400_000][random.random_range(0..4)]
        }
    }
}

#[test]
fn the_same_number_is_the_same_time_whatever_happens() {
    let mut pairs = Vec::new();
    for seed in 0..40 {
        let mut random = StdRng::seed_from_u64(seed);
        let layers = random.random_range(1..=3);
        let weather = [CALM, FAIR, FOUL][random.random_range(0..3)];
        let mut sim = Sim::new(seed, layers, weather);
        let mut checker = Checker::new(sim.lines.len());
        let mut at = 0;
        while at < 60_000 {
            at += random.random_range(300..6_000);
            sim.until(at, |sim| checker.step(sim));
            happen(&mut sim, &mut random);
        }
        sim.rig.finish();
        checker.check(&mut sim);
        assert!(checker.slowest_part <= 1_300_000, "seed {seed}: {}", checker.slowest_part);
        assert!(checker.slowest_segment <= 3_000_000, "seed {seed}: {}", checker.slowest_segment);
        let worst = checker.skews().into_iter().max().unwrap_or(0);
        assert!(worst <= 1_500, "seed {seed}: {worst}");
        pairs.extend(checker.skews());
    }
    pairs.sort_unstable();
    let percentile = |percent: usize| pairs[(pairs.len() - 1) * percent / 100];
    assert!(pairs.len() > 500);
    assert!(percentile(50) <= 34 && percentile(95) <= 250, "{:?}", [50, 95].map(percentile));
}

#[test]
fn timestamps_of_an_enemy_neither_break_the_rules_nor_make_time_run_away() {
    for seed in 0..20 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut sim = Sim::new(seed, 2, CALM);
        sim.until(3_000, |_| ());
        let feed = Feed::new();
        for n in 0..3_000 {
            let line = &mut sim.lines[n % 3];
            let (wild, step) = (random.random(), random.random_range(0..900_000));
            match random.random_range(0..40) {
                0 => line.ticks_offset = wild,
                1 => line.capture_offset = wild as i64,
                _ => line.ticks_offset = line.ticks_offset.wrapping_add(step),
            }
            let keyframe = random.random_range(0..3) == 0;
            let data = match line.id {
                AUDIO => opus()[n % 50].clone(),
                _ => h264()[usize::from(!keyframe)].0.clone(),
            };
            let mut frame = feed.frame(data, keyframe, line.ticks_offset, 0);
            frame.pts = frame.dts.wrapping_add(wild >> 20);
            frame.capture = frame.capture.offset_micros(line.capture_offset);
            sim.now += 5_000;
            sim.push_now(n % 3, frame);
        }
        sim.rig.finish();
        let newest = sim.rig.newest(0).segments.last().unwrap().msn;
        assert!(newest < 120, "seed {seed}: {newest} segments in 18 seconds");
        let mut checker = Checker::new(3);
        checker.check(&mut sim);
    }
}
