//! What the crowd saw: per viewer, per group, in total. Times are in milliseconds, sizes
//! in bytes, and everything has one name in JSON and in the code.

use std::collections::BTreeMap;

use serde::Serialize;

use super::measure::{Latencies, Spread, Summary};

/// What came of a kind of media.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TrackTotals {
    /// Packets, each counted once.
    pub packets: u64,
    /// Packets that filled a hole: sent again, or overtaken.
    pub recovered: u64,
    /// Copies, and packets that came after they were given up.
    pub duplicates: u64,
    /// Packets that did not come within a second of the hole being seen.
    pub lost: u64,
}

impl TrackTotals {
    fn add(&mut self, other: &Self) {
        self.packets += other.packets;
        self.recovered += other.recovered;
        self.duplicates += other.duplicates;
        self.lost += other.lost;
    }
}

/// What one viewer saw.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ViewerReport {
    /// Its number.
    pub index: usize,
    /// Its group's number.
    pub group: usize,
    /// Whether every packet of it was opened.
    pub verified: bool,
    /// SRTP profile, empty until there are keys.
    pub profile: &'static str,
    /// Microseconds from being due to join until ICE and DTLS were done.
    pub connected_micros: Option<i64>,
    /// Microseconds from being due to join until the first keyframe was complete.
    pub first_frame_micros: Option<i64>,
    /// Video.
    pub video: TrackTotals,
    /// Audio.
    pub audio: TrackTotals,
    /// Packets of both, each counted once.
    pub packets: u64,
    /// Bytes of UDP payload that carried them, with resends and copies.
    pub bytes: u64,
    /// Complete frames.
    pub frames: u64,
    /// Keyframes among them, as far as packets were opened.
    pub keyframes: u64,
    /// Frames with a packet missing, or before the first keyframe.
    pub frames_damaged: u64,
    /// Pauses of more than 200 ms, and of three frame intervals, without a complete frame.
    pub freezes: u64,
    /// Microseconds spent in them.
    pub frozen_micros: u64,
    /// Packets of the resend stream (RFC 4588).
    pub resends: u64,
    /// Packets asked for again, each time counted.
    pub nacks: u64,
    /// Keyframes asked for.
    pub keyframe_requests: u64,
    /// Packets opened.
    pub packets_verified: u64,
    /// Packets whose authentication tag was wrong.
    pub auth_failures: u64,
    /// Media that came before there were keys.
    pub early: u64,
    /// Packets of a payload type that the answer does not name.
    pub unknown: u64,
    /// Why it ended before the watch did.
    pub ended: Option<String>,
}

/// A group of viewers, or all.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupReport {
    /// Its name.
    pub name: String,
    /// Viewers that were to join.
    pub viewers: usize,
    /// Viewers whose media connected.
    pub connected: usize,
    /// Viewers that saw a first frame.
    pub first_frames: usize,
    /// Viewers that failed to join, or ended before the watch did.
    pub failed: usize,
    /// Video.
    pub video: TrackTotals,
    /// Audio.
    pub audio: TrackTotals,
    /// Packets of both, each counted once.
    pub packets: u64,
    /// Bytes of UDP payload.
    pub bytes: u64,
    /// Lost packets per packet expected.
    pub loss: f64,
    /// Complete video frames.
    pub frames: u64,
    /// Damaged ones.
    pub frames_damaged: u64,
    /// Freezes.
    pub freezes: u64,
    /// Viewers that had any.
    pub viewers_frozen: usize,
    /// Time spent in them.
    pub frozen_ms: f64,
    /// Packets of the resend stream.
    pub resends: u64,
    /// Packets asked for again.
    pub nacks: u64,
    /// Keyframes asked for.
    pub keyframe_requests: u64,
    /// Packets opened.
    pub packets_verified: u64,
    /// Wrong authentication tags.
    pub auth_failures: u64,
    /// From being due to join to media connected.
    pub connect_ms: Option<Summary>,
    /// From being due to join to the first complete keyframe.
    pub first_frame_ms: Option<Summary>,
    /// From capture to complete frame.
    pub latency_ms: LatencyReport,
    /// Reasons of failures, and how many had each.
    pub failures: BTreeMap<String, u64>,
}

/// Latency from capture to complete frame.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LatencyReport {
    /// Where the capture time comes from.
    pub source: Option<&'static str>,
    /// All frames.
    pub all: Option<Summary>,
    /// Keyframes.
    pub keyframes: Option<Summary>,
    /// Other frames.
    pub others: Option<Summary>,
}

impl From<&Latencies> for LatencyReport {
    fn from(latencies: &Latencies) -> Self {
        let all = latencies.all.summary();
        let source = if latencies.by_report { "sender-report" } else { "abs-capture-time" };
        Self {
            source: all.is_some().then_some(source),
            all,
            keyframes: latencies.keyframes.summary(),
            others: latencies.others.summary(),
        }
    }
}

