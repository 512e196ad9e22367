//! The window of one rendition: which segments and parts exist, which of them
//! the playlist lists, and which can still be fetched.
//!
//! The packager owns the [`Store`] and after each part publishes a [`View`] of
//! it: an immutable snapshot that shares the bytes, so that what a playlist names
//! can be fetched by whoever has seen that playlist (`h17`). Segments leave the
//! playlist by age and memory later, when no player that saw them listed will
//! still ask (rfc8216bis §6.2.2); a bound in bytes evicts earlier.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::sync::Arc;

use bytes::Bytes;

use super::blocking::Progress;
use super::cutter::PartMedia;
use super::segmenter::{Init, SegmentStart};
use crate::time::Utc;

/// A player that starts needs this many segments (Apple HLS authoring §8.11).
const MIN_LISTED: usize = 6;

/// A part that can be fetched.
#[derive(Debug, Clone)]
pub struct Part {
    /// Counts the parts of the rendition over all segments; names its URI.
    pub number: u64,
    /// Ticks, samples and bytes.
    pub media: PartMedia,
}

/// A segment: complete, or in progress.
#[derive(Debug, Clone)]
pub struct Segment {
    /// Media sequence number.
    pub msn: u64,
    /// UTC of its first sample.
    pub program_date_time: Utc,
    /// So many `EXT-X-DISCONTINUITY` stand before it. Several, where the other
    /// renditions have segments between breaks that this one has not: players match
    /// renditions by their number.
    pub discontinuities: u32,
    /// Its init segment.
    pub init: Arc<Init>,
    /// There is no media in its time; its parts cannot be fetched.
    pub gap: bool,
    /// Its parts; the bytes of the segment are theirs, one after the other.
    pub parts: Vec<Part>,
    /// Sum of its samples' durations, in ticks.
    pub duration: u64,
    /// No part will be added.
    pub complete: bool,
}

impl Segment {
    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.parts.iter().map(|part| part.media.data.len()).sum()
    }

    /// Whether it has no part yet.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }
}

/// How much to keep.
#[derive(Debug, Clone, Copy)]
pub struct StoreLimits {
    /// Content to list, in ticks.
    pub window: u64,
    /// Content that stays fetchable after it left the playlist, in ticks.
    pub grace: u64,
    /// Never list less than this, in ticks (3 × TARGETDURATION).
    pub floor: u64,
    /// Bytes to hold; past it the oldest segments go, listed or not.
    pub max_bytes: usize,
}

/// owner: the packager's task.
pub struct Store {
    limits: StoreLimits,
    timescale: NonZeroU32,
    segments: VecDeque<Arc<Segment>>,
    /// The first segment that the playlist lists, as an index.
    listed: usize,
    discontinuities: u64,
    /// Of segments that ended before they had a part; the next one takes them over.
    inherited: u32,
    next_msn: u64,
    next_part: u64,
    bytes: usize,
    ended: bool,
}

impl Store {
    /// An empty store.
    pub fn new(limits: StoreLimits, timescale: NonZeroU32) -> Self {
        Self {
            limits,
            timescale,
            segments: VecDeque::new(),
            listed: 0,
            discontinuities: 0,
            inherited: 0,
            next_msn: 0,
            next_part: 0,
            bytes: 0,
            ended: false,
        }
    }

    /// A segment begins. One that is still in progress is completed first.
    pub fn start_segment(&mut self, start: SegmentStart) {
        self.end_segment();
        self.segments.push_back(Arc::new(Segment {
            msn: self.next_msn,
            program_date_time: start.program_date_time,
            discontinuities: start.discontinuities + std::mem::take(&mut self.inherited),
            init: start.init,
            gap: start.gap,
            parts: Vec::new(),
            duration: 0,
            complete: false,
        }));
        self.next_msn += 1;
    }

    /// Adds a part to the segment in progress; without one it is ignored.
    pub fn add_part(&mut self, media: PartMedia) {
        let Some(segment) = self.segments.back_mut().filter(|segment| !segment.complete) else {
            return;
        };
        self.bytes += media.data.len();
        let segment = Arc::make_mut(segment);
        segment.duration += media.ticks;
        segment.parts.push(Part { number: self.next_part, media });
        self.next_part += 1;
        self.evict();
    }

