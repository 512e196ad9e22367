//! An independent WebRTC stack as the gateway's peer: `rtc`'s peer connection on
//! virtual time, with a synthetic source behind it or a recorder.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use rtc::dtls::extension::extension_use_srtp::SrtpProtectionProfile;
use rtc::interceptor::{NackResponderBuilder, Registry, Slot};
use rtc::media_stream::MediaStreamTrack;
use rtc::peer_connection::configuration::interceptor_registry::{
    configure_rtcp_reports, configure_simulcast_extension_headers,
};
use rtc::peer_connection::configuration::media_engine::MediaEngine;
use rtc::peer_connection::configuration::setting_engine::SettingEngineBuilder;
use rtc::peer_connection::event::RTCPeerConnectionEvent;
use rtc::peer_connection::message::{RTCMessage, TaggedRTCMessage};
use rtc::peer_connection::sdp::RTCSessionDescription;
use rtc::peer_connection::state::RTCPeerConnectionState;
use rtc::peer_connection::transport::{
    CandidateConfig, CandidateHostConfig, RTCDtlsTransportState, RTCIceCandidate,
};
use rtc::peer_connection::{RTCPeerConnection, RTCPeerConnectionBuilder};
use rtc::rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtc::rtcp::payload_feedbacks::receiver_estimated_maximum_bitrate::ReceiverEstimatedMaximumBitrate;
use rtc::rtcp::receiver_report::ReceiverReport;
use rtc::rtcp::reception_report::ReceptionReport;
use rtc::rtcp::transport_feedbacks::transport_layer_nack::{
    TransportLayerNack, nack_pairs_from_sequence_numbers,
};
use rtc::rtp;
use rtc::rtp_transceiver::rtp_sender::{
    RTCRtpEncodingParameters, RTCRtpRtxParameters, RtpCodecKind,
};
use rtc::rtp_transceiver::{RTCRtpSenderId, RTCRtpTransceiverDirection, RTCRtpTransceiverInit};
use rtc::sansio::Protocol;
use rtc::shared::{TaggedBytesMut, TransportContext, TransportProtocol};

use super::codecs::{AUDIO_PT, VIDEO_PT, audio_codec, encoding, register_codecs, video_codec};
use super::gateway::{Created, media_address};
use super::link::Random;
use super::media::{Piece, audio_frame, video_frame};
use super::rtcp_tap::{Heard, RtcpTap};
use crate::worker::SessionId;

const FRAME: Duration = Duration::from_micros(33_333);
const AUDIO_FRAME: Duration = Duration::from_millis(20);
/// How often a viewer looks for holes, and after which time it asks again.
const NACK_INTERVAL: Duration = Duration::from_millis(20);
const NACK_RETRY: Duration = Duration::from_millis(70);
/// What is further back is given up.
const NACK_WINDOW: u64 = 1000;

/// What is special about a client.
#[derive(Clone, Default)]
pub(super) struct Options {
    pub(super) srtp: Vec<SrtpProtectionProfile>,
    /// Offers `a=setup:passive`.
    pub(super) passive: bool,
    /// Simulcast layers (rid, width, height); none: one layer of 1280x720.
    pub(super) layers: Vec<(&'static str, u32, u32)>,
    /// Offers no retransmission on an SSRC of its own.
    pub(super) no_rtx: bool,
    /// Time between keyframes that nobody asked for; zero: 2 s.
    pub(super) gop: Duration,
}

/// A packet that a publisher sent.
#[derive(Clone)]
pub(super) struct Sent {
    pub(super) at: Instant,
    pub(super) timestamp: u32,
    pub(super) marker: bool,
    /// First packet of an access unit that starts with an IDR.
    pub(super) opens_gop: bool,
    pub(super) payload: Bytes,
}

/// One layer of a publisher's video, or its audio.
pub(super) struct Source {
    ssrc: u32,
    rid: &'static str,
    size: Option<(u32, u32)>,
    sender: RTCRtpSenderId,
    sequence: u16,
    timestamp: u32,
    next: Option<Instant>,
    next_key: Option<Instant>,
    key_wanted: bool,
    pub(super) paused: bool,
    pub(super) plis: usize,
    pub(super) sent: Vec<Sent>,
}

/// A packet that a viewer got, RTX unwrapped.
#[derive(Clone)]
pub(super) struct Got {
    pub(super) at: Instant,
    pub(super) timestamp: u32,
    pub(super) marker: bool,
    pub(super) payload: Bytes,
}

/// What a viewer got of one SSRC.
#[derive(Default)]
pub(super) struct Recorded {
    /// By extended sequence number.
    pub(super) packets: BTreeMap<u64, Got>,
    /// In the order of arrival.
    pub(super) arrivals: Vec<u64>,
    pub(super) duplicates: usize,
    asked: BTreeMap<u64, Instant>,
}

impl Recorded {
    fn take(&mut self, at: Instant, packet: rtp::Packet) {
        let sequence = packet.header.sequence_number;
        let index = match self.packets.last_key_value() {
            None => 1 << 16 | u64::from(sequence),
            Some((newest, _)) => {
                let ahead = sequence.wrapping_sub(*newest as u16) as i16;
                newest.wrapping_add_signed(i64::from(ahead))
            }
        };
        self.asked.remove(&index);
        self.arrivals.push(index);
        let got = Got {
            at,
            timestamp: packet.header.timestamp,
            marker: packet.header.marker,
            payload: packet.payload,
        };
        if self.packets.insert(index, got).is_some() {
            self.duplicates += 1;
        }
    }

