//! One table from frames to playlists, over as many publications as it has.
//!
//! Sans-IO: [`Table::handle_frame`] and [`Table::handle_timeout`] go in, every new version
//! goes out through [`Live`], keyframe requests through [`Table::poll_keyframe_request`].
//! The stores go on when a publication ends and another begins; a segmenter is of one
//! publication. Whatever has no media meanwhile has gaps: all renditions after a
//! publication has ended, and those that the publication does not carry, or not yet,
//! beside the ones that it does (`docs/ll-hls.md` has the rules).

mod gaps;
mod publish;

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::live::{Live, Rendition, name};
use super::multivariant::Variant;
use super::outage::Outage;
use super::playlist::Targets;
use super::render::Renderer;
use super::segmenter::{
    Counts, Event, RenditionSource, SegmentStart, Segmenter, SegmenterSettings,
};
use super::store::{Leading, MIN_LISTED, Numbers, Origin, Store, StoreLimits};
use super::{HlsSettings, HlsStats, count};
use crate::codec::MediaKind;
use crate::hub::TableName;
use crate::media::{Frame, LayerId};
use crate::time::Utc;

/// One rendition. owner: the packager's task.
struct Track {
    source: RenditionSource,
    store: Store,
    renderer: Renderer,
    /// Nothing of it has come in this publication.
    silent: bool,
    /// Since when it is gaps; `None` while it has media.
    gap_since: Option<Utc>,
    /// A version is due.
    changed: bool,
    /// The multivariant playlist lists it; it stays there…
    listed: bool,
    /// …as it was described last, when all its media is gone.
    variant: Option<Variant>,
    /// Requests that waited for each of the newest versions.
    waited: VecDeque<usize>,
}

impl Track {
    /// It had media once and has none in this publication.
    const fn has_gap(&self) -> bool {
        self.silent && self.store.has_begun()
    }
}

/// Where all renditions begin a segment.
#[derive(Clone, Copy)]
struct Boundary {
    /// As the segmenter counts.
    number: u64,
    at: Utc,
    /// Discontinuities of the table before the segment.
    discontinuities: u64,
}

/// What a table is made of.
pub struct Plan {
    /// Its name.
    pub table: TableName,
    /// Opens the names of all resources.
    pub token: String,
    /// The renditions that it has for good, the leading one first.
    pub renditions: Vec<RenditionSource>,
    /// From where its segments are counted.
    pub numbers: Numbers,
}

/// owner: the packager's task.
pub struct Table {
    live: Arc<Live>,
    settings: SegmenterSettings,
    leading_gaps: usize,
    tracks: Vec<Track>,
    /// The segmenter of this publication, and which track each of its renditions is.
    segmenter: Option<(Segmenter, Vec<usize>)>,
    numbers: Numbers,
    /// Numbers of this publication's first boundary; `None` before it.
    base: Option<Numbers>,
    /// This publication's first media begins with a discontinuity.
    break_due: bool,
    /// The newest boundary: where all renditions begin a segment.
    boundary: Option<Boundary>,
    /// Where the longest rendition ends, and when that was known.
    edge: Option<(Instant, Utc)>,
    outage: Outage,
    /// Version of the date ranges that the playlists list.
    ranges: u64,
    /// Some renditions are listed in the multivariant playlist.
    is_listed: bool,
    /// A segment is complete that the bit rates do not count yet.
    segment_ended: bool,
    /// A handful: drained after each call.
    wanted: VecDeque<LayerId>,
    /// What the statistics have of the segmenter.
    counted: Counts,
    stats: Arc<HlsStats>,
}

impl Table {
    /// A table with nothing in it yet, and its first publication. `None` when there is
    /// nothing that HLS can carry.
    pub fn new(settings: &HlsSettings, plan: Plan, stats: Arc<HlsStats>) -> Option<Self> {
        let targets = targets(settings);
        let (mut tracks, mut renditions) = (Vec::new(), Vec::new());
        for source in &plan.renditions {
            let timescale = NonZeroU32::new(source.codec.clock_rate())?;
            let mut store = Store::new(limits(settings, targets, timescale), timescale);
            store.count_from(plan.numbers);
            tracks.push(Track {
                source: *source,
                store,
                renderer: Renderer::default(),
                silent: true,
                gap_since: None,
                changed: false,
                listed: false,
                variant: None,
                waited: VecDeque::new(),
            });
            renditions.push(Rendition::new(source, timescale, plan.numbers));
        }
        let mut table = Self {
            live: Arc::new(Live::new(plan.table, plan.token, targets, renditions)),
            settings: segmenter_settings(settings),
            leading_gaps: if settings.leading_gaps { MIN_LISTED - 1 } else { 0 },
            tracks,
            segmenter: None,
            numbers: plan.numbers,
            base: None,
            break_due: false,
            boundary: None,
            edge: None,
            outage: Outage::default(),
            ranges: 0,
            is_listed: false,
            segment_ended: false,
            wanted: VecDeque::new(),
            counted: Counts::default(),
            stats,
        };
        table.begin(&plan.renditions).then_some(table)
    }

