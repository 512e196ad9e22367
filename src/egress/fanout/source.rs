//! What the viewers of one stream on one worker are sent from: its rings. And what
//! they ask of the publisher.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::layers::LayerState;
use super::rate::RateMeter;
use super::ring::Ring;
use super::track::SLICE;
use crate::codec::MediaKind;
use crate::hub::{EgressCounts, Stream};
use crate::media::{LayerId, Packet};

/// Longest time for which the first packets of a frame wait for its last: publishers
/// pace their frames, and a frame that leaves as a whole costs a fraction of the system
/// calls. Nobody can show a part of it, so that nothing comes later for it.
const FRAME_WAIT: Duration = Duration::from_millis(10);
/// Longest time for which audio waits to leave together with video.
const AUDIO_WAIT: Duration = Duration::from_millis(10);

/// Requests of one worker's viewers for the same layer within this time are one.
const KEYFRAME_COALESCE: Duration = Duration::from_millis(100);
/// A simulcast layer that was silent for longer has stopped: browsers drop layers
/// when the uplink or the CPU does not carry them.
const LAYER_SILENCE: Duration = Duration::from_secs(1);

/// What is known of the layers is gathered anew after this time: many viewers ask.
const STATE_LIFE: Duration = Duration::from_millis(100);

/// One layer's ring and what is going on with it.
struct Layer {
    ring: Ring,
    last_packet: Option<Instant>,
    last_request: Option<Instant>,
    rate: Option<RateMeter>,
    /// When what was pushed goes to the viewers.
    release_at: Option<Instant>,
}

/// Owner: the stream on this worker.
pub(super) struct Source {
    pub(super) stream: Arc<Stream>,
    layers: Vec<Vec<Layer>>,
    /// Of each layer, as it was lately, and when.
    states: Vec<Vec<LayerState>>,
    states_at: Option<Instant>,
    /// The earliest time at which a layer is to be released.
    release_at: Option<Instant>,
    has_video: bool,
}

impl Source {
    pub(super) fn new(stream: Arc<Stream>) -> Self {
        let layers = stream.tracks.iter().map(|track| {
            let layer = |_: &String| Layer {
                ring: Ring::new(track.codec),
                last_packet: None,
                last_request: None,
                rate: None,
                release_at: None,
            };
            track.rids.iter().map(layer).collect()
        });
        let has_video = stream.tracks.iter().any(|track| track.kind() == MediaKind::Video);
        Self {
            layers: layers.collect(),
            states: Vec::new(),
            states_at: None,
            stream,
            release_at: None,
            has_video,
        }
    }

    /// Takes a packet of `layer` into its ring.
    pub(super) fn push(&mut self, now: Instant, id: LayerId, packet: Arc<Packet>) {
        let (kind, marker) = (self.kind(id.track), packet.marker);
        let has_video = self.has_video;
        let Some(layer) = self.layer_mut(id) else { return };
        layer.rate.get_or_insert_with(|| RateMeter::new(now)).push(now, packet.payload.len());
        layer.ring.push(packet);
        layer.last_packet = Some(now);
        let wait = match kind {
            Some(MediaKind::Audio) if has_video => AUDIO_WAIT,
            Some(MediaKind::Video) if !marker && layer.ring.held() < SLICE as u64 => FRAME_WAIT,
            _ => Duration::ZERO,
        };
        let at = layer.release_at.map_or(now + wait, |earlier| earlier.min(now + wait));
        layer.release_at = Some(at);
        self.release_at = Some(self.release_at.map_or(at, |earlier| earlier.min(at)));
    }

    /// When [`Self::release`] is due.
    pub(super) fn release_at(&self) -> Option<Instant> {
        self.release_at
    }

    /// Lets the viewers be sent what was pushed, when it is time; true when it was.
    pub(super) fn release(&mut self, now: Instant) -> bool {
        if self.release_at.is_none_or(|at| now < at) {
            return false;
        }
        for (track, layers) in self.stream.tracks.iter().zip(&mut self.layers) {
            // Audio rides along with whatever goes.
            let rides = track.kind() == MediaKind::Audio;
            for layer in layers {
                if rides || layer.release_at.is_some_and(|at| at <= now) {
                    layer.ring.release();
                    layer.release_at = None;
                }
            }
        }
        self.release_at = self.layers.iter().flatten().filter_map(|layer| layer.release_at).min();
        true
    }

