//! What the workers count. Written by one worker each, read by the metrics.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::net::udp::{DROP_REASONS, GSO_REFUSALS, SendCounts};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counters of one worker; they only rise.
        #[derive(Default)]
        pub struct WorkerStats {
            $($(#[$doc])* pub $name: AtomicU64,)*
            /// Whether the worker's socket uses GSO; this one goes up and down.
            pub gso: AtomicBool,
            rejected: [AtomicU64; REJECT_REASONS.len()],
            send_dropped: [AtomicU64; DROP_REASONS.len()],
            gso_refused: [AtomicU64; GSO_REFUSALS.len()],
        }

        /// The counters of all workers at one moment.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct WorkerTotals {
            $($(#[$doc])* pub $name: u64,)*
            /// Workers whose sockets use GSO.
            pub gso_workers: u64,
            /// Input that was dropped, by reason.
            pub rejected: Vec<(&'static str, u64)>,
            /// Datagrams that could not be sent, by reason.
            pub send_dropped: Vec<(&'static str, u64)>,
            /// Runs of datagrams that the kernel would not take as one message, by reason.
            pub gso_refused: Vec<(&'static str, u64)>,
        }

        impl WorkerTotals {
            /// Adds the counters of one worker.
            pub fn add(&mut self, stats: &WorkerStats) {
                $(self.$name += stats.$name.load(Ordering::Relaxed);)*
                self.gso_workers += u64::from(stats.gso.load(Ordering::Relaxed));
                add_reasons(&mut self.rejected, &REJECT_REASONS, &stats.rejected);
                add_reasons(&mut self.send_dropped, &DROP_REASONS, &stats.send_dropped);
                add_reasons(&mut self.gso_refused, &GSO_REFUSALS, &stats.gso_refused);
            }
        }
    };
}

/// Adds counters, each of a reason, to the sums.
fn add_reasons(
    sums: &mut Vec<(&'static str, u64)>,
    reasons: &[&'static str],
    counters: &[AtomicU64],
) {
    if sums.is_empty() {
        sums.extend(reasons.iter().map(|reason| (*reason, 0)));
    }
    for ((_, sum), counter) in sums.iter_mut().zip(counters) {
        *sum += counter.load(Ordering::Relaxed);
    }
}

counters! {
    /// Datagrams received.
    datagrams_received,
    /// Bytes received, UDP payload.
    bytes_received,
    /// Datagrams that the kernel took.
    datagrams_sent,
    /// Messages in which it took them; a run of datagrams (GSO) is one.
    messages_sent,
    /// Datagrams sent unmarked because the system refuses their DSCP.
    dscp_refused,
    /// Datagrams passed on to the worker that owns their peer.
    forwarded,
    /// Nanoseconds in which the worker was not waiting.
    busy_nanos,
    /// Packets and requests that did not fit the worker's queues.
    mailbox_overflows,
}

/// The closed set of reasons for which input of the media port is dropped.
pub const REJECT_REASONS: [&str; 29] = [
    "unclassified",
    "oversized",
    "unknown_peer",
    "stun_oversized",
    "stun_malformed",
    "stun_not_request",
    "stun_no_credentials",
    "stun_unknown_ufrag",
    "stun_wrong_integrity",
    "stun_address_taken",
    "stun_flood",
    "stun_too_many_moves",
    "dtls_refused",
    "srtp_malformed",
    "srtp_replayed",
    "srtp_unauthentic",
    "srtp_too_many_ssrcs",
    "rtp_unexpected",
    "rtp_malformed",
    "rtp_oversized",
    "rtp_unknown_ssrc",
    "rtp_unknown_mid",
    "rtp_unknown_rid",
    "rtp_payload_type",
    "rtp_too_many_ssrcs",
    "rtp_replaced_ssrc",
    "rtcp_malformed",
    "rtcp_flood",
    "other",
];

impl WorkerStats {
    /// Adds what became of datagrams to be sent.
    pub fn add_sent(&self, counts: &SendCounts) {
        let add = |counter: &AtomicU64, count: u64| {
            if count > 0 {
                counter.fetch_add(count, Ordering::Relaxed);
            }
        };
        add(&self.datagrams_sent, counts.datagrams);
        add(&self.messages_sent, counts.messages);
        add(&self.dscp_refused, counts.mark_refused);
        self.send_dropped.iter().zip(counts.dropped).for_each(|(total, n)| add(total, n));
        self.gso_refused.iter().zip(counts.gso_refused).for_each(|(total, n)| add(total, n));
    }

    /// Counts input dropped for `reason`; one that is not in the set counts as `other`.
    pub fn reject(&self, reason: &'static str) {
        let other = REJECT_REASONS.len() - 1;
        let at = REJECT_REASONS.iter().position(|known| *known == reason).unwrap_or(other);
        self.rejected[at].fetch_add(1, Ordering::Relaxed);
    }
}
