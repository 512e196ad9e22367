//! A general WebRTC stack in the same place: a peer connection a viewer, each packet
//! written to it, and each datagram that it makes handed to the system by `send_to`.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use rtc::interceptor::Registry;
use rtc::media_stream::MediaStreamTrack;
use rtc::peer_connection::configuration::interceptor_registry::register_default_interceptors;
use rtc::peer_connection::configuration::media_engine::{MIME_TYPE_H264, MediaEngine};
use rtc::peer_connection::event::RTCPeerConnectionEvent;
use rtc::peer_connection::state::RTCPeerConnectionState;
use rtc::peer_connection::transport::{CandidateConfig, CandidateHostConfig, RTCIceCandidate};
use rtc::peer_connection::{RTCPeerConnection, RTCPeerConnectionBuilder};
use rtc::rtp;
use rtc::rtp_transceiver::RTCRtpSenderId;
use rtc::rtp_transceiver::rtp_sender::{
    RTCPFeedback, RTCRtpCodec, RTCRtpCodecParameters, RTCRtpCodingParameters,
    RTCRtpEncodingParameters, RtpCodecKind,
};
use rtc::sansio::Protocol;
use rtc::shared::{TaggedBytesMut, TransportContext, TransportProtocol};

use crate::cpu::{Cost, thread_nanos};
use crate::network::{LOCAL, address};
use crate::{FRAME, PACKET};

const PAYLOAD_TYPE: u8 = 102;
const SSRC: u32 = 0x1000;
/// A connection that takes longer is a defect of this benchmark.
const CONNECT_STEPS: usize = 20_000;

struct Peer {
    connection: RTCPeerConnection,
    sender: RTCRtpSenderId,
    sequence: u16,
}

pub(crate) struct Reference {
    peers: Vec<Peer>,
    socket: UdpSocket,
    now: Instant,
    payload: Bytes,
    timestamp: u32,
}

impl Reference {
    pub(crate) fn new(viewers: usize) -> Self {
        let socket = UdpSocket::bind(SocketAddr::new(LOCAL.into(), 0)).expect("a socket");
        socket2::SockRef::from(&socket).set_send_buffer_size(8 << 20).expect("a send buffer");
        let mut now = Instant::now();
        let peers = (0..viewers).map(|n| connect(&mut now, n)).collect();
        let payload = vec![7; PACKET - 20].into();
        Self { peers, socket, now, payload, timestamp: 0 }
    }

    pub(crate) fn run(&mut self, time: Duration) -> Cost {
        let end = Instant::now() + time;
        let before = thread_nanos();
        let mut packets = 0;
        while Instant::now() < end {
            self.now += Duration::from_micros(33_333);
            self.timestamp = self.timestamp.wrapping_add(3000);
            for peer in &mut self.peers {
                for n in 0..FRAME {
                    peer.sequence = peer.sequence.wrapping_add(1);
                    let header = rtp::header::Header {
                        version: 2,
                        marker: n + 1 == FRAME,
                        payload_type: PAYLOAD_TYPE,
                        sequence_number: peer.sequence,
                        timestamp: self.timestamp,
                        ssrc: SSRC,
                        ..Default::default()
                    };
                    let packet = rtp::Packet { header, payload: self.payload.clone() };
                    let mut sender = peer.connection.rtp_sender(peer.sender).expect("a sender");
                    sender.write_rtp(self.now, packet).expect("written");
                    while let Some(datagram) = peer.connection.poll_write() {
                        let to = datagram.transport.peer_addr;
                        // Whatever the stack sends beside media goes the same way.
                        self.socket.send_to(&datagram.message, to).expect("sent");
                    }
                    packets += 1;
                }
            }
        }
        Cost { packets, cpu_nanos: thread_nanos() - before }
    }
}

