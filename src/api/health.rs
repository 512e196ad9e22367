//! Whether the gateway should get new viewers. Liveness is that it answers at all.

use std::borrow::Cow;
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
    full: Box<dyn Fn() -> Option<String> + Send + Sync>,
}

impl Health {
    /// Starts in [`Phase::Starting`]; `workers` tells how many media threads run, and
    /// `full` why no viewer is admitted, when none is.
    pub fn new(
        workers: impl Fn() -> usize + Send + Sync + 'static,
        full: impl Fn() -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        let phase = AtomicU8::new(Phase::Starting as u8);
        Self { phase, workers: Box::new(workers), full: Box::new(full) }
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
    pub fn not_ready(&self) -> Option<Cow<'static, str>> {
        match self.phase.load(Ordering::Acquire) {
            p if p == Phase::Starting as u8 => Some("the gateway is starting".into()),
            p if p >= Phase::Stopping as u8 => Some("the gateway is stopping".into()),
            _ if self.workers() == 0 => Some("no media worker runs".into()),
            _ => (self.full)().map(Cow::Owned),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    use super::*;

    #[test]
    fn readiness_follows_phase_workers_and_headroom() {
        let full = Arc::new(AtomicBool::new(false));
        let is_full = full.clone();
        let reason = move || is_full.load(Ordering::Relaxed).then(|| "egress is full".to_owned());
        let health = Health::new(|| 1, reason);
        let not_ready = || health.not_ready().map(Cow::into_owned);
        assert_eq!(not_ready().as_deref(), Some("the gateway is starting"));
        health.advance(Phase::Running);
        assert_eq!(not_ready(), None);
        full.store(true, Ordering::Relaxed);
        assert_eq!(not_ready().as_deref(), Some("egress is full"));
        full.store(false, Ordering::Relaxed);
        assert_eq!(not_ready(), None);
        health.advance(Phase::Stopping);
        health.advance(Phase::Running);
        assert_eq!(not_ready().as_deref(), Some("the gateway is stopping"));

        let idle = Health::new(|| 0, || None);
        idle.advance(Phase::Running);
        assert_eq!(idle.not_ready().as_deref(), Some("no media worker runs"));
    }
}
