//! A crowd of real WebRTC viewers on few threads, against any WHEP server.
//!
//! ```text
//!  join (tokio: WHEP POST, paced) ──▶ worker (plain thread: epoll, UDP GRO)
//!                                       └─ viewer × n  (sans-IO)
//!                                            ├─ ice, secure: a connected, keyed path
//!                                            ├─ stream: reception, frames
//!                                            └─ measure: latencies   ──▶ report
//! ```
//!
//! A viewer costs a socket and some KiB; a packet costs a look at its header, so that
//! one core here drives more viewers than one core of a server can serve.

pub mod answer;
pub mod frames;
pub mod header;
pub mod hostile;
pub mod ice;
pub mod join;
pub mod keyframe;
pub mod live;
pub mod measure;
pub mod offer;
pub mod process;
pub mod reception;
pub mod report;
pub mod rtcp;
pub mod secure;
pub mod stream;
pub mod thresholds;
pub mod viewer;
pub mod worker;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use self::join::{JoinError, Joiner, Seat};
use self::live::{Counts, Live};
use self::measure::Latencies;
use self::process::Usage;
use self::report::{CpuReport, CrowdReport, Summing, WindowReport};
use self::secure::Identity;
use self::viewer::{CONNECT_LIMIT, Estimate};
use self::worker::{Seen, Worker};
use crate::impair::Impairment;
use crate::peer::{PeerError, local_address};
use crate::whip::{self, Session};

/// Exchanges with the server at once; more joins wait, and their wait counts.
const EXCHANGES: usize = 256;
/// After the end, how long open holes may still be filled.
const GRACE: Duration = Duration::from_millis(500);
/// How often it is looked whether all have connected.
const LOOK: Duration = Duration::from_millis(10);
/// Files besides the viewers' sockets: connections of HTTP, epolls, and what is open anyway.
const OTHER_FILES: u64 = 2 * EXCHANGES as u64 + 64;

/// Viewers that join together.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// Name in the report.
    pub name: String,
    /// How many.
    pub viewers: usize,
    /// Joins per second.
    pub join_rate: f64,
    /// Their last mile.
    pub impairment: Impairment,
    /// After the last has connected, how long to wait before the next group.
    pub settle: Duration,
}

impl Group {
    /// A group on a perfect last mile that joins at 100 a second.
    pub fn new(name: impl Into<String>, viewers: usize) -> Self {
        let (impairment, settle) = (Impairment::default(), Duration::ZERO);
        Self { name: name.into(), viewers, join_rate: 100.0, impairment, settle }
    }
}

/// What the crowd does.
#[derive(Clone, Debug)]
pub struct CrowdConfig {
    /// WHEP endpoints; viewers take them in turn.
    pub urls: Vec<String>,
    /// Bearer token.
    pub token: Option<String>,
    /// Groups, in the order of their joining.
    pub groups: Vec<Group>,
    /// How long to watch once all have joined.
    pub duration: Duration,
    /// Threads for media.
    pub threads: usize,
    /// What viewers say they can take.
    pub estimate: Estimate,
    /// Share of viewers that open every packet; one per group and thread at least,
    /// unless it is zero.
    pub verify: f64,
    /// Seed of the impaired last miles.
    pub seed: u64,
    /// Whether to ask for sound.
    pub audio: bool,
    /// How long a join is tried again that the server refuses for now.
    pub join_patience: Duration,
    /// Process of the server, to read its CPU time.
    pub server_pid: Option<u32>,
    /// Where media goes instead of to the server's candidates: a proxy before it.
    pub via: Option<SocketAddr>,
}

impl CrowdConfig {
    /// One group of `viewers` at one endpoint for ten seconds.
    pub fn new(url: impl Into<String>, viewers: usize) -> Self {
        Self {
            urls: vec![url.into()],
            token: None,
            groups: vec![Group::new("viewers", viewers)],
            duration: Duration::from_secs(10),
            threads: 1,
            estimate: Estimate::Measured,
            verify: 0.01,
            seed: 1,
            audio: true,
            join_patience: Duration::from_secs(15),
            server_pid: None,
            via: None,
        }
    }

