//! The hub: which tables are live, and the hand-over of their media.
//!
//! A [`Publisher`] is the only way media enters; a [`Stream`] is what everybody
//! else holds of it. They share no lock on the packet path: whoever wants
//! something of a stream sends its publisher a command, and the publisher's own
//! thread carries it out between two packets.

mod egress;
mod gop;
mod name;
mod publisher;
mod registry;
mod sink;
mod stream;

pub use egress::{EgressCounts, EgressTotals};
pub use name::{InvalidTableName, TableName};
pub use publisher::{Publisher, PublisherEvent};
pub use registry::{PublishError, PublishRequest, Registry, RegistryEvent};
pub use sink::{FrameSink, PacketSink};
pub use stream::{
    EndReason, IngestCounters, LayerSnapshot, Stream, StreamBusy, StreamId, SubscriptionId,
};
