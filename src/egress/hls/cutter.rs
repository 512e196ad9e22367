//! Samples of one rendition → parts → segments.
//!
//! The newest sample is held back until its successor tells how long it lasts;
//! decode times then have neither gaps nor overlaps. A part is cut *before* the
//! sample that would take it past PART-TARGET (rfc8216bis §4.4.3.7: no part is
//! longer), a segment where the caller says.
//!
//! What a part *lasts* is its share of the timeline, and that is what playlists
//! say: parts cover the time from the start of a segment to its end without a hole.
//! A sample that is long against a part (a shared screen that sends a frame a second)
//! is in the part in which it begins, with its whole duration; the parts after it
//! have no sample until the next one comes, and the picture stands meanwhile. Such a
//! part is a `moof` without a run, so that all of them can be fetched, and sums agree.
//!
//! In a gap there is no media: its parts have durations and no bytes.

use std::collections::VecDeque;

use bytes::Bytes;

use super::fmp4::{self, Sample};

/// A part reaches at least this share of PART-TARGET unless it is the last of
/// its segment (rfc8216bis §4.4.4.9), in percent.
const MIN_PART_PERCENT: u64 = 85;

/// One sample as it arrives, its duration not yet known.
#[derive(Debug, Clone)]
pub struct Input {
    /// Decode time on the media timeline, in ticks.
    pub time: u64,
    /// Presentation minus decode time, in ticks.
    pub composition_offset: i32,
    /// A decoder may start here.
    pub sync: bool,
    /// The coded bytes.
    pub data: Bytes,
}

/// A finished part.
#[derive(Debug, Clone)]
pub struct PartMedia {
    /// One `moof` + `mdat`; empty in a gap.
    pub data: Bytes,
    /// What a playlist says of it, in ticks; never more than PART-TARGET.
    pub duration: u64,
    /// The time that it covers, in ticks: the same.
    pub ticks: u64,
    /// Its first sample is a random access point.
    pub independent: bool,
    /// How many samples it has.
    pub samples: u32,
}

/// What the cutter produced, in order.
#[derive(Debug, Clone)]
pub enum Cut {
    /// A segment begins at this decode time, in ticks. A part of it follows.
    SegmentStarted(u64),
    /// The next part of the segment.
    Part(PartMedia),
    /// The segment is complete.
    SegmentEnded,
}

/// The segment in progress.
#[derive(Debug, Clone, Copy)]
pub struct Open {
    /// When it began, in ticks.
    pub start: u64,
    /// It has no media.
    pub gap: bool,
}

/// Cuts one rendition. Call [`Self::poll`] until `None` after each call.
pub struct Cutter {
    /// PART-TARGET in ticks.
    part_target: u64,
    /// Not every sample is a random access point: it is video.
    has_deltas: bool,
    /// `None` before the first segment and after the last.
    segment: Option<Open>,
    /// Samples of the part in progress, but for the newest.
    part: Vec<Input>,
    /// Where the part in progress begins on the timeline, in ticks.
    part_start: u64,
    /// Where the samples of `part` end, or those before them; past it the picture stands.
    end: u64,
    /// The newest sample, until its duration is known.
    held: Option<Input>,
    /// Duration of the newest complete sample: the guess for the last one.
    last_duration: u64,
    /// See [`Self::set_pace`].
    pace: u64,
    /// `mfhd` sequence number of the next fragment; wraps after years.
    sequence: u32,
    /// A handful per call, drained by the caller after each one.
    out: VecDeque<Cut>,
}

impl Cutter {
    /// A cutter that has seen nothing; PART-TARGET in ticks. `has_deltas`: only some
    /// samples are random access points.
    pub fn new(part_target: u64, has_deltas: bool) -> Self {
        Self {
            part_target,
            has_deltas,
            segment: None,
            part: Vec::new(),
            part_start: 0,
            end: 0,
            held: None,
            last_duration: 0,
            pace: 0,
            sequence: 1,
            out: VecDeque::new(),
        }
    }

    /// Begins the first segment at `time`.
    pub fn begin(&mut self, time: u64, gap: bool) {
        self.segment = Some(Open { start: time, gap });
        self.part_start = time;
        self.end = self.end.max(time);
        self.out.push_back(Cut::SegmentStarted(time));
    }

    /// Ends the segment at `time` and begins the next one there. `time` is neither
    /// before the part in progress nor before the end of the samples that are to be
    /// in the old segment; samples from it on are in the new one.
    pub fn split(&mut self, time: u64, gap: bool) {
        let stay = self.part.partition_point(|sample| sample.time < time);
        let later = self.part.split_off(stay);
        let held = self.held.take_if(|held| held.time >= time);
        if let Some(first) = later.first().or(held.as_ref()) {
            self.end = first.time;
        }
        self.end_segment(time);
        self.begin(time, gap);
        self.part = later;
        self.held = held;
        self.end = self.newest().unwrap_or(time);
    }

    /// How long a sample is said to last while its successor is awaited for longer
    /// than its part can wait. Too long does no harm: the successor replaces its end.
    pub const fn set_pace(&mut self, ticks: u64) {
        self.pace = ticks;
    }

    /// Takes the next sample; times must rise.
    pub fn push(&mut self, next: Input) {
        self.last_duration = next.time.saturating_sub(self.newest().unwrap_or(next.time));
        if let Some(held) = self.held.take() {
            self.append(held, next.time);
            let expected = self.end.saturating_add(self.last_duration);
            // The next sample will most likely not fit: waiting for it gains nothing. And
            // where a segment may turn out to begin, a part had better begin.
            let ends = expected > self.part_limit() || (next.sync && self.has_deltas);
            if ends && self.is_long_enough(self.end) {
                self.end_part(self.end);
            }
        } else {
            self.end = self.end.max(next.time);
            self.end_full_parts();
        }
        self.held = Some(next);
    }

