//! Viewers' layers end to end: what a narrow path gets, what a choice by hand does, and
//! that neither spoils numbers or keys.

use std::collections::HashMap;

use super::client::{Recorded, Source};
use super::*;
use crate::hub::EgressCounts;

/// Small first, as browsers order them: about 50, 170 and 660 kbit/s.
const LAYERS: [(&str, u32, u32); 3] = [("q", 320, 192), ("h", 640, 368), ("f", 1280, 720)];
const WIDE: u64 = 100_000_000;

/// A publisher of [`LAYERS`], and a viewer; their indexes.
fn simulcast(world: &mut World, options: &Options) -> (usize, usize) {
    let layers = LAYERS.to_vec();
    let publisher = world.publish(&Options { layers, gop: seconds(60), ..Options::default() });
    world.run_until_connected(publisher);
    world.run_for(seconds(1));
    let viewer = world.watch(options);
    world.run_until_connected(viewer);
    (publisher, viewer)
}

/// The layer of each packet that can only be one's, in the order of their numbers.
fn layers_of(video: &Recorded, sources: &[Source]) -> Vec<(u64, usize)> {
    let mut origin = HashMap::new();
    for (layer, source) in sources.iter().take(LAYERS.len()).enumerate() {
        for sent in source.sent.iter().filter(|sent| sent.payload.len() > 16) {
            origin.insert(sent.payload.clone(), layer);
        }
    }
    let layer = |(index, got): (&u64, &client::Got)| Some((*index, *origin.get(&got.payload)?));
    video.packets.iter().filter_map(layer).collect()
}

fn counts(world: &World) -> EgressCounts {
    world.gateway.stream(&table()).egress.snapshot()
}

/// What a receiver estimates: libwebrtc's rise by 8 % a second to 1.5 times what comes,
/// and fall to 0.85 of it.
struct Estimator {
    bps: f64,
    seen: HashMap<u32, usize>,
}

impl Estimator {
    fn new() -> Self {
        Self { bps: 1e6, seen: HashMap::new() }
    }

    /// Runs the world for a second and lets the viewer report what it saw of it.
    fn second(&mut self, world: &mut World, viewer: usize) {
        let lost = world.link.lost;
        world.run_for(seconds(1));
        let client = &mut world.clients[viewer];
        let (mut packets, mut bytes) = (0, 0);
        for (ssrc, recorded) in &client.recorded {
            let seen = self.seen.entry(*ssrc).or_insert(0);
            let arrived = recorded.arrivals[*seen..].iter().map(|index| &recorded.packets[index]);
            *seen = recorded.arrivals.len();
            for got in arrived {
                packets += 1;
                bytes += got.payload.len();
            }
        }
        let lost = world.link.lost - lost;
        let received = bytes as f64 * 8.0;
        self.bps = match lost > 0 {
            true => self.bps.min(0.85 * received),
            false => (self.bps * 1.08).min(1.5 * received + 10e3).max(self.bps),
        };
        client.send_estimate(world.now, self.bps as f32);
        let fraction = 255 * lost / (lost + packets).max(1);
        client.send_loss(world.now, fraction as u8);
    }
}

/// Runs for `time`, reporting; returns how many packets of each layer came in its last half.
fn run(
    world: &mut World,
    (publisher, viewer): (usize, usize),
    estimator: &mut Estimator,
    time: u64,
) -> [usize; 3] {
    let half = world.now + seconds(time / 2);
    for _ in 0..time {
        estimator.second(world, viewer);
    }
    let video = world.clients[viewer].video();
    let mut of = [0; 3];
    for (index, layer) in layers_of(video, &world.clients[publisher].sources) {
        of[layer] += usize::from(video.packets[&index].at > half);
    }
    of
}

#[test]
fn a_narrow_path_is_brought_down_to_what_fits_and_up_again_when_it_widens() {
    let mut world = World::calm();
    let peers = simulcast(&mut world, &Options::default());
    let mut estimator = Estimator::new();
    let address = world.clients[peers.1].public;
    let [_, _, high] = run(&mut world, peers, &mut estimator, 6);
    assert!(high > 100, "{high}");
    world.link.narrow(address, 450_000);
    let of = run(&mut world, peers, &mut estimator, 20);
    // A try upward may fall into it.
    assert!(of[1] > 200 && of[2] < of[1] / 2, "{of:?} {:?}", counts(&world));
    world.link.narrow(address, WIDE);
    let of = run(&mut world, peers, &mut estimator, 80);
    assert!(of[2] > 1000 && of[0] + of[1] < 30, "{of:?} {:?}", counts(&world));
    assert_eq!(counts(&world).paused, 0);
}

