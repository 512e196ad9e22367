//! The registry of tables: the only place that creates and removes streams.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use crossbeam_channel::bounded;
use tokio::sync::broadcast;

use super::TableName;
use super::egress::EgressTotals;
use super::publisher::Publisher;
use super::stream::{EndReason, LayerStats, NOT_ENDING, Phase, Stream, StreamId};
use crate::media::TrackInfo;
use crate::time::Utc;

/// Commands that may wait for one publisher; more are refused with `StreamBusy`.
const COMMAND_QUEUE: usize = 1024;

/// Events that a slow listener may be behind; it then sees `Lagged` and lists anew.
const EVENT_QUEUE: usize = 256;

/// What somebody who wants to publish brings.
pub struct PublishRequest {
    /// The table to publish.
    pub table: TableName,
    /// Its tracks.
    pub tracks: Vec<TrackInfo>,
    /// Who publishes: the same non-empty credentials may take a live table over.
    pub credentials: Option<String>,
    /// The time now.
    pub now: Utc,
    /// Wakes the thread that will own the [`Publisher`].
    pub waker: Waker,
}

/// Why nobody may publish now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The table has a publisher with other credentials, or with none.
    #[error("the table already has a publisher")]
    TableTaken,
    /// The configured number of tables is reached.
    #[error("the gateway carries as many tables as it is allowed to")]
    TooManyTables,
}

/// What happens to streams, for those who follow all of them.
#[derive(Clone)]
pub enum RegistryEvent {
    /// The first media of a stream has arrived.
    Live(Arc<Stream>),
    /// A stream is over.
    Ended(Arc<Stream>, EndReason),
}

struct Entry {
    stream: Arc<Stream>,
    credentials: Option<String>,
}

/// All tables of this gateway. Shared as `Arc<Registry>`.
pub struct Registry {
    tables: Mutex<HashMap<TableName, Entry>>,
    next_id: AtomicU64,
    max_tables: usize,
    events: broadcast::Sender<RegistryEvent>,
}

impl Registry {
    /// A registry that carries at most `max_tables` tables at once.
    pub fn new(max_tables: usize) -> Arc<Self> {
        Arc::new(Self {
            tables: Mutex::default(),
            next_id: AtomicU64::new(1),
            max_tables,
            events: broadcast::channel(EVENT_QUEUE).0,
        })
    }

    /// Reserves the table and gives the way in. The stream is live with its first media.
    ///
    /// # Errors
    /// [`PublishError`] when the table is taken or there are too many tables.
    pub fn publish(self: &Arc<Self>, request: PublishRequest) -> Result<Publisher, PublishError> {
        let (commands, inbox) = bounded(COMMAND_QUEUE);
        let layer_stats =
            |track: &TrackInfo| track.rids.iter().map(|_| LayerStats::default()).collect();
        let stream = Arc::new(Stream {
            id: StreamId(self.next_id.fetch_add(1, Ordering::Relaxed)),
            table: request.table.clone(),
            stats: request.tracks.iter().map(layer_stats).collect(),
            tracks: request.tracks,
            created: request.now,
            egress: EgressTotals::default(),
            phase: (Phase::Connecting as u8).into(),
            ending: NOT_ENDING.into(),
            next_subscription: AtomicU64::new(0),
            commands,
            waker: request.waker,
        });
        let mut tables = self.lock();
        match tables.get(&request.table) {
            Some(current) if !current.yields_to(request.credentials.as_deref()) => {
                return Err(PublishError::TableTaken);
            }
            Some(current) => current.stream.end(EndReason::Replaced),
            None if tables.len() >= self.max_tables => return Err(PublishError::TooManyTables),
            None => {}
        }
        let entry = Entry { stream: stream.clone(), credentials: request.credentials };
        tables.insert(request.table, entry);
        drop(tables);
        Ok(Publisher::new(stream, inbox, self.clone()))
    }

    /// The stream of a table: connecting or live.
    pub fn get(&self, table: &TableName) -> Option<Arc<Stream>> {
        self.lock().get(table).map(|entry| entry.stream.clone())
    }

    /// All streams, connecting or live, in the order of their tables' names.
    pub fn list(&self) -> Vec<Arc<Stream>> {
        let mut streams: Vec<_> = self.lock().values().map(|e| e.stream.clone()).collect();
        streams.sort_by(|a, b| a.table.cmp(&b.table));
        streams
    }

    /// Follows what happens from now on. After `Lagged`, [`Self::list`] tells the truth.
    pub fn events(&self) -> broadcast::Receiver<RegistryEvent> {
        self.events.subscribe()
    }

    pub(super) fn announce_live(&self, stream: &Arc<Stream>) {
        // No listener is not an error.
        let _ = self.events.send(RegistryEvent::Live(stream.clone()));
    }

    pub(super) fn remove(&self, stream: &Arc<Stream>, reason: EndReason) {
        let mut tables = self.lock();
        // After a takeover the entry is another publication's.
        if tables.get(&stream.table).is_some_and(|entry| entry.stream.id == stream.id) {
            tables.remove(&stream.table);
        }
        drop(tables);
        let _ = self.events.send(RegistryEvent::Ended(stream.clone(), reason));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TableName, Entry>> {
        // No code panics while it holds this lock; the map is whole in any case.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn yields_to(&self, credentials: Option<&str>) -> bool {
        let same =
            credentials.is_some_and(|c| !c.is_empty() && self.credentials.as_deref() == Some(c));
        same || self.stream.is_ended()
    }
}
