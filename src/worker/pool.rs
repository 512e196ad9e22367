//! The media workers as the rest of the program sees them: admit a session,
//! restart its ICE, end it, count it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::directory::{Directory, Found, SessionLimits, SessionView, TooManySessions};
use super::headroom::{Headroom, HeadroomLimits, Refusal, Sample};
use super::mailbox::{Mail, Mailbox, mailbox};
use super::placement::WorkerState;
use super::run::{SOCKET_TOKEN, WAKER_TOKEN, Worker};
use super::session::{NewSession, SessionId, SessionKind};
use super::stats::{WorkerStats, WorkerTotals};
use crate::hub::TableName;
use crate::ingest::whip::ReceiverSettings;
use crate::net::udp::{UdpSettings, open_sockets};
use crate::qos::{Metrics, Transport};
use crate::rtp::extensions::PlayoutDelay;
use crate::time::Clock;
use crate::webrtc::dtls::DtlsIdentity;
use crate::webrtc::ice_lite::IceCredentials;
use crate::webrtc::transport::{TransportEnd, TransportTimeouts};

/// Settings of the media workers.
#[derive(Clone, Debug)]
pub struct PoolSettings {
    /// How many workers; one socket and one thread each. At least 1.
    pub workers: usize,
    /// The media port's sockets.
    pub udp: UdpSettings,
    /// The addresses that answers announce, without port.
    pub addresses: Vec<IpAddr>,
    /// How many sessions there may be.
    pub limits: SessionLimits,
    /// How much viewers may use.
    pub headroom: HeadroomLimits,
    /// How long a peer may take, and be silent.
    pub timeouts: TransportTimeouts,
    /// A publisher that sends no media for this long is dead.
    pub ingest_timeout: Duration,
    /// How publishers' media is received.
    pub receiver: ReceiverSettings,
    /// What viewers are told of their playout delay.
    pub playout_delay: PlayoutDelay,
}

/// Why a session could not be ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CloseError {
    /// There is none with this id.
    #[error("no such session")]
    Unknown,
    /// Its worker has too much to do; asking again helps.
    #[error("the session's worker is busy")]
    Busy,
}

/// Why a layer could not be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChooseError {
    /// There is no such viewer, or it does not watch this track.
    #[error("no such viewer or track")]
    Unknown,
    /// Its worker has too much to do; asking again helps.
    #[error("the session's worker is busy")]
    Busy,
}

/// What every worker has of the settings.
pub(super) struct Shared {
    pub(super) settings: PoolSettings,
    pub(super) identity: Arc<DtlsIdentity>,
    pub(super) directory: Directory,
    pub(super) mailboxes: Vec<Arc<Mailbox>>,
    pub(super) stats: Vec<Arc<WorkerStats>>,
    pub(super) clock: Clock,
    pub(super) metrics: Metrics,
}

/// The media workers. Shared as `Arc<MediaPool>`.
pub struct MediaPool {
    shared: Arc<Shared>,
    port: u16,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// HTTP and the tick share it; media threads do not know it.
    headroom: Mutex<Headroom>,
}

impl MediaPool {
    /// Opens the media port and starts the workers.
    ///
    /// # Errors
    /// The system's error, when the port or a thread cannot be had.
    pub fn start(
        settings: PoolSettings,
        identity: Arc<DtlsIdentity>,
        clock: Clock,
        metrics: Metrics,
    ) -> io::Result<Arc<Self>> {
        let sockets = open_sockets(&settings.udp, settings.workers)?;
        let port = match sockets.first() {
            Some(socket) => socket.local_addr()?.port(),
            None => return Err(io::Error::new(io::ErrorKind::InvalidInput, "no media worker")),
        };
        let mut parts = Vec::new();
        let mut mailboxes = Vec::new();
        for socket in sockets {
            let poll = mio::Poll::new()?;
            let (mailbox, inbox) = mailbox(mio::Waker::new(poll.registry(), WAKER_TOKEN)?);
            let mut socket = mio::net::UdpSocket::from_std(socket);
            poll.registry().register(&mut socket, SOCKET_TOKEN, mio::Interest::READABLE)?;
            mailboxes.push(mailbox);
            parts.push((poll, socket, inbox));
        }
        let shared = Arc::new(Shared {
            directory: Directory::new(settings.limits, settings.workers),
            stats: parts.iter().map(|_| Arc::default()).collect(),
            settings,
            identity,
            mailboxes,
            clock,
            metrics,
        });
        let mut threads = Vec::new();
        for (index, (poll, socket, inbox)) in parts.into_iter().enumerate() {
            let worker = Worker::new(index, poll, socket, inbox, shared.clone());
            let name = format!("media-{index}");
            threads.push(std::thread::Builder::new().name(name).spawn(move || worker.run())?);
        }
        Ok(Arc::new(Self::new(shared, port, threads)))
    }

