//! A viewer of a VP8 simulcast that changes layers: what leaves is opened with the
//! viewer's keys and read as a decoder would.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::*;
use crate::codec::Codec;
use crate::hub::{PublishRequest, Publisher, Registry};
use crate::media::{LayerId, Packet, TrackInfo};
use crate::net::udp::{DatagramSink, Traffic};
use crate::route::Route;
use crate::rtp::RtpHeader;
use crate::rtp::extensions::PlayoutDelay;
use crate::time::Utc;
use crate::webrtc::negotiated::{ExtensionIds, SendTrack};
use crate::webrtc::rtcp::{CompoundBuilder, ReceptionReport, ReportBlock, Rtcp, ntp_middle, parse};
use crate::webrtc::srtp::{KeyingMaterial, Opener, Profile, Sealer};

const SSRC: u32 = 0xcafe;
const RTX_SSRC: u32 = 0xbeef;
const FRAME: Duration = Duration::from_millis(33);
const KEYS: [u8; 56] = [7; 56];

/// Keeps what is sent, sealed.
#[derive(Default)]
struct Outbox(Vec<Vec<u8>>);

impl DatagramSink for Outbox {
    fn push(&mut self, _: Route, _: Traffic, write: impl FnOnce(&mut [u8]) -> Option<usize>) {
        let mut buffer = vec![0; 1500];
        if let Some(len) = write(&mut buffer) {
            buffer.truncate(len);
            self.0.push(buffer);
        }
    }
}

/// What a decoder reads of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    ssrc: u32,
    sequence: u16,
    timestamp: u32,
    picture_id: u16,
    base_index: u8,
    key_index: u8,
    keyframe: bool,
    /// Which layer it is of.
    layer: u8,
}

struct Rig {
    now: Instant,
    start: Instant,
    _publisher: Publisher,
    stream: FanoutStream,
    watching: Arc<Watching>,
    seat: Option<Seat>,
    sent: Outbox,
    opener: Opener,
    frames: u64,
}

impl Rig {
    fn new(rtx: bool) -> Self {
        let registry = Registry::new(1);
        let rids = vec!["l".to_owned(), "h".to_owned()];
        let request = PublishRequest {
            table: "demo".parse().unwrap(),
            tracks: vec![TrackInfo { codec: Codec::Vp8, channels: 0, fmtp: String::new(), rids }],
            credentials: None,
            now: Utc::default(),
            waker: Waker::noop().clone(),
        };
        let publisher = registry.publish(request).unwrap();
        let hub = registry.get(&"demo".parse().unwrap()).unwrap();
        let track = SendTrack {
            mid: "0".to_owned(),
            track: 0,
            payload_type: 96,
            rtx_payload_type: rtx.then_some(97),
            ssrc: SSRC,
            rtx_ssrc: RTX_SSRC,
            extensions: ExtensionIds { abs_send_time: Some(2), ..ExtensionIds::default() },
            nack: true,
            pli: true,
        };
        let now = Instant::now();
        let stream = FanoutStream::new(hub.clone());
        let watching = Watching::new(hub, std::slice::from_ref(&track));
        let keys = KeyingMaterial::new(Profile::AeadAes128Gcm, &KEYS).unwrap();
        let spec = ViewerSpec {
            peer: 0,
            to: Route::from("192.0.2.1:9".parse::<std::net::SocketAddr>().unwrap()),
            sealer: Sealer::new(&keys, false).unwrap(),
            tracks: vec![track],
            seeds: vec![0x1234_5678_0000_7ff0],
            watching: watching.clone(),
            cname: "viewer".to_owned(),
            playout_delay: PlayoutDelay::from_millis(0, 100),
        };
        let mut rig = Self {
            now,
            start: now,
            _publisher: publisher,
            seat: None,
            stream,
            watching,
            sent: Outbox::default(),
            opener: Opener::new(&keys, false).unwrap(),
            frames: 0,
        };
        rig.frame(true, true);
        rig.seat = Some(rig.stream.join(rig.now, spec));
        rig.pass();
        rig
    }

    fn context(&self) -> PassContext {
        let utc = Utc::default().offset_micros((self.now - self.start).as_micros() as i64);
        PassContext::new(self.now, utc)
    }

    fn pass(&mut self) {
        for _ in 0..20 {
            let context = self.context();
            self.stream.pass(&context, 1000, &mut self.sent, &mut Vec::new());
            self.now += Duration::from_millis(1);
        }
    }

