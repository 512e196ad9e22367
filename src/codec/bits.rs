//! A bit reader for codec headers: most significant bit first, `None` at the end.
//!
//! Nothing here can panic or loop without bound, whatever the bytes are: they
//! come from a publisher and are not trusted.

/// Reads bits of a byte slice from the front.
#[derive(Clone, Debug)]
pub struct BitReader<'a> {
    data: &'a [u8],
    /// Bits already read.
    position: usize,
}

impl<'a> BitReader<'a> {
    /// A reader at the first bit of `data`.
    pub const fn new(data: &'a [u8]) -> Self {
        Self { data, position: 0 }
    }

    /// The next bit.
    pub fn flag(&mut self) -> Option<bool> {
        let byte = self.data.get(self.position / 8)?;
        let bit = byte >> (7 - self.position % 8) & 1;
        self.position += 1;
        Some(bit == 1)
    }

    /// The next `count` bits as a number, at most 32.
    pub fn bits(&mut self, count: u32) -> Option<u32> {
        if count > 32 {
            return None;
        }
        let mut value = 0u32;
        for _ in 0..count {
            value = value << 1 | u32::from(self.flag()?);
        }
        Some(value)
    }

    /// The next eight bits.
    pub fn byte(&mut self) -> Option<u8> {
        self.bits(8).map(|value| value as u8)
    }

    /// Passes over `count` bits.
    pub fn skip(&mut self, count: usize) -> Option<()> {
        let position = self.position.checked_add(count)?;
        if position > self.data.len().saturating_mul(8) {
            return None;
        }
        self.position = position;
        Some(())
    }

    /// Unsigned Exp-Golomb, `ue(v)` (H.264 §9.1). Values of more than 32 bits are refused.
    pub fn ue(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while !self.flag()? {
            zeros += 1;
            if zeros > 31 {
                return None;
            }
        }
        let suffix = self.bits(zeros)?;
        ((1u32 << zeros) - 1).checked_add(suffix)
    }

    /// Signed Exp-Golomb, `se(v)` (H.264 §9.1.1): 0, 1, -1, 2, -2, ...
    pub fn se(&mut self) -> Option<i32> {
        let code = i64::from(self.ue()?);
        let magnitude = (code + 1) / 2;
        i32::try_from(if code % 2 == 1 { magnitude } else { -magnitude }).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_golomb_counts_as_the_standard_does() {
        // 1 | 010 | 011 | 00100 | 00101 -> ue 0, 1, 2, 3, 4
        let bytes = [0b1010_0110, 0b0100_0010, 0b1000_0000];
        let mut reader = BitReader::new(&bytes);
        assert_eq!([reader.ue(), reader.ue(), reader.ue()], [Some(0), Some(1), Some(2)]);
        assert_eq!([reader.ue(), reader.ue()], [Some(3), Some(4)]);
        let mut reader = BitReader::new(&bytes);
        assert_eq!([reader.se(), reader.se(), reader.se()], [Some(0), Some(1), Some(-1)]);
        assert_eq!([reader.se(), reader.se()], [Some(2), Some(-2)]);
    }

    #[test]
    fn the_longest_code_is_read_and_a_longer_one_refused() {
        // 31 zeros, a one, 31 ones: 2^32 - 2, the largest value of ue(v).
        let mut bytes = [0, 0, 0, 1, 0xff, 0xff, 0xff, 0xfe];
        assert_eq!(BitReader::new(&bytes).ue(), Some(u32::MAX - 1));
        bytes[3] = 0;
        assert_eq!(BitReader::new(&bytes).ue(), None);
    }

    #[test]
    fn the_end_is_none_and_not_a_panic() {
        let mut reader = BitReader::new(&[0xff]);
        assert_eq!(reader.bits(33), None);
        assert_eq!(reader.skip(9), None);
        assert_eq!(reader.skip(usize::MAX), None);
        assert_eq!(reader.bits(8), Some(255));
        assert_eq!(reader.flag(), None);
        assert_eq!(reader.bits(0), Some(0));
    }
}
