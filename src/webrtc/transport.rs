//! One peer's transport: ICE-lite, DTLS and SRTP in one sans-IO machine.
//!
//! Order of calls: hand in what arrives with `handle_*`, then send what
//! [`Transport::poll_transmit`] gives until it returns `None`, then look at
//! [`Transport::state`]. Call [`Transport::handle_timeout`] at
//! [`Transport::poll_timeout`].

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::budget::{Allowance, Budget};
use super::dtls::{Dtls, DtlsError, DtlsIdentity, DtlsOutcome, DtlsRole, Fingerprint, SrtpKeys};
use super::ice_lite::{Binding, BindingRequest, IceCredentials, StunReject};
use super::srtp::{MAX_RTCP_OVERHEAD, OpenError, Profile, Sealer};
use crate::route::Route;

/// Paths that a peer may hold validated at once; with one more the oldest is forgotten.
pub const MAX_PATHS: usize = 8;
/// A path is its peer's alone for this long after a proof. Peers prove theirs every
/// few seconds (RFC 7675 §5.1), so that nobody takes it from them with a forged source.
const PATH_HOLD: Duration = Duration::from_secs(10);
/// Binding requests looked at from addresses that have not proven themselves: each costs
/// two HMACs. A peer that gathers candidates sends one in 50 ms (RFC 8445 §14.2), and for
/// each pair no more than until the first answer.
const NEW_CHECKS: Allowance = Allowance { burst: 64, every: Duration::from_millis(100) };
/// The same from proven addresses. Apart, so that whoever learns a user fragment and
/// floods it cannot take the peer's consent from it.
const PATH_CHECKS: Allowance = Allowance { burst: 128, every: Duration::from_millis(10) };
/// Changes of the path that media takes: as many as a phone between two networks makes.
/// Past it the new path is validated and the media stays, until the peer nominates the
/// path again. So a viewer can neither have its stream sprayed over the network nor have
/// the engine redirect it all the time.
const MOVES: Allowance = Allowance { burst: 8, every: Duration::from_secs(1) };
/// Datagrams waiting to be sent; a flight of DTLS has about six. Past it the oldest
/// is dropped, and the peer retransmits.
const MAX_OUTBOX: usize = 64;

/// How long a peer may take, and be silent.
#[derive(Clone, Copy, Debug)]
pub struct TransportTimeouts {
    /// From the answer to established SRTP.
    pub connect: Duration,
    /// Since the last authenticated binding request (RFC 7675 §5.1).
    pub consent: Duration,
}

/// What an offer says of the peer's DTLS.
#[derive(Clone, Copy, Debug)]
pub struct RemoteDtls {
    /// The certificate it promises.
    pub fingerprint: Fingerprint,
    /// The role that our answer took.
    pub our_role: DtlsRole,
}

/// Why a transport is over; part of the session's `reason` label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransportEnd {
    /// ICE or DTLS did not finish in time.
    ConnectTimeout,
    /// Consent expired: the peer is gone.
    ConsentExpired,
    /// The peer closed DTLS.
    ClosedByPeer,
    /// The handshake failed.
    Handshake(DtlsError),
}

impl TransportEnd {
    /// The value of the `reason` metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ConnectTimeout => "connect_timeout",
            Self::ConsentExpired => "consent_expired",
            Self::ClosedByPeer => "closed_by_peer",
            Self::Handshake(DtlsError::Handshake) => "dtls_handshake",
            Self::Handshake(DtlsError::Fingerprint) => "dtls_fingerprint",
            Self::Handshake(DtlsError::NoSrtp) => "dtls_no_srtp",
        }
    }
}

/// Where a transport stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransportState {
    /// ICE and DTLS are under way.
    Connecting,
    /// SRTP flows.
    Connected,
    /// Over.
    Ended(TransportEnd),
}

/// An address from which the peer has proven itself.
struct Path {
    route: Route,
    /// When it did so last.
    proven: Instant,
}

/// A binding request that passed [`Transport::authenticate`].
pub struct ProvenBinding {
    binding: Binding,
    route: Route,
    /// It used the credentials in force, not those before an ICE restart.
    current: bool,
}

/// What came of a proven binding request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    /// The address that was forgotten to make room.
    pub forgotten: Option<SocketAddr>,
    /// The path was nominated, and the media stays where it is: the peer moves too often.
    pub stayed: bool,
}

