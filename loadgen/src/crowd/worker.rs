//! A plain thread that owns many viewers: their sockets, their timers, their counters.
//!
//! One epoll over all sockets. A burst that the server sent with GSO comes back as one
//! message (UDP GRO), so it costs one system call here too; the kernel's receive time
//! is what latency is measured by, so a busy thread does not spoil the figure.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{self, IoSliceMut};
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use quinn_udp::{RecvMeta, UdpSocketState};

use super::live::Live;
use super::measure::{Collector, Latencies};
use super::report::ViewerReport;
use super::secure::Identity;
use super::viewer::{At, Setup, Viewer};
use crate::impair::{Impairment, Link};
use crate::time::utc_micros;

/// Messages taken in one system call, and the room for each: the longest that GRO makes.
const BATCH: usize = 16;
const MESSAGE: usize = 65_536;
/// Wish for a socket's receive buffer: a keyframe of 200 packets. The system may give less.
const RECEIVE_BUFFER: usize = 512 * 1024;
/// Calls to one socket before the others have their turn.
const TURNS: usize = 2;
/// Pause between two looks at the sockets when nobody is connecting: what comes meanwhile
/// is taken in fewer calls. The kernel has noted the time of arrival, so the pause does
/// not show in the latency; a socket's buffer holds far more than comes in it.
const BREATH: Duration = Duration::from_millis(1);
/// Longest sleep: how stale the counters that others see may be.
const NAP: Duration = Duration::from_millis(100);
const WAKE: Token = Token(usize::MAX);

/// A viewer that has its answer.
pub struct Joined {
    /// What it is made of.
    pub setup: Setup,
    /// Its socket, bound.
    pub socket: UdpSocket,
    /// Its last mile, and the seed of that.
    pub impairment: Option<(Impairment, u64)>,
}

enum Command {
    Add(Box<Joined>),
    /// From here on only repairs count.
    Freeze,
    /// Say goodbye and report.
    Finish,
}

/// What a thread has seen.
pub struct Seen {
    /// Its viewers.
    pub viewers: Vec<ViewerReport>,
    /// Their latencies by group.
    pub latencies: Vec<Latencies>,
}

/// What tells a thread what to do.
#[derive(Clone)]
pub struct Inbox {
    commands: Sender<Command>,
    waker: Arc<Waker>,
}

impl Inbox {
    /// Hands over a viewer.
    pub fn add(&self, joined: Joined) {
        self.tell(Command::Add(Box::new(joined)));
    }

    fn tell(&self, command: Command) {
        // A thread that is gone says why when it is joined.
        if self.commands.send(command).is_ok() {
            let _ = self.waker.wake();
        }
    }
}

/// The handle of a thread.
pub struct Worker {
    inbox: Inbox,
    thread: JoinHandle<io::Result<Seen>>,
}

impl Worker {
    /// Starts a thread for viewers of so many groups.
    ///
    /// # Errors
    /// When the system gives no thread or no epoll.
    pub fn start(
        index: usize,
        identity: Arc<Identity>,
        groups: usize,
        live: Arc<Live>,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
        let (commands, inbox) = channel();
        let run = move || Thread::new(poll, inbox, identity, groups, live).run();
        let thread = std::thread::Builder::new().name(format!("crowd-{index}")).spawn(run)?;
        Ok(Self { inbox: Inbox { commands, waker }, thread })
    }

    /// For those that hand over viewers.
    pub fn inbox(&self) -> Inbox {
        self.inbox.clone()
    }

    /// Ends the counting of what is new.
    pub fn freeze(&self) {
        self.inbox.tell(Command::Freeze);
    }

    /// Ends the thread; returns what it has seen.
    ///
    /// # Errors
    /// When its epoll failed, or it panicked.
    pub fn finish(self) -> io::Result<Seen> {
        self.inbox.tell(Command::Finish);
        self.thread.join().unwrap_or_else(|_| Err(io::Error::other("a crowd thread panicked")))
    }
}

/// A viewer with what belongs to the outside world.
struct Seat {
    viewer: Viewer,
    socket: UdpSocket,
    state: UdpSocketState,
    connected: bool,
    link: Option<Link<()>>,
    scheduled: Option<Instant>,
    /// What the shared counters know of it.
    shown: Shown,
    packets_shown: u64,
    bytes_shown: u64,
}

#[derive(Clone, Copy, Default, PartialEq)]
struct Shown {
    watching: bool,
    over: bool,
    first_frame: bool,
}

