//! Time without media: gaps at their due times when there is no media at all, a gap from
//! boundary to boundary in renditions that this publication does not carry; and the
//! outage that they are.
//!
//! A rendition is *silent* while nothing of it has come in this publication. The others'
//! gaps are the segmenter's.

use std::time::{Duration, Instant};

use super::{Boundary, Numbers, Table};
use crate::egress::hls::daterange::DateRange;
use crate::egress::hls::segmenter::SegmentStart;
use crate::time::Utc;

/// No gap is shorter, in microseconds.
const LEAST_GAP: i64 = 1_000;

impl Table {
    /// When the next gap part is due; `None` while a rendition has media, or before there
    /// was any. Half a part is left for media that is on its way.
    pub(super) fn gap_due(&self) -> Option<Instant> {
        let part = self.live.targets.part;
        let silent = self.tracks.iter().all(|track| track.silent);
        self.edge.filter(|_| silent).map(|(at, _)| at + part + part / 2)
    }

    /// Makes the gap parts that are due.
    pub(super) fn make_gaps(&mut self, now: Instant) {
        let part = self.live.targets.part;
        while let Some((at, edge)) = self.edge.filter(|_| self.gap_due().is_some_and(|d| d <= now))
        {
            let edge = edge.offset_micros(part.as_micros() as i64);
            self.extend_gaps(edge);
            self.edge = Some((at + part, edge));
        }
    }

    /// A rendition has media up to `edge`.
    pub(super) fn reach(&mut self, edge: Option<Utc>, now: Instant) {
        if let Some(edge) = edge {
            // A timeline that broke may begin earlier than the old one ended.
            self.edge = Some((now, edge));
        }
    }

    /// PART-TARGET, the length of a gap segment and its limit, in ticks of a rendition.
    fn gap_lengths(&self, index: usize) -> (u64, u64, u64) {
        let rate = u128::from(self.tracks[index].source.codec.clock_rate());
        let ticks = |length: Duration| (length.as_micros() * rate / 1_000_000) as u64;
        let settings = &self.settings;
        let (part, segment) = (ticks(settings.part_target), ticks(settings.segment_target));
        (part, segment, ticks(settings.segment_limit))
    }

    /// All silent renditions have gaps until `to`, at most a part from before, in the same
    /// segments.
    fn extend_gaps(&mut self, to: Utc) {
        let tight = (0..self.tracks.len()).any(|index| {
            let (part, _, limit) = self.gap_lengths(index);
            let track = &self.tracks[index];
            let open = track.store.open().filter(|_| track.has_gap());
            open.is_some_and(|open| open.duration + part > limit)
        });
        if tight {
            self.end_gaps();
        }
        let mut full = false;
        for index in 0..self.tracks.len() {
            let (part, segment, _) = self.gap_lengths(index);
            let track = &mut self.tracks[index];
            if track.has_gap() {
                track.gap_since = track.gap_since.or(track.store.edge());
                track.store.extend_gap(to, part, u64::MAX);
                track.changed = true;
                full |= track.store.open().is_some_and(|open| open.duration >= segment);
            }
        }
        if full {
            self.end_gaps();
        }
    }

    fn end_gaps(&mut self) {
        for track in self.tracks.iter_mut().filter(|track| track.has_gap()) {
            track.store.end_segment();
            track.changed = true;
            self.segment_ended = true;
        }
    }

    /// No media is in progress: renditions that are a segment or a discontinuity behind
    /// the others make it up, so that all go on with the same numbers.
    pub(super) fn level(&mut self) {
        let (Some(most), Some(edge)) = (self.most(), self.furthest()) else { return };
        for index in 0..self.tracks.len() {
            self.make_up(index, most, edge);
        }
        let edge = self.furthest().unwrap_or(edge);
        self.edge = self.edge.map(|(at, _)| (at, edge));
    }

    /// Where the longest rendition ends.
    fn furthest(&self) -> Option<Utc> {
        let begun = self.tracks.iter().filter(|track| track.store.has_begun());
        begun.filter_map(|track| track.store.edge()).max()
    }

    /// The greatest numbers of any rendition; `None` before there was media.
    fn most(&self) -> Option<Numbers> {
        let begun = self.tracks.iter().filter(|track| track.store.has_begun());
        begun.map(|track| track.store.numbers()).reduce(|one, other| Numbers {
            msn: one.msn.max(other.msn),
            discontinuities: one.discontinuities.max(other.discontinuities),
        })
    }

