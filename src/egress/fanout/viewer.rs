//! One WHEP viewer: its tracks, what it reports, what it is told.

use std::sync::Arc;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use super::header::{HeaderForm, HeaderForms};
use super::selection::Selection;
use super::source::Source;
use super::track::ViewerTrack;
use super::watching::Watching;
use crate::codec::MediaKind;
use crate::hub::EgressCounts;
use crate::net::udp::DatagramSink;
use crate::route::Route;
use crate::rtp::extensions::{AbsSendTime, PlayoutDelay};
use crate::time::Utc;
use crate::webrtc::budget::{Allowance, Budget};
use crate::webrtc::negotiated::SendTrack;
use crate::webrtc::rtcp::{CompoundBuilder, ReportBlock, Rtcp, SenderReport, round_trip};
use crate::webrtc::srtp::Sealer;

/// Sequence numbers answered in one RTCP packet; the rest is asked for again.
const MAX_RESENDS_PER_PACKET: usize = 256;

/// Keyframes that a viewer may ask for: they cost the publisher bits and all viewers
/// picture. Past it a viewer waits like the others for the next one.
const KEYFRAME_REQUESTS: Allowance = Allowance { burst: 5, every: Duration::from_secs(2) };
/// Sequence numbers that are looked for in the ring, whatever comes of it: after an
/// outage of a second at 10 Mbit/s all of them, and twice as many a second as anybody
/// who can still watch loses. What is resent is bounded in bytes as well.
const NACKED: Allowance = Allowance { burst: 1024, every: Duration::from_micros(500) };
/// Between two round-trip times taken from one viewer's reports, so that nobody makes
/// up what the metrics say of all.
const RTT_INTERVAL: Duration = Duration::from_millis(500);

/// The time of a pass, in every form that packets need.
#[derive(Clone, Copy, Debug)]
pub struct PassContext {
    /// Now.
    pub now: Instant,
    /// Now, as UTC.
    pub utc: Utc,
    /// Now, as `abs-send-time`.
    pub(super) send_time: [u8; 3],
}

impl PassContext {
    /// A pass at `now`.
    pub fn new(now: Instant, utc: Utc) -> Self {
        Self { now, utc, send_time: AbsSendTime::at(utc).write() }
    }
}

/// Where a viewer's packets go, and how they are sealed.
pub(super) struct Line {
    pub(super) to: Route,
    pub(super) sealer: Sealer,
}

/// What a viewer brings along.
pub struct ViewerSpec {
    /// The worker's key of its peer.
    pub peer: usize,
    /// Where its packets go.
    pub to: Route,
    /// Its keys.
    pub sealer: Sealer,
    /// The tracks that were agreed on.
    pub tracks: Vec<SendTrack>,
    /// For each track in turn a random number: first sequence numbers and timestamp.
    pub seeds: Vec<u64>,
    /// What the HTTP side and this viewer tell each other of its layers.
    pub watching: Arc<Watching>,
    /// Names it in sender reports (RFC 3550 §6.5.1).
    pub cname: String,
    /// What its player is told.
    pub playout_delay: PlayoutDelay,
}

/// What a viewer's reports said last.
#[derive(Clone, Copy, Debug, Default)]
pub struct ViewerQuality {
    /// Round-trip time.
    pub rtt: Option<Duration>,
    /// Share of packets lost since the report before, 0 to 1.
    pub loss: f64,
    /// The receiver's estimate of what it can take, in bits per second (REMB).
    pub estimate_bps: Option<u64>,
}

/// A viewer. owner: the stream.
pub(super) struct Viewer {
    pub(super) line: Line,
    /// Few have more than one track of video and one of audio.
    tracks: SmallVec<[ViewerTrack; 2]>,
    /// It waits for its next slice.
    pub(super) queued: bool,
    /// A track that waits to start has asked for a keyframe since the last choice of layers.
    keyframe_asked: bool,
    /// The first video packet (or audio, without video) was sent.
    started: bool,
    selection: Selection,
    pub(super) peer: usize,
    quality: ViewerQuality,
    rtt_at: Option<Instant>,
    keyframe_budget: Budget,
    nack_budget: Budget,
    cname: String,
}

