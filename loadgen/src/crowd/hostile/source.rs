//! One hostile source: a viewer that connects properly, its sockets, and what it does
//! once it is told to attack.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use rtc::stun::message::TransactionId;

use super::{Kind, Tally, forge};
use crate::crowd::measure::Collector;
use crate::crowd::viewer::{At, Viewer};
use crate::time::utc_micros;

/// Sockets of a flood, each with an address of its own where the system gives one.
const FLOOD_SOCKETS: usize = 64;
/// Requests of a flood, made once: making one costs more than refusing it. Coprime to
/// the number of sockets.
const REQUESTS: u64 = 255;
/// Datagrams that are kept to be sent again; the oldest makes room.
const KEPT: usize = 64;
/// The two of `kept`.
const OWN: usize = 0;
const HEARD: usize = 1;
/// Datagrams taken from the socket before the other sources have their turn.
const RECEIVE: usize = 256;
/// Missed time that is made up for at most, as a burst.
const CATCH_UP: Duration = Duration::from_millis(50);

/// A hostile source. owner: the thread of its kind.
pub(super) struct Source {
    kind: Kind,
    viewer: Viewer,
    socket: UdpSocket,
    /// Where a flood of STUN comes from.
    flood: Vec<UdpSocket>,
    requests: Vec<Vec<u8>>,
    /// Own reports and received packets, to be sent again.
    kept: [VecDeque<Vec<u8>>; 2],
    collector: Collector,
    /// When the attack began, and what should have been sent since.
    begun: Option<Instant>,
    due: u64,
    next_hop: Option<Instant>,
    random: u64,
    pub(super) tally: Tally,
}

