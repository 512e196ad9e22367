//! What a viewer tells the server: reports, what is missing, what it can take, and that
//! it needs a keyframe.

use std::time::{Duration, Instant};

use super::{At, Estimate, Viewer};
use crate::crowd::measure::Collector;
use crate::crowd::rtcp::{ReportBlock, Writer};

/// Between receiver reports, and between estimates.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// Between requests for a keyframe.
const PLI_EVERY: Duration = Duration::from_millis(500);
/// The server starts with a keyframe, or gets one by itself: it is asked only when
/// none has come for so long.
const PLI_GRACE: Duration = Duration::from_secs(1);
/// Round trip assumed until one is measured.
const USUAL_RTT: Duration = Duration::from_millis(50);

impl Viewer {
    /// Gives up, asks again, reports: what is due.
    pub(super) fn feed_back(&mut self, at: At, collector: &mut Collector) {
        if let Some(stream) = &mut self.audio {
            stream.reception.give_up(at.now);
            // Sound is not sent again: its holes only wait to be given up.
            stream.reception.nacks(at.now, USUAL_RTT);
        }
        let rtt = self.agent.rtt().unwrap_or(USUAL_RTT) + self.setup.delay;
        let mut missing = Vec::new();
        if let Some(stream) = &mut self.video {
            if stream.reception.give_up(at.now).is_some() {
                let until = stream.reception.first_hole();
                let until = until.unwrap_or_else(|| stream.reception.next());
                stream.frames.give_up(until, |frame| self.ended.push(frame));
            }
            missing = stream.reception.nacks(at.now, rtt);
        }
        self.take_frames(at, collector);
        let Some(media) = self.video.as_ref().map(|stream| stream.ssrc) else {
            return self.report_when_due(at, false);
        };
        let since = self.report.connected_micros.map(|_| at.now - self.started);
        let ask = self.broken
            && since.is_some_and(|since| since >= PLI_GRACE)
            && self.asked.is_none_or(|asked| at.now - asked >= PLI_EVERY);
        if !missing.is_empty() {
            self.report.nacks += missing.len() as u64;
            let packet = Writer::new(self.setup.ssrc, &[]).nack(media, &missing);
            self.send_rtcp(packet);
        }
        self.report_when_due(at, ask);
    }

    /// Once a second: reports on all streams, the estimate, and a request for a
    /// keyframe when one is needed.
    fn report_when_due(&mut self, at: At, ask: bool) {
        if self.report_due.is_none_or(|due| due > at.now) && !ask {
            return;
        }
        let streams = [&mut self.video, &mut self.audio].into_iter().flatten();
        let blocks: Vec<ReportBlock> = streams.map(|stream| stream.report_block(at.now)).collect();
        let mut packet = Writer::new(self.setup.ssrc, &blocks).name("loadgen");
        if let Some(media) = self.video.as_ref().map(|stream| stream.ssrc) {
            packet = match self.estimate(at.now) {
                Some(bits) => packet.estimate(bits, media),
                None => packet,
            };
            if ask {
                self.asked = Some(at.now);
                self.report.keyframe_requests += 1;
                packet = packet.picture_loss(media);
            }
        }
        self.report_due = Some(at.now + REPORT_EVERY);
        self.send_rtcp(packet);
    }

    /// What the server is told that the viewer can take, in bits a second.
    fn estimate(&mut self, now: Instant) -> Option<u64> {
        let (bytes, since) = self.estimated;
        let elapsed = now.saturating_duration_since(since);
        match self.setup.estimate {
            Estimate::Silent => None,
            Estimate::Fixed(bits) => Some(bits),
            // Too short a time would say more of the gaps between frames than of the rate.
            Estimate::Measured if elapsed < REPORT_EVERY / 2 => None,
            Estimate::Measured => {
                self.estimated = (self.report.bytes, now);
                let bits = (self.report.bytes - bytes) as f64 * 8.0 / elapsed.as_secs_f64();
                Some((bits * 1.5) as u64)
            }
        }
    }

    fn send_rtcp(&mut self, packet: Writer) {
        let sealed = self.keys.as_mut().and_then(|keys| keys.seal_rtcp(&packet.finish()));
        if let (Some(sealed), Some(to)) = (sealed, self.agent.selected()) {
            self.out.push_back((to, sealed.to_vec()));
        }
    }
}
