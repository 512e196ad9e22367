//! Sessions begin, move, restart and end, and leave nothing behind.

use rtc::dtls::extension::extension_use_srtp::SrtpProtectionProfile;
use rtc::stun::attributes::ATTR_USERNAME;
use rtc::stun::fingerprint::FINGERPRINT;
use rtc::stun::integrity::MessageIntegrity;
use rtc::stun::message::{BINDING_REQUEST, Message, TransactionId};
use rtc::stun::textattrs::TextAttribute;

use super::*;
use crate::webrtc::ice_lite::IceCredentials;
use crate::webrtc::srtp::Profile;
use crate::worker::SessionKind;

/// A publisher and a viewer that has media.
pub(super) fn on_air(world: &mut World, options: &Options) -> (usize, usize) {
    let publisher = world.publish(options);
    world.run_until_connected(publisher);
    world.run_for(millis(500));
    let viewer = world.watch(&Options::default());
    world.run_until_connected(viewer);
    world.run_for(millis(500));
    assert!(!world.clients[viewer].video().packets.is_empty());
    (publisher, viewer)
}

pub(super) fn newest_age(world: &World, viewer: usize) -> Duration {
    let newest = world.clients[viewer].video().packets.values().map(|got| got.at).max();
    world.now - newest.unwrap()
}

fn assert_over(world: &mut World, viewer: usize, within: Duration) {
    let end = world.now + within;
    while !world.clients[viewer].is_closed() {
        assert!(world.now < end, "the viewer was not told within {within:?}");
        world.run_for(millis(5));
    }
    assert_eq!(world.clients[viewer].byes, 1);
    world.gateway.assert_empty();
}

#[test]
fn a_deleted_publisher_ends_its_viewers_at_once_and_leaves_nothing() {
    let mut world = World::calm();
    let (publisher, viewer) = on_air(&mut world, &Options::default());
    world.gateway.pool.close(world.clients[publisher].id.unwrap(), "closed_by_peer").unwrap();
    assert_over(&mut world, viewer, millis(50));
}

#[test]
fn a_publisher_that_closes_dtls_ends_its_viewers_at_once_and_leaves_nothing() {
    let mut world = World::calm();
    let (publisher, viewer) = on_air(&mut world, &Options::default());
    world.clients[publisher].close();
    assert_over(&mut world, viewer, millis(80));
}

#[test]
fn a_silent_publisher_ends_after_the_ingest_timeout_and_leaves_nothing() {
    let mut world = World::calm();
    let (publisher, viewer) = on_air(&mut world, &Options::default());
    world.clients[publisher].dead = true;
    let died = world.now;
    assert_over(&mut world, viewer, gateway::INGEST_TIMEOUT + millis(200));
    assert!(world.now - died > gateway::INGEST_TIMEOUT - millis(200));
}

#[test]
fn a_viewer_that_closes_or_is_deleted_is_freed_and_the_stream_goes_on() {
    let mut world = World::calm();
    let (_, viewer) = on_air(&mut world, &Options::default());
    let other = world.watch(&Options::default());
    world.run_for(seconds(1));
    world.clients[viewer].close();
    world.run_for(millis(50));
    assert_eq!(world.gateway.pool.count(SessionKind::Viewer), 1);
    assert!(newest_age(&world, other) < millis(100));
    world.gateway.pool.close(world.clients[other].id.unwrap(), "closed_by_peer").unwrap();
    world.run_for(millis(50));
    assert_eq!(world.gateway.pool.count(SessionKind::Viewer), 0);
    assert_eq!(world.gateway.cores[0].sizes(), [1, 1, 1, 1, 0]);
    assert!(world.gateway.stream(&table()).is_live());
}

#[test]
fn a_silent_viewer_loses_consent_and_is_freed() {
    let mut world = World::calm();
    let (_, viewer) = on_air(&mut world, &Options::default());
    world.clients[viewer].dead = true;
    world.run_for(gateway::CONSENT - seconds(3));
    assert_eq!(world.gateway.pool.count(SessionKind::Viewer), 1);
    world.run_for(millis(3100));
    assert_eq!(world.gateway.pool.count(SessionKind::Viewer), 0);
    assert_eq!(world.gateway.cores[0].sizes(), [1, 1, 1, 1, 0]);
}

#[test]
fn a_session_whose_peer_never_comes_is_swept() {
    let mut world = World::calm();
    let publisher = world.publish(&Options::default());
    world.clients[publisher].dead = true;
    world.run_for(seconds(11));
    world.gateway.pool.sweep(world.now);
    world.gateway.assert_empty();
}

