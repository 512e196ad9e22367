//! The account of a run, and the limits that decide whether it has passed. Times are in
//! milliseconds, sizes in bytes, and everything has one name in JSON and in the code.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::client::Seen;
use super::playlist::micros;
use super::tally::{Account, Counts};
use crate::crowd::measure::Summary;
use crate::crowd::process::Usage;

/// What a process cost in the window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Cost {
    /// Seconds of all its threads, user and system.
    pub cpu_seconds: f64,
    /// The same per second of the window: 1 is one core.
    pub cores: f64,
    /// Cores that it used before the first client came, when that was looked at.
    pub idle_cores: f64,
    /// Microseconds per playlist answered, of what is above that.
    pub micros_per_playlist: f64,
    /// Seconds per 10^9 bits of bodies.
    pub seconds_per_gbit: f64,
    /// Resident memory at the end of the window.
    pub rss_bytes: u64,
    /// What it grew by since before the first client, per client.
    pub rss_bytes_per_client: f64,
}

/// The window in which all clients were there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Window {
    /// Its length.
    pub seconds: f64,
    /// Playlists answered in it.
    pub playlists: u64,
    /// Those among them that clients waited for.
    pub blocked: u64,
    /// Bytes of bodies.
    pub bytes: u64,
    /// The same as a rate.
    pub mbit_per_second: f64,
    /// The server, when its process id was given and could be read.
    pub server: Option<Cost>,
    /// This process.
    pub client: Option<Cost>,
}

/// The final account.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HlsReport {
    /// Clients that were to join.
    pub clients: usize,
    /// Those that got a first media playlist.
    pub started: u64,
    /// Those that began to play.
    pub playing: u64,
    /// Those that gave up.
    pub failed: u64,
    /// Those that saw the end of the stream.
    pub ended: u64,
    /// Why they gave up, and how many for each reason.
    pub failures: BTreeMap<String, u64>,
    /// Requests by status.
    pub requests: BTreeMap<u16, u64>,
    /// Media playlists.
    pub playlists: u64,
    /// Those among them that were waited for.
    pub blocked: u64,
    /// Parts.
    pub parts: u64,
    /// Those among them that were asked for by their hint.
    pub hinted: u64,
    /// Whole segments.
    pub segments: u64,
    /// Init segments.
    pub inits: u64,
    /// Bytes of bodies.
    pub bytes: u64,
    /// Those among them that were playlists.
    pub playlist_bytes: u64,
    /// Connections opened.
    pub connections: u64,
    /// Requests put off by 404, 429 or 503.
    pub retries: u64,
    /// Hints that did not come true.
    pub hints_missed: u64,
    /// Parts and segments marked as gaps.
    pub gaps: u64,
    /// Times that media left the playlist before it was fetched.
    pub overruns: u64,
    /// All errors together.
    pub errors: u64,
    /// Errors by name.
    pub errors_by_name: BTreeMap<String, u64>,
    /// Empty buffers of all clients.
    pub stalls: u64,
    /// Clients that had any.
    pub clients_stalled: usize,
    /// Time in them.
    pub stalled_ms: f64,
    /// From being due to join to the first part of video.
    pub first_part_ms: Option<Summary>,
    /// From capture (EXT-X-PROGRAM-DATE-TIME) to the playhead.
    pub latency_ms: Option<Summary>,
    /// Media ahead of the playhead, after each part of video.
    pub buffer_ms: Option<Summary>,
    /// From the first answer that any client had to that of each who waited.
    pub answer_spread_ms: Option<Summary>,
    /// From capture of the last sample that is listed to an answer that was waited for.
    pub edge_ms: Option<Summary>,
    /// The window of measurement.
    pub window: Window,
}

impl HlsReport {
    /// The account of so many clients.
    pub(super) fn new(clients: usize, account: Account, seen: &[Seen], window: Window) -> Self {
        let Counts {
            started,
            playing,
            failed,
            ended,
            playlists,
            blocked,
            parts,
            hinted,
            segments,
            inits,
            bytes,
            playlist_bytes,
            retries,
            connections,
            hints_missed,
            gaps,
            overruns,
        } = account.counts;
        let stalled = seen.iter().fold(Duration::ZERO, |sum, one| sum + one.stalled);
        let spreads = account.spreads;
        Self {
            clients,
            started,
            playing,
            failed,
            ended,
            failures: account.failures,
            requests: account.statuses,
            playlists,
            blocked,
            parts,
            hinted,
            segments,
            inits,
            bytes,
            playlist_bytes,
            connections,
            retries,
            hints_missed,
            gaps,
            overruns,
            errors: account.errors.values().sum(),
            errors_by_name: account.errors,
            stalls: seen.iter().map(|one| one.stalls).sum(),
            clients_stalled: seen.iter().filter(|one| one.stalls > 0).count(),
            stalled_ms: micros(stalled) as f64 / 1000.0,
            first_part_ms: spreads.first_part.summary(),
            latency_ms: spreads.latency.summary(),
            buffer_ms: spreads.buffer.summary(),
            answer_spread_ms: spreads.answer_spread.summary(),
            edge_ms: spreads.edge.summary(),
            window,
        }
    }
}

/// The usage of a process before the first client, and at both ends of the window.
pub(super) struct Usages {
    pub idle: Usage,
    pub idle_cores: f64,
    pub begin: Usage,
    pub end: Usage,
}