    /// The table as the HTTP side sees it.
    pub const fn live(&self) -> &Arc<Live> {
        &self.live
    }

    /// Whether a publication of these renditions can go on where this table is: it has
    /// the same kinds of media, and nothing that the multivariant playlist does not list
    /// or lists as something else, because players read that one once.
    pub fn continues(&self, sources: &[RenditionSource]) -> bool {
        let kinds = |sources: &mut dyn Iterator<Item = &RenditionSource>| {
            sources.fold([false; 2], |[video, audio], source| match source.codec.kind() {
                MediaKind::Video => [true, audio],
                MediaKind::Audio => [video, true],
            })
        };
        let ours = || self.tracks.iter().map(|track| &track.source);
        let is_ours = |source: &RenditionSource| {
            ours().any(|our| {
                (name(our), our.codec, our.channels)
                    == (name(source), source.codec, source.channels)
            })
        };
        kinds(&mut ours()) == kinds(&mut sources.iter()) && sources.iter().all(is_ours)
    }

    /// Another publication goes on with the table; [`Self::continues`] said that it can.
    pub fn start_publication(&mut self, sources: &[RenditionSource], now: Instant) {
        self.end_publication(now);
        self.break_due = true;
        self.begin(sources);
    }

    fn begin(&mut self, sources: &[RenditionSource]) -> bool {
        let place = |source: &RenditionSource| {
            self.tracks.iter().position(|track| track.source.layer == source.layer)
        };
        let places: Option<Vec<usize>> = sources.iter().map(place).collect();
        let segmenter = Segmenter::new(self.settings, sources);
        let (Some(places), Some(segmenter)) = (places, segmenter) else { return false };
        (self.base, self.boundary) = (None, None);
        self.segmenter = Some((segmenter, places));
        self.counted = Counts::default();
        true
    }

    /// The publication is over: what is held comes out, and then there are gaps until
    /// another one begins or the table is finished.
    pub fn end_publication(&mut self, now: Instant) {
        if let Some((mut segmenter, places)) = self.segmenter.take() {
            segmenter.finish();
            self.drain(&mut segmenter, &places, now);
            for track in &mut self.tracks {
                track.store.end_segment();
                track.silent = true;
            }
            self.level();
            self.outage.publisher_is_gone();
            self.publish(now);
        }
    }

    /// Takes the next frame of a layer.
    pub fn handle_frame(&mut self, layer: LayerId, frame: &Frame, after_loss: bool) {
        self.with_segmenter(frame.received, |segmenter| {
            segmenter.handle_frame(layer, frame, after_loss);
        });
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let segmenter = self.segmenter.as_ref();
        let cut = segmenter.and_then(|(segmenter, _)| segmenter.poll_timeout());
        cut.into_iter().chain(self.gap_due()).min()
    }

