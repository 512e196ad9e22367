//! The few RTCP messages of a viewer: reports, NACK, PLI and REMB out; sender reports
//! and goodbyes in (RFC 3550 §6, RFC 4585 §6, draft-alvestrand-rmcat-remb-03).

use super::reception::Block;
use crate::time::micros_from_ntp;

const SENDER_REPORT: u8 = 200;
const RECEIVER_REPORT: u8 = 201;
const SOURCE_DESCRIPTION: u8 = 202;
const GOODBYE: u8 = 203;
const TRANSPORT_FEEDBACK: u8 = 205;
const PAYLOAD_FEEDBACK: u8 = 206;
/// Entries of one NACK; what is left is asked for in the next.
const NACK_ENTRIES: usize = 250;

/// One report block's place: whose stream, and the sender report it answers.
#[derive(Clone, Copy, Debug)]
pub struct ReportBlock {
    /// Whose stream it is.
    pub ssrc: u32,
    /// What came of it.
    pub block: Block,
    /// Middle 32 bits of the last sender report's NTP time.
    pub last_report: u32,
    /// Time since then in 1/65536 s.
    pub delay: u32,
}

/// A sender report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SenderReport {
    /// Whose stream it is.
    pub ssrc: u32,
    /// NTP time of the report.
    pub ntp: u64,
    /// The same moment on the stream's clock.
    pub timestamp: u32,
}

impl SenderReport {
    /// UTC microseconds at `timestamp` of a stream of `clock` ticks a second.
    pub fn utc_micros(&self, timestamp: u32, clock: u32) -> i64 {
        let ticks = i64::from(timestamp.wrapping_sub(self.timestamp) as i32);
        micros_from_ntp(self.ntp) + ticks * 1_000_000 / i64::from(clock.max(1))
    }

    /// What a report block repeats of it.
    pub fn middle(&self) -> u32 {
        (self.ntp >> 16) as u32
    }
}

/// A message that concerns a viewer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// The clocks of a stream.
    SenderReport(SenderReport),
    /// The stream has ended.
    Goodbye,
}

/// Reads a compound packet; what is not known or not whole is passed over.
pub fn parse(mut compound: &[u8]) -> Vec<Message> {
    let mut messages = Vec::new();
    while let Some((head, _)) = compound.split_first_chunk::<4>() {
        let len = 4 * (usize::from(u16::from_be_bytes([head[2], head[3]])) + 1);
        let Some((packet, rest)) = compound.split_at_checked(len) else { break };
        match head[1] {
            SENDER_REPORT => messages.extend(sender_report(packet).map(Message::SenderReport)),
            GOODBYE => messages.push(Message::Goodbye),
            _ => {}
        }
        compound = rest;
    }
    messages
}

fn sender_report(packet: &[u8]) -> Option<SenderReport> {
    let word = |at: usize| Some(u32::from_be_bytes(packet.get(at..at + 4)?.try_into().ok()?));
    let ntp = (u64::from(word(8)?) << 32) | u64::from(word(12)?);
    Some(SenderReport { ssrc: word(4)?, ntp, timestamp: word(16)? })
}

/// Writes compound packets of one viewer.
#[derive(Debug)]
pub struct Writer {
    ssrc: u32,
    buffer: Vec<u8>,
}

impl Writer {
    /// Starts a compound packet of sender `ssrc` with a receiver report, as RFC 3550
    /// §6.1 wants it; `blocks` may be empty.
    pub fn new(ssrc: u32, blocks: &[ReportBlock]) -> Self {
        let mut writer = Self { ssrc, buffer: Vec::with_capacity(128) };
        let blocks = &blocks[..blocks.len().min(31)];
        let at = writer.begin(blocks.len() as u8, RECEIVER_REPORT);
        for report in blocks {
            writer.word(report.ssrc);
            let lost = report.block.lost as u32 & 0xff_ffff;
            writer.word(u32::from(report.block.fraction_lost) << 24 | lost);
            writer.word(report.block.highest);
            writer.word(report.block.jitter);
            writer.word(report.last_report);
            writer.word(report.delay);
        }
        writer.end(at);
        writer
    }

    /// Adds the canonical name (RFC 3550 §6.5).
    pub fn name(mut self, name: &str) -> Self {
        let at = self.begin(1, SOURCE_DESCRIPTION);
        let name = &name.as_bytes()[..name.len().min(64)];
        self.buffer.extend([1, name.len() as u8]);
        self.buffer.extend(name);
        // At least one zero ends the chunk, which is whole words.
        self.buffer.push(0);
        while !(self.buffer.len() - at).is_multiple_of(4) {
            self.buffer.push(0);
        }
        self.end(at);
        self
    }

    /// Adds a NACK for `missing`, in the order of the stream (RFC 4585 §6.2.1).
    pub fn nack(mut self, media: u32, missing: &[u16]) -> Self {
        let at = self.begin(1, TRANSPORT_FEEDBACK);
        self.word(media);
        let mut rest = missing;
        let mut entries = 0;
        while let Some((&first, mut after)) = rest.split_first()
            && entries < NACK_ENTRIES
        {
            let mut mask = 0u16;
            while let Some((&next, further)) = after.split_first() {
                let distance = next.wrapping_sub(first);
                if !(1..=16).contains(&distance) {
                    break;
                }
                mask |= 1 << (distance - 1);
                after = further;
            }
            self.word(u32::from(first) << 16 | u32::from(mask));
            (rest, entries) = (after, entries + 1);
        }
        self.end(at);
        self
    }

