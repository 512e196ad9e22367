//! LL-HLS as the configuration wants it, and what the parts report to the metrics.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::api::health::Health;
use crate::api::tables::{PACKET_OVERHEAD, Tables};
use crate::config;
use crate::egress::hls::{Hls, HlsSettings};
use crate::hub::{Registry, Stream, StreamId, TableName};
use crate::net::tcp::Server;
use crate::qos::{Metrics, Scrape, Transport, names};
use crate::worker::MediaPool;

/// Makes the LL-HLS packager; it packages once its `run` runs.
pub(super) fn hls(config: &config::Config, registry: &Arc<Registry>, metrics: Metrics) -> Arc<Hls> {
    let hls = &config.hls;
    let settings = HlsSettings {
        part_target: hls.part,
        segment_target: hls.segment,
        window: hls.window,
        max_window_bytes: hls.max_window_bytes,
        restart_wait: hls.restart_wait,
        leading_gaps: hls.leading_gaps,
        sessions: hls.sessions,
        max_lingering: config.media.max_tables,
        ..HlsSettings::default()
    };
    Hls::new(settings, registry.clone(), metrics)
}

/// How many watch a table over a transport.
pub(super) fn viewers(
    pool: Arc<MediaPool>,
    hls: Option<Arc<Hls>>,
) -> impl Fn(&TableName, Transport) -> u64 + Send + Sync + 'static {
    move |table, transport| {
        let viewers = match transport {
            Transport::WebRtc => pool.viewers_of(table),
            Transport::LlHls => hls.as_ref().map_or(0, |hls| hls.viewers(table)),
        };
        viewers as u64
    }
}

/// Counts the bytes on the wire since the start, each time it is called: what all
/// streams' viewers were sent, also of streams that are over by then, and LL-HLS.
/// What a stream sends between the last call and its end is left out.
pub(super) fn egress_meter(
    registry: Arc<Registry>,
    hls: Option<Arc<Hls>>,
) -> impl FnMut() -> u64 + Send + 'static {
    let mut streams: HashMap<StreamId, u64> = HashMap::new();
    let mut over = 0;
    move || {
        let live: HashMap<_, _> =
            registry.list().iter().map(|stream| (stream.id, wire_bytes(stream))).collect();
        for (id, bytes) in streams.drain() {
            over += if live.contains_key(&id) { 0 } else { bytes };
        }
        streams = live;
        let hls = hls.as_ref().map_or(0, |hls| hls.stats().bytes_out.load(Ordering::Relaxed));
        over + streams.values().sum::<u64>() + hls
    }
}

/// A packet that is sent again is taken to be as long as the mean.
fn wire_bytes(stream: &Stream) -> u64 {
    let counts = stream.egress.snapshot();
    let mean = counts.bytes / counts.packets.max(1);
    counts.bytes + counts.resent * mean + (counts.packets + counts.resent) * PACKET_OVERHEAD
}

/// Everything that is read when somebody scrapes.
pub(super) fn add_sources(
    metrics: &Metrics,
    tables: &Arc<Tables>,
    health: &Arc<Health>,
    hls: Option<&Arc<Hls>>,
) {
    let tables = tables.clone();
    metrics.add_source(move |scrape| tables.scrape(scrape));
    let health = health.clone();
    metrics.add_source(move |scrape| {
        scrape.count(&names::READY, &[], u64::from(health.not_ready().is_none()));
        scrape.count(&names::WORKERS, &[], health.workers() as u64);
    });
    if let Some(hls) = hls.cloned() {
        metrics.add_source(move |scrape| {
            scrape_hls(scrape, &hls);
            hls.scrape_sessions(scrape);
        });
    }
}

/// The connections of a listener group.
pub(super) fn add_server_source(metrics: &Metrics, listener: &'static str, server: &Server) {
    let stats = server.stats();
    metrics.add_source(move |scrape| {
        scrape.count(&names::HTTP_CONNECTIONS, &[listener], stats.open());
        for (reason, count) in stats.refused() {
            scrape.count(&names::HTTP_REFUSED, &[listener, reason], count);
        }
        scrape.count(&names::DSCP_REFUSED, &[Transport::LlHls.as_str()], stats.unmarked());
    });
}

fn scrape_hls(scrape: &mut Scrape, hls: &Hls) {
    let stats = hls.stats();
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    for (resource, requests) in [
        ("multivariant", &stats.multivariant_requests),
        ("playlist", &stats.playlist_requests),
        ("part", &stats.part_requests),
        ("segment", &stats.segment_requests),
        ("init", &stats.init_requests),
    ] {
        scrape.count(&names::HLS_REQUESTS, &[resource], read(requests));
    }
    scrape.count(&names::HLS_HELD, &[], read(&stats.held_requests));
    scrape.count(&names::HLS_HOLD_FAILED, &["timed_out"], read(&stats.timed_out_requests));
    scrape.count(&names::HLS_HOLD_FAILED, &["refused"], read(&stats.refused_requests));
    scrape.count(&names::HLS_BYTES, &[], read(&stats.bytes_out));
    scrape.count(&names::HLS_KEYFRAMES, &[], read(&stats.keyframes_asked));
    scrape.count(&names::HLS_PARTS, &[], read(&stats.parts));
    scrape.count(&names::HLS_SEGMENTS, &[], read(&stats.segments));
    scrape.count(&names::HLS_GAPS, &[], read(&stats.gap_segments));
    scrape.count(&names::HLS_UNALIGNED, &[], read(&stats.unaligned_segments));
    scrape.count(&names::HLS_FAILURES, &[], read(&stats.packagers_failed));
    scrape.count(&names::HLS_FRAMES_DROPPED, &["queue"], read(&stats.frames_dropped_queue));
    scrape.count(&names::HLS_FRAMES_DROPPED, &["unusable"], read(&stats.frames_dropped_unusable));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::egress::hls::HlsSettings;

    #[tokio::test]
    async fn what_a_segmenter_could_not_do_is_told() {
        let (registry, metrics) = (Registry::new(4), Metrics::new());
        let hls = Hls::new(HlsSettings::default(), registry, metrics.clone());
        hls.stats().gap_segments.store(3, Ordering::Relaxed);
        hls.stats().unaligned_segments.store(5, Ordering::Relaxed);
        metrics.add_source(move |scrape| scrape_hls(scrape, &hls));
        let text = metrics.render();
        for line in ["railbird_hls_gap_segments_total 3", "railbird_hls_unaligned_segments_total 5"]
        {
            assert!(text.lines().any(|one| one == line), "no {line} in\n{text}");
        }
    }
}