/// The transport of one peer. owner: the session's worker.
pub struct Transport {
    identity: Arc<DtlsIdentity>,
    /// The current credentials, and after an ICE restart the former until the first
    /// request with the new ones (RFC 8445 §9).
    credentials: Vec<IceCredentials>,
    timeouts: TransportTimeouts,
    created: Instant,
    last_consent: Instant,
    paths: VecDeque<Path>,
    selected: Option<Route>,
    new_checks: Budget,
    path_checks: Budget,
    moves: Budget,
    dtls: Dtls,
    srtp: Option<Box<SrtpKeys>>,
    outbox: VecDeque<(Route, Vec<u8>)>,
    state: TransportState,
}

impl Transport {
    /// A transport that waits for the peer's first binding request.
    pub fn new(
        identity: Arc<DtlsIdentity>,
        credentials: IceCredentials,
        remote: RemoteDtls,
        timeouts: TransportTimeouts,
        now: Instant,
    ) -> Self {
        Self {
            dtls: Dtls::new(identity.clone(), remote.fingerprint, remote.our_role),
            identity,
            credentials: vec![credentials],
            timeouts,
            created: now,
            last_consent: now,
            paths: VecDeque::new(),
            selected: None,
            new_checks: Budget::default(),
            path_checks: Budget::default(),
            moves: Budget::default(),
            srtp: None,
            outbox: VecDeque::new(),
            state: TransportState::Connecting,
        }
    }

    /// Where the transport stands.
    pub fn state(&self) -> TransportState {
        self.state
    }

    /// Where media goes: the nominated path, or the first validated one before
    /// nomination.
    pub fn route(&self) -> Option<Route> {
        self.selected.or_else(|| self.paths.front().map(|path| path.route))
    }

    /// Every address from which this peer has proven itself.
    pub fn paths(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.paths.iter().map(|path| path.route.peer)
    }

    /// The SRTP profile agreed on, once connected.
    pub fn profile(&self) -> Option<Profile> {
        self.srtp.as_ref().map(|srtp| srtp.profile)
    }

    /// What seals RTP for this peer: once, when connected.
    pub fn take_sealer(&mut self) -> Option<Sealer> {
        self.srtp.as_mut()?.sealer.take()
    }

    /// Adds the credentials of an ICE restart; the former ones stay valid until the
    /// peer uses the new.
    pub fn restart_ice(&mut self, credentials: IceCredentials) {
        self.credentials.truncate(1);
        self.credentials.insert(0, credentials);
    }

    /// Checks a binding request that names one of this transport's user fragments.
    ///
    /// # Errors
    /// [`StunReject`]; the sender has proven nothing then.
    pub fn authenticate(
        &mut self,
        now: Instant,
        request: BindingRequest<'_>,
        route: Route,
    ) -> Result<ProvenBinding, StunReject> {
        let proven = self.paths.iter().any(|path| path.route.peer == route.peer);
        let within = match proven {
            true => self.path_checks.take(now, PATH_CHECKS),
            false => self.new_checks.take(now, NEW_CHECKS),
        };
        if !within {
            return Err(StunReject::Flood);
        }
        let at = self
            .credentials
            .iter()
            .position(|c| c.ufrag == request.local_ufrag())
            .ok_or(StunReject::UnknownUfrag)?;
        let pwd = &self.credentials[at].pwd;
        let binding = request.authenticate(pwd, route.peer, self.identity.provider())?;
        Ok(ProvenBinding { binding, route, current: at == 0 })
    }

    /// Answers a binding request of a proven sender and takes its path in.
    pub fn accept(&mut self, now: Instant, proven: ProvenBinding) -> Accepted {
        let ProvenBinding { binding, route, current } = proven;
        if current {
            self.credentials.truncate(1);
        }
        self.last_consent = now;
        self.send(route, binding.reply);
        let forgotten = self.add_path(now, route);
        let stayed = binding.nominates && !self.select(now, route);
        if let Err(error) = self.dtls.start(now) {
            self.end(TransportEnd::Handshake(error));
        }
        self.collect_dtls();
        Accepted { forgotten, stayed }
    }

    /// Whether the peer has proven itself from `address` lately, so that nobody else
    /// can have that address now.
    pub fn holds(&self, now: Instant, address: SocketAddr) -> bool {
        let fresh = |path: &Path| now.saturating_duration_since(path.proven) < PATH_HOLD;
        self.paths.iter().any(|path| path.route.peer == address && fresh(path))
    }

    /// Forgets a path whose address is another peer's now.
    pub fn forget_path(&mut self, address: SocketAddr) {
        self.paths.retain(|path| path.route.peer != address);
        if self.selected.is_some_and(|route| route.peer == address) {
            self.selected = None;
        }
    }

