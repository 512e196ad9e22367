//! Tables over several publications, with several layers, on a virtual clock.

use std::sync::Arc;
use std::time::{Duration, Instant};

use flate2::read::GzDecoder;

use super::fixture::{AUDIO, Feed, START, VIDEO, audio_source, video_source};
use super::oracle;
use super::parser::{Multivariant, Playlist, Segment};
use super::rules;
use crate::codec::Codec;
use crate::egress::hls::daterange::DateRange;
use crate::egress::hls::live::Published;
use crate::egress::hls::segmenter::RenditionSource;
use crate::egress::hls::store::{Numbers, Resource};
use crate::egress::hls::table::{Plan, Table};
use crate::egress::hls::{HlsSettings, HlsStats, OUTAGE_CLASS};
use crate::media::{Frame, LayerId};

const HIGH: LayerId = LayerId { track: 0, layer: 1 };

fn layer_source(layer: u8) -> RenditionSource {
    let layer = LayerId { track: 0, layer };
    RenditionSource { layer, ..video_source(Codec::H264) }
}

/// A table and every version of its playlists.
struct Rig {
    table: Table,
    feed: Feed,
    /// By rendition.
    history: Vec<Vec<Playlist>>,
    newest: Vec<Arc<Published>>,
    multivariants: Vec<Multivariant>,
}

impl Rig {
    fn new(sources: &[RenditionSource]) -> Self {
        Self::with(&HlsSettings::default(), sources, Numbers::default())
    }

    fn with(settings: &HlsSettings, sources: &[RenditionSource], numbers: Numbers) -> Self {
        let plan = Plan {
            table: "demo".parse().unwrap(),
            token: "t".to_owned(),
            renditions: sources.to_vec(),
            numbers,
        };
        let table = Table::new(settings, plan, Arc::new(HlsStats::default())).unwrap();
        let newest = table.live().renditions.iter().map(|r| r.published.borrow().clone());
        Self {
            newest: newest.collect(),
            table,
            feed: Feed::new(),
            history: vec![Vec::new(); sources.len()],
            multivariants: Vec::new(),
        }
    }

    fn at(&self, millis: u64) -> Instant {
        self.feed.base + Duration::from_millis(millis)
    }

    /// Media of some layers from one time to another, in milliseconds.
    fn play(&mut self, from: u64, to: u64, layers: &[LayerId]) {
        for (layer, frame) in self.feed.between(from, to) {
            let is_video = layer == VIDEO;
            for layer in layers.iter().filter(|layer| (layer.track == VIDEO.track) == is_video) {
                self.push(*layer, &frame);
            }
        }
    }

    fn push(&mut self, layer: LayerId, frame: &Frame) {
        self.table.handle_frame(layer, frame, false);
        self.record();
    }

    /// Nothing comes until then.
    fn wait(&mut self, millis: u64) {
        while let Some(due) = self.table.poll_timeout().filter(|due| *due <= self.at(millis)) {
            self.table.handle_timeout(due);
            self.record();
        }
    }

    fn end(&mut self, millis: u64) {
        self.table.end_publication(self.at(millis));
        self.record();
    }

    fn restart(&mut self, millis: u64, sources: &[RenditionSource]) {
        assert!(self.table.continues(sources));
        self.table.start_publication(sources, self.at(millis));
        self.record();
    }

    fn finish(&mut self, millis: u64) {
        self.table.finish(self.at(millis));
        self.record();
    }