struct Thread {
    poll: Poll,
    inbox: Receiver<Command>,
    identity: Arc<Identity>,
    live: Arc<Live>,
    collector: Collector,
    seats: Vec<Seat>,
    timers: BinaryHeap<Reverse<(Instant, usize)>>,
    /// Sockets that had more than their turn.
    again: Vec<usize>,
    buffers: [Vec<u8>; BATCH],
    /// Viewers whose media is not yet connected.
    connecting: usize,
    packets: u64,
    bytes: u64,
}

impl Thread {
    fn new(
        poll: Poll,
        inbox: Receiver<Command>,
        identity: Arc<Identity>,
        groups: usize,
        live: Arc<Live>,
    ) -> Self {
        Self {
            poll,
            inbox,
            identity,
            live,
            collector: Collector::new(groups),
            seats: Vec::new(),
            timers: BinaryHeap::new(),
            again: Vec::new(),
            buffers: std::array::from_fn(|_| vec![0; MESSAGE]),
            connecting: 0,
            packets: 0,
            bytes: 0,
        }
    }

    fn run(mut self) -> io::Result<Seen> {
        let mut events = Events::with_capacity(1024);
        loop {
            match self.poll.poll(&mut events, Some(self.nap())) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            for index in std::mem::take(&mut self.again) {
                self.receive(index);
            }
            for event in events.iter().filter(|event| event.token() != WAKE) {
                self.receive(event.token().0);
            }
            self.run_timers();
            if self.obey() {
                return Ok(self.finish());
            }
            self.live.delivered(self.packets, self.bytes);
            (self.packets, self.bytes) = (0, 0);
            if self.connecting == 0 && self.again.is_empty() {
                std::thread::sleep(BREATH);
            }
        }
    }

    fn nap(&self) -> Duration {
        if !self.again.is_empty() {
            return Duration::ZERO;
        }
        let now = Instant::now();
        let next = self.timers.peek().map(|Reverse((due, _))| due.saturating_duration_since(now));
        next.unwrap_or(NAP).min(NAP)
    }

    /// Carries out commands; `true` when told to end.
    fn obey(&mut self) -> bool {
        loop {
            match self.inbox.try_recv() {
                Ok(Command::Add(joined)) => self.add(*joined),
                Ok(Command::Freeze) => {
                    let at = At { now: Instant::now(), utc: utc_micros() };
                    self.seats.iter_mut().for_each(|seat| seat.viewer.freeze(at));
                }
                Ok(Command::Finish) | Err(TryRecvError::Disconnected) => return true,
                Err(TryRecvError::Empty) => return false,
            }
        }
    }

    fn add(&mut self, joined: Joined) {
        let Joined { setup, socket, impairment } = joined;
        let index = self.seats.len();
        let opened = UdpSocketState::new((&socket).into()).and_then(|state| {
            // As much as the system allows; the default will do where it allows none.
            let _ = state.set_recv_buffer_size((&socket).into(), RECEIVE_BUFFER);
            let fd = std::os::fd::AsRawFd::as_raw_fd(&socket);
            let interest = Interest::READABLE;
            self.poll.registry().register(&mut SourceFd(&fd), Token(index), interest)?;
            Ok(state)
        });
        let state = match opened {
            Ok(state) => state,
            Err(error) => {
                tracing::warn!(%error, "a viewer's socket cannot be used");
                self.live.ended();
                return;
            }
        };
        let viewer = Viewer::new(Instant::now(), Arc::clone(&self.identity), setup);
        self.seats.push(Seat {
            viewer,
            socket,
            state,
            connected: false,
            link: impairment.map(|(impairment, seed)| Link::new(impairment, seed)),
            scheduled: None,
            shown: Shown::default(),
            packets_shown: 0,
            bytes_shown: 0,
        });
        self.connecting += 1;
        self.fire(index);
    }

