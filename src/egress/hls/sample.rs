//! Access units as MP4 samples: what the sample entry says once is taken out of
//! every sample.
//!
//! The hub's frames carry their parameter sets in band. Here they are collected
//! at random access points into the sample entry (ISO/IEC 14496-15 §5.3.2 and
//! §8.3.2 `avc1`/`hvc1`, AV1-ISOBMFF §2.3, VP Codec ISO Media File Format
//! Binding, Opus in ISOBMFF §4.3) and stripped from the samples of the NAL-unit
//! codecs. A keyframe with other parameter sets makes a new [`TrackConfig`].

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use shiguredo_mp4::bitstream::h264::LengthSize;
use shiguredo_mp4::bitstream::{av1, h264, h265, opus, vp9};
use shiguredo_mp4::boxes::SampleEntry;
use shiguredo_mp4::codec_string;

use crate::codec::Codec;

/// Parameter sets of one kind kept at most; a hostile source could send thousands.
const MAX_PARAMETER_SETS: usize = 16;

/// Why a frame cannot become a sample.
#[derive(Debug, thiserror::Error)]
pub enum SampleError {
    /// A length field points past the end, or a unit is empty.
    #[error("malformed access unit")]
    Malformed,
    /// No parameter sets have come yet, so nothing can be decoded.
    #[error("no parameter sets yet")]
    NotConfigured,
    /// The parameter sets cannot be described in a sample entry.
    #[error("parameter sets refused: {0}")]
    Refused(String),
}

impl From<shiguredo_mp4::Error> for SampleError {
    fn from(error: shiguredo_mp4::Error) -> Self {
        Self::Refused(error.reason)
    }
}

/// What a decoder must know before the first sample.
#[derive(Debug, PartialEq)]
pub struct TrackConfig {
    /// The MP4 sample entry.
    pub entry: SampleEntry,
    /// The codec as `CODECS` writes it (RFC 6381), e.g. `avc1.42c01f`.
    pub codecs: String,
    /// Picture width in pixels; 0 for audio.
    pub width: u16,
    /// Picture height in pixels; 0 for audio.
    pub height: u16,
}

impl TrackConfig {
    fn new(entry: SampleEntry, width: u16, height: u16) -> Result<Arc<Self>, SampleError> {
        let codecs = match &entry {
            // Browsers and RFC 7845 users know it in lower case; `Opus` is only the box's name.
            SampleEntry::Opus(_) => "opus".to_owned(),
            entry => codec_string::from_sample_entry(entry)?,
        };
        Ok(Arc::new(Self { entry, codecs, width, height }))
    }
}

/// Turns the frames of one layer into samples.
pub struct Sampler {
    codec: Codec,
    channels: u8,
    parameter_sets: ParameterSets,
    config: Option<Arc<TrackConfig>>,
}

/// The NAL units that live in the sample entry, by kind.
#[derive(Default, Clone, PartialEq)]
struct ParameterSets {
    vps: Vec<Vec<u8>>,
    sps: Vec<Vec<u8>>,
    pps: Vec<Vec<u8>>,
}

impl ParameterSets {
    /// Kinds that came anew replace the old ones; the others stay.
    fn merged(&self, newer: Self) -> Self {
        let pick = |old: &Vec<Vec<u8>>, new| if Vec::is_empty(&new) { old.clone() } else { new };
        Self {
            vps: pick(&self.vps, newer.vps),
            sps: pick(&self.sps, newer.sps),
            pps: pick(&self.pps, newer.pps),
        }
    }
}

impl Sampler {
    /// For one layer of a track; `None` when MP4 cannot carry the codec (VP8).
    pub fn new(codec: Codec, channels: u8) -> Option<Self> {
        (codec != Codec::Vp8).then(|| Self {
            codec,
            channels,
            parameter_sets: ParameterSets::default(),
            config: None,
        })
    }

