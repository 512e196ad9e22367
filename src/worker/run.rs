//! The thread of one worker: its socket, its wait, its clock. What it does is in
//! [`super::core`].

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mio::net::UdpSocket;
use mio::{Events, Poll, Token};

use super::core::Core;
use super::mailbox::{Inbox, Mailbox};
use super::pool::Shared;
use super::stats::WorkerStats;
use crate::net::udp::{BATCH, DatagramSink as _, ReceiveBatch, SendBatch};

pub(super) const SOCKET_TOKEN: Token = Token(0);
pub(super) const WAKER_TOKEN: Token = Token(1);

/// Batches of datagrams taken in one turn: reception must not starve sending.
const RECEIVE_BATCHES: usize = 8;
/// Time that reception may take of a turn, past which the rest waits: a handshake costs
/// as much as thousands of other datagrams.
const RECEIVE_TIME: Duration = Duration::from_millis(2);
/// Longest wait while the socket takes nothing. A timer and not the poll's word, because
/// a lack of memory (`ENOBUFS`) has no end that is told, and because the kernel tells a
/// poll that wants to write of every packet that has left, while the buffer that is
/// asked for by default (4 MiB) lasts a link of 10 Gbit/s for over a millisecond.
const SEND_RETRY: Duration = Duration::from_millis(1);

pub(super) struct Worker {
    poll: Poll,
    socket: UdpSocket,
    mailbox: Arc<Mailbox>,
    stats: Arc<WorkerStats>,
    core: Core<SendBatch>,
}

impl Worker {
    pub(super) fn new(
        index: usize,
        poll: Poll,
        socket: UdpSocket,
        inbox: Inbox,
        shared: Arc<Shared>,
    ) -> Self {
        let batch = SendBatch::new(&socket, &shared.settings.udp);
        Self {
            poll,
            socket,
            mailbox: shared.mailboxes[index].clone(),
            stats: shared.stats[index].clone(),
            core: Core::new(index, inbox, shared, batch),
        }
    }

    /// Runs until it is told to shut down.
    #[allow(clippy::disallowed_methods, reason = "the worker reads the clock for its machines")]
    pub(super) fn run(mut self) {
        let mut events = Events::with_capacity(4);
        let mut received = ReceiveBatch::default();
        let mut now = Instant::now();
        let mut drained = true;
        while !self.core.is_stopping() {
            // Announced before the queues are looked at, so that no message slips in between.
            self.mailbox.fall_asleep();
            // The turn took its time: what is due is due from here.
            let mut wait =
                if drained { self.core.wait(now + now.elapsed()) } else { Duration::ZERO };
            if self.core.sink.is_blocked() {
                wait = wait.min(SEND_RETRY);
            }
            let busy = now.elapsed().as_nanos() as u64;
            self.stats.busy_nanos.fetch_add(busy, Ordering::Relaxed);
            if let Err(error) = self.poll.poll(&mut events, Some(wait))
                && error.kind() != std::io::ErrorKind::Interrupted
            {
                tracing::error!(%error, "waiting for the media port failed");
            }
            self.mailbox.awake();
            now = Instant::now();
            drained = self.receive(now, &mut received);
            if self.core.sink.is_blocked() {
                // Before the turn, which gives media only to a socket that takes it.
                self.core.sink.flush();
            }
            self.core.turn(now);
            self.flush();
        }
        self.core.end_all(now);
        self.flush();
    }

    fn flush(&mut self) {
        let sink = &mut self.core.sink;
        sink.flush();
        self.stats.add_sent(&sink.take_counts());
        self.stats.gso.store(sink.uses_gso(), Ordering::Relaxed);
    }

    /// Takes what has come, within the turn's bound; returns false when there may be
    /// more. The poll tells only of what comes after that.
    fn receive(&mut self, now: Instant, received: &mut ReceiveBatch) -> bool {
        for _ in 0..RECEIVE_BATCHES {
            let count = match received.receive(&self.socket) {
                Ok(count) => count,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return true,
                // An error of an earlier send (ICMP unreachable) shows up here.
                Err(_) => continue,
            };
            self.stats.datagrams_received.fetch_add(count as u64, Ordering::Relaxed);
            for i in 0..count {
                let Some((from, datagram)) = received.datagram(i) else {
                    self.stats.reject("oversized");
                    continue;
                };
                self.stats.bytes_received.fetch_add(datagram.len() as u64, Ordering::Relaxed);
                self.core.handle_datagram(now, from, datagram, true);
            }
            if count < BATCH {
                return true;
            }
            if now.elapsed() > RECEIVE_TIME {
                return false;
            }
        }
        false
    }
}
