//! Who owns which peer: the one table that all workers and the HTTP side share.
//!
//! It is off the packet path: a worker looks here only for a user fragment or an
//! address that it does not know itself.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::placement::{Placement, WorkerState};
use super::session::{NewRole, NewSession, SessionId, SessionKind};
use crate::egress::fanout::Watching;
use crate::hub::TableName;
use crate::webrtc::ice_lite::IceCredentials;
use crate::webrtc::transport::MAX_PATHS;

/// How many sessions there may be.
#[derive(Clone, Copy, Debug)]
pub struct SessionLimits {
    /// WHEP viewers.
    pub viewers: usize,
    /// WHIP publishers.
    pub publishers: usize,
}

/// A session that was not admitted because there are as many of its kind as allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("as many sessions as allowed")]
pub struct TooManySessions;

/// What the HTTP side may know of a session.
#[derive(Clone)]
pub struct SessionView {
    /// Viewer or publisher.
    pub kind: SessionKind,
    /// Its table.
    pub table: TableName,
    /// The local user fragment in force; it names the ICE session (RFC 9725 §4.3.1).
    pub ufrag: String,
    /// The peer's user fragment.
    pub remote_ufrag: String,
    /// What a viewer watches; `None` for a publisher.
    pub watching: Option<Arc<Watching>>,
}

struct Entry {
    view: SessionView,
    /// The user fragments that lead to it: the current one, after a restart the former too.
    ufrags: Vec<String>,
    addresses: Vec<SocketAddr>,
    place: Place,
}

enum Place {
    /// No worker has taken it yet.
    Waiting {
        session: Box<NewSession>,
        /// The worker that is to own it; chosen at the first binding request, so that
        /// its repetitions lead to the same one.
        reserved: Option<usize>,
    },
    /// The worker with this index owns it.
    Owned(usize),
}

struct Inner {
    sessions: HashMap<SessionId, Entry>,
    ufrags: HashMap<String, SessionId>,
    /// The peer that proved the address last, and its worker: a NAT may give the
    /// address of one that is gone to another.
    addresses: HashMap<SocketAddr, (SessionId, usize)>,
    viewers: usize,
    publishers: usize,
    /// Viewers whose peer has come; tables without are not listed.
    viewers_by_table: HashMap<TableName, usize>,
    /// The viewers that a worker owns or is to own.
    placement: Placement,
}

/// What a user fragment leads to.
pub(super) enum Claim {
    /// Yours from now on.
    New(Box<NewSession>),
    /// Another worker's, by its index; or to be its own as soon as it claims it.
    Owned(usize),
    /// Nobody's.
    Unknown,
}

/// Where a session is.
pub(super) enum Found {
    /// It was waiting, and is removed now; dropping it frees it.
    Removed(#[allow(dead_code, reason = "dropped outside the lock")] Box<NewSession>),
    /// The worker with this index owns it.
    Owned(usize),
}

pub(super) struct Directory {
    inner: Mutex<Inner>,
    limits: SessionLimits,
}

impl Directory {
    /// For workers numbered from 0 to below `workers`.
    pub(super) fn new(limits: SessionLimits, workers: usize) -> Self {
        let inner = Inner {
            sessions: HashMap::new(),
            ufrags: HashMap::new(),
            addresses: HashMap::new(),
            viewers: 0,
            publishers: 0,
            viewers_by_table: HashMap::new(),
            placement: Placement::new(workers),
        };
        Self { inner: Mutex::new(inner), limits }
    }

    /// Whether one more session of `kind` would be admitted now.
    pub(super) fn has_room(&self, kind: SessionKind) -> bool {
        self.lock().has_room(kind, self.limits)
    }

    pub(super) fn admit(&self, session: Box<NewSession>) -> Result<(), TooManySessions> {
        let kind = session.role.kind();
        let ufrag = session.credentials.ufrag.clone();
        let view = SessionView {
            kind,
            table: session.table.clone(),
            ufrag: ufrag.clone(),
            remote_ufrag: session.remote_ufrag.clone(),
            watching: match &session.role {
                NewRole::Viewer { stream, tracks } => Some(Watching::new(stream.clone(), tracks)),
                NewRole::Publisher { .. } => None,
            },
        };
        let mut inner = self.lock();
        if !inner.has_room(kind, self.limits) {
            return Err(TooManySessions);
        }
        *inner.count(kind) += 1;
        let id = session.id;
        inner.ufrags.insert(ufrag.clone(), id);
        let place = Place::Waiting { session, reserved: None };
        inner.sessions.insert(id, Entry { view, ufrags: vec![ufrag], addresses: vec![], place });
        Ok(())
    }

