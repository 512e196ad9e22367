//! SRTP and SRTCP (RFC 3711) with the two profiles that browsers offer:
//! AEAD_AES_128_GCM (RFC 7714), which is five times cheaper and preferred, and
//! AES128_CM_HMAC_SHA1_80 (RFC 5764 §4.1.2).
//!
//! Sealing and opening happen in place, in the caller's buffer, without
//! allocation. A stream's state is made only for packets that authenticated, so
//! that forged SSRCs cost no memory.

mod cipher;
mod keys;
mod open;
mod replay;
mod seal;

pub use keys::{KeyingMaterial, Profile};
pub use open::{OpenError, Opener};
pub use seal::{RtcpSealer, SealError, Sealer};

/// Bytes that sealing adds to an RTP packet at most (the GCM tag).
pub const MAX_RTP_OVERHEAD: usize = 16;
/// Bytes that sealing adds to an RTCP packet at most (index and GCM tag).
pub const MAX_RTCP_OVERHEAD: usize = 4 + 16;

/// Length of an RTP packet's header with CSRCs and extension (RFC 3550 §5.1), or
/// `None` when the packet is shorter than it says.
fn rtp_header_len(packet: &[u8]) -> Option<usize> {
    let first = *packet.first()?;
    let fixed = 12 + 4 * usize::from(first & 0x0f);
    let has_extension = first & 0x10 != 0;
    let len = if has_extension {
        let words = packet.get(fixed + 2..fixed + 4)?;
        fixed + 4 + 4 * usize::from(u16::from_be_bytes([words[0], words[1]]))
    } else {
        fixed
    };
    (len <= packet.len()).then_some(len)
}

/// The big-endian `u32` at `at`; `None` past the end.
fn be_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests;
