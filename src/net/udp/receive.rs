//! Taking datagrams, many in one system call, each in a buffer of its own.
//!
//! `UDP_GRO`, which would hand over a run of one sender in one buffer of 64 KiB, is not
//! asked for: what comes here are single datagrams of thousands of viewers and of
//! publishers that pace, and for those it cost a tenth more
//! ([decision 0011](../../../docs/decisions/0011-merging-in-the-batch.md)).

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;

use super::address::RawAddress;
use super::message::{EMPTY_HEADER, EMPTY_VECTOR};

/// Datagrams taken in one system call.
pub const BATCH: usize = 64;
/// Longest datagram taken whole; a longer one cannot be media of ours and is dropped.
pub const MAX_DATAGRAM: usize = 2048;

/// Room for one batch of received datagrams.
pub struct ReceiveBatch {
    buffers: Vec<[u8; MAX_DATAGRAM]>,
    addresses: Vec<RawAddress>,
    lengths: Vec<usize>,
    filled: usize,
}

impl Default for ReceiveBatch {
    fn default() -> Self {
        Self {
            buffers: vec![[0; MAX_DATAGRAM]; BATCH],
            addresses: vec![RawAddress::empty(); BATCH],
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
        let from = self.addresses[index].get()?;
        let length = self.lengths[index];
        (length > 0).then(|| (from, &mut self.buffers[index][..length]))
    }
}
