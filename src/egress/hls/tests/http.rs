//! The routes over a real server on loopback.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use flate2::read::GzDecoder;
use reqwest::header::{self, HeaderMap};
use reqwest::{Client, RequestBuilder, Response};
use tokio::sync::watch;
use tokio::task::{JoinHandle, yield_now};

use super::fixture::{Feed, audio_source, video_source};
use super::parser::Playlist;
use crate::codec::Codec;
use crate::egress::hls::packager::{FrameQueue, Source};
use crate::egress::hls::segmenter::RenditionSource;
use crate::egress::hls::store::Numbers;
use crate::egress::hls::{Hls, HlsSettings, router};
use crate::hub::{FrameSink, Registry};
use crate::media::LayerId;
use crate::net::tcp;
use crate::qos::Metrics;

pub struct Server {
    pub hls: Arc<Hls>,
    pub registry: Arc<Registry>,
    pub base: String,
    pub feed: Feed,
    pub client: Client,
    /// It stops when this is gone.
    _stop: watch::Sender<bool>,
}

const LIMITS: tcp::Limits = tcp::Limits {
    max_connections: 1024,
    header_timeout: Duration::from_secs(60),
    shutdown_timeout: Duration::ZERO,
    unread_timeout: tcp::UNREAD_TIMEOUT,
};

impl Server {
    pub async fn new(settings: HlsSettings) -> Self {
        Self::at(settings, 0).await
    }

    pub async fn at(settings: HlsSettings, port: u16) -> Self {
        let feed = Feed::new();
        let registry = Registry::new(4);
        let hls = Hls::new(settings, registry.clone(), Metrics::new());
        let listener = tcp::listen((Ipv4Addr::LOCALHOST, port).into()).unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let server = tcp::Server::new(router(hls.clone()), None, LIMITS);
        let (stop, stopping) = watch::channel(false);
        tokio::spawn(server.run(vec![listener], stopping));
        Self { hls, registry, base, feed, client: Client::new(), _stop: stop }
    }

    /// A table without a stream behind it, fed by hand.
    pub fn table(&self, name: &str, renditions: Vec<RenditionSource>) -> FrameQueue {
        self.table_with(name, renditions, Box::new(|_| {}))
    }

    pub fn table_with(
        &self,
        name: &str,
        renditions: Vec<RenditionSource>,
        request_keyframe: Box<dyn Fn(LayerId) + Send>,
    ) -> FrameQueue {
        self.start(name, renditions, request_keyframe, Numbers::default())
    }

    fn start(
        &self,
        name: &str,
        renditions: Vec<RenditionSource>,
        request_keyframe: Box<dyn Fn(LayerId) + Send>,
        numbers: Numbers,
    ) -> FrameQueue {
        let source = Source {
            stream: None,
            table: name.parse().unwrap(),
            token: "t".to_owned(),
            renditions,
            request_keyframe,
        };
        let mut packager = self.hls.start_at(source, numbers).unwrap();
        let sink = packager.sink();
        tokio::spawn(packager.run());
        sink
    }

    /// `demo` once more, which counts from `msn`.
    pub fn later_demo(&self, msn: u64) -> FrameQueue {
        let numbers = Numbers { msn, discontinuities: 0 };
        let renditions = vec![video_source(Codec::H264), audio_source()];
        self.start("demo", renditions, Box::new(|_| {}), numbers)
    }

    pub fn demo(&self) -> FrameQueue {
        self.table("demo", vec![video_source(Codec::H264), audio_source()])
    }

    /// Feeds `sink` from one time to another, in milliseconds.
    pub fn feed(&self, sink: &mut FrameQueue, from: u64, to: u64) {
        for (layer, frame) in self.feed.between(from, to) {
            sink.frame(layer, &frame);
        }
    }

    pub fn request(&self, path: &str) -> RequestBuilder {
        self.client.get(format!("{}/hls/demo/{path}", self.base))
    }

    pub async fn get(&self, path: &str) -> Response {
        self.request(path).send().await.unwrap()
    }

