//! One track of one viewer: a cursor into the ring, and the viewer's own numbers.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::cache::LayerCache;
use super::viewer::SendContext;
use crate::codec::MediaKind;
use crate::hub::EgressCounts;
use crate::media::{LayerId, Packet};
use crate::net::udp::{DatagramSink, Traffic};
use crate::rtp::extensions::{AbsCaptureTime, AbsSendTime, PlayoutDelay};
use crate::rtp::{HeaderFields, write_header};
use crate::time::Utc;
use crate::webrtc::negotiated::SendTrack;

/// Packets sent to one viewer in one pass at most: a GSO buffer's worth twice over.
/// A newcomer gets its GOP in such slices, so that nobody waits for it.
const SLICE: usize = 32;
/// Pause between two slices: a newcomer is sent its GOP at 16 000 packets a second at
/// most, and not in one burst that its path would drop.
pub const SLICE_PAUSE: Duration = Duration::from_millis(2);
/// Bytes that may be resent at once, and at most saved up: a few lost keyframes.
const RESEND_BURST: u64 = 256 * 1024;
/// Of what is sent, this share is granted for resends: 1/2. A viewer that loses
/// more than a third of its packets is not helped by more of them.
const RESEND_SHARE: u64 = 2;

/// What a resent packet costs beside its payload: headers and tag, about.
const WIRE_OVERHEAD: u64 = 64;

/// How far back a change of layer may take the picture, in microseconds: layers are
/// not captured and encoded at quite the same instant.
const MAX_REPEAT: i64 = 100_000;

/// What a pass left to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Pumped {
    /// There is more in the ring than the slice allowed.
    pub(super) behind: bool,
    /// The track needs a keyframe of this layer before it can start.
    pub(super) wants_keyframe: Option<LayerId>,
}

/// How the ring's numbers become the viewer's.
#[derive(Clone, Copy)]
struct Mapping {
    /// Ring `seq` of the first packet under this mapping.
    source: u64,
    /// The viewer's extended sequence number for it.
    index: u64,
    /// Added to the ring's timestamp, modulo 2^32.
    timestamp_shift: u32,
}

/// The last packet sent, for reports and for a seamless change of layer.
#[derive(Clone, Copy)]
struct Last {
    timestamp: u32,
    capture: Utc,
}

/// Owner: the viewer.
pub(super) struct ViewerTrack {
    pub(super) params: SendTrack,
    pub(super) layer: LayerId,
    /// The layer to go over to at its next keyframe.
    pub(super) target: Option<LayerId>,
    pub(super) packets: u32,
    pub(super) octets: u32,
    kind: MediaKind,
    clock_rate: u32,
    playout_delay: PlayoutDelay,
    /// The next packet to send, when started.
    next: Option<u64>,
    /// When the next slice may go, after one that did not reach the live edge.
    next_slice: Option<Instant>,
    mapping: Option<Mapping>,
    /// First index and timestamp shift, drawn for this viewer (RFC 3550 §5.1).
    first_index: u64,
    first_shift: u32,
    next_index: u64,
    rtx_index: u64,
    resend_allowance: u64,
    last: Option<Last>,
}

impl ViewerTrack {
    pub(super) fn new(
        params: SendTrack,
        layer: LayerId,
        kind: MediaKind,
        clock_rate: u32,
        playout_delay: PlayoutDelay,
        random: u64,
    ) -> Self {
        // In the lower half, so that the first packets cannot be taken for a rollover.
        let first_index = random & 0x7fff;
        Self {
            params,
            layer,
            target: None,
            packets: 0,
            octets: 0,
            kind,
            clock_rate,
            playout_delay,
            next: None,
            next_slice: None,
            mapping: None,
            first_index,
            first_shift: (random >> 32) as u32,
            next_index: first_index,
            rtx_index: (random >> 16) & 0x7fff,
            resend_allowance: RESEND_BURST,
            last: None,
        }
    }

    /// The track has sent something.
    pub(super) fn started(&self) -> bool {
        self.last.is_some()
    }

