//! The window of one rendition: which segments and parts exist, which of them
//! the playlist lists, and which can still be fetched.
//!
//! The packager owns the [`Store`] and after each part publishes a [`View`] of
//! it: an immutable snapshot that shares the bytes, so that what a playlist names
//! can be fetched by whoever has seen that playlist (`h17`). Segments leave the
//! playlist by age and memory later, when no player that saw them listed will
//! still ask (rfc8216bis §6.2.2); a bound in bytes evicts earlier.
//!
//! A store outlives publications: numbers go on when the media begins anew
//! ([`Store::break_timeline`]), and where a rendition begins to count is given to it
//! ([`Origin`]). Segments without media are gaps: listed, never fetched (§4.4.4.7).

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::sync::Arc;

use bytes::Bytes;

use super::cutter::PartMedia;
use super::segmenter::{Init, SegmentStart};
pub use super::view::{Resource, View};
use crate::time::Utc;

/// A player that starts needs this many segments (Apple HLS authoring §8.11).
pub const MIN_LISTED: usize = 6;

/// A part that can be fetched, unless its segment is a gap.
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

/// Numbers that players must never see go back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Numbers {
    /// Media sequence number of the next segment.
    pub msn: u64,
    /// Discontinuities before it.
    pub discontinuities: u64,
}

/// Where a rendition begins to count, and what stands before its first media.
#[derive(Debug, Clone, Default)]
pub struct Origin {
    /// Of its first segment with media, and discontinuities before the first gap.
    pub numbers: Numbers,
    /// Gaps before it, the oldest first.
    pub leading: Vec<Leading>,
}

/// A gap before the first media.
#[derive(Debug, Clone, Copy)]
pub struct Leading {
    /// When it begins.
    pub start: Utc,
    /// How long it lasts, in microseconds.
    pub micros: u64,
    /// Discontinuities before it.
    pub discontinuities: u32,
}

/// owner: the packager's task.
pub struct Store {
    limits: StoreLimits,
    timescale: NonZeroU32,
    complete: VecDeque<Arc<Segment>>,
    /// The segment in progress.
    open: Option<Arc<Segment>>,
    /// `complete` as views share it…
    shared: Arc<[Arc<Segment>]>,
    /// …which is out of date.
    stale: bool,
    /// The first complete segment that the playlist lists, as an index.
    listed: usize,
    /// Ticks of all listed segments, and of those that are still held.
    listed_ticks: u64,
    grace_ticks: u64,
    discontinuities: u64,
    /// Of segments that ended before they had a part, and of timelines that broke;
    /// the next segment takes them over.
    inherited: u32,
    next_msn: u64,
    next_part: u64,
    /// The segmenter's newest init segment, and the same as it is numbered here.
    init: Option<(Arc<Init>, Arc<Init>)>,
    next_init: u32,
    /// The first segment with media; `None` before it.
    first_msn: Option<u64>,
    bytes: usize,
    ended: bool,
}

impl Store {
    /// An empty store.
    pub fn new(limits: StoreLimits, timescale: NonZeroU32) -> Self {
        Self {
            limits,
            timescale,
            complete: VecDeque::new(),
            open: None,
            shared: Arc::new([]),
            stale: false,
            listed: 0,
            listed_ticks: 0,
            grace_ticks: 0,
            discontinuities: 0,
            inherited: 0,
            next_msn: 0,
            next_part: 0,
            init: None,
            next_init: 0,
            first_msn: None,
            bytes: 0,
            ended: false,
        }
    }

    /// The numbers from which an empty store counts.
    pub fn count_from(&mut self, numbers: Numbers) {
        if !self.has_begun() {
            (self.next_msn, self.discontinuities) = (numbers.msn, numbers.discontinuities);
        }
    }

    /// A segment begins. One that is still in progress is completed first.
    pub fn start_segment(&mut self, start: SegmentStart) {
        self.end_segment();
        let init = self.renumber(start.init);
        self.first_msn.get_or_insert(self.next_msn);
        let discontinuities = start.discontinuities + std::mem::take(&mut self.inherited);
        self.open = Some(Arc::new(Segment {
            msn: self.next_msn,
            program_date_time: start.program_date_time,
            discontinuities,
            init,
            gap: start.gap,
            parts: Vec::new(),
            duration: 0,
            complete: false,
        }));
        self.next_msn += 1;
    }

    /// The first segment of an empty store begins, at `origin`. There are as many gaps
    /// before it as there are numbers for them.
    pub fn begin(&mut self, origin: &Origin, start: SegmentStart) {
        self.count_from(origin.numbers);
        let room = usize::try_from(self.next_msn).unwrap_or(usize::MAX);
        let skip = origin.leading.len().saturating_sub(room);
        let init = self.renumber(start.init.clone());
        self.first_msn = Some(self.next_msn);
        self.next_msn -= (origin.leading.len() - skip) as u64;
        let skipped = origin.leading.iter().take(skip);
        self.discontinuities += skipped.map(|gap| u64::from(gap.discontinuities)).sum::<u64>();
        self.stale = true;
        for leading in origin.leading.iter().skip(skip) {
            let duration = self.ticks(leading.micros);
            self.complete.push_back(Arc::new(Segment {
                msn: self.next_msn,
                program_date_time: leading.start,
                discontinuities: leading.discontinuities,
                init: init.clone(),
                gap: true,
                parts: Vec::new(),
                duration,
                complete: true,
            }));
            self.listed_ticks += duration;
            self.next_msn += 1;
        }
        self.start_segment(start);
    }

