//! The sending side of a session.

use super::cipher::{Cipher, Nonces, Trailer};
use super::keys::KeyingMaterial;
use super::{be_u32, rtp_header_len};

/// SRTCP's index has 31 bits; the top bit says "encrypted" (RFC 3711 §3.4).
const SRTCP_ENCRYPTED: u32 = 1 << 31;

/// A packet could not be sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Not an RTP or RTCP packet, or no room for the tag behind it.
    #[error("malformed packet or no room for the tag")]
    Malformed,
    /// The session has used its keys up (RFC 3711 §9.2), or the cipher refused.
    #[error("the session's keys are used up")]
    Exhausted,
}

/// Seals the RTP that one peer is sent. owner: the session's worker.
pub struct Sealer(Cipher);

impl Sealer {
    /// The sealer of the DTLS client (`true`) or server (`false`).
    ///
    /// # Errors
    /// [`SealError::Exhausted`] when the cryptography library refuses the keys.
    pub fn new(material: &KeyingMaterial<'_>, client: bool) -> Result<Self, SealError> {
        Ok(Self(Cipher::new(material, client, false).map_err(|_| SealError::Exhausted)?))
    }

    /// Bytes that [`Self::seal_rtp`] adds.
    pub fn rtp_overhead(&self) -> usize {
        self.0.tag_len()
    }

    /// Seals the RTP packet in `buffer[..len]` in place; returns the sealed length.
    /// `index` is the extended sequence number: rollover counter × 65536 + the
    /// sequence number in the packet. It must never repeat for an SSRC.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn seal_rtp(&self, buffer: &mut [u8], len: usize, index: u64) -> Result<usize, SealError> {
        let sealed_len = len + self.0.tag_len();
        if sealed_len > buffer.len() {
            return Err(SealError::Malformed);
        }
        let (packet, rest) = buffer.split_at_mut(len);
        let clear = rtp_header_len(packet).ok_or(SealError::Malformed)?;
        let ssrc = be_u32(packet, 8).ok_or(SealError::Malformed)?;
        let nonces = Nonces { ssrc, index };
        let trailer = Trailer::Rollover((index >> 16) as u32);
        let tag = self.0.seal(nonces, packet, clear, trailer).map_err(|_| SealError::Exhausted)?;
        rest[..self.0.tag_len()].copy_from_slice(&tag[..self.0.tag_len()]);
        Ok(sealed_len)
    }
}

/// Seals the RTCP that one peer is sent. owner: the session's worker.
pub struct RtcpSealer {
    cipher: Cipher,
    index: u32,
}

impl RtcpSealer {
    /// The sealer of the DTLS client (`true`) or server (`false`).
    ///
    /// # Errors
    /// [`SealError::Exhausted`] when the cryptography library refuses the keys.
    pub fn new(material: &KeyingMaterial<'_>, client: bool) -> Result<Self, SealError> {
        let cipher = Cipher::new(material, client, true).map_err(|_| SealError::Exhausted)?;
        Ok(Self { cipher, index: 0 })
    }

    /// Seals a compound RTCP packet: appends index and tag.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn seal_rtcp(&mut self, packet: &mut Vec<u8>) -> Result<(), SealError> {
        if packet.len() < 8 {
            return Err(SealError::Malformed);
        }
        if self.index >= SRTCP_ENCRYPTED - 1 {
            return Err(SealError::Exhausted);
        }
        self.index += 1;
        let word = SRTCP_ENCRYPTED | self.index;
        let ssrc = be_u32(packet, 4).ok_or(SealError::Malformed)?;
        let nonces = Nonces { ssrc, index: u64::from(self.index) };
        let tag = self
            .cipher
            .seal(nonces, packet, 8, Trailer::Index(word))
            .map_err(|_| SealError::Exhausted)?;
        let tag = &tag[..self.cipher.tag_len()];
        // The index stands behind the tag with GCM (RFC 7714 §9.3), before it otherwise.
        if matches!(self.cipher, Cipher::Gcm { .. }) {
            packet.extend_from_slice(tag);
            packet.extend_from_slice(&word.to_be_bytes());
        } else {
            packet.extend_from_slice(&word.to_be_bytes());
            packet.extend_from_slice(tag);
        }
        Ok(())
    }
}
