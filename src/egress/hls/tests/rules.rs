//! The rules of playlists, over every version that a table ever published: one function
//! per line of the checklist that can be told from the text. [`check`] is all of them.
//!
//! A history has, for each rendition, its versions from the oldest on.

use std::collections::{BTreeMap, BTreeSet};

use super::parser::{Multivariant, Playlist, Segment, number};

pub type History = [Vec<Playlist>];

/// Half of the last digit that durations are written with, and a bit.
const ROUNDING: f64 = 1e-5;

/// All rules. What one version alone cannot tell is checked over neighbours.
pub fn check(history: &History) {
    p1_parts_are_no_longer_than_part_target(history);
    p2_parts_fill_part_target(history);
    p3_p4_hold_backs(history);
    p5_targets_are_constant_and_kept(history);
    p6_sequences_never_decrease(history);
    p7_enough_is_listed(history);
    p8_old_parts_are_unlisted(history);
    p11_segments_begin_independent(history);
    p12_dates_are_consistent(history);
    p13_rendition_reports(history);
    p14_the_hint_is_the_next_part(history);
    p15_version(history);
    p16_date_ranges(history);
    p17_gaps(history);
    p18_breaks_are_everywhere(history);
    p20_the_end(history);
}

fn all(history: &History) -> impl Iterator<Item = &Playlist> {
    history.iter().flatten()
}

pub fn p1_parts_are_no_longer_than_part_target(history: &History) {
    for playlist in all(history) {
        for part in playlist.parts() {
            assert!(part.duration <= playlist.part_target + ROUNDING, "{part:?}");
        }
    }
}

pub fn p2_parts_fill_part_target(history: &History) {
    for playlist in all(history) {
        for segment in playlist.complete().filter(|segment| !segment.parts.is_empty()) {
            for pair in segment.parts.windows(2) {
                let excused = pair[0].independent || pair[0].gap || pair[1].gap;
                let full = pair[0].duration + ROUNDING >= 0.85 * playlist.part_target;
                assert!(excused || full, "{pair:?}");
            }
        }
    }
}

pub fn p3_p4_hold_backs(history: &History) {
    for playlist in all(history) {
        let target = playlist.target as f64;
        assert_eq!(playlist.control["CAN-BLOCK-RELOAD"], "YES");
        assert!(playlist.control("PART-HOLD-BACK") >= 3.0 * playlist.part_target);
        assert!(playlist.control("HOLD-BACK") >= 3.0 * target);
        assert!(playlist.control("CAN-SKIP-UNTIL") >= 6.0 * target);
    }
}

pub fn p5_targets_are_constant_and_kept(history: &History) {
    let Some(first) = all(history).next() else { return };
    for playlist in all(history) {
        assert_eq!(playlist.target, first.target);
        assert_eq!(playlist.part_target, first.part_target);
        assert_eq!(playlist.control_line, first.control_line);
        for segment in playlist.complete() {
            assert!(segment.length().round() as u64 <= playlist.target, "{segment:?}");
        }
    }
}

pub fn p6_sequences_never_decrease(history: &History) {
    for versions in history {
        let mut names: BTreeMap<u64, &str> = BTreeMap::new();
        for pair in versions.windows(2) {
            assert!(pair[0].msn <= pair[1].msn, "{} {}", pair[0].msn, pair[1].msn);
            assert!(pair[0].discontinuity_sequence <= pair[1].discontinuity_sequence);
            let newest = |playlist: &Playlist| playlist.segments.last().map(|segment| segment.msn);
            // A gap in progress that media ended before it had a part was never listed.
            assert!(newest(&pair[0]) <= newest(&pair[1]));
        }
        for segment in versions.iter().flat_map(Playlist::complete) {
            let name = names.entry(segment.msn).or_insert(&segment.uri);
            assert_eq!(*name, segment.uri, "a segment keeps its number");
        }
        breaks_keep_their_places(versions);
    }
}

/// The discontinuity sequence of a segment is the same in every version.
fn breaks_keep_their_places(versions: &[Playlist]) {
    let mut known: BTreeMap<u64, u64> = BTreeMap::new();
    for playlist in versions {
        let mut sequence = playlist.discontinuity_sequence;
        for segment in &playlist.segments {
            sequence += segment.discontinuities;
            assert_eq!(*known.entry(segment.msn).or_insert(sequence), sequence, "{segment:?}");
        }
    }
}

pub fn p7_enough_is_listed(history: &History) {
    for versions in history {
        let Some(first) = versions.first() else { continue };
        for playlist in versions.iter().filter(|playlist| playlist.msn > first.msn) {
            let listed: f64 = playlist.segments.iter().map(Segment::length).sum();
            assert!(playlist.complete().count() >= 6, "{playlist:?}");
            assert!(listed >= 3.0 * playlist.target as f64, "{listed}");
        }
    }
}

