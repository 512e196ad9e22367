//! Samples of one rendition → parts → segments.
//!
//! A sample's duration is the distance to the next one, so the newest sample is
//! held back until its successor arrives; decode times then have neither gaps
//! nor overlaps and part durations are exact. A part is cut *before* the sample
//! that would take it past PART-TARGET (rfc8216bis §4.4.3.7: no part is longer),
//! a segment when the caller says so or before the sample that would take it
//! past the limit.
//!
//! A sample that alone lasts longer than PART-TARGET (a shared screen that sends a
//! frame a second) keeps its duration in the media, so that players meet no hole.
//! Its part says PART-TARGET, which is less than it holds; its segment, which the
//! caller ends with it, says the truth. AVPlayer refuses longer parts.

use std::collections::VecDeque;

use bytes::Bytes;

use super::fmp4::{self, Sample};

/// A part reaches at least this share of PART-TARGET unless it is the last of
/// its segment (rfc8216bis §4.4.4.9), in percent.
const MIN_PART_PERCENT: u64 = 85;

/// The lengths to keep, in ticks of the rendition.
#[derive(Debug, Clone, Copy)]
pub struct CutRules {
    /// No part is longer.
    pub part_target: u64,
    /// No segment is longer.
    pub segment_limit: u64,
}

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
    /// One `moof` + `mdat`.
    pub data: Bytes,
    /// What a playlist says of it, in ticks; never more than PART-TARGET.
    pub duration: u64,
    /// Sum of its samples' durations, in ticks; more than `duration` only when one
    /// sample alone is longer than PART-TARGET.
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

/// Cuts one rendition. Call [`Self::poll`] until `None` after each call.
pub struct Cutter {
    rules: CutRules,
    held: Option<Input>,
    part: Vec<Sample>,
    part_start: u64,
    part_ticks: u64,
    /// Ticks in the segment so far, and when it began; `None` between segments.
    segment: Option<(u64, u64)>,
    /// Duration of the newest complete sample: the guess for the one that is held.
    last_duration: u64,
    /// `mfhd` sequence number of the next fragment; wraps after years.
    sequence: u32,
    /// At most four per call, drained by the caller after each one.
    out: VecDeque<Cut>,
}

impl Cutter {
    /// A cutter that has seen nothing.
    pub fn new(rules: CutRules) -> Self {
        Self {
            rules,
            held: None,
            part: Vec::new(),
            part_start: 0,
            part_ticks: 0,
            segment: None,
            last_duration: 0,
            sequence: 1,
            out: VecDeque::new(),
        }
    }

    /// Takes the next sample; times must rise. With `starts_segment` it is the
    /// first of a new segment.
    pub fn push(&mut self, next: Input, starts_segment: bool) {
        if let Some(held) = self.held.take() {
            let duration = next.time.saturating_sub(held.time).min(self.rules.segment_limit);
            self.append(held, duration);
            if starts_segment {
                self.end_segment();
            } else if self.would_cross(duration) && self.is_long_enough() {
                // The next sample will most likely not fit: waiting for it gains nothing.
                self.end_part();
            }
        }
        self.held = Some(next);
    }

    /// Releases the held sample with a guessed duration and ends the segment.
    pub fn finish(&mut self) {
        if let Some(held) = self.held.take() {
            self.append(held, self.last_duration.clamp(1, self.rules.part_target));
        }
        self.end_segment();
    }

    /// The next product.
    pub fn poll(&mut self) -> Option<Cut> {
        self.out.pop_front()
    }

    /// Ticks from the start of the segment that holds the newest sample to
    /// `time`; `None` when that sample begins the segment or there is none.
    pub fn elapsed(&self, time: u64) -> Option<u64> {
        self.segment_start().map(|start| time.saturating_sub(start))
    }

    /// When the segment of the newest sample began.
    pub fn segment_start(&self) -> Option<u64> {
        self.segment.map(|(_, start)| start).or(self.held.as_ref().map(|held| held.time))
    }

    /// Time of the newest sample.
    pub fn newest(&self) -> Option<u64> {
        self.held.as_ref().map(|held| held.time)
    }

    fn append(&mut self, sample: Input, duration: u64) {
        // A stretched sample does not fit in any part: it may as well complete this one.
        if duration <= self.rules.part_target && self.would_cross(duration) {
            self.end_part();
        }
        if self.segment.is_some_and(|(ticks, _)| ticks + duration > self.rules.segment_limit) {
            self.end_segment();
        }
        let (ticks, _) = self.segment.get_or_insert_with(|| {
            self.out.push_back(Cut::SegmentStarted(sample.time));
            (0, sample.time)
        });
        *ticks += duration;
        if self.part.is_empty() {
            self.part_start = sample.time;
        }
        self.part_ticks += duration;
        self.last_duration = duration;
        self.part.push(Sample {
            duration: u32::try_from(duration).unwrap_or(u32::MAX),
            composition_offset: sample.composition_offset,
            sync: sample.sync,
            data: sample.data,
        });
    }

    fn would_cross(&self, duration: u64) -> bool {
        !self.part.is_empty() && self.part_ticks + duration > self.rules.part_target
    }

    fn is_long_enough(&self) -> bool {
        self.part_ticks * 100 >= self.rules.part_target * MIN_PART_PERCENT
    }

    fn end_part(&mut self) {
        let Some(first) = self.part.first() else { return };
        let independent = first.sync;
        match fmp4::fragment(self.sequence, self.part_start, &self.part) {
            Ok(data) => self.out.push_back(Cut::Part(PartMedia {
                data,
                duration: self.part_ticks.min(self.rules.part_target),
                ticks: self.part_ticks,
                independent,
                samples: self.part.len() as u32,
            })),
            // Only a part of more than 2 GiB; nothing sensible can be served for it.
            Err(error) => tracing::warn!(%error, "a part was lost"),
        }
        self.sequence = self.sequence.wrapping_add(1);
        self.part.clear();
        self.part_ticks = 0;
    }

    fn end_segment(&mut self) {
        self.end_part();
        if self.segment.take().is_some() {
            self.out.push_back(Cut::SegmentEnded);
        }
    }
}