    /// Keeps new versions; all forms of one must lead to the same.
    fn record(&mut self) {
        for (index, rendition) in self.table.live().renditions.iter().enumerate() {
            let published = rendition.published.borrow().clone();
            if Arc::ptr_eq(&published, &self.newest[index]) {
                continue;
            }
            let forms = &published.playlist;
            let [full, delta, v2] = [&forms.full, &forms.delta, &forms.delta_v2].map(|form| {
                let mut unzipped = Vec::new();
                let mut reader = GzDecoder::new(&form.gzip[..]);
                std::io::Read::read_to_end(&mut reader, &mut unzipped).unwrap();
                assert_eq!(unzipped, form.plain);
                oracle::agrees_on_media(std::str::from_utf8(&form.plain).unwrap())
            });
            if let Some(old) = self.history[index].last() {
                rules::h9_delta_updates_lead_to_the_newest_version(old, &delta, &full);
                rules::h9_delta_updates_lead_to_the_newest_version(old, &v2, &full);
                rules::p15_version(&[vec![delta, v2]]);
            }
            h17_names_what_exists(&published, &full);
            self.history[index].push(full);
            self.newest[index] = published;
        }
        if let Some(rendered) = &*self.table.live().multivariant.borrow() {
            let text = std::str::from_utf8(&rendered.plain).unwrap();
            let multivariant = oracle::agrees_on_multivariant(text);
            rules::p19_variants(&multivariant);
            self.multivariants.push(multivariant);
        }
    }

    fn newest(&self, index: usize) -> &Playlist {
        self.history[index].last().unwrap()
    }

    /// Segments of a rendition that have no media.
    fn gaps(&self, index: usize) -> Vec<&Segment> {
        self.newest(index).segments.iter().filter(|segment| segment.gap).collect()
    }
}

fn h17_names_what_exists(published: &Published, playlist: &Playlist) {
    let number = |uri: &str| uri[3..].trim_end_matches(".m4s").parse().unwrap();
    for part in playlist.parts() {
        let found = published.view.part(number(&part.uri));
        assert_eq!(matches!(found, Resource::Piece(_)), !part.gap, "{part:?}");
    }
    for segment in playlist.complete() {
        let found = published.view.segment(number(&segment.uri));
        assert_eq!(matches!(found, Resource::Segment(_)), !segment.gap, "{segment:?}");
    }
    for map in playlist.segments.iter().filter_map(|segment| segment.map.as_ref()) {
        let number = map[3..].trim_end_matches(".mp4").parse().unwrap();
        assert!(matches!(published.view.init(number), Resource::Piece(_)), "{map}");
    }
}

fn both() -> Vec<RenditionSource> {
    vec![layer_source(0), audio_source()]
}

#[test]
fn p17_a_publisher_that_comes_back_leaves_gaps_of_the_missing_time() {
    let mut rig = Rig::new(&both());
    rig.play(0, 6_000, &[VIDEO, AUDIO]);
    rig.end(6_000);
    rig.wait(9_990);
    assert!(rig.history.iter().all(|versions| !versions.last().unwrap().ended));
    rig.restart(10_000, &both());
    rig.play(10_000, 18_000, &[VIDEO, AUDIO]);
    rules::check(&rig.history);
    for index in 0..2 {
        let missing: f64 = rig.gaps(index).iter().map(|gap| gap.length()).sum();
        assert!((3.9..=4.1).contains(&missing), "{missing}");
        let newest = rig.newest(index);
        let breaks: Vec<_> = newest.segments.iter().filter(|s| s.discontinuities > 0).collect();
        assert_eq!(breaks.len(), 1, "one break, where the new media begins");
        assert_eq!(breaks[0].map.as_deref(), Some("t-i1.mp4"));
        assert_eq!(breaks[0].millis(), START.millis() + 10_000);
        let before = newest.segments.iter().rev().find(|s| s.msn < breaks[0].msn).unwrap();
        let end = before.millis() as f64 + before.length() * 1000.0;
        assert!((end - breaks[0].millis() as f64).abs() < 2.0, "the gaps reach up to there");
    }
}

