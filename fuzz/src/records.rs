//! Inputs that are sequences: records of `tag (1) | length (2, big-endian) | bytes`.
//!
//! A length that leads past the end is cut there, so that every input is a
//! sequence and a mutation seldom loses what follows it.

/// Iterates over `(tag, bytes)`.
pub struct Records<'a>(pub &'a [u8]);

impl<'a> Iterator for Records<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (&[tag, high, low], rest) = self.0.split_first_chunk::<3>()?;
        let len = usize::from(u16::from_be_bytes([high, low])).min(rest.len());
        let (bytes, rest) = rest.split_at(len);
        self.0 = rest;
        Some((tag, bytes))
    }
}

/// The first byte, which chooses a variant, and the rest.
pub fn choice(data: &[u8]) -> (usize, &[u8]) {
    data.split_first().map_or((0, data), |(&first, rest)| (usize::from(first), rest))
}
