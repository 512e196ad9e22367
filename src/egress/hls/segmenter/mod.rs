//! Frames of a stream → parts and segments of its renditions, on one timeline.
//!
//! **Renditions.** All simulcast layers of a video track, and sound. The *leading* one
//! is the first video rendition, in the order given, that has media at the moment; when
//! it stops another one leads, and when no video is left the sound does.
//!
//! **Numbers.** Players match renditions by media sequence number. Therefore a
//! rendition never decides alone to end a segment: *boundaries* are decided once, for
//! all, and every rendition makes exactly one segment for each, with media or as a gap,
//! with the boundary's discontinuities before it. So the same number is the same time
//! everywhere, and discontinuity sequences agree, whatever a rendition went through.
//! One that has had no media yet makes nothing; its first segment says which boundary
//! it belongs to ([`SegmentStart::number`]).
//!
//! **Boundaries** ([`grid`]) are the leading rendition's random access points nearest to
//! the segment target. They are asked for so far ahead as the source is known to take
//! ([`keyframes`]), of all layers at once. Every other layer begins at its first random
//! access point from the boundary on, sound at the frame nearest to it. A layer whose
//! random access point is late ends its segment at the limit, and its next one begins
//! without (counted: [`Counts::unaligned`]): those who play it see no difference,
//! where a gap would cost them seconds. The limit holds for all: TARGETDURATION is never
//! exceeded.
//!
//! **Gaps** ([`due`]). When no frame has come for a part, 150 ms and the rendition's usual
//! lateness ([`track::Track::bound`]), its media is missing; a part is told as late when
//! its last frame does not come. Its segment in progress
//! is completed (the picture stands, the sound is silent), and from the next boundary on
//! its segments are gaps, part by part as time passes. When nothing comes at all, that
//! boundary is made at once. A rendition returns at a boundary; when there is no picture
//! elsewhere, the returning one makes it. Sources that are slow by nature are known by
//! their pace: their picture stands, in parts without samples.
//!
//! **Clocks** ([`clock`]). Media time runs with arrival. A source whose RTP ticks jump
//! is placed anew; only another setting of the leading capture clock, or another
//! configuration of the decoder, is a discontinuity.

mod clock;
mod due;
mod grid;
mod keyframes;
mod track;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::cutter::{Cut, Input, PartMedia};
use super::sample::TrackConfig;
use crate::codec::Codec;
use crate::media::{Frame, LayerId};
use crate::time::Utc;
use clock::{Arrival, Finding};
use track::{Sampled, Track};

/// The lengths to aim for.
#[derive(Debug, Clone, Copy)]
pub struct SegmenterSettings {
    /// PART-TARGET.
    pub part_target: Duration,
    /// A segment ends at the random access point nearest to this length.
    pub segment_target: Duration,
    /// No segment is longer. At least 300 ms more than the target.
    pub segment_limit: Duration,
}

/// One layer that becomes a rendition.
#[derive(Debug, Clone, Copy)]
pub struct RenditionSource {
    /// Where its frames come from.
    pub layer: LayerId,
    /// Its codec; MP4 must be able to carry it.
    pub codec: Codec,
    /// Audio channels; 0 for video.
    pub channels: u8,
}

/// An init segment.
#[derive(Debug)]
pub struct Init {
    /// Counts the init segments of the rendition.
    pub number: u32,
    /// `ftyp` + `moov`.
    pub data: Bytes,
    /// What it describes.
    pub config: Arc<TrackConfig>,
}

/// How a segment begins.
#[derive(Debug, Clone)]
pub struct SegmentStart {
    /// Counts the boundaries of the stream, from 0: the same in all renditions. The
    /// first segment of a rendition may have any; then each has the next one.
    pub number: u64,
    /// Discontinuities of the stream before this segment, its own not counted.
    pub sequence: u64,
    /// UTC capture time of its first sample.
    pub program_date_time: Utc,
    /// How often the timeline or a configuration broke since the segment before.
    pub discontinuities: u32,
    /// What a decoder needs before it.
    pub init: Arc<Init>,
    /// There is no media in its time: its parts have durations and no bytes. A
    /// segment is a gap as a whole or not at all.
    pub gap: bool,
}

/// What the segmenter produced, in order. `usize`: index of the rendition.
#[derive(Debug)]
pub enum Event {
    /// Ask the source for a random access point.
    KeyframeWanted(LayerId),
    /// A segment begins; its first part follows.
    SegmentStarted(usize, SegmentStart),
    /// The next part of the segment.
    Part(usize, PartMedia),
    /// The segment is complete.
    SegmentEnded(usize),
}

