//! Builds the parts in the order of the data path, owns every task and thread, and
//! ends them within a bound.
#![allow(clippy::disallowed_methods, reason = "the outermost shell: it reads the clocks")]

mod media;
mod parts;

use std::io;
#[cfg(feature = "demo")]
use std::net::Ipv6Addr;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::api::health::{Health, Phase};
use crate::api::sessions::{self, MediaApi};
use crate::api::tables::Tables;
use crate::api::{admin, public};
#[cfg(feature = "demo")]
use crate::config::Demo;
use crate::config::{Config, Http};
use crate::egress::hls::Hls;
use crate::hub::Registry;
use crate::net::addresses::{self, MAX_ADDRESSES};
use crate::net::files::raise_open_files;
use crate::net::interfaces::Host;
use crate::net::tcp::{Limits, Server, UNREAD_TIMEOUT, listen};
use crate::net::tls::Certificate;
use crate::qos::Metrics;
use crate::time::Clock;
use crate::worker::MediaPool;

/// How often the certificate's files are looked at.
const CERTIFICATE_CHECK: Duration = Duration::from_secs(5);

/// How often rates are sampled and overdue sessions swept.
const TICK: Duration = Duration::from_secs(1);

/// What a stop may take beyond the open requests' `http.shutdown_timeout`.
const STOP_MARGIN: Duration = Duration::from_secs(2);

/// Connections at once on the admin listener and the dealer's: scrapers and probes.
const FEW_CONNECTIONS: usize = 64;

/// Sockets of listeners and media, the runtime's own, certificates, logs.
const FILES_BESIDES_CONNECTIONS: usize = 256;

/// A free port of loopback.
const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// What the command line adds to the configuration.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Serve HTTPS with a self-signed certificate when none is configured.
    pub dev_tls: bool,
    /// Run the synthetic dealer, which needs plain HTTP on loopback.
    pub demo: bool,
}

/// A running gateway. Dropping it without [`App::stop`] aborts its tasks.
pub struct App {
    http: Vec<SocketAddr>,
    /// The dealer's own listener, when the public one speaks TLS.
    #[cfg_attr(not(feature = "demo"), expect(dead_code, reason = "only the dealer asks"))]
    plain: Option<SocketAddr>,
    admin: SocketAddr,
    secure: bool,
    pool: Arc<MediaPool>,
    health: Arc<Health>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
    /// The admin listener ends last: until then it says that the gateway is stopping.
    stop_admin: watch::Sender<bool>,
    admin_task: JoinSet<()>,
    stop_bound: Duration,
}

