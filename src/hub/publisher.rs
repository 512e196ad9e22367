//! The way in: takes a source's packets, keeps the GOPs, feeds the subscribers.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam_channel::Receiver;

use super::gop::Gop;
use super::registry::Registry;
use super::sink::{FrameSink, PacketSink};
use super::stream::{Command, EndReason, IngestCounters, Phase, Stream, SubscriptionId};
use crate::media::{LayerId, Packet};
use crate::rtp::Depacketizer;

/// What the hub asks of the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublisherEvent {
    /// Send a random access point on this layer. Not throttled: the source is,
    /// because only it knows what it has asked for already.
    KeyframeWanted(LayerId),
    /// End the session; the publisher is to be dropped.
    End(EndReason),
}

/// Owned by the thread that takes the source's packets in. Dropping it ends the stream.
///
/// Call [`Self::poll`] until it returns `None` whenever the waker given at
/// [`Registry::publish`] was woken.
pub struct Publisher {
    stream: Arc<Stream>,
    commands: Receiver<Command>,
    registry: Arc<Registry>,
    /// By track, then layer. owner: the publisher's thread.
    layers: Vec<Vec<Layer>>,
    packet_sinks: Vec<(SubscriptionId, Box<dyn PacketSink>)>,
    frame_sinks: Vec<(SubscriptionId, Box<dyn FrameSink>)>,
    /// Keyframe requests of a subscription in progress, waiting for [`Self::poll`].
    wanted: Vec<LayerId>,
    end_reason: EndReason,
}

struct Layer {
    gop: Gop,
    last_timestamp: Option<u64>,
    /// Only while somebody wants frames.
    depacketizer: Option<Depacketizer>,
}

impl Publisher {
    pub(super) fn new(
        stream: Arc<Stream>,
        commands: Receiver<Command>,
        registry: Arc<Registry>,
    ) -> Self {
        let layer =
            |_: &String| Layer { gop: Gop::default(), last_timestamp: None, depacketizer: None };
        let layers = stream.tracks.iter().map(|t| t.rids.iter().map(layer).collect()).collect();
        Self {
            stream,
            commands,
            registry,
            layers,
            packet_sinks: Vec::new(),
            frame_sinks: Vec::new(),
            wanted: Vec::new(),
            end_reason: EndReason::Closed,
        }
    }

    /// The stream that this publisher feeds.
    pub fn stream(&self) -> &Arc<Stream> {
        &self.stream
    }

    /// Takes the next packet of `layer` in. Packets of a layer come in rising `seq`.
    /// A packet of a layer that the stream does not have is ignored.
    pub fn push(&mut self, id: LayerId, packet: Packet) {
        let Some(layer) = self
            .layers
            .get_mut(usize::from(id.track))
            .and_then(|t| t.get_mut(usize::from(id.layer)))
        else {
            return;
        };
        if self.stream.phase.load(Ordering::Relaxed) == Phase::Connecting as u8 {
            self.stream.phase.store(Phase::Live as u8, Ordering::Release);
            self.registry.announce_live(&self.stream);
        }
        let packet = Arc::new(packet);
        let opens_gop = layer.gop.push(&packet);
        self.stream.count(id, &packet, opens_gop, layer.last_timestamp != Some(packet.timestamp));
        layer.last_timestamp = Some(packet.timestamp);
        if packet.keyframe {
            self.stream.note_resolution(id, &packet.payload);
        }
        for (_, sink) in &mut self.packet_sinks {
            sink.packet(id, &packet);
        }
        if let Some(frame) = layer.depacketizer.as_mut().and_then(|d| d.push(&packet)) {
            let frame = Arc::new(frame);
            for (_, sink) in &mut self.frame_sinks {
                sink.frame(id, &frame);
            }
        }
    }

    /// Publishes what the source knows of how a layer reaches it.
    pub fn set_counters(&mut self, id: LayerId, counters: IngestCounters) {
        let Some(stats) = self.stream.layer_stats(id) else { return };
        stats.lost.store(counters.lost, Ordering::Relaxed);
        stats.recovered.store(counters.recovered, Ordering::Relaxed);
        stats.nacks.store(counters.nacks, Ordering::Relaxed);
        stats.plis.store(counters.plis, Ordering::Relaxed);
        stats.jitter_micros.store(counters.jitter_micros, Ordering::Relaxed);
        stats.rtt_micros.store(counters.rtt_micros, Ordering::Relaxed);
    }