impl Source {
    /// A source of a joined viewer and its socket.
    ///
    /// # Errors
    /// When a socket cannot be had.
    pub(super) fn new(
        kind: Kind,
        viewer: Viewer,
        socket: UdpSocket,
        seed: u64,
    ) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let local = socket.local_addr()?.ip();
        let mut source = Self {
            kind,
            viewer,
            socket,
            flood: Vec::new(),
            requests: Vec::new(),
            kept: Default::default(),
            collector: Collector::new(1),
            begun: None,
            due: 0,
            next_hop: None,
            random: seed | 1,
            tally: Tally::default(),
        };
        if kind == Kind::StunFlood {
            for _ in 0..FLOOD_SOCKETS {
                let socket = UdpSocket::bind((foreign(local, source.draw()), 0))
                    .or_else(|_| UdpSocket::bind((local, 0)))?;
                socket.set_nonblocking(true)?;
                source.flood.push(socket);
            }
        }
        Ok(source)
    }

    /// Connected, and sent media to.
    pub(super) fn is_ready(&self) -> bool {
        self.viewer.is_watching() && self.viewer.streams().next().is_some()
    }

    pub(super) fn is_over(&self) -> bool {
        self.viewer.is_over()
    }

    /// Takes what came, and does what an honest viewer does.
    pub(super) fn run(&mut self) {
        let mut buffer = [0; 2048];
        for _ in 0..RECEIVE {
            let Ok((len, from)) = self.socket.recv_from(&mut buffer) else { break };
            let datagram = &buffer[..len];
            self.tally.received_packets += 1;
            self.tally.received_bytes += len as u64;
            let at = At { now: Instant::now(), utc: utc_micros() };
            self.viewer.handle_datagram(at, from, datagram, &mut self.collector);
            if matches!(datagram.first(), Some(128..=191)) {
                self.keep(HEARD, datagram.to_vec());
            }
        }
        for socket in &self.flood {
            while let Ok(len) = socket.recv(&mut buffer) {
                self.tally.received_packets += 1;
                self.tally.received_bytes += len as u64;
            }
        }
        let at = At { now: Instant::now(), utc: utc_micros() };
        if self.viewer.poll_timeout().is_some_and(|due| due <= at.now) {
            self.viewer.handle_timeout(at, &mut self.collector);
        }
        while let Some((to, datagram)) = self.viewer.poll_transmit() {
            // What does not go out now is one datagram lost on the way.
            let _ = self.socket.send_to(&datagram, to);
            if matches!(datagram.first(), Some(128..=191)) {
                self.keep(OWN, datagram);
            }
        }
    }

    /// Sends what is due of the attack.
    pub(super) fn attack(&mut self, now: Instant, rate: f64, hop_every: Duration) {
        let Some(server) = self.viewer.server().filter(|_| !self.viewer.is_over()) else { return };
        let begun = *self.begun.get_or_insert(now);
        if self.kind == Kind::AddressHop {
            if self.next_hop.is_none_or(|at| at <= now) {
                self.next_hop = Some(now + hop_every);
                self.hop(server);
            }
            return;
        }
        let target = (now.saturating_duration_since(begun).as_secs_f64() * rate) as u64;
        let most = (CATCH_UP.as_secs_f64() * rate).max(1.0) as u64;
        self.due = self.due.max(target.saturating_sub(most));
        while self.due < target {
            self.due += 1;
            self.strike(server);
        }
    }

    /// Says goodbye.
    pub(super) fn close(&mut self) {
        self.viewer.close(Instant::now());
        while let Some((to, datagram)) = self.viewer.poll_transmit() {
            let _ = self.socket.send_to(&datagram, to);
        }
    }

    fn strike(&mut self, server: SocketAddr) {
        let turn = self.tally.packets + self.tally.unsent;
        let (random, sender) = (self.draw(), self.viewer.own_ssrc());
        let mut streams = [(0, 0); 2];
        let mut count = 0;
        for (slot, stream) in streams.iter_mut().zip(self.viewer.streams()) {
            (*slot, count) = (stream, count + 1);
        }
        let streams = &streams[..count];
        let compound = match self.kind {
            Kind::NackStorm => forge::nack(sender, streams, turn),
            Kind::ForgedFeedback => forge::feedback(sender, streams, turn, random),
            Kind::FeedbackFlood => forge::flood(sender, streams, turn),
            Kind::Replay => {
                let (turn, kept) = (turn as usize / 2, &self.kept[turn as usize % 2]);
                let Some(again) = kept.get(turn % kept.len().max(1)) else {
                    self.tally.unsent += 1;
                    return;
                };
                let sent = self.socket.send_to(again, server);
                return self.tally.count(sent);
            }
            Kind::StunFlood => return self.flood(server, turn),
            Kind::AddressHop => return,
        };
        if let Some(sealed) = self.viewer.seal(&compound) {
            let sent = self.socket.send_to(&sealed, server);
            self.tally.count(sent);
        }
    }

    /// A binding request from another address each time.
    fn flood(&mut self, server: SocketAddr, turn: u64) {
        if self.requests.is_empty() {
            self.requests = (0..REQUESTS).filter_map(|n| self.request(n)).collect();
        }
        let at = |len: usize| turn as usize % len.max(1);
        let request = self.requests.get(at(self.requests.len()));
        if let (Some(request), Some(socket)) = (request, self.flood.get(at(self.flood.len()))) {
            let sent = socket.send_to(request, server);
            self.tally.count(sent);
        }
    }

    /// A binding request with a wrong password for a session that exists, or for one
    /// that does not.
    fn request(&mut self, number: u64) -> Option<Vec<u8>> {
        let (id, random) = (TransactionId::new(), self.draw());
        let mut credentials = self.viewer.credentials();
        if number.is_multiple_of(2) {
            credentials.remote_pwd.push('x');
        } else {
            credentials.remote_ufrag = format!("{random:016x}");
        }
        credentials.request(id, random, self.viewer.identity().crypto())
    }

    /// Moves to a new socket and takes the media along.
    fn hop(&mut self, server: SocketAddr) {
        let (id, random) = (TransactionId::new(), self.draw());
        let local = self.socket.local_addr().map(|address| address.ip());
        let Ok(socket) = local.and_then(|ip| UdpSocket::bind((ip, 0))) else {
            self.tally.unsent += 1;
            return;
        };
        let request =
            self.viewer.credentials().request(id, random, self.viewer.identity().crypto());
        if let Some(request) = request.filter(|_| socket.set_nonblocking(true).is_ok()) {
            self.socket = socket;
            let sent = self.socket.send_to(&request, server);
            self.tally.count(sent);
        }
    }

    fn keep(&mut self, which: usize, datagram: Vec<u8>) {
        if self.kind == Kind::Replay {
            let kept = &mut self.kept[which];
            if kept.len() == KEPT {
                kept.pop_front();
            }
            kept.push_back(datagram);
        }
    }

    fn draw(&mut self) -> u64 {
        // SplitMix64.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// Another address of this host: all of 127/8 is, which stands for forged sources.
fn foreign(local: IpAddr, random: u64) -> IpAddr {
    match local {
        IpAddr::V4(ip) if ip.is_loopback() => {
            let [a, b, c, ..] = random.to_be_bytes();
            Ipv4Addr::new(127, a, b, c.clamp(1, 254)).into()
        }
        other => other,
    }
}
