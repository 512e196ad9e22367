//! Sequences: what a peer sends over the life of a session, on a virtual clock.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use bytes::Bytes;
use railbird::ingest::whip::ReceiverSettings;
use railbird::ingest::whip::receiver::Receiver;
use railbird::time::{Clock, Utc};
use railbird::webrtc::dtls::{Dtls, DtlsOutcome, DtlsRole};
use railbird::webrtc::negotiated::ReceiveTrack;
use railbird::webrtc::rtcp;
use railbird::webrtc::sdp::{Offer, PublisherRules, answer_publisher};

use super::peer::IDENTITY;
use super::records::{Records, choice};
use super::sdp::local;

/// Where every virtual clock begins.
#[allow(clippy::disallowed_methods, reason = "a virtual clock starts somewhere")]
pub(super) fn start() -> Instant {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    *START
}

/// Datagrams to a peer that waits for a handshake. The first byte chooses the
/// role; a record's tag is the time since the one before, in units of 10 ms.
pub fn dtls(data: &[u8]) {
    let (first, data) = choice(data);
    let role = [DtlsRole::Server, DtlsRole::Client][first % 2];
    let mut peer = Peer::new(role);
    let mut now = start();
    if peer.dtls.start(now).is_err() {
        return;
    }
    for (tag, datagram) in Records(data).take(32) {
        now += Duration::from_millis(u64::from(tag) * 10);
        peer.turn(now, Some(datagram));
        while peer.dtls.poll_transmit().is_some() {}
    }
}

/// A handshake between two of our peers, over a path that does what the input
/// says: each byte is the fate of one datagram (see [`Fate`]).
pub fn dtls_handshake(data: &[u8]) {
    let (mut client, mut server) = (Peer::new(DtlsRole::Client), Peer::new(DtlsRole::Server));
    let mut now = start();
    let mut fates = data.iter().copied();
    client.dtls.start(now).expect("a hello can always be made");
    for _ in 0..16 {
        let mut moved = false;
        for _ in 0..8 {
            let flights = [client.flight(), server.flight()];
            if flights.iter().all(Vec::is_empty) {
                break;
            }
            moved = true;
            let [from_client, from_server] = flights;
            deliver(&mut fates, from_client, &mut server, now);
            deliver(&mut fates, from_server, &mut client, now);
        }
        let timeouts = [client.dtls.poll_timeout(), server.dtls.poll_timeout()];
        let Some(next) = timeouts.into_iter().flatten().min() else { break };
        if client.established && server.established && !moved {
            break;
        }
        now = next.max(now + Duration::from_millis(1));
        client.turn(now, None);
        server.turn(now, None);
    }
    let harmless = data.iter().all(|fate| matches!(Fate::of(*fate), Fate::Pass | Fate::Twice));
    if harmless {
        assert!(client.established && server.established, "{data:?}");
    }
}

enum Fate {
    Pass,
    Twice,
    Lost,
    /// Cut by half.
    Cut,
    /// The byte at this share (of 32) of its length is changed.
    Changed(usize),
}

impl Fate {
    fn of(byte: u8) -> Self {
        match byte {
            0..=63 => Self::Pass,
            64..=79 => Self::Twice,
            80..=87 => Self::Lost,
            88..=95 => Self::Cut,
            _ => Self::Changed(usize::from(byte % 32)),
        }
    }
}

fn deliver(
    fates: &mut impl Iterator<Item = u8>,
    flight: Vec<Vec<u8>>,
    to: &mut Peer,
    now: Instant,
) {
    for mut datagram in flight {
        match Fate::of(fates.next().unwrap_or(0)) {
            Fate::Pass => {}
            Fate::Twice => to.turn(now, Some(&datagram)),
            Fate::Lost => continue,
            Fate::Cut => datagram.truncate(datagram.len() / 2),
            Fate::Changed(share) => {
                let at = datagram.len() * share / 32;
                let change = fates.next().unwrap_or(1);
                if let Some(byte) = datagram.get_mut(at) {
                    *byte ^= change;
                }
            }
        }
        to.turn(now, Some(&datagram));
    }
}