/// A binding request as the client behind `local` would send it (RFC 8445 §7.2.2).
pub(super) fn binding_request(local: &IceCredentials, nominate: bool) -> Vec<u8> {
    let provider = rtc_crypto::providers::AwsLcRsProvider::default();
    use rtc_crypto::RTCCryptoProvider;
    let mut parts: Vec<Box<dyn rtc::stun::message::Setter>> = vec![
        Box::new(BINDING_REQUEST),
        Box::new(TransactionId::new()),
        Box::new(TextAttribute::new(ATTR_USERNAME, format!("{}:peer", local.ufrag))),
    ];
    if nominate {
        parts.push(Box::new(rtc::ice::attributes::use_candidate::UseCandidateAttr::new()));
    }
    let integrity = MessageIntegrity::new_short_term_integrity_with_provider(
        local.pwd.clone(),
        provider.crypto(),
    );
    parts.push(Box::new(integrity));
    parts.push(Box::new(FINGERPRINT));
    let mut message = Message::new();
    message.build(&parts).unwrap();
    message.raw
}

/// The credentials in our answer to a client.
pub(super) fn local_credentials(world: &World, client: usize) -> IceCredentials {
    let answer = world.clients[client].answer();
    let value = |name: &str| {
        let line = answer.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().to_owned()
    };
    IceCredentials { ufrag: value("a=ice-ufrag:"), pwd: value("a=ice-pwd:") }
}

#[test]
fn a_viewer_whose_address_changes_goes_on_after_a_nomination() {
    let mut world = World::calm();
    let (_, viewer) = on_air(&mut world, &Options::default());
    let local = local_credentials(&world, viewer);
    let moved: SocketAddr = "203.0.113.9:5000".parse().unwrap();
    world.clients[viewer].public = moved;
    let (now, way) = (world.now, world.link.up);
    world.link.send(now, moved, media_address(), &binding_request(&local, true), way);
    world.run_for(seconds(2));
    assert!(newest_age(&world, viewer) < millis(100));
    let before = world.clients[viewer].video().holes().len();
    assert_eq!(before, 0, "what was sent to the old address is sent again");
    assert_eq!(world.gateway.shared.directory.owner_of(moved), Some(0));
}

#[test]
fn an_address_that_changes_hands_stays_with_its_new_peer() {
    let mut world = World::calm();
    let (_, former) = on_air(&mut world, &Options::default());
    // The NAT gives the address of a viewer that vanished to another.
    let address = world.clients[former].public;
    world.clients[former].dead = true;
    world.clients[former].public = "203.0.113.1:1".parse().unwrap();
    // While it may still be there, nobody else can have its address.
    world.run_for(seconds(10));
    let viewer = world.watch(&Options::default());
    world.clients[viewer].public = address;
    world.run_until_connected(viewer);
    world.run_for(gateway::CONSENT + seconds(1));
    assert_eq!(world.gateway.pool.count(SessionKind::Viewer), 1);
    assert!(newest_age(&world, viewer) < millis(100));
    assert_eq!(world.gateway.shared.directory.owner_of(address), Some(0));
    assert_eq!(world.gateway.cores[0].sizes(), [2, 2, 2, 2, 1]);
}

#[test]
fn an_address_is_not_taken_from_a_peer_that_proves_it() {
    let mut world = World::calm();
    let (publisher, viewer) = on_air(&mut world, &Options::default());
    let attacker = world.watch(&Options::default());
    world.run_until_connected(attacker);
    let local = local_credentials(&world, attacker);
    for victim in [publisher, viewer] {
        let (now, forged) = (world.now, world.clients[victim].public);
        let way = Way::default();
        world.link.send(now, forged, media_address(), &binding_request(&local, true), way);
    }
    world.run_for(seconds(3));
    assert_eq!(world.gateway.rejected("stun_address_taken"), 2);
    assert!(newest_age(&world, viewer) < millis(100));
    assert!(newest_age(&world, attacker) < millis(100), "its own path is as it was");
    world.gateway.pool.close(world.clients[attacker].id.unwrap(), "closed_by_peer").unwrap();
    world.run_for(seconds(3));
    assert!(newest_age(&world, viewer) < millis(100));
    assert_eq!(world.clients[viewer].video().holes().len(), 0);
}

