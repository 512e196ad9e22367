//! Sequence numbers and timestamps: comparison of the short ones (RFC 1982),
//! and their extension to 64 bits, in which nothing ever wraps.

/// True when sequence number `a` comes after `b` (RFC 1982 §3.2). Numbers
/// exactly half the space apart count as not newer in either direction.
pub const fn is_newer(a: u16, b: u16) -> bool {
    a != b && a.wrapping_sub(b) < 0x8000
}

/// True when timestamp `a` comes after `b` (RFC 1982 §3.2).
pub const fn is_newer_timestamp(a: u32, b: u32) -> bool {
    a != b && a.wrapping_sub(b) < 0x8000_0000
}

/// Extends 16-bit sequence numbers to 64 bits.
///
/// A number is taken as the one closest to the highest so far, so packets may
/// come up to 32768 out of order. The first is placed a whole cycle above zero:
/// what is older than it still has a place.
#[derive(Clone, Copy, Debug, Default)]
pub struct SequenceUnwrapper {
    highest: Option<u64>,
}

impl SequenceUnwrapper {
    /// The extended number, which becomes the highest if it is.
    pub fn unwrap(&mut self, sequence: u16) -> u64 {
        let extended = self.peek(sequence);
        self.highest = self.highest.max(Some(extended));
        extended
    }

    /// The extended number, with nothing changed: for packets not yet authenticated.
    pub fn peek(&self, sequence: u16) -> u64 {
        match self.highest {
            None => (1 << 16) + u64::from(sequence),
            Some(highest) => {
                let distance = sequence.wrapping_sub(highest as u16) as i16;
                highest.saturating_add_signed(i64::from(distance))
            }
        }
    }

    /// The highest extended number so far.
    pub const fn highest(&self) -> Option<u64> {
        self.highest
    }
}

/// Extends 32-bit RTP timestamps to 64 bits, by the same rules as [`SequenceUnwrapper`].
#[derive(Clone, Copy, Debug, Default)]
pub struct TimestampUnwrapper {
    highest: Option<u64>,
}

impl TimestampUnwrapper {
    /// The extended timestamp, which becomes the highest if it is.
    pub fn unwrap(&mut self, timestamp: u32) -> u64 {
        let extended = self.peek(timestamp);
        self.highest = self.highest.max(Some(extended));
        extended
    }

    /// The extended timestamp, with nothing changed.
    pub fn peek(&self, timestamp: u32) -> u64 {
        match self.highest {
            None => (1 << 32) + u64::from(timestamp),
            Some(highest) => {
                let distance = timestamp.wrapping_sub(highest as u32) as i32;
                highest.saturating_add_signed(i64::from(distance))
            }
        }
    }

    /// The highest extended timestamp so far.
    pub const fn highest(&self) -> Option<u64> {
        self.highest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comparison_works_across_the_wrap() {
        assert!(is_newer(1, 0) && is_newer(0, 65_535) && is_newer(0x7fff, 0));
        assert!(!is_newer(0, 0) && !is_newer(65_535, 0) && !is_newer(0x8000, 0));
        assert!(is_newer_timestamp(5, u32::MAX - 5) && !is_newer_timestamp(u32::MAX - 5, 5));
        assert!(!is_newer_timestamp(7, 7));
    }

    #[test]
    fn numbers_go_on_over_many_cycles_in_spite_of_reordering() {
        let mut unwrapper = SequenceUnwrapper::default();
        let first = unwrapper.unwrap(65_000);
        for step in 1..200_000u64 {
            // Each group of four comes in the order 3, 0, 2, 1.
            let order = [3, 0, 2, 1][(step % 4) as usize];
            let expected = first + step / 4 * 4 + order;
            assert_eq!(unwrapper.unwrap(expected as u16), expected);
        }
        assert_eq!(unwrapper.highest(), Some(first + 199_999));
    }

    #[test]
    fn what_is_older_than_the_first_has_a_place_below_it() {
        let mut unwrapper = SequenceUnwrapper::default();
        let first = unwrapper.unwrap(0);
        assert_eq!(unwrapper.unwrap(0x8000), first - 0x8000);
        assert_eq!(unwrapper.unwrap(65_535), first - 1);
        assert_eq!(unwrapper.highest(), Some(first));

        let mut unwrapper = TimestampUnwrapper::default();
        let first = unwrapper.unwrap(10);
        assert_eq!(unwrapper.unwrap(u32::MAX), first - 11);
        assert_eq!(unwrapper.unwrap(3_010), first + 3_000);
    }

    #[test]
    fn peek_changes_nothing() {
        let mut unwrapper = SequenceUnwrapper::default();
        let first = unwrapper.unwrap(100);
        assert_eq!(unwrapper.peek(20_000), first + 19_900);
        assert_eq!(unwrapper.highest(), Some(first));
        let mut unwrapper = TimestampUnwrapper::default();
        let first = unwrapper.unwrap(u32::MAX);
        assert_eq!(unwrapper.peek(0), first + 1);
        assert_eq!(unwrapper.highest(), Some(first));
    }
}
