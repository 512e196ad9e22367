//! The harness of the black-box tests: the built gateway as a process of its own on
//! free ports of loopback, and what the tests ask it and send it.
//!
//! Everything that a test starts ends with it: children are killed when their owner
//! is dropped, also by a failed assertion. Nothing waits a fixed time: conditions are
//! polled until they hold or their deadline has passed ([`wait_until`]).
#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(clippy::disallowed_methods, reason = "tests wait for other processes by the clock")]

pub mod clients;
pub mod metrics;
pub mod network;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::Ordering;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use railbird_loadgen::publisher::DealerStats;
use railbird_loadgen::{DealerConfig, PublishError, WatchConfig, WatchReport, run_dealer_counted};
use reqwest::header::{CONTENT_TYPE, HeaderMap};
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use serde_json::Value;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use metrics::Metrics;

/// For what takes milliseconds on an idle machine.
pub const SOON: Duration = Duration::from_secs(20);
/// For what starts encoders, decoders and interpreters.
pub const LATER: Duration = Duration::from_secs(60);
/// A viewer that is told of the end by DTLS knows it in less, on a busy machine too;
/// no viewer notices mere silence so soon.
pub const AT_ONCE: Duration = Duration::from_millis(2500);
/// The `webrtc` crate keeps a closed DTLS transport to itself: its viewers notice the
/// silence after three seconds.
pub const SILENCE_NOTICED: Duration = Duration::from_secs(8);
/// Between two looks at a condition.
const POLL: Duration = Duration::from_millis(20);
/// Log lines shown when a test fails.
const LOG_TAIL: usize = 60;

/// A gateway of its own for a test.
pub struct Gateway {
    child: Child,
    /// The public listener; the first one, of several.
    pub http: SocketAddr,
    /// Every public listener.
    pub http_all: Vec<SocketAddr>,
    /// The admin listener.
    pub admin: SocketAddr,
    /// The media port, at the first address that is announced.
    pub media: SocketAddr,
    /// The media port at every address that is announced, best first.
    pub media_all: Vec<SocketAddr>,
    /// For requests without a connection kept from the one before.
    pub client: Client,
    log: Arc<Mutex<Vec<String>>>,
    _directory: tempfile::TempDir,
}

impl Gateway {
    /// Starts the built binary; `extra` continues the `[media]` section of its
    /// configuration. Returns once it is ready.
    pub fn start(extra: &str) -> Self {
        Self::start_at(r#"["127.0.0.1:0"]"#, r#"["127.0.0.1"]"#, extra)
    }

    /// [`Self::start`] with lists of TOML for `http.listen` and `media.addresses`.
    pub fn start_at(listen: &str, addresses: &str, extra: &str) -> Self {
        let text = format!(
            "[admin]\nlisten = \"127.0.0.1:0\"\n[http]\nlisten = {listen}\n\
             [media]\nport = 0\naddresses = {addresses}\n{extra}"
        );
        Self::spawn(Command::new(env!("CARGO_BIN_EXE_railbird")), &text)
    }

    /// Starts the built binary by `command` with this configuration. Returns once it
    /// is ready.
    pub fn spawn(mut command: Command, text: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("railbird.toml");
        std::fs::write(&config, text).unwrap();
        let mut child = command
            .args(["serve", "--config"])
            .arg(&config)
            // As the downward API of Kubernetes would set it, for those that name it.
            .env("NODE_IPS", "198.51.100.1,198.51.100.2")
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let log = Arc::new(Mutex::new(Vec::new()));
        let (found, ready) = sync_channel(1);
        let lines = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let entry: Value = serde_json::from_str(&line).unwrap_or_default();
                if entry["message"] == "ready" {
                    let _ = found.try_send(entry);
                }
                lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        });
        let Ok(entry) = ready.recv_timeout(SOON) else {
            let (_, _) = (child.kill(), child.wait());
            panic!("the gateway is not ready: {:#?}", log.lock().unwrap());
        };
        let list = |key: &str| -> Vec<SocketAddr> {
            let text = entry[key].as_str().unwrap_or_default();
            text.split(',').filter_map(|one| one.parse().ok()).collect()
        };
        let first = |key: &str| *list(key).first().expect(key);
        let (http, admin, media) = (first("http"), first("admin"), first("media"));
        let http_all = if entry["http_all"].is_null() { vec![http] } else { list("http_all") };
        let media_all = list("media");
        let client = Client::builder().pool_max_idle_per_host(0).timeout(SOON).build().unwrap();
        Self { child, http, http_all, admin, media, media_all, client, log, _directory: directory }
    }

    /// A URL of the public listener; `path` starts with a slash.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.http)
    }

    /// Process id of the gateway.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its tables, as the public API lists them.
    pub async fn tables(&self) -> Vec<Value> {
        let answer = self.client.get(self.url("/api/tables")).send().await.unwrap();
        answer.json().await.unwrap()
    }

    /// The table, when it is live.
    pub async fn live(&self, table: &str) -> Option<Value> {
        let tables = self.tables().await;
        tables.into_iter().find(|entry| entry["table"] == table && entry["live"] == true)
    }

    /// Waits until the table is live.
    pub async fn wait_live(&self, table: &str) -> Value {
        wait_until(&format!("{table} is live"), LATER, async || self.live(table).await).await
    }

    /// Waits until the table is not listed any more; returns how long that took.
    pub async fn wait_gone(&self, table: &str) -> Duration {
        let begun = Instant::now();
        let gone = async || self.tables().await.iter().all(|t| t["table"] != table).then_some(());
        wait_until(&format!("{table} is gone"), SOON, gone).await;
        begun.elapsed()
    }

    /// Its metrics now.
    pub async fn metrics(&self) -> Metrics {
        let url = format!("http://{}/metrics", self.admin);
        Metrics::parse(&self.client.get(url).send().await.unwrap().text().await.unwrap())
    }

    /// Waits until `count` viewer sessions are connected.
    pub async fn wait_viewers(&self, count: usize) {
        let connected = async || {
            let metrics = self.metrics().await;
            let viewers = [("kind", "viewer")];
            let now = metrics.sum("railbird_sessions_started_total", &viewers)
                - metrics.sum("railbird_sessions_ended_total", &viewers);
            (now == count as f64).then_some(())
        };
        wait_until(&format!("{count} viewers are connected"), LATER, connected).await;
    }

    /// Posts an SDP offer.
    pub fn offer(&self, path: &str, sdp: &str) -> RequestBuilder {
        let request = self.client.post(self.url(path)).header(CONTENT_TYPE, "application/sdp");
        request.body(sdp.to_owned())
    }

    /// Sends SIGTERM; returns how the process ended, and after how long.
    pub async fn terminate(&mut self) -> (ExitStatus, Duration) {
        let begun = Instant::now();
        let pid = self.pid().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        let child = &mut self.child;
        let status =
            wait_until("the gateway exits", SOON, async || child.try_wait().unwrap()).await;
        (status, begun.elapsed())
    }

    /// What it has logged.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the process lives, without a media thread that panicked.
    pub fn assert_healthy(&mut self) {
        assert!(self.child.try_wait().unwrap().is_none(), "the gateway has exited");
        let log = self.log();
        assert!(!log.iter().any(|line| line.contains("panicked")), "{log:#?}");
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let (_, _) = (self.child.kill(), self.child.wait());
        if std::thread::panicking() {
            let log = self.log();
            let tail = &log[log.len().saturating_sub(LOG_TAIL)..];
            eprintln!("the gateway's log:\n{}", tail.join("\n"));
        }
    }
}

