//! One track of one viewer: a cursor into the ring, and the viewer's own numbers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::header::{HeaderValues, Headers, Stamps};
use super::ring::{Ring, Slot};
use super::viewer::{Line, PassContext};
use crate::codec::MediaKind;
use crate::hub::EgressCounts;
use crate::media::LayerId;
use crate::net::udp::{DatagramSink, Traffic};
use crate::rtp::HeaderFields;
use crate::rtp::extensions::AbsCaptureTime;
use crate::rtp::rewrite::{NumberShift, PictureNumbers};
use crate::time::Utc;
use crate::webrtc::negotiated::SendTrack;

/// Packets sent to one viewer at a time at most: what one system call takes as a batch
/// of segments.
pub(super) const SLICE: usize = 16;
/// Pause between two slices to a viewer: a keyframe of 80 packets leaves within 20 ms
/// and not in one burst that the last mile would drop, and a newcomer is sent its GOP at
/// 4 000 packets a second.
const SLICE_PAUSE: Duration = Duration::from_millis(4);
/// A viewer that is this far behind the live edge loses frames until the next keyframe:
/// what is later than this is of no use to a player who bets. Catching up with the GOP
/// at the start does not count.
const MAX_LATENESS: Duration = Duration::from_millis(500);
/// Within this time of its start a viewer that misses a keyframe is sent the GOP again:
/// its first packets may have come before its keys.
const REPLAY_WINDOW: Duration = Duration::from_secs(2);
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

/// What a visit left to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Pumped {
    /// There is more in the ring than the slice allowed; it may go at this time.
    pub(super) next_slice: Option<Instant>,
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
    /// Added to the picture numbers in the payload.
    numbers: NumberShift,
}

/// The last packet sent, for reports and for a seamless change of layer.
#[derive(Clone, Copy)]
struct Last {
    timestamp: u32,
    capture: Utc,
    /// As they are in the ring.
    numbers: PictureNumbers,
}

/// Owner: the viewer.
pub(super) struct ViewerTrack {
    /// The next packet to send, when under way.
    next: Option<u64>,
    mapping: Option<Mapping>,
    next_index: u64,
    /// It has been at the live edge since it entered: from then on it may be late.
    caught_up: bool,
    /// When the next slice may go, after one that did not reach the live edge.
    next_slice: Option<Instant>,
    resend_allowance: u64,
    last: Option<Last>,
    headers: Arc<Headers>,
    pub(super) packets: u32,
    pub(super) octets: u32,
    pub(super) layer: LayerId,
    /// The layer to go over to at its next keyframe.
    pub(super) target: Option<LayerId>,
    /// Nothing is sent until there is a target again, and a keyframe of it.
    paused: bool,
    pub(super) params: SendTrack,
    kind: MediaKind,
    clock_rate: u32,
    /// First index and timestamp shift, drawn for this viewer (RFC 3550 §5.1).
    first_index: u64,
    first_shift: u32,
    rtx_index: u64,
    /// A keyframe older than this ring `seq` was sent already.
    not_before: u64,
    started: Option<Instant>,
    replayed: bool,
}

impl ViewerTrack {
    pub(super) fn new(
        params: SendTrack,
        layer: LayerId,
        kind: MediaKind,
        clock_rate: u32,
        headers: Arc<Headers>,
        random: u64,
    ) -> Self {
        // In the lower half, so that the first packets cannot be taken for a rollover.
        let first_index = random & 0x7fff;
        Self {
            next: None,
            mapping: None,
            next_index: first_index,
            caught_up: false,
            next_slice: None,
            resend_allowance: RESEND_BURST,
            last: None,
            headers,
            packets: 0,
            octets: 0,
            layer,
            target: None,
            paused: false,
            params,
            kind,
            clock_rate,
            first_index,
            first_shift: (random >> 32) as u32,
            rtx_index: (random >> 16) & 0x7fff,
            not_before: 0,
            started: None,
            replayed: false,
        }
    }

    /// The track has sent something.
    pub(super) fn started(&self) -> bool {
        self.started.is_some()
    }

