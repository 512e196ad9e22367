//! The ring of one layer on one worker: what every viewer there is sent from,
//! now, again after a loss, and from the start of the GOP for a newcomer.

use std::sync::Arc;
use std::time::Duration;

use crate::codec::{Codec, MediaKind};
use crate::media::Packet;
use crate::rtp::rewrite::PictureNumbers;
use crate::time::Utc;

/// Packets kept of a video layer: 4 s at 5 Mbit/s. An older one is not resent. Powers of two.
const VIDEO_SLOTS: usize = 2048;
/// Packets kept of an audio layer: 5 s of 20 ms frames.
const AUDIO_SLOTS: usize = 256;
/// A GOP that began longer ago is not replayed: the newcomer would start that far
/// behind, and catch up only as fast as its decoder can.
const MAX_GOP_AGE: Duration = Duration::from_secs(4);
/// Padding of one packet at most: browsers cut a frame into packets that differ by a
/// byte or two, other publishers leave a short last one, which may stay short.
const MAX_PADDING: usize = 32;

/// Capture time goes out with a frame this long after the last that carried it, and
/// with keyframes: receivers reckon those between (abs-capture-time, "interpolation").
const STAMP_INTERVAL_MICROS: i64 = 500_000;

/// One packet, and what it has in common for all its viewers.
pub struct Slot {
    /// The packet.
    pub packet: Arc<Packet>,
    /// Bytes of RTP padding that make it as long as its neighbours; 0 is none. Set
    /// before the packet is first sent and never changed: a packet that is resent as it
    /// was must be sealed from the same plaintext (RFC 7714 §8.4).
    pub padding: u8,
    /// All packets of its frame carry capture time, and those of a keyframe playout
    /// delay: by whole frames, so that all headers of a frame are of one length.
    pub stamped: bool,
    /// Its picture numbers, which go on over a change of layer.
    pub numbers: PictureNumbers,
}

/// The latest packets of one layer. owner: the worker.
///
/// Packets are pushed as they come, and released together: a frame as a whole where
/// possible, because its packets then leave in few system calls.
pub struct Ring {
    codec: Codec,
    slots: Vec<Option<Slot>>,
    /// One past the highest `seq` seen; `None` before the first packet.
    end: Option<u64>,
    /// One past the highest `seq` that viewers may be sent.
    released: u64,
    gop: Option<GopStart>,
    frame: Option<FrameStamp>,
}

#[derive(Clone, Copy)]
struct GopStart {
    seq: u64,
    timestamp: u64,
}

/// The newest frame, and when capture time was last sent.
#[derive(Clone, Copy)]
struct FrameStamp {
    timestamp: u64,
    stamped: bool,
    last: Utc,
}

impl Ring {
    /// An empty ring for a layer of `codec`.
    pub fn new(codec: Codec) -> Self {
        let len = match codec.kind() {
            MediaKind::Audio => AUDIO_SLOTS,
            MediaKind::Video => VIDEO_SLOTS,
        };
        let slots = std::iter::repeat_with(|| None).take(len).collect();
        Self { codec, slots, end: None, released: 0, gop: None, frame: None }
    }

    /// Adds the next packet; packets come in rising `seq`, others are dropped. Nobody is sent it before
    /// [`Self::release`].
    pub fn push(&mut self, packet: Arc<Packet>) {
        if self.end.is_some_and(|end| packet.seq < end) {
            // Whatever may have been sent must stay as it is.
            return;
        }
        let len = self.slots.len() as u64;
        if self.end.is_none() {
            self.released = packet.seq;
        }
        let next = self.end.unwrap_or(packet.seq);
        // The holes of packets lost for good must not show the ring's last lap.
        for lost in next.max(packet.seq.saturating_sub(len))..packet.seq {
            let slot = self.place(lost);
            self.slots[slot] = None;
        }
        if packet.keyframe && self.gop.is_none_or(|gop| gop.timestamp != packet.timestamp) {
            self.gop = Some(GopStart { seq: packet.seq, timestamp: packet.timestamp });
        }
        let stamped = self.stamp(&packet);
        self.end = Some(packet.seq + 1);
        let slot = self.place(packet.seq);
        let numbers = PictureNumbers::parse(self.codec, &packet.payload);
        self.slots[slot] = Some(Slot { packet, padding: 0, stamped, numbers });
    }