    fn viewers(&self) -> usize {
        self.groups.iter().map(|group| group.viewers).sum()
    }
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum CrowdError {
    /// The server's address.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// Nobody could join; the first reason.
    #[error("no viewer could join: {0}")]
    Join(#[from] JoinError),
    /// All joined, and no media connected; the most frequent reason.
    #[error("no viewer's media connected: {0}")]
    NoMedia(String),
    /// The system's limit of open files.
    #[error("{needed} open files are needed and {limit} allowed; raise the limit (ulimit -n)")]
    OpenFiles {
        /// What the crowd needs.
        needed: u64,
        /// What the system allows.
        limit: u64,
    },
    /// The process named by `server_pid`.
    #[error("process {pid}: {source}")]
    Process {
        /// Its id.
        pid: u32,
        /// What the system said.
        source: io::Error,
    },
    /// Threads or epolls.
    #[error("media threads: {0}")]
    Threads(#[from] io::Error),
    /// Cryptography.
    #[error("no certificate: {0}")]
    Certificate(String),
}

/// Runs a crowd until its time is over or `stop` resolves, and reports.
///
/// # Errors
/// [`CrowdError`] when there is nothing to report.
pub async fn run(
    config: CrowdConfig,
    live: Arc<Live>,
    stop: impl Future<Output = ()>,
) -> Result<CrowdReport, CrowdError> {
    let needed = config.viewers() as u64 + OTHER_FILES;
    let limit = process::raise_open_files();
    if limit < needed {
        return Err(CrowdError::OpenFiles { needed, limit });
    }
    if let Some(pid) = config.server_pid {
        process::usage(pid).map_err(|source| CrowdError::Process { pid, source })?;
    }
    let mut crowd = Crowd::start(config, live).await?;
    let mut stop = std::pin::pin!(stop);
    let stopped = crowd.join_all(stop.as_mut()).await?;
    let window = crowd.watch(stopped, stop.as_mut()).await;
    crowd.finish(window).await
}

struct Crowd {
    config: CrowdConfig,
    live: Arc<Live>,
    joiner: Arc<Joiner>,
    workers: Vec<Worker>,
    sessions: Vec<Session>,
    /// Group and reason.
    refused: Vec<(usize, JoinError)>,
}

impl Crowd {
    async fn start(config: CrowdConfig, live: Arc<Live>) -> Result<Self, CrowdError> {
        let identity = Identity::generate().map_err(CrowdError::Certificate)?;
        let mut endpoints = Vec::new();
        for url in &config.urls {
            endpoints.push((url.clone(), local_address(url).await?));
        }
        let first = config.urls.first().map_or("", String::as_str);
        let client = whip::client(first).map_err(PeerError::from)?;
        let mut workers = Vec::new();
        for index in 0..config.threads.max(1) {
            let (identity, live) = (Arc::clone(&identity), Arc::clone(&live));
            workers.push(Worker::start(index, identity, config.groups.len(), live)?);
        }
        let joiner = Joiner {
            client,
            identity,
            token: config.token.clone(),
            endpoints,
            audio: config.audio,
            estimate: config.estimate,
            patience: config.join_patience,
            seed: config.seed,
            via: config.via,
        };
        Ok(Self {
            config,
            live,
            joiner: Arc::new(joiner),
            workers,
            sessions: Vec::new(),
            refused: Vec::new(),
        })
    }

    /// Lets the groups join one after the other; `true` when told to stop meanwhile.
    async fn join_all<S: Future<Output = ()>>(
        &mut self,
        mut stop: Pin<&mut S>,
    ) -> Result<bool, CrowdError> {
        let mut first = 0;
        for (number, group) in self.config.groups.clone().into_iter().enumerate() {
            let joined = self.join_group(number, &group, first);
            tokio::select! {
                () = joined => {}
                () = stop.as_mut() => return Ok(true),
            }
            first += group.viewers;
            if self.sessions.is_empty()
                && let Some((_, error)) = self.refused.drain(..).next()
            {
                return Err(error.into());
            }
            tokio::select! {
                () = tokio::time::sleep(group.settle) => {}
                () = stop.as_mut() => return Ok(true),
            }
        }
        Ok(false)
    }

    async fn join_group(&mut self, number: usize, group: &Group, first: usize) {
        let exchanges = Arc::new(Semaphore::new(EXCHANGES));
        let (start, mut joins) = (Instant::now(), JoinSet::new());
        for offset in 0..group.viewers {
            let due = start + Duration::from_secs_f64(offset as f64 / group.join_rate.max(0.1));
            let index = first + offset;
            let verify = self.verifies(offset);
            let seat = Seat { index, group: number, verify, due, impairment: group.impairment };
            let (joiner, exchanges) = (Arc::clone(&self.joiner), Arc::clone(&exchanges));
            let inbox = self.workers[index % self.workers.len()].inbox();
            let live = Arc::clone(&self.live);
            joins.spawn(async move {
                tokio::time::sleep_until(due.into()).await;
                // Never closed: a permit always comes.
                let _permit = exchanges.acquire().await;
                match joiner.join(seat).await {
                    Ok((joined, session)) => {
                        live.joined();
                        inbox.add(joined);
                        Ok(session)
                    }
                    Err(error) => {
                        live.refused();
                        Err(error)
                    }
                }
            });
        }
        while let Some(joined) = joins.join_next().await {
            match joined {
                Ok(Ok(session)) => self.sessions.push(session),
                Ok(Err(error)) => self.refused.push((number, error)),
                Err(error) => tracing::error!(%error, "a join panicked"),
            }
        }
        self.all_connected().await;
    }

    /// Whether the viewer at `offset` of its group opens every packet: the first of the
    /// group on each thread, and then every n-th.
    fn verifies(&self, offset: usize) -> bool {
        let share = self.config.verify.clamp(0.0, 1.0);
        let before = (offset as f64 * share).floor();
        share > 0.0
            && (offset < self.workers.len() || ((offset + 1) as f64 * share).floor() > before)
    }

    /// Waits until every viewer that joined is connected, or has given up.
    async fn all_connected(&self) {
        let deadline = Instant::now() + CONNECT_LIMIT + LOOK;
        let mut looks = tokio::time::interval(LOOK);
        loop {
            looks.tick().await;
            let Counts { joined, connected, ended, .. } = self.live.counts();
            if connected + ended >= joined || Instant::now() >= deadline {
                return;
            }
        }
    }

    /// Watches for the configured time and measures what it cost.
    async fn watch<S: Future<Output = ()>>(
        &self,
        stopped: bool,
        mut stop: Pin<&mut S>,
    ) -> WindowReport {
        let usage = |pid: Option<u32>| pid.and_then(|pid| process::usage(pid).ok());
        let pids = [self.config.server_pid, Some(std::process::id())];
        let (begun, before) = (Instant::now(), self.live.counts());
        let at_begin = pids.map(usage);
        if !stopped {
            tokio::select! {
                () = tokio::time::sleep(self.config.duration) => {}
                () = stop.as_mut() => {}
            }
        }
        let seconds = begun.elapsed().as_secs_f64();
        let (at_end, after) = (pids.map(usage), self.live.counts());
        let (packets, bytes) = (after.packets - before.packets, after.bytes - before.bytes);
        let cost =
            |which: usize| Some(cost(at_begin[which]?, at_end[which]?, seconds, packets, bytes));
        WindowReport {
            seconds,
            packets,
            bytes,
            mbit_per_second: bytes as f64 * 8.0 / 1e6 / seconds.max(1e-3),
            server: cost(0),
            client: cost(1),
        }
    }

    async fn finish(self, window: WindowReport) -> Result<CrowdReport, CrowdError> {
        self.workers.iter().for_each(Worker::freeze);
        tokio::time::sleep(GRACE).await;
        let workers = self.workers;
        let seen = tokio::task::spawn_blocking(|| {
            workers.into_iter().map(Worker::finish).collect::<io::Result<Vec<Seen>>>()
        });
        let seen = seen.await.map_err(io::Error::other)??;
        delete_all(self.sessions).await;
        let report = summarise(&self.config, window, seen, &self.refused);
        match report.total.failures.iter().max_by_key(|(_, count)| **count) {
            Some((reason, _)) if report.total.connected == 0 => {
                Err(CrowdError::NoMedia(reason.clone()))
            }
            _ => Ok(report),
        }
    }
}

fn cost(before: Usage, after: Usage, seconds: f64, packets: u64, bytes: u64) -> CpuReport {
    let cpu = after.cpu.saturating_sub(before.cpu).as_secs_f64();
    CpuReport {
        cpu_seconds: cpu,
        cores: cpu / seconds.max(1e-3),
        seconds_per_gbit: cpu / (bytes as f64 * 8.0 / 1e9).max(1e-9),
        nanos_per_packet: cpu * 1e9 / (packets as f64).max(1.0),
        rss_bytes: after.rss,
    }
}

pub(crate) async fn delete_all(sessions: Vec<Session>) {
    let exchanges = Arc::new(Semaphore::new(EXCHANGES));
    let mut deletes = JoinSet::new();
    for session in sessions {
        let exchanges = Arc::clone(&exchanges);
        deletes.spawn(async move {
            let _permit = exchanges.acquire().await;
            session.delete().await;
        });
    }
    while deletes.join_next().await.is_some() {}
}

fn summarise(
    config: &CrowdConfig,
    window: WindowReport,
    seen: Vec<Seen>,
    refused: &[(usize, JoinError)],
) -> CrowdReport {
    let mut viewers: Vec<_> = seen.iter().flat_map(|seen| seen.viewers.clone()).collect();
    viewers.sort_by_key(|viewer| viewer.index);
    let mut total = Summing::new("all", config.viewers());
    let mut all_latencies = Latencies::default();
    let mut groups = Vec::new();
    for (number, group) in config.groups.iter().enumerate() {
        let mut sum = Summing::new(&group.name, group.viewers);
        for viewer in viewers.iter().filter(|viewer| viewer.group == number) {
            sum.add(viewer);
            total.add(viewer);
        }
        for (_, error) in refused.iter().filter(|(group, _)| *group == number) {
            sum.refuse(&error.to_string());
            total.refuse(&error.to_string());
        }
        let mut latencies = Latencies::default();
        seen.iter().for_each(|seen| latencies.merge(&seen.latencies[number]));
        all_latencies.merge(&latencies);
        groups.push(sum.finish(&latencies));
    }
    if groups.len() < 2 {
        groups.clear();
    }
    CrowdReport { total: total.finish(&all_latencies), groups, window, viewers }
}
