//! Init segments and parts, read by an independent reader: ffprobe.

use std::process::Command;

use super::fixture::{self, AUDIO, Feed, Unit, VIDEO, audio_source, video_source};
use super::rig::Rig;
use super::timeline::slow;
use crate::codec::Codec;
use crate::egress::hls::sample::Sampler;

/// One packet as ffprobe reads it.
#[derive(Debug)]
struct Packet {
    dts: i64,
    key: bool,
}

/// The init segment and all listed parts of a rendition, as one file.
fn file(rig: &Rig, index: usize) -> Vec<u8> {
    let view = rig.view(index);
    let mut bytes = view.newest_init().unwrap().data.to_vec();
    for part in view.listed().iter().flat_map(|segment| &segment.parts) {
        bytes.extend_from_slice(&part.media.data);
    }
    bytes
}

fn ffprobe(bytes: &[u8], show: &[&str]) -> serde_json::Value {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    let output = Command::new("ffprobe")
        .args(["-v", "error", "-of", "json"])
        .args(show)
        .arg(file.path())
        .output()
        .expect("ffprobe is installed");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "ffprobe complains");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What the container says, without ffprobe's own guesses from the bitstream.
fn packets(bytes: &[u8]) -> Vec<Packet> {
    let show = ["-fflags", "noparse", "-show_entries", "packet=dts,flags"];
    let json = ffprobe(bytes, &show);
    let packet = |packet: &serde_json::Value| Packet {
        dts: packet["dts"].as_i64().unwrap(),
        key: packet["flags"].as_str().unwrap().starts_with('K'),
    };
    json["packets"].as_array().unwrap().iter().map(packet).collect()
}

/// The only stream of the file.
fn stream(bytes: &[u8]) -> serde_json::Value {
    ffprobe(bytes, &["-count_frames", "-show_streams"])["streams"][0].take()
}

/// Each part begins, by its `tfdt`, where the durations in the `trun` of the
/// part before it end; and the playlist's durations are the same.
fn assert_continuous(rig: &Rig, index: usize) {
    let word = |data: &[u8], at: usize| {
        u64::from(u32::from_be_bytes(data[at..at + 4].try_into().unwrap()))
    };
    let mut time = 0;
    for part in rig.view(index).listed().iter().flat_map(|segment| &segment.parts) {
        let data = &part.media.data;
        let find = |name: &[u8]| data.windows(4).position(|w| w == name).unwrap();
        let (tfdt, trun) = (find(b"tfdt"), find(b"trun"));
        assert_eq!(word(data, tfdt + 8) << 32 | word(data, tfdt + 12), time);
        // Duration, size and flags of each sample.
        let durations = (0..word(data, trun + 8) as usize).map(|n| word(data, trun + 16 + 12 * n));
        let sum: u64 = durations.sum();
        assert_eq!(sum, part.media.duration);
        time += sum;
    }
}

#[test]
fn h264_and_opus_are_continuous_for_an_independent_reader() {
    let mut rig = Rig::new(&[video_source(Codec::H264), audio_source()]);
    for (layer, frame) in Feed::new().between(0, 10_000) {
        rig.push(layer, &frame);
    }
    rig.finish();
    let (video, audio) = (file(&rig, 0), file(&rig, 1));
    let (pictures, sounds) = (packets(&video), packets(&audio));
    assert_eq!((pictures.len(), sounds.len()), (300, 500));
    // Samples are at whole milliseconds: 90 ticks.
    assert!((0..).zip(&pictures).all(|(n, packet)| packet.dts.abs_diff(n * 3000) <= 45));
    assert!((0..).zip(&sounds).all(|(n, packet)| packet.dts == n * 960));
    assert_continuous(&rig, 0);
    assert_continuous(&rig, 1);
    assert!(pictures.iter().enumerate().all(|(n, packet)| packet.key == (n % 60 == 0)));
    let (picture, sound) = (stream(&video), stream(&audio));
    assert_eq!(picture["nb_read_frames"], "300");
    assert_eq!(picture["codec_name"], "h264");
    assert_eq!((&picture["width"], &picture["height"]), (&320.into(), &180.into()));
    assert_eq!(sound["codec_name"], "opus");
    assert_eq!((&sound["sample_rate"], &sound["channels"]), (&"48000".into(), &2.into()));
}

