//! What anybody can send to the media port between the datagrams of honest peers.

use std::collections::HashSet;

use super::lifecycle::{binding_request, local_credentials, newest_age, on_air};
use super::*;
use crate::webrtc::classify::{Class, classify};

/// Garbage that passes for each protocol, and damaged copies of what just came.
fn forge(random: &mut Random, original: &[u8]) -> Vec<Vec<u8>> {
    let mut forged = Vec::new();
    let len = 1 + random.below(300);
    let mut garbage = random.bytes(len);
    let firsts = [0, 1, 20, 22, 23, 63, 64, 0x80, 0x81, 0x90, 0xbf, 0xff];
    garbage[0] = firsts[random.below(firsts.len())];
    forged.push(garbage);
    forged.push(original[..random.below(original.len())].to_vec());
    let mut flipped = original.to_vec();
    let bit = random.below(original.len() * 8);
    flipped[bit / 8] ^= 1 << (bit % 8);
    forged.push(flipped);
    let mut longer = original.to_vec();
    let excess = 1 + random.below(64);
    longer.extend(random.bytes(excess));
    forged.push(longer);
    forged
}

/// True for the handshake, which nothing authenticates until it is over.
fn is_handshake(datagram: &[u8]) -> bool {
    classify(datagram) == Some(Class::Dtls)
}

/// True when the records have the lengths that they say.
fn is_whole(mut datagram: &[u8]) -> bool {
    while let Some((header, rest)) = datagram.split_at_checked(13) {
        let len = usize::from(u16::from_be_bytes([header[11], header[12]]));
        let Some((_, rest)) = rest.split_at_checked(len) else { return false };
        datagram = rest;
    }
    datagram.is_empty()
}

fn under_attack(handshake_too: bool, seed: u64) {
    let way = Way { delay: millis(20), ..Way::default() };
    let mut world = World::new(seed, way, way);
    let mut former: Vec<u8> = Vec::new();
    world.tap = Some(Box::new(move |random, original| {
        let mut forged = forge(random, original);
        // Whole handshake messages with another content are left out: DTLS 1.2 cannot tell
        // them from true ones, which takes an attacker on the path.
        forged.retain(|forged| !is_handshake(forged) || handshake_too && !is_whole(forged));
        if handshake_too && is_handshake(&former) {
            forged.push(former.clone());
        }
        former = original.to_vec();
        forged
    }));
    let publisher = world.publish(&Options::default());
    world.run_until_connected(publisher);
    world.run_for(millis(500));
    let viewer = world.watch(&Options::default());
    world.run_until_connected(viewer);
    world.run_for(seconds(4));
    let (publisher, viewer) = (&world.clients[publisher], &world.clients[viewer]);
    let source = &publisher.sources[0];
    let start = delivery::check(viewer.video(), &source.sent);
    assert_eq!(viewer.video().holes().len(), 0);
    let due = delivery::sent_before(&source.sent, world.now - millis(60));
    assert!(start + viewer.video().packets.len() >= due);
    let core = &world.gateway.cores[0];
    assert_eq!(core.sizes(), [2, 2, 2, 2, 1]);
    assert_eq!(world.gateway.shared.directory.sizes(), [2, 2, 2, 1]);
    for reason in ["unclassified", "stun_malformed", "stun_wrong_integrity", "srtp_unauthentic"] {
        assert!(world.gateway.rejected(reason) > 0, "{reason}: {:?}", world.gateway.totals());
    }
}

#[test]
fn garbage_and_damaged_copies_change_nothing() {
    under_attack(false, 21);
}

#[test]
fn garbage_and_cut_or_repeated_copies_of_the_handshake_change_nothing() {
    under_attack(true, 22);
}

#[test]
fn strangers_leave_no_trace() {
    let mut world = World::calm();
    let publisher = world.publish(&Options::default());
    world.run_until_connected(publisher);
    let mut random = Random::new(23);
    let (core, now) = (&mut world.gateway.cores[0], world.now);
    for n in 0..20_000_u32 {
        let len = random.below(200);
        let mut bytes = random.bytes(len);
        if let Some(first) = bytes.first_mut() {
            *first &= 0xbf;
        }
        let from = SocketAddr::from(([203, 0, 113, n as u8], 1024 + (n >> 8) as u16));
        core.handle_datagram(now, from.into(), &mut bytes, true);
    }
    assert!(core.sink.0.is_empty(), "a stranger was answered");
    assert_eq!(core.sizes(), [1, 1, 1, 1, 0]);
    assert_eq!(world.gateway.shared.directory.sizes(), [1, 1, 1, 0]);
    let rejected: u64 = world.gateway.totals().rejected.iter().map(|(_, count)| count).sum();
    assert_eq!(rejected, 20_000);
    assert!(world.gateway.rejected("unknown_peer") > 0);
}

