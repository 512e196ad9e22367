//! The gateway without sockets and threads: worker cores, the pool's directory and
//! the hub, and sessions made of offers as the WHIP and WHEP routes make them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use crate::hub::{PublishError, PublishRequest, Registry, Stream, TableName};
use crate::ingest::whip::ReceiverSettings;
use crate::net::udp::{DatagramSink, Traffic, UdpSettings};
use crate::qos::Metrics;
use crate::route::Route;
use crate::rtp::extensions::PlayoutDelay;
use crate::time::{Clock, Utc};
use crate::webrtc::dtls::DtlsIdentity;
use crate::webrtc::ice_lite::IceCredentials;
use crate::webrtc::sdp::{LocalIdentity, Offer, PublisherRules, answer_publisher, answer_viewer};
use crate::webrtc::transport::{RemoteDtls, TransportTimeouts};
use crate::worker::SessionKind;
use crate::worker::core::Core;
use crate::worker::directory::{Directory, SessionLimits};
use crate::worker::mailbox::mailbox;
use crate::worker::pool::{MediaPool, PoolSettings, Shared};
use crate::worker::{HeadroomLimits, NewRole, NewSession, OwnerWaker, SessionId, WorkerTotals};

pub(super) const CONSENT: Duration = Duration::from_secs(8);
pub(super) const INGEST_TIMEOUT: Duration = Duration::from_secs(5);

/// The media port.
pub(super) fn media_address() -> SocketAddr {
    "192.0.2.1:8443".parse().unwrap()
}

/// Keeps what is sent.
#[derive(Default)]
pub(super) struct Outbox(pub(super) Vec<(SocketAddr, Vec<u8>)>);

impl DatagramSink for Outbox {
    fn push(
        &mut self,
        to: Route,
        _traffic: Traffic,
        write: impl FnOnce(&mut [u8]) -> Option<usize>,
    ) {
        let mut buffer = [0; 2048];
        if let Some(len) = write(&mut buffer) {
            self.0.push((to.peer, buffer[..len].to_vec()));
        }
    }
}

pub(super) struct Gateway {
    pub(super) cores: Vec<Core<Outbox>>,
    pub(super) pool: MediaPool,
    pub(super) shared: Arc<Shared>,
    pub(super) registry: Arc<Registry>,
    /// Their wakers belong to them.
    _polls: Vec<mio::Poll>,
}

/// What a client is told of its session.
pub(super) struct Created {
    pub(super) id: SessionId,
    pub(super) answer: String,
}

impl Gateway {
    pub(super) fn new(workers: usize, now: Instant) -> Self {
        let mut polls = Vec::new();
        let (mut mailboxes, mut inboxes) = (Vec::new(), Vec::new());
        for _ in 0..workers {
            let poll = mio::Poll::new().unwrap();
            let waker = mio::Waker::new(poll.registry(), mio::Token(1)).unwrap();
            let (mailbox, inbox) = mailbox(waker);
            mailboxes.push(mailbox);
            inboxes.push(inbox);
            polls.push(poll);
        }
        let settings = settings(workers);
        let shared = Arc::new(Shared {
            directory: Directory::new(settings.limits, workers),
            stats: (0..workers).map(|_| Arc::default()).collect(),
            settings,
            identity: DtlsIdentity::generate().unwrap(),
            mailboxes,
            clock: Clock::fixed(now, Utc::from_micros(1_700_000_000_000_000)),
            metrics: Metrics::new(),
        });
        let core = |(index, inbox)| Core::new(index, inbox, shared.clone(), Outbox::default());
        Self {
            cores: inboxes.into_iter().enumerate().map(core).collect(),
            pool: MediaPool::without_threads(shared.clone(), media_address().port()),
            shared,
            registry: Registry::new(16),
            _polls: polls,
        }
    }

    fn local(&self, id: SessionId) -> LocalIdentity {
        LocalIdentity {
            ice: IceCredentials::from_random(rand::random()),
            fingerprint: *self.pool.identity().fingerprint(),
            candidates: self.pool.candidates(),
            session_id: rand::random::<u64>() >> 1,
            cname: id.to_string(),
        }
    }

