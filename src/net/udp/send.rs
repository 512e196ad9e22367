//! Datagrams on their way out, merged into runs that the kernel cuts again (GSO).
//!
//! Handing a datagram to the kernel costs about as much however long it is, so a run
//! of datagrams to one peer goes as one message. The batch finds the runs by itself:
//! [`SendBatch::push`] writes each datagram behind the one before, and where it fits
//! the run before, it only makes that longer
//! ([decision 0011](../../../docs/decisions/0011-merging-in-the-batch.md)).
//!
//! What the kernel says to a message, and what that means here:
//! - `EAGAIN`: the socket's buffer is full. `ENOBUFS`, `ENOMEM`: the kernel is short of
//!   memory. Nothing is lost: what is left stays for the next flush.
//! - `EIO`: the route takes no GSO, for its device computes no checksums (before Linux
//!   6.11) or IPsec transforms its packets. `EMSGSIZE` (before Linux 6.14 `EINVAL`): a
//!   segment exceeds the path's MTU, where the same bytes as a datagram are
//!   fragmented. All are about one peer's route: the run goes again as datagrams.
//! - `EPERM`, `EACCES`, `EINVAL` to a marked datagram: a cgroup's program, a security
//!   module or a sandbox may mind the mark; it goes again without.
//! - Anything else is about this peer alone: unreachable, no address of ours.

use std::io;
use std::mem;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd as _, RawFd};

use super::address::RawAddress;
use super::message::{Headers, Mark, Outgoing};
use super::options::{Marking, UdpSettings, knows_gso, mark_socket};
use super::{DatagramSink, Traffic};
use crate::route::Route;

/// Longest datagram that is sent: an Ethernet MTU less IPv4 and UDP headers.
pub const MAX_SEND: usize = 1472;

/// Longest datagrams that a batch holds; then it is flushed. A multiple of what a run
/// holds, and little enough to stay in the core's cache until the kernel copies it.
const DATAGRAMS: usize = 96;
/// Messages that a batch holds; then it is flushed.
const MESSAGES: usize = 64;
/// Datagrams of a session's control traffic that are taken on top while the kernel
/// takes nothing: a handshake of several peers. Past it they are dropped and counted,
/// and their protocols send them again.
const RESERVE: usize = 16;
/// Datagrams in a run; the kernel takes 64. A frame at 2.5 Mbit/s is nine, so only
/// keyframes are longer, and they had better not leave in one burst: 16 are 0.15 ms of
/// a last mile of 1 Gbit/s. From 9 to 16 the kernel's cost of a datagram falls by 30 ns,
/// from 16 to 40 by 25 ns, beside some 230 ns of copying and sealing.
const MAX_SEGMENTS: u16 = 16;
/// The longest run fits an IP packet, as which it goes through the kernel.
const _: () = assert!(MAX_SEND * (MAX_SEGMENTS as usize) < 65_000);

/// After so many refusals in a row, without a success between, the kernel is not asked
/// any more. One peer's narrow path among others' good ones never gets there.
const REFUSALS: u32 = 16;
/// Messages until it is asked again: the route, or who is there, may have changed.
const PAUSE: u32 = 4096;
/// Flushes in a row that a lack of memory may hold a message up, about a millisecond
/// each; then it is dropped, so that no single message can hold up everybody for good.
const PATIENCE: u32 = 32;

/// Why datagrams are dropped, as in [`SendCounts::dropped`].
pub const DROP_REASONS: [&str; 4] = ["full", "too_long", "unreachable", "other"];
/// Why runs are refused, as in [`SendCounts::gso_refused`].
pub const GSO_REFUSALS: [&str; 3] = ["no_offload", "path_mtu", "other"];

/// What became of what was pushed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SendCounts {
    /// Datagrams that the kernel took.
    pub datagrams: u64,
    /// Messages in which it took them.
    pub messages: u64,
    /// Datagrams dropped, by [`DROP_REASONS`].
    pub dropped: [u64; DROP_REASONS.len()],
    /// Runs that the kernel refused and that went as datagrams, by [`GSO_REFUSALS`].
    pub gso_refused: [u64; GSO_REFUSALS.len()],
    /// Datagrams that went unmarked because the system refuses their mark.
    pub mark_refused: u64,
}