    /// Sends what the ring has beyond the cursor, at most a slice.
    pub(super) fn pump(
        &mut self,
        ring: &Ring,
        line: &Line,
        context: &PassContext,
        counts: &mut EgressCounts,
        sink: &mut impl DatagramSink,
    ) -> Pumped {
        if self.paused {
            return Pumped::default();
        }
        let Some(end) = ring.end() else { return self.waiting() };
        if self.next_slice.is_some_and(|at| context.now < at) {
            return Pumped { next_slice: self.next_slice, wants_keyframe: None };
        }
        self.skip_what_is_late(ring, context, counts);
        let Some(mut next) = self.next.or_else(|| self.enter(ring)) else { return self.waiting() };
        let mut sent = 0;
        while next < end && sent < SLICE && !sink.is_blocked() {
            if let Some(slot) = ring.get(next) {
                self.send(slot, line, context, counts, sink);
                sent += 1;
            }
            next += 1;
        }
        self.next = Some(next);
        self.caught_up |= next == end;
        self.next_slice = (next < end).then(|| context.now + SLICE_PAUSE);
        Pumped { next_slice: self.next_slice, wants_keyframe: None }
    }

    /// Goes over to the layer that is wanted once its ring has a keyframe to start
    /// from that shows nothing the viewer has seen already.
    pub(super) fn try_switch(&mut self, ring: &Ring, now: Instant) {
        let (Some(target), Some(start)) = (self.target, ring.gop_start()) else { return };
        let fresh = ring.get(start).is_some_and(|first| {
            let (capture, received) = (first.packet.capture, first.packet.received);
            // A path that has just been too narrow is not given seconds to catch up with.
            let recent = now.saturating_duration_since(received) < MAX_LATENESS;
            (recent || !self.paused)
                && self.last.is_none_or(|last| last.capture.micros_since(capture) < MAX_REPEAT)
        });
        if fresh {
            self.layer = target;
            self.target = None;
            self.paused = false;
            self.not_before = 0;
            self.next = self.enter(ring);
        }
    }

    /// Sends no more, until [`Self::go_to`] and a keyframe of its layer.
    pub(super) fn pause(&mut self) {
        self.target = None;
        self.hold();
    }

    /// Sends no more before the keyframe of its target.
    pub(super) fn hold(&mut self) {
        self.paused = true;
        (self.next, self.next_slice) = (None, None);
    }

    /// Goes over to `layer` at its next keyframe.
    pub(super) fn go_to(&mut self, layer: LayerId) {
        self.target = (self.paused || layer != self.layer).then_some(layer);
    }

    pub(super) fn is_paused(&self) -> bool {
        self.paused
    }

    /// Answers a request for a keyframe from the ring, when the viewer has just begun:
    /// it starts at the GOP once more. Returns false when the source must be asked.
    pub(super) fn replay(&mut self, ring: &Ring, now: Instant) -> bool {
        let young = |at: Instant| now.saturating_duration_since(at) < REPLAY_WINDOW;
        if self.replayed || self.paused || !self.started.is_some_and(young) {
            return false;
        }
        self.not_before = 0;
        let Some(start) = self.enter(ring) else { return false };
        self.next = Some(start);
        self.replayed = true;
        true
    }

    /// Answers a NACK: sends `sequence` again from the ring, as RTX (RFC 4588 §4)
    /// when that was agreed, else as it was.
    pub(super) fn resend(
        &mut self,
        sequence: u16,
        ring: &Ring,
        line: &Line,
        context: &PassContext,
        counts: &mut EgressCounts,
        sink: &mut impl DatagramSink,
    ) {
        let found = self.index_of(sequence).and_then(|index| {
            let mapping = self.mapping.filter(|mapping| index >= mapping.index)?;
            Some((index, mapping, ring.get(mapping.source + (index - mapping.index))?))
        });
        let Some((index, mapping, slot)) = found else {
            counts.resend_missed += 1;
            return;
        };
        let cost = slot.packet.payload.len() as u64 + WIRE_OVERHEAD;
        let Some(left) = self.resend_allowance.checked_sub(cost).filter(|_| !sink.is_blocked())
        else {
            counts.resend_refused += 1;
            return;
        };
        self.resend_allowance = left;
        counts.resent += 1;
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
        self.seal(slot, wire, &mapping, line, context, sink);
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
        Pumped { next_slice: None, wants_keyframe }
    }

    /// Takes a viewer that is too far behind, or that the ring has overtaken, to the
    /// newest keyframe, or lets it wait for the next.
    fn skip_what_is_late(&mut self, ring: &Ring, context: &PassContext, counts: &mut EgressCounts) {
        let Some(next) = self.next else { return };
        let overtaken = ring.start().is_some_and(|start| next < start);
        let is_late = || {
            let received = ring.get(next).map(|slot| slot.packet.received);
            self.caught_up
                && received
                    .is_some_and(|at| context.now.saturating_duration_since(at) > MAX_LATENESS)
        };
        if !overtaken && !is_late() {
            return;
        }
        counts.overrun += 1;
        self.not_before = next;
        self.next = self.enter(ring);
        let (from, to) = (next.max(ring.start().unwrap_or(next)), self.next.or(ring.end()));
        let markers = (from..to.unwrap_or(from)).filter_map(|seq| ring.get(seq));
        counts.frames_late += markers.filter(|slot| slot.packet.marker).count() as u64;
    }

