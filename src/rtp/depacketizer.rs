//! Access units out of RTP payloads.
//!
//! An access unit is the payloads of one RTP timestamp (RFC 3550 §5.1). It is
//! complete with the marker bit, or when the next timestamp shows that the
//! marker was never set. It is delivered whole or not at all: a hole in the
//! sequence numbers within it, or next to it where it cannot be excluded that
//! its start or end was lost, drops it, and the next frame that is delivered
//! says `discontinuity`.

use std::time::Instant;

use bytes::Bytes;

use super::payload::av1::Av1Assembler;
use super::payload::h264::H264Assembler;
use super::payload::h265::H265Assembler;
use super::payload::vp8::Vp8Assembler;
use super::payload::vp9::Vp9Assembler;
use super::payload::{Assembler, Malformed};
use crate::codec::Codec;
use crate::media::{Frame, Packet};
use crate::time::Utc;

/// An access unit of more bytes is dropped: a keyframe of 4K at 100 Mbit/s stays well below.
const MAX_UNIT: usize = 8 << 20;

/// Rebuilds the access units of one layer.
///
/// The order of calls: [`Self::push`] each packet in rising `seq`; each call
/// returns at most one frame.
pub struct Depacketizer {
    /// None for Opus, whose packets are frames (RFC 7587 §4.2).
    assembler: Option<Box<dyn Assembler>>,
    /// The unit whose payloads come in.
    unit: Option<OpenUnit>,
    /// A second frame that one packet completed; the next call returns it. More
    /// cannot gather: a call that completes two frames follows one that completed none.
    ready: Option<Frame>,
    last_seq: Option<u64>,
    /// The last unit that ended while more packets of its timestamp may come: they are ignored.
    closed: Option<Closed>,
    started: bool,
    /// Something was lost since the last frame.
    lost: bool,
    dropped: u64,
}

struct Closed {
    timestamp: u64,
    /// It was delivered, so what still comes is missing in it.
    delivered: bool,
}

struct OpenUnit {
    timestamp: u64,
    capture: Utc,
    received: Instant,
    /// Packets were lost right before it, maybe of its own.
    after_gap: bool,
}

impl Depacketizer {
    /// For packets of `codec`.
    pub fn new(codec: Codec) -> Self {
        let assembler: Option<Box<dyn Assembler>> = match codec {
            Codec::H264 => Some(Box::new(H264Assembler::default())),
            Codec::H265 => Some(Box::new(H265Assembler::default())),
            Codec::Vp8 => Some(Box::new(Vp8Assembler::default())),
            Codec::Vp9 => Some(Box::new(Vp9Assembler::default())),
            Codec::Av1 => Some(Box::new(Av1Assembler::default())),
            Codec::Opus => None,
        };
        Self {
            assembler,
            unit: None,
            ready: None,
            last_seq: None,
            closed: None,
            started: false,
            lost: false,
            dropped: 0,
        }
    }

    /// Access units of which at least one packet came and that were not
    /// delivered whole: incomplete, malformed or too large.
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Takes the next packet of the layer; returns the access unit it completed.
    /// A packet whose `seq` does not rise is ignored.
    ///
    /// When a packet both shows that the unit before it is over and is a whole
    /// unit itself, the call returns the first and the next call the second.
    pub fn push(&mut self, packet: &Packet) -> Option<Frame> {
        if self.last_seq.is_some_and(|last| packet.seq <= last) {
            return self.ready.take();
        }
        // The stream is entered where it is: maybe in the middle of a unit.
        let gap = self.last_seq.is_none_or(|last| packet.seq != last + 1);
        self.lost |= gap && self.last_seq.is_some();
        self.last_seq = Some(packet.seq);
        if self.assembler.is_none() {
            return self.whole(packet);
        }
        let before = self.ready.take();
        let ended = self.end_unit_before(packet, gap);
        let own = self.append(packet, gap);
        let mut frames = [before, ended, own].into_iter().flatten();
        let first = frames.next();
        self.ready = frames.next();
        first
    }

    /// A packet that is a frame of its own.
    fn whole(&mut self, packet: &Packet) -> Option<Frame> {
        if packet.payload.is_empty() {
            self.dropped += 1;
            self.lost = true;
            return None;
        }
        Some(Frame {
            pts: packet.timestamp,
            dts: packet.timestamp,
            keyframe: true,
            discontinuity: std::mem::take(&mut self.lost),
            capture: packet.capture,
            received: packet.received,
            data: packet.payload.clone(),
        })
    }

    /// Ends the open unit when `packet` is of another one, or cannot join it.
    fn end_unit_before(&mut self, packet: &Packet, gap: bool) -> Option<Frame> {
        let unit = self.unit.as_mut()?;
        if gap {
            let own = unit.timestamp == packet.timestamp;
            self.drop_unit();
            if own {
                self.closed = Some(Closed { timestamp: packet.timestamp, delivered: false });
            }
            return None;
        }
        if unit.timestamp == packet.timestamp {
            return None;
        }
        if !self.assembler.as_ref()?.has_picture() {
            // Parameter sets sent ahead of their picture belong to it.
            unit.timestamp = packet.timestamp;
            unit.capture = packet.capture;
            return None;
        }
        self.deliver()
    }

    fn append(&mut self, packet: &Packet, gap: bool) -> Option<Frame> {
        if let Some(closed) = self.closed.as_mut().filter(|c| c.timestamp == packet.timestamp) {
            if std::mem::take(&mut closed.delivered) {
                self.count_drop();
            }
            return None;
        }
        self.closed = None;
        let unit = self.unit.get_or_insert(OpenUnit {
            timestamp: packet.timestamp,
            capture: packet.capture,
            received: packet.received,
            after_gap: gap,
        });
        unit.received = unit.received.max(packet.received);
        let assembler = self.assembler.as_mut()?;
        // Checked before the payload is taken in: it can pass the limit by its
        // own size, and by what longer length fields add to it.
        let fits = assembler.len().saturating_add(packet.payload.len()) <= MAX_UNIT;
        if !fits || assembler.append(&packet.payload).is_err() {
            self.drop_unit();
            self.closed = Some(Closed { timestamp: packet.timestamp, delivered: false });
            return None;
        }
        if !packet.marker || !assembler.has_picture() {
            return None;
        }
        let frame = self.deliver();
        let delivered = frame.is_some();
        self.closed = Some(Closed { timestamp: packet.timestamp, delivered });
        frame
    }

    /// Closes the open unit: it becomes a frame, unless it is not intact.
    fn deliver(&mut self) -> Option<Frame> {
        let open = self.unit.take()?;
        let finished = self.assembler.as_mut()?.finish();
        let unit = match finished {
            Ok(unit) if unit.head_intact || !open.after_gap => unit,
            Ok(_) | Err(Malformed) => {
                self.count_drop();
                return None;
            }
        };
        // A stream entered between keyframes lacks what its first frames refer to.
        let discontinuity = self.lost || (!self.started && !unit.keyframe);
        (self.started, self.lost) = (true, false);
        Some(Frame {
            pts: open.timestamp,
            dts: open.timestamp,
            keyframe: unit.keyframe,
            discontinuity,
            capture: open.capture,
            received: open.received,
            data: Bytes::from(unit.data),
        })
    }

    fn drop_unit(&mut self) {
        self.unit = None;
        self.count_drop();
    }

    fn count_drop(&mut self) {
        if let Some(assembler) = &mut self.assembler {
            assembler.reset();
        }
        self.dropped += 1;
        self.lost = true;
    }
}

#[cfg(test)]
#[path = "depacketizer_tests.rs"]
mod tests;