/// Datagrams to one peer with one mark, one behind the other in the arena.
struct Message {
    to: Route,
    mark: Mark,
    offset: usize,
    /// Bytes that are not sent yet.
    len: usize,
    /// Length of each datagram but the last, which may be shorter.
    segment: u16,
    /// Datagrams that are not sent yet.
    count: u16,
    /// The kernel would not take it as a run.
    split: bool,
    /// The kernel would not take it with its mark.
    unmarked: bool,
}

impl Message {
    /// Whether a datagram can join: one peer, one mark, and no shorter one before it,
    /// for the kernel cuts every `segment` bytes.
    fn takes(&self, to: Route, mark: Mark, len: usize) -> bool {
        let segment = usize::from(self.segment);
        len <= segment
            && self.len == segment * usize::from(self.count)
            && self.count < MAX_SEGMENTS
            && self.to == to
            && self.mark == mark
    }

    /// Bytes that go in one message: all, or one datagram.
    fn step(&self, gso: bool) -> usize {
        let whole = gso && !self.split;
        if whole { self.len } else { self.len.min(usize::from(self.segment)) }
    }

    /// Takes off what went in one message; returns how many datagrams that were.
    fn advance(&mut self, step: usize) -> u64 {
        let datagrams = step.div_ceil(usize::from(self.segment).max(1)) as u16;
        self.offset += step;
        self.len -= step;
        self.count = self.count.saturating_sub(datagrams);
        u64::from(datagrams)
    }
}

/// Whether to go on asking the kernel for what it may refuse.
struct Trust {
    wanted: bool,
    refusals: u32,
    pause: u32,
}

impl Trust {
    const fn new(wanted: bool) -> Self {
        Self { wanted, refusals: 0, pause: 0 }
    }

    const fn is_on(&self) -> bool {
        self.wanted && self.pause == 0
    }

    const fn accepted(&mut self) {
        self.refusals = 0;
    }

    const fn refused(&mut self) {
        self.refusals += 1;
        if self.refusals >= REFUSALS {
            // The next attempt decides alone.
            self.refusals = REFUSALS - 1;
            self.pause = PAUSE;
        }
    }

    /// A message went without.
    const fn passed_over(&mut self) {
        self.pause = self.pause.saturating_sub(1);
    }
}

/// Datagrams on their way out. owner: the worker.
pub struct SendBatch {
    /// The datagrams, in the order in which they came.
    arena: Box<[u8]>,
    /// Where the next datagram goes.
    end: usize,
    messages: Vec<Message>,
    /// Of each message.
    addresses: Vec<RawAddress>,
    /// The first message that is not sent whole.
    first: usize,
    headers: Headers,
    socket: RawFd,
    ipv6: bool,
    marking: Marking,
    gso: Trust,
    marks: Trust,
    /// The kernel took not everything in the last flush.
    blocked: bool,
    /// Flushes in a row that ended for lack of memory.
    starved: u32,
    counts: SendCounts,
}

impl SendBatch {
    /// A batch for `socket`, which was opened with `settings` and must stay open as
    /// long as the batch is used.
    pub fn new(socket: &impl AsFd, settings: &UdpSettings) -> Self {
        // Video is most of all.
        let mark = mark_socket(socket, settings.ipv6, settings.marking.video.tos());
        let socket = socket.as_fd().as_raw_fd();
        Self {
            arena: vec![0; (DATAGRAMS + RESERVE) * MAX_SEND].into(),
            end: 0,
            messages: Vec::with_capacity(MESSAGES + RESERVE),
            addresses: Vec::with_capacity(MESSAGES + RESERVE),
            first: 0,
            headers: Headers::new(mark),
            socket,
            ipv6: settings.ipv6,
            marking: settings.marking,
            gso: Trust::new(settings.gso && knows_gso(socket)),
            marks: Trust::new(true),
            blocked: false,
            starved: 0,
            counts: SendCounts::default(),
        }
    }

