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
    /// Position in the clip, and media time of the next frame since the start.
    frame: usize,
    video_at: Duration,
    block: u64,
    /// The frame before was a keyframe: another would tell nobody anything new.
    fresh: bool,
}

impl Player {
    /// The first frame is due at `start`.
    pub fn new(start: Instant, clip: Arc<Clip>) -> Self {
        Self { clip, start, frame: 0, video_at: Duration::ZERO, block: 0, fresh: false }
    }

    /// Goes on with the next keyframe of the clip.
    pub fn request_keyframe(&mut self) {
        if self.fresh {
            return;
        }
        let count = self.clip.frames.len();
        let ahead = (0..count).map(|step| (self.frame + step) % count);
        let keyframe = ahead.into_iter().find(|&index| self.clip.frames[index].keyframe);
        self.frame = keyframe.unwrap_or_default();
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
        self.frame = (self.frame + 1) % self.clip.frames.len();
        media
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{ClipFrame, Video};
    use bytes::Bytes;

    fn clip(keyframes: &[usize], count: usize, sound: usize) -> Arc<Clip> {
        let frame = |index| ClipFrame {
            data: Bytes::from(vec![index as u8]),
            keyframe: keyframes.contains(&index),
            lasts: Duration::from_micros(500),
        };
        Arc::new(Clip {
            video: Video::H264,
            frames: (0..count).map(frame).collect(),
            sound: vec![Bytes::from_static(b"s"); sound],
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
    async fn a_request_brings_the_next_keyframe_at_once_but_not_twice_running() {
        let mut player = Player::new(Instant::now(), clip(&[0, 4], 6, 0));
        let mut order = Vec::new();
        for step in 0..6 {
            if step == 2 || step == 3 || step == 5 {
                player.request_keyframe();
            }
            order.push(player.next().await.data[0]);
        }
        assert_eq!(order, [0, 1, 4, 5, 0, 1]);
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
