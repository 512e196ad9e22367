//! Where a publisher's media goes: the two kinds of subscriber.

use std::sync::Arc;

use crate::media::{Frame, LayerId, Packet};

/// Receives the packets of a stream. Called on the publisher's thread: it must
/// not block, and it drops and counts when its own queue is full.
pub trait PacketSink: Send {
    /// A packet of `layer`; packets of one layer come in order.
    fn packet(&mut self, layer: LayerId, packet: &Arc<Packet>);
    /// The stream is over; nothing comes after this.
    fn ended(&mut self);
}

/// Receives the frames of a stream; the same rules as [`PacketSink`].
pub trait FrameSink: Send {
    /// A frame of `layer`; frames of one layer come in decode order.
    fn frame(&mut self, layer: LayerId, frame: &Arc<Frame>);
    /// The stream is over; nothing comes after this.
    fn ended(&mut self);
}
