//! `loadgen hls`: a crowd of LL-HLS clients.

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use railbird_loadgen::crowd::measure::Summary;
use railbird_loadgen::hls::client::Options;
use railbird_loadgen::hls::multivariant::Choice;
use railbird_loadgen::hls::report::{Cost, HlsReport, Thresholds};
use railbird_loadgen::hls::tally::Tally;
use railbird_loadgen::hls::{self, HlsConfig};

use super::progress;
use super::values::{duration, positive};
use super::watch::expand;

/// Arguments of `loadgen hls`.
#[derive(clap::Args)]
pub struct Args {
    /// Multivariant playlist, such as http://127.0.0.1:8080/hls/demo/index.m3u8; several
    /// are taken in turn, and {} in one stands for 1 to --tables.
    #[arg(long = "url", required = true)]
    urls: Vec<String>,
    /// Tables that {} in the URL stands for.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    tables: u32,
    /// Bearer token.
    #[arg(long)]
    token: Option<String>,
    /// Clients at once.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    clients: u32,
    /// Clients that join per second.
    #[arg(long, default_value = "100", value_parser = positive)]
    join_rate: f64,
    /// How long to watch once all have joined (such as 10s, 1m).
    #[arg(long, default_value = "10s", value_parser = duration)]
    duration: Duration,
    /// Which video rendition to take.
    #[arg(long, value_enum, default_value_t = Rendition::First)]
    rendition: Rendition,
    /// Leave out the audio rendition.
    #[arg(long)]
    no_audio: bool,
    /// Reload playlists and fetch no media: for what waiting costs the server.
    #[arg(long)]
    playlists_only: bool,
    /// Fetch parts when they are listed, not by their hints.
    #[arg(long)]
    no_hints: bool,
    /// How far away the clients are: each pauses so long before each request, as the way
    /// to the server and back would take (such as 20ms).
    #[arg(long, default_value = "0s", value_parser = duration)]
    rtt: Duration,
    /// How long a request that is refused for now (404, 503, Retry-After) is repeated.
    #[arg(long, default_value = "15s", value_parser = duration)]
    patience: Duration,
    /// Take any certificate, such as a self-signed one.
    #[arg(long)]
    insecure: bool,
    /// Process of the server, on this machine, to read its CPU time and memory.
    #[arg(long)]
    server_pid: Option<u32>,
    /// How long to look at it before the first client, to take off what it uses anyway.
    #[arg(long, default_value = "0s", value_parser = duration, requires = "server_pid")]
    baseline: Duration,
    /// Print the report as JSON instead of a table.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    limits: Limits,
}

/// When the run counts as failed (exit code 1).
#[derive(clap::Args)]
#[command(next_help_heading = "Thresholds")]
struct Limits {
    /// Most stalls, of all clients together.
    #[arg(long)]
    max_stalls: Option<u64>,
    /// Highest latency of the lowest 95 %, such as 3s.
    #[arg(long, value_parser = duration)]
    max_latency_p95: Option<Duration>,
    /// Most errors.
    #[arg(long, default_value_t = 0)]
    max_errors: u64,
    /// Longest time from the first answer with a part to those of the quickest 99 % who
    /// waited for it.
    #[arg(long, value_parser = duration)]
    max_answer_spread_p99: Option<Duration>,
    /// Most clients that may give up.
    #[arg(long, default_value_t = 0)]
    max_failed: u64,
}

#[derive(Clone, Copy, ValueEnum)]
enum Rendition {
    /// The first listed.
    First,
    /// Of the highest bit rate.
    Highest,
    /// Of the lowest bit rate.
    Lowest,
}

impl Args {
    fn config(&self) -> HlsConfig {
        let choice = match self.rendition {
            Rendition::First => Choice::First,
            Rendition::Highest => Choice::Highest,
            Rendition::Lowest => Choice::Lowest,
        };
        HlsConfig {
            urls: self.urls.iter().flat_map(|url| expand(url, self.tables)).collect(),
            token: self.token.clone(),
            clients: self.clients as usize,
            join_rate: self.join_rate,
            duration: self.duration,
            options: Options {
                choice,
                audio: !self.no_audio,
                media: !self.playlists_only,
                hints: !self.no_hints,
                rtt: self.rtt,
                patience: self.patience,
            },
            insecure: self.insecure,
            server_pid: self.server_pid,
            baseline: self.baseline,
        }
    }

    fn thresholds(&self) -> Thresholds {
        let millis = |limit: Option<Duration>| limit.map(|limit| limit.as_secs_f64() * 1000.0);
        let limits = &self.limits;
        Thresholds {
            max_stalls: limits.max_stalls,
            max_latency_p95: millis(limits.max_latency_p95),
            max_errors: limits.max_errors,
            max_answer_spread_p99: millis(limits.max_answer_spread_p99),
            max_failed: limits.max_failed,
        }
    }
}