#[test]
fn jitter_of_timestamps_leaves_neither_gap_nor_overlap() {
    let mut rig = Rig::new(&[video_source(Codec::H264)]);
    let jitter = |n: u64| n * 7919 % 1800;
    for n in 0..240 {
        let mut frame = Feed::new().video(n);
        frame.dts += jitter(n);
        frame.pts = frame.dts;
        rig.push(VIDEO, &frame);
    }
    rig.finish();
    let packets = packets(&file(&rig, 0));
    assert_eq!(packets.len(), 240);
    for (n, packet) in (0..).zip(&packets) {
        assert!((packet.dts as u64).abs_diff(n * 3000 + jitter(n)) <= 45);
    }
    assert_continuous(&rig, 0);
}

#[test]
fn a_standing_picture_is_read_without_a_complaint() {
    // A frame a second: every other part has no sample.
    let rig = slow(600, 30);
    let parts: usize = rig.view(0).listed().iter().map(|segment| segment.parts.len()).sum();
    let packets = packets(&file(&rig, 0));
    assert!(packets.len() >= 18 && parts >= 2 * packets.len() - 2, "{parts} {packets:?}");
    for pair in packets.windows(2) {
        assert_eq!(pair[1].dts - pair[0].dts, 90_000);
    }
}

#[test]
fn samples_have_no_parameter_sets_and_no_delimiters() {
    let mut sampler = Sampler::new(Codec::H264, 0).unwrap();
    let (keyframe, _) = &fixture::h264()[0];
    let (sample, config) = sampler.sample(keyframe, true).unwrap();
    assert!(sample.len() < keyframe.len());
    let mut rest = &sample[..];
    while let Some((length, tail)) = rest.split_first_chunk::<4>() {
        let length = u32::from_be_bytes(*length) as usize;
        assert!(!matches!(tail[0] & 0x1f, 7..=9), "NAL type {}", tail[0] & 0x1f);
        rest = &tail[length..];
    }
    assert!(config.codecs.starts_with("avc1.42"), "{}", config.codecs);
    assert_eq!((config.width, config.height), (320, 180));
}

#[test]
fn other_codecs_decode_too() {
    let codecs: [(Codec, Vec<Unit>, &str, &str); 3] = [
        (Codec::H265, fixture::h265(), "hevc", "hvc1."),
        (Codec::Vp9, fixture::vp9(), "vp9", "vp09.00.20.08"),
        (Codec::Av1, fixture::av1(), "av1", "av01.0."),
    ];
    for (codec, units, name, prefix) in codecs {
        let mut rig = Rig::new(&[video_source(codec)]);
        let feed = Feed::new();
        for (n, (data, key)) in units.iter().enumerate() {
            let n = n as u64;
            rig.push(VIDEO, &feed.frame(data.clone(), *key, n * 9000, n * 100_000));
        }
        rig.finish();
        let bytes = file(&rig, 0);
        assert_eq!(packets(&bytes).len(), 10, "{codec}");
        let stream = stream(&bytes);
        assert_eq!(stream["nb_read_frames"], "10", "{codec}");
        assert_eq!(stream["codec_name"], name);
        assert_eq!((&stream["width"], &stream["height"]), (&320.into(), &180.into()));
        let codecs = rig.view(0).newest_init().unwrap().config.codecs.clone();
        assert!(codecs.starts_with(prefix), "{codecs}");
    }
}

#[test]
fn vp8_has_no_rendition() {
    assert!(Sampler::new(Codec::Vp8, 0).is_none());
}

#[test]
fn malformed_access_units_are_refused_without_a_panic() {
    let whole = &fixture::h264()[0].0;
    for codec in [Codec::H264, Codec::H265, Codec::Vp9, Codec::Av1, Codec::Opus] {
        for length in (0..whole.len()).step_by(97).chain(0..64) {
            let mut sampler = Sampler::new(codec, 2).unwrap();
            _ = sampler.sample(&whole.slice(..length), true);
        }
    }
    let mut rig = Rig::new(&[audio_source()]);
    rig.push(AUDIO, &Feed::new().frame(bytes::Bytes::new(), true, 0, 0));
    assert_eq!(rig.segmenter.counts().dropped, 1);
}
