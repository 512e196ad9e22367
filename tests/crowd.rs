//! The load generator's crowd against the built gateway and against a server of another
//! maker: what it reports must be what happened.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::clients::Process;
use common::{Dealer, Gateway, LATER};
use railbird_loadgen::crowd::report::{CrowdReport, GroupReport};
use railbird_loadgen::crowd::{self, CrowdConfig, CrowdError, Group};
use railbird_loadgen::impair::Impairment;

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
    let _dealer = Dealer::start(&gateway, "demo", None).await;
    let mut config = crowd_at(&gateway, "demo", vec![Group::new("viewers", 50)]);
    (config.server_pid, config.verify, config.threads) = (Some(gateway.pid()), 0.1, 2);
    let report = run(config).await.unwrap();
    let total = &report.total;
    assert_unharmed(total);
    // Three seconds of 30 frames and 50 blocks of sound, and the group of pictures
    // that each viewer starts with.
    assert!(total.frames >= 50 * 80 && total.audio.packets >= 50 * 140, "{total:?}");
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
    assert!(all.p50 > 0.0 && all.p50 < 1000.0 && all.p99 >= all.p95, "{latency:?}");
    assert!(keyframes.samples > 0 && keyframes.samples < all.samples / 10, "{latency:?}");
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
        assert!(total.frames >= 100 && total.audio.packets >= 200, "{codec}: {total:?}");
        // aiortc gives no capture times: its sender reports must do.
        assert_eq!(total.latency_ms.source, Some("sender-report"), "{codec}");
        assert!(total.latency_ms.all.unwrap().samples > 50, "{codec}: {total:?}");
        for _ in 0..2 {
            assert_eq!(server.report().await["event"], "deleted");
        }
    }
}
