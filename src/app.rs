//! Builds the parts in the order of the data path, owns every task and thread, and
//! ends them within a bound.
#![allow(clippy::disallowed_methods, reason = "the outermost shell: it reads the clocks")]

mod media;

use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::api::health::{Health, Phase};
use crate::api::sessions::{self, MediaApi};
use crate::api::tables::Tables;
use crate::api::{admin, public};
use crate::config::{Config, Http};
use crate::hub::{Registry, TableName};
use crate::net::addresses::own_addresses;
use crate::net::tcp::{Limits, Server, listen};
use crate::net::tls::Certificate;
use crate::qos::{Metrics, Transport, names};
use crate::time::Clock;
use crate::worker::MediaPool;

/// How often the certificate's files are looked at.
const CERTIFICATE_CHECK: Duration = Duration::from_secs(5);

/// How often rates are sampled and overdue sessions swept.
const TICK: Duration = Duration::from_secs(1);

/// What a stop may take beyond the open requests' `http.shutdown_timeout`.
const STOP_MARGIN: Duration = Duration::from_secs(2);

/// Connections at once on the admin listener: a handful of scrapers and probes.
const ADMIN_CONNECTIONS: usize = 64;

/// A running gateway. Dropping it without [`App::stop`] aborts its tasks.
pub struct App {
    http: Vec<SocketAddr>,
    admin: SocketAddr,
    secure: bool,
    health: Arc<Health>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
    pool: Arc<MediaPool>,
    stop_bound: Duration,
}

impl App {
    /// Starts everything; when it returns, everything listens.
    ///
    /// # Errors
    /// What is in the way: a taken port, a certificate that cannot be read.
    pub async fn start(config: &Config, dev_tls: bool) -> anyhow::Result<Self> {
        let (stop, stopping) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let metrics = Metrics::new();
        let registry = Registry::new(config.media.max_tables);
        let announced = announced_addresses(config);

        let clock = Clock::system();
        let pool = media::start(config, announced.clone(), clock, metrics.clone())?;
        media::add_sources(&metrics, &pool, &registry);
        let tables = Tables::new(registry.clone(), viewers(pool.clone()));
        let workers = pool.clone();
        let health = Arc::new(Health::new(move || workers.running()));
        add_sources(&metrics, &tables, &health);

        let certificate = certificate(&config.http, dev_tls, &announced)?;
        if let Some(certificate) = certificate.clone() {
            tasks.spawn(watch_certificate(certificate, metrics.clone(), stopping.clone()));
        }
        let http = config.http.listen.iter().map(|at| open(*at)).collect::<Result<Vec<_>, _>>()?;
        let admin = open(config.admin.listen)?;
        let app = Self {
            http: http.iter().map(TcpListener::local_addr).collect::<Result<_, _>>()?,
            admin: admin.local_addr()?,
            secure: certificate.is_some(),
            health: health.clone(),
            stop,
            tasks: JoinSet::new(),
            pool: pool.clone(),
            stop_bound: config.http.shutdown_timeout + STOP_MARGIN,
        };

        let public_router = public::router(public::Parts {
            tables: tables.clone(),
            metrics: metrics.clone(),
            max_body_bytes: config.http.max_body_bytes,
            routers: vec![sessions::router(Arc::new(MediaApi {
                registry: registry.clone(),
                pool: pool.clone(),
                clock,
            }))],
        });
        let acceptor = certificate.map(|certificate| certificate.acceptor()).transpose()?;
        let limits = limits(&config.http);
        let server = Server::new(public_router, acceptor, limits);
        add_server_source(&metrics, "public", &server);
        tasks.spawn(server.run(http, stopping.clone()));

        let parts = admin::Parts { metrics: metrics.clone(), health, tables: tables.clone() };
        let limits = Limits { max_connections: ADMIN_CONNECTIONS, ..limits };
        let server = Server::new(admin::router(parts), None, limits);
        add_server_source(&metrics, "admin", &server);
        tasks.spawn(server.run(vec![admin], stopping.clone()));
        tasks.spawn(tick(tables, pool.clone(), stopping));

        app.health.advance(Phase::Running);
        app.log_ready();
        Ok(Self { tasks, ..app })
    }

    /// Addresses of the public listeners.
    pub fn http(&self) -> &[SocketAddr] {
        &self.http
    }

    /// Address of the admin listener.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Where a browser on this machine finds the gateway.
    pub fn url(&self) -> String {
        let scheme = if self.secure { "https" } else { "http" };
        let host = match self.http.first() {
            Some(at) if !at.ip().is_unspecified() && !at.ip().is_loopback() => at.to_string(),
            Some(at) => format!("localhost:{}", at.port()),
            None => "localhost".to_owned(),
        };
        format!("{scheme}://{host}")
    }

