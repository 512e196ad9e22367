//! What one rendition offers at one moment, for those who read it: an immutable
//! snapshot of its [`Store`](super::store::Store) that shares the segments.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::blocking::Progress;
use super::segmenter::Init;
use super::store::{Numbers, Segment};

/// Segments over which the sample rate is measured.
const RATE_SEGMENTS: usize = 8;

/// What one rendition offers at one moment.
#[derive(Debug, Clone)]
pub struct View {
    /// Ticks per second.
    pub timescale: NonZeroU32,
    pub(super) complete: Arc<[Arc<Segment>]>,
    pub(super) open: Option<Arc<Segment>>,
    pub(super) listed: usize,
    /// Discontinuities that left the playlist.
    pub discontinuities: u64,
    pub(super) next_msn: u64,
    pub(super) next_part: u64,
    pub(super) first_msn: u64,
    /// Nothing will be added.
    pub ended: bool,
}

/// What stands behind a name.
#[derive(Debug, Clone)]
pub enum Resource {
    /// One piece of bytes: an init segment or a part.
    Piece(Bytes),
    /// A complete segment.
    Segment(Arc<Segment>),
    /// The part that comes next: it will be there soon.
    Hinted,
    /// Gone, never was, or a gap.
    Unknown,
}

impl View {
    /// An empty one, before anything came, that will count from `numbers`.
    pub fn empty(timescale: NonZeroU32, numbers: Numbers) -> Self {
        Self {
            timescale,
            complete: Arc::new([]),
            open: None,
            listed: 0,
            discontinuities: numbers.discontinuities,
            next_msn: numbers.msn,
            next_part: 0,
            first_msn: numbers.msn,
            ended: false,
        }
    }

    /// The complete segments that the playlist lists, oldest first.
    pub fn listed_complete(&self) -> &[Arc<Segment>] {
        self.complete.get(self.listed..).unwrap_or_default()
    }

    /// The segment in progress; it is listed, too.
    pub const fn open(&self) -> Option<&Arc<Segment>> {
        self.open.as_ref()
    }

    /// The segments that the playlist lists, oldest first.
    #[cfg(test)]
    pub fn listed(&self) -> Vec<&Arc<Segment>> {
        self.listed_complete().iter().chain(&self.open).collect()
    }

    /// Media sequence number of the first listed segment.
    pub fn media_sequence(&self) -> u64 {
        let first = self.listed_complete().first().or(self.open.as_ref());
        first.map_or(self.next_msn, |segment| segment.msn)
    }

    /// Number of the part that comes next.
    pub const fn next_part(&self) -> u64 {
        self.next_part
    }

    /// How far it is, for the blocking decision.
    pub fn progress(&self) -> Progress {
        let parts = |segment: &Arc<Segment>| segment.parts.len() as u64;
        Progress {
            first_msn: self.first_msn,
            open_msn: self.next_msn - u64::from(self.open.is_some()),
            open_parts: self.open.as_ref().map_or(0, parts),
            last_parts: self.complete.last().map_or(0, parts),
            ended: self.ended,
        }
    }

    /// An init segment by its number.
    pub fn init(&self, number: u32) -> Resource {
        // Most ask for the newest, and few are held.
        let mut segments = self.open.iter().chain(self.complete.iter().rev());
        let found = segments.find(|segment| segment.init.number <= number);
        let found = found.filter(|segment| segment.init.number == number);
        found.map_or(Resource::Unknown, |segment| Resource::Piece(segment.init.data.clone()))
    }

    /// A complete segment by its media sequence number.
    pub fn segment(&self, msn: u64) -> Resource {
        let first = self.complete.first().map_or(0, |segment| segment.msn);
        let index = msn.checked_sub(first).and_then(|index| usize::try_from(index).ok());
        let found = index.and_then(|index| self.complete.get(index)).filter(|s| !s.gap);
        found.map_or(Resource::Unknown, |segment| Resource::Segment(segment.clone()))
    }

    /// A part by its number.
    pub fn part(&self, number: u64) -> Resource {
        if number == self.next_part && !self.ended {
            return Resource::Hinted;
        }
        let begun = |s: &Arc<Segment>| s.parts.first().is_none_or(|first| first.number <= number);
        let open = self.open.as_ref().filter(|open| !open.is_empty() && begun(open));
        let after = self.complete.partition_point(begun);
        let found = open.or_else(|| self.complete.get(after.checked_sub(1)?));
        let part = found.filter(|segment| !segment.gap).and_then(|segment| {
            let index = number.checked_sub(segment.parts.first()?.number)?;
            segment.parts.get(usize::try_from(index).ok()?)
        });
        part.map_or(Resource::Unknown, |part| Resource::Piece(part.media.data.clone()))
    }

    /// Bits per second: the peak segment bit rate (rfc8216bis §4.1: the most of any run
    /// of segments that lasts from 0.5 to 1.5 `target`) and the mean, over the media
    /// that is held. Before there is such a run, both are of all the media.
    pub fn bandwidth(&self, target: Duration) -> Option<(u64, u64)> {
        let rate = |bytes: u64, ticks: u64| {
            let bits = u128::from(bytes) * 8 * u128::from(self.timescale.get());
            (bits / u128::from(ticks.max(1))) as u64
        };
        let target = target.as_micros() * u128::from(self.timescale.get()) / 1_000_000;
        let (least, most) = ((target / 2) as u64, (target * 3 / 2) as u64);
        let sizes: Vec<(u64, u64)> = self.complete.iter().map(|s| s.size()).collect();
        let mut peak = None;
        for first in 0..sizes.len() {
            let (mut bytes, mut ticks) = (0, 0);
            // A gap is no part of any run.
            for (more, longer) in sizes.iter().skip(first).take_while(|(bytes, _)| *bytes > 0) {
                (bytes, ticks) = (bytes + more, ticks + longer);
                if ticks > most {
                    break;
                }
                peak = if ticks >= least { peak.max(Some(rate(bytes, ticks))) } else { peak };
            }
        }
        let open = self.open.as_ref().map(|segment| segment.size());
        let media = || sizes.iter().chain(&open).filter(|(bytes, _)| *bytes > 0);
        let ticks: u64 = media().map(|(_, ticks)| ticks).sum();
        let mean = rate(media().map(|(bytes, _)| bytes).sum(), ticks);
        (ticks > 0).then(|| (peak.unwrap_or(mean).max(mean), mean))
    }

    /// Samples per second over the newest media.
    pub fn sample_rate(&self) -> Option<f64> {
        let newest = self.open.iter().chain(self.complete.iter().rev());
        let newest = newest.filter(|segment| !segment.gap).take(RATE_SEGMENTS);
        let parts = newest.flat_map(|segment| &segment.parts).map(|part| &part.media);
        let (ticks, samples) =
            parts.fold((0, 0), |(t, n), part| (t + part.ticks, n + u64::from(part.samples)));
        (ticks > 0).then(|| samples as f64 * f64::from(self.timescale.get()) / ticks as f64)
    }

    /// The newest init segment.
    pub fn newest_init(&self) -> Option<&Arc<Init>> {
        self.open.as_ref().or(self.complete.last()).map(|segment| &segment.init)
    }
}