    pub(super) fn holes(&self) -> BTreeSet<u64> {
        self.holes_from(0)
    }

    fn holes_from(&self, start: u64) -> BTreeSet<u64> {
        let mut came = self.packets.range(start..).map(|(index, _)| *index).peekable();
        let mut holes = BTreeSet::new();
        while let Some(index) = came.next() {
            holes.extend(index + 1..*came.peek().unwrap_or(&index));
        }
        holes
    }

    /// The sequence numbers to ask for now.
    fn due_nacks(&mut self, now: Instant) -> Vec<u16> {
        let mut due = Vec::new();
        let newest = self.packets.last_key_value().map_or(0, |(newest, _)| *newest);
        for hole in self.holes_from(newest.saturating_sub(NACK_WINDOW)) {
            let recent = |at: &Instant| now.saturating_duration_since(*at) < NACK_RETRY;
            if !self.asked.get(&hole).is_some_and(recent) {
                self.asked.insert(hole, now);
                due.push(hole as u16);
            }
        }
        due
    }
}

pub(super) struct Client {
    pc: RTCPeerConnection,
    local: SocketAddr,
    /// The address that the network shows the gateway: a NAT in front of the client.
    pub(super) public: SocketAddr,
    random: Random,
    gop: Duration,
    passive: bool,
    pub(super) id: Option<SessionId>,
    answer: String,
    pub(super) connected_at: Option<Instant>,
    pub(super) sources: Vec<Source>,
    pub(super) recorded: BTreeMap<u32, Recorded>,
    next_nack: Option<Instant>,
    outbox: Vec<Vec<u8>>,
    heard: Arc<Mutex<Heard>>,
    /// Nothing leaves it any more: power cut.
    pub(super) dead: bool,
    pub(super) byes: usize,
}

impl Client {
    fn new(now: Instant, local: SocketAddr, options: &Options, seed: u64) -> Self {
        let mut engine = MediaEngine::default();
        register_codecs(&mut engine, !options.no_rtx);
        configure_simulcast_extension_headers(&mut engine).unwrap();
        let registry =
            Registry::new().with(Slot::NackResponder, NackResponderBuilder::new().build());
        let tap = RtcpTap::default();
        let heard = tap.heard.clone();
        let registry = configure_rtcp_reports(registry).with(Slot::from(12_500), tap);
        let mut settings = SettingEngineBuilder::new();
        if !options.srtp.is_empty() {
            settings = settings.with_srtp_protection_profiles(options.srtp.clone());
        }
        let mut pc = RTCPeerConnectionBuilder::new()
            .with_setting_engine(settings.build())
            .with_media_engine(engine)
            .with_interceptor_registry(registry)
            .build(now)
            .unwrap();
        let candidate = CandidateHostConfig {
            base_config: CandidateConfig {
                network: "udp".to_owned(),
                address: local.ip().to_string(),
                port: local.port(),
                component: 1,
                ..Default::default()
            },
            ..Default::default()
        };
        let candidate = candidate.new_candidate_host().unwrap();
        let json = RTCIceCandidate::from(&candidate).to_json().unwrap();
        pc.add_local_candidate(json).unwrap();
        Self {
            pc,
            local,
            public: local,
            random: Random::new(seed),
            gop: if options.gop.is_zero() { Duration::from_secs(2) } else { options.gop },
            passive: options.passive,
            id: None,
            answer: String::new(),
            connected_at: None,
            sources: Vec::new(),
            recorded: BTreeMap::new(),
            next_nack: None,
            outbox: Vec::new(),
            heard,
            dead: false,
            byes: 0,
        }
    }

