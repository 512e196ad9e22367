//! What H.264 and H.265 share: NAL units after four-byte lengths (ISO/IEC
//! 14496-15), and the emulation prevention of their payloads (H.264 §7.4.1,
//! H.265 §7.4.2).

/// A raw byte sequence payload longer than this is cut: no parameter set that
/// an encoder writes comes near it, and the parsers then report what is missing.
const MAX_RBSP: usize = 4096;

/// The NAL units of a frame's data, each stored after its length in four bytes
/// big-endian. Stops at the first length that does not fit; empty units are skipped.
pub fn units(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = data;
    std::iter::from_fn(move || {
        loop {
            let (length, after) = rest.split_first_chunk::<4>()?;
            let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
            let (unit, next) = after.split_at_checked(length)?;
            rest = next;
            if !unit.is_empty() {
                return Some(unit);
            }
        }
    })
}

/// The payload of a NAL unit without emulation prevention: each `00 00 03`
/// stands for `00 00`. `unit` starts after the NAL unit header.
pub fn rbsp(unit: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(unit.len().min(MAX_RBSP));
    let mut zeros = 0;
    for &byte in unit.iter().take(MAX_RBSP) {
        if zeros >= 2 && byte == 3 {
            zeros = 0;
            continue;
        }
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        out.push(byte);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn emulation_prevention_is_undone() {
        assert_eq!(rbsp(&[0, 0, 3, 1, 0, 0, 3, 0, 0, 3]), [0, 0, 1, 0, 0, 0, 0]);
        assert_eq!(rbsp(&[0, 3, 0, 0, 0, 3]), [0, 3, 0, 0, 0]);
        assert_eq!(rbsp(&vec![7; MAX_RBSP + 9]).len(), MAX_RBSP);
    }

    #[test]
    fn units_stop_at_a_length_that_does_not_fit() {
        let data = [0, 0, 0, 2, 1, 2, 0, 0, 0, 0, 0, 0, 0, 1, 9, 0, 0, 0, 5, 1, 1];
        assert_eq!(units(&data).collect::<Vec<_>>(), [&[1u8, 2][..], &[9]]);
        for end in 0..data.len() {
            assert!(units(&data[..end]).count() <= 2);
        }
    }
}
