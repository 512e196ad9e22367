//! How the media port's sockets are opened, and what they are asked for.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, RawFd};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::Traffic;
use crate::net::dscp::Dscp;

/// What the sockets of the media port have in common.
#[derive(Clone, Debug)]
pub struct UdpSettings {
    /// The port; 0 lets the system choose for the first socket.
    pub port: u16,
    /// Whether peers may come over IPv6.
    pub ipv6: bool,
    /// `SO_RCVBUF` and `SO_SNDBUF` in bytes; the system may give less.
    pub buffer_bytes: usize,
    /// Whether runs of datagrams are given to the kernel as one message (GSO), where
    /// it can.
    pub gso: bool,
    /// How packets are marked.
    pub marking: Marking,
}

impl Default for UdpSettings {
    /// A free port, IPv4 only, 4 MiB of buffer, GSO, the default marking.
    fn default() -> Self {
        let marking = Marking::default();
        Self { port: 0, ipv6: false, buffer_bytes: 4 << 20, gso: true, marking }
    }
}

/// How packets are marked, by what they carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marking {
    /// Audio over SRTP.
    pub audio: Dscp,
    /// Video over SRTP.
    pub video: Dscp,
    /// STUN, DTLS, SRTCP.
    pub control: Dscp,
}

impl Default for Marking {
    /// All AF41: kinds that are marked differently overtake each other within their
    /// one 5-tuple, which misleads congestion control (RFC 7657 §5.1).
    fn default() -> Self {
        Self::all(Dscp::AF41)
    }
}

impl Marking {
    /// Everything alike.
    pub const fn all(dscp: Dscp) -> Self {
        Self { audio: dscp, video: dscp, control: dscp }
    }

    /// The TOS byte or traffic class of a packet that carries `traffic`.
    pub(super) const fn tos(&self, traffic: Traffic) -> u8 {
        match traffic {
            Traffic::Audio => self.audio.tos(),
            Traffic::Video => self.video.tos(),
            Traffic::Control => self.control.tos(),
        }
    }
}

/// Opens `count` sockets on the one media port, among which the kernel spreads
/// the peers by the hash of their addresses (`SO_REUSEPORT`).
///
/// # Errors
/// The system's error, with the address in the message.
pub fn open_sockets(settings: &UdpSettings, count: usize) -> io::Result<Vec<std::net::UdpSocket>> {
    if settings.port != 0 {
        // Without SO_REUSEPORT, so that a second gateway on the port is told and does
        // not take every other packet of the first.
        drop(open_socket(settings, settings.port, false)?);
    }
    let mut port = settings.port;
    let mut sockets = Vec::with_capacity(count);
    for _ in 0..count {
        let socket = open_socket(settings, port, true)?;
        port = socket.local_addr()?.port();
        sockets.push(socket);
    }
    Ok(sockets)
}

fn open_socket(settings: &UdpSettings, port: u16, shared: bool) -> io::Result<std::net::UdpSocket> {
    let (domain, ip) = if settings.ipv6 {
        (Domain::IPV6, IpAddr::V6(Ipv6Addr::UNSPECIFIED))
    } else {
        (Domain::IPV4, IpAddr::V4(Ipv4Addr::UNSPECIFIED))
    };
    let address = SocketAddr::new(ip, port);
    let open = || {
        let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
        if settings.ipv6 {
            socket.set_only_v6(false)?;
        }
        tell_local_addresses(&socket, settings.ipv6)?;
        socket.set_reuse_port(shared)?;
        socket.set_nonblocking(true)?;
        socket.set_recv_buffer_size(settings.buffer_bytes)?;
        socket.set_send_buffer_size(settings.buffer_bytes)?;
        socket.bind(&address.into())?;
        Ok(socket.into())
    };
    open().map_err(|error: io::Error| {
        io::Error::new(error.kind(), format!("media port {address}/udp: {error}"))
    })
}

/// Asks that each datagram come with the address of ours that it was sent to; an IPv6
/// socket tells it of IPv4 ones too, mapped.
fn tell_local_addresses(socket: &Socket, ipv6: bool) -> io::Result<()> {
    let (level, name) = if ipv6 {
        (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO)
    } else {
        (libc::IPPROTO_IP, libc::IP_PKTINFO)
    };
    let on: libc::c_int = 1;
    // SAFETY: the pointer is to a local of the given size that outlives the call.
    let result = unsafe {
        let length = size_of_val(&on) as libc::socklen_t;
        libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const on).cast(), length)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// What the packets of a socket are marked with when their message says nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SocketMark {
    /// TOS byte of IPv4 packets, also of those to mapped peers.
    pub(super) ipv4: u8,
    /// Traffic class of IPv6 packets.
    pub(super) ipv6: u8,
}

/// Marks the socket with what most packets carry: control messages of more than 36
/// bytes cost the kernel an allocation (`____sys_sendmsg`), and the segment length
/// takes 24. What is refused here is asked for with each message.
pub(super) fn mark_socket(socket: &impl AsFd, ipv6: bool, tos: u8) -> SocketMark {
    let socket = SockRef::from(socket);
    let set = |done: io::Result<()>| if done.is_ok() { tos } else { 0 };
    let mark = SocketMark {
        ipv4: set(socket.set_tos_v4(tos.into())),
        ipv6: if ipv6 { set(socket.set_tclass_v6(tos.into())) } else { 0 },
    };
    // With the mark the kernel sets this, by the rules of RFC 1349, which make AF41 bulk:
    // the last band of the host's own queue (pfifo_fast). Zero is as unmarked.
    let _ = socket.set_priority(0);
    mark
}

/// Whether the kernel knows `UDP_SEGMENT` (Linux 4.18). That it knows it does not mean
/// that every route takes it: see [`super::send`].
pub(super) fn knows_gso(socket: RawFd) -> bool {
    let mut value: libc::c_int = 0;
    let mut length = size_of_val(&value) as libc::socklen_t;
    // SAFETY: both pointers are to locals that outlive the call, and `length` is the
    // size of what the first points at.
    let result = unsafe {
        libc::getsockopt(
            socket,
            libc::SOL_UDP,
            libc::UDP_SEGMENT,
            (&raw mut value).cast(),
            &raw mut length,
        )
    };
    result == 0
}
