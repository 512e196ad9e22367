//! Synthetic dealer and test viewers for any WHIP/WHEP server.

pub mod dealer;
pub mod time;
