//! One WHIP publisher: its receiver, joined to the hub. Sans-IO.
//!
//! Order of calls: hand in what arrives with `handle_*`; then
//! [`WhipPublisher::advance`], and [`WhipPublisher::poll_rtcp`] until it returns
//! `None`. Also when the hub has woken the worker, and at
//! [`WhipPublisher::poll_timeout`].

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::receiver::{LayerStats, Receiver, ReceiverSettings};
use crate::codec::MediaKind;
use crate::hub::{EndReason, IngestCounters, Publisher, PublisherEvent};
use crate::media::LayerId;
use crate::net::udp::MAX_SEND;
use crate::time::Clock;
use crate::webrtc::negotiated::ReceiveTrack;
use crate::webrtc::rtcp::Rtcp;

/// How often the receiver's counters are published with the stream.
const COUNTERS_INTERVAL: Duration = Duration::from_millis(500);

/// Longest RTP packet taken: what a viewer is sent of it must fit a datagram with the
/// largest header extension block (20 bytes), RTX (2) and tag (16) that we add.
const MAX_PACKET: usize = MAX_SEND - 20 - 2 - 16;

/// A publisher. owner: the session's worker.
pub struct WhipPublisher {
    receiver: Receiver,
    publisher: Publisher,
    ingest_timeout: Duration,
    /// When media came last; from the connection on, so that one that never comes
    /// is noticed too.
    last_media: Option<Instant>,
    next_counters: Option<Instant>,
}

impl WhipPublisher {
    /// A publisher of `tracks` into `publisher`'s stream, dead after `ingest_timeout`
    /// without media.
    pub fn new(
        publisher: Publisher,
        tracks: Vec<ReceiveTrack>,
        clock: Clock,
        settings: ReceiverSettings,
        ingest_timeout: Duration,
    ) -> Self {
        Self {
            receiver: Receiver::new(tracks, clock, settings),
            publisher,
            ingest_timeout,
            last_media: None,
            next_counters: None,
        }
    }

    /// SRTP is up: the first frame to come should be one that viewers can start from.
    pub fn connected(&mut self, now: Instant) {
        self.last_media = Some(now);
        self.next_counters = Some(now);
        let stream = self.publisher.stream().clone();
        let video = |id: &LayerId| stream.tracks[usize::from(id.track)].kind() == MediaKind::Video;
        stream.layers().filter(video).for_each(|id| self.receiver.request_keyframe(id));
    }

    /// Takes a decrypted RTP packet.
    ///
    /// # Errors
    /// The reason for which it was dropped, for the counter.
    pub fn handle_rtp(&mut self, now: Instant, packet: Bytes) -> Result<(), &'static str> {
        if packet.len() > MAX_PACKET {
            return Err("rtp_oversized");
        }
        self.receiver.handle_rtp(now, packet).map_err(|reject| reject.as_str())?;
        self.last_media = Some(now);
        Ok(())
    }

    /// Takes the messages of a compound RTCP packet.
    pub fn handle_rtcp(&mut self, now: Instant, messages: &[Rtcp]) {
        self.receiver.handle_rtcp(now, messages);
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.receiver.handle_timeout(now);
    }

    /// Hands ordered packets to the hub and carries out what the hub asks; returns
    /// why the session is over, when it is.
    pub fn advance(&mut self, now: Instant) -> Option<&'static str> {
        while let Some((layer, packet)) = self.receiver.poll_packet() {
            self.publisher.push(layer, packet);
        }
        while let Some(event) = self.publisher.poll() {
            match event {
                PublisherEvent::KeyframeWanted(layer) => self.receiver.request_keyframe(layer),
                PublisherEvent::End(reason) => return Some(reason.as_str()),
            }
        }
        if self.next_counters.is_some_and(|at| now >= at) {
            self.next_counters = Some(now + COUNTERS_INTERVAL);
            for (layer, stats) in self.receiver.stats() {
                self.publisher.set_counters(layer, counters(&stats));
            }
        }
        let silent = self.last_media.is_some_and(|at| now >= at + self.ingest_timeout);
        silent.then_some("ingest_timeout")
    }

    /// The next compound RTCP packet to seal and send.
    pub fn poll_rtcp(&mut self, now: Instant) -> Option<Vec<u8>> {
        self.receiver.poll_rtcp(now)
    }

    /// When [`Self::handle_timeout`] and [`Self::advance`] are due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let silence = self.last_media.map(|at| at + self.ingest_timeout);
        [self.receiver.poll_timeout(), silence, self.next_counters].into_iter().flatten().min()
    }

    /// Ends the stream.
    pub fn end(self, reason: EndReason) {
        self.publisher.end(reason);
    }
}

fn counters(stats: &LayerStats) -> IngestCounters {
    IngestCounters {
        lost: stats.lost_for_good,
        recovered: stats.recovered,
        nacks: stats.nacks_sent,
        plis: stats.plis_sent,
        jitter_micros: stats.jitter.as_micros() as u64,
        rtt_micros: stats.rtt.map_or(0, |rtt| rtt.as_micros() as u64),
    }
}
