//! Which table is packaged by whom: follows the registry, keeps one task per table, and
//! hands a table from one publication to the next.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;

use super::daterange::{DateRange, DateRangeError};
use super::packager::{Live, Packager, Source, wait_until};
use super::segmenter::RenditionSource;
use super::session::Sessions;
use super::store::Numbers;
use super::{Hls, HlsSettings, count};
use crate::codec::{Codec, MediaKind};
use crate::hub::{EndReason, Registry, RegistryEvent, Stream, StreamId, TableName};
use crate::media::LayerId;
use crate::qos::Metrics;
use crate::time::{Clock, Utc};

/// A stream that is too busy to take a subscription is asked again after this long.
const SUBSCRIBE_RETRY: Duration = Duration::from_millis(100);

/// A table whose task has failed is packaged again after this long: by input that makes it
/// fail each time, little is lost but the table.
const REPAIR_PAUSE: Duration = Duration::from_secs(1);

/// Tables have so long to end when the gateway stops: those between publications do at
/// once, the others as soon as their publications have ended.
const STOP_BOUND: Duration = Duration::from_secs(2);

/// Tables that are gone whose numbers are remembered; past it the oldest are forgotten
/// and count from the clock.
const MAX_REMEMBERED: usize = 4096;

/// 2026-01-01T00:00:00Z, from which the clock counts segments…
const COUNTED_FROM: Utc = Utc::from_micros(1_767_225_600_000_000);

/// …one in so many microseconds: more often than segments come, so that numbers do not
/// go back when the gateway was restarted.
const COUNTED_MICROS: u64 = 250_000;

/// The same for discontinuities: one an hour. Players keep lists by this number, and hls.js
/// 1.7 goes through all of its own, from 0, with each playlist: 10 ms a million.
const BREAKS_MICROS: u64 = 3_600_000_000;

/// Bounded by the registry's bound on tables, [`HlsSettings::max_lingering`] and
/// [`MAX_REMEMBERED`].
#[derive(Default)]
pub(super) struct Tables {
    /// Live tables and those that ended a short while ago.
    pub(super) by_name: HashMap<TableName, Arc<Live>>,
    /// Ended tables whose names others have now, for what their last playlists list.
    replaced: Vec<Arc<Live>>,
    /// All that ended, the oldest first.
    lingering: VecDeque<Weak<Live>>,
    /// Tables that are packaged now.
    pub(super) followed: HashMap<TableName, Followed>,
    /// From where tables count that ended, the oldest first.
    remembered: VecDeque<(TableName, Numbers)>,
}

/// A table that is packaged.
pub(super) struct Followed {
    /// The newest publication, for the task.
    newest: watch::Sender<Arc<Stream>>,
    pub(super) task: AbortHandle,
}

/// The tasks of all tables.
struct Tasks {
    set: JoinSet<()>,
    /// Each task holds a receiver for as long as it runs.
    stop: watch::Sender<bool>,
}

impl Tables {
    /// Unlists a table unless another one took its place.
    pub(super) fn forget(&mut self, live: &Arc<Live>) {
        if self.by_name.get(&live.table).is_some_and(|current| Arc::ptr_eq(current, live)) {
            self.by_name.remove(&live.table);
        }
        self.replaced.retain(|other| !Arc::ptr_eq(other, live));
        self.lingering.retain(|other| other.as_ptr() != Arc::as_ptr(live));
    }

    pub(super) fn linger(&mut self, live: &Arc<Live>, max: usize) {
        self.lingering.retain(|other| other.as_ptr() != Arc::as_ptr(live));
        self.lingering.push_back(Arc::downgrade(live));
        while self.lingering.len() > max {
            let oldest = self.lingering.pop_front().and_then(|oldest| oldest.upgrade());
            if let Some(oldest) = oldest {
                self.forget(&oldest);
            }
        }
    }

    fn remember(&mut self, table: &TableName, numbers: Numbers) {
        self.remembered.retain(|(other, _)| other != table);
        if self.remembered.len() == MAX_REMEMBERED {
            self.remembered.pop_front();
        }
        self.remembered.push_back((table.clone(), numbers));
    }

    /// From where a table counts that begins at `now`.
    fn numbers(&self, table: &TableName, now: Utc) -> Numbers {
        let micros = u64::try_from(now.micros_since(COUNTED_FROM)).unwrap_or(0);
        let (msn, discontinuities) = (micros / COUNTED_MICROS, micros / BREAKS_MICROS);
        let known = self.remembered.iter().find(|(other, _)| other == table);
        known.map_or(Numbers { msn, discontinuities }, |(_, known)| Numbers {
            msn: known.msn.max(msn),
            discontinuities: known.discontinuities.max(discontinuities),
        })
    }
}

