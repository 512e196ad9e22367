//! Files that `loadgen publish` plays, made by ffmpeg: MP4 of several codecs, and several
//! files as one simulcast, against the built gateway.
#![allow(clippy::disallowed_methods, reason = "tests wait for other processes by the clock")]

mod common;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use common::clients::ffmpeg;
use common::{Gateway, LATER, assert_whole, wait_until, watching};
use railbird_loadgen::crowd::{self, CrowdConfig};
use railbird_loadgen::source::{Clip, SourceConfig, Video};
use railbird_loadgen::{DealerConfig, run_dealer, watch};

/// Two seconds of a test picture of this width, and a tone, as `output` wants them. The
/// width of the picture is the only thing that differs between two files.
fn encode(directory: &Path, file: &str, width: u32, output: &[&str]) -> PathBuf {
    let path = directory.join(file);
    let picture = format!("testsrc2=size={width}x{}:rate=25", width * 9 / 16);
    let mut encode = Command::new(ffmpeg());
    encode.args(["-v", "error", "-y", "-f", "lavfi", "-i", &picture]);
    encode.args(["-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000"]);
    encode.args(["-t", "2", "-g", "25", "-pix_fmt", "yuv420p"]).args(output);
    let done = encode.arg(&path).output().unwrap();
    assert!(done.status.success(), "{file}: {}", String::from_utf8_lossy(&done.stderr));
    path
}

const H264: [&str; 6] = ["-c:v", "libx264", "-preset", "veryfast", "-bf", "0"];
const OPUS: [&str; 4] = ["-c:a", "libopus", "-b:a", "64k"];

/// Publishes at `table` until the task is aborted.
async fn publish(gateway: &Gateway, table: &str, source: SourceConfig) -> tokio::task::AbortHandle {
    let url = gateway.url(&format!("/whip/{table}"));
    let config = DealerConfig { source, ..DealerConfig::new(table, url) };
    let task = tokio::spawn(run_dealer(config, std::future::pending()));
    gateway.wait_live(table).await;
    task.abort_handle()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_mp4_plays_in_a_loop_with_its_sound() {
    let mut gateway = Gateway::start("");
    let directory = tempfile::tempdir().unwrap();
    let path = encode(directory.path(), "clip.mp4", 320, &[&H264[..], &OPUS].concat());
    let clip = Clip::open(&path, 30).unwrap();
    assert_eq!((clip.video, clip.frames.len()), (Video::H264, 50));
    assert!((98..=102).contains(&clip.sound.len()), "{}", clip.sound.len());
    assert_eq!(clip.lasts(), Duration::from_secs(2));
    assert!(clip.left_out.is_empty(), "{:?}", clip.left_out);
    let publisher = publish(&gateway, "demo", SourceConfig::Clip(Arc::new(clip))).await;
    // Three times round: decoded, without a step in the timestamps or a missing picture.
    let report = watch(watching(&gateway, "demo", 6.0)).await.unwrap();
    publisher.abort();
    assert_whole(&report);
    assert_eq!((report.frames_backward, report.frames_refused), (0, 0), "{report:?}");
    assert!(report.frames_complete > 140 && report.frames_decoded > 120, "{report:?}");
    assert!(report.keyframes >= 5 && report.longest_gap_ms < 1_000, "{report:?}");
    assert!(report.audio.packets > 280 && report.audio.lost == 0, "{report:?}");
    assert_eq!((report.sizes[0].width, report.sizes.len()), (320, 1), "{report:?}");
    gateway.assert_healthy();
}

#[tokio::test(flavor = "multi_thread")]
async fn mp4_files_of_the_other_codecs_are_published_too() {
    let gateway = Gateway::start("");
    let directory = tempfile::tempdir().unwrap();
    let fast = ["-deadline", "realtime", "-cpu-used", "8", "-lag-in-frames", "0", "-b:v", "300k"];
    for (table, video, options) in [
        (
            "h265",
            Video::H265,
            &["-c:v", "libx265", "-x265-params", "bframes=0:log-level=error"][..],
        ),
        ("vp9", Video::Vp9, &[&["-c:v", "libvpx-vp9"], &fast[..]].concat()),
        ("av1", Video::Av1, &[&["-c:v", "libaom-av1"], &fast[..]].concat()),
    ] {
        let file = format!("{table}.mp4");
        let path = encode(directory.path(), &file, 320, &[options, &OPUS].concat());
        let clip = Clip::open(&path, 30).unwrap();
        assert_eq!((clip.video, clip.frames.len()), (video, 50), "{table}");
        let publisher = publish(&gateway, table, SourceConfig::Clip(Arc::new(clip))).await;
        let mut config = CrowdConfig::new(gateway.url(&format!("/whep/{table}")), 2);
        (config.duration, config.verify) = (Duration::from_secs(3), 1.0);
        let running = crowd::run(config, Arc::default(), std::future::pending());
        let report = tokio::time::timeout(LATER, running).await.unwrap().unwrap().total;
        publisher.abort();
        assert_eq!((report.first_frames, report.video.lost, report.frames_damaged), (2, 0, 0));
        assert!(report.frames > 2 * 60 && report.audio.packets > 2 * 120, "{table}: {report:?}");
    }
}

#[test]
fn what_webrtc_does_not_carry_is_refused_or_left_out_in_words() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let said = |path: &Path| Clip::open(path, 30).unwrap_err().to_string();
    let with_b = ["-c:v", "libx264", "-preset", "veryfast", "-bf", "2", "-an"];
    let error = said(&encode(directory, "b.mp4", 320, &with_b));
    assert!(error.contains("b.mp4") && error.contains("B-frames"), "{error}");
    assert!(!error.contains('\n'), "{error}");
    let aac = encode(directory, "aac.mp4", 320, &[&H264[..], &["-c:a", "aac"]].concat());
    let clip = Clip::open(&aac, 30).unwrap();
    assert!(clip.sound.is_empty() && clip.left_out[0].contains("AAC"), "{:?}", clip.left_out);
    let fragmented = [&H264[..], &["-an", "-movflags", "frag_keyframe+empty_moov"]].concat();
    let error = said(&encode(directory, "fragmented.mp4", 320, &fragmented));
    assert!(error.contains("-c copy"), "{error}");
    let mpeg = encode(directory, "mpeg4.mp4", 320, &["-c:v", "mpeg4", "-bf", "0", "-an"]);
    assert!(said(&mpeg).contains("not H.264"), "{}", said(&mpeg));
    let nothing = directory.join("no.mp4");
    std::fs::write(&nothing, b"not an MP4 file at all, but long enough to have a header").unwrap();
    assert!(said(&nothing).contains("not a readable MP4"), "{}", said(&nothing));
}