#[test]
fn p9_p17_gap_parts_come_in_time_and_release_those_who_wait() {
    let mut rig = Rig::new(&both());
    rig.play(0, 6_000, &[VIDEO, AUDIO]);
    rig.end(6_000);
    for millis in [7_000, 7_500, 8_000, 8_500, 9_000] {
        let before = rig.newest[0].view.progress();
        rig.wait(millis);
        let after = rig.newest[0].view.progress();
        let moved = (after.open_msn, after.open_parts) > (before.open_msn, before.open_parts);
        assert!(moved, "{millis}: {before:?} {after:?}");
    }
    rules::check(&rig.history);
}

#[test]
fn p16_an_outage_is_a_date_range_that_is_told_more_of_when_it_is_over() {
    let mut rig = Rig::new(&both());
    rig.play(0, 6_000, &[VIDEO, AUDIO]);
    assert!(rig.newest(0).ranges.is_empty());
    rig.end(6_000);
    rig.wait(9_990);
    let open = rig.newest(0).ranges.values().next().unwrap().clone();
    assert_eq!(open["CLASS"], format!("\"{OUTAGE_CLASS}\""));
    assert!(!open.contains_key("DURATION"));
    rig.restart(10_000, &both());
    rig.play(10_000, 12_000, &[VIDEO, AUDIO]);
    for index in 0..2 {
        let ranges = &rig.newest(index).ranges;
        assert_eq!(ranges.len(), 1);
        let over = ranges.values().next().unwrap();
        assert_eq!(over["ID"], open["ID"]);
        let length: f64 = over["DURATION"].parse().unwrap();
        // The last frame before it ended a third of a millisecond after a whole one.
        assert!((length - 4.0).abs() < 1.5e-3, "{length}");
        assert_eq!(over["X-RAILBIRD-CAUSE"], "\"publisher-gone\"");
    }
    // It leaves with the last of its gaps.
    rig.play(12_000, 60_000, &[VIDEO, AUDIO]);
    assert!(rig.newest(0).ranges.is_empty() && rig.newest(1).ranges.is_empty());
    rules::check(&rig.history);
}

#[test]
fn p6_a_publisher_that_takes_over_goes_on_with_all_numbers() {
    let mut rig = Rig::new(&both());
    rig.play(0, 6_000, &[VIDEO, AUDIO]);
    let before = rig.newest(0).segments.last().unwrap().msn;
    rig.restart(6_000, &both());
    rig.play(6_000, 12_000, &[VIDEO, AUDIO]);
    rules::check(&rig.history);
    for index in 0..2 {
        assert_eq!(rig.gaps(index).len(), 0, "nothing is missing");
        let next = &rig.newest(index).segments[before as usize + 1];
        assert_eq!((next.discontinuities, next.map.as_deref()), (1, Some("t-i1.mp4")));
    }
}

#[test]
fn p6_a_table_that_ended_is_counted_on() {
    let mut rig = Rig::new(&both());
    rig.play(0, 6_000, &[VIDEO, AUDIO]);
    rig.restart(6_000, &both());
    rig.play(6_000, 10_000, &[VIDEO, AUDIO]);
    rig.finish(10_000);
    rules::check(&rig.history);
    let old = rig.newest(0).clone();
    assert!(old.ended && old.hints.is_empty());
    let numbers = rig.table.numbers();
    assert_eq!(numbers.msn, old.segments.last().unwrap().msn + 1);
    assert_eq!(numbers.discontinuities, 2);
    let mut rig = Rig::with(&HlsSettings::default(), &both(), numbers);
    rig.play(20_000, 24_000, &[VIDEO, AUDIO]);
    for index in 0..2 {
        let first = &rig.history[index][0];
        assert_eq!((first.msn, first.discontinuity_sequence), (numbers.msn, 2));
    }
    rules::check(&rig.history);
}

#[test]
fn p20_a_publisher_that_does_not_come_back_ends_the_table() {
    let mut rig = Rig::new(&both());
    rig.play(0, 6_000, &[VIDEO, AUDIO]);
    rig.end(6_000);
    rig.wait(16_000);
    rig.finish(16_000);
    rules::check(&rig.history);
    assert!(rig.newest(0).ended && rig.newest(1).ended);
    let range = rig.newest(0).ranges.values().next().unwrap();
    assert!(range.contains_key("DURATION"), "the outage is over, too");
    assert_eq!(rig.table.poll_timeout(), None);
}

