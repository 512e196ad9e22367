//! From a publisher's packets to playlists: the service follows the registry.

use std::task::Waker;
use std::time::Duration;

use tokio::task::yield_now;

use super::fixture::{Feed, START, VIDEO, video_source};
use super::http::Server;
use super::parser::Playlist;
use crate::codec::Codec;
use crate::egress::hls::{HlsSettings, best_layer, layers_known};
use crate::hub::{PublishRequest, Publisher, PublisherEvent};
use crate::media::{Frame, LayerId, Packet, TrackInfo};

fn track(codec: Codec) -> TrackInfo {
    let channels = if codec == Codec::Opus { 2 } else { 0 };
    TrackInfo { codec, channels, fmtp: String::new(), rids: vec![String::new()] }
}

fn publish(server: &Server, tracks: Vec<TrackInfo>) -> Publisher {
    let request = PublishRequest {
        table: "demo".parse().unwrap(),
        tracks,
        credentials: Some("secret".to_owned()),
        now: START,
        waker: Waker::noop().clone(),
    };
    server.registry.publish(request).unwrap()
}

/// A frame as the packets of one publisher: a NAL unit or an Opus packet each.
struct Packetizer([u64; 2]);

impl Packetizer {
    fn push(&mut self, publisher: &mut Publisher, layer: LayerId, frame: &Frame) {
        let mut payloads = Vec::new();
        let mut rest = frame.data.clone();
        if layer.track == VIDEO.track {
            while !rest.is_empty() {
                let length = u32::from_be_bytes(rest[..4].try_into().unwrap()) as usize;
                payloads.push(rest.slice(4..4 + length));
                rest = rest.slice(4 + length..);
            }
        } else {
            payloads.push(rest);
        }
        let last = payloads.len() - 1;
        for (n, payload) in payloads.into_iter().enumerate() {
            let seq = &mut self.0[usize::from(layer.track)];
            let packet = Packet {
                seq: *seq,
                timestamp: frame.pts,
                marker: n == last,
                keyframe: layer.track == VIDEO.track && frame.keyframe,
                capture: frame.capture,
                received: frame.received,
                payload,
            };
            *seq += 1;
            publisher.push(layer, packet);
        }
    }
}

/// Lets the service run until it holds `requests` or has answered.
async fn carry_out(publisher: &mut Publisher) -> bool {
    let mut asked = false;
    for _ in 0..50 {
        while let Some(event) = publisher.poll() {
            asked |= matches!(event, PublisherEvent::KeyframeWanted(_));
        }
        yield_now().await;
    }
    asked
}

#[tokio::test]
async fn a_published_stream_is_listed_played_and_ended() {
    let server = Server::new(HlsSettings::default()).await;
    let service = tokio::spawn(server.hls.clone().run(std::future::pending()));
    yield_now().await;
    let mut publisher = publish(&server, vec![track(Codec::H264), track(Codec::Opus)]);
    assert_eq!(server.get("index.m3u8").await.status(), 404);

    let mut packets = Packetizer([100, 200]);
    let mut asked = false;
    for step in 0..70 {
        for (layer, frame) in Feed::new().between(step * 100, (step + 1) * 100) {
            packets.push(&mut publisher, layer, &frame);
        }
        asked |= carry_out(&mut publisher).await;
    }
    assert!(asked, "keyframes are asked for ahead of boundaries");
    assert_eq!(server.get("index.m3u8").await.status(), 200);
    for rendition in ["video0-0", "audio1-0"] {
        let playlist = server.playlist(&format!("{rendition}/index.m3u8")).await;
        let lengths: Vec<f64> = playlist.complete().filter_map(|s| s.duration).collect();
        // Sound is not replayed to a newcomer as a GOP is: it may begin a little later.
        assert_eq!(lengths[1..], [2.0; 2], "{rendition}");
        assert!((1.8..=2.0).contains(&lengths[0]), "{rendition}");
        // The stream's own token: no name is the same in another publication.
        assert!(playlist.uris().iter().all(|uri| uri.split('-').next().unwrap().len() == 16));
    }

    let held = server.held("video0-0/index.m3u8?_HLS_msn=3").await;
    drop(publisher);
    assert!(Playlist::parse(&held.await.unwrap().text().await.unwrap()).ended);
    service.abort();
}

#[tokio::test]
async fn an_ended_table_is_forgotten_after_its_linger() {
    let linger = Duration::from_millis(1);
    let server = Server::new(HlsSettings { linger, ..HlsSettings::default() }).await;
    let service = tokio::spawn(server.hls.clone().run(std::future::pending()));
    yield_now().await;
    let mut publisher = publish(&server, vec![track(Codec::H264)]);
    let mut packets = Packetizer([0, 0]);
    packets.push(&mut publisher, VIDEO, &Feed::new().video(0));
    carry_out(&mut publisher).await;
    assert_eq!(server.hls.tables(), 1);
    drop(publisher);
    let gone = async {
        while server.hls.tables() > 0 {
            yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), gone).await.expect("it is forgotten");
    assert_eq!(server.get("index.m3u8").await.status(), 404);
    service.abort();
}

#[tokio::test]
async fn a_vp8_table_has_sound_only() {
    let server = Server::new(HlsSettings::default()).await;
    let service = tokio::spawn(server.hls.clone().run(std::future::pending()));
    yield_now().await;
    let mut publisher = publish(&server, vec![track(Codec::Vp8), track(Codec::Opus)]);
    let mut packets = Packetizer([0, 0]);
    for (layer, frame) in Feed::new().between(0, 1_000) {
        if layer != VIDEO {
            packets.push(&mut publisher, layer, &frame);
        }
        carry_out(&mut publisher).await;
    }
    let text = server.get("index.m3u8").await.text().await.unwrap();
    assert!(text.contains("CODECS=\"opus\"") && text.contains("audio1-0/index.m3u8"), "{text}");
    service.abort();
}

#[tokio::test]
async fn ended_tables_beyond_the_bound_go_early() {
    let server = Server::new(HlsSettings::default()).await;
    let live = |name: &str| server.hls.live(&name.parse().unwrap());
    for name in ["a", "b", "c"] {
        drop(server.table(name, vec![video_source(Codec::H264)]));
        let ended = live(name).unwrap();
        server.hls.lock().linger(&ended, 2);
    }
    assert!(live("a").is_none() && live("b").is_some() && live("c").is_some());
}

#[tokio::test]
async fn the_best_layer_is_chosen_once_all_have_shown_their_size() {
    let server = Server::new(HlsSettings::default()).await;
    let rids = vec!["q".to_owned(), "h".to_owned()];
    let mut publisher = publish(&server, vec![TrackInfo { rids, ..track(Codec::H264) }]);
    let stream = server.registry.get(&"demo".parse().unwrap()).unwrap();
    let mut packets = Packetizer([0, 0]);
    packets.push(&mut publisher, VIDEO, &Feed::new().video(0));
    assert!(!layers_known(&stream, false), "the other layer may be larger");
    assert!(layers_known(&stream, true), "it is not waited for without end");
    assert_eq!(best_layer(&stream, 0, &stream.tracks[0]), 0, "what came is what there is");
    packets.push(&mut publisher, LayerId { track: 0, layer: 1 }, &Feed::new().video(0));
    assert!(layers_known(&stream, false));
    assert_eq!(best_layer(&stream, 0, &stream.tracks[0]), 1);
}
