//! Values of the RTP header extensions that the gateway reads and writes. All
//! readers take the value as [`RtpHeader::extension`](super::RtpHeader::extension)
//! gives it; `None` means that it is malformed and to be ignored.

use crate::time::Utc;

/// Longest mid or rid that is accepted, in bytes: browsers use at most three.
pub const MAX_TEXT: usize = 32;

/// When a frame was captured, `abs-capture-time`
/// (`http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbsCaptureTime {
    /// Capture time on the clock of the capturing system.
    pub capture: Utc,
    /// The sender's estimate of the capture clock's offset from its own clock,
    /// in microseconds; only in the 16-byte form.
    pub clock_offset_micros: Option<i64>,
}

impl AbsCaptureTime {
    /// Reads the form of 8 or of 16 bytes.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let (ntp, offset) = value.split_first_chunk::<8>()?;
        let clock_offset_micros = match offset.len() {
            0 => None,
            // Signed 32.32 fixed point seconds.
            8 => {
                let fixed = i64::from_be_bytes(offset.try_into().ok()?);
                Some(((i128::from(fixed) * 1_000_000 + (1 << 31)) >> 32) as i64)
            }
            _ => return None,
        };
        Some(Self { capture: Utc::from_ntp(u64::from_be_bytes(*ntp)), clock_offset_micros })
    }

    /// The form of 8 bytes: for a sender whose clock is the capture clock, or
    /// that does not know the offset.
    pub fn write_short(capture: Utc) -> [u8; 8] {
        capture.to_ntp().to_be_bytes()
    }

    /// The form of 16 bytes; an unknown offset is written as zero.
    pub fn write(&self) -> [u8; 16] {
        let fixed = (i128::from(self.clock_offset_micros.unwrap_or(0)) << 32) / 1_000_000;
        let mut out = [0; 16];
        out[..8].copy_from_slice(&Self::write_short(self.capture));
        out[8..].copy_from_slice(&(fixed as i64).to_be_bytes());
        out
    }
}

/// When a packet was sent, `abs-send-time`: seconds modulo 64 as 6.18 fixed
/// point (`http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbsSendTime(u32);

impl AbsSendTime {
    /// The value for a packet sent at `now`.
    pub fn at(now: Utc) -> Self {
        Self((now.to_ntp() >> 14) as u32 & 0x00ff_ffff)
    }

    /// Reads three bytes.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let [a, b, c] = *value.as_array::<3>()?;
        Some(Self(u32::from_be_bytes([0, a, b, c])))
    }

    /// As three bytes.
    pub const fn write(self) -> [u8; 3] {
        let [_, a, b, c] = self.0.to_be_bytes();
        [a, b, c]
    }

    /// Microseconds from `earlier` to `self`, over a wrap where it is nearer: ±32 s.
    pub const fn micros_since(self, earlier: Self) -> i64 {
        // 24 bits of difference, their sign moved to bit 31 and back.
        let ticks = ((self.0.wrapping_sub(earlier.0) << 8) as i32 >> 8) as i64;
        (ticks * 1_000_000) >> 18
    }
}

/// Reads a transport-wide sequence number (draft-holmer-rmcat-transport-wide-cc-extensions-01 §2).
pub fn parse_transport_sequence(value: &[u8]) -> Option<u16> {
    value.as_array::<2>().map(|bytes| u16::from_be_bytes(*bytes))
}

/// Writes a transport-wide sequence number.
pub const fn write_transport_sequence(sequence: u16) -> [u8; 2] {
    sequence.to_be_bytes()
}

/// Limits of the receiver's playout delay
/// (`http://www.webrtc.org/experiments/rtp-hdrext/playout-delay`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlayoutDelay {
    min: u16,
    max: u16,
}

impl PlayoutDelay {
    /// Largest delay that can be written, in milliseconds.
    pub const MAX_MILLIS: u32 = 40_950;

    /// From milliseconds, in steps of ten rounded down; larger values are cut to
    /// [`Self::MAX_MILLIS`] and a minimum above the maximum to the maximum.
    pub const fn from_millis(min: u32, max: u32) -> Self {
        const fn steps(millis: u32) -> u16 {
            if millis > PlayoutDelay::MAX_MILLIS { 0x0fff } else { (millis / 10) as u16 }
        }
        let (min, max) = (steps(min), steps(max));
        Self { min: if min > max { max } else { min }, max }
    }

    /// Shortest delay in milliseconds.
    pub const fn min_millis(self) -> u32 {
        self.min as u32 * 10
    }

