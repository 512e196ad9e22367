//! Taking datagrams, many in one system call, each in a buffer of its own.
//!
//! `UDP_GRO`, which would hand over a run of one sender in one buffer of 64 KiB, is not
//! asked for: what comes here are single datagrams of thousands of viewers and of
//! publishers that pace, and for those it cost a tenth more
//! ([decision 0011](../../../docs/decisions/0011-merging-in-the-batch.md)).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;

use super::address::RawAddress;
use super::message::{EMPTY_HEADER, EMPTY_VECTOR};
use crate::route::Route;

/// Datagrams taken in one system call.
pub const BATCH: usize = 64;
/// Longest datagram taken whole; a longer one cannot be media of ours and is dropped.
pub const MAX_DATAGRAM: usize = 2048;

/// Room for the control message that says to which address a datagram was sent:
/// `CMSG_SPACE` of an `in6_pktinfo`, the larger of the two.
const CONTROL_WORDS: usize = 5;

/// Room for one batch of received datagrams.
pub struct ReceiveBatch {
    buffers: Vec<[u8; MAX_DATAGRAM]>,
    addresses: Vec<RawAddress>,
    controls: Vec<[u64; CONTROL_WORDS]>,
    locals: Vec<Option<IpAddr>>,
    lengths: Vec<usize>,
    filled: usize,
}

impl Default for ReceiveBatch {
    fn default() -> Self {
        Self {
            buffers: vec![[0; MAX_DATAGRAM]; BATCH],
            addresses: vec![RawAddress::empty(); BATCH],
            controls: vec![[0; CONTROL_WORDS]; BATCH],
            locals: vec![None; BATCH],
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
            headers[i].msg_hdr.msg_namelen = RawAddress::CAPACITY;
            headers[i].msg_hdr.msg_iov = &raw mut vectors[i];
            headers[i].msg_hdr.msg_iovlen = 1;
            headers[i].msg_hdr.msg_control = self.controls[i].as_mut_ptr().cast();
            headers[i].msg_hdr.msg_controllen = size_of::<[u64; CONTROL_WORDS]>() as _;
        }
        // SAFETY: every header points at one buffer, one address and one control buffer of
        // `self`, and at one vector of this frame; all of them outlive the call and none is shared.
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
        let results = self.lengths.iter_mut().zip(&mut self.locals).zip(&headers[..count]);
        for ((length, local), header) in results {
            let whole = header.msg_hdr.msg_flags & libc::MSG_TRUNC == 0;
            *length = if whole { header.msg_len as usize } else { 0 };
            *local = local_address(&header.msg_hdr);
        }
        self.filled = count;
        Ok(count)
    }

    /// Datagram `index` of the last [`Self::receive`] and the way that it came. `None`
    /// past the end, and for a datagram that was too long to be taken whole.
    pub fn datagram(&mut self, index: usize) -> Option<(Route, &mut [u8])> {
        if index >= self.filled {
            return None;
        }
        let from = Route { peer: self.addresses[index].get()?, local: self.locals[index] };
        let length = self.lengths[index];
        (length > 0).then(|| (from, &mut self.buffers[index][..length]))
    }
}

/// The address of ours that a datagram was sent to, as its control message says.
fn local_address(header: &libc::msghdr) -> Option<IpAddr> {
    // SAFETY: the kernel filled the control buffer and set its length; the macros look
    // for a whole header within it, and give null where there is none.
    let control = unsafe { libc::CMSG_FIRSTHDR(header).as_ref() }?;
    // SAFETY: the data of a control message follows its header.
    let data = unsafe { libc::CMSG_DATA(control) };
    match (control.cmsg_level, control.cmsg_type) {
        (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
            // SAFETY: level and type say that the kernel wrote an in_pktinfo here; it may
            // lie unaligned.
            let info = unsafe { data.cast::<libc::in_pktinfo>().read_unaligned() };
            Some(Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr)).into())
        }
        (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
            // SAFETY: level and type say that the kernel wrote an in6_pktinfo here; it
            // may lie unaligned.
            let info = unsafe { data.cast::<libc::in6_pktinfo>().read_unaligned() };
            Some(IpAddr::V6(Ipv6Addr::from(info.ipi6_addr.s6_addr)).to_canonical())
        }
        _ => None,
    }
}
