//! Message headers and control messages of `sendmmsg`, kept and reused.
//!
//! A message is one datagram, or a run of equally long ones with `UDP_SEGMENT`, which
//! the kernel or the device cuts (GSO, `udp(7)`). Its mark is a control message too,
//! for the kernel takes it per message: `IP_TOS` (`ip(7)`) for IPv4 peers, also for
//! those that an IPv6 socket reaches by mapped addresses, and `IPV6_TCLASS`
//! (`ipv6(7)`) for IPv6 peers. The kernel puts it on every segment. And so is the
//! address that it leaves from, `IP_PKTINFO` or `IPV6_PKTINFO`: the one at which the
//! peer reached us, where the kernel would take the one nearest to the route.

use std::io;
use std::net::IpAddr;
use std::os::fd::RawFd;

use super::address::RawAddress;
use super::options::SocketMark;

pub(super) const EMPTY_VECTOR: libc::iovec =
    libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
pub(super) const EMPTY_HEADER: libc::mmsghdr = libc::mmsghdr {
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

/// Messages given to the kernel in one system call.
const HEADERS: usize = 64;

/// What a packet's header is marked with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// The TOS byte or traffic class; the socket's own needs no control message.
    pub(super) tos: u8,
    /// Whether the packet is an IPv6 one.
    pub(super) ipv6: bool,
}

/// One message for the kernel.
#[derive(Clone, Copy)]
pub(super) struct Outgoing<'a> {
    pub(super) to: &'a RawAddress,
    /// The address of ours that it leaves from; `None` lets the kernel choose.
    pub(super) from: Option<IpAddr>,
    pub(super) bytes: &'a [u8],
    pub(super) mark: Mark,
    /// Length of a segment, when there are several.
    pub(super) segment: Option<u16>,
}

/// A control message with its value; `repr(C)` lays them out as `CMSG_DATA` and
/// `CMSG_SPACE` do, for the value needs no stricter alignment than the header.
#[repr(C)]
struct Control<T> {
    header: libc::cmsghdr,
    value: T,
}

impl<T> Control<T> {
    fn new(level: libc::c_int, kind: libc::c_int, value: T) -> Self {
        // SAFETY: all-zero bytes are a valid cmsghdr, which is plain integers.
        let mut header: libc::cmsghdr = unsafe { std::mem::zeroed() };
        // Without the padding behind the value, as CMSG_LEN counts.
        header.cmsg_len = (size_of::<libc::cmsghdr>() + size_of::<T>()) as _;
        header.cmsg_level = level;
        header.cmsg_type = kind;
        Self { header, value }
    }
}

/// Room for all control messages of one message: mark, source and segment length.
const CONTROL_BYTES: usize = size_of::<Control<libc::c_int>>()
    + size_of::<Control<libc::in6_pktinfo>>()
    + size_of::<Control<u16>>();

/// The control messages of one message, one behind the other.
#[repr(C, align(8))]
struct Controls {
    bytes: [u8; CONTROL_BYTES],
    len: usize,
}

impl Controls {
    const fn new() -> Self {
        Self { bytes: [0; CONTROL_BYTES], len: 0 }
    }

