//! One viewer of the crowd as a sans-IO machine: ICE, DTLS, SRTP reception, feedback.
//!
//! Only the header of most media packets is read. Opened are all packets of the viewers
//! that verify, those of the others while they wait for a keyframe, and resends (RFC
//! 4588), whose original number stands in the encrypted part.
//!
//! Order of calls: `handle_datagram` and, at `poll_timeout`, `handle_timeout`; after
//! each, `poll_transmit` until it returns `None`.

mod feedback;
mod insider;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::crowd::answer::{Answer, Format};
use crate::crowd::frames::{Facts, Frame};
use crate::crowd::header::Header;
use crate::crowd::ice::{self, Agent, Credentials};
use crate::crowd::keyframe::begins_keyframe;
use crate::crowd::measure::Collector;
use crate::crowd::reception::Arrival;
use crate::crowd::report::{TrackTotals, ViewerReport};
use crate::crowd::rtcp::{self, Message};
use crate::crowd::secure::{Handshake, Identity, Keys, Outcome, SecureError};
use crate::crowd::stream::Stream;

/// How long ICE and DTLS may take.
pub const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// One packet in so many is opened for the rollover counter, which is told from half a
/// turn of the sequence number: several in a row may be lost.
const ROLLOVER_EVERY: u16 = 4096;
/// RTP clock of video.
const VIDEO_CLOCK: u32 = 90_000;

/// A moment, on both clocks.
#[derive(Clone, Copy, Debug)]
pub struct At {
    /// For timers.
    pub now: Instant,
    /// UTC microseconds since the Unix epoch; of a datagram, when it reached the host.
    pub utc: i64,
}

/// What a viewer tells the server it can take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Estimate {
    /// Nothing.
    #[default]
    Silent,
    /// Always so many bits a second.
    Fixed(u64),
    /// Half more than what came in the last second.
    Measured,
}

/// What a viewer is made of.
pub struct Setup {
    /// Number of the viewer in the crowd.
    pub index: usize,
    /// Its group.
    pub group: usize,
    /// Whether to open every packet.
    pub verify: bool,
    /// What it says it can take.
    pub estimate: Estimate,
    /// Delay of the simulated last mile, which checks do not see.
    pub delay: Duration,
    /// When it was due to join: its times count from here.
    pub due: Instant,
    /// Our side's names, which the offer told.
    pub ufrag: String,
    /// Our side's password.
    pub pwd: String,
    /// The server's answer.
    pub answer: Answer,
    /// SSRC of its reports, and seed of its pauses.
    pub ssrc: u32,
}

enum Phase {
    Connecting,
    Watching,
    Over(String),
}

/// The viewer.
pub struct Viewer {
    setup: Setup,
    identity: Arc<Identity>,
    agent: Agent,
    handshake: Option<Handshake>,
    keys: Option<Box<Keys>>,
    phase: Phase,
    started: Instant,
    /// UTC microseconds at which there were keys.
    connected_utc: Option<i64>,
    out: VecDeque<(SocketAddr, Vec<u8>)>,
    video: Option<Stream>,
    audio: Option<Stream>,
    rtx_ssrc: Option<u32>,
    report: ViewerReport,
    report_due: Option<Instant>,
    /// Bytes that had come at the last estimate, and when it was.
    estimated: (u64, Instant),
    /// Only a keyframe helps: none has come, or a frame was damaged since.
    broken: bool,
    asked: Option<Instant>,
    stamped: bool,
    frozen: bool,
    ended: Vec<Frame>,
}

impl Viewer {
    /// A viewer whose offer was answered.
    pub fn new(now: Instant, identity: Arc<Identity>, setup: Setup) -> Self {
        let credentials = Credentials {
            local_ufrag: setup.ufrag.clone(),
            local_pwd: setup.pwd.clone(),
            remote_ufrag: setup.answer.ufrag.clone(),
            remote_pwd: setup.answer.pwd.clone(),
        };
        let candidates = setup.answer.candidates.clone();
        let report = ViewerReport {
            index: setup.index,
            group: setup.group,
            verified: setup.verify,
            ..ViewerReport::default()
        };
        Self {
            agent: Agent::new(now, credentials, candidates, u64::from(setup.ssrc) << 20),
            identity,
            setup,
            handshake: None,
            keys: None,
            phase: Phase::Connecting,
            started: now,
            connected_utc: None,
            out: VecDeque::new(),
            video: None,
            audio: None,
            rtx_ssrc: None,
            report,
            report_due: None,
            estimated: (0, now),
            broken: true,
            asked: None,
            stamped: false,
            frozen: false,
            ended: Vec::new(),
        }
    }

