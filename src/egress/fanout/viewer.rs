//! One WHEP viewer: its tracks, what it reports, what it is told.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::stream::FanoutStream;
use super::track::{Pumped, ViewerTrack};
use crate::codec::MediaKind;
use crate::hub::EgressCounts;
use crate::media::LayerId;
use crate::net::udp::DatagramSink;
use crate::rtp::extensions::PlayoutDelay;
use crate::time::Utc;
use crate::webrtc::negotiated::SendTrack;
use crate::webrtc::rtcp::{CompoundBuilder, ReportBlock, Rtcp, SenderReport, round_trip};
use crate::webrtc::srtp::Sealer;

/// Sender reports come this often (RFC 3550 §6.2 allows less than 5 s with rtcp-rsize).
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// How often the choice of a simulcast layer is looked at.
const LAYER_INTERVAL: Duration = Duration::from_millis(500);
/// Sequence numbers answered in one RTCP packet; the rest is asked for again.
const MAX_RESENDS_PER_PACKET: usize = 256;

/// What sending needs beside the packet.
pub struct SendContext<'a> {
    /// Now.
    pub now: Instant,
    /// Now, as UTC.
    pub utc: Utc,
    /// The viewer's keys.
    pub sealer: &'a Sealer,
    /// The viewer's address.
    pub to: SocketAddr,
}

/// Random numbers for one viewer; drawn by the caller.
pub struct ViewerSeed {
    /// For each track in turn: first sequence numbers and timestamp.
    pub tracks: Vec<u64>,
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

/// A viewer. owner: the session's worker.
pub struct Viewer {
    tracks: Vec<ViewerTrack>,
    cname: String,
    quality: ViewerQuality,
    next_report: Option<Instant>,
    next_layer_choice: Instant,
    /// The first video packet (or audio, without video) was sent.
    started: bool,
    /// A track that waits to start has asked for a keyframe since the last choice of layers.
    keyframe_asked: bool,
}

impl Viewer {
    /// A viewer of `stream`.
    pub fn new(
        stream: &FanoutStream,
        tracks: Vec<SendTrack>,
        seed: &ViewerSeed,
        cname: String,
        playout_delay: PlayoutDelay,
        now: Instant,
    ) -> Self {
        let tracks = tracks.into_iter().zip(&seed.tracks).filter_map(|(params, random)| {
            let info = stream.stream.tracks.get(usize::from(params.track))?;
            let layer = stream.best_layer(params.track, now);
            let rate = info.codec.clock_rate();
            Some(ViewerTrack::new(params, layer, info.kind(), rate, playout_delay, *random))
        });
        Self {
            tracks: tracks.collect(),
            cname,
            quality: ViewerQuality::default(),
            next_report: None,
            next_layer_choice: now + LAYER_INTERVAL,
            started: false,
            keyframe_asked: false,
        }
    }

    /// Sends what is new in the rings. Returns whether more is waiting; then this
    /// must be called again soon.
    pub fn pump(
        &mut self,
        stream: &mut FanoutStream,
        context: &SendContext<'_>,
        counters: &mut EgressCounts,
        sink: &mut impl DatagramSink,
    ) -> bool {
        if context.now >= self.next_layer_choice {
            self.next_layer_choice = context.now + LAYER_INTERVAL;
            self.keyframe_asked = false;
            self.choose_layers(stream, context.now, counters);
        }
        let mut behind = false;
        for track in &mut self.tracks {
            if let Some(cache) = track.target.and_then(|target| stream.cache(target)) {
                track.try_switch(cache);
            }
            let Some(cache) = stream.cache(track.layer) else { continue };
            let pumped: Pumped = track.pump(cache, context, counters, sink);
            behind |= pumped.behind;
            if let Some(layer) = pumped.wants_keyframe
                && !self.keyframe_asked
            {
                self.keyframe_asked = true;
                ask_for_keyframe(stream, context.now, layer, counters);
            }
        }
        if self.next_report.is_none() && self.tracks.iter().any(ViewerTrack::started) {
            self.next_report = Some(context.now);
        }
        behind
    }

