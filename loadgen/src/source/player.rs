//! Plays a clip in a loop, on time, with timestamps that never step back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Clip;
use crate::dealer::sound::BLOCK_MS;
use crate::dealer::studio::{Kind, Media};
use crate::time::utc_micros;

/// A consumer that is later than this is not chased: the schedule moves.
const LATE: Duration = Duration::from_secs(1);
const BLOCK: Duration = Duration::from_millis(BLOCK_MS as u64);

/// The player. Frames are never left out, as others build on them.
pub struct Player {
    clip: Arc<Clip>,
    start: Instant,
    /// Position in the clip, as a frame and as a time, and media time of the next frame
    /// since the start.
    frame: usize,
    position: Duration,
    video_at: Duration,
    block: u64,
    /// The frame before was a keyframe: another would tell nobody anything new.
    fresh: bool,
}

impl Player {
    /// The first frame is due at `start`.
    pub fn new(start: Instant, clip: Arc<Clip>) -> Self {
        let (position, video_at) = (Duration::ZERO, Duration::ZERO);
        Self { clip, start, frame: 0, position, video_at, block: 0, fresh: false }
    }

    /// Whether a keyframe was the last frame or is the next.
    pub fn is_at_keyframe(&self) -> bool {
        self.fresh || self.clip.frames.get(self.frame).is_some_and(|frame| frame.keyframe)
    }

    /// Where in the clip the next frame is.
    pub fn position(&self) -> Duration {
        self.position
    }

    /// Media time of the next frame since the start.
    pub fn video_at(&self) -> Duration {
        self.video_at
    }

    /// Goes on with another frame, at a media time that is not before the next frame's.
    pub fn go_to(&mut self, frame: usize, video_at: Duration) {
        let before = self.clip.frames.iter().take(frame);
        self.position = before.map(|frame| frame.lasts).sum();
        (self.frame, self.video_at) = (frame, video_at);
    }

    /// When the next piece of media is due.
    pub fn due(&self) -> Instant {
        self.start + self.sound_next().unwrap_or(self.video_at)
    }

    /// Media time of the next sound, when that comes before the next frame.
    fn sound_next(&self) -> Option<Duration> {
        let at = BLOCK * u32::try_from(self.block).unwrap_or(u32::MAX);
        (!self.clip.sound.is_empty() && at < self.video_at).then_some(at)
    }

    /// Waits until the next piece of media is due.
    pub async fn next(&mut self) -> Media {
        let (due, now) = (self.due(), Instant::now());
        if now > due + LATE {
            self.start += now - due;
        }
        tokio::time::sleep_until(due.into()).await;
        if self.sound_next().is_some() { self.sound() } else { self.video() }
    }

    fn sound(&mut self) -> Media {
        let index = (self.block % self.clip.sound.len() as u64) as usize;
        let ticks = (self.block * BLOCK_MS as u64 * 48) as u32;
        self.block += 1;
        let captured = utc_micros() - BLOCK_MS * 1000;
        let data = self.clip.sound[index].clone();
        Media { kind: Kind::Audio, data, ticks, captured, keyframe: true }
    }

    fn video(&mut self) -> Media {
        let frame = &self.clip.frames[self.frame];
        let media = Media {
            kind: Kind::Video,
            data: frame.data.clone(),
            ticks: (self.video_at.as_nanos() * 90_000 / 1_000_000_000) as u32,
            captured: utc_micros(),
            keyframe: frame.keyframe,
        };
        self.fresh = frame.keyframe;
        self.video_at += frame.lasts;
        self.position += frame.lasts;
        self.frame += 1;
        if self.frame >= self.clip.frames.len() {
            (self.frame, self.position) = (0, Duration::ZERO);
        }
        media
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::ClipFrame;
    use bytes::Bytes;

    fn clip(keyframes: &[usize], count: usize, sound: usize) -> Arc<Clip> {
        let frame = |index| ClipFrame {
            data: Bytes::from(vec![index as u8]),
            keyframe: keyframes.contains(&index),
            lasts: Duration::from_micros(500),
        };
        Arc::new(Clip {
            frames: (0..count).map(frame).collect(),
            sound: vec![Bytes::from_static(b"s"); sound],
            ..Clip::default()
        })
    }

    #[tokio::test]
    async fn the_clip_goes_round_and_its_timestamps_go_on() {
        let mut player = Player::new(Instant::now(), clip(&[0], 3, 0));
        let mut media = Vec::new();
        for _ in 0..7 {
            media.push(player.next().await);
        }
        let (data, ticks): (Vec<u8>, Vec<u32>) = media.iter().map(|m| (m.data[0], m.ticks)).unzip();
        assert_eq!(data, [0, 1, 2, 0, 1, 2, 0]);
        assert_eq!(ticks, [0, 45, 90, 135, 180, 225, 270]);
    }

    #[tokio::test]
    async fn sound_comes_between_the_frames() {
        let mut player = Player::new(Instant::now(), clip(&[0], 2, 1));
        let mut kinds = Vec::new();
        for _ in 0..44 {
            kinds.push(player.next().await.kind);
        }
        let sound = kinds.iter().filter(|kind| **kind == Kind::Audio).count();
        assert_eq!((kinds[0], sound), (Kind::Video, 2));
    }
}
