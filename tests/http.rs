//! The HTTP surfaces from the outside: a whole gateway on free ports of loopback,
//! asked by an independent client.
#![allow(clippy::disallowed_methods, reason = "a bound for what must not hang")]

use std::net::SocketAddr;
use std::time::Duration;

use railbird::app::{App, Options};
use railbird::config::{self, Config};
use reqwest::{Client, Method, StatusCode, Version};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

fn config(extra: &str) -> Config {
    let text = format!(
        "[admin]\nlisten = \"127.0.0.1:0\"\n[media]\nport = 0\naddresses = [\"127.0.0.1\"]\n\
         [http]\nlisten = [\"127.0.0.1:0\"]\n{extra}"
    );
    config::parse("test", &text, []).unwrap()
}

async fn start(extra: &str) -> App {
    App::start(&config(extra), Options::default()).await.unwrap()
}

fn public(app: &App) -> String {
    format!("http://{}", app.http()[0])
}

async fn problem(response: reqwest::Response, status: StatusCode, kind: &str) -> Value {
    assert_eq!(response.status(), status);
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    assert_eq!(response.headers()["access-control-allow-origin"], "*");
    let document: Value = response.json().await.unwrap();
    assert_eq!(document["type"], format!("urn:railbird:problem:{kind}"));
    assert_eq!(document["status"], status.as_u16());
    document
}

#[tokio::test]
async fn errors_are_problem_documents() {
    let app = start("max_body_bytes = 2048\n").await;
    let (client, base) = (Client::new(), public(&app));
    let missing = client.get(format!("{base}/nothing/here")).send().await.unwrap();
    problem(missing, StatusCode::NOT_FOUND, "not-found").await;
    let bad_name = client.get(format!("{base}/play/a%20b")).send().await.unwrap();
    assert!(bad_name.status() == StatusCode::NOT_FOUND);

    let wrong = client.post(format!("{base}/api/tables")).send().await.unwrap();
    assert!(wrong.headers()["allow"].to_str().unwrap().contains("GET"));
    problem(wrong, StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed").await;

    let long = client.post(format!("{base}/api/tables")).body(vec![b'x'; 2049]);
    problem(long.send().await.unwrap(), StatusCode::PAYLOAD_TOO_LARGE, "payload-too-large").await;
    app.stop().await;
}

#[tokio::test]
async fn a_body_without_length_is_cut_off_at_the_limit() {
    let app = start("max_body_bytes = 2048\n").await;
    let mut stream = TcpStream::connect(app.http()[0]).await.unwrap();
    let chunk = format!("800\r\n{}\r\n", "x".repeat(2048));
    let head = "POST /api/tables HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(format!("{head}{chunk}{chunk}").as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413");
    app.stop().await;
}

#[tokio::test]
async fn pages_of_other_origins_may_use_it() {
    let app = start("").await;
    let (client, base) = (Client::new(), public(&app));
    let preflight = client
        .request(Method::OPTIONS, format!("{base}/api/tables"))
        .header("Origin", "https://casino.example")
        .header("Access-Control-Request-Method", "GET")
        .send()
        .await
        .unwrap();
    assert_eq!(preflight.status(), StatusCode::NO_CONTENT);
    let headers = preflight.headers();
    assert_eq!(headers["access-control-allow-origin"], "*");
    assert!(headers["access-control-allow-methods"].to_str().unwrap().contains("PATCH"));
    assert!(headers["access-control-allow-headers"].to_str().unwrap().contains("If-Match"));

    let tables = client.get(format!("{base}/api/tables")).send().await.unwrap();
    assert!(tables.headers()["access-control-expose-headers"].to_str().unwrap().contains("ETag"));
    assert_eq!(tables.json::<Value>().await.unwrap(), serde_json::json!([]));
    app.stop().await;
}

#[tokio::test]
async fn players_of_other_origins_may_read_ranges_of_media() {
    let app = start("").await;
    let (client, url) = (Client::new(), format!("{}/hls/none/index.m3u8", public(&app)));
    let get = client.get(&url).send().await.unwrap();
    let exposed = get.headers()["access-control-expose-headers"].to_str().unwrap();
    for name in ["Content-Range", "Content-Length", "Retry-After", "ETag"] {
        assert!(exposed.contains(name), "{name} is not in {exposed}");
    }
    let preflight = client.request(Method::OPTIONS, &url).header("Origin", "https://x.example");
    let preflight = preflight.header("Access-Control-Request-Method", "GET").send().await.unwrap();
    assert_eq!(preflight.status(), StatusCode::NO_CONTENT);
    let allowed = preflight.headers()["access-control-allow-headers"].to_str().unwrap();
    assert!(allowed.contains("Range"), "{allowed}");
    app.stop().await;
}