    /// The server's address, once found.
    pub fn server(&self) -> Option<SocketAddr> {
        self.agent.selected()
    }

    /// Whether media may come.
    pub fn is_watching(&self) -> bool {
        matches!(self.phase, Phase::Watching)
    }

    /// Whether it has ended, for whatever reason.
    pub fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Over(_))
    }

    /// What it has counted so far.
    pub fn counted(&self) -> &ViewerReport {
        &self.report
    }

    /// The next datagram to send, and where.
    pub fn poll_transmit(&mut self) -> Option<(SocketAddr, Vec<u8>)> {
        if let Some(check) = self.agent.poll_transmit() {
            return Some(check);
        }
        if let (Some(handshake), Some(to)) = (&mut self.handshake, self.agent.selected())
            && let Some(datagram) = handshake.poll_transmit()
        {
            return Some((to, datagram.to_vec()));
        }
        self.out.pop_front()
    }

    /// When [`Self::handle_timeout`] is due; `None` when it is over.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let mut due = match self.phase {
            Phase::Over(_) => return None,
            Phase::Connecting => self.started + CONNECT_LIMIT,
            Phase::Watching => self.agent.poll_timeout(),
        };
        due = due.min(self.agent.poll_timeout());
        let handshake = self.handshake.as_ref().filter(|_| self.keys.is_none());
        let handshake = handshake.and_then(Handshake::poll_timeout);
        let streams = [&self.video, &self.audio].into_iter().flatten();
        let holes = streams.filter_map(|stream| stream.reception.poll_timeout());
        holes.chain(handshake).chain(self.report_due).fold(due, Instant::min).into()
    }

    /// Takes a datagram.
    pub fn handle_datagram(
        &mut self,
        at: At,
        from: SocketAddr,
        datagram: &[u8],
        collector: &mut Collector,
    ) {
        // RFC 7983 §7, and RTCP by its packet types (RFC 5761 §4).
        match datagram {
            [128..=191, 192..=223, ..] => self.handle_rtcp(at, datagram),
            [128..=191, ..] => self.handle_rtp(at, datagram, collector),
            [0..=3, ..] => self.handle_stun(at, from, datagram),
            [20..=63, ..] => self.handle_dtls(at, datagram),
            _ => {}
        }
    }

    fn handle_stun(&mut self, at: At, from: SocketAddr, datagram: &[u8]) {
        let outcome = self.agent.handle(at.now, from, datagram, self.identity.crypto());
        if matches!(outcome, ice::Outcome::Selected(_)) && self.handshake.is_none() {
            let client = !self.setup.answer.server_is_client;
            let expected = self.setup.answer.fingerprint;
            match Handshake::start(at.now, Arc::clone(&self.identity), expected, client) {
                Ok(handshake) => self.handshake = Some(handshake),
                Err(error) => self.phase = Phase::Over(error.to_string()),
            }
        }
    }

    fn handle_dtls(&mut self, at: At, datagram: &[u8]) {
        let Some(handshake) = &mut self.handshake else { return };
        match handshake.handle(at.now, datagram) {
            Ok(Outcome::Keys(keys)) => {
                self.report.connected_micros =
                    Some(micros(at.now.saturating_duration_since(self.setup.due)));
                self.connected_utc = Some(at.utc);
                self.report.profile = keys.profile();
                self.keys = Some(keys);
                self.phase = Phase::Watching;
                // Spread over the second, so that the crowd does not report in step.
                let spread = u64::from(self.setup.ssrc) % 1_000_000;
                self.report_due = Some(at.now + Duration::from_micros(spread));
            }
            Ok(Outcome::Closed) => self.phase = Phase::Over("the server closed".to_owned()),
            Ok(Outcome::Progress) => {}
            Err(error) => self.fail(error),
        }
    }

    fn fail(&mut self, error: SecureError) {
        self.phase = Phase::Over(error.to_string());
    }

    fn handle_rtcp(&mut self, at: At, datagram: &[u8]) {
        let Some(keys) = &mut self.keys else { return };
        let Some(compound) = keys.open_rtcp(datagram) else {
            self.report.auth_failures += 1;
            return;
        };
        for message in rtcp::parse(&compound) {
            let Message::SenderReport(report) = message else { continue };
            let streams = [&mut self.video, &mut self.audio].into_iter().flatten();
            for stream in streams.filter(|stream| stream.ssrc == report.ssrc) {
                stream.sender_report = Some((report, at.now));
            }
        }
    }

    fn handle_rtp(&mut self, at: At, packet: &[u8], collector: &mut Collector) {
        let Some(header) = Header::parse(packet) else { return };
        if self.keys.is_none() {
            self.report.early += 1;
            return;
        }
        if self.video.as_ref().is_some_and(|stream| stream.ssrc == header.ssrc) {
            self.handle_video(at, header, packet, collector);
        } else if self.audio.as_ref().is_some_and(|stream| stream.ssrc == header.ssrc) {
            self.handle_audio(at, header, packet);
        } else if self.rtx_ssrc == Some(header.ssrc) {
            self.handle_resend(at, header, packet, collector);
        } else {
            self.handle_unknown(at, header, packet, collector);
        }
    }

    /// A source that was not seen before: its payload type says what it is.
    fn handle_unknown(
        &mut self,
        at: At,
        header: Header<'_>,
        packet: &[u8],
        collector: &mut Collector,
    ) {
        match self.setup.answer.format(header.payload_type) {
            // Another source of the same kind takes the place of the first.
            Some(Format::Video(codec)) => {
                let stream = Stream::new(header.ssrc, VIDEO_CLOCK, Some(codec));
                retire(self.video.replace(stream), &mut self.report.video);
                self.handle_video(at, header, packet, collector);
            }
            Some(Format::Audio(clock)) => {
                let stream = Stream::new(header.ssrc, clock, None);
                retire(self.audio.replace(stream), &mut self.report.audio);
                self.handle_audio(at, header, packet);
            }
            Some(Format::Rtx(_)) => {
                self.rtx_ssrc = Some(header.ssrc);
                self.handle_resend(at, header, packet, collector);
            }
            None => self.report.unknown += 1,
        }
    }

    /// Whether packets are opened, not just counted: also while a keyframe is awaited,
    /// and now and then, so that the key's rollover counter goes along (RFC 3711 §3.3.1).
    fn opens(&self, sequence: u16) -> bool {
        self.setup.verify || self.broken || sequence.is_multiple_of(ROLLOVER_EVERY)
    }

    fn handle_video(
        &mut self,
        at: At,
        header: Header<'_>,
        packet: &[u8],
        collector: &mut Collector,
    ) {
        let mut keyframe = None;
        if self.opens(header.sequence) {
            let codec = self.video.as_ref().and_then(|stream| stream.codec);
            match self.open(packet, header.len) {
                Some(payload) => keyframe = codec.map(|codec| begins_keyframe(codec, &payload)),
                None => return,
            }
        }
        let captured = header.capture_time(self.setup.answer.capture_time);
        let facts =
            Facts { timestamp: header.timestamp, marker: header.marker, captured, keyframe };
        self.count_video(at, header.sequence, facts, packet.len(), collector);
    }

    /// Opens a packet; returns its payload, or counts a wrong authentication tag.
    fn open(&mut self, packet: &[u8], header_len: usize) -> Option<Vec<u8>> {
        let opened = self.keys.as_mut().and_then(|keys| keys.open_rtp(packet));
        match opened {
            Some(plain) => {
                self.report.packets_verified += 1;
                Some(plain.get(header_len..).unwrap_or_default().to_vec())
            }
            None => {
                self.report.auth_failures += 1;
                None
            }
        }
    }

    fn count_video(
        &mut self,
        at: At,
        sequence: u16,
        facts: Facts,
        bytes: usize,
        collector: &mut Collector,
    ) {
        let Some(stream) = &mut self.video else { return };
        if self.frozen && stream.reception.is_ahead(sequence) {
            return;
        }
        self.report.bytes += bytes as u64;
        let Arrival::New(number) = stream.reception.handle(at.now, sequence) else { return };
        self.report.packets += 1;
        stream.time(at.utc, facts.timestamp);
        stream.frames.handle(number, facts, |frame| self.ended.push(frame));
        self.take_frames(at, collector);
    }

    fn handle_audio(&mut self, at: At, header: Header<'_>, packet: &[u8]) {
        if self.setup.verify && self.open(packet, header.len).is_none() {
            return;
        }
        let Some(stream) = &mut self.audio else { return };
        if self.frozen && stream.reception.is_ahead(header.sequence) {
            return;
        }
        self.report.bytes += packet.len() as u64;
        if let Arrival::New(_) = stream.reception.handle(at.now, header.sequence) {
            self.report.packets += 1;
            stream.time(at.utc, header.timestamp);
        }
    }

    /// A resend: the payload begins with the original sequence number (RFC 4588 §4).
    fn handle_resend(
        &mut self,
        at: At,
        header: Header<'_>,
        packet: &[u8],
        collector: &mut Collector,
    ) {
        self.report.resends += 1;
        let Some(payload) = self.open(packet, header.len) else { return };
        let Some((original, payload)) = payload.split_first_chunk::<2>() else { return };
        let Some(codec) = self.video.as_ref().map(|stream| stream.codec) else { return };
        // Nothing behind the number is padding that probes the path.
        if payload.is_empty() {
            return;
        }
        let keyframe = codec
            .filter(|_| self.broken || self.setup.verify)
            .map(|codec| begins_keyframe(codec, payload));
        let captured = header.capture_time(self.setup.answer.capture_time);
        let facts =
            Facts { timestamp: header.timestamp, marker: header.marker, captured, keyframe };
        self.count_video(at, u16::from_be_bytes(*original), facts, packet.len(), collector);
    }

    fn take_frames(&mut self, at: At, collector: &mut Collector) {
        for frame in std::mem::take(&mut self.ended) {
            self.take_frame(at, frame, collector);
        }
    }

    fn take_frame(&mut self, at: At, frame: Frame, collector: &mut Collector) {
        if !frame.complete {
            self.report.frames_damaged += 1;
            self.broken = true;
            return;
        }
        if frame.keyframe == Some(true) {
            self.report.keyframes += 1;
            self.broken = false;
        }
        let Some(stream) = &mut self.video else { return };
        if self.report.first_frame_micros.is_none() {
            // A picture cannot begin with anything but a keyframe.
            if frame.keyframe != Some(true) {
                self.report.frames_damaged += 1;
                return;
            }
            let since = at.now.saturating_duration_since(self.setup.due);
            self.report.first_frame_micros = Some(micros(since));
        }
        self.report.frames += 1;
        stream.freezes.frame(at.utc);
        self.stamped |= frame.captured.is_some();
        let by_report = || {
            let (report, _) = stream.sender_report.filter(|_| !self.stamped)?;
            Some(report.utc_micros(frame.timestamp, VIDEO_CLOCK))
        };
        let Some(captured) = frame.captured.or_else(by_report) else { return };
        // A viewer that joins is first given the group of pictures from its keyframe on:
        // these frames are old by intent. What repairs bring in after the end is not
        // timed either.
        if self.frozen || self.connected_utc.is_none_or(|since| captured < since) {
            return;
        }
        let (group, micros) = (self.setup.group, at.utc - captured);
        if frame.captured.is_some() {
            collector.frame(group, captured, micros, frame.keyframe);
        } else {
            collector.frame_by_report(group, micros, frame.keyframe);
        }
    }

    /// Repeats, reports, asks again, gives up: what is due.
    pub fn handle_timeout(&mut self, at: At, collector: &mut Collector) {
        self.agent.handle_timeout(at.now, self.identity.crypto());
        let handshake = self.handshake.as_mut().filter(|_| self.keys.is_none());
        if let Some(Err(error)) = handshake.map(|handshake| handshake.handle_timeout(at.now)) {
            self.fail(error);
        }
        match self.phase {
            Phase::Connecting if at.now >= self.started + CONNECT_LIMIT => {
                let step = if self.server().is_some() { "DTLS" } else { "ICE" };
                let limit = CONNECT_LIMIT.as_secs();
                self.phase = Phase::Over(format!("{step} did not finish within {limit} s"));
            }
            Phase::Watching if self.agent.is_dead(at.now) => {
                self.phase = Phase::Over("the server stopped answering".to_owned());
            }
            Phase::Watching => self.feed_back(at, collector),
            _ => {}
        }
    }

    /// From here on only repairs of what was sent before count.
    pub fn freeze(&mut self, at: At) {
        self.frozen = true;
        if let Some(stream) = &mut self.video {
            stream.freezes.end(at.utc);
        }
    }

    /// Says goodbye; the last datagrams still have to be sent.
    pub fn close(&mut self, now: Instant) {
        if let Some(handshake) = &mut self.handshake {
            handshake.close(now);
        }
    }

    /// The account.
    pub fn finish(mut self) -> ViewerReport {
        if let Some(stream) = &self.video {
            self.report.freezes += stream.freezes.count;
            self.report.frozen_micros += stream.freezes.micros;
        }
        retire(self.video, &mut self.report.video);
        retire(self.audio, &mut self.report.audio);
        self.report.ended = match self.phase {
            Phase::Over(reason) => Some(reason),
            Phase::Connecting => Some("not connected when the watch ended".to_owned()),
            Phase::Watching => None,
        };
        self.report
    }
}

/// Adds what came of a stream that is over to its track.
fn retire(stream: Option<Stream>, track: &mut TrackTotals) {
    if let Some(mut stream) = stream {
        stream.reception.close();
        track.packets += stream.reception.packets;
        track.recovered += stream.reception.recovered;
        track.duplicates += stream.reception.duplicates;
        track.lost += stream.reception.lost;
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}
