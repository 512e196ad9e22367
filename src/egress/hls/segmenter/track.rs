//! One rendition: where it is on the timeline, and what it waits for.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::clock::TrackClock;
use super::keyframes::Keyframes;
use super::{Boundary, Init, RenditionSource, SegmenterSettings};
use crate::codec::{Codec, MediaKind, opus};
use crate::egress::hls::cutter::{Cutter, Input};
use crate::egress::hls::fmp4;
use crate::egress::hls::sample::{Sampler, TrackConfig};

/// What frames may be late, beyond what those of the rendition usually are.
const JITTER: u64 = 150_000;

/// Frames that wait for the boundary at which a rendition begins or returns are given
/// up after so long: a boundary that is later needs another random access point.
const STASH_MICROS: u64 = 250_000;

/// The same bound for a source that sends faster than any camera.
const STASH_FRAMES: usize = 128;

/// The longest distance of frames that is a slow source and not an outage.
const SLOWEST: u64 = 2_500_000;

/// 20 ms of silence in Opus (RFC 6716 §3.1: CELT, full band, one frame).
const OPUS_SILENCE: &[u8] = &[0xf8, 0xff, 0xfe];

/// Length of [`OPUS_SILENCE`] in ticks.
const OPUS_SILENCE_TICKS: u64 = 960;

/// Shortest time from one picture to the next, where late ones are caught up with, and
/// shortest segment: 1 ms, as a part of so many a second.
const SHORTEST: u32 = 1000;

/// A sample and what a decoder needs for it.
pub struct Sampled {
    /// The sample on the media timeline.
    pub input: Input,
    /// Its configuration.
    pub config: Arc<TrackConfig>,
}

/// One rendition. owner: the [`Segmenter`](super::Segmenter).
pub struct Track {
    pub source: RenditionSource,
    pub timescale: NonZeroU32,
    pub sampler: Sampler,
    pub cutter: Cutter,
    pub clock: TrackClock,
    pub keys: Keyframes,
    pub init: Option<Arc<Init>>,
    /// Announced boundaries at which it has not begun its segment yet: one, and two for
    /// as long as it takes to begin the first.
    pub pending: VecDeque<Boundary>,
    /// The boundary of the segment that the cutter is told to begin.
    pub begins: Option<Boundary>,
    /// No frame is taken before a random access point.
    pub waiting: bool,
    /// Frames that it may begin with; the first of video is a random access point.
    pub stash: VecDeque<Sampled>,
    /// Media time of the newest frame of any kind…
    pub seen: Option<u64>,
    /// …of the newest that was used…
    pub used: Option<u64>,
    /// …and of the first one since it has had no media.
    pub since: Option<u64>,
    /// From frame to frame; `None` until there are two.
    pub interval: Option<u64>,
    /// Frames stopped since `seen`, and a keyframe was asked for, to see whether the
    /// source only stands still.
    pub probed: bool,
    /// Its segment in progress did not begin with a random access point.
    pub unaligned: bool,
    /// Where the newest packet of sound ends, in ticks.
    pub sound_end: u64,
    patience: u64,
    part_target: u64,
}

impl Track {
    /// A rendition of which nothing has come. `None` when MP4 cannot carry the codec.
    pub fn new(settings: SegmenterSettings, source: RenditionSource) -> Option<Self> {
        let timescale = NonZeroU32::new(source.codec.clock_rate())?;
        let clock = TrackClock::new(timescale);
        let part_target = settings.part_target.as_micros() as u64;
        Some(Self {
            source,
            timescale,
            sampler: Sampler::new(source.codec, source.channels)?,
            cutter: Cutter::new(clock.ticks(part_target), source.codec.kind() == MediaKind::Video),
            clock,
            keys: Keyframes::new(settings.segment_target),
            init: None,
            pending: VecDeque::new(),
            begins: None,
            waiting: source.codec.kind() == MediaKind::Video,
            stash: VecDeque::new(),
            seen: None,
            used: None,
            since: None,
            interval: None,
            probed: false,
            unaligned: false,
            sound_end: 0,
            patience: settings.segment_target.max(Duration::from_secs(1)).as_micros() as u64,
            part_target,
        })
    }

    /// Whether it is sound.
    pub const fn is_audio(&self) -> bool {
        matches!(self.source.codec.kind(), MediaKind::Audio)
    }

    /// Its segment in progress holds media.
    pub fn has_media(&self) -> bool {
        self.cutter.segment().is_some_and(|segment| !segment.gap)
    }

    /// Its segment in progress is a gap.
    pub fn is_gap(&self) -> bool {
        self.cutter.segment().is_some_and(|segment| segment.gap)
    }

    /// Ticks of a duration or media time in microseconds.
    pub fn ticks(&self, micros: u64) -> u64 {
        self.clock.ticks(micros)
    }

    /// Microseconds of a duration or media time in ticks.
    pub fn micros(&self, ticks: u64) -> u64 {
        self.clock.micros(ticks)
    }

    /// Ticks of the shortest sample and the shortest segment.
    pub fn shortest(&self) -> u64 {
        u64::from(self.timescale.get() / SHORTEST)
    }

    /// A frame of media time `time` came. `whole`: none was lost before it.
    pub fn saw(&mut self, time: u64, whole: bool) {
        let step = self.seen.and_then(|seen| time.checked_sub(seen));
        if let Some(step) = step.filter(|step| whole && *step <= SLOWEST) {
            // Up at once, down slowly: a source that was slow may soon be so again.
            let mean = self.interval.unwrap_or(step);
            let interval = if step > mean { step } else { mean - (mean - step) / 8 };
            self.interval = Some(interval);
            self.cutter.set_pace(self.ticks(interval));
        }
        self.seen = self.seen.max(Some(time));
        self.probed = false;
    }