    pub async fn playlist(&self, path: &str) -> Playlist {
        let response = self.get(path).await;
        assert_eq!(response.status(), 200, "{path}");
        Playlist::parse(&response.text().await.unwrap())
    }

    /// Sends a request and returns once the server holds it.
    pub async fn held(&self, path: &str) -> JoinHandle<Response> {
        let held = || self.hls.stats().held_requests.load(Ordering::Relaxed);
        let before = held();
        let request = self.request(path);
        let task = tokio::spawn(async move { request.send().await.unwrap() });
        tokio::time::timeout(Duration::from_secs(5), async {
            while held() == before {
                yield_now().await;
            }
        })
        .await
        .expect("the request is held");
        task
    }
}

pub async fn problem(response: Response, status: u16, kind: &str) -> HeaderMap {
    assert_eq!(response.status(), status);
    let headers = response.headers().clone();
    assert_eq!(headers[header::CONTENT_TYPE], "application/problem+json");
    let body: serde_json::Value = response.json().await.unwrap();
    assert_eq!(body["type"], format!("urn:railbird:problem:{kind}"));
    headers
}

/// A table with five seconds of media.
pub async fn running() -> (Server, FrameQueue) {
    running_with(HlsSettings::default()).await
}

pub async fn running_with(settings: HlsSettings) -> (Server, FrameQueue) {
    let server = Server::new(settings).await;
    let mut sink = server.demo();
    server.feed(&mut sink, 0, 5_010);
    let wait = server.get("video0-0/index.m3u8?_HLS_msn=2&_HLS_part=1").await;
    assert_eq!(wait.status(), 200);
    (server, sink)
}

#[tokio::test]
async fn a_table_that_is_not_live_is_404_with_retry_after() {
    let server = Server::new(HlsSettings::default()).await;
    for path in ["index.m3u8", "video0-0/index.m3u8", "video0-0/t-p0.m4s"] {
        let headers = problem(server.get(path).await, 404, "table-not-live").await;
        assert_eq!(headers[header::RETRY_AFTER], "1");
    }
}

#[tokio::test]
async fn the_first_playlists_wait_for_the_first_segment() {
    let server = Server::new(HlsSettings::default()).await;
    let mut sink = server.demo();
    let multivariant = server.held("index.m3u8").await;
    let media = server.held("video0-0/index.m3u8").await;
    server.feed(&mut sink, 0, 600);
    assert!(!media.is_finished());
    let text = multivariant.await.unwrap().text().await.unwrap();
    assert!(text.contains("video0-0/index.m3u8"), "{text}");
    server.feed(&mut sink, 600, 2_100);
    let playlist = Playlist::parse(&media.await.unwrap().text().await.unwrap());
    assert_eq!(playlist.complete().count(), 1);
}

#[tokio::test]
async fn p19_the_multivariant_playlist_describes_the_stream() {
    let (server, _sink) = running().await;
    let text = server.get("index.m3u8").await.text().await.unwrap();
    assert!(text.contains("#EXT-X-INDEPENDENT-SEGMENTS\n"));
    assert!(text.contains("#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"audio\""));
    let variant = text.lines().find(|line| line.starts_with("#EXT-X-STREAM-INF")).unwrap();
    assert!(variant.contains("CODECS=\"avc1.42"), "{variant}");
    assert!(variant.contains(",opus\""), "{variant}");
    assert!(variant.contains("RESOLUTION=320x180,FRAME-RATE=30.000,AUDIO=\"audio\""), "{variant}");
    let peak = variant.split("BANDWIDTH=").nth(1).unwrap().split(',').next().unwrap();
    assert!((80_000..400_000).contains(&peak.parse::<u64>().unwrap()), "{variant}");
}

#[tokio::test]
async fn audio_only_and_video_only_tables_have_one_variant() {
    let server = Server::new(HlsSettings::default()).await;
    for renditions in [vec![audio_source()], vec![video_source(Codec::H264)]] {
        let mut sink = server.table("demo", renditions);
        server.feed(&mut sink, 0, 600);
        let text = server.get("index.m3u8").await.text().await.unwrap();
        assert_eq!(text.matches("#EXT-X-STREAM-INF").count(), 1, "{text}");
        assert!(!text.contains("#EXT-X-MEDIA"), "{text}");
    }
}

