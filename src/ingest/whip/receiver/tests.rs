//! The receiver against a modelled publisher over a bad path.

mod hostile;
mod link;
mod streams;

use std::time::Duration;

use self::link::{CLEAN, LAYER, Path, World, video};
use super::LayerStats;
use crate::webrtc::rtcp::Rtcp;

fn stats(world: &World) -> LayerStats {
    world.receiver.stats().find(|(id, _)| *id == LAYER).expect("the layer").1
}

#[test]
fn without_loss_all_comes_out_as_sent() {
    let mut world = World::new(video(), CLEAN, 1);
    world.run(60_000, 40);
    world.idle(300);
    // More than a cycle of sequence numbers, and a wrap of the timestamp.
    assert!(world.sent > 70_000);
    assert_eq!(world.numbers(), (0..world.sent).collect::<Vec<_>>());
    world.assert_in_order();
    let first = &world.packets[0].1;
    for (_, packet) in &world.packets {
        let frame = u64::from(link::number(packet) / 40);
        assert_eq!(packet.timestamp, first.timestamp + frame * 33 * 90);
        assert_eq!(packet.marker, link::number(packet) % 40 == 39);
        assert_eq!(packet.keyframe, frame == 0);
    }
    let stats = stats(&world);
    assert_eq!(stats.received, u64::from(world.sent));
    assert_eq!((stats.lost_for_good, stats.nacks_sent, stats.plis_sent), (0, 0, 0));
    assert!(world.plis.is_empty());
}

#[test]
fn five_percent_loss_is_repaired_by_rtx() {
    let path = Path { loss: 0.05, spread: Duration::from_millis(3), ..CLEAN };
    for (seed, rtx) in [(1, true), (2, true), (3, false)] {
        let mut track = video();
        if !rtx {
            track.rtx_payload_type = None;
            track.ssrcs[0].rtx = None;
        }
        let mut world = World::new(track, path, seed);
        world.path = CLEAN;
        world.run(200, 10);
        world.path = path;
        world.run(20_000, 10);
        world.path = CLEAN;
        world.run(500, 10);
        world.idle(300);
        assert_eq!(world.numbers(), (0..world.sent).collect::<Vec<_>>());
        world.assert_in_order();
        let stats = stats(&world);
        assert_eq!(stats.lost_for_good, 0);
        assert!(stats.recovered > u64::from(world.sent) / 30, "{stats:?}");
        assert!(world.plis.is_empty());
        let rtt = stats.rtt.expect("measured");
        assert!((40..60).contains(&rtt.as_millis()), "{rtt:?}");
        // Few are asked for in vain, although the path reorders within a frame.
        assert!(world.nacked.len() < stats.recovered as usize * 3 / 2, "{stats:?}");
    }
}

#[test]
fn what_never_comes_is_a_hole_and_a_throttled_keyframe_request() {
    let mut world = World::new(video(), CLEAN, 5);
    world.answers = false;
    world.makes_keyframes = false;
    world.run(330, 10);
    let lost_at = world.now;
    world.path.loss = 1.0;
    world.send_frame(10);
    world.path = CLEAN;
    world.run(3_300, 10);
    let stats = stats(&world);
    assert_eq!(stats.lost_for_good, 10);
    let sent: Vec<u32> = (0..100).chain(110..world.sent).collect();
    assert_eq!(world.numbers()[..sent.len() - 10], sent[..sent.len() - 10]);
    world.assert_in_order();
    // Given up 200 ms after the loss showed, asked for ten times at most before.
    let asked = world.nacked.iter().filter(|seq| **seq == world.nacked[0]).count();
    assert!((2..=10).contains(&asked), "{asked}");
    let first = world.plis[0] - (lost_at - world.start);
    assert!((200..300).contains(&first.as_millis()), "{first:?}");
    // Then one each 500 ms, because none came.
    assert!((6..=7).contains(&world.plis.len()), "{:?}", world.plis);
    assert!(world.plis.windows(2).all(|pair| pair[1] - pair[0] >= Duration::from_millis(500)));
    world.makes_keyframes = true;
    world.run(2_000, 10);
    let asked = world.plis.len();
    assert!(world.packets.iter().any(|(_, packet)| packet.keyframe && packet.seq > 110));
    world.run(2_000, 10);
    assert_eq!(world.plis.len(), asked, "the keyframe ends the requests");
}