    /// Ends everything within `http.shutdown_timeout` and a margin.
    pub async fn stop(mut self) {
        self.health.advance(Phase::Stopping);
        self.stop.send_replace(true);
        let all_ended = async { while self.tasks.join_next().await.is_some() {} };
        if timeout(self.stop_bound, all_ended).await.is_err() {
            tracing::warn!("some tasks did not end in time");
        }
        let pool = self.pool;
        // Joins threads, which blocks.
        let _ = tokio::task::spawn_blocking(move || pool.shutdown()).await;
        tracing::info!("stopped");
    }

    fn log_ready(&self) {
        let all: Vec<_> = self.http.iter().map(SocketAddr::to_string).collect();
        let first = all.first().cloned().unwrap_or_default();
        let http_all = (all.len() > 1).then(|| all.join(","));
        tracing::info!(http = first, http_all, admin = %self.admin, media = self.pool.port(), "ready");
    }
}

/// Runs a gateway until it is told to stop; `demo` also tells a person where to look.
///
/// # Errors
/// As [`App::start`].
pub async fn run(config: Config, dev_tls: bool, demo: bool) -> anyhow::Result<()> {
    // Listening for signals comes first: one that comes early must not kill the process.
    let mut signals = Signals::new().context("signals cannot be handled")?;
    let app = App::start(&config, dev_tls).await?;
    if demo {
        banner(&app, &config)?;
    }
    signals.next().await;
    tracing::info!("stopping; a second signal exits at once");
    tokio::spawn(async move {
        signals.next().await;
        std::process::exit(1);
    });
    app.stop().await;
    Ok(())
}

fn banner(app: &App, config: &Config) -> io::Result<()> {
    let (url, table) = (app.url(), &config.demo.table);
    writeln!(
        io::stdout(),
        "\n  Railbird is on the rail.\n\n  Lobby    {url}/\n  Watch    {url}/play/{table}\n  \
         Publish  {url}/publish\n  Metrics  http://{}/metrics\n\n  Ctrl-C ends it.\n",
        app.admin
    )
}

fn announced_addresses(config: &Config) -> Vec<IpAddr> {
    match config.media.addresses.as_slice() {
        [] => own_addresses(),
        given => given.to_vec(),
    }
}

/// How many watch a table over a transport.
fn viewers(pool: Arc<MediaPool>) -> impl Fn(&TableName, Transport) -> u64 + Send + Sync + 'static {
    move |table, transport| match transport {
        Transport::WebRtc => pool.viewers_of(table) as u64,
        Transport::LlHls => 0,
    }
}

fn certificate(
    http: &Http,
    dev_tls: bool,
    announced: &[IpAddr],
) -> anyhow::Result<Option<Arc<Certificate>>> {
    match &http.tls {
        Some(files) => Ok(Some(Certificate::from_files(&files.certificate, &files.key)?)),
        None if dev_tls => Ok(Some(Certificate::self_signed(announced)?)),
        None => Ok(None),
    }
}

fn open(address: SocketAddr) -> anyhow::Result<TcpListener> {
    listen(address).with_context(|| {
        format!("cannot listen on {address}; is another process there, or is the port below 1024?")
    })
}

fn limits(http: &Http) -> Limits {
    Limits {
        max_connections: http.max_connections,
        header_timeout: http.header_timeout,
        shutdown_timeout: http.shutdown_timeout,
    }
}

fn add_sources(metrics: &Metrics, tables: &Arc<Tables>, health: &Arc<Health>) {
    let tables = tables.clone();
    metrics.add_source(move |scrape| tables.scrape(scrape));
    let health = health.clone();
    metrics.add_source(move |scrape| {
        scrape.count(&names::READY, &[], u64::from(health.not_ready().is_none()));
        scrape.count(&names::WORKERS, &[], health.workers() as u64);
    });
}

fn add_server_source(metrics: &Metrics, listener: &'static str, server: &Server) {
    let stats = server.stats();
    metrics.add_source(move |scrape| {
        scrape.count(&names::HTTP_CONNECTIONS, &[listener], stats.open());
        for (reason, count) in stats.refused() {
            scrape.count(&names::HTTP_REFUSED, &[listener, reason], count);
        }
    });
}

async fn tick(tables: Arc<Tables>, pool: Arc<MediaPool>, stopping: watch::Receiver<bool>) {
    every(TICK, stopping, || {
        let now = Instant::now();
        tables.sample(now);
        pool.sweep(now);
    })
    .await;
}

async fn watch_certificate(
    certificate: Arc<Certificate>,
    metrics: Metrics,
    stopping: watch::Receiver<bool>,
) {
    every(CERTIFICATE_CHECK, stopping, || match certificate.reload() {
        None => {}
        Some(Ok(())) => {
            metrics.tls_reload(true);
            tracing::info!("certificate reloaded");
        }
        Some(Err(error)) => {
            metrics.tls_reload(false);
            tracing::error!(%error, "the new certificate is broken; the old one stays in use");
        }
    })
    .await;
}

/// Calls `work` every `period` until the stop.
async fn every(period: Duration, mut stopping: watch::Receiver<bool>, mut work: impl FnMut()) {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => work(),
            _ = stopping.wait_for(|stop| *stop) => return,
        }
    }
}

/// The signals that end the process.
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