/// Runs the command.
pub async fn run(args: Args) -> anyhow::Result<Vec<String>> {
    let tally = Arc::<Tally>::default();
    let shown = progress::rewrite(args.clients as usize, line(Arc::clone(&tally)));
    let report = hls::run(args.config(), tally, progress::over(None)).await;
    progress::end(&shown);
    let report = report?;
    let missed = args.thresholds().missed(&report);
    let text = if args.json {
        let mut json = serde_json::to_value(&report)?;
        json["missed"] = missed.clone().into();
        serde_json::to_string_pretty(&json)? + "\n"
    } else {
        table(&report)
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(missed)
}

/// The line of progress: how many have settled, and words.
fn line(tally: Arc<Tally>) -> impl FnMut(f64) -> (u64, String) + Send + 'static {
    let mut last = tally.counts();
    move |seconds| {
        let now = tally.counts();
        let words = format!(
            "{} started, {} playing, {} gave up, {:.0} playlists/s, {:.0} Mbit/s",
            now.started,
            now.playing,
            now.failed,
            (now.playlists - last.playlists) as f64 / seconds,
            (now.bytes - last.bytes) as f64 * 8.0 / 1e6 / seconds,
        );
        last = now;
        (now.started + now.failed, words)
    }
}

/// The table, for standard output.
fn table(report: &HlsReport) -> String {
    let r = report;
    let rows = [
        ("clients started", format!("{} of {}", r.started, r.clients)),
        ("playing / ended / failed", format!("{} / {} / {}", r.playing, r.ended, r.failed)),
        ("first part p50/p95/max", three(r.first_part_ms, |s| [s.p50, s.p95, s.max])),
        ("latency p50/p95/p99", three(r.latency_ms, |s| [s.p50, s.p95, s.p99])),
        ("buffer p50/p95/max", three(r.buffer_ms, |s| [s.p50, s.p95, s.max])),
        (
            "stalls",
            format!("{} in {} clients, {:.0} ms", r.stalls, r.clients_stalled, r.stalled_ms),
        ),
        ("playlists / waited for", format!("{} / {}", r.playlists, r.blocked)),
        ("answer spread p50/p99/max", three(r.answer_spread_ms, |s| [s.p50, s.p99, s.max])),
        ("age of edge p50/p99/max", three(r.edge_ms, |s| [s.p50, s.p99, s.max])),
        ("parts / hinted", format!("{} / {}", r.parts, r.hinted)),
        ("segments / inits", format!("{} / {}", r.segments, r.inits)),
        (
            "bytes / of playlists",
            format!("{:.1} / {:.1} MB", mega(r.bytes), mega(r.playlist_bytes)),
        ),
        ("connections / retries", format!("{} / {}", r.connections, r.retries)),
        ("hints missed/gaps/overruns", format!("{} / {} / {}", r.hints_missed, r.gaps, r.overruns)),
        ("errors", r.errors.to_string()),
    ];
    let mut text: String =
        rows.iter().map(|(name, value)| format!("{name:26}{value:>26}\n")).collect();
    // Writing to a string cannot fail.
    for (status, count) in &r.requests {
        let _ = writeln!(text, "status {status}: {count}");
    }
    let window = &r.window;
    let _ = writeln!(
        text,
        "window of {:.1} s: {} playlists ({} waited for), {:.1} Mbit/s",
        window.seconds, window.playlists, window.blocked, window.mbit_per_second
    );
    for (name, cost) in [("server", window.server), ("loadgen", window.client)] {
        cost.iter().for_each(|cost| text += &cpu(name, cost));
    }
    for (name, counts) in [("error", &r.errors_by_name), ("failed", &r.failures)] {
        counts.iter().for_each(|(what, count)| text += &format!("{name}: {count} x {what}\n"));
    }
    text
}

fn mega(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

fn three(summary: Option<Summary>, pick: fn(Summary) -> [f64; 3]) -> String {
    summary.map(pick).map_or("-".to_owned(), |[a, b, c]| format!("{a:.0}/{b:.0}/{c:.0} ms"))
}

fn cpu(name: &str, cost: &Cost) -> String {
    format!(
        "{name:8} {:.2} s of CPU ({:.0} % of a core), {:.0} us/playlist, {:.1} MB resident, {:.1} KiB/client\n",
        cost.cpu_seconds,
        cost.cores * 100.0,
        cost.micros_per_playlist,
        cost.rss_bytes as f64 / 1e6,
        cost.rss_bytes_per_client / 1024.0,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_names_what_went_wrong() {
        let mut report = HlsReport { clients: 2, started: 1, errors: 3, ..HlsReport::default() };
        report.errors_by_name.insert("live edge went back".to_owned(), 3);
        report.requests.insert(503, 7);
        report.window.server = Some(Cost::default());
        let text = table(&report);
        for words in ["1 of 2", "3 x live edge went back", "status 503: 7", "server", "us/playlist"]
        {
            assert!(text.contains(words), "{words}: {text}");
        }
    }
}