    /// A pool whose workers somebody else drives: tests, on a virtual clock.
    #[cfg(test)]
    pub(super) fn without_threads(shared: Arc<Shared>, port: u16) -> Self {
        Self::new(shared, port, Vec::new())
    }

    fn new(shared: Arc<Shared>, port: u16, threads: Vec<JoinHandle<()>>) -> Self {
        let headroom = Mutex::new(Headroom::new(shared.settings.headroom));
        Self { shared, port, threads: Mutex::new(threads), headroom }
    }

    /// The media port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The addresses that answers announce.
    pub fn candidates(&self) -> Vec<SocketAddr> {
        let addresses = self.shared.settings.addresses.iter();
        addresses.map(|ip| SocketAddr::new(*ip, self.port)).collect()
    }

    /// The certificate that answers announce.
    pub fn identity(&self) -> &DtlsIdentity {
        &self.shared.identity
    }

    /// Whether one more session of `kind` would be admitted now.
    pub fn has_room(&self, kind: SessionKind) -> bool {
        self.shared.directory.has_room(kind)
    }

    /// Takes a session in; it waits for its first binding request.
    ///
    /// # Errors
    /// [`TooManySessions`].
    pub fn admit(&self, session: NewSession) -> Result<(), TooManySessions> {
        self.shared.directory.admit(Box::new(session))
    }

    /// Whether a viewer that is expected to cost `bps` on the wire would be admitted
    /// now: to be asked before an offer is worked on.
    ///
    /// # Errors
    /// What there is too little of.
    pub fn check_viewer(&self, bps: u64) -> Result<(), Refusal> {
        if !self.has_room(SessionKind::Viewer) {
            return Err(Refusal::Viewers);
        }
        self.headroom().check(bps)
    }

    /// Takes a viewer in that is expected to cost `bps` on the wire, unless it could
    /// not be served well.
    ///
    /// # Errors
    /// What there is too little of.
    pub fn admit_viewer(&self, session: NewSession, bps: u64) -> Result<(), Refusal> {
        self.headroom().admit(bps)?;
        // Refused only by a race; the headroom forgets the viewer within seconds.
        self.admit(session).map_err(|TooManySessions| Refusal::Viewers)
    }

    /// What may be known of a session.
    pub fn view(&self, id: SessionId) -> Option<SessionView> {
        self.shared.directory.view(id)
    }

    /// Puts new ICE credentials in force for a session (RFC 9725 §4.3.3).
    pub fn restart_ice(&self, session: SessionId, credentials: IceCredentials, remote_ufrag: &str) {
        let owner = self.shared.directory.restart_ice(session, &credentials, remote_ufrag);
        if let Some(worker) = owner {
            // When it does not fit, the peer's checks fail and it restarts again.
            self.mail(worker, Mail::RestartIce { session, credentials });
        }
    }

    /// Ends a session.
    ///
    /// # Errors
    /// [`CloseError`].
    pub fn close(&self, session: SessionId, reason: &'static str) -> Result<(), CloseError> {
        match self.shared.directory.close(session).ok_or(CloseError::Unknown)? {
            Found::Removed(session) => {
                self.discard(*session, reason);
                Ok(())
            }
            Found::Owned(worker) => {
                let mailbox = self.shared.mailboxes.get(worker).ok_or(CloseError::Unknown)?;
                mailbox.send(Mail::Close { session, reason }).map_err(|_| CloseError::Busy)
            }
        }
    }

    /// Chooses the layer that a viewer is sent of `track` (its index in the stream), as
    /// far as its path carries it; `None` leaves the choice to the gateway.
    ///
    /// # Errors
    /// [`ChooseError`].
    pub fn choose_layer(
        &self,
        session: SessionId,
        track: u8,
        layer: Option<u8>,
    ) -> Result<(), ChooseError> {
        let watching = self.view(session).and_then(|view| view.watching);
        let watching = watching.ok_or(ChooseError::Unknown)?;
        let mut tracks = watching.tracks.iter();
        let watched = tracks.find(|watched| watched.track == track).ok_or(ChooseError::Unknown)?;
        watched.choose(layer);
        // One that waits for its peer is given the choice when that comes.
        let Some(worker) = self.shared.directory.owner(session) else { return Ok(()) };
        let mailbox = self.shared.mailboxes.get(worker).ok_or(ChooseError::Unknown)?;
        mailbox.send(Mail::ChooseLayer { session }).map_err(|_| ChooseError::Busy)
    }

