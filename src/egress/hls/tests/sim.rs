//! A simulcast source with sound behind an unreliable network, on a virtual clock: its
//! encoders send keyframes when asked, after a while; frames are lost and late. Seeded.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::fixture::{AUDIO, Feed, audio_source, h264, opus, video_source};
use super::rig::Rig;
use super::timeline::other_level;
use crate::codec::Codec;
use crate::egress::hls::segmenter::RenditionSource;
use crate::media::{Frame, LayerId};

pub const fn layer(layer: u8) -> LayerId {
    LayerId { track: 0, layer }
}

/// What the frames are for.
pub trait Sink {
    fn push(&mut self, layer: LayerId, frame: &Frame);
    fn poll_timeout(&self) -> Option<Instant>;
    fn handle_timeout(&mut self, now: Instant);
    fn take_requests(&mut self) -> Vec<LayerId>;
}

impl Sink for Rig {
    fn push(&mut self, layer: LayerId, frame: &Frame) {
        Self::push(self, layer, frame);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.segmenter.poll_timeout()
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.timeout(now);
    }

    fn take_requests(&mut self) -> Vec<LayerId> {
        std::mem::take(&mut self.keyframes_asked)
    }
}

/// What happens between its sources and the segmenter.
#[derive(Clone, Copy)]
pub struct Weather {
    /// Of how many frames one is lost; 0: of none.
    pub loss: u32,
    /// Milliseconds that a frame may be late, beyond the 20 that all are.
    pub jitter: u64,
    /// Milliseconds from a request to the next frame that is a keyframe, at least and most.
    pub response: (u64, u64),
    /// The source encodes all layers at once: who asks one is answered by all.
    pub together: bool,
}

/// One layer of the source, or its sound.
pub struct Line {
    pub id: LayerId,
    /// It sends nothing while false.
    pub on: bool,
    /// From frame to frame, in microseconds.
    pub interval: u64,
    /// Its keyframes have other parameter sets.
    pub changed: bool,
    /// What it takes longer than others to answer a request, in milliseconds.
    pub slow_answers: u64,
    /// Added to capture times from now on, in microseconds.
    pub capture_offset: i64,
    /// Added to RTP ticks from now on.
    pub ticks_offset: u64,
    /// A request is answered with a frame of its own, not with the next one.
    pub still: bool,
    /// It sends a keyframe by itself each so many frames.
    pub gop: Option<u64>,
    next: u64,
    sent: u64,
    key_due: Option<u64>,
    lost: bool,
    last_arrival: u64,
}

type Arriving = (u64, u64, usize);

/// The source, the network and what the frames are for.
pub struct Sim<S = Rig> {
    pub rig: S,
    pub lines: Vec<Line>,
    pub weather: Weather,
    /// In microseconds.
    pub now: u64,
    /// Keyframe requests so far, by line.
    pub asked: Vec<u64>,
    /// What all frames take longer from now on, in microseconds.
    pub delay: u64,
    feed: Feed,
    random: StdRng,
    on_the_way: BinaryHeap<Reverse<Arriving>>,
    frames: std::collections::HashMap<u64, Frame>,
    count: u64,
    /// Coded pictures: a keyframe, one with other parameter sets, and any other.
    pictures: [Bytes; 3],
}

impl Sim {
    /// `layers` of video, the best one first, and sound.
    pub fn new(seed: u64, layers: u8, weather: Weather) -> Self {
        Self::with(seed, layers, weather, Rig::new)
    }
}

impl<S: Sink> Sim<S> {
    /// As [`Sim::new`], for another sink.
    pub fn with(
        seed: u64,
        layers: u8,
        weather: Weather,
        sink: impl FnOnce(&[RenditionSource]) -> S,
    ) -> Self {
        let video =
            (0..layers).map(|n| RenditionSource { layer: layer(n), ..video_source(Codec::H264) });
        let sources: Vec<_> = video.chain([audio_source()]).collect();
        let mut random = StdRng::seed_from_u64(seed);
        let line = |source: &RenditionSource, random: &mut StdRng| Line {
            id: source.layer,
            on: true,
            interval: if source.layer == AUDIO { 20_000 } else { 33_333 },
            changed: false,
            slow_answers: 0,
            // What sender reports of different streams disagree by.
            capture_offset: random.random_range(-5_000..5_000),
            ticks_offset: random.random_range(0..u64::from(u32::MAX)),
            still: false,
            gop: None,
            next: 0,
            sent: 0,
            key_due: Some(0),
            lost: false,
            last_arrival: 0,
        };
        let lines: Vec<_> = sources.iter().map(|source| line(source, &mut random)).collect();
        let key = h264()[0].0.clone();
        Self {
            rig: sink(&sources),
            asked: vec![0; lines.len()],
            delay: 0,
            lines,
            weather,
            now: 0,
            feed: Feed::new(),
            random,
            on_the_way: BinaryHeap::new(),
            frames: std::collections::HashMap::new(),
            count: 0,
            pictures: [key.clone(), other_level(&key), h264()[1].0.clone()],
        }
    }

