//! The test pattern: a moving texture encoded once to a bit rate, to be played in a
//! loop by any number of publishers for next to no CPU.
//!
//! One group of pictures is the whole clip, so each turn starts with a keyframe, and a
//! request for one starts the next turn at once. Nothing in the picture tells the time:
//! the capture time extension does.

use std::time::Duration;

use bytes::Bytes;

use super::{Clip, ClipError, ClipFrame};
use crate::dealer::audio::AudioEncoder;
use crate::dealer::frame::Frame;
use crate::dealer::sound::{BLOCK, BLOCK_MS, Sound};
use crate::dealer::video::VideoEncoder;

/// Sound is a loop of so many blocks: a second.
const BLOCKS: i64 = 1000 / BLOCK_MS;
/// Groups encoded before the one that is kept, so that the rate control has settled.
const WARM_UP: u32 = 1;
/// Largest group of pictures, in frames: it is all kept in memory.
const MAX_FRAMES: u32 = 3600;

/// What the pattern is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PatternConfig {
    /// Picture width in pixels, even.
    pub width: u32,
    /// Picture height in pixels, even.
    pub height: u32,
    /// Frames a second.
    pub fps: u32,
    /// Video bits a second.
    pub bitrate: u32,
    /// Between keyframes.
    pub keyframe_interval: Duration,
    /// Audio bits a second; 0 for none.
    pub audio_bitrate: u32,
}

/// Contrasts of the texture, tried in turn: an encoder at its coarsest still spends more
/// bits than a low rate allows on a strong texture.
const CONTRASTS: [u8; 5] = [128, 64, 32, 16, 8];
/// How far above the wanted rate a pattern may be, as a factor.
const TOLERANCE: f64 = 1.05;

/// Encodes the pattern, with the strongest texture that the rate allows.
///
/// # Errors
/// [`ClipError::Encoder`] when the codec refuses the parameters.
pub fn encode(config: &PatternConfig) -> Result<Clip, ClipError> {
    let mut clip = Clip::default();
    for contrast in CONTRASTS {
        clip = encode_texture(config, contrast)?;
        if clip.bits_per_second() <= f64::from(config.bitrate) * TOLERANCE {
            break;
        }
    }
    if config.audio_bitrate > 0 {
        clip.sound = sound(config.audio_bitrate)?;
    }
    Ok(clip)
}

fn encode_texture(config: &PatternConfig, contrast: u8) -> Result<Clip, ClipError> {
    let fps = config.fps.clamp(1, 120);
    let count = (config.keyframe_interval.as_secs_f64() * f64::from(fps)).round();
    let count = (count as u32).clamp(2, MAX_FRAMES);
    let mut encoder = VideoEncoder::new(fps, config.bitrate, 1)?;
    let mut texture = Texture::new(config, contrast);
    let lasts = Duration::from_secs(1) / fps;
    let mut frames = Vec::with_capacity(count as usize);
    for index in 0..count * (WARM_UP + 1) {
        let first = index % count == 0;
        let unit = encoder.encode(texture.draw(index), first)?;
        if index < count * WARM_UP {
            continue;
        }
        match unit {
            Some(unit) => {
                let data = Bytes::from(unit.data);
                frames.push(ClipFrame { data, keyframe: unit.keyframe, lasts });
            }
            // A frame that the rate control left out: the one before it lasts longer.
            None => {
                if let Some(before) = frames.last_mut() {
                    before.lasts += lasts;
                }
            }
        }
    }
    Ok(Clip { frames, ..Clip::default() })
}

/// A second of the dealer's sound.
fn sound(bitrate: u32) -> Result<Vec<Bytes>, ClipError> {
    let (mut sound, mut encoder) = (Sound::new("pattern"), AudioEncoder::new(bitrate)?);
    let mut block = [0.0; BLOCK * 2];
    let mut blocks = Vec::new();
    for index in 0..BLOCKS {
        sound.fill(index * BLOCK_MS, &mut block);
        blocks.push(Bytes::copy_from_slice(encoder.encode(&block)?));
    }
    Ok(blocks)
}

/// A fixed random texture, of which each frame shows another place, so that motion is
/// easy to predict in some blocks and impossible in others: the bits are really used.
struct Texture {
    frame: Frame,
    noise: Vec<u8>,
}

/// Height of the bands that move at their own speeds.
const BAND: usize = 48;

impl Texture {
    fn new(config: &PatternConfig, contrast: u8) -> Self {
        let (width, height) = (config.width as usize & !1, config.height as usize & !1);
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let noise = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        });
        let shades = noise.map(|value| 128 - contrast / 2 + value % contrast);
        Self { frame: Frame::new(width, height), noise: shades.take(1 << 16).collect() }
    }

    fn draw(&mut self, index: u32) -> &Frame {
        let (width, height) = (self.frame.width, self.frame.height);
        // Blocks of 4x4 pixels share a value: what an encoder can keep at such rates.
        let shade = |noise: &[u8], x: usize, y: usize| noise[((y / 4) * 509 + x / 4) & 0xffff];
        for y in 0..height {
            let band = y / BAND;
            let shift = index as usize * (band % 5) * 3;
            // Every fourth band is new in each frame.
            let lift = if band % 4 == 3 { index as usize * 1021 } else { 0 };
            let row = &mut self.frame.y[y * width..(y + 1) * width];
            for (x, pixel) in row.iter_mut().enumerate() {
                *pixel = shade(&self.noise, x + shift + lift, y);
            }
        }
        &self.frame
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use openh264::decoder::Decoder;
    use openh264::formats::YUVSource as _;

    fn config() -> PatternConfig {
        PatternConfig {
            width: 640,
            height: 360,
            fps: 30,
            bitrate: 1_000_000,
            keyframe_interval: Duration::from_secs(2),
            audio_bitrate: 64_000,
        }
    }

    #[test]
    fn the_pattern_has_its_rate_and_plays_in_a_loop() {
        for bitrate in [250_000, 1_000_000] {
            let clip = encode(&PatternConfig { bitrate, ..config() }).unwrap();
            let seconds = clip.frames.iter().map(|frame| frame.lasts).sum::<Duration>();
            assert!((seconds.as_secs_f64() - 2.0).abs() < 0.01, "{seconds:?}");
            let share = clip.bits_per_second() / f64::from(bitrate);
            assert!((0.8..=TOLERANCE).contains(&share), "{share} of {bitrate}");
            let later = clip.frames[1..].iter();
            assert!(clip.frames[0].keyframe && !later.clone().any(|frame| frame.keyframe));
            assert_eq!(clip.sound.len(), 50);
            let mut decoder = Decoder::new().unwrap();
            for (number, frame) in clip.frames.iter().chain(&clip.frames).enumerate() {
                let picture = decoder.decode(&frame.data).unwrap();
                let size = picture.map(|picture| picture.dimensions());
                assert_eq!(size, Some((640, 360)), "frame {number}");
            }
        }
    }
}
