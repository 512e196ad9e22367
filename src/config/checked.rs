//! The schema: what can be configured, with its default, meaning and check.
//!
//! Each `read` call is one key. `configs/railbird.toml` shows the same keys, and a
//! test keeps the two equal.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tracing_subscriber::EnvFilter;

use super::raw::{Document, Section};
use super::value::{
    Refusal, choice, dscp, duration, flag, list, number, optional_duration, optional_path, parsed,
    ratio, show_duration, socket_address,
};
use crate::hub::TableName;
use crate::net::addresses::AddressSource;
use crate::net::dscp::Dscp;
use crate::webrtc::sdp::MAX_SDP_BYTES;

/// A whole, checked configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The public HTTP surface.
    pub http: Http,
    /// The operators' HTTP surface.
    pub admin: Admin,
    /// WebRTC media.
    pub media: Media,
    /// How packets are marked.
    pub dscp: Marks,
    /// LL-HLS.
    pub hls: Hls,
    /// Logs.
    pub log: Log,
    /// The synthetic dealer of `railbird demo`.
    pub demo: Demo,
}

/// `[http]`
#[derive(Debug, Clone, PartialEq)]
pub struct Http {
    /// Where to listen; never empty. Port 0 takes a free one.
    pub listen: Vec<SocketAddr>,
    /// Certificate and key; `None` serves plain HTTP.
    pub tls: Option<TlsFiles>,
    /// Connections open at once, over all listeners.
    pub max_connections: usize,
    /// Longest request body, in bytes.
    pub max_body_bytes: usize,
    /// How long a client may take to send a request's head.
    pub header_timeout: Duration,
    /// How long open requests may take to end when the gateway stops.
    pub shutdown_timeout: Duration,
}

/// A certificate chain and its private key, both PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The chain, leaf first.
    pub certificate: PathBuf,
    /// The leaf's private key.
    pub key: PathBuf,
}

/// `[admin]`
#[derive(Debug, Clone, PartialEq)]
pub struct Admin {
    /// Where to listen. Port 0 takes a free one.
    pub listen: SocketAddr,
}

/// `[media]`
#[derive(Debug, Clone, PartialEq)]
pub struct Media {
    /// The one UDP port of all WebRTC media; 0 takes a free one.
    pub port: u16,
    /// Where the addresses announced as ICE candidates come from; empty: the host's
    /// default routes.
    pub addresses: Vec<AddressSource>,
    /// Media threads; 0: one per core.
    pub workers: usize,
    /// Tables live at once.
    pub max_tables: usize,
    /// WebRTC viewers at once.
    pub max_viewers: usize,
    /// Mean load of the media threads above which viewers are refused; 0: no limit.
    pub max_worker_load: f64,
    /// Bit/s that may be sent; 0: what the interfaces can.
    pub max_egress_bps: u64,
    /// A publisher that sends nothing for so long has ended.
    pub ingest_timeout: Duration,
    /// A peer whose consent checks (RFC 7675) stay out for so long has gone.
    pub consent_timeout: Duration,
    /// A session must be connected (ICE and DTLS) this long after its answer.
    pub connect_timeout: Duration,
    /// Shortest time between two keyframe requests to a publisher's layer.
    pub keyframe_interval: Duration,
    /// How long a hole in a publisher's packets is waited for.
    pub reorder_wait: Duration,
    /// Least playout delay that viewers' players are asked for.
    pub playout_delay_min: Duration,
    /// Most playout delay that viewers' players are asked for.
    pub playout_delay_max: Duration,
    /// Kernel receive and send buffer of each worker's socket, in bytes.
    pub socket_buffer_bytes: usize,
    /// Give the kernel runs of datagrams as one message, where it can.
    pub gso: bool,
}

/// `[dscp]`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marks {
    /// Of WebRTC audio.
    pub audio: Dscp,
    /// Of WebRTC video.
    pub video: Dscp,
    /// Of STUN, DTLS and SRTCP.
    pub control: Dscp,
    /// Of the public HTTP listeners' connections.
    pub hls: Dscp,
}

