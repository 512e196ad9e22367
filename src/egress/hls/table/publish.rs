//! From stores to versions: what changed is rendered once and wakes those who wait.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::{Table, Track};
use crate::codec::MediaKind;
use crate::egress::hls::daterange::RangeLines;
use crate::egress::hls::live::Published;
use crate::egress::hls::multivariant::{Variant, multivariant};
use crate::egress::hls::playlist::{Report, Version};
use crate::egress::hls::render::Rendered;

/// A rendition that has no part when another one has so much content is left out of
/// the multivariant playlist until it has one.
const SILENT_RENDITION: Duration = Duration::from_secs(2);

/// Versions over which [`super::Live::viewers`] takes the maximum.
const VIEWER_VERSIONS: usize = 8;

impl Table {
    /// Tells those who wait what changed.
    pub(super) fn publish(&mut self, now: Instant) {
        self.note_outage(now);
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

    pub(super) fn publish_rendition(
        &mut self,
        index: usize,
        reports: &[Report],
        ranges: &RangeLines,
    ) {
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
    pub(super) fn count_viewers(&self) {
        let kind = self.tracks.first().map(|track| track.source.codec.kind());
        let counted = self.tracks.iter().filter(|t| Some(t.source.codec.kind()) == kind);
        let viewers = counted.filter_map(|track| track.waited.iter().max()).sum();
        self.live.viewers.store(viewers, Ordering::Relaxed);
    }

    /// One report for each other rendition that is listed (`p13`).
    pub(super) fn reports(&self, index: usize) -> Vec<Report> {
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
    pub(super) fn list_renditions(&mut self, now: bool) -> bool {
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

    pub(super) fn publish_multivariant(&mut self) {
        let variants: Vec<_> =
            (0..self.tracks.len()).filter_map(|index| self.variant(index)).collect();
        if self.is_listed && !variants.is_empty() {
            self.live.multivariant.send_replace(Some(Rendered::new(multivariant(&variants))));
        }
    }

    /// A listed rendition as it is now, or as it was when it had media last.
    fn variant(&mut self, index: usize) -> Option<Variant> {
        if !self.tracks.get(index)?.listed {
            return None;
        }
        let newest = self.measure(index);
        let known = &mut self.tracks.get_mut(index)?.variant;
        if newest.is_some() {
            *known = newest;
        }
        known.clone()
    }

    fn measure(&self, index: usize) -> Option<Variant> {
        let track = self.tracks.get(index)?;
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