    pub(super) fn publisher(now: Instant, local: SocketAddr, options: &Options, seed: u64) -> Self {
        let mut client = Self::new(now, local, options, seed);
        let layers = match options.layers.as_slice() {
            [] => vec![("", 1280, 720)],
            layers => layers.to_vec(),
        };
        let ssrc = |n: usize| 0x1000 + n as u32;
        let video = layers.iter().enumerate().map(|(n, (rid, ..))| {
            let rtx = rid.is_empty().then(|| RTCRtpRtxParameters { ssrc: 0x2000 + n as u32 });
            encoding(ssrc(n), rid, rtx, video_codec())
        });
        let video = client.add_track(RtpCodecKind::Video, video.collect());
        let audio = encoding(ssrc(9), "", None, audio_codec());
        let audio = client.add_track(RtpCodecKind::Audio, vec![audio]);
        for (n, (rid, width, height)) in layers.into_iter().enumerate() {
            client.add_source(ssrc(n), rid, Some((width, height)), video);
        }
        client.add_source(ssrc(9), "", None, audio);
        client
    }

    pub(super) fn viewer(now: Instant, local: SocketAddr, options: &Options, seed: u64) -> Self {
        let mut client = Self::new(now, local, options, seed);
        for kind in [RtpCodecKind::Video, RtpCodecKind::Audio] {
            let init = RTCRtpTransceiverInit {
                direction: RTCRtpTransceiverDirection::Recvonly,
                streams: vec![],
                send_encodings: vec![],
            };
            client.pc.add_transceiver_from_kind(kind, Some(init)).unwrap();
        }
        client
    }

    fn add_track(
        &mut self,
        kind: RtpCodecKind,
        encodings: Vec<RTCRtpEncodingParameters>,
    ) -> RTCRtpSenderId {
        let name = format!("{kind}");
        let track = MediaStreamTrack::new("dealer".into(), name.clone(), name, kind, encodings);
        self.pc.add_track(track).unwrap()
    }

    fn add_source(
        &mut self,
        ssrc: u32,
        rid: &'static str,
        size: Option<(u32, u32)>,
        sender: RTCRtpSenderId,
    ) {
        self.sources.push(Source {
            ssrc,
            rid,
            size,
            sender,
            // Close to the rollover, which then happens in every test.
            sequence: 65_500,
            timestamp: 0xffff_0000,
            next: None,
            next_key: None,
            key_wanted: false,
            paused: false,
            plis: 0,
            sent: Vec::new(),
        });
    }

    pub(super) fn offer(&mut self, now: Instant) -> String {
        let offer = self.pc.create_offer(None).unwrap();
        let text = offer.sdp.clone();
        self.pc.set_local_description(now, offer).unwrap();
        match self.passive {
            true => text.replace("a=setup:actpass", "a=setup:passive"),
            false => text,
        }
    }

    pub(super) fn accept(&mut self, now: Instant, created: Created) {
        self.id = Some(created.id);
        self.answer.clone_from(&created.answer);
        let answer = RTCSessionDescription::answer(created.answer).unwrap();
        self.pc.set_remote_description(now, answer).unwrap();
    }

    /// Begins an ICE restart; returns the new user fragment, for the PATCH.
    pub(super) fn begin_ice_restart(&mut self, now: Instant) -> String {
        self.pc.restart_ice();
        let offer = self.offer(now);
        let ufrag = offer.lines().find_map(|line| line.strip_prefix("a=ice-ufrag:")).unwrap();
        ufrag.to_owned()
    }

    /// Goes on with the gateway's new credentials.
    pub(super) fn finish_ice_restart(
        &mut self,
        now: Instant,
        former: (&str, &str),
        new: (&str, &str),
    ) {
        self.answer = self.answer.replace(former.0, new.0).replace(former.1, new.1);
        let answer = RTCSessionDescription::answer(self.answer.clone()).unwrap();
        self.pc.set_remote_description(now, answer).unwrap();
    }

    pub(super) fn close(&mut self) {
        self.pc.close().unwrap();
    }