    /// Sessions of `kind`.
    pub fn count(&self, kind: SessionKind) -> usize {
        self.shared.directory.count(kind)
    }

    /// WebRTC viewers of `table`.
    pub fn viewers_of(&self, table: &TableName) -> usize {
        self.shared.directory.viewers_of(table)
    }

    /// The counters of all workers.
    pub fn totals(&self) -> WorkerTotals {
        let mut totals = WorkerTotals::default();
        for (stats, mailbox) in self.shared.stats.iter().zip(&self.shared.mailboxes) {
            stats.mailbox_overflows.store(mailbox.overflows(), Ordering::Relaxed);
            totals.add(stats);
        }
        totals
    }

    /// Workers whose threads run.
    pub fn running(&self) -> usize {
        self.threads().iter().filter(|thread| !thread.is_finished()).count()
    }

    /// Nanoseconds each worker was busy since it started.
    pub fn busy_nanos(&self) -> Vec<u64> {
        self.shared.stats.iter().map(|s| s.busy_nanos.load(Ordering::Relaxed)).collect()
    }

    /// Viewers that each worker owns or is to own.
    pub fn viewers_by_worker(&self) -> Vec<usize> {
        self.shared.directory.viewers_by_worker()
    }

    /// Measures what is left for viewers, and tells the placement which workers have
    /// too much to do. `sent_bytes` are those on the wire since the start. To be called
    /// about once a second.
    pub fn measure(&self, now: Instant, sent_bytes: u64) {
        let viewers = self.viewers_by_worker().iter().sum();
        let busy_nanos = self.busy_nanos();
        let mut headroom = self.headroom();
        let before = headroom.full();
        let limit = self.shared.settings.limits.viewers.max(1);
        let places = self.count(SessionKind::Viewer) as f64 / limit as f64;
        let sample = Sample { busy_nanos: &busy_nanos, sent_bytes, viewers, places };
        headroom.measure(now, &sample);
        match headroom.full() {
            Some(full) if before != Some(full) => {
                tracing::warn!(reason = full.as_str(), detail = %*headroom, "viewers are refused");
            }
            None if before.is_some() => tracing::info!("viewers are admitted again"),
            _ => {}
        }
        let mut states = headroom.states();
        drop(headroom);
        for (state, thread) in states.iter_mut().zip(&*self.threads()) {
            if thread.is_finished() {
                *state = WorkerState::Gone;
            }
        }
        self.shared.directory.set_worker_states(&states);
    }

    /// What is left for viewers: 1 all, 0 nothing.
    pub fn headroom_ratio(&self) -> f64 {
        self.headroom().ratio()
    }

    /// Bit/s that may be sent; 0 is no limit.
    pub fn egress_limit_bps(&self) -> u64 {
        self.shared.settings.headroom.egress_bps
    }

    /// Why no viewer is admitted, for operators; `None` when they are.
    pub fn full(&self) -> Option<String> {
        let headroom = self.headroom();
        headroom.full().map(|_| headroom.to_string())
    }

    fn headroom(&self) -> MutexGuard<'_, Headroom> {
        // Nothing panics while it holds this lock.
        self.headroom.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn threads(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Frees sessions whose peer never came. To be called about once a second.
    pub fn sweep(&self, now: Instant) {
        let bound = self.shared.settings.timeouts.connect;
        for session in self.shared.directory.take_overdue(now, bound) {
            self.discard(session, TransportEnd::ConnectTimeout.as_str());
        }
    }

    /// Ends a session that no worker owns.
    fn discard(&self, session: NewSession, reason: &'static str) {
        let kind = session.role.kind().as_str();
        let id = session.id;
        tracing::info!(table = %session.table, sessionId = %id, kind, reason, "session ended");
        self.shared.metrics.session_ended(kind, Transport::WebRtc, reason);
        session.end(reason);
    }

    /// Ends all sessions and threads, and waits for the threads.
    pub fn shutdown(&self) {
        let threads = std::mem::take(&mut *self.threads());
        for (mailbox, thread) in self.shared.mailboxes.iter().zip(&threads) {
            // A worker looks at a full queue before it sleeps, so trying again ends;
            // one that has panicked looks no more.
            while mailbox.send(Mail::Shutdown).is_err() && !thread.is_finished() {
                std::thread::yield_now();
            }
        }
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a media worker panicked");
            }
        }
    }

    fn mail(&self, worker: usize, mail: Mail) {
        if let Some(mailbox) = self.shared.mailboxes.get(worker) {
            let _ = mailbox.send(mail);
        }
    }
}
