//! The fan-out of one worker: from one shared ring of plaintext packets per layer
//! to every viewer there, each with its own SSRC, numbers and keys.
//!
//! A viewer is a cursor into the rings. It advances whenever a ring has grown, a
//! bounded slice at a time; joining is nothing but a cursor that starts at the
//! GOP, and a NACK is a look back into the ring.

#[cfg(test)]
mod crowd_tests;
mod header;
mod ladder;
mod layers;
mod rate;
mod ring;
mod selection;
mod source;
mod stream;
#[cfg(test)]
mod tests;
mod track;
mod viewer;
mod watching;

pub use stream::{FanoutStream, Seat};
pub use viewer::{PassContext, ViewerQuality, ViewerSpec};
pub use watching::{Sent, WatchedTrack, Watching};