    pub(super) fn view(&self, id: SessionId) -> Option<SessionView> {
        self.lock().sessions.get(&id).map(|entry| entry.view.clone())
    }

    /// Gives the session of `ufrag` to `worker`, which got a binding request for it,
    /// unless it has an owner or, being a viewer, is better owned by another worker.
    /// A publisher stays: what comes from it is what it costs.
    pub(super) fn claim(&self, ufrag: &str, worker: usize) -> Claim {
        let mut inner = self.lock();
        let Inner { sessions, ufrags, viewers_by_table, placement, .. } = &mut *inner;
        let Some(entry) = ufrags.get(ufrag).and_then(|id| sessions.get_mut(id)) else {
            return Claim::Unknown;
        };
        match std::mem::replace(&mut entry.place, Place::Owned(worker)) {
            Place::Waiting { session, reserved } => {
                let is_viewer = entry.view.kind == SessionKind::Viewer;
                let owner = match reserved {
                    Some(owner) => owner,
                    None if is_viewer => placement.place(worker),
                    None => worker,
                };
                if owner != worker {
                    entry.place = Place::Waiting { session, reserved: Some(owner) };
                    return Claim::Owned(owner);
                }
                if is_viewer {
                    *viewers_by_table.entry(session.table.clone()).or_default() += 1;
                }
                Claim::New(session)
            }
            Place::Owned(owner) => {
                entry.place = Place::Owned(owner);
                Claim::Owned(owner)
            }
        }
    }

    /// The worker that owns the peer at `address`.
    pub(super) fn owner_of(&self, address: SocketAddr) -> Option<usize> {
        self.lock().addresses.get(&address).map(|(_, worker)| *worker)
    }

    /// Notes that `id` came from `address`, so that other workers can pass strays on.
    /// Returns false when the address is another session's.
    pub(super) fn add_address(&self, id: SessionId, address: SocketAddr, worker: usize) -> bool {
        let mut inner = self.lock();
        let Inner { sessions, addresses, .. } = &mut *inner;
        if addresses.get(&address).is_some_and(|(holder, _)| *holder != id) {
            return false;
        }
        // One more than a transport keeps: it lets an old one go next.
        if let Some(entry) = sessions.get_mut(&id)
            && !entry.addresses.contains(&address)
            && entry.addresses.len() <= MAX_PATHS
        {
            entry.addresses.push(address);
            addresses.insert(address, (id, worker));
        }
        true
    }

    pub(super) fn remove_address(&self, id: SessionId, address: SocketAddr) {
        let mut inner = self.lock();
        inner.forget_address(id, address);
        if let Some(entry) = inner.sessions.get_mut(&id) {
            entry.addresses.retain(|other| *other != address);
        }
    }

    /// Puts new credentials in force: in a waiting session at once; for an owned one
    /// the caller tells the worker whose index is returned.
    pub(super) fn restart_ice(
        &self,
        id: SessionId,
        credentials: &IceCredentials,
        remote_ufrag: &str,
    ) -> Option<usize> {
        let mut inner = self.lock();
        let Inner { sessions, ufrags, .. } = &mut *inner;
        let entry = sessions.get_mut(&id)?;
        // The current and the new one stay; an older one is forgotten.
        while entry.ufrags.len() > 1 {
            ufrags.remove(&entry.ufrags.remove(0));
        }
        entry.ufrags.push(credentials.ufrag.clone());
        entry.view.ufrag.clone_from(&credentials.ufrag);
        entry.view.remote_ufrag = remote_ufrag.to_owned();
        ufrags.insert(credentials.ufrag.clone(), id);
        match &mut entry.place {
            Place::Waiting { session, .. } => {
                session.credentials = credentials.clone();
                None
            }
            Place::Owned(worker) => Some(*worker),
        }
    }

