//! Which simulcast layer a viewer is sent, or that its video is paused.
//!
//! Down is free and fast, up is careful: it needs room in the receiver's estimate or a
//! quiet path, and a way up that failed is tried again only after a pause that
//! doubles. So a path that collapses is relieved within a second or two, and values
//! that a viewer makes up buy it a few switches a minute and nothing else.
//!
//! What a receiver estimates (REMB) is bounded by what it gets: libwebrtc goes to 1.5
//! times the incoming rate and no further. An estimate that is well above what is sent
//! therefore means "not limited", and the next layer is *tried*; while it is tried, an
//! estimate that is too low but grows is no reason to turn back.
//!
//! Order of calls: `handle_*` when a report comes; [`LayerChooser::choose`] after it
//! and about twice a second. It returns a switch at most once per change; the engine
//! carries it out at the next keyframe of the target.

use std::time::{Duration, Instant};

use super::ladder::Ladder;

/// An estimate older than this is none: they come about once a second.
const ESTIMATE_LIFE: Duration = Duration::from_secs(5);
/// Reports this soon after a switch are about the time before it.
const SETTLE: Duration = Duration::from_millis(1500);
/// Of what is sent, in percent: an estimate below it is a clear shortage.
const SHORT_PERCENT: u64 = 80;
/// The same for the lowest layer: below it the video is paused. A receiver that is
/// overrun estimates 0.85 of what gets through, so this is a path for 4/5 of the layer.
const STARVED_PERCENT: u64 = 70;
/// A small shortage, or one at the lowest layer, must last this long.
const SHORT_FOR: Duration = Duration::from_secs(4);
/// Of the higher layer, in percent: an estimate above it is room for that layer.
const ROOM_PERCENT: u64 = 115;
/// There must be room for this long.
const ROOM_FOR: Duration = Duration::from_secs(3);
/// Of what is sent, in percent: an estimate above it is bounded by what is sent.
const UNLIMITED_PERCENT: u64 = 120;
/// The path must be quiet for this long before a layer is tried for which no room is
/// known; the shorter one holds until the path has shown trouble once.
const QUIET_FOR: Duration = Duration::from_secs(8);
const QUIET_FOR_UNTROUBLED: Duration = Duration::from_secs(2);
/// After a way up this long without trouble shows that it was right.
const PROVEN_AFTER: Duration = Duration::from_secs(30);
/// Between a way down and the next way up: at first, and at most after failures.
const BACKOFF: Duration = Duration::from_secs(10);
const MAX_BACKOFF: Duration = Duration::from_secs(120);
/// Between a pause and the first try to resume: then doubled, up to the maximum.
const PROBE: Duration = Duration::from_secs(5);
const MAX_PROBE: Duration = Duration::from_secs(30);
/// Between a layer's end and the next way up, so that a layer that flickers does not
/// take the viewers along each time.
const AFTER_GONE: Duration = Duration::from_secs(3);
/// Between two switches by hand.
const MANUAL_PAUSE: Duration = Duration::from_secs(1);

/// Loss of a report, of 256: above it there is congestion (10 %).
const LOSSY: u8 = 26;
/// Above it a path is not quiet (4 %).
const NOT_QUIET: u8 = 10;
/// Above it not even the lowest layer makes sense (30 %).
const HEAVY: u8 = 77;
/// Reports in a row that must be lossy, to go down; to pause.
const LOSSY_REPORTS: u8 = 2;
const HEAVY_REPORTS: u8 = 3;
/// Reports further apart are not in a row.
const REPORTS_APART: Duration = Duration::from_secs(5);

/// One layer of a track at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LayerState {
    /// Packets of it have come lately.
    pub(super) flows: bool,
    /// Pixels of its picture; 0 while unknown.
    pub(super) pixels: u64,
    /// Its payload in bits per second; 0 while unknown.
    pub(super) bps: u64,
}

/// What a viewer is sent of a video track.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// This layer, by its index in the track.
    Layer(u8),
    /// Nothing: the path does not carry the lowest layer. Audio goes on.
    Paused,
}

/// Why a viewer's layer changes; counted by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum SwitchReason {
    /// There is room for a higher layer, or a chance of it.
    Up,
    /// The receiver's estimate is below what is sent.
    DownEstimate,
    /// The receiver's reports show loss.
    DownLoss,
    /// The viewer chose.
    Manual,
    /// The layer has stopped flowing.
    LayerGone,
    /// The path does not carry the lowest layer.
    Pause,
    /// The lowest layer is tried again after a pause.
    Resume,
}

impl SwitchReason {
    /// It relieves the viewer's path.
    pub(super) const fn is_relief(self) -> bool {
        matches!(self, Self::DownEstimate | Self::DownLoss)
    }
}

