//! Out to the players: fan-out over WebRTC, and LL-HLS.

pub mod fanout;
