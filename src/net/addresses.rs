//! The addresses under which this host can be reached, when none are configured.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// Documentation addresses (RFC 5737, RFC 3849): routed like any address of the
/// internet, and nothing is ever sent to them.
const PROBES: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
];

/// The source addresses of this host's default routes, IPv4 first; loopback when it
/// has none. Connecting a UDP socket asks the routing table and sends nothing.
pub fn own_addresses() -> Vec<IpAddr> {
    let mut own: Vec<_> = PROBES.into_iter().filter_map(source_towards).collect();
    if own.is_empty() {
        own.push(Ipv4Addr::LOCALHOST.into());
    }
    own
}

fn source_towards(probe: IpAddr) -> Option<IpAddr> {
    let any: IpAddr = match probe {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).ok()?;
    socket.connect(SocketAddr::new(probe, 9)).ok()?;
    let own = socket.local_addr().ok()?.ip();
    (!own.is_unspecified()).then_some(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_always_an_address() {
        let own = own_addresses();
        assert!(!own.is_empty());
        assert!(own.iter().all(|address| !address.is_unspecified()), "{own:?}");
    }
}
