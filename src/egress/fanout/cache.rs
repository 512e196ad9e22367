//! The ring of one layer on one worker: what every viewer there is sent from,
//! now, again after a loss, and from the start of the GOP for a newcomer.

use std::sync::Arc;
use std::time::Duration;

use crate::codec::MediaKind;
use crate::media::Packet;

/// Packets kept of a video layer: 4 s at 5 Mbit/s. An older one is not resent.
const VIDEO_SLOTS: usize = 2048;
/// Packets kept of an audio layer: 5 s of 20 ms frames.
const AUDIO_SLOTS: usize = 256;
/// A GOP that began longer ago is not replayed: the newcomer would start that far
/// behind, and catch up only as fast as its decoder can.
const MAX_GOP_AGE: Duration = Duration::from_secs(4);

/// The latest packets of one layer. owner: the worker.
pub struct LayerCache {
    slots: Vec<Option<Arc<Packet>>>,
    /// One past the highest `seq` seen; `None` before the first packet.
    end: Option<u64>,
    gop: Option<GopStart>,
}

#[derive(Clone, Copy)]
struct GopStart {
    seq: u64,
    timestamp: u64,
}

impl LayerCache {
    /// An empty ring for a layer of `kind`.
    pub fn new(kind: MediaKind) -> Self {
        let len = match kind {
            MediaKind::Audio => AUDIO_SLOTS,
            MediaKind::Video => VIDEO_SLOTS,
        };
        Self { slots: vec![None; len], end: None, gop: None }
    }

    /// Adds the next packet; packets come in rising `seq`.
    pub fn push(&mut self, packet: Arc<Packet>) {
        let len = self.slots.len() as u64;
        let next = self.end.unwrap_or(packet.seq);
        // The holes of packets lost for good must not show the ring's last lap.
        for lost in next.max(packet.seq.saturating_sub(len))..packet.seq {
            self.slots[(lost % len) as usize] = None;
        }
        if packet.keyframe && self.gop.is_none_or(|gop| gop.timestamp != packet.timestamp) {
            self.gop = Some(GopStart { seq: packet.seq, timestamp: packet.timestamp });
        }
        self.end = Some(packet.seq + 1);
        let slot = (packet.seq % len) as usize;
        self.slots[slot] = Some(packet);
    }

    /// The packet `seq`; `None` when it was lost for good, or is too old or not there yet.
    pub fn get(&self, seq: u64) -> Option<&Arc<Packet>> {
        let slot = (seq % self.slots.len() as u64) as usize;
        self.slots[slot].as_ref().filter(|packet| packet.seq == seq)
    }

    /// One past the newest packet: where the live edge goes on.
    pub fn end(&self) -> Option<u64> {
        self.end
    }

    /// The oldest `seq` that may still be here.
    pub fn start(&self) -> Option<u64> {
        self.end.map(|end| end.saturating_sub(self.slots.len() as u64))
    }

    /// Where a newcomer starts: the first packet of the current GOP, unless it is
    /// too old or gone from the ring.
    pub fn gop_start(&self) -> Option<u64> {
        let first = self.get(self.gop?.seq)?;
        let newest = self.get(self.end?.checked_sub(1)?)?;
        let age = newest.received.saturating_duration_since(first.received);
        (age <= MAX_GOP_AGE).then_some(first.seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Utc;
    use bytes::Bytes;
    use std::time::Instant;

    fn packet(seq: u64, timestamp: u64, keyframe: bool, received: Instant) -> Arc<Packet> {
        let payload = Bytes::from_static(b"x");
        let capture = Utc::default();
        Arc::new(Packet { seq, timestamp, marker: true, keyframe, capture, received, payload })
    }

    #[test]
    fn finds_what_it_was_given_and_nothing_else() {
        let t = Instant::now();
        let mut cache = LayerCache::new(MediaKind::Audio);
        for seq in (0..1000).filter(|seq| seq % 10 != 3) {
            cache.push(packet(seq, seq, true, t));
        }
        assert_eq!(cache.end(), Some(1000));
        for seq in 0..1100 {
            let expected = (744..1000).contains(&seq) && seq % 10 != 3;
            assert_eq!(cache.get(seq).is_some(), expected, "{seq}");
        }
        cache.push(packet(1_000_000, 5, true, t));
        assert_eq!((0..1_000_000).filter(|seq| cache.get(*seq).is_some()).count(), 0);
    }

    #[test]
    fn a_gop_starts_at_the_first_packet_of_its_keyframe() {
        let t = Instant::now();
        let mut cache = LayerCache::new(MediaKind::Video);
        assert_eq!(cache.gop_start(), None);
        for seq in 0..10 {
            cache.push(packet(seq, seq / 3, seq / 3 == 2, t));
        }
        assert_eq!(cache.gop_start(), Some(6));
    }

    #[test]
    fn an_old_or_overwritten_gop_is_no_start() {
        let t = Instant::now();
        let mut cache = LayerCache::new(MediaKind::Video);
        cache.push(packet(0, 0, true, t));
        cache.push(packet(1, 1, false, t + MAX_GOP_AGE));
        assert_eq!(cache.gop_start(), Some(0));
        cache.push(packet(2, 2, false, t + MAX_GOP_AGE + Duration::from_millis(1)));
        assert_eq!(cache.gop_start(), None);
        cache.push(packet(3, 3, true, t));
        for seq in 4..4 + VIDEO_SLOTS as u64 {
            cache.push(packet(seq, seq, false, t));
        }
        assert_eq!(cache.gop_start(), None);
    }
}