/// What a visit to a viewer left to do.
#[derive(Clone, Copy, Default)]
pub(super) struct Visit {
    /// When there is more to be sent.
    pub(super) next_slice: Option<Instant>,
    /// It was sent its first packet of video (of audio, without video).
    pub(super) started: bool,
}

impl Viewer {
    pub(super) fn new(
        spec: ViewerSpec,
        source: &Source,
        forms: &mut HeaderForms,
        now: Instant,
    ) -> Self {
        let playout_delay = spec.playout_delay;
        let mut selection = Selection::new(spec.watching, now);
        let mut tracks = SmallVec::new();
        let mut watched: Vec<_> = spec.tracks.into_iter().zip(spec.seeds).enumerate().collect();
        // Audio after video: as the short last datagram of a run it costs next to nothing.
        watched.sort_by_key(|(_, (params, _))| source.kind(params.track) == Some(MediaKind::Audio));
        for (watched, (params, random)) in watched {
            let Some(info) = source.stream.tracks.get(usize::from(params.track)) else { continue };
            let layer = selection.first_layer(watched, source, now);
            let form = HeaderForm {
                ids: params.extensions,
                send_time: params.rtx_payload_type.is_some(),
                playout_delay,
            };
            let (headers, rate) = (forms.get(form), info.codec.clock_rate());
            if info.kind() == MediaKind::Video {
                selection.add(tracks.len(), watched, layer.layer);
            }
            tracks.push(ViewerTrack::new(params, layer, info.kind(), rate, headers, random));
        }
        Self {
            line: Line { to: spec.to, sealer: spec.sealer },
            tracks,
            queued: false,
            keyframe_asked: false,
            started: false,
            selection,
            peer: spec.peer,
            quality: ViewerQuality::default(),
            rtt_at: None,
            keyframe_budget: Budget::default(),
            nack_budget: Budget::default(),
            cname: spec.cname,
        }
    }

    /// Sends what is new in the rings, a slice of each track at most.
    pub(super) fn pump(
        &mut self,
        source: &mut Source,
        context: &PassContext,
        counts: &mut EgressCounts,
        sink: &mut impl DatagramSink,
    ) -> Visit {
        if self.selection.run(context.now, source, &mut self.tracks, counts) {
            self.keyframe_asked = false;
        }
        let mut next_slice: Option<Instant> = None;
        for track in &mut self.tracks {
            if let Some(ring) = track.target.and_then(|target| source.ring(target)) {
                track.try_switch(ring, context.now);
            }
            let Some(ring) = source.ring(track.layer) else { continue };
            let pumped = track.pump(ring, &self.line, context, counts, sink);
            next_slice = next_slice.into_iter().chain(pumped.next_slice).min();
            if let Some(layer) = pumped.wants_keyframe
                && !self.keyframe_asked
            {
                self.keyframe_asked = true;
                source.ask_for_keyframe(context.now, layer, counts);
            }
        }
        let started = !self.started && self.has_started(source);
        self.started |= started;
        Visit { next_slice, started }
    }

    /// The first packet of video (of audio, for a viewer without video) has been sent.
    fn has_started(&self, source: &Source) -> bool {
        let is_video = |t: &&ViewerTrack| source.kind(t.params.track) == Some(MediaKind::Video);
        let mut leading = self.tracks.iter().filter(is_video).peekable();
        match leading.peek() {
            Some(_) => leading.any(ViewerTrack::started),
            None => self.tracks.iter().any(ViewerTrack::started),
        }
    }

