//! Which moment of the stream a frame belongs to, and when it should have arrived.
//!
//! *Media time* counts microseconds from the first frame of the stream and never
//! stands still or goes back. [`Arrival`] ties it to the monotonic clock, so that
//! missing media is noticed when it is due. [`TrackClock`] ties the RTP ticks of one
//! rendition to it: once, through the capture time of its first frame; then it runs on
//! the ticks, because players need smooth durations, and is slewed so slowly that no
//! one notices, because the clocks of sources drift. Where ticks jump, capture time and
//! arrival say where the frame belongs.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use crate::media::Frame;
use crate::time::Utc;

/// A capture time this far from the timeline is a jump…
const MAX_DRIFT_MICROS: u64 = 1_000_000;

/// …when it stays there for so many frames.
const DRIFTING_FRAMES: u32 = 30;

/// A rendition whose first capture time is this far from its arrival has a clock
/// of its own: it is anchored by arrival instead.
const MAX_SKEW_MICROS: u64 = 1_000_000;

/// A frame ahead of its arrival by more was not made by the clock that made the others.
const MAX_AHEAD_MICROS: u64 = 1_000_000;

/// The arrival clock may leap so far in all, to frames that come earlier than any before…
const MAX_LEAPS: u64 = 2_000_000;

/// …and by one part in so many of the time that passes: nobody makes it run away.
const LEAP_RATE: u64 = 50;

/// A step of the ticks that is longer, or negative, is looked into.
const MAX_STEP_MICROS: i64 = 1_000_000;

/// A rendition that is later than this for long is taken to be on time: its path is longer
/// now. Up to this it is waited for ([`TrackClock::lag`]): what is later than any wait, and
/// not late enough to be placed anew, would be gaps for good.
const MAX_LATE_MICROS: i64 = 3_000_000;

/// The mean error from which a rendition is slewed, and at which that ends: half of
/// what players forgive between picture and sound, and a fraction of a frame.
const SLEW_FROM: i64 = 20_000;
const SLEW_UNTIL: i64 = 5_000;

/// While a rendition is slewed its clock runs faster or slower by one part in so many.
const SLEW_RATE: i64 = 256;

/// After the leading clock was set, the others may take so long to follow: sender
/// reports come every five seconds (RFC 3550 §6.2).
const SETTLE_MICROS: u64 = 10_000_000;

/// How much of its lead the arrival clock gives back with each frame that is behind it,
/// in microseconds: enough for clocks that differ by some hundred parts in a million.
const ARRIVAL_DECAY: u64 = 5;

/// Ties media time to arrival: the earliest that frames of this age came.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    at: Instant,
    media: u64,
    /// How far it may leap ahead yet, as of `at`, in microseconds.
    leaps: u64,
}

impl Arrival {
    /// The first frame, which is media time zero, came at `at`.
    pub const fn new(at: Instant) -> Self {
        Self { at, media: 0, leaps: MAX_LEAPS }
    }

    /// The media time whose frames are due at `now`, in microseconds.
    pub fn media(&self, now: Instant) -> u64 {
        let after = now.saturating_duration_since(self.at).as_micros() as u64;
        let before = self.at.saturating_duration_since(now).as_micros() as u64;
        (self.media + after).saturating_sub(before)
    }

    /// When the frames of media time `micros` are due.
    pub fn instant(&self, micros: u64) -> Instant {
        let before = Duration::from_micros(self.media.saturating_sub(micros));
        let after = Duration::from_micros(micros.saturating_sub(self.media));
        self.at.checked_sub(before).unwrap_or(self.at) + after
    }

    /// How far ahead of what is due a frame may be that comes at `now`, in microseconds.
    pub fn most_ahead(&self, now: Instant) -> u64 {
        self.leaps_at(now).min(MAX_AHEAD_MICROS)
    }

    fn leaps_at(&self, now: Instant) -> u64 {
        let passed = now.saturating_duration_since(self.at).as_micros() as u64;
        (self.leaps + passed / LEAP_RATE).min(MAX_LEAPS)
    }

    /// A frame of media time `micros` came at `at`.
    pub fn heard(&mut self, at: Instant, micros: u64) {
        let due = self.media(at);
        if micros > due {
            let leaps = self.leaps_at(at).saturating_sub(micros - due);
            *self = Self { at, media: micros, leaps };
        } else {
            let behind = ARRIVAL_DECAY.min(due - micros);
            self.media = self.media.saturating_sub(behind);
        }
    }
}

/// What the placing of a frame brought to light.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// Nothing.
    Usual,
    /// The clock of the capture times was set by so many microseconds.
    ClockSet(i64),
}