/// The command line, from three files to three layers.
#[tokio::test(flavor = "multi_thread")]
async fn three_files_are_a_simulcast() {
    let gateway = Gateway::start("");
    let directory = tempfile::tempdir().unwrap();
    let mut publish = Command::new(loadgen());
    publish.args(["publish", "--url", &gateway.url("/whip/demo")]);
    for (rid, width) in [("low", 160), ("mid", 320), ("high", 640)] {
        let file = format!("{rid}.mp4");
        let path = encode(directory.path(), &file, width, &[&H264[..], &OPUS].concat());
        publish.args(["--source", &format!("{rid}={}", path.display())]);
    }
    publish.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let publisher = Running(publish.spawn().unwrap());
    let layers = async || {
        let table = gateway.live("demo").await?;
        let layers = table["tracks"][0]["layers"].as_array()?.clone();
        (layers.len() == 3 && layers.iter().all(|layer| layer["width"] != 0)).then_some(layers)
    };
    let mut layers = wait_until("three layers", LATER, layers).await;
    layers.sort_by_key(|layer| layer["width"].as_u64());
    let sizes =
        layers.iter().map(|layer| (layer["rid"].as_str().unwrap(), layer["width"].as_u64()));
    let expected = [("low", Some(160)), ("mid", Some(320)), ("high", Some(640))];
    assert_eq!(sizes.collect::<Vec<_>>(), expected, "{layers:?}");
    let report = watch(watching(&gateway, "demo", 5.0)).await.unwrap();
    drop(publisher);
    assert_whole(&report);
    assert_eq!(report.sizes.last().unwrap().width, 640, "{report:?}");
    assert!(report.frames_complete > 110 && report.audio.packets > 220, "{report:?}");
}

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let (_, _) = (self.0.kill(), self.0.wait());
    }
}

/// The load generator's binary, beside the gateway's.
fn loadgen() -> PathBuf {
    let binary = Path::new(env!("CARGO_BIN_EXE_railbird")).with_file_name("loadgen");
    assert!(binary.exists(), "no {}: `cargo test --workspace` builds it", binary.display());
    binary
}