    /// A rendition has gaps in place of the segments that it lacks before the one that is
    /// numbered so, until about `to`. There is a segment even where there is no time left
    /// for one: players match renditions by their numbers.
    pub(super) fn make_up(&mut self, index: usize, numbers: Numbers, to: Utc) {
        let (part, ..) = self.gap_lengths(index);
        let limit = self.settings.segment_limit.as_micros() as i64;
        let track = &mut self.tracks[index];
        if !track.store.has_begun() {
            return;
        }
        let missing = numbers.discontinuities.saturating_sub(track.store.numbers().discontinuities);
        track.store.break_timeline(u32::try_from(missing).unwrap_or(0));
        while track.store.numbers().msn < numbers.msn {
            track.store.end_segment();
            let Some(edge) = track.store.edge() else { return };
            track.gap_since.get_or_insert(edge);
            track.store.start_gap(edge);
            let to = to.clamp(edge.offset_micros(LEAST_GAP), edge.offset_micros(limit));
            track.store.extend_gap(to, part, u64::MAX);
            track.store.end_segment();
            track.changed = true;
            self.segment_ended = true;
        }
    }

    /// All renditions begin a segment. The silent ones have a gap since the boundary
    /// before it, made at once: until then one of them might still have come.
    pub(super) fn pass_boundary(&mut self, start: &SegmentStart, now: Instant) {
        match self.boundary {
            None => self.begin_counting(start, now),
            Some(last) => {
                for index in 0..self.tracks.len() {
                    self.mirror(index, last, start.program_date_time);
                }
            }
        }
        let base = self.base.unwrap_or_default();
        self.boundary = Some(Boundary {
            number: start.number,
            at: start.program_date_time,
            discontinuities: base.discontinuities
                + start.sequence
                + u64::from(start.discontinuities),
        });
    }

    /// The first media of a publication: the gaps reach up to there, but not further than
    /// time has passed, because the clock of a source may be wrong.
    fn begin_counting(&mut self, start: &SegmentStart, now: Instant) {
        if let Some((known, edge)) = self.edge {
            let passed = now.saturating_duration_since(known) + self.live.targets.part;
            let most = edge.offset_micros(i64::try_from(passed.as_micros()).unwrap_or(i64::MAX));
            let (to, mut at) = (start.program_date_time.min(most), edge);
            while at < to {
                at = to.min(at.offset_micros(self.live.targets.part.as_micros() as i64));
                self.extend_gaps(at);
            }
        }
        self.end_gaps();
        self.level();
        // What the gaps before it must not spend.
        if std::mem::take(&mut self.break_due) {
            for track in self.tracks.iter_mut().filter(|track| track.store.has_begun()) {
                track.store.break_timeline(1);
            }
        }
        let Numbers { msn, discontinuities } = self.most().unwrap_or(self.numbers);
        let discontinuities = discontinuities.saturating_sub(start.sequence);
        self.base = Some(Numbers { msn: msn.saturating_sub(start.number), discontinuities });
    }

    /// A silent rendition has a gap from the boundary `last` to the one at `next`.
    fn mirror(&mut self, index: usize, last: Boundary, next: Utc) {
        let (part, ..) = self.gap_lengths(index);
        let limit = self.settings.segment_limit.as_micros() as i64;
        let newest = self.edge.map_or(next, |(_, edge)| edge);
        let track = &mut self.tracks[index];
        if track.has_gap() {
            let missing =
                last.discontinuities.saturating_sub(track.store.numbers().discontinuities);
            track.store.break_timeline(u32::try_from(missing).unwrap_or(0));
            let before = track.store.edge().filter(|_| !track.store.is_broken());
            let from = before.unwrap_or(last.at);
            // Segments are bounded. Where a clock jumped, the media says how long it was.
            let (least, most) = (from.offset_micros(LEAST_GAP), from.offset_micros(limit));
            let within = [next, newest].into_iter().find(|to| (least..=most).contains(to));
            track.gap_since.get_or_insert(from);
            track.store.start_gap(from);
            track.store.extend_gap(within.unwrap_or(next.clamp(least, most)), part, u64::MAX);
            track.store.end_segment();
            track.changed = true;
        }
    }

    /// An outage: all pictures are gaps, or all sound where there is no picture.
    pub(super) fn note_outage(&mut self, now: Instant) {
        let silent = self.tracks.iter().all(|track| track.silent);
        let kind = self.tracks.first().map(|track| track.source.codec.kind());
        let leading = self.tracks.iter().filter(|t| Some(t.source.codec.kind()) == kind);
        let begun = || leading.clone().filter(|track| track.store.has_begun());
        let since: Option<Vec<Utc>> = begun().map(|track| track.gap_since).collect();
        let range = match since.and_then(|since| since.into_iter().max()) {
            Some(since) => {
                let numbers = begun().map(|track| track.store.numbers().msn).max();
                self.outage.begin(numbers.unwrap_or(0), since);
                self.outage.announce()
            }
            // The publication ended, and no gap is due yet.
            None if silent => None,
            None => {
                let media = begun().filter(|track| track.gap_since.is_none());
                let back = media.filter_map(|track| Some(track.store.newest()?.program_date_time));
                back.min().and_then(|back| self.outage.end(back))
            }
        };
        self.announce_outage(range, now);
    }

    pub(super) fn announce_outage(&self, range: Option<DateRange>, now: Instant) {
        if let Some(range) = range {
            // A full set refuses it: what others announced is worth as much.
            let _ = self.live.ranges().set(range, now);
        }
    }
}
