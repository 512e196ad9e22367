//! A playhead on the clock: how much is buffered, when it ran dry, how far it is behind
//! the moment of capture.
//!
//! Nothing is decoded: media is its duration. The picture plays while every track has
//! some ahead; it stops when one has none (a stall) and goes on when all have a part's
//! worth again. Sans-IO: told the time, and exact however seldom it is told, for it
//! computes when in the past the buffer ran dry.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::playlist::micros;

/// Dates of media ahead of the playhead that are kept; of more, the oldest go and the
/// latency is not known until the playhead is past them.
const MAX_DATES: usize = 4096;

/// Media that a track has loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Its length.
    pub duration: Duration,
    /// UTC of its first sample, in microseconds.
    pub start: Option<i64>,
}

#[derive(Debug, Default)]
struct Track {
    /// Length of all that was loaded, from the place where playing starts.
    loaded: Duration,
    /// Media before that place, still to come.
    lead: Duration,
    /// It has loaded anything.
    begun: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing was played yet.
    Starting,
    /// Since this time, from this position.
    Playing(Instant, Duration),
    /// Dry since this time, at this position.
    Stalled(Instant, Duration),
    /// All was played.
    Over,
}

/// The playhead of one client.
#[derive(Debug)]
pub struct Playhead {
    tracks: Vec<Track>,
    /// What must be ahead to begin, and to go on after a stall.
    enough: Duration,
    state: State,
    /// Position of media of the first track, its length, and its UTC.
    dates: VecDeque<(Duration, Duration, i64)>,
    /// No more media will come.
    complete: bool,
    stalls: u64,
    stalled: Duration,
}

impl Playhead {
    /// For so many tracks; it plays when `enough` is ahead in each.
    pub fn new(tracks: usize, enough: Duration) -> Self {
        Self {
            tracks: (0..tracks).map(|_| Track::default()).collect(),
            enough,
            state: State::Starting,
            dates: VecDeque::new(),
            complete: false,
            stalls: 0,
            stalled: Duration::ZERO,
        }
    }

    /// The first media of `track` begins so much before the place to play.
    pub fn start_track(&mut self, track: usize, lead: Duration) {
        if let Some(track) = self.tracks.get_mut(track) {
            track.lead = lead;
        }
    }

    /// Takes media of `track` that follows what it had.
    pub fn load(&mut self, now: Instant, track: usize, media: Loaded) {
        self.advance(now);
        let Some(kept) = self.tracks.get_mut(track) else { return };
        kept.begun = true;
        let before = kept.lead.min(media.duration);
        kept.lead -= before;
        let length = media.duration - before;
        if let (0, Some(start)) = (track, media.start) {
            if self.dates.len() == MAX_DATES {
                self.dates.pop_front();
            }
            self.dates.push_back((kept.loaded, length, start.saturating_add(micros(before))));
        }
        kept.loaded = kept.loaded.saturating_add(length);
        self.go_on(now);
    }

    /// No track will load more: running dry is the end, and no stall.
    pub fn complete(&mut self, now: Instant) {
        self.advance(now);
        self.complete = true;
        self.go_on(now);
    }

    /// Where it is, from the place where it started.
    pub fn position(&self, now: Instant) -> Duration {
        match self.state {
            State::Starting => Duration::ZERO,
            State::Playing(since, from) => {
                (from + now.saturating_duration_since(since)).min(self.end())
            }
            State::Stalled(_, at) => at,
            State::Over => self.end(),
        }
    }

    /// Media ahead of it, of the track that has the least.
    pub fn ahead(&self, now: Instant) -> Duration {
        self.end().saturating_sub(self.position(now))
    }

    /// UTC of what it shows, in microseconds, while it plays.
    pub fn shown_utc(&mut self, now: Instant) -> Option<i64> {
        self.advance(now);
        let State::Playing(..) = self.state else { return None };
        let position = self.position(now);
        while self.dates.front().is_some_and(|&(at, length, _)| at + length <= position) {
            self.dates.pop_front();
        }
        let &(at, _, start) = self.dates.front()?;
        let into = position.checked_sub(at)?;
        Some(start.saturating_add(micros(into)))
    }

    /// Whether a track has any media.
    pub fn has_loaded(&self, track: usize) -> bool {
        self.tracks.get(track).is_some_and(|track| track.begun)
    }

    /// Whether it has begun to play.
    pub const fn has_begun(&self) -> bool {
        !matches!(self.state, State::Starting)
    }

    /// Stalls so far, one that lasts included, and the time spent in them.
    pub fn stalls(&mut self, now: Instant) -> (u64, Duration) {
        self.advance(now);
        let lasting = match self.state {
            State::Stalled(since, _) => now.saturating_duration_since(since),
            _ => Duration::ZERO,
        };
        (self.stalls, self.stalled + lasting)
    }

