//! Receives the media of one WHIP publisher: decrypted RTP and RTCP in, packets
//! in order for the hub and RTCP for the publisher out. Sans-IO.
//!
//! ```text
//!  RTP ── bind ── layer: reorder ─ numbering ─ capture time ── poll_packet
//!         │              └ missing → NACK ┐
//!         └ arrival log → feedback ───────┼─ poll_rtcp
//!                reports, keyframes ──────┘
//! ```
//!
//! Order of calls: any `handle_*`, then [`Receiver::poll_packet`] and
//! [`Receiver::poll_rtcp`] until they return `None`; after
//! [`Receiver::poll_timeout`] has passed, [`Receiver::handle_timeout`] and the same.

mod bind;
mod capture;
mod keyframe;
mod layer;
mod nack;
mod reorder;
mod reports;
mod twcc;

#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use bytes::Bytes;

use self::bind::{Binder, Role};
use self::capture::SenderClock;
use self::layer::{Incoming, Layer, Ready};
use self::reorder::Slot;
use self::reports::Schedule;
use self::twcc::ArrivalLog;
use crate::media::{LayerId, Packet};
use crate::rtp::RtpHeader;
use crate::rtp::extensions::{AbsCaptureTime, parse_transport_sequence};
use crate::time::{Clock, Utc};
use crate::webrtc::negotiated::ReceiveTrack;
use crate::webrtc::rtcp::{CompoundBuilder, Rtcp};

/// A compound with reports and requests grows no further past this, in bytes;
/// the other layers' requests follow in the next one. The largest addition, a
/// NACK, is under 300 bytes.
const MAX_COMPOUND: usize = 850;

/// How a receiver behaves.
#[derive(Clone, Debug)]
pub struct ReceiverSettings {
    /// How long a hole is waited for. Only where NACK is agreed: a hole that
    /// cannot be filled on request is given 50 ms at most.
    pub reorder_wait: Duration,
    /// Packets held behind a hole at most, a layer; past it the hole is given up.
    pub max_reorder_packets: usize,
    /// Shortest time between two keyframe requests for one layer.
    pub keyframe_interval: Duration,
    /// Mean time between receiver reports.
    pub report_interval: Duration,
    /// Time between transport-wide feedback.
    pub feedback_interval: Duration,
    /// SSRC of our reports and feedback.
    pub rtcp_ssrc: u32,
    /// CNAME of our reports.
    pub cname: String,
    /// Spreads the report times; a random number.
    pub seed: u64,
}

impl Default for ReceiverSettings {
    fn default() -> Self {
        Self {
            reorder_wait: Duration::from_millis(200),
            max_reorder_packets: 512,
            keyframe_interval: Duration::from_millis(500),
            report_interval: Duration::from_secs(1),
            feedback_interval: Duration::from_millis(75),
            rtcp_ssrc: 1,
            cname: "railbird".to_owned(),
            seed: 0,
        }
    }
}

/// Why a packet was not taken; [`Self::as_str`] is the value of the `reason` label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Reject {
    /// No RTP packet.
    #[error("malformed RTP packet")]
    Malformed,
    /// An SSRC that nothing ties to a layer.
    #[error("RTP packet of an unknown SSRC")]
    UnknownSsrc,
    /// A mid that was not offered.
    #[error("RTP packet of an unknown mid")]
    UnknownMid,
    /// A rid that was not offered.
    #[error("RTP packet of an unknown rid")]
    UnknownRid,
    /// A payload type that was not agreed, or not for this SSRC.
    #[error("RTP packet of a payload type that was not agreed")]
    PayloadType,
    /// The track has as many SSRCs as it may have.
    #[error("RTP packet of one SSRC too many")]
    TooManySsrcs,
    /// An SSRC whose layer another one took over.
    #[error("RTP packet of a replaced SSRC")]
    ReplacedSsrc,
}

impl Reject {
    /// The value of the `reason` metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "rtp_malformed",
            Self::UnknownSsrc => "rtp_unknown_ssrc",
            Self::UnknownMid => "rtp_unknown_mid",
            Self::UnknownRid => "rtp_unknown_rid",
            Self::PayloadType => "rtp_payload_type",
            Self::TooManySsrcs => "rtp_too_many_ssrcs",
            Self::ReplacedSsrc => "rtp_replaced_ssrc",
        }
    }
}

