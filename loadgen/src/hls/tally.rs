//! What all clients of a run count together, and what they share of a rendition.
//!
//! A playlist that a thousand clients get is read once: its bytes are compared with the
//! last few, which costs less than reading them. And the first of all clients that is
//! told of a part tells when that part could be had: the others are measured by it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::Url;

use super::http::{Answer, Failure};
use super::playlist::{MediaPlaylist, Place};
use crate::crowd::measure::Spread;

/// Playlists of a rendition that are remembered: delta updates and whole ones of the
/// last few versions.
const RECENT: usize = 16;
/// Live edges of a rendition whose first answer is remembered: a minute of short parts.
const EDGES: usize = 256;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Counters, for all clients together.
        #[derive(Debug, Default)]
        pub(super) struct Counters { $($(#[$doc])* pub $name: AtomicU64,)* }

        /// Their values at a moment.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counts { $($(#[$doc])* pub $name: u64,)* }

        impl Counters {
            fn counts(&self) -> Counts {
                Counts { $($name: self.$name.load(Relaxed),)* }
            }
        }
    };
}

counters! {
    /// Clients that have a first playlist of a rendition.
    started,
    /// Clients that play, or played.
    playing,
    /// Clients that gave up.
    failed,
    /// Clients that saw the end of the stream.
    ended,
    /// Answers with a media playlist.
    playlists,
    /// Those among them that were waited for: asked for before any client was told.
    blocked,
    /// Parts.
    parts,
    /// Parts that were asked for by their hint.
    hinted,
    /// Whole segments.
    segments,
    /// Init segments.
    inits,
    /// Bytes of bodies.
    bytes,
    /// Those among them that were playlists, as they came.
    playlist_bytes,
    /// Requests put off by 404, 429 or 503.
    retries,
    /// Connections opened.
    connections,
    /// Hints that did not come true.
    hints_missed,
    /// Parts and segments marked as gaps.
    gaps,
    /// Times that media left the playlist before it was fetched.
    overruns,
}

/// Distributions of times.
#[derive(Clone, Debug, Default)]
pub(super) struct Spreads {
    /// From being due to join to the first part.
    pub first_part: Spread,
    /// From capture to the playhead.
    pub latency: Spread,
    /// Ahead of the playhead, after each part.
    pub buffer: Spread,
    /// From the first answer that any client had to that of each that waited.
    pub answer_spread: Spread,
    /// From the capture of the last sample listed to an answer that was waited for.
    pub edge: Spread,
}

#[derive(Default)]
struct Inner {
    spreads: Spreads,
    statuses: BTreeMap<u16, u64>,
    errors: BTreeMap<String, u64>,
    failures: BTreeMap<String, u64>,
    first_failure: Option<Failure>,
    /// By the address of the multivariant playlist and the track.
    renditions: HashMap<(String, usize), Arc<Mutex<Rendition>>>,
}

/// What a run has counted.
#[derive(Default)]
pub struct Tally {
    pub(super) count: Counters,
    inner: Mutex<Inner>,
}

/// The account of a run: errors and failures by name, requests by status.
pub(super) struct Account {
    pub counts: Counts,
    pub spreads: Spreads,
    pub statuses: BTreeMap<u16, u64>,
    pub errors: BTreeMap<String, u64>,
    pub failures: BTreeMap<String, u64>,
}

impl Tally {
    /// The counters now.
    pub fn counts(&self) -> Counts {
        self.count.counts()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one.
    pub(super) fn one(counter: &AtomicU64) {
        counter.fetch_add(1, Relaxed);
    }

    /// Takes times.
    pub(super) fn record(&self, take: impl FnOnce(&mut Spreads)) {
        take(&mut self.inner().spreads);
    }

    /// Forgets the times of joining, all but the first part's.
    pub(super) fn restart(&self) {
        let spreads = &mut self.inner().spreads;
        let first_part = std::mem::take(&mut spreads.first_part);
        *spreads = Spreads { first_part, ..Spreads::default() };
    }

    /// Counts an answer by its status.
    pub(super) fn status(&self, status: u16) {
        *self.inner().statuses.entry(status).or_default() += 1;
    }

    /// Counts an error by its name.
    pub(super) fn error(&self, name: &str) {
        *self.inner().errors.entry(name.to_owned()).or_default() += 1;
    }

    /// Counts a client that gave up.
    pub(super) fn failure(&self, reason: &Failure) {
        Self::one(&self.count.failed);
        let mut inner = self.inner();
        *inner.failures.entry(reason.to_string()).or_default() += 1;
        inner.first_failure.get_or_insert_with(|| reason.clone());
    }

    /// Over what the first client gave up that did.
    pub(super) fn first_failure(&self) -> Option<Failure> {
        self.inner().first_failure.clone()
    }

    /// What is shared of the rendition of a track that clients choose from the playlist at
    /// this address: all choose alike.
    pub(super) fn rendition(&self, listed_in: &Url, track: usize) -> Arc<Mutex<Rendition>> {
        let place = (listed_in.to_string(), track);
        Arc::clone(self.inner().renditions.entry(place).or_default())
    }

    /// The account so far.
    pub(super) fn account(&self) -> Account {
        let inner = self.inner();
        Account {
            counts: self.count.counts(),
            spreads: inner.spreads.clone(),
            statuses: inner.statuses.clone(),
            errors: inner.errors.clone(),
            failures: inner.failures.clone(),
        }
    }
}

/// What all clients share of a rendition.
#[derive(Default)]
pub(super) struct Rendition {
    recent: VecDeque<(Bytes, Arc<MediaPlaylist>)>,
    /// Live edges, and when the first client was told.
    edges: VecDeque<(Place, Instant)>,
}

impl Rendition {
    /// Reads an answer, or finds it read.
    pub fn read(&mut self, answer: &Answer) -> Result<Arc<MediaPlaylist>, String> {
        if let Some((_, read)) = self.recent.iter().find(|(bytes, _)| *bytes == answer.body) {
            return Ok(Arc::clone(read));
        }
        let text = answer.text().map_err(|failure| failure.to_string())?;
        let read = MediaPlaylist::read(&text).map_err(|error| format!("playlist: {error}"))?;
        let read = Arc::new(read);
        if self.recent.len() == RECENT {
            self.recent.pop_back();
        }
        self.recent.push_front((answer.body.clone(), Arc::clone(&read)));
        Ok(read)
    }

    /// How long after the first client one was told of `edge` that had `asked` for it
    /// before; `None` for one that asked later: it did not wait.
    pub fn delay(&mut self, edge: Place, asked: Instant, told: Instant) -> Option<Duration> {
        match self.edges.iter_mut().find(|(known, _)| *known == edge) {
            Some((_, first)) => {
                // Clients run side by side: the second to come may have been told first.
                *first = told.min(*first);
                (asked < *first).then(|| told - *first)
            }
            None => {
                if self.edges.len() == EDGES {
                    self.edges.pop_back();
                }
                self.edges.push_front((edge, told));
                Some(Duration::ZERO)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(at: Instant, text: &'static str) -> Answer {
        let body = Bytes::from_static(text.as_bytes());
        Answer { asked: at, answered: at, bytes: body.len() as u64, body, gzip: false }
    }

    #[test]
    fn those_who_waited_are_measured_by_the_first() {
        let begun = Instant::now();
        let at = |millis| begun + Duration::from_millis(millis);
        let mut rendition = Rendition::default();
        assert_eq!(rendition.delay((5, 1), begun, at(100)), Some(Duration::ZERO));
        let waited = rendition.delay((5, 1), at(50), at(130));
        assert_eq!(waited, Some(Duration::from_millis(30)));
        assert_eq!(rendition.delay((5, 1), at(101), at(140)), None);
        assert_eq!(rendition.delay((5, 1), begun, at(90)), Some(Duration::ZERO));
        for part in 0..10_000 {
            rendition.delay((6, part), begun, at(200));
        }
        assert!(rendition.edges.len() <= EDGES);
    }

    #[test]
    fn the_same_bytes_are_read_once_and_others_are_not_kept_for_long() {
        let now = Instant::now();
        let mut rendition = Rendition::default();
        let one = answer(now, "#EXTM3U\n#EXT-X-TARGETDURATION:2\n");
        let (first, second) = (rendition.read(&one).unwrap(), rendition.read(&one).unwrap());
        assert!(Arc::ptr_eq(&first, &second));
        assert!(rendition.read(&answer(now, "#EXTM3U\n")).unwrap_err().contains("TARGETDURATION"));
        for _ in 0..100 {
            let text = format!("#EXTM3U\n#EXT-X-TARGETDURATION:{}\n", rendition.recent.len());
            let body = Bytes::from(text);
            rendition.read(&Answer { body, ..answer(now, "") }).unwrap();
        }
        assert!(rendition.recent.len() <= RECENT);
    }

    #[test]
    fn joining_does_not_count_among_the_times_of_the_window() {
        let tally = Tally::default();
        tally.record(|spreads| {
            spreads.first_part.record(1000);
            spreads.latency.record(1000);
        });
        tally.restart();
        let account = tally.account();
        assert_eq!(account.spreads.first_part.summary().unwrap().samples, 1);
        assert_eq!(account.spreads.latency.summary(), None);
    }
}