    /// The ring of a layer.
    pub(super) fn ring(&self, id: LayerId) -> Option<&Ring> {
        let layer = self.layers.get(usize::from(id.track))?.get(usize::from(id.layer))?;
        Some(&layer.ring)
    }

    /// The layer of `track` to watch: of those that flow the one with the most
    /// pixels, and among equals the last in the publisher's order.
    pub(super) fn best_layer(&self, track: u8, now: Instant) -> LayerId {
        let layers = self.layers.get(usize::from(track)).map_or(&[][..], Vec::as_slice);
        let flows = |layer: &Layer| flows(layer, now);
        let pixels = |id: LayerId| pixels(&self.stream, id);
        let ids = (0..layers.len()).map(|layer| LayerId { track, layer: layer as u8 });
        ids.max_by_key(|id| (flows(&layers[usize::from(id.layer)]), pixels(*id), id.layer))
            .unwrap_or(LayerId { track, layer: 0 })
    }

    /// Looks at the layers anew, unless that was done just now.
    pub(super) fn observe(&mut self, now: Instant) {
        let recent = |at: Instant| now.saturating_duration_since(at) < STATE_LIFE;
        if self.states_at.is_some_and(recent) {
            return;
        }
        self.states_at = Some(now);
        let stream = &self.stream;
        let tracks = (0..=u8::MAX).zip(&mut self.layers);
        let states = tracks.map(|(track, layers)| {
            let layers = (0..=u8::MAX).zip(layers);
            let state = |(layer, state): (u8, &mut Layer)| LayerState {
                flows: flows(state, now),
                pixels: pixels(stream, LayerId { track, layer }),
                bps: state.rate.as_mut().map_or(0, |rate| rate.bps(now)),
            };
            layers.map(state).collect()
        });
        self.states = states.collect();
    }

    /// The layers of `track`, as [`Self::observe`] saw them last.
    pub(super) fn states(&self, track: u8) -> &[LayerState] {
        self.states.get(usize::from(track)).map_or(&[], Vec::as_slice)
    }

    /// Packets of the layer have come lately.
    pub(super) fn flows(&self, id: LayerId, now: Instant) -> bool {
        let layer = self.layers.get(usize::from(id.track));
        let layer = layer.and_then(|layers| layers.get(usize::from(id.layer)));
        layer.is_some_and(|layer| flows(layer, now))
    }

    /// Asks the publisher for a keyframe of `layer` for a viewer, unless that was done
    /// just now.
    pub(super) fn ask_for_keyframe(
        &mut self,
        now: Instant,
        id: LayerId,
        counts: &mut EgressCounts,
    ) {
        counts.keyframes_asked += 1;
        let Some(layer) = self.layer_mut(id) else { return };
        let recent = |at: Instant| now.saturating_duration_since(at) < KEYFRAME_COALESCE;
        if layer.last_request.is_some_and(recent) {
            return;
        }
        layer.last_request = Some(now);
        // A full queue means that many others ask; the viewer asks again.
        let _ = self.stream.request_keyframe(id);
    }

    /// The kind of a track of the stream.
    pub(super) fn kind(&self, track: u8) -> Option<MediaKind> {
        self.stream.tracks.get(usize::from(track)).map(|info| info.kind())
    }

    fn layer_mut(&mut self, id: LayerId) -> Option<&mut Layer> {
        self.layers.get_mut(usize::from(id.track))?.get_mut(usize::from(id.layer))
    }
}

fn flows(layer: &Layer, now: Instant) -> bool {
    layer.last_packet.is_some_and(|at| now.saturating_duration_since(at) < LAYER_SILENCE)
}

fn pixels(stream: &Stream, id: LayerId) -> u64 {
    let snapshot = stream.layer_snapshot(id).unwrap_or_default();
    u64::from(snapshot.width) * u64::from(snapshot.height)
}
