//! Simulcast on a bad day: everything that can happen to a timeline, for half an hour of
//! stream time, with every version of every playlist held against the rules; and many
//! shorter days, for what must hold on all of them.

use std::collections::BTreeMap;

use super::parser::Playlist;
use super::rules;
use super::sim::{Sim, Weather};

const FAIR: Weather = Weather { loss: 0, jitter: 15, response: (60, 140) };
const FOUL: Weather = Weather { loss: 700, jitter: 45, response: (60, 200) };

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
    let mut go = |sim: &mut Sim, checker: &mut Checker, until: u64| {
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

    let skews = checker.skews();
    let near = skews.iter().filter(|skew| **skew <= 35).count();
    eprintln!(
        "{} versions, {} pairs ({near} near, {:?} worst), {} unaligned, {} gaps, {} dropped, part {} ms, segment {} ms",
        checker.versions,
        skews.len(),
        skews.iter().max(),
        checker.unaligned(),
        sim.rig.segmenter.gaps(),
        sim.rig.segmenter.dropped(),
        checker.slowest_part / 1000,
        checker.slowest_segment / 1000,
    );
    for index in 0..4 {
        eprintln!(
            "gaps of {index}: 5 s: {}, 40 s: {}, 30 s: {}, sound: {} {}, pictures {}",
            checker.gaps(index, 399.0, 410.0),
            checker.gaps(index, 599.0, 645.0),
            checker.gaps(index, 199.0, 235.0),
            checker.gaps(index, 999.0, 1010.0),
            checker.gaps(index, 1019.0, 1030.0),
            checker.gaps(index, 1499.0 - 3600.0, 1530.0 - 3600.0)
        );
    }
}
