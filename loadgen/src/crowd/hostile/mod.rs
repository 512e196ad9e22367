//! Hostile viewers: they connect as everybody does, and then do what a server must
//! bear without its other viewers noticing. For servers of one's own.
//!
//! Each kind is run by itself: good viewers join (when there are to be any), the hostile
//! ones connect and are quiet for a while, and then attack. What the server's CPU does
//! more in the attack than in the quiet, per hostile packet, is the price of one.

mod engine;
mod forge;
mod report;
mod source;

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use report::{Cost, HostileReport, KindReport, Tally};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use self::engine::Engine;
use super::join::{JoinError, Joiner, Seat};
use super::live::{Counts, Live};
use super::process::{self, Usage};
use super::report::{CrowdReport, GroupReport};
use super::secure::Identity;
use super::viewer::Estimate;
use super::{CrowdConfig, CrowdError, Group, delete_all};
use crate::impair::Impairment;
use crate::peer::{PeerError, local_address};
use crate::whip::{self, Session};

/// How long good and hostile viewers may take to connect.
const CONNECT_LIMIT: Duration = Duration::from_secs(60);
/// How long a refused join is tried again.
const PATIENCE: Duration = Duration::from_secs(10);
/// Good viewers that join per second.
const JOIN_RATE: f64 = 200.0;

/// A way to misbehave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// NACKs for all sequence numbers, as large as a datagram allows.
    NackStorm,
    /// Reports and estimates with absurd values.
    ForgedFeedback,
    /// Requests for keyframes and full reports without end.
    FeedbackFlood,
    /// Own and received packets again and again.
    Replay,
    /// A new local port all the time, proven and nominated.
    AddressHop,
    /// Binding requests that prove nothing, from many addresses.
    StunFlood,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 6] = [
        Self::NackStorm,
        Self::ForgedFeedback,
        Self::FeedbackFlood,
        Self::Replay,
        Self::AddressHop,
        Self::StunFlood,
    ];

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NackStorm => "nack-storm",
            Self::ForgedFeedback => "forged-feedback",
            Self::FeedbackFlood => "feedback-flood",
            Self::Replay => "replay",
            Self::AddressHop => "address-hop",
            Self::StunFlood => "stun-flood",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is run.
#[derive(Clone, Debug)]
pub struct HostileConfig {
    /// WHEP endpoint.
    pub url: String,
    /// Bearer token.
    pub token: Option<String>,
    /// What is done, one after the other.
    pub kinds: Vec<Kind>,
    /// Hostile viewers at once.
    pub sources: usize,
    /// Packets a second that each sends.
    pub rate: f64,
    /// Between two changes of address.
    pub hop_every: Duration,
    /// How long the quiet before each attack is.
    pub quiet: Duration,
    /// How long each attack is.
    pub duration: Duration,
    /// Good viewers beside them. With any, a run without an attack comes first.
    pub beside: usize,
    /// Share of the good viewers that open every packet.
    pub verify: f64,
    /// Process of the server, to read its CPU time.
    pub server_pid: Option<u32>,
    /// Seed of forged values.
    pub seed: u64,
    /// The server may have a public address.
    pub anywhere: bool,
}

