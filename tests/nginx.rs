//! Debian's nginx as a plain cache in front of the gateway, with the configuration that
//! operators are given (`configs/nginx.conf`): players are served by the rules, from the
//! cache, and a crowd reaches the gateway as a few.
#![allow(clippy::disallowed_methods, reason = "tests wait for other processes by the clock")]

mod common;

use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Dealer, Gateway, LATER, SOON, wait_until};
use railbird_loadgen::hls::client::Options;
use railbird_loadgen::hls::multivariant::Choice;
use railbird_loadgen::hls::{self, HlsConfig};
use reqwest::{Client, Response};

/// The file that operators are given.
const SAMPLE: &str = include_str!("../configs/nginx.conf");

/// nginx on a free port of loopback, with a cache of its own. Ended with its owner.
struct Nginx {
    child: Child,
    at: SocketAddr,
    client: Client,
    _directory: tempfile::TempDir,
}

impl Nginx {
    async fn start(gateway: &Gateway) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let folder = directory.path().display();
        // The port is free until somebody else takes it: nobody else asks for it by number.
        let at = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {folder}/{kind};\n"));
        let text = [
            ("/var/cache/nginx/railbird", format!("{folder}/cache")),
            ("127.0.0.1:8080", gateway.http.to_string()),
            ("listen 8081", format!("listen {at}")),
            ("worker_processes auto", "worker_processes 1".to_owned()),
            ("worker_rlimit_nofile 65536", "worker_rlimit_nofile 4096".to_owned()),
            ("worker_connections 16384", "worker_connections 1024".to_owned()),
            ("http {\n", format!("http {{\n{}", temporary.concat())),
        ]
        .into_iter()
        .fold(SAMPLE.to_owned(), |text, (sample, here)| {
            assert!(text.contains(sample), "the sample has no {sample}");
            text.replacen(sample, &here, 1)
        });
        let config = directory.path().join("nginx.conf");
        std::fs::write(&config, text).unwrap();
        let log = format!("{folder}/error.log");
        // Its workers are the user who tests: others cannot read a private folder.
        let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
        let global = format!("daemon off; {user} pid {folder}/pid; error_log {log} warn;");
        let child = Command::new("nginx")
            .arg("-e")
            .arg(&log)
            .arg("-c")
            .arg(&config)
            .args(["-g", &global])
            .stdin(Stdio::null())
            .spawn()
            .expect("nginx is installed: scripts/setup.sh test");
        let client = Client::builder().timeout(SOON).build().unwrap();
        let nginx = Self { child, at, client, _directory: directory };
        let answers = async || nginx.client.get(nginx.url("/")).send().await.ok();
        wait_until("nginx answers", SOON, answers).await;
        nginx
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.at)
    }

    /// Many at once; the longest that one of them took.
    async fn crowd(&self, path: &str, count: usize) -> Duration {
        let asked = (0..count).map(|_| {
            let (client, url) = (self.client.clone(), self.url(path));
            tokio::spawn(async move {
                let begun = Instant::now();
                let answer = client.get(url).send().await.unwrap();
                assert_eq!(answer.status(), 200);
                answer.bytes().await.unwrap();
                begun.elapsed()
            })
        });
        let mut longest = Duration::ZERO;
        for one in asked.collect::<Vec<_>>() {
            longest = longest.max(one.await.unwrap());
        }
        longest
    }

    async fn get(&self, path: &str) -> Response {
        self.client.get(self.url(path)).send().await.unwrap()
    }

    /// The text of a playlist.
    async fn playlist(&self, path: &str) -> String {
        let answer = self.get(path).await;
        assert_eq!(answer.status(), 200, "{path}");
        answer.text().await.unwrap()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // A stop by signal: killed, it would leave its worker behind.
        let pid = self.child.id().to_string();
        let _ = Command::new("kill").args(["-TERM", &pid]).status();
        let _ = self.child.wait();
    }
}

fn cache(answer: &Response) -> &str {
    common::text(answer.headers(), "x-cache-status")
}

/// Requests for HLS that the gateway itself has answered.
async fn upstream(gateway: &Gateway) -> f64 {
    let metrics = gateway.metrics().await;
    let below = "/hls/{table}/{pass}/{rendition}/{file}";
    ["/hls/{table}/index.m3u8", "/hls/{table}/{rendition}/{file}", below]
        .map(|route| metrics.sum("railbird_http_requests_total", &[("route", route)]))
        .into_iter()
        .sum()
}