    /// Takes the messages of a compound RTCP packet; returns the round-trip time when
    /// they tell it.
    pub(super) fn handle_rtcp(
        &mut self,
        messages: &[Rtcp],
        source: &mut Source,
        context: &PassContext,
        counts: &mut EgressCounts,
        sink: &mut impl DatagramSink,
    ) -> Option<Duration> {
        let mut budget = MAX_RESENDS_PER_PACKET;
        let mut rtt = None;
        for message in messages {
            match message {
                Rtcp::Nack { media_ssrc, seqs } => {
                    let by_ssrc = |track: &&mut ViewerTrack| track.params.ssrc == *media_ssrc;
                    let Some(track) = self.tracks.iter_mut().find(by_ssrc) else { continue };
                    let Some(ring) = source.ring(track.layer) else { continue };
                    for sequence in seqs.iter().take(budget) {
                        budget -= 1;
                        counts.nacked += 1;
                        if !self.nack_budget.take(context.now, NACKED) {
                            counts.resend_refused += 1;
                            continue;
                        }
                        track.resend(sequence, ring, &self.line, context, counts, sink);
                    }
                }
                Rtcp::Pli { media_ssrc } | Rtcp::Fir { media_ssrc } => {
                    self.wants_keyframe(*media_ssrc, source, context, counts);
                }
                Rtcp::ReceptionReport(report) => {
                    rtt = self.take_report(&report.block, context).or(rtt);
                }
                Rtcp::Remb { bitrate_bps, .. } => {
                    self.quality.estimate_bps = Some(*bitrate_bps);
                    self.selection.handle_estimate(context.now, *bitrate_bps);
                }
                _ => {}
            }
        }
        rtt
    }

    /// The sender reports of its tracks, as one compound packet to be sealed.
    pub(super) fn sender_report(&self, utc: Utc) -> Option<Vec<u8>> {
        let sender = self.tracks.first()?.params.ssrc;
        let mut compound = CompoundBuilder::new(sender);
        for track in &self.tracks {
            let Some(rtp_time) = track.timestamp_at(utc) else { continue };
            let report = SenderReport {
                ssrc: track.params.ssrc,
                ntp: utc.to_ntp(),
                rtp_time,
                packets: track.packets,
                octets: track.octets,
            };
            compound = compound.sender_report(&report, &[], &self.cname);
        }
        Some(compound.finish()).filter(|bytes| !bytes.is_empty())
    }

    /// The farewell that says that the streams are over (RFC 3550 §6.6).
    pub(super) fn farewell(&self) -> Option<Vec<u8>> {
        let ssrcs: Vec<u32> = self.tracks.iter().map(|track| track.params.ssrc).collect();
        let compound = CompoundBuilder::new(*ssrcs.first()?);
        Some(compound.receiver_report(&[], &self.cname).bye(&ssrcs).finish())
    }

    /// What the viewer's reports said last.
    pub(super) fn quality(&self) -> ViewerQuality {
        self.quality
    }

    /// Has layers chosen at the next visit.
    pub(super) fn choose_soon(&mut self) {
        self.selection.choose_soon();
    }

    /// Answers a PLI or FIR: with the GOP, or by asking the publisher.
    fn wants_keyframe(
        &mut self,
        media_ssrc: u32,
        source: &mut Source,
        context: &PassContext,
        counts: &mut EgressCounts,
    ) {
        let track = self.tracks.iter_mut().find(|track| track.params.ssrc == media_ssrc);
        let Some(track) = track.filter(|track| !track.is_paused()) else { return };
        if !self.keyframe_budget.take(context.now, KEYFRAME_REQUESTS) {
            counts.keyframes_refused += 1;
            return;
        }
        if source.ring(track.layer).is_some_and(|ring| track.replay(ring, context.now)) {
            counts.replays += 1;
        } else {
            source.ask_for_keyframe(context.now, track.layer, counts);
        }
    }

    fn take_report(&mut self, block: &ReportBlock, context: &PassContext) -> Option<Duration> {
        let ssrc = block.source_ssrc;
        let track = self.tracks.iter().position(|track| track.params.ssrc == ssrc)?;
        self.selection.handle_loss(context.now, track, block.fraction_lost);
        self.quality.loss = f64::from(block.fraction_lost) / 256.0;
        let recent = |at| context.now.saturating_duration_since(at) < RTT_INTERVAL;
        if self.rtt_at.is_some_and(recent) {
            return None;
        }
        let rtt = round_trip(context.utc, block)?;
        (self.quality.rtt, self.rtt_at) = (Some(rtt), Some(context.now));
        Some(rtt)
    }
}
