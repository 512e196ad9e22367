//! Makes the parts of the data path from the configuration, and tells the metrics
//! where their counters are.

use std::net::IpAddr;
use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, anyhow};

use crate::api::health::Health;
use crate::api::tables::Tables;
use crate::config;
use crate::egress::hls::{Hls, HlsSettings};
use crate::hub::Registry;
use crate::ingest::whip::ReceiverSettings;
use crate::net::tcp::Server;
use crate::net::udp::UdpSettings;
use crate::qos::{Metrics, Scrape, Transport, names};
use crate::rtp::extensions::PlayoutDelay;
use crate::time::Clock;
use crate::webrtc::dtls::DtlsIdentity;
use crate::webrtc::transport::TransportTimeouts;
use crate::worker::{MediaPool, PoolSettings, SessionLimits};

/// Opens the media port and starts the workers.
pub(super) fn media_pool(
    media: &config::Media,
    addresses: Vec<IpAddr>,
    clock: Clock,
    metrics: &Metrics,
) -> anyhow::Result<Arc<MediaPool>> {
    let cores = || std::thread::available_parallelism().map_or(1, NonZero::get);
    let settings = PoolSettings {
        workers: if media.workers == 0 { cores() } else { media.workers },
        udp: UdpSettings {
            port: media.port,
            ipv6: addresses.iter().any(IpAddr::is_ipv6),
            buffer_bytes: media.socket_buffer_bytes,
        },
        addresses,
        limits: SessionLimits { viewers: media.max_viewers, publishers: media.max_tables },
        timeouts: TransportTimeouts {
            connect: media.connect_timeout,
            consent: media.consent_timeout,
        },
        ingest_timeout: media.ingest_timeout,
        receiver: ReceiverSettings {
            reorder_wait: media.reorder_wait,
            keyframe_interval: media.keyframe_interval,
            ..ReceiverSettings::default()
        },
        playout_delay: PlayoutDelay::from_millis(
            whole_millis(media.playout_delay_min),
            whole_millis(media.playout_delay_max),
        ),
    };
    let identity =
        DtlsIdentity::generate().map_err(|error| anyhow!("DTLS certificate: {error}"))?;
    MediaPool::start(settings, identity, clock, metrics.clone())
        .with_context(|| format!("cannot open the media port {}/udp", media.port))
}

fn whole_millis(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}

/// Makes the LL-HLS packager; it packages once its `run` runs.
pub(super) fn hls(hls: &config::Hls, registry: &Arc<Registry>, clock: Clock) -> Arc<Hls> {
    let settings = HlsSettings {
        part_target: hls.part,
        segment_target: hls.segment,
        window: hls.window,
        max_window_bytes: hls.max_window_bytes,
        ..HlsSettings::default()
    };
    Hls::new(settings, registry.clone(), clock)
}

/// How many watch a table over a transport.
pub(super) fn viewers(
    pool: Arc<MediaPool>,
    hls: Option<Arc<Hls>>,
) -> impl Fn(&str, Transport) -> u64 + Send + Sync + 'static {
    move |table, transport| {
        let Ok(table) = table.parse() else { return 0 };
        let viewers = match transport {
            Transport::WebRtc => pool.viewers_of(&table),
            Transport::LlHls => hls.as_ref().map_or(0, |hls| hls.viewers(&table)),
        };
        viewers as u64
    }
}

/// Everything that is read when somebody scrapes.
pub(super) fn add_sources(
    metrics: &Metrics,
    tables: &Arc<Tables>,
    health: &Arc<Health>,
    pool: &Arc<MediaPool>,
    hls: Option<&Arc<Hls>>,
) {
    let tables = tables.clone();
    metrics.add_source(move |scrape| tables.scrape(scrape));
    let health = health.clone();
    metrics.add_source(move |scrape| {
        scrape.count(&names::READY, &[], u64::from(health.not_ready().is_none()));
        scrape.count(&names::WORKERS, &[], health.workers() as u64);
    });
    let pool = pool.clone();
    metrics.add_source(move |scrape| scrape_pool(scrape, &pool));
    if let Some(hls) = hls.cloned() {
        metrics.add_source(move |scrape| scrape_hls(scrape, &hls));
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
    });
}

fn scrape_pool(scrape: &mut Scrape, pool: &MediaPool) {
    let totals = pool.totals();
    scrape.count(&names::MEDIA_DATAGRAMS, &[], totals.datagrams_received);
    scrape.count(&names::MEDIA_BYTES, &[], totals.bytes_received);
    scrape.count(&names::MEDIA_FORWARDED, &[], totals.forwarded);
    scrape.count(&names::SEND_DROPPED, &[], totals.send_dropped);
    scrape.count(&names::MAILBOX_DROPPED, &["worker"], totals.mailbox_overflows);
    for (reason, count) in totals.rejected {
        scrape.count(&names::REJECTED_INPUT, &["media", reason], count);
    }
    for (worker, nanos) in pool.busy_nanos().into_iter().enumerate() {
        let busy = Duration::from_nanos(nanos).as_secs_f64();
        scrape.add(&names::WORKER_BUSY, &[&worker.to_string()], busy);
    }
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
    scrape.count(&names::HLS_PARTS, &[], read(&stats.parts));
    scrape.count(&names::HLS_SEGMENTS, &[], read(&stats.segments));
    scrape.count(&names::HLS_FRAMES_DROPPED, &["queue"], read(&stats.frames_dropped_queue));
    scrape.count(&names::HLS_FRAMES_DROPPED, &["unusable"], read(&stats.frames_dropped_unusable));
}