#[test]
fn p7_a_young_playlist_is_long_enough_by_gaps_before_the_start() {
    let settings = HlsSettings { leading_gaps: true, ..HlsSettings::default() };
    let numbers = Numbers { msn: 700, discontinuities: 3 };
    let mut rig = Rig::with(&settings, &both(), numbers);
    rig.play(0, 40_000, &[VIDEO, AUDIO]);
    rules::check(&rig.history);
    for (index, versions) in rig.history.iter().enumerate() {
        let first = versions.iter().find(|playlist| playlist.complete().count() > 0).unwrap();
        assert!(versions.iter().all(|p| p.segments.len() >= 6), "{index}");
        assert_eq!((first.msn, first.discontinuity_sequence), (695, 3));
        let gaps: Vec<_> = first.segments.iter().filter(|segment| segment.gap).collect();
        assert_eq!(gaps.len(), 5);
        assert!(gaps.iter().all(|gap| gap.parts.is_empty() && gap.duration == Some(2.0)));
        assert!(first.segments[0].map.is_some());
        assert_eq!(gaps[0].millis(), first.segments[5].millis() - 10_000);
        assert!(versions.last().unwrap().segments.iter().all(|s| !s.gap), "they leave again");
        assert!(rig.newest(index).ranges.is_empty(), "they are no outage");
    }
    // There is only so much room below the first number.
    let mut rig = Rig::with(&settings, &both(), Numbers { msn: 2, discontinuities: 0 });
    rig.play(0, 3_000, &[VIDEO, AUDIO]);
    assert_eq!((rig.newest(0).msn, rig.gaps(0).len()), (0, 2));
    rules::check(&rig.history);
}

#[test]
fn p13_p19_each_layer_is_a_variant_and_reports_the_others() {
    let sources = [layer_source(0), layer_source(1), audio_source()];
    let mut rig = Rig::new(&sources);
    rig.play(0, 8_000, &[VIDEO, HIGH, AUDIO]);
    rules::check(&rig.history);
    let multivariant = rig.multivariants.last().unwrap();
    assert_eq!(multivariant.names().len(), 3);
    assert_eq!(multivariant.variants.len(), 2);
    for (variant, _) in &multivariant.variants {
        assert_eq!(variant["RESOLUTION"], "320x180");
        assert!(
            variant["CODECS"].starts_with("\"avc1.42") && variant["CODECS"].ends_with(",opus\"")
        );
        assert_eq!(variant["AUDIO"], "\"audio\"");
    }
    for index in 0..3 {
        let names: Vec<_> = rig.newest(index).reports.iter().map(|r| r["URI"].clone()).collect();
        let all = ["video0-0", "video0-1", "audio1-0"];
        let others = all.iter().enumerate().filter(|(other, _)| *other != index);
        let expected: Vec<_> = others.map(|(_, n)| format!("\"../{n}/index.m3u8\"")).collect();
        assert_eq!(names, expected);
    }
}

#[test]
fn p13_p18_a_layer_that_comes_later_has_the_numbers_of_the_others() {
    let sources = [layer_source(0), layer_source(1), audio_source()];
    for leading_gaps in [false, true] {
        let settings = HlsSettings { leading_gaps, ..HlsSettings::default() };
        let mut rig = Rig::with(&settings, &sources, Numbers { msn: 50, discontinuities: 0 });
        rig.play(0, 10_000, &[VIDEO, AUDIO]);
        assert_eq!(rig.multivariants.last().unwrap().variants.len(), 1);
        rig.play(10_000, 20_000, &[VIDEO, HIGH, AUDIO]);
        rules::check(&rig.history);
        assert_eq!(rig.multivariants.last().unwrap().variants.len(), 2);
        let [low, high] = [rig.newest(0), rig.newest(1)];
        for segment in high.complete() {
            let same = low.segments.iter().find(|s| s.msn == segment.msn).unwrap();
            assert!((same.millis() - segment.millis()).abs() < 100, "{same:?} {segment:?}");
        }
        assert_eq!(
            high.segments.iter().filter(|s| s.gap).count(),
            if leading_gaps { 5 } else { 0 }
        );
        assert_eq!(low.reports.len(), 2);
    }
}