    /// When the client has something to do.
    pub(super) fn next_timeout(&mut self, now: Instant) -> Option<Instant> {
        let media = self.sources.iter().filter_map(|source| source.next).min();
        [self.pc.poll_timeout().map(|at| at.max(now)), media, self.next_nack]
            .into_iter()
            .flatten()
            .min()
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.pc.poll_timeout().is_some_and(|at| at <= now) {
            self.pc.handle_timeout(now).unwrap();
        }
        for i in 0..self.sources.len() {
            self.produce(now, i);
        }
        if self.next_nack.is_some_and(|at| at <= now) {
            self.next_nack = Some(now + NACK_INTERVAL);
            self.send_nacks(now);
        }
    }

    pub(super) fn handle_datagram(&mut self, now: Instant, from: SocketAddr, bytes: &[u8]) {
        let transport = TransportContext {
            local_addr: self.local,
            peer_addr: from,
            ecn: None,
            transport_protocol: TransportProtocol::UDP,
        };
        let message = BytesMut::from(bytes);
        // What is wrong with a datagram of the gateway shows in what is missing later.
        let _ = self.pc.handle_read(TaggedBytesMut { now, transport, message });
    }

    /// What the client sends now.
    pub(super) fn transmit(&mut self, now: Instant) -> Vec<Vec<u8>> {
        self.poll(now);
        std::mem::take(&mut self.outbox)
    }

    pub(super) fn poll(&mut self, now: Instant) {
        while let Some(event) = self.pc.poll_event() {
            let connected = RTCPeerConnectionState::Connected;
            if matches!(event, RTCPeerConnectionEvent::OnConnectionStateChangeEvent(state) if state == connected)
                && self.connected_at.is_none()
            {
                self.connected_at = Some(now);
                self.next_nack = self.sources.is_empty().then_some(now + NACK_INTERVAL);
                self.sources.iter_mut().for_each(|source| source.next = Some(now));
            }
        }
        while let Some(TaggedRTCMessage { message, .. }) = self.pc.poll_read() {
            if let RTCMessage::RtpPacket(_, packet) = message {
                self.recorded.entry(packet.header.ssrc).or_default().take(now, packet);
            }
        }
        self.take_rtcp();
        while let Some(datagram) = self.pc.poll_write() {
            assert_eq!(datagram.transport.peer_addr, media_address());
            if !self.dead {
                self.outbox.push(datagram.message.to_vec());
            }
        }
    }

    fn take_rtcp(&mut self) {
        let heard = std::mem::take(&mut *self.heard.lock().unwrap());
        self.byes += heard.byes;
        for ssrc in heard.plis {
            for source in self.sources.iter_mut().filter(|source| source.ssrc == ssrc) {
                source.plis += 1;
                source.key_wanted = true;
            }
        }
    }

    /// The gateway has closed DTLS.
    pub(super) fn is_closed(&mut self) -> bool {
        let id = self.pc.get_receivers().next().expect("a viewer has receivers");
        let receiver = self.pc.rtp_receiver(id).unwrap();
        receiver.transport().is_some_and(|dtls| dtls.state() == RTCDtlsTransportState::Closed)
    }

    /// Asks the gateway for a keyframe.
    pub(super) fn send_pli(&mut self, now: Instant) {
        let media_ssrc = self.video_ssrc();
        self.write_rtcp(now, Box::new(PictureLossIndication { sender_ssrc: 1, media_ssrc }));
    }

    /// Tells the gateway what the path carries (REMB).
    pub(super) fn send_estimate(&mut self, now: Instant, bps: f32) {
        let ssrcs = vec![self.video_ssrc()];
        let remb = ReceiverEstimatedMaximumBitrate { sender_ssrc: 1, bitrate: bps, ssrcs };
        self.write_rtcp(now, Box::new(remb));
    }

    /// Tells the gateway which share of the video was lost, of 256.
    pub(super) fn send_loss(&mut self, now: Instant, fraction_lost: u8) {
        let ssrc = self.video_ssrc();
        let report = ReceptionReport { ssrc, fraction_lost, ..Default::default() };
        let report = ReceiverReport { ssrc: 1, reports: vec![report], ..Default::default() };
        self.write_rtcp(now, Box::new(report));
    }