    /// As `POST /whip/{table}`.
    pub(super) fn publish(
        &self,
        now: Instant,
        table: &TableName,
        offer: &str,
    ) -> Result<Created, PublishError> {
        let offer = Offer::parse(offer).unwrap();
        let id = SessionId::from_random(rand::random());
        let local = self.local(id);
        let answer = answer_publisher(&offer, &local, &PublisherRules::default()).unwrap();
        let owner = Arc::new(OwnerWaker::default());
        let publisher = self.registry.publish(PublishRequest {
            table: table.clone(),
            tracks: answer.tracks.iter().map(|track| track.info.clone()).collect(),
            credentials: None,
            now: self.shared.clock.utc(now),
            waker: Waker::from(owner.clone()),
        })?;
        let role = NewRole::Publisher { publisher, tracks: answer.tracks, owner };
        self.admit(now, table, id, &local, &offer, answer.dtls_role, role);
        Ok(Created { id, answer: answer.sdp })
    }

    /// As `POST /whep/{table}`; `None` when the table is not live.
    pub(super) fn watch(&self, now: Instant, table: &TableName, offer: &str) -> Option<Created> {
        let stream = self.registry.get(table).filter(|stream| stream.is_live())?;
        let offer = Offer::parse(offer).unwrap();
        let id = SessionId::from_random(rand::random());
        let local = self.local(id);
        let answer = answer_viewer(&offer, &local, &stream.tracks, &mut rand::random).unwrap();
        let role = NewRole::Viewer { stream, tracks: answer.tracks };
        self.admit(now, table, id, &local, &offer, answer.dtls_role, role);
        Some(Created { id, answer: answer.sdp })
    }

    #[allow(clippy::too_many_arguments, reason = "the fields of a session")]
    fn admit(
        &self,
        now: Instant,
        table: &TableName,
        id: SessionId,
        local: &LocalIdentity,
        offer: &Offer,
        our_role: crate::webrtc::dtls::DtlsRole,
        role: NewRole,
    ) {
        let session = NewSession {
            id,
            table: table.clone(),
            credentials: local.ice.clone(),
            remote_ufrag: offer.ice.ufrag.clone(),
            remote_dtls: RemoteDtls { fingerprint: offer.fingerprint, our_role },
            created: now,
            role,
        };
        assert!(self.pool.admit(session).is_ok());
    }

    /// As a PATCH with new credentials of the peer; returns ours.
    pub(super) fn restart_ice(&self, id: SessionId, remote_ufrag: &str) -> IceCredentials {
        let local = IceCredentials::from_random(rand::random());
        self.pool.restart_ice(id, local.clone(), remote_ufrag);
        local
    }

    pub(super) fn stream(&self, table: &TableName) -> Arc<Stream> {
        self.registry.get(table).expect("the table is published")
    }

    pub(super) fn totals(&self) -> WorkerTotals {
        self.pool.totals()
    }

    pub(super) fn rejected(&self, reason: &str) -> u64 {
        let totals = self.totals();
        let found = totals.rejected.iter().find(|(name, _)| *name == reason);
        found.unwrap_or_else(|| panic!("{reason} is no reason")).1
    }

    /// Panics unless no trace of any session is left.
    pub(super) fn assert_empty(&self) {
        assert_eq!(self.pool.count(SessionKind::Viewer), 0, "viewers in the directory");
        assert_eq!(self.pool.count(SessionKind::Publisher), 0, "publishers in the directory");
        assert_eq!(self.shared.directory.sizes(), [0; 4], "directory");
        assert!(self.registry.list().is_empty(), "streams in the registry");
        for core in &self.cores {
            assert_eq!(core.sizes(), [0; 5], "core");
        }
    }
}

fn settings(workers: usize) -> PoolSettings {
    PoolSettings {
        workers,
        udp: UdpSettings { port: media_address().port(), ..UdpSettings::default() },
        addresses: vec![media_address().ip()],
        limits: SessionLimits { viewers: 1000, publishers: 16 },
        // Judged only by tests that call `measure`.
        headroom: HeadroomLimits { worker_load: 0.85, egress_bps: 0 },
        timeouts: TransportTimeouts { connect: Duration::from_secs(10), consent: CONSENT },
        ingest_timeout: INGEST_TIMEOUT,
        receiver: ReceiverSettings::default(),
        playout_delay: PlayoutDelay::from_millis(0, 200),
    }
}
