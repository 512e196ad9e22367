//! One table from frames to playlists, over as many publications as it has.
//!
//! Sans-IO: [`Table::handle_frame`] and [`Table::handle_timeout`] go in, every new version
//! goes out through [`Live`], keyframe requests through [`Table::poll_keyframe_request`].
//! The stores go on when a publication ends and another begins; a segmenter is of one
//! publication. Whatever has no media meanwhile has gaps: all renditions after a
//! publication has ended, and those that the publication does not carry, or not yet,
//! beside the ones that it does (`docs/ll-hls.md` has the rules).

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::daterange::{DateRange, RangeLines};
use super::live::{Live, Published, Rendition, name};
use super::multivariant::{Variant, multivariant};
use super::outage::Outage;
use super::playlist::{Report, Targets, Version};
use super::render::{Rendered, Renderer};
use super::segmenter::{
    Counts, Event, RenditionSource, SegmentStart, Segmenter, SegmenterSettings,
};
use super::store::{Leading, MIN_LISTED, Numbers, Origin, Store, StoreLimits};
use super::{HlsSettings, HlsStats, count};
use crate::codec::MediaKind;
use crate::hub::TableName;
use crate::media::{Frame, LayerId};
use crate::time::Utc;

/// A rendition that has no part when another one has so much content is left out of
/// the multivariant playlist until it has one.
const SILENT_RENDITION: Duration = Duration::from_secs(2);

/// Versions over which [`Live::viewers`] takes the maximum.
const VIEWER_VERSIONS: usize = 8;

/// One rendition. owner: the packager's task.
struct Track {
    source: RenditionSource,
    store: Store,
    renderer: Renderer,
    /// Nothing of it has come in this publication.
    silent: bool,
    /// Breaks of the leading rendition's timeline that its gaps took over meanwhile.
    mirrored: u32,
    /// A version is due.
    changed: bool,
    /// The multivariant playlist lists it; it stays there.
    listed: bool,
    /// Requests that waited for each of the newest versions.
    waited: VecDeque<usize>,
}

impl Track {
    /// It had media once and has none in this publication.
    const fn has_gap(&self) -> bool {
        self.silent && self.store.has_begun()
    }