impl App {
    /// Starts everything; when it returns, everything listens.
    ///
    /// # Errors
    /// What is in the way: a taken port, a certificate that cannot be read.
    pub async fn start(config: &Config, options: Options) -> anyhow::Result<Self> {
        let (stop, stopping) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let (clock, metrics) = (Clock::system(), Metrics::new());
        let host = Host::read();
        let announced = announced_addresses(config, &host, options.demo)?;

        // The data path: hub, ways in and out.
        let registry = Registry::new(config.media.max_tables);
        let media = media::Media { config, announced: &announced, host: &host };
        let pool = media.start(clock, metrics.clone())?;
        let hls = config.hls.enabled.then(|| parts::hls(config, &registry, metrics.clone()));
        if let Some(hls) = hls.clone() {
            tasks.spawn(hls.run(stopped(stopping.clone())));
        }

        // What is known of it.
        let tables = Tables::new(registry.clone(), parts::viewers(pool.clone(), hls.clone()));
        let workers = pool.clone();
        let headroom = pool.clone();
        let health = Arc::new(Health::new(move || workers.running(), move || headroom.full()));
        media::add_sources(&metrics, &pool, &registry);
        parts::add_sources(&metrics, &tables, &health, hls.as_ref());
        let sent = parts::egress_meter(registry.clone(), hls.clone());
        let parts = (tables.clone(), pool.clone(), hls.clone());
        tasks.spawn(tick(parts, sent, stopping.clone()));

        // The surfaces.
        let certificate = certificate(&config.http, options.dev_tls, &announced)?;
        if let Some(certificate) = certificate.clone() {
            tasks.spawn(watch_certificate(certificate, metrics.clone(), stopping.clone()));
        }
        let media_api = MediaApi {
            registry,
            pool: pool.clone(),
            tables: tables.clone(),
            metrics: metrics.clone(),
            clock,
        };
        let mut routers = vec![sessions::router(Arc::new(media_api))];
        routers.extend(hls.map(crate::egress::hls::router));
        let max_body_bytes = config.http.max_body_bytes;
        let parts = public::Parts {
            tables: tables.clone(),
            metrics: metrics.clone(),
            max_body_bytes,
            routers,
        };
        let public_router = public::router(parts);
        let parts = admin::Parts { metrics: metrics.clone(), health: health.clone(), tables };
        let admin_router = admin::router(parts);

        let http = config.http.listen.iter().map(|at| open(*at)).collect::<Result<Vec<_>, _>>()?;
        let admin = open(config.admin.listen)?;
        let secure = certificate.is_some();
        let plain = (options.demo && secure).then(|| open(LOOPBACK)).transpose()?;
        let mut app = Self {
            http: http.iter().map(TcpListener::local_addr).collect::<Result<_, _>>()?,
            plain: plain.as_ref().map(TcpListener::local_addr).transpose()?,
            admin: admin.local_addr()?,
            secure,
            pool,
            health,
            stop,
            tasks,
            stop_admin: watch::channel(false).0,
            admin_task: JoinSet::new(),
            stop_bound: config.http.shutdown_timeout + STOP_MARGIN,
        };
        let limits = limits(&config.http);
        warn_of_few_files(limits.max_connections);
        let few = Limits { max_connections: FEW_CONNECTIONS, ..limits };
        let acceptor = certificate.map(|certificate| certificate.acceptor()).transpose()?;
        if let Some(plain) = plain {
            let server = Server::new(public_router.clone(), None, few);
            app.tasks.spawn(server.run(vec![plain], stopping.clone()));
        }
        let server = Server::new(public_router, acceptor, limits).marked(config.dscp.hls);
        parts::add_server_source(&metrics, "public", &server);
        app.tasks.spawn(server.run(http, stopping));
        let server = Server::new(admin_router, None, few);
        parts::add_server_source(&metrics, "admin", &server);
        app.admin_task.spawn(server.run(vec![admin], app.stop_admin.subscribe()));

        app.health.advance(Phase::Running);
        app.log_ready();
        Ok(app)
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
        let pool = self.pool.clone();
        self.tasks.spawn(async move {
            // It waits for its threads. A failed join means that one of them panicked.
            let _ = tokio::task::spawn_blocking(move || pool.shutdown()).await;
        });
        let all_ended = async { while self.tasks.join_next().await.is_some() {} };
        if timeout(self.stop_bound, all_ended).await.is_err() {
            tracing::warn!("some tasks did not end in time");
        }
        self.stop_admin.send_replace(true);
        let admin_ended = async { while self.admin_task.join_next().await.is_some() {} };
        if timeout(STOP_MARGIN, admin_ended).await.is_err() {
            tracing::debug!("the admin listener did not end in time");
        }
        tracing::info!("stopped");
    }

    /// Starts the synthetic dealer; it publishes over WHIP like anybody else.
    #[cfg(feature = "demo")]
    fn start_dealer(&mut self, demo: &Demo) {
        let at = match (self.plain, self.http.first()) {
            (Some(plain), _) => plain,
            (None, Some(at)) if at.ip().is_unspecified() => {
                let loopback =
                    if at.is_ipv6() { IpAddr::V6(Ipv6Addr::LOCALHOST) } else { LOOPBACK.ip() };
                SocketAddr::new(loopback, at.port())
            }
            (None, Some(at)) => *at,
            (None, None) => return,
        };
        let config = railbird_loadgen::DealerConfig {
            width: demo.width,
            height: demo.height,
            fps: demo.fps,
            bitrate: demo.bitrate,
            ..railbird_loadgen::DealerConfig::new(
                demo.table.as_str(),
                format!("http://{at}/whip/{}", demo.table),
            )
        };
        let stop = stopped(self.stop.subscribe());
        self.tasks.spawn(async move {
            if let Err(error) = railbird_loadgen::run_dealer(config, stop).await {
                tracing::error!(%error, "the dealer has left");
            }
        });
    }

