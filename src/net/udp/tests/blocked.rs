//! A socket that takes nothing: what waits is kept, and what may still come is bounded.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Receiver, Sender, V4, command, datagram, in_namespace};
use crate::net::udp::{DatagramSink as _, Traffic, UdpSettings};

/// A sender whose socket is full whenever the flag is set.
fn blockable(code: libc::c_int) -> (Sender, Arc<AtomicBool>) {
    let mut sender = Sender::new(UdpSettings::default());
    let full = Arc::new(AtomicBool::new(true));
    let flag = full.clone();
    sender.batch.refuse_by(Box::new(move |_| flag.load(Ordering::Relaxed).then_some(code)));
    (sender, full)
}

#[test]
fn what_a_full_socket_refuses_is_sent_later() {
    for code in [libc::EAGAIN, libc::ENOBUFS, libc::ENOMEM] {
        let ((mut sender, full), peer) = (blockable(code), Receiver::new(V4));
        for i in 0..20 {
            sender.push(&peer, Traffic::Video, &datagram(i, 1200));
        }
        assert!(!sender.batch.is_blocked(), "nobody knows yet");
        for _ in 0..5 {
            sender.batch.flush();
            assert!(sender.batch.is_blocked());
        }
        peer.expect_nothing();
        full.store(false, Ordering::Relaxed);
        sender.batch.flush();
        assert!(!sender.batch.is_blocked());
        assert_eq!(sender.batch.take_counts().dropped, [0; 4]);
        peer.expect(&(0..20).map(|i| datagram(i, 1200)).collect::<Vec<_>>());
    }
}

#[test]
fn a_blocked_batch_takes_some_control_and_no_media() {
    let ((mut sender, full), peer) = (blockable(libc::EAGAIN), Receiver::new(V4));
    let mut pushed = Vec::new();
    while !sender.batch.is_blocked() {
        pushed.push(datagram(pushed.len(), 1400));
        sender.push(&peer, Traffic::Video, &pushed[pushed.len() - 1]);
    }
    assert_eq!(pushed.len(), 96 + 4, "the batch was full: 141312 bytes of 1400 each");
    sender.push(&peer, Traffic::Video, &[1; 10]);
    sender.push(&peer, Traffic::Audio, &[1; 10]);
    assert_eq!(sender.batch.take_counts().dropped, [2, 0, 0, 0]);
    for i in 0..100 {
        sender.push(&peer, Traffic::Control, &datagram(1000 + i, 1400));
    }
    let refused = sender.batch.take_counts().dropped;
    let taken = 100 - refused[0] as usize;
    assert!((15..=20).contains(&taken), "{taken}");
    full.store(false, Ordering::Relaxed);
    sender.batch.flush();
    pushed.extend((0..taken).map(|i| datagram(1000 + i, 1400)));
    peer.expect(&pushed);
    // And all is as before.
    sender.push(&peer, Traffic::Video, &[5; 50]);
    sender.batch.flush();
    peer.expect(&[vec![5; 50]]);
}

#[test]
fn small_datagrams_are_bounded_by_their_messages() {
    let (mut sender, _) = blockable(libc::EAGAIN);
    let peers = [Receiver::new(V4), Receiver::new(V4)];
    let mut pushed = 0;
    while !sender.batch.is_blocked() {
        sender.push(&peers[pushed % 2], Traffic::Video, &[1; 10]);
        pushed += 1;
    }
    assert_eq!(pushed, 64);
    for i in 0..100 {
        sender.push(&peers[i % 2], Traffic::Control, &[1; 10]);
    }
    assert_eq!(sender.batch.take_counts().dropped, [84, 0, 0, 0]);
}

#[test]
fn no_message_holds_the_others_up_for_good() {
    let mut sender = Sender::new(UdpSettings::default());
    let (stuck, other) = (Receiver::new(V4), Receiver::new(V4));
    let port = stuck.address.port();
    sender.batch.refuse_by(Box::new(move |message| {
        (message.to.get().unwrap().port() == port).then_some(libc::ENOBUFS)
    }));
    sender.push(&stuck, Traffic::Video, &[1; 10]);
    sender.push(&other, Traffic::Video, &[2; 10]);
    let mut flushes = 0;
    loop {
        sender.batch.flush();
        flushes += 1;
        if !sender.batch.is_blocked() {
            break;
        }
        assert!(flushes < 100);
    }
    assert!(flushes > 16, "{flushes}: patience first");
    assert_eq!(sender.batch.take_counts().dropped, [1, 0, 0, 0]);
    other.expect(&[vec![2; 10]]);
}

#[test]
fn nothing_is_lost_on_a_link_that_drains_slowly() {
    if !in_namespace(module_path!(), "nothing_is_lost_on_a_link_that_drains_slowly") {
        return;
    }
    // 20 Mbit/s, and room for all: what is queued counts against the socket's buffer.
    command("tc qdisc add dev lo root tbf rate 20mbit burst 4000 limit 10000000");
    for gso in [true, false] {
        let settings = UdpSettings { buffer_bytes: 4096, gso, ..UdpSettings::default() };
        let (mut sender, peer) = (Sender::new(settings), Receiver::new(V4));
        let (mut next, mut received, mut blocked) = (0, 0, 0);
        while received < 200 {
            while next < 200 && !sender.batch.is_blocked() {
                sender.push(&peer, Traffic::Video, &datagram(next, 1200));
                next += 1;
                if next % 10 == 0 {
                    sender.batch.flush();
                }
            }
            assert_eq!(peer.take(), (datagram(received, 1200), 0x88));
            received += 1;
            blocked += u32::from(sender.batch.is_blocked());
            sender.batch.flush();
        }
        assert!(blocked > 0, "the link was never full");
        let counts = sender.batch.take_counts();
        assert_eq!((counts.datagrams, counts.dropped), (200, [0; 4]));
        assert_eq!(counts.messages < 100, gso, "{} messages", counts.messages);
        peer.expect_nothing();
    }
}