    /// True once, when the first packet of video (or of audio, for a viewer without
    /// video) has been sent.
    pub fn take_started(&mut self, stream: &FanoutStream) -> bool {
        let is_video = |t: &&ViewerTrack| stream.kind(t.params.track) == Some(MediaKind::Video);
        let mut leading = self.tracks.iter().filter(is_video).peekable();
        let started = match leading.peek() {
            Some(_) => leading.any(ViewerTrack::started),
            None => self.tracks.iter().any(ViewerTrack::started),
        };
        started && !std::mem::replace(&mut self.started, started)
    }

    /// Takes the messages of a compound RTCP packet; returns the round-trip time when
    /// they tell it.
    pub fn handle_rtcp(
        &mut self,
        messages: &[Rtcp],
        stream: &mut FanoutStream,
        context: &SendContext<'_>,
        counters: &mut EgressCounts,
        sink: &mut impl DatagramSink,
    ) -> Option<Duration> {
        let mut budget = MAX_RESENDS_PER_PACKET;
        let mut rtt = None;
        for message in messages {
            match message {
                Rtcp::Nack { media_ssrc, seqs } => {
                    let Some(track) = self.track_mut(*media_ssrc) else { continue };
                    let Some(cache) = stream.cache(track.layer) else { continue };
                    for sequence in seqs.iter().take(budget) {
                        budget -= 1;
                        counters.nacked += 1;
                        track.resend(sequence, cache, context, counters, sink);
                    }
                }
                Rtcp::Pli { media_ssrc } | Rtcp::Fir { media_ssrc } => {
                    if let Some(layer) = self.track_mut(*media_ssrc).map(|track| track.layer) {
                        ask_for_keyframe(stream, context.now, layer, counters);
                    }
                }
                Rtcp::ReceptionReport(report) => {
                    rtt = self.take_report(&report.block, context.utc).or(rtt);
                }
                Rtcp::Remb { bitrate_bps, .. } => self.quality.estimate_bps = Some(*bitrate_bps),
                _ => {}
            }
        }
        rtt
    }

    /// The sender reports that are due at `now`, as one compound packet to be sealed.
    pub fn poll_rtcp(&mut self, now: Instant, utc: Utc) -> Option<Vec<u8>> {
        if self.next_report.is_none_or(|at| now < at) {
            return None;
        }
        self.next_report = Some(now + REPORT_INTERVAL);
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
    pub fn farewell(&self) -> Option<Vec<u8>> {
        let ssrcs: Vec<u32> = self.tracks.iter().map(|track| track.params.ssrc).collect();
        let compound = CompoundBuilder::new(*ssrcs.first()?);
        Some(compound.receiver_report(&[], &self.cname).bye(&ssrcs).finish())
    }

    /// When [`Self::poll_rtcp`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.next_report
    }

    /// What the viewer's reports said last.
    pub fn quality(&self) -> ViewerQuality {
        self.quality
    }

    /// Follows the best layer of each track, at a keyframe of it.
    fn choose_layers(
        &mut self,
        stream: &mut FanoutStream,
        now: Instant,
        counters: &mut EgressCounts,
    ) {
        for track in &mut self.tracks {
            let best: LayerId = stream.best_layer(track.params.track, now);
            track.target = (best != track.layer).then_some(best);
            if track.target.is_some() {
                ask_for_keyframe(stream, now, best, counters);
            }
        }
    }

    fn take_report(&mut self, block: &ReportBlock, now: Utc) -> Option<Duration> {
        self.track_mut(block.source_ssrc)?;
        self.quality.loss = f64::from(block.fraction_lost) / 256.0;
        let rtt = round_trip(now, block)?;
        self.quality.rtt = Some(rtt);
        Some(rtt)
    }

    fn track_mut(&mut self, ssrc: u32) -> Option<&mut ViewerTrack> {
        self.tracks.iter_mut().find(|track| track.params.ssrc == ssrc)
    }
}

fn ask_for_keyframe(
    stream: &mut FanoutStream,
    now: Instant,
    layer: LayerId,
    counters: &mut EgressCounts,
) {
    counters.keyframes_asked += 1;
    stream.request_keyframe(now, layer);
}