    /// Sends everything, or as much as the kernel takes now: [`Self::is_blocked`] says
    /// that there is a rest, which the next flush begins with.
    pub fn flush(&mut self) {
        self.blocked = false;
        while self.first < self.messages.len() {
            match self.send() {
                Ok(count) => self.sent(count),
                Err(error) => self.refused(&error),
            }
            if self.blocked {
                return;
            }
        }
        self.messages.clear();
        self.addresses.clear();
        (self.first, self.end) = (0, 0);
    }

    /// Whether runs are given to the kernel as one message at this time.
    pub fn uses_gso(&self) -> bool {
        self.gso.is_on()
    }

    /// What happened since the last call.
    pub fn take_counts(&mut self) -> SendCounts {
        mem::take(&mut self.counts)
    }

    fn send(&mut self) -> io::Result<usize> {
        let (gso, marks, arena) = (self.gso.is_on(), self.marks.is_on(), &self.arena);
        let waiting = self.messages.iter().zip(&self.addresses).skip(self.first);
        let outgoing = waiting.flat_map(|(message, to)| {
            let mut mark = message.mark;
            if message.unmarked || !marks {
                mark.tos = 0;
            }
            let bytes = &arena[message.offset..][..message.len];
            bytes.chunks(message.step(gso).max(1)).map(move |bytes| {
                let is_run = bytes.len() > usize::from(message.segment);
                let segment = is_run.then_some(message.segment);
                Outgoing { to, from: message.to.local, bytes, mark, segment }
            })
        });
        self.headers.send(self.socket, outgoing)
    }

    /// Takes note of the first `count` messages that [`Self::send`] gave the kernel.
    fn sent(&mut self, count: usize) {
        let (gso, marks) = (self.gso.is_on(), self.marks.is_on());
        self.starved = 0;
        self.counts.messages += count as u64;
        for _ in 0..count {
            let Some(message) = self.messages.get_mut(self.first) else { return };
            let (step, waiting) = (message.step(gso), message.count);
            let datagrams = message.advance(step);
            self.counts.datagrams += datagrams;
            if datagrams > 1 {
                self.gso.accepted();
            } else if !gso && waiting > 1 {
                self.gso.passed_over();
            }
            if message.mark.tos != 0 {
                match (marks, message.unmarked) {
                    (true, false) => self.marks.accepted(),
                    (true, true) => self.marks.refused(),
                    (false, _) => self.marks.passed_over(),
                }
                let refused = !marks || message.unmarked;
                self.counts.mark_refused += if refused { datagrams } else { 0 };
            }
            self.first += usize::from(message.len == 0);
        }
    }

    /// Decides what becomes of the first message, to which the kernel said no.
    fn refused(&mut self, error: &io::Error) {
        let (gso, marks) = (self.gso.is_on(), self.marks.is_on());
        let Some(message) = self.messages.get_mut(self.first) else { return };
        let step = message.step(gso);
        let is_run = step > usize::from(message.segment);
        let is_marked = marks && !message.unmarked && message.mark.tos != 0;
        match error.raw_os_error().unwrap_or(0) {
            libc::EINTR => {}
            libc::EAGAIN => self.blocked = true,
            libc::ENOBUFS | libc::ENOMEM if self.starved < PATIENCE => {
                self.starved += 1;
                self.blocked = true;
            }
            code @ (libc::EIO | libc::EINVAL | libc::EMSGSIZE | libc::EOPNOTSUPP) if is_run => {
                message.split = true;
                self.gso.refused();
                self.counts.gso_refused[gso_refusal(code)] += 1;
            }
            libc::EPERM | libc::EACCES | libc::EINVAL if is_marked => message.unmarked = true,
            code => {
                self.starved = 0;
                self.counts.dropped[drop_reason(code)] += message.advance(step);
                self.first += usize::from(message.len == 0);
            }
        }
    }

