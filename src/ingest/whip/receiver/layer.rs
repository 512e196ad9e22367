//! One layer of one track: the stream that carries it now, and what must
//! outlive that stream (numbering, time line, counters).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::capture::{CaptureTimeline, SenderClock};
use super::keyframe::KeyframeRequests;
use super::nack::Answer;
use super::reorder::{Inserted, Place, Released, Reorder, Slot};
use super::reports::Reception;
use super::{LayerStats, ReceiverSettings};
use crate::codec::{Codec, MediaKind};
use crate::media::{LayerId, Packet};
use crate::rtp::starts_keyframe;
use crate::time::{Clock, Utc};
use crate::webrtc::negotiated::ReceiveTrack;
use crate::webrtc::rtcp::SenderReport;

/// A hole that cannot be asked for again is reordering or a loss, and is waited
/// for no longer than this.
const WAIT_WITHOUT_NACK: Duration = Duration::from_millis(50);

/// Packets that wait for the caller to take them; one that lets them pile up
/// loses what comes after, which is counted as lost for good.
pub(super) const MAX_READY: usize = 8_192;

/// A timestamp this far from where the arrival time says it should be, in
/// seconds, belongs to a new time line.
const MAX_TIMESTAMP_JUMP: i64 = 10;

/// Packets in order, for the caller.
pub(super) type Ready = VecDeque<(LayerId, Packet)>;

/// An RTP packet that was bound to a layer.
pub(super) struct Incoming {
    pub(super) ssrc: u32,
    pub(super) sequence: u16,
    pub(super) slot: Slot,
    /// It came on the SSRC of retransmissions.
    pub(super) rtx: bool,
    /// Its `abs-capture-time` on the sender's clock.
    pub(super) capture: Option<Utc>,
}

/// One layer. owner: the receiver.
pub(super) struct Layer {
    pub(super) id: LayerId,
    pub(super) codec: Codec,
    nack: bool,
    pli: bool,
    /// Retransmissions have an SSRC of their own.
    rtx: bool,
    wait: Duration,
    max_held: usize,
    pub(super) stream: Option<Stream>,
    next_seq: Option<u64>,
    timestamps: Timestamps,
    pub(super) keyframes: KeyframeRequests,
    /// RTP timestamp of the access unit that started the current GOP.
    keyframe_timestamp: Option<u32>,
    stats: LayerStats,
}

/// The RTP stream that carries the layer now.
pub(super) struct Stream {
    pub(super) ssrc: u32,
    pub(super) reorder: Reorder,
    pub(super) reception: Reception,
    pub(super) capture: CaptureTimeline,
    /// A packet that fits nowhere, and is believed when its successor comes (RFC 3550 A.1).
    suspect: Option<(u16, Slot)>,
}

/// RTP timestamps on a time line of 64 bits that goes on over restarts.
struct Timestamps {
    clock_rate: u32,
    last: Option<(u32, u64, Instant)>,
    /// The next one is of another stream: only its arrival tells where it belongs.
    restarted: bool,
}

impl Layer {
    pub(super) fn new(id: LayerId, track: &ReceiveTrack, settings: &ReceiverSettings) -> Self {
        let codec = track.info.codec;
        let wait = settings.reorder_wait;
        Self {
            id,
            codec,
            nack: track.nack,
            rtx: track.rtx_payload_type.is_some(),
            pli: track.pli && codec.kind() == MediaKind::Video,
            wait: if track.nack { wait } else { wait.min(WAIT_WITHOUT_NACK) },
            max_held: settings.max_reorder_packets,
            stream: None,
            next_seq: None,
            timestamps: Timestamps { clock_rate: codec.clock_rate(), last: None, restarted: false },
            keyframes: KeyframeRequests::new(settings.keyframe_interval),
            keyframe_timestamp: None,
            stats: LayerStats::default(),
        }
    }

    /// Takes a packet of the layer; what is in order then is added to `ready`.
    pub(super) fn receive(
        &mut self,
        incoming: Incoming,
        now: Instant,
        clock: (&Clock, &SenderClock),
        ready: &mut Ready,
    ) {
        self.stats.last_packet = Some(now);
        self.stats.bytes += incoming.slot.payload.len() as u64;
        if incoming.rtx {
            self.receive_rtx(incoming, now);
        } else {
            self.receive_media(incoming, now, clock, ready);
        }
        self.release(now, clock, ready);
    }

