//! What a publisher sends: the synthetic dealer, or a prepared clip played in a loop.
//!
//! A [`Clip`] is encoded or read once and shared by any number of tables, so that a
//! publisher of it costs next to nothing: the [`pattern`] is what benchmarks send.

pub mod annex_b;
pub mod ivf;
pub mod pattern;
mod player;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::dealer::DealerError;
use crate::dealer::studio::{Media, Studio, StudioConfig};

pub use player::Player;

/// Video format of a clip.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Video {
    /// H.264, Annex B.
    #[default]
    H264,
    /// VP8.
    Vp8,
    /// VP9.
    Vp9,
    /// AV1, temporal units of low-overhead OBUs.
    Av1,
}

/// Why a clip cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ClipError {
    /// The file cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file's name ends in nothing that is known.
    #[error("{0}: use .h264 (Annex B) or .ivf (VP8, VP9, AV1, H264)")]
    Unknown(PathBuf),
    /// The file is not what its name says.
    #[error("{path}: {reason}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The pattern cannot be encoded.
    #[error(transparent)]
    Encoder(#[from] DealerError),
}

/// One frame of a clip.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClipFrame {
    /// The encoded bytes.
    pub data: Bytes,
    /// Whether decoding can start here.
    pub keyframe: bool,
    /// Time until the next frame.
    pub lasts: Duration,
}

/// A piece of video, with or without sound, that begins with a keyframe.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Clip {
    /// Video format.
    pub video: Video,
    /// Frames in decoding order; the first is a keyframe.
    pub frames: Vec<ClipFrame>,
    /// Opus frames of 20 ms, or none.
    pub sound: Vec<Bytes>,
}

impl Clip {
    /// Reads a file by the ending of its name. Annex B has no clock: it gets `fps`.
    ///
    /// # Errors
    /// [`ClipError`].
    pub fn open(path: &Path, fps: u32) -> Result<Self, ClipError> {
        let data = std::fs::read(path)
            .map_err(|source| ClipError::Read { path: path.to_owned(), source })?;
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        let read = match ending.to_ascii_lowercase().as_str() {
            "h264" | "264" | "avc" => annex_b::read(&data, fps),
            "ivf" => ivf::read(&data, fps),
            _ => return Err(ClipError::Unknown(path.to_owned())),
        };
        read.map_err(|reason| ClipError::Malformed { path: path.to_owned(), reason })
    }

    /// Mean bit rate of the video.
    pub fn bits_per_second(&self) -> f64 {
        let bits: usize = self.frames.iter().map(|frame| frame.data.len() * 8).sum();
        let lasts: Duration = self.frames.iter().map(|frame| frame.lasts).sum();
        bits as f64 / lasts.as_secs_f64().max(1e-6)
    }

    /// A clip of `frames`, from its first keyframe on.
    fn from_frames(video: Video, mut frames: Vec<ClipFrame>) -> Result<Self, &'static str> {
        let first = frames.iter().position(|frame| frame.keyframe).ok_or("no keyframe in it")?;
        frames.drain(..first);
        Ok(Self { video, frames, sound: Vec::new() })
    }
}

/// Where a publisher's media comes from.
#[derive(Clone, Debug, Default)]
pub enum SourceConfig {
    /// The synthetic dealer draws and encodes it.
    #[default]
    Dealer,
    /// The same in several sizes, each a layer of a simulcast: its name, and which part
    /// of the whole width and height it has.
    DealerLayers(Vec<(String, u32)>),
    /// A clip is played in a loop.
    Clip(Arc<Clip>),
    /// Clips of one format and pace, each a layer of a simulcast with its name.
    Layers(Vec<(String, Arc<Clip>)>),
}

impl SourceConfig {
    /// Video format of the source.
    pub fn video(&self) -> Video {
        match self {
            Self::Dealer | Self::DealerLayers(_) => Video::H264,
            Self::Clip(clip) => clip.video,
            Self::Layers(layers) => layers.first().map_or(Video::H264, |(_, clip)| clip.video),
        }
    }

    /// Names of the layers of a simulcast.
    pub fn rids(&self) -> Vec<String> {
        match self {
            Self::Layers(layers) => layers.iter().map(|(rid, _)| rid.clone()).collect(),
            Self::DealerLayers(layers) => layers.iter().map(|(rid, _)| rid.clone()).collect(),
            Self::Dealer | Self::Clip(_) => Vec::new(),
        }
    }

    /// Which parts of the whole size the dealer draws.
    pub fn scales(&self) -> Vec<u32> {
        match self {
            Self::DealerLayers(layers) => layers.iter().map(|(_, scale)| *scale).collect(),
            _ => vec![1],
        }
    }
}

/// A running source.
pub enum Source {
    /// The dealer.
    Studio(Studio),
    /// Clips, each a layer; one, without simulcast.
    Players(Vec<Player>),
}

impl Source {
    /// Starts.
    ///
    /// # Errors
    /// Any [`DealerError`] of the studio.
    pub fn start(config: &SourceConfig, studio: &StudioConfig) -> Result<Self, DealerError> {
        let start = Instant::now();
        let player = |clip: &Arc<Clip>| Player::new(start, Arc::clone(clip));
        Ok(match config {
            SourceConfig::Dealer | SourceConfig::DealerLayers(_) => {
                Self::Studio(Studio::start(studio)?)
            }
            SourceConfig::Clip(clip) => Self::Players(vec![player(clip)]),
            SourceConfig::Layers(layers) => {
                Self::Players(layers.iter().map(|(_, clip)| player(clip)).collect())
            }
        })
    }

    /// The next piece of media and its layer.
    ///
    /// # Errors
    /// The error that ended the studio.
    pub async fn next(&mut self) -> Result<(usize, Media), DealerError> {
        let players = match self {
            Self::Studio(studio) => return studio.next().await,
            Self::Players(players) => players,
        };
        let next = players.iter_mut().enumerate().min_by_key(|(_, player)| player.due());
        match next {
            Some((layer, player)) => Ok((layer, player.next().await)),
            None => std::future::pending().await,
        }
    }

    /// Makes the next picture a keyframe, of every layer.
    pub fn request_keyframe(&mut self) {
        match self {
            Self::Studio(studio) => studio.request_keyframe(),
            Self::Players(players) => players.iter_mut().for_each(Player::request_keyframe),
        }
    }

    /// Frames dropped because the consumer was late.
    pub fn dropped(&self) -> u64 {
        match self {
            Self::Studio(studio) => studio.dropped(),
            Self::Players(_) => 0,
        }
    }
}
