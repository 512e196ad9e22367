//! LL-HLS viewers as the built gateway counts them, against what viewers did.
#![allow(clippy::disallowed_methods, reason = "tests wait for other processes by the clock")]

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::metrics::Metrics;
use common::{Gateway, LATER, SOON, wait_until};
use railbird_loadgen::hls::client::Options;
use railbird_loadgen::hls::multivariant::Choice;
use railbird_loadgen::hls::report::HlsReport;
use railbird_loadgen::hls::{self, HlsConfig};
use railbird_loadgen::source::SourceConfig;
use railbird_loadgen::source::pattern::{self, PatternConfig};
use railbird_loadgen::{DealerConfig, run_dealer};
use reqwest::Url;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::task::JoinHandle;

const LLHLS: (&str, &str) = ("transport", "llhls");
const VIEWER: (&str, &str) = ("kind", "viewer");

/// Publishes the pattern at `demo` until the task is aborted.
async fn publish(gateway: &Gateway) -> tokio::task::AbortHandle {
    let clip = pattern::encode(&PatternConfig {
        width: 320,
        height: 180,
        fps: 30,
        bitrate: 300_000,
        keyframe_interval: Duration::from_secs(1),
        audio_bitrate: 64_000,
    });
    let source = SourceConfig::Clip(Arc::new(clip.unwrap()));
    let url = gateway.url("/whip/demo");
    let config = DealerConfig { source, ..DealerConfig::new("demo", url) };
    let task = tokio::spawn(run_dealer(config, std::future::pending()));
    gateway.wait_live("demo").await;
    task.abort_handle()
}

/// Clients of the load generator at `demo`, for some seconds once they are there.
fn watch(gateway: &Gateway, clients: usize, seconds: u64) -> JoinHandle<HlsReport> {
    let config = HlsConfig {
        urls: vec![gateway.url("/hls/demo/index.m3u8")],
        token: None,
        clients,
        join_rate: 100.0,
        duration: Duration::from_secs(seconds),
        options: Options {
            choice: Choice::First,
            audio: true,
            media: true,
            hints: true,
            rtt: Duration::ZERO,
            patience: Duration::from_secs(15),
        },
        insecure: false,
        server_pid: None,
        baseline: Duration::ZERO,
    };
    let running = hls::run(config, Arc::default(), std::future::pending());
    tokio::spawn(async { running.await.unwrap() })
}

fn viewers(metrics: &Metrics) -> f64 {
    metrics.sum("railbird_viewers", &[("table", "demo"), LLHLS])
}

/// Waits until the gateway says that so many watch.
async fn wait_for(gateway: &Gateway, count: f64) -> Metrics {
    let there = async || {
        let metrics = gateway.metrics().await;
        (viewers(&metrics) == count).then_some(metrics)
    };
    wait_until(&format!("{count} viewers"), LATER, there).await
}

#[tokio::test(flavor = "multi_thread")]
async fn viewers_are_counted_exactly_and_end_after_they_left() {
    let mut gateway = Gateway::start("");
    let publisher = publish(&gateway).await;
    let watching = watch(&gateway, 30, 6);
    wait_for(&gateway, 30.0).await;
    let table = gateway.live("demo").await.unwrap();
    assert_eq!((&table["viewers"]["llhls"], &table["viewers"]["webrtc"]), (&30.into(), &0.into()));
    let report = watching.await.unwrap();
    assert_eq!((report.started, report.failed, report.stalls), (30, 0, 0), "{report:?}");
    let left = Instant::now();
    let metrics = wait_for(&gateway, 0.0).await;
    // Three target durations and a part; the sweep comes once a second.
    assert!(left.elapsed() > Duration::from_secs(4), "{:?}", left.elapsed());
    let sum = |name: &str, labels: &[_]| metrics.sum(name, labels);
    assert_eq!(sum("railbird_sessions_started_total", &[VIEWER, LLHLS]), 30.0);
    let idle = [VIEWER, LLHLS, ("reason", "idle")];
    assert_eq!(sum("railbird_sessions_ended_total", &idle), 30.0);
    assert_eq!(sum("railbird_hls_unaccounted_requests_total", &[]), 0.0);
    assert_eq!(sum("railbird_viewer_stalls_total", &[LLHLS]), 0.0);
    assert_eq!(sum("railbird_time_to_first_frame_seconds_count", &[LLHLS]), 30.0);
    // Pictures and sound, at 364 kbit/s for six seconds and more.
    let bytes = sum("railbird_egress_bytes_total", &[("table", "demo"), LLHLS]);
    assert!(bytes > 30.0 * 6.0 * 364_000.0 / 8.0 / 2.0, "{bytes}");
    assert!(bytes < sum("railbird_hls_bytes_total", &[]), "playlists are no media: {bytes}");
    let positions = sum("railbird_hls_position_seconds_count", &[("table", "demo")]);
    assert!(positions >= 30.0 * 10.0, "{positions}");
    assert!(sum("railbird_hls_position_seconds_sum", &[]) / positions < 1.5);
    assert_eq!(sum("railbird_hls_delivery_ratio_count", &[]), positions);
    publisher.abort();
    gateway.assert_healthy();
}

