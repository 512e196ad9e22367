//! Admission by headroom, black box: a gateway whose bandwidth is taken refuses new
//! viewers, says so, serves those who are there, and takes new ones when they have gone.

mod common;

use std::collections::BTreeSet;

use common::{Dealer, Gateway, LATER, SOON, assert_whole, wait_until, watching};
use railbird_loadgen::watch;
use reqwest::StatusCode;
use serde_json::Value;

/// Offers that are good enough to be admitted.
const PUBLISHER: &str = include_str!("../src/webrtc/sdp/testdata/ffmpeg_whip.sdp");
const VIEWER: &str = include_str!("../src/webrtc/sdp/testdata/safari_viewer.sdp");

async fn readiness(gateway: &Gateway) -> (StatusCode, String) {
    let url = format!("http://{}/healthz/ready", gateway.admin);
    let answer = gateway.client.get(url).send().await.unwrap();
    (answer.status(), answer.text().await.unwrap())
}

/// Waits until the bitrate of the table's video is known, which takes two samples.
async fn wait_rate(gateway: &Gateway) -> f64 {
    wait_until("the table's rate is known", SOON, async || {
        let table = gateway.live("demo").await?;
        let bitrate = table["tracks"][0]["layers"][0]["bitrate"].as_f64()?;
        (bitrate > 50_000.0).then_some(bitrate)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_without_bandwidth_refuses_viewers_until_there_is_some() {
    // Room for a dozen viewers or so of the small table.
    let mut gateway = Gateway::start("max_egress_bps = 10_000_000\nmax_worker_load = 0\n");
    let _dealer = Dealer::start(&gateway, "demo", None).await;
    assert_eq!(readiness(&gateway).await.0, StatusCode::OK);
    wait_rate(&gateway).await;
    let mut watching_now = Vec::new();
    loop {
        let mut config = watching(&gateway, "demo", 12.0);
        config.decode = false;
        let viewer = tokio::spawn(watch(config));
        let admitted = wait_until("the viewer is admitted or refused", LATER, async || {
            let viewers = gateway.metrics().await.sum("railbird_worker_viewers", &[]);
            let joined = viewers > watching_now.len() as f64;
            (joined || viewer.is_finished()).then_some(joined)
        })
        .await;
        if !admitted {
            assert!(viewer.await.unwrap().is_err());
            break;
        }
        watching_now.push(viewer);
        assert!(watching_now.len() < 60, "nobody is refused");
    }
    assert!(!watching_now.is_empty());
    let mut pauses = BTreeSet::new();
    for _ in 0..12 {
        let answer = gateway.offer("/whep/demo", VIEWER).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        let pause: u32 = answer.headers()["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((5..=15).contains(&pause), "{pause}");
        pauses.insert(pause);
        let problem: Value = answer.json().await.unwrap();
        assert_eq!(problem["type"], "urn:railbird:problem:no-headroom", "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains("bandwidth"), "{problem}");
    }
    assert!(pauses.len() > 1, "refused viewers come back at once: {pauses:?}");

    let said = wait_until("readiness says so", SOON, async || {
        let (status, body) = readiness(&gateway).await;
        (status == StatusCode::SERVICE_UNAVAILABLE).then_some(body)
    })
    .await;
    assert!(said.contains("egress is full") && said.contains("of 10.0 Mbit/s"), "{said}");
    let metrics = gateway.metrics().await;
    let labels = [("kind", "viewer"), ("reason", "egress")];
    assert!(metrics.sum("railbird_sessions_refused_total", &labels) >= 13.0);
    assert_eq!(metrics.sum("railbird_egress_headroom_ratio", &[]), 0.0);
    assert_eq!(metrics.sum("railbird_egress_limit_bps", &[]), 10e6);
    assert_eq!(metrics.sum("railbird_ready", &[]), 0.0);
    assert_eq!(metrics.sum("railbird_worker_viewers", &[]), watching_now.len() as f64);

    for viewer in watching_now {
        assert_whole(&viewer.await.unwrap().unwrap());
    }
    wait_until("the gateway is ready again", LATER, async || {
        (readiness(&gateway).await.0 == StatusCode::OK).then_some(())
    })
    .await;
    let answer = gateway.offer("/whep/demo", VIEWER).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::CREATED);
    gateway.assert_healthy();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_joins_stops_at_the_bandwidth_though_none_is_used_yet() {
    let gateway = Gateway::start("max_egress_bps = 30_000_000\nmax_worker_load = 0\n");
    let _dealer = Dealer::start(&gateway, "demo", None).await;
    let bitrate = wait_rate(&gateway).await;
    let mut admitted = 0;
    loop {
        let answer = gateway.offer("/whep/demo", VIEWER).send().await.unwrap();
        if answer.status() != StatusCode::CREATED {
            break;
        }
        admitted += 1;
        assert!(f64::from(admitted) * bitrate * 0.5 < 27e6, "{admitted} were admitted");
    }
    assert!(admitted > 5, "{admitted} of {bitrate} bit/s");
    let metrics = gateway.metrics().await;
    assert_eq!(metrics.sum("railbird_egress_bytes_total", &[("transport", "webrtc")]), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_counted_by_what_is_full() {
    let gateway = Gateway::start("max_tables = 1\nmax_viewers = 1\n");
    let _dealer = Dealer::start(&gateway, "demo", None).await;
    let mut refused = Vec::new();
    for (path, offer) in [("/whip/two", PUBLISHER), ("/whep/demo", VIEWER), ("/whep/demo", VIEWER)]
    {
        refused.push(gateway.offer(path, offer).send().await.unwrap().status().as_u16());
    }
    assert_eq!(refused, [503, 201, 503]);
    let metrics = gateway.metrics().await;
    for (kind, reason) in [("publisher", "tables"), ("viewer", "viewers")] {
        let labels = [("kind", kind), ("reason", reason)];
        assert_eq!(metrics.sum("railbird_sessions_refused_total", &labels), 1.0, "{reason}");
    }
    let said = wait_until("readiness says so", SOON, async || {
        let (status, body) = readiness(&gateway).await;
        (status == StatusCode::SERVICE_UNAVAILABLE).then_some(body)
    })
    .await;
    assert!(said.contains("as many viewers as media.max_viewers allows"), "{said}");
}
