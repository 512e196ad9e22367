//! The command line as a script sees it: exit codes, standard output, hints.

mod support;

use std::process::{Output, Stdio};
use std::time::Duration;

use railbird_loadgen::{DealerConfig, run_dealer};
use serde_json::Value;
use support::Server;
use tokio::process::Command;
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(60);

/// Runs the built binary with `arguments`.
async fn loadgen(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadgen"));
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    timeout(LIMIT, command.output()).await.expect("it ends in time").unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_watches_another_stack_and_its_thresholds_decide_the_exit_code() {
    let mut server = Server::start(None).await;
    let mut table = DealerConfig::new("demo", server.url("whip"));
    (table.width, table.height, table.bitrate) = (640, 360, 600_000);
    let dealer = tokio::spawn(run_dealer(table, std::future::pending()));
    timeout(LIMIT, server.video.recv()).await.expect("media comes");
    // The server has no group of pictures to start with: the next keyframe does.
    let url = server.url("whep");
    let watch = ["watch", "--url", &url, "--viewers", "3", "--duration", "3s", "--json"];
    let good = loadgen(&[&watch[..], &["--max-first-frame-p95", "20s"]].concat()).await;
    assert_eq!(good.status.code(), Some(0), "{}", said(&good));
    let report: Value = serde_json::from_slice(&good.stdout).unwrap();
    let total = &report["total"];
    assert_eq!((&total["connected"], &total["firstFrames"]), (&3.into(), &3.into()), "{report}");
    assert!(total["packetsVerified"].as_u64() > Some(0), "{report}");
    assert!(report["window"]["client"]["cpuSeconds"].as_f64().is_some(), "{report}");
    assert_eq!(report["viewers"].as_array().map(Vec::len), Some(0), "only with --each");

    let missed = loadgen(&[&watch[..], &["--max-first-frame-p95", "1ms"]].concat()).await;
    assert_eq!(missed.status.code(), Some(1), "{}", said(&missed));
    assert!(said(&missed).contains("missed: first frame p95 is"), "{}", said(&missed));
    dealer.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_measured_is_an_error_with_a_hint() {
    let nobody = loadgen(&["watch", "--url", "http://127.0.0.1:9/whep/demo"]).await;
    assert_eq!(nobody.status.code(), Some(2));
    assert!(said(&nobody).contains("is the gateway running"), "{}", said(&nobody));
    let odd = loadgen(&["watch", "--url", "demo"]).await;
    assert_eq!(odd.status.code(), Some(2));
    assert!(said(&odd).contains("/whep/TABLE"), "{}", said(&odd));
    let usage = loadgen(&["watch", "--url", "http://h/whep/x", "--loss", "200%"]).await;
    assert_eq!(usage.status.code(), Some(2));
    let pid = ["watch", "--url", "http://127.0.0.1:9/whep/demo", "--server-pid", "4294967295"];
    assert!(said(&loadgen(&pid).await).contains("process 4294967295"));
}
