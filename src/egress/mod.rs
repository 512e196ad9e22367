//! Out to the players: fan-out over WebRTC, and LL-HLS. The children never
//! import each other.

pub mod fanout;
pub mod hls;
