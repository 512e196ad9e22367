//! The layers of a track as steps: by pixels, and among equals in the publisher's
//! order. Only layers that flow are steps, and none above the viewer's choice while
//! there is one at or below it.

use super::layers::LayerState;

pub(super) struct Ladder<'a> {
    layers: &'a [LayerState],
    ceiling: Option<(u64, u8)>,
    audio_bps: u64,
}

impl<'a> Ladder<'a> {
    pub(super) fn new(layers: &'a [LayerState], ceiling: Option<u8>, audio_bps: u64) -> Self {
        let mut ladder = Self { layers, ceiling: None, audio_bps };
        let ceiling = ceiling.filter(|layer| usize::from(*layer) < layers.len());
        let ceiling = ceiling.map(|layer| ladder.rank(layer));
        if ladder.steps().any(|layer| ceiling.is_some_and(|top| ladder.rank(layer) <= top)) {
            ladder.ceiling = ceiling;
        }
        ladder
    }

    pub(super) fn flows(&self, layer: u8) -> bool {
        self.layers.get(usize::from(layer)).is_some_and(|state| state.flows)
    }

    /// Payload bits per second of `layer` together with the audio.
    pub(super) fn total(&self, layer: u8) -> u64 {
        let bps = self.layers.get(usize::from(layer)).map_or(0, |state| state.bps);
        bps.saturating_add(self.audio_bps)
    }

    pub(super) fn is_above(&self, layer: u8, other: u8) -> bool {
        self.rank(layer) > self.rank(other)
    }

    /// The next step above.
    pub(super) fn above(&self, layer: u8) -> Option<u8> {
        let above = self.steps().filter(|other| self.is_above(*other, layer));
        above.min_by_key(|other| self.rank(*other))
    }

    /// The next step below.
    pub(super) fn below(&self, layer: u8) -> Option<u8> {
        let below = self.steps().filter(|other| self.is_above(layer, *other));
        below.max_by_key(|other| self.rank(*other))
    }

    pub(super) fn lowest(&self) -> Option<u8> {
        self.steps().min_by_key(|layer| self.rank(*layer))
    }

    pub(super) fn best(&self) -> Option<u8> {
        self.steps().max_by_key(|layer| self.rank(*layer))
    }

    /// The best step that takes at most `bps` in all.
    pub(super) fn best_within(&self, bps: u64) -> Option<u8> {
        let fitting = self.steps().filter(|layer| self.total(*layer) <= bps);
        fitting.max_by_key(|layer| self.rank(*layer))
    }

    /// The best step below `layer` that takes at most `bps` in all.
    pub(super) fn within(&self, bps: u64, layer: u8) -> Option<u8> {
        let fitting =
            self.steps().filter(|other| self.is_above(layer, *other) && self.total(*other) <= bps);
        fitting.max_by_key(|other| self.rank(*other))
    }

    fn steps(&self) -> impl Iterator<Item = u8> + '_ {
        let all = (0..=u8::MAX).zip(self.layers);
        all.filter(|(layer, state)| {
            state.flows && self.ceiling.is_none_or(|top| self.rank(*layer) <= top)
        })
        .map(|(layer, _)| layer)
    }

    fn rank(&self, layer: u8) -> (u64, u8) {
        let pixels = self.layers.get(usize::from(layer)).map_or(0, |state| state.pixels);
        (pixels, layer)
    }
}
