//! One LL-HLS viewer as its requests show it: there or gone, showing a picture or not
//! yet, of which rendition, how far behind, and whether it stalls. Sans-IO.
//!
//! For each request [`Viewer::handle_request`], then [`Viewer::handle_offer`] if it brought
//! a playlist or [`Viewer::handle_media`] if it brought media, then [`Viewer::handle_done`].

use std::time::{Duration, Instant};

use super::playback::{Pace, Playback, Span};
use crate::time::Utc;

/// A pass that is older when it is used first was kept somewhere; then the first
/// playlist request counts as the viewer's first, as the multivariant playlist's is
/// not known to be part of the same start.
const FRESH: Duration = Duration::from_secs(10);

/// Media of the leading kind (picture, or sound where there is no picture) that reached
/// a viewer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fetched {
    /// Index of its rendition among the table's.
    pub rendition: u8,
    /// Its place on the timeline.
    pub span: Span,
    /// How much newer the newest media of the rendition was then.
    pub behind: Duration,
}

/// What came of media that reached a viewer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outcome {
    /// It was the first, so long after the viewer's first request.
    pub first_frame: Option<Duration>,
    /// Before it came, playback had stood still for so long.
    pub stalled: Option<Duration>,
    /// It is of another rendition than before: the indexes of both.
    pub switched: Option<(u8, u8)>,
}

/// Media that a viewer knows of, and fetches nothing.
#[derive(Debug, Clone, Copy)]
struct Untaken {
    /// When it was told of it first.
    since: Instant,
    /// By now it is more than a segment.
    long: bool,
}

/// A viewer's state: a hundred bytes or so, of which a node keeps many thousands.
#[derive(Debug)]
pub struct Viewer {
    /// Its first request.
    began: Instant,
    /// The last time that it asked or was answered.
    seen: Instant,
    /// Requests that are not answered to their end.
    open: u32,
    /// Those of them that are for media.
    fetching: u32,
    /// What it is offered and does not ask for.
    untaken: Option<Untaken>,
    rendition: Option<u8>,
    stalls: u32,
    playback: Option<Playback>,
}

impl Viewer {
    /// A viewer with its first playlist request. Its pass was issued at `issued`.
    pub fn new(now: Instant, issued: Instant) -> Self {
        let fresh = now.saturating_duration_since(issued) <= FRESH;
        let began = if fresh { issued.min(now) } else { now };
        Self {
            began,
            seen: now,
            open: 1,
            fetching: 0,
            untaken: None,
            rendition: None,
            stalls: 0,
            playback: None,
        }
    }

    /// It asks for a playlist, or for media.
    pub fn handle_request(&mut self, now: Instant, playlist: bool, pace: &Pace) {
        let quiet = now.saturating_duration_since(self.seen);
        if self.open == 0
            && quiet > pace.quiet()
            && let Some(playback) = &mut self.playback
        {
            playback.handle_quiet(quiet);
            self.untaken = None;
        }
        if !playlist {
            self.fetching = self.fetching.saturating_add(1);
            self.handle_return(now, pace);
        }
        self.open = self.open.saturating_add(1);
        self.seen = now;
    }

    /// It asks for media again: when it had left a whole segment untaken it had paused,
    /// although it went on to ask for playlists, as hls.js does.
    fn handle_return(&mut self, now: Instant, pace: &Pace) {
        let Some(untaken) = self.untaken.take() else { return };
        let paused = now.saturating_duration_since(untaken.since);
        if untaken.long
            && paused > pace.quiet()
            && let Some(playback) = &mut self.playback
        {
            playback.handle_quiet(paused);
        }
    }

    /// It was given a playlist of the leading kind, with media until `edge`.
    pub fn handle_offer(&mut self, now: Instant, edge: Utc, pace: &Pace) {
        let Some(playback) = &self.playback else { return };
        let more = edge.micros_since(playback.has_until());
        if more <= 0 || self.fetching > 0 {
            return;
        }
        // Whoever knows no parts leaves a segment until it is complete.
        let long = more > pace.segment.as_micros() as i64;
        let untaken = self.untaken.get_or_insert(Untaken { since: now, long });
        untaken.long |= long;
    }

    /// Media reached it.
    pub fn handle_media(&mut self, now: Instant, fetched: &Fetched, pace: &Pace) -> Outcome {
        let mut outcome = Outcome::default();
        match &mut self.playback {
            None => {
                outcome.first_frame = Some(now.saturating_duration_since(self.began));
                self.playback = Some(Playback::new(now, fetched.span, pace));
            }
            Some(playback) => outcome.stalled = playback.handle_media(now, fetched.span, pace),
        }
        self.stalls = self.stalls.saturating_add(outcome.stalled.is_some().into());
        let before = self.rendition.replace(fetched.rendition);
        outcome.switched = before
            .filter(|before| *before != fetched.rendition)
            .map(|before| (before, fetched.rendition));
        outcome
    }

    /// A request of it was answered, or given up.
    pub fn handle_done(&mut self, now: Instant, playlist: bool) {
        self.fetching = self.fetching.saturating_sub((!playlist).into());
        self.open = self.open.saturating_sub(1);
        self.seen = self.seen.max(now);
    }

    /// How often it stalled.
    pub const fn stalls(&self) -> u32 {
        self.stalls
    }

    /// From its first request to the last.
    pub fn lasted(&self) -> Duration {
        self.seen.saturating_duration_since(self.began)
    }

    /// Whether it has gone: nothing is asked, nor was for a while.
    pub fn is_gone(&self, now: Instant, pace: &Pace) -> bool {
        self.open == 0 && now.saturating_duration_since(self.seen) > pace.gone()
    }
}
