//! One peer on its worker: a transport, and what it carries.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::mailbox::Mailbox;
use super::pool::Shared;
use super::session::{NewRole, NewSession, SessionId, SessionKind, end_reason};
use super::stats::WorkerStats;
use super::streams::Streams;
use crate::egress::fanout::{FanoutStream, SendContext, Viewer, ViewerSeed};
use crate::hub::{EgressCounts, Stream, TableName};
use crate::ingest::whip::{ReceiverSettings, WhipPublisher};
use crate::net::udp::{DatagramSink, Traffic};
use crate::qos::Transport as AudienceTransport;
use crate::webrtc::rtcp;
use crate::webrtc::transport::{Transport, TransportState};

/// What a peer needs of its worker to send media.
pub(super) struct Outlet<'a, S> {
    pub(super) shared: &'a Shared,
    pub(super) stats: &'a WorkerStats,
    pub(super) sink: &'a mut S,
}

/// What a pass over a viewer leaves to do.
#[derive(Clone, Copy, Default)]
pub(super) struct PeerPumped {
    /// There is more in the rings.
    pub(super) behind: bool,
    /// The viewer is due for its first sender report.
    pub(super) first_report: bool,
}

pub(super) enum Role {
    Viewer { viewer: Option<Viewer>, stream: Arc<Stream> },
    Publisher(Box<WhipPublisher>),
}

impl Role {
    pub(super) const fn kind(&self) -> SessionKind {
        match self {
            Self::Viewer { .. } => SessionKind::Viewer,
            Self::Publisher(_) => SessionKind::Publisher,
        }
    }
}

/// Owner: the worker.
pub(super) struct Peer {
    pub(super) id: SessionId,
    pub(super) table: TableName,
    pub(super) created: Instant,
    pub(super) transport: Transport,
    pub(super) role: Role,
    /// Every user fragment that leads here.
    pub(super) ufrags: Vec<String>,
    /// The entry in the worker's timers that counts.
    pub(super) scheduled: Option<Instant>,
    /// SRTP was established.
    pub(super) greeted: bool,
}

impl Peer {
    pub(super) fn new(
        session: NewSession,
        streams: &mut Streams,
        shared: &Shared,
        mailbox: &Arc<Mailbox>,
        now: Instant,
    ) -> Self {
        let NewSession { id, table, credentials, remote_dtls, created, role, .. } = session;
        let settings = &shared.settings;
        let ufrags = vec![credentials.ufrag.clone()];
        let identity = shared.identity.clone();
        let transport =
            Transport::new(identity, credentials, remote_dtls, settings.timeouts, created);
        let role = match role {
            NewRole::Viewer { stream, tracks } => {
                let seed = ViewerSeed { tracks: tracks.iter().map(|_| rand::random()).collect() };
                let cname = id.to_string();
                let viewer = streams.open(&stream).map(|fanout| {
                    Viewer::new(fanout, tracks, &seed, cname, settings.playout_delay, now)
                });
                Role::Viewer { viewer, stream }
            }
            NewRole::Publisher { publisher, tracks, owner } => {
                // Commands that came before are looked at in the first `advance`.
                let _ = owner.mailbox.set(mailbox.clone());
                let bound = settings.ingest_timeout;
                let receiver = ReceiverSettings {
                    rtcp_ssrc: rand::random(),
                    seed: rand::random(),
                    cname: id.to_string(),
                    ..settings.receiver.clone()
                };
                let publisher =
                    WhipPublisher::new(publisher, tracks, shared.clock, receiver, bound);
                Role::Publisher(Box::new(publisher))
            }
        };
        Self { id, table, created, transport, role, ufrags, scheduled: None, greeted: false }
    }

    /// Once connected: announces the session, and puts a viewer among its stream's.
    pub(super) fn greet(
        &mut self,
        now: Instant,
        key: usize,
        shared: &Shared,
        streams: &mut Streams,
    ) {
        if self.greeted || self.transport.state() != TransportState::Connected {
            return;
        }
        self.greeted = true;
        let kind = self.role.kind();
        let profile = self.transport.profile().map_or("none", |profile| profile.as_str());
        shared.metrics.session_started(kind.as_str());
        shared.metrics.srtp_session(profile);
        tracing::info!(
            table = %self.table,
            sessionId = %self.id,
            kind = kind.as_str(),
            profile,
            millis = now.saturating_duration_since(self.created).as_millis() as u64,
            "session connected"
        );
        match &mut self.role {
            Role::Viewer { viewer, stream } => match streams.open(stream) {
                Some(fanout) => {
                    fanout.viewers.push(key);
                    fanout.touched = true;
                }
                None => *viewer = None,
            },
            Role::Publisher(publisher) => publisher.connected(now),
        }
    }

    pub(super) fn handle_rtp(&mut self, now: Instant, packet: &mut [u8], stats: &WorkerStats) {
        let len = match self.transport.open_rtp(packet) {
            Ok(len) => len,
            Err(error) => return stats.reject(error.as_str()),
        };
        match &mut self.role {
            Role::Viewer { .. } => stats.reject("rtp_unexpected"),
            Role::Publisher(publisher) => {
                let packet = Bytes::copy_from_slice(&packet[..len]);
                if let Err(reason) = publisher.handle_rtp(now, packet) {
                    stats.reject(reason);
                }
            }
        }
    }

