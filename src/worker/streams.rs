//! The streams that one worker's viewers watch: subscribed with the first of
//! them, left with the last.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use slab::Slab;

use super::mailbox::{Mailbox, MediaSink};
use crate::egress::fanout::{FanoutStream, PassContext, Seat};
use crate::hub::{Stream, StreamId};
use crate::media::{LayerId, Packet};
use crate::net::udp::DatagramSink;

/// Packets that one turn sends, over all streams: 1 to 2 ms, after which the worker
/// looks at what has come in. A count and not a time, so that a turn is the same on
/// every clock.
const TURN_BUDGET: usize = 4096;
/// Packets that one stream may send in a turn, however many streams wait.
const LEAST_BUDGET: usize = 64;

/// Owner: the worker.
pub(super) struct Streams {
    streams: Slab<FanoutStream>,
    by_id: HashMap<StreamId, usize>,
    /// Which stream is the first in the next turn.
    first: usize,
    mailbox: Arc<Mailbox>,
}

impl Streams {
    pub(super) fn new(mailbox: Arc<Mailbox>) -> Self {
        Self { streams: Slab::new(), by_id: HashMap::new(), first: 0, mailbox }
    }

    /// Makes a session a member of a stream, which is subscribed to for the first.
    /// False when the source cannot take the subscription: it is over, or has more
    /// requests than it can handle.
    pub(super) fn enter(&mut self, stream: &Arc<Stream>) -> bool {
        let at = *self
            .by_id
            .entry(stream.id)
            .or_insert_with(|| self.streams.insert(FanoutStream::new(stream.clone())));
        let fanout = &mut self.streams[at];
        if fanout.subscription.is_none() {
            let sink = MediaSink { stream: stream.id, mailbox: self.mailbox.clone() };
            match stream.subscribe_packets(Box::new(sink)) {
                Ok(subscription) => fanout.subscription = Some(subscription),
                Err(_) => {
                    self.remove(stream.id);
                    return false;
                }
            }
        }
        fanout.members += 1;
        true
    }

    /// Takes a member out, and its viewer from its seat; the last one ends the
    /// subscription.
    pub(super) fn leave(&mut self, id: StreamId, seat: Option<Seat>) {
        let Some(fanout) = self.get_mut(id) else { return };
        if let Some(seat) = seat {
            fanout.leave(seat);
        }
        fanout.members -= 1;
        if fanout.members == 0 {
            if let Some(subscription) = fanout.subscription.take() {
                // A stream too busy to hear it sends packets that nobody takes, until it ends.
                let _ = fanout.stream().unsubscribe(subscription);
            }
            self.remove(id);
        }
    }

    pub(super) fn get(&self, id: StreamId) -> Option<&FanoutStream> {
        self.streams.get(*self.by_id.get(&id)?)
    }

    pub(super) fn get_mut(&mut self, id: StreamId) -> Option<&mut FanoutStream> {
        self.streams.get_mut(*self.by_id.get(&id)?)
    }

    /// The peers of the viewers of a stream.
    pub(super) fn peers_of(&self, id: StreamId) -> Vec<usize> {
        self.get(id).map(|fanout| fanout.peers().collect()).unwrap_or_default()
    }

    pub(super) fn push(&mut self, now: Instant, id: StreamId, layer: LayerId, packet: Arc<Packet>) {
        if let Some(fanout) = self.get_mut(id) {
            fanout.push(now, layer, packet);
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Sends the viewers what is new, within the bound of a turn. `started` is told the
    /// peer of each viewer that is sent its first picture.
    pub(super) fn pass(
        &mut self,
        context: &PassContext,
        sink: &mut impl DatagramSink,
        started: &mut Vec<usize>,
    ) {
        let seats = self.streams.capacity();
        let mut budget = TURN_BUDGET;
        let mut waiting = self.streams.len().max(1);
        for step in 0..seats {
            let Some(fanout) = self.streams.get_mut((self.first + step) % seats) else { continue };
            let share = (budget / waiting).max(LEAST_BUDGET);
            let left = fanout.pass(context, share, sink, started);
            budget = budget.saturating_sub(share - left);
            waiting = waiting.saturating_sub(1).max(1);
        }
        self.first = (self.first + 1) % seats.max(1);
    }

    /// When [`Self::pass`] has something to do.
    pub(super) fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        self.streams.iter().filter_map(|(_, fanout)| fanout.poll_timeout(now)).min()
    }

    fn remove(&mut self, id: StreamId) {
        if let Some(at) = self.by_id.remove(&id) {
            self.streams.remove(at);
        }
    }
}
