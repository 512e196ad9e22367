//! Socket addresses as the kernel reads and writes them.

use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Room for an address of either family: under a quarter of a `sockaddr_storage`.
#[derive(Clone, Copy)]
pub(super) union RawAddress {
    /// What both have first.
    family: libc::sa_family_t,
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

impl RawAddress {
    /// Bytes that the kernel may write.
    pub(super) const CAPACITY: libc::socklen_t = size_of::<Self>() as libc::socklen_t;

    /// Of no family.
    pub(super) fn empty() -> Self {
        // SAFETY: all-zero bytes are valid for every member.
        unsafe { mem::zeroed() }
    }

    /// `to` for a socket of the given family: an IPv6 socket reaches IPv4 by mapped
    /// addresses (RFC 4291 §2.5.5.2).
    pub(super) fn new(to: SocketAddr, ipv6: bool) -> Self {
        let mut raw = Self::empty();
        match to {
            SocketAddr::V4(to) if !ipv6 => {
                let mut v4 = Self::zeroed_v4();
                v4.sin_family = libc::AF_INET as libc::sa_family_t;
                v4.sin_port = to.port().to_be();
                v4.sin_addr.s_addr = u32::from(*to.ip()).to_be();
                raw.v4 = v4;
            }
            to => {
                let (ip, scope) = match to {
                    SocketAddr::V4(to) => (to.ip().to_ipv6_mapped(), 0),
                    SocketAddr::V6(to) => (*to.ip(), to.scope_id()),
                };
                let mut v6 = Self::zeroed_v6();
                v6.sin6_family = libc::AF_INET6 as libc::sa_family_t;
                v6.sin6_port = to.port().to_be();
                v6.sin6_addr.s6_addr = ip.octets();
                v6.sin6_scope_id = scope;
                raw.v6 = v6;
            }
        }
        raw
    }

    fn zeroed_v4() -> libc::sockaddr_in {
        // SAFETY: all-zero bytes are a valid sockaddr_in.
        unsafe { mem::zeroed() }
    }

    fn zeroed_v6() -> libc::sockaddr_in6 {
        // SAFETY: all-zero bytes are a valid sockaddr_in6.
        unsafe { mem::zeroed() }
    }

    /// The family: `AF_INET`, `AF_INET6`, or 0.
    fn family(&self) -> libc::c_int {
        // SAFETY: every member begins with the family, and all bytes are initialised.
        i32::from(unsafe { self.family })
    }

    /// Bytes of the address that is in it.
    pub(super) fn len(&self) -> libc::socklen_t {
        match self.family() {
            libc::AF_INET => size_of::<libc::sockaddr_in>() as libc::socklen_t,
            _ => size_of::<libc::sockaddr_in6>() as libc::socklen_t,
        }
    }

    /// The address; an IPv4 peer of a dual-stack socket as plain IPv4. `None` when
    /// it is of neither family.
    pub(super) fn get(&self) -> Option<SocketAddr> {
        match self.family() {
            libc::AF_INET => {
                // SAFETY: the family says that this member was written.
                let v4 = unsafe { &self.v4 };
                let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
                Some(SocketAddr::new(ip.into(), u16::from_be(v4.sin_port)))
            }
            libc::AF_INET6 => {
                // SAFETY: the family says that this member was written.
                let v6 = unsafe { &self.v6 };
                let ip = IpAddr::V6(Ipv6Addr::from(v6.sin6_addr.s6_addr)).to_canonical();
                Some(SocketAddr::new(ip, u16::from_be(v6.sin6_port)))
            }
            _ => None,
        }
    }
}
