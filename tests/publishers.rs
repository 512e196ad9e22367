//! Who may publish a table, how a publication ends, and how many there may be:
//! real publishers, and viewers that notice.
#![allow(clippy::disallowed_methods, reason = "tests measure and pace by the clock")]

mod common;

use std::time::{Duration, Instant};

use common::clients::Process;
use common::{
    AT_ONCE, Dealer, Gateway, SILENCE_NOTICED, assert_problem, assert_retry_after, text,
    wait_until, watching,
};
use railbird_loadgen::{WatchError, WatchReport, watch};
use reqwest::StatusCode;
use tokio::task::JoinSet;

const PUBLISHER: &str = include_str!("../src/webrtc/sdp/testdata/ffmpeg_whip.sdp");
const VIEWER: &str = include_str!("../src/webrtc/sdp/testdata/safari_viewer.sdp");

/// Viewers that would watch for longer than any test.
struct Audience {
    /// Is told of the end by DTLS.
    told: Process,
    /// Of the `webrtc` crate; notice silence.
    others: JoinSet<(Result<WatchReport, WatchError>, Instant)>,
}

impl Audience {
    /// How many they are.
    const SIZE: usize = 3;

    /// Joins; returns once all are connected.
    async fn join(gateway: &Gateway, table: &str) -> Self {
        let url = gateway.url(&format!("/whep/{table}"));
        let mut told = Process::aiortc(&["watch", &url, "audio,video", "100000"]);
        let mut others = JoinSet::new();
        for _ in 1..Self::SIZE {
            let mut config = watching(gateway, table, 600.0);
            config.decode = false;
            others.spawn(async { (watch(config).await, Instant::now()) });
        }
        told.wait_for_state("connected").await;
        gateway.wait_viewers(Self::SIZE).await;
        Self { told, others }
    }

    fn assert_watching(&mut self) {
        assert!(self.told.is_running());
        assert!(self.others.try_join_next().is_none());
    }

