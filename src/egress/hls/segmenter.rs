//! Frames of a stream → parts and segments of its renditions, on one timeline.
//!
//! The first random access point of the *leading* rendition (the video, or the
//! audio when there is no video) is time zero; its capture time ties the
//! timeline to UTC. Each rendition is anchored there once, through the capture
//! time of its own first frame, and then runs on its RTP ticks: players need
//! smooth durations more than they need the clocks of a source to agree to the
//! millisecond. Only a jump (a hole that no segment can cover, a timestamp that goes
//! back, a capture clock that was set) anchors all renditions anew, with a
//! discontinuity. In a shorter hole the picture before it stands: it is the last of
//! its segment, stretched.
//!
//! Segments of the leading rendition begin at keyframes. Browsers send none of
//! their own accord, so one is asked for shortly before each boundary; when it is
//! late the segment ends at its limit and the next one begins as soon as it
//! comes. The other renditions follow the leading one's boundaries.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::cutter::{Cut, CutRules, Cutter, Input, PartMedia};
use super::fmp4;
use super::sample::{Sampler, TrackConfig};
use crate::codec::{Codec, MediaKind};
use crate::media::{Frame, LayerId};
use crate::time::Utc;

/// A capture time this far from the timeline is a jump…
const MAX_DRIFT_MICROS: u64 = 1_000_000;

/// …when it stays there for so many frames.
const DRIFTING_FRAMES: u32 = 30;

/// A rendition whose first capture time is this far from the leading one's newest
/// has a clock of its own: it is anchored by arrival instead.
const MAX_SKEW_MICROS: u64 = 10_000_000;

/// A hole in the sound up to this long is filled with silence.
const MAX_SILENCE: Duration = Duration::from_secs(10);

/// 20 ms of silence in Opus (RFC 6716 §3.1: CELT, full band, one frame).
const OPUS_SILENCE: &[u8] = &[0xf8, 0xff, 0xfe];

/// Length of [`OPUS_SILENCE`] in ticks.
const OPUS_SILENCE_TICKS: u64 = 960;

/// Keyframe requests of one layer are at least this far apart.
const KEYFRAME_INTERVAL: Duration = Duration::from_millis(300);

/// Boundaries that a rendition may be behind the leading one; past it the
/// oldest is forgotten, and the rendition's own limit ends the segment.
const MAX_BOUNDARIES: usize = 8;

/// The lengths to aim for.
#[derive(Debug, Clone, Copy)]
pub struct SegmenterSettings {
    /// PART-TARGET.
    pub part_target: Duration,
    /// A segment ends at the first keyframe near this length.
    pub segment_target: Duration,
    /// No segment reaches this length.
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
    /// UTC capture time of its first sample.
    pub program_date_time: Utc,
    /// How often the timeline or the configuration broke since the segment before.
    pub discontinuities: u32,
    /// What a decoder needs before it.
    pub init: Arc<Init>,
    /// Nothing was captured in its time: its parts have durations and no bytes. A
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

/// Where the leading rendition ended a segment, for the others to follow.
#[derive(Clone, Copy)]
struct Boundary {
    micros: u64,
    discontinuity: bool,
}

impl Boundary {
    fn breaks(self) -> u32 {
        u32::from(self.discontinuity)
    }
}

/// Ties a rendition's RTP ticks to the media timeline.
#[derive(Clone, Copy)]
struct Anchor {
    /// Decode time of the first frame, in RTP ticks…
    rtp: u64,
    /// …the media time that it stands for, in the same ticks…
    media: u64,
    /// …and when it was captured.
    capture: Utc,
}

struct Track {
    source: RenditionSource,
    timescale: NonZeroU32,
    sampler: Sampler,
    cutter: Cutter,
    init: Option<Arc<Init>>,
    /// Breaks before the next segment to begin. A count, because renditions must have
    /// the same number of them even when one has no segment between two.
    discontinuities: u32,
    anchor: Option<Anchor>,
    /// No frame is taken before a random access point.
    waiting: bool,
    asked: Option<Instant>,
    boundaries: VecDeque<Boundary>,
    drifting: u32,
    /// The segment in progress did not begin with a random access point.
    realign: bool,
    /// The very first segment is complete.
    began: bool,
}

/// Cuts a stream. Call [`Self::poll`] until `None` after each call.
pub struct Segmenter {
    settings: SegmenterSettings,
    tracks: Vec<Track>,
    leader: usize,
    /// UTC of media time zero; `None` until the leader's first random access point.
    epoch: Option<Utc>,
    /// Media time in microseconds at which the next epoch begins.
    resume: u64,
    dropped: u64,
    /// A handful per call, drained by the caller after each one.
    out: VecDeque<Event>,
}

impl Segmenter {
    /// For these renditions, in the order of their indexes. Sources whose codec
    /// MP4 cannot carry must have been left out; returns `None` when one is
    /// there all the same, or when there is no source at all.
    pub fn new(settings: SegmenterSettings, sources: &[RenditionSource]) -> Option<Self> {
        let leader = sources
            .iter()
            .position(|source| source.codec.kind() == MediaKind::Video)
            .or(if sources.is_empty() { None } else { Some(0) })?;
        let tracks = sources
            .iter()
            .map(|source| Track::new(settings, *source))
            .collect::<Option<Vec<_>>>()?;
        Some(Self {
            settings,
            tracks,
            leader,
            epoch: None,
            resume: 0,
            dropped: 0,
            out: VecDeque::new(),
        })
    }