#[test]
fn p17_a_layer_that_does_not_come_back_is_gaps_beside_the_others() {
    let sources = [layer_source(0), layer_source(1), audio_source()];
    let mut rig = Rig::new(&sources);
    rig.play(0, 6_000, &[VIDEO, HIGH, AUDIO]);
    let fewer = [layer_source(0), audio_source()];
    rig.restart(6_000, &fewer);
    rig.play(6_000, 14_000, &[VIDEO, AUDIO]);
    rules::check(&rig.history);
    let gone: f64 = rig.gaps(1).iter().map(|gap| gap.length()).sum();
    // Each gap is listed as a whole, once the next boundary has passed.
    assert!((5.9..=8.1).contains(&gone), "{gone}");
    assert_eq!(rig.multivariants.last().unwrap().variants.len(), 2, "it stays listed");
    let [low, high] = [rig.newest(0), rig.newest(1)];
    let newest = |playlist: &Playlist| playlist.segments.last().unwrap().msn;
    assert!(newest(low).abs_diff(newest(high)) <= 1);
    // It comes back with a later publication.
    rig.restart(14_000, &sources);
    rig.play(14_000, 22_000, &[VIDEO, HIGH, AUDIO]);
    rules::check(&rig.history);
    let newest = rig.newest(1).segments.last().unwrap();
    assert!(!newest.gap);
    let total = |index: usize| {
        let newest = rig.newest(index);
        newest.segments.iter().map(|s| s.discontinuities).sum::<u64>()
            + newest.discontinuity_sequence
    };
    assert_eq!([total(0), total(1), total(2)], [2, 2, 2]);
}

#[test]
fn p19_bit_rates_are_those_of_runs_near_the_target_duration_and_leave_gaps_out() {
    let mut rig = Rig::new(&both());
    rig.play(0, 20_000, &[VIDEO, AUDIO]);
    let target = Duration::from_secs(2);
    let (peak, mean) = rig.newest[0].view.bandwidth(target).unwrap();
    let sizes = || rig.newest[0].view.listed_complete().iter().filter(|s| s.duration == 180_000);
    let largest = sizes().map(|segment| segment.len() as u64 * 8 / 2).max().unwrap();
    assert_eq!(peak, largest);
    assert!(mean <= peak && mean * 2 > peak);
    rig.end(20_000);
    rig.wait(28_000);
    let (gap_peak, gap_mean) = rig.newest[0].view.bandwidth(target).unwrap();
    assert!(gap_peak == peak && gap_mean.abs_diff(mean) < mean / 10, "{gap_mean} {mean}");
    let (peak, rate) =
        (rig.newest[1].view.bandwidth(target).unwrap().0, rig.newest[0].view.sample_rate());
    assert!((29.9..30.1).contains(&rate.unwrap()), "{rate:?}");
    let variant = &rig.multivariants.last().unwrap().variants[0].0;
    assert_eq!(variant["BANDWIDTH"], (gap_peak + peak).to_string(), "picture and sound");
}