    /// Adds a part to the segment in progress; without one it is ignored.
    pub fn add_part(&mut self, media: PartMedia) {
        let Some(segment) = &mut self.open else { return };
        self.bytes += media.data.len();
        self.listed_ticks += media.ticks;
        let segment = Arc::make_mut(segment);
        segment.duration += media.ticks;
        segment.parts.push(Part { number: self.next_part, media });
        self.next_part += 1;
        self.evict();
    }

    /// A gap begins at `at`; nothing happens before the first segment of all.
    pub fn start_gap(&mut self, at: Utc) {
        if let Some((init, _)) = self.init.clone() {
            let start = SegmentStart {
                number: 0,
                sequence: 0,
                program_date_time: at,
                discontinuities: 0,
                init,
                gap: true,
            };
            self.start_segment(start);
        }
    }

    /// Adds gap parts of at most `part` ticks until `to`; a segment in progress that
    /// would reach `limit` ticks is completed, and the next one begun. Nothing happens
    /// while there is media in progress, or before the first of all.
    pub fn extend_gap(&mut self, to: Utc, part: u64, limit: u64) {
        while let Some(edge) = self.edge() {
            if to <= edge || self.open.as_ref().is_some_and(|open| !open.gap) {
                return;
            }
            if self.open.as_ref().is_none_or(|open| open.duration >= limit) {
                self.start_gap(edge);
            }
            let Some(open) = &self.open else { return };
            let end = self.ticks(to.micros_since(open.program_date_time).unsigned_abs());
            let left = limit.saturating_sub(open.duration);
            let ticks = end.saturating_sub(open.duration).min(part).min(left);
            if ticks == 0 {
                return;
            }
            self.add_part(PartMedia {
                data: Bytes::new(),
                duration: ticks,
                ticks,
                independent: false,
                samples: 0,
            });
        }
    }

    /// The segment in progress is complete.
    pub fn end_segment(&mut self) {
        match self.open.take() {
            Some(segment) if segment.is_empty() => {
                self.inherited += segment.discontinuities;
                self.next_msn -= 1;
            }
            Some(mut segment) => {
                Arc::make_mut(&mut segment).complete = true;
                self.complete.push_back(segment);
                self.stale = true;
            }
            None => {}
        }
        self.evict();
    }

    /// The media before the next segment and the media after it are of different
    /// timelines, so often.
    pub fn break_timeline(&mut self, breaks: u32) {
        self.inherited += breaks;
    }

    /// Whether the next segment begins with a discontinuity in any case.
    pub const fn is_broken(&self) -> bool {
        self.inherited > 0
    }

    /// Nothing will be added.
    pub fn end(&mut self) {
        self.end_segment();
        self.ended = true;
    }

    /// Whether anything was ever in it.
    pub const fn has_begun(&self) -> bool {
        self.first_msn.is_some()
    }

    /// Whether there is a complete segment with media.
    pub fn has_segment(&self) -> bool {
        self.complete.back().is_some_and(|segment| !segment.is_empty())
    }

    /// How long the media is that it lists, gaps after its beginning included.
    pub fn media_micros(&self) -> u64 {
        let listed = self.complete.iter().skip(self.listed).chain(&self.open);
        self.micros(listed.filter(|s| !s.is_empty()).map(|segment| segment.duration).sum())
    }

    /// Where the newest segment ends, on the UTC clock.
    pub fn edge(&self) -> Option<Utc> {
        let newest = self.open.as_ref().or(self.complete.back())?;
        let micros = self.micros(newest.duration);
        Some(newest.program_date_time.offset_micros(i64::try_from(micros).unwrap_or(i64::MAX)))
    }

    /// The newest segment.
    pub fn newest(&self) -> Option<&Segment> {
        self.open.as_ref().or(self.complete.back()).map(|newest| &**newest)
    }

    /// The segment in progress.
    pub fn open(&self) -> Option<&Segment> {
        self.open.as_deref()
    }

    /// When the oldest listed segment begins.
    pub fn oldest_listed(&self) -> Option<Utc> {
        let oldest = self.complete.get(self.listed).or(self.open.as_ref())?;
        Some(oldest.program_date_time)
    }

    /// The numbers of the segment after the newest.
    pub fn numbers(&self) -> Numbers {
        let listed = self.complete.iter().skip(self.listed).chain(&self.open);
        let breaks: u64 = listed.map(|segment| u64::from(segment.discontinuities)).sum();
        let discontinuities = self.discontinuities + breaks + u64::from(self.inherited);
        Numbers { msn: self.next_msn, discontinuities }
    }

