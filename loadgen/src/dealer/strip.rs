//! The machine-readable capture strip at the bottom of the picture.
//!
//! Key idea: the moment a frame was captured travels *in the picture*, so that a
//! test that sees the picture (a decoder, a screenshot of a browser) can tell
//! glass-to-glass latency without trusting any protocol in between.
//!
//! Forty cells across the full width, height `1/22.5` of the picture (32x32 px at
//! 1280x720): black, white, 36 data bits (most significant first, white = 1),
//! white, black. The data are the UTC milliseconds modulo 2^32 of the capture
//! and, in the low four bits, the XOR of that value's eight nibbles.

/// Cells across the picture.
pub const CELLS: usize = 40;
/// Data bits carried between the two pairs of sync cells.
const BITS: usize = 36;
/// Luma of a white and a black cell (BT.709 limited range).
const WHITE: u8 = 235;
const BLACK: u8 = 16;
/// Luma at and above which a cell reads as white.
const THRESHOLD: u32 = 128;

/// Height of the strip in pixels for a picture `height` pixels high (32 at 720).
pub fn height(height: usize) -> usize {
    height * 2 / 45
}

/// The 36 bits for a capture time: 32 bits of milliseconds, 4 bits of checksum.
pub fn word(utc_millis: i64) -> u64 {
    let value = utc_millis.rem_euclid(1 << 32) as u32;
    (u64::from(value) << 4) | u64::from(checksum(value))
}

/// XOR of the eight nibbles of `value`.
fn checksum(value: u32) -> u8 {
    let folded = value ^ (value >> 16);
    let folded = folded ^ (folded >> 8);
    ((folded ^ (folded >> 4)) & 0xf) as u8
}

/// Whether cell `index` is white for a word of 36 bits.
fn cell_is_white(word: u64, index: usize) -> bool {
    match index {
        1 | 38 => true,
        2..=37 => word >> (BITS - 1 - (index - 2)) & 1 == 1,
        _ => false,
    }
}

/// Draws the strip into a luma plane of `width` x `height` pixels, rows `stride`
/// bytes apart. The chroma below it must be neutral (128); this never changes,
/// so the picture sets it once. A plane that is too small is left as it is.
pub fn encode(luma: &mut [u8], stride: usize, width: usize, rows: usize, utc_millis: i64) {
    let word = word(utc_millis);
    if width < CELLS || stride < width {
        return;
    }
    let first = rows - height(rows).min(rows);
    let Some(mut lines) = luma.get_mut(first * stride..).filter(|l| !l.is_empty()) else { return };
    if lines.len() < width {
        return;
    }
    let mut top = [BLACK; CELLS];
    for (index, cell) in top.iter_mut().enumerate() {
        *cell = if cell_is_white(word, index) { WHITE } else { BLACK };
    }
    for _ in first..rows {
        if lines.len() < width {
            break;
        }
        for (index, &cell) in top.iter().enumerate() {
            lines[index * width / CELLS..(index + 1) * width / CELLS].fill(cell);
        }
        let step = stride.min(lines.len());
        lines = &mut lines[step..];
    }
}

/// Reads the strip of a luma plane (`width` x `rows` pixels, rows `stride` bytes
/// apart). Returns the UTC milliseconds modulo 2^32, or `None` when the sync
/// cells or the checksum do not fit: a torn, scaled or foreign picture.
pub fn decode(luma: &[u8], stride: usize, width: usize, rows: usize) -> Option<u32> {
    if width < CELLS || stride < width || rows < 23 {
        return None;
    }
    let mut word = 0u64;
    for index in 0..CELLS {
        let white = cell_luma(luma, stride, width, rows, index)? >= THRESHOLD;
        match index {
            2..=37 => word = (word << 1) | u64::from(white),
            _ if white != cell_is_white(0, index) => return None,
            _ => {}
        }
    }
    let value = (word >> 4) as u32;
    (u64::from(checksum(value)) == word & 0xf).then_some(value)
}

/// Mean luma of a block at the centre of a cell: 8x8 px at 1280x720, a quarter
/// of the cell at any size.
fn cell_luma(luma: &[u8], stride: usize, width: usize, rows: usize, cell: usize) -> Option<u32> {
    let side = (width / CELLS / 4).max(1);
    let left = (2 * cell + 1) * width / (2 * CELLS) - side / 2;
    let top = rows - height(rows).div_ceil(2) - side / 2;
    let mut sum = 0u32;
    for row in top..top + side {
        let at = row * stride + left;
        sum += luma.get(at..at + side)?.iter().map(|&y| u32::from(y)).sum::<u32>();
    }
    Some(sum / (side * side) as u32)
}

/// Milliseconds from a capture stamp (modulo 2^32) to `now_millis`, taking the
/// nearest turn of the 49-day counter; negative when the stamp is ahead.
pub fn age_millis(stamp: u32, now_millis: i64) -> i32 {
    (now_millis.rem_euclid(1 << 32) as u32).wrapping_sub(stamp) as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn painted(width: usize, rows: usize, millis: i64) -> Vec<u8> {
        let mut luma = vec![90; width * rows];
        encode(&mut luma, width, width, rows, millis);
        luma
    }

    #[test]
    fn what_is_encoded_is_decoded_at_any_size() {
        for (width, rows) in [(1280, 720), (640, 360), (1920, 1080), (960, 540), (320, 180)] {
            for millis in [0, 1, 1_700_000_000_123, i64::from(u32::MAX), 0x1_2345_6789] {
                let luma = painted(width, rows, millis);
                let want = millis as u64 as u32;
                assert_eq!(decode(&luma, width, width, rows), Some(want), "{width}x{rows}");
            }
        }
    }

    #[test]
    fn the_strip_is_thirty_two_pixels_high_at_720p() {
        let luma = painted(1280, 720, 0);
        assert_eq!(height(720), 32);
        assert_eq!(luma[687 * 1280 + 40], 90);
        assert_eq!(
            (luma[688 * 1280], luma[688 * 1280 + 32], luma[719 * 1280 + 32]),
            (16, 235, 235)
        );
    }

    #[test]
    fn the_word_layout_is_msb_first_with_a_nibble_checksum() {
        assert_eq!(word(0x1234_5678), 0x1234_5678_8);
        let luma = painted(1280, 720, 0x8000_0000);
        let cell = |i: usize| luma[700 * 1280 + i * 32 + 16];
        assert_eq!(cell(2), 235, "bit 35 is the first data cell");
        assert_eq!((cell(3), cell(34), cell(38), cell(39)), (16, 235, 235, 16));
    }

    #[test]
    fn a_flipped_bit_or_a_missing_sync_is_refused() {
        let mut luma = painted(1280, 720, 1_700_000_000_123);
        for row in 688..720 {
            let cell = &mut luma[row * 1280 + 10 * 32..row * 1280 + 11 * 32];
            cell.iter_mut().for_each(|y| *y = 251 - *y);
        }
        assert_eq!(decode(&luma, 1280, 1280, 720), None);
        assert_eq!(decode(&vec![90; 1280 * 720], 1280, 1280, 720), None);
        assert_eq!(decode(&[], 1280, 1280, 720), None);
    }

    #[test]
    fn age_survives_the_turn_of_the_counter() {
        assert_eq!(age_millis(u32::MAX, 1 << 32), 1);
        assert_eq!(age_millis(5, (7 << 32) + 2), -3);
    }
}
