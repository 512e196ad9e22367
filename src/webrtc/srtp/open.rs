//! The receiving side of a session.

use super::cipher::{Cipher, Nonces, Trailer};
use super::keys::KeyingMaterial;
use super::replay::Replay;
use super::{be_u32, rtp_header_len};

/// SSRCs that one session may use. A peer that authenticates packets with more is
/// broken; the packets of further SSRCs are refused.
const MAX_SSRCS: usize = 32;

/// Why a packet was dropped; the value of the `reason` label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Shorter than its own header and tag.
    #[error("malformed")]
    Malformed,
    /// Seen before, or older than the replay window.
    #[error("replayed")]
    Replayed,
    /// The tag does not fit.
    #[error("authentication failed")]
    Unauthentic,
    /// More SSRCs than a session may use.
    #[error("too many SSRCs")]
    TooManySsrcs,
}

impl OpenError {
    /// The value of the `reason` metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "srtp_malformed",
            Self::Replayed => "srtp_replayed",
            Self::Unauthentic => "srtp_unauthentic",
            Self::TooManySsrcs => "srtp_too_many_ssrcs",
        }
    }
}

/// Opens what one peer sends. owner: the session's worker.
pub struct Opener {
    rtp: Cipher,
    rtcp: Cipher,
    pub(super) rtp_streams: Vec<(u32, Replay)>,
    pub(super) rtcp_streams: Vec<(u32, Replay)>,
}

impl Opener {
    /// The opener for packets of the DTLS client (`true`) or server (`false`).
    ///
    /// # Errors
    /// [`OpenError::Malformed`] when the cryptography library refuses the keys.
    pub fn new(material: &KeyingMaterial<'_>, client: bool) -> Result<Self, OpenError> {
        let cipher = |rtcp| Cipher::new(material, client, rtcp).map_err(|_| OpenError::Malformed);
        Ok(Self {
            rtp: cipher(false)?,
            rtcp: cipher(true)?,
            rtp_streams: Vec::new(),
            rtcp_streams: Vec::new(),
        })
    }

    /// Opens an SRTP packet in place; returns the length of the RTP packet.
    ///
    /// # Errors
    /// [`OpenError`]; the packet is to be dropped and its bytes are meaningless.
    pub fn open_rtp(&mut self, packet: &mut [u8]) -> Result<usize, OpenError> {
        let len = packet.len().checked_sub(self.rtp.tag_len()).ok_or(OpenError::Malformed)?;
        let (packet, tag) = packet.split_at_mut(len);
        let clear = rtp_header_len(packet).ok_or(OpenError::Malformed)?;
        let ssrc = be_u32(packet, 8).ok_or(OpenError::Malformed)?;
        let sequence = u16::from_be_bytes([packet[2], packet[3]]);
        let state = find(&mut self.rtp_streams, ssrc);
        let index = state.as_ref().map_or(u64::from(sequence), |s| s.estimate(sequence));
        if state.is_some_and(|s| !s.is_fresh(index)) {
            return Err(OpenError::Replayed);
        }
        let nonces = Nonces { ssrc, index };
        let trailer = Trailer::Rollover((index >> 16) as u32);
        self.rtp.open(nonces, packet, clear, tag, trailer).map_err(|_| OpenError::Unauthentic)?;
        remember(&mut self.rtp_streams, ssrc, index)?;
        Ok(len)
    }

    /// Opens an SRTCP packet in place; returns the length of the RTCP packet.
    ///
    /// # Errors
    /// [`OpenError`]; the packet is to be dropped and its bytes are meaningless.
    pub fn open_rtcp(&mut self, packet: &mut [u8]) -> Result<usize, OpenError> {
        let tag_len = self.rtcp.tag_len();
        let len = packet.len().checked_sub(tag_len + 4).ok_or(OpenError::Malformed)?;
        if len < 8 {
            return Err(OpenError::Malformed);
        }
        let (packet, trailer) = packet.split_at_mut(len);
        let (tag, word) = if matches!(self.rtcp, Cipher::Gcm { .. }) {
            trailer.split_at(tag_len)
        } else {
            let (word, tag) = trailer.split_at(4);
            (tag, word)
        };
        let word = be_u32(word, 0).ok_or(OpenError::Malformed)?;
        let ssrc = be_u32(packet, 4).ok_or(OpenError::Malformed)?;
        let index = u64::from(word & 0x7fff_ffff);
        if find(&mut self.rtcp_streams, ssrc).is_some_and(|s| !s.is_fresh(index)) {
            return Err(OpenError::Replayed);
        }
        self.rtcp
            .open(Nonces { ssrc, index }, packet, 8, tag, Trailer::Index(word))
            .map_err(|_| OpenError::Unauthentic)?;
        remember(&mut self.rtcp_streams, ssrc, index)?;
        Ok(len)
    }
}

fn find(streams: &mut [(u32, Replay)], ssrc: u32) -> Option<&mut Replay> {
    streams.iter_mut().find(|(other, _)| *other == ssrc).map(|(_, state)| state)
}

fn remember(streams: &mut Vec<(u32, Replay)>, ssrc: u32, index: u64) -> Result<(), OpenError> {
    if let Some(state) = find(streams, ssrc) {
        state.accept(index);
    } else if streams.len() < MAX_SSRCS {
        streams.push((ssrc, Replay::new(index)));
    } else {
        return Err(OpenError::TooManySsrcs);
    }
    Ok(())
}
