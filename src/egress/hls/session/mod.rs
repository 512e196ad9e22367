//! Who watches over LL-HLS, and how well: accounting without cookies.
//!
//! ```text
//!  multivariant request ── issue ──▶ pass, in every URI of the answer     pass
//!  playlist, part, segment below it ── handle_request ──▶ Visit
//!       media reached the viewer ── handle_media ──▶ counts of the table  viewer, playback
//!       answered, or given up ── handle_done                              audience
//!  once a second ── poll_expired ──▶ who has gone
//! ```
//!
//! State begins with the first media playlist, not with the pass: whoever only collects
//! passes fills nothing. It is told the time, and is sharded because thousands of
//! requests come in the milliseconds after each part.

pub mod audience;
pub mod pass;
pub mod playback;
pub mod viewer;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use crate::hub::TableName;
use crate::qos::{Metrics, Transport};
use crate::time::Utc;

use audience::Audience;
use pass::Passes;
use playback::Pace;
use viewer::{Fetched, Outcome, Viewer};

/// Locks over the sessions; a power of two.
const SHARDS: usize = 64;

/// The `kind` of sessions in the metrics.
const KIND: &str = "viewer";

/// Why a request is not accounted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unaccounted {
    /// There is no pass in its path.
    NoPass,
    /// What stands there is no pass of the table, or one from before a restart.
    InvalidPass,
    /// It asks for media without having asked for a playlist.
    NotBegun,
    /// There are as many sessions as may be.
    Full,
}

impl Unaccounted {
    /// Every reason.
    pub const ALL: [Self; 4] = [Self::NoPass, Self::InvalidPass, Self::NotBegun, Self::Full];

    /// The value of the `reason` metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoPass => "no_pass",
            Self::InvalidPass => "invalid_pass",
            Self::NotBegun => "not_begun",
            Self::Full => "full",
        }
    }
}

/// What a request is for.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The table.
    pub table: &'a TableName,
    /// What stands in the path where a pass stands.
    pub pass: Option<&'a str>,
    /// Whether it may begin a session: a media playlist does.
    pub begins: bool,
}

/// A request in progress. [`Sessions::handle_done`] ends it.
#[derive(Debug, Clone)]
pub struct Visit {
    /// The viewers that it is one of.
    pub audience: Arc<Audience>,
    session: Option<u64>,
    playlist: bool,
}

impl Visit {
    /// Whether the request belongs to a session.
    pub const fn is_accounted(&self) -> bool {
        self.session.is_some()
    }
}

/// A session: its viewer and where it sits.
struct Session {
    viewer: Viewer,
    audience: Arc<Audience>,
    table: TableName,
}

type Shard = HashMap<u64, Session>;

/// All sessions of LL-HLS viewers. Shared as `Arc<Sessions>`.
pub struct Sessions {
    passes: Passes,
    shards: Vec<Mutex<Shard>>,
    /// Sessions in all shards, and how many there may be. Past it newcomers are served
    /// and not accounted for.
    count: AtomicUsize,
    max: usize,
    /// Tables that somebody asked for; those without viewers go with their stream.
    audiences: RwLock<HashMap<TableName, Arc<Audience>>>,
    unaccounted: [AtomicU64; Unaccounted::ALL.len()],
    metrics: Metrics,
}

impl Sessions {
    /// None yet; `max` at once. `key` is random, for the passes.
    pub fn new(now: Instant, key: &[u8; 32], max: usize, metrics: Metrics) -> Self {
        Self {
            passes: Passes::new(key, now),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            count: AtomicUsize::new(0),
            max,
            audiences: RwLock::default(),
            unaccounted: Default::default(),
            metrics,
        }
    }

    /// A pass for a viewer that is about to begin. `session` is random.
    pub fn issue(&self, now: Instant, table: &TableName, session: u64) -> String {
        self.passes.issue(now, table, session)
    }

    /// A viewer asks for something of a table that exists; `pace` is the table's.
    pub fn handle_request(&self, now: Instant, request: Request<'_>, pace: Pace) -> Visit {
        let audience = self.audience_or_new(request.table, pace);
        let session = self.enter(now, request, &audience);
        if let Err(reason) = session {
            // Served all the same. When viewers are authenticated, by what they show to be
            // given a pass, `NoPass` and `InvalidPass` will be refused here.
            self.unaccounted[reason as usize].fetch_add(1, Ordering::Relaxed);
        }
        Visit { audience, session: session.ok(), playlist: request.begins }
    }

