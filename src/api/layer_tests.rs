//! The layer extension over the real routes, with a publisher that announces three
//! layers of which two flow.

use std::net::{IpAddr, Ipv4Addr};
use std::task::Waker;
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::{Method, Request};
use bytes::Bytes;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::*;
use crate::api::sessions;
use crate::codec::Codec;
use crate::hub::{PublishRequest, Publisher, Registry};
use crate::ingest::whip::ReceiverSettings;
use crate::media::Packet;
use crate::net::udp::UdpSettings;
use crate::qos::Metrics;
use crate::rtp::extensions::PlayoutDelay;
use crate::time::{Clock, Utc};
use crate::webrtc::dtls::DtlsIdentity;
use crate::webrtc::transport::TransportTimeouts;
use crate::worker::{HeadroomLimits, MediaPool, PoolSettings, SessionLimits};

const OFFER: &str = include_str!("../webrtc/sdp/testdata/safari_viewer.sdp");

struct Rig {
    router: Router,
    pool: Arc<MediaPool>,
    _publisher: Publisher,
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.pool.shutdown();
    }
}

fn rig(rids: &[&str]) -> Rig {
    let registry = Registry::new(1);
    let publisher = publisher(&registry, rids);
    let tables = Tables::new(registry.clone(), |_, _| 0);
    let clock = Clock::system();
    let metrics = Metrics::new();
    let pool = pool(clock, metrics.clone());
    let api = MediaApi { registry, pool: pool.clone(), tables: tables.clone(), metrics, clock };
    let mut rig = Rig { router: sessions::router(Arc::new(api)), pool, _publisher: publisher };
    let now = Instant::now();
    for second in 0..3 {
        tables.sample(now + Duration::from_secs(second));
        for frame in 0..30 {
            for layer in 0..rids.len().min(2) as u8 {
                let packet = packet(second * 30 + frame, 500 * (usize::from(layer) + 1), now);
                rig._publisher.push(LayerId { track: 1, layer }, packet);
            }
        }
    }
    rig
}

fn publisher(registry: &Arc<Registry>, rids: &[&str]) -> Publisher {
    let track = |codec, channels, fmtp: &str, rids: &[&str]| TrackInfo {
        codec,
        channels,
        fmtp: fmtp.to_owned(),
        rids: rids.iter().map(|rid| (*rid).to_owned()).collect(),
    };
    let video = "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f";
    let request = PublishRequest {
        table: "demo".parse().unwrap(),
        tracks: vec![
            track(Codec::Opus, 2, "minptime=10;useinbandfec=1", &[""]),
            track(Codec::H264, 0, video, rids),
        ],
        credentials: None,
        now: Utc::from_micros(0),
        waker: Waker::noop().clone(),
    };
    registry.publish(request).unwrap()
}

fn packet(seq: u64, bytes: usize, received: Instant) -> Packet {
    Packet {
        seq,
        timestamp: seq * 3000,
        marker: true,
        keyframe: seq == 0,
        capture: Utc::from_micros(0),
        received,
        payload: Bytes::from(vec![0; bytes]),
    }
}

fn pool(clock: Clock, metrics: Metrics) -> Arc<MediaPool> {
    let settings = PoolSettings {
        workers: 1,
        udp: UdpSettings { buffer_bytes: 0, ..UdpSettings::default() },
        addresses: vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
        limits: SessionLimits { viewers: 10, publishers: 1 },
        headroom: HeadroomLimits { worker_load: 0.0, egress_bps: 0 },
        timeouts: TransportTimeouts {
            connect: Duration::from_secs(60),
            consent: Duration::from_secs(60),
        },
        ingest_timeout: Duration::from_secs(60),
        receiver: ReceiverSettings::default(),
        playout_delay: PlayoutDelay::from_millis(0, 200),
    };
    let identity = DtlsIdentity::generate().unwrap();
    MediaPool::start(settings, identity, clock, metrics).unwrap()
}

impl Rig {
    async fn send(&self, method: Method, path: &str, kind: &str, body: &str) -> (Response, Value) {
        let request = Request::builder().method(method).uri(path).header("content-type", kind);
        let request = request.body(Body::from(body.to_owned())).unwrap();
        let (parts, body) = self.router.clone().oneshot(request).await.unwrap().into_parts();
        let body = axum::body::to_bytes(body, 1 << 16).await.unwrap();
        let value = serde_json::from_slice(&body).unwrap_or(Value::Null);
        (Response::from_parts(parts, Body::empty()), value)
    }

    /// Posts an offer; returns the session's address and its `Link`.
    async fn watch(&self) -> (String, Option<String>) {
        let (answer, _) = self.send(Method::POST, "/whep/demo", "application/sdp", OFFER).await;
        assert_eq!(answer.status(), StatusCode::CREATED);
        let text = |name: header::HeaderName| {
            answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned())
        };
        (text(header::LOCATION).unwrap(), text(header::LINK))
    }

    async fn choose(&self, layer: &str, choice: Value) -> (StatusCode, Value) {
        let (answer, body) = self.send(Method::POST, layer, JSON, &choice.to_string()).await;
        (answer.status(), body)
    }
}

/// The mid of the only section that a document is about.
fn mid(document: &Value) -> String {
    let mids: Vec<&String> = document.as_object().unwrap().keys().collect();
    assert_eq!(mids.len(), 1, "audio has no layers to choose from: {document}");
    mids[0].clone()
}

