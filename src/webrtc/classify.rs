//! What a datagram on the media port is, by its first bytes (RFC 7983 §7, RFC 5761 §4).

/// Shortest STUN message: its header (RFC 8489 §5).
const STUN_MIN: usize = 20;
/// Shortest DTLS record: its header (RFC 6347 §4.1).
const DTLS_MIN: usize = 13;
/// Shortest SRTP packet: RTP header and the shortest tag in use (10 bytes).
const RTP_MIN: usize = 12 + 10;
/// Shortest SRTCP packet: RTCP header with SSRC, index and the shortest tag.
const RTCP_MIN: usize = 8 + 4 + 10;

/// The protocols that share the media port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// STUN (RFC 8489).
    Stun,
    /// DTLS (RFC 6347).
    Dtls,
    /// SRTP (RFC 3711).
    Rtp,
    /// SRTCP (RFC 3711).
    Rtcp,
}

/// Tells the protocol of a datagram; `None` for what cannot be any of them.
pub fn classify(datagram: &[u8]) -> Option<Class> {
    let (&first, len) = (datagram.first()?, datagram.len());
    match first {
        0..=3 if len >= STUN_MIN => Some(Class::Stun),
        20..=63 if len >= DTLS_MIN => Some(Class::Dtls),
        // RTCP packet types 192-223 collide with no RTP payload type in use (RFC 5761 §4).
        128..=191 if (192..=223).contains(datagram.get(1)?) => {
            (len >= RTCP_MIN).then_some(Class::Rtcp)
        }
        128..=191 if len >= RTP_MIN => Some(Class::Rtp),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn datagram(first: u8, second: u8, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        bytes[0] = first;
        bytes[1] = second;
        bytes
    }

    #[test]
    fn tells_the_protocols_apart() {
        assert_eq!(classify(&datagram(0, 1, 20)), Some(Class::Stun));
        assert_eq!(classify(&datagram(22, 254, 13)), Some(Class::Dtls));
        assert_eq!(classify(&datagram(0x80, 96, 40)), Some(Class::Rtp));
        assert_eq!(classify(&datagram(0x80, 0x80 | 96, 40)), Some(Class::Rtp));
        assert_eq!(classify(&datagram(0x81, 201, 40)), Some(Class::Rtcp));
    }

    #[test]
    fn refuses_the_short_and_the_foreign() {
        assert_eq!(classify(&[]), None);
        assert_eq!(classify(&[128]), None);
        assert_eq!(classify(&datagram(0, 1, 19)), None);
        assert_eq!(classify(&datagram(22, 254, 12)), None);
        assert_eq!(classify(&datagram(0x80, 96, 21)), None);
        assert_eq!(classify(&datagram(0x80, 200, 21)), None);
        for first in [4, 19, 64, 127, 192, 255] {
            assert_eq!(classify(&datagram(first, 0, 100)), None);
        }
    }
}
