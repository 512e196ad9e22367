//! The studio: draws, encodes and hands over media on a fixed schedule.
//!
//! Two plain threads (video, audio) each follow `start + n * period`, so nothing
//! drifts; a late wake-up skips schedule slots rather than bunching frames. Media
//! goes through one bounded queue, and the newest always gets in.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::Notify;

use super::DealerError;
use super::audio::AudioEncoder;
use super::picture::Picture;
use super::sound::{BLOCK, BLOCK_MS, Sound};
use super::video::VideoEncoder;
use crate::time::utc_micros;

/// Encoded items waiting for the network, for each layer: about 0.4 s of audio and
/// video. When full, the oldest is dropped and counted, and a keyframe mends the picture.
const QUEUE: usize = 32;
/// RTP clock of video, ticks a second.
const VIDEO_CLOCK: u64 = 90_000;

/// What the studio makes.
#[derive(Clone, Debug)]
pub struct StudioConfig {
    /// Name of the table.
    pub table: String,
    /// Picture width in pixels; 16:9.
    pub width: u32,
    /// Picture height in pixels.
    pub height: u32,
    /// Frames a second.
    pub fps: u32,
    /// Video bits a second.
    pub bitrate: u32,
    /// Audio bits a second.
    pub audio_bitrate: u32,
    /// The layers to draw and encode: each an n-th of the size in both directions, at an
    /// n²-th of the bit rate.
    pub scales: Vec<u32>,
}

/// Kind of a piece of media.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An H.264 access unit with Annex B start codes.
    Video,
    /// An Opus frame.
    Audio,
}

/// One encoded frame.
#[derive(Clone, Debug)]
pub struct Media {
    /// What it is.
    pub kind: Kind,
    /// The encoded bytes.
    pub data: Bytes,
    /// RTP ticks (90 kHz video, 48 kHz audio) since the studio started.
    pub ticks: u32,
    /// UTC microseconds since the Unix epoch at which it was captured.
    pub captured: i64,
    /// Whether decoding can start here (always, for audio).
    pub keyframe: bool,
}

/// What threads and consumer share.
#[derive(Default)]
struct Shared {
    /// With the index of the layer; 0 for sound.
    queue: Mutex<VecDeque<(usize, Media)>>,
    capacity: usize,
    ready: Notify,
    stop: AtomicBool,
    /// Of every layer.
    keyframe: AtomicBool,
    dropped: AtomicU64,
    failed: Mutex<Option<DealerError>>,
}

/// A running table.
pub struct Studio {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Studio {
    /// Starts the table's threads.
    ///
    /// # Errors
    /// Any [`DealerError`] of the picture or the encoders, and when a thread
    /// cannot be started.
    pub fn start(config: &StudioConfig) -> Result<Self, DealerError> {
        let layers = config.scales.iter().map(|scale| Layer::new(config, *scale));
        let layers = layers.collect::<Result<Vec<_>, _>>()?;
        let audio = AudioEncoder::new(config.audio_bitrate)?;
        let (sound, fps) = (Sound::new(&config.table), u64::from(config.fps.clamp(1, 120)));
        let capacity = QUEUE * layers.len().max(1);
        let shared = Arc::new(Shared { capacity, ..Shared::default() });
        let mut studio = Self { shared: Arc::clone(&shared), threads: Vec::new() };
        let start = Instant::now();
        let own = Arc::clone(&shared);
        studio.spawn("dealer-video", move || run_video(&own, start, fps, layers))?;
        studio.spawn("dealer-audio", move || run_audio(&shared, start, sound, audio))?;
        Ok(studio)
    }

    fn spawn(
        &mut self,
        name: &str,
        run: impl FnOnce() -> Result<(), DealerError> + Send + 'static,
    ) -> Result<(), DealerError> {
        let shared = Arc::clone(&self.shared);
        let body = move || {
            if let Err(error) = run() {
                *shared.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                shared.stop.store(true, Ordering::Release);
            }
            shared.ready.notify_one();
        };
        self.threads.push(thread::Builder::new().name(name.to_owned()).spawn(body)?);
        Ok(())
    }

