//! The RTP header (RFC 3550 §5.1), which SRTP leaves in the clear.
//!
//! It is all that is read of most packets of the crowd: whose, which, when, the last
//! of its frame or not, and the header extensions (RFC 8285).

use crate::time::micros_from_ntp;

/// What stands in front of the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// Payload type.
    pub payload_type: u8,
    /// Marker: the last packet of a video frame.
    pub marker: bool,
    /// Sequence number.
    pub sequence: u16,
    /// Timestamp in ticks of the payload's clock.
    pub timestamp: u32,
    /// Synchronisation source.
    pub ssrc: u32,
    /// Bytes until the payload.
    pub len: usize,
    profile: u16,
    extensions: &'a [u8],
}

impl<'a> Header<'a> {
    /// Reads the header of a packet; `None` unless it is RTP and whole.
    pub fn parse(packet: &'a [u8]) -> Option<Self> {
        let (fixed, _) = packet.split_first_chunk::<12>()?;
        if fixed[0] >> 6 != 2 {
            return None;
        }
        let mut len = 12 + 4 * usize::from(fixed[0] & 0x0f);
        let (mut profile, mut extensions) = (0, &[][..]);
        if fixed[0] & 0x10 != 0 {
            let (head, _) = packet.get(len..)?.split_first_chunk::<4>()?;
            profile = u16::from_be_bytes([head[0], head[1]]);
            let size = 4 * usize::from(u16::from_be_bytes([head[2], head[3]]));
            extensions = packet.get(len + 4..len + 4 + size)?;
            len += 4 + size;
        }
        (len <= packet.len()).then_some(Self {
            payload_type: fixed[1] & 0x7f,
            marker: fixed[1] & 0x80 != 0,
            sequence: u16::from_be_bytes([fixed[2], fixed[3]]),
            timestamp: u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]),
            ssrc: u32::from_be_bytes([fixed[8], fixed[9], fixed[10], fixed[11]]),
            len,
            profile,
            extensions,
        })
    }

    /// The value of extension `id` (RFC 8285 §4.2 and §4.3).
    pub fn extension(&self, id: u8) -> Option<&'a [u8]> {
        let one_byte = self.profile == 0xbede;
        if !one_byte && self.profile & 0xfff0 != 0x1000 {
            return None;
        }
        let mut rest = self.extensions;
        while let Some((&first, after)) = rest.split_first() {
            if first == 0 {
                rest = after;
                continue;
            }
            let (found, len, body) = if one_byte {
                (first >> 4, usize::from(first & 0x0f) + 1, after)
            } else {
                let (&len, body) = after.split_first()?;
                (first, usize::from(len), body)
            };
            if one_byte && found == 15 {
                return None;
            }
            let value = body.get(..len)?;
            if found == id {
                return Some(value);
            }
            rest = body.get(len..)?;
        }
        None
    }

    /// The absolute capture time in extension `id`, as UTC microseconds since the
    /// Unix epoch.
    pub fn capture_time(&self, id: Option<u8>) -> Option<i64> {
        let (ntp, _) = self.extension(id?)?.split_first_chunk::<8>()?;
        Some(micros_from_ntp(u64::from_be_bytes(*ntp)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::ntp_from_micros;

    fn packet(profile: u16, extensions: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x90, 0x80 | 102, 1, 2, 0, 0, 0, 9, 0, 0, 0, 7];
        packet.extend(profile.to_be_bytes());
        packet.extend((extensions.len() as u16 / 4).to_be_bytes());
        packet.extend(extensions);
        packet.extend([0xaa; 20]);
        packet
    }

    #[test]
    fn fields_and_extensions_of_both_forms_are_read() {
        let micros = 1_700_000_000_250_000;
        let mut one = vec![0x10, 0xff, 0, 0x37];
        one.extend(ntp_from_micros(micros).to_be_bytes());
        one.resize(12, 0);
        let bytes = packet(0xbede, &one);
        let header = Header::parse(&bytes).unwrap();
        assert_eq!((header.payload_type, header.marker, header.sequence), (102, true, 258));
        assert_eq!((header.timestamp, header.ssrc, header.len), (9, 7, 28));
        assert_eq!(header.extension(1), Some(&[0xff][..]));
        assert!((header.capture_time(Some(3)).unwrap() - micros).abs() <= 1);
        assert_eq!(header.capture_time(Some(4)), None);

        let two = packet(0x1000, &[5, 2, 8, 9, 0, 3, 0, 0]);
        let header = Header::parse(&two).unwrap();
        assert_eq!((header.extension(5), header.extension(3)), (Some(&[8, 9][..]), Some(&[][..])));
    }

    #[test]
    fn what_is_cut_short_is_no_header() {
        let whole = packet(0xbede, &[0x10, 0xff, 0, 0]);
        for len in 0..20 {
            assert_eq!(Header::parse(&whole[..len]), None, "{len}");
        }
        let bytes = packet(0xbede, &[0x3f, 1, 2, 3]);
        assert_eq!(Header::parse(&bytes).unwrap().extension(3), None, "longer than the block");
        assert_eq!(Header::parse(&[0x40; 12]), None);
    }
}