/// The playlist of the video, once it has a few segments.
async fn video(nginx: &Nginx) -> (String, String) {
    let multivariant = nginx.playlist("/hls/demo/index.m3u8").await;
    let uri = multivariant.lines().find(|line| !line.starts_with('#')).unwrap();
    let path = format!("/hls/demo/{uri}");
    let playlist = wait_until("three segments are listed", LATER, async || {
        let text = nginx.playlist(&path).await;
        (text.matches("#EXTINF").count() >= 3).then_some(text)
    });
    (path.clone(), playlist.await)
}

#[tokio::test(flavor = "multi_thread")]
async fn h14_twenty_players_behind_nginx_are_served_by_the_rules_and_reach_us_as_a_few() {
    let mut gateway = Gateway::start("");
    let dealer = Dealer::start(&gateway, "demo", None).await;
    let nginx = Nginx::start(&gateway).await;
    video(&nginx).await;
    let before = upstream(&gateway).await;
    let config = HlsConfig {
        urls: vec![nginx.url("/hls/demo/index.m3u8")],
        token: None,
        clients: 20,
        join_rate: 100.0,
        duration: Duration::from_secs(6),
        options: Options {
            choice: Choice::First,
            audio: true,
            media: true,
            hints: true,
            rtt: Duration::ZERO,
            patience: Duration::from_secs(15),
        },
        insecure: false,
        server_pid: None,
        baseline: Duration::ZERO,
    };
    let running = hls::run(config, Arc::default(), std::future::pending());
    let report = tokio::time::timeout(LATER, running).await.expect("they end in time").unwrap();
    assert_eq!((report.started, report.playing, report.failed), (20, 20, 0), "{report:?}");
    assert_eq!((report.errors, report.overruns), (0, 0), "{report:?}");
    let asked: u64 = report.requests.values().sum();
    let reached = upstream(&gateway).await - before;
    eprintln!("{asked} requests of players, {reached} of nginx: {report:?}");
    assert!(asked > 20 * 20, "{report:?}");
    assert!(reached * 5.0 < asked as f64, "{reached} of {asked} requests reached the gateway");
    dealer.stop().await;
    gateway.assert_healthy();
}

