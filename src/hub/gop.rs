//! The current GOP of one layer: what a newcomer needs to start at once.

use std::sync::Arc;
use std::time::Duration;

use crate::media::Packet;

/// A GOP longer than this is not kept: the newcomer would be that far behind,
/// so it waits for the keyframe that its arrival asks for.
const MAX_AGE: Duration = Duration::from_secs(5);

/// Packets kept at most (5 s at 10 Mbit/s); past it the GOP is dropped like one that is too old.
const MAX_PACKETS: usize = 6_000;

/// Packets from the latest random access point on, or nothing.
#[derive(Default)]
pub(super) struct Gop {
    packets: Vec<Arc<Packet>>,
    /// Timestamp of the access unit that opened the GOP.
    opened_at: Option<u64>,
}

impl Gop {
    /// Adds the next packet. Returns true when it opens a new GOP.
    pub(super) fn push(&mut self, packet: &Arc<Packet>) -> bool {
        let opens = packet.keyframe && self.opened_at != Some(packet.timestamp);
        if opens {
            self.packets.clear();
            self.opened_at = Some(packet.timestamp);
        }
        if opens || !self.packets.is_empty() {
            self.packets.push(packet.clone());
        }
        if self.is_overdue() {
            self.packets = Vec::new();
        }
        opens
    }

    /// The packets to replay, oldest first; empty when a keyframe must be asked for.
    pub(super) fn packets(&self) -> &[Arc<Packet>] {
        &self.packets
    }

    fn is_overdue(&self) -> bool {
        let (Some(first), Some(last)) = (self.packets.first(), self.packets.last()) else {
            return false;
        };
        self.packets.len() > MAX_PACKETS
            || last.received.saturating_duration_since(first.received) > MAX_AGE
    }
}
