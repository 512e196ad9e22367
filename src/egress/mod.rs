//! The ways out: how viewers get the media of the hub. The children never
//! import each other.

pub mod fanout;
pub mod hls;
