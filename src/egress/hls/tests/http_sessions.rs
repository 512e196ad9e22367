//! Sessions over a real server on loopback: what URIs carry, and what is counted.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use flate2::read::GzDecoder;
use reqwest::{Response, Url, header};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::yield_now;

use super::http::{Server, problem, running, running_with};
use super::parser::Playlist;
use crate::egress::hls::HlsSettings;
use crate::egress::hls::session::audience::Audience;

/// The two playlists of `demo` that a multivariant playlist leads to.
async fn renditions(server: &Server) -> (Url, Vec<Url>) {
    let answer = server.get("index.m3u8").await;
    let base = answer.url().clone();
    let text = answer.text().await.unwrap();
    let quoted = text.lines().filter_map(|line| line.split_once(",URI=\"")?.1.split('"').next());
    let plain = text.lines().filter(|line| !line.starts_with('#'));
    let urls = plain.chain(quoted).map(|uri| base.join(uri).unwrap()).collect();
    (base, urls)
}

async fn get(server: &Server, url: &Url) -> Response {
    let answer = server.client.get(url.clone()).send().await.unwrap();
    assert_eq!(answer.status(), 200, "{url}");
    answer
}

fn audience(server: &Server) -> Arc<Audience> {
    server.hls.sessions.audience(&"demo".parse().unwrap()).unwrap()
}

/// Waits for what the server does after an answer has left it.
async fn settled(condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), wait).await.expect("it comes to that");
}

#[tokio::test]
async fn every_uri_carries_what_the_next_request_needs() {
    let (server, _sink) = running().await;
    let (base, playlists) = renditions(&server).await;
    assert_eq!(playlists.len(), 2);
    let pass = playlists[0].path_segments().unwrap().nth(2).unwrap().to_owned();
    assert!(pass.starts_with("s.") && pass.len() == 34, "{pass}");
    let below = base.join(&format!("{pass}/")).unwrap();
    for url in &playlists {
        assert!(url.as_str().starts_with(below.as_str()), "{url}");
        let text = get(&server, url).await.text().await.unwrap();
        let playlist = Playlist::parse(&text);
        for uri in playlist.uris() {
            let media = url.join(&uri).unwrap();
            assert!(media.as_str().starts_with(below.as_str()), "{media}");
            get(&server, &media).await;
        }
        // AVPlayer compares what a report names with what it was told to play.
        for report in text.lines().filter_map(|line| line.strip_prefix("#EXT-X-RENDITION-REPORT:"))
        {
            let uri = report.split('"').nth(1).unwrap();
            assert!(playlists.contains(&url.join(uri).unwrap()), "{uri}");
        }
    }
    assert_eq!(server.hls.sessions.unaccounted().map(|(_, count)| count)[1..], [0; 3]);
}

#[tokio::test]
async fn each_viewer_gets_a_multivariant_playlist_of_its_own() {
    let (server, _sink) = running().await;
    let (one, two) = (renditions(&server).await.1, renditions(&server).await.1);
    assert_ne!(one, two);
    let answer = server.get("index.m3u8?anything=goes").await;
    assert_eq!(answer.headers()[header::CACHE_CONTROL], "private, no-store");
    let zipped = server.request("index.m3u8").header(header::ACCEPT_ENCODING, "gzip");
    let zipped = zipped.send().await.unwrap().bytes().await.unwrap();
    let mut text = String::new();
    std::io::Read::read_to_string(&mut GzDecoder::new(&zipped[..]), &mut text).unwrap();
    assert!(text.contains("\ns."), "{text}");
    // Media and its playlists are the same for all, whichever way they are asked for.
    let playlist = async |url: &Url| get(&server, url).await.bytes().await.unwrap();
    assert_eq!(playlist(&one[0]).await, playlist(&two[0]).await);
    assert_eq!(
        playlist(&one[0]).await,
        server.get("video0-0/index.m3u8").await.bytes().await.unwrap()
    );
}

#[tokio::test]
async fn without_sessions_there_is_one_multivariant_playlist_for_all() {
    let (server, _sink) =
        running_with(HlsSettings { sessions: false, ..HlsSettings::default() }).await;
    let (_, playlists) = renditions(&server).await;
    assert!(playlists[0].path().ends_with("/hls/demo/video0-0/index.m3u8"), "{playlists:?}");
    let caching = server.get("index.m3u8").await.headers()[header::CACHE_CONTROL].clone();
    assert!(caching.to_str().unwrap().starts_with("public"), "{caching:?}");
}