    /// One frame of both layers, in two packets each. The encoders number on their own.
    fn frame(&mut self, low_key: bool, high_key: bool) {
        for (layer, key) in [(0u8, low_key), (1, high_key)] {
            for part in 0..2u8 {
                let frame = self.frames;
                let offset = [300, 17_000][usize::from(layer)];
                let id = (frame as u16).wrapping_add(offset) | 0x8000;
                let [high, low] = id.to_be_bytes();
                let start = if part == 0 { 0x90 } else { 0x80 };
                let index = (frame as u8).wrapping_add(layer * 100);
                let key_index = 0x20 | ((frame / 10) as u8 + layer * 7) & 0x1f;
                let tag = if key { 0x10 } else { 0x11 };
                let payload =
                    vec![start, 0xf0, high, low, index, key_index, tag, layer, part, frame as u8];
                let micros = frame as i64 * 33_000;
                let packet = Packet {
                    seq: frame * 2 + u64::from(part) + u64::from(layer) * 50_000,
                    timestamp: frame * 2970 + u64::from(layer) * 1_000_000,
                    marker: part == 1,
                    keyframe: key,
                    capture: Utc::default().offset_micros(micros),
                    received: self.now,
                    payload: Bytes::from(payload),
                };
                self.stream.push(self.now, LayerId { track: 0, layer }, Arc::new(packet));
            }
        }
        self.frames += 1;
    }

    /// Frames without keyframes, and what the viewer was sent of them.
    fn run(&mut self, frames: usize) {
        for _ in 0..frames {
            self.frame(false, false);
            self.pass();
            self.now += FRAME - Duration::from_millis(20);
        }
    }

    fn choose(&mut self, layer: Option<u8>) {
        self.watching.tracks[0].choose(layer);
        self.stream.choose_layers(self.seat.unwrap());
    }

    /// Asks for packets again; returns what comes, sealed.
    fn nack(&mut self, sequences: &[u16]) -> Vec<Vec<u8>> {
        let before = self.sent.0.len();
        let bytes =
            CompoundBuilder::new(1).receiver_report(&[], "v").nack(SSRC, sequences).finish();
        self.report(&parse(&bytes).unwrap());
        self.sent.0.split_off(before)
    }

    fn report(&mut self, messages: &[Rtcp]) -> Option<Duration> {
        let context = self.context();
        self.stream.handle_rtcp(self.seat.unwrap(), messages, &context, &mut self.sent)
    }

    /// Opens what was sent since the last call.
    fn seen(&mut self) -> Vec<Seen> {
        let sealed = std::mem::take(&mut self.sent.0);
        sealed.into_iter().map(|packet| self.open(packet)).collect()
    }

    fn open(&mut self, mut packet: Vec<u8>) -> Seen {
        let len = self.opener.open_rtp(&mut packet).unwrap();
        packet.truncate(len);
        let header = RtpHeader::parse(&packet).unwrap();
        let body = &packet[header.payload_range.clone()];
        let body = if header.ssrc == RTX_SSRC { &body[2..] } else { body };
        Seen {
            ssrc: header.ssrc,
            sequence: header.sequence,
            timestamp: header.timestamp,
            picture_id: u16::from_be_bytes([body[2] & 0x7f, body[3]]),
            base_index: body[4],
            key_index: body[5] & 0x1f,
            keyframe: body[6] & 1 == 0,
            layer: body[7],
        }
    }
}

/// Panics unless a decoder sees one stream without a hole; returns its layers in turn.
fn assert_continuous(seen: &[Seen]) -> Vec<u8> {
    let mut layers = vec![seen[0].layer];
    for pair in seen.windows(2) {
        let (last, next) = (pair[0], pair[1]);
        assert_eq!(next.sequence, last.sequence.wrapping_add(1), "{pair:?}");
        let frames = u16::from(next.timestamp != last.timestamp);
        assert_eq!(next.picture_id, (last.picture_id + frames) & 0x7fff, "{pair:?}");
        assert_eq!(next.base_index, last.base_index.wrapping_add(frames as u8), "{pair:?}");
        assert!(next.timestamp.wrapping_sub(last.timestamp) < 90_000, "{pair:?}");
        let keys = next.key_index.wrapping_sub(last.key_index) & 0x1f;
        assert!(keys <= 1, "{pair:?}");
        if next.layer != last.layer {
            assert!(next.keyframe && frames == 1 && keys == 1, "{pair:?}");
            layers.push(next.layer);
        }
    }
    layers
}

#[test]
fn a_decoder_sees_one_stream_over_many_switches() {
    let mut rig = Rig::new(true);
    rig.run(20);
    for (round, layer) in
        [Some(0), Some(1), Some(0), Some(1), Some(0), None].into_iter().enumerate()
    {
        rig.choose(layer);
        rig.run(20);
        // A keyframe of the other layer only is no place to go over.
        rig.frame(round % 2 != 0, round % 2 == 0);
        rig.run(9);
        rig.frame(true, true);
        rig.run(30);
    }
    let seen = rig.seen();
    assert_eq!(assert_continuous(&seen), [1, 0, 1, 0, 1, 0, 1]);
    assert_eq!(seen.len() as u64, rig.frames * 2, "no frame is left out or sent twice");
    assert_eq!(rig.watching.tracks[0].sent(), Sent::Layer(1));
    let counts = rig.watching.stream.egress.snapshot();
    assert_eq!((counts.switched_manual, counts.switched_up), (5, 1));
}

