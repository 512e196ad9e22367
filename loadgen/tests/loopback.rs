//! Publisher and viewer against the `webrtc` crate as the far end.
//!
//! A minimal WHIP/WHEP server on loopback: one peer per POST, media of the
//! publisher is forwarded to the viewers as it is. Waiting is on events with a
//! limit, never on a fixed sleep.

mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use openh264::decoder::Decoder;
use openh264::formats::YUVSource as _;
use railbird_loadgen::assemble::{Assembled, Assembler, Sequence};
use railbird_loadgen::dealer::strip;
use railbird_loadgen::time::utc_micros;
use railbird_loadgen::{
    DealerConfig, DealerStats, PublishError, WatchConfig, run_dealer, run_dealer_counted, watch,
};
use support::Server;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

const LIMIT: Duration = Duration::from_secs(30);

fn small_table(url: String) -> DealerConfig {
    let mut config = DealerConfig::new("demo", url);
    (config.width, config.height, config.bitrate) = (640, 360, 600_000);
    config
}

/// Receives frames at the server until `done` says so.
async fn frames(server: &mut Server, mut done: impl FnMut(&Assembled) -> bool) -> Vec<Assembled> {
    let (mut sequence, mut assembler) = (Sequence::default(), Assembler::default());
    let mut frames = Vec::new();
    let collect = async {
        loop {
            let packet = server.video.recv().await.expect("the server runs");
            let now = std::time::Instant::now();
            assert!(packet.payload.len() <= 1200);
            let header = &packet.header;
            if let Some(number) = sequence.arrived(header.sequence_number) {
                assembler.handle(
                    now,
                    number,
                    header.timestamp,
                    header.marker,
                    packet.payload.clone(),
                );
            }
            while let Some(frame) = assembler.poll(now) {
                let enough = done(&frame);
                frames.push(frame);
                if enough {
                    return;
                }
            }
        }
    };
    timeout(LIMIT, collect).await.expect("frames arrive in time");
    frames
}

#[tokio::test(flavor = "multi_thread")]
async fn a_published_table_is_decodable_and_tells_its_capture_time() {
    let mut server = Server::start(None).await;
    let (stop, stopped) = oneshot::channel::<()>();
    let dealer = tokio::spawn(run_dealer(small_table(server.url("whip")), async {
        let _ = stopped.await;
    }));
    let mut count = 0;
    let got = frames(&mut server, |_| {
        count += 1;
        count == 40
    })
    .await;
    let mut decoder = Decoder::new().unwrap();
    let (mut stamps, mut ticks) = (Vec::new(), Vec::new());
    for frame in got.iter().filter(|frame| frame.complete) {
        let picture = decoder.decode(&frame.data).unwrap().expect("one picture per frame");
        assert_eq!(picture.dimensions(), (640, 360));
        let stamp = strip::decode(picture.y(), picture.strides().0, 640, 360).expect("a strip");
        assert!((0..5_000).contains(&strip::age_millis(stamp, utc_micros() / 1000)));
        stamps.push(stamp);
        ticks.push(frame.timestamp);
    }
    assert!(got[0].keyframe && stamps.len() >= 38 && stamps.is_sorted());
    // RTP timestamps are whole frames of 3000 ticks, whatever the encoder's speed.
    assert!(ticks.windows(2).all(|pair| pair[1].wrapping_sub(pair[0]).is_multiple_of(3000)));
    let captured = server.capture_times.load(Ordering::Relaxed);
    assert!(captured >= 38, "{captured} frames carried an absolute capture time");
    stop.send(()).unwrap();
    timeout(LIMIT, dealer).await.unwrap().unwrap().unwrap();
    assert_eq!(server.deleted.load(Ordering::Relaxed), 1, "the session was deleted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keyframe_request_is_answered_at_once() {
    let mut server = Server::start(None).await;
    let stats = Arc::new(DealerStats::default());
    let config = small_table(server.url("whip"));
    let dealer =
        tokio::spawn(run_dealer_counted(config, Arc::clone(&stats), std::future::pending()));
    frames(&mut server, |frame| frame.keyframe).await;
    server.request_keyframe().await;
    let mut since = 0;
    let got = frames(&mut server, |frame| {
        since += 1;
        frame.keyframe
    })
    .await;
    assert!(since < 30, "a keyframe after {since} frames, before the regular one at 60");
    assert!(got.iter().filter(|frame| frame.keyframe).count() == 1);
    assert!(stats.keyframe_requests.load(Ordering::Relaxed) >= 1);
    dealer.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_token_ends_the_dealer_with_the_servers_words() {
    let server = Server::start(Some("secret")).await;
    let ended = timeout(LIMIT, run_dealer(small_table(server.url("whip")), std::future::pending()));
    let error = ended.await.unwrap().unwrap_err();
    assert!(matches!(error, PublishError::Peer(_)));
    assert!(error.to_string().contains("401 Unauthorized: wrong key"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dealer_without_a_gateway_waits_and_stops_when_told() {
    let config = small_table("http://127.0.0.1:9/whip/demo".to_owned());
    let begun = Instant::now();
    let stop = tokio::time::sleep(Duration::from_millis(600));
    timeout(LIMIT, run_dealer(config, stop)).await.unwrap().unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(600));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_on_a_lossy_last_mile_gets_every_packet_by_retransmission() {
    let mut server = Server::start(None).await;
    let dealer = tokio::spawn(run_dealer(small_table(server.url("whip")), std::future::pending()));
    frames(&mut server, |frame| frame.keyframe).await;
    let mut config = WatchConfig::new(server.url("whep"));
    (config.duration, config.loss, config.seed) = (Duration::from_secs(4), 0.05, 7);
    let report = timeout(LIMIT, watch(config)).await.unwrap().unwrap();
    assert!(report.impaired > 0, "{report:?}");
    assert!(report.video.recovered > 0 && report.video.lost <= 1, "{report:?}");
    assert!(report.frames_complete > 60 && report.frames_decoded > 30, "{report:?}");
    assert!(report.audio.packets > 120, "{report:?}");
    let latency = report.latency_ms.expect("decoded pictures carry the strip");
    assert!((0..1_000).contains(&latency.p50), "{latency:?}");
    dealer.abort();
}
