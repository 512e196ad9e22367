//! Compound RTCP packets to [`Rtcp`] values. Lengths are checked before
//! anything is read; every allocation is bounded by the datagram.

use super::{NackSeqs, ReceptionReport, ReportBlock, Rtcp, SenderReport};

/// Payload types (RFC 3550 §12.1, RFC 4585 §6.1).
pub(super) const SR: u8 = 200;
pub(super) const RR: u8 = 201;
pub(super) const SDES: u8 = 202;
pub(super) const BYE: u8 = 203;
pub(super) const TRANSPORT_FEEDBACK: u8 = 205;
pub(super) const PAYLOAD_FEEDBACK: u8 = 206;

/// Feedback message types (RFC 4585 §6.2, §6.3; RFC 5104 §4.3.1; draft-holmer §3.1).
pub(super) const FMT_NACK: u8 = 1;
pub(super) const FMT_TRANSPORT_CC: u8 = 15;
pub(super) const FMT_PLI: u8 = 1;
pub(super) const FMT_FIR: u8 = 4;
pub(super) const FMT_APPLICATION: u8 = 15;

/// Messages taken out of one datagram; those after them are ignored. A full SR
/// with 31 report blocks and the feedback of a whole session fit.
const MAX_MESSAGES: usize = 64;

/// The datagram is not RTCP, or a length in it leads outside of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed RTCP packet")]
pub struct Malformed;

/// Parses a decrypted datagram: a compound packet, or a reduced-size one (RFC 5506).
///
/// # Errors
/// [`Malformed`] when any part of it has a wrong version or length: the whole
/// datagram is refused.
pub fn parse(datagram: &[u8]) -> Result<Vec<Rtcp>, Malformed> {
    let mut messages = Vec::new();
    let mut rest = datagram;
    if rest.is_empty() {
        return Err(Malformed);
    }
    while !rest.is_empty() {
        let (part, after) = split_part(rest)?;
        part.read_into(&mut messages)?;
        rest = after;
        if messages.len() >= MAX_MESSAGES {
            messages.truncate(MAX_MESSAGES);
            break;
        }
    }
    Ok(messages)
}

/// One RTCP packet of a compound: its header's fields and its body without padding.
struct Part<'a> {
    /// Report count or feedback message type, 5 bits.
    count: u8,
    packet_type: u8,
    body: &'a [u8],
}

/// The common header (RFC 3550 §6.4.1): `V=2 P count | type | length in words - 1`.
fn split_part(bytes: &[u8]) -> Result<(Part<'_>, &[u8]), Malformed> {
    let (&[first, packet_type, high, low], _) = bytes.split_first_chunk::<4>().ok_or(Malformed)?;
    let length = (usize::from(u16::from_be_bytes([high, low])) + 1) * 4;
    let (part, after) = bytes.split_at_checked(length).ok_or(Malformed)?;
    if first >> 6 != 2 {
        return Err(Malformed);
    }
    let mut body = part.get(4..).ok_or(Malformed)?;
    if first & 0x20 != 0 {
        // The last byte counts the padding, itself included.
        let padding = usize::from(*body.last().ok_or(Malformed)?);
        if padding == 0 {
            return Err(Malformed);
        }
        body = body.get(..body.len().checked_sub(padding).ok_or(Malformed)?).ok_or(Malformed)?;
    }
    Ok((Part { count: first & 0x1f, packet_type, body }, after))
}

