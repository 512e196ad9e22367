//! One LL-HLS viewer as its requests show it: there or gone, showing a picture or not
//! yet, of which rendition, how far behind, and whether it stalls. Sans-IO.
//!
//! For each request [`Viewer::handle_request`], then [`Viewer::handle_media`] if it
//! brought media, then [`Viewer::handle_done`].

use std::time::{Duration, Instant};

use super::playback::{Pace, Playback, Span};

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

/// A viewer's state: a hundred bytes or so, of which a node keeps many thousands.
#[derive(Debug)]
pub struct Viewer {
    /// Its first request.
    began: Instant,
    /// The last time that it asked or was answered.
    seen: Instant,
    /// Requests that are not answered to their end.
    open: u32,
    rendition: Option<u8>,
    stalls: u32,
    playback: Option<Playback>,
}

impl Viewer {
    /// A viewer with its first playlist request. Its pass was issued at `issued`.
    pub fn new(now: Instant, issued: Instant) -> Self {
        let fresh = now.saturating_duration_since(issued) <= FRESH;
        let began = if fresh { issued.min(now) } else { now };
        Self { began, seen: now, open: 1, rendition: None, stalls: 0, playback: None }
    }

    /// It asks for something.
    pub fn handle_request(&mut self, now: Instant, pace: &Pace) {
        let quiet = now.saturating_duration_since(self.seen);
        if self.open == 0
            && quiet > pace.quiet()
            && let Some(playback) = &mut self.playback
        {
            playback.handle_quiet(quiet);
        }
        self.open = self.open.saturating_add(1);
        self.seen = now;
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
    pub fn handle_done(&mut self, now: Instant) {
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
