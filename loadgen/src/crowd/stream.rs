//! One RTP stream of a viewer: what came, the frames in it, and its clocks.

use std::time::Instant;

use super::answer::Codec;
use super::frames::{Frames, Freezes};
use super::reception::Reception;
use super::rtcp::{ReportBlock, SenderReport};

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
        }
    }

    /// Updates the jitter when a new frame begins.
    pub fn time(&mut self, utc: i64, timestamp: u32) {
        if self.timestamp.replace(timestamp) != Some(timestamp) {
            self.reception.time(utc, timestamp, self.clock);
        }
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
    use std::time::Duration;

    #[test]
    fn a_report_says_how_long_ago_the_senders_came() {
        let (mut stream, now) = (Stream::new(5, 90_000, None), Instant::now());
        stream.reception.handle(now, 1);
        assert_eq!(stream.report_block(now).last_report, 0, "nothing to answer yet");
        let report = SenderReport { ssrc: 5, ntp: 0x1111_2222_3333_4444, timestamp: 0 };
        stream.sender_report = Some((report, now));
        let block = stream.report_block(now + Duration::from_millis(1500));
        assert_eq!((block.ssrc, block.last_report, block.delay), (5, 0x2222_3333, 98_304));
    }
}