#[tokio::test]
async fn pages_come_with_a_strict_policy_and_are_not_sent_twice() {
    let app = start("").await;
    let (client, base) = (Client::new(), public(&app));
    let page = client.get(&base).send().await.unwrap();
    assert_eq!(page.status(), StatusCode::OK);
    assert_eq!(page.headers()["content-type"], "text/html; charset=utf-8");
    assert_eq!(page.headers()["x-content-type-options"], "nosniff");
    let policy = page.headers()["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("default-src 'self'") && policy.contains("media-src 'self' blob:"));
    let again = client.get(&base).header("If-None-Match", &page.headers()["etag"]);
    assert_eq!(again.send().await.unwrap().status(), StatusCode::NOT_MODIFIED);
    app.stop().await;
}

#[tokio::test]
async fn a_trace_is_taken_up() {
    let app = start("").await;
    let id = "4bf92f3577b34da6a3ce929d0e0e4736";
    let answer = Client::new()
        .get(format!("{}/api/tables", public(&app)))
        .header("traceparent", format!("00-{id}-00f067aa0ba902b7-01"))
        .send()
        .await
        .unwrap();
    assert!(answer.headers()["traceparent"].to_str().unwrap().starts_with(&format!("00-{id}-")));
    app.stop().await;
}

#[tokio::test]
async fn operators_see_health_metrics_and_tables() {
    let app = start("").await;
    let (client, base) = (Client::new(), format!("http://{}", app.admin()));
    let get = |path: &str| client.get(format!("{base}{path}")).send();
    assert_eq!(get("/healthz/live").await.unwrap().status(), StatusCode::OK);
    assert_eq!(get("/tables").await.unwrap().json::<Value>().await.unwrap(), serde_json::json!([]));
    let metrics = get("/metrics").await.unwrap();
    assert!(
        metrics.headers()["content-type"].to_str().unwrap().starts_with("text/plain; version=")
    );
    let text = metrics.text().await.unwrap();
    for start in [
        "railbird_build_info{version=",
        "railbird_http_connections{listener=\"admin\"} 1",
        "railbird_http_requests_total{listener=\"admin\",route=\"/healthz/live\",status=\"2xx\"} 1",
    ] {
        assert!(text.lines().any(|line| line.starts_with(start)), "no {start} in\n{text}");
    }
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (series, value) = line.rsplit_once(' ').unwrap();
        assert!(series.starts_with("railbird_") && value.parse::<f64>().is_ok(), "{line}");
    }
    assert_eq!(get("/nothing").await.unwrap().status(), StatusCode::NOT_FOUND);
    app.stop().await;
}

#[tokio::test]
async fn http2_without_tls_works_by_prior_knowledge() {
    let app = start("").await;
    let client = Client::builder().http2_prior_knowledge().build().unwrap();
    let answer = client.get(format!("{}/api/tables", public(&app))).send().await.unwrap();
    assert_eq!((answer.status(), answer.version()), (StatusCode::OK, Version::HTTP_2));
    app.stop().await;
}

#[tokio::test]
async fn a_client_that_asks_nothing_is_disconnected() {
    let app = start("header_timeout = \"100ms\"\n").await;
    // Nothing, half of a head, and half of the HTTP/2 preface, which looks like neither.
    for sent in ["", "GET / HTTP/1.1\r\nHo", "PRI"] {
        let mut stream = TcpStream::connect(app.http()[0]).await.unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let end = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut answer));
        // An answer of 408 or none, but an end, orderly or by reset.
        let _ = end.await.expect("the connection is still open");
    }
    app.stop().await;
}

#[tokio::test]
async fn a_later_head_that_never_ends_is_cut_off() {
    let app = start("header_timeout = \"100ms\"\n").await;
    let mut stream = TcpStream::connect(app.http()[0]).await.unwrap();
    stream.write_all(b"GET /api/tables HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut first = [0; 12];
    stream.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    stream.write_all(b"GET /api/tables HTTP/1.1\r\nHo").await.unwrap();
    let mut rest = Vec::new();
    let end = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut rest));
    let _ = end.await.expect("the connection is still open");
    app.stop().await;
}