    /// The sample of an access unit, and the configuration that it needs. The
    /// configuration is another `Arc` than before only when it changed.
    ///
    /// # Errors
    /// See [`SampleError`]; the frame is to be dropped.
    pub fn sample(
        &mut self,
        data: &Bytes,
        keyframe: bool,
    ) -> Result<(Bytes, Arc<TrackConfig>), SampleError> {
        if data.is_empty() {
            return Err(SampleError::Malformed);
        }
        let sample = match self.codec {
            Codec::H264 | Codec::H265 => self.nal_units(data, keyframe)?,
            Codec::Av1 | Codec::Vp9 | Codec::Opus | Codec::Vp8 => {
                if keyframe || self.config.is_none() {
                    self.configure(data)?;
                }
                data.clone()
            }
        };
        let config = self.config.clone().ok_or(SampleError::NotConfigured)?;
        Ok((sample, config))
    }

    /// Sets the configuration of a codec whose frames describe themselves.
    fn configure(&mut self, data: &Bytes) -> Result<(), SampleError> {
        let config = match self.codec {
            Codec::Av1 => match av1_config(data)? {
                Some(config) => config,
                None => return Ok(()),
            },
            Codec::Vp9 => vp9_config(data)?,
            _ => opus_config(self.channels)?,
        };
        if self.config.as_ref() != Some(&config) {
            self.config = Some(config);
        }
        Ok(())
    }

    /// Takes the parameter sets and the delimiters out of a NAL-unit sample.
    fn nal_units(&mut self, data: &Bytes, keyframe: bool) -> Result<Bytes, SampleError> {
        let mut found = ParameterSets::default();
        let mut sample = BytesMut::with_capacity(data.len());
        for unit in NalUnits(data) {
            let unit = unit?;
            let place = match (self.codec, nal_type(self.codec, unit)) {
                (Codec::H264, 7) | (Codec::H265, 33) => Some(&mut found.sps),
                (Codec::H264, 8) | (Codec::H265, 34) => Some(&mut found.pps),
                (Codec::H265, 32) => Some(&mut found.vps),
                // Access unit delimiters and filler say nothing inside a sample.
                (Codec::H264, 9 | 12) | (Codec::H265, 35 | 38) => continue,
                _ => None,
            };
            match place {
                Some(sets) if sets.len() >= MAX_PARAMETER_SETS => {
                    return Err(SampleError::Malformed);
                }
                Some(sets) => sets.push(unit.to_vec()),
                None => {
                    sample.put_u32(unit.len() as u32);
                    sample.put_slice(unit);
                }
            }
        }
        if keyframe {
            self.adopt(found)?;
        }
        if sample.is_empty() { Err(SampleError::Malformed) } else { Ok(sample.freeze()) }
    }

    fn adopt(&mut self, found: ParameterSets) -> Result<(), SampleError> {
        let sets = self.parameter_sets.merged(found);
        if self.config.is_some() && sets == self.parameter_sets {
            return Ok(());
        }
        self.config = Some(match self.codec {
            Codec::H265 => h265_config(&sets)?,
            _ => h264_config(&sets)?,
        });
        self.parameter_sets = sets;
        Ok(())
    }
}

fn h264_config(sets: &ParameterSets) -> Result<Arc<TrackConfig>, SampleError> {
    let config = h264::H264SampleEntryConfig { length_size: LengthSize::FourBytes };
    let entry = h264::build_avc1_box(&sets.sps, &sets.pps, &config)?;
    let (width, height) = (entry.visual.width, entry.visual.height);
    TrackConfig::new(SampleEntry::Avc1(entry), width, height)
}

fn h265_config(sets: &ParameterSets) -> Result<Arc<TrackConfig>, SampleError> {
    let config = h265::H265SampleEntryConfig {
        length_size: LengthSize::FourBytes,
        avg_frame_rate: h265::H265SampleEntryConfig::AVG_FRAME_RATE_UNSPECIFIED,
        constant_frame_rate: h265::H265ConstantFrameRate::Unknown,
    };
    let entry = h265::build_hvc1_box(&sets.vps, &sets.sps, &sets.pps, &config)?;
    let (width, height) = (entry.visual.width, entry.visual.height);
    TrackConfig::new(SampleEntry::Hvc1(entry), width, height)
}