    /// The segment in progress is complete.
    pub fn end_segment(&mut self) {
        match self.segments.back_mut().filter(|segment| !segment.complete) {
            Some(segment) if segment.is_empty() => {
                self.inherited += segment.discontinuities;
                self.segments.pop_back();
                self.next_msn -= 1;
            }
            Some(segment) => Arc::make_mut(segment).complete = true,
            None => {}
        }
        self.evict();
    }

    /// Nothing will be added.
    pub fn end(&mut self) {
        self.end_segment();
        self.ended = true;
    }

    /// The state as readers get it.
    pub fn view(&self) -> View {
        View {
            timescale: self.timescale,
            segments: self.segments.iter().cloned().collect(),
            listed: self.listed,
            discontinuities: self.discontinuities,
            next_msn: self.next_msn,
            next_part: self.next_part,
            ended: self.ended,
        }
    }

    /// The newest part as a rendition report names it: its segment and its index there.
    pub fn newest_part(&self) -> Option<(u64, usize)> {
        let newest = self.segments.iter().rev().find(|segment| !segment.is_empty())?;
        Some((newest.msn, newest.parts.len() - 1))
    }

    fn evict(&mut self) {
        let mut listed: u64 = self.segments.iter().skip(self.listed).map(|s| s.duration).sum();
        while let Some(oldest) = self.segments.get(self.listed) {
            let rest = listed - oldest.duration;
            let enough = self.segments.len() - self.listed > MIN_LISTED;
            if rest < self.limits.window || rest < self.limits.floor || !enough {
                break;
            }
            listed = rest;
            self.unlist();
        }
        let mut grace: u64 = self.segments.iter().take(self.listed).map(|s| s.duration).sum();
        while grace > self.limits.grace && self.listed > 0 {
            grace -= self.forget();
        }
        while self.bytes > self.limits.max_bytes && self.segments.len() > 1 {
            if self.listed == 0 {
                self.unlist();
            }
            self.forget();
        }
    }

    /// Takes the oldest listed segment off the playlist.
    fn unlist(&mut self) {
        if let Some(segment) = self.segments.get(self.listed) {
            self.discontinuities += u64::from(segment.discontinuities);
            self.listed += 1;
        }
    }

    /// Drops the oldest segment, which is not listed any more; returns its ticks.
    fn forget(&mut self) -> u64 {
        self.listed = self.listed.saturating_sub(1);
        let Some(segment) = self.segments.pop_front() else { return 0 };
        self.bytes = self.bytes.saturating_sub(segment.len());
        segment.duration
    }
}

/// What one rendition offers at one moment.
#[derive(Debug, Clone)]
pub struct View {
    /// Ticks per second.
    pub timescale: NonZeroU32,
    segments: Vec<Arc<Segment>>,
    listed: usize,
    /// Discontinuities that left the playlist.
    pub discontinuities: u64,
    next_msn: u64,
    next_part: u64,
    /// Nothing will be added.
    pub ended: bool,
}

/// What stands behind a name.
#[derive(Debug, Clone)]
pub enum Resource {
    /// One piece of bytes: an init segment or a part.
    Piece(Bytes),
    /// A complete segment.
    Segment(Arc<Segment>),
    /// The part that comes next: it will be there soon.
    Hinted,
    /// Gone, or never was.
    Unknown,
}

impl View {
    /// An empty one, before anything came.
    pub fn empty(timescale: NonZeroU32) -> Self {
        Self {
            timescale,
            segments: Vec::new(),
            listed: 0,
            discontinuities: 0,
            next_msn: 0,
            next_part: 0,
            ended: false,
        }
    }

    /// The segments that the playlist lists, oldest first.
    pub fn listed(&self) -> &[Arc<Segment>] {
        self.segments.get(self.listed..).unwrap_or_default()
    }

    /// Media sequence number of the first listed segment.
    pub fn media_sequence(&self) -> u64 {
        self.listed().first().map_or(self.next_msn, |segment| segment.msn)
    }

    /// Number of the part that comes next.
    pub const fn next_part(&self) -> u64 {
        self.next_part
    }