    /// Nothing may have come for a while: time becomes gaps.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.make_gaps(now);
        self.with_segmenter(now, |segmenter| segmenter.handle_timeout(now));
        self.publish(now);
    }

    /// The next layer of which a random access point is to be asked for.
    pub fn poll_keyframe_request(&mut self) -> Option<LayerId> {
        self.wanted.pop_front()
    }

    /// Nothing will be added: the playlists end.
    pub fn finish(&mut self, now: Instant) {
        self.end_publication(now);
        let outage = self.edge.and_then(|(_, edge)| self.outage.end(edge));
        self.announce_outage(outage, now);
        self.edge = None;
        for track in &mut self.tracks {
            track.gap_since = None;
            track.store.end();
            track.changed = true;
        }
        self.list_renditions(true);
        self.publish(now);
        self.publish_multivariant();
        self.live.viewers.store(0, Ordering::Relaxed);
    }

    /// From where a table counts that comes after this one.
    pub fn numbers(&self) -> Numbers {
        let begun = self.tracks.iter().filter(|track| track.store.has_begun());
        begun.map(|track| track.store.numbers()).fold(self.numbers, |all, one| Numbers {
            msn: all.msn.max(one.msn),
            discontinuities: all.discontinuities.max(one.discontinuities + 1),
        })
    }

    fn with_segmenter(&mut self, now: Instant, act: impl FnOnce(&mut Segmenter)) {
        let Some((mut segmenter, places)) = self.segmenter.take() else { return };
        act(&mut segmenter);
        self.drain(&mut segmenter, &places, now);
        self.segmenter = Some((segmenter, places));
        self.publish(now);
    }

    /// Moves what the segmenter made into the stores.
    fn drain(&mut self, segmenter: &mut Segmenter, places: &[usize], now: Instant) {
        while let Some(event) = segmenter.poll() {
            match event {
                Event::KeyframeWanted(layer) => {
                    count(&self.stats.keyframes_asked, 1);
                    self.wanted.push_back(layer);
                }
                Event::SegmentStarted(index, start) => {
                    self.start_segment(places[index], start, now)
                }
                Event::Part(index, part) => {
                    count(&self.stats.parts, 1);
                    let track = &mut self.tracks[places[index]];
                    track.store.add_part(part);
                    track.changed = true;
                    let edge = track.store.edge();
                    self.reach(edge, now);
                }
                Event::SegmentEnded(index) => {
                    count(&self.stats.segments, 1);
                    let track = &mut self.tracks[places[index]];
                    track.store.end_segment();
                    track.changed = true;
                    self.segment_ended = true;
                }
            }
        }
        let counts = segmenter.counts();
        let before = std::mem::replace(&mut self.counted, counts);
        count(&self.stats.frames_dropped_unusable, counts.dropped - before.dropped);
        count(&self.stats.unaligned_segments, counts.unaligned - before.unaligned);
        count(&self.stats.gap_segments, counts.gaps - before.gaps);
    }

    fn start_segment(&mut self, index: usize, mut start: SegmentStart, now: Instant) {
        if self.boundary.is_none_or(|newest| newest.number < start.number) {
            self.pass_boundary(&start, now);
        }
        let base = self.base.unwrap_or_default();
        let before = base.discontinuities + start.sequence;
        let msn = base.msn + start.number;
        let origin = (!self.tracks[index].store.has_begun()).then(|| {
            let breaks = (before + u64::from(start.discontinuities), start.discontinuities);
            self.origin(msn, start.program_date_time, breaks)
        });
        let numbers = Numbers { msn, discontinuities: 0 };
        self.make_up(index, numbers, start.program_date_time);
        let track = &mut self.tracks[index];
        track.silent = false;
        track.gap_since = start.gap.then(|| track.gap_since.unwrap_or(start.program_date_time));
        match origin {
            Some(origin) => track.store.begin(&origin, start),
            None => {
                // What its gaps did not take over yet.
                let expected = before + u64::from(start.discontinuities);
                let missing = expected.saturating_sub(track.store.numbers().discontinuities);
                start.discontinuities = u32::try_from(missing).unwrap_or(0);
                track.store.start_segment(start);
            }
        }
    }

    /// Where a rendition begins to count that has no segment yet, and what stands before.
    fn origin(&self, msn: u64, at: Utc, breaks: (u64, u32)) -> Origin {
        let mut begun = self.tracks.iter().map(|track| &track.store).filter(|s| s.has_begun());
        let other = begun.find(|store| store.numbers().msn >= msn);
        let origin = other.map(|store| store.origin_for(msn, at, breaks, self.leading_gaps));
        origin.filter(|origin| !origin.leading.is_empty()).unwrap_or_else(|| {
            let micros = self.live.targets.durations(1).as_micros() as i64;
            // Before the first segment of all there is nothing; later there was something.
            let gaps = if msn == self.numbers.msn { self.leading_gaps as i64 } else { 0 };
            let leading = (1..=gaps).rev().map(|n| Leading {
                start: at.offset_micros(-n * micros),
                micros: micros as u64,
                discontinuities: 0,
            });
            let discontinuities = breaks.0.saturating_sub(u64::from(breaks.1));
            Origin { numbers: Numbers { msn, discontinuities }, leading: leading.collect() }
        })
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
