//! The loop of one worker: take what came, advance the rings and the cursors, do
//! what is due, send. It waits in one place only.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mio::net::UdpSocket;
use mio::{Events, Poll, Token};
use slab::Slab;

use super::directory::Claim;
use super::mailbox::{Inbox, Mail, Mailbox};
use super::peer::{Outlet, Peer, Role};
use super::pool::Shared;
use super::session::{NewSession, SessionId};
use super::stats::WorkerStats;
use super::streams::Streams;
use crate::hub::EgressCounts;
use crate::net::udp::{ReceiveBatch, SendBatch};
use crate::webrtc::classify::{Class, classify};
use crate::webrtc::ice_lite::BindingRequest;
use crate::webrtc::transport::TransportState;

pub(super) const SOCKET_TOKEN: Token = Token(0);
pub(super) const WAKER_TOKEN: Token = Token(1);

/// Batches of datagrams taken in one turn: reception must not starve sending.
const RECEIVE_BATCHES: usize = 8;
/// Messages taken from each queue in one turn.
const MAIL_PER_TURN: usize = 1024;
/// Pause between two slices for viewers that are behind, so that a joining viewer
/// is sent its GOP at about 16 000 packets a second and not in one burst.
const SLICE_PAUSE: Duration = Duration::from_millis(2);
/// Longest wait, so that a missed wake-up cannot last.
const MAX_WAIT: Duration = Duration::from_millis(500);

pub(super) struct Worker {
    index: usize,
    poll: Poll,
    socket: UdpSocket,
    inbox: Inbox,
    mailbox: Arc<Mailbox>,
    shared: Arc<Shared>,
    stats: Arc<WorkerStats>,
    batch: SendBatch,
    peers: Slab<Peer>,
    by_ufrag: HashMap<String, usize>,
    by_address: HashMap<SocketAddr, usize>,
    by_session: HashMap<SessionId, usize>,
    streams: Streams,
    /// When peers are due; an entry is stale unless the peer's `scheduled` equals it.
    timers: BinaryHeap<Reverse<(Instant, usize)>>,
    stopping: bool,
}

impl Worker {
    pub(super) fn new(
        index: usize,
        poll: Poll,
        socket: UdpSocket,
        inbox: Inbox,
        shared: Arc<Shared>,
    ) -> Self {
        let mailbox = shared.mailboxes[index].clone();
        Self {
            index,
            batch: SendBatch::new(&socket, shared.settings.udp.ipv6),
            poll,
            socket,
            inbox,
            stats: shared.stats[index].clone(),
            streams: Streams::new(mailbox.clone()),
            mailbox,
            shared,
            peers: Slab::new(),
            by_ufrag: HashMap::new(),
            by_address: HashMap::new(),
            by_session: HashMap::new(),
            timers: BinaryHeap::new(),
            stopping: false,
        }
    }

    /// Runs until it is told to shut down.
    #[allow(clippy::disallowed_methods, reason = "the worker reads the clock for its machines")]
    pub(super) fn run(mut self) {
        let mut events = Events::with_capacity(4);
        let mut received = ReceiveBatch::default();
        let mut now = Instant::now();
        while !self.stopping {
            let wait = self.fall_asleep(now);
            self.stats.busy_nanos.fetch_add(now.elapsed().as_nanos() as u64, Ordering::Relaxed);
            if let Err(error) = self.poll.poll(&mut events, Some(wait))
                && error.kind() != std::io::ErrorKind::Interrupted
            {
                tracing::error!(%error, "waiting for the media port failed");
            }
            self.mailbox.awake();
            now = Instant::now();
            self.receive(now, &mut received);
            self.take_mail(now);
            self.take_media(now);
            if self.mailbox.take_poke() {
                self.poll_publishers(now);
            }
            self.fan_out(now);
            self.run_timers(now);
            self.batch.flush();
            self.stats.send_dropped.fetch_add(self.batch.take_dropped(), Ordering::Relaxed);
        }
        self.end_all(now);
    }

