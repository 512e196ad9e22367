//! One stream on one worker: its source, its viewers, and whose turn it is.
//!
//! Whenever the source releases packets, a *lap* goes over all viewers and gives each
//! a slice. Who has more coming, such as a newcomer with its GOP, waits in a queue for
//! its next slice, so that the laps of the others are not longer for it. A pass does
//! a bounded number of packets and can be left and taken up again anywhere: what is not
//! sent yet waits at the viewers' cursors, and nowhere else.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use slab::Slab;

use super::header::HeaderForms;
use super::source::Source;
use super::viewer::{PassContext, Viewer, ViewerQuality, ViewerSpec};
use crate::hub::{EgressCounts, Stream, SubscriptionId};
use crate::media::{LayerId, Packet};
use crate::net::udp::DatagramSink;
use crate::route::Route;
use crate::time::Utc;
use crate::webrtc::rtcp::Rtcp;

/// A viewer's place in its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat(usize);

/// A stream that this worker's viewers watch. owner: the worker.
pub struct FanoutStream {
    /// The subscription that feeds the rings; ended when the last member leaves.
    pub subscription: Option<SubscriptionId>,
    /// Sessions that watch or are about to.
    pub members: usize,
    source: Source,
    viewers: Slab<Viewer>,
    forms: HeaderForms,
    lap: Lap,
    /// A slice has precedence over the lap in the next visit.
    slice_next: bool,
    /// Who waits for its next slice, and until when; the times only rise.
    queue: VecDeque<(Instant, usize)>,
}

/// Which seats a lap has still to visit.
#[derive(Default)]
struct Lap {
    next: usize,
    left: usize,
}

impl Lap {
    /// Starts a lap over `seats`, or adds to one under way: whoever it has visited is
    /// visited again, after the others.
    fn start(&mut self, seats: usize) {
        if self.left == 0 && seats > 0 {
            // Another seat is the first each time: nobody is always last. A stride that
            // is no fraction of their number takes all of them in turn.
            self.next = (self.next + seats / 3 + 1) % seats;
        }
        self.left = seats;
    }

    fn step(&mut self, seats: usize) -> Option<usize> {
        if self.left == 0 || seats == 0 {
            self.left = 0;
            return None;
        }
        self.left -= 1;
        let seat = if self.next < seats { self.next } else { 0 };
        self.next = seat + 1;
        Some(seat)
    }
}

impl FanoutStream {
    /// A stream with empty rings and no viewers.
    pub fn new(stream: Arc<Stream>) -> Self {
        Self {
            subscription: None,
            members: 0,
            source: Source::new(stream),
            viewers: Slab::new(),
            forms: HeaderForms::default(),
            lap: Lap::default(),
            slice_next: false,
            queue: VecDeque::new(),
        }
    }

    /// The stream as the hub knows it.
    pub fn stream(&self) -> &Arc<Stream> {
        &self.source.stream
    }

    /// Takes a packet of `layer` into its ring.
    pub fn push(&mut self, now: Instant, layer: LayerId, packet: Arc<Packet>) {
        self.source.push(now, layer, packet);
    }

    /// Gives a viewer a seat; it is sent the current GOP in the next pass.
    pub fn join(&mut self, now: Instant, spec: ViewerSpec) -> Seat {
        let viewer = Viewer::new(spec, &self.source, &mut self.forms, now);
        let seat = self.viewers.insert(viewer);
        self.enqueue(now, seat);
        Seat(seat)
    }

    /// Takes a viewer out.
    pub fn leave(&mut self, seat: Seat) {
        self.viewers.try_remove(seat.0);
    }

