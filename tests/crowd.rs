//! The load generator's crowd against the built gateway and against a server of another
//! maker: what it reports must be what happened.
#![allow(clippy::disallowed_methods, reason = "tests wait for other processes by the clock")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::clients::{Process, ffmpeg};
use common::{Dealer, Gateway, LATER};
use railbird_loadgen::crowd::report::{CrowdReport, GroupReport};
use railbird_loadgen::crowd::{self, CrowdConfig, CrowdError, Group};
use railbird_loadgen::impair::Impairment;
use railbird_loadgen::source::pattern::{self, PatternConfig};
use railbird_loadgen::source::{Clip, SourceConfig};
use railbird_loadgen::{DealerConfig, run_dealer};

/// Runs a crowd to its end.
async fn run(config: CrowdConfig) -> Result<CrowdReport, CrowdError> {
    let running = crowd::run(config, Arc::default(), std::future::pending());
    tokio::time::timeout(LATER, running).await.expect("a crowd ends in time")
}

/// A crowd at `table` that watches for three seconds.
fn crowd_at(gateway: &Gateway, table: &str, groups: Vec<Group>) -> CrowdConfig {
    let mut config = CrowdConfig::new(gateway.url(&format!("/whep/{table}")), 0);
    config.duration = Duration::from_secs(3);
    config.groups = groups;
    config
}