/// RFC 7301: what the client offers decides, on the gateway's own TLS listener.
#[tokio::test]
async fn h16_tls_serves_http2_by_alpn_and_http1_to_those_who_know_no_other() {
    let options = Options { dev_tls: true, ..Options::default() };
    let app = App::start(&config(""), options).await.unwrap();
    let base = format!("https://{}", app.http()[0]);
    let client = || Client::builder().tls_danger_accept_invalid_certs(true);
    for (client, version) in
        [(client(), Version::HTTP_2), (client().http1_only(), Version::HTTP_11)]
    {
        let client = client.redirect(reqwest::redirect::Policy::none()).build().unwrap();
        // One connection, many requests at once and after each other.
        let ask = async |path: &str| {
            let answer = client.get(format!("{base}{path}")).send().await.unwrap();
            (answer.status().as_u16(), answer.version())
        };
        for path in ["/hls/nobody/index.m3u8", "/api/tables", "/hls/nobody/index.m3u8"] {
            let status = if path.starts_with("/hls") { 404 } else { 200 };
            assert_eq!(ask(path).await, (status, version));
        }
    }
    app.stop().await;
}

#[tokio::test]
async fn connections_past_the_limit_are_told_so() {
    let app = start("max_connections = 1\n").await;
    let mut first = TcpStream::connect(app.http()[0]).await.unwrap();
    first.write_all(b"GET /api/tables HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut answer = [0; 12];
    first.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    let second = Client::new().get(format!("{}/api/tables", public(&app))).send().await.unwrap();
    assert_eq!(second.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(second.json::<Value>().await.unwrap()["status"], 503);
    drop(first);
    app.stop().await;
}

#[tokio::test]
async fn a_long_head_is_refused() {
    let app = start("").await;
    let long = "x".repeat(40 * 1024);
    let answer = Client::new().get(public(&app)).header("X-Long", long).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    app.stop().await;
}

#[tokio::test]
async fn idle_and_stuck_connections_do_not_hold_a_stop() {
    let app = start("shutdown_timeout = \"300ms\"\n").await;
    let address: SocketAddr = app.http()[0];
    let mut idle = TcpStream::connect(address).await.unwrap();
    idle.write_all(b"GET /api/tables HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut first = [0; 12];
    idle.read_exact(&mut first).await.unwrap();
    // A request whose body never ends keeps its handler busy.
    let mut stuck = TcpStream::connect(address).await.unwrap();
    let head = b"POST /api/tables HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nx";
    stuck.write_all(head).await.unwrap();
    tokio::time::timeout(Duration::from_secs(2), app.stop()).await.expect("the stop hangs");
    assert!(TcpStream::connect(address).await.is_err(), "the listener is still open");
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let app = start("").await;
    let mut second = config("");
    second.http.listen = app.http().to_vec();
    let error = App::start(&second, Options::default()).await.err().expect("the port is taken");
    assert!(error.to_string().contains(&app.http()[0].to_string()), "{error:#}");
    app.stop().await;
}

#[tokio::test]
async fn an_idle_http2_connection_is_ended() {
    let app = start("header_timeout = \"100ms\"\n").await;
    let mut stream = TcpStream::connect(app.http()[0]).await.unwrap();
    // Preface, empty SETTINGS, and HEADERS with END_STREAM and END_HEADERS: GET / of
    // http, all from the static table (RFC 7541 appendix A), and then nothing more.
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
    stream.write_all(&[0, 0, 3, 1, 5, 0, 0, 0, 1, 0x82, 0x84, 0x86]).await.unwrap();
    let mut answer = Vec::new();
    let end = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut answer));
    let _ = end.await.expect("the connection is still open");
    assert!(answer.len() > 100, "it was answered before");
    app.stop().await;
}

#[tokio::test]
async fn probes_see_that_it_stops() {
    let app = start("shutdown_timeout = \"1s\"\n").await;
    let mut stuck = TcpStream::connect(app.http()[0]).await.unwrap();
    let head = b"POST /api/tables HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nx";
    stuck.write_all(head).await.unwrap();
    let url = format!("http://{}/healthz/ready", app.admin());
    let client = Client::new();
    // Answered, so the stuck request has been taken in as well.
    assert_eq!(client.get(&url).send().await.unwrap().status(), StatusCode::OK);
    let stop = tokio::spawn(app.stop());
    loop {
        let ready = client.get(&url).send().await.expect("the admin listener has gone first");
        if ready.status() == StatusCode::SERVICE_UNAVAILABLE {
            break;
        }
        tokio::task::yield_now().await;
    }
    stop.await.unwrap();
}