impl Hls {
    /// The service; [`Self::run`] makes it follow the registry.
    #[allow(clippy::disallowed_methods, reason = "passes count from when the gateway starts")]
    pub fn new(settings: HlsSettings, registry: Arc<Registry>, metrics: Metrics) -> Arc<Self> {
        let (stats, tables) = (Arc::default(), std::sync::Mutex::default());
        let (now, key) = (Instant::now(), rand::random());
        let sessions = Sessions::new(now, &key, settings.max_sessions, metrics);
        let clock = Clock::system();
        Arc::new(Self { settings, registry, clock, stats, sessions, tables })
    }

    /// Packages every live stream until `shutdown` completes. Packagers end with their
    /// publications; then those that wait for another one end at once, and are waited for,
    /// so that their viewers are told of the end.
    #[allow(clippy::disallowed_methods, reason = "a task that waits, but not for ever")]
    pub async fn run(self: Arc<Self>, shutdown: impl Future<Output = ()>) {
        let mut events = self.registry.events();
        let mut shutdown = pin!(shutdown);
        let mut tasks = Tasks { set: JoinSet::new(), stop: watch::Sender::new(false) };
        let mut repair_at = None;
        self.adopt_all(&mut tasks);
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                event = events.recv() => match event {
                    Ok(RegistryEvent::Live(stream)) => self.adopt(&stream, &mut tasks),
                    // The packager sees the end itself, after the last frame.
                    Ok(RegistryEvent::Ended(..)) => {}
                    Err(RecvError::Lagged(_)) => self.adopt_all(&mut tasks),
                    Err(RecvError::Closed) => break,
                },
                Some(ended) = tasks.set.join_next() => if ended.is_err() {
                    self.forget_failed();
                    repair_at.get_or_insert_with(|| Instant::now() + REPAIR_PAUSE);
                },
                () = wait_until(repair_at) => {
                    repair_at = None;
                    self.adopt_all(&mut tasks);
                }
            }
        }
        tasks.stop.send_replace(true);
        tasks.set.detach_all();
        if timeout(STOP_BOUND, tasks.stop.closed()).await.is_err() {
            tracing::debug!("publications go on; their tables end with them");
        }
    }

    /// Announces a date range of a table, or tells more of one that was: all its media
    /// playlists list it from their next version on, as long as a segment that it covers
    /// is listed. What was told of a range cannot be changed; add `duration` when it is
    /// over. Ids that begin with `railbird.` are the gateway's own.
    ///
    /// # Errors
    /// See [`DateRangeError`]; nothing changed then.
    #[allow(clippy::disallowed_methods, reason = "the edge: delta updates tell what is new")]
    pub fn set_date_range(
        &self,
        table: &TableName,
        range: DateRange,
    ) -> Result<(), DateRangeError> {
        let live = self.live(table).ok_or(DateRangeError::NotLive)?;
        live.ranges().set(range, Instant::now())
    }

    pub(super) fn live(&self, table: &TableName) -> Option<Arc<Live>> {
        self.lock().by_name.get(table).cloned()
    }

    /// The table that a media file is of: `current`, or one that was replaced a short while
    /// ago. What its last playlists list stays available (rfc8216bis §6.2.2).
    pub(super) fn of_file(&self, current: Arc<Live>, file: &str) -> Arc<Live> {
        let token = file.split_once('-').map(|(token, _)| token);
        if token.is_none_or(|token| token == current.token) {
            return current;
        }
        let is_its = |old: &&Arc<Live>| {
            old.table == current.table && token.is_some_and(|token| token == old.token)
        };
        let old = self.lock().replaced.iter().find(is_its).cloned();
        old.unwrap_or(current)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Tables> {
        // No code panics while it holds this lock; the map is whole in any case.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the packager of a source and lists its table, which counts from `numbers`.
    /// `None` when HLS can carry no track of it.
    pub(super) fn start_at(self: &Arc<Self>, source: Source, numbers: Numbers) -> Option<Packager> {
        let table = source.table.clone();
        let packager = Packager::new(&self.settings, source, numbers, self.stats.clone())?;
        let old = {
            let mut tables = self.lock();
            let old = tables.by_name.insert(table, packager.live().clone());
            tables.replaced.extend(old.clone());
            let known = |old: &Arc<Live>| {
                tables.lingering.iter().any(|other| other.as_ptr() == Arc::as_ptr(old))
            };
            old.filter(|old| !known(old))
        };
        if let Some(old) = old {
            self.linger(old);
        }
        Some(packager)
    }

    fn adopt_all(self: &Arc<Self>, tasks: &mut Tasks) {
        for stream in self.registry.list().into_iter().filter(|stream| stream.is_live()) {
            self.adopt(&stream, tasks);
        }
    }

    /// Unlists tables whose tasks have panicked: nothing would be added to them, and nobody
    /// told. Their players begin anew when they are packaged again.
    fn forget_failed(&self) {
        let mut tables = self.lock();
        let failed: Vec<TableName> = tables
            .followed
            .extract_if(|_, followed| followed.task.is_finished())
            .map(|(table, _)| table)
            .collect();
        for table in failed {
            count(&self.stats.packagers_failed, 1);
            tracing::error!(%table, "packaging failed; it begins anew");
            tables.by_name.remove(&table);
        }
    }

    /// Packages a stream, once: by the task of its table, or by a new one.
    fn adopt(self: &Arc<Self>, stream: &Arc<Stream>, tasks: &mut Tasks) {
        if renditions(stream).is_empty() {
            tracing::info!(table = %stream.table, "no track that HLS can carry");
            return;
        }
        let mut tables = self.lock();
        // One whose task has failed counts for nothing.
        let followed = tables.followed.get(&stream.table);
        if let Some(followed) = followed.filter(|followed| !followed.task.is_finished()) {
            // Later publications have greater ids; what is listed anew may be known.
            followed.newest.send_if_modified(|newest| {
                let is_newer = newest.id < stream.id;
                if is_newer {
                    *newest = stream.clone();
                }
                is_newer
            });
            return;
        }
        if stream.is_ended() {
            return;
        }
        let (sender, newest) = watch::channel(stream.clone());
        let task = tasks.set.spawn(self.clone().package(newest, tasks.stop.subscribe()));
        tables.followed.insert(stream.table.clone(), Followed { newest: sender, task });
    }

    /// The task of a table: package a publication, wait for the next one, until none
    /// comes. Tables that cannot go on with the next one end, and a new one begins.
    async fn package(
        self: Arc<Self>,
        mut newest: watch::Receiver<Arc<Stream>>,
        stop: watch::Receiver<bool>,
    ) {
        let mut packager: Option<Packager> = None;
        loop {
            let stream = newest.borrow_and_update().clone();
            let Some(mut current) = self.take_over(packager, &stream) else { break };
            follow(&mut current, &stream, &mut newest).await;
            let patience = match stream.end_reason() {
                Some(EndReason::Shutdown) => Duration::ZERO,
                _ => self.settings.restart_wait,
            };
            let is_newer = newest.has_changed().unwrap_or(false);
            let next = next(&mut newest, stop.clone());
            if !is_newer && current.idle(patience, next).await.flatten().is_none() {
                let live = current.live().clone();
                let last = self.finish(current, &stream, &newest);
                self.linger(live);
                if last {
                    return;
                }
                packager = None;
                continue;
            }
            packager = Some(current);
        }
    }

    /// The packager of a publication: the one that is there, if it can go on, or another.
    fn take_over(
        self: &Arc<Self>,
        packager: Option<Packager>,
        stream: &Arc<Stream>,
    ) -> Option<Packager> {
        let source = source(stream);
        let source = match packager {
            None => source,
            Some(mut packager) => match packager.continue_with(source) {
                Ok(()) => return Some(packager),
                Err(source) => {
                    // It lingers once another one has its name.
                    let numbers = packager.finish();
                    self.lock().remember(&stream.table, numbers);
                    source
                }
            },
        };
        let numbers = self.lock().numbers(&stream.table, self.now());
        let started = self.start_at(source, numbers);
        if started.is_none() {
            self.lock().followed.remove(&stream.table);
        }
        started
    }

    /// Ends the playlists of a table. Returns true when no publication came meanwhile:
    /// the next one has a task of its own.
    fn finish(
        &self,
        packager: Packager,
        stream: &Stream,
        newest: &watch::Receiver<Arc<Stream>>,
    ) -> bool {
        let numbers = packager.finish();
        let mut tables = self.lock();
        tables.remember(&stream.table, numbers);
        // Publications are announced under this lock.
        let last = !newest.has_changed().unwrap_or(false);
        if last {
            tables.followed.remove(&stream.table);
        }
        last
    }

    /// Keeps a table that ended for a while.
    #[allow(clippy::disallowed_methods, reason = "a task that waits")]
    fn linger(self: &Arc<Self>, live: Arc<Live>) {
        if live.multivariant.borrow().is_none() {
            // Nobody was told of any media.
            self.lock().forget(&live);
            return;
        }
        self.lock().linger(&live, self.settings.max_lingering);
        // The list alone keeps it, so that what is dropped early is gone.
        let (hls, weak) = (self.clone(), Arc::downgrade(&live));
        drop(live);
        tokio::spawn(async move {
            tokio::time::sleep(hls.settings.linger).await;
            if let Some(live) = weak.upgrade() {
                hls.lock().forget(&live);
            }
        });
    }

    #[allow(clippy::disallowed_methods, reason = "numbers of a new table come from the clock")]
    fn now(&self) -> Utc {
        self.clock.utc(Instant::now())
    }
}

/// Packages a publication until it ends or a newer one of its table is live.
#[allow(clippy::disallowed_methods, reason = "a task that waits to try again")]
async fn follow(
    packager: &mut Packager,
    stream: &Arc<Stream>,
    newest: &mut watch::Receiver<Arc<Stream>>,
) {
    loop {
        let sink = packager.sink();
        if stream.subscribe_frames(Box::new(sink)).is_ok() {
            packager.follow(newer(newest.clone(), stream.id)).await;
            return;
        }
        if stream.is_ended() {
            return;
        }
        tokio::time::sleep(SUBSCRIBE_RETRY).await;
    }
}

/// Completes when there is another publication, or with `None` when the gateway stops.
async fn next(
    newest: &mut watch::Receiver<Arc<Stream>>,
    mut stop: watch::Receiver<bool>,
) -> Option<()> {
    let stopped = async {
        if stop.wait_for(|stop| *stop).await.is_err() {
            // Nobody follows the registry any more; the table ends by itself.
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        changed = newest.changed() => changed.ok(),
        () = stopped => None,
    }
}

/// Completes when a publication later than `current` is live.
async fn newer(mut newest: watch::Receiver<Arc<Stream>>, current: StreamId) {
    while newest.borrow_and_update().id <= current {
        if newest.changed().await.is_err() {
            return;
        }
    }
}

fn source(stream: &Arc<Stream>) -> Source {
    let asker = stream.clone();
    Source {
        stream: Some(stream.id),
        table: stream.table.clone(),
        token: format!("{:016x}", rand::random::<u64>()),
        renditions: renditions(stream),
        // A full queue is asked again by the segmenter.
        request_keyframe: Box::new(move |layer| _ = asker.request_keyframe(layer)),
    }
}

/// The layers of a stream that become renditions: all of one video track and one audio
/// track at most, of those whose codec MP4 can carry.
fn renditions(stream: &Stream) -> Vec<RenditionSource> {
    let mut sources: Vec<RenditionSource> = Vec::new();
    for (index, info) in stream.tracks.iter().enumerate() {
        let taken = sources.iter().any(|source| source.codec.kind() == info.kind());
        if info.codec == Codec::Vp8 || taken {
            continue;
        }
        let track = index as u8;
        sources.extend((0..info.rids.len()).map(|layer| RenditionSource {
            layer: LayerId { track, layer: layer as u8 },
            codec: info.codec,
            channels: info.channels,
        }));
    }
    // The leading rendition comes first.
    sources.sort_by_key(|source| source.codec.kind() == MediaKind::Audio);
    sources
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p6_numbers_of_a_table_do_not_go_back_when_the_gateway_was_restarted() {
        let table: TableName = "demo".parse().unwrap();
        let at = |seconds: i64| COUNTED_FROM.offset_micros(seconds * 1_000_000);
        let begun = Tables::default().numbers(&table, at(1_000));
        // A day of short segments, with some breaks; then another process.
        let day: i64 = 24 * 3_600;
        let ended = Numbers {
            msn: begun.msn + day.unsigned_abs(),
            discontinuities: begun.discontinuities + 23,
        };
        let restarted = Tables::default().numbers(&table, at(1_000 + day));
        assert!(restarted.msn > ended.msn, "{restarted:?}");
        assert!(restarted.discontinuities > ended.discontinuities, "{restarted:?}");
        // In the same process what is known counts where it is further.
        let mut tables = Tables::default();
        tables.remember(&table, Numbers { msn: 5, discontinuities: 9_000 });
        let next = tables.numbers(&table, at(1_000 + day));
        assert_eq!(next, Numbers { msn: restarted.msn, discontinuities: 9_000 });
    }

    #[test]
    fn discontinuities_are_few_enough_for_players_that_count_them_from_zero() {
        let decade = COUNTED_FROM.offset_micros(10 * 366 * 24 * 3_600 * 1_000_000);
        let numbers = Tables::default().numbers(&"demo".parse().unwrap(), decade);
        assert!(numbers.discontinuities < 100_000, "{numbers:?}");
    }
}