    /// Takes the next frame of a layer, in decode order. `after_loss`: frames
    /// between the source and here were lost.
    pub fn handle_frame(&mut self, layer: LayerId, frame: &Frame, after_loss: bool) {
        let Some(index) = self.tracks.iter().position(|t| t.source.layer == layer) else { return };
        if !self.is_decodable(index, frame, after_loss) {
            self.dropped += 1;
            self.ask(index, frame.received);
            return;
        }
        let track = &mut self.tracks[index];
        let Ok((data, config)) = track.sampler.sample(&frame.data, frame.keyframe) else {
            track.waiting = true;
            self.dropped += 1;
            self.ask(index, frame.received);
            return;
        };
        let Some(time) = self.place(index, frame) else {
            self.dropped += 1;
            return;
        };
        let offset = i128::from(frame.pts) - i128::from(frame.dts);
        let input = Input {
            time,
            composition_offset: i32::try_from(offset).unwrap_or(0),
            sync: frame.keyframe || self.tracks[index].is_audio(),
            data,
        };
        self.cut(index, input, &config);
        self.ask_before_boundary(index, time, frame.received);
    }

    /// When [`Self::handle_timeout`] is due.
    pub const fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// Nothing may have come for a while.
    pub const fn handle_timeout(&mut self, _now: Instant) {}

    /// The stream is over: everything that is held comes out.
    pub fn finish(&mut self) {
        for index in 0..self.tracks.len() {
            self.tracks[index].cutter.finish();
            self.drain(index);
        }
    }

    /// The next product.
    pub fn poll(&mut self) -> Option<Event> {
        self.out.pop_front()
    }

    /// Frames that could not be used so far.
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Whether a decoder could take this frame after those before it.
    fn is_decodable(&mut self, index: usize, frame: &Frame, after_loss: bool) -> bool {
        let track = &mut self.tracks[index];
        if track.is_audio() {
            return true;
        }
        if frame.keyframe {
            track.waiting = false;
        } else if frame.discontinuity || after_loss {
            track.waiting = true;
        }
        !track.waiting
    }

    /// The frame's decode time on the media timeline, or `None` to drop it.
    fn place(&mut self, index: usize, frame: &Frame) -> Option<u64> {
        if self.is_jump(index, frame) {
            self.restart();
            if !self.tracks[index].is_audio() && !frame.keyframe {
                self.ask(index, frame.received);
                return None;
            }
            self.tracks[index].waiting = false;
        }
        if self.epoch.is_none() && index == self.leader {
            self.epoch = Some(frame.capture.offset_micros(-(self.resume as i64)));
        }
        let epoch = self.epoch?;
        if let Some(Anchor { rtp, media, .. }) = self.tracks[index].anchor {
            return Some(media + frame.dts.checked_sub(rtp)?);
        }
        let leader = &self.tracks[self.leader];
        let now = leader.cutter.newest().map(|newest| leader.micros(newest) as i64);
        let captured = frame.capture.micros_since(epoch);
        let skewed = |now: &i64| captured.abs_diff(*now) > MAX_SKEW_MICROS;
        let micros = u64::try_from(now.filter(skewed).unwrap_or(captured)).ok()?;
        if micros < self.resume {
            return None;
        }
        let track = &mut self.tracks[index];
        let media = track.ticks(micros);
        track.anchor = Some(Anchor { rtp: frame.dts, media, capture: frame.capture });
        Some(media)
    }

    /// Whether the timeline of the rendition breaks before this frame.
    fn is_jump(&mut self, index: usize, frame: &Frame) -> bool {
        let longest_picture = self.settings.segment_limit;
        let track = &mut self.tracks[index];
        let (Some(anchor), Some(newest)) = (track.anchor, track.cutter.newest()) else {
            return false;
        };
        let elapsed = i128::from(frame.dts) - i128::from(anchor.rtp);
        let step = i128::from(anchor.media) + elapsed - i128::from(newest);
        let longest = if track.is_audio() { MAX_SILENCE } else { longest_picture };
        let hole = track.ticks(longest.as_micros() as u64);
        let back = i128::from(track.timescale.get());
        let elapsed = u64::try_from(elapsed).map_or(0, |elapsed| track.micros(elapsed));
        let drift = frame.capture.micros_since(anchor.capture).saturating_sub(elapsed as i64);
        let drifts = drift.unsigned_abs() > MAX_DRIFT_MICROS;
        track.drifting = if drifts { track.drifting + 1 } else { 0 };
        step > i128::from(hole) || step < -back || track.drifting > DRIFTING_FRAMES
    }