#[tokio::test]
async fn a_session_is_a_viewer_until_it_has_gone() {
    let (server, mut sink) = running().await;
    let table = "demo".parse().unwrap();
    let (_, playlists) = renditions(&server).await;
    assert_eq!(audience(&server).viewers.load(Ordering::Relaxed), 0, "a pass is no viewer");
    // Both playlists of one viewer are held, and one of somebody without a session.
    let mut held = Vec::new();
    for url in &playlists {
        let path = url.path().strip_prefix("/hls/demo/").unwrap();
        held.push(server.held(&format!("{path}?_HLS_msn=2&_HLS_part=2")).await);
    }
    held.push(server.held("video0-0/index.m3u8?_HLS_msn=2&_HLS_part=2").await);
    server.feed(&mut sink, 5_010, 5_600);
    for request in held {
        assert_eq!(request.await.unwrap().status(), 200);
    }
    assert_eq!(server.hls.viewers(&table), 2);
    let now = Instant::now();
    server.hls.sweep(now + Duration::from_secs(6));
    assert_eq!(server.hls.viewers(&table), 2);
    settled(|| {
        server.hls.sweep(now + Duration::from_secs(30));
        server.hls.viewers(&table) == 1
    })
    .await;
}

#[tokio::test]
async fn who_leaves_while_a_request_is_held_has_gone() {
    let (server, _sink) = running().await;
    let (_, playlists) = renditions(&server).await;
    let path = playlists[0].path().strip_prefix("/hls/demo/").unwrap();
    let held = server.held(&format!("{path}?_HLS_msn=3")).await;
    let late = Instant::now() + Duration::from_secs(60);
    server.hls.sweep(late);
    assert_eq!(audience(&server).viewers.load(Ordering::Relaxed), 1);
    held.abort();
    settled(|| {
        server.hls.sweep(late);
        audience(&server).viewers.load(Ordering::Relaxed) == 0
    })
    .await;
}

#[tokio::test]
async fn media_is_accounted_for_when_it_was_taken() {
    let (server, _sink) = running().await;
    let (_, playlists) = renditions(&server).await;
    let url = &playlists[0];
    let playlist = Playlist::parse(&get(&server, url).await.text().await.unwrap());
    let part = playlist.parts().last().unwrap().uri.clone();
    let positions = || {
        let read = audience(&server).position.read();
        (read.buckets.iter().map(|(_, count)| count).sum::<u64>(), read.sum)
    };
    // The newest part, the beginning of it, and its sound: the first of them counts.
    let length = get(&server, &url.join(&part).unwrap()).await.bytes().await.unwrap().len();
    let begin = server.client.get(url.join(&part).unwrap()).header(header::RANGE, "bytes=0-9");
    assert_eq!(begin.send().await.unwrap().bytes().await.unwrap().len(), 10);
    let sound = Playlist::parse(&get(&server, &playlists[1]).await.text().await.unwrap());
    let sound = playlists[1].join(&sound.parts().last().unwrap().uri).unwrap();
    let sound = get(&server, &sound).await.bytes().await.unwrap().len();
    let sent = (length + 10 + sound) as u64;
    settled(|| audience(&server).egress_bytes.load(Ordering::Relaxed) == sent).await;
    assert_eq!(positions(), (1, 0.0));
    // A segment of some seconds back.
    let segment = playlist.complete().next().unwrap();
    let (segment, length) = (url.join(&segment.uri).unwrap(), segment.duration.unwrap());
    get(&server, &segment).await.bytes().await.unwrap();
    settled(|| positions().0 == 2).await;
    let behind = positions().1;
    assert!(behind > 1.0 && behind + length < 5.1, "{behind} {length}");
}

