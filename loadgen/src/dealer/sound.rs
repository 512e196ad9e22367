//! What the table sounds like: room noise, the ball's ticks, a chime at each phase.
//!
//! Deterministic from the table's name and UTC; samples are 48 kHz interleaved
//! stereo `f32`. Noise is pinked by Kellet's three-pole approximation.

use std::f32::consts::TAU;

use super::rounds::{Moment, Phase, hash, table_seed};

/// Samples per second and channel.
pub const RATE: usize = 48_000;
/// Length of a block in milliseconds: one Opus frame.
pub const BLOCK_MS: i64 = 20;
/// Samples per channel in a block.
pub const BLOCK: usize = RATE / 1000 * BLOCK_MS as usize;

const NOISE_LEVEL: f32 = 0.012;
const TICK_LEVEL: f32 = 0.10;
const CHIME_LEVEL: f32 = 0.11;

/// A decaying tone.
struct Voice {
    /// Samples until it starts.
    delay: usize,
    phase: f32,
    /// Phase advance a sample, in turns.
    step: f32,
    level: f32,
    /// Factor on the level per sample.
    decay: f32,
    /// -1 left to 1 right.
    pan: f32,
}

/// Voices sounding at once; a tick beyond it is not heard.
const MAX_VOICES: usize = 24;

/// The sound of one table.
pub struct Sound {
    seed: u64,
    noise: u64,
    pink: [[f32; 3]; 2],
    pocket: Option<usize>,
    phase: Option<Phase>,
    voices: Vec<Voice>,
}

impl Sound {
    /// The sound of `table`.
    pub fn new(table: &str) -> Self {
        let seed = table_seed(table);
        let voices = Vec::with_capacity(MAX_VOICES);
        Self { seed, noise: hash(seed), pink: [[0.0; 3]; 2], pocket: None, phase: None, voices }
    }

    /// Fills a block of [`BLOCK`] stereo samples that starts at `utc_millis`.
    pub fn fill(&mut self, utc_millis: i64, out: &mut [f32]) {
        for ms in 0..BLOCK_MS {
            self.listen(Moment::at(self.seed, utc_millis + ms), ms as usize * RATE / 1000);
        }
        for pair in out.chunks_exact_mut(2) {
            let (mut left, mut right) = (self.noise(0), self.noise(1));
            for voice in &mut self.voices {
                if voice.delay > 0 {
                    voice.delay -= 1;
                    continue;
                }
                let sample = (voice.phase * TAU).sin() * voice.level;
                voice.phase = (voice.phase + voice.step).fract();
                voice.level *= voice.decay;
                left += sample * (1.0 - voice.pan.max(0.0));
                right += sample * (1.0 + voice.pan.min(0.0));
            }
            if let [l, r] = pair {
                (*l, *r) = (left.clamp(-0.9, 0.9), right.clamp(-0.9, 0.9));
            }
        }
        self.voices.retain(|voice| voice.level > 1e-4);
    }

    /// Starts what begins at this moment.
    fn listen(&mut self, moment: Moment, delay: usize) {
        let pocket = moment.pocket_under_ball();
        let ball = moment.ball().filter(|ball| ball.flying);
        if let (Some(before), Some(now), Some(ball)) = (self.pocket, pocket, ball) {
            if before != now {
                // Faint on the track, clear when it hits the frets.
                let level = TICK_LEVEL * (0.12 + 0.88 * ball.depth as f32);
                let tone = 2_400.0 + (now % 5) as f32 * 110.0;
                self.play(delay, tone, level, 0.006, ball.angle.sin() as f32 * 0.6);
            }
        }
        self.pocket = pocket;
        let phase = moment.phase();
        if self.phase.replace(phase).is_some_and(|before| before != phase) {
            let notes: &[f32] = match phase {
                Phase::Open => &[523.25, 659.25],
                Phase::Closed => &[392.0],
                Phase::Result => &[523.25, 659.25, 783.99],
                Phase::Settled => &[],
            };
            for (index, &tone) in notes.iter().enumerate() {
                self.play(delay + index * RATE / 8, tone, CHIME_LEVEL, 0.28, 0.0);
                self.play(delay + index * RATE / 8, tone * 2.76, CHIME_LEVEL / 4.0, 0.12, 0.0);
            }
        }
    }

    /// Adds a tone of `hertz` that falls to 1/e in `seconds`.
    fn play(&mut self, delay: usize, hertz: f32, level: f32, seconds: f32, pan: f32) {
        if self.voices.len() < MAX_VOICES {
            let decay = (-1.0 / (seconds * RATE as f32)).exp();
            let step = hertz / RATE as f32;
            self.voices.push(Voice { delay, phase: 0.0, step, level, decay, pan });
        }
    }

    fn noise(&mut self, channel: usize) -> f32 {
        // Xorshift64: cheap, and good enough to hear.
        self.noise ^= self.noise << 13;
        self.noise ^= self.noise >> 7;
        self.noise ^= self.noise << 17;
        let white = (self.noise >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
        let [a, b, c] = &mut self.pink[channel & 1];
        *a = 0.997_65 * *a + white * 0.099_046;
        *b = 0.963 * *b + white * 0.296_516_4;
        *c = 0.57 * *c + white * 1.052_691_3;
        (*a + *b + *c + white * 0.1848) * NOISE_LEVEL
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dealer::rounds::{CLOSE_MS, ROUND_MS};

    fn energy(start_ms: i64, blocks: i64) -> f32 {
        let mut sound = Sound::new("demo");
        let mut block = [0.0; BLOCK * 2];
        let mut sum = 0.0;
        for index in 0..blocks {
            sound.fill(start_ms + index * BLOCK_MS, &mut block);
            assert!(block.iter().all(|s| s.abs() <= 0.9));
            sum += block.iter().map(|s| s * s).sum::<f32>();
        }
        sum / blocks as f32
    }

    #[test]
    fn a_phase_change_is_heard_over_the_room() {
        let round = 1_700_000_000_000 / ROUND_MS * ROUND_MS;
        let (room, chime) = (energy(round + 1_000, 20), energy(round + CLOSE_MS - 40, 20));
        assert!(room > 0.0 && chime > 4.0 * room, "room {room}, chime {chime}");
    }

    #[test]
    fn the_same_moment_sounds_the_same() {
        assert_eq!(energy(1_700_000_000_000, 50), energy(1_700_000_000_000, 50));
    }
}