/// A synthetic dealer in the test's own process.
pub struct Dealer {
    /// Its counters.
    pub stats: Arc<DealerStats>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), PublishError>>,
}

impl Dealer {
    /// Publishes a small table, and waits until it is live.
    pub async fn start(gateway: &Gateway, table: &str, token: Option<&str>) -> Self {
        let mut config = DealerConfig::new(table, gateway.url(&format!("/whip/{table}")));
        (config.width, config.height, config.bitrate) = (640, 360, 600_000);
        config.token = token.map(str::to_owned);
        let (stop, stopped) = oneshot::channel();
        let stats = Arc::new(DealerStats::default());
        let task = tokio::spawn(run_dealer_counted(config, Arc::clone(&stats), async {
            let _ = stopped.await;
        }));
        gateway.wait_live(table).await;
        Self { stats, stop, task }
    }

    /// Video frames sent so far.
    pub fn frames(&self) -> u64 {
        self.stats.frames.load(Ordering::Relaxed)
    }

    /// Deletes the session and ends the dealer.
    pub async fn stop(self) {
        let _ = self.stop.send(());
        tokio::time::timeout(SOON, self.task).await.unwrap().unwrap().unwrap();
    }
}

/// Watching `table` for `seconds`.
pub fn watching(gateway: &Gateway, table: &str, seconds: f64) -> WatchConfig {
    let mut config = WatchConfig::new(gateway.url(&format!("/whep/{table}")));
    config.duration = Duration::from_secs_f64(seconds);
    config
}

/// Asserts that a viewer got every packet of the video in the end, and every frame
/// whole but at most one: what comes before the client has its keys it cannot take,
/// and no sequence number is known by which it could ask for it again. So the first
/// frame may be torn.
pub fn assert_whole(report: &WatchReport) {
    assert_eq!(report.video.lost, 0, "{report:?}");
    assert!(report.frames_incomplete <= 1, "{report:?}");
}

/// Polls until `probe` gives a value.
///
/// # Panics
/// When it has given none within `limit`.
pub async fn wait_until<T>(
    what: &str,
    limit: Duration,
    mut probe: impl AsyncFnMut() -> Option<T>,
) -> T {
    let deadline = Instant::now() + limit;
    let mut looks = tokio::time::interval(POLL);
    loop {
        looks.tick().await;
        if let Some(value) = probe().await {
            return value;
        }
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
    }
}

/// The text of a header.
pub fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    let value = headers.get(name).unwrap_or_else(|| panic!("no {name} in {headers:?}"));
    value.to_str().unwrap()
}

/// Asserts that an answer is a problem document of `kind` with words for a person;
/// returns its headers and its words.
pub async fn assert_problem(
    answer: Response,
    status: StatusCode,
    kind: &str,
) -> (HeaderMap, String) {
    assert_eq!(answer.status(), status, "instead of {kind}");
    let headers = answer.headers().clone();
    assert_eq!(text(&headers, "content-type"), "application/problem+json");
    assert_eq!(text(&headers, "access-control-allow-origin"), "*");
    let document: Value = answer.json().await.unwrap();
    assert_eq!(document["type"], format!("urn:railbird:problem:{kind}"), "{document}");
    assert_eq!(document["status"], status.as_u16());
    assert!(document["title"].as_str().is_some_and(|title| !title.is_empty()), "{document}");
    let detail = document["detail"].as_str().unwrap();
    assert!(detail.contains(' '), "{document}");
    (headers, detail.to_owned())
}

/// Asserts that an answer says when to try again.
pub fn assert_retry_after(headers: &HeaderMap) {
    let seconds: u32 = text(headers, "retry-after").parse().unwrap();
    assert!((1..=60).contains(&seconds), "{seconds}");
}