    fn send_nacks(&mut self, now: Instant) {
        let due: Vec<(u32, Vec<u16>)> =
            self.recorded.iter_mut().map(|(ssrc, r)| (*ssrc, r.due_nacks(now))).collect();
        for (media_ssrc, sequences) in due.into_iter().filter(|(_, due)| !due.is_empty()) {
            let nacks = nack_pairs_from_sequence_numbers(&sequences);
            self.write_rtcp(
                now,
                Box::new(TransportLayerNack { sender_ssrc: 1, media_ssrc, nacks }),
            );
        }
    }

    fn write_rtcp(&mut self, now: Instant, packet: Box<dyn rtc::rtcp::Packet>) {
        let id = self.pc.get_receivers().next().expect("a viewer has receivers");
        self.pc.rtp_receiver(id).unwrap().write_rtcp(now, vec![packet]).unwrap();
    }

    /// The SSRC that the answer announced for video.
    fn video_ssrc(&self) -> u32 {
        self.announced("m=video")
    }

    fn announced(&self, media: &str) -> u32 {
        let section = self.answer.split(media).nth(1).expect("the section was answered");
        let section = section.split("\r\nm=").next().unwrap_or(section);
        let line = section.lines().find_map(|line| line.strip_prefix("a=ssrc:")).unwrap();
        line.split(' ').next().unwrap().parse().unwrap()
    }

    pub(super) fn answer(&self) -> &str {
        &self.answer
    }

    pub(super) fn video(&self) -> &Recorded {
        static NOTHING: Recorded = Recorded {
            packets: BTreeMap::new(),
            arrivals: Vec::new(),
            duplicates: 0,
            asked: BTreeMap::new(),
        };
        self.recorded.get(&self.announced("m=video")).unwrap_or(&NOTHING)
    }

    pub(super) fn audio(&self) -> &Recorded {
        &self.recorded[&self.announced("m=audio")]
    }

    fn produce(&mut self, now: Instant, i: usize) {
        let source = &mut self.sources[i];
        let Some(next) = source.next.filter(|next| *next <= now) else { return };
        let Some(size) = source.size else {
            source.next = Some(next + AUDIO_FRAME);
            source.timestamp = source.timestamp.wrapping_add(960);
            let piece = audio_frame(&mut self.random);
            return self.send(now, i, vec![piece], AUDIO_PT, false);
        };
        source.next = Some(next + FRAME);
        source.timestamp = source.timestamp.wrapping_add(3000);
        if source.paused {
            return;
        }
        let key =
            std::mem::take(&mut source.key_wanted) || source.next_key.is_none_or(|k| k <= now);
        if key {
            source.next_key = Some(now + self.gop);
        }
        let pieces = video_frame(&mut self.random, key, size);
        self.send(now, i, pieces, VIDEO_PT, key);
    }

    fn send(&mut self, now: Instant, i: usize, pieces: Vec<Piece>, payload_type: u8, key: bool) {
        let source = &mut self.sources[i];
        let mut sender = self.pc.rtp_sender(source.sender).unwrap();
        let extensions = names(sender.get_parameters(), source.rid);
        for (n, piece) in pieces.into_iter().enumerate() {
            source.sequence = source.sequence.wrapping_add(1);
            let mut header = rtp::header::Header {
                version: 2,
                marker: piece.marker,
                payload_type,
                sequence_number: source.sequence,
                timestamp: source.timestamp,
                ssrc: source.ssrc,
                ..Default::default()
            };
            for (id, value) in &extensions {
                header.set_extension(*id, value.clone()).unwrap();
            }
            source.sent.push(Sent {
                at: now,
                timestamp: source.timestamp,
                marker: piece.marker,
                opens_gop: key && n == 0,
                payload: piece.payload.clone(),
            });
            sender.write_rtp(now, rtp::Packet { header, payload: piece.payload }).unwrap();
        }
    }
}

/// The header extensions that name a simulcast layer (RFC 8852).
fn names(
    parameters: &rtc::rtp_transceiver::rtp_sender::RTCRtpSendParameters,
    rid: &'static str,
) -> Vec<(u8, Bytes)> {
    if rid.is_empty() {
        return Vec::new();
    }
    let id = |uri: &str| {
        let mut agreed = parameters.rtp_parameters.header_extensions.iter();
        agreed.find(|extension| extension.uri == uri).map(|extension| extension.id as u8)
    };
    let mid = id("urn:ietf:params:rtp-hdrext:sdes:mid").map(|id| (id, Bytes::from_static(b"0")));
    let rid = id("urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id")
        .map(|id| (id, Bytes::from_static(rid.as_bytes())));
    mid.into_iter().chain(rid).collect()
}