struct Peer {
    dtls: Dtls,
    established: bool,
    /// It ended: nothing is handed to it any more, as the transport does.
    over: bool,
}

impl Peer {
    fn new(role: DtlsRole) -> Self {
        let dtls = Dtls::new(IDENTITY.clone(), *IDENTITY.fingerprint(), role);
        Self { dtls, established: false, over: false }
    }

    fn turn(&mut self, now: Instant, datagram: Option<&[u8]>) {
        if self.over {
            return;
        }
        let due = self.dtls.poll_timeout().is_some_and(|at| at <= now);
        self.over = due && self.dtls.handle_timeout(now).is_err();
        let Some(datagram) = datagram.filter(|_| !self.over) else { return };
        match self.dtls.handle_datagram(now, datagram) {
            Ok(DtlsOutcome::Progress | DtlsOutcome::Refused) => {}
            Ok(DtlsOutcome::Established(_)) => self.established = true,
            Ok(DtlsOutcome::Closed) | Err(_) => self.over = true,
        }
    }

    /// What it sends now, at most 64 datagrams.
    fn flight(&mut self) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| self.dtls.poll_transmit()).take(64).map(|d| d.to_vec()).collect()
    }
}

/// What one publisher sends, decrypted. The first byte chooses the offer that
/// was answered. A record's tag: RTP (0), RTCP (1), a keyframe request (2) or
/// just time (3) in its two low bits; the rest is the time since the record
/// before, in milliseconds.
pub fn whip_receiver(data: &[u8]) {
    let (first, data) = choice(data);
    let tracks = &TRACKS[first % TRACKS.len()];
    let clock = Clock::fixed(start(), Utc::from_micros(1_700_000_000_000_000));
    let mut receiver = Receiver::new(tracks.clone(), clock, ReceiverSettings::default());
    let mut now = start();
    let mut last = vec![None; 16];
    for (tag, bytes) in Records(data).take(512) {
        now += Duration::from_millis(u64::from(tag >> 2));
        match tag & 3 {
            0 => _ = receiver.handle_rtp(now, Bytes::copy_from_slice(bytes)),
            1 => receiver.handle_rtcp(now, &rtcp::parse(bytes).unwrap_or_default()),
            2 => receiver
                .stats()
                .map(|(id, _)| id)
                .collect::<Vec<_>>()
                .into_iter()
                .for_each(|layer| receiver.request_keyframe(layer)),
            _ => now += Duration::from_millis(64 * bytes.len() as u64),
        }
        if receiver.poll_timeout().is_some_and(|at| at <= now) {
            receiver.handle_timeout(now);
        }
        while let Some((layer, packet)) = receiver.poll_packet() {
            let place = usize::from(layer.track) * 8 + usize::from(layer.layer);
            let before = last.get_mut(place).expect("two tracks of four layers at most");
            assert!(before.is_none_or(|seq| seq < packet.seq), "out of order");
            *before = Some(packet.seq);
        }
        let mut reports = 0;
        while let Some(report) = receiver.poll_rtcp(now) {
            rtcp::parse(&report).expect("what we write is RTCP");
            assert!(report.len() <= 1200, "{} bytes", report.len());
            reports += 1;
            assert!(reports < 64, "reports without end");
        }
    }
}

/// What was agreed with publishers of different kinds.
static TRACKS: LazyLock<[Vec<ReceiveTrack>; 3]> = LazyLock::new(|| {
    [
        include_str!("../../src/webrtc/sdp/testdata/chromium_camera.sdp"),
        include_str!("../../src/webrtc/sdp/testdata/chromium_simulcast.sdp"),
        include_str!("../../src/webrtc/sdp/testdata/obs_whip.sdp"),
    ]
    .map(|text| {
        let offer = Offer::parse(text).expect("a real offer");
        let answer = answer_publisher(&offer, &local(), &PublisherRules::default());
        answer.expect("something to send").tracks
    })
});