#[tokio::test(flavor = "multi_thread")]
async fn series_of_viewers_end_with_their_table() {
    let gateway = Gateway::start("");
    let publisher = publish(&gateway).await;
    let watching = watch(&gateway, 3, 60);
    wait_for(&gateway, 3.0).await;
    publisher.abort();
    gateway.wait_gone("demo").await;
    let ended = async || {
        let metrics = gateway.metrics().await;
        let labels = [VIEWER, LLHLS, ("reason", "stream_ended")];
        (metrics.sum("railbird_sessions_ended_total", &labels) == 3.0).then_some(metrics)
    };
    let metrics = wait_until("the sessions end", LATER, ended).await;
    assert_eq!(metrics.sum("railbird_hls_position_seconds_count", &[]), 0.0);
    assert_eq!(metrics.sum("railbird_egress_bytes_total", &[LLHLS]), 0.0);
    watching.abort();
}

/// Fetches over a path that carries `rate` bytes/s: the client's buffer is small, and it
/// reads a little at a time.
async fn read_slowly(gateway: &Gateway, url: &Url, rate: usize) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(gateway.http).await.unwrap();
    let request = format!("GET {} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", url.path());
    stream.write_all(request.as_bytes()).await.unwrap();
    let (mut answer, mut chunk) = (Vec::new(), vec![0; rate / 20]);
    let mut ticks = tokio::time::interval(Duration::from_millis(50));
    loop {
        match stream.read(&mut chunk).await.unwrap() {
            0 => break,
            read => answer.extend_from_slice(&chunk[..read]),
        }
        ticks.tick().await;
    }
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer[..200]));
}

/// A player whose path carries half the bitrate: it follows the playlist on a connection
/// of its own, as others do, and parts take longer to arrive than to play.
async fn slow(gateway: &Gateway, parts: u64) {
    let client = reqwest::Client::new();
    let text = async |url: Url| client.get(url).send().await.unwrap().text().await.unwrap();
    let entry = Url::parse(&gateway.url("/hls/demo/index.m3u8")).unwrap();
    let multivariant = text(entry.clone()).await;
    let video = multivariant.lines().find(|line| !line.starts_with('#')).unwrap();
    let video = entry.join(video).unwrap();
    let part_of =
        |line: &str| -> Option<u64> { line.split_once("-p")?.1.split_once(".m4s")?.0.parse().ok() };
    let listing = text(video.clone()).await;
    let prefix =
        listing.lines().find_map(|line| Some(line.split_once("URI=\"")?.1.split_once("-p")?.0));
    let prefix = prefix.unwrap().to_owned();
    let newest = listing.lines().filter_map(part_of).max().unwrap();
    for part in newest.saturating_sub(4)..newest.saturating_sub(4) + parts {
        // It is there, or will be.
        let url = video.join(&format!("{prefix}-p{part}.m4s")).unwrap();
        tokio::join!(read_slowly(gateway, &url, 19_000), text(video.clone()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_on_a_slow_path_is_seen_to_stall_and_others_are_not() {
    let gateway = Gateway::start("");
    let publisher = publish(&gateway).await;
    let watching = watch(&gateway, 5, 12);
    wait_for(&gateway, 5.0).await;
    tokio::time::timeout(LATER, slow(&gateway, 16)).await.unwrap();
    let metrics = gateway.metrics().await;
    let stalls = metrics.sum("railbird_viewer_stalls_total", &[("table", "demo"), LLHLS]);
    let stalled = metrics.sum("railbird_viewer_stalled_seconds_total", &[("table", "demo"), LLHLS]);
    // It got eight seconds of media in sixteen, and had two in store.
    assert!(stalls >= 5.0, "{stalls}");
    assert!((3.0..=8.5).contains(&stalled), "{stalled}");
    let report = watching.await.unwrap();
    assert_eq!(report.stalls, 0, "{report:?}");
    publisher.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_sessions_viewers_are_estimated() {
    let text = "[admin]\nlisten = \"127.0.0.1:0\"\n[http]\nlisten = [\"127.0.0.1:0\"]\n\
        [media]\nport = 0\naddresses = [\"127.0.0.1\"]\n[hls]\nsessions = false\n";
    let command = std::process::Command::new(env!("CARGO_BIN_EXE_railbird"));
    let gateway = Gateway::spawn(command, text);
    let publisher = publish(&gateway).await;
    let watching = watch(&gateway, 10, 4);
    let near = async || {
        let metrics = gateway.metrics().await;
        (9.0..=10.0).contains(&viewers(&metrics)).then_some(metrics)
    };
    let metrics = wait_until("most of ten viewers are seen", SOON, near).await;
    assert_eq!(metrics.sum("railbird_sessions_started_total", &[VIEWER]), 0.0);
    let labels = [("reason", "no_pass")];
    assert!(metrics.sum("railbird_hls_unaccounted_requests_total", &labels) > 0.0);
    assert!(metrics.sum("railbird_egress_bytes_total", &[("table", "demo"), LLHLS]) > 0.0);
    let report = watching.await.unwrap();
    assert_eq!((report.started, report.failed), (10, 0), "{report:?}");
    publisher.abort();
}