impl Window {
    /// What was counted between two moments.
    pub(super) fn between(seconds: f64, before: Counts, after: Counts) -> Self {
        let bytes = after.bytes - before.bytes;
        Self {
            seconds,
            playlists: after.playlists - before.playlists,
            blocked: after.blocked - before.blocked,
            bytes,
            mbit_per_second: bytes as f64 * 8.0 / 1e6 / seconds.max(1e-3),
            server: None,
            client: None,
        }
    }

    /// What a process cost in this window.
    pub(super) fn cost(&self, usages: &Usages, clients: u64) -> Cost {
        let cpu = usages.end.cpu.saturating_sub(usages.begin.cpu).as_secs_f64();
        let grown = usages.end.rss as f64 - usages.idle.rss as f64;
        let own = (cpu - usages.idle_cores * self.seconds).max(0.0);
        Cost {
            idle_cores: usages.idle_cores,
            cpu_seconds: cpu,
            cores: cpu / self.seconds.max(1e-3),
            micros_per_playlist: own * 1e6 / (self.playlists as f64).max(1.0),
            seconds_per_gbit: cpu / (self.bytes as f64 * 8.0 / 1e9).max(1e-9),
            rss_bytes: usages.end.rss,
            rss_bytes_per_client: grown / (clients as f64).max(1.0),
        }
    }
}

/// What must hold; what is `None` is not asked.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Thresholds {
    /// Stalls of all clients together.
    pub max_stalls: Option<u64>,
    /// 95th percentile of the latency, in milliseconds.
    pub max_latency_p95: Option<f64>,
    /// Errors; none may happen, unless it is said.
    pub max_errors: u64,
    /// 99th percentile of the spread of answers, in milliseconds.
    pub max_answer_spread_p99: Option<f64>,
    /// Clients that may give up.
    pub max_failed: u64,
}

impl Thresholds {
    /// What was missed, a line each.
    pub fn missed(&self, report: &HlsReport) -> Vec<String> {
        let mut missed = Vec::new();
        let mut limit = |name: &str, value: f64, limit: Option<f64>, unit: &str| {
            if let Some(limit) = limit.filter(|&limit| value > limit) {
                missed.push(format!("{name}: {value:.0}{unit}, more than {limit:.0}{unit}"));
            }
        };
        // What was not seen at all is slower than any limit.
        let slow = |summary: Option<Summary>, pick: fn(Summary) -> f64| {
            summary.map_or(f64::INFINITY, pick)
        };
        limit("failed clients", report.failed as f64, Some(self.max_failed as f64), "");
        limit("errors", report.errors as f64, Some(self.max_errors as f64), "");
        limit("stalls", report.stalls as f64, self.max_stalls.map(|count| count as f64), "");
        let latency = slow(report.latency_ms, |summary| summary.p95);
        limit("latency p95", latency, self.max_latency_p95, " ms");
        let spread = slow(report.answer_spread_ms, |summary| summary.p99);
        limit("answer spread p99", spread, self.max_answer_spread_p99, " ms");
        missed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hls::tally::Tally;

    #[test]
    fn the_cost_of_a_playlist_is_that_of_the_window_and_memory_that_since_the_start() {
        let before = Counts { playlists: 100, ..Counts::default() };
        let after = Counts { playlists: 1100, blocked: 900, bytes: 125_000_000, ..before };
        let window = Window::between(10.0, before, after);
        assert_eq!((window.playlists, window.mbit_per_second), (1000, 100.0));
        let usage = |seconds, rss| Usage { cpu: Duration::from_secs(seconds), rss };
        let (begin, end) = (usage(5, 9000), usage(7, 11_000));
        let usages = Usages { idle: usage(1, 1000), idle_cores: 0.05, begin, end };
        let cost = window.cost(&usages, 100);
        assert_eq!((cost.micros_per_playlist, cost.cores), (1500.0, 0.2));
        assert_eq!((cost.rss_bytes_per_client, cost.seconds_per_gbit), (100.0, 2.0));
    }

    #[test]
    fn clients_add_up_and_errors_keep_their_names() {
        let tally = Tally::default();
        (0..3).for_each(|_| tally.error("live edge went back"));
        tally.error("media refused: status 404");
        tally.status(200);
        let stalled = Seen { stalls: 2, stalled: Duration::from_millis(1500) };
        let seen = [stalled, Seen::default()];
        let report = HlsReport::new(2, tally.account(), &seen, Window::default());
        assert_eq!((report.errors, report.errors_by_name.len()), (4, 2));
        assert_eq!((report.stalls, report.clients_stalled), (2, 1));
        assert_eq!((report.stalled_ms, report.requests.get(&200)), (1500.0, Some(&1)));
    }

    #[test]
    fn each_limit_that_is_missed_has_a_line() {
        let summary = Summary { samples: 9, p95: 2500.0, p99: 70.0, ..Summary::default() };
        let mut report = HlsReport { stalls: 3, ..HlsReport::default() };
        (report.latency_ms, report.answer_spread_ms) = (Some(summary), Some(summary));
        assert!(Thresholds::default().missed(&report).is_empty());
        let strict = Thresholds {
            max_stalls: Some(0),
            max_latency_p95: Some(2000.0),
            max_answer_spread_p99: Some(50.0),
            ..Thresholds::default()
        };
        assert_eq!(strict.missed(&report).len(), 3);
        assert_eq!(strict.missed(&report)[0], "stalls: 3, more than 0");
        let blind = HlsReport { errors: 1, failed: 1, ..HlsReport::default() };
        assert_eq!(strict.missed(&blind).len(), 4);
    }
}
