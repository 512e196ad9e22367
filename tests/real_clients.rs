//! The gateway between WebRTC stacks that are not ours: ffmpeg, aiortc and the
//! `webrtc` crate publish and watch in each other's company, and ffprobe reads what
//! LL-HLS makes of it.

mod common;

use std::path::Path;
use std::process::Command;

use common::clients::{Process, ffmpeg};
use common::{Dealer, Gateway, LATER, assert_whole, wait_until, watching};
use railbird_loadgen::{WatchReport, watch};
use serde_json::Value;

/// Asserts that the `webrtc` crate gets pictures it can decode, and sound.
async fn assert_watchable(gateway: &Gateway, table: &str) -> WatchReport {
    let report = watch(watching(gateway, table, 3.0)).await.unwrap();
    assert!(report.keyframes > 0 && report.frames_complete > 30, "{report:?}");
    assert!(report.frames_decoded > 10, "{report:?}");
    assert_whole(&report);
    assert!(report.audio.packets > 60, "{report:?}");
    report
}

fn assert_tracks(table: &Value, video: &str) {
    let tracks = table["tracks"].as_array().unwrap();
    let codec = |kind: &str| tracks.iter().find(|t| t["kind"] == kind).map(|t| &t["codec"]);
    assert_eq!(codec("video").unwrap(), video, "{table}");
    assert_eq!(codec("audio").unwrap(), "opus", "{table}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ffmpeg_publishes_as_dtls_server_and_is_watched_over_webrtc_and_hls() {
    let mut gateway = Gateway::start("");
    // By default ffmpeg offers a=setup:passive: the gateway opens DTLS.
    let _ffmpeg = Process::ffmpeg_publisher(&gateway.url("/whip/demo"), &[]);
    assert_tracks(&gateway.wait_live("demo").await, "H264");
    assert_watchable(&gateway, "demo").await;
    assert_hls_plays(&gateway, "demo").await;
    gateway.assert_healthy();
}

#[tokio::test(flavor = "multi_thread")]
async fn ffmpeg_publishes_as_dtls_client() {
    let gateway = Gateway::start("");
    let options = ["-whip_flags", "dtls_active"];
    let _ffmpeg = Process::ffmpeg_publisher(&gateway.url("/whip/demo"), &options);
    assert_tracks(&gateway.wait_live("demo").await, "H264");
    assert_watchable(&gateway, "demo").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn aiortc_publishes_vp8_to_itself() {
    let gateway = Gateway::start("");
    let _publisher = Process::aiortc(&["publish", &gateway.url("/whip/demo"), "VP8"]);
    assert_tracks(&gateway.wait_live("demo").await, "VP8");
    assert_aiortc_recognises(&gateway, "demo").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn aiortc_publishes_h264_to_itself_and_to_another_stack() {
    let gateway = Gateway::start("");
    let _publisher = Process::aiortc(&["publish", &gateway.url("/whip/demo"), "H264"]);
    assert_tracks(&gateway.wait_live("demo").await, "H264");
    assert_watchable(&gateway, "demo").await;
    assert_aiortc_recognises(&gateway, "demo").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn aiortc_watches_the_dealer() {
    let gateway = Gateway::start("");
    let _dealer = Dealer::start(&gateway, "demo", None).await;
    let seen = aiortc_watches(&gateway, "demo", "audio,video").await;
    assert_eq!((&seen["width"], &seen["height"]), (&640.into(), &360.into()), "{seen}");
    // A table with a kind that nobody asks for.
    let seen = aiortc_watches(&gateway, "demo", "video").await;
    assert!(seen["audio"].is_null(), "{seen}");
}

/// Watches with aiortc until it has decoded 40 frames of each of `kinds` and has
/// deleted its session; returns what it saw.
async fn aiortc_watches(gateway: &Gateway, table: &str, kinds: &str) -> Value {
    let url = gateway.url(&format!("/whep/{table}"));
    let mut viewer = Process::aiortc(&["watch", &url, kinds, "40"]);
    let mut seen = Value::Null;
    loop {
        let report = viewer.report().await;
        match report["event"].as_str().unwrap() {
            "seen" => seen = report,
            "deleted" => {
                assert_eq!(report["status"], 200);
                break;
            }
            _ => {}
        }
    }
    for kind in kinds.split(',') {
        assert_eq!(seen[kind], 40, "{seen}");
    }
    seen
}

/// Asserts that aiortc sees the picture and hears the tone that it publishes.
async fn assert_aiortc_recognises(gateway: &Gateway, table: &str) {
    let seen = aiortc_watches(gateway, table, "audio,video").await;
    assert_eq!((&seen["width"], &seen["height"]), (&640.into(), &360.into()), "{seen}");
    let number = |key: &str| seen[key].as_f64().unwrap();
    assert!((185.0..215.0).contains(&number("upper")), "{seen}");
    assert!((35.0..65.0).contains(&number("lower")), "{seen}");
    assert!(number("loudest") > 4000.0, "{seen}");
}

/// Asserts that a table's playlists lead to parts and segments of H.264 and Opus
/// that ffprobe reads and ffmpeg decodes without complaint.
async fn assert_hls_plays(gateway: &Gateway, table: &str) {
    let base = gateway.url(&format!("/hls/{table}/"));
    let index = get_text(gateway, &format!("{base}index.m3u8")).await;
    let variant = index.lines().find(|line| line.starts_with("#EXT-X-STREAM-INF:")).unwrap();
    assert!(variant.contains("avc1.") && variant.to_lowercase().contains("opus"), "{index}");
    assert!(variant.contains("RESOLUTION=640x360"), "{index}");
    let video = index.lines().find(|line| !line.starts_with('#') && !line.is_empty()).unwrap();
    let media = index.lines().find(|line| line.starts_with("#EXT-X-MEDIA:TYPE=AUDIO")).unwrap();
    let directory = tempfile::tempdir().unwrap();
    for (uri, kind, codec) in [(video, "video", "h264"), (uri_of(media), "audio", "opus")] {
        let file = directory.path().join(format!("{kind}.mp4"));
        std::fs::write(&file, rendition(gateway, &format!("{base}{uri}")).await).unwrap();
        let stream = probe(&file);
        assert_eq!((&stream["codec_type"], &stream["codec_name"]), (&kind.into(), &codec.into()));
        if kind == "video" {
            assert_eq!((&stream["width"], &stream["height"]), (&640.into(), &360.into()));
        }
        let frames: u32 = stream["nb_read_frames"].as_str().unwrap().parse().unwrap();
        assert!(frames > 30, "{stream}");
        let mut decode = Command::new(ffmpeg());
        decode.args(["-v", "error", "-i"]).arg(&file).args(["-f", "null", "-"]);
        let output = decode.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && said.is_empty(), "{kind}: {said}");
    }
}

/// Waits for two whole segments and a part after them; returns the init and them.
async fn rendition(gateway: &Gateway, playlist: &str) -> Vec<u8> {
    let (text, segments) = wait_until("two segments and a part", LATER, async || {
        let text = get_text(gateway, playlist).await;
        let segments: Vec<_> =
            text.lines().filter(|line| line.ends_with(".m4s")).map(str::to_owned).collect();
        let after = text.rsplit("#EXTINF").next().unwrap().contains("#EXT-X-PART:");
        (segments.len() >= 2 && after).then_some((text.clone(), segments))
    })
    .await;
    assert!(text.contains("#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES"), "{text}");
    assert!(text.contains("#EXT-X-PRELOAD-HINT:TYPE=PART"), "{text}");
    let map = text.lines().find(|line| line.starts_with("#EXT-X-MAP:")).unwrap();
    let part = text.lines().rfind(|line| line.starts_with("#EXT-X-PART:")).unwrap();
    let (folder, _) = playlist.rsplit_once('/').unwrap();
    let mut bytes = Vec::new();
    let names = [uri_of(map)].into_iter().chain(segments.iter().map(String::as_str));
    for name in names.chain([uri_of(part)]) {
        let answer = gateway.client.get(format!("{folder}/{name}")).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{name}");
        bytes.extend(answer.bytes().await.unwrap());
    }
    bytes
}

async fn get_text(gateway: &Gateway, url: &str) -> String {
    let answer = gateway.client.get(url).send().await.unwrap();
    assert_eq!(answer.status(), 200, "{url}");
    assert_eq!(common::text(answer.headers(), "content-type"), "application/vnd.apple.mpegurl");
    answer.text().await.unwrap()
}

/// The URI attribute of a playlist's tag.
fn uri_of(tag: &str) -> &str {
    tag.split_once("URI=\"").unwrap().1.split('"').next().unwrap()
}

/// What ffprobe says of the only stream in a file.
fn probe(file: &Path) -> Value {
    let arguments = ["-v", "error", "-count_frames", "-show_streams", "-of", "json"];
    let output = Command::new("ffprobe").args(arguments).arg(file).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
    let mut document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["streams"].as_array().unwrap().len(), 1, "{document}");
    document["streams"][0].take()
}
