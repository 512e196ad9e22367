//! A crowd of LL-HLS clients for any LL-HLS origin.
//!
//! [`playlist`] and [`multivariant`] read hostile text, [`timeline`] checks how playlists
//! continue each other and says what to fetch next, [`playhead`] plays on the clock; all
//! of them are pure. [`client`] is the I/O around them, one task per client, on
//! [`http`] connections of its own ([`wire`] reads their answers); [`tally`] counts and [`report`] sums up.
//! Source: draft-pantos-hls-rfc8216bis.
#![allow(clippy::disallowed_methods, reason = "the I/O shell: a run lasts its time")]

mod attributes;
pub mod client;
mod date;
pub mod http;
pub mod multivariant;
pub mod playhead;
pub mod playlist;
pub mod report;
mod socket;
pub mod tally;
pub mod timeline;
mod tls;
mod wire;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::Url;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::crowd::process::{self, Usage};
use client::{Client, Options, Seen};
use http::{Failure, Network};
use report::{HlsReport, Usages, Window};
use tally::Tally;

/// Open files besides the clients' connections.
const OTHER_FILES: u64 = 64;
/// Between two looks at the counters while clients join.
const LOOK: Duration = Duration::from_millis(50);

/// A run.
#[derive(Clone, Debug)]
pub struct HlsConfig {
    /// Multivariant playlists, taken in turn.
    pub urls: Vec<String>,
    /// Bearer token.
    pub token: Option<String>,
    /// Clients.
    pub clients: usize,
    /// Clients that join per second.
    pub join_rate: f64,
    /// How long to watch once all have joined.
    pub duration: Duration,
    /// What each client does.
    pub options: Options,
    /// Take any certificate.
    pub insecure: bool,
    /// Process of the server, on this machine.
    pub server_pid: Option<u32>,
    /// How long to look at it before the first client joins: what it uses for nobody
    /// (its publishers, its packager) is taken off what the clients cost it.
    pub baseline: Duration,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum HlsError {
    /// The server's address.
    #[error("not a usable URL: {0}")]
    Url(String),
    /// The system's limit of open files.
    #[error("{needed} open files are needed and {limit} allowed; raise the limit (ulimit -n)")]
    OpenFiles {
        /// What the clients need.
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
    /// Certificates of the system.
    #[error("no TLS: {0}")]
    Tls(#[from] tokio_rustls::rustls::Error),
    /// Nobody got a media playlist; a reason.
    #[error("no client could start: {0}")]
    NoClient(Failure),
}

impl HlsError {
    /// The obvious next step, where there is one.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Url(_) => Some("use http://host:8080/hls/TABLE/index.m3u8"),
            Self::NoClient(Failure::Connect(_)) => Some("is the server running at that address?"),
            Self::NoClient(Failure::Tls(_)) => Some("--insecure takes any certificate"),
            Self::NoClient(Failure::Status(401 | 403, _)) => {
                Some("pass the table's key with --token")
            }
            Self::NoClient(Failure::Status(404, _)) => Some("is somebody publishing this table?"),
            _ => None,
        }
    }
}

impl HlsConfig {
    /// Connections that the clients hold at once.
    fn connections(&self) -> u64 {
        let renditions = if self.options.audio { 2 } else { 1 };
        let kinds = if self.options.media { 2 } else { 1 };
        self.clients as u64 * renditions * kinds
    }

