//! What the kernel may refuse: runs, marks, single peers. Nothing else suffers.

use super::{Receiver, Sender, V4, command, datagram, in_namespace};
use crate::net::udp::message::Outgoing;
use crate::net::udp::{DROP_REASONS, GSO_REFUSALS, Traffic, UdpSettings};

fn count_of<const N: usize>(reasons: [&str; N], counts: [u64; N], reason: &str) -> u64 {
    let at = reasons.iter().position(|known| *known == reason).unwrap();
    assert_eq!(counts.iter().sum::<u64>(), counts[at], "{reasons:?}: {counts:?}");
    counts[at]
}

fn is_run(message: &Outgoing<'_>) -> bool {
    message.segment.is_some()
}

#[test]
fn a_refused_run_goes_as_datagrams_in_the_same_flush() {
    for (code, reason) in [
        (libc::EIO, "no_offload"),
        (libc::EMSGSIZE, "path_mtu"),
        (libc::EINVAL, "path_mtu"),
        (libc::EOPNOTSUPP, "other"),
    ] {
        let (mut sender, peer) = (Sender::new(UdpSettings::default()), Receiver::new(V4));
        sender.batch.refuse_by(Box::new(move |message| is_run(message).then_some(code)));
        let datagrams: Vec<_> =
            [1200, 1200, 1200, 60, 1300, 1300, 5].iter().map(|len| datagram(1, *len)).collect();
        datagrams.iter().for_each(|datagram| sender.push(&peer, Traffic::Video, datagram));
        sender.batch.flush();
        let counts = sender.batch.take_counts();
        assert_eq!((counts.datagrams, counts.messages), (7, 7));
        assert_eq!(count_of(GSO_REFUSALS, counts.gso_refused, reason), 2);
        assert_eq!((counts.dropped, counts.mark_refused), ([0; 4], 0));
        assert!(sender.batch.uses_gso());
        for wanted in datagrams {
            assert_eq!(peer.take(), (wanted, 0x88), "marked as ever");
        }
        peer.expect_nothing();
    }
}

#[test]
fn gso_rests_after_refusals_in_a_row_and_is_tried_again() {
    let (mut sender, peer) = (Sender::new(UdpSettings::default()), Receiver::new(V4));
    let run = |sender: &mut Sender| {
        for i in 0..3 {
            sender.push(&peer, Traffic::Video, &datagram(i, 500));
        }
        sender.batch.flush();
        peer.expect(&[datagram(0, 500), datagram(1, 500), datagram(2, 500)]);
        sender.batch.take_counts()
    };
    sender.batch.refuse_by(Box::new(|message| is_run(message).then_some(libc::EIO)));
    for refusals in 1..=16 {
        assert!(sender.batch.uses_gso(), "after {refusals}");
        assert_eq!(run(&mut sender).gso_refused, [1, 0, 0]);
    }
    assert!(!sender.batch.uses_gso());
    let mut runs = 0;
    while !sender.batch.uses_gso() {
        assert_eq!(run(&mut sender).gso_refused, [0; 3], "not asked");
        runs += 1;
        assert!(runs < 10_000, "asked again some time");
    }
    // One more refusal suffices; one success, and it is trusted as before.
    assert_eq!(run(&mut sender).gso_refused, [1, 0, 0]);
    assert!(!sender.batch.uses_gso());
    sender.batch.refuse_no_more();
    while !sender.batch.uses_gso() {
        run(&mut sender);
    }
    assert_eq!(run(&mut sender).messages, 1);
    sender.batch.refuse_by(Box::new(|message| is_run(message).then_some(libc::EIO)));
    run(&mut sender);
    assert!(sender.batch.uses_gso());
}

#[test]
fn a_peer_behind_a_narrow_path_does_not_take_gso_from_the_others() {
    let mut sender = Sender::new(UdpSettings::default());
    let (narrow, wide) = (Receiver::new(V4), Receiver::new(V4));
    let port = narrow.address.port();
    sender.batch.refuse_by(Box::new(move |message| {
        let to_narrow = message.to.get().unwrap().port() == port;
        (is_run(message) && to_narrow).then_some(libc::EMSGSIZE)
    }));
    for round in 0..100 {
        for peer in [&narrow, &wide] {
            sender.push(peer, Traffic::Video, &datagram(round, 1200));
            sender.push(peer, Traffic::Video, &datagram(round + 1, 1200));
        }
        sender.batch.flush();
        assert!(sender.batch.uses_gso());
        for peer in [&narrow, &wide] {
            peer.expect(&[datagram(round, 1200), datagram(round + 1, 1200)]);
        }
    }
    let counts = sender.batch.take_counts();
    assert_eq!(counts.gso_refused, [0, 100, 0]);
    assert_eq!((counts.datagrams, counts.messages), (400, 300));
}