    /// Sends what the ring has beyond the cursor, at most a slice.
    pub(super) fn pump(
        &mut self,
        cache: &LayerCache,
        context: &SendContext<'_>,
        counters: &mut EgressCounts,
        sink: &mut impl DatagramSink,
    ) -> Pumped {
        let Some(end) = cache.end() else { return self.waiting() };
        if self.next_slice.is_some_and(|at| context.now < at) {
            return Pumped { behind: true, wants_keyframe: None };
        }
        if self.next.is_some_and(|next| cache.start().is_some_and(|start| next < start)) {
            counters.overrun += 1;
            self.next = None;
        }
        let Some(mut next) = self.next.or_else(|| self.enter(cache)) else { return self.waiting() };
        let mut sent = 0;
        while next < end && sent < SLICE {
            if let Some(packet) = cache.get(next) {
                self.send(packet, context, counters, sink);
                sent += 1;
            }
            next += 1;
        }
        self.next = Some(next);
        let behind = next < end;
        self.next_slice = behind.then(|| context.now + SLICE_PAUSE);
        Pumped { behind, wants_keyframe: None }
    }

    /// Goes over to the layer that is wanted once its ring has a keyframe to start
    /// from that shows nothing the viewer has seen already.
    pub(super) fn try_switch(&mut self, cache: &LayerCache) {
        let (Some(target), Some(start)) = (self.target, cache.gop_start()) else { return };
        let fresh = cache.get(start).is_some_and(|first| {
            self.last.is_none_or(|last| last.capture.micros_since(first.capture) < MAX_REPEAT)
        });
        if fresh {
            self.layer = target;
            self.target = None;
            self.next = self.enter(cache);
        }
    }

    /// Answers a NACK: sends `sequence` again from the ring, as RTX (RFC 4588 §4)
    /// when that was agreed, else as it was.
    pub(super) fn resend(
        &mut self,
        sequence: u16,
        cache: &LayerCache,
        context: &SendContext<'_>,
        counters: &mut EgressCounts,
        sink: &mut impl DatagramSink,
    ) {
        let found = self.index_of(sequence).and_then(|index| {
            let mapping = self.mapping.filter(|mapping| index >= mapping.index)?;
            Some((index, cache.get(mapping.source + (index - mapping.index))?))
        });
        let Some((index, packet)) = found else {
            counters.resend_missed += 1;
            return;
        };
        let cost = packet.payload.len() as u64 + WIRE_OVERHEAD;
        let Some(left) = self.resend_allowance.checked_sub(cost) else {
            counters.resend_refused += 1;
            return;
        };
        self.resend_allowance = left;
        counters.resent += 1;
        let wire = match self.params.rtx_payload_type {
            Some(payload_type) => {
                self.rtx_index += 1;
                Wire {
                    payload_type,
                    ssrc: self.params.rtx_ssrc,
                    index: self.rtx_index,
                    original: Some(index as u16),
                }
            }
            None => self.media_wire(index),
        };
        self.seal(packet, wire, context, sink);
    }

    /// The RTP timestamp that belongs to `now` (RFC 3550 §6.4.1).
    pub(super) fn timestamp_at(&self, now: Utc) -> Option<u32> {
        let last = self.last?;
        let ticks = self.ticks(now.micros_since(last.capture));
        Some(last.timestamp.wrapping_add(ticks))
    }

    /// Microseconds in ticks of the track's clock, modulo 2^32. Any publisher's idea of
    /// time must come through this.
    fn ticks(&self, micros: i64) -> u32 {
        (i128::from(micros) * i128::from(self.clock_rate) / 1_000_000) as u32
    }

    fn waiting(&self) -> Pumped {
        let wants_keyframe = (self.kind == MediaKind::Video).then_some(self.layer);
        Pumped { behind: false, wants_keyframe }
    }

    /// Where a track that is not under way starts: video at the GOP, audio at the
    /// newest packet.
    fn enter(&mut self, cache: &LayerCache) -> Option<u64> {
        let start = match self.kind {
            MediaKind::Video => cache.gop_start()?,
            MediaKind::Audio => cache.end()?.checked_sub(1)?,
        };
        let first = cache.get(start)?;
        let timestamp_shift = match self.last {
            None => self.first_shift,
            Some(last) => {
                let ticks = self.ticks(first.capture.micros_since(last.capture).max(0)).max(1);
                last.timestamp.wrapping_add(ticks).wrapping_sub(first.timestamp as u32)
            }
        };
        self.mapping = Some(Mapping { source: start, index: self.next_index, timestamp_shift });
        Some(start)
    }