pub fn p8_old_parts_are_unlisted(history: &History) {
    for playlist in all(history) {
        let mut after = 0.0;
        for segment in playlist.segments.iter().rev() {
            let old = after > 3.0 * playlist.target as f64 + ROUNDING;
            assert!(!old || segment.parts.is_empty(), "{after} {segment:?}");
            after += segment.length();
        }
    }
}

pub fn p11_segments_begin_independent(history: &History) {
    for segment in all(history).flat_map(|playlist| &playlist.segments) {
        if let Some(first) = segment.parts.first() {
            assert!(first.independent || first.gap, "{segment:?}");
        }
    }
}

pub fn p12_dates_are_consistent(history: &History) {
    for versions in history {
        for playlist in versions {
            for pair in playlist.segments.windows(2).filter(|pair| pair[1].discontinuities == 0) {
                let step = (pair[1].millis() - pair[0].millis()) as f64;
                let length = pair[0].length() * 1000.0;
                // Dates are cut to milliseconds.
                assert!((step - length).abs() <= 2.0, "{step} {length} {pair:?}");
            }
            assert!(playlist.segments.first().is_none_or(|first| first.map.is_some()));
        }
    }
    let dates = |versions: &Vec<Playlist>| -> BTreeMap<u64, i64> {
        let segments = versions.iter().flat_map(|playlist| &playlist.segments);
        segments.map(|segment| (segment.msn, segment.millis())).collect()
    };
    let target = all(history).next().map_or(0, |playlist| playlist.target as i64 * 1000);
    let renditions: Vec<_> = history.iter().map(dates).collect();
    for other in renditions.iter().skip(1) {
        for (msn, date) in other {
            let leading = renditions[0].get(msn);
            assert!(
                leading.is_none_or(|at| (at - date).abs() <= target),
                "{msn} {leading:?} {date}"
            );
        }
    }
}

/// As soon as another rendition has a part, there is a report of it.
pub fn p13_rendition_reports(history: &History) {
    for versions in history {
        for pair in versions.windows(2).filter(|pair| !pair[1].ended) {
            assert!(pair[0].reports.len() <= pair[1].reports.len());
        }
        for playlist in versions {
            let uris: BTreeSet<_> = playlist.reports.iter().map(|report| &report["URI"]).collect();
            assert_eq!(uris.len(), playlist.reports.len(), "one for each other");
            assert!(
                playlist
                    .reports
                    .iter()
                    .all(|r| r.contains_key("LAST-MSN") && r.contains_key("LAST-PART"))
            );
        }
        let newest = versions.iter().rev().find(|playlist| !playlist.ended);
        let others = history.iter().filter(|versions| !versions.is_empty()).count() - 1;
        assert!(newest.is_none_or(|newest| newest.reports.len() <= others));
    }
}

pub fn p14_the_hint_is_the_next_part(history: &History) {
    let newest = |playlist: &Playlist| playlist.parts().last().map(|part| part.uri.clone());
    for versions in history {
        for playlist in versions {
            assert_eq!(playlist.hints.len(), usize::from(!playlist.ended));
        }
        for pair in versions.windows(2).filter(|pair| !pair[0].ended) {
            let parts: Vec<_> = pair[1].parts().map(|part| &part.uri).collect();
            let before = newest(&pair[0]);
            let next =
                before.as_ref().and_then(|before| parts.iter().position(|uri| *uri == before));
            // A version may bring several parts: the hint is the first of them.
            if let Some(next) = next.and_then(|at| parts.get(at + 1)) {
                assert_eq!(pair[0].hints[0], **next);
            }
        }
    }
}

pub fn p15_version(history: &History) {
    for playlist in all(history) {
        let version = match (playlist.skipped > 0, &playlist.removed_ranges) {
            (false, _) => 6,
            (true, None) => 9,
            (true, Some(_)) => 10,
        };
        assert_eq!(playlist.version, version);
    }
}

pub fn p16_date_ranges(history: &History) {
    let mut said: BTreeMap<&str, BTreeMap<&str, &str>> = BTreeMap::new();
    for playlist in all(history) {
        for (id, range) in &playlist.ranges {
            let said = said.entry(id).or_default();
            for (name, value) in range {
                assert_eq!(*said.entry(name).or_insert(value), value, "{id} {name} changed");
            }
        }
    }
    for versions in history {
        for pair in versions.windows(2) {
            let gone = pair[0].ranges.iter().filter(|(id, _)| !pair[1].ranges.contains_key(*id));
            for (id, range) in gone {
                let start = super::parser::millis(&super::parser::text_of(range, "START-DATE"));
                let end = start as f64 + number(range, "DURATION") * 1000.0;
                let oldest = pair[1].segments[0].millis() as f64;
                assert!(end <= oldest + 1.0, "{id} ended {end}, listed from {oldest}");
            }
        }
    }
    let mut newest = history.iter().filter_map(|versions| versions.last());
    if let Some(first) = newest.next() {
        assert!(newest.all(|other| other.ranges == first.ranges), "the same set everywhere");
    }
}

