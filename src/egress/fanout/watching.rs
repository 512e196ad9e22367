//! What a viewer watches, as far as the HTTP side and the viewer's worker both know
//! it: the choice of a layer goes one way, what is sent comes back the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::hub::Stream;
use crate::webrtc::negotiated::SendTrack;

/// No layer has this index: tracks have a handful.
const NONE: u8 = u8::MAX;
const PAUSED: u8 = u8::MAX - 1;

/// A viewer's stream and tracks. Shared as `Arc<Watching>`.
pub struct Watching {
    /// The stream.
    pub stream: Arc<Stream>,
    /// What was negotiated of it, in the order of the answer.
    pub tracks: Vec<WatchedTrack>,
}

/// One track of a viewer.
pub struct WatchedTrack {
    /// The media section's `a=mid`.
    pub mid: String,
    /// Index of the track in the stream.
    pub track: u8,
    /// Written by the HTTP side.
    chosen: AtomicU8,
    /// Written by the worker.
    sent: AtomicU8,
}

/// What a viewer is sent of a track.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// Nothing yet.
    Nothing,
    /// A layer, by its index in the track.
    Layer(u8),
    /// Nothing for now: the path does not carry the lowest layer.
    Paused,
}

impl Watching {
    /// What a viewer of these tracks will watch.
    pub fn new(stream: Arc<Stream>, tracks: &[SendTrack]) -> Arc<Self> {
        let tracks = tracks.iter().map(|track| WatchedTrack::new(track.mid.clone(), track.track));
        Arc::new(Self { stream, tracks: tracks.collect() })
    }
}

impl WatchedTrack {
    fn new(mid: String, track: u8) -> Self {
        Self { mid, track, chosen: AtomicU8::new(NONE), sent: AtomicU8::new(NONE) }
    }

    /// The layer that the viewer chose; `None`: the gateway chooses.
    pub fn chosen(&self) -> Option<u8> {
        Some(self.chosen.load(Ordering::Relaxed)).filter(|layer| *layer != NONE)
    }

    /// Chooses a layer, or leaves the choice to the gateway. The viewer's worker looks
    /// at it twice a second.
    pub fn choose(&self, layer: Option<u8>) {
        self.chosen.store(layer.unwrap_or(NONE), Ordering::Relaxed);
    }

    /// What the viewer is sent.
    pub fn sent(&self) -> Sent {
        match self.sent.load(Ordering::Relaxed) {
            NONE => Sent::Nothing,
            PAUSED => Sent::Paused,
            layer => Sent::Layer(layer),
        }
    }

    /// Called by the worker when that changes.
    pub(super) fn set_sent(&self, sent: Sent) {
        let value = match sent {
            Sent::Nothing => NONE,
            Sent::Paused => PAUSED,
            Sent::Layer(layer) => layer,
        };
        self.sent.store(value, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choice_and_what_is_sent_read_back() {
        let track = WatchedTrack::new("0".into(), 1);
        assert_eq!((track.chosen(), track.sent()), (None, Sent::Nothing));
        for layer in 0..8 {
            track.choose(Some(layer));
            track.set_sent(Sent::Layer(layer));
            assert_eq!((track.chosen(), track.sent()), (Some(layer), Sent::Layer(layer)));
        }
        track.choose(None);
        track.set_sent(Sent::Paused);
        assert_eq!((track.chosen(), track.sent()), (None, Sent::Paused));
    }
}