    /// Lets viewers be sent everything that was pushed.
    pub fn release(&mut self) {
        let Some(end) = self.end else { return };
        // What the ring has overtaken since is not there to be evened.
        let mut at = self.released.max(end.saturating_sub(self.slots.len() as u64));
        while at < end {
            at = self.even_run(at, end);
        }
        self.released = end;
    }

    /// The packet `seq`; `None` when it was lost for good, or is too old or not there yet.
    pub fn get(&self, seq: u64) -> Option<&Slot> {
        self.slots[self.place(seq)].as_ref().filter(|slot| slot.packet.seq == seq)
    }

    /// One past the newest released packet: where the live edge goes on. `None` before
    /// the first.
    pub fn end(&self) -> Option<u64> {
        self.end.map(|_| self.released)
    }

    /// Packets that wait to be released.
    pub fn held(&self) -> u64 {
        self.end.map_or(0, |end| end - self.released)
    }

    /// The oldest `seq` that may still be here.
    pub fn start(&self) -> Option<u64> {
        self.end.map(|end| end.saturating_sub(self.slots.len() as u64))
    }

    /// Where a newcomer starts: the first packet of the current GOP, unless it is
    /// too old, gone from the ring or not released.
    pub fn gop_start(&self) -> Option<u64> {
        let first = &self.get(self.gop?.seq)?.packet;
        let newest = &self.get(self.end?.checked_sub(1)?)?.packet;
        let age = newest.received.saturating_duration_since(first.received);
        (age <= MAX_GOP_AGE && first.seq < self.released).then_some(first.seq)
    }

    /// The index of the slot of `seq`. Lengths are powers of two.
    fn place(&self, seq: u64) -> usize {
        (seq as usize) & (self.slots.len() - 1)
    }

    /// Whether the frame of `packet`, the next one, carries capture time.
    fn stamp(&mut self, packet: &Packet) -> bool {
        if let Some(frame) = self.frame.filter(|frame| frame.timestamp == packet.timestamp) {
            return frame.stamped;
        }
        let due = |frame: FrameStamp| {
            !(0..STAMP_INTERVAL_MICROS).contains(&packet.capture.micros_since(frame.last))
        };
        // Every packet of audio is a random access point.
        let keyframe = packet.keyframe && self.codec.kind() == MediaKind::Video;
        let stamped = keyframe || self.frame.is_none_or(due);
        let last = match self.frame {
            Some(frame) if !stamped => frame.last,
            _ => packet.capture,
        };
        self.frame = Some(FrameStamp { timestamp: packet.timestamp, stamped, last });
        stamped
    }

