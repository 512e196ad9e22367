//! Limits that decide whether a run has passed.

use super::measure::Summary;
use super::report::{CrowdReport, GroupReport};

/// What must hold; what is `None` is not asked.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Thresholds {
    /// Lost packets per packet expected.
    pub max_loss: Option<f64>,
    /// 95th percentile of the first frame, in milliseconds.
    pub max_first_frame_p95: Option<f64>,
    /// 99th percentile of the latency, in milliseconds.
    pub max_latency_p99: Option<f64>,
    /// Freezes of all viewers together.
    pub max_freezes: Option<u64>,
    /// Viewers that did not join, or ended early; none may, unless it is said.
    pub max_failed: u64,
}

impl Thresholds {
    /// What was missed, a line each.
    pub fn missed(&self, report: &CrowdReport) -> Vec<String> {
        let total = &report.total;
        let mut missed = Vec::new();
        let mut limit = |name: &str, value: f64, limit: Option<f64>, unit: &str| {
            if let Some(limit) = limit.filter(|&limit| value > limit) {
                missed.push(format!("{name} is {value:.3}{unit}, more than {limit}{unit}"));
            }
        };
        limit("loss", total.loss * 100.0, self.max_loss.map(|share| share * 100.0), " %");
        limit("freezes", total.freezes as f64, self.max_freezes.map(|count| count as f64), "");
        limit("failed viewers", total.failed as f64, Some(self.max_failed as f64), "");
        // What was not seen at all is slower than any limit.
        let slow = |summary: Option<Summary>, pick: fn(Summary) -> f64| {
            summary.map_or(f64::INFINITY, pick)
        };
        let first = slow(total.first_frame_ms.filter(|_| all_saw(total)), |s| s.p95);
        limit("first frame p95", first, self.max_first_frame_p95, " ms");
        let latency = slow(total.latency_ms.all, |s| s.p99);
        limit("latency p99", latency, self.max_latency_p99, " ms");
        if total.auth_failures > 0 {
            missed.push(format!("{} packets failed authentication", total.auth_failures));
        }
        missed
    }
}

/// Whether at most one viewer in twenty saw no frame: of more, the 95th percentile is
/// theirs.
fn all_saw(total: &GroupReport) -> bool {
    (total.viewers - total.first_frames.min(total.viewers)) * 20 <= total.viewers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> CrowdReport {
        let summary = Summary { samples: 10, p95: 400.0, p99: 30.0, ..Summary::default() };
        let mut report = CrowdReport::default();
        (report.total.viewers, report.total.first_frames) = (100, 100);
        (report.total.loss, report.total.freezes) = (0.002, 3);
        report.total.first_frame_ms = Some(summary);
        report.total.latency_ms.all = Some(summary);
        report
    }

    fn strict() -> Thresholds {
        Thresholds {
            max_loss: Some(0.001),
            max_first_frame_p95: Some(300.0),
            max_latency_p99: Some(20.0),
            max_freezes: Some(0),
            max_failed: 0,
        }
    }

    #[test]
    fn each_limit_that_is_missed_has_a_line() {
        assert!(Thresholds::default().missed(&report()).is_empty());
        let missed = strict().missed(&report());
        assert_eq!(missed.len(), 4, "{missed:?}");
        assert_eq!(missed[0], "loss is 0.200 %, more than 0.1 %");
        let ample = Thresholds { max_loss: Some(0.01), ..Thresholds::default() };
        assert!(ample.missed(&report()).is_empty());
    }

    #[test]
    fn what_was_not_seen_or_not_genuine_is_missed() {
        let mut blind = report();
        (blind.total.first_frames, blind.total.latency_ms.all) = (90, None);
        let asked = Thresholds {
            max_first_frame_p95: Some(1e6),
            max_latency_p99: Some(1e6),
            ..Thresholds::default()
        };
        assert_eq!(asked.missed(&blind).len(), 2);
        let mut forged = report();
        (forged.total.auth_failures, forged.total.failed) = (1, 2);
        assert_eq!(Thresholds::default().missed(&forged).len(), 2);
    }
}
