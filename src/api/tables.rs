//! What is on: tables with their tracks, rates and viewers, as JSON and as metrics.
//!
//! The hub counts; rates come from its counters at two moments. [`Tables::sample`]
//! is called about once a second and keeps what lies up to two seconds back, so
//! that one frame more or less in a second does not show as a jump.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde::Serialize;

use crate::codec::MediaKind;
use crate::hub::{LayerSnapshot, Registry, Stream, StreamId, TableName};
use crate::media::LayerId;
use crate::qos::{Scrape, Transport, names};

/// Samples kept of each layer: rates are taken between the first and the last.
const SAMPLES: usize = 3;

/// What a viewer of a stream is taken to need while its rates are not known: the
/// bitrate that tables are usually published at, in bit/s.
const UNKNOWN_BPS: u64 = 2_500_000;
/// What a packet adds to its payload on the wire, in bytes: RTP and its extensions 30,
/// the SRTP tag 16, UDP and IPv4 28, Ethernet with preamble and gap 38.
pub const PACKET_OVERHEAD: u64 = 112;

/// Viewers of a table over a transport.
type ViewerCount = Box<dyn Fn(&TableName, Transport) -> u64 + Send + Sync>;

/// The last samples of each layer, oldest first; [`SAMPLES`] at most.
type Samples = HashMap<(StreamId, LayerId), VecDeque<(Instant, LayerSnapshot)>>;

/// The read view of all tables. Shared as `Arc<Tables>`.
pub struct Tables {
    registry: Arc<Registry>,
    viewers: ViewerCount,
    /// As bounded as the registry: a stream that is gone is forgotten at the next sample.
    samples: Mutex<Samples>,
}

/// Rates of one layer; zero while there are not two samples.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Rates {
    /// Access units per second.
    fps: f64,
    /// Payload bits per second.
    bitrate: f64,
    /// Packets per second.
    packets: f64,
}

impl Rates {
    /// Bits per second on the wire, as sent to a viewer.
    fn wire_bps(self) -> f64 {
        self.bitrate + self.packets * PACKET_OVERHEAD as f64 * 8.0
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TableView {
    table: String,
    live: bool,
    started_at: String,
    viewers: ViewersView,
    tracks: Vec<TrackView>,
}

#[derive(Serialize)]
struct ViewersView {
    webrtc: u64,
    llhls: u64,
}

#[derive(Serialize)]
struct TrackView {
    kind: &'static str,
    codec: &'static str,
    layers: Vec<LayerView>,
}

/// A layer as it comes in.
#[derive(Clone, Debug, Serialize)]
pub(super) struct LayerView {
    pub(super) rid: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) width: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) height: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) fps: Option<f64>,
    pub(super) bitrate: u64,
}

