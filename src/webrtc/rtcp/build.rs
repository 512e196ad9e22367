//! Compound RTCP packets to bytes, ready to be encrypted.

use super::parse::{
    BYE, FMT_NACK, FMT_PLI, FMT_TRANSPORT_CC, PAYLOAD_FEEDBACK, RR, SDES, SR, TRANSPORT_FEEDBACK,
};
use super::transport_cc::{self, Arrival};
use super::{ReportBlock, SenderReport};

/// Builds one compound packet. RFC 3550 §6.1 wants a report first and the CNAME
/// with it: begin with [`Self::sender_report`] or [`Self::receiver_report`].
pub struct CompoundBuilder {
    /// Who sends: the SSRC of our reports and feedback.
    sender_ssrc: u32,
    bytes: Vec<u8>,
}

impl CompoundBuilder {
    /// Blocks that one report can carry (5-bit count); more are left out.
    pub const MAX_BLOCKS: usize = 31;

    /// An empty compound whose feedback comes from `sender_ssrc`.
    pub fn new(sender_ssrc: u32) -> Self {
        Self { sender_ssrc, bytes: Vec::with_capacity(256) }
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Nothing was added.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// SR with `blocks`, and SDES with `cname` (RFC 3550 §6.4.1, §6.5).
    #[must_use]
    pub fn sender_report(self, report: &SenderReport, blocks: &[ReportBlock], cname: &str) -> Self {
        let blocks = blocks.get(..Self::MAX_BLOCKS).unwrap_or(blocks);
        let words = 6 + 6 * blocks.len();
        let mut this = self.header(blocks.len() as u8, SR, words).word(report.ssrc);
        this.bytes.extend_from_slice(&report.ntp.to_be_bytes());
        this.word(report.rtp_time)
            .word(report.packets)
            .word(report.octets)
            .blocks(blocks)
            .description(report.ssrc, cname)
    }

    /// RR with `blocks` (none: a mere prefix for feedback), and SDES with `cname`
    /// (RFC 3550 §6.4.2, §6.5).
    #[must_use]
    pub fn receiver_report(self, blocks: &[ReportBlock], cname: &str) -> Self {
        let blocks = blocks.get(..Self::MAX_BLOCKS).unwrap_or(blocks);
        let sender = self.sender_ssrc;
        self.header(blocks.len() as u8, RR, 1 + 6 * blocks.len())
            .word(sender)
            .blocks(blocks)
            .description(sender, cname)
    }

    /// Generic NACK for `seqs` (RFC 4585 §6.2.1), in rising order (mod 2^16) and
    /// without repetition: 17 neighbours share four bytes. None: nothing is added.
    #[must_use]
    pub fn nack(mut self, media_ssrc: u32, seqs: &[u16]) -> Self {
        let mut pairs: Vec<(u16, u16)> = Vec::new();
        for &seq in seqs {
            match pairs.last_mut() {
                Some((first, following)) if (1..=16).contains(&seq.wrapping_sub(*first)) => {
                    *following |= 1 << (seq.wrapping_sub(*first) - 1);
                }
                _ => pairs.push((seq, 0)),
            }
        }
        if pairs.is_empty() {
            return self;
        }
        self = self.feedback(FMT_NACK, TRANSPORT_FEEDBACK, media_ssrc, pairs.len());
        for (first, following) in pairs {
            self = self.word(u32::from(first) << 16 | u32::from(following));
        }
        self
    }

    /// Picture loss indication (RFC 4585 §6.3.1).
    #[must_use]
    pub fn pli(self, media_ssrc: u32) -> Self {
        self.feedback(FMT_PLI, PAYLOAD_FEEDBACK, media_ssrc, 0)
    }

    /// Transport-wide feedback number `count` on the packets from `base_seq` to
    /// the last of `arrivals` (draft-holmer-rmcat-transport-wide-cc-extensions-01 §3.1).
    ///
    /// `arrivals` are in rising order of their distance from `base_seq`, without
    /// repetition; those between that are not named were not received. Returns
    /// how many of them the message covers: it ends before an arrival that is
    /// [`MAX_STATUSES`](super::MAX_STATUSES) or more behind `base_seq` or over 8 s
    /// off its neighbour. Nothing is added when that is none.
    #[must_use]
    pub fn transport_cc(
        self,
        media_ssrc: u32,
        count: u8,
        base_seq: u16,
        arrivals: &[Arrival],
    ) -> (Self, usize) {
        let Some(encoded) = transport_cc::encode(count, base_seq, arrivals) else {
            return (self, 0);
        };
        let padding = (4 - encoded.control.len() % 4) % 4;
        let words = (encoded.control.len() + padding) / 4;
        let start = self.bytes.len();
        let mut this = self.feedback(FMT_TRANSPORT_CC, TRANSPORT_FEEDBACK, media_ssrc, words);
        this.bytes.extend_from_slice(&encoded.control);
        if padding > 0 {
            this.bytes.resize(this.bytes.len() + padding - 1, 0);
            this.bytes.push(padding as u8);
            if let Some(first) = this.bytes.get_mut(start) {
                *first |= 0x20;
            }
        }
        (this, encoded.covered)
    }

    /// Says that streams end (RFC 3550 §6.6).
    #[must_use]
    pub fn bye(mut self, ssrcs: &[u32]) -> Self {
        let ssrcs = ssrcs.get(..Self::MAX_BLOCKS).unwrap_or(ssrcs);
        self = self.header(ssrcs.len() as u8, BYE, ssrcs.len());
        for &ssrc in ssrcs {
            self = self.word(ssrc);
        }
        self
    }

    /// The compound's bytes.
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }

    /// `words`: length of what follows the header, in 32-bit words.
    fn header(mut self, count: u8, packet_type: u8, words: usize) -> Self {
        self.bytes.extend_from_slice(&[0x80 | count, packet_type]);
        self.bytes.extend_from_slice(&(words as u16).to_be_bytes());
        self
    }

    /// RFC 4585 §6.1; `words`: length of the control information.
    fn feedback(self, format: u8, packet_type: u8, media_ssrc: u32, words: usize) -> Self {
        let sender = self.sender_ssrc;
        self.header(format, packet_type, 2 + words).word(sender).word(media_ssrc)
    }

    fn word(mut self, word: u32) -> Self {
        self.bytes.extend_from_slice(&word.to_be_bytes());
        self
    }

    fn blocks(mut self, blocks: &[ReportBlock]) -> Self {
        for block in blocks {
            let lost = block.cumulative_lost.clamp(-0x80_0000, 0x7f_ffff) as u32 & 0xff_ffff;
            self = self
                .word(block.source_ssrc)
                .word(u32::from(block.fraction_lost) << 24 | lost)
                .word(block.highest_seq)
                .word(block.jitter)
                .word(block.last_sr)
                .word(block.delay);
        }
        self
    }

    /// SDES with one chunk and one item, the CNAME, cut to 255 bytes; one to
    /// four zero bytes end the chunk on a word boundary (RFC 3550 §6.5).
    fn description(mut self, ssrc: u32, cname: &str) -> Self {
        const CNAME: u8 = 1;
        let cname = cname.as_bytes();
        let cname = cname.get(..255).unwrap_or(cname);
        let item = 2 + cname.len();
        let zeros = 4 - item % 4;
        self = self.header(1, SDES, 1 + (item + zeros) / 4).word(ssrc);
        self.bytes.extend_from_slice(&[CNAME, cname.len() as u8]);
        self.bytes.extend_from_slice(cname);
        self.bytes.resize(self.bytes.len() + zeros, 0);
        self
    }
}
