//! A live stream as everybody but its publisher sees it.

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::task::Waker;

use crossbeam_channel::Sender;

use super::TableName;
use super::egress::EgressTotals;
use super::sink::{FrameSink, PacketSink};
use crate::codec::MediaKind;
use crate::media::{LayerId, Packet, TrackInfo};
use crate::rtp::resolution_of_keyframe_payload;
use crate::time::Utc;

/// Identifies one publication of a table; never reused within a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(pub u64);

/// Identifies a subscription within its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SubscriptionId(pub(super) u64);

/// Why a stream is over; the value of the `reason` label.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// The publisher ended its session (DELETE, DTLS close).
    Closed,
    /// Nothing came from the publisher for the configured bound.
    Timeout,
    /// Another publisher with the same credentials took over.
    Replaced,
    /// The gateway is stopping.
    Shutdown,
}

impl EndReason {
    const ALL: [Self; 4] = [Self::Closed, Self::Timeout, Self::Replaced, Self::Shutdown];

    /// The value of the `reason` metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Timeout => "timeout",
            Self::Replaced => "replaced",
            Self::Shutdown => "shutdown",
        }
    }
}

/// The publisher's command queue is full; asking again a little later helps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the stream has too many requests waiting")]
pub struct StreamBusy;

/// What a stream asks of its publisher's thread.
pub(super) enum Command {
    SubscribePackets(SubscriptionId, Box<dyn PacketSink>),
    SubscribeFrames(SubscriptionId, Box<dyn FrameSink>),
    Unsubscribe(SubscriptionId),
    RequestKeyframe(LayerId),
}

/// No [`EndReason`] has this number.
pub(super) const NOT_ENDING: u8 = u8::MAX;

/// Life of a stream; only ever moves forward.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// The publisher's session exists; no media yet.
    Connecting = 0,
    /// Media flows.
    Live = 1,
    /// Over.
    Ended = 2,
}

/// Counters of one layer, written by the publisher's thread only.
#[derive(Default)]
pub(super) struct LayerStats {
    pub(super) packets: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) frames: AtomicU64,
    pub(super) keyframes: AtomicU64,
    pub(super) width: AtomicU32,
    pub(super) height: AtomicU32,
    pub(super) lost: AtomicU64,
    pub(super) recovered: AtomicU64,
    pub(super) nacks: AtomicU64,
    pub(super) plis: AtomicU64,
    pub(super) jitter_micros: AtomicU64,
    pub(super) rtt_micros: AtomicU64,
}

/// What a source knows of how a layer reaches it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IngestCounters {
    /// Packets that never came.
    pub lost: u64,
    /// Packets that came after they were asked for again.
    pub recovered: u64,
    /// Packets asked for again.
    pub nacks: u64,
    /// Keyframes asked for.
    pub plis: u64,
    /// Interarrival jitter in microseconds (RFC 3550 §6.4.1).
    pub jitter_micros: u64,
    /// Round-trip time to the source in microseconds; 0 while unknown.
    pub rtt_micros: u64,
}

/// The counters of one layer at one moment. Rates come from two of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LayerSnapshot {
    /// RTP packets taken in.
    pub packets: u64,
    /// RTP payload bytes taken in.
    pub bytes: u64,
    /// Access units begun.
    pub frames: u64,
    /// Random access points seen.
    pub keyframes: u64,
    /// Picture width in pixels; 0 while unknown.
    pub width: u32,
    /// Picture height in pixels; 0 while unknown.
    pub height: u32,
    /// What the source knows of the way to here.
    pub ingest: IngestCounters,
}

/// One publication of a table. Shared as `Arc<Stream>`.
pub struct Stream {
    /// This publication.
    pub id: StreamId,
    /// The table it belongs to.
    pub table: TableName,
    /// Its tracks, fixed at the start.
    pub tracks: Vec<TrackInfo>,
    /// When the publisher's session was made.
    pub created: Utc,
    /// What its WebRTC viewers were sent.
    pub egress: EgressTotals,
    pub(super) phase: AtomicU8,
    /// An [`EndReason`] as its number, or [`NOT_ENDING`].
    pub(super) ending: AtomicU8,
    pub(super) stats: Vec<Vec<LayerStats>>,
    pub(super) next_subscription: AtomicU64,
    pub(super) commands: Sender<Command>,
    /// Wakes the publisher's thread after a command was queued.
    pub(super) waker: Waker,
}

impl Stream {
    /// Media has arrived and the stream is not over.
    pub fn is_live(&self) -> bool {
        self.phase.load(Ordering::Acquire) == Phase::Live as u8
    }

    /// The stream is over.
    pub fn is_ended(&self) -> bool {
        self.phase.load(Ordering::Acquire) == Phase::Ended as u8
    }

    /// Why the stream is over; `None` while it is not.
    pub fn end_reason(&self) -> Option<EndReason> {
        self.is_ended().then(|| self.ending()).flatten()
    }

