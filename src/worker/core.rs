//! Everything that a worker does, but for waiting and the socket: sans-IO.
//!
//! Order of calls in a turn: [`Core::handle_datagram`] for each datagram that came,
//! then [`Core::turn`], which works the queues, advances rings and cursors, and does
//! what is due; then [`Core::wait`] says how long nothing will happen by itself.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use slab::Slab;

use super::directory::Claim;
use super::mailbox::{Inbox, Mail, Mailbox, Stray};
use super::peer::{Outlet, Peer};
use super::pool::Shared;
use super::session::{NewSession, SessionId, SessionKind};
use super::stats::WorkerStats;
use super::streams::Streams;
use crate::egress::fanout::PassContext;
use crate::net::udp::DatagramSink;
use crate::qos::Transport;
use crate::route::Route;
use crate::webrtc::classify::{Class, classify};
use crate::webrtc::ice_lite::{BindingRequest, IceCredentials, StunReject};

/// Messages taken from each queue in one turn.
const MAIL_PER_TURN: usize = 1024;
/// Viewers of a stream that is over, ended in one turn: each says farewell and is logged.
const ENDINGS_PER_TURN: usize = 64;
/// Longest wait, so that a missed wake-up cannot last.
const MAX_WAIT: Duration = Duration::from_millis(500);
/// How long a network that takes nothing more is left alone.
const BLOCKED_PAUSE: Duration = Duration::from_millis(1);

/// The peers of one worker and all that happens to them. owner: the worker.
pub(super) struct Core<S> {
    index: usize,
    inbox: Inbox,
    mailbox: Arc<Mailbox>,
    shared: Arc<Shared>,
    stats: Arc<WorkerStats>,
    /// What is to be sent.
    pub(super) sink: S,
    peers: Slab<Peer>,
    by_ufrag: HashMap<String, usize>,
    by_address: HashMap<SocketAddr, usize>,
    by_session: HashMap<SessionId, usize>,
    streams: Streams,
    /// Viewers that were sent their first picture in this pass.
    started: Vec<usize>,
    /// Viewers whose stream is over; each turn ends some, so that a table of thousands
    /// does not hold up the others.
    ending: VecDeque<(usize, SessionId)>,
    /// The peers that publish.
    publishers: Vec<usize>,
    /// When peers are due; an entry is stale unless the peer's `scheduled` equals it.
    timers: BinaryHeap<Reverse<(Instant, usize)>>,
    stopping: bool,
}

impl<S: DatagramSink> Core<S> {
    pub(super) fn new(index: usize, inbox: Inbox, shared: Arc<Shared>, sink: S) -> Self {
        let mailbox = shared.mailboxes[index].clone();
        Self {
            index,
            inbox,
            stats: shared.stats[index].clone(),
            streams: Streams::new(mailbox.clone()),
            mailbox,
            shared,
            sink,
            peers: Slab::new(),
            by_ufrag: HashMap::new(),
            by_address: HashMap::new(),
            by_session: HashMap::new(),
            started: Vec::new(),
            ending: VecDeque::new(),
            publishers: Vec::new(),
            timers: BinaryHeap::new(),
            stopping: false,
        }
    }

