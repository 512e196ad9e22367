//! The load generator's LL-HLS clients against the built gateway: what they report must
//! be what happened.
#![allow(clippy::disallowed_methods, reason = "tests wait for other processes by the clock")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{Gateway, LATER};
use railbird_loadgen::hls::client::Options;
use railbird_loadgen::hls::multivariant::Choice;
use railbird_loadgen::hls::report::{HlsReport, Thresholds};
use railbird_loadgen::hls::{self, HlsConfig, HlsError};
use railbird_loadgen::source::SourceConfig;
use railbird_loadgen::source::pattern::{self, PatternConfig};
use railbird_loadgen::{DealerConfig, run_dealer};

/// Fifty clients at `demo` for four seconds, once they are there.
fn fifty(gateway: &Gateway) -> HlsConfig {
    HlsConfig {
        urls: vec![gateway.url("/hls/demo/index.m3u8")],
        token: None,
        clients: 50,
        join_rate: 100.0,
        duration: Duration::from_secs(4),
        options: Options {
            choice: Choice::First,
            audio: true,
            media: true,
            hints: true,
            rtt: Duration::ZERO,
            patience: Duration::from_secs(15),
        },
        insecure: false,
        server_pid: Some(gateway.pid()),
        baseline: Duration::ZERO,
    }
}

async fn run(config: HlsConfig) -> Result<HlsReport, HlsError> {
    let running = hls::run(config, Arc::default(), std::future::pending());
    tokio::time::timeout(LATER, running).await.expect("the clients end in time")
}

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

/// Asserts that all clients were served by the rules.
fn assert_unharmed(report: &HlsReport) {
    assert_eq!((report.started, report.failed), (report.clients as u64, 0), "{report:?}");
    assert_eq!((report.errors, report.hints_missed, report.overruns), (0, 0, 0), "{report:?}");
    // Every answer that was held came when the part was there, and to all.
    let spread = report.answer_spread_ms.unwrap();
    assert!(report.blocked * 10 > report.playlists * 8 && spread.samples > 0, "{report:?}");
    let server = report.window.server.expect("its CPU time can be read");
    assert!(server.micros_per_playlist > 0.0 && server.rss_bytes > 1 << 20, "{server:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_clients_play_near_the_edge_without_an_error_or_a_stall() {
    let mut gateway = Gateway::start("");
    let publisher = publish(&gateway).await;
    let report = run(fifty(&gateway)).await.unwrap();
    assert_unharmed(&report);
    assert_eq!((report.playing, report.stalls), (50, 0), "{report:?}");
    let latency = report.latency_ms.unwrap();
    // Three parts and the publisher's own delay; a start that a busy machine held up stays
    // in the playhead, which does not speed up.
    assert!(latency.p95 < 4000.0 && latency.p50 > 500.0, "{latency:?}");
    // Four seconds of half-second parts of picture and sound, most of them hinted.
    assert!(report.parts >= 50 * 2 * 7 && report.hinted * 2 > report.parts, "{report:?}");
    assert_eq!((report.inits, report.connections), (100, 200), "{report:?}");
    let strict = Thresholds {
        max_stalls: Some(0),
        max_latency_p95: Some(3000.0),
        max_answer_spread_p99: Some(3000.0),
        ..Thresholds::default()
    };
    assert!(strict.missed(&report).is_empty(), "{report:?}");
    publisher.abort();
    gateway.assert_healthy();
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_only_wait_fetch_no_media() {
    let gateway = Gateway::start("");
    let publisher = publish(&gateway).await;
    let mut config = fifty(&gateway);
    (config.options.media, config.options.audio) = (false, false);
    let report = run(config).await.unwrap();
    assert_unharmed(&report);
    assert_eq!((report.parts, report.segments, report.inits, report.playing), (0, 0, 0, 0));
    assert_eq!(report.connections, 50, "one connection each: {report:?}");
    assert!(report.latency_ms.is_none() && report.edge_ms.is_some(), "{report:?}");
    publisher.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_nobody_publishes_is_retried_and_then_named() {
    let gateway = Gateway::start("");
    let mut config = fifty(&gateway);
    (config.clients, config.options.patience) = (1, Duration::from_millis(1500));
    let error = run(config).await.unwrap_err();
    assert_eq!(error.to_string(), "no client could start: status 404");
    assert_eq!(error.hint(), Some("is somebody publishing this table?"));
}
