//! The addresses that answers announce as ICE host candidates (RFC 8445 §5.1.1.1).
//!
//! What is configured is a list of sources ([`AddressSource`]): addresses, interfaces,
//! environment variables. [`resolve`] turns it into addresses, best first. A source
//! that was written down keeps its place; what one source yields has IPv6 first and
//! then alternates between the families, so that neither has to fail as a whole
//! before the other is tried (RFC 8421 §4).

use std::collections::VecDeque;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use super::interfaces::Host;

/// Candidates in an answer at most; those after are left out. Each is a pair that
/// every client checks, and 16 fit the SDP of a multi-homed dual-stack node.
pub const MAX_ADDRESSES: usize = 16;

/// Longest name of an interface (`IFNAMSIZ` of Linux less its zero byte).
const MAX_INTERFACE_NAME: usize = 15;

const ENVIRONMENT_PREFIX: &str = "env:";

/// Where an announced address comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddressSource {
    /// Itself.
    Ip(IpAddr),
    /// All global addresses of an interface.
    Interface(String),
    /// An environment variable with addresses separated by commas, as the downward
    /// API of Kubernetes sets it from `status.hostIP` or `status.hostIPs`.
    Environment(String),
}

/// Text that is no [`AddressSource`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an address, an interface or \"env:NAME\"")]
pub struct NoAddressSource;

impl FromStr for AddressSource {
    type Err = NoAddressSource;

    /// An address is one that a peer can send to. What looks like an address and is
    /// none (`192.0.2.300`, `192.0.2.1:8443`) is not taken for an interface.
    fn from_str(text: &str) -> Result<Self, NoAddressSource> {
        let text = text.trim();
        if let Some(name) = text.strip_prefix(ENVIRONMENT_PREFIX) {
            let name = name.trim();
            let valid = !name.is_empty() && !name.contains(['=', '\0', ',']);
            return valid.then(|| Self::Environment(name.to_owned())).ok_or(NoAddressSource);
        }
        if let Ok(ip) = text.parse::<IpAddr>() {
            return is_announceable(ip).then(|| Self::Ip(ip.to_canonical())).ok_or(NoAddressSource);
        }
        let is_name = (1..=MAX_INTERFACE_NAME).contains(&text.len())
            && text.chars().all(|c| c.is_ascii_graphic() && !matches!(c, '/' | ':' | ','))
            && !text.chars().all(|c| c.is_ascii_digit() || c == '.');
        is_name.then(|| Self::Interface(text.to_owned())).ok_or(NoAddressSource)
    }
}

impl fmt::Display for AddressSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => ip.fmt(f),
            Self::Interface(name) => f.write_str(name),
            Self::Environment(name) => write!(f, "{ENVIRONMENT_PREFIX}{name}"),
        }
    }
}

/// Why a source yields no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// No such interface.
    #[error("there is no interface \"{name}\" that is up and has an address; there are: {known}")]
    NoInterface {
        /// As configured.
        name: String,
        /// Those that there are.
        known: String,
    },
    /// Only addresses that cannot be announced.
    #[error(
        "interface \"{0}\" has no global address, only link-local, temporary or deprecated ones"
    )]
    NoGlobalAddress(String),
    /// No such variable, or an empty one.
    #[error("the environment variable {0} is not set; expected IP addresses separated by commas")]
    NoVariable(String),
    /// The variable holds something else.
    #[error(
        "the environment variable {name} holds {value:?}; expected IP addresses separated by commas"
    )]
    BadVariable {
        /// The variable.
        name: String,
        /// The piece that is no address.
        value: String,
    },
}

/// The addresses to announce, best first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announced {
    /// Distinct, at least one, at most [`MAX_ADDRESSES`].
    pub addresses: Vec<IpAddr>,
    /// How many more there were.
    pub left_out: usize,
}

