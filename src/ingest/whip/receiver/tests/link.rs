//! A model of a publisher and of the path from it, on a virtual clock.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::codec::Codec;
use crate::ingest::whip::receiver::{Receiver, ReceiverSettings, Reject};
use crate::media::{LayerId, Packet, TrackInfo};
use crate::rtp::{HeaderFields, RtpHeader, header_len, write_header};
use crate::time::{Clock, Utc};
use crate::webrtc::negotiated::{ExtensionIds, ReceiveTrack, SsrcPair};
use crate::webrtc::rtcp::{self, Rtcp};

pub const LAYER: LayerId = LayerId { track: 0, layer: 0 };
pub const MEDIA: u32 = 0x1111;
pub const RTX: u32 = 0x2222;
pub const PT: u8 = 96;
pub const RTX_PT: u8 = 97;
pub const UTC_AT_START: Utc = Utc::from_micros(1_760_000_000_000_000);

/// A VP8 track with RTX, NACK and PLI and its SSRCs announced.
pub fn video() -> ReceiveTrack {
    ReceiveTrack {
        mid: "0".to_owned(),
        info: TrackInfo {
            codec: Codec::Vp8,
            channels: 0,
            fmtp: String::new(),
            rids: vec![String::new()],
        },
        payload_type: PT,
        rtx_payload_type: Some(RTX_PT),
        ssrcs: vec![SsrcPair { media: MEDIA, rtx: Some(RTX) }],
        extensions: ExtensionIds {
            mid: Some(1),
            rid: Some(2),
            repaired_rid: Some(3),
            abs_capture_time: Some(4),
            transport_cc: Some(5),
            ..ExtensionIds::default()
        },
        nack: true,
        pli: true,
    }
}

/// An RTP packet.
pub fn rtp(fields: HeaderFields, extensions: &[(u8, &[u8])], payload: &[u8]) -> Bytes {
    let mut packet = vec![0; header_len(extensions).expect("valid extensions")];
    write_header(&mut packet, &fields, extensions).expect("room");
    packet.extend_from_slice(payload);
    packet.into()
}

/// The same packet with `padding` bytes of padding behind it.
pub fn padded(packet: &Bytes, padding: u8) -> Bytes {
    let mut packet = packet.to_vec();
    packet[0] |= 0x20;
    packet.resize(packet.len() + usize::from(padding) - 1, 0);
    packet.push(padding);
    packet.into()
}

/// A VP8 payload (RFC 7741) that carries a number: key frames and others.
pub fn vp8(first_of_frame: bool, key: bool, number: u32) -> Vec<u8> {
    let mut payload = vec![if first_of_frame { 0x10 } else { 0x00 }, u8::from(!key)];
    if first_of_frame && key {
        payload.extend_from_slice(&[0x00, 0x00, 0x9d, 0x01, 0x2a, 0x80, 0x02, 0x68, 0x01]);
    }
    payload.extend_from_slice(&number.to_be_bytes());
    payload
}

/// The number of a [`vp8`] payload.
pub fn number(packet: &Packet) -> u32 {
    let tail = packet.payload.last_chunk::<4>().expect("four bytes");
    u32::from_be_bytes(*tail)
}

/// What the path does.
#[derive(Clone, Copy)]
pub struct Path {
    pub loss: f64,
    pub duplicates: f64,
    /// Each packet is delayed by up to so much on top of `delay`.
    pub spread: Duration,
    /// One way.
    pub delay: Duration,
}

pub const CLEAN: Path =
    Path { loss: 0.0, duplicates: 0.0, spread: Duration::ZERO, delay: Duration::from_millis(20) };

/// One publisher, one receiver and the path between them.
pub struct World {
    pub start: Instant,
    pub now: Instant,
    pub receiver: Receiver,
    pub path: Path,
    pub rng: StdRng,
    /// Answers NACKs on the RTX SSRC; `None`: on the media SSRC; see `answers`.
    pub rtx_ssrc: Option<u32>,
    pub answers: bool,
    /// Answers PLIs with a key frame.
    pub makes_keyframes: bool,
    pub ssrc: u32,
    pub seq: u16,
    pub timestamp: u32,
    pub sent: u32,
    pub packets: Vec<(LayerId, Packet)>,
    pub plis: Vec<Duration>,
    pub nacked: Vec<u16>,
    pub messages: Vec<(Instant, Rtcp)>,
    key_next: bool,
    rtx_seq: u16,
    history: HashMap<u16, Bytes>,
    forward: BTreeMap<(Instant, u64), Bytes>,
    backward: BTreeMap<(Instant, u64), Vec<u8>>,
    order: u64,
}

impl World {
    pub fn new(track: ReceiveTrack, path: Path, seed: u64) -> Self {
        let start = Instant::now() + Duration::from_secs(100_000);
        let clock = Clock::fixed(start, UTC_AT_START);
        Self {
            start,
            now: start,
            rtx_ssrc: track.rtx_payload_type.map(|_| RTX),
            receiver: Receiver::new(vec![track], clock, ReceiverSettings::default()),
            path,
            rng: StdRng::seed_from_u64(seed),
            answers: true,
            makes_keyframes: true,
            ssrc: MEDIA,
            seq: 65_500,
            timestamp: u32::MAX - 100_000,
            sent: 0,
            packets: Vec::new(),
            plis: Vec::new(),
            nacked: Vec::new(),
            messages: Vec::new(),
            key_next: true,
            rtx_seq: 7,
            history: HashMap::new(),
            forward: BTreeMap::new(),
            backward: BTreeMap::new(),
            order: 0,
        }
    }