/// `[hls]`
#[derive(Debug, Clone, PartialEq)]
pub struct Hls {
    /// Package tables for LL-HLS.
    pub enabled: bool,
    /// Target duration of a part; at most half of `segment`. The profile's, unless given.
    pub part: Duration,
    /// Target duration of a segment. The profile's, unless given.
    pub segment: Duration,
    /// How much of a table can be seeked back to; at least six segments.
    pub window: Duration,
    /// Memory that the window of one rendition may take, in bytes.
    pub max_window_bytes: usize,
    /// How long a table goes on when its publisher is gone; at most `window`.
    pub restart_wait: Duration,
    /// List gaps before the first media of a table.
    pub leading_gaps: bool,
    /// Whether each viewer gets URIs of its own, by which it is accounted for.
    pub sessions: bool,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq)]
pub struct Log {
    /// How lines are written.
    pub format: LogFormat,
    /// What is logged: a level, or `tracing` filter directives.
    pub level: String,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// `Human` on a terminal, `Json` elsewhere.
    Auto,
    /// For a person's eyes.
    Human,
    /// One JSON object per line.
    Json,
}

/// `[demo]`
#[derive(Debug, Clone, PartialEq)]
pub struct Demo {
    /// The table that the synthetic dealer publishes.
    pub table: TableName,
    /// Picture width in pixels.
    pub width: u32,
    /// Picture height in pixels.
    pub height: u32,
    /// Frames per second.
    pub fps: u32,
    /// Video bitrate in bit/s.
    pub bitrate: u32,
}

const FORMATS: &[(&str, LogFormat)] =
    &[("auto", LogFormat::Auto), ("human", LogFormat::Human), ("json", LogFormat::Json)];

/// Part and segment of each profile: what a viewer's delay is worth against requests
/// and their round trips.
const PROFILES: &[(&str, (Duration, Duration))] = &[
    ("balanced", (ms(500), ms(2_000))),
    ("close", (ms(200), ms(1_000))),
    ("far", (ms(1_000), ms(4_000))),
];

/// One byte to 1 GiB: more than any buffer here is worth.
const BUFFER_MAX: i64 = 1 << 30;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(super) fn read(document: &mut Document<'_>) -> Config {
    Config {
        http: http(document.section("http")),
        admin: admin(document.section("admin")),
        media: media(document.section("media")),
        dscp: marks(document.section("dscp")),
        hls: hls(document.section("hls")),
        log: log(document.section("log")),
        demo: demo(document.section("demo")),
    }
}

