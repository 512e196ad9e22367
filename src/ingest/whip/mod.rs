//! WHIP publishers (RFC 9725): a receiver that puts the packets of the network
//! in order, and the way into the hub.

mod publisher;
pub mod receiver;

pub use publisher::WhipPublisher;
pub use receiver::ReceiverSettings;
