//! How packets are marked, as their receivers see it.

use std::net::IpAddr;

use super::{Receiver, Sender, V4, V6, datagram};
use crate::net::dscp::Dscp;
use crate::net::udp::{Marking, SendBatch, Traffic, UdpSettings, open_sockets};

const KINDS: [(Traffic, u8); 3] =
    [(Traffic::Audio, 0xb8), (Traffic::Video, 0x88), (Traffic::Control, 0x68)];

fn marking() -> Marking {
    Marking { audio: Dscp::EF, video: Dscp::AF41, control: Dscp::AF31 }
}

/// A single datagram and a run of each kind.
fn marks(ipv6: bool, gso: bool, ip: IpAddr) {
    let mut sender =
        Sender::new(UdpSettings { ipv6, gso, marking: marking(), ..UdpSettings::default() });
    let peer = Receiver::new(ip);
    for count in [1, 5] {
        for (traffic, tos) in KINDS {
            for i in 0..count {
                sender.push(&peer, traffic, &datagram(i, 1000));
            }
            sender.batch.flush();
            let counts = sender.batch.take_counts();
            assert_eq!(counts.messages, if gso { 1 } else { count as u64 });
            assert_eq!(counts.mark_refused, 0);
            for i in 0..count {
                assert_eq!(peer.take(), (datagram(i, 1000), tos), "{ip} {traffic:?} {i}/{count}");
            }
        }
    }
}

#[test]
fn every_segment_is_marked_over_ipv4() {
    marks(false, true, V4);
    marks(false, false, V4);
}

#[test]
fn every_segment_is_marked_over_ipv6() {
    marks(true, true, V6);
    marks(true, false, V6);
}

#[test]
fn every_segment_is_marked_to_ipv4_peers_of_an_ipv6_socket() {
    marks(true, true, V4);
    marks(true, false, V4);
}

#[test]
fn messages_of_one_call_have_their_own_marks() {
    let settings = UdpSettings { ipv6: true, marking: marking(), ..UdpSettings::default() };
    let mut sender = Sender::new(settings);
    let peers = [Receiver::new(V4), Receiver::new(V6)];
    for (traffic, _) in KINDS {
        for peer in peers.iter().chain(&peers) {
            sender.push(peer, traffic, &[1; 300]);
        }
    }
    sender.batch.flush();
    for peer in &peers {
        for (_, tos) in KINDS {
            assert_eq!((peer.take().1, peer.take().1), (tos, tos));
        }
        peer.expect_nothing();
    }
}

/// The kernel would otherwise put video into the last band of its own queue.
#[test]
fn marks_leave_the_queues_of_the_host_alone() {
    for ipv6 in [false, true] {
        let settings = UdpSettings { ipv6, marking: marking(), ..UdpSettings::default() };
        let socket = open_sockets(&settings, 1).unwrap().remove(0);
        let _batch = SendBatch::new(&socket, &settings);
        let socket = socket2::SockRef::from(&socket);
        assert_eq!((socket.tos_v4().unwrap(), socket.priority().unwrap()), (0x88, 0));
        if ipv6 {
            assert_eq!(socket.tclass_v6().unwrap(), 0x88);
        }
    }
}

#[test]
fn nothing_is_marked_when_it_is_off() {
    let marking = Marking::all(Dscp::UNMARKED);
    for ip in [V4, V6] {
        let mut sender = Sender::new(UdpSettings { ipv6: true, marking, ..UdpSettings::default() });
        let peer = Receiver::new(ip);
        sender.push(&peer, Traffic::Audio, &[1; 30]);
        sender.push(&peer, Traffic::Video, &[2; 30]);
        sender.batch.flush();
        assert_eq!(peer.take(), (vec![1; 30], 0));
        assert_eq!(peer.take(), (vec![2; 30], 0));
    }
}
