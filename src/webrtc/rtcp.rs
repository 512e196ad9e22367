//! RTCP as the gateway uses it (RFC 3550 §6, RFC 4585, RFC 5104 §4.3.1, REMB,
//! transport-wide feedback): a small closed enum for what arrives decrypted,
//! one builder for what is sent.
//!
//! The parser is ours and not `rtc::rtcp`: a compound packet becomes plain
//! values, without a box per part; one part of an unknown kind does not spoil
//! the others; and nothing allocates more than the datagram is long (a
//! transport-wide feedback packet of 30 bytes unfolds to a megabyte there).
//! The tests hold the two against each other.

mod build;
mod parse;
mod transport_cc;

#[cfg(test)]
mod tests;

use std::time::Duration;

pub use build::CompoundBuilder;
pub use parse::{Malformed, parse};
pub use transport_cc::{ARRIVAL_TICK, Arrival, MAX_STATUSES};

use crate::time::Utc;

/// One message out of a compound RTCP packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rtcp {
    /// What a sender says of its stream and its clock (RFC 3550 §6.4.1).
    SenderReport(SenderReport),
    /// What a receiver says of a stream it gets; from an SR or an RR (RFC 3550 §6.4.1).
    ReceptionReport(ReceptionReport),
    /// Packets asked for again (RFC 4585 §6.2.1).
    Nack {
        /// The stream that they belong to.
        media_ssrc: u32,
        /// Their sequence numbers.
        seqs: NackSeqs,
    },
    /// Picture loss: a keyframe is wanted (RFC 4585 §6.3.1).
    Pli {
        /// The stream that it is wanted of.
        media_ssrc: u32,
    },
    /// Full intra request, one for each of its entries (RFC 5104 §4.3.1).
    Fir {
        /// The stream that it is wanted of.
        media_ssrc: u32,
    },
    /// The receiver's estimate of what it can take in all (draft-alvestrand-rmcat-remb-03).
    Remb {
        /// Bits per second.
        bitrate_bps: u64,
        /// The streams that share it.
        ssrcs: Vec<u32>,
    },
    /// Streams that end (RFC 3550 §6.6).
    Bye {
        /// Their SSRCs.
        ssrcs: Vec<u32>,
    },
    /// Transport-wide feedback; recognised, not read.
    TransportCc,
    /// Anything else that is well formed: SDES, APP, XR, other feedback.
    Other,
}

/// The sender's part of an SR (RFC 3550 §6.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SenderReport {
    /// The stream.
    pub ssrc: u32,
    /// When it was sent, by the sender's clock: NTP, 32.32 fixed point.
    pub ntp: u64,
    /// The same moment on the stream's RTP clock.
    pub rtp_time: u32,
    /// Packets sent since the start of the stream.
    pub packets: u32,
    /// Payload bytes sent since the start of the stream.
    pub octets: u32,
}

/// A report block and who sent it (RFC 3550 §6.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceptionReport {
    /// Who reports.
    pub reporter_ssrc: u32,
    /// What it reports.
    pub block: ReportBlock,
}

/// One report block: how the stream `source_ssrc` is received (RFC 3550 §6.4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReportBlock {
    /// The stream.
    pub source_ssrc: u32,
    /// Share lost since the last report, in 1/256.
    pub fraction_lost: u8,
    /// Packets lost since the start, a signed 24-bit number: duplicates count against it.
    pub cumulative_lost: i32,
    /// Highest sequence number received, extended by the count of its cycles.
    pub highest_seq: u32,
    /// Interarrival jitter in ticks of the RTP clock.
    pub jitter: u32,
    /// Middle 32 bits of the last SR's NTP time; 0: none received.
    pub last_sr: u32,
    /// Time since that SR came, in 1/65536 s.
    pub delay: u32,
}

/// The sequence numbers of a NACK, in the order of the packet; at most
/// [`Self::MAX_PAIRS`] x 17 of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NackSeqs {
    /// First lost packet, and a bitmap of the 16 after it.
    pairs: Vec<(u16, u16)>,
}

impl NackSeqs {
    /// Pairs kept of one NACK; those after them are ignored, the receiver asks
    /// again. 64 are 1088 packets: more than any resend budget would serve.
    pub const MAX_PAIRS: usize = 64;

    /// The sequence numbers.
    pub fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        self.pairs.iter().flat_map(|&(first, following)| {
            let after = (0..16u16)
                .filter(move |bit| following & (1 << bit) != 0)
                .map(move |bit| first.wrapping_add(bit + 1));
            std::iter::once(first).chain(after)
        })
    }
}

/// The middle 32 bits of an NTP timestamp: 16.16 seconds, as LSR and RTT use them.
pub const fn ntp_middle(ntp: u64) -> u32 {
    (ntp >> 16) as u32
}

/// Round-trip time from a report block that arrived at `now` and answers one of
/// our SRs (RFC 3550 §6.4.1, Figure 2). `now` is read from the clock that wrote
/// the SR. `None` when no SR was answered or the block contradicts itself.
pub fn round_trip(now: Utc, block: &ReportBlock) -> Option<Duration> {
    /// A negative result this small is the rounding of two clocks, not a lie: 1/64 s.
    const ROUNDING: i32 = 1024;
    /// 60 s: an older answer says nothing about the path.
    const LONGEST: i32 = 60 << 16;
    if block.last_sr == 0 {
        return None;
    }
    let elapsed =
        ntp_middle(now.to_ntp()).wrapping_sub(block.last_sr).wrapping_sub(block.delay) as i32;
    if !(-ROUNDING..=LONGEST).contains(&elapsed) {
        return None;
    }
    Some(Duration::from_micros((elapsed.max(0) as u64 * 1_000_000) >> 16))
}