#[test]
fn forged_handshake_fragments_are_bounded_before_and_after_the_handshake() {
    let mut world = World::calm();
    let publisher = world.publish(&Options::default());
    world.run_until_connected(publisher);
    world.run_for(millis(500));
    let viewer = world.watch(&Options::default());
    let mut offsets = (0..30_000_u32).rev();
    let mut forge = |world: &mut World, viewer: usize| {
        let before = world.gateway.rejected("dtls_refused");
        let from = world.clients[viewer].public;
        for _ in 0..1_000 {
            let mut datagram: Vec<u8> =
                offsets.by_ref().take(10).flat_map(one_byte_fragment).collect();
            world.gateway.cores[0].handle_datagram(world.now, from.into(), &mut datagram, true);
        }
        world.gateway.rejected("dtls_refused") - before
    };
    world.run_until_connected(viewer);
    assert!(forge(&mut world, viewer) >= 990);
    world.run_for(seconds(1));
    assert_eq!(world.clients[viewer].video().holes().len(), 0);

    let newcomer = world.watch(&Options::default());
    while world.gateway.cores[0].sizes()[0] < 3 {
        world.run_for(millis(1));
    }
    assert!(forge(&mut world, newcomer) >= 970);
}

/// A plaintext record with one byte of a long handshake message (RFC 6347 §4.2.2).
fn one_byte_fragment(offset: u32) -> Vec<u8> {
    let mut record = vec![22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 13];
    record.extend([11, 0x00, 0x75, 0x30, 0, 1]);
    record.extend(&offset.to_be_bytes()[1..]);
    record.extend([0, 0, 1, 0x55]);
    record
}

#[test]
fn replayed_media_is_refused_and_nothing_is_sent_twice() {
    let mut world = World::calm();
    world.tap = Some(Box::new(|_, original| match classify(original) {
        Some(Class::Rtp | Class::Rtcp) => vec![original.to_vec()],
        _ => vec![],
    }));
    let publisher = world.publish(&Options::default());
    world.run_until_connected(publisher);
    world.run_for(millis(500));
    let viewer = world.watch(&Options::default());
    world.run_until_connected(viewer);
    world.run_for(seconds(2));
    let viewer = &world.clients[viewer];
    assert_eq!(viewer.video().duplicates, 0);
    assert_eq!(viewer.video().holes().len(), 0);
    assert!(world.gateway.rejected("srtp_replayed") > 300);
}

/// A publisher, a viewer that behaves, and one that will not.
fn with_hostile(world: &mut World) -> [usize; 3] {
    let (publisher, good) = on_air(world, &Options { gop: seconds(60), ..Options::default() });
    let hostile = world.watch(&Options::default());
    world.run_until_connected(hostile);
    world.run_for(seconds(3));
    [publisher, good, hostile]
}

#[test]
fn a_flood_of_feedback_is_dropped_unopened_and_heard_again_when_it_is_over() {
    let mut world = World::calm();
    let [_, good, hostile] = with_hostile(&mut world);
    for _ in 0..20 {
        for _ in 0..500 {
            let now = world.now;
            world.clients[hostile].send_loss(now, 255);
        }
        world.run_for(millis(100));
    }
    // 500 at once and 500 a second are heard, and what two seconds bring beside.
    let refused = world.gateway.rejected("rtcp_flood");
    assert!((8_000..8_600).contains(&refused), "{refused}");
    assert_eq!(world.clients[good].video().holes().len(), 0);
    world.run_for(seconds(1));
    for _ in 0..300 {
        let now = world.now;
        world.clients[hostile].send_loss(now, 0);
    }
    let refused = world.gateway.rejected("rtcp_flood");
    world.run_for(millis(100));
    assert_eq!(world.gateway.rejected("rtcp_flood"), refused);
}

#[test]
fn forged_feedback_does_not_use_up_what_the_true_peer_may_send() {
    let mut world = World::calm();
    let [_, _, viewer] = with_hostile(&mut world);
    let from = world.clients[viewer].public;
    for n in 0..5_000_u32 {
        let mut forged = vec![0x81, 201, 0, 7];
        forged.extend(n.to_be_bytes());
        forged.extend([0x55; 44]);
        world.gateway.cores[0].handle_datagram(world.now, from.into(), &mut forged, true);
    }
    assert_eq!(world.gateway.rejected("srtp_unauthentic"), 5_000);
    assert_eq!(world.gateway.rejected("rtcp_flood"), 0);
}

#[test]
fn media_of_a_viewer_is_dropped_unopened() {
    let mut world = World::calm();
    let [_, _, viewer] = with_hostile(&mut world);
    let from = world.clients[viewer].public;
    for _ in 0..100 {
        let mut packet = [0x80; 600];
        packet[1] = 96;
        world.gateway.cores[0].handle_datagram(world.now, from.into(), &mut packet, true);
    }
    assert_eq!(world.gateway.rejected("rtp_unexpected"), 100);
    assert_eq!(world.gateway.rejected("srtp_unauthentic"), 0);
}

