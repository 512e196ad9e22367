//! The synthetic dealer: a roulette table that draws, speaks and encodes itself.
//!
//! [`picture`] draws, [`sound`] hums and ticks, [`video`] and [`audio`] encode, and
//! [`studio`] runs them on their own threads against a fixed schedule. What the
//! table shows is a pure function of UTC and the table's name ([`rounds`]).

pub mod audio;
pub mod canvas;
pub mod frame;
pub mod layout;
pub mod picture;
pub mod rounds;
pub mod sound;
pub mod strip;
pub mod studio;
pub mod text;
pub mod video;
pub mod wheel;

/// Why a dealer cannot produce its stream.
#[derive(Debug, thiserror::Error)]
pub enum DealerError {
    /// The picture size is not one the table can be drawn at.
    #[error("picture size {width}x{height} is not 16:9 in steps of 32x18, 160 to 3840 wide")]
    Size {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
    /// An embedded font cannot be parsed.
    #[error("embedded font: {0}")]
    Font(&'static str),
    /// The H.264 encoder failed.
    #[error("H.264 encoder: {0}")]
    Video(#[from] openh264::Error),
    /// The Opus encoder failed.
    #[error("Opus encoder: {0}")]
    Audio(&'static str),
    /// A thread could not be started.
    #[error("dealer thread: {0}")]
    Thread(#[from] std::io::Error),
}
