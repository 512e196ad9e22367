//! What anybody can send to the media port between the datagrams of honest peers.

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