    /// As [`Store::extend_gap`], but not over more than a segment: a clock that jumped
    /// is no gap.
    fn extend_gap(&mut self, to: Utc, part: u64, limit: u64) {
        let rate = u64::from(self.source.codec.clock_rate());
        let most = (limit + part).saturating_mul(1_000_000) / rate;
        if self.store.edge().is_some_and(|edge| to.micros_since(edge) <= most as i64) {
            self.store.extend_gap(to, part, limit);
        }
    }
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
    /// Index of the leading rendition of this publication, or of the one before: the one
    /// that was first to begin the newest segment.
    leader: usize,
    /// That segment, as the segmenter counts.
    newest: Option<u64>,
    /// What a rendition counts from whose first segment is the segmenter's first.
    first: Option<Numbers>,
    numbers: Numbers,
    /// Where the leading rendition ends, and when that was known.
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
                mirrored: 0,
                changed: false,
                listed: false,
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
            leader: 0,
            newest: None,
            first: None,
            numbers: plan.numbers,
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
        for track in &mut self.tracks {
            track.silent = true;
            track.mirrored = 0;
            if track.store.has_begun() {
                track.store.break_timeline(1);
            }
        }
        self.begin(sources);
    }

    fn begin(&mut self, sources: &[RenditionSource]) -> bool {
        let place = |source: &RenditionSource| {
            self.tracks.iter().position(|track| track.source.layer == source.layer)
        };
        let places: Option<Vec<usize>> = sources.iter().map(place).collect();
        let segmenter = Segmenter::new(self.settings, sources);
        let (Some(places), Some(segmenter)) = (places, segmenter) else { return false };
        let video = |place: &&usize| self.tracks[**place].source.codec.kind() == MediaKind::Video;
        self.leader = places.iter().find(video).or(places.first()).copied().unwrap_or(0);
        self.segmenter = Some((segmenter, places));
        (self.newest, self.first) = (None, None);
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
        let part = self.live.targets.part;
        while let Some((at, edge)) = self.edge.filter(|_| self.gap_due().is_some_and(|d| d <= now))
        {
            let edge = edge.offset_micros(part.as_micros() as i64);
            self.extend_gaps(edge, now);
            self.edge = Some((at + part, edge));
        }
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
        let end = self.tracks[self.leader].store.edge();
        let outage = end.and_then(|end| self.outage.end(end));
        self.announce_outage(outage, now);
        self.edge = None;
        for track in &mut self.tracks {
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
                    self.follow(places[index], now);
                }
                Event::SegmentEnded(index) => {
                    count(&self.stats.segments, 1);
                    self.end_segment(places[index]);
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
        let at = start.program_date_time;
        let leads = self.newest.is_none_or(|newest| newest < start.number);
        if leads {
            (self.leader, self.newest) = (index, Some(start.number));
            self.fill_until(at, now);
            self.note_outage(&start, now);
            self.mirror(&start);
        }
        let origin = (!self.tracks[index].store.has_begun()).then(|| self.origin(index, &start));
        let (part, limit) = self.gap_lengths(index);
        let track = &mut self.tracks[index];
        if std::mem::take(&mut track.silent) {
            track.extend_gap(at, part, limit);
            let mirrored = std::mem::take(&mut track.mirrored);
            start.discontinuities = start.discontinuities.saturating_sub(mirrored);
        }
        let (number, sequence) = (start.number, start.sequence + u64::from(start.discontinuities));
        match origin {
            Some(origin) => track.store.begin(&origin, start),
            None => track.store.start_segment(start),
        }
        let next = track.store.numbers();
        self.first.get_or_insert(Numbers {
            msn: next.msn.saturating_sub(1 + number),
            discontinuities: next.discontinuities.saturating_sub(sequence),
        });
    }

    fn end_segment(&mut self, index: usize) {
        let leads = index == self.leader;
        for (place, track) in self.tracks.iter_mut().enumerate() {
            if place == index || (leads && track.has_gap()) {
                track.store.end_segment();
                track.changed = true;
            }
        }
        self.segment_ended = true;
    }

    /// Where a rendition begins to count that has no segment yet.
    fn origin(&self, index: usize, start: &SegmentStart) -> Origin {
        let at = start.program_date_time;
        let others = self.tracks.iter().enumerate().filter(|(other, _)| *other != index);
        let begun = others.map(|(_, track)| &track.store).find(|store| store.has_begun());
        let counted = begun.map(|store| {
            let numbers = self.first.map_or(store.numbers(), |first| Numbers {
                msn: first.msn + start.number,
                discontinuities: first.discontinuities + start.sequence,
            });
            store.origin_at(numbers, at, start.discontinuities, self.leading_gaps)
        });
        counted.unwrap_or_else(|| {
            let micros = self.live.targets.durations(1).as_micros() as i64;
            let leading = (1..=self.leading_gaps as i64).rev().map(|n| Leading {
                start: at.offset_micros(-n * micros),
                micros: micros as u64,
                discontinuities: 0,
            });
            Origin { numbers: self.numbers, leading: leading.collect(), breaks: None }
        })
    }

    /// When the next gap part is due; `None` while the leading rendition has media, or
    /// before there was any. Half a part is left for media that is on its way.
    fn gap_due(&self) -> Option<Instant> {
        let leader = self.tracks.get(self.leader)?;
        let part = self.live.targets.part;
        self.edge.filter(|_| leader.silent).map(|(at, _)| at + part + part / 2)
    }

    /// PART-TARGET and the length of a gap segment, in ticks of a rendition.
    fn gap_lengths(&self, index: usize) -> (u64, u64) {
        let rate = u128::from(self.tracks[index].source.codec.clock_rate());
        let ticks = |length: Duration| (length.as_micros() * rate / 1_000_000) as u64;
        (ticks(self.settings.part_target), ticks(self.settings.segment_target))
    }

    /// All renditions without media have gaps until `to`.
    fn extend_gaps(&mut self, to: Utc, now: Instant) {
        let leader = &self.tracks[self.leader].store;
        if let Some(edge) = leader.edge().filter(|edge| *edge < to) {
            self.outage.begin(leader.numbers().msn, edge);
            self.announce_outage(self.outage.announce(), now);
        }
        for index in 0..self.tracks.len() {
            let (part, limit) = self.gap_lengths(index);
            let track = &mut self.tracks[index];
            if track.has_gap() {
                track.store.extend_gap(to, part, limit);
                track.changed = true;
            }
        }
        let (_, segment) = self.gap_lengths(self.leader);
        let leader = self.tracks[self.leader].store.open();
        if leader.is_some_and(|open| open.duration >= segment) {
            self.end_gaps();
        }
    }

    fn end_gaps(&mut self) {
        self.tracks.iter_mut().filter(|track| track.has_gap()).for_each(|track| {
            track.store.end_segment();
            track.changed = true;
        });
    }

    /// The first media of a publication begins at `at`: the gaps reach up to there. Not
    /// further than time has passed, because the clock of a source may be wrong.
    fn fill_until(&mut self, at: Utc, now: Instant) {
        let is_first = self.tracks[self.leader].silent;
        let Some((known, edge)) = self.edge.filter(|_| is_first) else { return };
        let passed = now.saturating_duration_since(known) + self.live.targets.part;
        let most = edge.offset_micros(i64::try_from(passed.as_micros()).unwrap_or(i64::MAX));
        if at > edge {
            self.extend_gaps(at.min(most), now);
        }
        self.end_gaps();
    }

    /// The leading rendition begins a segment: those without media have a gap there.
    fn mirror(&mut self, start: &SegmentStart) {
        for index in (0..self.tracks.len()).filter(|index| *index != self.leader) {
            let (part, limit) = self.gap_lengths(index);
            let track = &mut self.tracks[index];
            if track.has_gap() {
                track.extend_gap(start.program_date_time, part, limit);
                track.store.end_segment();
                track.store.break_timeline(start.discontinuities);
                track.mirrored += start.discontinuities;
                track.store.start_gap(start.program_date_time);
                track.changed = true;
            }
        }
    }

    /// A rendition has a part: when it leads, those without media have a gap beside it.
    fn follow(&mut self, index: usize, now: Instant) {
        if index != self.leader {
            return;
        }
        let Some(edge) = self.tracks[index].store.edge() else { return };
        self.edge = Some((now, edge));
        // The leading segment ends theirs; this is only for one that is late.
        let limit = self.live.targets.durations(1).as_micros();
        for index in (0..self.tracks.len()).filter(|index| *index != self.leader) {
            let (part, _) = self.gap_lengths(index);
            let track = &mut self.tracks[index];
            if track.has_gap() {
                let rate = u128::from(track.source.codec.clock_rate());
                track.extend_gap(edge, part, (limit * rate / 1_000_000) as u64);
                track.changed = true;
            }
        }
    }

    /// The leading rendition begins a segment: an outage begins, goes on, or is over.
    fn note_outage(&mut self, start: &SegmentStart, now: Instant) {
        let store = &self.tracks[self.leader].store;
        let range = if start.gap {
            self.outage.begin(store.numbers().msn, start.program_date_time);
            self.outage.announce()
        } else {
            store.edge().and_then(|edge| self.outage.end(edge))
        };
        self.announce_outage(range, now);
    }

    fn announce_outage(&self, range: Option<DateRange>, now: Instant) {
        if let Some(range) = range {
            // A full set refuses it: what others announced is worth as much.
            let _ = self.live.ranges().set(range, now);
        }
    }

    /// Tells those who wait what changed.
    fn publish(&mut self, now: Instant) {
        let oldest = self.tracks.iter().filter_map(|track| track.store.oldest_listed()).min();
        let lines = {
            let mut ranges = self.live.ranges();
            if let Some(oldest) = oldest {
                ranges.expire(oldest, now);
            }
            if ranges.version() != self.ranges {
                self.ranges = ranges.version();
                // The same set in all playlists.
                let begun = self.tracks.iter_mut().filter(|track| track.store.has_begun());
                begun.for_each(|track| track.changed = true);
            }
            if self.tracks.iter().all(|track| !track.changed) {
                return;
            }
            ranges.lines(now, self.live.targets.skip_until())
        };
        for index in 0..self.tracks.len() {
            if std::mem::take(&mut self.tracks[index].changed) {
                let reports = self.reports(index);
                self.publish_rendition(index, &reports, &lines);
            }
        }
        let newly_listed = self.list_renditions(false);
        self.count_viewers();
        if newly_listed || std::mem::take(&mut self.segment_ended) {
            self.publish_multivariant();
        }
    }

    fn publish_rendition(&mut self, index: usize, reports: &[Report], ranges: &RangeLines) {
        let track = &mut self.tracks[index];
        let view = track.store.view();
        let (token, targets) = (&self.live.token, self.live.targets);
        let version = Version { view: &view, token, targets, reports, ranges };
        let playlist = track.renderer.render(version);
        let rendition = &self.live.renditions[index];
        if track.waited.len() == VIEWER_VERSIONS {
            track.waited.pop_front();
        }
        track.waited.push_back(rendition.waiting.load(Ordering::Relaxed));
        rendition.published.send_replace(Arc::new(Published { view, playlist }));
    }

    /// A viewer plays one video rendition at a time, or one audio rendition where there
    /// is no video.
    fn count_viewers(&self) {
        let kind = self.tracks.first().map(|track| track.source.codec.kind());
        let counted = self.tracks.iter().filter(|t| Some(t.source.codec.kind()) == kind);
        let viewers = counted.filter_map(|track| track.waited.iter().max()).sum();
        self.live.viewers.store(viewers, Ordering::Relaxed);
    }

    /// One report for each other rendition that is listed (`p13`).
    fn reports(&self, index: usize) -> Vec<Report> {
        let others = self.tracks.iter().enumerate().filter(|(other, _)| *other != index);
        let listed = others.filter(|(_, track)| track.listed || !self.is_listed);
        let report = |(other, track): (usize, &Track)| {
            let newest = track.store.newest_part()?;
            Some(Report { name: self.live.renditions[other].name.clone(), newest })
        };
        listed.filter_map(report).collect()
    }

    /// Lists the renditions that have a part: at first as soon as all have one, or each
    /// kind of media has a whole segment, or one is so long that the others are taken
    /// for silent; afterwards each as it comes. Returns true when it listed some.
    fn list_renditions(&mut self, now: bool) -> bool {
        let has_media = |track: &Track| track.store.newest_part().is_some();
        let missing = |track: &Track| !has_media(track);
        if !self.is_listed && !now && self.tracks.iter().any(missing) {
            let whole = |kind| {
                let of_kind = |track: &&Track| track.source.codec.kind() == kind;
                let mut tracks = self.tracks.iter().filter(of_kind).peekable();
                tracks.peek().is_none() || tracks.any(|track| track.store.has_segment())
            };
            let long =
                |track: &Track| track.store.media_micros() >= SILENT_RENDITION.as_micros() as u64;
            let enough = whole(MediaKind::Video) && whole(MediaKind::Audio);
            if !enough && !self.tracks.iter().any(long) {
                return false;
            }
        }
        let mut newly = false;
        for track in self.tracks.iter_mut().filter(|track| !track.listed && has_media(track)) {
            (track.listed, newly) = (true, true);
        }
        self.is_listed |= newly || now;
        newly
    }

    fn publish_multivariant(&mut self) {
        if self.is_listed {
            let variants: Vec<_> =
                (0..self.tracks.len()).filter_map(|index| self.variant(index)).collect();
            self.live.multivariant.send_replace(Some(Rendered::new(multivariant(&variants))));
        }
    }

    fn variant(&mut self, index: usize) -> Option<Variant> {
        let track = self.tracks.get_mut(index).filter(|track| track.listed)?;
        let view = track.store.view();
        let config = &view.newest_init()?.config;
        let picture = match track.source.codec.kind() {
            MediaKind::Video => Some((config.width, config.height, view.sample_rate()?)),
            MediaKind::Audio => None,
        };
        Some(Variant {
            name: self.live.renditions.get(index)?.name.clone(),
            codecs: config.codecs.clone(),
            bandwidth: view.bandwidth(self.live.targets.durations(1))?,
            picture,
            channels: track.source.channels,
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
