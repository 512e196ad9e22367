//! Which datagrams become one message, and that their receivers cannot tell.

use super::{Receiver, Sender, V4, datagram};
use crate::net::dscp::Dscp;
use crate::net::udp::{DatagramSink as _, MAX_SEND, Marking, Traffic, UdpSettings};

/// Pushes datagrams of these lengths to one peer, and expects these messages; then
/// that every datagram arrives whole and in order.
fn merges(lengths: &[usize], messages: &[&[usize]]) {
    let (mut sender, peer) = (Sender::new(UdpSettings::default()), Receiver::new(V4));
    let datagrams: Vec<_> = lengths.iter().enumerate().map(|(i, len)| datagram(i, *len)).collect();
    for datagram in &datagrams {
        sender.push(&peer, Traffic::Video, datagram);
    }
    assert_eq!(sender.lengths(), messages, "{lengths:?}");
    sender.batch.flush();
    assert!(sender.lengths().is_empty());
    let counts = sender.batch.take_counts();
    assert_eq!(counts.messages, messages.len() as u64, "{lengths:?}");
    assert_eq!(counts.datagrams, lengths.len() as u64, "{lengths:?}");
    assert_eq!((counts.dropped, counts.gso_refused), ([0; 4], [0; 3]));
    peer.expect(&datagrams);
}

#[test]
fn equal_datagrams_are_one_message() {
    merges(&[1200; 9], &[&[1200; 9]]);
    merges(&[1], &[&[1]]);
}

#[test]
fn a_shorter_datagram_is_the_last_of_its_message() {
    merges(&[1200, 1200, 90], &[&[1200, 1200, 90]]);
    merges(&[1200, 90, 90, 1200], &[&[1200, 90], &[90], &[1200]]);
    merges(&[1200, 1199, 1200], &[&[1200, 1199], &[1200]]);
}

#[test]
fn a_longer_datagram_starts_a_message() {
    merges(&[90, 1200, 1200], &[&[90], &[1200, 1200]]);
    merges(&[1, 2, 3], &[&[1], &[2], &[3]]);
}

#[test]
fn a_message_has_sixteen_datagrams_at_most() {
    merges(&[700; 40], &[&[700; 16], &[700; 16], &[700; 8]]);
    merges(&[MAX_SEND; 17], &[&[MAX_SEND; 16], &[MAX_SEND]]);
}

#[test]
fn each_peer_has_its_own_messages() {
    let mut sender = Sender::new(UdpSettings::default());
    let (one, other) = (Receiver::new(V4), Receiver::new(V4));
    for peer in [&one, &one, &other, &one] {
        sender.push(peer, Traffic::Video, &[7; 100]);
    }
    let expected = [(&one, 2), (&other, 1), (&one, 1)];
    let expected = expected.map(|(peer, count)| (peer.address, vec![100; count]));
    assert_eq!(sender.batch.waiting(), expected);
    sender.batch.flush();
    one.expect(&vec![vec![7; 100]; 3]);
    other.expect(&[vec![7; 100]]);
}

#[test]
fn kinds_share_a_message_when_they_are_marked_alike() {
    let audio = [Traffic::Video, Traffic::Video, Traffic::Audio];
    for (dscp, messages) in
        [(Dscp::AF41, vec![vec![900, 900, 80]]), (Dscp::EF, vec![vec![900; 2], vec![80]])]
    {
        let marking = Marking { audio: dscp, ..Marking::default() };
        let mut sender = Sender::new(UdpSettings { marking, ..UdpSettings::default() });
        let peer = Receiver::new(V4);
        for (traffic, len) in audio.into_iter().zip([900, 900, 80]) {
            sender.push(&peer, traffic, &datagram(len, len));
        }
        assert_eq!(sender.lengths(), messages);
        sender.batch.flush();
        peer.expect(&[900, 900, 80].map(|len| datagram(len, len)));
    }
}

#[test]
fn without_gso_each_datagram_is_a_message() {
    let mut sender = Sender::new(UdpSettings { gso: false, ..UdpSettings::default() });
    assert!(!sender.batch.uses_gso());
    let peer = Receiver::new(V4);
    let datagrams: Vec<_> = (0..40).map(|i| datagram(i, 1200 - i % 3)).collect();
    datagrams.iter().for_each(|datagram| sender.push(&peer, Traffic::Video, datagram));
    sender.batch.flush();
    let counts = sender.batch.take_counts();
    assert_eq!((counts.datagrams, counts.messages), (40, 40));
    assert_eq!(counts.gso_refused, [0; 3]);
    peer.expect(&datagrams);
}

#[test]
fn a_full_batch_is_sent_at_once_and_goes_on() {
    let (mut sender, peer) = (Sender::new(UdpSettings::default()), Receiver::new(V4));
    let long: Vec<_> = (0..500).map(|i| datagram(i, MAX_SEND)).collect();
    let short: Vec<_> = (0..500).map(|i| datagram(i, 10 + i % 2)).collect();
    for datagrams in [long, short] {
        datagrams.iter().for_each(|datagram| sender.push(&peer, Traffic::Video, datagram));
        assert!(!sender.batch.is_blocked());
        sender.batch.flush();
        let counts = sender.batch.take_counts();
        assert_eq!((counts.datagrams, counts.dropped), (500, [0; 4]));
        peer.expect(&datagrams);
    }
}

#[test]
fn what_is_not_written_is_not_sent() {
    let (mut sender, peer) = (Sender::new(UdpSettings::default()), Receiver::new(V4));
    sender.push(&peer, Traffic::Video, &[1; 50]);
    for written in [None, Some(0), Some(MAX_SEND + 1), Some(usize::MAX)] {
        sender.batch.push(peer.address.into(), Traffic::Video, |out| {
            assert_eq!(out.len(), MAX_SEND);
            out.fill(9);
            written
        });
    }
    sender.push(&peer, Traffic::Video, &[2; 50]);
    assert_eq!(sender.lengths(), [[50, 50]]);
    sender.batch.flush();
    peer.expect(&[vec![1; 50], vec![2; 50]]);
}
