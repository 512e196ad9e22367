//! The media workers as the configuration wants them, and what they report.

use std::net::IpAddr;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use anyhow::{Context, anyhow};

use crate::config::Config;
use crate::hub::{Registry, Stream};
use crate::ingest::whip::ReceiverSettings;
use crate::net::interfaces::Host;
use crate::net::udp::{Marking, UdpSettings};
use crate::qos::{Metrics, Scrape, Transport, names};
use crate::rtp::extensions::PlayoutDelay;
use crate::time::Clock;
use crate::webrtc::dtls::DtlsIdentity;
use crate::webrtc::transport::TransportTimeouts;
use crate::worker::{HeadroomLimits, MediaPool, PoolSettings, SessionLimits};

/// A table that is taken over has two publisher sessions until the former has gone, so
/// that a provider's encoder can restart on a gateway whose tables are all taken. The
/// registry alone bounds the tables; sessions past this are answered 503.
const SESSIONS_PER_TABLE: usize = 2;

/// What the workers are made for.
pub(super) struct Media<'a> {
    pub(super) config: &'a Config,
    /// The addresses of our answers.
    pub(super) announced: &'a [IpAddr],
    pub(super) host: &'a Host,
}

impl Media<'_> {
    /// Opens the media port and starts the workers.
    pub(super) fn start(&self, clock: Clock, metrics: Metrics) -> anyhow::Result<Arc<MediaPool>> {
        let identity = DtlsIdentity::generate()
            .map_err(|error| anyhow!("no DTLS certificate could be made: {error}"))?;
        let settings = settings(self.config, self.announced.to_vec(), self.egress_bps());
        MediaPool::start(settings, identity, clock, metrics)
            .context("the media port cannot be opened; is another process on it?")
    }

    /// The bit/s that may be sent; 0 is no limit.
    fn egress_bps(&self) -> u64 {
        if self.config.media.max_egress_bps > 0 {
            return self.config.media.max_egress_bps;
        }
        let speed = self.host.egress_bps(self.announced);
        match speed {
            Some(bps) => tracing::info!(bps, "viewers are admitted up to the interfaces' speed"),
            None => tracing::info!(
                "the speed of the network is not known: viewers are admitted whatever is sent, \
                 unless media.max_egress_bps is set"
            ),
        }
        speed.unwrap_or(0)
    }
}

fn settings(config: &Config, addresses: Vec<IpAddr>, egress_bps: u64) -> PoolSettings {
    let media = &config.media;
    let workers = match media.workers {
        0 => available_parallelism().map_or(1, usize::from),
        given => given,
    };
    PoolSettings {
        workers,
        udp: UdpSettings {
            port: media.port,
            ipv6: addresses.iter().any(IpAddr::is_ipv6),
            buffer_bytes: media.socket_buffer_bytes,
            gso: media.gso,
            marking: Marking {
                audio: config.dscp.audio,
                video: config.dscp.video,
                control: config.dscp.control,
            },
        },
        addresses,
        limits: SessionLimits {
            viewers: media.max_viewers,
            publishers: media.max_tables.saturating_mul(SESSIONS_PER_TABLE),
        },
        headroom: HeadroomLimits { worker_load: media.max_worker_load, egress_bps },
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
    }
}

fn whole_millis(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}

/// Reports what the workers and the streams count.
pub(super) fn add_sources(metrics: &Metrics, pool: &Arc<MediaPool>, registry: &Arc<Registry>) {
    let workers = pool.clone();
    metrics.add_source(move |scrape| scrape_workers(scrape, &workers));
    let registry = registry.clone();
    metrics.add_source(move |scrape| scrape_egress(scrape, &registry));
}

fn scrape_workers(scrape: &mut Scrape, pool: &MediaPool) {
    let totals = pool.totals();
    for (reason, count) in &totals.rejected {
        scrape.count(&names::REJECTED_INPUT, &["media", reason], *count);
    }
    scrape.count(&names::MAILBOX_DROPPED, &["worker"], totals.mailbox_overflows);
    scrape.count(&names::MEDIA_DATAGRAMS, &[], totals.datagrams_received);
    scrape.count(&names::MEDIA_BYTES, &[], totals.bytes_received);
    scrape.count(&names::MEDIA_FORWARDED, &[], totals.forwarded);
    scrape.count(&names::MEDIA_DATAGRAMS_SENT, &[], totals.datagrams_sent);
    scrape.count(&names::MEDIA_MESSAGES_SENT, &[], totals.messages_sent);
    for (reason, count) in &totals.send_dropped {
        scrape.count(&names::SEND_DROPPED, &[reason], *count);
    }
    scrape.count(&names::GSO_WORKERS, &[], totals.gso_workers);
    for (reason, count) in &totals.gso_refused {
        scrape.count(&names::GSO_REFUSED, &[reason], *count);
    }
    let webrtc = &[Transport::WebRtc.as_str()];
    scrape.count(&names::DSCP_REFUSED, webrtc, totals.dscp_refused);
    for (worker, nanos) in pool.busy_nanos().into_iter().enumerate() {
        let seconds = nanos as f64 / 1e9;
        scrape.add(&names::WORKER_BUSY, &[&worker.to_string()], seconds);
    }
    for (worker, viewers) in pool.viewers_by_worker().into_iter().enumerate() {
        scrape.count(&names::WORKER_VIEWERS, &[&worker.to_string()], viewers as u64);
    }
    scrape.add(&names::EGRESS_HEADROOM, &[], pool.headroom_ratio());
    scrape.count(&names::EGRESS_LIMIT, &[], pool.egress_limit_bps());
}

fn scrape_egress(scrape: &mut Scrape, registry: &Registry) {
    for stream in registry.list() {
        let (table, counts) = (stream.table.as_str(), stream.egress.snapshot());
        let webrtc = &[table, Transport::WebRtc.as_str()];
        scrape.count(&names::EGRESS_PACKETS, webrtc, counts.packets);
        scrape.count(&names::EGRESS_BYTES, webrtc, counts.bytes);
        scrape.count(&names::VIEWERS_OVERRUN, &[table], counts.overrun);
        scrape.count(&names::VIEWER_FRAMES_DROPPED, &[table, "late"], counts.frames_late);
        scrape.count(&names::VIEWER_NACKS, &[table], counts.nacked);
        scrape.count(&names::RESENDS, &[table, "sent"], counts.resent);
        scrape.count(&names::RESENDS, &[table, "missed"], counts.resend_missed);
        scrape.count(&names::RESENDS, &[table, "refused"], counts.resend_refused);
        for (reason, switches) in [
            ("up", counts.switched_up),
            ("down_estimate", counts.switched_down_estimate),
            ("down_loss", counts.switched_down_loss),
            ("manual", counts.switched_manual),
            ("layer_gone", counts.switched_layer_gone),
            ("pause", counts.paused),
            ("resume", counts.resumed),
        ] {
            scrape.count(&names::LAYER_SWITCHES, &[table, reason], switches);
        }
        scrape.count(&names::KEYFRAME_REQUESTS, &[table, "asked"], counts.keyframes_asked);
        scrape.count(&names::KEYFRAME_REQUESTS, &[table, "replayed"], counts.replays);
        scrape.count(&names::KEYFRAME_REQUESTS, &[table, "forwarded"], plis(&stream));
    }
}

/// Keyframes that the publisher was really asked for, by viewers and by LL-HLS.
fn plis(stream: &Stream) -> u64 {
    let layers = stream.layers().filter_map(|layer| stream.layer_snapshot(layer));
    layers.map(|layer| layer.ingest.plis).sum()
}