    /// Told to shut down.
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping
    }

    /// Works the queues, advances the rings and cursors, does what is due.
    pub(super) fn turn(&mut self, now: Instant) {
        self.take_mail(now);
        self.end_some(now);
        self.take_strays(now);
        self.take_media(now);
        if self.mailbox.take_poke() {
            self.poll_publishers(now);
        }
        self.fan_out(now);
        self.run_timers(now);
    }

    /// Peers, user fragments, addresses, sessions and streams that are kept.
    #[cfg(test)]
    pub(super) fn sizes(&self) -> [usize; 5] {
        [
            self.peers.len(),
            self.by_ufrag.len(),
            self.by_address.len(),
            self.by_session.len(),
            self.streams.len(),
        ]
    }

    /// The SRTP profiles of the connected peers.
    #[cfg(test)]
    pub(super) fn profiles(&self) -> Vec<crate::webrtc::srtp::Profile> {
        self.peers.iter().filter_map(|(_, peer)| peer.transport.profile()).collect()
    }

    /// How long nothing will happen by itself.
    pub(super) fn wait(&self, now: Instant) -> Duration {
        if self.mailbox.is_poked() || !self.inbox.is_empty() || !self.ending.is_empty() {
            return Duration::ZERO;
        }
        let mut wait = MAX_WAIT;
        if let Some(at) = self.streams.poll_timeout(now) {
            wait = at.saturating_duration_since(now).min(MAX_WAIT);
            if self.sink.is_blocked() {
                wait = wait.max(BLOCKED_PAUSE);
            }
        }
        if let Some(Reverse((at, _))) = self.timers.peek() {
            wait = wait.min(at.saturating_duration_since(now));
        }
        wait
    }

    /// Takes a datagram of the media port. `fresh`: it came from our own socket, and
    /// may be passed on to its owner.
    pub(super) fn handle_datagram(
        &mut self,
        now: Instant,
        from: Route,
        bytes: &mut [u8],
        fresh: bool,
    ) {
        let Some(class) = classify(bytes) else { return self.stats.reject("unclassified") };
        if class == Class::Stun {
            return self.handle_stun(now, from, bytes, fresh);
        }
        let Some(&key) = self.by_address.get(&from.peer) else {
            let owner = if fresh { self.shared.directory.owner_of(from.peer) } else { None };
            return match owner {
                Some(owner) if owner != self.index => self.forward(owner, from, bytes),
                _ => self.stats.reject("unknown_peer"),
            };
        };
        let Some(peer) = self.peers.get_mut(key) else { return };
        if let Some(reason) = peer.refuses(now, class) {
            return self.stats.reject(reason);
        }
        match class {
            Class::Dtls => {
                if !peer.transport.handle_dtls(now, bytes) {
                    self.stats.reject("dtls_refused");
                }
            }
            Class::Rtp => peer.handle_rtp(now, bytes, &self.stats),
            Class::Rtcp => {
                let mut send =
                    Outlet { shared: &self.shared, stats: &self.stats, sink: &mut self.sink };
                if !peer.handle_rtcp(now, bytes, &mut self.streams, &mut send) {
                    return;
                }
            }
            Class::Stun => {}
        }
        self.settle(now, key);
    }

    fn handle_stun(&mut self, now: Instant, from: Route, bytes: &[u8], fresh: bool) {
        let request = match BindingRequest::parse(bytes) {
            Ok(request) => request,
            Err(reject) => return self.stats.reject(reject.as_str()),
        };
        let known = self.by_ufrag.get(request.local_ufrag()).copied();
        let key = match known {
            Some(key) => key,
            None => match self.shared.directory.claim(request.local_ufrag(), self.index) {
                Claim::New(session) => self.take_in(*session),
                Claim::Owned(owner) if owner != self.index && fresh => {
                    return self.forward(owner, from, bytes);
                }
                Claim::Owned(_) | Claim::Unknown => {
                    return self.stats.reject("stun_unknown_ufrag");
                }
            },
        };
        if let Err(reject) = self.take_binding(now, key, request, from) {
            self.stats.reject(reject.as_str());
            if known.is_some() {
                // Nothing has changed. A session just taken in must get its timer.
                return;
            }
        }
        self.settle(now, key);
    }

    /// Proves a binding request and gives its sender's address to the peer, unless
    /// another peer holds it: a forged source must not take anybody off the air.
    fn take_binding(
        &mut self,
        now: Instant,
        key: usize,
        request: BindingRequest<'_>,
        route: Route,
    ) -> Result<(), StunReject> {
        let Some(peer) = self.peers.get_mut(key) else { return Ok(()) };
        let (id, proven) = (peer.id, peer.transport.authenticate(now, request, route)?);
        let from = route.peer;
        let holder = self.by_address.get(&from).copied();
        if holder != Some(key)
            && let Some(other) = holder.and_then(|holder| self.peers.get_mut(holder))
        {
            if other.transport.holds(now, from) {
                return Err(StunReject::AddressTaken);
            }
            // A NAT gave the address of a peer that fell silent to this one.
            other.transport.forget_path(from);
            self.shared.directory.remove_address(other.id, from);
        }
        if holder != Some(key) {
            if !self.shared.directory.add_address(id, from, self.index) {
                return Err(StunReject::AddressTaken);
            }
            self.by_address.insert(from, key);
        }
        let Some(peer) = self.peers.get_mut(key) else { return Ok(()) };
        let accepted = peer.transport.accept(now, proven);
        if accepted.stayed {
            self.stats.reject("stun_too_many_moves");
        }
        if let Some(old) = accepted.forgotten {
            if self.by_address.get(&old) == Some(&key) {
                self.by_address.remove(&old);
            }
            self.shared.directory.remove_address(id, old);
        }
        Ok(())
    }

    fn forward(&self, owner: usize, from: Route, bytes: &[u8]) {
        if let Some(mailbox) = self.shared.mailboxes.get(owner) {
            self.stats.forwarded.fetch_add(1, Ordering::Relaxed);
            mailbox.pass_on(Stray { from, bytes: bytes.to_vec() });
        }
    }

    /// Makes a claimed session a peer of this worker.
    fn take_in(&mut self, session: NewSession) -> usize {
        let id = session.id;
        let ufrag = session.credentials.ufrag.clone();
        let entry = self.peers.vacant_entry();
        let key = entry.key();
        let peer = Peer::new(session, &mut self.streams, &self.shared, &self.mailbox);
        if peer.role.kind() == SessionKind::Publisher {
            self.publishers.push(key);
        }
        entry.insert(peer);
        self.by_ufrag.insert(ufrag, key);
        self.by_session.insert(id, key);
        key
    }

    fn take_mail(&mut self, now: Instant) {
        for _ in 0..MAIL_PER_TURN {
            let Ok(mail) = self.inbox.mail.try_recv() else { return };
            match mail {
                Mail::RestartIce { session, credentials } => {
                    self.restart_ice(session, credentials);
                }
                Mail::Close { session, reason } => {
                    if let Some(&key) = self.by_session.get(&session) {
                        self.end(now, key, reason);
                    }
                }
                Mail::ChooseLayer { session } => {
                    let key = self.by_session.get(&session);
                    if let Some(peer) = key.and_then(|key| self.peers.get(*key)) {
                        peer.choose_layers(&mut self.streams);
                    }
                }
                Mail::StreamEnded(stream) => {
                    let peers = self.streams.peers_of(stream).into_iter();
                    let known = peers.filter_map(|key| Some((key, self.peers.get(key)?.id)));
                    self.ending.extend(known);
                }
                Mail::Shutdown => self.stopping = true,
            }
        }
    }

    fn end_some(&mut self, now: Instant) {
        for _ in 0..ENDINGS_PER_TURN {
            let Some((key, id)) = self.ending.pop_front() else { return };
            if self.peers.get(key).is_some_and(|peer| peer.id == id) {
                self.end(now, key, "stream_ended");
            }
        }
    }

    fn restart_ice(&mut self, session: SessionId, credentials: IceCredentials) {
        let Some(&key) = self.by_session.get(&session) else { return };
        let Some(peer) = self.peers.get_mut(key) else { return };
        // The current and the new one stay, as in the directory; a peer may restart
        // as often as it likes.
        while peer.ufrags.len() > 1 {
            self.by_ufrag.remove(&peer.ufrags.remove(0));
        }
        self.by_ufrag.insert(credentials.ufrag.clone(), key);
        peer.ufrags.push(credentials.ufrag.clone());
        peer.transport.restart_ice(credentials);
    }

    fn take_strays(&mut self, now: Instant) {
        for _ in 0..MAIL_PER_TURN {
            let Ok(Stray { from, mut bytes }) = self.inbox.strays.try_recv() else { return };
            self.handle_datagram(now, from, &mut bytes, false);
        }
    }

    fn take_media(&mut self, now: Instant) {
        for _ in 0..MAIL_PER_TURN {
            let Ok(media) = self.inbox.media.try_recv() else { return };
            self.streams.push(now, media.stream, media.layer, media.packet);
        }
    }

    fn poll_publishers(&mut self, now: Instant) {
        // Settling may end a publisher, which takes it off the list.
        for key in self.publishers.clone() {
            self.settle(now, key);
        }
    }

    /// Sends the viewers what is new in their streams.
    fn fan_out(&mut self, now: Instant) {
        let context = PassContext::new(now, self.shared.clock.utc(now));
        self.streams.pass(&context, &mut self.sink, &mut self.started);
        for key in self.started.drain(..) {
            let Some(peer) = self.peers.get_mut(key) else { continue };
            peer.started(now, &self.shared);
            peer.scheduled = Some(now);
            self.timers.push(Reverse((now, key)));
        }
    }

    fn run_timers(&mut self, now: Instant) {
        while let Some(&Reverse((at, key))) = self.timers.peek() {
            if at > now {
                return;
            }
            self.timers.pop();
            if let Some(peer) = self.peers.get_mut(key).filter(|peer| peer.scheduled == Some(at)) {
                peer.scheduled = None;
                peer.handle_timeout(now);
                self.settle(now, key);
            }
        }
    }

    /// After anything happened to a peer: sends what it has to say, ends it when it
    /// is over, and notes when it is due again.
    fn settle(&mut self, now: Instant, key: usize) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        peer.greet(now, key, &self.shared, &mut self.streams);
        peer.follow(&mut self.streams);
        let over = peer.advance(now, &self.shared, &self.streams);
        peer.transmit(&mut self.sink);
        if let Some(reason) = over {
            return self.end(now, key, reason);
        }
        let due = peer.poll_timeout();
        if peer.scheduled.is_none_or(|scheduled| due < scheduled) {
            peer.scheduled = Some(due);
            self.timers.push(Reverse((due, key)));
        }
    }

    fn end(&mut self, now: Instant, key: usize, reason: &'static str) {
        let Some(mut peer) = self.peers.try_remove(key) else { return };
        peer.close(now, &self.streams);
        peer.transmit(&mut self.sink);
        for ufrag in &peer.ufrags {
            self.by_ufrag.remove(ufrag);
        }
        for address in peer.transport.paths() {
            if self.by_address.get(&address) == Some(&key) {
                self.by_address.remove(&address);
            }
        }
        self.by_session.remove(&peer.id);
        self.publishers.retain(|publisher| *publisher != key);
        self.shared.directory.forget(peer.id);
        let connected = peer.greeted;
        tracing::info!(
            table = %peer.table,
            sessionId = %peer.id,
            kind = peer.role.kind().as_str(),
            reason,
            connected,
            seconds = now.saturating_duration_since(peer.created).as_secs(),
            "session ended"
        );
        let kind = peer.role.kind().as_str();
        self.shared.metrics.session_ended(kind, Transport::WebRtc, reason);
        peer.leave(reason, &mut self.streams);
    }

    /// Ends every session.
    pub(super) fn end_all(&mut self, now: Instant) {
        let keys: Vec<usize> = self.peers.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.end(now, key, "shutdown");
        }
    }
}