    /// Lets time pass until `millis`, and calls `each` after every step.
    pub fn until(&mut self, millis: u64, mut each: impl FnMut(&mut Self)) {
        while self.now < millis * 1000 {
            self.now += 1000;
            for index in 0..self.lines.len() {
                self.capture(index);
            }
            while let Some(Reverse((at, number, index))) =
                self.on_the_way.peek().copied().filter(|Reverse((at, ..))| *at <= self.now)
            {
                self.on_the_way.pop();
                let mut frame = self.frames.remove(&number).unwrap();
                frame.received = self.feed.base + Duration::from_micros(at);
                self.rig.push(self.lines[index].id, &frame);
            }
            let now = self.instant();
            if self.rig.poll_timeout().is_some_and(|due| due <= now) {
                self.rig.handle_timeout(now);
            }
            self.answer();
            each(self);
        }
    }

    /// Now, as the monotonic clock says it.
    pub fn instant(&self) -> Instant {
        self.feed.base + Duration::from_micros(self.now)
    }

    /// A frame of a line comes at once, and nothing of what is on the way.
    pub fn push_now(&mut self, index: usize, mut frame: Frame) {
        frame.received = self.instant();
        self.rig.push(self.lines[index].id, &frame);
    }

    fn answer(&mut self) {
        for asked in self.rig.take_requests() {
            let asked = self.lines.iter().position(|line| line.id == asked).unwrap();
            self.asked[asked] += 1;
            let (least, most) = self.weather.response;
            let answer = self.random.random_range(least..=most);
            for (index, line) in self.lines.iter_mut().enumerate() {
                if index == asked || (self.weather.together && line.id != AUDIO) {
                    let due = self.now + (answer + line.slow_answers) * 1000;
                    line.key_due = line.key_due.or(Some(due));
                }
            }
        }
    }

    /// The source makes the frames of a line that are due.
    fn capture(&mut self, index: usize) {
        let refresh = |line: &Line, now| line.still && line.key_due.is_some_and(|due| due <= now);
        if refresh(&self.lines[index], self.now) {
            self.lines[index].next = self.now;
        }
        while self.lines[index].next <= self.now {
            let line = &mut self.lines[index];
            let at = line.next;
            line.next += line.interval;
            if !line.on {
                continue;
            }
            let is_audio = line.id == AUDIO;
            let periodic = line.gop.is_some_and(|gop| line.sent.is_multiple_of(gop));
            let obeys = line.gop.is_none() && line.key_due.is_some_and(|due| due <= at);
            let keyframe = is_audio || periodic || obeys;
            if obeys || periodic {
                line.key_due = None;
            }
            let data = match (is_audio, keyframe, line.changed) {
                (true, ..) => opus()[(line.sent % opus().len() as u64) as usize].clone(),
                (_, true, changed) => self.pictures[usize::from(changed)].clone(),
                _ => self.pictures[2].clone(),
            };
            line.sent += 1;
            let rate: u64 = if is_audio { 48_000 } else { 90_000 };
            let ticks = line
                .ticks_offset
                .wrapping_add((u128::from(at) * u128::from(rate) / 1_000_000) as u64);
            let mut frame = self.feed.frame(data, keyframe, ticks, at);
            frame.capture = frame.capture.offset_micros(line.capture_offset);
            if self.weather.loss > 0 && self.random.random_range(0..self.weather.loss) == 0 {
                line.lost = true;
                continue;
            }
            frame.discontinuity = std::mem::take(&mut line.lost) && !is_audio;
            let late = self.random.random_range(0..=self.weather.jitter * 1000);
            let arrival = (at + 20_000 + late + self.delay).max(line.last_arrival + 1);
            line.last_arrival = arrival;
            self.on_the_way.push(Reverse((arrival, self.count, index)));
            self.frames.insert(self.count, frame);
            self.count += 1;
        }
    }
}