    pub(super) fn handle_rtcp<S: DatagramSink>(
        &mut self,
        now: Instant,
        packet: &mut [u8],
        streams: &mut Streams,
        outlet: &mut Outlet<'_, S>,
    ) {
        let len = match self.transport.open_rtcp(packet) {
            Ok(len) => len,
            Err(error) => return outlet.stats.reject(error.as_str()),
        };
        let Ok(messages) = rtcp::parse(&packet[..len]) else {
            return outlet.stats.reject("rtcp_malformed");
        };
        match &mut self.role {
            Role::Publisher(publisher) => publisher.handle_rtcp(now, &messages),
            Role::Viewer { viewer: Some(viewer), stream } => {
                let (Some(sealer), Some(to)) = (self.transport.sealer(), self.transport.remote())
                else {
                    return;
                };
                let utc = outlet.shared.clock.utc(now);
                let context = SendContext { now, utc, sealer, to };
                let Some(fanout) = streams.get_mut(stream.id) else { return };
                let mut counts = EgressCounts::default();
                let rtt = viewer.handle_rtcp(&messages, fanout, &context, &mut counts, outlet.sink);
                stream.egress.add(&counts);
                if let Some(rtt) = rtt {
                    outlet.shared.metrics.media_rtt(AudienceTransport::WebRtc, rtt);
                }
            }
            Role::Viewer { viewer: None, .. } => {}
        }
    }

    /// Sends a viewer what is new in its stream's rings.
    pub(super) fn pump<S: DatagramSink>(
        &mut self,
        now: Instant,
        fanout: &mut FanoutStream,
        counts: &mut EgressCounts,
        outlet: &mut Outlet<'_, S>,
    ) -> PeerPumped {
        let Role::Viewer { viewer: Some(viewer), .. } = &mut self.role else {
            return PeerPumped::default();
        };
        let (Some(sealer), Some(to)) = (self.transport.sealer(), self.transport.remote()) else {
            return PeerPumped::default();
        };
        let context = SendContext { now, utc: outlet.shared.clock.utc(now), sealer, to };
        let had_report = viewer.poll_timeout().is_some();
        let behind = viewer.pump(fanout, &context, counts, outlet.sink);
        if viewer.take_started(fanout) {
            let after = now.saturating_duration_since(self.created);
            outlet.shared.metrics.first_frame(AudienceTransport::WebRtc, after);
        }
        PeerPumped { behind, first_report: !had_report && viewer.poll_timeout().is_some() }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.transport.handle_timeout(now);
        if let Role::Publisher(publisher) = &mut self.role {
            publisher.handle_timeout(now);
        }
    }

    /// Carries out what has come up; returns why the session is over, when it is.
    pub(super) fn advance(&mut self, now: Instant, shared: &Shared) -> Option<&'static str> {
        if let TransportState::Ended(end) = self.transport.state() {
            return Some(end.as_str());
        }
        match &mut self.role {
            Role::Viewer { viewer: Some(viewer), stream } if !stream.is_ended() => {
                if let Some(report) = viewer.poll_rtcp(now, shared.clock.utc(now)) {
                    self.transport.send_rtcp(report);
                }
                None
            }
            Role::Viewer { .. } => Some("stream_ended"),
            Role::Publisher(publisher) => {
                let over = publisher.advance(now);
                while let Some(feedback) = publisher.poll_rtcp(now) {
                    self.transport.send_rtcp(feedback);
                }
                over
            }
        }
    }

    pub(super) fn transmit(&mut self, sink: &mut impl DatagramSink) {
        while let Some((to, datagram)) = self.transport.poll_transmit() {
            sink.push(to, Traffic::Control, |out| {
                out.get_mut(..datagram.len())?.copy_from_slice(&datagram);
                Some(datagram.len())
            });
        }
    }

    pub(super) fn poll_timeout(&self) -> Instant {
        let role = match &self.role {
            Role::Viewer { viewer, .. } => viewer.as_ref().and_then(Viewer::poll_timeout),
            Role::Publisher(publisher) => publisher.poll_timeout(),
        };
        let transport = self.transport.poll_timeout();
        role.map_or(transport, |at| at.min(transport))
    }

    /// Says goodbye to the peer.
    pub(super) fn close(&mut self, now: Instant) {
        if let Role::Viewer { viewer: Some(viewer), .. } = &self.role
            && let Some(farewell) = viewer.farewell()
        {
            self.transport.send_rtcp(farewell);
        }
        self.transport.close(now);
    }

    /// Gives up the peer's place in the hub.
    pub(super) fn leave(self, key: usize, reason: &'static str, streams: &mut Streams) {
        match self.role {
            Role::Viewer { stream, .. } => streams.leave(stream.id, key),
            Role::Publisher(publisher) => publisher.end(end_reason(reason)),
        }
    }
}
