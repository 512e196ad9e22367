//! Boundaries: deciding them once, and beginning every rendition's segment at them.

use std::sync::Arc;
use std::time::Duration;

use super::track::{Sampled, Track};
use super::{Boundary, Segmenter};
use crate::egress::hls::sample::TrackConfig;

/// A keyframe of the leading rendition that nobody asked for makes a boundary when it
/// comes this much before its time: two frames.
const EARLY: u64 = 60_000;

/// A random access point this much before a boundary counts as at it: encoders that
/// answer the same request each for themselves may be so far apart.
const BEFORE: u64 = 200_000;

/// The same for sound, whose frames are short.
const SOUND_BEFORE: u64 = 10_000;

/// Boundaries are at least this far apart; a source that wants more waits.
const MIN_SEGMENT: u64 = 250_000;

/// The limit of a segment, while no boundary is decided, is so much earlier: the
/// others, which began theirs a little before or after, need to keep theirs.
const RESERVE: u64 = 150_000;

/// Where there should be a picture, sound alone waits so long for it.
const VIDEO_WAIT: u64 = 1_000_000;

/// Layers whose request is due within this are asked together: a source that encodes all
/// layers at once answers with all.
const FAN: u64 = 100_000;

impl Segmenter {
    /// The rendition whose random access points decide on boundaries now.
    pub(super) fn leader(&self, now: u64) -> Option<usize> {
        let leads = |audio: bool| {
            self.tracks.iter().position(|track| {
                track.is_audio() == audio && track.has_media() && !track.is_missing(now)
            })
        };
        leads(false).or_else(|| leads(true))
    }

    /// A sample of a rendition that has media. Returns false when it cannot be used.
    pub(super) fn add(&mut self, index: usize, sampled: Sampled, asked: bool) -> bool {
        let Sampled { input, config } = sampled;
        let (time, sync) = (input.time, input.sync);
        let micros = self.tracks[index].micros(time);
        let now = micros + self.tracks[index].clock.lag();
        let by = Some((index, time));
        if sync && self.tracks[index].is_changed_by(&config) {
            if !self.begin_changed(index, time, &config, now) {
                self.tracks[index].waiting = !self.tracks[index].is_audio();
                return false;
            }
        } else if self.leader(now) == Some(index) && self.accepts(index, time, sync, asked) {
            self.announce(micros, false, by, now);
        } else {
            self.begin_at(index, time, sync);
        }
        self.keep_limit(index, time, now);
        let track = &mut self.tracks[index];
        if !track.push(input) {
            return false;
        }
        track.used = Some(micros);
        self.drain(index);
        true
    }

    /// Another configuration makes a discontinuity for all. False when the boundary
    /// before is too near for another one.
    fn begin_changed(
        &mut self,
        index: usize,
        time: u64,
        config: &Arc<TrackConfig>,
        now: u64,
    ) -> bool {
        let track = &mut self.tracks[index];
        let micros = track.micros(time);
        let is_broken = |front: &Boundary| front.breaks > 0 && micros + BEFORE >= front.micros;
        if track.pending.front().is_some_and(is_broken) {
            track.set_init(config);
            let place = track.stood().unwrap_or(time);
            self.begin(index, place, false);
            return true;
        }
        if self.is_too_near(micros) {
            self.broken = true;
            return false;
        }
        // What is pending has to begin with the old one.
        self.force(index, now);
        self.tracks[index].set_init(config);
        self.announce(micros, true, Some((index, time)), now);
        true
    }

    /// Whether the newest boundary is too near to `micros` for another one.
    fn is_too_near(&self, micros: u64) -> bool {
        self.boundary.is_some_and(|newest| micros < newest.micros + MIN_SEGMENT)
    }

    /// Begins the pending segment with this sample, if it is a random access point and
    /// not before the boundary. Where a part was ended at the boundary because nothing
    /// came, the segment begins there in any case: that part was its last.
    fn begin_at(&mut self, index: usize, time: u64, sync: bool) {
        let track = &self.tracks[index];
        let Some(front) = track.pending.front() else { return };
        if track.stood().is_some() {
            self.begin_standing(index, sync);
            return;
        }
        let before = if track.is_audio() { SOUND_BEFORE } else { BEFORE };
        if sync && track.micros(time) + before >= front.micros {
            self.begin(index, time, false);
        }
    }