    /// Asserts that the sessions of all end for `stream_ended` at once after `begun`.
    async fn assert_ended(mut self, gateway: &Gateway, begun: Instant) {
        self.told.wait_for_state("closed").await;
        assert!(begun.elapsed() < AT_ONCE, "told after {:?}", begun.elapsed());
        wait_until(
            "all sessions have ended",
            AT_ONCE.saturating_sub(begun.elapsed()),
            async || {
                let ended = gateway.metrics().await.ended("viewer", "stream_ended");
                (ended == Self::SIZE as f64).then_some(())
            },
        )
        .await;
        while let Some(ended) = self.others.join_next().await {
            let (outcome, at) = ended.unwrap();
            assert!(matches!(outcome, Err(WatchError::Ended(_))), "{outcome:?}");
            let after = at.saturating_duration_since(begun);
            assert!(after < SILENCE_NOTICED, "{after:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_belongs_to_its_publisher_and_the_same_token_takes_it_over() {
    let mut gateway = Gateway::start("");
    let url = gateway.url("/whip/demo");
    let mut first = Process::ffmpeg_publisher(&url, &["-authorization", "secret"]);
    let started = gateway.wait_live("demo").await["startedAt"].clone();
    let mut audience = Audience::join(&gateway, "demo").await;
    let again = || gateway.offer("/whip/demo", PUBLISHER);
    for refused in [again(), again().bearer_auth("other"), again().bearer_auth("")] {
        let answer = refused.send().await.unwrap();
        let (headers, _) = assert_problem(answer, StatusCode::CONFLICT, "table-taken").await;
        assert_retry_after(&headers);
    }
    assert!(first.is_running());
    audience.assert_watching();
    assert_eq!(gateway.live("demo").await.unwrap()["startedAt"], started);

    let begun = Instant::now();
    let second = again().bearer_auth("secret").send().await.unwrap();
    assert_eq!(second.status(), StatusCode::CREATED);
    audience.assert_ended(&gateway, begun).await;
    assert_eq!(gateway.metrics().await.ended("publisher", "replaced"), 1.0);
    // The offer above was never followed by media; a dealer that is serious takes it over.
    let dealer = Dealer::start(&gateway, "demo", Some("secret")).await;
    assert_ne!(gateway.live("demo").await.unwrap()["startedAt"], started);
    // Long enough to ask for a keyframe, should the client's keys come after the first one.
    let report = watch(watching(&gateway, "demo", 3.0)).await.unwrap();
    assert!(report.frames_decoded > 0, "{report:?}");
    dealer.stop().await;
    gateway.assert_healthy();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_that_leaves_ends_its_viewers_at_once() {
    let gateway = Gateway::start("");
    let dealer = Dealer::start(&gateway, "demo", None).await;
    let audience = Audience::join(&gateway, "demo").await;
    let begun = Instant::now();
    dealer.stop().await;
    audience.assert_ended(&gateway, begun).await;
    assert!(gateway.tables().await.is_empty());
    assert_eq!(gateway.metrics().await.ended("publisher", "closed_by_peer"), 1.0);
    let answer = gateway.offer("/whep/demo", VIEWER).send().await.unwrap();
    assert_problem(answer, StatusCode::NOT_FOUND, "table-not-live").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_that_dies_silently_ends_after_the_ingest_timeout() {
    let gateway = Gateway::start("ingest_timeout = \"2s\"\n");
    let mut ffmpeg = Process::ffmpeg_publisher(&gateway.url("/whip/demo"), &[]);
    gateway.wait_live("demo").await;
    let audience = Audience::join(&gateway, "demo").await;
    ffmpeg.kill();
    let after = gateway.wait_gone("demo").await;
    let gone = Instant::now();
    assert!(after > Duration::from_millis(1500), "ended after {after:?}, before its time");
    assert!(after < Duration::from_secs(5), "ended after {after:?}");
    audience.assert_ended(&gateway, gone).await;
    assert_eq!(gateway.metrics().await.ended("publisher", "ingest_timeout"), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn viewers_past_the_limit_are_refused_until_one_leaves() {
    let gateway = Gateway::start("max_viewers = 2\n");
    let _dealer = Dealer::start(&gateway, "demo", None).await;
    let join = || gateway.offer("/whep/demo", VIEWER).send();
    let first = join().await.unwrap();
    let second = join().await.unwrap();
    assert_eq!((first.status(), second.status()), (StatusCode::CREATED, StatusCode::CREATED));
    let third = join().await.unwrap();
    let status = StatusCode::SERVICE_UNAVAILABLE;
    let (headers, _) = assert_problem(third, status, "too-many-viewers").await;
    assert_retry_after(&headers);
    let resource = gateway.url(text(first.headers(), "location"));
    assert_eq!(gateway.client.delete(resource).send().await.unwrap().status(), StatusCode::OK);
    assert_eq!(join().await.unwrap().status(), StatusCode::CREATED);
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_past_the_limit_are_refused_but_a_full_gateway_can_be_taken_over() {
    let gateway = Gateway::start("max_tables = 1\n");
    let mut first =
        Process::ffmpeg_publisher(&gateway.url("/whip/one"), &["-authorization", "secret"]);
    gateway.wait_live("one").await;
    let offer = |table: &str| gateway.offer(&format!("/whip/{table}"), PUBLISHER);
    let answer = offer("two").send().await.unwrap();
    let status = StatusCode::SERVICE_UNAVAILABLE;
    let (headers, _) = assert_problem(answer, status, "too-many-tables").await;
    assert_retry_after(&headers);
    let answer = offer("one").send().await.unwrap();
    assert_problem(answer, StatusCode::CONFLICT, "table-taken").await;
    // The provider's encoder restarts: the table is its own, so there is room for it.
    first.kill();
    let answer = offer("one").bearer_auth("secret").send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::CREATED);
    let resource = gateway.url(text(answer.headers(), "location"));
    assert_eq!(gateway.client.delete(resource).send().await.unwrap().status(), StatusCode::OK);
    gateway.wait_gone("one").await;
    assert_eq!(offer("two").send().await.unwrap().status(), StatusCode::CREATED);
}