    /// Sends a frame of `size` packets each 33 ms for `millis`, in steps of 1 ms.
    pub fn run(&mut self, millis: u64, size: u32) {
        for step in 0..millis {
            if step % 33 == 0 {
                self.send_frame(size);
            }
            self.step();
        }
    }

    /// Lets the time go on without new frames.
    pub fn idle(&mut self, millis: u64) {
        (0..millis).for_each(|_| self.step());
    }

    pub fn send_frame(&mut self, size: u32) {
        let key = std::mem::take(&mut self.key_next);
        for part in 0..size {
            let payload = vp8(part == 0, key, self.sent);
            let fields = HeaderFields {
                marker: part + 1 == size,
                payload_type: PT,
                sequence: self.seq,
                timestamp: self.timestamp,
                ssrc: self.ssrc,
            };
            let packet = rtp(fields, &[], &payload);
            self.history.insert(self.seq, packet.clone());
            self.seq = self.seq.wrapping_add(1);
            self.sent += 1;
            self.transmit(packet);
        }
        self.timestamp = self.timestamp.wrapping_add(33 * 90);
    }

    pub fn send_keyframe(&mut self, size: u32) {
        self.key_next = true;
        self.send_frame(size);
    }

    /// A sender report of the media stream comes now; its RTP time is the next frame's.
    pub fn sender_report(&mut self, ntp: u64) {
        let (ssrc, rtp_time) = (self.ssrc, self.timestamp);
        let report = rtcp::SenderReport { ssrc, ntp, rtp_time, packets: 0, octets: 0 };
        self.receiver.handle_rtcp(self.now, &[Rtcp::SenderReport(report)]);
    }

    /// Puts a packet on the path.
    pub fn transmit(&mut self, packet: Bytes) {
        if self.rng.random_bool(self.path.loss) {
            return;
        }
        let copies = if self.rng.random_bool(self.path.duplicates) { 2 } else { 1 };
        for _ in 0..copies {
            let spread = self.rng.random_range(0..=self.path.spread.as_micros() as u64);
            let at = self.now + self.path.delay + Duration::from_micros(spread);
            self.order += 1;
            self.forward.insert((at, self.order), packet.clone());
        }
    }

    /// Hands a packet to the receiver at once.
    pub fn deliver(&mut self, packet: Bytes) -> Result<(), Reject> {
        let result = self.receiver.handle_rtp(self.now, packet);
        self.poll();
        result
    }

    pub fn step(&mut self) {
        self.now += Duration::from_millis(1);
        while let Some(entry) = self.forward.first_entry().filter(|e| e.key().0 <= self.now) {
            let packet = entry.remove();
            self.receiver.handle_rtp(self.now, packet).expect("bound");
            self.poll();
        }
        if self.receiver.poll_timeout().is_some_and(|at| at <= self.now) {
            self.receiver.handle_timeout(self.now);
            self.poll();
            let next = self.receiver.poll_timeout();
            assert!(next.is_none_or(|at| at > self.now), "a deadline that nothing serves");
        }
        while let Some(entry) = self.backward.first_entry().filter(|e| e.key().0 <= self.now) {
            let compound = entry.remove();
            self.answer(&compound);
        }
    }

    fn poll(&mut self) {
        self.packets.extend(std::iter::from_fn(|| self.receiver.poll_packet()));
        while let Some(compound) = self.receiver.poll_rtcp(self.now) {
            assert!(compound.len() <= 1200);
            self.order += 1;
            self.backward.insert((self.now + self.path.delay, self.order), compound);
        }
    }

    fn answer(&mut self, compound: &[u8]) {
        for message in rtcp::parse(compound).expect("valid RTCP") {
            match &message {
                Rtcp::Nack { media_ssrc, seqs } => {
                    assert_eq!(*media_ssrc, self.ssrc);
                    let seqs: Vec<u16> = seqs.iter().collect();
                    self.nacked.extend(&seqs);
                    if self.answers {
                        seqs.into_iter().for_each(|seq| self.resend(seq));
                    }
                }
                Rtcp::Pli { media_ssrc } => {
                    assert_eq!(*media_ssrc, self.ssrc);
                    self.plis.push(self.now - self.start);
                    self.key_next |= self.makes_keyframes;
                }
                _ => {}
            }
            self.messages.push((self.now, message));
        }
    }

    fn resend(&mut self, seq: u16) {
        let packet = self.history.get(&seq).expect("asks for what was sent").clone();
        let Some(ssrc) = self.rtx_ssrc else { return self.transmit(packet) };
        let header = RtpHeader::parse(&packet).expect("ours");
        let mut payload = seq.to_be_bytes().to_vec();
        payload.extend_from_slice(&packet[header.payload_range.clone()]);
        let fields = HeaderFields {
            marker: header.marker,
            payload_type: RTX_PT,
            sequence: self.rtx_seq,
            timestamp: header.timestamp,
            ssrc,
        };
        self.rtx_seq = self.rtx_seq.wrapping_add(1);
        self.transmit(rtp(fields, &[], &payload));
    }

    /// The numbers of what came out.
    pub fn numbers(&self) -> Vec<u32> {
        self.packets.iter().map(|(_, packet)| number(packet)).collect()
    }

    /// Packets in order and their numbers as far apart as their places.
    pub fn assert_in_order(&self) {
        for pair in self.packets.windows(2) {
            let (a, b) = (&pair[0].1, &pair[1].1);
            assert!(b.seq > a.seq);
            assert_eq!(b.seq - a.seq, u64::from(number(b) - number(a)));
        }
    }
}