    /// Carries out waiting commands; returns the next thing the source must do.
    pub fn poll(&mut self) -> Option<PublisherEvent> {
        if let Some(reason) = self.stream.ending() {
            self.end_reason = reason;
            return Some(PublisherEvent::End(reason));
        }
        loop {
            if let Some(layer) = self.wanted.pop() {
                return Some(PublisherEvent::KeyframeWanted(layer));
            }
            match self.commands.try_recv().ok()? {
                Command::SubscribePackets(id, sink) => self.add_packet_sink(id, sink),
                Command::SubscribeFrames(id, sink) => self.add_frame_sink(id, sink),
                Command::Unsubscribe(id) => self.remove_sink(id),
                Command::RequestKeyframe(layer) => {
                    return Some(PublisherEvent::KeyframeWanted(layer));
                }
            }
        }
    }

    /// Ends the stream for `reason`. Dropping without it counts as `Closed`.
    pub fn end(mut self, reason: EndReason) {
        self.end_reason = reason;
    }

    fn add_packet_sink(&mut self, id: SubscriptionId, mut sink: Box<dyn PacketSink>) {
        for (layer_id, layer) in each_layer(&mut self.layers) {
            for packet in layer.gop.packets() {
                sink.packet(layer_id, packet);
            }
            if layer.gop.packets().is_empty() {
                self.wanted.push(layer_id);
            }
        }
        self.packet_sinks.push((id, sink));
        self.forget_audio_requests();
    }

    fn add_frame_sink(&mut self, id: SubscriptionId, mut sink: Box<dyn FrameSink>) {
        let first = self.frame_sinks.is_empty();
        for (layer_id, layer) in each_layer(&mut self.layers) {
            let codec = self.stream.tracks[usize::from(layer_id.track)].codec;
            // A depacketizer of its own brings the newcomer to the live edge; the
            // shared one, fed the same packets, is then in the same state.
            let mut replay = Depacketizer::new(codec);
            for packet in layer.gop.packets() {
                if let Some(frame) = replay.push(packet) {
                    sink.frame(layer_id, &Arc::new(frame));
                }
            }
            if layer.gop.packets().is_empty() {
                self.wanted.push(layer_id);
            }
            if first {
                layer.depacketizer = Some(replay);
            }
        }
        self.frame_sinks.push((id, sink));
        self.forget_audio_requests();
    }

    fn remove_sink(&mut self, id: SubscriptionId) {
        self.packet_sinks.retain(|(other, _)| *other != id);
        self.frame_sinks.retain(|(other, _)| *other != id);
        if self.frame_sinks.is_empty() {
            for (_, layer) in each_layer(&mut self.layers) {
                layer.depacketizer = None;
            }
        }
    }

    /// Audio has no keyframes to ask for.
    fn forget_audio_requests(&mut self) {
        let tracks = &self.stream.tracks;
        self.wanted
            .retain(|id| tracks[usize::from(id.track)].kind() == crate::codec::MediaKind::Video);
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        // Before the phase: who sees the end may ask for the reason.
        self.stream.ending.store(self.end_reason as u8, Ordering::Release);
        self.stream.phase.store(Phase::Ended as u8, Ordering::Release);
        for (_, sink) in &mut self.packet_sinks {
            sink.ended();
        }
        for (_, sink) in &mut self.frame_sinks {
            sink.ended();
        }
        self.registry.remove(&self.stream, self.end_reason);
    }
}

fn each_layer(layers: &mut [Vec<Layer>]) -> impl Iterator<Item = (LayerId, &mut Layer)> {
    layers.iter_mut().enumerate().flat_map(|(track, layers)| {
        layers
            .iter_mut()
            .enumerate()
            .map(move |(layer, state)| (LayerId { track: track as u8, layer: layer as u8 }, state))
    })
}
