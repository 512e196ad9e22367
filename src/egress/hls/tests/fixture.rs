//! Coded media for tests, made with ffmpeg from its own test pictures: four
//! seconds of H264 (30 frames/s, a keyframe every 2 s) and Opus (20 ms packets),
//! and a second each of the other codecs.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};

use crate::codec::Codec;
use crate::egress::hls::segmenter::RenditionSource;
use crate::media::{Frame, LayerId};
use crate::time::Utc;

pub const VIDEO: LayerId = LayerId { track: 0, layer: 0 };
pub const AUDIO: LayerId = LayerId { track: 1, layer: 0 };
/// 2023-11-14T22:13:20Z.
pub const START: Utc = Utc::from_micros(1_700_000_000_000_000);

pub fn video_source(codec: Codec) -> RenditionSource {
    RenditionSource { layer: VIDEO, codec, channels: 0 }
}

pub fn audio_source() -> RenditionSource {
    RenditionSource { layer: AUDIO, codec: Codec::Opus, channels: 2 }
}

/// A coded access unit and whether it is a random access point.
pub type Unit = (Bytes, bool);

pub fn h264() -> &'static [Unit] {
    static UNITS: OnceLock<Vec<Unit>> = OnceLock::new();
    UNITS.get_or_init(|| annex_b(include_bytes!("../testdata/h264.264"), Codec::H264))
}

pub fn h265() -> Vec<Unit> {
    annex_b(include_bytes!("../testdata/h265.265"), Codec::H265)
}

pub fn vp9() -> Vec<Unit> {
    // Bit 2 of an 8-bit profile-0 header is frame_type; 0 is a keyframe.
    ivf(include_bytes!("../testdata/vp9.ivf"), |frame| frame[0] & 0x04 == 0)
}

pub fn av1() -> Vec<Unit> {
    let units = ivf(include_bytes!("../testdata/av1.ivf"), |_| false);
    // The hub's frames have no temporal delimiters (2 bytes here); the first unit is the keyframe.
    units.into_iter().enumerate().map(|(n, (data, _))| (data.slice(2..), n == 0)).collect()
}

pub fn opus() -> &'static [Bytes] {
    static PACKETS: OnceLock<Vec<Bytes>> = OnceLock::new();
    PACKETS.get_or_init(|| {
        // The first two packets of an Ogg Opus stream are headers (RFC 7845 §3).
        ogg(include_bytes!("../testdata/opus.ogg")).into_iter().skip(2).collect()
    })
}

/// Splits at start codes and groups NAL units that follow a delimiter or, in
/// H265, begin a picture.
fn annex_b(stream: &[u8], codec: Codec) -> Vec<Unit> {
    let mut starts: Vec<usize> =
        stream.windows(3).enumerate().filter(|(_, w)| *w == [0, 0, 1]).map(|(at, _)| at).collect();
    starts.push(stream.len());
    let mut units: Vec<Unit> = Vec::new();
    let (mut unit, mut key, mut has_picture) = (BytesMut::new(), false, false);
    for pair in starts.windows(2) {
        let mut nal = &stream[pair[0] + 3..pair[1]];
        while let [rest @ .., 0] = nal {
            nal = rest;
        }
        let (kind, picture, idr) = match codec {
            Codec::H264 => (nal[0] & 0x1f, nal[0] & 0x1f <= 5, nal[0] & 0x1f == 5),
            _ => {
                let kind = (nal[0] >> 1) & 0x3f;
                (kind, kind < 32, (16..24).contains(&kind))
            }
        };
        let delimiter = codec == Codec::H264 && kind == 9;
        let next_picture = codec == Codec::H265 && has_picture;
        if (delimiter || next_picture) && !unit.is_empty() {
            units.push((unit.split().freeze(), key));
            (key, has_picture) = (false, false);
        }
        key |= idr;
        has_picture |= picture;
        unit.put_u32(nal.len() as u32);
        unit.put_slice(nal);
    }
    units.push((unit.freeze(), key));
    units
}

fn ivf(stream: &[u8], key: impl Fn(&[u8]) -> bool) -> Vec<Unit> {
    let (mut at, mut units) = (32, Vec::new());
    while at < stream.len() {
        let length = u32::from_le_bytes(stream[at..at + 4].try_into().unwrap()) as usize;
        let data = &stream[at + 12..at + 12 + length];
        units.push((Bytes::copy_from_slice(data), key(data)));
        at += 12 + length;
    }
    units
}

/// Packets of an Ogg stream (RFC 3533 §6): laced in segments of up to 255 bytes.
fn ogg(stream: &[u8]) -> Vec<Bytes> {
    let (mut at, mut packets, mut packet) = (0, Vec::new(), BytesMut::new());
    while at < stream.len() {
        let lacing = &stream[at + 27..at + 27 + usize::from(stream[at + 26])];
        let mut data = at + 27 + lacing.len();
        for length in lacing {
            packet.put_slice(&stream[data..data + usize::from(*length)]);
            data += usize::from(*length);
            if *length < 255 {
                packets.push(packet.split().freeze());
            }
        }
        at = data;
    }
    packets
}

/// Frame `n` of an endless H264 stream at 30 frames/s, and of its sound.
pub struct Feed {
    pub base: Instant,
}

impl Feed {
    pub fn new() -> Self {
        Self { base: Instant::now() }
    }

    pub fn video(&self, n: u64) -> Frame {
        let (data, keyframe) = h264()[(n % h264().len() as u64) as usize].clone();
        self.frame(data, keyframe, 777_000 + n * 3000, n * 1_000_000 / 30)
    }

    pub fn audio(&self, n: u64) -> Frame {
        let data = opus()[(n % opus().len() as u64) as usize].clone();
        self.frame(data, true, 55_000 + n * 960, n * 20_000)
    }

    pub fn frame(&self, data: Bytes, keyframe: bool, ticks: u64, micros: u64) -> Frame {
        Frame {
            pts: ticks,
            dts: ticks,
            keyframe,
            discontinuity: false,
            capture: START.offset_micros(micros as i64),
            received: self.base + Duration::from_micros(micros),
            data,
        }
    }

    /// All frames of both tracks in the order of time, from `from` to `to` milliseconds.
    pub fn between(&self, from: u64, to: u64) -> Vec<(LayerId, Arc<Frame>)> {
        let videos = (0..).map(|n| (n * 1_000_000 / 30, VIDEO, n));
        let audios = (0..).map(|n| (n * 20_000, AUDIO, n));
        let within = |(at, ..): &(u64, LayerId, u64)| *at < to * 1000;
        let mut all: Vec<_> = videos.take_while(within).chain(audios.take_while(within)).collect();
        all.retain(|(at, ..)| *at >= from * 1000);
        all.sort();
        let frame = |layer, n| if layer == VIDEO { self.video(n) } else { self.audio(n) };
        all.into_iter().map(|(_, layer, n)| (layer, Arc::new(frame(layer, n)))).collect()
    }
}