/// Asserts that every viewer of a group saw all of the stream, and that it was genuine.
fn assert_unharmed(group: &GroupReport) {
    assert_eq!((group.connected, group.first_frames), (group.viewers, group.viewers), "{group:?}");
    assert!(group.failures.is_empty(), "{group:?}");
    assert_eq!((group.video.lost, group.audio.lost, group.frames_damaged), (0, 0, 0), "{group:?}");
    assert_eq!((group.nacks, group.resends), (0, 0), "{group:?}");
    assert!(group.packets_verified > 0 && group.auth_failures == 0, "{group:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_viewers_get_every_packet_and_their_report_adds_up() {
    let mut gateway = Gateway::start("");
    let dealer = Dealer::start(&gateway, "demo", None).await;
    let mut config = crowd_at(&gateway, "demo", vec![Group::new("viewers", 50)]);
    (config.server_pid, config.verify, config.threads) = (Some(gateway.pid()), 0.1, 2);
    let before = dealer.frames();
    let report = run(config).await.unwrap();
    let sent = dealer.frames() - before;
    let total = &report.total;
    assert_unharmed(total);
    // Three seconds of 30 frames and 50 blocks of sound, and the group of pictures
    // that each viewer starts with. The dealer makes less of both on a machine that is
    // too busy, and sends for longer than each viewer watches.
    let frames = (sent / 3).min(80);
    assert!(total.frames >= 50 * frames, "{sent}: {total:?}");
    assert!(total.audio.packets >= 50 * frames * 3 / 2, "{sent}: {total:?}");
    assert_eq!(total.packets, total.video.packets + total.audio.packets);
    assert!(report.viewers.iter().all(|viewer| viewer.profile == "AEAD_AES_128_GCM"));
    let verified = report.viewers.iter().filter(|viewer| viewer.verified);
    assert!((5..=7).contains(&verified.clone().count()));
    for viewer in verified {
        assert!(viewer.packets_verified >= viewer.packets && viewer.keyframes > 1, "{viewer:?}");
    }
    let latency = &total.latency_ms;
    assert_eq!(latency.source, Some("abs-capture-time"));
    let (all, keyframes) = (latency.all.unwrap(), latency.keyframes.unwrap());
    // A dealer that is held up at its first frame says of the next ones that they are
    // younger than they are, and one of the future counts as none: not of all of them.
    assert!(all.max > 0.0 && all.p50 < 1000.0 && all.p99 >= all.p95, "{latency:?}");
    // Capture time comes with keyframes and twice a second.
    assert!(keyframes.samples > 0 && keyframes.samples < all.samples / 2, "{latency:?}");
    let window = &report.window;
    assert!(window.packets > 0 && window.packets < total.packets, "{window:?}");
    let server = window.server.expect("its CPU time can be read");
    assert!(server.rss_bytes > 1 << 20 && server.cores < 2.5, "{server:?}");
    // Every session was deleted.
    gateway.wait_viewers(0).await;
    gateway.assert_healthy();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_last_mile_is_repaired_and_harms_nobody_else() {
    let gateway = Gateway::start("");
    let _dealer = Dealer::start(&gateway, "demo", None).await;
    let impairment = Impairment {
        loss: 0.05,
        delay: Duration::from_millis(20),
        reorder: 0.01,
        ..Impairment::default()
    };
    let impaired = Group { impairment, ..Group::new("impaired", 25) };
    let config = crowd_at(&gateway, "demo", vec![Group::new("clean", 25), impaired]);
    let report = run(config).await.unwrap();
    let [clean, impaired] = &report.groups[..] else { panic!("{:?}", report.groups) };
    assert_unharmed(clean);
    assert_eq!(impaired.first_frames, 25, "{impaired:?}");
    assert!(impaired.video.recovered > 100 && impaired.resends > 0, "{impaired:?}");
    // Five in a hundred resends are lost too, again and again: hardly any for a second.
    assert!(impaired.video.lost * 1000 <= impaired.video.packets, "{impaired:?}");
    assert!(impaired.audio.lost > 0, "sound is not sent again: {impaired:?}");
    let p50 = |group: &GroupReport| group.latency_ms.all.unwrap().p50;
    assert!(p50(impaired) >= p50(clean) + 15.0, "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_joins_all_see_a_picture_and_those_before_see_no_harm() {
    let gateway = Gateway::start("");
    let dealer = Dealer::start(&gateway, "demo", None).await;
    let base = Group { settle: Duration::from_secs(1), ..Group::new("base", 10) };
    let storm = Group { join_rate: 500.0, ..Group::new("storm", 50) };
    let report = run(crowd_at(&gateway, "demo", vec![base, storm])).await.unwrap();
    let [base, storm] = &report.groups[..] else { panic!("{:?}", report.groups) };
    assert_unharmed(base);
    assert_unharmed(storm);
    let first = storm.first_frame_ms.unwrap();
    assert!(first.samples == 50 && first.p95 < 5_000.0, "{first:?}");
    let asked = dealer.stats.keyframe_requests.load(std::sync::atomic::Ordering::Relaxed);
    assert!(asked <= 10, "{asked} keyframes asked of the publisher");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_that_comes_too_early_waits_as_long_as_it_is_told() {
    let gateway = Gateway::start("");
    let mut config = crowd_at(&gateway, "demo", vec![Group::new("early", 5)]);
    config.duration = Duration::from_secs(1);
    let late = CrowdConfig { join_patience: Duration::from_millis(100), ..config.clone() };
    let refused = run(late).await.unwrap_err();
    assert!(matches!(&refused, CrowdError::Join(_)), "{refused}");
    assert!(refused.to_string().contains("404"), "{refused}");
    let crowd = tokio::spawn(run(config));
    let _dealer = Dealer::start(&gateway, "demo", None).await;
    let report = crowd.await.unwrap().unwrap();
    assert_unharmed(&report.total);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_ends_is_the_end_of_its_viewers() {
    let gateway = Gateway::start("");
    let dealer = Dealer::start(&gateway, "demo", None).await;
    let mut config = crowd_at(&gateway, "demo", vec![Group::new("viewers", 5)]);
    config.duration = Duration::from_secs(4);
    let crowd = tokio::spawn(run(config));
    gateway.wait_viewers(5).await;
    dealer.stop().await;
    let report = crowd.await.unwrap().unwrap();
    assert_eq!((report.total.connected, report.total.failed), (5, 5), "{:?}", report.total);
    assert_eq!(report.total.failures.get("the server closed"), Some(&5), "{:?}", report.total);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_watches_a_server_of_another_maker() {
    for codec in ["VP8", "H264"] {
        let mut server = Process::aiortc_whep(codec);
        let port = server.report().await["port"].as_u64().unwrap();
        let mut config = CrowdConfig::new(format!("http://127.0.0.1:{port}/whep/any"), 2);
        (config.duration, config.verify) = (Duration::from_secs(3), 1.0);
        let report = run(config).await.unwrap();
        let total = &report.total;
        assert_unharmed(total);
        // Of 180 frames and 300 blocks: a server in Python has its breaks on a busy machine.
        assert!(total.frames >= 30 && total.audio.packets >= 60, "{codec}: {total:?}");
        // aiortc gives no capture times: its sender reports must do.
        assert_eq!(total.latency_ms.source, Some("sender-report"), "{codec}");
        assert!(total.latency_ms.all.unwrap().samples > 0, "{codec}: {total:?}");
        for _ in 0..2 {
            assert_eq!(server.report().await["event"], "deleted");
        }
    }
}

/// Publishes `source` at `table` until the task is aborted.
async fn publish(gateway: &Gateway, table: &str, source: SourceConfig) -> tokio::task::AbortHandle {
    let url = gateway.url(&format!("/whip/{table}"));
    let config = DealerConfig { source, ..DealerConfig::new(table, url) };
    let task = tokio::spawn(run_dealer(config, std::future::pending()));
    gateway.wait_live(table).await;
    task.abort_handle()
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_each_codec_are_published_and_watched() {
    let gateway = Gateway::start("");
    let directory = tempfile::tempdir().unwrap();
    for (table, encoder, file) in [
        ("h264", "libx264", "clip.h264"),
        ("vp8", "libvpx", "vp8.ivf"),
        ("vp9", "libvpx-vp9", "vp9.ivf"),
        ("av1", "libaom-av1", "av1.ivf"),
    ] {
        let path = directory.path().join(file);
        let mut encode = std::process::Command::new(ffmpeg());
        encode.args(["-v", "error", "-f", "lavfi", "-i", "testsrc2=size=320x180:rate=25"]);
        encode.args(["-t", "2", "-g", "25", "-b:v", "300k", "-bf", "0", "-c:v", encoder]);
        if encoder.starts_with("lib") && encoder != "libx264" {
            encode.args(["-deadline", "realtime", "-cpu-used", "8", "-lag-in-frames", "0"]);
        }
        let output = encode.arg(&path).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let clip = Clip::open(&path, 25).unwrap();
        assert!((48..=50).contains(&clip.frames.len()), "{table}: {}", clip.frames.len());
        let publisher = publish(&gateway, table, SourceConfig::Clip(Arc::new(clip))).await;
        let mut config = crowd_at(&gateway, table, vec![Group::new("viewers", 2)]);
        config.verify = 1.0;
        let report = run(config).await.unwrap();
        assert_unharmed(&report.total);
        let frames = report.total.frames;
        let keyframes: u64 = report.viewers.iter().map(|viewer| viewer.keyframes).sum();
        assert!(frames >= 2 * 65 && (4..=14).contains(&keyframes), "{table}: {frames} {keyframes}");
        publisher.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_simulcast_of_the_pattern_arrives_in_three_layers() {
    let gateway = Gateway::start("");
    let layer = |(rid, width): (&str, u32)| {
        let clip = pattern::encode(&PatternConfig {
            width,
            height: width * 9 / 16,
            fps: 30,
            bitrate: width * 1000,
            keyframe_interval: Duration::from_secs(1),
            audio_bitrate: 0,
        });
        (rid.to_owned(), Arc::new(clip.unwrap()))
    };
    let layers = [("f", 640), ("h", 320)].map(layer);
    let publisher = publish(&gateway, "demo", SourceConfig::Layers(layers.to_vec())).await;
    let two = async || {
        let table = gateway.live("demo").await?;
        let layers = table["tracks"][0]["layers"].as_array()?.clone();
        (layers.len() == 2 && layers.iter().all(|layer| layer["width"] != 0)).then_some(layers)
    };
    let layers = common::wait_until("two layers", LATER, two).await;
    let widths: Vec<_> = layers.iter().map(|layer| layer["width"].as_u64()).collect();
    assert_eq!(widths, [Some(640), Some(320)], "{layers:?}");
    publisher.abort();
}