    /// Begins the pending segment where the part before it was ended.
    pub(super) fn begin_standing(&mut self, index: usize, sync: bool) {
        let aligned = sync || self.tracks[index].is_audio();
        self.begin(index, self.tracks[index].cutter.part_start(), false);
        self.tracks[index].unaligned = !aligned;
        self.counts.unaligned += u64::from(!aligned);
    }

    /// Ends the segment before a sample that would take it past the limit.
    fn keep_limit(&mut self, index: usize, time: u64, now: u64) {
        // Once for the segment in progress, and once for one that began in the past.
        for _ in 0..3 {
            let Some(limit) = self.limit(index).filter(|limit| time > *limit) else { return };
            let track = &self.tracks[index];
            if track.pending.is_empty() {
                let newest = track.cutter.newest().filter(|newest| *newest > track.earliest_cut());
                let at = track.micros(newest.unwrap_or(limit));
                self.announce(at, false, None, now);
            } else {
                self.force(index, now);
            }
        }
    }

    /// Where the segment in progress must end, in ticks: earlier as long as no boundary
    /// says where, at the target when nothing but gaps is there.
    pub(super) fn limit(&self, index: usize) -> Option<u64> {
        let track = &self.tracks[index];
        let start = track.cutter.segment()?.start;
        let limit = self.settings.segment_limit.as_micros() as u64;
        let limit = if !track.pending.is_empty() {
            limit
        } else if self.tracks.iter().any(Track::has_media) {
            let expected = self.expected().map_or(0, |at| at + EARLY);
            let wished = expected.saturating_sub(track.micros(start));
            wished.min(limit).max(limit - RESERVE.min(limit / 8))
        } else {
            self.settings.segment_target.as_micros() as u64
        };
        Some(start + track.ticks(limit))
    }

    /// When the leading source will send a keyframe by itself, if it does that.
    fn expected(&self) -> Option<u64> {
        let leader = self.tracks.iter().find(|track| track.has_media() && !track.is_audio())?;
        leader.keys.expected_after(leader.seen?)
    }

    /// Whether the leading rendition begins a segment with this sample.
    fn accepts(&mut self, index: usize, time: u64, sync: bool, asked: bool) -> bool {
        let track = &self.tracks[index];
        let Some(segment) = track.cutter.segment().filter(|_| track.pending.is_empty()) else {
            return false;
        };
        let (start, at) = (track.micros(segment.start), track.micros(time));
        let elapsed = at.saturating_sub(start);
        if !sync || elapsed < MIN_SEGMENT {
            return false;
        }
        let target = self.target();
        if track.is_audio() {
            return elapsed >= target || self.hurry;
        }
        // A keyframe that was asked for is the answer even when it is early; a segment
        // without one at its start is not to last.
        let unaligned = track.unaligned;
        if self.hurry || unaligned || elapsed + EARLY >= target {
            return true;
        }
        if elapsed < target / 2 {
            return false;
        }
        let limit = start + self.settings.segment_limit.as_micros() as u64;
        let next = track.keys.expected_after(at + EARLY);
        let better = next
            .is_some_and(|next| next <= limit && next.abs_diff(start + target) < target - elapsed);
        asked || (next.is_some() && !better)
    }

    /// The length to aim for. The very first segment aims at a single part, because
    /// hls.js plays nothing before it sees a complete segment.
    fn target(&self) -> u64 {
        let target = match self.boundary.map(|newest| newest.number) {
            Some(0) => self.settings.part_target.max(Duration::from_micros(MIN_SEGMENT)),
            _ => self.settings.segment_target,
        };
        target.as_micros() as u64
    }

