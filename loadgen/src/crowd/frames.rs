//! Whole frames from RTP headers alone, in order, and the freezes between them.
//!
//! A frame ends with the marker or where the timestamp changes; it is complete when
//! none of its packets was given up. Packets behind a hole wait for it, so a frame
//! counts at the moment a decoder could have had it.

use std::collections::BTreeMap;

/// Packets kept behind a hole; beyond it the hole is passed over.
const WAITING: usize = 2048;

/// What a frame needs to know of a packet.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// RTP timestamp.
    pub timestamp: u32,
    /// The last packet of its frame.
    pub marker: bool,
    /// UTC microseconds of capture, when the packet says so.
    pub captured: Option<i64>,
    /// Whether a keyframe begins here, when the payload was opened.
    pub keyframe: Option<bool>,
}

/// A frame that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// RTP timestamp.
    pub timestamp: u32,
    /// UTC microseconds of capture, when a packet said so.
    pub captured: Option<i64>,
    /// Whether it is a keyframe, when packets were opened.
    pub keyframe: Option<bool>,
    /// Whether no packet is missing.
    pub complete: bool,
}

/// Puts frames together.
#[derive(Debug, Default)]
pub struct Frames {
    next: Option<u64>,
    waiting: BTreeMap<u64, Facts>,
    current: Option<Frame>,
    /// Timestamp of the last frame that ended with its marker.
    ended: Option<u32>,
    /// The next frame begins in a hole.
    torn: bool,
}

impl Frames {
    /// Takes a packet; `ended` is called for each frame that ends with it.
    pub fn handle(&mut self, number: u64, facts: Facts, mut ended: impl FnMut(Frame)) {
        let next = *self.next.get_or_insert(number);
        if number == next && self.waiting.is_empty() {
            self.append(facts, &mut ended);
            self.next = Some(number + 1);
        } else if number >= next {
            self.waiting.insert(number, facts);
            if self.waiting.len() > WAITING
                && let Some((&first, _)) = self.waiting.first_key_value()
            {
                self.pass_over(first, &mut ended);
            }
            self.drain(&mut ended);
        }
    }

    /// Everything below `number` has come or will not come.
    pub fn give_up(&mut self, number: u64, mut ended: impl FnMut(Frame)) {
        // Holes further down are passed one after the other: packets stand between them.
        while let Some((&first, _)) = self.waiting.first_key_value()
            && first <= number
        {
            self.pass_over(first, &mut ended);
            self.drain(&mut ended);
        }
        if self.next.is_some_and(|next| next < number) {
            self.pass_over(number, &mut ended);
            self.drain(&mut ended);
        }
    }

    fn pass_over(&mut self, to: u64, ended: &mut impl FnMut(Frame)) {
        if self.next.is_some_and(|next| next < to) {
            self.next = Some(to);
            self.torn = true;
            if let Some(mut frame) = self.current.take() {
                frame.complete = false;
                ended(frame);
                self.ended = Some(frame.timestamp);
            }
        }
    }

    fn drain(&mut self, ended: &mut impl FnMut(Frame)) {
        while let Some(entry) = self.waiting.first_entry()
            && self.next == Some(*entry.key())
        {
            let (number, facts) = entry.remove_entry();
            self.append(facts, ended);
            self.next = Some(number + 1);
        }
    }

    fn append(&mut self, facts: Facts, ended: &mut impl FnMut(Frame)) {
        if self.current.is_some_and(|frame| frame.timestamp != facts.timestamp)
            && let Some(frame) = self.current.take()
        {
            ended(frame);
        }
        // Padding repeats the timestamp of the frame before it; the rest of a frame
        // whose beginning was lost belongs to what was already counted as damaged.
        if self.current.is_none() && self.ended == Some(facts.timestamp) {
            self.torn &= !facts.marker;
            return;
        }
        let torn = std::mem::take(&mut self.torn);
        let frame = self.current.get_or_insert(Frame {
            timestamp: facts.timestamp,
            captured: None,
            keyframe: None,
            complete: !torn,
        });
        frame.captured = frame.captured.or(facts.captured);
        if let Some(keyframe) = facts.keyframe {
            frame.keyframe = Some(keyframe || frame.keyframe == Some(true));
        }
        if facts.marker
            && let Some(frame) = self.current.take()
        {
            self.ended = Some(frame.timestamp);
            ended(frame);
        }
    }
}