fn codec() -> RTCRtpCodec {
    let feedback = |typ: &str, parameter: &str| RTCPFeedback {
        typ: typ.to_owned(),
        parameter: parameter.to_owned(),
    };
    RTCRtpCodec {
        mime_type: MIME_TYPE_H264.to_owned(),
        clock_rate: 90_000,
        channels: 0,
        sdp_fmtp_line: "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f"
            .to_owned(),
        rtcp_feedback: vec![feedback("nack", ""), feedback("nack", "pli")],
    }
}

fn connection(now: Instant, local: SocketAddr) -> RTCPeerConnection {
    let mut engine = MediaEngine::default();
    let parameters = RTCRtpCodecParameters { rtp_codec: codec(), payload_type: PAYLOAD_TYPE };
    engine.register_codec(parameters, RtpCodecKind::Video).expect("a codec");
    let registry = register_default_interceptors(Registry::new(), &mut engine).expect("defaults");
    let mut connection = RTCPeerConnectionBuilder::new()
        .with_media_engine(engine)
        .with_interceptor_registry(registry)
        .build(now)
        .expect("a connection");
    let base_config = CandidateConfig {
        network: "udp".to_owned(),
        address: local.ip().to_string(),
        port: local.port(),
        component: 1,
        ..Default::default()
    };
    let candidate = CandidateHostConfig { base_config, ..Default::default() };
    let candidate = candidate.new_candidate_host().expect("a candidate");
    let json = RTCIceCandidate::from(&candidate).to_json().expect("a candidate");
    connection.add_local_candidate(json).expect("a candidate");
    connection
}

/// Connects a sender to a receiver in memory and keeps the sender.
fn connect(now: &mut Instant, n: usize) -> Peer {
    let addresses = [SocketAddr::new(LOCAL.into(), 8443), address(n)];
    let mut ends = addresses.map(|local| connection(*now, local));
    let coding = RTCRtpCodingParameters { ssrc: Some(SSRC), ..Default::default() };
    let encoding = RTCRtpEncodingParameters {
        rtp_coding_parameters: coding,
        codec: codec(),
        ..Default::default()
    };
    let track = MediaStreamTrack::new(
        "dealer".to_owned(),
        "video".to_owned(),
        "video".to_owned(),
        RtpCodecKind::Video,
        vec![encoding],
    );
    let sender = ends[0].add_track(track).expect("a track");
    let offer = ends[0].create_offer(None).expect("an offer");
    ends[0].set_local_description(*now, offer.clone()).expect("an offer");
    ends[1].set_remote_description(*now, offer).expect("the offer");
    let answer = ends[1].create_answer(None).expect("an answer");
    ends[1].set_local_description(*now, answer.clone()).expect("an answer");
    ends[0].set_remote_description(*now, answer).expect("the answer");
    let mut connected = [false; 2];
    for _ in 0..CONNECT_STEPS {
        if connected == [true; 2] {
            let [connection, _] = ends;
            return Peer { connection, sender, sequence: 0 };
        }
        *now += Duration::from_millis(1);
        for i in 0..2 {
            if ends[i].poll_timeout().is_some_and(|at| at <= *now) {
                ends[i].handle_timeout(*now).expect("a timeout");
            }
            while let Some(event) = ends[i].poll_event() {
                if let RTCPeerConnectionEvent::OnConnectionStateChangeEvent(state) = event {
                    connected[i] |= state == RTCPeerConnectionState::Connected;
                }
            }
            while ends[i].poll_read().is_some() {}
            while let Some(datagram) = ends[i].poll_write() {
                let transport = TransportContext {
                    local_addr: addresses[1 - i],
                    peer_addr: addresses[i],
                    ecn: None,
                    transport_protocol: TransportProtocol::UDP,
                };
                let message = BytesMut::from(&datagram.message[..]);
                // What the other end refuses, it asks for again.
                let _ = ends[1 - i].handle_read(TaggedBytesMut { now: *now, transport, message });
            }
        }
    }
    panic!("viewer {n} of the reference does not connect");
}
