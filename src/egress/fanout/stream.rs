//! One stream on one worker: its rings, and what its viewers ask of its source.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::cache::LayerCache;
use crate::codec::MediaKind;
use crate::hub::{Stream, SubscriptionId};
use crate::media::{LayerId, Packet};

/// Requests of one worker's viewers for the same layer within this time are one.
const KEYFRAME_COALESCE: Duration = Duration::from_millis(100);
/// A simulcast layer that was silent for longer has stopped: browsers drop layers
/// when the uplink or the CPU does not carry them.
const LAYER_SILENCE: Duration = Duration::from_secs(1);

/// One layer's ring and what is going on with it.
struct Layer {
    cache: LayerCache,
    last_packet: Option<Instant>,
    last_request: Option<Instant>,
}

/// A stream that this worker's viewers watch. owner: the worker.
pub struct FanoutStream {
    /// The stream.
    pub stream: Arc<Stream>,
    /// The subscription that feeds the rings; ended when the last viewer leaves.
    pub subscription: Option<SubscriptionId>,
    /// The worker's keys of the viewers.
    pub viewers: Vec<usize>,
    /// A ring has grown, or a viewer is behind, since the last pass.
    pub touched: bool,
    layers: Vec<Vec<Layer>>,
}

impl FanoutStream {
    /// A stream with empty rings.
    pub fn new(stream: Arc<Stream>) -> Self {
        let layers = stream.tracks.iter().map(|track| {
            let layer = |_: &String| Layer {
                cache: LayerCache::new(track.kind()),
                last_packet: None,
                last_request: None,
            };
            track.rids.iter().map(layer).collect()
        });
        Self {
            layers: layers.collect(),
            stream,
            subscription: None,
            viewers: Vec::new(),
            touched: false,
        }
    }

    /// Takes a packet of `layer` into its ring.
    pub fn push(&mut self, now: Instant, id: LayerId, packet: Arc<Packet>) {
        if let Some(layer) = self.layer_mut(id) {
            layer.cache.push(packet);
            layer.last_packet = Some(now);
            self.touched = true;
        }
    }

    /// The ring of a layer.
    pub fn cache(&self, id: LayerId) -> Option<&LayerCache> {
        let layer = self.layers.get(usize::from(id.track))?.get(usize::from(id.layer))?;
        Some(&layer.cache)
    }

    /// The layer of `track` to watch: of those that flow the one with the most
    /// pixels, and among equals the last in the publisher's order.
    pub fn best_layer(&self, track: u8, now: Instant) -> LayerId {
        let layers = self.layers.get(usize::from(track)).map_or(&[][..], Vec::as_slice);
        let flows = |layer: &Layer| {
            layer.last_packet.is_some_and(|at| now.saturating_duration_since(at) < LAYER_SILENCE)
        };
        let ids = (0..layers.len()).map(|layer| LayerId { track, layer: layer as u8 });
        ids.max_by_key(|id| (flows(&layers[usize::from(id.layer)]), self.pixels(*id), id.layer))
            .unwrap_or(LayerId { track, layer: 0 })
    }

    /// Asks the source for a keyframe of `layer`, unless that was done just now.
    pub fn request_keyframe(&mut self, now: Instant, id: LayerId) {
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
    pub fn kind(&self, track: u8) -> Option<MediaKind> {
        self.stream.tracks.get(usize::from(track)).map(|info| info.kind())
    }

    fn pixels(&self, id: LayerId) -> u64 {
        let snapshot = self.stream.layer_snapshot(id).unwrap_or_default();
        u64::from(snapshot.width) * u64::from(snapshot.height)
    }

    fn layer_mut(&mut self, id: LayerId) -> Option<&mut Layer> {
        self.layers.get_mut(usize::from(id.track))?.get_mut(usize::from(id.layer))
    }
}
