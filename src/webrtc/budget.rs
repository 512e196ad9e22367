//! How much of something a peer may do: so many at once, and one more in every so often.
//!
//! The generic cell rate algorithm (ITU-T I.371, Annex A): a single moment says it all,
//! so that a budget costs a peer 16 bytes and needs no timer.

use std::time::{Duration, Instant};

/// What is allowed.
#[derive(Clone, Copy, Debug)]
pub struct Allowance {
    /// At once, after a pause that is long enough.
    pub burst: u32,
    /// One more in this time.
    pub every: Duration,
}

/// What one peer has left of an [`Allowance`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Budget {
    /// When the burst is whole again.
    whole_at: Option<Instant>,
}

impl Budget {
    /// Whether there is anything left.
    pub fn has(&self, now: Instant, allowance: Allowance) -> bool {
        let spent = self.whole_at.map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
        spent <= allowance.every.saturating_mul(allowance.burst.saturating_sub(1))
    }

    /// Takes one, whether or not there was one left.
    pub fn spend(&mut self, now: Instant, allowance: Allowance) {
        self.whole_at = Some(self.whole_at.map_or(now, |at| at.max(now)) + allowance.every);
    }

    /// Takes one when there is one left; returns whether there was.
    pub fn take(&mut self, now: Instant, allowance: Allowance) -> bool {
        let has = self.has(now, allowance);
        if has {
            self.spend(now, allowance);
        }
        has
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOWANCE: Allowance = Allowance { burst: 3, every: Duration::from_millis(10) };

    #[test]
    fn a_burst_and_then_one_in_every_so_often() {
        let (mut budget, start) = (Budget::default(), Instant::now());
        let took = |budget: &mut Budget, millis: u64, tries: usize| {
            let now = start + Duration::from_millis(millis);
            (0..tries).filter(|_| budget.take(now, ALLOWANCE)).count()
        };
        assert_eq!(took(&mut budget, 0, 10), 3);
        assert_eq!(took(&mut budget, 9, 10), 0);
        assert_eq!(took(&mut budget, 10, 10), 1);
        assert_eq!(took(&mut budget, 35, 10), 2);
        assert_eq!(took(&mut budget, 10_000, 10), 3, "no more is saved up than the burst");
        // A clock that goes back does no harm.
        assert_eq!(took(&mut budget, 0, 10), 0);
    }
}