#[tokio::test(flavor = "multi_thread")]
async fn h14_a_crowd_that_waits_is_one_request_for_us() {
    let gateway = Gateway::start("");
    let dealer = Dealer::start(&gateway, "demo", None).await;
    let nginx = Nginx::start(&gateway).await;
    let (path, playlist) = video(&nginx).await;
    // The segment after the next one: all of them wait.
    let sequence = "#EXT-X-MEDIA-SEQUENCE:";
    let first = playlist.lines().find_map(|line| line.strip_prefix(sequence)).unwrap();
    let next = first.parse::<usize>().unwrap() + playlist.matches("#EXTINF").count();
    let before = upstream(&gateway).await;
    let held = (0..20).map(|_| {
        let (client, url) = (nginx.client.clone(), nginx.url(&format!("{path}?_HLS_msn={next}")));
        tokio::spawn(async move {
            let answer = client.get(url).send().await.unwrap();
            let (status, cache) = (answer.status(), cache(&answer).to_owned());
            (status, cache, answer.text().await.unwrap())
        })
    });
    let held: Vec<_> = held.collect();
    let mut hits = 0;
    for one in held {
        let (status, cache, text) = one.await.unwrap();
        assert_eq!(status, 200);
        hits += usize::from(cache == "HIT");
        assert!(text.matches("#EXTINF").count() > 3, "{text}");
    }
    let reached = upstream(&gateway).await - before;
    // The answer is kept for a second; a waiter that looks late asks again.
    assert!(hits >= 15 && reached <= 3.0, "{hits} hits, {reached} requests reached the gateway");
    dealer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn h14_nginx_keeps_each_kind_as_long_as_we_say() {
    let gateway = Gateway::start("");
    let dealer = Dealer::start(&gateway, "demo", None).await;
    let nginx = Nginx::start(&gateway).await;
    let (path, playlist) = video(&nginx).await;
    let folder = path.rsplit_once('/').unwrap().0;
    let segment = playlist.lines().rfind(|line| line.ends_with(".m4s")).unwrap();
    let segment = format!("{folder}/{segment}");

    let first = nginx.get(&segment).await;
    assert_eq!((first.status().as_u16(), cache(&first)), (200, "MISS"));
    let etag = common::text(first.headers(), "etag").to_owned();
    let whole = first.bytes().await.unwrap();
    let again = nginx.get(&segment).await;
    assert_eq!((again.status().as_u16(), cache(&again)), (200, "HIT"));
    assert_eq!(again.bytes().await.unwrap(), whole);
    let range = nginx.client.get(nginx.url(&segment)).header("Range", "bytes=5-14");
    let range = range.send().await.unwrap();
    assert_eq!((range.status().as_u16(), cache(&range)), (206, "HIT"));
    assert_eq!(range.bytes().await.unwrap(), whole.slice(5..15));
    let known = nginx.client.get(nginx.url(&segment)).header("If-None-Match", etag);
    assert_eq!(known.send().await.unwrap().status(), 304);

    // A playlist is there again from the cache, gzipped and plain apart, and stale soon.
    let zipped = nginx.client.get(nginx.url(&path)).header("Accept-Encoding", "br, gzip");
    let zipped = zipped.send().await.unwrap();
    assert_eq!(common::text(zipped.headers(), "content-encoding"), "gzip");
    assert!(nginx.playlist(&path).await.starts_with("#EXTM3U"), "the plain text");
    wait_until("the cache is asked and hit", SOON, async || {
        (cache(&nginx.get(&path).await) == "HIT").then_some(())
    })
    .await;
    wait_until("what it has is too old", SOON, async || {
        let answer = nginx.get(&path).await;
        matches!(cache(&answer), "EXPIRED" | "REVALIDATED").then_some(())
    })
    .await;

    // Refusals are not kept at all, and say when to come again.
    for (path, status) in [("/hls/nobody/x/index.m3u8", 404), ("/hls/demo/x/index.m3u8", 404)] {
        for _ in 0..2 {
            let answer = nginx.get(path).await;
            assert_eq!((answer.status().as_u16(), cache(&answer)), (status, "MISS"));
        }
    }
    let nobody = nginx.get("/hls/nobody/index.m3u8").await;
    common::assert_retry_after(nobody.headers());
    assert_eq!(common::text(nobody.headers(), "access-control-allow-origin"), "*");
    dealer.stop().await;
}

/// What the gateway gets is what the key is made of: nobody puts one table's media where
/// another one's is looked for, or anything where there is nothing.
#[tokio::test(flavor = "multi_thread")]
async fn h14_an_address_that_spells_another_one_poisons_nothing() {
    let gateway = Gateway::start("");
    let dealer = Dealer::start(&gateway, "demo", None).await;
    let nginx = Nginx::start(&gateway).await;
    let (path, playlist) = video(&nginx).await;
    let segment = playlist.lines().rfind(|line| line.ends_with(".m4s")).unwrap();
    let rendition = path.rsplit('/').nth(1).unwrap();
    let direct = format!("http://{}", gateway.http);
    for file in ["index.m3u8", segment] {
        for to in ["x%2F..%2F..%2Fother", "x%2f%2e%2e%2f%2e%2e%2fother", "%73.x%2F..%2F..%2Fother"]
        {
            let attack = format!("/hls/demo/{to}/{rendition}/{file}");
            assert_eq!(nginx.get(&attack).await.status(), 400, "{attack}");
            let answer = nginx.client.get(format!("{direct}{attack}")).send().await.unwrap();
            assert_eq!(answer.status(), 404, "{attack}");
        }
        let target = format!("/hls/other/{rendition}/{file}");
        let answer = nginx.get(&target).await;
        assert_eq!((answer.status().as_u16(), cache(&answer)), (404, "MISS"), "{target}");
    }
    // Whichever way a viewer comes, it finds the one copy.
    let pass = "s.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let first = nginx.get(&format!("/hls/demo/{rendition}/{segment}")).await;
    assert_eq!((first.status().as_u16(), cache(&first)), (200, "MISS"));
    let again = nginx.get(&format!("/hls/demo/{pass}/{rendition}/{segment}")).await;
    assert_eq!((again.status().as_u16(), cache(&again)), (200, "HIT"));
    dealer.stop().await;
}

/// Answers that are kept for nobody are waited for by nobody.
#[tokio::test(flavor = "multi_thread")]
async fn h14_many_who_join_at_once_do_not_wait_for_each_other() {
    const CROWD: usize = 40;
    let gateway = Gateway::start("");
    let dealer = Dealer::start(&gateway, "demo", None).await;
    let nginx = Nginx::start(&gateway).await;
    video(&nginx).await;
    let before = upstream(&gateway).await;
    let longest = nginx.crowd("/hls/demo/index.m3u8", CROWD).await;
    assert_eq!(upstream(&gateway).await - before, CROWD as f64, "each has its own");
    // In steps of 500 ms, one after the other, the last would have its own after 20 s.
    assert!(longest < Duration::from_secs(3), "{longest:?}");
    dealer.stop().await;
}
