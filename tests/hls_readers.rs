//! LL-HLS as other makers' players read it, for as long as faults take to show.

mod common;

use std::collections::BTreeMap;
use std::process::Command;

use common::clients::ffmpeg;
use common::{Dealer, Gateway};

/// What ffmpeg is asked to read.
const SECONDS: i64 = 60;

/// Timestamp and duration of each frame, in ticks, by stream; and the ticks of a second.
type Decoded = BTreeMap<usize, (i64, Vec<(i64, i64)>)>;

/// Reads ffmpeg's `framecrc` format.
fn parse(text: &str) -> Decoded {
    let mut decoded = Decoded::new();
    for line in text.lines() {
        if let Some(base) = line.strip_prefix("#tb ") {
            let (stream, base) = base.split_once(": 1/").unwrap();
            decoded.insert(stream.parse().unwrap(), (base.parse().unwrap(), Vec::new()));
        } else if !line.starts_with('#') {
            let mut fields = line.split(',').map(str::trim);
            let mut number = || fields.next().unwrap().parse::<i64>().unwrap();
            let (stream, _dts, pts, duration) = (number(), number(), number(), number());
            decoded.get_mut(&(stream as usize)).unwrap().1.push((pts, duration));
        }
    }
    decoded
}

#[tokio::test(flavor = "multi_thread")]
async fn ffmpeg_reads_a_minute_without_a_gap_or_a_jump() {
    let mut gateway = Gateway::start("");
    let dealer = Dealer::start(&gateway, "minute", None).await;
    let url = gateway.url("/hls/minute/index.m3u8");
    // It takes a table without a complete segment for one without streams.
    let playlist = reqwest::get(&url).await.unwrap();
    assert!(playlist.status().is_success(), "{playlist:?}");
    let output = tokio::task::spawn_blocking(move || {
        let mut command = Command::new(ffmpeg());
        command.args(["-v", "error", "-xerror", "-i", &url, "-t", &SECONDS.to_string()]);
        command.args(["-map", "0:v:0", "-map", "0:a:0", "-fps_mode", "passthrough"]);
        command.args(["-c:v", "rawvideo", "-c:a", "pcm_s16le", "-enc_time_base:v", "demux"]);
        command.args(["-f", "framecrc", "-"]).stdin(std::process::Stdio::null()).output().unwrap()
    });
    let output = output.await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
    let decoded = parse(std::str::from_utf8(&output.stdout).unwrap());
    assert_eq!(decoded.len(), 2, "picture and sound");
    for (stream, (second, frames)) in decoded {
        let (first, last) = (frames[0], frames[frames.len() - 1]);
        let length = last.0 + last.1 - first.0;
        assert!((length - SECONDS * second).abs() < second / 10, "stream {stream}: {length} ticks");
        for (frame, next) in frames.iter().zip(&frames[1..]) {
            let (end, start) = (frame.0 + frame.1, next.0);
            // The dealer leaves out a picture when the machine is late, never two of them.
            let slack = second / 25;
            assert!((start - end).abs() <= slack, "stream {stream}: {frame:?}, then {next:?}");
        }
    }
    dealer.stop().await;
    gateway.assert_healthy();
}