/// A change of what a viewer is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Switch {
    /// What it is sent from the target's next keyframe on; a pause is at once.
    pub(super) target: Target,
    /// Why.
    pub(super) reason: SwitchReason,
}

/// The receiver's last estimate.
#[derive(Clone, Copy, Debug)]
struct Estimate {
    bps: u64,
    at: Instant,
    /// It is above the one before it: the receiver is still finding out.
    grows: bool,
}

/// The receiver's last loss reports.
#[derive(Clone, Copy, Debug, Default)]
struct Loss {
    /// The last one.
    fraction: u8,
    at: Option<Instant>,
    /// In a row above [`LOSSY`].
    lossy: u8,
    /// In a row above [`HEAVY`].
    heavy: u8,
}

/// A layer that was gone up to, and is not proven yet.
#[derive(Clone, Copy, Debug)]
struct Trial {
    since: Instant,
    /// What was sent before it, and is again when it fails.
    from: Target,
    /// The estimate before it; falling below shows that it was too much.
    estimate: u64,
}

/// Chooses for one viewer and video track. owner: the viewer's track.
#[derive(Clone, Debug)]
pub(super) struct LayerChooser {
    target: Target,
    manual: Option<u8>,
    manual_changed: bool,
    estimate: Option<Estimate>,
    loss: Loss,
    switched_at: Option<Instant>,
    by_hand_at: Option<Instant>,
    trial: Option<Trial>,
    /// The estimate is below what is sent since.
    short_since: Option<Instant>,
    /// There is room for a higher layer since.
    room_since: Option<Instant>,
    /// The path shows no limit since.
    quiet_since: Option<Instant>,
    /// No way up before; while paused, no try before.
    not_before: Option<Instant>,
    backoff: Duration,
    probe: Duration,
    /// The path has forced a way down before.
    troubled: bool,
}

impl LayerChooser {
    /// For a viewer that is sent `layer`.
    pub(super) fn new(layer: u8) -> Self {
        Self {
            target: Target::Layer(layer),
            manual: None,
            manual_changed: false,
            estimate: None,
            loss: Loss::default(),
            switched_at: None,
            by_hand_at: None,
            trial: None,
            short_since: None,
            room_since: None,
            quiet_since: None,
            not_before: None,
            backoff: BACKOFF,
            probe: PROBE,
            troubled: false,
        }
    }

    /// What the viewer is to be sent.
    #[cfg(test)]
    pub(super) const fn target(&self) -> Target {
        self.target
    }

    /// The viewer chooses `layer`, or leaves the choice to the gateway. Its choice is a
    /// ceiling: a path that does not carry it still brings the viewer down.
    pub(super) fn choose_manually(&mut self, layer: Option<u8>) {
        self.manual_changed = layer.is_some() && (self.manual_changed || self.manual != layer);
        self.manual = layer;
    }

    /// Takes a receiver's estimate (REMB) in bits per second. Any value is fine.
    pub(super) fn handle_estimate(&mut self, now: Instant, bps: u64) {
        let before = self.fresh_estimate(now).map(|estimate| estimate.bps);
        let grows = before.is_some_and(|before| bps > percent(before, 101));
        self.estimate = Some(Estimate { bps, at: now, grows });
    }

    /// Takes the share of packets lost out of a receiver report about the video, of
    /// 256 (RFC 3550 §6.4.1).
    pub(super) fn handle_loss(&mut self, now: Instant, fraction: u8) {
        if self.since_switch(now).is_some_and(|since| since < SETTLE) {
            return;
        }
        let in_row =
            self.loss.at.is_some_and(|at| now.saturating_duration_since(at) < REPORTS_APART);
        let count = |above: u8, before: u8| match fraction > above {
            true if in_row => before.saturating_add(1),
            true => 1,
            false => 0,
        };
        self.loss = Loss {
            fraction,
            at: Some(now),
            lossy: count(LOSSY, self.loss.lossy),
            heavy: count(HEAVY, self.loss.heavy),
        };
    }

    /// The last switch still waits for its keyframe: until it is carried out, reports
    /// say nothing of it.
    pub(super) fn wait_for_keyframe(&mut self, now: Instant) {
        self.switched_at = Some(now);
        self.loss = Loss::default();
        self.short_since = None;
        if let Some(trial) = &mut self.trial {
            trial.since = now;
        }
    }

    /// Decides what the viewer is sent from now on; `None`: what it is sent already.
    /// `layers` are those of the track, `audio_bps` what is sent beside it.
    pub(super) fn choose(
        &mut self,
        now: Instant,
        layers: &[LayerState],
        audio_bps: u64,
    ) -> Option<Switch> {
        let ladder = Ladder::new(layers, self.manual, audio_bps);
        self.settle(now, &ladder);
        let switch = match self.target {
            Target::Paused => self.resume(now, &ladder),
            Target::Layer(current) => self
                .by_hand(now, current, &ladder)
                .or_else(|| self.replace_gone(current, &ladder))
                .or_else(|| self.go_down(now, current, &ladder))
                .or_else(|| self.go_up(now, current, &ladder)),
        }?;
        self.apply(now, switch, &ladder);
        Some(switch)
    }

