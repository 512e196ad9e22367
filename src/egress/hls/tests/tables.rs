//! What the segmenter promises, kept by whole tables over several publications: the same
//! numbers at the same time in all renditions, whoever comes and goes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::fixture::START;
use super::parser::Playlist;
use super::rules;
use super::sim::{Sim, Sink, Weather};
use crate::egress::hls::live::Published;
use crate::egress::hls::segmenter::RenditionSource;
use crate::egress::hls::store::Numbers;
use crate::egress::hls::table::{Plan, Table};
use crate::egress::hls::{HlsSettings, HlsStats};
use crate::media::{Frame, LayerId};

/// A table with every version of its playlists.
struct Tables {
    table: Table,
    sources: Vec<RenditionSource>,
    newest: Vec<Arc<Published>>,
    history: Vec<Vec<Playlist>>,
}

impl Tables {
    fn new(sources: &[RenditionSource]) -> Self {
        let plan = Plan {
            table: "demo".parse().unwrap(),
            token: "t".to_owned(),
            renditions: sources.to_vec(),
            numbers: Numbers::default(),
        };
        let stats = Arc::new(HlsStats::default());
        let table = Table::new(&HlsSettings::default(), plan, stats).unwrap();
        let renditions = table.live().renditions.iter();
        let newest = renditions.map(|rendition| rendition.published.borrow().clone()).collect();
        let history = vec![Vec::new(); sources.len()];
        Self { table, sources: sources.to_vec(), newest, history }
    }

    fn record(&mut self) {
        for (index, rendition) in self.table.live().renditions.iter().enumerate() {
            let published = rendition.published.borrow().clone();
            if !Arc::ptr_eq(&published, &self.newest[index]) {
                let text = std::str::from_utf8(&published.playlist.full.plain).unwrap();
                self.history[index].push(Playlist::parse(text));
                self.newest[index] = published;
            }
        }
    }
}

impl Sink for Tables {
    fn push(&mut self, layer: LayerId, frame: &Frame) {
        self.table.handle_frame(layer, frame, false);
        self.record();
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.table.poll_timeout()
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.table.handle_timeout(now);
        self.record();
    }

    fn take_requests(&mut self) -> Vec<LayerId> {
        std::iter::from_fn(|| self.table.poll_keyframe_request()).collect()
    }
}

/// When each segment with media begins, by number.
fn dates(versions: &[Playlist]) -> BTreeMap<u64, i64> {
    let segments = versions.iter().flat_map(|playlist| &playlist.segments);
    segments.filter(|segment| !segment.gap).map(|s| (s.msn, s.millis())).collect()
}

/// A gap ends where the next segment begins; media that returns may be as far from the
/// boundary as its keyframe.
fn p12_gaps_reach_what_comes_after(history: &[Vec<Playlist>], seed: u64) {
    for playlist in history.iter().flatten() {
        for pair in playlist.segments.windows(2).filter(|pair| pair[1].discontinuities == 0) {
            let step = (pair[1].millis() - pair[0].millis()) as f64;
            let returns = pair[0].gap && !pair[1].gap;
            let most = if returns { 1_000.0 } else { 2.0 };
            assert!((step - pair[0].length() * 1000.0).abs() <= most, "seed {seed}: {pair:?}");
        }
    }
}

#[test]
fn p12_tables_have_the_same_numbers_at_the_same_time_over_publications() {
    for seed in 0..12 {
        let mut random = StdRng::seed_from_u64(seed);
        let weather = Weather { loss: 0, jitter: 15, response: (80, 140), together: true };
        let mut sim = Sim::with(seed, 3, weather, Tables::new);
        let mut at = 0;
        for publication in 0..3 {
            for line in &mut sim.lines {
                line.on = random.random_range(0..3) > 0;
            }
            let end = at + 20_000;
            while at < end {
                at += random.random_range(500..6_000);
                sim.until(at, |_| ());
                let index = random.random_range(0..4);
                sim.lines[index].on ^= true;
            }
            let now = sim.instant();
            sim.rig.table.end_publication(now);
            sim.lines.iter_mut().for_each(|line| line.on = false);
            at += 3_000;
            sim.until(at, |_| ());
            if publication < 2 {
                let (now, sources) = (sim.instant(), sim.rig.sources.clone());
                sim.rig.table.start_publication(&sources, now);
            }
        }
        let history = &sim.rig.history;
        rules::p1_parts_are_no_longer_than_part_target(history);
        rules::p5_targets_are_constant_and_kept(history);
        rules::p6_sequences_never_decrease(history);
        rules::p2_parts_fill_part_target(history);
        rules::p8_old_parts_are_unlisted(history);
        rules::p14_the_hint_is_the_next_part(history);
        rules::p18_breaks_are_everywhere(history);
        rules::p17_gaps(history);
        p12_gaps_reach_what_comes_after(history, seed);
        let renditions: Vec<_> = history.iter().map(|versions| dates(versions)).collect();
        for (index, one) in renditions.iter().enumerate() {
            for other in &renditions[index + 1..] {
                for (number, date) in one {
                    let skew = other.get(number).map_or(0, |other| (other - date).abs());
                    assert!(skew <= 1_000, "seed {seed}, {index}: {number} {skew}");
                }
            }
        }
    }
}

#[test]
fn p17_a_path_that_becomes_longer_is_no_outage_for_long() {
    for delay in [1_200_000, 1_700_000, 2_000_000, 2_900_000, 3_500_000] {
        let weather = Weather { loss: 0, jitter: 15, response: (80, 140), together: true };
        let mut sim = Sim::with(7, 2, weather, Tables::new);
        sim.until(10_000, |_| ());
        sim.delay = delay;
        sim.until(60_000, |_| ());
        for versions in &sim.rig.history {
            let gaps = versions.iter().flat_map(|playlist| &playlist.segments);
            let newest = gaps.filter(|s| s.gap).map(|s| s.millis() - START.millis()).max();
            assert!(newest.is_none_or(|at| at < 18_000), "{delay} {newest:?}");
            let last = versions.last().unwrap().segments.last().unwrap();
            assert!(last.millis() - START.millis() > 52_000, "{delay} {last:?}");
        }
        rules::p1_parts_are_no_longer_than_part_target(&sim.rig.history);
        rules::p5_targets_are_constant_and_kept(&sim.rig.history);
        rules::p6_sequences_never_decrease(&sim.rig.history);
    }
}
