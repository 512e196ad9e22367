//! Low-Latency HLS: the mass channel, and the fallback where WebRTC cannot pass.
//!
//! ```text
//!  hub frames ─ packager ─┬ segmenter ─ cutter ─ fmp4   samples → parts → segments
//!  (tokio task per table) └ store ─ playlist            what is listed and fetchable
//!  http ─ blocking                                      answer now, later, or not at all
//! ```
//!
//! All but `packager` and `http` is sans-IO. The packager publishes an immutable
//! snapshot per part over a watch channel; everybody who waits for a version
//! shares its one rendered and gzipped playlist, so the cost of a playlist does
//! not grow with viewers. VP8 has no place in fMP4 for HLS players: such a table
//! is audio only here, and absent when it has no sound.

mod blocking;
mod cutter;
mod fmp4;
#[doc(hidden)]
pub mod fuzzing;
mod http;
mod packager;
mod playlist;
mod sample;
mod segmenter;
mod store;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::broadcast::error::RecvError;

use crate::codec::{Codec, MediaKind};
use crate::hub::{Registry, RegistryEvent, Stream, TableName};
use crate::media::{LayerId, TrackInfo};

pub use http::{accepts_gzip, router};
use packager::{Live, Packager, Source};
use segmenter::RenditionSource;

/// A stream that is too busy to take a subscription is asked again after this long.
const SUBSCRIBE_RETRY: Duration = Duration::from_millis(100);

/// A simulcast stream whose layers have not all shown their size is looked at again
/// after this long…
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// …and so often; then the largest of those that sent a keyframe is taken. Which
/// layer's packet came first is chance, and the choice holds for the publication.
const MAX_LOOKS: u32 = 10;

/// How LL-HLS is made and served. Checked by the configuration, not here.
#[derive(Debug, Clone)]
pub struct HlsSettings {
    /// PART-TARGET: no part is longer.
    pub part_target: Duration,
    /// Segments end at the first keyframe near this length; TARGETDURATION is
    /// this, rounded up to seconds.
    pub segment_target: Duration,
    /// Content that a playlist lists.
    pub window: Duration,
    /// Bytes of media held per rendition; past it the oldest segments go early.
    pub max_window_bytes: usize,
    /// How long an ended stream can still be fetched.
    pub linger: Duration,
    /// Ended streams that can be fetched at once; past it the oldest goes early.
    pub max_lingering: usize,
    /// How long a request may wait for a stream that has just started.
    pub start_wait: Duration,
    /// Requests that may be held at once, over all tables; more get 503.
    pub max_held_requests: u64,
}

impl Default for HlsSettings {
    fn default() -> Self {
        Self {
            part_target: Duration::from_millis(500),
            segment_target: Duration::from_secs(2),
            window: Duration::from_secs(30),
            max_window_bytes: 64 << 20,
            linger: Duration::from_secs(30),
            max_lingering: 200,
            start_wait: Duration::from_secs(5),
            max_held_requests: 100_000,
        }
    }
}

/// What LL-HLS did so far. Read by the metrics; each field says what it counts.
#[derive(Debug, Default)]
pub struct HlsStats {
    /// Requests for multivariant playlists.
    pub multivariant_requests: AtomicU64,
    /// Requests for media playlists.
    pub playlist_requests: AtomicU64,
    /// Requests for parts.
    pub part_requests: AtomicU64,
    /// Requests for segments.
    pub segment_requests: AtomicU64,
    /// Requests for init segments.
    pub init_requests: AtomicU64,
    /// Requests that are being held now (a gauge).
    pub held_requests: AtomicU64,
    /// Requests that were held too long and got 503.
    pub timed_out_requests: AtomicU64,
    /// Requests refused because too many were held.
    pub refused_requests: AtomicU64,
    /// Bytes of bodies answered.
    pub bytes_out: AtomicU64,
    /// Parts made.
    pub parts: AtomicU64,
    /// Segments completed.
    pub segments: AtomicU64,
    /// Frames dropped because a packager's queue was full.
    pub frames_dropped_queue: AtomicU64,
    /// Frames dropped because they could not be decoded or placed on the timeline.
    pub frames_dropped_unusable: AtomicU64,
    /// Keyframes asked for.
    pub keyframes_asked: AtomicU64,
}