    /// Brings what lasts over time up to date.
    fn settle(&mut self, now: Instant, ladder: &Ladder<'_>) {
        if self
            .trial
            .is_some_and(|trial| now.saturating_duration_since(trial.since) >= PROVEN_AFTER)
        {
            self.trial = None;
            (self.backoff, self.probe) = (BACKOFF, PROBE);
        }
        let Target::Layer(current) = self.target else { return };
        let estimate = self.fresh_estimate(now).map(|estimate| estimate.bps);
        let sent = ladder.total(current);
        let above = ladder.above(current);
        let short = estimate.is_some_and(|bps| bps < sent);
        let room = estimate
            .zip(above)
            .is_some_and(|(bps, above)| bps >= percent(ladder.total(above), ROOM_PERCENT));
        let quiet = estimate.is_none_or(|bps| bps >= percent(sent, UNLIMITED_PERCENT));
        keep(&mut self.short_since, short, now);
        keep(&mut self.room_since, room && self.loss.fraction <= LOSSY, now);
        keep(&mut self.quiet_since, quiet && self.loss.fraction <= NOT_QUIET, now);
    }

    /// Follows a new choice of the viewer, where its layer flows.
    fn by_hand(&mut self, now: Instant, current: u8, ladder: &Ladder<'_>) -> Option<Switch> {
        let recent = |at: Instant| now.saturating_duration_since(at) < MANUAL_PAUSE;
        if self.by_hand_at.is_some_and(recent) {
            return None;
        }
        let chosen = self.manual.filter(|chosen| ladder.flows(*chosen));
        let wanted = match chosen {
            // Nor is the viewer left above its choice when that begins to flow.
            Some(chosen) if self.manual_changed || ladder.is_above(current, chosen) => chosen,
            _ => return None,
        };
        self.manual_changed = false;
        (wanted != current)
            .then_some(Switch { target: Target::Layer(wanted), reason: SwitchReason::Manual })
    }

    fn replace_gone(&self, current: u8, ladder: &Ladder<'_>) -> Option<Switch> {
        if ladder.flows(current) {
            return None;
        }
        let layer = ladder.below(current).or_else(|| ladder.lowest())?;
        Some(Switch { target: Target::Layer(layer), reason: SwitchReason::LayerGone })
    }

    fn go_down(&self, now: Instant, current: u8, ladder: &Ladder<'_>) -> Option<Switch> {
        let Some(below) = ladder.below(current) else { return self.pause(now, current, ladder) };
        if self.is_short(now, current, ladder) {
            let bps = self.estimate.map_or(0, |estimate| estimate.bps);
            let fitting = || ladder.within(bps, current).or_else(|| ladder.lowest());
            let layer = self.tried_from(current, ladder).or_else(fitting).unwrap_or(below);
            let target = Target::Layer(layer);
            return Some(Switch { target, reason: SwitchReason::DownEstimate });
        }
        let needed = if self.trial.is_some() { 1 } else { LOSSY_REPORTS };
        let layer = self.tried_from(current, ladder).unwrap_or(below);
        (self.loss.lossy >= needed)
            .then_some(Switch { target: Target::Layer(layer), reason: SwitchReason::DownLoss })
    }

    /// The layer below `current` from which it was tried: the estimate during a try
    /// that fails says little of what fitted before.
    fn tried_from(&self, current: u8, ladder: &Ladder<'_>) -> Option<u8> {
        match self.trial?.from {
            Target::Layer(from) if ladder.flows(from) && ladder.is_above(current, from) => {
                Some(from)
            }
            _ => None,
        }
    }

    /// The estimate does not carry what is sent, and does not grow.
    fn is_short(&self, now: Instant, current: u8, ladder: &Ladder<'_>) -> bool {
        let Some(estimate) = self.settled_estimate(now) else { return false };
        let sent = ladder.total(current);
        if estimate.grows || estimate.bps >= sent {
            return false;
        }
        let lasting = lasts(self.short_since, now, SHORT_FOR);
        let clear = match self.trial {
            None => estimate.bps < percent(sent, SHORT_PERCENT),
            Some(trial) => estimate.bps < percent(trial.estimate, 97),
        };
        clear || lasting
    }

