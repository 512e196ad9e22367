//! One task per live table: takes frames off a bounded queue, cuts them, and
//! publishes every new version of each rendition.
//!
//! The hub calls [`FrameQueue`] on the publisher's thread; everything after the
//! queue happens on the runtime.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::playlist::{self, Rendered, Report, Targets, Variant};
use super::segmenter::{Event, RenditionSource, Segmenter, SegmenterSettings};
use super::store::{Store, StoreLimits, View};
use super::{HlsSettings, HlsStats, count};
use crate::codec::MediaKind;
use crate::hub::{FrameSink, StreamId, TableName};
use crate::media::{Frame, LayerId};

/// Frames that may wait: more than a replayed GOP of five seconds at 60 frames/s
/// with its sound. When full, frames are dropped and counted, and the layer
/// resumes at its next random access point.
const FRAME_QUEUE: usize = 1024;

/// A rendition that has no part when another one has so much content is left out.
const SILENT_RENDITION: Duration = Duration::from_secs(2);

/// Versions over which [`Live::viewers`] takes the maximum.
const VIEWER_VERSIONS: usize = 8;

/// Where a packager's media comes from.
pub struct Source {
    /// The publication; `None` when it is not the hub's (tests).
    pub stream: Option<StreamId>,
    /// The table that it plays at.
    pub table: TableName,
    /// Opens the names of all resources; differs between publications.
    pub token: String,
    /// The layers to package, the leading one first.
    pub renditions: Vec<RenditionSource>,
    /// Asks the source for a random access point.
    pub request_keyframe: Box<dyn Fn(LayerId) + Send>,
}

/// A version of one rendition.
pub struct Published {
    /// What it offers.
    pub view: View,
    /// Its playlist.
    pub playlist: Rendered,
    /// The delta update of the playlist.
    pub delta: Rendered,
}

/// A rendition as the HTTP side sees it.
pub struct Rendition {
    /// Its name in URIs.
    pub name: String,
    /// Picture or sound.
    pub kind: MediaKind,
    /// Its newest version; a change wakes those who wait.
    pub published: watch::Sender<Arc<Published>>,
    /// Playlist requests without a session that wait for the next version.
    pub waiting: AtomicUsize,
}

/// A table as the HTTP side sees it.
pub struct Live {
    /// The publication.
    pub stream: Option<StreamId>,
    /// The table.
    pub table: TableName,
    /// Opens the names of all resources.
    pub token: String,
    /// PART-TARGET and TARGETDURATION.
    pub targets: Targets,
    /// All renditions, the leading one first.
    pub renditions: Vec<Rendition>,
    /// The multivariant playlist, once it is known which renditions there are.
    pub multivariant: watch::Sender<Option<Rendered>>,
    viewers: AtomicUsize,
}

impl Live {
    /// See [`super::Hls::viewers`].
    pub fn viewers(&self) -> usize {
        self.viewers.load(Ordering::Relaxed)
    }

    /// Whether nothing will be added.
    pub fn ended(&self) -> bool {
        self.renditions.iter().all(|rendition| rendition.published.borrow().view.ended)
    }

    /// The rendition of this name.
    pub fn rendition(&self, name: &str) -> Option<&Rendition> {
        self.renditions.iter().find(|rendition| rendition.name == name)
    }
}

/// A frame on its way to the packager.
struct Queued {
    layer: LayerId,
    frame: Arc<Frame>,
    /// Frames of the layer were dropped before this one.
    after_loss: bool,
}

/// The hub's end of the queue.
pub struct FrameQueue {
    /// `None` once the stream has ended.
    sender: Option<mpsc::Sender<Queued>>,
    /// The layers wanted, and whether the newest frame of each was dropped.
    layers: Vec<(LayerId, bool)>,
    stats: Arc<HlsStats>,
}

impl FrameSink for FrameQueue {
    fn frame(&mut self, layer: LayerId, frame: &Arc<Frame>) {
        let Some(sender) = &self.sender else { return };
        let Some((_, lost)) = self.layers.iter_mut().find(|(wanted, _)| *wanted == layer) else {
            return;
        };
        let queued = Queued { layer, frame: frame.clone(), after_loss: *lost };
        *lost = sender.try_send(queued).is_err();
        if *lost {
            count(&self.stats.frames_dropped_queue, 1);
        }
    }

    fn ended(&mut self) {
        self.sender = None;
    }
}

