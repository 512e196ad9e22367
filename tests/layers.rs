//! Layers of a simulcast chosen by bandwidth, with loss on top, as a viewer on the `webrtc`
//! crate sees it through a path that narrows and widens: what is lost is resent, every
//! picture is whole, each layer begins with a keyframe, and nothing stands still.
//!
//! A path that narrows at once to half of what flows drops packets before anybody can
//! know; what is missing of the layer that is left then is not sent again, which the path
//! could not carry either. That is all that may be lost for good.
#![allow(clippy::disallowed_methods, reason = "tests wait for other processes by the clock")]

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use common::{Gateway, LATER, wait_until, watching};
use railbird_loadgen::impair::Impairment;
use railbird_loadgen::impair::proxy::{ProxyConfig, serve};
use railbird_loadgen::source::SourceConfig;
use railbird_loadgen::source::pattern::{self, PatternConfig};
use railbird_loadgen::{DealerConfig, WatchReport, run_dealer, watch_until};
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot, watch};

const WIDE: u64 = 3_000_000;
const NARROW: u64 = 600_000;
/// Layers of 640, 320 and 160 pixels: their names, widths and rates.
const LAYERS: [(&str, u32, u32); 3] =
    [("f", 640, 1_200_000), ("h", 320, 300_000), ("q", 160, 80_000)];
/// Time on each of the widths of the path, once the viewer has followed it.
const STAY: Duration = Duration::from_secs(3);
/// No picture for longer is a freeze that a viewer sees. The queue of the path is 300 ms,
/// and the way to the lower layer's keyframe as long; the machine may be busy.
const LONGEST_GAP_MS: u64 = 1_200;
/// Most packets of the layer that was left that are lost for good: what overflows in the
/// time in which nobody can know, and then until the lower layer's keyframe.
const LEFT_BEHIND: u64 = 60;
/// Most frames that they were in, with one at the start and one at each switch.
const TORN: u64 = 10;

/// Publishes the three layers at `demo` until the test ends.
async fn publish(gateway: &Gateway) {
    let layer = |(rid, width, bitrate): (&str, u32, u32)| {
        let clip = pattern::encode(&PatternConfig {
            width,
            height: width * 9 / 16,
            fps: 30,
            bitrate,
            keyframe_interval: Duration::from_secs(2),
            audio_bitrate: if rid == "f" { 32_000 } else { 0 },
        });
        (rid.to_owned(), Arc::new(clip.unwrap()))
    };
    let source = SourceConfig::Layers(LAYERS.map(layer).to_vec());
    let config = DealerConfig { source, ..DealerConfig::new("demo", gateway.url("/whip/demo")) };
    tokio::spawn(run_dealer(config, std::future::pending()));
    let three = async || {
        let table = gateway.live("demo").await?;
        let layers = table["tracks"][0]["layers"].as_array()?;
        (layers.len() == 3 && layers.iter().all(|layer| layer["width"] != 0)).then_some(())
    };
    wait_until("three layers", LATER, three).await;
}

/// A path to the media port that can be changed.
async fn path(gateway: &Gateway, network: Impairment) -> (SocketAddr, watch::Sender<Impairment>) {
    let listen = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let at = listen.local_addr().unwrap();
    let (network, impairment) = watch::channel(network);
    let config = ProxyConfig { to: gateway.media, impairment, seed: 20_261 };
    tokio::spawn(serve(listen, config, mpsc::unbounded_channel().0));
    (at, network)
}

/// Switches of layers so far for one of `reasons`.
async fn switches(gateway: &Gateway, reasons: &[&str]) -> f64 {
    let metrics = gateway.metrics().await;
    let count = |reason: &&str| metrics.sum("railbird_layer_switches_total", &[("reason", reason)]);
    reasons.iter().map(count).sum()
}

const DOWN: [&str; 2] = ["down_estimate", "down_loss"];

