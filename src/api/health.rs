//! Whether the gateway should get new viewers. Liveness is that it answers at all.

use std::sync::atomic::{AtomicU8, Ordering};

/// Where the process is in its life; only ever moves forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Not everything listens yet.
    Starting = 0,
    /// Everything runs.
    Running = 1,
    /// Ends open sessions and takes no new ones.
    Stopping = 2,
}

/// The state that `/healthz/ready` reports. Shared as `Arc<Health>`.
pub struct Health {
    phase: AtomicU8,
    workers: Box<dyn Fn() -> usize + Send + Sync>,
}

impl Health {
    /// Starts in [`Phase::Starting`]; `workers` tells how many media threads run.
    pub fn new(workers: impl Fn() -> usize + Send + Sync + 'static) -> Self {
        Self { phase: AtomicU8::new(Phase::Starting as u8), workers: Box::new(workers) }
    }

    /// Moves on to `phase`; never back.
    pub fn advance(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, Ordering::Release);
    }

    /// Media threads that run.
    pub fn workers(&self) -> usize {
        (self.workers)()
    }

    /// Why no new viewers should come; `None` when they may.
    pub fn not_ready(&self) -> Option<&'static str> {
        match self.phase.load(Ordering::Acquire) {
            p if p == Phase::Starting as u8 => Some("the gateway is starting"),
            p if p >= Phase::Stopping as u8 => Some("the gateway is stopping"),
            _ if self.workers() == 0 => Some("no media worker runs"),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_follows_phase_and_workers() {
        let health = Health::new(|| 1);
        assert_eq!(health.not_ready(), Some("the gateway is starting"));
        health.advance(Phase::Running);
        assert_eq!(health.not_ready(), None);
        health.advance(Phase::Stopping);
        health.advance(Phase::Running);
        assert_eq!(health.not_ready(), Some("the gateway is stopping"));

        let idle = Health::new(|| 0);
        idle.advance(Phase::Running);
        assert_eq!(idle.not_ready(), Some("no media worker runs"));
    }
}
