//! From a publisher's packets to playlists: the service follows the registry.

use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use tokio::task::yield_now;
use tokio::time::timeout;

use super::fixture::{Feed, START, VIDEO, video_source};
use super::http::Server;
use super::parser::Playlist;
use crate::codec::Codec;
use crate::egress::hls::live::Live;
use crate::egress::hls::{DateRange, DateRangeError, HlsSettings};
use crate::hub::{EndReason, PublishRequest, Publisher, PublisherEvent};
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
        if usize::from(layer.track) >= publisher.stream().tracks.len() {
            return;
        }
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

/// A table ends with its publication.
fn ending_at_once() -> HlsSettings {
    HlsSettings { restart_wait: Duration::ZERO, ..HlsSettings::default() }
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
    let server = Server::new(HlsSettings { leading_gaps: true, ..ending_at_once() }).await;
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
        let media = playlist.complete().filter(|segment| !segment.gap);
        let lengths: Vec<f64> = media.filter_map(|segment| segment.duration).collect();
        assert!(playlist.complete().count() >= 6, "P7: {playlist:?}");
        // Sound is not replayed to a newcomer as a GOP is: it may begin a little later.
        assert_eq!(lengths[1..], [2.0; 2], "{rendition}");
        assert!((1.8..=2.0).contains(&lengths[0]), "{rendition}");
        // The stream's own token: no name is the same in another publication.
        assert!(playlist.uris().iter().all(|uri| uri.split('-').next().unwrap().len() == 16));
    }

    let open = server.playlist("video0-0/index.m3u8").await.segments.last().unwrap().msn;
    let held = server.held(&format!("video0-0/index.m3u8?_HLS_msn={open}")).await;
    drop(publisher);
    assert!(Playlist::parse(&held.await.unwrap().text().await.unwrap()).ended);
    service.abort();
}