    /// Gives out what is in order or given up at `now`.
    pub(super) fn release(
        &mut self,
        now: Instant,
        clock: (&Clock, &SenderClock),
        ready: &mut Ready,
    ) {
        while let Some(released) = self.stream.as_mut().and_then(|s| s.reorder.release(now)) {
            match released {
                Released::Lost(count) => {
                    self.stats.lost_for_good += count;
                    self.next_seq = self.next_seq.map(|seq| seq + count);
                    self.want_keyframe();
                }
                Released::Packet(slot) => self.give(slot, clock, ready),
            }
        }
    }

    /// A keyframe is wanted; audio has none.
    pub(super) fn want_keyframe(&mut self) {
        if self.pli {
            self.keyframes.want();
        }
    }

    /// A sender report of the layer's stream.
    pub(super) fn sender_report(&mut self, report: &SenderReport, now: Instant) {
        if let Some(stream) = &mut self.stream {
            stream.reception.sender_report(report, now);
            let sender = Utc::from_ntp(report.ntp);
            stream.capture.sender_report(report.rtp_time, sender, now);
        }
    }

    /// Sequence numbers to ask for again now.
    pub(super) fn take_nacks(&mut self, now: Instant) -> Vec<u16> {
        let Some(stream) = self.stream.as_mut().filter(|_| self.nack) else { return Vec::new() };
        let highest = stream.reorder.highest();
        let seqs = stream.reorder.missing.take_due(highest, now);
        self.stats.nacks_sent += seqs.len() as u64;
        seqs
    }

    /// True when a PLI is to be sent now.
    pub(super) fn take_pli(&mut self, now: Instant) -> bool {
        let due = self.stream.is_some() && self.keyframes.take_due(now);
        self.stats.plis_sent += u64::from(due);
        due
    }

    /// When the layer has something to do; `now` stands for "at once".
    pub(super) fn next_timeout(&self, now: Instant) -> Option<Instant> {
        let stream = self.stream.as_ref()?;
        let reorder = &stream.reorder;
        let nack = if self.nack { reorder.missing.next_due(reorder.highest()) } else { None };
        [reorder.deadline(), nack, self.keyframes.due(now)].into_iter().flatten().min()
    }

    pub(super) fn stats(&self) -> LayerStats {
        let stream = self.stream.as_ref();
        LayerStats {
            jitter: stream.map_or(Duration::ZERO, |stream| stream.reception.jitter()),
            rtt: stream.and_then(|stream| stream.reorder.missing.rtt()),
            ..self.stats
        }
    }

    fn receive_media(
        &mut self,
        incoming: Incoming,
        now: Instant,
        clock: (&Clock, &SenderClock),
        ready: &mut Ready,
    ) {
        self.stats.received += 1;
        if self.stream.as_ref().is_none_or(|stream| stream.ssrc != incoming.ssrc) {
            self.finish_stream(now, clock, ready);
            self.timestamps.restarted = self.stream.is_some();
            self.stream = Some(self.new_stream(incoming.ssrc, incoming.sequence, now));
        }
        let Some(stream) = &mut self.stream else { return };
        if let Some(capture) = incoming.capture {
            stream.capture.absolute(incoming.slot.timestamp, capture, now);
        }
        match stream.reorder.place(incoming.sequence) {
            Place::At(seq) => {
                stream.suspect = None;
                self.insert(seq, incoming.slot, now, clock.0);
            }
            Place::Elsewhere => self.doubt(incoming, now, clock, ready),
        }
    }

    /// A sequence number that fits nowhere: believed with its successor, then
    /// the sender has started anew.
    fn doubt(
        &mut self,
        incoming: Incoming,
        now: Instant,
        clock: (&Clock, &SenderClock),
        ready: &mut Ready,
    ) {
        let Some(stream) = &mut self.stream else { return };
        let suspect = stream.suspect.take();
        let Some((first, slot)) =
            suspect.filter(|(first, _)| first.wrapping_add(1) == incoming.sequence)
        else {
            stream.suspect = Some((incoming.sequence, incoming.slot));
            return;
        };
        self.finish_stream(now, clock, ready);
        let mut restarted = self.new_stream(incoming.ssrc, first, now);
        // The SSRC is the same, and so may be its RTP clock; a jump of it is stepped over.
        if let Some(stream) = self.stream.take() {
            restarted.capture = stream.capture;
        }
        self.stream = Some(restarted);
        for (sequence, slot) in [(first, slot), (incoming.sequence, incoming.slot)] {
            let place = self.stream.as_ref().map(|stream| stream.reorder.place(sequence));
            if let Some(Place::At(seq)) = place {
                self.insert(seq, slot, now, clock.0);
            }
        }
    }

