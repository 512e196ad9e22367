//! What is due when frames do not come: parts, gaps, boundaries.
//!
//! Everything happens at a media time, in order of these times, so that a stream that
//! resumes after a hole gets the same gaps as one whose timers fired.

use super::Segmenter;

/// What is to be done; `usize`: index of the rendition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// End the part in progress at this time, in ticks.
    Part(usize, u64),
    /// A boundary has passed and no frame came since.
    Pending(usize),
    /// The segment in progress has reached its limit.
    Limit(usize),
    /// Frames stopped: see whether the source only stands still.
    Probe(usize),
    /// Nothing comes any more, of any rendition.
    Outage,
}

impl Segmenter {
    /// Does what is due by media time `now`.
    pub(super) fn run(&mut self, now: u64) {
        while let Some((at, due)) = self.next_due().filter(|(at, _)| *at <= now) {
            match due {
                Due::Part(index, ticks) => {
                    self.tracks[index].stand(ticks);
                    self.drain(index);
                }
                Due::Pending(index) => self.pass(index, at),
                Due::Limit(index) => self.reach_limit(index, at),
                Due::Probe(index) => {
                    self.tracks[index].probed = true;
                    self.ask(index, at, false);
                }
                Due::Outage => self.begin_outage(at),
            }
        }
    }

    /// The first thing that is due, and at which media time.
    pub(super) fn next_due(&self) -> Option<(u64, Due)> {
        let each = (0..self.tracks.len()).filter_map(|index| self.due_of(index));
        let probes = (0..self.tracks.len())
            .filter_map(|index| Some((self.tracks[index].probe_at()?, Due::Probe(index))));
        each.chain(probes).chain(self.outage_due()).min_by_key(|(at, _)| *at)
    }

    /// What is due for one rendition when no frame of it comes.
    fn due_of(&self, index: usize) -> Option<(u64, Due)> {
        let track = &self.tracks[index];
        let slack = self.slack(index);
        let front = track.pending.front().map(|front| track.ticks(front.micros));
        let part = track.ticks(self.settings.part_target.as_micros() as u64);
        // A gap begins soon after its boundary, a part of it is told when it has passed.
        let pending = |front: u64| {
            let early = track.micros(front + part / 2) + slack;
            if track.has_media() && !track.is_missing(early) {
                front + part
            } else {
                front + part / 2
            }
        };
        let Some(limit) = self.limit(index) else {
            let due = track.micros(pending(front?)) + slack;
            return Some((due, Due::Pending(index)));
        };
        let start = track.cutter.part_start();
        let end = start + part;
        let newest = track.cutter.newest();
        let passed = |front: &u64| newest.is_some_and(|newest| newest >= *front);
        let (at, due) = match front.filter(|front| !passed(front)) {
            Some(front) if start >= front => (pending(front), Due::Pending(index)),
            Some(front) if front < end => (front, Due::Part(index, front)),
            _ if end > limit => (limit, Due::Limit(index)),
            _ => (end, Due::Part(index, end)),
        };
        Some((track.micros(at) + slack, due))
    }

    /// When nothing comes any more: the last moment at which something still could.
    fn outage_due(&self) -> Option<(u64, Due)> {
        let with_media = self.tracks.iter().filter(|track| track.has_media());
        let last = with_media.map(|track| track.used.unwrap_or(0) + track.bound()).max()?;
        Some((last + 1, Due::Outage))
    }

    /// What frames may be late: a gap waits for the latest of those that come.
    fn slack(&self, index: usize) -> u64 {
        let track = &self.tracks[index];
        if track.has_media() {
            return track.slack();
        }
        let others = self.tracks.iter().filter(|track| track.has_media());
        others.map(|track| track.slack()).max().unwrap_or(track.slack())
    }

    /// A boundary passed without a frame: a gap begins there, or the picture stands.
    fn pass(&mut self, index: usize, now: u64) {
        let track = &self.tracks[index];
        if !track.has_media() || track.is_missing(now) {
            self.force(index, now);
        } else {
            self.begin_standing(index, false);
        }
    }

    fn reach_limit(&mut self, index: usize, now: u64) {
        if self.tracks[index].pending.is_empty() {
            let limit = self.limit(index).unwrap_or(0);
            self.announce(self.tracks[index].micros(limit), false, None, now);
        } else {
            self.force(index, now);
        }
    }

    /// All media is missing: a boundary where the last of it ends, and gaps from there.
    fn begin_outage(&mut self, now: u64) {
        let with_media = self.tracks.iter().filter(|track| track.has_media());
        let end = with_media.map(|track| {
            let newest = track.cutter.newest().unwrap_or(0);
            let pace =
                track.interval.unwrap_or(0).min(self.settings.part_target.as_micros() as u64);
            track.micros(newest).saturating_add(pace).max(track.micros(track.earliest_cut()))
        });
        if let Some(end) = end.max() {
            self.announce(end, false, None, now);
        }
    }
}
