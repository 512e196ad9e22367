//! RTP as bytes: headers, sequence numbers, payload formats (sans-IO).

mod depacketizer;

pub use depacketizer::Depacketizer;