    /// How far it is, for the blocking decision.
    pub fn progress(&self) -> Progress {
        let parts = |segment: &Arc<Segment>| segment.parts.len() as u64;
        let (open, last) = match self.segments.as_slice() {
            [.., last, open] if !open.complete => (parts(open), parts(last)),
            [open] if !open.complete => (parts(open), 0),
            [.., last] => (0, parts(last)),
            [] => (0, 0),
        };
        let in_progress = self.segments.last().is_some_and(|segment| !segment.complete);
        Progress {
            open_msn: self.next_msn - u64::from(in_progress),
            open_parts: open,
            last_parts: last,
            ended: self.ended,
        }
    }

    /// An init segment by its number.
    pub fn init(&self, number: u32) -> Resource {
        let found = self.segments.iter().find(|segment| segment.init.number == number);
        found.map_or(Resource::Unknown, |segment| Resource::Piece(segment.init.data.clone()))
    }

    /// A complete segment by its media sequence number.
    pub fn segment(&self, msn: u64) -> Resource {
        let found = self.segments.iter().find(|segment| segment.msn == msn && segment.complete);
        found.map_or(Resource::Unknown, |segment| Resource::Segment(segment.clone()))
    }

    /// A part by its number.
    pub fn part(&self, number: u64) -> Resource {
        if number == self.next_part && !self.ended {
            return Resource::Hinted;
        }
        let parts = self.segments.iter().rev().flat_map(|segment| &segment.parts);
        let found = parts.into_iter().find(|part| part.number == number);
        found.map_or(Resource::Unknown, |part| Resource::Piece(part.media.data.clone()))
    }

    /// When the media of a part or segment was captured: its first sample, and the end of
    /// its last one. `None` of what has no time, or is gone.
    pub fn captured(&self, resource: &Resource) -> Option<(Utc, Utc)> {
        let (segment, before, ticks) = match resource {
            Resource::Segment(segment) => (segment, 0, segment.duration),
            Resource::Piece(bytes) => self.find_part(bytes)?,
            Resource::Hinted | Resource::Unknown => return None,
        };
        let at = |ticks| segment.program_date_time.offset_micros(self.micros(ticks));
        Some((at(before), at(before + ticks)))
    }

    /// When the newest part's media ends.
    pub fn edge(&self) -> Option<Utc> {
        let newest = self.segments.iter().rev().find(|segment| !segment.is_empty())?;
        Some(newest.program_date_time.offset_micros(self.micros(newest.duration)))
    }

    /// The part with these bytes: its segment, the ticks before it and its own.
    fn find_part(&self, bytes: &Bytes) -> Option<(&Arc<Segment>, u64, u64)> {
        self.segments.iter().rev().find_map(|segment| {
            let index = segment
                .parts
                .iter()
                .position(|part| std::ptr::eq(part.media.data.as_ptr(), bytes.as_ptr()))?;
            let (before, from) = segment.parts.split_at(index);
            let before = before.iter().map(|part| part.media.ticks).sum();
            Some((segment, before, from.first()?.media.ticks))
        })
    }

    fn micros(&self, ticks: u64) -> i64 {
        (u128::from(ticks) * 1_000_000 / u128::from(self.timescale.get())) as i64
    }

    /// Bits per second: the busiest listed segment and the mean. Segments in
    /// progress count only while there is no complete one.
    pub fn bandwidth(&self) -> Option<(u64, u64)> {
        let rate = |bytes: usize, ticks: u64| {
            let bits = bytes as u128 * 8 * u128::from(self.timescale.get());
            (bits / u128::from(ticks.max(1))) as u64
        };
        let complete = self.segments.iter().any(|segment| segment.complete);
        let counted = || self.segments.iter().filter(|s| s.complete == complete && !s.is_empty());
        let peak = counted().map(|s| rate(s.len(), s.duration)).max()?;
        let bytes = counted().map(|s| s.len()).sum();
        let ticks = counted().map(|s| s.duration).sum();
        Some((peak, rate(bytes, ticks)))
    }

    /// Samples per second over what is held.
    pub fn sample_rate(&self) -> Option<f64> {
        let parts = || self.segments.iter().flat_map(|segment| &segment.parts);
        let ticks: u64 = parts().map(|part| part.media.ticks).sum();
        let samples: u64 = parts().map(|part| u64::from(part.media.samples)).sum();
        (ticks > 0).then(|| samples as f64 * f64::from(self.timescale.get()) / ticks as f64)
    }

    /// The newest init segment.
    pub fn newest_init(&self) -> Option<&Arc<Init>> {
        self.segments.last().map(|segment| &segment.init)
    }
}