    /// Ends everything in progress; the leader's next random access point begins a new timeline.
    fn restart(&mut self) {
        for index in 0..self.tracks.len() {
            let track = &mut self.tracks[index];
            let newest = track.cutter.newest();
            track.cutter.finish();
            track.anchor = None;
            track.drifting = 0;
            let unmet: u32 = track.boundaries.drain(..).map(Boundary::breaks).sum();
            track.waiting = !track.is_audio();
            let end = newest.map(|newest| track.micros(newest)).unwrap_or(0);
            // One part of slack: the released samples end within it.
            let end = end + self.settings.part_target.as_micros() as u64;
            self.resume = self.resume.max(end);
            self.drain(index);
            self.tracks[index].discontinuities += 1 + unmet;
            self.tracks[index].realign = false;
        }
        self.epoch = None;
    }

    /// Hands a placed sample to the cutter and decides whether a segment begins.
    fn cut(&mut self, index: usize, input: Input, config: &Arc<TrackConfig>) {
        let track = &mut self.tracks[index];
        if track.cutter.newest().is_some_and(|newest| input.time <= newest) {
            self.dropped += 1;
            return;
        }
        track.fill_silence(input.time, self.settings.part_target);
        let changed = track.init.as_ref().is_some_and(|init| !Arc::ptr_eq(&init.config, config));
        let (starts, breaks) = if index == self.leader {
            (changed || track.leads_boundary(&input, self.settings), u32::from(changed))
        } else {
            track.follows_boundary(input.time, self.settings.part_target)
        };
        let (time, sync) = (input.time, input.sync);
        track.cutter.push(input, starts || changed);
        self.drain(index);
        let track = &mut self.tracks[index];
        track.discontinuities += breaks;
        if changed || track.init.is_none() {
            track.set_init(config);
        }
        if starts {
            track.realign = !sync;
        }
        if changed && index != self.leader {
            self.tracks.iter_mut().for_each(|track| track.discontinuities += 1);
        }
        if starts && index == self.leader {
            let micros = self.tracks[index].micros(time);
            self.announce(index, Boundary { micros, discontinuity: changed });
        }
    }

    fn announce(&mut self, leader: usize, boundary: Boundary) {
        for (index, track) in self.tracks.iter_mut().enumerate() {
            if index != leader {
                if track.boundaries.len() == MAX_BOUNDARIES {
                    let forgotten = track.boundaries.pop_front();
                    track.discontinuities += forgotten.map_or(0, Boundary::breaks);
                }
                track.boundaries.push_back(boundary);
            }
        }
    }

    /// Moves what the cutter made to the output, with what only this level knows.
    fn drain(&mut self, index: usize) {
        let track = &mut self.tracks[index];
        while let Some(cut) = track.cutter.poll() {
            let event = match cut {
                Cut::SegmentStarted(time) => {
                    let (Some(init), Some(epoch)) = (track.init.clone(), self.epoch) else {
                        continue;
                    };
                    let micros = track.micros(time) as i64;
                    Event::SegmentStarted(
                        index,
                        SegmentStart {
                            program_date_time: epoch.offset_micros(micros),
                            discontinuities: std::mem::take(&mut track.discontinuities),
                            init,
                            gap: false,
                        },
                    )
                }
                Cut::Part(part) => Event::Part(index, part),
                Cut::SegmentEnded => {
                    track.realign = true;
                    track.began = true;
                    Event::SegmentEnded(index)
                }
            };
            self.out.push_back(event);
        }
    }

    fn ask_before_boundary(&mut self, index: usize, time: u64, now: Instant) {
        let track = &self.tracks[index];
        if track.is_audio() {
            return;
        }
        let due = track.ticks(self.settings.due(track.began).as_micros() as u64);
        if track.realign || track.cutter.elapsed(time).is_some_and(|elapsed| elapsed >= due) {
            self.ask(index, now);
        }
    }