    /// Where another rendition begins to count whose first media is segment `msn`, of
    /// `start`, after `discontinuities`, `breaks` of them its own: with up to `leading`
    /// gaps in place of the segments that are listed here before it.
    pub fn origin_for(
        &self,
        msn: u64,
        start: Utc,
        (discontinuities, breaks): (u64, u32),
        leading: usize,
    ) -> Origin {
        let listed = self.complete.iter().skip(self.listed).chain(&self.open);
        let before: Vec<_> = listed.filter(|segment| segment.msn < msn).collect();
        // Only an unbroken row of segments can stand before it.
        let unbroken = before.last().is_some_and(|last| last.msn + 1 == msn);
        let first = if unbroken { before.len().saturating_sub(leading) } else { before.len() };
        let gap = |segment: &&Arc<Segment>| Leading {
            start: segment.program_date_time,
            micros: self.micros(segment.duration),
            discontinuities: segment.discontinuities,
        };
        let mut leading: Vec<_> = before.iter().skip(first).map(gap).collect();
        if let Some(last) = leading.last_mut().filter(|_| breaks == 0) {
            // It ends where the media begins, which may be late.
            let length = u64::try_from(start.micros_since(last.start)).unwrap_or(0);
            last.micros = length.min(self.micros(self.limits.floor) / 3);
        }
        let earlier: u64 = leading.iter().map(|gap| u64::from(gap.discontinuities)).sum();
        let discontinuities = discontinuities.saturating_sub(earlier + u64::from(breaks));
        Origin { numbers: Numbers { msn, discontinuities }, leading }
    }

    /// The state as readers get it.
    pub fn view(&self) -> View {
        View {
            timescale: self.timescale,
            complete: self.shared.clone(),
            open: self.open.clone(),
            listed: self.listed,
            discontinuities: self.discontinuities,
            next_msn: self.next_msn,
            next_part: self.next_part,
            first_msn: self.first_msn.unwrap_or(self.next_msn),
            ended: self.ended,
        }
    }

    /// The newest part as a rendition report names it: its segment and its index there.
    pub fn newest_part(&self) -> Option<(u64, usize)> {
        let mut newest = self.open.iter().chain(self.complete.iter().rev());
        let newest = newest.find(|segment| !segment.is_empty())?;
        Some((newest.msn, newest.parts.len() - 1))
    }

    /// Init segments are counted over publications, as everything is.
    fn renumber(&mut self, init: Arc<Init>) -> Arc<Init> {
        if let Some((theirs, ours)) = &self.init
            && (Arc::ptr_eq(theirs, &init) || Arc::ptr_eq(ours, &init))
        {
            return ours.clone();
        }
        let number = self.next_init;
        self.next_init += 1;
        let ours = if init.number == number {
            init.clone()
        } else {
            Arc::new(Init { number, data: init.data.clone(), config: init.config.clone() })
        };
        self.init = Some((init, ours.clone()));
        ours
    }

    fn micros(&self, ticks: u64) -> u64 {
        (u128::from(ticks) * 1_000_000 / u128::from(self.timescale.get())) as u64
    }

    /// Rounded up, so that an end given in microseconds is reached.
    fn ticks(&self, micros: u64) -> u64 {
        (u128::from(micros) * u128::from(self.timescale.get())).div_ceil(1_000_000) as u64
    }

    fn evict(&mut self) {
        while let Some(oldest) = self.complete.get(self.listed) {
            let rest = self.listed_ticks - oldest.duration;
            let enough = self.complete.len() - self.listed > MIN_LISTED;
            if rest < self.limits.window || rest < self.limits.floor || !enough {
                break;
            }
            self.unlist();
        }
        while self.grace_ticks > self.limits.grace && self.listed > 0 {
            self.forget();
        }
        let open = usize::from(self.open.is_some());
        while self.bytes > self.limits.max_bytes && self.complete.len() + open > 1 {
            if self.listed == 0 {
                self.unlist();
            }
            self.forget();
        }
        if std::mem::take(&mut self.stale) {
            self.shared = self.complete.iter().cloned().collect();
        }
    }

    /// Takes the oldest listed segment off the playlist.
    fn unlist(&mut self) {
        if let Some(segment) = self.complete.get(self.listed) {
            self.discontinuities += u64::from(segment.discontinuities);
            self.listed_ticks -= segment.duration;
            self.grace_ticks += segment.duration;
            self.listed += 1;
        }
    }

    /// Drops the oldest segment, which is not listed any more.
    fn forget(&mut self) {
        if let Some(segment) = self.complete.pop_front() {
            self.listed = self.listed.saturating_sub(1);
            self.grace_ticks = self.grace_ticks.saturating_sub(segment.duration);
            self.bytes = self.bytes.saturating_sub(segment.len());
            self.stale = true;
        }
    }
}

impl Segment {
    /// Bytes and ticks.
    pub(super) fn size(&self) -> (u64, u64) {
        (self.len() as u64, self.duration)
    }
}