impl Part<'_> {
    fn read_into(&self, out: &mut Vec<Rtcp>) -> Result<(), Malformed> {
        match (self.packet_type, self.count) {
            (SR, _) => self.read_sender_report(out),
            (RR, _) => {
                let (reporter, blocks) = take_u32(self.body)?;
                self.read_blocks(reporter, blocks, out)
            }
            (BYE, count) => {
                let sources = self.body.get(..usize::from(count) * 4).ok_or(Malformed)?;
                out.push(Rtcp::Bye { ssrcs: words(sources).collect() });
                Ok(())
            }
            (TRANSPORT_FEEDBACK, FMT_NACK) => self.read_nack(out),
            (TRANSPORT_FEEDBACK, FMT_TRANSPORT_CC) => {
                out.push(Rtcp::TransportCc);
                Ok(())
            }
            (PAYLOAD_FEEDBACK, FMT_PLI) => {
                let (media_ssrc, _) = self.feedback()?;
                out.push(Rtcp::Pli { media_ssrc });
                Ok(())
            }
            (PAYLOAD_FEEDBACK, FMT_FIR) => self.read_fir(out),
            (PAYLOAD_FEEDBACK, FMT_APPLICATION) => self.read_application(out),
            _ => {
                out.push(Rtcp::Other);
                Ok(())
            }
        }
    }

    /// RFC 3550 §6.4.1.
    fn read_sender_report(&self, out: &mut Vec<Rtcp>) -> Result<(), Malformed> {
        let (ssrc, rest) = take_u32(self.body)?;
        let (ntp_seconds, rest) = take_u32(rest)?;
        let (ntp_fraction, rest) = take_u32(rest)?;
        let (rtp_time, rest) = take_u32(rest)?;
        let (packets, rest) = take_u32(rest)?;
        let (octets, blocks) = take_u32(rest)?;
        let ntp = u64::from(ntp_seconds) << 32 | u64::from(ntp_fraction);
        out.push(Rtcp::SenderReport(SenderReport { ssrc, ntp, rtp_time, packets, octets }));
        self.read_blocks(ssrc, blocks, out)
    }

    /// As many 24-byte blocks as the header counts; what follows them is a profile's own.
    fn read_blocks(
        &self,
        reporter_ssrc: u32,
        blocks: &[u8],
        out: &mut Vec<Rtcp>,
    ) -> Result<(), Malformed> {
        let blocks = blocks.get(..usize::from(self.count) * 24).ok_or(Malformed)?;
        for block in blocks.chunks_exact(24) {
            let (source_ssrc, rest) = take_u32(block)?;
            let (lost, rest) = take_u32(rest)?;
            let (highest_seq, rest) = take_u32(rest)?;
            let (jitter, rest) = take_u32(rest)?;
            let (last_sr, rest) = take_u32(rest)?;
            let (delay, _) = take_u32(rest)?;
            let block = ReportBlock {
                source_ssrc,
                fraction_lost: (lost >> 24) as u8,
                // Sign-extends the lower 24 bits.
                cumulative_lost: (lost << 8) as i32 >> 8,
                highest_seq,
                jitter,
                last_sr,
                delay,
            };
            out.push(Rtcp::ReceptionReport(ReceptionReport { reporter_ssrc, block }));
        }
        Ok(())
    }

    /// What all feedback begins with (RFC 4585 §6.1): sender SSRC, media SSRC.
    /// Returns the media SSRC and the feedback control information.
    fn feedback(&self) -> Result<(u32, &[u8]), Malformed> {
        let (_, rest) = take_u32(self.body)?;
        take_u32(rest)
    }

    /// RFC 4585 §6.2.1: pairs of a packet id and a bitmap of the following 16.
    fn read_nack(&self, out: &mut Vec<Rtcp>) -> Result<(), Malformed> {
        let (media_ssrc, pairs) = self.feedback()?;
        let pairs = words(pairs)
            .take(NackSeqs::MAX_PAIRS)
            .map(|pair| ((pair >> 16) as u16, pair as u16))
            .collect();
        out.push(Rtcp::Nack { media_ssrc, seqs: NackSeqs { pairs } });
        Ok(())
    }

    /// RFC 5104 §4.3.1.1: entries of an SSRC and a command number. The media
    /// SSRC of the common part is unused there.
    fn read_fir(&self, out: &mut Vec<Rtcp>) -> Result<(), Malformed> {
        let (_, entries) = self.feedback()?;
        for entry in entries.chunks_exact(8) {
            let (media_ssrc, _) = take_u32(entry)?;
            out.push(Rtcp::Fir { media_ssrc });
        }
        Ok(())
    }

    /// REMB (draft-alvestrand-rmcat-remb-03 §2.2), or another application's feedback:
    /// `"REMB" | num SSRC (8) | exponent (6) | mantissa (18) | SSRCs`.
    fn read_application(&self, out: &mut Vec<Rtcp>) -> Result<(), Malformed> {
        let (_, control) = self.feedback()?;
        let Some(remb) = control.strip_prefix(b"REMB") else {
            out.push(Rtcp::Other);
            return Ok(());
        };
        let (rate, ssrcs) = take_u32(remb)?;
        let ssrcs = ssrcs.get(..(rate >> 24) as usize * 4).ok_or(Malformed)?;
        let (exponent, mantissa) = (rate >> 18 & 0x3f, u64::from(rate & 0x3_ffff));
        // What does not fit 64 bits is "no limit".
        let bitrate_bps = match mantissa.leading_zeros() {
            _ if mantissa == 0 => 0,
            zeros if zeros >= exponent => mantissa << exponent,
            _ => u64::MAX,
        };
        out.push(Rtcp::Remb { bitrate_bps, ssrcs: words(ssrcs).collect() });
        Ok(())
    }
}

fn take_u32(bytes: &[u8]) -> Result<(u32, &[u8]), Malformed> {
    let (word, rest) = bytes.split_first_chunk::<4>().ok_or(Malformed)?;
    Ok((u32::from_be_bytes(*word), rest))
}

fn words(bytes: &[u8]) -> impl Iterator<Item = u32> + '_ {
    bytes.as_chunks::<4>().0.iter().map(|word| u32::from_be_bytes(*word))
}
