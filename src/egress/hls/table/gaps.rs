//! Time without media: gaps at their due times, beside renditions that have media, and
//! up to where media begins again; and the outage that they are.

use std::time::{Duration, Instant};

use super::Table;
use crate::egress::hls::daterange::DateRange;
use crate::egress::hls::segmenter::SegmentStart;
use crate::time::Utc;

impl Table {
    /// When the next gap part is due; `None` while the leading rendition has media, or
    /// before there was any. Half a part is left for media that is on its way.
    pub(super) fn gap_due(&self) -> Option<Instant> {
        let leader = self.tracks.get(self.leader)?;
        let part = self.live.targets.part;
        self.edge.filter(|_| leader.silent).map(|(at, _)| at + part + part / 2)
    }

    /// PART-TARGET and the length of a gap segment, in ticks of a rendition.
    pub(super) fn gap_lengths(&self, index: usize) -> (u64, u64) {
        let rate = u128::from(self.tracks[index].source.codec.clock_rate());
        let ticks = |length: Duration| (length.as_micros() * rate / 1_000_000) as u64;
        (ticks(self.settings.part_target), ticks(self.settings.segment_target))
    }

    /// All renditions without media have gaps until `to`.
    pub(super) fn extend_gaps(&mut self, to: Utc, now: Instant) {
        let leader = &self.tracks[self.leader].store;
        if let Some(edge) = leader.edge().filter(|edge| *edge < to) {
            self.outage.begin(leader.numbers().msn, edge);
            self.announce_outage(self.outage.announce(), now);
        }
        for index in 0..self.tracks.len() {
            let (part, limit) = self.gap_lengths(index);
            let track = &mut self.tracks[index];
            if track.has_gap() {
                track.store.extend_gap(to, part, limit);
                track.changed = true;
            }
        }
        let (_, segment) = self.gap_lengths(self.leader);
        let leader = self.tracks[self.leader].store.open();
        if leader.is_some_and(|open| open.duration >= segment) {
            self.end_gaps();
        }
    }

    pub(super) fn end_gaps(&mut self) {
        self.tracks.iter_mut().filter(|track| track.has_gap()).for_each(|track| {
            track.store.end_segment();
            track.changed = true;
        });
    }

    /// The first media of a publication begins at `at`: the gaps reach up to there. Not
    /// further than time has passed, because the clock of a source may be wrong.
    pub(super) fn fill_until(&mut self, at: Utc, now: Instant) {
        let is_first = self.tracks[self.leader].silent;
        let Some((known, edge)) = self.edge.filter(|_| is_first) else { return };
        let passed = now.saturating_duration_since(known) + self.live.targets.part;
        let most = edge.offset_micros(i64::try_from(passed.as_micros()).unwrap_or(i64::MAX));
        if at > edge {
            self.extend_gaps(at.min(most), now);
        }
        self.end_gaps();
    }

    /// The leading rendition begins a segment: those without media have a gap there.
    pub(super) fn mirror(&mut self, start: &SegmentStart) {
        for index in (0..self.tracks.len()).filter(|index| *index != self.leader) {
            let (part, limit) = self.gap_lengths(index);
            let track = &mut self.tracks[index];
            if track.has_gap() {
                track.extend_gap(start.program_date_time, part, limit);
                track.store.end_segment();
                track.store.break_timeline(start.discontinuities);
                track.mirrored += start.discontinuities;
                track.store.start_gap(start.program_date_time);
                track.changed = true;
            }
        }
    }

    /// A rendition has a part: when it leads, those without media have a gap beside it.
    pub(super) fn follow(&mut self, index: usize, now: Instant) {
        if index != self.leader {
            return;
        }
        let Some(edge) = self.tracks[index].store.edge() else { return };
        self.edge = Some((now, edge));
        // The leading segment ends theirs; this is only for one that is late.
        let limit = self.live.targets.durations(1).as_micros();
        for index in (0..self.tracks.len()).filter(|index| *index != self.leader) {
            let (part, _) = self.gap_lengths(index);
            let track = &mut self.tracks[index];
            if track.has_gap() {
                let rate = u128::from(track.source.codec.clock_rate());
                track.extend_gap(edge, part, (limit * rate / 1_000_000) as u64);
                track.changed = true;
            }
        }
    }

    /// The leading rendition begins a segment: an outage begins, goes on, or is over.
    pub(super) fn note_outage(&mut self, start: &SegmentStart, now: Instant) {
        let store = &self.tracks[self.leader].store;
        let range = if start.gap {
            self.outage.begin(store.numbers().msn, start.program_date_time);
            self.outage.announce()
        } else {
            store.edge().and_then(|edge| self.outage.end(edge))
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