/// Waits until the viewer has had the best layer for a while; returns how often it went
/// down before: a machine that is busy with other things looks like a narrow path too.
async fn settled(gateway: &Gateway) -> f64 {
    let quiet = async || {
        let before = (switches(gateway, &DOWN).await, switches(gateway, &["up"]).await);
        tokio::time::sleep(STAY).await;
        let after = (switches(gateway, &DOWN).await, switches(gateway, &["up"]).await);
        (before == after && after.1 >= after.0).then_some(after.0)
    };
    wait_until("the viewer stays at the best layer", LATER, quiet).await
}

/// A viewer of the best layer on a path with `loss`, which then carries only the middle
/// one, and then everything again; returns what it saw.
async fn narrow_and_widen(gateway: &Gateway, loss: f64) -> WatchReport {
    publish(gateway).await;
    let line = |rate| Impairment { loss, rate: Some(rate), ..Impairment::default() };
    let (via, network) = path(gateway, line(WIDE)).await;
    let mut config = watching(gateway, "demo", 300.0);
    config.via = Some(via);
    let (stop, stopped) = oneshot::channel::<()>();
    let stopped = async { drop(stopped.await) };
    let viewer = tokio::spawn(watch_until(config, stopped));
    gateway.wait_viewers(1).await;
    let downs = settled(gateway).await;

    network.send_replace(line(NARROW));
    let down = async || (switches(gateway, &DOWN).await > downs).then_some(());
    wait_until("the viewer goes down", LATER, down).await;
    tokio::time::sleep(STAY).await;

    let ups = switches(gateway, &["up"]).await;
    network.send_replace(line(WIDE));
    let up = async || (switches(gateway, &["up"]).await > ups).then_some(());
    wait_until("the viewer goes up by itself", LATER, up).await;
    tokio::time::sleep(STAY).await;
    stop.send(()).unwrap();
    let report = viewer.await.unwrap().unwrap();
    eprintln!("{report:?}");
    report
}

/// Asserts that a viewer saw the best layer, then lower ones and higher ones again, each
/// from a keyframe on, that no picture was not whole, and that none stood still.
fn assert_followed(report: &WatchReport) {
    assert!(report.video.lost <= LEFT_BEHIND, "{report:?}");
    assert!(report.frames_incomplete <= TORN, "{report:?}");
    let widths: Vec<_> = report.sizes.iter().map(|size| size.width).collect();
    let lowest = widths.iter().min().unwrap();
    assert!(widths[0] == 640 && *lowest < 640 && widths.last() > Some(lowest), "{report:?}");
    // What is resent can overrun the path once more, and a busy machine can look like a
    // narrow path; but to and fro it must not go.
    assert!((3..=6).contains(&widths.len()), "{report:?}");
    assert!(report.sizes.iter().all(|size| size.keyframe), "{report:?}");
    assert_eq!((report.frames_backward, report.frames_refused), (0, 0), "{report:?}");
    assert!(report.longest_gap_ms < LONGEST_GAP_MS, "{report:?}");
    // 30 a second, but for the moments in which the queue fills.
    let usual = report.seconds * 30.0;
    assert!(report.frames_decoded as f64 > usual * 0.85, "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_follows_its_path_down_and_up_without_a_freeze() {
    let mut gateway = Gateway::start("");
    let report = narrow_and_widen(&gateway, 0.0).await;
    assert_followed(&report);
    assert_eq!(switches(&gateway, &["pause", "layer_gone", "manual"]).await, 0.0);
    gateway.assert_healthy();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_percent_of_loss_on_top_are_resent_across_the_switches() {
    let mut gateway = Gateway::start("");
    let report = narrow_and_widen(&gateway, 0.02).await;
    assert_followed(&report);
    assert!(report.video.recovered > 20, "{report:?}");
    let metrics = gateway.metrics().await;
    let resent = metrics.sum("railbird_resends_total", &[("result", "sent")]);
    assert!(resent >= report.video.recovered as f64, "{resent} for {report:?}");
    gateway.assert_healthy();
}