impl Tables {
    /// Reads `registry`; `viewers` tells how many watch a table over a transport.
    pub fn new(
        registry: Arc<Registry>,
        viewers: impl Fn(&TableName, Transport) -> u64 + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self { registry, viewers: Box::new(viewers), samples: Mutex::default() })
    }

    /// Takes a sample of every layer. Call it about once a second.
    pub fn sample(&self, now: Instant) {
        let streams = self.registry.list();
        let mut samples = self.lock();
        samples.retain(|(id, _), _| streams.iter().any(|stream| stream.id == *id));
        for stream in &streams {
            for layer in stream.layers() {
                let Some(snapshot) = stream.layer_snapshot(layer) else { continue };
                let kept = samples.entry((stream.id, layer)).or_default();
                kept.push_back((now, snapshot));
                if kept.len() > SAMPLES {
                    kept.pop_front();
                }
            }
        }
    }

    /// All tables, in the order of their names, as the public API shows them.
    pub fn json(&self) -> Vec<u8> {
        let views: Vec<_> = self.registry.list().iter().map(|stream| self.view(stream)).collect();
        serde_json::to_vec(&views).unwrap_or_default()
    }

    /// Reports tables, viewers and what comes in.
    pub fn scrape(&self, scrape: &mut Scrape) {
        let streams = self.registry.list();
        let live = streams.iter().filter(|stream| stream.is_live()).count();
        scrape.count(&names::TABLES, &[], live as u64);
        for stream in &streams {
            let table = stream.table.as_str();
            for transport in Transport::ALL {
                let viewers = (self.viewers)(&stream.table, transport);
                scrape.count(&names::VIEWERS, &[table, transport.as_str()], viewers);
            }
            for layer in stream.layers() {
                let Some(now) = stream.layer_snapshot(layer) else { continue };
                let labels = &[table, &*layer_label(stream, layer)];
                scrape.count(&names::INGEST_PACKETS, labels, now.packets);
                scrape.count(&names::INGEST_BYTES, labels, now.bytes);
                scrape.count(&names::INGEST_FRAMES, labels, now.frames);
                scrape.count(&names::INGEST_KEYFRAMES, labels, now.keyframes);
                scrape.count(&names::INGEST_LOST, labels, now.ingest.lost);
                scrape.count(&names::INGEST_RECOVERED, labels, now.ingest.recovered);
                let rates = self.rates(stream.id, layer);
                scrape.add(&names::INGEST_FPS, labels, rates.fps);
                scrape.add(&names::INGEST_BITRATE, labels, rates.bitrate);
            }
        }
    }

    /// What a viewer of `stream` is expected to cost on the wire, in bit/s: of each track
    /// the layer with the highest rate.
    pub fn viewer_bps(&self, stream: &Stream) -> u64 {
        let mut tracks: BTreeMap<u8, f64> = BTreeMap::new();
        for layer in stream.layers() {
            let highest = tracks.entry(layer.track).or_default();
            *highest = highest.max(self.rates(stream.id, layer).wire_bps());
        }
        let all: f64 = tracks.values().sum();
        if all > 0.0 { all as u64 } else { UNKNOWN_BPS }
    }

    fn view(&self, stream: &Stream) -> TableView {
        let table = stream.table.as_str();
        let track = |(index, info): (usize, &crate::media::TrackInfo)| TrackView {
            kind: info.kind().as_str(),
            codec: info.codec.encoding_name(),
            layers: (0..info.rids.len())
                .map(|layer| LayerId { track: index as u8, layer: layer as u8 })
                .zip(&info.rids)
                .map(|(id, rid)| self.layer_view(stream, id, info.kind(), rid))
                .collect(),
        };
        TableView {
            table: table.to_owned(),
            live: stream.is_live(),
            started_at: stream.created.rfc3339_millis(),
            viewers: ViewersView {
                webrtc: (self.viewers)(&stream.table, Transport::WebRtc),
                llhls: (self.viewers)(&stream.table, Transport::LlHls),
            },
            tracks: stream.tracks.iter().enumerate().map(track).collect(),
        }
    }

    /// A layer of a stream, and whether it flows: it has come within the last samples.
    pub(super) fn layer(&self, stream: &Stream, id: LayerId) -> Option<(LayerView, bool)> {
        let info = stream.tracks.get(usize::from(id.track))?;
        let rid = info.rids.get(usize::from(id.layer))?;
        let view = self.layer_view(stream, id, info.kind(), rid);
        let sampled = self.lock().get(&(stream.id, id)).is_some_and(|kept| kept.len() > 1);
        let begun = stream.layer_snapshot(id).is_some_and(|now| now.packets > 0);
        let flows = if sampled { view.bitrate > 0 } else { begun };
        Some((view, flows))
    }

    fn layer_view(&self, stream: &Stream, id: LayerId, kind: MediaKind, rid: &str) -> LayerView {
        let now = stream.layer_snapshot(id).unwrap_or_default();
        let rates = self.rates(stream.id, id);
        let video = kind == MediaKind::Video;
        LayerView {
            rid: rid.to_owned(),
            width: (video && now.width > 0).then_some(now.width),
            height: (video && now.height > 0).then_some(now.height),
            fps: video.then(|| (rates.fps * 10.0).round() / 10.0),
            bitrate: rates.bitrate.round() as u64,
        }
    }

    fn rates(&self, stream: StreamId, layer: LayerId) -> Rates {
        let samples = self.lock();
        let between = samples.get(&(stream, layer)).and_then(|kept| kept.front().zip(kept.back()));
        let Some(((t0, first), (t1, last))) = between else { return Rates::default() };
        let seconds = t1.saturating_duration_since(*t0).as_secs_f64();
        if seconds == 0.0 {
            return Rates::default();
        }
        Rates {
            fps: last.frames.saturating_sub(first.frames) as f64 / seconds,
            bitrate: last.bytes.saturating_sub(first.bytes) as f64 * 8.0 / seconds,
            packets: last.packets.saturating_sub(first.packets) as f64 / seconds,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Samples> {
        // Nothing panics while it holds this lock; samples are whole in any case.
        self.samples.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The value of the `layer` metric label: `video`, `video:h`, `video-2`, `audio`.
pub fn layer_label(stream: &Stream, id: LayerId) -> String {
    let track = usize::from(id.track);
    let Some(info) = stream.tracks.get(track) else { return String::new() };
    let before = stream.tracks.iter().take(track).filter(|t| t.kind() == info.kind()).count();
    let mut label = info.kind().as_str().to_owned();
    if before > 0 {
        label.push_str(&format!("-{}", before + 1));
    }
    match info.rids.get(usize::from(id.layer)) {
        Some(rid) if !rid.is_empty() => format!("{label}:{rid}"),
        _ => label,
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;
    use crate::codec::Codec;
    use crate::hub::{PublishRequest, Publisher};
    use crate::media::{Packet, TrackInfo};
    use crate::qos::Metrics;
    use crate::time::Utc;

    fn track(codec: Codec, rids: &[&str]) -> TrackInfo {
        let rids = rids.iter().map(|rid| (*rid).to_owned()).collect();
        TrackInfo { codec, channels: 2, fmtp: String::new(), rids }
    }

    fn publish(registry: &Arc<Registry>) -> Publisher {
        let request = PublishRequest {
            table: "demo".parse().unwrap(),
            tracks: vec![track(Codec::H264, &["h", "l"]), track(Codec::Opus, &[""])],
            credentials: None,
            now: Utc::from_micros(0),
            waker: Waker::noop().clone(),
        };
        registry.publish(request).unwrap()
    }

    fn packet(seq: u64, received: Instant) -> Packet {
        Packet {
            seq,
            timestamp: seq * 3000,
            marker: true,
            keyframe: seq == 0,
            capture: Utc::from_micros(0),
            received,
            payload: Bytes::from_static(&[0; 1000]),
        }
    }

    #[test]
    fn rates_come_from_the_last_two_seconds() {
        let registry = Registry::new(1);
        let mut publisher = publish(&registry);
        let tables = Tables::new(registry, |_, transport| match transport {
            Transport::WebRtc => 7,
            Transport::LlHls => 3,
        });
        let start = Instant::now();
        let high = LayerId { track: 0, layer: 0 };
        for second in 0..4 {
            tables.sample(start + Duration::from_secs(second));
            let expected = if second < 1 { UNKNOWN_BPS } else { 30 * (1000 + PACKET_OVERHEAD) * 8 };
            let stream = tables.registry.get(&"demo".parse().unwrap()).unwrap();
            assert_eq!(tables.viewer_bps(&stream), expected, "after {second} s");
            for frame in 0..30 {
                publisher.push(high, packet(second * 30 + frame, start));
            }
        }
        let json: serde_json::Value = serde_json::from_slice(&tables.json()).unwrap();
        assert_eq!(
            json,
            serde_json::json!([{
                "table": "demo", "live": true, "startedAt": "1970-01-01T00:00:00.000Z",
                "viewers": {"webrtc": 7, "llhls": 3},
                "tracks": [
                    {"kind": "video", "codec": "H264", "layers": [
                        {"rid": "h", "fps": 30.0, "bitrate": 240_000},
                        {"rid": "l", "fps": 0.0, "bitrate": 0},
                    ]},
                    {"kind": "audio", "codec": "opus", "layers": [{"rid": "", "bitrate": 0}]},
                ],
            }])
        );
    }

    #[test]
    fn series_of_a_table_end_with_it() {
        let registry = Registry::new(1);
        let mut publisher = publish(&registry);
        let tables = Tables::new(registry, |_, _| 0);
        let metrics = Metrics::new();
        let source = tables.clone();
        metrics.add_source(move |scrape| source.scrape(scrape));
        let now = Instant::now();
        publisher.push(LayerId { track: 0, layer: 1 }, packet(0, now));
        tables.sample(now);
        let text = metrics.render();
        for series in [
            "railbird_ingest_bytes_total{table=\"demo\",layer=\"video:l\"} 1000",
            "railbird_ingest_packets_total{table=\"demo\",layer=\"audio\"} 0",
            "railbird_tables 1",
        ] {
            assert!(text.contains(series), "no `{series}` in\n{text}");
        }
        drop(publisher);
        assert!(!metrics.render().contains("demo"));
        tables.sample(now);
        assert!(tables.lock().is_empty());
    }
}
