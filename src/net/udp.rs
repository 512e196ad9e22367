//! The media port's sockets: many datagrams a system call, both ways.
//!
//! The only module with `unsafe`: `recvmmsg` and `sendmmsg` take arrays of
//! pointers, which are built for each call from slices that outlive it.
#![allow(unsafe_code)]

use std::io;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};

use socket2::{Domain, Protocol, Socket, Type};

use crate::route::Route;

/// Datagrams taken or given in one system call.
pub const BATCH: usize = 64;
/// Longest datagram taken whole; a longer one cannot be media of ours and is dropped.
pub const MAX_DATAGRAM: usize = 2048;

/// What the sockets of the media port have in common.
#[derive(Clone, Debug)]
pub struct UdpSettings {
    /// The port; 0 lets the system choose for the first socket.
    pub port: u16,
    /// Whether peers may come over IPv6.
    pub ipv6: bool,
    /// `SO_RCVBUF` and `SO_SNDBUF` in bytes; the system may give less.
    pub buffer_bytes: usize,
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

/// Room for one batch of received datagrams.
pub struct ReceiveBatch {
    buffers: Vec<[u8; MAX_DATAGRAM]>,
    addresses: Vec<libc::sockaddr_storage>,
    lengths: Vec<usize>,
    filled: usize,
}

impl Default for ReceiveBatch {
    fn default() -> Self {
        Self {
            buffers: vec![[0; MAX_DATAGRAM]; BATCH],
            addresses: vec![zeroed_address(); BATCH],
            lengths: vec![0; BATCH],
            filled: 0,
        }
    }
}

impl ReceiveBatch {
    /// Takes what is waiting, at most [`BATCH`] datagrams; returns how many.
    ///
    /// # Errors
    /// The system's error; `WouldBlock` when nothing is waiting.
    pub fn receive(&mut self, socket: &impl AsRawFd) -> io::Result<usize> {
        self.filled = 0;
        let mut vectors = [EMPTY_VECTOR; BATCH];
        let mut headers = [EMPTY_HEADER; BATCH];
        for (i, buffer) in self.buffers.iter_mut().enumerate() {
            vectors[i].iov_base = buffer.as_mut_ptr().cast();
            vectors[i].iov_len = MAX_DATAGRAM;
            headers[i].msg_hdr.msg_name = (&raw mut self.addresses[i]).cast();
            headers[i].msg_hdr.msg_namelen = ADDRESS_LEN;
            headers[i].msg_hdr.msg_iov = &raw mut vectors[i];
            headers[i].msg_hdr.msg_iovlen = 1;
        }
        // SAFETY: every header points at one buffer and one address of `self`, and at
        // one vector of this frame; all of them outlive the call and none is shared.
        let count = unsafe {
            let flags = libc::MSG_DONTWAIT;
            let no_timeout = std::ptr::null_mut();
            libc::recvmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                BATCH as u32,
                flags,
                no_timeout,
            )
        };
        let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
        for (length, header) in self.lengths.iter_mut().zip(&headers[..count]) {
            let whole = header.msg_hdr.msg_flags & libc::MSG_TRUNC == 0;
            *length = if whole { header.msg_len as usize } else { 0 };
        }
        self.filled = count;
        Ok(count)
    }

    /// Datagram `index` of the last [`Self::receive`] and its sender. `None` past the
    /// end, and for a datagram that was too long to be taken whole.
    pub fn datagram(&mut self, index: usize) -> Option<(SocketAddr, &mut [u8])> {
        if index >= self.filled {
            return None;
        }
        let from = from_raw(&self.addresses[index])?;
        let length = self.lengths[index];
        (length > 0).then(|| (from, &mut self.buffers[index][..length]))
    }
}

/// Longest datagram that is sent: an Ethernet MTU less IPv4 and UDP headers.
pub const MAX_SEND: usize = 1472;

/// What a datagram carries; decides how its packet is marked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// Audio over SRTP, and its resends.
    Audio,
    /// Video over SRTP, and its resends.
    Video,
    /// All else of a session: STUN, DTLS, SRTCP.
    Control,
}

/// Takes datagrams that are to be sent: a [`SendBatch`], or a test's network.
pub trait DatagramSink {
    /// Adds a datagram to `to` that `write` puts into the buffer ([`MAX_SEND`] bytes),
    /// returning its length, or `None` to add nothing.
    fn push(&mut self, to: Route, traffic: Traffic, write: impl FnOnce(&mut [u8]) -> Option<usize>);

    /// Whether the network takes nothing now: media waits at its cursors until it does.
    fn is_blocked(&self) -> bool {
        false
    }
}