    fn ask(&mut self, index: usize, now: Instant) {
        let track = &mut self.tracks[index];
        let due = track
            .asked
            .is_none_or(|asked| now.saturating_duration_since(asked) >= KEYFRAME_INTERVAL);
        if due && !track.is_audio() {
            track.asked = Some(now);
            self.out.push_back(Event::KeyframeWanted(track.source.layer));
        }
    }
}

impl SegmenterSettings {
    /// When in a segment a keyframe is asked for, and from when on it ends the
    /// segment: a round trip to the source and a frame or two in its encoder
    /// before the target. The very first segment aims at a single part, because
    /// hls.js plays nothing before it sees a complete segment.
    fn due(&self, began: bool) -> Duration {
        let target = if began { self.segment_target } else { self.part_target };
        target - Duration::from_millis(250).min(target / 4)
    }
}

impl Track {
    fn new(settings: SegmenterSettings, source: RenditionSource) -> Option<Self> {
        let timescale = NonZeroU32::new(source.codec.clock_rate())?;
        let ticks = |d: Duration| micros_to_ticks(d.as_micros() as u64, timescale);
        let rules = CutRules {
            part_target: ticks(settings.part_target),
            segment_limit: ticks(settings.segment_limit),
        };
        Some(Self {
            source,
            timescale,
            sampler: Sampler::new(source.codec, source.channels)?,
            cutter: Cutter::new(rules),
            init: None,
            discontinuities: 0,
            anchor: None,
            waiting: source.codec.kind() == MediaKind::Video,
            asked: None,
            boundaries: VecDeque::new(),
            drifting: 0,
            realign: false,
            began: false,
        })
    }

    const fn is_audio(&self) -> bool {
        matches!(self.source.codec.kind(), MediaKind::Audio)
    }

    fn ticks(&self, micros: u64) -> u64 {
        micros_to_ticks(micros, self.timescale)
    }

    fn micros(&self, ticks: u64) -> u64 {
        (u128::from(ticks) * 1_000_000 / u128::from(self.timescale.get())) as u64
    }

    /// For the leading rendition: does a segment begin with this sample?
    fn leads_boundary(&self, input: &Input, settings: SegmenterSettings) -> bool {
        let Some(elapsed) = self.cutter.elapsed(input.time) else { return false };
        if self.stretches(input.time, settings.part_target) {
            return true;
        }
        if !input.sync {
            return false;
        }
        // A keyframe may be early, because it was asked for ahead of the boundary;
        // sound has a random access point everywhere and need not be.
        let due = match (self.is_audio(), self.began) {
            (true, true) => settings.segment_target,
            (true, false) => settings.part_target,
            (false, began) => settings.due(began),
        };
        let due = self.ticks(due.as_micros() as u64);
        elapsed >= due || (self.realign && !self.is_audio() && elapsed > 0)
    }

    /// Whether the sample before `time` lasts longer than a part may say.
    fn stretches(&self, time: u64, part_target: Duration) -> bool {
        let longest = self.ticks(part_target.as_micros() as u64);
        self.cutter.newest().is_some_and(|newest| time.saturating_sub(newest) > longest)
    }

    /// For the others: does a segment begin here, and how many breaks are before it?
    fn follows_boundary(&mut self, time: u64, part_target: Duration) -> (bool, u32) {
        let mut starts = (false, 0);
        while let Some(boundary) = self.boundaries.front().copied() {
            let at = self.ticks(boundary.micros);
            if time < at {
                break;
            }
            self.boundaries.pop_front();
            // The rendition's own limit may have ended the segment just before.
            let slack = self.ticks(part_target.as_micros() as u64);
            let fresh = self.cutter.segment_start().is_some_and(|start| at < start + slack);
            starts.0 |= boundary.discontinuity || !fresh;
            starts.1 += boundary.breaks();
        }
        starts
    }

    fn set_init(&mut self, config: &Arc<TrackConfig>) {
        let number = self.init.as_ref().map_or(0, |init| init.number + 1);
        match fmp4::init_segment(self.source.codec.kind(), self.timescale, config) {
            Ok(data) => self.init = Some(Arc::new(Init { number, data, config: config.clone() })),
            Err(error) => tracing::warn!(%error, "no init segment"),
        }
    }

    /// Covers a long hole in the sound; short ones stretch the sample before them.
    fn fill_silence(&mut self, until: u64, part_target: Duration) {
        let longest = self.ticks(part_target.as_micros() as u64);
        let Some(mut time) = self.cutter.newest() else { return };
        if self.source.codec != Codec::Opus || until.saturating_sub(time) <= longest {
            return;
        }
        while until - time >= 2 * OPUS_SILENCE_TICKS {
            time += OPUS_SILENCE_TICKS;
            let data = Bytes::from_static(OPUS_SILENCE);
            self.cutter.push(Input { time, composition_offset: 0, sync: true, data }, false);
        }
    }
}

fn micros_to_ticks(micros: u64, timescale: NonZeroU32) -> u64 {
    (u128::from(micros) * u128::from(timescale.get()) / 1_000_000) as u64
}
