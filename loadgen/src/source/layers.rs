//! Clips played side by side, as the layers of one simulcast: in step, whatever is asked.
//!
//! A request for a keyframe takes all of them to the next moment at which each has one, so
//! that a viewer who changes layers sees the same scene go on. Clips are made equally long
//! first, so that they begin anew together.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::player::Player;
use super::{Clip, ClipError};
use crate::dealer::studio::Media;

/// Keyframes this close are of one picture.
const SAME: Duration = Duration::from_millis(2);
/// Clips whose lengths differ by more are not of one recording.
const APART: Duration = Duration::from_millis(200);

/// Makes clips the layers of one simulcast: they end together, and the first one that has
/// sound is the only one.
///
/// # Errors
/// [`ClipError::NotInStep`] when they are of several formats or lengths.
pub fn align(clips: &mut [Clip]) -> Result<(), ClipError> {
    let differ = |why: String| ClipError::NotInStep(why.into());
    let longest = clips.iter().map(Clip::lasts).max().unwrap_or_default();
    let format = clips.first().map(|clip| clip.video);
    let mut has_sound = false;
    for clip in clips {
        if Some(clip.video) != format {
            return Err(differ("the files are of several codecs".to_owned()));
        }
        let missing = longest - clip.lasts();
        if missing > APART {
            let words = format!("one file is {missing:?} shorter than another");
            return Err(differ(words));
        }
        if let Some(last) = clip.frames.last_mut() {
            last.lasts += missing;
        }
        if has_sound {
            clip.sound.clear();
        }
        has_sound |= !clip.sound.is_empty();
    }
    Ok(())
}

/// One clip, or the layers of a simulcast.
pub struct Players {
    players: Vec<Player>,
    /// Moments at which every clip has a keyframe, with its frame in each.
    keyframes: Vec<(Duration, Vec<usize>)>,
}

impl Players {
    /// The first frames are due at `start`.
    pub fn new(start: Instant, clips: Vec<Arc<Clip>>) -> Self {
        let keyframes = common_keyframes(&clips);
        let players = clips.into_iter().map(|clip| Player::new(start, clip)).collect();
        Self { players, keyframes }
    }

    /// Waits until the next piece of media is due; returns its layer too.
    pub async fn next(&mut self) -> (usize, Media) {
        let next = self.players.iter_mut().enumerate().min_by_key(|(_, player)| player.due());
        match next {
            Some((layer, player)) => (layer, player.next().await),
            None => std::future::pending().await,
        }
    }

    /// Goes on with the next keyframe that all have, unless one has just been sent.
    pub fn request_keyframe(&mut self) {
        if self.players.iter().all(Player::is_at_keyframe) {
            return;
        }
        let position = self.players.iter().map(Player::position).max().unwrap_or_default();
        let ahead = self.keyframes.iter().find(|(at, _)| *at + SAME >= position);
        let Some((_, frames)) = ahead.or(self.keyframes.first()) else { return };
        let due = self.players.iter().map(Player::video_at).max().unwrap_or_default();
        for (player, &frame) in self.players.iter_mut().zip(frames) {
            player.go_to(frame, due);
        }
    }
}

