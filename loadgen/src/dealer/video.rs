//! H.264 encoding for low delay: constrained baseline, no B-frames, one reference.
//!
//! A keyframe every two seconds and on request; each carries its parameter sets,
//! so that a viewer can start there. Colour is signalled as BT.709 limited range.

use openh264::OpenH264API;
use openh264::encoder::{
    BitRate, Complexity, Encoder, EncoderConfig, FrameRate, FrameType, IntraFramePeriod, Level,
    Profile, RateControlMode, SpsPpsStrategy, UsageType, VuiConfig,
};

use super::DealerError;
use super::frame::Frame;

/// Seconds between keyframes.
pub const KEYFRAME_SECONDS: u32 = 2;

/// An encoded picture.
#[derive(Clone, Debug)]
pub struct AccessUnit {
    /// NAL units with Annex B start codes; parameter sets first on a keyframe.
    pub data: Vec<u8>,
    /// Whether decoding can start here.
    pub keyframe: bool,
}

/// The encoder.
pub struct VideoEncoder {
    inner: Encoder,
}

impl VideoEncoder {
    /// An encoder for `fps` frames a second at `bitrate` bits a second. The size
    /// is that of the first frame.
    ///
    /// # Errors
    /// [`DealerError::Video`] when the codec refuses the parameters.
    pub fn new(fps: u32, bitrate: u32, threads: u16) -> Result<Self, DealerError> {
        let config = EncoderConfig::new()
            .bitrate(BitRate::from_bps(bitrate))
            .max_frame_rate(FrameRate::from_hz(fps as f32))
            .usage_type(UsageType::CameraVideoRealTime)
            .rate_control_mode(RateControlMode::Bitrate)
            .sps_pps_strategy(SpsPpsStrategy::ConstantId)
            .profile(Profile::Baseline)
            .level(Level::Level_3_1)
            .complexity(Complexity::Low)
            .intra_frame_period(IntraFramePeriod::from_num_frames(fps * KEYFRAME_SECONDS))
            .skip_frames(false)
            .scene_change_detect(false)
            .background_detection(true)
            .adaptive_quantization(false)
            .num_threads(threads)
            .vui(VuiConfig::bt709());
        let inner = Encoder::with_api_config(OpenH264API::from_source(), config)?;
        Ok(Self { inner })
    }

    /// Encodes one frame; a keyframe when asked. `None` when the rate control
    /// chose to skip it.
    ///
    /// # Errors
    /// [`DealerError::Video`] when the codec fails.
    pub fn encode(
        &mut self,
        frame: &Frame,
        keyframe: bool,
    ) -> Result<Option<AccessUnit>, DealerError> {
        if keyframe {
            self.inner.force_intra_frame();
        }
        let stream = self.inner.encode(frame)?;
        let keyframe = match stream.frame_type() {
            FrameType::IDR | FrameType::I => true,
            FrameType::P | FrameType::IPMixed => false,
            FrameType::Skip | FrameType::Invalid => return Ok(None),
        };
        Ok(Some(AccessUnit { data: stream.to_vec(), keyframe }))
    }
}

/// NAL units of an Annex B byte stream, without start codes.
pub fn nal_units(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = data;
    std::iter::from_fn(move || {
        let start = find_start(rest)? + 3;
        let body = rest.get(start..)?;
        let end = find_start(body).unwrap_or(body.len());
        rest = body.get(end..)?;
        let nal = body.get(..end)?;
        // A four-byte start code leaves its first zero at the end of the unit before it.
        let zeros = nal.iter().rev().take_while(|&&byte| byte == 0).count();
        nal.get(..nal.len() - zeros)
    })
}

fn find_start(data: &[u8]) -> Option<usize> {
    data.windows(3).position(|window| window == [0, 0, 1])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dealer::picture::Picture;
    use crate::dealer::strip;
    use openh264::decoder::Decoder;
    use openh264::formats::YUVSource as _;

    const START: i64 = 1_700_000_000_000;

    #[test]
    fn the_first_frame_carries_constrained_baseline_parameter_sets() {
        let mut picture = Picture::new("demo", 640, 360).unwrap();
        let mut encoder = VideoEncoder::new(30, 800_000, 1).unwrap();
        let unit = encoder.encode(picture.draw(START), false).unwrap().unwrap();
        let units: Vec<&[u8]> = nal_units(&unit.data).collect();
        let types: Vec<u8> = units.iter().map(|nal| nal[0] & 0x1f).collect();
        assert!(unit.keyframe);
        assert_eq!(types, [7, 8, 5], "parameter sets, then one IDR slice");
        assert_eq!(units[0][1], 66, "profile_idc");
        assert_eq!(units[0][2] & 0xc0, 0xc0, "constraint_set0 and constraint_set1");
        assert!(units[0][3] <= 31, "level {} fits 42e01f", units[0][3]);
    }

    #[test]
    fn keyframes_come_every_two_seconds_and_on_request() {
        let mut picture = Picture::new("demo", 640, 360).unwrap();
        let mut encoder = VideoEncoder::new(30, 800_000, 1).unwrap();
        let mut keyframes = Vec::new();
        for index in 0..70i64 {
            let frame = picture.draw(START + index * 33);
            let unit = encoder.encode(frame, index == 20).unwrap().expect("no frame is skipped");
            if unit.keyframe {
                keyframes.push(index);
            }
        }
        assert_eq!(keyframes[..2], [0, 20]);
        assert!(keyframes.len() >= 3, "{keyframes:?}");
    }

    #[test]
    fn the_strip_survives_encoding_and_decoding() {
        let mut picture = Picture::new("demo", 640, 360).unwrap();
        let mut encoder = VideoEncoder::new(30, 600_000, 1).unwrap();
        let mut decoder = Decoder::new().unwrap();
        for index in 0..45i64 {
            let now = START + index * 33;
            let unit = encoder.encode(picture.draw(now), false).unwrap().unwrap();
            let decoded = decoder.decode(&unit.data).unwrap().expect("one picture in, one out");
            let (width, height) = decoded.dimensions();
            let read = strip::decode(decoded.y(), decoded.strides().0, width, height);
            assert_eq!(read, Some(now as u64 as u32), "frame {index}");
        }
    }
}