#[tokio::test]
async fn what_is_no_pass_is_served_and_counted() {
    let (server, _sink) = running().await;
    let (_, playlists) = renditions(&server).await;
    let other = server.hls.sessions.issue(Instant::now(), &"other".parse().unwrap(), 1);
    for bad in ["s.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "s.________________________________", &other]
    {
        assert_eq!(server.get(&format!("{bad}/video0-0/index.m3u8")).await.status(), 200, "{bad}");
    }
    for lost in ["s.A/index.m3u8", "a/b/video0-0/index.m3u8", "s.A/video0-0/"] {
        assert_eq!(server.get(lost).await.status(), 404, "{lost}");
    }
    // HEAD looks, and does not begin to watch.
    assert_eq!(server.client.head(playlists[0].clone()).send().await.unwrap().status(), 200);
    let counts = server.hls.sessions.unaccounted();
    assert_eq!(counts[1..], [("invalid_pass", 3), ("not_begun", 1), ("full", 0)]);
    assert_eq!(audience(&server).viewers.load(Ordering::Relaxed), 0);
}

/// What stands in a pass's place is nothing that a cache could read as another address.
#[tokio::test]
async fn what_does_not_look_like_a_pass_leads_nowhere() {
    let (server, _sink) = running().await;
    let pass = "s.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    assert_eq!(server.get(&format!("{pass}/video0-0/index.m3u8")).await.status(), 200);
    let short = &pass[..33];
    let long = format!("{pass}A");
    let odd = pass.replace("AAA", "A%2F");
    for bad in ["x", "s.", "video0-0", "x%2F..%2F..%2Fother", short, &long, &odd, "%2e%2e%2Fdemo"] {
        for file in ["index.m3u8", "t-s0.m4s", "t-p0.m4s", "t-i0.mp4"] {
            let answer = server.get(&format!("{bad}/video0-0/{file}")).await;
            assert_eq!(answer.headers()[header::CACHE_CONTROL], "no-store", "{bad}");
            problem(answer, 404, "no-such-media").await;
        }
    }
    assert_eq!(server.hls.sessions.unaccounted()[1], ("invalid_pass", 1));
}

/// A frame of HTTP/2 (RFC 9113 §4.1).
fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags, 0, 0, 0, stream], payload].concat()
}

/// Reads frames until one of `kind` and `stream` with all of `flags`.
async fn read_until(socket: &mut TcpStream, (kind, flags, stream): (u8, u8, u8)) -> usize {
    let mut data = 0;
    loop {
        let mut head = [0; 9];
        socket.read_exact(&mut head).await.unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        socket.read_exact(&mut vec![0; length]).await.unwrap();
        data += if head[3] == 0 { length } else { 0 };
        if (head[3], head[8]) == (kind, stream) && head[4] & flags == flags {
            return data;
        }
    }
}

/// Over HTTP/2 a viewer takes nothing while its window is shut, whatever the connection
/// has asked our body for.
#[tokio::test]
async fn media_is_not_taken_before_the_window_opens() {
    let (server, _sink) = running().await;
    let (_, playlists) = renditions(&server).await;
    let url = &playlists[0];
    let playlist = Playlist::parse(&get(&server, url).await.text().await.unwrap());
    let part = url.join(&playlist.parts().last().unwrap().uri).unwrap();
    let positions =
        || audience(&server).position.read().buckets.iter().map(|(_, count)| count).sum::<u64>();

    let mut socket =
        TcpStream::connect(server.base.strip_prefix("http://").unwrap()).await.unwrap();
    socket.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    // SETTINGS_INITIAL_WINDOW_SIZE (4): nothing.
    socket.write_all(&frame(4, 0, 0, &[0, 4, 0, 0, 0, 0])).await.unwrap();
    // GET, http, and `:path` as a literal (RFC 7541 §6.2.2).
    let path = part.path().as_bytes();
    let head = [&[0x82, 0x86, 0x04, path.len() as u8], path].concat();
    socket.write_all(&frame(1, 5, 1, &head)).await.unwrap();
    read_until(&mut socket, (1, 4, 1)).await;
    // PING, twice: the connection has gone round.
    for _ in 0..2 {
        socket.write_all(&frame(6, 0, 0, &[0; 8])).await.unwrap();
        assert_eq!(read_until(&mut socket, (6, 1, 0)).await, 0, "the window is shut");
    }
    assert_eq!(positions(), 0, "it has nothing yet");
    // WINDOW_UPDATE, and DATA to the end of the stream.
    socket.write_all(&frame(8, 0, 1, &[0, 4, 0, 0])).await.unwrap();
    assert!(read_until(&mut socket, (0, 1, 1)).await > 1000);
    settled(|| positions() == 1).await;
}