    /// Time has passed without a sample: ends the part in progress at `time`, which
    /// is at most PART-TARGET after its start.
    pub fn stand(&mut self, time: u64) {
        if let Some(held) = self.held.take_if(|held| held.time < time) {
            self.end = time.max(held.time.saturating_add(self.pace));
            self.part.push(held);
        }
        self.end_part(time);
        self.end = self.newest().unwrap_or(time);
    }

    /// The segment in progress.
    pub const fn segment(&self) -> Option<Open> {
        self.segment
    }

    /// Where the part in progress begins: nothing before it can be changed.
    pub const fn part_start(&self) -> u64 {
        self.part_start
    }

    /// Time of the newest sample, while its duration is not known.
    pub fn newest(&self) -> Option<u64> {
        self.held.as_ref().map(|held| held.time)
    }

    /// No sample is in the part in progress.
    pub fn is_part_empty(&self) -> bool {
        self.part.is_empty() && self.held.is_none()
    }

    /// The earliest random access point at or after `time` before which a segment can
    /// still end.
    pub fn sync_from(&self, time: u64) -> Option<u64> {
        let start = self.segment?.start;
        let from = |sample: &&Input| sample.sync && sample.time >= time && sample.time > start;
        self.part.iter().chain(&self.held).find(from).map(|sample| sample.time)
    }

    /// The sample, or start of the part in progress, that is nearest to `time` and
    /// before which a segment can still end.
    pub fn nearest(&self, time: u64) -> Option<u64> {
        let start = self.segment?.start;
        let samples = self.part.iter().chain(&self.held).map(|sample| sample.time);
        let places = std::iter::once(self.part_start).chain(samples).filter(|at| *at > start);
        places.min_by_key(|at| at.abs_diff(time))
    }

    /// Releases the newest sample with a guessed duration and ends the segment.
    pub fn finish(&mut self) {
        let guess = self.last_duration.clamp(1, self.part_target);
        if let Some(held) = self.held.take() {
            let end = held.time + guess;
            self.append(held, end);
        }
        self.end_segment(if self.part.is_empty() { self.part_start } else { self.end });
    }

    /// The next product.
    pub fn poll(&mut self) -> Option<Cut> {
        self.out.pop_front()
    }

    const fn part_limit(&self) -> u64 {
        self.part_start + self.part_target
    }

    const fn is_long_enough(&self, end: u64) -> bool {
        end.saturating_sub(self.part_start) * 100 >= self.part_target * MIN_PART_PERCENT
    }

    fn append(&mut self, sample: Input, end: u64) {
        if end > self.part_limit() && self.is_long_enough(sample.time) {
            self.end_part(sample.time);
        }
        self.part.push(sample);
        self.end = end;
        if end > self.part_limit() {
            self.end_full_parts();
        }
    }

    /// Ends the parts that a long sample fills, or the lack of samples.
    fn end_full_parts(&mut self) {
        while self.end >= self.part_limit() {
            self.end_part(self.part_limit());
        }
    }

    /// Ends the segment at `time`; the newest sample lasts until then.
    fn end_segment(&mut self, time: u64) {
        if let Some(held) = self.held.take() {
            self.append(held, time);
        }
        while time > self.part_limit() {
            self.end_part(self.part_limit());
        }
        self.end = self.end.max(time);
        self.end_part(time);
        if self.segment.take().is_some() {
            self.out.push_back(Cut::SegmentEnded);
        }
    }

    /// Ends the part in progress at `time`; one of no length does not exist.
    fn end_part(&mut self, time: u64) {
        let ticks = time.saturating_sub(self.part_start);
        if ticks == 0 {
            return;
        }
        let start = std::mem::replace(&mut self.part_start, time);
        let inputs = std::mem::take(&mut self.part);
        let gap = self.segment.is_none_or(|segment| segment.gap);
        let mut part = PartMedia {
            data: Bytes::new(),
            duration: ticks,
            ticks,
            independent: inputs.first().is_some_and(|first| first.sync) && !gap,
            samples: inputs.len() as u32,
        };
        if !gap {
            let begins = inputs.first().map_or(start, |first| first.time);
            match fmp4::fragment(self.sequence, begins, ticks, &samples(inputs, self.end)) {
                Ok(data) => part.data = data,
                // Only a part of more than 2 GiB; nothing sensible can be served for it.
                Err(error) => tracing::warn!(%error, "a part was lost"),
            }
            self.sequence = self.sequence.wrapping_add(1);
        }
        self.out.push_back(Cut::Part(part));
    }
}

/// Each sample lasts until the next one, the last one until `end`.
fn samples(inputs: Vec<Input>, end: u64) -> Vec<Sample> {
    let times: Vec<u64> = inputs.iter().map(|sample| sample.time).chain([end]).collect();
    let lasts = times.windows(2).map(|pair| pair[1].saturating_sub(pair[0]));
    let sample = |(sample, duration): (Input, u64)| Sample {
        duration: u32::try_from(duration).unwrap_or(u32::MAX),
        composition_offset: sample.composition_offset,
        sync: sample.sync,
        data: sample.data,
    };
    inputs.into_iter().zip(lasts).map(sample).collect()
}
