//! The two ends of a datagram's way.

use std::net::{IpAddr, SocketAddr};

/// Where a peer is, and at which of our addresses it reaches us. Answers must leave
/// from the address that was asked (RFC 8445 §7.3.1.2), which on a host with several
/// is not the one that the system would choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Route {
    /// The peer's address.
    pub peer: SocketAddr,
    /// Ours; `None` leaves the choice to the system.
    pub local: Option<IpAddr>,
}

impl From<SocketAddr> for Route {
    /// A route that leaves from whichever address the system chooses.
    fn from(peer: SocketAddr) -> Self {
        Self { peer, local: None }
    }
}
