//! Reception statistics of one stream and the times of the reports on them
//! (RFC 3550 §6.2, A.1, A.3, A.8).

use std::time::{Duration, Instant};

use crate::webrtc::rtcp::{ReportBlock, SenderReport, ntp_middle};

/// What a report block says of one stream. owner: its layer.
pub(super) struct Reception {
    clock_rate: u32,
    /// Arrivals are counted in ticks from here.
    epoch: Instant,
    first: u64,
    highest: u64,
    received: u64,
    expected_prior: u64,
    received_prior: u64,
    /// Difference of arrival and timestamp of the last packet, in ticks (mod 2^32).
    transit: Option<u32>,
    /// 16 times the jitter in ticks, as A.8 keeps it.
    jitter_16: u64,
    /// Of the last SR: the middle of its NTP time, and when it came.
    last_sr: Option<(u32, Instant)>,
}

impl Reception {
    /// For a stream whose first extended sequence number is `first`.
    pub(super) fn new(clock_rate: u32, first: u64, now: Instant) -> Self {
        Self {
            clock_rate,
            epoch: now,
            first,
            highest: first,
            received: 0,
            expected_prior: 0,
            received_prior: 0,
            transit: None,
            jitter_16: 0,
            last_sr: None,
        }
    }

    /// Counts a packet that came on the stream's own SSRC, duplicates too (A.3).
    /// Only what extends the stream says something of jitter: a resend is late by design.
    pub(super) fn received(&mut self, seq: u64, timestamp: u32, now: Instant) {
        self.received += 1;
        let newest = seq > self.highest || self.transit.is_none();
        self.highest = self.highest.max(seq);
        if !newest {
            return;
        }
        let since = now.saturating_duration_since(self.epoch);
        let arrival = (since.as_micros() * u128::from(self.clock_rate) / 1_000_000) as u32;
        let transit = arrival.wrapping_sub(timestamp);
        if let Some(previous) = self.transit.replace(transit) {
            let difference = u64::from((transit.wrapping_sub(previous) as i32).unsigned_abs());
            // A timestamp that jumped by seconds is a new time line, not jitter.
            if difference < u64::from(self.clock_rate) * 5 {
                self.jitter_16 += difference;
                self.jitter_16 -= (self.jitter_16 - difference + 8) >> 4;
            }
        }
    }

    pub(super) fn sender_report(&mut self, report: &SenderReport, now: Instant) {
        self.last_sr = Some((ntp_middle(report.ntp), now));
    }

    /// Interarrival jitter.
    pub(super) fn jitter(&self) -> Duration {
        Duration::from_micros((self.jitter_16 >> 4) * 1_000_000 / u64::from(self.clock_rate))
    }

    /// The report block, and the start of the next interval. `None` when nothing
    /// came in this one: only sources that were heard are reported (§6.4).
    pub(super) fn take_block(&mut self, source_ssrc: u32, now: Instant) -> Option<ReportBlock> {
        if self.received == self.received_prior {
            return None;
        }
        let expected = self.highest - self.first + 1;
        let lost = expected as i64 - self.received as i64;
        let expected_interval = expected - self.expected_prior;
        let received_interval = self.received - self.received_prior;
        let lost_interval = expected_interval.saturating_sub(received_interval);
        self.expected_prior = expected;
        self.received_prior = self.received;
        let (last_sr, delay) = self.last_sr.map_or((0, 0), |(last_sr, came)| {
            let held = now.saturating_duration_since(came);
            (last_sr, ((held.as_micros() << 16) / 1_000_000) as u32)
        });
        Some(ReportBlock {
            source_ssrc,
            // Below 256: an interval in which something came did not lose all.
            fraction_lost: (lost_interval << 8).checked_div(expected_interval).unwrap_or(0) as u8,
            cumulative_lost: lost.clamp(-0x80_0000, 0x7f_ffff) as i32,
            // The first cycle is number 1 here, number 0 on the wire.
            highest_seq: self.highest.wrapping_sub(1 << 16) as u32,
            jitter: (self.jitter_16 >> 4) as u32,
            last_sr,
            delay,
        })
    }
}

/// Spreads the reports over 0.5 to 1.5 intervals, so that those of many
/// sessions do not fall together (§6.2). owner: the receiver.
pub(super) struct Schedule {
    interval: Duration,
    next: Option<Instant>,
    /// SplitMix64 (Steele et al., 2014).
    random: u64,
}

impl Schedule {
    pub(super) fn new(interval: Duration, seed: u64) -> Self {
        Self { interval, next: None, random: seed }
    }

    /// Begins with the first packet.
    pub(super) fn start(&mut self, now: Instant) {
        if self.next.is_none() {
            self.advance(now);
        }
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.next
    }

    /// True when reports are due; the next ones are scheduled.
    pub(super) fn take_due(&mut self, now: Instant) -> bool {
        let due = self.next.is_some_and(|next| next <= now);
        if due {
            self.advance(now);
        }
        due
    }

    fn advance(&mut self, now: Instant) {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        let share = ((z ^ z >> 31) >> 44) as u32; // 20 bits
        self.next = Some(now + self.interval / 2 + self.interval * share / (1 << 20));
    }
}