/// Datagrams on their way out; filled in place, sent with one system call.
pub struct SendBatch {
    buffers: Vec<[u8; MAX_SEND]>,
    addresses: Vec<libc::sockaddr_storage>,
    address_lengths: Vec<libc::socklen_t>,
    lengths: Vec<usize>,
    filled: usize,
    socket: RawFd,
    ipv6: bool,
    /// Datagrams that the kernel would not take since the last [`Self::take_dropped`].
    dropped: u64,
}

impl SendBatch {
    /// A batch for `socket`, which must stay open as long as the batch is used;
    /// `ipv6` when it was opened with [`UdpSettings::ipv6`].
    pub fn new(socket: &impl AsRawFd, ipv6: bool) -> Self {
        Self {
            buffers: vec![[0; MAX_SEND]; BATCH],
            addresses: vec![zeroed_address(); BATCH],
            address_lengths: vec![0; BATCH],
            lengths: vec![0; BATCH],
            filled: 0,
            socket: socket.as_raw_fd(),
            ipv6,
            dropped: 0,
        }
    }

    /// Sends everything. What the kernel does not take now is dropped and counted:
    /// media that waits is late.
    pub fn flush(&mut self) {
        let mut sent = 0;
        while sent < self.filled {
            match self.send_from(sent) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    // An error is about the first datagram: one unreachable peer must
                    // not cost the others theirs. A full socket refuses them all.
                    let full = error.kind() == io::ErrorKind::WouldBlock;
                    let lost = if full { self.filled - sent } else { 1 };
                    self.dropped += lost as u64;
                    sent += lost;
                }
            }
        }
        self.filled = 0;
    }

    /// Datagrams dropped since the last call.
    pub fn take_dropped(&mut self) -> u64 {
        mem::take(&mut self.dropped)
    }

    fn send_from(&mut self, first: usize) -> io::Result<usize> {
        let mut vectors = [EMPTY_VECTOR; BATCH];
        let mut headers = [EMPTY_HEADER; BATCH];
        let count = self.filled - first;
        for i in 0..count {
            let slot = first + i;
            vectors[i].iov_base = self.buffers[slot].as_mut_ptr().cast();
            vectors[i].iov_len = self.lengths[slot];
            headers[i].msg_hdr.msg_name = (&raw mut self.addresses[slot]).cast();
            headers[i].msg_hdr.msg_namelen = self.address_lengths[slot];
            headers[i].msg_hdr.msg_iov = &raw mut vectors[i];
            headers[i].msg_hdr.msg_iovlen = 1;
        }
        // SAFETY: every header points at one buffer and one address of `self`, and at
        // one vector of this frame; all of them outlive the call, which only reads.
        let sent = unsafe {
            libc::sendmmsg(self.socket, headers.as_mut_ptr(), count as u32, libc::MSG_DONTWAIT)
        };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }
}

impl DatagramSink for SendBatch {
    fn push(
        &mut self,
        to: Route,
        _traffic: Traffic,
        write: impl FnOnce(&mut [u8]) -> Option<usize>,
    ) {
        if self.filled == BATCH {
            self.flush();
        }
        let slot = self.filled;
        if let Some(length) = write(&mut self.buffers[slot]) {
            self.lengths[slot] = length.min(MAX_SEND);
            self.address_lengths[slot] = to_raw(to.peer, self.ipv6, &mut self.addresses[slot]);
            self.filled += 1;
        }
    }
}

const ADDRESS_LEN: libc::socklen_t = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
const EMPTY_VECTOR: libc::iovec = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
const EMPTY_HEADER: libc::mmsghdr = libc::mmsghdr {
    msg_hdr: libc::msghdr {
        msg_name: std::ptr::null_mut(),
        msg_namelen: 0,
        msg_iov: std::ptr::null_mut(),
        msg_iovlen: 0,
        msg_control: std::ptr::null_mut(),
        msg_controllen: 0,
        msg_flags: 0,
    },
    msg_len: 0,
};

fn zeroed_address() -> libc::sockaddr_storage {
    // SAFETY: all-zero bytes are a valid sockaddr_storage (of no family).
    unsafe { mem::zeroed() }
}

/// The sender's address; an IPv4 peer of a dual-stack socket as plain IPv4.
fn from_raw(raw: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match i32::from(raw.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says that the kernel wrote a sockaddr_in here.
            let v4 = unsafe { &*(&raw const *raw).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
            Some(SocketAddr::new(ip.into(), u16::from_be(v4.sin_port)))
        }
        libc::AF_INET6 => {
            // SAFETY: the family says that the kernel wrote a sockaddr_in6 here.
            let v6 = unsafe { &*(&raw const *raw).cast::<libc::sockaddr_in6>() };
            let ip = IpAddr::V6(Ipv6Addr::from(v6.sin6_addr.s6_addr)).to_canonical();
            Some(SocketAddr::new(ip, u16::from_be(v6.sin6_port)))
        }
        _ => None,
    }
}