    /// Takes a DTLS datagram from one of [`Self::paths`]; returns false when it was
    /// dropped for what it is.
    pub fn handle_dtls(&mut self, now: Instant, datagram: &[u8]) -> bool {
        if matches!(self.state, TransportState::Ended(_)) {
            return true;
        }
        match self.dtls.handle_datagram(now, datagram) {
            Ok(DtlsOutcome::Refused) => return false,
            Ok(DtlsOutcome::Progress) => {}
            Ok(DtlsOutcome::Established(keys)) => {
                self.srtp = Some(keys);
                self.state = TransportState::Connected;
            }
            Ok(DtlsOutcome::Closed) => self.end(TransportEnd::ClosedByPeer),
            Err(error) => self.end(TransportEnd::Handshake(error)),
        }
        self.collect_dtls();
        true
    }

    /// Opens an SRTP packet in place; returns the length of the RTP packet.
    ///
    /// # Errors
    /// [`OpenError`]; before SRTP is keyed, `Unauthentic`.
    pub fn open_rtp(&mut self, packet: &mut [u8]) -> Result<usize, OpenError> {
        self.srtp.as_mut().ok_or(OpenError::Unauthentic)?.opener.open_rtp(packet)
    }

    /// Opens an SRTCP packet in place; returns the length of the compound RTCP packet.
    ///
    /// # Errors
    /// [`OpenError`]; before SRTP is keyed, `Unauthentic`.
    pub fn open_rtcp(&mut self, packet: &mut [u8]) -> Result<usize, OpenError> {
        self.srtp.as_mut().ok_or(OpenError::Unauthentic)?.opener.open_rtcp(packet)
    }

    /// Seals a compound RTCP packet and queues it for the peer.
    pub fn send_rtcp(&mut self, mut packet: Vec<u8>) {
        let (Some(route), Some(srtp)) = (self.route(), self.srtp.as_mut()) else { return };
        packet.reserve_exact(MAX_RTCP_OVERHEAD);
        if srtp.rtcp_sealer.seal_rtcp(&mut packet).is_ok() {
            self.send(route, packet);
        }
    }

    /// Ends the session from our side; the farewell waits in [`Self::poll_transmit`].
    pub fn close(&mut self, now: Instant) {
        self.dtls.close(now);
        self.collect_dtls();
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        if matches!(self.state, TransportState::Ended(_)) {
            return;
        }
        if let Err(error) = self.dtls.handle_timeout(now) {
            self.end(TransportEnd::Handshake(error));
        }
        self.collect_dtls();
        if now >= self.deadline() {
            self.end(match self.state {
                TransportState::Connecting if self.dtls.has_stumbled() => {
                    TransportEnd::Handshake(DtlsError::Handshake)
                }
                TransportState::Connecting => TransportEnd::ConnectTimeout,
                _ => TransportEnd::ConsentExpired,
            });
        }
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Instant {
        self.dtls.poll_timeout().map_or(self.deadline(), |at| at.min(self.deadline()))
    }

    /// The next datagram to send, and where to.
    pub fn poll_transmit(&mut self) -> Option<(Route, Vec<u8>)> {
        self.outbox.pop_front()
    }

    fn deadline(&self) -> Instant {
        match self.state {
            TransportState::Connecting => self.created + self.timeouts.connect,
            _ => self.last_consent + self.timeouts.consent,
        }
    }

    /// Has media take a nominated path; false when the peer moves too often.
    fn select(&mut self, now: Instant, route: Route) -> bool {
        let moves = self.selected.is_some_and(|selected| selected.peer != route.peer);
        let follows = !moves || self.moves.take(now, MOVES);
        if follows {
            self.selected = Some(route);
        }
        follows
    }

    fn add_path(&mut self, now: Instant, route: Route) -> Option<SocketAddr> {
        if let Some(path) = self.paths.iter_mut().find(|path| path.route.peer == route.peer) {
            *path = Path { route, proven: now };
            return None;
        }
        self.paths.push_back(Path { route, proven: now });
        if self.paths.len() <= MAX_PATHS {
            return None;
        }
        // The oldest, but not the one that media takes.
        let oldest = self.paths.iter().position(|path| Some(path.route) != self.selected)?;
        self.paths.remove(oldest).map(|path| path.route.peer)
    }

    fn collect_dtls(&mut self) {
        while let Some(datagram) = self.dtls.poll_transmit() {
            if let Some(route) = self.route() {
                self.send(route, datagram.to_vec());
            }
        }
    }

    fn send(&mut self, to: Route, datagram: Vec<u8>) {
        if self.outbox.len() == MAX_OUTBOX {
            self.outbox.pop_front();
        }
        self.outbox.push_back((to, datagram));
    }

    fn end(&mut self, end: TransportEnd) {
        if !matches!(self.state, TransportState::Ended(_)) {
            self.state = TransportState::Ended(end);
        }
    }
}
