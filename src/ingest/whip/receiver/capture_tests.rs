//! Estimates of capture time: the sliding minimum, arrivals, frames out of order.

use super::*;

#[test]
fn the_sliding_minimum_forgets_after_two_windows() {
    let start = Instant::now();
    let mut least = SlidingMin::default();
    least.add(1, start);
    least.add(5, start + WINDOW);
    assert_eq!(least.get(), Some(1));
    least.add(7, start + WINDOW * 2);
    assert_eq!(least.get(), Some(5));
}

#[test]
fn arrival_times_follow_the_least_delayed_packet() {
    let now = Instant::now();
    let clock = SenderClock::default();
    let mut line = CaptureTimeline::new(90_000);
    let utc = |millis: i64| Utc::from_micros(millis * 1000);
    let mut last = utc(0);
    for frame in 0..3_000i64 {
        let arrival = utc(1_000_000 + frame * 20 + if frame % 10 == 3 { 0 } else { 40 });
        let at = now + Duration::from_millis(frame as u64 * 20);
        let timestamp = (frame * 1800) as u32;
        line.arrival(timestamp, arrival, at);
        let capture = line.capture(timestamp, arrival, &clock);
        assert!(capture > last);
        last = capture;
        if frame > 1_000 {
            assert!(capture.micros_since(utc(1_000_000 + frame * 20)).abs() < 100);
        }
    }
}

#[test]
fn a_frame_shown_earlier_has_an_earlier_capture_time() {
    let mut line = CaptureTimeline::new(90_000);
    let (clock, now, utc) = (SenderClock::default(), Instant::now(), Utc::from_micros(7_000_000));
    line.absolute(90_000, utc, now);
    assert_eq!(line.capture(90_000, utc, &clock), utc);
    assert_eq!(line.capture(93_000 + 3_000, utc, &clock).micros_since(utc), 66_666);
    assert_eq!(line.capture(93_000, utc, &clock).micros_since(utc), 33_332);
    assert_eq!(line.capture(99_000, utc, &clock).micros_since(utc), 100_000);
}