    /// The next piece of media and its layer, in the order of capture per kind.
    ///
    /// # Errors
    /// The error that ended a thread of the studio.
    pub async fn next(&self) -> Result<(usize, Media), DealerError> {
        loop {
            if let Some(media) = self.shared.lock().pop_front() {
                return Ok(media);
            }
            if let Some(error) = self.failure() {
                return Err(error);
            }
            self.shared.ready.notified().await;
        }
    }

    fn failure(&self) -> Option<DealerError> {
        self.shared.failed.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Makes the next picture a keyframe, in every layer.
    pub fn request_keyframe(&self) {
        self.shared.keyframe.store(true, Ordering::Release);
    }

    /// Frames dropped because the consumer was late.
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }
}

impl Drop for Studio {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        for thread in self.threads.drain(..) {
            // A panicked thread has nothing left to clean up.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<(usize, Media)>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, layer: usize, media: Media) {
        let mut queue = self.lock();
        if queue.len() >= self.capacity {
            let old = queue.pop_front();
            self.dropped.fetch_add(1, Ordering::Relaxed);
            if old.is_some_and(|(_, old)| old.kind == Kind::Video) {
                self.keyframe.store(true, Ordering::Release);
            }
        }
        queue.push_back((layer, media));
        drop(queue);
        self.ready.notify_one();
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }
}

/// Waits for the next slot of `start + n / rate` seconds that is not yet past,
/// after slot `last`; returns its number.
fn next_slot(start: Instant, last: Option<u64>, rate: u64) -> u64 {
    let at = |slot: u64| start + Duration::from_nanos(slot * 1_000_000_000 / rate);
    let now = Instant::now();
    let due = (now - start).as_nanos() as u64 * rate / 1_000_000_000;
    let slot = last.map_or(0, |last| (last + 1).max(due));
    thread::sleep(at(slot).saturating_duration_since(now));
    slot
}

/// The picture at one size, and what encodes it.
struct Layer {
    picture: Picture,
    encoder: VideoEncoder,
}

impl Layer {
    fn new(config: &StudioConfig, scale: u32) -> Result<Self, DealerError> {
        let scale = scale.max(1);
        let picture = Picture::new(&config.table, config.width / scale, config.height / scale)?;
        let encoder = VideoEncoder::new(config.fps, config.bitrate / (scale * scale), 1)?;
        Ok(Self { picture, encoder })
    }
}

fn run_video(
    shared: &Shared,
    start: Instant,
    fps: u64,
    mut layers: Vec<Layer>,
) -> Result<(), DealerError> {
    let mut last = None;
    while !shared.stopped() {
        let slot = next_slot(start, last, fps);
        last = Some(slot);
        let captured = utc_micros();
        let ticks = (slot * VIDEO_CLOCK / fps) as u32;
        let keyframe = shared.keyframe.swap(false, Ordering::AcqRel);
        for (index, layer) in layers.iter_mut().enumerate() {
            let frame = layer.picture.draw(captured / 1000);
            let Some(unit) = layer.encoder.encode(frame, keyframe)? else { continue };
            let (kind, data, keyframe) = (Kind::Video, unit.data.into(), unit.keyframe);
            shared.push(index, Media { kind, data, ticks, captured, keyframe });
        }
    }
    Ok(())
}

fn run_audio(
    shared: &Shared,
    start: Instant,
    mut sound: Sound,
    mut encoder: AudioEncoder,
) -> Result<(), DealerError> {
    let mut block = [0.0; BLOCK * 2];
    let mut last = None;
    while !shared.stopped() {
        let slot = next_slot(start, last, 1000 / BLOCK_MS as u64);
        last = Some(slot);
        // The block ends now: sound is captured before it is encoded.
        let captured = utc_micros() - BLOCK_MS * 1000;
        sound.fill(captured / 1000, &mut block);
        let data = Bytes::copy_from_slice(encoder.encode(&block)?);
        let ticks = (slot * BLOCK as u64) as u32;
        shared.push(0, Media { kind: Kind::Audio, data, ticks, captured, keyframe: true });
    }
    Ok(())
}