    fn parsed_urls(&self) -> Result<Vec<Url>, HlsError> {
        let parse = |text: &String| match Url::parse(text) {
            Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(url),
            _ => Err(HlsError::Url(text.clone())),
        };
        let urls = self.urls.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
        if urls.is_empty() { Err(HlsError::Url(String::new())) } else { Ok(urls) }
    }
}

/// Runs clients until their time is over or `stop` resolves, and reports. `tally` may
/// be looked at meanwhile.
///
/// # Errors
/// [`HlsError`] when there is nothing to report.
pub async fn run(
    config: HlsConfig,
    tally: Arc<Tally>,
    stop: impl Future<Output = ()>,
) -> Result<HlsReport, HlsError> {
    let urls = config.parsed_urls()?;
    let needed = config.connections() + OTHER_FILES;
    let limit = process::raise_open_files();
    if limit < needed {
        return Err(HlsError::OpenFiles { needed, limit });
    }
    if let Some(pid) = config.server_pid {
        process::usage(pid).map_err(|source| HlsError::Process { pid, source })?;
    }
    let network = Network::new(tls::connector(config.insecure)?, config.token.as_deref());
    let mut stop = std::pin::pin!(stop);
    let idle = baseline(&config, stop.as_mut()).await;
    let (over, told) = watch::channel(false);
    let mut clients = JoinSet::new();
    let begun = Instant::now();
    let network = Arc::new(network);
    for index in 0..config.clients {
        let due = begun + Duration::from_secs_f64(index as f64 / config.join_rate.max(0.1));
        let client = Client::new(Arc::clone(&network), Arc::clone(&tally), config.options, due);
        let url = urls[index % urls.len()].clone();
        clients.spawn(watch_until_told(client, url, due, told.clone(), Arc::clone(&tally)));
    }
    let stopped = all_joined(config.clients as u64, &tally, stop.as_mut()).await;
    let window = measure(&config, &tally, idle, stopped, stop).await;
    over.send_replace(true);
    let mut seen = Vec::with_capacity(config.clients);
    while let Some(ended) = clients.join_next().await {
        match ended {
            Ok(one) => seen.push(one),
            Err(error) => tracing::error!(%error, "a client panicked"),
        }
    }
    let report = HlsReport::new(config.clients, tally.account(), &seen, window);
    let failure = tally.first_failure().filter(|_| report.started == 0);
    failure.map_or(Ok(report), |failure| Err(HlsError::NoClient(failure)))
}

async fn watch_until_told(
    client: Client,
    url: Url,
    due: Instant,
    mut told: watch::Receiver<bool>,
    tally: Arc<Tally>,
) -> Seen {
    let watching = async {
        tokio::time::sleep_until(due.into()).await;
        match client.watch(&url).await {
            Ok(()) => Tally::one(&tally.count.ended),
            Err(failure) => tally.failure(&failure),
        }
        // What it saw is over: buffers do not run dry any more.
        client.seen(Instant::now())
    };
    tokio::select! {
        seen = watching => seen,
        _ = told.wait_for(|over| *over) => client.seen(Instant::now()),
    }
}

/// Waits until every client has a playlist, or has given up; `true` when told to stop.
async fn all_joined<S: Future<Output = ()>>(
    clients: u64,
    tally: &Tally,
    mut stop: Pin<&mut S>,
) -> bool {
    let mut looks = tokio::time::interval(LOOK);
    loop {
        tokio::select! {
            _ = looks.tick() => {}
            () = stop.as_mut() => return true,
        }
        let counts = tally.counts();
        if counts.started + counts.failed >= clients {
            return false;
        }
    }
}

/// Usage of the server, if it can be read, and of this process.
fn usages(server: Option<u32>) -> [Option<Usage>; 2] {
    [server, Some(std::process::id())].map(|pid| pid.and_then(|pid| process::usage(pid).ok()))
}

/// What a process uses without clients.
#[derive(Clone, Copy)]
struct Idle {
    cores: f64,
    usage: Usage,
}

/// Looks at the processes before the first client.
async fn baseline<S: Future<Output = ()>>(
    config: &HlsConfig,
    stop: Pin<&mut S>,
) -> [Option<Idle>; 2] {
    let (begun, before) = (Instant::now(), usages(config.server_pid));
    tokio::select! {
        () = tokio::time::sleep(config.baseline) => {}
        () = stop => {}
    }
    let after = usages(config.server_pid);
    let seconds = begun.elapsed().as_secs_f64();
    [0, 1].map(|which| {
        let (before, usage) = (before[which]?, after[which]?);
        let cpu = usage.cpu.saturating_sub(before.cpu).as_secs_f64();
        let cores = if config.baseline.is_zero() { 0.0 } else { cpu / seconds };
        Some(Idle { cores, usage })
    })
}

/// Watches for the configured time and measures what it cost.
async fn measure<S: Future<Output = ()>>(
    config: &HlsConfig,
    tally: &Tally,
    idle: [Option<Idle>; 2],
    stopped: bool,
    stop: Pin<&mut S>,
) -> Window {
    tally.restart();
    let (begun, before, begin) = (Instant::now(), tally.counts(), usages(config.server_pid));
    if !stopped {
        tokio::select! {
            () = tokio::time::sleep(config.duration) => {}
            () = stop => {}
        }
    }
    let (after, end) = (tally.counts(), usages(config.server_pid));
    let mut window = Window::between(begun.elapsed().as_secs_f64(), before, after);
    let cost = |which: usize| {
        let (idle, begin, end) = (idle[which]?, begin[which]?, end[which]?);
        let usages = Usages { idle: idle.usage, idle_cores: idle.cores, begin, end };
        Some(window.cost(&usages, after.started))
    };
    (window.server, window.client) = (cost(0), cost(1));
    window
}