#[test]
fn no_number_ever_seals_a_second_plaintext() {
    let mut rig = Rig::new(false);
    rig.run(20);
    rig.choose(Some(0));
    rig.frame(true, true);
    rig.run(40);
    let sealed = rig.sent.0.clone();
    let seen = rig.seen();
    assert_eq!(assert_continuous(&seen), [1, 0]);
    let switch = seen.iter().position(|seen| seen.layer == 0).unwrap();
    let mut answered = BTreeSet::new();
    for (at, packet) in sealed.iter().enumerate() {
        // The time of sending is not in it, and the numbers are those of its first sending.
        rig.now += Duration::from_millis(3);
        let again = rig.nack(&[seen[at].sequence]);
        assert!(again.iter().all(|again| again == packet), "{at}");
        answered.extend((!again.is_empty()).then_some(at));
    }
    assert_eq!(
        answered,
        (switch..sealed.len()).collect::<BTreeSet<_>>(),
        "what is from before the switch is not resent"
    );
}

#[test]
fn a_retransmission_has_the_numbers_of_the_first_sending() {
    let mut rig = Rig::new(true);
    rig.choose(Some(0));
    rig.run(20);
    rig.frame(true, true);
    rig.run(20);
    let seen = rig.seen();
    let last = *seen.last().unwrap();
    assert_eq!(last.layer, 0);
    let again = rig.nack(&[last.sequence]).remove(0);
    let again = rig.open(again);
    assert_eq!(again, Seen { ssrc: RTX_SSRC, sequence: again.sequence, ..last });
}

#[test]
fn a_path_that_collapses_pauses_the_video_and_a_keyframe_resumes_it() {
    let mut rig = Rig::new(true);
    rig.choose(Some(0));
    rig.frame(true, true);
    for _ in 0..12 {
        rig.run(30);
        rig.report(&[Rtcp::Remb { bitrate_bps: 0, ssrcs: vec![SSRC] }]);
        rig.pass();
    }
    assert_eq!(rig.watching.tracks[0].sent(), Sent::Paused);
    let before = rig.seen();
    let counts = rig.watching.stream.egress.snapshot();
    assert_eq!(counts.paused, 1);
    // When it is tried again there is no keyframe at first.
    rig.run(150);
    assert_eq!(rig.seen(), []);
    assert_eq!(rig.watching.stream.egress.snapshot().resumed, 1);
    rig.frame(true, true);
    rig.run(30);
    let after = rig.seen();
    assert!(after[0].keyframe);
    assert_eq!(after[0].sequence, before.last().unwrap().sequence.wrapping_add(1));
    assert_eq!(after[0].picture_id, before.last().unwrap().picture_id + 1);
    // The clock has gone on: the pause is as long for the player as it was.
    let ticks = after[0].timestamp.wrapping_sub(before.last().unwrap().timestamp);
    assert!(ticks > 5 * 90_000, "{ticks}");
    assert_continuous(&after);
}

#[test]
fn a_narrow_path_is_not_sent_the_high_layer_while_the_low_one_has_no_keyframe() {
    let mut rig = Rig::new(true);
    rig.run(60);
    rig.report(&[Rtcp::Remb { bitrate_bps: 1, ssrcs: vec![SSRC] }]);
    rig.run(90);
    let seen = rig.seen();
    let counts = rig.watching.stream.egress.snapshot();
    assert_eq!((counts.switched_down_estimate, counts.paused), (1, 0));
    assert!((2 * 110..2 * 130).contains(&seen.len()), "two seconds more: {}", seen.len());
    rig.frame(true, false);
    rig.run(10);
    let after = rig.seen();
    assert!(after.len() == 22 && after[0].keyframe && after[0].layer == 0, "{after:?}");
    assert_eq!(after[0].picture_id, seen.last().unwrap().picture_id + 1);
}

#[test]
fn a_viewer_is_asked_for_its_round_trip_time_twice_a_second_at_most() {
    let mut rig = Rig::new(true);
    let mut samples = 0;
    for _ in 0..100 {
        let last_sr = ntp_middle(rig.context().utc.to_ntp()).wrapping_sub(1 << 16);
        let block = ReportBlock { source_ssrc: SSRC, last_sr, ..ReportBlock::default() };
        let report = Rtcp::ReceptionReport(ReceptionReport { reporter_ssrc: 1, block });
        samples += usize::from(rig.report(std::slice::from_ref(&report)).is_some());
        samples += usize::from(rig.report(&[report]).is_some());
        rig.now += Duration::from_millis(20);
    }
    assert_eq!(samples, 4);
}

#[test]
fn a_storm_of_nacks_is_looked_up_so_often_and_no_more() {
    let mut rig = Rig::new(true);
    let never_sent: Vec<u16> = (40_000..40_250).collect();
    for _ in 0..100 {
        assert!(rig.nack(&never_sent).is_empty());
    }
    let counts = rig.stream.stream().egress.snapshot();
    assert_eq!(
        (counts.nacked, counts.resend_missed, counts.resend_refused),
        (25_000, 1_024, 23_976)
    );
    // A second later it is heard as anybody else.
    rig.now += Duration::from_secs(1);
    rig.nack(&never_sent);
    assert_eq!(rig.stream.stream().egress.snapshot().resend_missed, 1_274);
}
