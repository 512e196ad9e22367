//! The layers of one viewer: its reports and wishes go to the choosers, and what they
//! decide goes to its tracks.

use std::sync::Arc;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use super::layers::{LayerChooser, Switch, SwitchReason, Target};
use super::source::Source;
use super::track::ViewerTrack;
use super::watching::{Sent, Watching};
use crate::hub::EgressCounts;
use crate::media::LayerId;

/// How often layers are chosen when nothing is reported, and keyframes asked for again.
const INTERVAL: Duration = Duration::from_millis(500);
/// A viewer whose path is too narrow for its layer is sent nothing rather than that
/// layer, when the lower one has no keyframe for this long.
const DOWN_WAIT: Duration = Duration::from_secs(2);

/// Owner: the viewer.
pub(super) struct Selection {
    choosers: SmallVec<[Chooser; 1]>,
    watching: Arc<Watching>,
    next: Instant,
    /// A report or a choice of the viewer has come since.
    soon: bool,
}

/// Chooses for one track of video.
struct Chooser {
    layers: Box<LayerChooser>,
    /// Index of the viewer's track.
    track: usize,
    /// Index in what the viewer watches.
    watched: usize,
    /// Since when a lower layer's keyframe is waited for.
    down_since: Option<Instant>,
}

impl Selection {
    pub(super) fn new(watching: Arc<Watching>, now: Instant) -> Self {
        Self { choosers: SmallVec::new(), watching, next: now + INTERVAL, soon: false }
    }

    /// Where a viewer starts on the track that it watches as number `watched`: at the
    /// layer it has chosen, or the best.
    pub(super) fn first_layer(&self, watched: usize, source: &Source, now: Instant) -> LayerId {
        let Some(track) = self.watching.tracks.get(watched) else {
            return LayerId { track: 0, layer: 0 };
        };
        let chosen = track.chosen().map(|layer| LayerId { track: track.track, layer });
        let chosen = chosen.filter(|id| source.flows(*id, now));
        chosen.unwrap_or_else(|| source.best_layer(track.track, now))
    }

    /// Chooses for the viewer's track number `track` from now on.
    pub(super) fn add(&mut self, track: usize, watched: usize, layer: u8) {
        let layers = Box::new(LayerChooser::new(layer));
        self.choosers.push(Chooser { layers, track, watched, down_since: None });
    }

    /// Takes the receiver's estimate of what it can take in all.
    pub(super) fn handle_estimate(&mut self, now: Instant, bps: u64) {
        self.choosers.iter_mut().for_each(|chooser| chooser.layers.handle_estimate(now, bps));
        self.soon = true;
    }

    /// Takes the loss that was reported of the viewer's track number `track`.
    pub(super) fn handle_loss(&mut self, now: Instant, track: usize, fraction: u8) {
        for chooser in self.choosers.iter_mut().filter(|chooser| chooser.track == track) {
            chooser.layers.handle_loss(now, fraction);
            self.soon = true;
        }
    }

    /// Layers are chosen at the next visit, and not when it is time.
    pub(super) fn choose_soon(&mut self) {
        self.soon = true;
    }

    /// Chooses, when there is cause to. Returns whether the regular time has come.
    pub(super) fn run(
        &mut self,
        now: Instant,
        source: &mut Source,
        tracks: &mut [ViewerTrack],
        counts: &mut EgressCounts,
    ) -> bool {
        let regular = now >= self.next;
        if !regular && !self.soon {
            return false;
        }
        self.soon = false;
        if regular {
            self.next = now + INTERVAL;
        }
        source.observe(now);
        for chooser in &mut self.choosers {
            let beside = beside(chooser.track, source, tracks);
            let Some(watched) = self.watching.tracks.get(chooser.watched) else { continue };
            let Some(track) = tracks.get_mut(chooser.track) else { continue };
            chooser.layers.choose_manually(watched.chosen());
            match track.target {
                Some(_) => chooser.layers.wait_for_keyframe(now),
                None => chooser.down_since = None,
            }
            let states = source.states(track.params.track);
            let switch = chooser.layers.choose(now, states, beside);
            if let Some(switch) = switch {
                count(counts, switch.reason);
                carry_out(switch, track);
                chooser.down_since = switch.reason.is_relief().then_some(now);
            }
            if chooser.down_since.is_some_and(|at| now.saturating_duration_since(at) > DOWN_WAIT) {
                track.hold();
            }
            if let Some(target) = track.target
                && (regular || switch.is_some())
            {
                source.ask_for_keyframe(now, target, counts);
            }
            watched.set_sent(match track.is_paused() {
                true => Sent::Paused,
                false if track.started() => Sent::Layer(track.layer.layer),
                false => Sent::Nothing,
            });
        }
        regular
    }
}

/// What the viewer's other tracks take, in bits per second.
fn beside(track: usize, source: &Source, tracks: &[ViewerTrack]) -> u64 {
    let others = tracks.iter().enumerate().filter(|(at, other)| *at != track && !other.is_paused());
    let bps = |id: LayerId| source.states(id.track).get(usize::from(id.layer)).map(|s| s.bps);
    others.filter_map(|(_, other)| bps(other.layer)).fold(0, u64::saturating_add)
}

fn carry_out(switch: Switch, track: &mut ViewerTrack) {
    match switch.target {
        Target::Paused => track.pause(),
        Target::Layer(layer) => track.go_to(LayerId { track: track.params.track, layer }),
    }
}

fn count(counts: &mut EgressCounts, reason: SwitchReason) {
    *match reason {
        SwitchReason::Up => &mut counts.switched_up,
        SwitchReason::DownEstimate => &mut counts.switched_down_estimate,
        SwitchReason::DownLoss => &mut counts.switched_down_loss,
        SwitchReason::Manual => &mut counts.switched_manual,
        SwitchReason::LayerGone => &mut counts.switched_layer_gone,
        SwitchReason::Pause => &mut counts.paused,
        SwitchReason::Resume => &mut counts.resumed,
    } += 1;
}
