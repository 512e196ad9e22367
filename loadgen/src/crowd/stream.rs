//! One RTP stream of a viewer: what came, the frames in it, and its clocks.

use std::time::Instant;

use super::answer::Codec;
use super::frames::{Frames, Freezes};
use super::reception::Reception;
use super::rtcp::{ReportBlock, SenderReport};

/// How much earlier than its own clock says a frame may come and still be of the
/// present, in microseconds.
const CATCH_UP: i64 = 20_000;

/// The stream.
pub struct Stream {
    /// Its source.
    pub ssrc: u32,
    /// Ticks a second.
    pub clock: u32,
    /// Codec, when it is video.
    pub codec: Option<Codec>,
    /// What came and what is missing.
    pub reception: Reception,
    /// Its frames.
    pub frames: Frames,
    /// Pauses between them.
    pub freezes: Freezes,
    /// The last sender report, and when it came.
    pub sender_report: Option<(SenderReport, Instant)>,
    timestamp: Option<u32>,
    /// Timestamp of the frame before, and when it was complete (UTC microseconds).
    before: Option<(u32, i64)>,
    live: bool,
}

impl Stream {
    /// A stream of which nothing has come.
    pub fn new(ssrc: u32, clock: u32, codec: Option<Codec>) -> Self {
        Self {
            ssrc,
            clock,
            codec,
            reception: Reception::default(),
            frames: Frames::default(),
            freezes: Freezes::default(),
            sender_report: None,
            timestamp: None,
            before: None,
            live: false,
        }
    }

    /// Updates the jitter when a new frame begins.
    pub fn time(&mut self, utc: i64, timestamp: u32) {
        if self.timestamp.replace(timestamp) != Some(timestamp) {
            self.reception.time(utc, timestamp, self.clock);
        }
    }

    /// Whether the stream has caught up with the present. A viewer that joins gets the
    /// group of pictures from its keyframe on, faster than it was captured; these frames
    /// are old by intent, and their age is no latency of the way.
    pub fn is_live(&mut self, utc: i64, timestamp: u32) -> bool {
        if self.live {
            return true;
        }
        let Some((before, at)) = self.before.replace((timestamp, utc)) else { return false };
        let media = i64::from(timestamp.wrapping_sub(before) as i32) * 1_000_000
            / i64::from(self.clock.max(1));
        // A frame that took about as long to come as it took to capture is the present.
        self.live = media > 0 && utc - at >= media - CATCH_UP.min(media / 2);
        self.live
    }

    /// The stream's block in a receiver report.
    pub fn report_block(&mut self, now: Instant) -> ReportBlock {
        let (last_report, delay) = self.sender_report.map_or((0, 0), |(report, at)| {
            let since = now.saturating_duration_since(at).as_secs_f64();
            (report.middle(), (since * 65_536.0) as u32)
        });
        ReportBlock { ssrc: self.ssrc, block: self.reception.report(), last_report, delay }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_the_start_are_old_until_the_stream_runs_at_its_own_pace() {
        let mut stream = Stream::new(1, 90_000, None);
        // Ten frames at once, then one each 33 ms.
        let live: Vec<bool> = (0..14i64)
            .map(|frame| stream.is_live((frame - 9).max(0) * 33_333, frame as u32 * 3000))
            .collect();
        assert!(live[..10].iter().all(|live| !live), "{live:?}");
        assert!(live[10..].iter().all(|live| *live), "{live:?}");
    }
}