/// What a segmenter could not do as it should.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Frames that could not be used.
    pub dropped: u64,
    /// Video segments that had to begin without a random access point.
    pub unaligned: u64,
    /// Segments that are gaps, of all renditions.
    pub gaps: u64,
}

/// Where all renditions begin a segment.
#[derive(Debug, Clone, Copy)]
pub struct Boundary {
    number: u64,
    /// Discontinuities before this one's.
    sequence: u64,
    /// In media time, microseconds.
    micros: u64,
    /// Discontinuities before the segment.
    breaks: u32,
    /// UTC of media time zero, from here on.
    epoch: Utc,
}

/// Cuts a stream. Call [`Self::poll`] until `None` after each call, and
/// [`Self::handle_timeout`] when [`Self::poll_timeout`] says.
pub struct Segmenter {
    settings: SegmenterSettings,
    tracks: Vec<Track>,
    /// `None` before the first frame.
    arrival: Option<Arrival>,
    /// UTC of media time zero.
    epoch: Utc,
    /// The newest boundary; `None` before the first.
    boundary: Option<Boundary>,
    /// The next boundary is a discontinuity…
    broken: bool,
    /// …and is not to wait for its time.
    hurry: bool,
    /// The boundary that is being decided is where the first rendition returns.
    returning: bool,
    counts: Counts,
    /// Some tens per call at most, drained by the caller after each one.
    out: VecDeque<Event>,
}

impl Segmenter {
    /// For these renditions, in the order of their indexes; the video that comes first
    /// leads. Sources whose codec MP4 cannot carry must have been left out; returns
    /// `None` when one is there all the same, or when there is no source at all.
    pub fn new(settings: SegmenterSettings, sources: &[RenditionSource]) -> Option<Self> {
        let tracks = sources.iter().map(|source| Track::new(settings, *source));
        let tracks = tracks.collect::<Option<Vec<_>>>().filter(|tracks| !tracks.is_empty())?;
        Some(Self {
            settings,
            tracks,
            arrival: None,
            epoch: Utc::default(),
            boundary: None,
            broken: false,
            hurry: false,
            returning: false,
            counts: Counts::default(),
            out: VecDeque::new(),
        })
    }

    /// Takes the next frame of a layer, in decode order. `after_loss`: frames
    /// between the source and here were lost.
    pub fn handle_frame(&mut self, layer: LayerId, frame: &Frame, after_loss: bool) {
        let Some(index) = self.tracks.iter().position(|t| t.source.layer == layer) else { return };
        let (time, now) = self.place(index, frame);
        self.run(now);
        let whole = !(after_loss || frame.discontinuity);
        let track = &mut self.tracks[index];
        let micros = track.micros(time);
        track.saw(micros, whole);
        if !self.take(index, time, frame, whole) {
            self.counts.dropped += 1;
            self.ask_if_useful(index, now);
        }
        self.ask_ahead(now);
    }