    /// The end of what all tracks have.
    fn end(&self) -> Duration {
        self.tracks.iter().map(|track| track.loaded).min().unwrap_or_default()
    }

    /// Plays up to `now`.
    fn advance(&mut self, now: Instant) {
        let State::Playing(since, from) = self.state else { return };
        let end = self.end();
        let left = end.saturating_sub(from);
        if now.saturating_duration_since(since) < left {
            return;
        }
        if self.complete {
            self.state = State::Over;
        } else {
            self.stalls += 1;
            self.state = State::Stalled(since + left, end);
        }
    }

    /// Begins, or ends a stall, when there is enough.
    fn go_on(&mut self, now: Instant) {
        let (end, complete) = (self.end(), self.complete);
        let enough = |at: Duration| {
            let ahead = end.saturating_sub(at);
            ahead >= self.enough || (complete && !ahead.is_zero())
        };
        match self.state {
            State::Starting if enough(Duration::ZERO) => {
                self.state = State::Playing(now, Duration::ZERO);
            }
            State::Stalled(since, at) if enough(at) || complete => {
                self.stalled += now.saturating_duration_since(since);
                self.state = State::Playing(now, at);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HALF: Duration = Duration::from_millis(500);

    fn part(start_millis: i64) -> Loaded {
        Loaded { duration: HALF, start: Some(start_millis * 1000) }
    }

    fn at(begun: Instant, millis: u64) -> Instant {
        begun + Duration::from_millis(millis)
    }

    #[test]
    fn a_steady_stream_never_stalls_and_keeps_its_distance() {
        let begun = Instant::now();
        let mut player = Playhead::new(1, HALF);
        (0..3).for_each(|n| player.load(begun, 0, part(n * 500)));
        for n in 3..200 {
            let now = at(begun, (n - 2) * 500);
            player.load(now, 0, part(n as i64 * 500));
            assert_eq!(player.ahead(now), HALF * 3);
            assert_eq!(player.shown_utc(now), Some((n as i64 - 2) * 500_000));
        }
        assert_eq!(player.stalls(at(begun, 99_000)), (0, Duration::ZERO));
    }

    #[test]
    fn it_waits_for_the_track_that_is_behind() {
        let begun = Instant::now();
        let mut player = Playhead::new(2, HALF);
        player.load(begun, 0, part(0));
        assert!(!player.has_begun() && player.shown_utc(begun).is_none());
        player.load(at(begun, 100), 1, part(0));
        assert!(player.has_begun());
        player.load(at(begun, 200), 0, part(500));
        // The sound ends half a second after it began.
        assert_eq!(player.stalls(at(begun, 700)), (1, Duration::from_millis(100)));
    }

    #[test]
    fn a_stall_is_counted_from_when_the_buffer_was_dry_to_when_it_went_on() {
        let begun = Instant::now();
        let mut player = Playhead::new(1, HALF);
        player.load(begun, 0, part(0));
        // Half of a part is not enough to go on.
        let little = Loaded { duration: HALF / 2, start: Some(500_000) };
        player.load(at(begun, 900), 0, little);
        assert_eq!(player.stalls(at(begun, 1000)), (1, HALF));
        player.load(at(begun, 1100), 0, Loaded { start: Some(750_000), ..little });
        assert_eq!(player.stalls(at(begun, 1200)), (1, Duration::from_millis(600)));
        // What it shows is behind by the time it stood.
        assert_eq!(player.shown_utc(at(begun, 1200)), Some(600_000));
    }

    #[test]
    fn media_before_the_place_to_play_is_not_ahead() {
        let begun = Instant::now();
        let mut player = Playhead::new(1, HALF);
        player.start_track(0, Duration::from_millis(700));
        player.load(begun, 0, part(0));
        assert!(!player.has_begun());
        player.load(begun, 0, part(500));
        assert_eq!(player.ahead(begun), Duration::from_millis(300));
        player.load(begun, 0, part(1000));
        assert_eq!(player.shown_utc(begun), Some(700_000));
    }

    #[test]
    fn the_end_is_no_stall() {
        let begun = Instant::now();
        let mut player = Playhead::new(1, HALF);
        player.load(begun, 0, part(0));
        player.complete(at(begun, 100));
        assert_eq!(player.stalls(at(begun, 5000)), (0, Duration::ZERO));
        assert_eq!(player.position(at(begun, 5000)), HALF);
    }

    #[test]
    fn dates_are_bounded_and_media_without_them_plays() {
        let begun = Instant::now();
        let mut player = Playhead::new(1, HALF);
        (0..10_000).for_each(|n| player.load(begun, 0, part(n * 500)));
        assert!(player.dates.len() <= MAX_DATES && player.shown_utc(begun).is_none());
        let mut plain = Playhead::new(1, HALF);
        plain.load(begun, 0, Loaded { duration: HALF, start: None });
        assert!(plain.has_begun() && plain.shown_utc(begun).is_none());
    }
}