    fn log_ready(&self) {
        let all: Vec<_> = self.http.iter().map(SocketAddr::to_string).collect();
        let first = all.first().cloned().unwrap_or_default();
        let http_all = (all.len() > 1).then(|| all.join(","));
        let media: Vec<_> = self.pool.candidates().iter().map(SocketAddr::to_string).collect();
        tracing::info!(
            http = first,
            http_all,
            admin = %self.admin,
            media = media.join(","),
            "ready"
        );
    }
}

/// Runs a gateway until it is told to stop; `demo` also tells a person where to look.
///
/// # Errors
/// As [`App::start`].
pub async fn run(config: Config, options: Options) -> anyhow::Result<()> {
    // Listening for signals comes first: one that comes early must not kill the process.
    let mut signals = Signals::new().context("signals cannot be handled")?;
    #[cfg_attr(not(feature = "demo"), expect(unused_mut, reason = "only the dealer is added"))]
    let mut app = App::start(&config, options).await?;
    #[cfg(feature = "demo")]
    if options.demo {
        app.start_dealer(&config.demo);
        banner(&app, &config.demo)?;
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

#[cfg(feature = "demo")]
fn banner(app: &App, demo: &Demo) -> io::Result<()> {
    use std::io::Write;
    let (url, table) = (app.url(), &demo.table);
    writeln!(
        io::stdout(),
        "\n  Railbird is on the rail.\n\n  Lobby    {url}/\n  Watch    {url}/play/{table}\n  \
         Publish  {url}/publish\n  Metrics  http://{}/metrics\n\n  Ctrl-C ends it.\n",
        app.admin
    )
}

/// The addresses of our answers, best first.
fn announced_addresses(config: &Config, host: &Host, demo: bool) -> anyhow::Result<Vec<IpAddr>> {
    let sources = &config.media.addresses;
    let variable = |name: &str| std::env::var(name).ok();
    let found = addresses::resolve(sources, host, variable)
        .map_err(|error| anyhow!("media.addresses: {error}"))?;
    if found.left_out > 0 {
        tracing::warn!(
            announced = MAX_ADDRESSES,
            left_out = found.left_out,
            "media.addresses are too many; the last ones are not announced"
        );
    }
    let mut announced = found.addresses;
    // The demo's first viewer sits at this machine. Loopback reaches it also when a
    // laptop changes its network, and last in order it costs others one failed check.
    if demo && sources.is_empty() && !announced.contains(&LOOPBACK.ip()) {
        announced.push(LOOPBACK.ip());
    }
    Ok(announced)
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
        unread_timeout: UNREAD_TIMEOUT,
    }
}

/// Raises the limit on open files as far as may be, and says when it is too low: a
/// gateway out of descriptors accepts nobody.
fn warn_of_few_files(max_connections: usize) {
    let wanted = (max_connections + FILES_BESIDES_CONNECTIONS) as u64;
    if let Some(limit) = raise_open_files().filter(|limit| *limit < wanted) {
        tracing::warn!(
            limit,
            wanted,
            "the hard limit on open files is below what http.max_connections needs: raise it \
             (LimitNOFILE= of systemd, --ulimit nofile= of a container), or lower \
             http.max_connections"
        );
    }
}

async fn tick(
    (tables, pool, hls): (Arc<Tables>, Arc<MediaPool>, Option<Arc<Hls>>),
    mut sent_bytes: impl FnMut() -> u64,
    stopping: watch::Receiver<bool>,
) {
    every(TICK, stopping, || {
        let now = Instant::now();
        tables.sample(now);
        pool.sweep(now);
        if let Some(hls) = &hls {
            hls.sweep(now);
        }
        pool.measure(now, sent_bytes());
    })
    .await;
}

/// Completes when the gateway stops.
async fn stopped(mut stopping: watch::Receiver<bool>) {
    // An error means that the sender is gone, which is a stop as well.
    let _ = stopping.wait_for(|stop| *stop).await;
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