    /// When [`Self::handle_timeout`] is to be called, unless a frame comes before.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let (at, _) = self.next_due()?;
        Some(self.arrival?.instant(at))
    }

    /// Time has passed: completes parts whose frames did not come, and makes gaps.
    pub fn handle_timeout(&mut self, now: Instant) {
        if let Some(arrival) = self.arrival {
            let now = arrival.media(now);
            self.run(now);
            self.ask_ahead(now);
        }
    }

    /// The stream is over: everything that is held comes out.
    pub fn finish(&mut self) {
        for index in 0..self.tracks.len() {
            self.tracks[index].cutter.finish();
            self.drain(index);
            self.tracks[index].pending.clear();
        }
        self.arrival = None;
    }

    /// The next product.
    pub fn poll(&mut self) -> Option<Event> {
        self.out.pop_front()
    }

    /// What could not be done as it should, so far.
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    /// The frame's decode time on the media timeline, in ticks, and the media time
    /// that is due as it comes.
    fn place(&mut self, index: usize, frame: &Frame) -> (u64, u64) {
        let arrival = *self.arrival.get_or_insert_with(|| {
            self.epoch = whole_millis(frame.capture);
            Arrival::new(frame.received)
        });
        let now = arrival.media(frame.received);
        let leads = self.leader(now).is_none_or(|leader| leader == index);
        let track = &mut self.tracks[index];
        let (mut time, finding) = track.clock.place(frame, &arrival, self.epoch);
        if let Finding::ClockSet(shift) = finding {
            if leads {
                self.epoch = whole_millis(self.epoch.offset_micros(shift));
                (self.broken, self.hurry) = (true, true);
                self.tracks.iter_mut().for_each(|track| track.clock.expect_change(now));
            } else {
                track.clock.follow(frame.dts, shift, now);
                (time, _) = track.clock.place(frame, &arrival, self.epoch);
            }
        }
        let micros = self.tracks[index].micros(time);
        if let Some(arrival) = &mut self.arrival {
            arrival.heard(frame.received, micros);
        }
        (time, now.max(self.arrival.map_or(now, |arrival| arrival.media(frame.received))))
    }

    /// Uses a frame, now or when its rendition begins; false when that is not possible.
    fn take(&mut self, index: usize, time: u64, frame: &Frame, whole: bool) -> bool {
        let track = &mut self.tracks[index];
        let time = track.whole_millis(time);
        let micros = track.micros(time);
        let newest = track.stash.back().map(|newest| newest.input.time);
        if track.has_media() && track.used.is_some_and(|used| micros <= used)
            || newest.is_some_and(|newest| time <= newest)
        {
            return false;
        }
        if !track.is_audio() {
            if frame.keyframe {
                track.waiting = false;
            } else if !whole {
                track.waiting = true;
            }
            if track.waiting {
                track.stash.clear();
                return false;
            }
        }
        let Ok((data, config)) = track.sampler.sample(&frame.data, frame.keyframe) else {
            track.waiting = !track.is_audio();
            track.stash.clear();
            return false;
        };
        let offset = i128::from(frame.pts) - i128::from(frame.dts);
        let input = Input {
            time,
            composition_offset: i32::try_from(offset).unwrap_or(0),
            sync: frame.keyframe || track.is_audio(),
            data,
        };
        let asked = frame.keyframe && !track.is_audio() && {
            let interval = track.interval.unwrap_or(0);
            track.keys.came(micros, interval)
        };
        let sampled = Sampled { input, config };
        if track.has_media() {
            self.add(index, sampled, asked)
        } else {
            self.wait(index, sampled);
            true
        }
    }

    /// Moves what the cutter made to the output, with what only this level knows.
    fn drain(&mut self, index: usize) {
        let track = &mut self.tracks[index];
        let gap = track.is_gap();
        while let Some(cut) = track.cutter.poll() {
            let event = match cut {
                Cut::SegmentStarted(time) => {
                    let (Some(boundary), Some(init)) = (track.begins.take(), &track.init) else {
                        continue;
                    };
                    let micros = track.micros(time) as i64;
                    self.counts.gaps += u64::from(gap);
                    Event::SegmentStarted(
                        index,
                        SegmentStart {
                            number: boundary.number,
                            sequence: boundary.sequence,
                            program_date_time: boundary.epoch.offset_micros(micros),
                            discontinuities: boundary.breaks,
                            init: init.clone(),
                            gap,
                        },
                    )
                }
                Cut::Part(part) => Event::Part(index, part),
                Cut::SegmentEnded => Event::SegmentEnded(index),
            };
            self.out.push_back(event);
        }
    }

    /// Asks for a keyframe where one would end a loss: not where the rendition has to
    /// wait for a boundary anyway.
    fn ask_if_useful(&mut self, index: usize, now: u64) {
        let pictures = self.tracks.iter().any(|track| track.has_media() && !track.is_audio());
        let track = &self.tracks[index];
        if track.waiting && (track.has_media() || !track.pending.is_empty() || !pictures) {
            self.ask(index, now, false);
        }
    }

    fn ask(&mut self, index: usize, now: u64, for_boundary: bool) {
        let track = &mut self.tracks[index];
        let newest = track.seen.unwrap_or(now);
        if !track.is_audio() && track.keys.ask(now, newest, for_boundary) {
            self.out.push_back(Event::KeyframeWanted(track.source.layer));
        }
    }
}

/// Dates in playlists are whole milliseconds, and so is every sample's time: players
/// align renditions by dates, and one that finds itself a fraction of a millisecond
/// before a segment that it has may wait for ever (hls.js 1.7).
fn whole_millis(date: Utc) -> Utc {
    date.offset_micros(-date.micros_since(Utc::default()).rem_euclid(1_000))
}
