//! Both ways between a media socket and a plain one, and how the port is opened.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use super::{V4, V6};
use crate::net::udp::{
    DatagramSink as _, MAX_DATAGRAM, ReceiveBatch, SendBatch, Traffic, UdpSettings, open_sockets,
};
use crate::route::Route;

fn settings(ipv6: bool) -> UdpSettings {
    UdpSettings { ipv6, ..UdpSettings::default() }
}

fn exchange(ipv6: bool, client: &UdpSocket, server_ip: IpAddr) {
    let server = open_sockets(&settings(ipv6), 1).unwrap().remove(0);
    let address = SocketAddr::new(server_ip, server.local_addr().unwrap().port());
    for i in 0..3u8 {
        client.send_to(&[i; 100], address).unwrap();
    }
    let mut received = ReceiveBatch::default();
    server.set_nonblocking(false).unwrap();
    server.peek_from(&mut [0; 1]).unwrap();
    assert_eq!(received.receive(&server).unwrap(), 3);
    let mut batch = SendBatch::new(&server, &settings(ipv6));
    for i in 0..3 {
        let (from, bytes) = received.datagram(i).unwrap();
        assert_eq!(from, Route { peer: client.local_addr().unwrap(), local: Some(server_ip) });
        assert_eq!(bytes, [i as u8; 100]);
        batch.push(from, Traffic::Video, |out| {
            out[..100].copy_from_slice(bytes);
            Some(100)
        });
    }
    assert!(received.datagram(3).is_none());
    batch.flush();
    let counts = batch.take_counts();
    assert_eq!((counts.datagrams, counts.dropped), (3, [0; 4]));
    for i in 0..3u8 {
        let mut bytes = [0; 200];
        let (len, from) = client.recv_from(&mut bytes).unwrap();
        assert_eq!((len, from), (100, address));
        assert_eq!(bytes[..100], [i; 100]);
    }
}

#[test]
fn batches_travel_both_ways_over_ipv4_ipv6_and_mapped() {
    let v4 = UdpSocket::bind((V4, 0)).unwrap();
    let v6 = UdpSocket::bind((V6, 0)).unwrap();
    exchange(false, &v4, V4);
    exchange(true, &v6, V6);
    exchange(true, &v4, V4);
}

/// All of 127/8 is loopback, and of its addresses the system would choose 127.0.0.1.
#[test]
fn answers_leave_from_the_address_that_was_asked() {
    let v4 = UdpSocket::bind((V4, 0)).unwrap();
    let second = Ipv4Addr::new(127, 0, 0, 2).into();
    exchange(false, &v4, second);
    exchange(true, &v4, second);
}

#[test]
fn an_oversized_datagram_is_dropped_alone() {
    let server = open_sockets(&settings(false), 1).unwrap().remove(0);
    let client = UdpSocket::bind((V4, 0)).unwrap();
    let address = SocketAddr::new(V4, server.local_addr().unwrap().port());
    client.send_to(&[1; MAX_DATAGRAM + 1], address).unwrap();
    client.send_to(&[2; 10], address).unwrap();
    server.set_nonblocking(false).unwrap();
    server.peek_from(&mut [0; 1]).unwrap();
    let mut batch = ReceiveBatch::default();
    assert_eq!(batch.receive(&server).unwrap(), 2);
    assert!(batch.datagram(0).is_none());
    assert_eq!(batch.datagram(1).unwrap().1, [2; 10]);
}

#[test]
fn a_port_in_use_is_refused() {
    let first = open_sockets(&settings(false), 2).unwrap();
    let port = first[0].local_addr().unwrap().port();
    let second = open_sockets(&UdpSettings { port, ..settings(false) }, 2);
    assert_eq!(second.err().map(|e| e.kind()), Some(io::ErrorKind::AddrInUse));
}

#[test]
fn sockets_share_one_port() {
    let sockets = open_sockets(&settings(false), 3).unwrap();
    let ports: Vec<_> = sockets.iter().map(|s| s.local_addr().unwrap().port()).collect();
    assert!(ports.iter().all(|port| *port == ports[0]), "{ports:?}");
}
