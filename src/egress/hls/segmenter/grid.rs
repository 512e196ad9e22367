//! Boundaries: deciding them once, and beginning every rendition's segment at them.

use super::track::{Sampled, Track};
use super::{Boundary, Segmenter};

/// A random access point this much before its boundary counts as at it: two frames,
/// or what the clocks of two layers may be apart.
const BEFORE: u64 = 60_000;

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
        let changed = sync && self.tracks[index].is_changed_by(&config);
        if changed && !self.begin_changed(index, micros, now) {
            self.tracks[index].waiting = !self.tracks[index].is_audio();
            return false;
        }
        if !changed && self.leader(now) == Some(index) && self.accepts(index, time, sync, asked) {
            self.announce(micros, false, Some(index), now);
        }
        self.begin_at(index, time, sync);
        self.keep_limit(index, time, now);
        let track = &mut self.tracks[index];
        if changed {
            track.set_init(&config);
        }
        if !track.push(input) {
            return false;
        }
        track.used = Some(micros);
        self.drain(index);
        true
    }

    /// Another configuration makes a discontinuity for all. False when the boundary
    /// before is too near for another one.
    fn begin_changed(&mut self, index: usize, micros: u64, now: u64) -> bool {
        let front = self.tracks[index].pending.front();
        if front.is_some_and(|front| front.breaks > 0 && micros + BEFORE >= front.micros) {
            return true;
        }
        let near = self.boundary.is_some_and(|newest| micros < newest.micros + MIN_SEGMENT);
        if near {
            self.broken = true;
            return false;
        }
        self.announce(micros, true, Some(index), now);
        true
    }

    /// Begins the pending segment with this sample, if it can.
    fn begin_at(&mut self, index: usize, time: u64, sync: bool) {
        let track = &self.tracks[index];
        let Some(front) = track.pending.front() else { return };
        let before = if track.is_audio() { SOUND_BEFORE } else { BEFORE };
        if sync && track.micros(time) + before >= front.micros {
            self.begin(index, time, false);
        }
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
        let limit = self.settings.segment_limit.as_micros() as u64;
        let limit = if !track.pending.is_empty() {
            limit
        } else if self.tracks.iter().any(Track::has_media) {
            limit - RESERVE.min(limit / 8)
        } else {
            self.settings.segment_target.as_micros() as u64
        };
        Some(track.cutter.segment()?.start + track.ticks(limit))
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
        if self.hurry || unaligned || elapsed + BEFORE >= target {
            return true;
        }
        if elapsed < target / 2 {
            return false;
        }
        let limit = start + self.settings.segment_limit.as_micros() as u64;
        let next = track.keys.expected_after(at + BEFORE);
        let better = next.is_some_and(|next| {
            next <= limit && next.abs_diff(start + target) < target - elapsed
        });
        asked || (next.is_some() && !better)
    }

    /// The length to aim for. The very first segment aims at a single part, because
    /// hls.js plays nothing before it sees a complete segment.
    fn target(&self) -> u64 {
        let target = match self.boundaries {
            1 => self.settings.part_target.max(std::time::Duration::from_micros(MIN_SEGMENT)),
            _ => self.settings.segment_target,
        };
        target.as_micros() as u64
    }

    /// Decides on a boundary. `by`: the rendition whose sample begins there.
    pub(super) fn announce(&mut self, micros: u64, broken: bool, by: Option<usize>, now: u64) {
        let broken = std::mem::take(&mut self.broken) || broken;
        self.hurry = false;
        let boundary = Boundary { micros, breaks: u32::from(broken), epoch: self.epoch };
        self.boundary = Some(boundary);
        self.boundaries += 1;
        for index in 0..self.tracks.len() {
            let track = &mut self.tracks[index];
            track.keys.decided();
            track.pending.push_back(boundary);
            if track.pending.len() > 1 {
                self.force(index, now);
            }
            if by != Some(index) {
                self.follow(index, now);
            }
        }
    }

    /// Begins a rendition's segment at the boundary just decided, if that is possible
    /// with what has come already, or if nothing can be waited for.
    fn follow(&mut self, index: usize, now: u64) {
        let track = &self.tracks[index];
        let Some(front) = track.pending.front().copied() else { return };
        if !track.has_media() {
            self.try_begin(index, now);
            let track = &self.tracks[index];
            if track.is_gap() && !track.pending.is_empty() && !track.is_alive(now) {
                self.begin(index, track.ticks(front.micros), true);
            }
        } else if track.is_missing(now) {
            self.begin(index, track.ticks(front.micros), true);
        } else if track.is_audio() {
            let at = track.ticks(front.micros);
            if track.cutter.newest().is_some_and(|newest| newest >= at)
                && let Some(nearest) = track.cutter.nearest(at)
            {
                self.begin(index, nearest, false);
            }
        } else if let Some(at) =
            track.cutter.sync_from(track.ticks(front.micros.saturating_sub(BEFORE)))
        {
            self.begin(index, at, false);
        }
    }

    /// Begins the pending segment without waiting for a random access point any longer.
    pub(super) fn force(&mut self, index: usize, now: u64) {
        let track = &self.tracks[index];
        let Some(front) = track.pending.front() else { return };
        let at = track.ticks(front.micros);
        if !track.has_media() || track.is_missing(now) {
            self.begin(index, at, true);
            return;
        }
        let earliest = track.earliest_cut();
        let newest = track.cutter.newest().filter(|newest| *newest >= earliest);
        self.begin(index, newest.unwrap_or(at), false);
    }

    /// Ends the segment in progress and begins the one of the pending boundary at
    /// `time`, in ticks, or as near to it as is possible still.
    pub(super) fn begin(&mut self, index: usize, time: u64, gap: bool) {
        let limit = self.limit(index).unwrap_or(u64::MAX);
        let track = &mut self.tracks[index];
        let Some(boundary) = track.pending.pop_front() else { return };
        let time = time.min(limit).max(track.earliest_cut());
        track.begins = Some(boundary);
        if gap && track.has_media() {
            track.stand_until(time);
            (track.waiting, track.since) = (!track.is_audio(), None);
        }
        if track.cutter.segment().is_some() {
            track.cutter.split(time, gap);
        } else {
            track.cutter.begin(time, gap);
        }
        let aligned = gap || track.is_audio() || track.cutter.begins_with_sync();
        track.unaligned = !aligned;
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
            self.try_begin(index, now);
        } else if self.may_lead(index) {
            let first = self.tracks[index].stash.front();
            if let Some(at) = first.map(|first| self.tracks[index].micros(first.input.time)) {
                self.announce(at, false, None, now);
            }
        }
    }

    /// Whether a rendition without media may make a boundary to return at.
    fn may_lead(&self, index: usize) -> bool {
        let track = &self.tracks[index];
        let Some(first) = track.stash.front() else { return false };
        let at = track.micros(first.input.time);
        let near = self.boundary.is_some_and(|newest| at < newest.micros + MIN_SEGMENT);
        let others = |audio: bool| {
            self.tracks.iter().any(|other| {
                other.is_audio() == audio && other.has_media() && !other.is_missing(at)
            })
        };
        if near || others(false) {
            return false;
        }
        let waited = track.since.is_some_and(|since| at >= since + VIDEO_WAIT);
        let pictures = self.tracks.iter().any(|track| !track.is_audio());
        !track.is_audio() || (!others(true) && (waited || !pictures))
    }

    /// Begins the pending segment of a rendition without media with what waits.
    fn try_begin(&mut self, index: usize, now: u64) {
        let track = &mut self.tracks[index];
        let Some(front) = track.pending.front().copied() else { return };
        let before = if track.is_audio() { SOUND_BEFORE } else { BEFORE };
        let early = |track: &Track, first: &Sampled| {
            track.micros(first.input.time) + before < front.micros
        };
        while track.is_audio() && track.stash.front().is_some_and(|first| early(track, first)) {
            track.stash.pop_front();
        }
        let Some(first) = track.stash.front().filter(|first| !early(track, first)) else { return };
        if track.is_changed_by(&first.config) && front.breaks == 0 {
            // Possible only with a discontinuity, which all must have: at the next one.
            self.broken = true;
            return;
        }
        let (time, config) = (first.input.time, first.config.clone());
        if track.init.is_none() || track.is_changed_by(&config) {
            track.set_init(&config);
        }
        let stash = std::mem::take(&mut track.stash);
        track.used = Some(track.micros(time));
        self.begin_from(index, time, stash.into(), now);
    }

    fn begin_from(&mut self, index: usize, time: u64, stash: Vec<Sampled>, now: u64) {
        self.begin(index, time, false);
        for Sampled { input, .. } in stash {
            let track = &mut self.tracks[index];
            let micros = track.micros(input.time);
            if track.push(input) {
                track.used = Some(micros);
            }
        }
        let track = &mut self.tracks[index];
        track.unaligned = false;
        track.since = None;
        self.drain(index);
        let _ = now;
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
        let latest = start + self.settings.segment_limit.as_micros() as u64 - RESERVE;
        let is_due = |track: &mut Track, ahead: u64| {
            let Some(newest) = track.seen.filter(|_| !track.is_audio() && track.is_alive(now))
            else {
                return false;
            };
            let behind = !track.has_media() || !track.pending.is_empty();
            let at = track.pending.front().map_or(boundary, |front| front.micros);
            let interval = track.interval.unwrap_or(0);
            let due = track.keys.is_time(newest, at.saturating_sub(ahead), interval);
            let expected = track.keys.expected_after(at.saturating_sub(BEFORE + 1));
            let itself = expected.is_some_and(|expected| expected <= latest.max(at));
            due && !itself && (behind || track.pending.is_empty())
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
