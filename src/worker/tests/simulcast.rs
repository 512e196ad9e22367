//! A publisher with two layers: the viewer is given the larger one while it flows.

use super::client::Source;
use super::*;

/// Small first, as browsers order them.
const LAYERS: [(&str, u32, u32); 2] = [("l", 640, 368), ("h", 1280, 720)];

/// Which layer sent `payload`, and when; `None` for what both send alike.
fn origin(sources: &[Source], payload: &[u8]) -> Option<usize> {
    let has = |source: &&Source| source.sent.iter().any(|sent| sent.payload == payload);
    let found: Vec<usize> =
        sources.iter().enumerate().filter(|(_, s)| has(s)).map(|(at, _)| at).collect();
    match found.as_slice() {
        [only] => Some(*only),
        _ => None,
    }
}

#[test]
fn the_viewer_gets_the_larger_layer_and_the_other_when_it_falls_silent() {
    let mut world = World::calm();
    let publisher =
        world.publish(&Options { layers: LAYERS.to_vec(), gop: seconds(3), ..Options::default() });
    world.run_until_connected(publisher);
    world.run_for(seconds(1));
    let viewer = world.watch(&Options::default());
    world.run_until_connected(viewer);
    world.run_for(millis(2500));
    world.clients[publisher].sources[1].paused = true;
    let (paused, before) = (world.now, world.clients[viewer].video().packets.len());
    world.run_for(seconds(3));
    let (publisher, viewer) = (&world.clients[publisher], &world.clients[viewer]);
    let video = viewer.video();
    let layers: Vec<(u64, usize)> = video
        .packets
        .iter()
        .filter_map(|(index, got)| Some((*index, origin(&publisher.sources[..2], &got.payload)?)))
        .collect();
    // The choice falls on the larger one within half a second of joining, and takes its
    // next keyframe.
    let large = layers[..before - 40].iter().filter(|(_, layer)| *layer == 1).count();
    assert!(large * 10 > before * 6, "{large} of {before} are of the larger layer");
    let switch = layers.iter().rposition(|(_, layer)| *layer == 1).unwrap();
    assert!(layers.len() - switch > 30, "the smaller layer flows after the switch");
    // Numbers go on without a hole, times go forward, and the new layer starts at a keyframe.
    assert_eq!(video.holes().len(), 0);
    let times: Vec<u32> = video.packets.values().map(|got| got.timestamp).collect();
    assert!(times.windows(2).all(|pair| pair[1].wrapping_sub(pair[0]) < 4 * 90_000));
    let (last_large, first_small) = (layers[switch].0, layers[switch].0 + 1);
    let first = &video.packets[&first_small];
    assert_eq!(first.payload[0] & 0x1f, 7, "starts with a parameter set");
    assert!(video.packets[&last_large].marker, "the last frame of the larger layer is whole");
    let gap = first.timestamp.wrapping_sub(video.packets[&last_large].timestamp);
    assert!((1..3 * 90_000).contains(&gap), "a gap of {gap} ticks");
    assert!(first.at - paused < millis(2600), "after {:?}", first.at - paused);
}