#[test]
fn only_publications_that_players_know_go_on_with_a_table() {
    let layers = [layer_source(0), layer_source(1), audio_source()];
    let table = Rig::new(&layers).table;
    assert!(table.continues(&layers));
    assert!(table.continues(&[layer_source(1), audio_source()]), "fewer layers");
    assert!(!table.continues(&[layer_source(0)]), "no sound");
    assert!(!table.continues(&[audio_source()]), "no picture");
    assert!(!table.continues(&[layer_source(2), audio_source()]), "a layer that is not listed");
    let other = RenditionSource { codec: Codec::H265, ..layer_source(0) };
    assert!(!table.continues(&[other, audio_source()]), "another codec");
    let mono = RenditionSource { channels: 1, ..audio_source() };
    assert!(!table.continues(&[layer_source(0), mono]), "other sound");
}

#[test]
fn p16_h9_a_round_is_listed_everywhere_and_skipped_by_v2() {
    let mut rig = Rig::new(&both());
    rig.play(0, 20_000, &[VIDEO, AUDIO]);
    let mut round = DateRange::new("round-1", "example.round", START.offset_micros(18_000_000));
    round.planned_duration = Some(Duration::from_secs(10));
    rig.table.live().ranges().set(round.clone(), rig.at(20_000)).unwrap();
    rig.play(20_000, 26_000, &[VIDEO, AUDIO]);
    let text = |rig: &Rig, index: usize| {
        let plain = rig.newest[index].playlist.delta_v2.plain.clone();
        oracle::agrees_on_media(std::str::from_utf8(&plain).unwrap())
    };
    assert!(text(&rig, 0).skipped > 0 && text(&rig, 0).ranges.contains_key("round-1"));
    round.duration = Some(Duration::from_secs(8));
    rig.table.live().ranges().set(round, rig.at(26_000)).unwrap();
    rig.play(26_000, 36_000, &[VIDEO, AUDIO]);
    for index in 0..2 {
        assert_eq!(rig.newest(index).ranges["round-1"]["DURATION"], "8.000");
    }
    rig.play(36_000, 42_000, &[VIDEO, AUDIO]);
    assert!(!text(&rig, 0).ranges.contains_key("round-1"), "old, and unchanged");
    assert!(rig.newest(0).ranges.contains_key("round-1"));
    rig.play(42_000, 62_000, &[VIDEO, AUDIO]);
    assert!(rig.newest(0).ranges.is_empty() && rig.newest(1).ranges.is_empty());
    assert_eq!(text(&rig, 1).removed_ranges, Some(vec!["round-1".to_owned()]));
    rules::check(&rig.history);
}

#[test]
fn a_source_whose_clock_jumped_fills_no_more_time_than_passed() {
    let mut rig = Rig::new(&both());
    rig.play(0, 6_000, &[VIDEO, AUDIO]);
    rig.restart(6_000, &both());
    for (layer, frame) in rig.feed.between(6_000, 12_000) {
        let mut frame = (*frame).clone();
        frame.capture = frame.capture.offset_micros(3_600_000_000);
        rig.push(layer, &frame);
    }
    let gaps: f64 = rig.gaps(0).iter().map(|gap| gap.length()).sum();
    assert!(gaps <= 1.0, "{gaps}");
}

/// Discontinuities before the end of a playlist.
fn breaks(playlist: &Playlist) -> u64 {
    let listed: u64 = playlist.segments.iter().map(|segment| segment.discontinuities).sum();
    playlist.discontinuity_sequence + listed
}