    fn enter(
        &self,
        now: Instant,
        request: Request<'_>,
        audience: &Arc<Audience>,
    ) -> Result<u64, Unaccounted> {
        let pass = request.pass.ok_or(Unaccounted::NoPass)?;
        let pass = self.passes.verify(request.table, pass).map_err(|_| Unaccounted::InvalidPass)?;
        match self.shard(pass.session).entry(pass.session) {
            Entry::Occupied(mut session) => {
                session.get_mut().viewer.handle_request(now, request.begins, &audience.pace);
            }
            Entry::Vacant(_) if !request.begins => return Err(Unaccounted::NotBegun),
            Entry::Vacant(place) => {
                if self.count.fetch_add(1, Ordering::Relaxed) >= self.max {
                    self.count.fetch_sub(1, Ordering::Relaxed);
                    return Err(Unaccounted::Full);
                }
                place.insert(Session {
                    viewer: Viewer::new(now, pass.issued),
                    audience: audience.clone(),
                    table: request.table.clone(),
                });
                audience.viewers.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(table = %request.table, sessionId = %name(pass.session), "viewer began");
                self.metrics.session_started(KIND, Transport::LlHls);
            }
        }
        Ok(pass.session)
    }

    /// A playlist of the leading kind is given to the viewer, with media until `edge`.
    pub fn handle_offer(&self, now: Instant, visit: &Visit, edge: Utc) {
        if let Some(number) = visit.session
            && let Some(session) = self.shard(number).get_mut(&number)
        {
            session.viewer.handle_offer(now, edge, &visit.audience.pace);
        }
    }

    /// Media reached the viewer: its connection took all of it, which took it `taken`.
    pub fn handle_media(
        &self,
        now: Instant,
        visit: &Visit,
        fetched: &Fetched,
        taken: Duration,
    ) -> Outcome {
        let audience = &visit.audience;
        let length = fetched.span.end.micros_since(fetched.span.start);
        let length = Duration::from_micros(u64::try_from(length).unwrap_or(0));
        audience.observe(fetched.behind, length, taken);
        let Some(number) = visit.session else { return Outcome::default() };
        let outcome = match self.shard(number).get_mut(&number) {
            Some(session) => session.viewer.handle_media(now, fetched, &audience.pace),
            None => return Outcome::default(),
        };
        audience.count(&outcome);
        if let Some(after) = outcome.first_frame {
            self.metrics.first_frame(Transport::LlHls, after);
        }
        outcome
    }

    /// The request was answered to its end, or given up.
    pub fn handle_done(&self, now: Instant, visit: &Visit) {
        if let Some(number) = visit.session
            && let Some(session) = self.shard(number).get_mut(&number)
        {
            session.viewer.handle_done(now, visit.playlist);
        }
    }

    /// Ends the sessions of those who have gone; `is_on` says whether a table is still
    /// being published. Call it about once a second.
    pub fn poll_expired(&self, now: Instant, is_on: impl Fn(&TableName) -> bool) {
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.retain(|number, session| {
                let gone = session.viewer.is_gone(now, &session.audience.pace);
                if gone {
                    let reason = if is_on(&session.table) { "idle" } else { "stream_ended" };
                    self.count_end(*number, session, reason);
                }
                !gone
            });
        }
        let mut audiences = self.audiences.write().unwrap_or_else(PoisonError::into_inner);
        // Who holds one got it under this lock.
        audiences.retain(|table, audience| Arc::strong_count(audience) > 1 || is_on(table));
    }

    fn count_end(&self, number: u64, session: &Session, reason: &'static str) {
        let Session { viewer, audience, table } = session;
        audience.viewers.fetch_sub(1, Ordering::Relaxed);
        self.count.fetch_sub(1, Ordering::Relaxed);
        self.metrics.session_ended(KIND, Transport::LlHls, reason);
        // Not a line at `info`, as of WebRTC: anybody begins sessions with two requests.
        let (seconds, stalls) = (viewer.lasted().as_secs(), viewer.stalls());
        tracing::debug!(%table, sessionId = %name(number), reason, seconds, stalls, "viewer has gone");
    }

    /// The viewers of a table, if any ever asked for it.
    pub fn audience(&self, table: &TableName) -> Option<Arc<Audience>> {
        self.audiences.read().unwrap_or_else(PoisonError::into_inner).get(table).cloned()
    }

    /// Requests without a session so far, by reason.
    pub fn unaccounted(&self) -> [(&'static str, u64); Unaccounted::ALL.len()] {
        let read = |reason: Unaccounted| {
            (reason.as_str(), self.unaccounted[reason as usize].load(Ordering::Relaxed))
        };
        Unaccounted::ALL.map(read)
    }

    fn audience_or_new(&self, table: &TableName, pace: Pace) -> Arc<Audience> {
        if let Some(audience) = self.audience(table) {
            return audience;
        }
        let mut audiences = self.audiences.write().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(Audience::new(pace));
        audiences.entry(table.clone()).or_insert_with(new).clone()
    }

    /// Session numbers are random, so that they spread evenly.
    fn shard(&self, number: u64) -> MutexGuard<'_, Shard> {
        // Nothing panics while it holds this lock; sessions are whole in any case.
        self.shards[number as usize % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A session in log lines.
fn name(number: u64) -> impl std::fmt::Display {
    std::fmt::from_fn(move |f| write!(f, "{number:016x}"))
}
