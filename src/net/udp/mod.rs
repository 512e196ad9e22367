//! The media port's sockets: many datagrams a system call, both ways, and runs of
//! equally long ones as one message.
//!
//! The only folder with `unsafe`: the system calls take arrays of pointers, which are
//! built for each call from slices that outlive it.
#![allow(unsafe_code)]

mod address;
mod message;
mod options;
mod receive;
mod send;
#[cfg(test)]
mod tests;

use crate::route::Route;
pub use options::{Marking, UdpSettings, open_sockets};
pub use receive::{BATCH, MAX_DATAGRAM, ReceiveBatch};
pub use send::{DROP_REASONS, GSO_REFUSALS, MAX_SEND, SendBatch, SendCounts};

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