#[tokio::test]
async fn an_ended_table_is_forgotten_after_its_linger() {
    let linger = Duration::from_millis(1);
    let server = Server::new(HlsSettings { linger, ..ending_at_once() }).await;
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
    timeout(Duration::from_secs(5), gone).await.expect("it is forgotten");
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

/// Publishes media of a table from one time to another, in milliseconds.
async fn play(publisher: &mut Publisher, packets: &mut Packetizer, from: u64, to: u64) {
    for from in (from..to).step_by(100) {
        for (layer, frame) in Feed::new().between(from, to.min(from + 100)) {
            packets.push(publisher, layer, &frame);
        }
        carry_out(publisher).await;
    }
}

fn live(server: &Server) -> Arc<Live> {
    server.hls.live(&"demo".parse().unwrap()).expect("the table is live")
}

fn tracks() -> Vec<TrackInfo> {
    vec![track(Codec::H264), track(Codec::Opus)]
}

#[tokio::test]
async fn a_publisher_that_comes_back_finds_its_viewers_waiting() {
    let server = Server::new(HlsSettings::default()).await;
    let service = tokio::spawn(server.hls.clone().run(std::future::pending()));
    yield_now().await;
    let (mut publisher, mut packets) = (publish(&server, tracks()), Packetizer([0, 0]));
    play(&mut publisher, &mut packets, 0, 5_010).await;
    let table = live(&server);
    let before = server.playlist("video0-0/index.m3u8").await;
    let open = before.segments.last().unwrap().msn;
    drop(publisher);
    // The frame that was held comes out, and then nothing: whoever asks for more waits.
    let ended = server.playlist(&format!("video0-0/index.m3u8?_HLS_msn={open}")).await;
    assert!(!ended.ended);
    let next = ended.segments.last().unwrap().msn + 1;
    let held = server.held(&format!("video0-0/index.m3u8?_HLS_msn={next}&_HLS_part=0")).await;

    let (mut publisher, mut packets) = (publish(&server, tracks()), Packetizer([0, 0]));
    play(&mut publisher, &mut packets, 6_000, 9_010).await;
    let response = held.await.unwrap();
    assert_eq!(response.status(), 200);
    let playlist = Playlist::parse(&response.text().await.unwrap());
    assert!(Arc::ptr_eq(&table, &live(&server)), "it is the same table");
    assert!(playlist.segments.last().unwrap().msn >= next && playlist.msn == before.msn);
    let newest = server.playlist("video0-0/index.m3u8").await;
    assert_eq!(newest.segments.iter().map(|s| s.discontinuities).sum::<u64>(), 1);
    drop(publisher);
    service.abort();
}

#[tokio::test]
async fn a_publisher_that_takes_over_keeps_the_viewers() {
    let server = Server::new(HlsSettings::default()).await;
    let service = tokio::spawn(server.hls.clone().run(std::future::pending()));
    yield_now().await;
    let (mut first, mut packets) = (publish(&server, tracks()), Packetizer([0, 0]));
    play(&mut first, &mut packets, 0, 4_010).await;
    let table = live(&server);
    let (mut second, mut packets) = (publish(&server, tracks()), Packetizer([0, 0]));
    play(&mut second, &mut packets, 4_000, 8_010).await;
    first.end(EndReason::Replaced);
    carry_out(&mut second).await;
    assert!(Arc::ptr_eq(&table, &live(&server)));
    let playlist = server.playlist("video0-0/index.m3u8").await;
    assert!(playlist.segments.iter().any(|segment| segment.discontinuities == 1));
    drop(second);
    service.abort();
}

#[tokio::test]
async fn other_tracks_make_another_table_that_is_counted_on() {
    let server = Server::new(HlsSettings::default()).await;
    let service = tokio::spawn(server.hls.clone().run(std::future::pending()));
    yield_now().await;
    let (mut publisher, mut packets) = (publish(&server, tracks()), Packetizer([0, 0]));
    play(&mut publisher, &mut packets, 0, 5_010).await;
    let table = live(&server);
    drop(publisher);
    let mut publisher = publish(&server, vec![track(Codec::H264)]);
    let mut packets = Packetizer([0, 0]);
    play(&mut publisher, &mut packets, 6_000, 10_010).await;
    let next = live(&server);
    assert!(!Arc::ptr_eq(&table, &next) && table.token != next.token);
    let old = table.renditions[0].published.borrow().view.clone();
    assert!(old.ended, "the old playlists end");
    let playlist = server.playlist("video0-0/index.m3u8").await;
    let first = playlist.segments.iter().find(|segment| !segment.gap).unwrap();
    assert!(first.msn >= old.progress().open_msn, "numbers do not go back");
    assert!(playlist.discontinuity_sequence >= 1);
    drop(publisher);
    service.abort();
}

#[tokio::test]
async fn a_gateway_that_stops_ends_its_tables_at_once() {
    let server = Server::new(HlsSettings::default()).await;
    let service = tokio::spawn(server.hls.clone().run(std::future::pending()));
    yield_now().await;
    let (mut publisher, mut packets) = (publish(&server, tracks()), Packetizer([0, 0]));
    play(&mut publisher, &mut packets, 0, 5_010).await;
    let open = server.playlist("video0-0/index.m3u8").await.segments.last().unwrap().msn;
    let held = server.held(&format!("video0-0/index.m3u8?_HLS_msn={open}")).await;
    publisher.end(EndReason::Shutdown);
    assert!(Playlist::parse(&held.await.unwrap().text().await.unwrap()).ended);
    service.abort();
}

#[tokio::test]
async fn all_layers_are_renditions_from_the_start() {
    let server = Server::new(HlsSettings::default()).await;
    let service = tokio::spawn(server.hls.clone().run(std::future::pending()));
    yield_now().await;
    let rids = vec!["q".to_owned(), "h".to_owned()];
    let mut publisher = publish(&server, vec![TrackInfo { rids, ..track(Codec::H264) }]);
    let mut packets = Packetizer([0, 0]);
    packets.push(&mut publisher, VIDEO, &Feed::new().video(0));
    carry_out(&mut publisher).await;
    let names: Vec<_> = live(&server).renditions.iter().map(|r| r.name.clone()).collect();
    assert_eq!(names, ["video0-0", "video0-1"]);
    service.abort();
}

#[tokio::test]
async fn p16_a_date_range_is_announced_by_table() {
    let server = Server::new(HlsSettings::default()).await;
    let _sink = server.table("demo", vec![video_source(Codec::H264)]);
    let round = DateRange::new("round-1", "example.round", START);
    let set = |table: &str, range| server.hls.set_date_range(&table.parse().unwrap(), range);
    assert_eq!(set("other", round.clone()), Err(DateRangeError::NotLive));
    assert_eq!(set("demo", round), Ok(()));
    assert_eq!(set("demo", DateRange::new("", "a", START)), Err(DateRangeError::BadText));
}

#[tokio::test]
async fn h13_what_a_replaced_table_listed_can_be_fetched_until_its_linger_is_over() {
    for settings in [HlsSettings::default(), ending_at_once()] {
        let server = Server::new(settings).await;
        let service = tokio::spawn(server.hls.clone().run(std::future::pending()));
        yield_now().await;
        let (mut publisher, mut packets) = (publish(&server, tracks()), Packetizer([0, 0]));
        play(&mut publisher, &mut packets, 0, 5_010).await;
        let old = live(&server);
        let listed = server.playlist("video0-0/index.m3u8").await;
        drop(publisher);
        let mut publisher = publish(&server, vec![track(Codec::H264)]);
        let mut packets = Packetizer([0, 0]);
        play(&mut publisher, &mut packets, 6_000, 8_010).await;
        assert!(!Arc::ptr_eq(&old, &live(&server)));
        let files = listed.segments.iter().filter_map(|segment| segment.map.as_ref());
        let files: Vec<_> = files
            .chain(listed.parts().map(|part| &part.uri))
            .chain(listed.complete().map(|segment| &segment.uri))
            .map(|file| format!("video0-0/{file}"))
            .collect();
        for file in &files {
            assert_eq!(server.get(file).await.status(), 200, "{file}");
        }
        let playlist = server.playlist("video0-0/index.m3u8").await;
        assert!(playlist.uris().iter().all(|uri| !uri.starts_with(&old.token)));
        server.hls.lock().forget(&old);
        assert_eq!(server.get(&files[0]).await.status(), 404);
        drop(publisher);
        service.abort();
    }
}

#[tokio::test]
async fn a_table_that_never_had_media_does_not_linger() {
    let server = Server::new(ending_at_once()).await;
    let service = tokio::spawn(server.hls.clone().run(std::future::pending()));
    yield_now().await;
    let mut publisher = publish(&server, tracks());
    let (mut packets, frame) = (Packetizer([0, 0]), Feed::new().video(1));
    packets.push(&mut publisher, VIDEO, &Frame { keyframe: false, ..frame });
    carry_out(&mut publisher).await;
    assert_eq!(server.hls.tables(), 1, "it is live, and nothing can be shown");
    publisher.end(EndReason::Shutdown);
    for _ in 0..50 {
        yield_now().await;
    }
    assert_eq!(server.hls.tables(), 0);
    service.abort();
}

#[tokio::test]
async fn a_gateway_that_stops_ends_tables_that_wait_for_a_publisher() {
    let server = Server::new(HlsSettings::default()).await;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let service = tokio::spawn(server.hls.clone().run(async { _ = stopped.await }));
    yield_now().await;
    let (mut publisher, mut packets) = (publish(&server, tracks()), Packetizer([0, 0]));
    play(&mut publisher, &mut packets, 0, 5_010).await;
    let table = live(&server);
    drop(publisher);
    let playlist = server.playlist("video0-0/index.m3u8").await;
    assert!(!playlist.ended, "it waits for the publisher");
    stop.send(()).unwrap();
    service.await.unwrap();
    assert!(table.ended(), "the tables have ended when the service has");
}

#[tokio::test]
async fn a_table_whose_task_failed_is_packaged_again() {
    let server = Server::new(HlsSettings::default()).await;
    let service = tokio::spawn(server.hls.clone().run(std::future::pending()));
    yield_now().await;
    let (mut publisher, mut packets) = (publish(&server, tracks()), Packetizer([0, 0]));
    play(&mut publisher, &mut packets, 0, 5_010).await;
    let broken = live(&server);
    let before = server.playlist("video0-0/index.m3u8").await;
    // As far as others see, as if it had panicked.
    server.hls.lock().followed[&broken.table].task.abort();
    let failed = &server.hls.stats().packagers_failed;
    while failed.load(std::sync::atomic::Ordering::Relaxed) == 0 {
        yield_now().await;
    }
    assert_eq!(server.get("video0-0/index.m3u8").await.status(), 404, "nobody waits for it");
    let again = timeout(Duration::from_secs(20), async {
        while server.hls.live(&broken.table).is_none() {
            yield_now().await;
        }
    });
    again.await.expect("it is not packaged again");
    play(&mut publisher, &mut packets, 6_000, 11_010).await;
    let after = server.playlist("video0-0/index.m3u8").await;
    let last = before.segments.last().unwrap().msn;
    assert!(after.msn > last, "{} after {last}", after.msn);
    drop(publisher);
    service.abort();
}

#[tokio::test]
async fn frames_for_a_packager_that_follows_another_publication_are_not_lost() {
    let server = Server::new(HlsSettings::default()).await;
    let source = crate::egress::hls::packager::Source {
        stream: None,
        table: "other".parse().unwrap(),
        token: "t".to_owned(),
        renditions: vec![video_source(Codec::H264)],
        request_keyframe: Box::new(|_| {}),
    };
    let mut packager = server.hls.start_at(source, Default::default()).unwrap();
    let (mut old, _new) = (packager.sink(), packager.sink());
    server.feed(&mut old, 0, 1_000);
    let lost = &server.hls.stats().frames_dropped_queue;
    assert_eq!(lost.load(std::sync::atomic::Ordering::Relaxed), 0);
}