#[test]
fn requests_that_prove_nothing_are_looked_at_a_few_times_and_cost_the_peer_nothing() {
    let mut world = World::calm();
    let [_, _, viewer] = with_hostile(&mut world);
    let mut wrong = local_credentials(&world, viewer);
    wrong.pwd.push('x');
    let request = binding_request(&wrong, true);
    for second in 0..20_u16 {
        for n in 0..1_000_u16 {
            let from = SocketAddr::from(([203, 0, 113, n as u8], 1_024 + n + second * 1_000));
            let mut request = request.clone();
            world.gateway.cores[0].handle_datagram(world.now, from.into(), &mut request, true);
        }
        world.run_for(seconds(1));
    }
    let looked_at = world.gateway.rejected("stun_wrong_integrity");
    assert!((64..=64 + 10 * 20).contains(&looked_at), "{looked_at}");
    assert_eq!(world.gateway.rejected("stun_flood"), 20_000 - looked_at);
    // Consent is asked for from the proven address, and was given all the time.
    assert!(gateway::CONSENT < seconds(20));
    assert!(newest_age(&world, viewer) < millis(100));
    assert_eq!(world.clients[viewer].video().holes().len(), 0);
}

#[test]
fn a_flood_from_the_proven_address_is_bounded_too() {
    let mut world = World::calm();
    let [_, _, viewer] = with_hostile(&mut world);
    let (from, local) = (world.clients[viewer].public, local_credentials(&world, viewer));
    let request = binding_request(&local, false);
    for _ in 0..10_000 {
        let mut request = request.clone();
        world.gateway.cores[0].handle_datagram(world.now, from.into(), &mut request, true);
    }
    let answered = world.gateway.cores[0].sink.0.len();
    assert!((100..=128).contains(&answered), "{answered}");
    assert_eq!(world.gateway.rejected("stun_flood"), 10_000 - answered as u64);
}

#[test]
fn media_follows_a_viewer_only_so_often_and_comes_back_when_it_stays() {
    let mut world = World::calm();
    world.sent = Some(Vec::new());
    let [_, good, hostile] = with_hostile(&mut world);
    let local = local_credentials(&world, hostile);
    let home = world.clients[hostile].public;
    let spots = |n: u16| SocketAddr::from(([203, 0, 113, n as u8], 5_000 + n));
    for n in 0..60 {
        let mut request = binding_request(&local, true);
        world.gateway.cores[0].handle_datagram(world.now, spots(n).into(), &mut request, true);
        world.run_for(millis(10));
    }
    let sent = world.sent.take().unwrap();
    let media = sent.iter().filter(|(_, bytes)| classify(bytes) == Some(Class::Rtp));
    let aimed = media.map(|(to, _)| *to).filter(|to| (5_000..5_060).contains(&to.port()));
    let aimed: HashSet<SocketAddr> = aimed.collect();
    assert!((1..=9).contains(&aimed.len()), "{aimed:?}");
    let stayed = world.gateway.rejected("stun_too_many_moves");
    assert!(stayed >= 50, "{stayed}");
    let [peers, _, addresses, ..] = world.gateway.cores[0].sizes();
    assert!(addresses <= peers - 1 + crate::webrtc::transport::MAX_PATHS, "{addresses}");
    assert_eq!(world.clients[good].video().holes().len(), 0);
    // It comes to rest: the next nomination is followed.
    world.run_for(seconds(2));
    let (now, way) = (world.now, world.link.up);
    world.link.send(now, home, media_address(), &binding_request(&local, true), way);
    world.run_for(seconds(1));
    assert!(newest_age(&world, hostile) < millis(100));
}

#[test]
fn a_viewer_that_always_asks_for_keyframes_is_not_always_heard() {
    let mut world = World::calm();
    let [publisher, good, hostile] = with_hostile(&mut world);
    let plis = world.clients[publisher].sources[0].plis;
    for _ in 0..200 {
        let now = world.now;
        world.clients[hostile].send_pli(now);
        world.run_for(millis(100));
    }
    let asked = world.clients[publisher].sources[0].plis - plis;
    // Five at once, one in two seconds: what came in the throttle of the first is one.
    assert!((8..=16).contains(&asked), "{asked}");
    let counts = world.gateway.stream(&table()).egress.snapshot();
    assert!(counts.keyframes_refused >= 180, "{counts:?}");
    // Another viewer in need is heard at once.
    world.run_for(seconds(1));
    let (now, plis) = (world.now, world.clients[publisher].sources[0].plis);
    world.clients[good].send_pli(now);
    world.run_for(millis(200));
    assert_eq!(world.clients[publisher].sources[0].plis, plis + 1);
}