/// Moments at which every clip has a keyframe; the beginning is one.
fn common_keyframes(clips: &[Arc<Clip>]) -> Vec<(Duration, Vec<usize>)> {
    let keyframes = |clip: &Arc<Clip>| -> Vec<(Duration, usize)> {
        let starts = clip.frames.iter().scan(Duration::ZERO, |at, frame| {
            let start = *at;
            *at += frame.lasts;
            Some((start, frame.keyframe))
        });
        let numbered = starts.enumerate().filter(|(_, (_, keyframe))| *keyframe);
        numbered.map(|(index, (at, _))| (at, index)).collect()
    };
    let all: Vec<_> = clips.iter().map(keyframes).collect();
    let Some((first, others)) = all.split_first() else { return Vec::new() };
    let at = |moment: Duration, keyframes: &Vec<(Duration, usize)>| {
        let from = keyframes.partition_point(|(at, _)| *at + SAME < moment);
        keyframes.get(from).filter(|(at, _)| *at <= moment + SAME).map(|&(_, index)| index)
    };
    let common = first.iter().filter_map(|&(moment, index)| {
        let others = others.iter().map(|keyframes| at(moment, keyframes));
        Some((moment, std::iter::once(Some(index)).chain(others).collect::<Option<_>>()?))
    });
    common.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{ClipFrame, Video};
    use bytes::Bytes;

    /// Frames of `lasts` half milliseconds, some of them keyframes; their bytes number them.
    fn clip(keyframes: &[usize], count: usize, lasts: u64) -> Clip {
        let frame = |index| ClipFrame {
            data: Bytes::from(vec![index as u8]),
            keyframe: keyframes.contains(&index),
            lasts: Duration::from_micros(500 * lasts),
        };
        Clip { frames: (0..count).map(frame).collect(), ..Clip::default() }
    }

    async fn play(players: &mut Players, count: usize) -> Vec<(usize, u8, u32)> {
        let mut played = Vec::new();
        for _ in 0..count {
            let (layer, media) = players.next().await;
            played.push((layer, media.data[0], media.ticks));
        }
        played
    }

    #[tokio::test]
    async fn a_request_brings_the_next_keyframe_at_once_but_not_twice_running() {
        let clip = Arc::new(clip(&[0, 4], 6, 10));
        let mut players = Players::new(Instant::now(), vec![clip]);
        let mut order = Vec::new();
        for step in 0..6 {
            if step == 2 || step == 3 || step == 5 {
                players.request_keyframe();
            }
            order.push(players.next().await.1.data[0]);
        }
        assert_eq!(order, [0, 1, 4, 5, 0, 1]);
    }

    #[tokio::test]
    async fn layers_stay_in_step_when_a_request_comes_between_them() {
        // One layer has twice the frames, and keyframes that the other has not.
        let clips = vec![Arc::new(clip(&[0, 2, 8], 16, 10)), Arc::new(clip(&[0, 4], 8, 20))];
        let mut players = Players::new(Instant::now(), clips);
        let played = play(&mut players, 7).await;
        assert_eq!(played[..4], [(0, 0, 0), (1, 0, 0), (0, 1, 450), (0, 2, 900)]);
        assert_eq!(played[4..], [(1, 1, 900), (0, 3, 1350), (0, 4, 1800)]);
        // The slower layer's picture of that moment is still due.
        players.request_keyframe();
        let played = play(&mut players, 4).await;
        assert_eq!(played, [(0, 8, 2250), (1, 4, 2250), (0, 9, 2700), (0, 10, 3150)]);
        players.request_keyframe();
        let played = play(&mut players, 2).await;
        assert_eq!(played.iter().map(|(_, frame, _)| *frame).collect::<Vec<_>>(), [0, 0]);
        assert_eq!(played[0].2, played[1].2);
    }

    #[test]
    fn layers_end_together_and_what_is_no_simulcast_is_refused() {
        let mut clips = [clip(&[0], 10, 80), clip(&[0], 20, 39)];
        clips[1].sound = vec![Bytes::from_static(b"s")];
        align(&mut clips).unwrap();
        assert_eq!(clips[0].lasts(), clips[1].lasts());
        assert!(clips[0].sound.is_empty() && clips[1].sound.len() == 1);
        let mut clips = [clip(&[0], 10, 80), clip(&[0], 10, 10)];
        assert!(matches!(align(&mut clips), Err(ClipError::NotInStep(_))));
        let mut clips = [clip(&[0], 10, 80), Clip { video: Video::Vp8, ..clip(&[0], 10, 80) }];
        assert!(matches!(align(&mut clips), Err(ClipError::NotInStep(_))));
    }
}