    /// How long to wait. Looks at the queues after announcing the sleep, so that no
    /// message slips in between.
    fn fall_asleep(&self, now: Instant) -> Duration {
        self.mailbox.fall_asleep();
        let waiting =
            !self.inbox.mail.is_empty() || !self.inbox.media.is_empty() || self.mailbox.is_poked();
        if waiting {
            return Duration::ZERO;
        }
        let mut wait = if self.streams.any_touched() { SLICE_PAUSE } else { MAX_WAIT };
        if let Some(Reverse((at, _))) = self.timers.peek() {
            wait = wait.min(at.saturating_duration_since(now));
        }
        wait
    }

    fn receive(&mut self, now: Instant, received: &mut ReceiveBatch) {
        for _ in 0..RECEIVE_BATCHES {
            let count = match received.receive(&self.socket) {
                Ok(count) => count,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                // An error of an earlier send (ICMP unreachable) shows up here.
                Err(_) => continue,
            };
            for i in 0..count {
                if let Some((from, datagram)) = received.datagram(i) {
                    self.stats.datagrams_received.fetch_add(1, Ordering::Relaxed);
                    self.stats.bytes_received.fetch_add(datagram.len() as u64, Ordering::Relaxed);
                    self.handle_datagram(now, from, datagram, true);
                }
            }
            if count < crate::net::udp::BATCH {
                return;
            }
        }
    }

    /// `fresh`: it came from our own socket, and may be passed on to its owner.
    fn handle_datagram(&mut self, now: Instant, from: SocketAddr, bytes: &mut [u8], fresh: bool) {
        let Some(class) = classify(bytes) else { return self.stats.reject("unclassified") };
        if class == Class::Stun {
            return self.handle_stun(now, from, bytes, fresh);
        }
        let Some(&key) = self.by_address.get(&from) else {
            let owner = if fresh { self.shared.directory.owner_of(from) } else { None };
            return match owner {
                Some(owner) if owner != self.index => self.forward(owner, from, bytes),
                _ => self.stats.reject("unknown_peer"),
            };
        };
        let Some(peer) = self.peers.get_mut(key) else { return };
        match class {
            Class::Dtls => peer.transport.handle_dtls(now, bytes),
            Class::Rtp => peer.handle_rtp(now, bytes, &self.stats),
            Class::Rtcp => {
                let mut send =
                    Outlet { shared: &self.shared, stats: &self.stats, batch: &mut self.batch };
                peer.handle_rtcp(now, bytes, &mut self.streams, &mut send);
            }
            Class::Stun => {}
        }
        self.settle(now, key);
    }

    fn handle_stun(&mut self, now: Instant, from: SocketAddr, bytes: &[u8], fresh: bool) {
        let request = match BindingRequest::parse(bytes) {
            Ok(request) => request,
            Err(reject) => return self.stats.reject(reject.as_str()),
        };
        let key = match self.by_ufrag.get(request.local_ufrag()) {
            Some(key) => *key,
            None => match self.shared.directory.claim(request.local_ufrag(), self.index) {
                Claim::New(session) => self.take_in(now, *session),
                Claim::Owned(owner) if owner != self.index && fresh => {
                    return self.forward(owner, from, bytes);
                }
                Claim::Owned(_) | Claim::Unknown => {
                    return self.stats.reject("stun_unknown_ufrag");
                }
            },
        };
        let Some(peer) = self.peers.get_mut(key) else { return };
        match peer.transport.handle_binding(now, request, from) {
            Err(reject) => self.stats.reject(reject.as_str()),
            Ok(change) => {
                let id = peer.id;
                if let Some(old) = change.removed {
                    self.by_address.remove(&old);
                    self.shared.directory.remove_address(id, old);
                }
                if change.added {
                    // An address changes hands when a NAT gives it to another peer.
                    self.by_address.insert(from, key);
                    self.shared.directory.add_address(id, from, self.index);
                }
            }
        }
        self.settle(now, key);
    }

    fn forward(&self, owner: usize, from: SocketAddr, bytes: &[u8]) {
        if let Some(mailbox) = self.shared.mailboxes.get(owner) {
            self.stats.forwarded.fetch_add(1, Ordering::Relaxed);
            // A full queue drops the datagram, as a full socket would.
            let _ = mailbox.send(Mail::Datagram { from, bytes: bytes.to_vec() });
        }
    }

