//! Access units out of RTP payloads.

use crate::codec::Codec;
use crate::media::{Frame, Packet};

/// Rebuilds the access units of one layer.
pub struct Depacketizer {
    #[allow(dead_code)]
    codec: Codec,
}

impl Depacketizer {
    /// For packets of `codec`.
    pub fn new(codec: Codec) -> Self {
        Self { codec }
    }

    /// Takes the next packet of the layer; returns the access unit it completed.
    pub fn push(&mut self, _packet: &Packet) -> Option<Frame> {
        None
    }
}