    /// What its frames may be late against those that come earliest.
    pub const fn slack(&self) -> u64 {
        JITTER + self.clock.lag()
    }

    /// Without a frame for longer its media is missing: a part and the slack. A source
    /// that is slower by nature gets longer; one of which only a frame is known, too.
    pub fn bound(&self) -> u64 {
        let usual = self.part_target + self.slack();
        match self.interval {
            Some(interval) => usual.max(interval * 5 / 2),
            None => usual.max(self.patience),
        }
    }

    /// When its source is asked whether it only stands still; `None` for sound, for
    /// slow sources, and where that was done.
    pub fn probe_at(&self) -> Option<u64> {
        let after = (self.part_target + self.slack()) / 2;
        let slow = self.interval.is_none_or(|interval| interval * 3 / 2 > after);
        let probes = self.has_media() && !self.is_audio() && !self.probed && !slow;
        self.seen.filter(|_| probes).map(|seen| seen + after)
    }

    /// No media has come for longer than [`Self::bound`].
    pub fn is_missing(&self, now: u64) -> bool {
        self.used.is_none_or(|used| now > used.saturating_add(self.bound()))
    }

    /// Frames come, usable or not.
    pub fn is_alive(&self, now: u64) -> bool {
        self.seen.is_some_and(|seen| now <= seen.saturating_add(self.bound()))
    }

    /// The earliest time, in ticks, at which its segment in progress can still end.
    pub fn earliest_cut(&self) -> u64 {
        let start = self.cutter.segment().map(|segment| segment.start + self.shortest());
        start.unwrap_or(0).max(self.cutter.part_start())
    }

    /// Gives up frames that have waited for a boundary for too long.
    pub fn trim_stash(&mut self) {
        let Some(newest) = self.stash.back().map(|newest| self.micros(newest.input.time)) else {
            return;
        };
        let is_old = |track: &Self, oldest: &Sampled| {
            track.micros(oldest.input.time) + STASH_MICROS < newest
                || track.stash.len() > STASH_FRAMES
        };
        while self.stash.front().is_some_and(|oldest| is_old(self, oldest)) {
            if self.is_audio() {
                self.stash.pop_front();
            } else {
                self.stash.clear();
                self.waiting = true;
            }
        }
    }

    /// Describes the samples to come.
    pub fn set_init(&mut self, config: &Arc<TrackConfig>) {
        let number = self.init.as_ref().map_or(0, |init| init.number + 1);
        match fmp4::init_segment(self.source.codec.kind(), self.timescale, config) {
            Ok(data) => self.init = Some(Arc::new(Init { number, data, config: config.clone() })),
            Err(error) => tracing::warn!(%error, "no init segment"),
        }
    }

    /// The nearest time that is a whole millisecond, in ticks. See `whole_millis` of dates.
    pub fn whole_millis(&self, time: u64) -> u64 {
        let milli = u64::from(self.source.codec.clock_rate() / 1_000).max(1);
        (time + milli / 2) / milli * milli
    }

    /// Whether a sample needs another init segment than those before it.
    pub fn is_changed_by(&self, config: &Arc<TrackConfig>) -> bool {
        self.init.as_ref().is_some_and(|init| !Arc::ptr_eq(&init.config, config))
    }

    /// Hands a sample to the cutter. Returns false for one that is too late to be heard.
    pub fn push(&mut self, mut input: Input) -> bool {
        let newest = self.cutter.newest();
        let floor = newest.map_or(self.cutter.part_start(), |newest| newest + 1);
        if self.is_audio() {
            if input.time + OPUS_SILENCE_TICKS / 2 < floor {
                return false;
            }
            self.fill_silence(input.time);
            let ticks = opus::duration(&input.data).map_or(OPUS_SILENCE_TICKS, u64::from);
            self.sound_end = input.time + ticks;
        } else if input.time < floor {
            // Others refer to it: it is decoded, and shown for an instant.
            input.time = newest.map_or(floor, |newest| newest + self.shortest());
        }
        let newest = self.cutter.newest();
        input.time = input.time.max(newest.map_or(self.cutter.part_start(), |newest| newest + 1));
        self.cutter.push(input);
        true
    }

    /// Covers the time until `ticks`, which is in the part in progress, without a frame.
    pub fn stand(&mut self, ticks: u64) {
        if self.has_media() {
            self.fill_silence(ticks);
        }
        self.cutter.stand(ticks);
    }

    /// Where a part was ended because nothing came at or after the boundary that is
    /// pending: the segment before must end there too.
    pub fn stood(&self) -> Option<u64> {
        let front = self.ticks(self.pending.front()?.micros);
        let start = self.cutter.part_start();
        (self.cutter.is_part_empty() && start >= front).then_some(start)
    }

    /// The earliest time, in ticks, that is after all its media, where that ends at `ticks`
    /// at the latest.
    pub fn media_end(&self, ticks: u64) -> u64 {
        let newest = self.cutter.newest().map_or(0, |newest| newest + self.shortest());
        ticks.max(newest).max(self.earliest_cut())
    }

    /// Covers a hole in the sound; what is shorter than a packet stretches the one before.
    pub fn fill_silence(&mut self, until: u64) {
        if self.source.codec != Codec::Opus {
            return;
        }
        let mut time = self.sound_end.max(self.cutter.part_start());
        while time + OPUS_SILENCE_TICKS <= until {
            if self.cutter.newest().is_none_or(|newest| newest < time) {
                let data = Bytes::from_static(OPUS_SILENCE);
                self.cutter.push(Input { time, composition_offset: 0, sync: true, data });
            }
            time += OPUS_SILENCE_TICKS;
        }
        self.sound_end = time;
    }
}
