//! Opus: how long a packet plays (RFC 6716 §3.1, §3.2).

/// A packet holds at most 120 ms (RFC 6716 §3.2.5, R5), in samples of 48 kHz.
const MAX_SAMPLES: u32 = 5_760;

/// Duration of an Opus packet in samples of 48 kHz; `None` when it is malformed.
pub fn duration(packet: &[u8]) -> Option<u32> {
    let toc = *packet.first()?;
    let per_frame = frame_samples(toc >> 3);
    let frames = match toc & 3 {
        0 => 1,
        1 | 2 => 2,
        _ => u32::from(packet.get(1)? & 0x3f),
    };
    let samples = per_frame * frames;
    (1..=MAX_SAMPLES).contains(&samples).then_some(samples)
}

/// Samples of one frame of the configuration (RFC 6716 §3.1, table 2).
const fn frame_samples(config: u8) -> u32 {
    let step = (config & 3) as u32;
    match config {
        // SILK: 10, 20, 40, 60 ms.
        0..=11 => [480, 960, 1920, 2880][step as usize],
        // Hybrid: 10, 20 ms.
        12..=15 => 480 << (step & 1),
        // CELT: 2.5, 5, 10, 20 ms.
        _ => 120 << step,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_of_the_three_modes() {
        let milliseconds_times_ten = |config: u8| duration(&[config << 3]).unwrap() / 48 * 10;
        assert_eq!([0, 1, 2, 3].map(milliseconds_times_ten), [100, 200, 400, 600]);
        assert_eq!([12, 13, 14, 15].map(milliseconds_times_ten), [100, 200, 100, 200]);
        assert_eq!(duration(&[16 << 3]), Some(120));
        assert_eq!([29, 30, 31].map(milliseconds_times_ten), [50, 100, 200]);
    }

    #[test]
    fn frame_counts_and_their_limit() {
        // What libopus sends by default: CELT or hybrid, 20 ms, one frame.
        assert_eq!(duration(&[0x78, 1, 2]), Some(960));
        assert_eq!(duration(&[0x79]), Some(1920));
        assert_eq!(duration(&[0x7b, 3]), Some(2880));
        assert_eq!(duration(&[0x7b]), None);
        assert_eq!(duration(&[0x7b, 0]), None);
        assert_eq!(duration(&[0x7b, 7]), None, "140 ms is over the limit of 120 ms");
        assert_eq!(duration(&[]), None);
    }
}
