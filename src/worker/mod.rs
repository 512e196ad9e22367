//! The media workers: one thread per core, each with a socket on the one media
//! port, and everything that happens to its peers.
//!
//! A worker owns its peers outright: the one that receives the first binding
//! request for a session keeps it. What reaches a worker from elsewhere comes
//! through its mailbox; what two workers share is immutable. So no lock stands on
//! the packet path, and a peer's state is only ever touched by one thread.

mod core;
mod directory;
mod headroom;
mod mailbox;
mod peer;
mod placement;
mod pool;
mod run;
mod session;
mod stats;
mod streams;
#[cfg(test)]
mod tests;

pub use crate::egress::fanout::{Sent, WatchedTrack, Watching};
pub use directory::{SessionLimits, SessionView, TooManySessions};
pub use headroom::{HeadroomLimits, Refusal};
pub use pool::{ChooseError, CloseError, MediaPool, PoolSettings};
pub use session::{NewRole, NewSession, OwnerWaker, SessionId, SessionKind};
pub use stats::{REJECT_REASONS, WorkerTotals};