    /// The worker that owns `id`; `None` while it waits, and when there is none.
    pub(super) fn owner(&self, id: SessionId) -> Option<usize> {
        match self.lock().sessions.get(&id)?.place {
            Place::Owned(worker) => Some(worker),
            Place::Waiting { .. } => None,
        }
    }

    /// Removes a waiting session, or tells who owns it.
    pub(super) fn close(&self, id: SessionId) -> Option<Found> {
        let mut inner = self.lock();
        match inner.sessions.get(&id)?.place {
            Place::Owned(worker) => Some(Found::Owned(worker)),
            Place::Waiting { .. } => inner.remove(id).map(Found::Removed),
        }
    }

    /// Forgets a session that its owner has ended.
    pub(super) fn forget(&self, id: SessionId) {
        self.lock().remove(id);
    }

    /// Removes and returns the sessions whose first binding request is overdue.
    pub(super) fn take_overdue(&self, now: Instant, bound: Duration) -> Vec<NewSession> {
        let mut inner = self.lock();
        let overdue = |entry: &Entry| match &entry.place {
            Place::Waiting { session, .. } => {
                now.saturating_duration_since(session.created) > bound
            }
            Place::Owned(_) => false,
        };
        let ids: Vec<_> =
            inner.sessions.iter().filter(|(_, e)| overdue(e)).map(|(id, _)| *id).collect();
        ids.into_iter().filter_map(|id| inner.remove(id)).map(|session| *session).collect()
    }

    /// Sessions of `kind`, waiting or owned.
    pub(super) fn count(&self, kind: SessionKind) -> usize {
        *self.lock().count(kind)
    }

    /// Viewers of `table` whose peer has come.
    pub(super) fn viewers_of(&self, table: &TableName) -> usize {
        self.lock().viewers_by_table.get(table).copied().unwrap_or(0)
    }

    /// Viewers that each worker owns or is to own.
    pub(super) fn viewers_by_worker(&self) -> Vec<usize> {
        self.lock().placement.viewers()
    }

    /// Notes what the workers can take, in their order.
    pub(super) fn set_worker_states(&self, states: &[WorkerState]) {
        self.lock().placement.set_states(states);
    }

    /// Sessions, user fragments, addresses and watched tables that are kept.
    #[cfg(test)]
    pub(super) fn sizes(&self) -> [usize; 4] {
        let inner = self.lock();
        [
            inner.sessions.len(),
            inner.ufrags.len(),
            inner.addresses.len(),
            inner.viewers_by_table.len(),
        ]
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // No code panics while it holds this lock; the maps are whole in any case.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn has_room(&mut self, kind: SessionKind, limits: SessionLimits) -> bool {
        let limit = match kind {
            SessionKind::Viewer => limits.viewers,
            SessionKind::Publisher => limits.publishers,
        };
        *self.count(kind) < limit
    }

    fn count(&mut self, kind: SessionKind) -> &mut usize {
        match kind {
            SessionKind::Viewer => &mut self.viewers,
            SessionKind::Publisher => &mut self.publishers,
        }
    }

    fn remove(&mut self, id: SessionId) -> Option<Box<NewSession>> {
        let entry = self.sessions.remove(&id)?;
        *self.count(entry.view.kind) -= 1;
        let arrived = matches!(entry.place, Place::Owned(_));
        if arrived && entry.view.kind == SessionKind::Viewer {
            self.forget_viewer_of(&entry.view.table);
        }
        for ufrag in &entry.ufrags {
            self.ufrags.remove(ufrag);
        }
        for address in &entry.addresses {
            self.forget_address(id, *address);
        }
        let (worker, session) = match entry.place {
            Place::Waiting { session, reserved } => (reserved, Some(session)),
            Place::Owned(worker) => (Some(worker), None),
        };
        if let Some(worker) = worker
            && entry.view.kind == SessionKind::Viewer
        {
            self.placement.remove(worker);
        }
        session
    }

    fn forget_address(&mut self, id: SessionId, address: SocketAddr) {
        if self.addresses.get(&address).is_some_and(|(owner, _)| *owner == id) {
            self.addresses.remove(&address);
        }
    }

    fn forget_viewer_of(&mut self, table: &TableName) {
        if let Some(count) = self.viewers_by_table.get_mut(table) {
            *count -= 1;
            if *count == 0 {
                self.viewers_by_table.remove(table);
            }
        }
    }
}