/// Ties a rendition's RTP ticks to media time.
#[derive(Debug)]
pub struct TrackClock {
    timescale: NonZeroU32,
    /// RTP ticks of a frame and the media time that they stand for, in the same ticks;
    /// slewing may bring it to before zero.
    anchor: Option<(u64, i64)>,
    newest: u64,
    /// Mean distance of the capture times from media time, in microseconds.
    error: i64,
    slewing: bool,
    drifting: u32,
    late: u32,
    lag: u64,
    settles_at: u64,
}

impl TrackClock {
    /// A clock that has seen no frame.
    pub const fn new(timescale: NonZeroU32) -> Self {
        Self {
            timescale,
            anchor: None,
            newest: 0,
            error: 0,
            slewing: false,
            drifting: 0,
            late: 0,
            lag: 0,
            settles_at: 0,
        }
    }

    /// The decode time of a frame on the media timeline, in ticks. `epoch`: UTC of media
    /// time zero.
    pub fn place(&mut self, frame: &Frame, arrival: &Arrival, epoch: Utc) -> (u64, Finding) {
        let now = arrival.media(frame.received);
        let most_ahead = arrival.most_ahead(frame.received) as i64;
        let captured = frame.capture.micros_since(epoch);
        let Some(by_ticks) = self.by_ticks(frame.dts) else {
            let skew = captured.saturating_sub(now as i64);
            let believed = skew <= most_ahead && skew.unsigned_abs() <= MAX_SKEW_MICROS;
            self.anchor_at(frame.dts, if believed { captured.max(0) } else { now as i64 });
            return (self.settle(frame.dts, now), Finding::Usual);
        };
        let ticks = i128::from(frame.dts) - i128::from(self.newest);
        let step = (ticks * 1_000_000 / i128::from(self.timescale.get()))
            .clamp(-10 * i128::from(MAX_STEP_MICROS), 10 * i128::from(MAX_STEP_MICROS));
        let steady = (0..=i128::from(MAX_STEP_MICROS)).contains(&step);
        let ahead = by_ticks.saturating_sub(now as i64);
        if ahead > most_ahead || (!steady && ahead.unsigned_abs() > MAX_DRIFT_MICROS) {
            // The ticks jumped, and nobody else did.
            let skew = captured.saturating_sub(now as i64);
            let believed = skew <= most_ahead && skew.unsigned_abs() <= MAX_DRIFT_MICROS;
            self.anchor_at(frame.dts, if believed { captured.max(0) } else { now as i64 });
            return (self.settle(frame.dts, now), Finding::Usual);
        }
        self.late = if ahead < -MAX_LATE_MICROS { self.late + 1 } else { 0 };
        if self.late > 5 * DRIFTING_FRAMES {
            self.anchor_at(frame.dts, now as i64);
            return (self.settle(frame.dts, now), Finding::Usual);
        }
        let finding =
            self.watch(captured.saturating_sub(by_ticks), step.unsigned_abs() as i64, now);
        (self.settle(frame.dts, now), finding)
    }

    /// The rendition's own capture clock is the one that was wrong: follows it, if
    /// that is where frames are due.
    pub fn follow(&mut self, dts: u64, shift: i64, now: u64) {
        let Some(by_ticks) = self.by_ticks(dts) else { return };
        let target = by_ticks.saturating_add(shift);
        let due = target.abs_diff(now as i64) <= MAX_DRIFT_MICROS;
        if due && now >= self.settles_at {
            self.anchor_at(dts, target.max(0));
        }
    }

    /// Another rendition's clock was set: this one's may follow in a while.
    pub const fn expect_change(&mut self, now: u64) {
        self.settles_at = now + SETTLE_MICROS;
        self.drifting = 0;
        self.error = 0;
    }

    /// How much later than the earliest this rendition's frames come, in microseconds.
    pub const fn lag(&self) -> u64 {
        self.lag
    }

    /// Ticks of a media time in microseconds.
    pub fn ticks(&self, micros: u64) -> u64 {
        (u128::from(micros) * u128::from(self.timescale.get()) / 1_000_000) as u64
    }

    /// Microseconds of a media time in ticks.
    pub fn micros(&self, ticks: u64) -> u64 {
        (u128::from(ticks) * 1_000_000 / u128::from(self.timescale.get())) as u64
    }

    fn anchor_at(&mut self, dts: u64, micros: i64) {
        self.anchor = Some((dts, self.ticks(micros.unsigned_abs()) as i64));
        (self.error, self.slewing, self.drifting, self.late) = (0, false, 0, 0);
    }

    /// Media time of a frame by its ticks alone, in microseconds.
    fn by_ticks(&self, dts: u64) -> Option<i64> {
        let (rtp, media) = self.anchor?;
        let ticks = i128::from(media) + i128::from(dts) - i128::from(rtp);
        let micros = ticks * 1_000_000 / i128::from(self.timescale.get());
        // Far outside, where no time of a stream is, the nearest will do.
        Some(micros.clamp(i128::from(i64::MIN / 4), i128::from(i64::MAX / 4)) as i64)
    }

