//! WHIP and WHEP over HTTP as a client sees them that makes mistakes: each is
//! answered with the status of RFC 9725 or RFC 9110 and a problem document (RFC 9457)
//! whose words say what to do.

mod common;

use common::{Dealer, Gateway, assert_problem, assert_retry_after, text};
use reqwest::header::{CONTENT_TYPE, IF_MATCH};
use reqwest::{Method, RequestBuilder, StatusCode};

const PUBLISHER: &str = include_str!("../src/webrtc/sdp/testdata/ffmpeg_whip.sdp");
const VIEWER: &str = include_str!("../src/webrtc/sdp/testdata/safari_viewer.sdp");
/// The user fragment in [`VIEWER`].
const VIEWER_UFRAG: &str = "Yd3k";
const FRAGMENT: &str = "application/trickle-ice-sdpfrag";
const NOBODY: &str = "/whep/demo/00000000000000000000000000000000";

#[tokio::test(flavor = "multi_thread")]
async fn bad_offers_are_refused_with_words() {
    let gateway = Gateway::start("");
    let client = &gateway.client;
    for path in ["/whip/demo", "/whep/demo"] {
        let url = gateway.url(path);
        let bare = || client.post(&url).body(PUBLISHER);
        for request in [bare(), bare().header(CONTENT_TYPE, "application/json")] {
            let answer = request.send().await.unwrap();
            let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            let (headers, words) = assert_problem(answer, status, "unsupported-media-type").await;
            assert_eq!(text(&headers, "accept-post"), "application/sdp");
            assert!(words.contains("application/sdp"), "{words}");
        }
        for (garbage, because) in [
            ("", "v=0"),
            ("{\"offer\": 1}", "v=0"),
            ("v=0\r\nm=video\r\n", "line 2"),
            ("v=0\r\no=- 0 0 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n", "no media section"),
        ] {
            let answer = gateway.offer(path, garbage).send().await.unwrap();
            let (_, words) = assert_problem(answer, StatusCode::BAD_REQUEST, "bad-sdp").await;
            assert!(words.contains(because), "{garbage:?}: {words}");
        }
        let binary = client.post(&url).header(CONTENT_TYPE, "application/sdp").body(vec![0xff; 9]);
        let answer = binary.send().await.unwrap();
        assert_problem(answer, StatusCode::BAD_REQUEST, "bad-sdp").await;
        let long = gateway.offer(path, &"a=x\r\n".repeat(20_000)).send().await.unwrap();
        assert_problem(long, StatusCode::PAYLOAD_TOO_LARGE, "payload-too-large").await;
        let answer = gateway.offer(&format!("{path}%20x"), VIEWER).send().await.unwrap();
        assert_problem(answer, StatusCode::BAD_REQUEST, "bad-table-name").await;
    }
    // An offer of the wrong direction: a publisher must send.
    let answer = gateway.offer("/whip/demo", VIEWER).send().await.unwrap();
    assert_problem(answer, StatusCode::BAD_REQUEST, "no-media").await;
    let exotic = PUBLISHER.replace("H264/90000", "H263-2000/90000");
    let answer = gateway.offer("/whip/demo", &exotic).send().await.unwrap();
    let (_, words) = assert_problem(answer, StatusCode::NOT_ACCEPTABLE, "no-usable-codec").await;
    assert!(words.contains("H263-2000") && words.contains("H264"), "{words}");
    assert!(gateway.tables().await.is_empty(), "no refused offer reserves a table");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_be_sent_is_told() {
    let gateway = Gateway::start("");
    let options = |path: &str| gateway.client.request(Method::OPTIONS, gateway.url(path)).send();
    for path in ["/whip/demo", "/whep/demo"] {
        let answer = options(path).await.unwrap();
        assert_eq!(answer.status(), StatusCode::NO_CONTENT);
        assert_eq!(text(answer.headers(), "accept-post"), "application/sdp");
        assert_eq!(text(answer.headers(), "access-control-allow-origin"), "*");
        let exposed = text(answer.headers(), "access-control-expose-headers");
        assert!(exposed.contains("Accept-Post"), "{exposed}");
    }
    let answer = options(NOBODY).await.unwrap();
    assert_eq!(answer.status(), StatusCode::NO_CONTENT);
    assert_eq!(text(answer.headers(), "accept-patch"), FRAGMENT);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_not_live_is_told_with_a_time_to_ask_again() {
    let gateway = Gateway::start("");
    let answer = gateway.offer("/whep/demo", VIEWER).send().await.unwrap();
    let (headers, _) = assert_problem(answer, StatusCode::NOT_FOUND, "table-not-live").await;
    assert_retry_after(&headers);
    // A publisher that has negotiated but sends nothing yet.
    let publisher = gateway.offer("/whip/demo", PUBLISHER).send().await.unwrap();
    assert_eq!(publisher.status(), StatusCode::CREATED);
    let answer = gateway.offer("/whep/demo", VIEWER).send().await.unwrap();
    let (headers, _) = assert_problem(answer, StatusCode::CONFLICT, "table-not-live-yet").await;
    assert_retry_after(&headers);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_patched_and_deleted_by_its_rules() {
    let gateway = Gateway::start("");
    let _dealer = Dealer::start(&gateway, "demo", None).await;
    let created = gateway.offer("/whep/demo", VIEWER).send().await.unwrap();
    assert_eq!(created.status(), StatusCode::CREATED);
    assert_eq!(text(created.headers(), "content-type"), "application/sdp");
    assert_eq!(text(created.headers(), "accept-patch"), FRAGMENT);
    let (location, etag) = (
        text(created.headers(), "location").to_owned(),
        text(created.headers(), "etag").to_owned(),
    );
    assert!(location.starts_with("/whep/demo/"), "{location}");
    let answer = created.text().await.unwrap();
    let candidate = format!("{} {} typ host", gateway.media.ip(), gateway.media.port());
    assert!(answer.contains("a=ice-lite") && answer.contains(&candidate), "{answer}");

    let patch = |path: &str| {
        let request = gateway.client.patch(gateway.url(path));
        request.header(CONTENT_TYPE, FRAGMENT).body(fragment(VIEWER_UFRAG))
    };
    assert_session_rules(&gateway, &location, &etag, &patch).await;
    let renewed = restart(&gateway, &location, &etag).await;
    let old = patch(&location).header(IF_MATCH, &etag).send().await.unwrap();
    assert_problem(old, StatusCode::PRECONDITION_FAILED, "ice-session-changed").await;
    let new = gateway.client.patch(gateway.url(&location)).header(CONTENT_TYPE, FRAGMENT);
    let new = new.header(IF_MATCH, renewed).body(fragment("new1")).send().await.unwrap();
    assert_eq!(new.status(), StatusCode::NO_CONTENT, "its candidates are trickled as before");

    let delete = || gateway.client.delete(gateway.url(&location)).send();
    assert_eq!(delete().await.unwrap().status(), StatusCode::OK);
    assert_problem(delete().await.unwrap(), StatusCode::NOT_FOUND, "no-such-session").await;
    let late = patch(&location).header(IF_MATCH, etag).send().await.unwrap();
    assert_problem(late, StatusCode::NOT_FOUND, "no-such-session").await;
    assert_eq!(gateway.metrics().await.sum("railbird_viewers", &[("transport", "webrtc")]), 0.0);
}

async fn assert_session_rules(
    gateway: &Gateway,
    location: &str,
    etag: &str,
    patch: &impl Fn(&str) -> RequestBuilder,
) {
    let trickled = patch(location).header(IF_MATCH, etag).send().await.unwrap();
    assert_eq!(trickled.status(), StatusCode::NO_CONTENT);
    let unconditional = patch(location).send().await.unwrap();
    let status = StatusCode::PRECONDITION_REQUIRED;
    assert_problem(unconditional, status, "if-match-required").await;
    let wrong = patch(location).header(IF_MATCH, "\"another\"").send().await.unwrap();
    assert_problem(wrong, StatusCode::PRECONDITION_FAILED, "ice-session-changed").await;
    let json = gateway.client.patch(gateway.url(location)).header(IF_MATCH, etag).body("{}");
    let json = json.header(CONTENT_TYPE, "application/json").send().await.unwrap();
    let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    let (headers, _) = assert_problem(json, status, "unsupported-media-type").await;
    assert_eq!(text(&headers, "accept-patch"), FRAGMENT);
    let garbage = gateway.client.patch(gateway.url(location)).header(CONTENT_TYPE, FRAGMENT);
    let garbage = garbage.header(IF_MATCH, etag).body("garbage").send().await.unwrap();
    assert_problem(garbage, StatusCode::BAD_REQUEST, "bad-sdp").await;
    // Not there, not a session's name, and there but under another table or protocol.
    let elsewhere = location.replace("/demo/", "/other/");
    let publisher = location.replace("/whep/", "/whip/");
    for path in [NOBODY, "/whip/demo/x", &elsewhere, &publisher] {
        let patched = patch(path).header(IF_MATCH, etag).send().await.unwrap();
        assert_problem(patched, StatusCode::NOT_FOUND, "no-such-session").await;
        let deleted = gateway.client.delete(gateway.url(path)).send().await.unwrap();
        assert_problem(deleted, StatusCode::NOT_FOUND, "no-such-session").await;
    }
}

/// Restarts ICE (RFC 9725 §4.3.3); returns the new entity tag.
async fn restart(gateway: &Gateway, location: &str, etag: &str) -> String {
    let request = gateway.client.patch(gateway.url(location)).header(CONTENT_TYPE, FRAGMENT);
    let answer = request.header(IF_MATCH, etag).body(fragment("new1")).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(text(answer.headers(), "content-type"), FRAGMENT);
    let renewed = text(answer.headers(), "etag").to_owned();
    assert_ne!(renewed, etag);
    let body = answer.text().await.unwrap();
    let value = |name: &str| body.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    assert_eq!(format!("\"{}\"", value("a=ice-ufrag:")), renewed, "{body}");
    assert!(value("a=ice-pwd:").len() >= 22, "{body}");
    assert!(value("a=candidate:").contains(&gateway.media.port().to_string()), "{body}");
    renewed
}

/// A client's trickled candidate, of the ICE session with this user fragment.
fn fragment(ufrag: &str) -> String {
    format!(
        "a=ice-ufrag:{ufrag}\r\na=ice-pwd:k0Uq8zFvWn5BfT2oXs7RjHcL\r\n\
         m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\n\
         a=candidate:1 1 udp 2130706431 192.0.2.9 50000 typ host\r\n"
    )
}
