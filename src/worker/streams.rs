//! The streams that one worker's viewers watch: subscribed with the first of
//! them, left with the last.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use super::mailbox::{Mailbox, MediaSink};
use crate::egress::fanout::FanoutStream;
use crate::hub::{Stream, StreamId};
use crate::media::{LayerId, Packet};

/// Owner: the worker.
pub(super) struct Streams {
    streams: HashMap<StreamId, FanoutStream>,
    mailbox: Arc<Mailbox>,
}

impl Streams {
    pub(super) fn new(mailbox: Arc<Mailbox>) -> Self {
        Self { streams: HashMap::new(), mailbox }
    }

    /// The stream, subscribed to. `None` when its source cannot take the subscription:
    /// it is over, or has more requests than it can handle.
    pub(super) fn open(&mut self, stream: &Arc<Stream>) -> Option<&mut FanoutStream> {
        let fanout =
            self.streams.entry(stream.id).or_insert_with(|| FanoutStream::new(stream.clone()));
        if fanout.subscription.is_none() {
            let sink = MediaSink { stream: stream.id, mailbox: self.mailbox.clone() };
            match stream.subscribe_packets(Box::new(sink)) {
                Ok(subscription) => fanout.subscription = Some(subscription),
                Err(_) => {
                    self.streams.remove(&stream.id);
                    return None;
                }
            }
        }
        self.streams.get_mut(&stream.id)
    }

    pub(super) fn get_mut(&mut self, id: StreamId) -> Option<&mut FanoutStream> {
        self.streams.get_mut(&id)
    }

    /// Takes a viewer out; the last one ends the subscription.
    pub(super) fn leave(&mut self, id: StreamId, key: usize) {
        let Some(fanout) = self.streams.get_mut(&id) else { return };
        fanout.viewers.retain(|viewer| *viewer != key);
        if fanout.viewers.is_empty() {
            if let Some(subscription) = fanout.subscription.take() {
                // A stream too busy to hear it sends packets that nobody takes, until it ends.
                let _ = fanout.stream.unsubscribe(subscription);
            }
            self.streams.remove(&id);
        }
    }

    /// Removes a stream that is over; returns the keys of its viewers.
    pub(super) fn end(&mut self, id: StreamId) -> Vec<usize> {
        self.streams.remove(&id).map(|fanout| fanout.viewers).unwrap_or_default()
    }

    pub(super) fn push(&mut self, now: Instant, id: StreamId, layer: LayerId, packet: Arc<Packet>) {
        if let Some(fanout) = self.streams.get_mut(&id) {
            fanout.push(now, layer, packet);
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.streams.len()
    }

    pub(super) fn any_touched(&self) -> bool {
        self.streams.values().any(|fanout| fanout.touched)
    }

    /// The streams to advance, with their mark taken off.
    pub(super) fn take_touched(&mut self) -> impl Iterator<Item = &mut FanoutStream> {
        self.streams
            .values_mut()
            .filter_map(|fanout| std::mem::take(&mut fanout.touched).then_some(fanout))
    }
}
