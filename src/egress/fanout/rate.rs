//! The bitrate of one layer, measured over the last two seconds.
//!
//! Bytes are summed in slots of a quarter second; the sum over the slots is the rate.
//! Two seconds hold a keyframe without taking it for the layer's need.

use std::time::{Duration, Instant};

const SLOT: Duration = Duration::from_millis(250);
const SLOTS: usize = 8;

/// Measures a rate. owner: the stream on one worker.
#[derive(Clone, Debug)]
pub(super) struct RateMeter {
    bytes: [u64; SLOTS],
    epoch: Instant,
    /// The slot that is filled, counted from the epoch.
    slot: u64,
    /// When the first bytes came since the last silence, counted from the epoch.
    first: Option<Duration>,
}

impl RateMeter {
    /// A meter that has seen nothing.
    pub(super) fn new(now: Instant) -> Self {
        Self { bytes: [0; SLOTS], epoch: now, slot: 0, first: None }
    }

    /// Takes the payload of a packet that came at `now`.
    pub(super) fn push(&mut self, now: Instant, bytes: usize) {
        self.advance(now);
        self.first.get_or_insert(now.saturating_duration_since(self.epoch));
        self.bytes[(self.slot % SLOTS as u64) as usize] += bytes as u64;
    }

    /// Bits per second until `now`; 0 after two seconds of silence.
    pub(super) fn bps(&mut self, now: Instant) -> u64 {
        self.advance(now);
        let Some(first) = self.first else { return 0 };
        let total: u64 = self.bytes.iter().sum();
        if total == 0 {
            self.first = None;
            return 0;
        }
        // The slot that is being filled counts as far as it has gone.
        let begun = first.max(slots((self.slot + 1).saturating_sub(SLOTS as u64)));
        let span = now.saturating_duration_since(self.epoch).saturating_sub(begun);
        let millis = span.max(SLOT).as_millis() as u64;
        total.saturating_mul(8_000) / millis
    }

    /// Empties the slots between the last call and `now`.
    fn advance(&mut self, now: Instant) {
        let since = now.saturating_duration_since(self.epoch);
        let slot = (since.as_millis() / SLOT.as_millis()) as u64;
        for passed in (self.slot + 1..=slot).take(SLOTS) {
            self.bytes[(passed % SLOTS as u64) as usize] = 0;
        }
        if slot.saturating_sub(self.slot) >= SLOTS as u64 {
            self.bytes = [0; SLOTS];
        }
        self.slot = self.slot.max(slot);
    }
}

fn slots(count: u64) -> Duration {
    Duration::from_millis(count.saturating_mul(SLOT.as_millis() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measures_a_steady_rate_from_the_first_second_on() {
        let t = Instant::now();
        let mut meter = RateMeter::new(t);
        for i in 0..1000u64 {
            let now = t + Duration::from_millis(7_130 + i * 10);
            meter.push(now, 1250);
            let bps = meter.bps(now);
            assert!(i < 50 || (900_000..1_150_000).contains(&bps), "{bps} after {i}");
        }
    }

    #[test]
    fn a_silent_layer_has_no_rate_and_starts_anew() {
        let t = Instant::now();
        let mut meter = RateMeter::new(t);
        assert_eq!(meter.bps(t), 0);
        meter.push(t, 125_000);
        assert!(meter.bps(t + Duration::from_millis(1900)) > 400_000);
        assert_eq!(meter.bps(t + Duration::from_secs(3)), 0);
        let later = t + Duration::from_secs(3600);
        for i in 0..50 {
            meter.push(later + Duration::from_millis(i * 10), 1250);
        }
        let bps = meter.bps(later + Duration::from_millis(500));
        assert!((900_000..1_150_000).contains(&bps), "{bps}");
        // A clock that goes back does no harm.
        meter.push(t, 1);
    }
}
