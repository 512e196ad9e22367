//! The final table of a crowd.

use std::fmt::Write as _;

use railbird_loadgen::crowd::measure::Summary;
use railbird_loadgen::crowd::report::{CpuReport, CrowdReport, GroupReport};

/// Width of the names in front.
const NAMES: usize = 26;
/// Width of a column.
const COLUMN: usize = 26;

/// A line of the table: its name, and how a group's cell reads.
type Row = (&'static str, fn(&GroupReport) -> String);

const ROWS: [Row; 17] = [
    ("viewers connected", |g| format!("{} of {}", g.connected, g.viewers)),
    ("with first frame", |g| g.first_frames.to_string()),
    ("failed", |g| g.failed.to_string()),
    ("first frame p50/p95/max", |g| three(g.first_frame_ms)),
    ("connected p50/p95/max", |g| three(g.connect_ms)),
    ("packets", |g| g.packets.to_string()),
    ("bytes", |g| format!("{:.1} MB", g.bytes as f64 / 1e6)),
    ("lost", |g| format!("{:.4} %", g.loss * 100.0)),
    ("  video / audio packets", |g| format!("{} / {}", g.video.lost, g.audio.lost)),
    ("recovered / resends", |g| format!("{} / {}", g.video.recovered, g.resends)),
    ("duplicates", |g| (g.video.duplicates + g.audio.duplicates).to_string()),
    ("frames / damaged", |g| format!("{} / {}", g.frames, g.frames_damaged)),
    ("freezes", |g| format!("{} in {} viewers", g.freezes, g.viewers_frozen)),
    ("latency p50/p95/p99", |g| latency(g.latency_ms.all)),
    ("  keyframes", |g| latency(g.latency_ms.keyframes)),
    ("  other frames", |g| latency(g.latency_ms.others)),
    ("verified / forged", |g| format!("{} / {}", g.packets_verified, g.auth_failures)),
];

/// The table, for standard output.
pub fn render(report: &CrowdReport) -> String {
    let mut columns: Vec<&GroupReport> = report.groups.iter().collect();
    columns.push(&report.total);
    let mut text = String::new();
    if columns.len() > 1 {
        text += &" ".repeat(NAMES);
        text.extend(columns.iter().map(|group| format!("{:>COLUMN$}", group.name)));
        text.push('\n');
    }
    for (name, cell) in ROWS {
        text += &format!("{name:NAMES$}");
        text.extend(columns.iter().map(|group| format!("{:>COLUMN$}", cell(group))));
        text.push('\n');
    }
    // Writing to a string cannot fail, here and below.
    if let Some(source) = report.total.latency_ms.source {
        let _ = writeln!(text, "latency is from capture to whole frame, by {source}");
    }
    let window = &report.window;
    let _ = writeln!(
        text,
        "window of {:.1} s: {} packets, {:.1} Mbit/s",
        window.seconds, window.packets, window.mbit_per_second
    );
    for (name, cost) in [("server", window.server), ("loadgen", window.client)] {
        cost.iter().for_each(|cost| text += &cpu(name, cost));
    }
    for (reason, count) in &report.total.failures {
        let _ = writeln!(text, "failed: {count} x {reason}");
    }
    text
}

fn cpu(name: &str, cost: &CpuReport) -> String {
    format!(
        "{name:8} {:.2} s of CPU ({:.0} % of a core), {:.3} s/Gbit, {:.0} ns/packet, {:.1} MB resident\n",
        cost.cpu_seconds,
        cost.cores * 100.0,
        cost.seconds_per_gbit,
        cost.nanos_per_packet,
        cost.rss_bytes as f64 / 1e6,
    )
}

fn three(summary: Option<Summary>) -> String {
    summary.map_or("-".to_owned(), |s| format!("{:.0}/{:.0}/{:.0} ms", s.p50, s.p95, s.max))
}

fn latency(summary: Option<Summary>) -> String {
    summary.map_or("-".to_owned(), |s| format!("{:.1}/{:.1}/{:.1} ms", s.p50, s.p95, s.p99))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_stand_beside_the_total() {
        let group = |name: &str| GroupReport { name: name.to_owned(), ..GroupReport::default() };
        let mut report = CrowdReport { total: group("all"), ..CrowdReport::default() };
        let alone = render(&report);
        report.groups = vec![group("clean"), group("impaired")];
        report.window.server = Some(CpuReport::default());
        report.total.failures.insert("gone".to_owned(), 3);
        let text = render(&report);
        assert!(text.lines().next().unwrap().ends_with("all") && text.contains("impaired"));
        assert!(text.contains("3 x gone") && text.contains("server"), "{text}");
        assert!(!alone.contains("all\n") && alone.lines().count() >= ROWS.len());
    }
}