#[tokio::test]
async fn h2_a_blocked_playlist_is_released_by_its_part() {
    let (server, mut sink) = running().await;
    let now = server.playlist("video0-0/index.m3u8").await;
    let open = now.segments.last().unwrap();
    let path = format!("video0-0/index.m3u8?_HLS_msn={}&_HLS_part={}", open.msn, open.parts.len());
    let held = server.held(&path).await;
    assert!(!held.is_finished());
    server.feed(&mut sink, 5_010, 5_600);
    let playlist = Playlist::parse(&held.await.unwrap().text().await.unwrap());
    assert!(playlist.segments.last().unwrap().parts.len() > open.parts.len());
}

#[tokio::test]
async fn h1_a_blocked_playlist_is_released_by_its_segment() {
    let (server, mut sink) = running().await;
    let held = server.held("video0-0/index.m3u8?_HLS_msn=2").await;
    server.feed(&mut sink, 5_010, 6_100);
    let playlist = Playlist::parse(&held.await.unwrap().text().await.unwrap());
    assert!(playlist.segments.iter().any(|s| s.msn == 2 && s.duration.is_some()));
}

#[tokio::test]
async fn h4_an_old_msn_gets_the_current_playlist() {
    let (server, _sink) = running().await;
    let now = server.playlist("video0-0/index.m3u8").await;
    let old = server.playlist("video0-0/index.m3u8?_HLS_msn=0&_HLS_part=0").await;
    assert_eq!(old.segments.len(), now.segments.len());
}

#[tokio::test]
async fn h5_h6_senseless_directives_are_400_at_once() {
    let (server, _sink) = running().await;
    for query in ["_HLS_part=1", "_HLS_msn=a", "_HLS_msn=99", "_HLS_msn=2&_HLS_part=99"] {
        let response = server.get(&format!("video0-0/index.m3u8?{query}")).await;
        problem(response, 400, "bad-delivery-directives").await;
    }
}