    /// Whether a datagram can be added; always, unless the socket is blocked.
    fn has_room(&self, traffic: Traffic) -> bool {
        let reserve = match (self.blocked, traffic) {
            (false, _) => 0,
            (true, Traffic::Control) => RESERVE,
            (true, Traffic::Audio | Traffic::Video) => return false,
        };
        self.end <= (DATAGRAMS + reserve - 1) * MAX_SEND && self.messages.len() < MESSAGES + reserve
    }
}

impl DatagramSink for SendBatch {
    fn push(
        &mut self,
        to: Route,
        traffic: Traffic,
        write: impl FnOnce(&mut [u8]) -> Option<usize>,
    ) {
        if !self.has_room(traffic) {
            self.counts.dropped[FULL] += 1;
            return;
        }
        let Some(room) = self.arena.get_mut(self.end..self.end + MAX_SEND) else { return };
        let Some(len) = write(room).filter(|len| (1..=MAX_SEND).contains(len)) else {
            self.counts.dropped[TOO_LONG] += 1;
            return;
        };
        let mark = Mark { tos: self.marking.tos(traffic), ipv6: is_ipv6(to.peer) };
        match self.messages.last_mut() {
            Some(last) if last.takes(to, mark, len) => {
                last.len += len;
                last.count += 1;
            }
            _ => {
                let (offset, segment) = (self.end, len as u16);
                let (split, unmarked) = (false, false);
                self.messages.push(Message {
                    to,
                    mark,
                    offset,
                    len,
                    segment,
                    count: 1,
                    split,
                    unmarked,
                });
                self.addresses.push(RawAddress::new(to.peer, self.ipv6));
            }
        }
        self.end += len;
        // At once, so that the caller learns of a full socket before it goes on.
        if !self.blocked && !self.has_room(traffic) {
            self.flush();
        }
    }

    fn is_blocked(&self) -> bool {
        self.blocked
    }
}

/// Whether packets to `to` are IPv6 ones, whatever socket sends them.
fn is_ipv6(to: SocketAddr) -> bool {
    match to {
        SocketAddr::V4(_) => false,
        SocketAddr::V6(to) => to.ip().to_ipv4_mapped().is_none(),
    }
}

/// Indexes into [`DROP_REASONS`].
const FULL: usize = 0;
const TOO_LONG: usize = 1;

fn drop_reason(code: libc::c_int) -> usize {
    match code {
        libc::ENOBUFS | libc::ENOMEM => FULL,
        libc::EMSGSIZE => TOO_LONG,
        libc::ENETUNREACH
        | libc::EHOSTUNREACH
        | libc::ENETDOWN
        | libc::EHOSTDOWN
        | libc::ECONNREFUSED
        | libc::EADDRNOTAVAIL
        | libc::EAFNOSUPPORT => 2,
        _ => 3,
    }
}

/// An index into [`GSO_REFUSALS`].
fn gso_refusal(code: libc::c_int) -> usize {
    match code {
        libc::EIO => 0,
        libc::EMSGSIZE | libc::EINVAL => 1,
        _ => 2,
    }
}

#[cfg(test)]
impl SendBatch {
    /// Puts `refuse` in the place of the kernel's judgement.
    pub(super) fn refuse_by(&mut self, refuse: super::message::Refuse) {
        self.headers.refuse = Some(refuse);
    }

    /// Lets the kernel decide again.
    pub(super) fn refuse_no_more(&mut self) {
        self.headers.refuse = None;
    }

    /// Lengths of the datagrams in each message that waits.
    pub(super) fn waiting(&self) -> Vec<(SocketAddr, Vec<usize>)> {
        let lengths = |message: &Message| {
            let bytes = &self.arena[message.offset..][..message.len];
            bytes.chunks(usize::from(message.segment)).map(<[u8]>::len).collect()
        };
        self.messages[self.first..].iter().map(|m| (m.to.peer, lengths(m))).collect()
    }
}
