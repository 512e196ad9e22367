//! Media gets through: whole, in order, over networks that lose and reorder.

use super::client::{Client, Recorded, Sent, Source};
use super::*;

/// Finds where in `sent` the viewer's first packet is, checks everything that it got
/// against what was sent, and returns that place.
fn check(recorded: &Recorded, sent: &[Sent]) -> usize {
    // Parameter sets repeat; a payload with random bytes does not.
    let place = |payload: &[u8]| {
        let mut found = sent.iter().enumerate().filter(|(_, s)| s.payload == payload);
        found.next().filter(|_| found.next().is_none()).map(|(at, _)| at as u64)
    };
    let (index, at) = recorded
        .packets
        .iter()
        .find_map(|(index, got)| Some((*index, place(&got.payload)?)))
        .expect("something got through");
    let (first, first_got) = recorded.packets.first_key_value().unwrap();
    let start = at - (index - first);
    let shift = first_got.timestamp.wrapping_sub(sent[start as usize].timestamp);
    for (index, got) in &recorded.packets {
        let original = &sent[(start + index - first) as usize];
        assert_eq!(got.payload, original.payload, "payload of {index}");
        assert_eq!(got.marker, original.marker, "marker of {index}");
        assert_eq!(got.timestamp, original.timestamp.wrapping_add(shift), "timestamp of {index}");
    }
    start as usize
}

fn video_of(publisher: &Client) -> &Source {
    &publisher.sources[0]
}

fn audio_of(publisher: &Client) -> &Source {
    publisher.sources.last().unwrap()
}

/// How many of `sent` were sent early enough to have arrived.
fn sent_before(sent: &[Sent], at: Instant) -> usize {
    sent.iter().take_while(|packet| packet.at <= at).count()
}

#[test]
fn without_loss_every_packet_arrives_once_and_in_order() {
    let mut world = World::calm();
    let publisher = world.publish(&Options::default());
    world.run_until_connected(publisher);
    world.run_for(millis(500));
    let viewer = world.watch(&Options::default());
    world.run_for(seconds(4));
    let due = world.now - millis(45);
    let (publisher, viewer) = (&world.clients[publisher], &world.clients[viewer]);
    for (recorded, source) in
        [(viewer.video(), video_of(publisher)), (viewer.audio(), audio_of(publisher))]
    {
        let start = check(recorded, &source.sent);
        assert_eq!(recorded.duplicates, 0);
        assert_eq!(recorded.holes().len(), 0);
        assert!(recorded.arrivals.is_sorted());
        assert!(start + recorded.packets.len() >= sent_before(&source.sent, due));
    }
    assert!(viewer.video().packets.len() > 300);
    let rejected: u64 = world.gateway.totals().rejected.iter().map(|(_, count)| count).sum();
    assert_eq!(rejected, 0, "{:?}", world.gateway.totals());
}

fn loses_nothing_for_good(loss: u32, seed: u64) {
    let way = Way { loss, duplicate: 5, delay: millis(18), jitter: millis(4) };
    let mut world = World::new(seed, way, way);
    let publisher = world.publish(&Options::default());
    world.run_until_connected(publisher);
    world.run_for(millis(500));
    let viewer = world.watch(&Options::default());
    world.run_until_connected(viewer);
    world.run_for(seconds(6));
    let grace = world.now - millis(1000);
    let lost = world.link.lost;
    let egress = world.gateway.stream(&table()).egress.snapshot();
    let layer = crate::media::LayerId { track: 0, layer: 0 };
    let ingest = world.gateway.stream(&table()).layer_snapshot(layer).unwrap().ingest;
    let (publisher, viewer) = (&world.clients[publisher], &world.clients[viewer]);
    let (recorded, sent) = (viewer.video(), &video_of(publisher).sent);
    let start = check(recorded, sent);
    let first = *recorded.packets.first_key_value().unwrap().0;
    let due = sent_before(sent, grace) - start;
    let missing: Vec<u64> =
        (first..first + due as u64).filter(|i| !recorded.packets.contains_key(i)).collect();
    assert!(lost > 20 && due > 400, "{lost} lost, {due} due");
    assert_eq!(missing, [0; 0], "of {due}; {egress:?} {ingest:?}");
    assert_eq!(ingest.lost, 0, "{ingest:?}");
    assert!(ingest.recovered > 0, "{ingest:?}");
    assert!(egress.resent > 0 && egress.resend_refused == 0, "{egress:?}");
}

#[test]
fn two_percent_loss_both_ways_leaves_no_hole() {
    loses_nothing_for_good(20, 11);
}

#[test]
fn ten_percent_loss_both_ways_leaves_no_hole() {
    loses_nothing_for_good(100, 12);
}

#[test]
fn a_viewer_in_mid_gop_starts_at_its_keyframe_at_once() {
    let mut world = World::calm();
    let publisher = world.publish(&Options::default());
    world.run_until_connected(publisher);
    world.run_for(millis(1200));
    let plis = video_of(&world.clients[publisher]).plis;
    let viewer = world.watch(&Options::default());
    world.run_until_connected(viewer);
    let connected = world.now;
    world.run_for(millis(400));
    let (publisher, viewer) = (&world.clients[publisher], &world.clients[viewer]);
    let start = check(viewer.video(), &video_of(publisher).sent);
    assert!(video_of(publisher).sent[start].opens_gop, "started at {start}");
    let first = &viewer.video().packets[&viewer.video().arrivals[0]];
    assert!(first.at <= connected + millis(60), "after {:?}", first.at - connected);
    assert_eq!(viewer.video().holes().len(), 0);
    let due = sent_before(&video_of(publisher).sent, world.now - millis(60));
    assert!(start + viewer.video().packets.len() >= due, "not at the live edge");
    assert_eq!(video_of(publisher).plis, plis, "the GOP was there: nothing to ask for");
}