    /// Longest delay in milliseconds.
    pub const fn max_millis(self) -> u32 {
        self.max as u32 * 10
    }

    /// Reads three bytes: two numbers of twelve bits.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let [a, b, c] = *value.as_array::<3>()?;
        let min = u16::from(a) << 4 | u16::from(b) >> 4;
        let max = u16::from(b & 0x0f) << 8 | u16::from(c);
        (min <= max).then_some(Self { min, max })
    }

    /// As three bytes.
    pub const fn write(self) -> [u8; 3] {
        [(self.min >> 4) as u8, (self.min << 4) as u8 | (self.max >> 8) as u8, self.max as u8]
    }
}

/// Reads a mid: a token of SDP (RFC 9143 §15, RFC 8866 §9).
pub fn parse_mid(value: &[u8]) -> Option<&str> {
    parse_text(value, |byte| byte.is_ascii_graphic() && !br#""(),/:;<=>?@[\]"#.contains(&byte))
}

/// Reads a rid or repaired rid (RFC 8851 §10: letters, digits, `-` and `_`).
pub fn parse_rid(value: &[u8]) -> Option<&str> {
    parse_text(value, |byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

fn parse_text(value: &[u8], allowed: impl Fn(u8) -> bool) -> Option<&str> {
    let in_bounds = (1..=MAX_TEXT).contains(&value.len());
    if !in_bounds || !value.iter().all(|&byte| allowed(byte)) {
        return None;
    }
    std::str::from_utf8(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Utc = Utc::from_micros(1_700_000_000_123_457);

    #[test]
    fn capture_time_keeps_its_microsecond_and_its_offset() {
        let short = AbsCaptureTime::write_short(NOW);
        assert_eq!(
            AbsCaptureTime::parse(&short),
            Some(AbsCaptureTime { capture: NOW, clock_offset_micros: None })
        );
        for offset in [0, 1, -1, 1_500_000, -37_000_123] {
            let time = AbsCaptureTime { capture: NOW, clock_offset_micros: Some(offset) };
            assert_eq!(AbsCaptureTime::parse(&time.write()), Some(time));
        }
        let hostile = AbsCaptureTime::parse(&[0xff; 16]).unwrap();
        assert_eq!(hostile.clock_offset_micros, Some(0));
        for len in (0..32).filter(|len| *len != 8 && *len != 16) {
            assert_eq!(AbsCaptureTime::parse(&vec![0; len]), None);
        }
    }

    #[test]
    fn send_time_counts_over_its_wrap_of_64_seconds() {
        let start = AbsSendTime::at(NOW);
        assert_eq!(AbsSendTime::parse(&start.write()), Some(start));
        for millis in [0i64, 1, 5_000, 31_000, -31_000, -1] {
            let then = AbsSendTime::at(NOW.offset_micros(millis * 1000));
            let error = then.micros_since(start) - millis * 1000;
            assert!(error.abs() <= 8, "{millis} ms came out {error} us off");
        }
        assert_eq!(AbsSendTime::parse(&[1, 2]), None);
    }

    #[test]
    fn playout_delay_is_two_numbers_of_twelve_bits() {
        let delay = PlayoutDelay::from_millis(0, 150);
        assert_eq!(delay.write(), [0, 0, 15]);
        let delay = PlayoutDelay::from_millis(12_340, 50_000);
        assert_eq!((delay.min_millis(), delay.max_millis()), (12_340, 40_950));
        assert_eq!(PlayoutDelay::parse(&delay.write()), Some(delay));
        assert_eq!(PlayoutDelay::from_millis(200, 100).min_millis(), 100);
        assert_eq!(PlayoutDelay::parse(&[0xff, 0xf0, 0]), None, "minimum above maximum");
    }

    #[test]
    fn transport_sequence_is_two_bytes() {
        assert_eq!(parse_transport_sequence(&write_transport_sequence(0xabcd)), Some(0xabcd));
        assert_eq!(parse_transport_sequence(&[1, 2, 3]), None);
    }

    #[test]
    fn names_are_bounded_ascii() {
        assert_eq!(parse_mid(b"0"), Some("0"));
        assert_eq!(parse_rid(b"hi_1-a"), Some("hi_1-a"));
        for bad in [&b""[..], b"a b", b"a;b", "é".as_bytes(), b"a\0", &[b'a'; MAX_TEXT + 1]] {
            assert_eq!(parse_mid(bad), None);
            assert_eq!(parse_rid(bad), None);
        }
        assert_eq!((parse_mid(b"a.b"), parse_rid(b"a.b")), (Some("a.b"), None));
    }
}