    /// Evens the packets of one frame from `at` on that differ little in length: all
    /// but the last of a run must be equally long to leave in one system call. Returns
    /// where the next run starts, at most `end`.
    fn even_run(&mut self, at: u64, end: u64) -> u64 {
        let Some(first) = self.get(at) else { return at + 1 };
        let timestamp = first.packet.timestamp;
        let len = |slot: &Slot| slot.packet.payload.len();
        let (mut shortest, mut longest) = (len(first), len(first));
        let mut next = at + 1;
        while next < end
            && let Some(slot) = self.get(next).filter(|slot| slot.packet.timestamp == timestamp)
        {
            let (low, high) = (shortest.min(len(slot)), longest.max(len(slot)));
            if high - low > MAX_PADDING {
                break;
            }
            (shortest, longest) = (low, high);
            next += 1;
        }
        for seq in at..next {
            let place = self.place(seq);
            if let Some(slot) = &mut self.slots[place] {
                slot.padding = (longest - slot.packet.payload.len()) as u8;
            }
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use std::time::Instant;

    fn packet(seq: u64, timestamp: u64, keyframe: bool, received: Instant) -> Arc<Packet> {
        let payload = Bytes::from_static(b"x");
        let capture = Utc::default();
        Arc::new(Packet { seq, timestamp, marker: true, keyframe, capture, received, payload })
    }

    fn released(packets: impl IntoIterator<Item = Arc<Packet>>) -> Ring {
        let mut ring = Ring::new(Codec::H264);
        packets.into_iter().for_each(|packet| ring.push(packet));
        ring.release();
        ring
    }

    fn sized(seq: u64, timestamp: u64, len: usize) -> Arc<Packet> {
        let packet = Packet::clone(&packet(seq, timestamp, false, Instant::now()));
        Arc::new(Packet { payload: vec![0; len].into(), ..packet })
    }

    #[test]
    fn finds_what_it_was_given_and_nothing_else() {
        let t = Instant::now();
        let mut ring = Ring::new(Codec::Opus);
        for seq in (0..1000).filter(|seq| seq % 10 != 3) {
            ring.push(packet(seq, seq, true, t));
        }
        assert_eq!(ring.end(), Some(0), "nothing is released");
        ring.release();
        assert_eq!(ring.end(), Some(1000));
        for seq in 0..1100 {
            let expected = (744..1000).contains(&seq) && seq % 10 != 3;
            assert_eq!(ring.get(seq).is_some(), expected, "{seq}");
        }
        ring.push(packet(1_000_000, 5, true, t));
        assert_eq!((0..1_000_000).filter(|seq| ring.get(*seq).is_some()).count(), 0);
    }

    #[test]
    fn a_gop_starts_at_the_first_packet_of_its_keyframe() {
        let t = Instant::now();
        let mut ring = Ring::new(Codec::H264);
        assert_eq!(ring.gop_start(), None);
        for seq in 0..10 {
            ring.push(packet(seq, seq / 3, seq / 3 == 2, t));
        }
        assert_eq!(ring.gop_start(), None, "not released");
        ring.release();
        assert_eq!(ring.gop_start(), Some(6));
    }

    #[test]
    fn packets_of_a_frame_that_differ_little_are_evened() {
        let lengths = [30, 1188, 1187, 1188, 1160, 500, 1200, 1200, 90];
        let frames = [0, 0, 0, 0, 0, 0, 1, 2, 2];
        let packets = lengths.iter().zip(frames).enumerate();
        let ring = released(packets.map(|(i, (len, frame))| sized(i as u64, frame, *len)));
        let padding: Vec<u8> = (0..9).map(|seq| ring.get(seq).unwrap().padding).collect();
        assert_eq!(padding, [0, 0, 1, 0, 28, 0, 0, 0, 0]);
    }

    #[test]
    fn padding_does_not_change_once_a_packet_may_have_been_sent() {
        let mut ring = released([sized(0, 0, 100), sized(1, 0, 99)]);
        ring.push(sized(2, 0, 110));
        ring.release();
        let padding: Vec<u8> = (0..3).map(|seq| ring.get(seq).unwrap().padding).collect();
        assert_eq!(padding, [0, 1, 0]);
    }

    #[test]
    fn what_comes_twice_changes_nothing() {
        let mut ring = released([sized(0, 0, 100), sized(1, 0, 90)]);
        ring.push(sized(1, 0, 90));
        ring.push(sized(0, 0, 80));
        ring.release();
        let slots = [0, 1].map(|seq| ring.get(seq).unwrap());
        assert_eq!(
            slots.map(|slot| (slot.packet.payload.len(), slot.padding)),
            [(100, 0), (90, 10)]
        );
        assert_eq!((ring.end(), ring.held()), (Some(2), 0));
    }

    #[test]
    fn capture_time_goes_with_keyframes_and_twice_a_second_by_whole_frames() {
        let at = |seq: u64, frame: u64, keyframe| {
            let packet = Packet::clone(&packet(seq, frame * 3000, keyframe, Instant::now()));
            let capture = Utc::default().offset_micros(frame as i64 * 33_333);
            Arc::new(Packet { capture, ..packet })
        };
        let ring = released((0..90).map(|seq| at(seq, seq / 2, seq / 2 == 20)));
        let stamped: Vec<u64> =
            (0..90).filter(|seq| ring.get(*seq).unwrap().stamped).map(|seq| seq / 2).collect();
        assert_eq!(stamped, [0, 0, 16, 16, 20, 20, 36, 36]);
    }

    #[test]
    fn an_old_or_overwritten_gop_is_no_start() {
        let t = Instant::now();
        let mut ring = Ring::new(Codec::H264);
        ring.push(packet(0, 0, true, t));
        ring.push(packet(1, 1, false, t + MAX_GOP_AGE));
        ring.release();
        assert_eq!(ring.gop_start(), Some(0));
        ring.push(packet(2, 2, false, t + MAX_GOP_AGE + Duration::from_millis(1)));
        ring.release();
        assert_eq!(ring.gop_start(), None);
        ring.push(packet(3, 3, true, t));
        for seq in 4..4 + VIDEO_SLOTS as u64 {
            ring.push(packet(seq, seq, false, t));
        }
        ring.release();
        assert_eq!(ring.gop_start(), None);
    }
}
