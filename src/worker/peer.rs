//! One peer on its worker: a transport, and what it carries.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::mailbox::Mailbox;
use super::pool::Shared;
use super::session::{NewRole, NewSession, SessionId, SessionKind, end_reason};
use super::stats::WorkerStats;
use super::streams::Streams;
use crate::egress::fanout::{PassContext, Seat, ViewerSpec, Watching};
use crate::hub::{Stream, TableName};
use crate::ingest::whip::{ReceiverSettings, WhipPublisher};
use crate::net::udp::{DatagramSink, Traffic};
use crate::qos::Transport as AudienceTransport;
use crate::route::Route;
use crate::webrtc::budget::{Allowance, Budget};
use crate::webrtc::classify::Class;
use crate::webrtc::negotiated::SendTrack;
use crate::webrtc::rtcp;
use crate::webrtc::transport::{Transport, TransportState};

/// What a peer needs of its worker to send media.
pub(super) struct Outlet<'a, S> {
    pub(super) shared: &'a Shared,
    pub(super) stats: &'a WorkerStats,
    pub(super) sink: &'a mut S,
}

/// Sender reports come this often (RFC 3550 §6.2 allows less than 5 s with rtcp-rsize).
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// RTCP packets of a peer that are opened. A receiver that loses a fifth of 8 Mbit/s
/// sends about 250 in a second; what is beyond it is dropped before it costs anything.
const RTCP_PACKETS: Allowance = Allowance { burst: 500, every: Duration::from_millis(2) };

/// A viewer on its way to its seat.
pub(super) struct Arrival {
    tracks: Vec<SendTrack>,
    seeds: Vec<u64>,
    watching: Arc<Watching>,
}

pub(super) enum Role {
    Viewer(Box<Audience>),
    Publisher(Box<WhipPublisher>),
}

/// What a viewer's session has in its stream.
pub(super) struct Audience {
    pub(super) stream: Arc<Stream>,
    /// It counts as a member of its stream.
    member: bool,
    /// Until it is connected.
    arrival: Option<Arrival>,
    seat: Option<Seat>,
    /// Where its packets are sent.
    route: Option<Route>,
    next_report: Option<Instant>,
}

