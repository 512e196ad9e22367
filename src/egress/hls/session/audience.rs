//! What the LL-HLS viewers of one table add up to. Counted by requests, read by scrapes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::playback::Pace;
use super::viewer::Outcome;
use crate::qos::{Histogram, Scrape, Transport, names};

/// Seconds behind the newest media. A part is 0.2 to 1 s long, the window 30 s.
const POSITION_BUCKETS: &[f64; 11] = &[0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 10.0, 20.0];

/// Times the media's own length; at 1 a viewer can just keep up.
const DELIVERY_BUCKETS: &[f64; 8] = &[0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0, 2.0];

/// The viewers of one table.
#[derive(Debug)]
pub struct Audience {
    /// What is taken for granted of their players.
    pub pace: Pace,
    /// Those there are now (a gauge).
    pub viewers: AtomicU64,
    /// Bytes of media that their connections took.
    pub egress_bytes: AtomicU64,
    /// Times that a viewer's playback ran dry.
    pub stalls: AtomicU64,
    /// Microseconds for which it stood still then.
    pub stalled_micros: AtomicU64,
    /// Changes to a rendition of more bits, by the player's choice.
    pub switched_up: AtomicU64,
    /// Changes to a rendition of fewer bits.
    pub switched_down: AtomicU64,
    /// Seconds that media was behind the newest when it was fetched.
    pub position: Histogram<11>,
    /// Time that connections took for media, in lengths of the media.
    pub delivery: Histogram<8>,
}

impl Audience {
    /// One without viewers.
    pub fn new(pace: Pace) -> Self {
        Self {
            pace,
            viewers: AtomicU64::new(0),
            egress_bytes: AtomicU64::new(0),
            stalls: AtomicU64::new(0),
            stalled_micros: AtomicU64::new(0),
            switched_up: AtomicU64::new(0),
            switched_down: AtomicU64::new(0),
            position: Histogram::new(POSITION_BUCKETS),
            delivery: Histogram::new(DELIVERY_BUCKETS),
        }
    }

    /// Counts a stall, if there was one.
    pub fn count(&self, outcome: &Outcome) {
        if let Some(stalled) = outcome.stalled {
            self.stalls.fetch_add(1, Ordering::Relaxed);
            self.stalled_micros.fetch_add(stalled.as_micros() as u64, Ordering::Relaxed);
        }
    }

    /// Counts where media was on the timeline, and how its `length` compares to the
    /// time that it was `taken` in.
    pub fn observe(&self, behind: Duration, length: Duration, taken: Duration) {
        self.position.observe(behind.as_secs_f64());
        if !length.is_zero() {
            self.delivery.observe(taken.as_secs_f64() / length.as_secs_f64());
        }
    }

    /// Reports all but the viewers there are, which more than sessions tell.
    pub fn scrape(&self, scrape: &mut Scrape, table: &str) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let llhls = &[table, Transport::LlHls.as_str()];
        scrape.count(&names::EGRESS_BYTES, llhls, read(&self.egress_bytes));
        scrape.count(&names::VIEWER_STALLS, llhls, read(&self.stalls));
        let stalled = read(&self.stalled_micros) as f64 / 1e6;
        scrape.add(&names::VIEWER_STALLED, llhls, stalled);
        for (reason, switches) in
            [("player_up", &self.switched_up), ("player_down", &self.switched_down)]
        {
            scrape.count(&names::LAYER_SWITCHES, &[table, reason], read(switches));
        }
        scrape.observed(&names::HLS_POSITION, &[table], self.position.read());
        scrape.observed(&names::HLS_DELIVERY, &[table], self.delivery.read());
    }
}