/// Counters of one layer since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LayerStats {
    /// RTP packets on the layer's own SSRC, duplicates and padding included.
    pub received: u64,
    /// Payload bytes of them and of retransmissions.
    pub bytes: u64,
    /// Packets that never came, or came too late.
    pub lost_for_good: u64,
    /// Holes filled by an answer to a NACK.
    pub recovered: u64,
    /// Packets that were there already.
    pub duplicates: u64,
    /// Packets that came after a later one by themselves.
    pub reordered: u64,
    /// Packets that came after their hole was given up.
    pub too_late: u64,
    /// Packets asked for again, each request counted.
    pub nacks_sent: u64,
    /// Keyframe requests sent.
    pub plis_sent: u64,
    /// Interarrival jitter (RFC 3550 §6.4.1).
    pub jitter: Duration,
    /// Round trip to the publisher, measured on retransmissions.
    pub rtt: Option<Duration>,
    /// When the last packet came.
    pub last_packet: Option<Instant>,
}

/// The media receiver of one publisher. owner: its peer, on a worker thread.
pub struct Receiver {
    tracks: Vec<ReceiveTrack>,
    settings: ReceiverSettings,
    clock: Clock,
    binder: Binder,
    /// By track, then layer.
    layers: Vec<Vec<Layer>>,
    sender_clock: SenderClock,
    /// Extension id and log, when transport-wide feedback is agreed.
    arrivals: Option<(u8, ArrivalLog)>,
    schedule: Schedule,
    /// SSRC of the last media packet; transport-wide feedback must name one.
    media_ssrc: u32,
    ready: Ready,
    /// The latest time that was told.
    now: Option<Instant>,
}

impl Receiver {
    /// For the tracks of an answer, whose order gives the [`LayerId`]s. `clock`
    /// maps arrivals to UTC.
    pub fn new(tracks: Vec<ReceiveTrack>, clock: Clock, settings: ReceiverSettings) -> Self {
        let layers = tracks.iter().enumerate().map(|(track, agreed)| {
            let ids = (0..agreed.info.rids.len())
                .map(|layer| LayerId { track: track as u8, layer: layer as u8 });
            ids.map(|id| Layer::new(id, agreed, &settings)).collect()
        });
        // In a BUNDLE one id means the same extension in all sections (RFC 8843 §9.2).
        let transport_cc = tracks.iter().find_map(|track| track.extensions.transport_cc);
        Self {
            layers: layers.collect(),
            binder: Binder::new(&tracks),
            tracks,
            clock,
            sender_clock: SenderClock::default(),
            arrivals: transport_cc.map(|id| (id, ArrivalLog::new(settings.feedback_interval))),
            schedule: Schedule::new(settings.report_interval, settings.seed),
            media_ssrc: 0,
            ready: Ready::new(),
            now: None,
            settings,
        }
    }

    /// Takes a decrypted RTP packet that arrived at `now`.
    ///
    /// # Errors
    /// Why it was dropped. Duplicates, padding and what comes too late are no
    /// errors: they are counted in [`Self::stats`].
    pub fn handle_rtp(&mut self, now: Instant, packet: Bytes) -> Result<(), Reject> {
        self.now = self.now.max(Some(now));
        let header = RtpHeader::parse(&packet).map_err(|_| Reject::Malformed)?;
        if let Some((id, log)) = &mut self.arrivals
            && let Some(seq) = header.extension(*id).and_then(parse_transport_sequence)
        {
            log.record(seq, now);
        }
        let bound = self.binder.bind(&self.tracks, &header, now)?;
        let agreed = self.tracks.get(bound.track).ok_or(Reject::UnknownSsrc)?;
        let layer = self.layers.get_mut(bound.track).and_then(|track| track.get_mut(bound.layer));
        let layer = layer.ok_or(Reject::UnknownSsrc)?;
        let rtx = bound.role == Role::Rtx;
        let slot = Slot {
            timestamp: header.timestamp,
            marker: header.marker,
            received: now,
            payload: packet.slice(header.payload_range.clone()),
        };
        if !rtx {
            self.media_ssrc = header.ssrc;
            self.schedule.start(now);
        }
        let capture = agreed
            .extensions
            .abs_capture_time
            .and_then(|id| header.extension(id))
            .and_then(AbsCaptureTime::parse)
            .map(|time| time.capture.offset_micros(time.clock_offset_micros.unwrap_or(0)));
        let incoming =
            Incoming { ssrc: header.ssrc, sequence: header.sequence, slot, rtx, capture };
        if let Some(capture) = capture {
            self.sender_clock.observe(capture, self.clock.utc(now), now);
        }
        layer.receive(incoming, now, (&self.clock, &self.sender_clock), &mut self.ready);
        Ok(())
    }

