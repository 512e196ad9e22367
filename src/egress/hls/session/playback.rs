//! Whether a viewer's playback runs dry, told from what it fetched and when.
//!
//! A server sees no playhead. It sees media leave, and knows from its capture time how
//! much of it there is: a viewer that has fetched less media than time has passed since
//! it began to play stands still. The model errs on the side of the viewer: it lets
//! playback begin as late as a player would with PART-HOLD-BACK of media, knows nothing
//! of players that speed up to catch up, and forgives what clocks drift apart. So what
//! it calls a stall was one; short ones right at the start it may miss.
//!
//! Source: rfc8216bis §6.3.3 (playing), §4.4.3.8 (PART-HOLD-BACK).

use std::time::{Duration, Instant};

use crate::time::Utc;

/// Hundredths of the time that passes are forgiven: clocks of publisher and gateway
/// drift apart by a fraction of that, players that cannot keep up by much more.
const FORGIVEN_PERCENT: u32 = 1;

/// A stretch of media by capture time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// When its first sample was captured.
    pub start: Utc,
    /// The end of its last sample.
    pub end: Utc,
}

/// What is taken for granted of players of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// PART-TARGET. Lacks of media that add up to less are no stall.
    pub part: Duration,
    /// TARGETDURATION.
    pub segment: Duration,
}

impl Pace {
    /// Media with which a player begins: PART-HOLD-BACK.
    fn begins_with(&self) -> Duration {
        self.part * 3
    }

    /// A viewer that is asking for nothing for longer has paused. Players that do not
    /// block reload a playlist after TARGETDURATION at most (rfc8216bis §6.3.4).
    pub fn quiet(&self) -> Duration {
        self.segment * 3 / 2
    }

    /// A viewer that asked nothing for so long has gone.
    pub fn gone(&self) -> Duration {
        self.segment * 3 + self.part
    }
}

/// The playback of one viewer: from a jump in the media to the next one.
#[derive(Debug, Clone, Copy)]
pub struct Playback {
    /// The media that the viewer has, without a hole.
    have: Span,
    /// What it played, and when; `None` before it began.
    playhead: Option<(Utc, Instant)>,
    /// Time without media that was not called a stall so far…
    short: Duration,
    /// …as of then.
    settled: Instant,
}

impl Playback {
    /// The viewer has its first media.
    pub fn new(now: Instant, media: Span, pace: &Pace) -> Self {
        let mut playback =
            Self { have: media, playhead: None, short: Duration::ZERO, settled: now };
        playback.begin(now, pace);
        playback
    }

    /// The end of the media that the viewer has.
    pub const fn has_until(&self) -> Utc {
        self.have.end
    }

    /// The viewer asked for nothing for so long, until now: its playhead stood as well.
    pub fn handle_quiet(&mut self, time: Duration) {
        if let Some((_, at)) = &mut self.playhead {
            *at += time;
        }
        self.settled += time;
    }

    /// The viewer has more media. Returns for how long it had lacked some, when that is
    /// a stall.
    pub fn handle_media(&mut self, now: Instant, media: Span, pace: &Pace) -> Option<Duration> {
        let stall = self.settle(now, pace);
        // What was played already is fetched again only by who goes back; what is in
        // store, by who switches between renditions or tries again.
        let played = self.playhead.map_or(self.have.start, |(playhead, _)| playhead);
        let back = media.end <= played;
        let ahead = media.start.micros_since(self.have.end) > pace.part.as_micros() as i64;
        if back || ahead {
            let short = self.short;
            *self = Self { short, ..Self::new(now, media, pace) };
        } else {
            self.have.end = self.have.end.max(media.end);
            self.begin(now, pace);
        }
        stall
    }

    /// Begins to play when there is enough.
    fn begin(&mut self, now: Instant, pace: &Pace) {
        let stored = self.have.end.micros_since(self.have.start);
        if self.playhead.is_none() && stored >= pace.begins_with().as_micros() as i64 {
            self.playhead = Some((self.have.start, now));
        }
    }

    /// Plays until now, and adds up what was lacking.
    fn settle(&mut self, now: Instant, pace: &Pace) -> Option<Duration> {
        let passed = now.saturating_duration_since(self.settled);
        self.settled = now;
        self.short = self.short.saturating_sub(passed * FORGIVEN_PERCENT / 100);
        let (from, since) = self.playhead?;
        let played = now.saturating_duration_since(since).as_micros() as i64;
        let lacking = from.offset_micros(played).micros_since(self.have.end);
        let Ok(lacking @ 1..) = u64::try_from(lacking) else { return None };
        // It goes on from where it stopped.
        self.playhead = Some((self.have.end, now));
        self.short += Duration::from_micros(lacking);
        (self.short >= pace.part).then(|| std::mem::take(&mut self.short))
    }
}