/// The LL-HLS side of the gateway. Shared as `Arc<Hls>`.
pub struct Hls {
    settings: HlsSettings,
    registry: Arc<Registry>,
    stats: Arc<HlsStats>,
    tables: Mutex<Tables>,
}

/// Bounded by the registry's bound on tables and [`HlsSettings::max_lingering`].
#[derive(Default)]
struct Tables {
    /// Live tables and those that ended a short while ago.
    by_name: HashMap<TableName, Arc<Live>>,
    /// Those that ended, the oldest first.
    lingering: VecDeque<Weak<Live>>,
}

impl Tables {
    /// Unlists a table unless another publication took its place.
    fn forget(&mut self, live: &Arc<Live>) {
        if self.by_name.get(&live.table).is_some_and(|current| Arc::ptr_eq(current, live)) {
            self.by_name.remove(&live.table);
        }
        self.lingering.retain(|other| other.as_ptr() != Arc::as_ptr(live));
    }

    fn linger(&mut self, live: &Arc<Live>, max: usize) {
        self.lingering.push_back(Arc::downgrade(live));
        while self.lingering.len() > max {
            let oldest = self.lingering.pop_front().and_then(|oldest| oldest.upgrade());
            if let Some(oldest) = oldest {
                self.forget(&oldest);
            }
        }
    }
}

/// A live stream whose layer is not chosen yet, and how often it was looked at.
struct Undecided {
    stream: Arc<Stream>,
    looks: u32,
}

impl Hls {
    /// The service; [`Self::run`] makes it follow the registry.
    pub fn new(settings: HlsSettings, registry: Arc<Registry>) -> Arc<Self> {
        let (stats, tables) = (Arc::default(), Mutex::default());
        Arc::new(Self { settings, registry, stats, tables })
    }

