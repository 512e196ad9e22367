//! What the workers count. Written by one worker each, read by the metrics.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counters of one worker; they only rise.
        #[derive(Default)]
        pub struct WorkerStats {
            $($(#[$doc])* pub $name: AtomicU64,)*
            rejected: [AtomicU64; REJECT_REASONS.len()],
        }

        /// The counters of all workers at one moment.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct WorkerTotals {
            $($(#[$doc])* pub $name: u64,)*
            /// Input that was dropped, by reason.
            pub rejected: Vec<(&'static str, u64)>,
        }

        impl WorkerTotals {
            /// Adds the counters of one worker.
            pub fn add(&mut self, stats: &WorkerStats) {
                $(self.$name += stats.$name.load(Ordering::Relaxed);)*
                self.rejected.resize(REJECT_REASONS.len(), ("", 0));
                for (i, reason) in REJECT_REASONS.iter().enumerate() {
                    self.rejected[i].0 = reason;
                    self.rejected[i].1 += stats.rejected[i].load(Ordering::Relaxed);
                }
            }
        }
    };
}

counters! {
    /// Datagrams received.
    datagrams_received,
    /// Bytes received, UDP payload.
    bytes_received,
    /// Datagrams that the kernel would not take.
    send_dropped,
    /// Datagrams passed on to the worker that owns their peer.
    forwarded,
    /// Nanoseconds in which the worker was not waiting.
    busy_nanos,
    /// Packets and requests that did not fit the worker's queues.
    mailbox_overflows,
}

/// The closed set of reasons for which input of the media port is dropped.
pub const REJECT_REASONS: [&str; 26] = [
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
    "other",
];

impl WorkerStats {
    /// Counts input dropped for `reason`; one that is not in the set counts as `other`.
    pub fn reject(&self, reason: &'static str) {
        let other = REJECT_REASONS.len() - 1;
        let at = REJECT_REASONS.iter().position(|known| *known == reason).unwrap_or(other);
        self.rejected[at].fetch_add(1, Ordering::Relaxed);
    }
}