    /// Replaces what was there.
    fn fill(&mut self, message: &Outgoing<'_>, socket: SocketMark) {
        self.len = 0;
        let Mark { tos, ipv6 } = message.mark;
        if tos != if ipv6 { socket.ipv6 } else { socket.ipv4 } {
            let (level, kind) = if ipv6 {
                (libc::IPPROTO_IPV6, libc::IPV6_TCLASS)
            } else {
                (libc::IPPROTO_IP, libc::IP_TOS)
            };
            self.put(Control::new(level, kind, libc::c_int::from(tos)));
        }
        match message.from {
            Some(IpAddr::V4(from)) => {
                let spec_dst = libc::in_addr { s_addr: u32::from(from).to_be() };
                let any = libc::in_addr { s_addr: 0 };
                let info =
                    libc::in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: spec_dst, ipi_addr: any };
                self.put(Control::new(libc::IPPROTO_IP, libc::IP_PKTINFO, info));
            }
            Some(IpAddr::V6(from)) => {
                let ipi6_addr = libc::in6_addr { s6_addr: from.octets() };
                let info = libc::in6_pktinfo { ipi6_addr, ipi6_ifindex: 0 };
                self.put(Control::new(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info));
            }
            None => {}
        }
        if let Some(segment) = message.segment {
            self.put(Control::new(libc::SOL_UDP, libc::UDP_SEGMENT, segment));
        }
    }

    fn put<T: Copy>(&mut self, control: Control<T>) {
        let Some(room) = self.bytes.get_mut(self.len..self.len + size_of::<Control<T>>()) else {
            return;
        };
        // SAFETY: the room is as large as the control message, and as plain bytes takes
        // any; `len` is a multiple of the alignment, for all sizes added to it are.
        unsafe { room.as_mut_ptr().cast::<Control<T>>().write(control) };
        self.len += size_of::<Control<T>>();
    }
}

/// The arguments of `sendmmsg`. Only what a call uses is written for it.
pub(super) struct Headers {
    headers: Box<[libc::mmsghdr]>,
    vectors: Box<[libc::iovec]>,
    controls: Box<[Controls]>,
    mark: SocketMark,
    /// Stands in for the kernel: the error that it answers a message with.
    #[cfg(test)]
    pub(super) refuse: Option<Refuse>,
}

#[cfg(test)]
pub(super) type Refuse = Box<dyn FnMut(&Outgoing<'_>) -> Option<libc::c_int> + Send>;

// SAFETY: the pointers in headers and vectors are written and followed within one call
// of `send`, and never outside it.
unsafe impl Send for Headers {}

impl Headers {
    /// For a socket that is marked so.
    pub(super) fn new(mark: SocketMark) -> Self {
        Self {
            mark,
            headers: vec![EMPTY_HEADER; HEADERS].into(),
            vectors: vec![EMPTY_VECTOR; HEADERS].into(),
            controls: (0..HEADERS).map(|_| Controls::new()).collect(),
            #[cfg(test)]
            refuse: None,
        }
    }

    /// Sends what fits one system call; returns how many messages were taken.
    ///
    /// # Errors
    /// The system's error about the first message; none was taken then.
    pub(super) fn send<'a>(
        &mut self,
        socket: RawFd,
        messages: impl Iterator<Item = Outgoing<'a>>,
    ) -> io::Result<usize> {
        let slots = self.headers.iter_mut().zip(&mut self.vectors).zip(&mut self.controls);
        let mut count = 0;
        for (((header, vector), controls), message) in slots.zip(messages) {
            #[cfg(test)]
            if let Some(error) = self.refuse.as_mut().and_then(|refuse| refuse(&message)) {
                if count == 0 {
                    return Err(io::Error::from_raw_os_error(error));
                }
                break;
            }
            // The kernel reads through these and writes to none.
            vector.iov_base = message.bytes.as_ptr().cast_mut().cast();
            vector.iov_len = message.bytes.len();
            controls.fill(&message, self.mark);
            let header = &mut header.msg_hdr;
            header.msg_name = (&raw const *message.to).cast_mut().cast();
            header.msg_namelen = message.to.len();
            header.msg_iov = &raw mut *vector;
            header.msg_iovlen = 1;
            header.msg_control = controls.bytes.as_mut_ptr().cast();
            header.msg_controllen = controls.len as _;
            count += 1;
        }
        // SAFETY: the first `count` headers were written above. Each points at bytes and
        // an address borrowed for 'a, which lasts through the call, and at a vector and
        // the filled part of a control buffer of `self`, none of them shared.
        let sent = unsafe {
            let flags = libc::MSG_DONTWAIT;
            libc::sendmmsg(socket, self.headers.as_mut_ptr(), count as u32, flags)
        };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }
}