    /// Takes the messages of a decrypted RTCP packet that arrived at `now`.
    pub fn handle_rtcp(&mut self, now: Instant, messages: &[Rtcp]) {
        self.now = self.now.max(Some(now));
        for message in messages {
            let Rtcp::SenderReport(report) = message else { continue };
            let layer = self.layers.iter_mut().flatten().find(|layer| {
                layer.stream.as_ref().is_some_and(|stream| stream.ssrc == report.ssrc)
            });
            // NTP zero: the sender has no clock (RFC 3550 §6.4.1).
            if let (Some(layer), 1..) = (layer, report.ntp) {
                self.sender_clock.observe(Utc::from_ntp(report.ntp), self.clock.utc(now), now);
                layer.sender_report(report, now);
            }
        }
    }

    /// Asks for a keyframe of `layer`. Requests are coalesced and throttled: one
    /// PLI a [`ReceiverSettings::keyframe_interval`] until a keyframe begins.
    /// Nothing happens where the publisher did not agree to PLI.
    pub fn request_keyframe(&mut self, layer: LayerId) {
        let track = self.layers.get_mut(usize::from(layer.track));
        if let Some(layer) = track.and_then(|track| track.get_mut(usize::from(layer.layer))) {
            layer.want_keyframe();
        }
    }

    /// Gives up what was waited for long enough.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = self.now.max(Some(now));
        for layer in self.layers.iter_mut().flatten() {
            layer.release(now, (&self.clock, &self.sender_clock), &mut self.ready);
        }
    }

    /// The next packet. Each layer's come in rising [`Packet::seq`]; a hole is a
    /// packet that was lost for good, or the seam of a restart.
    pub fn poll_packet(&mut self) -> Option<(LayerId, Packet)> {
        self.ready.pop_front()
    }

    /// The next compound packet that is due, to be encrypted and sent.
    pub fn poll_rtcp(&mut self, now: Instant) -> Option<Vec<u8>> {
        self.now = self.now.max(Some(now));
        self.poll_reports(now).or_else(|| self.poll_feedback(now))
    }

    /// When [`Self::handle_timeout`] and [`Self::poll_rtcp`] have something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let now = self.now?;
        let feedback = self.arrivals.as_ref().and_then(|(_, log)| log.due());
        let layers = self.layers.iter().flatten().filter_map(|layer| layer.next_timeout(now));
        layers.chain(feedback).chain(self.schedule.next()).min()
    }

    /// The counters of every layer.
    pub fn stats(&self) -> impl Iterator<Item = (LayerId, LayerStats)> + '_ {
        self.layers.iter().flatten().map(|layer| (layer.id, layer.stats()))
    }

    /// Reports when they are due, NACKs and PLIs.
    fn poll_reports(&mut self, now: Instant) -> Option<Vec<u8>> {
        let mut blocks = Vec::new();
        if self.schedule.take_due(now) {
            let streams = self.layers.iter_mut().flatten().filter_map(|l| l.stream.as_mut());
            blocks.extend(streams.filter_map(|s| s.reception.take_block(s.ssrc, now)));
        }
        let mut builder = CompoundBuilder::new(self.settings.rtcp_ssrc)
            .receiver_report(&blocks, &self.settings.cname);
        let prefix = builder.len();
        for layer in self.layers.iter_mut().flatten() {
            let Some(ssrc) = layer.stream.as_ref().map(|stream| stream.ssrc) else { continue };
            if builder.len() > MAX_COMPOUND {
                break;
            }
            builder = builder.nack(ssrc, &layer.take_nacks(now));
            if layer.take_pli(now) {
                builder = builder.pli(ssrc);
            }
        }
        (!blocks.is_empty() || builder.len() > prefix).then(|| builder.finish())
    }

    /// Transport-wide feedback when it is due.
    fn poll_feedback(&mut self, now: Instant) -> Option<Vec<u8>> {
        let (_, log) = self.arrivals.as_mut()?;
        if log.due().is_none_or(|due| due > now) {
            return None;
        }
        let builder = CompoundBuilder::new(self.settings.rtcp_ssrc)
            .receiver_report(&[], &self.settings.cname);
        Some(log.write(builder, self.media_ssrc).finish())
    }
}