    /// The counters of `layer`, or `None` when there is no such layer.
    pub fn layer_snapshot(&self, layer: LayerId) -> Option<LayerSnapshot> {
        let stats = self.layer_stats(layer)?;
        Some(LayerSnapshot {
            packets: stats.packets.load(Ordering::Relaxed),
            bytes: stats.bytes.load(Ordering::Relaxed),
            frames: stats.frames.load(Ordering::Relaxed),
            keyframes: stats.keyframes.load(Ordering::Relaxed),
            width: stats.width.load(Ordering::Relaxed),
            height: stats.height.load(Ordering::Relaxed),
            ingest: IngestCounters {
                lost: stats.lost.load(Ordering::Relaxed),
                recovered: stats.recovered.load(Ordering::Relaxed),
                nacks: stats.nacks.load(Ordering::Relaxed),
                plis: stats.plis.load(Ordering::Relaxed),
                jitter_micros: stats.jitter_micros.load(Ordering::Relaxed),
                rtt_micros: stats.rtt_micros.load(Ordering::Relaxed),
            },
        })
    }

    /// Every layer of every track.
    pub fn layers(&self) -> impl Iterator<Item = LayerId> + '_ {
        self.tracks.iter().enumerate().flat_map(|(track, info)| {
            (0..info.rids.len())
                .map(move |layer| LayerId { track: track as u8, layer: layer as u8 })
        })
    }

    /// Sends `sink` the current GOP of every layer and then every packet.
    ///
    /// # Errors
    /// [`StreamBusy`] when the stream is over or its command queue is full.
    pub fn subscribe_packets(
        &self,
        sink: Box<dyn PacketSink>,
    ) -> Result<SubscriptionId, StreamBusy> {
        let id = self.subscription_id();
        self.send(Command::SubscribePackets(id, sink)).map(|()| id)
    }

    /// Sends `sink` the frames of the current GOP of every layer and then every frame.
    ///
    /// # Errors
    /// [`StreamBusy`] when the stream is over or its command queue is full.
    pub fn subscribe_frames(&self, sink: Box<dyn FrameSink>) -> Result<SubscriptionId, StreamBusy> {
        let id = self.subscription_id();
        self.send(Command::SubscribeFrames(id, sink)).map(|()| id)
    }

    /// Ends a subscription; its sink is dropped on the publisher's thread.
    ///
    /// # Errors
    /// [`StreamBusy`] when the stream is over or its command queue is full.
    pub fn unsubscribe(&self, id: SubscriptionId) -> Result<(), StreamBusy> {
        self.send(Command::Unsubscribe(id))
    }

    /// Asks the source for a random access point. Requests are coalesced and
    /// throttled per layer, so asking often is harmless.
    ///
    /// # Errors
    /// [`StreamBusy`] when the stream is over or its command queue is full.
    pub fn request_keyframe(&self, layer: LayerId) -> Result<(), StreamBusy> {
        self.send(Command::RequestKeyframe(layer))
    }

    /// Asks the publisher to end its session. It cannot be refused: the first reason
    /// given waits beside the queue of commands.
    pub fn end(&self, reason: EndReason) {
        let (first, order) = (NOT_ENDING, Ordering::AcqRel);
        let _ = self.ending.compare_exchange(first, reason as u8, order, Ordering::Relaxed);
        self.waker.wake_by_ref();
    }

    /// The reason for which the stream was asked to end.
    pub(super) fn ending(&self) -> Option<EndReason> {
        let code = self.ending.load(Ordering::Acquire);
        EndReason::ALL.into_iter().find(|reason| *reason as u8 == code)
    }

    pub(super) fn layer_stats(&self, layer: LayerId) -> Option<&LayerStats> {
        self.stats.get(usize::from(layer.track))?.get(usize::from(layer.layer))
    }

    pub(super) fn count(&self, id: LayerId, packet: &Packet, opens_gop: bool, begins_frame: bool) {
        let Some(stats) = self.layer_stats(id) else { return };
        stats.packets.fetch_add(1, Ordering::Relaxed);
        stats.bytes.fetch_add(packet.payload.len() as u64, Ordering::Relaxed);
        stats.frames.fetch_add(u64::from(begins_frame), Ordering::Relaxed);
        stats.keyframes.fetch_add(u64::from(opens_gop), Ordering::Relaxed);
    }

    /// Keeps the picture size when `payload`, of a keyframe, tells it.
    pub(super) fn note_resolution(&self, id: LayerId, payload: &[u8]) {
        let Some(track) = self.tracks.get(usize::from(id.track)) else { return };
        if track.kind() == MediaKind::Video
            && let Some((width, height)) = resolution_of_keyframe_payload(track.codec, payload)
            && let Some(stats) = self.layer_stats(id)
        {
            stats.width.store(width, Ordering::Relaxed);
            stats.height.store(height, Ordering::Relaxed);
        }
    }

    fn subscription_id(&self) -> SubscriptionId {
        SubscriptionId(self.next_subscription.fetch_add(1, Ordering::Relaxed))
    }

    fn send(&self, command: Command) -> Result<(), StreamBusy> {
        self.commands.try_send(command).map_err(|_| StreamBusy)?;
        self.waker.wake_by_ref();
        Ok(())
    }
}