    /// Makes a claimed session a peer of this worker.
    fn take_in(&mut self, now: Instant, session: NewSession) -> usize {
        let id = session.id;
        let ufrag = session.credentials.ufrag.clone();
        let entry = self.peers.vacant_entry();
        let key = entry.key();
        let peer = Peer::new(session, &mut self.streams, &self.shared, &self.mailbox, now);
        entry.insert(peer);
        self.by_ufrag.insert(ufrag, key);
        self.by_session.insert(id, key);
        key
    }

    fn take_mail(&mut self, now: Instant) {
        for _ in 0..MAIL_PER_TURN {
            let Ok(mail) = self.inbox.mail.try_recv() else { return };
            match mail {
                Mail::Datagram { from, mut bytes } => {
                    self.handle_datagram(now, from, &mut bytes, false);
                }
                Mail::RestartIce { session, credentials } => {
                    if let Some(&key) = self.by_session.get(&session) {
                        self.by_ufrag.insert(credentials.ufrag.clone(), key);
                        self.peers[key].ufrags.push(credentials.ufrag.clone());
                        self.peers[key].transport.restart_ice(credentials);
                    }
                }
                Mail::Close { session, reason } => {
                    if let Some(&key) = self.by_session.get(&session) {
                        self.end(now, key, reason);
                    }
                }
                Mail::StreamEnded(stream) => {
                    for key in self.streams.end(stream) {
                        self.end(now, key, "stream_ended");
                    }
                }
                Mail::Shutdown => self.stopping = true,
            }
        }
    }

    fn take_media(&mut self, now: Instant) {
        for _ in 0..MAIL_PER_TURN {
            let Ok(media) = self.inbox.media.try_recv() else { return };
            self.streams.push(now, media.stream, media.layer, media.packet);
        }
    }

    fn poll_publishers(&mut self, now: Instant) {
        let publishes =
            |(key, peer): (usize, &Peer)| matches!(peer.role, Role::Publisher(_)).then_some(key);
        let keys: Vec<usize> = self.peers.iter().filter_map(publishes).collect();
        for key in keys {
            self.settle(now, key);
        }
    }

    /// Advances every viewer of every stream whose rings have grown.
    fn fan_out(&mut self, now: Instant) {
        let mut send = Outlet { shared: &self.shared, stats: &self.stats, batch: &mut self.batch };
        for stream in self.streams.take_touched() {
            let mut behind = false;
            let mut counts = EgressCounts::default();
            for i in 0..stream.viewers.len() {
                let Some(peer) = self.peers.get_mut(stream.viewers[i]) else { continue };
                behind |= peer.pump(now, stream, &mut counts, &mut send);
            }
            // Another starts the next pass: nobody is always last.
            if !stream.viewers.is_empty() {
                stream.viewers.rotate_left(1);
            }
            stream.touched |= behind;
            stream.stream.egress.add(&counts);
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
        let over = peer.advance(now, &self.shared);
        peer.transmit(&mut self.batch);
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
        peer.close(now);
        peer.transmit(&mut self.batch);
        for ufrag in &peer.ufrags {
            self.by_ufrag.remove(ufrag);
        }
        for address in peer.transport.paths() {
            if self.by_address.get(&address) == Some(&key) {
                self.by_address.remove(&address);
            }
        }
        self.by_session.remove(&peer.id);
        self.shared.directory.forget(peer.id);
        let connected = peer.transport.state() != TransportState::Connecting;
        tracing::info!(
            table = %peer.table,
            sessionId = %peer.id,
            kind = peer.role.kind().as_str(),
            reason,
            connected,
            seconds = now.saturating_duration_since(peer.created).as_secs(),
            "session ended"
        );
        self.shared.metrics.session_ended(peer.role.kind(), reason);
        peer.leave(key, reason, &mut self.streams);
    }

    fn end_all(&mut self, now: Instant) {
        let keys: Vec<usize> = self.peers.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.end(now, key, "shutdown");
        }
        self.batch.flush();
    }
}
