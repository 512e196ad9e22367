//! A table for a real player: run by hand, with the time of day as capture time.
//!
//! `RAILBIRD_HLS_SECONDS=60 cargo test -p railbird --lib serve_for_a_player -- --ignored`
//! serves `http://127.0.0.1:8099/hls/demo/index.m3u8` for that long; H264 at 30
//! frames/s with 20 ms Opus, each frame fed when it is due, keyframes only when
//! asked for and 100 ms later: as from a browser.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::fixture::{AUDIO, VIDEO, audio_source, h264, video_source};
use super::http::Server;
use crate::codec::Codec;
use crate::egress::hls::HlsSettings;
use crate::hub::FrameSink;
use crate::time::Clock;

const PORT: u16 = 8099;

#[tokio::test]
#[ignore = "serves in real time for a player that is driven by hand"]
async fn serve_for_a_player() {
    let variable = |name, default: u64| {
        std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
    };
    let seconds = variable("RAILBIRD_HLS_SECONDS", 60);
    let part_target = Duration::from_millis(variable("RAILBIRD_HLS_PART_MS", 500));
    let server = Server::at(HlsSettings { part_target, ..HlsSettings::default() }, PORT).await;
    let asked = Arc::new(AtomicBool::new(true));
    let ask = asked.clone();
    let renditions = vec![video_source(Codec::H264), audio_source()];
    let mut sink = server.table_with(
        "demo",
        renditions,
        Box::new(move |_| ask.store(true, Ordering::Relaxed)),
    );
    let clock = Clock::system();
    let base = server.feed.base;
    let (mut sound, mut place, mut due_key) = (0, 0, Some(0));
    for n in 0..seconds * 30 {
        let due = Duration::from_micros(n * 1_000_000 / 30);
        tokio::time::sleep_until((base + due).into()).await;
        if asked.swap(false, Ordering::Relaxed) {
            due_key = due_key.or(Some(n + 3));
        }
        let key = due_key.is_some_and(|at| n >= at);
        if key {
            due_key = None;
        }
        place = if key { 0 } else { place + 1 };
        let mut frame = server.feed.video(n);
        // Past the end of the clip's first GOP its second one goes on, without its keyframe.
        let unit = if place < 60 { place } else { 61 + (place - 60) % 59 };
        (frame.data, frame.keyframe) = h264()[unit].clone();
        frame.capture = clock.utc(base + due);
        sink.frame(VIDEO, &Arc::new(frame));
        while Duration::from_millis(sound * 20) <= due {
            let mut frame = server.feed.audio(sound);
            frame.capture = clock.utc(base + Duration::from_millis(sound * 20));
            sink.frame(AUDIO, &Arc::new(frame));
            sound += 1;
        }
    }
}
