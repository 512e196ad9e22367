//! Playlists as text. Pure functions of what a rendition offers.
//!
//! Source: rfc8216bis §4 (tags) and §6.2.5 (what a low-latency server lists).
//! URIs are relative to the playlist. A part's URI counts over segments, not
//! within one, so that the hinted URI is right even when the segment ends before it.
//! What is written here once, [`super::render`] keeps where it does not change.

use std::fmt::Write;
use std::ops::Range;
use std::time::Duration;

use super::blocking::Skip;
use super::daterange::RangeLines;
use super::store::{Segment, View};

/// Seconds by which a segment is announced shorter than it is, and the first part of each
/// longer. What players compare then never hangs on a rounding error:
///
/// - hls.js 1.7 adds up segments. With one that seems to end a trifle after what is in its
///   buffer it loads all of that segment again at a change of layers, or nothing any more.
/// - Shaka Player 5.2 sets its buffer's offset anew when a part seems to begin a millisecond
///   and a trifle before its place, and such a part is lost unless it is independent. It puts
///   the millisecond there itself, so later parts must not seem to begin earlier than the first.
pub(super) const HAIR: f64 = 1e-5;

/// The lengths that every playlist of a stream states alike; fixed for its life.
#[derive(Debug, Clone, Copy)]
pub struct Targets {
    /// PART-TARGET.
    pub part: Duration,
    /// EXT-X-TARGETDURATION, in seconds.
    pub duration: u64,
}

impl Targets {
    /// `n` times TARGETDURATION.
    pub const fn durations(&self, n: u64) -> Duration {
        Duration::from_secs(self.duration * n)
    }

    /// CAN-SKIP-UNTIL: what is older may be left out of delta updates.
    pub const fn skip_until(&self) -> Duration {
        self.durations(6)
    }

    /// PART-TARGET, in seconds.
    fn part_target(&self) -> f64 {
        self.part.as_secs_f64() + HAIR
    }

    fn server_control(&self) -> String {
        format!(
            "#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,CAN-SKIP-UNTIL={:.1},CAN-SKIP-DATERANGES=YES,HOLD-BACK={:.1},PART-HOLD-BACK={:.5}",
            self.skip_until().as_secs_f64(),
            (self.duration * 3) as f64,
            self.part_target() * 3.0,
        )
    }
}

/// How far another rendition is, for EXT-X-RENDITION-REPORT.
#[derive(Debug, Clone)]
pub struct Report {
    /// Name of that rendition.
    pub name: String,
    /// Its newest segment with a part, and the index of its newest part there.
    pub newest: (u64, usize),
}

/// One version of a rendition, and what a playlist says besides it.
#[derive(Debug, Clone, Copy)]
pub struct Version<'a> {
    /// What it offers.
    pub view: &'a View,
    /// Opens the names of all its resources.
    pub token: &'a str,
    /// The lengths.
    pub targets: Targets,
    /// One for each other rendition.
    pub reports: &'a [Report],
    /// The date ranges of the table.
    pub ranges: &'a RangeLines,
}