impl HostileConfig {
    /// One source of each of `kinds` at 5000 packets a second for five seconds.
    pub fn new(url: impl Into<String>, kinds: Vec<Kind>) -> Self {
        Self {
            url: url.into(),
            token: None,
            kinds,
            sources: 1,
            rate: 5_000.0,
            hop_every: Duration::from_secs(1),
            quiet: Duration::from_secs(2),
            duration: Duration::from_secs(5),
            beside: 0,
            verify: 0.01,
            server_pid: None,
            seed: 1,
            anywhere: false,
        }
    }
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum HostileError {
    /// A server that need not be one's own.
    #[error("{0} is not a private address: attack only servers of your own")]
    NotPrivate(IpAddr),
    /// The server's address.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// A hostile viewer could not join.
    #[error("a hostile viewer could not join: {0}")]
    Join(#[from] JoinError),
    /// Joined, and no media came.
    #[error("only {ready} of {sources} hostile viewers were sent media")]
    NoMedia {
        /// Those that were.
        ready: usize,
        /// All of them.
        sources: usize,
    },
    /// The good viewers.
    #[error("the viewers beside: {0}")]
    Beside(#[from] CrowdError),
    /// Sockets, threads, or the server's process.
    #[error(transparent)]
    System(#[from] io::Error),
    /// Cryptography.
    #[error("no certificate: {0}")]
    Certificate(String),
}

/// Runs the attacks, until all were run or `stop` resolves.
///
/// # Errors
/// [`HostileError`].
pub async fn run(
    config: HostileConfig,
    stop: impl Future<Output = ()>,
) -> Result<HostileReport, HostileError> {
    process::raise_open_files();
    if let Some(pid) = config.server_pid {
        process::usage(pid)?;
    }
    let local = local_address(&config.url).await?;
    if !config.anywhere {
        check_private(&config.url).await?;
    }
    let mut report = HostileReport::default();
    let mut stop = std::pin::pin!(stop);
    let calm = (config.beside > 0).then_some(None);
    for kind in calm.into_iter().chain(config.kinds.iter().copied().map(Some)) {
        let attack = Attack { config: &config, local, kind };
        tokio::select! {
            done = attack.run() => report.kinds.push(done?),
            () = stop.as_mut() => break,
        }
    }
    Ok(report)
}

/// Refuses a server at an address that the public can reach.
async fn check_private(url: &str) -> Result<(), HostileError> {
    let url = whip::parse(url).map_err(PeerError::from)?;
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let port = url.port_or_known_default().unwrap_or(80);
    let addresses = tokio::net::lookup_host((host, port)).await?;
    addresses.map(|address| address.ip()).try_for_each(private)
}

fn private(ip: IpAddr) -> Result<(), HostileError> {
    let is_private = match ip.to_canonical() {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
    };
    if is_private { Ok(()) } else { Err(HostileError::NotPrivate(ip)) }
}

/// One kind of attack, or the run without one.
struct Attack<'a> {
    config: &'a HostileConfig,
    local: IpAddr,
    kind: Option<Kind>,
}

impl Attack<'_> {
    async fn run(&self) -> Result<KindReport, HostileError> {
        let config = self.config;
        let beside = match config.beside {
            0 => None,
            count => Some(Beside::join(config, count).await?),
        };
        let (engine, sessions) = match self.kind {
            Some(kind) => {
                let (engine, sessions) = self.connect(kind).await?;
                (Some(engine), sessions)
            }
            None => (None, Vec::new()),
        };
        let (quiet_from, before) = (Instant::now(), self.usage());
        tokio::time::sleep(config.quiet).await;
        let (attack_from, between) = (Instant::now(), self.usage());
        if let Some(engine) = &engine {
            engine.attack();
        }
        tokio::time::sleep(config.duration).await;
        let (seconds, after) = (attack_from.elapsed().as_secs_f64(), self.usage());
        let done = match engine {
            Some(engine) => Some(engine.finish().await?),
            None => None,
        };
        let beside = match beside {
            Some(beside) => Some(beside.finish().await?),
            None => None,
        };
        delete_all(sessions).await;
        let tally = done.as_ref().map(|done| done.tally).unwrap_or_default();
        let quiet = attack_from.duration_since(quiet_from).as_secs_f64();
        let server = before.zip(between).zip(after).map(|((before, between), after)| {
            cost([before, between, after], quiet, seconds, tally.packets)
        });
        Ok(KindReport {
            kind: self.kind.map_or("none", Kind::as_str),
            sources: self.kind.map_or(0, |_| config.sources),
            ended: done.map_or(0, |done| done.ended),
            seconds,
            tally,
            server,
            beside,
        })
    }

    /// CPU time, memory and open files of the server.
    fn usage(&self) -> Option<(Usage, u64)> {
        let pid = self.config.server_pid?;
        let files = std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
        Some((process::usage(pid).ok()?, files as u64))
    }

    /// Lets the hostile viewers join, and waits until they are sent media.
    async fn connect(&self, kind: Kind) -> Result<(Engine, Vec<Session>), HostileError> {
        let config = self.config;
        let identity = Identity::generate().map_err(HostileError::Certificate)?;
        let joiner = Joiner {
            client: whip::client(&config.url).map_err(PeerError::from)?,
            identity: Arc::clone(&identity),
            token: config.token.clone(),
            endpoints: vec![(config.url.clone(), self.local)],
            audio: true,
            estimate: Estimate::Silent,
            patience: PATIENCE,
            seed: config.seed,
            via: None,
        };
        let (mut joined, mut sessions) = (Vec::new(), Vec::new());
        for index in 0..config.sources {
            let (due, impairment) = (Instant::now(), Impairment::default());
            let seat = Seat { index, group: 0, verify: false, due, impairment };
            let (viewer, session) = joiner.join(seat).await?;
            sessions.push(session);
            if !config.anywhere {
                let ips = viewer.setup.answer.candidates.iter().map(SocketAddr::ip);
                ips.into_iter().try_for_each(private)?;
            }
            joined.push((viewer.setup, viewer.socket));
        }
        let how = (config.rate, config.hop_every, config.seed);
        let engine = Engine::start(kind, joined, &identity, how)?;
        let ready = engine.ready(CONNECT_LIMIT).await;
        if ready < config.sources {
            engine.finish().await?;
            delete_all(sessions).await;
            return Err(HostileError::NoMedia { ready, sources: config.sources });
        }
        Ok((engine, sessions))
    }
}

fn cost(usage: [(Usage, u64); 3], quiet: f64, seconds: f64, packets: u64) -> Cost {
    let [(before, files_before), (between, _), (after, files)] = usage;
    let cores = |from: Usage, to: Usage, seconds: f64| {
        to.cpu.saturating_sub(from.cpu).as_secs_f64() / seconds.max(1e-3)
    };
    let (cores_before, cores) = (cores(before, between, quiet), cores(between, after, seconds));
    let extra = (cores - cores_before) * seconds * 1e9;
    let nanos_per_packet = if packets > 0 { extra / packets as f64 } else { 0.0 };
    let (rss_before, rss) = (between.rss, after.rss);
    Cost { cores_before, cores, nanos_per_packet, rss_before, rss, files_before, files }
}

/// The good viewers.
struct Beside {
    stop: oneshot::Sender<()>,
    crowd: JoinHandle<Result<CrowdReport, CrowdError>>,
}

impl Beside {
    /// Lets `count` viewers join, and waits until they have seen a picture.
    async fn join(config: &HostileConfig, count: usize) -> Result<Self, HostileError> {
        let mut crowd = CrowdConfig::new(config.url.clone(), count);
        crowd.groups = vec![Group { join_rate: JOIN_RATE, ..Group::new("beside", count) }];
        crowd.token.clone_from(&config.token);
        crowd.verify = config.verify;
        // Until told to stop.
        crowd.duration = Duration::from_secs(24 * 3600);
        let live = Arc::<Live>::default();
        let (stop, stopped) = oneshot::channel::<()>();
        let told: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(async {
            let _ = stopped.await;
        });
        let crowd = tokio::spawn(super::run(crowd, Arc::clone(&live), told));
        let deadline = Instant::now() + CONNECT_LIMIT;
        while !crowd.is_finished() && Instant::now() < deadline {
            let Counts { first_frames, refused, ended, .. } = live.counts();
            if first_frames + refused + ended >= count as u64 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(Self { stop, crowd })
    }

    async fn finish(self) -> Result<GroupReport, HostileError> {
        // A crowd that is over already does not hear it.
        let _ = self.stop.send(());
        let report = self.crowd.await.map_err(io::Error::other)??;
        Ok(report.total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn public_addresses_are_refused() {
        for url in ["http://192.0.2.1/whep/a", "http://[2001:db8::1]:80/whep/a", "http://8.8.8.8/"]
        {
            assert!(matches!(check_private(url).await, Err(HostileError::NotPrivate(_))), "{url}");
        }
        for url in
            ["http://127.0.0.1/whep/a", "http://[::1]/", "http://10.1.2.3/", "http://[fd00::1]/"]
        {
            assert!(check_private(url).await.is_ok(), "{url}");
        }
        assert!(private("::ffff:8.8.8.8".parse().unwrap()).is_err());
    }

    #[test]
    fn the_price_of_a_packet_is_what_the_attack_adds() {
        let usage = |millis, rss| (Usage { cpu: Duration::from_millis(millis), rss }, 10);
        let cost = cost([usage(0, 1), usage(200, 2), usage(1200, 3)], 2.0, 5.0, 50_000);
        assert!((cost.cores_before - 0.1).abs() < 1e-9 && (cost.cores - 0.2).abs() < 1e-9);
        assert!((cost.nanos_per_packet - 10_000.0).abs() < 1e-6, "{cost:?}");
        assert_eq!((cost.rss_before, cost.rss), (2, 3));
    }
}