    /// Looks at how far the capture time is from the ticks, and slews.
    fn watch(&mut self, error: i64, step: i64, now: u64) -> Finding {
        if error.unsigned_abs() > MAX_DRIFT_MICROS {
            self.drifting = if now < self.settles_at { 0 } else { self.drifting + 1 };
            if self.drifting > DRIFTING_FRAMES {
                self.drifting = 0;
                return Finding::ClockSet(error);
            }
            return Finding::Usual;
        }
        self.drifting = 0;
        self.error += (error - self.error) / 64;
        let size = self.error.abs();
        self.slewing = size > if self.slewing { SLEW_UNTIL } else { SLEW_FROM };
        if self.slewing
            && let Some((_, media)) = &mut self.anchor
        {
            let change = self.error.clamp(-step / SLEW_RATE, step / SLEW_RATE);
            let ticks = i128::from(change) * i128::from(self.timescale.get()) / 1_000_000;
            *media = media.saturating_add(ticks as i64);
            self.error -= change;
        }
        Finding::Usual
    }

    /// The frame's place by the anchor that now holds, in ticks.
    fn settle(&mut self, dts: u64, now: u64) -> u64 {
        self.newest = dts;
        let micros = self.by_ticks(dts).unwrap_or(0).max(0) as u64;
        let late = now.saturating_sub(micros).min(MAX_LATE_MICROS as u64);
        self.lag = (self.lag * 15 + late) / 16;
        let (rtp, media) = self.anchor.unwrap_or((dts, 0));
        (i128::from(media) + i128::from(dts) - i128::from(rtp)).max(0) as u64
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    const START: Utc = Utc::from_micros(1_700_000_000_000_000);

    fn frame(base: Instant, dts: u64, micros: u64) -> Frame {
        Frame {
            pts: dts,
            dts,
            keyframe: true,
            discontinuity: false,
            capture: START.offset_micros(micros as i64),
            received: base + Duration::from_micros(micros),
            data: Bytes::new(),
        }
    }

    /// Frames of a 48 kHz source whose clock is off by `ppm`; the largest distance of
    /// media time from capture time, and the largest change of a frame's duration, in
    /// microseconds and ticks.
    fn run(seconds: u64, ppm: u64) -> (u64, u64) {
        let base = Instant::now();
        let (mut clock, arrival) =
            (TrackClock::new(NonZeroU32::new(48_000).unwrap()), Arrival::new(base));
        let (mut distance, mut change, mut before) = (0, 0, None);
        for n in 0..seconds * 50 {
            let micros = n * 20_000;
            let dts = 1_000_000 + n * 960 + n * 960 * ppm / 1_000_000;
            let (time, finding) = clock.place(&frame(base, dts, micros), &arrival, START);
            assert_eq!(finding, Finding::Usual);
            distance = distance.max(clock.micros(time).abs_diff(micros));
            change = change.max(before.map_or(0, |before: u64| (time - before).abs_diff(960)));
            before = Some(time);
        }
        (distance, change)
    }

    #[test]
    fn a_clock_that_is_right_is_left_alone() {
        assert_eq!(run(600, 0), (0, 0));
    }

    #[test]
    fn p12_a_drifting_clock_stays_within_50_ms_of_capture_time_without_a_jump() {
        let (distance, change) = run(3600, 300);
        assert!(distance <= 50_000, "{distance}");
        // A tenth of a millisecond: less than players hear, and less than they resync at.
        assert!(change <= 5, "{change}");
    }

    #[test]
    fn ticks_that_jump_are_placed_by_capture_time() {
        let base = Instant::now();
        let mut clock = TrackClock::new(NonZeroU32::new(90_000).unwrap());
        let arrival = Arrival::new(base);
        for (n, dts) in [(0, 500), (1, 3_500), (2, u64::MAX - 7), (3, 90), (4, 3_090)] {
            let (time, _) = clock.place(&frame(base, dts, n * 33_333), &arrival, START);
            assert!(clock.micros(time).abs_diff(n * 33_333) < 100, "{n}: {time}");
        }
    }

    #[test]
    fn arrival_leaps_to_what_comes_early_but_not_for_ever() {
        let base = Instant::now();
        let mut arrival = Arrival::new(base);
        for n in 1..100 {
            let at = base + Duration::from_millis(n);
            let ahead = arrival.media(at) + arrival.most_ahead(at);
            arrival.heard(at, ahead);
        }
        assert!(arrival.media(base + Duration::from_millis(100)) < 2_200_000);
    }
}