    fn send(
        &mut self,
        packet: &Packet,
        context: &SendContext<'_>,
        counters: &mut EgressCounts,
        sink: &mut impl DatagramSink,
    ) {
        let Some(mapping) = self.mapping else { return };
        let index = mapping.index + (packet.seq - mapping.source);
        let wire = self.media_wire(index);
        self.seal(packet, wire, context, sink);
        let len = packet.payload.len();
        self.next_index = index + 1;
        self.packets = self.packets.wrapping_add(1);
        self.octets = self.octets.wrapping_add(len as u32);
        self.resend_allowance =
            (self.resend_allowance + len as u64 / RESEND_SHARE).min(RESEND_BURST);
        let timestamp = (packet.timestamp as u32).wrapping_add(mapping.timestamp_shift);
        self.last = Some(Last { timestamp, capture: packet.capture });
        counters.packets += 1;
        counters.bytes += len as u64;
    }

    fn media_wire(&self, index: u64) -> Wire {
        let SendTrack { payload_type, ssrc, .. } = self.params;
        Wire { payload_type, ssrc, index, original: None }
    }

    /// The extended number of a sequence number that was sent lately.
    fn index_of(&self, sequence: u16) -> Option<u64> {
        let newest = self.next_index.checked_sub(1)?;
        let back = (newest as u16).wrapping_sub(sequence);
        newest.checked_sub(u64::from(back)).filter(|index| *index >= self.first_index)
    }

    fn seal(
        &self,
        packet: &Packet,
        wire: Wire,
        context: &SendContext<'_>,
        sink: &mut impl DatagramSink,
    ) {
        let shift = self.mapping.map_or(0, |mapping| mapping.timestamp_shift);
        let fields = HeaderFields {
            marker: packet.marker,
            payload_type: wire.payload_type,
            sequence: wire.index as u16,
            timestamp: (packet.timestamp as u32).wrapping_add(shift),
            ssrc: wire.ssrc,
        };
        let to: SocketAddr = context.to;
        let traffic = match self.kind {
            MediaKind::Audio => Traffic::Audio,
            MediaKind::Video => Traffic::Video,
        };
        sink.push(to, traffic, |out| {
            let header = self.write_header(out, &fields, packet, context)?;
            let prefix = wire.original.map(u16::to_be_bytes);
            let prefix = prefix.as_ref().map_or(&[][..], |osn| &osn[..]);
            let body = header + prefix.len();
            let end = body + packet.payload.len();
            out.get_mut(header..body)?.copy_from_slice(prefix);
            out.get_mut(body..end)?.copy_from_slice(&packet.payload);
            context.sealer.seal_rtp(out, end, wire.index).ok()
        });
    }

    /// Writes the header with the extensions of this packet. Without RTX a packet is
    /// resent under its own number, where a second plaintext would give the key
    /// stream away (RFC 7714 §8.4): then nothing in it may depend on the time of sending.
    fn write_header(
        &self,
        out: &mut [u8],
        fields: &HeaderFields,
        packet: &Packet,
        context: &SendContext<'_>,
    ) -> Option<usize> {
        let ids = &self.params.extensions;
        let send_time = AbsSendTime::at(context.utc).write();
        let capture_time = AbsCaptureTime::write_short(packet.capture);
        let playout_delay = self.playout_delay.write();
        let mut elements: [(u8, &[u8]); 3] = [(0, &[]); 3];
        let mut count = 0;
        let mut add = |id: Option<u8>, applies: bool, value| {
            if let (Some(id), true) = (id, applies) {
                elements[count] = (id, value);
                count += 1;
            }
        };
        add(ids.abs_send_time, self.params.rtx_payload_type.is_some(), &send_time[..]);
        add(ids.abs_capture_time, packet.marker || self.kind == MediaKind::Audio, &capture_time);
        add(ids.playout_delay, packet.keyframe && packet.marker, &playout_delay);
        write_header(out, fields, &elements[..count]).ok()
    }
}

/// The numbers of one packet on the wire.
#[derive(Clone, Copy)]
struct Wire {
    payload_type: u8,
    ssrc: u32,
    index: u64,
    /// RTX: the sequence number of the packet that is sent again.
    original: Option<u16>,
}