    /// Where a track that is not under way starts: video at the GOP, audio at the
    /// newest packet.
    fn enter(&mut self, ring: &Ring) -> Option<u64> {
        let end = ring.end()?;
        let start = match self.kind {
            MediaKind::Video => ring.gop_start().filter(|start| *start >= self.not_before)?,
            MediaKind::Audio => end.checked_sub(1)?,
        };
        let slot = ring.get(start)?;
        self.caught_up = false;
        let first = &slot.packet;
        let timestamp_shift = match self.last {
            None => self.first_shift,
            Some(last) => {
                let ticks = self.ticks(first.capture.micros_since(last.capture).max(0)).max(1);
                last.timestamp.wrapping_add(ticks).wrapping_sub(first.timestamp as u32)
            }
        };
        let former = self.mapping.map_or(NumberShift::NONE, |mapping| mapping.numbers);
        let numbers = self
            .last
            .map_or(former, |last| NumberShift::joining(former, &last.numbers, &slot.numbers));
        self.mapping =
            Some(Mapping { source: start, index: self.next_index, timestamp_shift, numbers });
        Some(start)
    }

    fn send(
        &mut self,
        slot: &Slot,
        line: &Line,
        context: &PassContext,
        counts: &mut EgressCounts,
        sink: &mut impl DatagramSink,
    ) {
        let Some(mapping) = self.mapping else { return };
        let packet = &slot.packet;
        let index = mapping.index + (packet.seq - mapping.source);
        let timestamp = (packet.timestamp as u32).wrapping_add(mapping.timestamp_shift);
        self.seal(slot, self.media_wire(index), &mapping, line, context, sink);
        let len = packet.payload.len();
        self.next_index = index + 1;
        self.packets = self.packets.wrapping_add(1);
        self.octets = self.octets.wrapping_add(len as u32);
        self.resend_allowance =
            (self.resend_allowance + len as u64 / RESEND_SHARE).min(RESEND_BURST);
        self.last = Some(Last { timestamp, capture: packet.capture, numbers: slot.numbers });
        if self.started.is_none() {
            self.started = Some(context.now);
        }
        counts.packets += 1;
        counts.bytes += len as u64;
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
        slot: &Slot,
        wire: Wire,
        mapping: &Mapping,
        line: &Line,
        context: &PassContext,
        sink: &mut impl DatagramSink,
    ) {
        let packet = &slot.packet;
        let stamps = match slot.stamped {
            true if packet.keyframe && self.kind == MediaKind::Video => Stamps::CaptureAndPlayout,
            true => Stamps::Capture,
            false => Stamps::None,
        };
        // A retransmission is sent by itself: there is nothing to be evened.
        let padding = if wire.original.is_some() { 0 } else { slot.padding };
        let values = HeaderValues {
            fields: HeaderFields {
                marker: packet.marker,
                payload_type: wire.payload_type,
                sequence: wire.index as u16,
                timestamp: (packet.timestamp as u32).wrapping_add(mapping.timestamp_shift),
                ssrc: wire.ssrc,
            },
            send_time: context.send_time,
            capture: match stamps {
                Stamps::None => [0; 8],
                _ => AbsCaptureTime::write_short(packet.capture),
            },
            padded: padding > 0,
        };
        let traffic = match self.kind {
            MediaKind::Audio => Traffic::Audio,
            MediaKind::Video => Traffic::Video,
        };
        sink.push(line.to, traffic, |out| {
            let header = self.headers.write(out, stamps, &values)?;
            let prefix = wire.original.map(u16::to_be_bytes);
            let prefix = prefix.as_ref().map_or(&[][..], |osn| &osn[..]);
            let body = header + prefix.len();
            let end = body + packet.payload.len();
            out.get_mut(header..body)?.copy_from_slice(prefix);
            let payload = out.get_mut(body..end)?;
            payload.copy_from_slice(&packet.payload);
            if !slot.numbers.is_empty() {
                mapping.numbers.patch(&slot.numbers, payload);
            }
            let padded_end = end + usize::from(padding);
            if padding > 0 {
                // RFC 3550 §5.1: the last byte of the padding counts it.
                let tail = out.get_mut(end..padded_end)?;
                tail.fill(0);
                *tail.last_mut()? = padding;
            }
            line.sealer.seal_rtp(out, padded_end, wire.index).ok()
        });
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
