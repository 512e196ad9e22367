//! The fan-out of one worker: from one shared ring of plaintext packets per layer
//! to every viewer there, each with its own SSRC, numbers and keys.
//!
//! A viewer is a cursor into the rings. It advances whenever a ring has grown, a
//! bounded slice at a time; joining is nothing but a cursor that starts at the
//! GOP, and a NACK is a look back into the ring.

mod cache;
mod ladder;
mod layers;
mod rate;
mod stream;
mod track;
mod viewer;

pub use cache::LayerCache;
pub use layers::{LayerChooser, LayerState, Switch, SwitchReason, Target};
pub use rate::RateMeter;
pub use stream::FanoutStream;
pub use track::SLICE_PAUSE;
pub use viewer::{SendContext, Viewer, ViewerSeed};