impl Version<'_> {
    /// The media playlist. With `skip` it is a delta update, when there is enough to skip.
    #[cfg(test)]
    pub fn text(&self, skip: Option<Skip>) -> String {
        if let Some(delta) = skip.and_then(|skip| self.delta(skip)) {
            return delta;
        }
        let mut out = String::with_capacity(4096);
        self.write_head(&mut out, None, 0);
        self.write_segments(&mut out, 0..self.view.listed_complete().len());
        self.write_tail(&mut out);
        out
    }

    /// The delta update, if there is anything to skip.
    pub fn delta(&self, skip: Skip) -> Option<String> {
        let (skipped, complete) = (self.skippable(), self.view.listed_complete());
        let last_skipped = complete.get(skipped.checked_sub(1)?)?;
        let mut out = String::with_capacity(4096);
        self.write_head(&mut out, Some(skip), skipped);
        // A client knows it from what is skipped, but Shaka Player 5.2 does not look there: it
        // then decodes a layer that it changed to with the parameters of the one before.
        if complete.get(skipped).is_none_or(|first| first.init.number == last_skipped.init.number) {
            self.write_map(&mut out, last_skipped);
        }
        self.write_segments(&mut out, skipped..complete.len());
        self.write_tail(&mut out);
        Some(out)
    }

    /// All that stands before the segments.
    pub fn write_head(&self, out: &mut String, skip: Option<Skip>, skipped: usize) {
        let (view, targets) = (self.view, self.targets);
        let version = match skip {
            None => 6,
            Some(Skip::Segments) => 9,
            Some(Skip::DateRanges) => 10,
        };
        // Writing to a String does not fail.
        let _ = writeln!(out, "#EXTM3U\n#EXT-X-VERSION:{version}");
        let _ = writeln!(out, "#EXT-X-TARGETDURATION:{}", targets.duration);
        let _ = writeln!(out, "{}", targets.server_control());
        let _ = writeln!(out, "#EXT-X-PART-INF:PART-TARGET={:.5}", targets.part_target());
        let _ = writeln!(out, "#EXT-X-MEDIA-SEQUENCE:{}", view.media_sequence());
        let _ = writeln!(out, "#EXT-X-DISCONTINUITY-SEQUENCE:{}", view.discontinuities);
        if skip.is_some() {
            let _ = write!(out, "#EXT-X-SKIP:SKIPPED-SEGMENTS={skipped}");
        }
        match skip {
            None => out.push_str(&self.ranges.all),
            Some(Skip::Segments) => {
                out.push('\n');
                out.push_str(&self.ranges.all);
            }
            Some(Skip::DateRanges) => {
                let _ = writeln!(out, ",RECENTLY-REMOVED-DATERANGES=\"{}\"", self.ranges.removed);
                out.push_str(&self.ranges.recent);
            }
        }
    }

    /// Some of the complete segments that are listed.
    pub fn write_segments(&self, out: &mut String, which: Range<usize>) {
        let complete = self.view.listed_complete();
        let with_parts = self.with_parts();
        for index in which {
            let Some(segment) = complete.get(index) else { return };
            let before = index.checked_sub(1).and_then(|before| complete.get(before));
            self.write_segment(out, segment, before.map(|before| &**before), index >= with_parts);
        }
    }

    /// The segment in progress and all that follows.
    pub fn write_tail(&self, out: &mut String) {
        let view = self.view;
        let before = view.listed_complete().last().map(|before| &**before);
        // One that has no part yet may never have one.
        if let Some(open) = view.open().filter(|open| !open.is_empty()) {
            self.write_segment(out, open, before, true);
        }
        if view.ended {
            out.push_str("#EXT-X-ENDLIST\n");
            return;
        }
        let (token, next) = (self.token, view.next_part());
        let _ = writeln!(out, "#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"{token}-p{next}.m4s\"");
        for report in self.reports {
            let ((msn, part), name) = (report.newest, &report.name);
            let _ = writeln!(
                out,
                "#EXT-X-RENDITION-REPORT:URI=\"../{name}/index.m3u8\",LAST-MSN={msn},LAST-PART={part}"
            );
        }
    }

    fn write_segment(
        &self,
        out: &mut String,
        segment: &Segment,
        before: Option<&Segment>,
        parts: bool,
    ) {
        let token = self.token;
        for _ in 0..segment.discontinuities {
            out.push_str("#EXT-X-DISCONTINUITY\n");
        }
        if before.map(|before| before.init.number) != Some(segment.init.number) {
            self.write_map(out, segment);
        }
        let date = segment.program_date_time.rfc3339_millis();
        let _ = writeln!(out, "#EXT-X-PROGRAM-DATE-TIME:{date}");
        if segment.gap {
            out.push_str("#EXT-X-GAP\n");
        }
        for (index, part) in segment.parts.iter().enumerate().filter(|_| parts) {
            let hair = if index == 0 { HAIR } else { 0.0 };
            let (duration, number) = (self.seconds(part.media.duration) + hair, part.number);
            let independent = if part.media.independent { ",INDEPENDENT=YES" } else { "" };
            let gap = if segment.gap { ",GAP=YES" } else { "" };
            let _ = writeln!(
                out,
                "#EXT-X-PART:DURATION={duration:.5},URI=\"{token}-p{number}.m4s\"{independent}{gap}"
            );
        }
        if segment.complete {
            let duration = self.seconds(segment.duration) - HAIR;
            let _ = writeln!(out, "#EXTINF:{duration:.5},\n{token}-s{}.m4s", segment.msn);
        }
    }

    fn write_map(&self, out: &mut String, segment: &Segment) {
        let (token, number) = (self.token, segment.init.number);
        let _ = writeln!(out, "#EXT-X-MAP:URI=\"{token}-i{number}.mp4\"");
    }

    /// Index of the first complete segment whose parts are listed: those less than three
    /// TARGETDURATIONs from the end (rfc8216bis §6.2.2).
    pub fn with_parts(&self) -> usize {
        self.older_than(self.targets.durations(3))
    }

    /// How many segments are further from the end than CAN-SKIP-UNTIL.
    pub fn skippable(&self) -> usize {
        self.older_than(self.targets.skip_until())
    }

    /// How many segments end so long or longer before the end of the playlist.
    fn older_than(&self, age: Duration) -> usize {
        let age = (age.as_micros() * u128::from(self.view.timescale.get()) / 1_000_000) as u64;
        let complete = self.view.listed_complete();
        let mut after = self.view.open().map_or(0, |open| open.duration);
        let younger = complete.iter().rev().take_while(|segment| {
            let is_younger = after < age;
            after += segment.duration;
            is_younger
        });
        complete.len() - younger.count()
    }

    fn seconds(&self, ticks: u64) -> f64 {
        ticks as f64 / f64::from(self.view.timescale.get())
    }
}