    /// Packages every live stream until `shutdown` completes. Packagers end with
    /// their streams.
    #[allow(clippy::disallowed_methods, reason = "it waits to look at undecided streams again")]
    pub async fn run(self: Arc<Self>, shutdown: impl Future<Output = ()>) {
        let mut events = self.registry.events();
        let mut shutdown = pin!(shutdown);
        // Bounded by the registry's bound on tables: those that end are dropped below.
        let mut undecided = self.live_streams();
        let mut look_at = tokio::time::interval(LOOK_INTERVAL);
        look_at.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            self.decide(&mut undecided);
            tokio::select! {
                () = &mut shutdown => return,
                _ = look_at.tick(), if !undecided.is_empty() => {
                    undecided.iter_mut().for_each(|one| one.looks += 1);
                }
                event = events.recv() => match event {
                    Ok(RegistryEvent::Live(stream)) => {
                        undecided.push(Undecided { stream, looks: 0 });
                    }
                    // The packager sees the end itself, after the last frame.
                    Ok(RegistryEvent::Ended(..)) => {}
                    Err(RecvError::Lagged(_)) => undecided = self.live_streams(),
                    Err(RecvError::Closed) => return,
                },
            }
        }
    }

    fn live_streams(&self) -> Vec<Undecided> {
        let live = self.registry.list().into_iter().filter(|stream| stream.is_live());
        live.map(|stream| Undecided { stream, looks: 0 }).collect()
    }

    /// Adopts the streams whose layers are known well enough.
    fn decide(self: &Arc<Self>, undecided: &mut Vec<Undecided>) {
        undecided.retain(|Undecided { stream, looks }| {
            let known = layers_known(stream, *looks >= MAX_LOOKS);
            if known {
                self.adopt(stream);
            }
            !known && !stream.is_ended()
        });
    }

    /// Estimate of the viewers of a table: the most requests of its leading
    /// rendition that were waiting for one version, over the newest versions. A
    /// low-latency player always has exactly one such request; players that do
    /// not block are not counted.
    pub fn viewers(&self, table: &TableName) -> usize {
        self.live(table).map_or(0, |live| live.viewers())
    }

    /// What was done so far.
    pub fn stats(&self) -> &Arc<HlsStats> {
        &self.stats
    }

    #[cfg(test)]
    fn tables(&self) -> usize {
        self.lock().by_name.len()
    }

    fn live(&self, table: &TableName) -> Option<Arc<Live>> {
        self.lock().by_name.get(table).cloned()
    }

    /// Starts packaging a stream, once.
    fn adopt(self: &Arc<Self>, stream: &Arc<Stream>) {
        if self.live(&stream.table).is_some_and(|live| live.stream == Some(stream.id)) {
            return;
        }
        let token = format!("{:016x}", rand::random::<u64>());
        let asker = stream.clone();
        let source = Source {
            stream: Some(stream.id),
            table: stream.table.clone(),
            token,
            renditions: renditions(stream),
            // A full queue is asked again by the segmenter.
            request_keyframe: Box::new(move |layer| _ = asker.request_keyframe(layer)),
        };
        let Some((packager, _)) = self.start(source) else {
            tracing::info!(table = %stream.table, "no track that HLS can carry");
            return;
        };
        let (hls, stream) = (self.clone(), stream.clone());
        tokio::spawn(async move {
            hls.package(packager, &stream).await;
        });
    }

    /// Makes the packager of a source and lists its table. `None` when HLS can
    /// carry no track of it.
    fn start(&self, source: Source) -> Option<(Packager, Arc<Live>)> {
        let table = source.table.clone();
        let packager = Packager::new(&self.settings, source, self.stats.clone())?;
        let live = packager.live().clone();
        self.lock().by_name.insert(table, live.clone());
        Some((packager, live))
    }

    #[allow(clippy::disallowed_methods, reason = "a task that waits: to try again, to linger")]
    async fn package(&self, mut packager: Packager, stream: &Stream) {
        let live = packager.live().clone();
        loop {
            let sink = packager.sink();
            if stream.subscribe_frames(Box::new(sink)).is_ok() {
                packager.run().await;
                break;
            }
            if stream.is_ended() {
                packager.finish();
                break;
            }
            tokio::time::sleep(SUBSCRIBE_RETRY).await;
        }
        self.lock().linger(&live, self.settings.max_lingering);
        // The list alone keeps it, so that what is dropped early is gone.
        let live = {
            let weak = Arc::downgrade(&live);
            drop(live);
            tokio::time::sleep(self.settings.linger).await;
            weak.upgrade()
        };
        if let Some(live) = live {
            self.lock().forget(&live);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Tables> {
        // No code panics while it holds this lock; the map is whole in any case.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The layers of a stream that become renditions: the best one of each track
/// whose codec MP4 can carry, one video track and one audio track at most.
fn renditions(stream: &Stream) -> Vec<RenditionSource> {
    let mut sources: Vec<RenditionSource> = Vec::new();
    for (index, info) in stream.tracks.iter().enumerate() {
        let kind = info.kind();
        let taken = sources.iter().any(|source| source.codec.kind() == kind);
        if info.codec == Codec::Vp8 || taken {
            continue;
        }
        let track = index as u8;
        let layer = LayerId { track, layer: best_layer(stream, track, info) };
        sources.push(RenditionSource { layer, codec: info.codec, channels: info.channels });
    }
    // The leading rendition comes first.
    sources.sort_by_key(|source| source.codec.kind() == MediaKind::Audio);
    sources
}

/// Whether the best layer of each track can be told: it has only one, or the sizes of
/// all are known. With `settle`, those that sent no keyframe so far are not waited for.
fn layers_known(stream: &Stream, settle: bool) -> bool {
    stream.tracks.iter().enumerate().all(|(track, info)| {
        let layers = 0..info.rids.len() as u8;
        let mut seen = layers.map(|layer| {
            stream.layer_snapshot(LayerId { track: track as u8, layer }).unwrap_or_default()
        });
        match info.kind() {
            MediaKind::Audio => true,
            _ if info.codec == Codec::Vp8 || info.rids.len() < 2 => true,
            MediaKind::Video if settle => seen.any(|layer| layer.keyframes > 0),
            MediaKind::Video => seen.all(|layer| layer.width > 0),
        }
    })
}

/// The layer with the largest picture. One that sent a keyframe of unknown size comes
/// before one that sent none, and a later one before an earlier one, because
/// publishers list their layers from small to large.
fn best_layer(stream: &Stream, track: u8, info: &TrackInfo) -> u8 {
    let layers = 0..info.rids.len() as u8;
    let merit = |layer: &u8| {
        let seen = stream.layer_snapshot(LayerId { track, layer: *layer }).unwrap_or_default();
        (u64::from(seen.width) * u64::from(seen.height), seen.keyframes > 0)
    };
    layers.max_by_key(merit).unwrap_or(0)
}

/// Adds to a counter of [`HlsStats`].
fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}