    /// Decides on a boundary. `by`: the rendition that begins a segment there, with a
    /// sample at so many ticks.
    pub(super) fn announce(
        &mut self,
        micros: u64,
        broken: bool,
        by: Option<(usize, u64)>,
        now: u64,
    ) {
        let broken = std::mem::take(&mut self.broken) || broken;
        self.hurry = false;
        let (number, sequence) = self.boundary.map_or((0, 0), |newest| {
            (newest.number + 1, newest.sequence + u64::from(newest.breaks))
        });
        let breaks = u32::from(broken);
        let boundary = Boundary { number, sequence, micros, breaks, epoch: self.epoch };
        self.boundary = Some(boundary);
        for index in 0..self.tracks.len() {
            self.force(index, now);
            let track = &mut self.tracks[index];
            track.keys.decided();
            track.pending.push_back(boundary);
            match by {
                Some((leader, time)) if leader == index => self.begin(index, time, false),
                _ => self.follow(index, now),
            }
        }
    }

    /// Decides on a boundary at which the first rendition returns, after none had media:
    /// the others may be on their way.
    fn announce_return(&mut self, micros: u64, now: u64) {
        self.returning = true;
        self.announce(micros, false, None, now);
        self.returning = false;
    }

    /// Begins a rendition's segment at the boundary just decided, if that is possible
    /// with what has come already, or if nothing can be waited for.
    fn follow(&mut self, index: usize, now: u64) {
        let track = &self.tracks[index];
        let Some(front) = track.pending.front().copied() else { return };
        let at = track.ticks(front.micros);
        // Gaps begin when it is certain, so that those with media come first; not
        // when there is nobody to come.
        let gap = !self.returning && self.leader(now).is_none();
        if !track.has_media() {
            self.try_begin(index);
            let track = &self.tracks[index];
            if gap && track.is_gap() && !track.pending.is_empty() {
                self.begin(index, at, true);
            }
        } else if track.is_missing(now) {
            if gap {
                self.begin(index, at, true);
            }
        } else if track.is_audio() {
            let passed = track.cutter.newest().is_some_and(|newest| newest >= at);
            if let Some(nearest) = track.cutter.nearest(at).filter(|_| passed) {
                self.begin(index, nearest, false);
            }
        } else if let Some(sync) =
            track.cutter.sync_from(track.ticks(front.micros - BEFORE.min(front.micros)))
        {
            self.begin(index, sync, false);
        }
    }

    /// Begins the pending segment, if there is one, without waiting any longer. A
    /// rendition that has had no media yet has no segment then.
    pub(super) fn force(&mut self, index: usize, now: u64) {
        let track = &mut self.tracks[index];
        let Some(front) = track.pending.front().copied() else { return };
        let at = track.ticks(front.micros);
        if track.cutter.segment().is_none() {
            track.pending.clear();
        } else if !track.has_media() || track.is_missing(now) {
            self.begin(index, at, true);
        } else {
            let newest = track.cutter.newest().filter(|newest| *newest >= track.earliest_cut());
            let at = newest.unwrap_or(at);
            let aligned = track.is_audio() || track.cutter.sync_from(at) == Some(at);
            self.begin(index, at, false);
            self.tracks[index].unaligned = !aligned;
            self.counts.unaligned += u64::from(!aligned);
        }
    }

    /// Ends the segment in progress and begins the one of the pending boundary at
    /// `time`, in ticks, or as near to it as is possible still.
    pub(super) fn begin(&mut self, index: usize, time: u64, gap: bool) {
        let limit = self.limit(index).unwrap_or(u64::MAX);
        let track = &mut self.tracks[index];
        let Some(boundary) = track.pending.pop_front() else { return };
        let mut time = time.min(limit).max(track.earliest_cut());
        track.begins = Some(boundary);
        track.unaligned = false;
        if track.has_media() {
            if gap {
                time = track.media_end(time);
                (track.waiting, track.since) = (!track.is_audio(), None);
            }
            if track.cutter.newest().is_none_or(|newest| newest < time) {
                track.fill_silence(time);
            }
        }
        if track.cutter.segment().is_some() {
            track.cutter.split(time, gap);
        } else {
            track.cutter.begin(time, gap);
        }
        self.drain(index);
    }

