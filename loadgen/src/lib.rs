//! Synthetic dealer and test viewers for any WHIP/WHEP/LL-HLS server.
//!
//! [`dealer`] or a [`source`] of clips makes the stream and [`publisher`] sends it.
//! [`crowd`] watches with thousands of viewers that count; [`viewer`] is one that decodes;
//! [`hls`] is a crowd of LL-HLS clients. [`whip`] and [`peer`] are what both sides share,
//! and [`impair`] is the bad network between them. Nothing here depends on the gateway it
//! tests.

pub mod assemble;
pub mod crowd;
pub mod dealer;
pub mod estimate;
pub mod hls;
pub mod impair;
pub mod peer;
pub mod publisher;
mod sender;
pub mod source;
pub mod time;
pub mod viewer;
pub mod whip;

pub use publisher::{DealerConfig, DealerStats, PublishError, run_dealer, run_dealer_counted};
pub use viewer::{WatchConfig, WatchError, WatchReport, watch, watch_until};
