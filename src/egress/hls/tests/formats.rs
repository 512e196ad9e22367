//! Init segments and parts, read by an independent reader: ffprobe.

use std::process::Command;

use super::fixture::{self, AUDIO, Feed, Unit, VIDEO, audio_source, video_source};
use super::rig::Rig;
use crate::codec::Codec;
use crate::egress::hls::sample::Sampler;

/// One packet as ffprobe reads it.
#[derive(Debug)]
struct Packet {
    dts: i64,
    duration: i64,
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

fn ffprobe(bytes: &[u8], show: &[&str]) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    let output = Command::new("ffprobe")
        .args(["-v", "error", "-of", "csv=p=0"])
        .args(show)
        .arg(file.path())
        .output()
        .expect("ffprobe is installed");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "ffprobe complains");
    String::from_utf8(output.stdout).unwrap()
}

fn packets(bytes: &[u8]) -> Vec<Packet> {
    let text = ffprobe(bytes, &["-show_entries", "packet=dts,duration,flags"]);
    let packet = |line: &str| {
        let fields: Vec<&str> = line.split(',').collect();
        Packet {
            dts: fields[0].parse().unwrap(),
            duration: fields[1].parse().unwrap(),
            key: fields[2].starts_with('K'),
        }
    };
    text.lines().map(packet).collect()
}

/// Decodes every frame; returns how many came out.
fn decoded(bytes: &[u8]) -> usize {
    let show = ["-count_frames", "-show_entries", "stream=nb_read_frames"];
    ffprobe(bytes, &show).trim().trim_end_matches(',').parse().unwrap()
}

fn assert_continuous(packets: &[Packet]) {
    for pair in packets.windows(2) {
        assert_eq!(pair[0].dts + pair[0].duration, pair[1].dts);
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
    assert_continuous(&pictures);
    assert_continuous(&sounds);
    assert_eq!(pictures[0].dts, 0);
    assert!(pictures.iter().enumerate().all(|(n, packet)| packet.key == (n % 60 == 0)));
    assert_eq!(decoded(&video), 300);
    let shape = ffprobe(&video, &["-show_entries", "stream=codec_name,width,height"]);
    assert_eq!(shape.trim(), "h264,320,180");
    let sound = ffprobe(&audio, &["-show_entries", "stream=codec_name,sample_rate,channels"]);
    assert_eq!(sound.trim(), "opus,48000,2");
}

#[test]
fn jitter_of_timestamps_leaves_neither_gap_nor_overlap() {
    let mut rig = Rig::new(&[video_source(Codec::H264)]);
    for n in 0..240 {
        let mut frame = Feed::new().video(n);
        frame.dts += n * 7919 % 1800;
        frame.pts = frame.dts;
        rig.push(VIDEO, &frame);
    }
    rig.finish();
    let packets = packets(&file(&rig, 0));
    assert_eq!(packets.len(), 240);
    assert_continuous(&packets);
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
        assert_eq!(decoded(&bytes), 10, "{codec}");
        let shape = ffprobe(&bytes, &["-show_entries", "stream=codec_name,width,height"]);
        assert_eq!(shape.trim(), format!("{name},320,180"));
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
    assert_eq!(rig.segmenter.dropped(), 1);
}