    /// A sample of a rendition that has no media now: it waits for a boundary, or
    /// makes one when there is nobody who leads.
    pub(super) fn wait(&mut self, index: usize, sampled: Sampled) {
        let track = &mut self.tracks[index];
        let micros = track.micros(sampled.input.time);
        let now = micros + track.clock.lag();
        if sampled.input.sync && !track.is_audio() {
            track.stash.clear();
        }
        track.since.get_or_insert(micros);
        track.stash.push_back(sampled);
        track.trim_stash();
        if !self.tracks[index].pending.is_empty() {
            self.try_begin(index);
        } else if self.may_lead(index) {
            let track = &self.tracks[index];
            if let Some(first) = track.stash.front() {
                self.broken |= track.is_changed_by(&first.config);
                self.announce_return(track.micros(first.input.time), now);
            }
        }
    }

    /// Whether a rendition without media may make a boundary to return at.
    fn may_lead(&self, index: usize) -> bool {
        let track = &self.tracks[index];
        let Some(first) = track.stash.front() else { return false };
        let at = track.micros(first.input.time);
        let others = |audio: bool| {
            self.tracks.iter().any(|other| {
                other.is_audio() == audio && other.has_media() && !other.is_missing(at)
            })
        };
        if self.is_too_near(at) || others(false) {
            return false;
        }
        let waited = track.since.is_some_and(|since| at >= since + VIDEO_WAIT);
        let pictures = self.tracks.iter().any(|track| !track.is_audio());
        !track.is_audio() || (!others(true) && (waited || !pictures))
    }

    /// Begins the pending segment of a rendition without media with what waits.
    fn try_begin(&mut self, index: usize) {
        let track = &mut self.tracks[index];
        let Some(front) = track.pending.front().copied() else { return };
        let before = if track.is_audio() { SOUND_BEFORE } else { BEFORE };
        let early =
            |track: &Track, first: &Sampled| track.micros(first.input.time) + before < front.micros;
        while track.is_audio() && track.stash.front().is_some_and(|first| early(track, first)) {
            track.stash.pop_front();
        }
        let Some(first) = track.stash.front().filter(|first| !early(track, first)) else { return };
        let (time, config) = (first.input.time, first.config.clone());
        if track.is_changed_by(&config) && front.breaks == 0 {
            // Possible only with a discontinuity, which all must have: at the next one.
            self.broken = true;
            return;
        }
        if track.init.is_none() || track.is_changed_by(&config) {
            track.set_init(&config);
        }
        let stash = std::mem::take(&mut track.stash);
        track.since = None;
        self.begin(index, time, false);
        let track = &mut self.tracks[index];
        for Sampled { input, .. } in stash {
            let micros = track.micros(input.time);
            if track.push(input) {
                track.used = Some(micros);
            }
        }
        self.drain(index);
    }

    /// Asks for the keyframes of the boundary to come, each layer so far ahead as its
    /// source takes, and all that are due soon together.
    pub(super) fn ask_ahead(&mut self, now: u64) {
        let Some(leader) = self.leader(now) else { return };
        let track = &self.tracks[leader];
        let Some(segment) = track.cutter.segment() else { return };
        let start = track.micros(segment.start);
        let boundary = match track.pending.front() {
            Some(front) => front.micros,
            None if track.unaligned || self.hurry => start,
            None => start + self.target(),
        };
        let latest = start + self.settings.segment_limit.as_micros() as u64;
        let is_due = |track: &mut Track, ahead: u64| {
            let Some(newest) = track.seen.filter(|_| !track.is_audio() && track.is_alive(now))
            else {
                return false;
            };
            let at = track.pending.front().map_or(boundary, |front| front.micros);
            let interval = track.interval.unwrap_or(0);
            let due = track.keys.is_time(newest, at.saturating_sub(ahead), interval);
            let expected = track.keys.expected_after(at.saturating_sub(EARLY + 1));
            let itself = expected.is_some_and(|expected| expected <= latest.max(at));
            due && !itself
        };
        if self.tracks.iter_mut().any(|track| is_due(track, 0)) {
            for index in 0..self.tracks.len() {
                if is_due(&mut self.tracks[index], FAN) {
                    self.ask(index, now, true);
                }
            }
        }
    }
}