/// Writes `to` for a socket of the given family; returns the length of the address.
fn to_raw(to: SocketAddr, ipv6: bool, raw: &mut libc::sockaddr_storage) -> libc::socklen_t {
    let to = match to {
        SocketAddr::V4(v4) if ipv6 => SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port()),
        other => other,
    };
    match to {
        SocketAddr::V4(v4) => {
            // SAFETY: a sockaddr_storage has room and alignment for every address.
            let out = unsafe { &mut *(&raw mut *raw).cast::<libc::sockaddr_in>() };
            out.sin_family = libc::AF_INET as libc::sa_family_t;
            out.sin_port = v4.port().to_be();
            out.sin_addr.s_addr = u32::from(*v4.ip()).to_be();
            size_of::<libc::sockaddr_in>() as libc::socklen_t
        }
        SocketAddr::V6(v6) => {
            // SAFETY: a sockaddr_storage has room and alignment for every address.
            let out = unsafe { &mut *(&raw mut *raw).cast::<libc::sockaddr_in6>() };
            out.sin6_family = libc::AF_INET6 as libc::sa_family_t;
            out.sin6_port = v6.port().to_be();
            out.sin6_addr.s6_addr = v6.ip().octets();
            out.sin6_flowinfo = 0;
            out.sin6_scope_id = v6.scope_id();
            size_of::<libc::sockaddr_in6>() as libc::socklen_t
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    fn settings(ipv6: bool) -> UdpSettings {
        UdpSettings { port: 0, ipv6, buffer_bytes: 1 << 20 }
    }

    fn exchange(ipv6: bool, client: &UdpSocket, server_ip: IpAddr) {
        let server = open_sockets(&settings(ipv6), 1).unwrap().remove(0);
        let address = SocketAddr::new(server_ip, server.local_addr().unwrap().port());
        for i in 0..3u8 {
            client.send_to(&[i; 100], address).unwrap();
        }
        let mut received = ReceiveBatch::default();
        server.set_nonblocking(false).unwrap();
        server.peek_from(&mut [0; 1]).unwrap();
        assert_eq!(received.receive(&server).unwrap(), 3);
        let mut batch = SendBatch::new(&server, ipv6);
        for i in 0..3 {
            let (from, bytes) = received.datagram(i).unwrap();
            assert_eq!(from, client.local_addr().unwrap());
            assert_eq!(bytes, [i as u8; 100]);
            batch.push(from.into(), Traffic::Video, |out| {
                out[..100].copy_from_slice(bytes);
                Some(100)
            });
        }
        assert!(received.datagram(3).is_none());
        batch.flush();
        assert_eq!(batch.take_dropped(), 0);
        for i in 0..3u8 {
            let mut bytes = [0; 200];
            let (len, from) = client.recv_from(&mut bytes).unwrap();
            assert_eq!((len, from), (100, address));
            assert_eq!(bytes[..100], [i; 100]);
        }
    }

    #[test]
    fn batches_travel_both_ways_over_ipv4_ipv6_and_mapped() {
        let v4 = UdpSocket::bind("127.0.0.1:0").unwrap();
        exchange(false, &v4, Ipv4Addr::LOCALHOST.into());
        if let Ok(v6) = UdpSocket::bind("[::1]:0") {
            exchange(true, &v6, Ipv6Addr::LOCALHOST.into());
            exchange(true, &v4, Ipv4Addr::LOCALHOST.into());
        }
    }

    #[test]
    fn an_oversized_datagram_is_dropped_alone() {
        let server = open_sockets(&settings(false), 1).unwrap().remove(0);
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address =
            SocketAddr::new(Ipv4Addr::LOCALHOST.into(), server.local_addr().unwrap().port());
        client.send_to(&[1; MAX_DATAGRAM + 1], address).unwrap();
        client.send_to(&[2; 10], address).unwrap();
        server.set_nonblocking(false).unwrap();
        server.peek_from(&mut [0; 1]).unwrap();
        let mut batch = ReceiveBatch::default();
        assert_eq!(batch.receive(&server).unwrap(), 2);
        assert!(batch.datagram(0).is_none());
        assert_eq!(batch.datagram(1).unwrap().1, [2; 10]);
    }

    #[test]
    fn a_port_in_use_is_refused() {
        let first = open_sockets(&settings(false), 2).unwrap();
        let port = first[0].local_addr().unwrap().port();
        let second = open_sockets(&UdpSettings { port, ..settings(false) }, 2);
        assert_eq!(second.err().map(|e| e.kind()), Some(io::ErrorKind::AddrInUse));
    }

    #[test]
    fn sockets_share_one_port() {
        let sockets = open_sockets(&settings(false), 3).unwrap();
        let ports: Vec<_> = sockets.iter().map(|s| s.local_addr().unwrap().port()).collect();
        assert!(ports.iter().all(|port| *port == ports[0]), "{ports:?}");
    }
}
