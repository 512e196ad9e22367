//! Counters of a running crowd that anybody may look at: for the progress line, and to
//! know when all have joined.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The counters.
#[derive(Debug, Default)]
pub struct Live {
    joined: AtomicU64,
    connected: AtomicU64,
    first_frames: AtomicU64,
    ended: AtomicU64,
    refused: AtomicU64,
    packets: AtomicU64,
    bytes: AtomicU64,
}

/// Their values at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Viewers that have their answer.
    pub joined: u64,
    /// Viewers whose media has connected.
    pub connected: u64,
    /// Viewers that have seen a first frame.
    pub first_frames: u64,
    /// Viewers that ended by themselves after they had their answer.
    pub ended: u64,
    /// Viewers that got no answer they could use.
    pub refused: u64,
    /// Packets, each counted once per viewer.
    pub packets: u64,
    /// Bytes of UDP payload.
    pub bytes: u64,
}

impl Live {
    /// The values now.
    pub fn counts(&self) -> Counts {
        Counts {
            joined: self.joined.load(Relaxed),
            connected: self.connected.load(Relaxed),
            first_frames: self.first_frames.load(Relaxed),
            ended: self.ended.load(Relaxed),
            refused: self.refused.load(Relaxed),
            packets: self.packets.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
        }
    }

    pub(super) fn joined(&self) {
        self.joined.fetch_add(1, Relaxed);
    }
    pub(super) fn connected(&self) {
        self.connected.fetch_add(1, Relaxed);
    }
    pub(super) fn first_frame(&self) {
        self.first_frames.fetch_add(1, Relaxed);
    }
    pub(super) fn ended(&self) {
        self.ended.fetch_add(1, Relaxed);
    }
    pub(super) fn refused(&self) {
        self.refused.fetch_add(1, Relaxed);
    }
    pub(super) fn delivered(&self, packets: u64, bytes: u64) {
        self.packets.fetch_add(packets, Relaxed);
        self.bytes.fetch_add(bytes, Relaxed);
    }
}