    /// Pauses the video when not even the lowest layer gets through.
    fn pause(&self, now: Instant, current: u8, ladder: &Ladder<'_>) -> Option<Switch> {
        let starved = self.settled_estimate(now).is_some_and(|estimate| {
            !estimate.grows && estimate.bps < percent(ladder.total(current), STARVED_PERCENT)
        });
        let starved = starved && lasts(self.short_since, now, SHORT_FOR);
        let lost = match self.trial {
            Some(_) => self.loss.heavy > 0,
            None => self.loss.heavy >= HEAVY_REPORTS,
        };
        (starved || lost).then_some(Switch { target: Target::Paused, reason: SwitchReason::Pause })
    }

    /// While nothing is sent no report can tell that the path is better: it is tried.
    fn resume(&self, now: Instant, ladder: &Ladder<'_>) -> Option<Switch> {
        if self.not_before.is_some_and(|at| now < at) {
            return None;
        }
        let target = Target::Layer(ladder.lowest()?);
        Some(Switch { target, reason: SwitchReason::Resume })
    }

    fn go_up(&self, now: Instant, current: u8, ladder: &Ladder<'_>) -> Option<Switch> {
        if self.not_before.is_some_and(|at| now < at) {
            return None;
        }
        let next = ladder.above(current)?;
        let estimate = self.fresh_estimate(now).map(|estimate| estimate.bps);
        let layer = match estimate {
            // Nothing is known: the best one, until there is trouble.
            None if !self.troubled && self.quiet_since.is_some() => ladder.best()?,
            Some(bps) if lasts(self.room_since, now, ROOM_FOR) => {
                let room = (u128::from(bps) * 100 / u128::from(ROOM_PERCENT)) as u64;
                ladder.best_within(room).filter(|layer| ladder.is_above(*layer, current))?
            }
            _ => {
                let quiet = if self.troubled { QUIET_FOR } else { QUIET_FOR_UNTROUBLED };
                lasts(self.quiet_since, now, quiet).then_some(next)?
            }
        };
        Some(Switch { target: Target::Layer(layer), reason: SwitchReason::Up })
    }

    fn apply(&mut self, now: Instant, switch: Switch, ladder: &Ladder<'_>) {
        let upward = match (self.target, switch.target) {
            (Target::Layer(from), Target::Layer(to)) => ladder.is_above(to, from),
            (Target::Paused, Target::Layer(_)) => true,
            (_, Target::Paused) => false,
        };
        let failed = self.trial.take().is_some();
        match switch.reason {
            SwitchReason::DownEstimate | SwitchReason::DownLoss => {
                self.back_off(failed);
                self.not_before = Some(now + self.backoff);
                self.troubled = true;
            }
            SwitchReason::Pause => {
                self.not_before = Some(now + self.probe);
                self.probe = (self.probe * 2).min(MAX_PROBE);
                self.back_off(failed);
                self.troubled = true;
            }
            SwitchReason::LayerGone => {
                self.not_before = self.not_before.max(Some(now + AFTER_GONE))
            }
            SwitchReason::Resume => self.not_before = Some(now + self.backoff),
            SwitchReason::Manual => self.by_hand_at = Some(now),
            SwitchReason::Up => {}
        }
        if upward {
            let estimate = self.fresh_estimate(now).map_or(0, |estimate| estimate.bps);
            self.trial = Some(Trial { since: now, from: self.target, estimate });
        }
        self.target = switch.target;
        self.switched_at = Some(now);
        self.loss = Loss::default();
        (self.short_since, self.room_since, self.quiet_since) = (None, None, None);
    }

    fn back_off(&mut self, failed: bool) {
        if failed {
            self.backoff = (self.backoff * 2).min(MAX_BACKOFF);
        }
    }

    fn fresh_estimate(&self, now: Instant) -> Option<Estimate> {
        self.estimate.filter(|estimate| now.saturating_duration_since(estimate.at) < ESTIMATE_LIFE)
    }

    /// The estimate, when it is about what is sent now.
    fn settled_estimate(&self, now: Instant) -> Option<Estimate> {
        let settled = |at: Instant| {
            self.switched_at.is_none_or(|since| at.saturating_duration_since(since) >= SETTLE)
        };
        self.fresh_estimate(now).filter(|estimate| settled(estimate.at))
    }

    fn since_switch(&self, now: Instant) -> Option<Duration> {
        self.switched_at.map(|at| now.saturating_duration_since(at))
    }
}

/// Keeps since when `holds` is true.
fn keep(since: &mut Option<Instant>, holds: bool, now: Instant) {
    *since = if holds { since.or(Some(now)) } else { None };
}

fn lasts(since: Option<Instant>, now: Instant, long: Duration) -> bool {
    since.is_some_and(|since| now.saturating_duration_since(since) >= long)
}

/// `share` percent of `value`, which may be anything.
fn percent(value: u64, share: u64) -> u64 {
    (u128::from(value) * u128::from(share) / 100).min(u128::from(u64::MAX)) as u64
}

#[cfg(test)]
#[path = "layers_tests.rs"]
mod tests;