/// owner: one task.
pub struct Packager {
    live: Arc<Live>,
    sources: Vec<RenditionSource>,
    segmenter: Segmenter,
    stores: Vec<Store>,
    queue: mpsc::Receiver<Queued>,
    request_keyframe: Box<dyn Fn(LayerId) + Send>,
    /// Which renditions the multivariant playlist lists; fixed once known.
    listed: Option<Vec<usize>>,
    /// Requests that waited for each of the newest versions of the leading rendition.
    waited: VecDeque<usize>,
    dropped: u64,
    stats: Arc<HlsStats>,
}

impl Packager {
    /// A packager, and its table with nothing in it yet. `None` when there is
    /// nothing that HLS can carry.
    pub fn new(settings: &HlsSettings, source: Source, stats: Arc<HlsStats>) -> Option<Self> {
        let targets = targets(settings);
        let segmenter = Segmenter::new(segmenter_settings(settings), &source.renditions)?;
        let mut stores = Vec::new();
        let mut renditions = Vec::new();
        for rendition in &source.renditions {
            let timescale = NonZeroU32::new(rendition.codec.clock_rate())?;
            stores.push(Store::new(limits(settings, targets, timescale), timescale));
            renditions.push(Rendition::new(rendition, timescale));
        }
        let live = Live {
            stream: source.stream,
            table: source.table,
            token: source.token,
            targets,
            renditions,
            multivariant: watch::Sender::new(None),
            viewers: AtomicUsize::new(0),
        };
        // Ends at once, until there is a sink.
        let (_, queue) = mpsc::channel(1);
        Some(Self {
            live: Arc::new(live),
            sources: source.renditions,
            segmenter,
            stores,
            queue,
            request_keyframe: source.request_keyframe,
            listed: None,
            waited: VecDeque::new(),
            dropped: 0,
            stats,
        })
    }

    /// The table that it feeds.
    pub fn live(&self) -> &Arc<Live> {
        &self.live
    }

    /// The way in. A sink that is asked for again replaces the one before.
    pub fn sink(&mut self) -> FrameQueue {
        let (sender, queue) = mpsc::channel(FRAME_QUEUE);
        self.queue = queue;
        let layers = self.sources.iter().map(|source| (source.layer, false)).collect();
        FrameQueue { sender: Some(sender), layers, stats: self.stats.clone() }
    }

    /// Packages until the sink is gone or has ended.
    pub async fn run(mut self) {
        while let Some(queued) = self.queue.recv().await {
            self.segmenter.handle_frame(queued.layer, &queued.frame, queued.after_loss);
            self.publish();
        }
        self.finish();
    }

    /// Releases what is held and ends the playlists.
    pub fn finish(mut self) {
        self.segmenter.finish();
        self.publish();
        for store in &mut self.stores {
            store.end();
        }
        self.list_renditions(true);
        for index in 0..self.stores.len() {
            self.publish_rendition(index);
        }
        self.publish_multivariant();
        self.live.viewers.store(0, Ordering::Relaxed);
    }

    /// Moves what the segmenter made into the stores and tells those who wait.
    fn publish(&mut self) {
        let mut changed = vec![false; self.stores.len()];
        let mut segment_ended = false;
        while let Some(event) = self.segmenter.poll() {
            match event {
                Event::KeyframeWanted(layer) => {
                    count(&self.stats.keyframes_asked, 1);
                    (self.request_keyframe)(layer);
                }
                Event::SegmentStarted(index, start) => self.stores[index].start_segment(start),
                Event::Part(index, part) => {
                    count(&self.stats.parts, 1);
                    self.stores[index].add_part(part);
                    changed[index] = true;
                }
                Event::SegmentEnded(index) => {
                    count(&self.stats.segments, 1);
                    self.stores[index].end_segment();
                    changed[index] = true;
                    segment_ended = true;
                }
            }
        }
        let dropped = self.segmenter.dropped();
        count(&self.stats.frames_dropped_unusable, dropped - self.dropped);
        self.dropped = dropped;
        if !changed.contains(&true) {
            return;
        }
        for index in (0..self.stores.len()).filter(|index| changed[*index]) {
            self.publish_rendition(index);
        }
        let newly_listed = self.list_renditions(false);
        if newly_listed || segment_ended {
            self.publish_multivariant();
        }
    }