#[test]
fn an_ice_restart_goes_on_with_new_credentials_and_ends_the_old() {
    let mut world = World::calm();
    let (_, viewer) = on_air(&mut world, &Options::default());
    let old = local_credentials(&world, viewer);
    let now = world.now;
    let remote = world.clients[viewer].begin_ice_restart(now);
    let id = world.clients[viewer].id.unwrap();
    let new = world.gateway.restart_ice(id, &remote);
    assert_eq!(world.gateway.pool.view(id).unwrap().ufrag, new.ufrag);
    // Until the new ones are used the old ones hold.
    let from = world.clients[viewer].public;
    let core = &mut world.gateway.cores[0];
    core.turn(now);
    core.handle_datagram(now, from.into(), &mut binding_request(&old, false), true);
    let unknown = world.gateway.rejected("stun_unknown_ufrag");
    assert_eq!(unknown, 0);
    world.clients[viewer].finish_ice_restart(now, (&old.ufrag, &old.pwd), (&new.ufrag, &new.pwd));
    world.run_for(gateway::CONSENT + seconds(2));
    assert!(newest_age(&world, viewer) < millis(100), "{:?}", newest_age(&world, viewer));
    assert_eq!(world.clients[viewer].video().holes().len(), 0);
    let (now, unknown) = (world.now, world.gateway.rejected("stun_unknown_ufrag"));
    let core = &mut world.gateway.cores[0];
    core.handle_datagram(now, from.into(), &mut binding_request(&old, false), true);
    assert_eq!(world.gateway.rejected("stun_unknown_ufrag"), unknown + 1);
}

#[test]
fn many_ice_restarts_do_not_pile_up() {
    let mut world = World::calm();
    let (_, viewer) = on_air(&mut world, &Options::default());
    let id = world.clients[viewer].id.unwrap();
    for n in 0..100 {
        world.gateway.restart_ice(id, &format!("remote{n}"));
        world.run_for(millis(2));
    }
    let [peers, ufrags, ..] = world.gateway.cores[0].sizes();
    assert!(ufrags <= 2 * peers, "{ufrags} user fragments of {peers} peers");
    world.gateway.pool.close(id, "closed_by_peer").unwrap();
    world.run_for(millis(50));
    assert_eq!(world.gateway.cores[0].sizes(), [1, 1, 1, 1, 0]);
}

#[test]
fn a_worker_passes_strays_on_to_the_owner() {
    let way = Way { delay: millis(20), ..Way::default() };
    let mut world = World::with_workers(2, 3, way, way);
    let (_, viewer) = on_air(&mut world, &Options::default());
    // From now on the kernel gives everything to the other worker's socket.
    world.receiving = 1;
    world.run_for(gateway::CONSENT + seconds(4));
    assert!(newest_age(&world, viewer) < millis(100));
    assert_eq!(world.clients[viewer].video().holes().len(), 0);
    assert!(world.gateway.totals().forwarded > 500);
    assert_eq!(world.gateway.cores[1].sizes(), [0; 5]);
    let rejected: u64 = world.gateway.totals().rejected.iter().map(|(_, count)| count).sum();
    assert_eq!(rejected, 0, "{:?}", world.gateway.totals());
}

#[test]
fn viewers_of_another_worker_than_the_publishers_are_served() {
    let way = Way { delay: millis(20), ..Way::default() };
    let mut world = World::with_workers(2, 4, way, way);
    let publisher = world.publish(&Options::default());
    world.run_until_connected(publisher);
    world.receiving = 1;
    world.run_for(millis(500));
    let viewer = world.watch(&Options::default());
    world.run_until_connected(viewer);
    world.run_for(seconds(2));
    assert!(newest_age(&world, viewer) < millis(100));
    assert_eq!(world.gateway.cores[1].sizes(), [1, 1, 1, 1, 1]);
    world.gateway.pool.close(world.clients[publisher].id.unwrap(), "closed_by_peer").unwrap();
    assert_over(&mut world, viewer, millis(50));
}

fn profiles(world: &World) -> Vec<Profile> {
    world.gateway.cores[0].profiles()
}

#[test]
fn gcm_is_chosen_though_the_client_lists_it_last() {
    let mut world = World::calm();
    let srtp = vec![
        SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80,
        SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm,
    ];
    on_air(&mut world, &Options { srtp, ..Options::default() });
    assert_eq!(profiles(&world), [Profile::AeadAes128Gcm; 2]);
}

#[test]
fn a_client_without_gcm_gets_sha1() {
    let mut world = World::calm();
    let srtp = vec![SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80];
    let options = Options { srtp, ..Options::default() };
    let (_, _) = on_air(&mut world, &options);
    let viewer = world.watch(&options);
    world.run_for(seconds(1));
    assert!(newest_age(&world, viewer) < millis(100));
    let sha1 = profiles(&world).into_iter().filter(|p| *p == Profile::Aes128CmSha1_80).count();
    assert_eq!(sha1, 2);
}

#[test]
fn a_publisher_that_is_the_dtls_server_works() {
    let mut world = World::calm();
    let (_, viewer) = on_air(&mut world, &Options { passive: true, ..Options::default() });
    world.run_for(seconds(1));
    assert!(newest_age(&world, viewer) < millis(100));
}