#[test]
fn a_path_that_collapses_keeps_the_audio_and_gets_the_video_back() {
    let mut world = World::calm();
    let peers = simulcast(&mut world, &Options::default());
    let other = world.watch(&Options::default());
    world.run_until_connected(other);
    let mut estimator = Estimator::new();
    run(&mut world, peers, &mut estimator, 4);
    let address = world.clients[peers.1].public;
    world.link.narrow(address, 95_000);
    run(&mut world, peers, &mut estimator, 20);
    assert!(counts(&world).paused >= 1, "{:?}", counts(&world));
    let heard = world.clients[peers.1].audio().packets.len();
    run(&mut world, peers, &mut estimator, 20);
    let heard = world.clients[peers.1].audio().packets.len() - heard;
    assert!(heard > 800, "{heard} of 1000 packets of audio");
    world.link.narrow(address, WIDE);
    let of = run(&mut world, peers, &mut estimator, 120);
    assert!(of[2] > 1000, "{of:?} {:?}", counts(&world));
    // The other viewer, who reports nothing, has missed nothing.
    let (publisher, other) = (&world.clients[peers.0], &world.clients[other]);
    assert_eq!(other.video().holes().len(), 0);
    let layers = layers_of(other.video(), &publisher.sources);
    assert!(layers.iter().all(|(_, layer)| *layer == 2));
}

#[test]
fn a_choice_by_hand_is_followed_at_a_keyframe_with_numbers_that_go_on() {
    let mut world = World::calm();
    let (publisher, viewer) = simulcast(&mut world, &Options::default());
    let id = world.clients[viewer].id.unwrap();
    world.run_for(seconds(2));
    for layer in [Some(0), Some(1), Some(2), Some(0), None] {
        let keyframes = world.clients[publisher].sources.iter().map(|s| s.plis).sum::<usize>();
        world.gateway.pool.choose_layer(id, 0, layer).unwrap();
        world.run_for(seconds(4));
        let asked =
            world.clients[publisher].sources.iter().map(|s| s.plis).sum::<usize>() - keyframes;
        assert!((1..=3).contains(&asked), "{asked} keyframes asked for {layer:?}");
    }
    let (publisher, viewer) = (&world.clients[publisher], &world.clients[viewer]);
    let video = viewer.video();
    let layers = layers_of(video, &publisher.sources);
    let mut turns: Vec<usize> = layers.iter().map(|(_, layer)| *layer).collect();
    turns.dedup();
    assert_eq!(turns, [2, 0, 1, 2, 0, 2]);
    assert_eq!((video.holes().len(), video.duplicates), (0, 0));
    let times: Vec<u32> = video.packets.values().map(|got| got.timestamp).collect();
    let forward = |pair: &[u32]| pair[1].wrapping_sub(pair[0]) < 90_000;
    assert!(times.windows(2).all(forward), "no step back, no jump");
    for pair in layers.windows(2).filter(|pair| pair[0].1 != pair[1].1) {
        // Between them are the parameter sets of the new layer's keyframe.
        let (last, first) = (&video.packets[&pair[0].0], &video.packets[&(pair[0].0 + 1)]);
        assert!(last.marker, "the last frame is whole");
        assert_eq!(first.payload[0] & 0x1f, 7, "the first is a keyframe's");
    }
    assert_eq!((counts(&world).switched_manual, counts(&world).switched_up), (4, 1));
}

#[test]
fn no_key_stream_is_used_twice_whatever_is_lost_around_a_switch() {
    for no_rtx in [true, false] {
        let mut world = World::calm();
        let (_, viewer) = simulcast(&mut world, &Options { no_rtx, ..Options::default() });
        let (id, address) = (world.clients[viewer].id.unwrap(), world.clients[viewer].public);
        world.sent = Some(Vec::new());
        world.link.down.loss = 50;
        for layer in [Some(0), Some(2), Some(1), None] {
            world.gateway.pool.choose_layer(id, 0, layer).unwrap();
            world.run_for(seconds(3));
        }
        let resent = counts(&world).resent;
        assert!(resent > 20, "{resent}");
        // An SSRC and a sequence number (in a run without rollover) make the nonce.
        let mut sealed: HashMap<[u8; 6], &[u8]> = HashMap::new();
        let (mut again, mut rtp) = (0, 0);
        for (_, datagram) in world.sent.iter().flatten().filter(|(to, _)| *to == address) {
            let is_rtp =
                datagram.len() > 12 && datagram[0] >> 6 == 2 && !(192..=223).contains(&datagram[1]);
            if !is_rtp {
                continue;
            }
            rtp += 1;
            let mut nonce = [0; 6];
            nonce[..2].copy_from_slice(&datagram[2..4]);
            nonce[2..].copy_from_slice(&datagram[8..12]);
            if let Some(first) = sealed.insert(nonce, datagram) {
                assert_eq!(first, &datagram[..], "the same bytes, or another number");
                again += 1;
            }
        }
        assert!(rtp > 1000);
        assert!(again > 20 || !no_rtx, "resent under their own numbers: {again}");
    }
}