    fn publish_rendition(&mut self, index: usize) {
        let view = self.stores[index].view();
        let reports = self.reports(index);
        let (token, targets) = (&self.live.token, self.live.targets);
        let render = |skip| Rendered::new(playlist::media(&view, token, targets, &reports, skip));
        let (playlist, delta) = (render(false), render(true));
        let rendition = &self.live.renditions[index];
        if index == 0 {
            if self.waited.len() == VIEWER_VERSIONS {
                self.waited.pop_front();
            }
            self.waited.push_back(rendition.waiting.load(Ordering::Relaxed));
            let viewers = self.waited.iter().copied().max().unwrap_or(0);
            self.live.viewers.store(viewers, Ordering::Relaxed);
        }
        rendition.published.send_replace(Arc::new(Published { view, playlist, delta }));
    }

    /// One report for each other rendition that is listed.
    fn reports(&self, index: usize) -> Vec<Report> {
        let is_listed =
            |other: &usize| self.listed.as_ref().is_none_or(|listed| listed.contains(other));
        let others = (0..self.stores.len()).filter(|other| *other != index).filter(is_listed);
        let report = |other: usize| {
            let newest = self.stores[other].newest_part()?;
            Some(Report { name: self.live.renditions[other].name.clone(), newest })
        };
        others.filter_map(report).collect()
    }

    /// Fixes the list of renditions as soon as all have a part, or some have so
    /// much that the others are taken for silent. Returns true when it did.
    fn list_renditions(&mut self, now: bool) -> bool {
        if self.listed.is_some() {
            return false;
        }
        let views: Vec<View> = self.stores.iter().map(Store::view).collect();
        let has_media = |view: &View| view.progress().has_media();
        let long = |view: &View| {
            let ticks: u64 = view.listed().iter().map(|segment| segment.duration).sum();
            ticks >= u64::from(view.timescale.get()) * SILENT_RENDITION.as_secs()
        };
        if !now && !views.iter().all(has_media) && !views.iter().any(long) {
            return false;
        }
        let listed = (0..views.len()).filter(|index| has_media(&views[*index]));
        self.listed = Some(listed.collect());
        true
    }

    fn publish_multivariant(&self) {
        let Some(listed) = &self.listed else { return };
        let variants: Vec<_> = listed.iter().filter_map(|index| self.variant(*index)).collect();
        let text = playlist::multivariant(&variants);
        self.live.multivariant.send_replace(Some(Rendered::new(text)));
    }

    fn variant(&self, index: usize) -> Option<Variant> {
        let view = self.stores[index].view();
        let config = &view.newest_init()?.config;
        let picture = match self.sources[index].codec.kind() {
            MediaKind::Video => Some((config.width, config.height, view.sample_rate()?)),
            MediaKind::Audio => None,
        };
        Some(Variant {
            name: self.live.renditions[index].name.clone(),
            codecs: config.codecs.clone(),
            bandwidth: view.bandwidth()?,
            picture,
            channels: self.sources[index].channels,
        })
    }
}

impl Rendition {
    fn new(source: &RenditionSource, timescale: NonZeroU32) -> Self {
        let LayerId { track, layer } = source.layer;
        let view = View::empty(timescale);
        let published =
            Published { view, playlist: Rendered::default(), delta: Rendered::default() };
        Self {
            name: format!("{}{track}-{layer}", source.codec.kind().as_str()),
            kind: source.codec.kind(),
            published: watch::Sender::new(Arc::new(published)),
            waiting: AtomicUsize::new(0),
        }
    }
}

/// TARGETDURATION is an integer; segments round to at most it (`p5`).
fn targets(settings: &HlsSettings) -> Targets {
    let whole = settings.segment_target.as_secs();
    let up = u64::from(settings.segment_target.subsec_nanos() > 0);
    Targets { part: settings.part_target, duration: (whole + up).max(1) }
}

fn segmenter_settings(settings: &HlsSettings) -> SegmenterSettings {
    // Half a second more would round to the next integer; stay clear of it.
    let limit = targets(settings).durations(1) + Duration::from_millis(450);
    SegmenterSettings {
        part_target: settings.part_target,
        segment_target: settings.segment_target,
        segment_limit: limit,
    }
}

fn limits(settings: &HlsSettings, targets: Targets, timescale: NonZeroU32) -> StoreLimits {
    let ticks = |d: Duration| (d.as_micros() * u128::from(timescale.get()) / 1_000_000) as u64;
    StoreLimits {
        window: ticks(settings.window),
        // A segment stays for its own length and the playlist's after it was unlisted.
        grace: ticks(settings.window + targets.durations(1)),
        floor: ticks(targets.durations(3)),
        max_bytes: settings.max_window_bytes,
    }
}