/// CPU of a process over the window of measurement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CpuReport {
    /// Seconds of all its threads, user and system.
    pub cpu_seconds: f64,
    /// The same per second of the window: 1 is one core.
    pub cores: f64,
    /// Seconds per 10^9 bits delivered.
    pub seconds_per_gbit: f64,
    /// Nanoseconds per packet delivered.
    pub nanos_per_packet: f64,
    /// Resident memory at the end, in bytes.
    pub rss_bytes: u64,
}

/// The window in which all viewers were there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WindowReport {
    /// Its length.
    pub seconds: f64,
    /// Packets delivered in it.
    pub packets: u64,
    /// Bytes of UDP payload delivered in it.
    pub bytes: u64,
    /// The same as a rate.
    pub mbit_per_second: f64,
    /// CPU of the server, when its process id was given and could be read.
    pub server: Option<CpuReport>,
    /// CPU of this process.
    pub client: Option<CpuReport>,
}

/// The final account.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CrowdReport {
    /// All viewers.
    pub total: GroupReport,
    /// The groups, when there is more than one.
    pub groups: Vec<GroupReport>,
    /// The window of measurement.
    pub window: WindowReport,
    /// Each viewer.
    pub viewers: Vec<ViewerReport>,
}

/// Adds up the viewers of a group.
pub struct Summing {
    report: GroupReport,
    connect: Spread,
    first_frame: Spread,
}

impl Summing {
    /// A group of `viewers`.
    pub fn new(name: &str, viewers: usize) -> Self {
        let report = GroupReport { name: name.to_owned(), viewers, ..GroupReport::default() };
        Self { report, connect: Spread::default(), first_frame: Spread::default() }
    }

    /// Counts a viewer that could not join.
    pub fn refuse(&mut self, reason: &str) {
        self.report.failed += 1;
        *self.report.failures.entry(reason.to_owned()).or_default() += 1;
    }

    /// Counts a viewer.
    pub fn add(&mut self, viewer: &ViewerReport) {
        let report = &mut self.report;
        report.connected += usize::from(viewer.connected_micros.is_some());
        report.first_frames += usize::from(viewer.first_frame_micros.is_some());
        report.video.add(&viewer.video);
        report.audio.add(&viewer.audio);
        report.packets += viewer.packets;
        report.bytes += viewer.bytes;
        report.frames += viewer.frames;
        report.frames_damaged += viewer.frames_damaged;
        report.freezes += viewer.freezes;
        report.viewers_frozen += usize::from(viewer.freezes > 0);
        report.frozen_ms += viewer.frozen_micros as f64 / 1000.0;
        report.resends += viewer.resends;
        report.nacks += viewer.nacks;
        report.keyframe_requests += viewer.keyframe_requests;
        report.packets_verified += viewer.packets_verified;
        report.auth_failures += viewer.auth_failures;
        viewer.connected_micros.into_iter().for_each(|micros| self.connect.record(micros));
        viewer.first_frame_micros.into_iter().for_each(|micros| self.first_frame.record(micros));
        if let Some(reason) = &viewer.ended {
            self.refuse(reason);
        }
    }

    /// The group's account.
    pub fn finish(self, latencies: &Latencies) -> GroupReport {
        let mut report = self.report;
        let lost = report.video.lost + report.audio.lost;
        let expected = report.video.packets + report.audio.packets + lost;
        report.loss = if expected > 0 { lost as f64 / expected as f64 } else { 0.0 };
        report.connect_ms = self.connect.summary();
        report.first_frame_ms = self.first_frame.summary();
        report.latency_ms = latencies.into();
        report
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_adds_up_its_viewers_and_names_its_failures() {
        let viewer = ViewerReport {
            connected_micros: Some(20_000),
            first_frame_micros: Some(50_000),
            video: TrackTotals { packets: 98, recovered: 3, duplicates: 1, lost: 1 },
            audio: TrackTotals { packets: 100, lost: 1, ..TrackTotals::default() },
            freezes: 2,
            ..ViewerReport::default()
        };
        let gone = ViewerReport { ended: Some("gone".to_owned()), ..ViewerReport::default() };
        let mut sum = Summing::new("all", 3);
        sum.add(&viewer);
        sum.add(&gone);
        sum.refuse("503");
        let report = sum.finish(&Latencies::default());
        assert_eq!((report.viewers, report.connected, report.failed), (3, 1, 2));
        assert!((report.loss - 0.01).abs() < 1e-9, "{}", report.loss);
        assert_eq!((report.freezes, report.viewers_frozen), (2, 1));
        assert_eq!(report.failures.len(), 2);
        assert!((report.first_frame_ms.unwrap().p95 - 50.0).abs() < 0.1);
        assert_eq!(report.latency_ms.source, None);
    }
}