#[test]
fn p18_a_layer_that_ends_behind_the_others_is_level_with_them_afterwards() {
    let sources = [layer_source(0), layer_source(1), audio_source()];
    let mut rig = Rig::new(&sources);
    rig.play(0, 7_990, &[VIDEO, HIGH, AUDIO]);
    // Its keyframe of the boundary is late; it is the last one to be heard of.
    for (layer, frame) in rig.feed.between(7_990, 8_300) {
        let mut late = (*frame).clone();
        late.keyframe &= layer == AUDIO;
        let until = rig.feed.base + Duration::from_millis(8_100);
        if frame.received < until {
            rig.push(layer, &frame);
        }
        if layer == VIDEO {
            rig.push(HIGH, &late);
        }
    }
    rig.end(8_320);
    let next = |rig: &Rig| [0, 1, 2].map(|index| rig.newest[index].view.progress().open_msn);
    let numbers = next(&rig);
    assert!(numbers.iter().all(|msn| *msn == numbers[0]), "{numbers:?}");
    rig.wait(11_990);
    rig.restart(12_000, &sources);
    rig.play(12_000, 20_000, &[VIDEO, HIGH, AUDIO]);
    rules::check(&rig.history);
    let [low, high] = [rig.newest(0), rig.newest(1)];
    for segment in
        high.segments.iter().filter(|segment| segment.millis() >= START.millis() + 12_000)
    {
        let same = low.segments.iter().find(|s| s.msn == segment.msn).unwrap();
        assert!((same.millis() - segment.millis()).abs() < 100, "{same:?} {segment:?}");
    }
    assert_eq!(breaks(low), breaks(high));
}

#[test]
fn p12_gaps_of_a_layer_that_leads_no_more_reach_from_boundary_to_boundary() {
    let sources = [layer_source(0), layer_source(1), audio_source()];
    let mut rig = Rig::new(&sources);
    rig.play(0, 6_000, &[VIDEO, HIGH, AUDIO]);
    rig.restart(6_000, &sources);
    // Layer 0 comes before its leader in all that goes by index.
    rig.play(6_000, 24_000, &[HIGH, AUDIO]);
    rules::check(&rig.history);
    let (gone, leader) = (rig.newest(0), rig.newest(1));
    assert!(rig.gaps(0).len() > 5);
    for gap in rig.gaps(0) {
        let same = leader.segments.iter().find(|segment| segment.msn == gap.msn).unwrap();
        assert!((same.millis() - gap.millis()).abs() <= 20, "{same:?} {gap:?}");
        assert!((same.length() - gap.length()).abs() <= 0.02, "{same:?} {gap:?}");
    }
    assert!(gone.segments.last().unwrap().msn + 1 >= leader.segments.last().unwrap().msn);
}

#[test]
fn p18_the_break_of_a_publication_is_where_its_media_begins() {
    let mut rig = Rig::new(&both());
    rig.play(0, 6_000, &[VIDEO, AUDIO]);
    rig.end(6_000);
    // It connects early and sends late: gaps begin and end meanwhile.
    rig.restart(6_100, &both());
    rig.wait(13_900);
    rig.play(14_000, 20_000, &[VIDEO, AUDIO]);
    rules::check(&rig.history);
    for index in 0..2 {
        let newest = rig.newest(index);
        let broken: Vec<_> = newest.segments.iter().filter(|s| s.discontinuities > 0).collect();
        assert_eq!(broken.len(), 1);
        assert!(!broken[0].gap, "{:?}", broken[0]);
        assert!(broken[0].map.is_some());
    }
}

#[test]
fn p19_a_layer_whose_media_has_all_left_stays_listed() {
    let sources = [layer_source(0), layer_source(1), audio_source()];
    let mut rig = Rig::new(&sources);
    rig.play(0, 6_000, &[VIDEO, HIGH, AUDIO]);
    let before = rig.multivariants.last().unwrap().clone();
    rig.restart(6_000, &[layer_source(0), audio_source()]);
    rig.play(6_000, 100_000, &[VIDEO, AUDIO]);
    assert!(rig.newest(1).segments.iter().all(|segment| segment.gap));
    assert!(rig.newest[1].view.sample_rate().is_none(), "none is held either");
    let after = rig.multivariants.last().unwrap();
    let mut names = [before.names(), after.names()];
    names.iter_mut().for_each(|names| names.sort());
    assert_eq!(names[0], names[1]);
}

#[test]
fn p19_a_table_without_media_has_no_multivariant_playlist() {
    let mut rig = Rig::new(&both());
    rig.finish(1_000);
    assert!(rig.table.live().multivariant.borrow().is_none());
}