/// Turns `sources` into addresses. None means the addresses of the host's default
/// routes, or loopback when it has none.
///
/// # Errors
/// [`AddressError`] of the first source that yields nothing.
pub fn resolve(
    sources: &[AddressSource],
    host: &Host,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<Announced, AddressError> {
    let mut found = Vec::new();
    for source in sources {
        match source {
            AddressSource::Ip(ip) => found.push(*ip),
            AddressSource::Interface(name) => found.extend(of_interface(name, host)?),
            AddressSource::Environment(name) => {
                found.extend(of_variable(name, environment(name))?);
            }
        }
    }
    if sources.is_empty() {
        found = interleaved(host.routes.iter().map(|route| lasting(*route, host)).collect());
    }
    let mut addresses: Vec<IpAddr> = Vec::new();
    for ip in found {
        if !addresses.contains(&ip) {
            addresses.push(ip);
        }
    }
    if addresses.is_empty() {
        addresses.push(Ipv4Addr::LOCALHOST.into());
    }
    let left_out = addresses.len().saturating_sub(MAX_ADDRESSES);
    addresses.truncate(MAX_ADDRESSES);
    Ok(Announced { addresses, left_out })
}

fn of_interface(name: &str, host: &Host) -> Result<Vec<IpAddr>, AddressError> {
    let on_it: Vec<_> = host.addresses.iter().filter(|a| a.interface == name).collect();
    if on_it.is_empty() {
        let mut known: Vec<&str> = host.addresses.iter().map(|a| a.interface.as_str()).collect();
        known.sort_unstable();
        known.dedup();
        return Err(AddressError::NoInterface { name: name.to_owned(), known: known.join(", ") });
    }
    let usable = on_it.iter().filter(|a| a.stable && is_announceable(a.ip)).map(|a| a.ip);
    let usable = interleaved(usable.collect());
    match usable.is_empty() {
        true => Err(AddressError::NoGlobalAddress(name.to_owned())),
        false => Ok(usable),
    }
}

fn of_variable(name: &str, value: Option<String>) -> Result<Vec<IpAddr>, AddressError> {
    let value = value.unwrap_or_default();
    let pieces: Vec<&str> = value.split(',').map(str::trim).filter(|p| !p.is_empty()).collect();
    if pieces.is_empty() {
        return Err(AddressError::NoVariable(name.to_owned()));
    }
    let address = |piece: &&str| match piece.parse::<IpAddr>() {
        Ok(ip) if is_announceable(ip) => Ok(ip.to_canonical()),
        _ => Err(AddressError::BadVariable { name: name.to_owned(), value: (*piece).to_owned() }),
    };
    // Whoever sets it puts the node's primary address first: the order is kept.
    pieces.iter().map(address).collect()
}

/// The system prefers temporary addresses for what it sends (RFC 6724 §5 rule 7). They
/// are gone in a day, so another one of the same interface is announced instead.
fn lasting(route: IpAddr, host: &Host) -> IpAddr {
    let Some(carrier) = host.addresses.iter().find(|a| a.ip == route && !a.stable) else {
        return route;
    };
    let better = host.addresses.iter().find(|a| {
        a.interface == carrier.interface
            && a.stable
            && a.ip.is_ipv6() == route.is_ipv6()
            && is_announceable(a.ip)
    });
    better.map_or(route, |a| a.ip)
}

/// Alternates between the families, IPv6 first, each in its own order (RFC 8421 §4).
fn interleaved(addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    let mut ordered = Vec::with_capacity(addresses.len());
    let (mut v6, mut v4): (VecDeque<IpAddr>, VecDeque<IpAddr>) =
        addresses.into_iter().map(|ip| ip.to_canonical()).partition(IpAddr::is_ipv6);
    while !(v6.is_empty() && v4.is_empty()) {
        ordered.extend(v6.pop_front());
        ordered.extend(v4.pop_front());
    }
    ordered
}

/// Whether a peer could send to it. IPv6 link-local addresses mean nothing without
/// the peer's own interface (RFC 8445 §5.1.1.1).
fn is_announceable(ip: IpAddr) -> bool {
    let link_local_v6 = match ip {
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
        IpAddr::V4(v4) => v4.is_broadcast(),
    };
    !(ip.is_unspecified() || ip.is_multicast() || link_local_v6)
}

#[cfg(test)]
#[path = "addresses_tests.rs"]
mod tests;