/// With the shortest TARGETDURATION there is, three of which are three seconds.
#[tokio::test]
async fn h7_a_request_held_too_long_is_503() {
    let segment_target = Duration::from_secs(1);
    let server = Server::new(HlsSettings { segment_target, ..HlsSettings::default() }).await;
    let mut sink = server.demo();
    // Frames of an hour from now: no gap is due until then.
    server.feed(&mut sink, 3_600_000, 3_602_100);
    assert_eq!(server.get("video0-0/index.m3u8").await.status(), 200);
    let response = server.get("video0-0/index.m3u8?_HLS_msn=2").await;
    problem(response, 503, "held-too-long").await;
    assert_eq!(server.hls.stats().held_requests.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_table_without_media_is_503_after_a_while() {
    let start_wait = Duration::from_millis(1);
    let server = Server::new(HlsSettings { start_wait, ..HlsSettings::default() }).await;
    let _sink = server.demo();
    for path in ["index.m3u8", "video0-0/index.m3u8"] {
        let headers = problem(server.get(path).await, 503, "table-not-ready").await;
        assert_eq!(headers[header::RETRY_AFTER], "1");
    }
}

#[tokio::test]
async fn requests_beyond_the_bound_are_not_held() {
    let server = Server::new(HlsSettings { max_held_requests: 1, ..HlsSettings::default() }).await;
    let _sink = server.demo();
    let held = server.held("index.m3u8").await;
    let response = server.get("video0-0/index.m3u8").await;
    problem(response, 503, "too-many-requests-held").await;
    held.abort();
}

#[tokio::test]
async fn h8_after_the_end_directives_are_ignored() {
    let (server, mut sink) = running().await;
    let held = server.held("video0-0/index.m3u8?_HLS_msn=3").await;
    sink.ended();
    assert!(Playlist::parse(&held.await.unwrap().text().await.unwrap()).ended);
    assert!(server.playlist("video0-0/index.m3u8?_HLS_msn=99&_HLS_part=99").await.ended);
}

#[tokio::test]
async fn h9_a_delta_update_skips_old_segments() {
    let (server, mut sink) = running().await;
    for second in 5..30 {
        server.feed(&mut sink, second * 1000 + 10, second * 1000 + 1010);
        yield_now().await;
    }
    let full = server.playlist("video0-0/index.m3u8?_HLS_msn=14&_HLS_part=0").await;
    let delta = server.playlist("video0-0/index.m3u8?_HLS_msn=14&_HLS_part=0&_HLS_skip=YES").await;
    assert!(delta.skipped > 0);
    assert_eq!(delta.skipped as usize + delta.segments.len(), full.segments.len());
}

#[tokio::test]
async fn h10_the_hinted_part_is_held_and_then_whole() {
    let (server, mut sink) = running().await;
    let hint = server.playlist("video0-0/index.m3u8").await.hints[0].clone();
    let held = server.held(&format!("video0-0/{hint}")).await;
    assert!(!held.is_finished());
    server.feed(&mut sink, 5_010, 5_600);
    let part = held.await.unwrap();
    assert_eq!(part.status(), 200);
    let length: usize = part.headers()[header::CONTENT_LENGTH].to_str().unwrap().parse().unwrap();
    let body = part.bytes().await.unwrap();
    assert_eq!(body.len(), length);
    let newest = server.playlist("video0-0/index.m3u8").await;
    assert_eq!(newest.parts().last().unwrap().uri, hint);
}

#[tokio::test]
async fn h10_the_hinted_part_of_a_stream_that_ends_is_404() {
    let server = Server::new(HlsSettings::default()).await;
    let mut sink = server.table("demo", vec![video_source(Codec::H264)]);
    server.feed(&mut sink, 0, 2_100);
    let hint = server.playlist("video0-0/index.m3u8").await.hints[0].clone();
    // Whatever is held back becomes the hinted part; the one after it never comes.
    let held = server.held(&format!("video0-0/{hint}")).await;
    sink.ended();
    assert_eq!(held.await.unwrap().status(), 200);
    problem(server.get("video0-0/t-p9.m4s").await, 404, "no-such-media").await;
}

#[tokio::test]
async fn h11_unknown_files_are_404_at_once() {
    let (server, _sink) = running().await;
    for file in ["t-p999.m4s", "t-s999.m4s", "t-i9.mp4", "u-p0.m4s", "x", "t-p-1.m4s"] {
        problem(server.get(&format!("video0-0/{file}")).await, 404, "no-such-media").await;
    }
    problem(server.get("nothing/index.m3u8").await, 404, "no-such-media").await;
    assert_eq!(server.hls.stats().held_requests.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn h12_playlists_are_gzipped_when_wanted() {
    let (server, _sink) =
        running_with(HlsSettings { sessions: false, ..HlsSettings::default() }).await;
    for path in ["index.m3u8", "video0-0/index.m3u8"] {
        let plain = server.get(path).await;
        assert_eq!(plain.headers()[header::VARY], "Accept-Encoding");
        assert!(!plain.headers().contains_key(header::CONTENT_ENCODING));
        let plain = plain.bytes().await.unwrap();
        let zipped = server.request(path).header(header::ACCEPT_ENCODING, "br, gzip");
        let zipped = zipped.send().await.unwrap();
        assert_eq!(zipped.headers()[header::CONTENT_ENCODING], "gzip");
        assert_eq!(zipped.headers()[header::VARY], "Accept-Encoding");
        let zipped = zipped.bytes().await.unwrap();
        assert!(zipped.len() < plain.len());
        let mut text = Vec::new();
        std::io::Read::read_to_end(&mut GzDecoder::new(&zipped[..]), &mut text).unwrap();
        assert_eq!(text, plain);
    }
}

#[tokio::test]
async fn h13_h17_everything_listed_is_there_whole_and_in_ranges() {
    let (server, _sink) = running().await;
    for rendition in ["video0-0", "audio1-0"] {
        let playlist = server.playlist(&format!("{rendition}/index.m3u8")).await;
        for uri in playlist.uris() {
            let path = format!("{rendition}/{uri}");
            let whole = server.get(&path).await;
            assert_eq!(whole.status(), 200, "{path}");
            assert_eq!(whole.headers()[header::CONTENT_TYPE], "video/mp4");
            let whole = whole.bytes().await.unwrap();
            let range = server.request(&path).header(header::RANGE, "bytes=5-14");
            let range = range.send().await.unwrap();
            assert_eq!(range.status(), 206);
            assert_eq!(range.headers()[header::CONTENT_LENGTH], "10");
            let expected = format!("bytes 5-14/{}", whole.len());
            assert_eq!(range.headers()[header::CONTENT_RANGE], expected);
            assert_eq!(range.bytes().await.unwrap(), whole.slice(5..15));
        }
        let segment = playlist.complete().next().unwrap();
        let mut joined = Vec::new();
        for part in &segment.parts {
            let part = server.get(&format!("{rendition}/{}", part.uri)).await;
            joined.extend_from_slice(&part.bytes().await.unwrap());
        }
        let whole = server.get(&format!("{rendition}/{}", segment.uri)).await;
        assert_eq!(whole.bytes().await.unwrap(), joined);
        let past = server.request(&format!("{rendition}/{}", segment.uri));
        let past = past.header(header::RANGE, "bytes=999999999-").send().await.unwrap();
        let length = format!("bytes */{}", joined.len());
        let headers = problem(past, 416, "range-not-satisfiable").await;
        assert_eq!(headers[header::CONTENT_RANGE], length);
        assert_eq!(headers[header::CACHE_CONTROL], "no-store");
    }
}

#[tokio::test]
async fn h14_caching_by_kind() {
    let (server, _sink) =
        running_with(HlsSettings { sessions: false, ..HlsSettings::default() }).await;
    let playlist = server.playlist("video0-0/index.m3u8").await;
    for path in ["index.m3u8", "video0-0/index.m3u8"] {
        let response = server.get(path).await;
        assert_eq!(response.headers()[header::CACHE_CONTROL], "public, max-age=1");
    }
    for uri in playlist.uris() {
        let response = server.get(&format!("video0-0/{uri}")).await;
        let caching = response.headers()[header::CACHE_CONTROL].to_str().unwrap();
        assert!(caching.contains("immutable") && caching.contains("max-age=31536000"));
    }
    let error = server.get("video0-0/t-p999.m4s").await;
    assert_eq!(error.headers()[header::CACHE_CONTROL], "no-store");
}

#[tokio::test]
async fn h14_what_a_client_has_is_not_sent_again() {
    let (server, mut sink) =
        running_with(HlsSettings { sessions: false, ..HlsSettings::default() }).await;
    let playlist = "video0-0/index.m3u8?_HLS_msn=1&_HLS_part=0";
    for path in ["index.m3u8", playlist, "video0-0/t-p0.m4s", "video0-0/t-s0.m4s"] {
        let first = server.get(path).await;
        let etag = first.headers()[header::ETAG].to_str().unwrap().to_owned();
        let has = |etags: String| server.request(path).header(header::IF_NONE_MATCH, etags).send();
        for etags in [etag.clone(), format!("\"x\", W/{etag}"), "*".to_owned()] {
            let again = has(etags).await.unwrap();
            assert_eq!(again.status(), 304, "{path}");
            assert_eq!(again.headers()[header::ETAG], etag);
            let caching = [&again, &first].map(|r| r.headers()[header::CACHE_CONTROL].clone());
            assert_eq!(caching[0], caching[1]);
            assert!(again.bytes().await.unwrap().is_empty());
        }
        assert_eq!(has("\"x\"".to_owned()).await.unwrap().status(), 200);
    }
    let etag = async |path, coding: &'static str| {
        let request = server.request(path).header(header::ACCEPT_ENCODING, coding);
        request.send().await.unwrap().headers()[header::ETAG].clone()
    };
    let before = etag(playlist, "identity").await;
    assert_ne!(before, etag(playlist, "gzip").await, "other bytes, another tag");
    server.feed(&mut sink, 5_010, 5_600);
    yield_now().await;
    assert_ne!(before, etag("video0-0/index.m3u8?_HLS_msn=2&_HLS_part=2", "identity").await);
}

#[tokio::test]
async fn h13_a_range_of_something_else_is_answered_whole() {
    let (server, _sink) =
        running_with(HlsSettings { sessions: false, ..HlsSettings::default() }).await;
    for (validator, status) in [("\"t-p0.m4s\"", 206), ("\"t-p1.m4s\"", 200)] {
        let request = server.request("video0-0/t-p0.m4s").header(header::RANGE, "bytes=0-9");
        let response = request.header(header::IF_RANGE, validator).send().await.unwrap();
        assert_eq!(response.status(), status);
    }
}

#[tokio::test]
async fn head_answers_as_get_does_and_knows_no_ranges() {
    let (server, _sink) = running().await;
    for path in ["index.m3u8", "video0-0/index.m3u8", "video0-0/t-p0.m4s", "video0-0/nothing"] {
        let get = server.get(path).await;
        let url = format!("{}/hls/demo/{path}", server.base);
        let head = server.client.head(&url).header(header::RANGE, "bytes=0-9");
        let head = head.send().await.unwrap();
        assert_eq!(head.status(), get.status());
        assert_eq!(head.headers()[header::CONTENT_LENGTH], get.headers()[header::CONTENT_LENGTH]);
        assert_eq!(head.bytes().await.unwrap().len(), 0);
    }
    let counted = || server.hls.stats().bytes_out.load(Ordering::Relaxed);
    let before = counted();
    for path in ["index.m3u8", "video0-0/index.m3u8", "video0-0/t-p0.m4s", "video0-0/t-s0.m4s"] {
        server.client.head(format!("{}/hls/demo/{path}", server.base)).send().await.unwrap();
    }
    assert_eq!(counted(), before, "nothing but heads left");
    let sent = server.get("video0-0/t-s0.m4s").await.bytes().await.unwrap().len() as u64;
    assert_eq!(counted(), before + sent);
}

#[tokio::test]
async fn viewers_are_the_requests_that_waited_together() {
    let (server, mut sink) = running().await;
    let path = "video0-0/index.m3u8?_HLS_msn=2&_HLS_part=2";
    let held = [server.held(path).await, server.held(path).await, server.held(path).await];
    server.feed(&mut sink, 5_010, 5_600);
    for request in held {
        assert_eq!(request.await.unwrap().status(), 200);
    }
    assert_eq!(server.hls.viewers(&"demo".parse().unwrap()), 3);
    assert_eq!(server.hls.viewers(&"other".parse().unwrap()), 0);
}

#[tokio::test]
async fn a_new_publication_takes_the_place_of_the_old_one() {
    let (server, _sink) = running().await;
    let old = server.held("video0-0/index.m3u8?_HLS_msn=2").await;
    let mut sink = server.demo();
    server.feed(&mut sink, 0, 2_100);
    assert_eq!(server.playlist("video0-0/index.m3u8").await.msn, 0);
    drop(_sink);
    assert!(Playlist::parse(&old.await.unwrap().text().await.unwrap()).ended);
}

/// Numbers of a new table are higher than those of the old one, which its players know.
#[tokio::test]
async fn h4_an_old_tables_number_waits_for_the_new_tables_first_segment() {
    let server = Server::new(HlsSettings::default()).await;
    let mut sink = server.later_demo(70);
    let mut held = Vec::new();
    for query in ["_HLS_msn=3", "_HLS_msn=3&_HLS_part=1", "_HLS_msn=69&_HLS_part=4&_HLS_skip=YES"] {
        held.push(server.held(&format!("video0-0/index.m3u8?{query}")).await);
    }
    server.feed(&mut sink, 0, 2_100);
    for one in held {
        let answer = one.await.unwrap();
        assert_eq!(answer.status(), 200);
        let playlist = Playlist::parse(&answer.text().await.unwrap());
        assert_eq!((playlist.msn, playlist.complete().count()), (70, 1));
    }
}