/// Freezes: times without a complete frame that a viewer notices.
#[derive(Debug, Default)]
pub struct Freezes {
    last: Option<i64>,
    /// Mean interval of frames in microseconds.
    interval: f64,
    /// Freezes so far.
    pub count: u64,
    /// Microseconds spent in them, beyond the ordinary interval.
    pub micros: u64,
}

/// Shortest pause that counts as a freeze, in microseconds.
pub const FREEZE_MICROS: f64 = 200_000.0;

impl Freezes {
    /// A complete frame came at `at` (UTC microseconds). A freeze is a pause of more
    /// than 200 ms that is also more than three times the usual interval.
    pub fn frame(&mut self, at: i64) {
        if let Some(last) = self.last.replace(at) {
            let pause = (at - last).max(0) as f64;
            if pause > FREEZE_MICROS.max(3.0 * self.interval) {
                self.count += 1;
                self.micros += (pause - self.interval) as u64;
                return;
            }
            let weight = if self.interval == 0.0 { 1.0 } else { 0.1 };
            self.interval += (pause - self.interval) * weight;
        }
    }

    /// The watch ends at `at`: a pause that lasts is a freeze too.
    pub fn end(&mut self, at: i64) {
        if self.last.is_some() {
            self.frame(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(timestamp: u32, marker: bool) -> Facts {
        Facts { timestamp, marker, captured: None, keyframe: None }
    }

    fn run(packets: &[(u64, u32, bool)]) -> (Frames, Vec<(u32, bool)>) {
        let (mut frames, mut out) = (Frames::default(), Vec::new());
        for &(number, timestamp, marker) in packets {
            frames
                .handle(number, facts(timestamp, marker), |f| out.push((f.timestamp, f.complete)));
        }
        (frames, out)
    }

    #[test]
    fn frames_end_with_their_marker_in_the_order_of_numbers() {
        let (_, out) =
            run(&[(1, 10, false), (2, 10, true), (4, 20, true), (3, 20, false), (5, 30, true)]);
        assert_eq!(out, [(10, true), (20, true), (30, true)]);
    }

    #[test]
    fn padding_after_a_frame_is_none_and_a_missing_marker_ends_at_the_next() {
        let (_, out) = run(&[(1, 10, true), (2, 10, false), (3, 20, false), (4, 30, true)]);
        assert_eq!(out, [(10, true), (20, true), (30, true)]);
    }

    #[test]
    fn what_was_given_up_damages_its_frame_only() {
        let (mut frames, mut out) =
            run(&[(1, 10, true), (2, 20, false), (4, 20, true), (5, 30, true)]);
        assert_eq!(out, [(10, true)], "a hole holds up what follows");
        frames.give_up(3, |f| out.push((f.timestamp, f.complete)));
        assert_eq!(out, [(10, true)], "number 3 itself is still awaited");
        frames.give_up(4, |f| out.push((f.timestamp, f.complete)));
        assert_eq!(out, [(10, true), (20, false), (30, true)]);
    }

    #[test]
    fn a_frame_that_begins_in_a_hole_is_damaged() {
        let (mut frames, mut out) = run(&[(1, 10, true), (3, 20, true), (4, 30, true)]);
        frames.give_up(3, |f| out.push((f.timestamp, f.complete)));
        assert_eq!(out, [(10, true), (20, false), (30, true)]);
    }

    #[test]
    fn a_pause_is_a_freeze_when_it_is_long_for_the_stream() {
        let mut freezes = Freezes::default();
        for frame in 0..30 {
            freezes.frame(frame * 33_000);
        }
        freezes.frame(29 * 33_000 + 190_000);
        assert_eq!(freezes.count, 0);
        freezes.end(29 * 33_000 + 190_000 + 500_000);
        assert_eq!(freezes.count, 1);
        assert!((440_000..480_000).contains(&freezes.micros), "{}", freezes.micros);
        let mut slow = Freezes::default();
        (0..5).for_each(|frame| slow.frame(frame * 150_000));
        slow.frame(4 * 150_000 + 400_000);
        assert_eq!(slow.count, 0, "three intervals of a slow stream are no freeze");
    }
}