    fn insert(&mut self, seq: u64, slot: Slot, now: Instant, clock: &Clock) {
        let Some(stream) = &mut self.stream else { return };
        stream.reception.received(seq, slot.timestamp, now);
        let (timestamp, padding) = (slot.timestamp, slot.payload.is_empty());
        let answer = if self.rtx { Answer::No } else { Answer::Maybe };
        let inserted = stream.reorder.insert(seq, slot, answer, now);
        if inserted == Inserted::Newest && !padding {
            stream.capture.arrival(timestamp, clock.utc(now), now);
        }
        self.count(inserted);
    }

    /// RFC 4588 §4: the payload follows the original sequence number. Without one
    /// it is a padding probe.
    fn receive_rtx(&mut self, incoming: Incoming, now: Instant) {
        let Some(stream) = &mut self.stream else { return };
        let Some((&original, payload)) = incoming.slot.payload.split_first_chunk::<2>() else {
            return;
        };
        let payload = incoming.slot.payload.slice_ref(payload);
        if let Place::At(seq) = stream.reorder.place(u16::from_be_bytes(original)) {
            // A resend ahead of the stream would open holes that are none.
            if seq <= stream.reorder.highest() {
                let slot = Slot { payload, ..incoming.slot };
                let inserted = stream.reorder.insert(seq, slot, Answer::Yes, now);
                self.count(inserted);
            }
        }
    }

    fn count(&mut self, inserted: Inserted) {
        match inserted {
            Inserted::Newest => {}
            Inserted::Reordered => self.stats.reordered += 1,
            Inserted::Recovered => self.stats.recovered += 1,
            Inserted::Duplicate => self.stats.duplicates += 1,
            Inserted::TooLate => self.stats.too_late += 1,
        }
    }

    /// Gives out all that the stream still holds, and leaves one number out: what
    /// follows does not continue it.
    fn finish_stream(&mut self, now: Instant, clock: (&Clock, &SenderClock), ready: &mut Ready) {
        let Some(stream) = &mut self.stream else { return };
        stream.reorder.give_up();
        self.release(now, clock, ready);
        self.next_seq = self.next_seq.map(|seq| seq + 1);
        self.keyframe_timestamp = None;
        self.want_keyframe();
    }

    fn new_stream(&self, ssrc: u32, first: u16, now: Instant) -> Stream {
        let reorder = Reorder::new(first, self.wait, self.max_held);
        let clock_rate = self.codec.clock_rate();
        let reception = Reception::new(clock_rate, reorder.highest() + 1, now);
        let capture = CaptureTimeline::new(clock_rate);
        Stream { ssrc, reorder, reception, capture, suspect: None }
    }

    fn give(&mut self, slot: Slot, clock: (&Clock, &SenderClock), ready: &mut Ready) {
        // Padding holds a place in the stream and none in ours (RFC 3550 §5.1).
        if slot.payload.is_empty() {
            return;
        }
        if starts_keyframe(self.codec, &slot.payload) {
            self.keyframe_timestamp = Some(slot.timestamp);
            self.keyframes.arrived();
        }
        let Some(stream) = &mut self.stream else { return };
        let seq = match self.next_seq {
            Some(seq) => seq,
            None => {
                // A stream joined in the middle of a GOP begins with a request.
                if self.keyframe_timestamp.is_none() && self.pli {
                    self.keyframes.want();
                }
                0
            }
        };
        self.next_seq = Some(seq + 1);
        if ready.len() >= MAX_READY {
            self.stats.lost_for_good += 1;
            return;
        }
        let received = clock.0.utc(slot.received);
        let packet = Packet {
            seq,
            timestamp: self.timestamps.extend(slot.timestamp, slot.received),
            marker: slot.marker,
            keyframe: self.keyframe_timestamp == Some(slot.timestamp),
            capture: stream.capture.capture(slot.timestamp, received, clock.1),
            received: slot.received,
            payload: slot.payload,
        };
        ready.push_back((self.id, packet));
    }
}

impl Timestamps {
    fn extend(&mut self, timestamp: u32, received: Instant) -> u64 {
        let rate = i64::from(self.clock_rate);
        let extended = match self.last {
            // A cycle above zero: what is shown before the first has a place too.
            None => (1 << 32) + u64::from(timestamp),
            Some((last, extended, at)) => {
                let elapsed = received.saturating_duration_since(at).as_micros();
                let elapsed = (elapsed * u128::from(self.clock_rate) / 1_000_000) as i64;
                let advance = i64::from(timestamp.wrapping_sub(last) as i32);
                let jumped = (advance - elapsed).abs() > MAX_TIMESTAMP_JUMP * rate;
                let advance = if self.restarted || jumped { elapsed.max(1) } else { advance };
                extended.checked_add_signed(advance).unwrap_or(extended)
            }
        };
        self.restarted = false;
        self.last = Some((timestamp, extended, received));
        extended
    }
}
