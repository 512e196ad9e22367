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
use std::time::Duration;

use bytes::Bytes;

use super::blocking::Progress;
use super::cutter::PartMedia;
use super::segmenter::{Init, SegmentStart};
use crate::time::Utc;

/// A player that starts needs this many segments (Apple HLS authoring §8.11).
pub const MIN_LISTED: usize = 6;

/// Segments over which the sample rate is measured.
const RATE_SEGMENTS: usize = 8;

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
    /// Of its first segment with media.
    pub numbers: Numbers,
    /// Gaps before it, the oldest first.
    pub leading: Vec<Leading>,
    /// Discontinuities right before the first media; `None`: as its start says.
    pub breaks: Option<u32>,
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
    pub fn begin(&mut self, origin: &Origin, mut start: SegmentStart) {
        self.count_from(origin.numbers);
        start.discontinuities = origin.breaks.unwrap_or(start.discontinuities);
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

    /// Where another rendition begins to count whose first media begins at `start` and is
    /// of `numbers`: with up to `leading` gaps in place of the segments before it.
    pub fn origin_at(&self, numbers: Numbers, start: Utc, breaks: u32, leading: usize) -> Origin {
        let listed: Vec<_> = self.complete.iter().skip(self.listed).chain(&self.open).collect();
        let before = listed.partition_point(|segment| segment.msn < numbers.msn);
        let kept = listed.get(before.saturating_sub(leading)..before).unwrap_or_default();
        let next = kept.last().map(|last| last.msn + 1);
        // Without the one right before it, gaps would lead to nowhere.
        let kept = if next == Some(numbers.msn) { kept } else { &[] };
        let gap = |(index, segment): (usize, &&Arc<Segment>)| Leading {
            start: segment.program_date_time,
            micros: match kept.get(index + 1) {
                // It ends where the media begins, which may be late.
                None if breaks == 0 => {
                    let length = start.micros_since(segment.program_date_time);
                    u64::try_from(length).unwrap_or(0).min(self.micros(self.limits.floor) / 3)
                }
                _ => self.micros(segment.duration),
            },
            discontinuities: segment.discontinuities,
        };
        let earlier: u64 = kept.iter().map(|segment| u64::from(segment.discontinuities)).sum();
        Origin {
            numbers: Numbers {
                msn: numbers.msn,
                discontinuities: numbers.discontinuities.saturating_sub(earlier),
            },
            leading: kept.iter().enumerate().map(gap).collect(),
            breaks: Some(breaks),
        }
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

/// What one rendition offers at one moment.
#[derive(Debug, Clone)]
pub struct View {
    /// Ticks per second.
    pub timescale: NonZeroU32,
    complete: Arc<[Arc<Segment>]>,
    open: Option<Arc<Segment>>,
    listed: usize,
    /// Discontinuities that left the playlist.
    pub discontinuities: u64,
    next_msn: u64,
    next_part: u64,
    first_msn: u64,
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
    /// Gone, never was, or a gap.
    Unknown,
}

impl View {
    /// An empty one, before anything came, that will count from `numbers`.
    pub fn empty(timescale: NonZeroU32, numbers: Numbers) -> Self {
        Self {
            timescale,
            complete: Arc::new([]),
            open: None,
            listed: 0,
            discontinuities: numbers.discontinuities,
            next_msn: numbers.msn,
            next_part: 0,
            first_msn: numbers.msn,
            ended: false,
        }
    }

    /// The complete segments that the playlist lists, oldest first.
    pub fn listed_complete(&self) -> &[Arc<Segment>] {
        self.complete.get(self.listed..).unwrap_or_default()
    }

    /// The segment in progress; it is listed, too.
    pub const fn open(&self) -> Option<&Arc<Segment>> {
        self.open.as_ref()
    }

    /// The segments that the playlist lists, oldest first.
    #[cfg(test)]
    pub fn listed(&self) -> Vec<&Arc<Segment>> {
        self.listed_complete().iter().chain(&self.open).collect()
    }

    /// Media sequence number of the first listed segment.
    pub fn media_sequence(&self) -> u64 {
        let first = self.listed_complete().first().or(self.open.as_ref());
        first.map_or(self.next_msn, |segment| segment.msn)
    }

    /// Number of the part that comes next.
    pub const fn next_part(&self) -> u64 {
        self.next_part
    }

    /// How far it is, for the blocking decision.
    pub fn progress(&self) -> Progress {
        let parts = |segment: &Arc<Segment>| segment.parts.len() as u64;
        Progress {
            first_msn: self.first_msn,
            open_msn: self.next_msn - u64::from(self.open.is_some()),
            open_parts: self.open.as_ref().map_or(0, parts),
            last_parts: self.complete.last().map_or(0, parts),
            ended: self.ended,
        }
    }

    /// An init segment by its number.
    pub fn init(&self, number: u32) -> Resource {
        // Most ask for the newest, and few are held.
        let mut segments = self.open.iter().chain(self.complete.iter().rev());
        let found = segments.find(|segment| segment.init.number <= number);
        let found = found.filter(|segment| segment.init.number == number);
        found.map_or(Resource::Unknown, |segment| Resource::Piece(segment.init.data.clone()))
    }

    /// A complete segment by its media sequence number.
    pub fn segment(&self, msn: u64) -> Resource {
        let first = self.complete.first().map_or(0, |segment| segment.msn);
        let index = msn.checked_sub(first).and_then(|index| usize::try_from(index).ok());
        let found = index.and_then(|index| self.complete.get(index)).filter(|s| !s.gap);
        found.map_or(Resource::Unknown, |segment| Resource::Segment(segment.clone()))
    }

    /// A part by its number.
    pub fn part(&self, number: u64) -> Resource {
        if number == self.next_part && !self.ended {
            return Resource::Hinted;
        }
        let begun = |s: &Arc<Segment>| s.parts.first().is_none_or(|first| first.number <= number);
        let open = self.open.as_ref().filter(|open| !open.is_empty() && begun(open));
        let after = self.complete.partition_point(begun);
        let found = open.or_else(|| self.complete.get(after.checked_sub(1)?));
        let part = found.filter(|segment| !segment.gap).and_then(|segment| {
            let index = number.checked_sub(segment.parts.first()?.number)?;
            segment.parts.get(usize::try_from(index).ok()?)
        });
        part.map_or(Resource::Unknown, |part| Resource::Piece(part.media.data.clone()))
    }

    /// Bits per second: the peak segment bit rate (rfc8216bis §4.1: the most of any run
    /// of segments that lasts from 0.5 to 1.5 `target`) and the mean, over the media
    /// that is held. Before there is such a run, both are of all the media.
    pub fn bandwidth(&self, target: Duration) -> Option<(u64, u64)> {
        let rate = |bytes: u64, ticks: u64| {
            let bits = u128::from(bytes) * 8 * u128::from(self.timescale.get());
            (bits / u128::from(ticks.max(1))) as u64
        };
        let target = target.as_micros() * u128::from(self.timescale.get()) / 1_000_000;
        let (least, most) = ((target / 2) as u64, (target * 3 / 2) as u64);
        let sizes: Vec<(u64, u64)> = self.complete.iter().map(|s| s.size()).collect();
        let mut peak = None;
        for first in 0..sizes.len() {
            let (mut bytes, mut ticks) = (0, 0);
            // A gap is no part of any run.
            for (more, longer) in sizes.iter().skip(first).take_while(|(bytes, _)| *bytes > 0) {
                (bytes, ticks) = (bytes + more, ticks + longer);
                if ticks > most {
                    break;
                }
                peak = if ticks >= least { peak.max(Some(rate(bytes, ticks))) } else { peak };
            }
        }
        let open = self.open.as_ref().map(|segment| segment.size());
        let media = || sizes.iter().chain(&open).filter(|(bytes, _)| *bytes > 0);
        let ticks: u64 = media().map(|(_, ticks)| ticks).sum();
        let mean = rate(media().map(|(bytes, _)| bytes).sum(), ticks);
        (ticks > 0).then(|| (peak.unwrap_or(mean).max(mean), mean))
    }

    /// Samples per second over the newest media.
    pub fn sample_rate(&self) -> Option<f64> {
        let newest = self.open.iter().chain(self.complete.iter().rev());
        let newest = newest.filter(|segment| !segment.gap).take(RATE_SEGMENTS);
        let parts = newest.flat_map(|segment| &segment.parts).map(|part| &part.media);
        let (ticks, samples) =
            parts.fold((0, 0), |(t, n), part| (t + part.ticks, n + u64::from(part.samples)));
        (ticks > 0).then(|| samples as f64 * f64::from(self.timescale.get()) / ticks as f64)
    }

    /// The newest init segment.
    pub fn newest_init(&self) -> Option<&Arc<Init>> {
        self.open.as_ref().or(self.complete.last()).map(|segment| &segment.init)
    }
}

impl Segment {
    /// Bytes and ticks.
    fn size(&self) -> (u64, u64) {
        (self.len() as u64, self.duration)
    }
}