    fn receive(&mut self, index: usize) {
        let Some(seat) = self.seats.get_mut(index) else { return };
        let mut meta = [RecvMeta::default(); BATCH];
        for turn in 0.. {
            let mut slices: [IoSliceMut<'_>; BATCH] =
                self.buffers.each_mut().map(|buffer| IoSliceMut::new(buffer));
            let Ok(count) = seat.state.recv((&seat.socket).into(), &mut slices, &mut meta) else {
                break;
            };
            let now = Instant::now();
            for (buffer, meta) in self.buffers.iter().zip(&meta[..count]) {
                let utc = meta.timestamp.map_or_else(utc_micros, |time| time.as_micros() as i64);
                let at = At { now, utc };
                let message = buffer.get(..meta.len).unwrap_or_default();
                for datagram in message.chunks(meta.stride.max(1)) {
                    seat.take(at, meta.addr, datagram, &mut self.collector);
                }
            }
            if count < BATCH {
                break;
            }
            if turn + 1 >= TURNS {
                self.again.push(index);
                break;
            }
        }
        self.settle(index);
    }

    fn run_timers(&mut self) {
        let now = Instant::now();
        while let Some(&Reverse((due, index))) = self.timers.peek()
            && due <= now
        {
            self.timers.pop();
            // A timer that was brought forward since has a younger entry.
            if self.seats.get(index).is_some_and(|seat| seat.scheduled == Some(due)) {
                self.fire(index);
            }
        }
    }

    fn fire(&mut self, index: usize) {
        let at = At { now: Instant::now(), utc: utc_micros() };
        let Some(seat) = self.seats.get_mut(index) else { return };
        seat.scheduled = None;
        let from = seat.viewer.server();
        while let Some((datagram, ())) = seat.link.as_mut().and_then(|link| link.poll(at.now)) {
            if let Some(from) = from {
                seat.viewer.handle_datagram(at, from, &datagram, &mut self.collector);
            }
        }
        seat.viewer.handle_timeout(at, &mut self.collector);
        self.settle(index);
    }

    /// Sends what a viewer has to send, and sees to its timer and the shared counters.
    fn settle(&mut self, index: usize) {
        let Some(seat) = self.seats.get_mut(index) else { return };
        seat.send();
        let link = seat.link.as_ref().and_then(Link::poll_timeout);
        let due = [seat.viewer.poll_timeout(), link].into_iter().flatten().min();
        if let Some(due) = due
            && seat.scheduled.is_none_or(|scheduled| due < scheduled)
        {
            seat.scheduled = Some(due);
            self.timers.push(Reverse((due, index)));
        }
        let counted = seat.viewer.counted();
        self.packets +=
            counted.packets - std::mem::replace(&mut seat.packets_shown, counted.packets);
        self.bytes += counted.bytes - std::mem::replace(&mut seat.bytes_shown, counted.bytes);
        let shown = Shown {
            watching: seat.viewer.is_watching() || seat.shown.watching,
            over: seat.viewer.is_over(),
            first_frame: counted.first_frame_micros.is_some(),
        };
        if shown != seat.shown {
            let settled = |shown: Shown| shown.watching || shown.over;
            self.connecting -= usize::from(settled(shown) && !settled(seat.shown));
            if shown.watching && !seat.shown.watching {
                self.live.connected();
            }
            if shown.over && !seat.shown.over {
                self.live.ended();
            }
            if shown.first_frame && !seat.shown.first_frame {
                self.live.first_frame();
            }
            seat.shown = shown;
        }
    }

    fn finish(mut self) -> Seen {
        let now = Instant::now();
        for seat in &mut self.seats {
            seat.viewer.close(now);
            seat.send();
        }
        let viewers = self.seats.into_iter().map(|seat| seat.viewer.finish()).collect();
        Seen { viewers, latencies: self.collector.finish() }
    }
}

impl Seat {
    fn take(
        &mut self,
        at: At,
        from: std::net::SocketAddr,
        datagram: &[u8],
        collector: &mut Collector,
    ) {
        match &mut self.link {
            // Set-up is spared, so that runs are comparable.
            Some(link) if matches!(datagram.first(), Some(128..=191)) => {
                link.handle(at.now, datagram, ());
            }
            _ => self.viewer.handle_datagram(at, from, datagram, collector),
        }
    }

    fn send(&mut self) {
        if !self.connected
            && let Some(server) = self.viewer.server()
        {
            // From now on the kernel keeps strangers out.
            self.connected = self.socket.connect(server).is_ok();
        }
        while let Some((to, datagram)) = self.viewer.poll_transmit() {
            // A datagram that does not go out now is one lost on the way.
            let sent = if self.connected {
                self.socket.send(&datagram)
            } else {
                self.socket.send_to(&datagram, to)
            };
            if let Err(error) = sent {
                tracing::trace!(%error, "datagram not sent");
            }
        }
    }
}