#[test]
fn a_request_in_the_throttle_window_waits_for_its_end_or_for_the_keyframe() {
    let mut world = World::new(video(), CLEAN, 6);
    world.run(100, 5);
    for _ in 0..1_000 {
        world.receiver.request_keyframe(LAYER);
    }
    world.run(200, 5);
    assert_eq!(world.plis.len(), 1, "coalesced");
    let keyframes = |world: &World| world.packets.iter().filter(|(_, p)| p.keyframe).count();
    assert_eq!(keyframes(&world), 10, "answered: two frames of five packets");
    world.receiver.request_keyframe(LAYER);
    world.run(150, 5);
    assert_eq!(world.plis.len(), 1, "throttled");
    world.run(300, 5);
    assert_eq!(world.plis.len(), 2, "sent when the window ended");
    assert!(world.plis[1] - world.plis[0] >= Duration::from_millis(499));
    world.receiver.request_keyframe(LAYER);
    world.step();
    world.send_keyframe(5);
    world.run(1_000, 5);
    assert_eq!(world.plis.len(), 2, "a keyframe came within the window");
}

#[test]
fn reordering_by_twenty_packets_is_undone() {
    let path = Path { spread: Duration::from_millis(30), ..CLEAN };
    let mut world = World::new(video(), CLEAN, 7);
    world.run(33, 20);
    world.path = path;
    world.run(10_000, 20);
    world.idle(300);
    assert_eq!(world.numbers(), (0..world.sent).collect::<Vec<_>>());
    world.assert_in_order();
    let stats = stats(&world);
    assert_eq!(stats.lost_for_good, 0);
    assert!(stats.reordered + stats.recovered > 1_000, "{stats:?}");
    assert!(stats.jitter > Duration::from_millis(2), "{stats:?}");
}

#[test]
fn duplicates_come_out_once() {
    let path = Path { duplicates: 0.3, spread: Duration::from_millis(2), ..CLEAN };
    let mut world = World::new(video(), CLEAN, 8);
    world.run(33, 10);
    world.path = path;
    world.run(5_000, 10);
    world.idle(300);
    assert_eq!(world.numbers(), (0..world.sent).collect::<Vec<_>>());
    let stats = stats(&world);
    assert!(stats.duplicates > u64::from(world.sent) / 5, "{stats:?}");
}

#[test]
fn an_outage_gives_all_up_and_asks_for_one_keyframe() {
    let mut world = World::new(video(), CLEAN, 9);
    world.run(1_000, 30);
    world.path.loss = 1.0;
    world.run(1_000, 30);
    world.path = CLEAN;
    let before = world.packets.len();
    world.run(500, 30);
    let gap = world.packets[before].1.seq - world.packets[before - 1].1.seq;
    assert!(gap > 900, "{gap}");
    assert_eq!(stats(&world).lost_for_good, gap - 1);
    assert_eq!((world.plis.len(), world.nacked.len()), (1, 0));
    let (_, keyframe) =
        world.packets[before..].iter().find(|(_, p)| p.keyframe).expect("a keyframe");
    let waited = keyframe.received - world.packets[before].1.received;
    assert!(waited < Duration::from_millis(100), "{waited:?}");
}

#[test]
fn reports_tell_loss_and_answer_sender_reports() {
    let path = Path { loss: 0.1, ..CLEAN };
    let mut world = World::new(video(), CLEAN, 10);
    world.run(33, 10);
    world.path = path;
    world.answers = false;
    let mut sr_times = Vec::new();
    for _ in 0..20 {
        sr_times.push(world.now);
        world.sender_report(0x1234_5678_9abc_def0);
        world.run(990, 10);
    }
    let reports: Vec<_> = world
        .messages
        .iter()
        .filter_map(|(at, message)| match message {
            Rtcp::ReceptionReport(report) => Some((*at, report.block)),
            _ => None,
        })
        .collect();
    assert!((15..=26).contains(&reports.len()), "{}", reports.len());
    for pair in reports.windows(2) {
        let apart = (pair[1].0 - pair[0].0).as_millis();
        assert!((490..=1_560).contains(&apart), "{apart}");
    }
    let mean: u32 = reports.iter().skip(1).map(|(_, b)| u32::from(b.fraction_lost)).sum::<u32>()
        / (reports.len() as u32 - 1);
    assert!((18..34).contains(&mean), "a tenth is 25.6/256: {mean}");
    let (at, last) = reports.last().expect("a report");
    assert_eq!((last.source_ssrc, last.last_sr), (link::MEDIA, 0x5678_9abc));
    let lost = last.cumulative_lost as f64 / f64::from(world.sent);
    assert!((0.08..0.12).contains(&lost), "{lost}");
    // The count of cycles starts with the stream: one wrap so far.
    assert_eq!(last.highest_seq >> 16, 1);
    let delay = Duration::from_micros(u64::from(last.delay) * 1_000_000 / 65_536);
    let reported = *at - CLEAN.delay;
    let sr_at = sr_times.into_iter().rfind(|sr_at| *sr_at <= reported).expect("one");
    let held = reported - sr_at;
    assert!(delay.abs_diff(held) < Duration::from_millis(1), "{delay:?} {held:?}");
}