/// A gap is one as a whole, and what is no gap has parts.
pub fn p17_gaps(history: &History) {
    for segment in all(history).flat_map(|playlist| &playlist.segments) {
        assert!(segment.parts.iter().all(|part| part.gap == segment.gap), "{segment:?}");
        assert!(segment.parts.iter().all(|part| !(part.gap && part.independent)), "{segment:?}");
    }
}

/// Each break is within a target duration of the same break of the leading rendition,
/// and another init segment comes only with a break or after a gap.
pub fn p18_breaks_are_everywhere(history: &History) {
    let breaks = |versions: &Vec<Playlist>| -> BTreeMap<u64, i64> {
        let mut at = BTreeMap::new();
        for playlist in versions {
            let mut sequence = playlist.discontinuity_sequence;
            for segment in &playlist.segments {
                sequence += segment.discontinuities;
                if segment.discontinuities > 0 {
                    at.insert(sequence, segment.millis());
                }
            }
        }
        at
    };
    for pair in all(history).flat_map(|playlist| playlist.segments.windows(2)) {
        let excused = pair[1].discontinuities > 0 || pair[0].gap;
        assert!(pair[1].map.is_none() || excused, "{pair:?}");
    }
    let target = all(history).next().map_or(0, |playlist| playlist.target as i64 * 1000);
    let renditions: Vec<_> = history.iter().map(breaks).collect();
    for other in renditions.iter().skip(1) {
        for (sequence, at) in other {
            let leading = renditions[0].get(sequence);
            assert!(leading.is_none_or(|leading| (leading - at).abs() <= target), "{sequence}");
        }
    }
}

pub fn p19_variants(playlist: &Multivariant) {
    assert!(!playlist.variants.is_empty());
    let groups: Vec<_> = playlist.media.iter().map(|media| &media["GROUP-ID"]).collect();
    for (variant, _) in &playlist.variants {
        let (peak, mean) = (number(variant, "BANDWIDTH"), number(variant, "AVERAGE-BANDWIDTH"));
        assert!(peak >= mean && mean > 0.0, "{variant:?}");
        assert!(variant["CODECS"].len() > 2, "{variant:?}");
        if let Some(resolution) = variant.get("RESOLUTION") {
            let (width, height) = resolution.split_once('x').unwrap();
            assert!(width.parse::<u32>().unwrap() > 0 && height.parse::<u32>().unwrap() > 0);
            assert!(number(variant, "FRAME-RATE") > 0.0);
        }
        assert_eq!(variant.contains_key("AUDIO"), !groups.is_empty());
        assert!(variant.get("AUDIO").is_none_or(|group| groups.contains(&group)));
    }
    let names: BTreeSet<_> = playlist.names().into_iter().collect();
    assert_eq!(names.len(), playlist.names().len(), "each rendition once");
}

pub fn p20_the_end(history: &History) {
    for versions in history {
        for (index, playlist) in versions.iter().enumerate() {
            assert!(!playlist.ended || index + 1 == versions.len(), "nothing comes after the end");
        }
    }
}

/// What a player has that applied the delta update to the version it had is the newest
/// version (rfc8216bis §6.3.7).
pub fn h9_delta_updates_lead_to_the_newest_version(
    old: &Playlist,
    delta: &Playlist,
    new: &Playlist,
) {
    let skipped = delta.msn..delta.msn + delta.skipped;
    let kept = old.segments.iter().filter(|segment| skipped.contains(&segment.msn));
    let segments: Vec<_> = kept.chain(&delta.segments).map(|s| (s.msn, s.uri.as_str())).collect();
    let expected: Vec<_> = new.segments.iter().map(|s| (s.msn, s.uri.as_str())).collect();
    assert_eq!(segments, expected);
    assert!(delta.segments.first().is_none_or(|first| first.map.is_some()), "{delta:?}");
    let ranges = match &delta.removed_ranges {
        None => delta.ranges.clone(),
        Some(removed) => {
            let mut ranges = old.ranges.clone();
            ranges.retain(|id, _| !removed.contains(id));
            ranges.extend(delta.ranges.clone());
            ranges
        }
    };
    assert_eq!(ranges, new.ranges);
    assert_eq!((&delta.hints, delta.ended), (&new.hints, new.ended));
}