#[test]
fn a_route_with_a_small_mtu_refuses_runs_and_gets_every_datagram() {
    const NAME: &str = "a_route_with_a_small_mtu_refuses_runs_and_gets_every_datagram";
    if !in_namespace(module_path!(), NAME) {
        return;
    }
    command("ip link set lo mtu 1280");
    let mut sender = Sender::new(UdpSettings::default());
    let peer = Receiver::new(V4);
    let datagrams: Vec<_> = (0..9).map(|i| datagram(i, 1400)).collect();
    datagrams.iter().for_each(|datagram| sender.push(&peer, Traffic::Video, datagram));
    sender.batch.flush();
    peer.expect(&datagrams);
    let counts = sender.batch.take_counts();
    assert_eq!((counts.datagrams, counts.dropped), (9, [0; 4]));
    assert_eq!(count_of(GSO_REFUSALS, counts.gso_refused, "path_mtu"), 1);
    // What fits the path goes as a run all the same.
    sender.push(&peer, Traffic::Video, &datagram(1, 1200));
    sender.push(&peer, Traffic::Video, &datagram(2, 1200));
    sender.batch.flush();
    assert_eq!(sender.batch.take_counts().messages, 1);
    peer.expect(&[datagram(1, 1200), datagram(2, 1200)]);
}

#[test]
fn an_unreachable_peer_costs_only_itself() {
    if !in_namespace(module_path!(), "an_unreachable_peer_costs_only_itself") {
        return;
    }
    // The namespace has a route to loopback alone.
    let nowhere = "192.0.2.7:9".parse().unwrap();
    let mut sender = Sender::new(UdpSettings::default());
    let peers: Vec<_> = (0..10).map(|_| Receiver::new(V4)).collect();
    for peer in &peers {
        for i in 0..3 {
            sender.push(peer, Traffic::Video, &datagram(i, 1200));
            sender.push_to(nowhere, Traffic::Video, &[0; 1200]);
        }
        sender.push_to(nowhere, Traffic::Video, &[0; 1200]);
    }
    sender.batch.flush();
    let counts = sender.batch.take_counts();
    assert_eq!(counts.datagrams, 30);
    assert_eq!(count_of(DROP_REASONS, counts.dropped, "unreachable"), 40);
    for peer in &peers {
        peer.expect(&[datagram(0, 1200), datagram(1, 1200), datagram(2, 1200)]);
    }
}

#[test]
fn a_datagram_too_long_for_its_route_is_dropped_alone() {
    let (mut sender, peer) = (Sender::new(UdpSettings::default()), Receiver::new(V4));
    let too_long = |message: &Outgoing<'_>| message.bytes.len() > 1000;
    sender.batch.refuse_by(Box::new(move |m| too_long(m).then_some(libc::EMSGSIZE)));
    for len in [900, 1100, 900, 1100, 1100] {
        sender.push(&peer, Traffic::Video, &datagram(len, len));
    }
    sender.batch.flush();
    let counts = sender.batch.take_counts();
    assert_eq!(count_of(DROP_REASONS, counts.dropped, "too_long"), 3);
    peer.expect(&[datagram(900, 900), datagram(900, 900)]);
}

#[test]
fn a_refused_mark_is_left_off_and_counted() {
    for code in [libc::EPERM, libc::EACCES, libc::EINVAL] {
        let mut sender = Sender::new(UdpSettings::default());
        let (minded, other) = (Receiver::new(V4), Receiver::new(V4));
        let port = minded.address.port();
        sender.batch.refuse_by(Box::new(move |message| {
            let minds = message.to.get().unwrap().port() == port;
            (minds && message.mark.tos != 0).then_some(code)
        }));
        for peer in [&other, &minded, &minded, &other] {
            sender.push(peer, Traffic::Video, &[3; 800]);
        }
        sender.batch.flush();
        assert_eq!([minded.take(), minded.take()], [(vec![3; 800], 0), (vec![3; 800], 0)]);
        assert_eq!([other.take().1, other.take().1], [0x88, 0x88]);
        let counts = sender.batch.take_counts();
        assert_eq!((counts.datagrams, counts.mark_refused), (4, 2), "{code}");
        assert_eq!(counts.dropped, [0; 4]);
    }
}

#[test]
fn a_peer_that_may_not_be_sent_to_is_no_refused_mark() {
    let (mut sender, peer) = (Sender::new(UdpSettings::default()), Receiver::new(V4));
    sender.batch.refuse_by(Box::new(|_| Some(libc::EPERM)));
    sender.push(&peer, Traffic::Control, &[1; 10]);
    sender.batch.flush();
    let counts = sender.batch.take_counts();
    assert_eq!((counts.datagrams, counts.mark_refused), (0, 0));
    assert_eq!(count_of(DROP_REASONS, counts.dropped, "other"), 1);
    peer.expect_nothing();
}

#[test]
fn an_interrupted_call_is_made_again() {
    let (mut sender, peer) = (Sender::new(UdpSettings::default()), Receiver::new(V4));
    let mut interruptions = 3;
    sender.batch.refuse_by(Box::new(move |_| {
        interruptions -= i32::from(interruptions > 0);
        (interruptions > 0).then_some(libc::EINTR)
    }));
    sender.push(&peer, Traffic::Control, &[1; 10]);
    sender.batch.flush();
    peer.expect(&[vec![1; 10]]);
}