/// `None` when the temporal unit has no sequence header of its own.
fn av1_config(data: &[u8]) -> Result<Option<Arc<TrackConfig>>, SampleError> {
    let obus = av1::parse_obus(data, av1::Av1ObuParseContext::Sample)?;
    let Some(header) = obus.iter().find(|o| o.obu_type == av1::Av1ObuType::SequenceHeader) else {
        return Ok(None);
    };
    let sequence = av1::parse_sequence_header(header.payload)?;
    let config = av1::Av1SampleEntryConfig { initial_presentation_delay_minus_one: None };
    let entry = av1::build_av01_box(&sequence, header.obu, &config)?;
    let (width, height) = (entry.visual.width, entry.visual.height);
    TrackConfig::new(SampleEntry::Av01(entry), width, height).map(Some)
}

fn vp9_config(data: &[u8]) -> Result<Arc<TrackConfig>, SampleError> {
    type Config = vp9::Vp9SampleEntryConfig;
    let header = vp9::parse_frame_header(data)?;
    let vp9::Vp9FrameSize::Resolved { width, height } = header.frame_size else {
        return Err(SampleError::NotConfigured);
    };
    let pixels = u64::from(width) * u64::from(height);
    let narrow = |side| u16::try_from(side).map_err(|_| SampleError::Malformed);
    let (width, height) = (narrow(width)?, narrow(height)?);
    let config = Config {
        level: vp9_level(pixels),
        colour_primaries: Config::COLOUR_PRIMARIES_BT709,
        transfer_characteristics: Config::TRANSFER_CHARACTERISTICS_BT709,
        matrix_coefficients: Config::MATRIX_COEFFICIENTS_BT709,
        width,
        height,
    };
    TrackConfig::new(SampleEntry::Vp09(vp9::build_vp09_box(&header, &config)?), width, height)
}

/// The lowest VP9 level whose picture size holds `pixels` (VP9 levels, table of
/// "Luma Picture Size"); the stream does not say its level.
const fn vp9_level(pixels: u64) -> u8 {
    match pixels {
        0..=122_880 => 20,
        122_881..=552_960 => 30,
        552_961..=983_040 => 31,
        983_041..=2_228_224 => 41,
        2_228_225..=8_912_896 => 51,
        _ => 61,
    }
}

fn opus_config(channels: u8) -> Result<Arc<TrackConfig>, SampleError> {
    let entry = opus::build_opus_box(&opus::OpusSampleEntryConfig {
        channel_count: match channels {
            1 => opus::ChannelCount::Mono,
            _ => opus::ChannelCount::Stereo,
        },
        // A live decoder joins in the middle: nothing at the start is to be cut off.
        pre_skip: 0,
        input_sample_rate: 48_000,
        output_gain: 0,
    });
    TrackConfig::new(SampleEntry::Opus(entry), 0, 0)
}

fn nal_type(codec: Codec, unit: &[u8]) -> u8 {
    let header = unit.first().copied().unwrap_or(0);
    match codec {
        Codec::H265 => (header >> 1) & 0x3f,
        _ => header & 0x1f,
    }
}

/// NAL units that each stand after their length in four bytes.
struct NalUnits<'a>(&'a [u8]);

impl<'a> Iterator for NalUnits<'a> {
    type Item = Result<&'a [u8], SampleError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let unit = self.0.split_first_chunk::<4>().and_then(|(length, rest)| {
            let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
            if length == 0 { None } else { rest.split_at_checked(length) }
        });
        Some(match unit {
            Some((unit, rest)) => {
                self.0 = rest;
                Ok(unit)
            }
            None => {
                self.0 = &[];
                Err(SampleError::Malformed)
            }
        })
    }
}