#[rustfmt::skip] // one key per line reads as the table it is
fn http(mut s: Section<'_, '_>) -> Http {
    let listen = s.read("listen", "Public listeners: WHIP, WHEP, LL-HLS and pages; port 0 takes a free one.", r#"["0.0.0.0:8080"]"#, list(1, socket_address));
    let certificate = s.read("tls_certificate", "PEM certificate chain, read again when it changes; \"\" serves plain HTTP.", r#""""#, optional_path);
    let key = s.read("tls_key", "PEM private key of the certificate.", r#""""#, optional_path);
    let max_connections = s.read("max_connections", "Connections open at once; more are answered 503.", "50_000", number(1..=1_000_000));
    let max_body_bytes = s.read("max_body_bytes", "Longest request body (an SDP offer is a few KiB); longer ones are answered 413.", "65_536", number(1024..=MAX_SDP_BYTES as i64));
    let header_timeout = s.read("header_timeout", "How long a client may take to send a request's head, and to stay idle between two.", r#""15s""#, duration(ms(100)..=ms(3_600_000)));
    let shutdown_timeout = s.read("shutdown_timeout", "How long open requests may take to end when the gateway stops.", r#""5s""#, duration(ms(0)..=ms(3_600_000)));
    let tls = match (certificate, key) {
        (Some(certificate), Some(key)) => Some(TlsFiles { certificate, key }),
        (None, None) => None,
        (Some(_), None) => { s.refuse("tls_key", &Refusal::new("a certificate without its key", "both or none")); None }
        (None, Some(_)) => { s.refuse("tls_certificate", &Refusal::new("a key without its certificate", "both or none")); None }
    };
    Http { listen, tls, max_connections, max_body_bytes, header_timeout, shutdown_timeout }
}

#[rustfmt::skip]
fn admin(mut s: Section<'_, '_>) -> Admin {
    Admin {
        listen: s.read("listen", "Health, metrics and tables, for operators only: it has no authentication.", r#""127.0.0.1:9090""#, socket_address),
    }
}

#[rustfmt::skip]
fn media(mut s: Section<'_, '_>) -> Media {
    let media = Media {
        port: s.read("port", "The one UDP port of all WebRTC media; 0 takes a free one.", "8443", number(0..=65_535)),
        addresses: s.read("addresses", "Addresses announced to browsers, best first: IP addresses, interfaces such as \"eth0\" (its global addresses) and variables such as \"env:NODE_IP\"; [] takes those of the default routes, or loopback without any.", "[]", list(0, parsed("an IPv4 or IPv6 address without port, an interface such as \"eth0\", or a variable such as \"env:NODE_IP\""))),
        workers: s.read("workers", "Media threads; 0 is one per core.", "0", number(0..=1024)),
        max_tables: s.read("max_tables", "Tables published at once; more are refused.", "200", number(1..=10_000)),
        max_viewers: s.read("max_viewers", "WebRTC viewers at once; more are refused.", "10_000", number(1..=1_000_000)),
        max_worker_load: s.read("max_worker_load", "Share of their time that media threads may be busy over several seconds; more viewers are refused above it. 0 is no limit.", "0.85", ratio),
        max_egress_bps: s.read("max_egress_bps", "Bit/s that this gateway may send; more viewers are refused above 90 % of it. 0 takes the speed of the interfaces that carry the announced addresses, or no limit where the system does not know it.", "0", number(0..=100_000_000_000_000)),
        ingest_timeout: s.read("ingest_timeout", "A publisher that sends nothing for so long has ended.", r#""10s""#, duration(ms(500)..=ms(3_600_000))),
        consent_timeout: s.read("consent_timeout", "A peer that renews no consent (RFC 7675) for so long has gone.", r#""30s""#, duration(ms(1000)..=ms(3_600_000))),
        connect_timeout: s.read("connect_timeout", "ICE and DTLS must be done so long after the answer.", r#""15s""#, duration(ms(1000)..=ms(600_000))),
        keyframe_interval: s.read("keyframe_interval", "Shortest time between two keyframe requests to a publisher's layer.", r#""500ms""#, duration(ms(50)..=ms(60_000))),
        reorder_wait: s.read("reorder_wait", "How long a hole in a publisher's packets is waited for before it counts as lost.", r#""200ms""#, duration(ms(0)..=ms(5_000))),
        playout_delay_min: s.read("playout_delay_min", "Least playout delay that viewers' players are asked for.", r#""0ms""#, duration(ms(0)..=ms(40_000))),
        playout_delay_max: s.read("playout_delay_max", "Most playout delay that viewers' players are asked for; raises the resilience to jitter.", r#""150ms""#, duration(ms(0)..=ms(40_000))),
        socket_buffer_bytes: s.read("socket_buffer_bytes", "Kernel receive and send buffer of each media socket; the kernel's own limits (net.core.rmem_max, wmem_max) hold.", "4_194_304", number(65_536..=BUFFER_MAX)),
        gso: s.read("gso", "Give the kernel runs of packets to a viewer at once (GSO), where it takes them; off only to look for faults.", "true", flag),
    };
    if media.playout_delay_min > media.playout_delay_max {
        s.refuse("playout_delay_min", &Refusal::new("more than the most", "media.playout_delay_max or less"));
    }
    media
}

#[rustfmt::skip]
fn marks(mut s: Section<'_, '_>) -> Marks {
    Marks {
        audio: s.read("audio", "DSCP of WebRTC audio: a name such as \"AF41\" or \"EF\", a number from 0 to 63, or \"off\". Best the same as video, with which it shares a path.", r#""AF41""#, dscp),
        video: s.read("video", "DSCP of WebRTC video.", r#""AF41""#, dscp),
        control: s.read("control", "DSCP of the sessions' STUN, DTLS and RTCP.", r#""AF41""#, dscp),
        hls: s.read("hls", "DSCP of the public HTTP connections: LL-HLS and pages.", r#""AF31""#, dscp),
    }
}

#[rustfmt::skip]
fn hls(mut s: Section<'_, '_>) -> Hls {
    let enabled = s.read("enabled", "Package tables for LL-HLS.", "true", flag);
    let profile = s.read("profile", "\"balanced\": parts of 500 ms in segments of 2 s, for the internet; \"close\": 200 ms in 1 s, for networks with a short, steady round trip; \"far\": 1 s in 4 s, for long round trips and fewer requests.", r#""balanced""#, choice(PROFILES));
    let part = s.read("part", "Target duration of a part; \"\" is the profile's. A frame must fit: \"100ms\" is one at 10 frames/s.", r#""""#, optional_duration(ms(100)..=ms(5_000)));
    let segment = s.read("segment", "Target duration of a segment, at least two parts; \"\" is the profile's.", r#""""#, optional_duration(ms(500)..=ms(20_000)));
    let window = s.read("window", "How far back a table can be seeked; at least six segments.", r#""30s""#, duration(ms(2_000)..=ms(3_600_000)));
    let max_window_bytes = s.read("max_window_bytes", "Memory that the window of one rendition of a table may take; past it the oldest segments go. An hour of 2.5 Mbit/s is 1.1 GiB.", "67_108_864", number(1 << 20..=1 << 36));
    let restart_wait = s.read("restart_wait", "How long a table whose publisher is gone goes on, with gaps, for it to come back; at most the window. \"0ms\" ends it at once.", r#""10s""#, duration(ms(0)..=ms(600_000)));
    let leading_gaps = s.read("leading_gaps", "List gaps before the first media of a table, so that a young playlist has the six segments that Apple's players want; hls.js may then start 10 s later at a table that is younger than that.", "false", flag);
    let sessions = s.read("sessions", "Give each viewer URIs of its own, by which it is counted and its stalls are seen; off when a cache in front answers most requests.", "true", flag);
    let hls = Hls { enabled, part: part.unwrap_or(profile.0), segment: segment.unwrap_or(profile.1), window, max_window_bytes, restart_wait, leading_gaps, sessions };
    // The profiles fit among themselves: something was given.
    check_lengths(&mut s, &hls, if part.is_some() { "part" } else { "segment" });
    hls
}

/// What the lengths must be to each other (rfc8216bis §6.2.2, Apple HLS authoring §8.11).
/// Durations here are whole milliseconds, and TARGETDURATION is the segment rounded up
/// to seconds: no segment rounds to more.
fn check_lengths(s: &mut Section<'_, '_>, hls: &Hls, given: &'static str) {
    let show = show_duration;
    if hls.segment < hls.part * 2 {
        let problem = format!(
            "a segment of {} has not room for two parts of {}",
            show(hls.segment),
            show(hls.part)
        );
        s.refuse(given, &Refusal::new(problem, "hls.part to be half of hls.segment or less"));
    }
    let target = Duration::from_secs(hls.segment.as_millis().div_ceil(1000) as u64);
    let least = (hls.segment * 6).max(target * 3);
    if hls.window < least {
        let problem = format!(
            "{} is less than six segments of {}, which players need to start",
            show(hls.window),
            show(hls.segment)
        );
        s.refuse("window", &Refusal::new(problem, format!("\"{}\" or more", show(least))));
    }
    if hls.restart_wait > hls.window {
        let problem = format!(
            "{} is more than the window: at its end nothing but gaps would be listed",
            show(hls.restart_wait)
        );
        s.refuse(
            "restart_wait",
            &Refusal::new(problem, format!("hls.window ({}) or less", show(hls.window))),
        );
    }
}

#[rustfmt::skip]
fn log(mut s: Section<'_, '_>) -> Log {
    let format = s.read("format", "\"human\", \"json\", or \"auto\": human on a terminal, JSON lines elsewhere.", r#""auto""#, choice(FORMATS));
    let level: EnvFilter = s.read("level", "error, warn, info, debug or trace; or per module, such as \"info,railbird::hub=debug\".", r#""info""#, parsed("a level, or filter directives"));
    Log { format, level: level.to_string() }
}

#[rustfmt::skip]
fn demo(mut s: Section<'_, '_>) -> Demo {
    let demo = Demo {
        table: s.read("table", "The table that `railbird demo` publishes.", r#""demo""#, parsed("a table name: 1 to 64 of A-Z a-z 0-9 _ -")),
        width: s.read("width", "Picture width in pixels.", "1280", number(320..=3840)),
        height: s.read("height", "Picture height in pixels.", "720", number(180..=2160)),
        fps: s.read("fps", "Frames per second.", "30", number(1..=60)),
        bitrate: s.read("bitrate", "Video bitrate in bit/s.", "2_500_000", number(100_000..=50_000_000)),
    };
    // What the dealer's capture strip of 40 x 22.5 cells needs in whole pixels.
    if !demo.width.is_multiple_of(32) || demo.width * 9 != demo.height * 16 {
        s.refuse("width", &Refusal::new(format!("{}x{} is no picture of the dealer's", demo.width, demo.height), "16:9 with a width that is a multiple of 32"));
    }
    demo
}