impl Role {
    pub(super) const fn kind(&self) -> SessionKind {
        match self {
            Self::Viewer(_) => SessionKind::Viewer,
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
    /// Only packets that are authentic take from it, so that nobody can use it up by
    /// forging the peer's address.
    rtcp_budget: Budget,
}

impl Peer {
    pub(super) fn new(
        session: NewSession,
        streams: &mut Streams,
        shared: &Shared,
        mailbox: &Arc<Mailbox>,
    ) -> Self {
        let NewSession { id, table, credentials, remote_dtls, created, role, .. } = session;
        let settings = &shared.settings;
        let ufrags = vec![credentials.ufrag.clone()];
        let identity = shared.identity.clone();
        let transport =
            Transport::new(identity, credentials, remote_dtls, settings.timeouts, created);
        let role = match role {
            NewRole::Viewer { stream, tracks } => {
                let seeds = tracks.iter().map(|_| rand::random()).collect();
                let watching = shared.directory.view(id).and_then(|view| view.watching);
                let watching = watching.unwrap_or_else(|| Watching::new(stream.clone(), &tracks));
                Role::Viewer(Box::new(Audience {
                    // Now, so that the rings fill while the peer connects.
                    member: streams.enter(&stream),
                    stream,
                    arrival: Some(Arrival { tracks, seeds, watching }),
                    seat: None,
                    route: None,
                    next_report: None,
                }))
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
        Self {
            id,
            table,
            created,
            transport,
            role,
            ufrags,
            scheduled: None,
            greeted: false,
            rtcp_budget: Budget::default(),
        }
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
        shared.metrics.session_started(kind.as_str(), AudienceTransport::WebRtc);
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
            Role::Viewer(_) => self.take_seat(now, key, shared, streams),
            Role::Publisher(publisher) => publisher.connected(now),
        }
    }

    fn take_seat(&mut self, now: Instant, key: usize, shared: &Shared, streams: &mut Streams) {
        let Role::Viewer(audience) = &mut self.role else { return };
        let (Some(route), Some(fanout)) =
            (self.transport.route(), streams.get_mut(audience.stream.id))
        else {
            return;
        };
        if let (Some(arrival), Some(sealer)) =
            (audience.arrival.take(), self.transport.take_sealer())
        {
            let spec = ViewerSpec {
                peer: key,
                to: route,
                sealer,
                tracks: arrival.tracks,
                seeds: arrival.seeds,
                watching: arrival.watching,
                cname: self.id.to_string(),
                playout_delay: shared.settings.playout_delay,
            };
            audience.seat = Some(fanout.join(now, spec));
            audience.route = Some(route);
        }
    }

    /// Looks at once at which layers a viewer has chosen.
    pub(super) fn choose_layers(&self, streams: &mut Streams) {
        if let Role::Viewer(audience) = &self.role
            && let Some(seat) = audience.seat
            && let Some(fanout) = streams.get_mut(audience.stream.id)
        {
            fanout.choose_layers(seat);
        }
    }

    /// Lets media follow where the peer has gone.
    pub(super) fn follow(&mut self, streams: &mut Streams) {
        let Role::Viewer(audience) = &mut self.role else { return };
        let route = self.transport.route();
        if route == audience.route {
            return;
        }
        if let (Some(route), Some(seat)) = (route, audience.seat)
            && let Some(fanout) = streams.get_mut(audience.stream.id)
        {
            fanout.redirect(seat, route);
            audience.route = Some(route);
        }
    }

    /// A viewer was sent its first picture; it is due for its first sender report.
    pub(super) fn started(&mut self, now: Instant, shared: &Shared) {
        let after = now.saturating_duration_since(self.created);
        shared.metrics.first_frame(AudienceTransport::WebRtc, after);
        if let Role::Viewer(audience) = &mut self.role {
            // Lip sync waits for it.
            audience.next_report = Some(now);
        }
    }

    /// Why a packet of this class is dropped before anything is done for it, if it is.
    pub(super) fn refuses(&self, now: Instant, class: Class) -> Option<&'static str> {
        match (&self.role, class) {
            (Role::Viewer(_), Class::Rtp) => Some("rtp_unexpected"),
            (_, Class::Rtcp) if !self.rtcp_budget.has(now, RTCP_PACKETS) => Some("rtcp_flood"),
            _ => None,
        }
    }

    pub(super) fn handle_rtp(&mut self, now: Instant, packet: &mut [u8], stats: &WorkerStats) {
        let len = match self.transport.open_rtp(packet) {
            Ok(len) => len,
            Err(error) => return stats.reject(error.as_str()),
        };
        match &mut self.role {
            Role::Viewer(_) => stats.reject("rtp_unexpected"),
            Role::Publisher(publisher) => {
                let packet = Bytes::copy_from_slice(&packet[..len]);
                if let Err(reason) = publisher.handle_rtp(now, packet) {
                    stats.reject(reason);
                }
            }
        }
    }

    /// Takes an SRTCP packet; false when it was not the peer's, and nothing has changed.
    pub(super) fn handle_rtcp<S: DatagramSink>(
        &mut self,
        now: Instant,
        packet: &mut [u8],
        streams: &mut Streams,
        outlet: &mut Outlet<'_, S>,
    ) -> bool {
        let len = match self.transport.open_rtcp(packet) {
            Ok(len) => len,
            Err(error) => {
                outlet.stats.reject(error.as_str());
                return false;
            }
        };
        self.rtcp_budget.spend(now, RTCP_PACKETS);
        let Ok(messages) = rtcp::parse(&packet[..len]) else {
            outlet.stats.reject("rtcp_malformed");
            return false;
        };
        match &mut self.role {
            Role::Publisher(publisher) => publisher.handle_rtcp(now, &messages),
            Role::Viewer(audience) => {
                let (Some(seat), Some(fanout)) =
                    (audience.seat, streams.get_mut(audience.stream.id))
                else {
                    return true;
                };
                let context = PassContext::new(now, outlet.shared.clock.utc(now));
                if let Some(rtt) = fanout.handle_rtcp(seat, &messages, &context, outlet.sink) {
                    outlet.shared.metrics.media_rtt(AudienceTransport::WebRtc, rtt);
                }
            }
        }
        true
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.transport.handle_timeout(now);
        if let Role::Publisher(publisher) = &mut self.role {
            publisher.handle_timeout(now);
        }
    }

    /// Carries out what has come up; returns why the session is over, when it is.
    pub(super) fn advance(
        &mut self,
        now: Instant,
        shared: &Shared,
        streams: &Streams,
    ) -> Option<&'static str> {
        if let TransportState::Ended(end) = self.transport.state() {
            return Some(end.as_str());
        }
        match &mut self.role {
            Role::Viewer(audience) => {
                if !audience.member || audience.stream.is_ended() {
                    return Some("stream_ended");
                }
                if audience.next_report.is_some_and(|at| at <= now) {
                    audience.next_report = Some(now + REPORT_INTERVAL);
                    let fanout = streams.get(audience.stream.id);
                    let report = fanout.zip(audience.seat).and_then(|(fanout, seat)| {
                        fanout.sender_report(seat, shared.clock.utc(now))
                    });
                    if let Some(report) = report {
                        self.transport.send_rtcp(report);
                    }
                }
                None
            }
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
            Role::Viewer(audience) => audience.next_report,
            Role::Publisher(publisher) => publisher.poll_timeout(),
        };
        let transport = self.transport.poll_timeout();
        role.map_or(transport, |at| at.min(transport))
    }

    /// Says goodbye to the peer.
    pub(super) fn close(&mut self, now: Instant, streams: &Streams) {
        if let Role::Viewer(audience) = &self.role
            && let Some((fanout, seat)) = streams.get(audience.stream.id).zip(audience.seat)
            && let Some(farewell) = fanout.farewell(seat)
        {
            self.transport.send_rtcp(farewell);
        }
        self.transport.close(now);
    }

    /// Gives up the peer's place in the hub.
    pub(super) fn leave(self, reason: &'static str, streams: &mut Streams) {
        match self.role {
            Role::Viewer(audience) if audience.member => {
                streams.leave(audience.stream.id, audience.seat);
            }
            Role::Viewer(_) => {}
            Role::Publisher(publisher) => publisher.end(end_reason(reason)),
        }
    }
}
