//! The sans-IO core of one table, driven by hand, with all playlists it ever made.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use super::parser::Playlist;
use crate::egress::hls::blocking::Skip;
use crate::egress::hls::daterange::RangeLines;
use crate::egress::hls::playlist::{Report, Targets, Version};
use crate::egress::hls::segmenter::{Event, RenditionSource, Segmenter, SegmenterSettings};
use crate::egress::hls::store::{Numbers, Store, StoreLimits, View};
use crate::media::{Frame, LayerId};

pub const TARGETS: Targets = Targets { part: Duration::from_millis(500), duration: 2 };
pub const SETTINGS: SegmenterSettings = SegmenterSettings {
    part_target: TARGETS.part,
    segment_target: Duration::from_secs(2),
    segment_limit: Duration::from_millis(2450),
};

pub struct Rig {
    pub segmenter: Segmenter,
    pub stores: Vec<Store>,
    /// By rendition: every version, oldest first.
    pub playlists: Vec<Vec<Playlist>>,
    pub keyframes_asked: Vec<LayerId>,
}

impl Rig {
    pub fn new(sources: &[RenditionSource]) -> Self {
        let store = |source: &RenditionSource| {
            let rate = source.codec.clock_rate();
            let seconds = |s: u64| s * u64::from(rate);
            let limits = StoreLimits {
                window: seconds(30),
                grace: seconds(32),
                floor: seconds(6),
                max_bytes: 64 << 20,
            };
            Store::new(limits, NonZeroU32::new(rate).unwrap())
        };
        Self {
            segmenter: Segmenter::new(SETTINGS, sources).unwrap(),
            stores: sources.iter().map(store).collect(),
            playlists: vec![Vec::new(); sources.len()],
            keyframes_asked: Vec::new(),
        }
    }

    pub fn push(&mut self, layer: LayerId, frame: &Frame) {
        self.segmenter.handle_frame(layer, frame, false);
        self.drain();
    }

    /// Nothing came, and it is `now`.
    pub fn timeout(&mut self, now: Instant) {
        self.segmenter.handle_timeout(now);
        self.drain();
    }

    pub fn finish(&mut self) {
        self.segmenter.finish();
        self.drain();
        for index in 0..self.stores.len() {
            self.stores[index].end();
            self.render(index);
        }
    }

    fn drain(&mut self) {
        while let Some(event) = self.segmenter.poll() {
            let changed = match event {
                Event::KeyframeWanted(layer) => {
                    self.keyframes_asked.push(layer);
                    continue;
                }
                Event::SegmentStarted(index, start) => {
                    let (msn, discontinuities) = (start.number, start.sequence);
                    self.stores[index].count_from(Numbers { msn, discontinuities });
                    self.stores[index].start_segment(start);
                    continue;
                }
                Event::Part(index, part) => {
                    self.stores[index].add_part(part);
                    index
                }
                Event::SegmentEnded(index) => {
                    self.stores[index].end_segment();
                    index
                }
            };
            self.render(changed);
        }
    }

    fn render(&mut self, index: usize) {
        let text = self.text(index, false);
        self.playlists[index].push(Playlist::parse(&text));
    }

    pub fn text(&self, index: usize, skip: bool) -> String {
        let others = (0..self.stores.len()).filter(|other| *other != index);
        let reports: Vec<Report> = others
            .filter_map(|other| {
                let newest = self.stores[other].newest_part()?;
                Some(Report { name: format!("r{other}"), newest })
            })
            .collect();
        let (view, ranges) = (self.view(index), RangeLines::default());
        let version = Version {
            view: &view,
            token: "t",
            targets: TARGETS,
            reports: &reports,
            ranges: &ranges,
        };
        version.text(skip.then_some(Skip::Segments))
    }

    pub fn view(&self, index: usize) -> View {
        self.stores[index].view()
    }

    pub fn newest(&self, index: usize) -> &Playlist {
        self.playlists[index].last().unwrap()
    }
}
