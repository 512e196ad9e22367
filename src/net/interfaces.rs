//! What this host says of its network interfaces: their addresses, which of those
//! may be announced, and how fast the interfaces are.
//!
//! Everything is read once, as a snapshot; what is decided with it is in
//! [`super::addresses`] and takes the snapshot as an argument.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// Documentation addresses (RFC 5737, RFC 3849): routed like any address of the
/// internet, and nothing is ever sent to them.
const PROBES: [IpAddr; 2] = [
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
];

/// Flags of an address in `/proc/net/if_inet6` (`linux/if_addr.h`) that make it one
/// not to announce: it changes by itself (temporary, RFC 8981), is on its way out
/// (deprecated), is a duplicate, or not yet known not to be one (tentative).
const UNSTABLE: u32 = IFA_TEMPORARY | IFA_DADFAILED | IFA_DEPRECATED | IFA_TENTATIVE;
const IFA_TEMPORARY: u32 = 0x01;
const IFA_DADFAILED: u32 = 0x08;
const IFA_DEPRECATED: u32 = 0x20;
const IFA_TENTATIVE: u32 = 0x40;

/// One address of one interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceAddress {
    /// The interface, as `ip link` names it.
    pub interface: String,
    /// The address.
    pub ip: IpAddr,
    /// It will still be there tomorrow, as far as the system says: not a temporary or
    /// deprecated IPv6 address. True where the system does not say.
    pub stable: bool,
}

/// A snapshot of the host's addresses and routes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// The addresses of all interfaces that are up, in the system's order.
    pub addresses: Vec<InterfaceAddress>,
    /// The source addresses of the default routes, IPv6 first.
    pub routes: Vec<IpAddr>,
}

impl Host {
    /// Reads the snapshot. What cannot be read is left out.
    pub fn read() -> Self {
        let unstable = fs::read_to_string("/proc/net/if_inet6")
            .map(|text| unstable_addresses(&text))
            .unwrap_or_default();
        let address = |interface: if_addrs::Interface| {
            let ip = interface.ip();
            InterfaceAddress { interface: interface.name, ip, stable: !unstable.contains(&ip) }
        };
        let all = if_addrs::get_if_addrs().unwrap_or_else(|error| {
            tracing::warn!(%error, "the addresses of this host cannot be read");
            Vec::new()
        });
        Self {
            addresses: all.into_iter().map(address).collect(),
            routes: PROBES.into_iter().filter_map(source_towards).collect(),
        }
    }

    /// The speeds of the interfaces that carry `announced`, added up, in bit/s. An
    /// address that no interface has stands before a NAT, which sends it through the
    /// default routes. `None` when there is an interface whose speed the system does
    /// not know, as of most virtual ones; loopback has none and is not asked.
    pub fn egress_bps(&self, announced: &[IpAddr]) -> Option<u64> {
        self.egress_with(announced, speed_bps)
    }

    fn egress_with(
        &self,
        announced: &[IpAddr],
        speed: impl Fn(&str) -> Option<u64>,
    ) -> Option<u64> {
        let mut carriers = BTreeSet::new();
        for ip in announced.iter().filter(|ip| !ip.is_loopback()) {
            match self.interface_of(*ip) {
                Some(name) => carriers.extend([name]),
                None => {
                    carriers.extend(self.routes.iter().filter_map(|r| self.interface_of(*r)));
                }
            }
        }
        if carriers.is_empty() {
            return None;
        }
        carriers.into_iter().map(speed).try_fold(0_u64, |sum, bps| Some(sum.saturating_add(bps?)))
    }

    fn interface_of(&self, ip: IpAddr) -> Option<&str> {
        self.addresses.iter().find(|a| a.ip == ip).map(|address| address.interface.as_str())
    }
}

/// The addresses in the text of `/proc/net/if_inet6` that carry one of [`UNSTABLE`]:
/// address, interface index, prefix length, scope and flags in hexadecimal, and name.
fn unstable_addresses(text: &str) -> BTreeSet<IpAddr> {
    let unstable = |line: &str| {
        let mut fields = line.split_whitespace();
        let ip = u128::from_str_radix(fields.next()?, 16).ok()?;
        let flags = u32::from_str_radix(fields.nth(3)?, 16).ok()?;
        (flags & UNSTABLE != 0).then(|| IpAddr::V6(Ipv6Addr::from_bits(ip)))
    };
    text.lines().filter_map(unstable).collect()
}

/// Speed of a link, which the kernel tells in Mbit/s, and -1 when it does not know.
fn speed_bps(interface: &str) -> Option<u64> {
    // A name comes from the kernel here, never from a network, and has no slash.
    let text = fs::read_to_string(format!("/sys/class/net/{interface}/speed")).ok()?;
    let mbps: u64 = text.trim().parse().ok()?;
    (mbps > 0).then(|| mbps.saturating_mul(1_000_000))
}

/// Connecting a UDP socket asks the routing table and sends nothing.
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

    fn host(addresses: &[(&str, &str)], routes: &[&str]) -> Host {
        let address = |(interface, ip): &(&str, &str)| InterfaceAddress {
            interface: (*interface).to_owned(),
            ip: ip.parse().unwrap(),
            stable: true,
        };
        Host {
            addresses: addresses.iter().map(address).collect(),
            routes: routes.iter().map(|ip| ip.parse().unwrap()).collect(),
        }
    }

    #[test]
    fn the_kernels_table_says_which_addresses_do_not_last() {
        let text = "fe8000000000000000fc00fffe000001 04 40 20 80     eth0\n\
                    20010db8000000000000000000000001 04 40 00 80     eth0\n\
                    20010db8000000000000000000000002 04 40 00 01     eth0\n\
                    20010db8000000000000000000000003 04 40 00 20     eth0\n\
                    20010db8000000000000000000000004 04 40 00 c8     eth0\n\
                    not a line of it\n20010db8000000000000000000000005 04\n";
        let found: Vec<_> = unstable_addresses(text).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["2001:db8::2", "2001:db8::3", "2001:db8::4"]);
    }

    #[test]
    fn speeds_of_the_carrying_interfaces_add_up() {
        let addresses = [
            ("lo", "127.0.0.1"),
            ("eth0", "192.0.2.7"),
            ("eth0", "2001:db8::7"),
            ("eth1", "198.51.100.7"),
            ("veth0", "10.0.0.1"),
        ];
        let host = host(&addresses, &["192.0.2.7"]);
        let speed = |name: &str| match name {
            "eth0" => Some(10_000_000_000),
            "eth1" => Some(1_000_000_000),
            _ => None,
        };
        let of = |ips: &[&str]| {
            let ips: Vec<IpAddr> = ips.iter().map(|ip| ip.parse().unwrap()).collect();
            host.egress_with(&ips, speed)
        };
        assert_eq!(of(&["192.0.2.7", "2001:db8::7"]), Some(10_000_000_000), "one interface");
        assert_eq!(of(&["192.0.2.7", "198.51.100.7", "127.0.0.1"]), Some(11_000_000_000));
        assert_eq!(of(&["203.0.113.1"]), Some(10_000_000_000), "NAT: through the default route");
        assert_eq!(of(&["192.0.2.7", "10.0.0.1"]), None, "one is not known");
        assert_eq!(of(&["127.0.0.1"]), None);
    }

    #[test]
    fn the_snapshot_of_this_host_is_plausible() {
        let host = Host::read();
        assert!(host.addresses.iter().any(|a| a.ip.is_loopback()), "{host:?}");
        assert!(host.routes.iter().all(|ip| !ip.is_unspecified()), "{host:?}");
    }
}