#[tokio::test]
async fn the_layers_are_listed_where_the_answer_links_to() {
    let rig = rig(&["q", "h", "f"]);
    let (location, link) = rig.watch().await;
    let layer = format!("{location}/layer");
    let expected = format!("<{layer}>; rel=\"urn:ietf:params:whep:ext:core:layer\"");
    assert_eq!(link.as_deref(), Some(&*expected));
    let (answer, document) = rig.send(Method::GET, &layer, "", "").await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.headers()[header::CONTENT_TYPE], JSON);
    assert_eq!(answer.headers()[header::CACHE_CONTROL], "no-store");
    let mid = mid(&document);
    assert_eq!(
        document[&mid],
        json!({
            "active": [
                {"id": "q", "simulcastIdx": 0, "fps": 30.0, "bitrate": 120_000},
                {"id": "h", "simulcastIdx": 1, "fps": 30.0, "bitrate": 240_000},
            ],
            "inactive": [{"id": "f", "simulcastIdx": 2, "fps": 0.0, "bitrate": 0}],
            "layers": [
                {"encodingId": "q", "simulcastIdx": 0, "fps": 30.0, "bitrate": 120_000},
                {"encodingId": "h", "simulcastIdx": 1, "fps": 30.0, "bitrate": 240_000},
            ],
            "chosen": null, "sent": null, "paused": false,
        })
    );
    let (options, _) = rig.send(Method::OPTIONS, &layer, "", "").await;
    assert_eq!(options.status(), StatusCode::NO_CONTENT);
    assert_eq!(options.headers()["accept-post"], JSON);
}

#[tokio::test]
async fn a_single_layer_is_no_choice_and_is_not_linked() {
    let rig = rig(&[""]);
    let (location, link) = rig.watch().await;
    assert_eq!(link, None);
    let (answer, document) = rig.send(Method::GET, &format!("{location}/layer"), "", "").await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(document[mid(&document)]["layers"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_layer_is_chosen_and_given_back() {
    let rig = rig(&["q", "h", "f"]);
    let layer = format!("{}/layer", rig.watch().await.0);
    let (_, document) = rig.send(Method::GET, &layer, "", "").await;
    let mid = mid(&document);
    let (status, document) = rig.choose(&layer, json!({"mediaId": mid, "encodingId": "h"})).await;
    assert_eq!((status, &document[&mid]["chosen"]), (StatusCode::OK, &json!("h")));
    // A section need not be named; members for layers within an encoding are left unread.
    let choice = json!({"encodingId": "f", "temporalLayerId": 1, "maxSpatialLayerId": 2});
    let (status, document) = rig.choose(&layer, choice).await;
    assert_eq!((status, &document[&mid]["chosen"]), (StatusCode::OK, &json!("f")));
    for automatic in [json!({}), json!({"mediaId": mid, "encodingId": null})] {
        rig.choose(&layer, json!({"encodingId": "q"})).await;
        let (status, document) = rig.choose(&layer, automatic).await;
        assert_eq!((status, &document[&mid]["chosen"]), (StatusCode::OK, &Value::Null));
    }
    rig.choose(&layer, json!({"encodingId": "q"})).await;
    let (answer, document) = rig.send(Method::DELETE, &layer, "", "").await;
    assert_eq!((answer.status(), &document[&mid]["chosen"]), (StatusCode::OK, &Value::Null));
}

#[tokio::test]
async fn what_cannot_be_chosen_is_refused_and_changes_nothing() {
    let rig = rig(&["q", "h", "f"]);
    let location = rig.watch().await.0;
    let layer = format!("{location}/layer");
    let (status, document) = rig.choose(&layer, json!({"encodingId": "h"})).await;
    assert_eq!(status, StatusCode::OK);
    let mid = mid(&document);
    let kind = |body: &Value| body["type"].as_str().unwrap().rsplit(':').next().unwrap().to_owned();
    let unprocessable = StatusCode::UNPROCESSABLE_ENTITY;
    for (choice, status, expected) in [
        (json!({"encodingId": "x"}), unprocessable, "no-such-layer"),
        (json!({"encodingId": ""}), unprocessable, "no-such-layer"),
        (json!({"mediaId": "9", "encodingId": "h"}), unprocessable, "no-such-layer"),
        (json!({"encodingId": 1}), StatusCode::BAD_REQUEST, "bad-layer-choice"),
        (json!(["h"]), StatusCode::BAD_REQUEST, "bad-layer-choice"),
        (
            json!({"encodingId": "x".repeat(2000)}),
            StatusCode::PAYLOAD_TOO_LARGE,
            "payload-too-large",
        ),
    ] {
        let (got, body) = rig.choose(&layer, choice.clone()).await;
        assert_eq!((got, &*kind(&body)), (status, expected), "{choice}");
    }
    let (answer, body) = rig.send(Method::POST, &layer, "text/plain", "{}").await;
    assert_eq!(answer.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert_eq!(answer.headers()["accept-post"], JSON);
    assert_eq!(kind(&body), "unsupported-media-type");
    let (_, document) = rig.send(Method::GET, &layer, "", "").await;
    assert_eq!(document[&mid]["chosen"], "h");
    // Sessions that are not there, or not a viewer's of this table.
    let (elsewhere, nobody) = (location.replace("/demo/", "/other/"), "/whep/demo/0");
    for path in [&elsewhere, nobody] {
        let path = format!("{path}/layer");
        for method in [Method::GET, Method::POST, Method::DELETE] {
            let (answer, body) = rig.send(method, &path, JSON, "{}").await;
            assert_eq!(answer.status(), StatusCode::NOT_FOUND);
            assert_eq!(kind(&body), "no-such-session");
        }
    }
}