    /// Adds a request for a keyframe (RFC 4585 §6.3.1).
    pub fn picture_loss(mut self, media: u32) -> Self {
        let at = self.begin(1, PAYLOAD_FEEDBACK);
        self.word(media);
        self.end(at);
        self
    }

    /// Adds an estimate of what can be received, in bits a second.
    pub fn estimate(mut self, bits: u64, media: u32) -> Self {
        let at = self.begin(15, PAYLOAD_FEEDBACK);
        self.word(0);
        self.buffer.extend(b"REMB");
        let exponent = (64 - bits.leading_zeros()).saturating_sub(18);
        let mantissa = (bits >> exponent) as u32;
        self.word(1 << 24 | exponent << 18 | mantissa);
        self.word(media);
        self.end(at);
        self
    }

    /// The compound packet.
    pub fn finish(self) -> Vec<u8> {
        self.buffer
    }

    /// Header and sender's SSRC; returns where the packet begins.
    fn begin(&mut self, count: u8, kind: u8) -> usize {
        let at = self.buffer.len();
        self.buffer.extend([0x80 | count, kind, 0, 0]);
        self.word(self.ssrc);
        at
    }

    fn end(&mut self, at: usize) {
        let words = ((self.buffer.len() - at) / 4 - 1) as u16;
        self.buffer[at + 2..at + 4].copy_from_slice(&words.to_be_bytes());
    }

    fn word(&mut self, value: u32) {
        self.buffer.extend(value.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rtc::rtcp::goodbye::Goodbye;
    use rtc::rtcp::packet::{Packet, unmarshal};
    use rtc::rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
    use rtc::rtcp::payload_feedbacks::receiver_estimated_maximum_bitrate::ReceiverEstimatedMaximumBitrate;
    use rtc::rtcp::receiver_report::ReceiverReport;
    use rtc::rtcp::source_description::SourceDescription;
    use rtc::rtcp::transport_feedbacks::transport_layer_nack::TransportLayerNack;
    use rtc::shared::marshal::Marshal as _;

    fn read(packet: Vec<u8>) -> Vec<Box<dyn Packet>> {
        unmarshal(&mut bytes::Bytes::from(packet)).unwrap()
    }

    #[test]
    fn another_implementation_reads_what_we_write() {
        let block = Block { fraction_lost: 3, lost: -1, highest: 70_000, jitter: 5 };
        let report = ReportBlock { ssrc: 7, block, last_report: 9, delay: 11 };
        let missing = [65_535, 0, 15, 16, 40];
        let packet = Writer::new(1, &[report])
            .name("viewer")
            .nack(7, &missing)
            .picture_loss(7)
            .estimate(2_500_000, 7)
            .finish();
        let packets = read(packet);
        let is = |at: usize| packets[at].as_any();
        let rr = is(0).downcast_ref::<ReceiverReport>().unwrap();
        assert_eq!((rr.ssrc, rr.reports[0].ssrc, rr.reports[0].fraction_lost), (1, 7, 3));
        assert_eq!(rr.reports[0].last_sequence_number, 70_000);
        assert_eq!((rr.reports[0].last_sender_report, rr.reports[0].delay), (9, 11));
        let names = is(1).downcast_ref::<SourceDescription>().unwrap();
        assert_eq!(names.chunks[0].items[0].text, "viewer");
        let nack = is(2).downcast_ref::<TransportLayerNack>().unwrap();
        let asked: Vec<u16> = nack.nacks.iter().flat_map(|pair| pair.packet_list()).collect();
        assert_eq!((nack.media_ssrc, asked), (7, missing.to_vec()));
        assert!(is(3).is::<PictureLossIndication>());
        let remb = is(4).downcast_ref::<ReceiverEstimatedMaximumBitrate>().unwrap();
        assert!((remb.bitrate - 2_500_000.0).abs() < 16.0 && remb.ssrcs == [7], "{remb:?}");
    }

    #[test]
    fn sender_reports_and_goodbyes_are_read_and_rubbish_is_not() {
        let report = rtc::rtcp::sender_report::SenderReport {
            ssrc: 5,
            ntp_time: crate::time::ntp_from_micros(1_700_000_000_000_000),
            rtp_time: 90_000,
            ..Default::default()
        };
        let mut compound = report.marshal().unwrap().to_vec();
        compound.extend(Goodbye { sources: vec![5], reason: "".into() }.marshal().unwrap());
        let [Message::SenderReport(read), Message::Goodbye] = parse(&compound)[..] else {
            panic!("{:?}", parse(&compound));
        };
        assert_eq!((read.ssrc, read.timestamp), (5, 90_000));
        let before = read.utc_micros(45_000, 90_000);
        assert!((before - 1_699_999_999_500_000).abs() <= 1, "{before}");
        for len in 0..28 {
            assert!(parse(&compound[..len]).is_empty());
        }
        assert!(parse(&[0x80, 200, 0, 0]).is_empty());
    }
}