    /// The viewers' peers.
    pub fn peers(&self) -> impl Iterator<Item = usize> + '_ {
        self.viewers.iter().map(|(_, viewer)| viewer.peer)
    }

    /// Sends a viewer's packets to another address from now on.
    pub fn redirect(&mut self, seat: Seat, to: Route) {
        if let Some(viewer) = self.viewers.get_mut(seat.0) {
            viewer.line.to = to;
        }
    }

    /// Sends viewers what is new, about `budget` packets at most. `started` is told the
    /// peer of each viewer that is sent its first picture. Returns what is left of the
    /// budget.
    pub fn pass(
        &mut self,
        context: &PassContext,
        mut budget: usize,
        sink: &mut impl DatagramSink,
        started: &mut Vec<usize>,
    ) -> usize {
        if self.source.release(context.now) {
            self.lap.start(self.viewers.capacity());
        }
        let mut counts = EgressCounts::default();
        while budget > 0 && !sink.is_blocked() {
            let Some(seat) = self.next_seat(context.now) else { break };
            let before = counts.packets;
            self.visit(seat, context, &mut counts, sink, started);
            // A visit to somebody who is up to date costs something too.
            budget = budget.saturating_sub((counts.packets - before).max(1) as usize);
        }
        self.source.stream.egress.add(&counts);
        budget
    }

    /// When [`Self::pass`] has something to do.
    pub fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        if self.lap.left > 0 {
            return Some(now);
        }
        let slice = self.queue.front().map(|(at, _)| *at);
        slice.into_iter().chain(self.source.release_at()).min()
    }

    /// Takes the messages of a viewer's compound RTCP packet; returns the round-trip
    /// time when they tell it.
    pub fn handle_rtcp(
        &mut self,
        seat: Seat,
        messages: &[Rtcp],
        context: &PassContext,
        sink: &mut impl DatagramSink,
    ) -> Option<std::time::Duration> {
        let viewer = self.viewers.get_mut(seat.0)?;
        let mut counts = EgressCounts::default();
        let rtt = viewer.handle_rtcp(messages, &mut self.source, context, &mut counts, sink);
        self.source.stream.egress.add(&counts);
        if counts.replays > 0 {
            self.enqueue(context.now, seat.0);
        }
        rtt
    }

    /// A viewer's sender reports (RFC 3550 §6.4.1), to be sealed.
    pub fn sender_report(&self, seat: Seat, utc: Utc) -> Option<Vec<u8>> {
        self.viewers.get(seat.0)?.sender_report(utc)
    }

    /// What tells a viewer that its streams are over (RFC 3550 §6.6), to be sealed.
    pub fn farewell(&self, seat: Seat) -> Option<Vec<u8>> {
        self.viewers.get(seat.0)?.farewell()
    }

    /// Has a viewer's layers chosen anew at its next visit: it has said which it wants.
    pub fn choose_layers(&mut self, seat: Seat) {
        if let Some(viewer) = self.viewers.get_mut(seat.0) {
            viewer.choose_soon();
        }
    }

    /// What a viewer's reports said last.
    pub fn quality(&self, seat: Seat) -> Option<ViewerQuality> {
        Some(self.viewers.get(seat.0)?.quality())
    }

    /// Who is next: in turn whoever's slice is due and the lap, so that neither many
    /// newcomers nor a large audience starve the other.
    fn next_seat(&mut self, now: Instant) -> Option<usize> {
        self.slice_next = !self.slice_next;
        if self.lap.left > 0 && !self.slice_next {
            return self.lap.step(self.viewers.capacity());
        }
        if let Some((_, seat)) = self.queue.pop_front_if(|(at, _)| *at <= now) {
            if let Some(viewer) = self.viewers.get_mut(seat) {
                viewer.queued = false;
            }
            return Some(seat);
        }
        self.lap.step(self.viewers.capacity())
    }

    fn visit(
        &mut self,
        seat: usize,
        context: &PassContext,
        counts: &mut EgressCounts,
        sink: &mut impl DatagramSink,
        started: &mut Vec<usize>,
    ) {
        let Some(viewer) = self.viewers.get_mut(seat).filter(|viewer| !viewer.queued) else {
            return;
        };
        let visit = viewer.pump(&mut self.source, context, counts, sink);
        if visit.started {
            started.push(viewer.peer);
        }
        if let Some(at) = visit.next_slice {
            self.enqueue(at, seat);
        }
    }

    /// Puts a viewer into the queue, unless it is there.
    fn enqueue(&mut self, at: Instant, seat: usize) {
        let Some(viewer) = self.viewers.get_mut(seat).filter(|viewer| !viewer.queued) else {
            return;
        };
        viewer.queued = true;
        // All wait equally long; who is to be visited at once goes to the front.
        match self.queue.back() {
            Some((last, _)) if at < *last => self.queue.push_front((at, seat)),
            _ => self.queue.push_back((at, seat)),
        }
    }
}
