//! Opus encoding: 48 kHz stereo, 20 ms frames.

use opusic_c::{Application, Bitrate, Channels, Encoder, SampleRate};

use super::DealerError;
use super::sound::BLOCK;

/// Room for one encoded frame; 64 kbit/s needs about 160 bytes.
const MAX_FRAME: usize = 1_000;

/// The encoder.
pub struct AudioEncoder {
    inner: Encoder,
    out: [u8; MAX_FRAME],
}

impl AudioEncoder {
    /// An encoder at `bitrate` bits a second.
    ///
    /// # Errors
    /// [`DealerError::Audio`] when the codec refuses the parameters.
    pub fn new(bitrate: u32) -> Result<Self, DealerError> {
        let error = |code: opusic_c::ErrorCode| DealerError::Audio(code.message());
        let mut inner = Encoder::new(Channels::Stereo, SampleRate::Hz48000, Application::Audio)
            .map_err(error)?;
        inner.set_bitrate(Bitrate::Value(bitrate)).map_err(error)?;
        // Half the work of the default, and no audible difference on this material.
        inner.set_complexity(4).map_err(error)?;
        Ok(Self { inner, out: [0; MAX_FRAME] })
    }

    /// Encodes one block of interleaved stereo samples.
    ///
    /// # Errors
    /// [`DealerError::Audio`] when the codec fails.
    pub fn encode(&mut self, block: &[f32; BLOCK * 2]) -> Result<&[u8], DealerError> {
        let size = self
            .inner
            .encode_float_to_slice(block, &mut self.out)
            .map_err(|code| DealerError::Audio(code.message()))?;
        Ok(self.out.get(..size).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dealer::sound::{BLOCK_MS, Sound};

    #[test]
    fn a_second_of_sound_is_near_its_bitrate() {
        let (mut sound, mut encoder) = (Sound::new("demo"), AudioEncoder::new(64_000).unwrap());
        let mut block = [0.0; BLOCK * 2];
        let mut bytes = 0;
        for index in 0..50 {
            sound.fill(1_700_000_000_000 + index * BLOCK_MS, &mut block);
            bytes += encoder.encode(&block).unwrap().len();
        }
        assert!((3_000..9_000).contains(&bytes), "{bytes} bytes in a second");
    }
}
