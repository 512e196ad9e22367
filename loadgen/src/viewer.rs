//! A viewer that measures: joins over WHEP, receives, and says what it got.
//!
//! Losses are counted on unwrapped sequence numbers after retransmission. With
//! decoding on, the capture strip of each decoded picture gives the latency from
//! capture to decoded picture, on the assumption that both clocks are UTC. It tells the
//! server what its path carries (REMB), as browsers do.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use openh264::decoder::Decoder;
use openh264::formats::YUVSource as _;
use rtc::rtcp::Packet as RtcpPacket;
use rtc::rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtc::rtcp::payload_feedbacks::receiver_estimated_maximum_bitrate::ReceiverEstimatedMaximumBitrate;
use rtc::rtp_transceiver::rtp_sender::RtpCodecKind;
use rtc::rtp_transceiver::{RTCRtpTransceiverDirection, RTCRtpTransceiverInit};
use serde::Serialize;
use tokio::sync::mpsc;
use webrtc::media_stream::track_remote::{TrackRemote, TrackRemoteEvent};
use webrtc::runtime::{Runtime, default_runtime};

use crate::assemble::{Assembled, Assembler, Sequence};
use crate::dealer::strip;
use crate::estimate::Estimator;
use crate::impair::{Loss, LossyRuntime};
use crate::peer::{Peer, PeerError, PeerEvent, Role, is_over, local_address};
use crate::time::utc_micros;

/// After the watch, how long open holes may still be filled.
const GRACE: Duration = Duration::from_millis(500);
/// Pictures waiting for the decoder thread; more are skipped until a keyframe.
const DECODE_QUEUE: usize = 8;
/// Packets waiting between the track readers and the counter; readers wait.
const PACKET_QUEUE: usize = 512;
/// Keyframe requests are at least this far apart.
const PLI_EVERY: Duration = Duration::from_millis(500);
/// Changes of the picture's size that are reported; later ones are not.
const SIZES: usize = 256;
/// How often frames are looked for when no packet comes.
const TICK: Duration = Duration::from_millis(20);

/// What to watch, and how.
#[derive(Clone, Debug)]
pub struct WatchConfig {
    /// WHEP endpoint.
    pub whep_url: String,
    /// Bearer token.
    pub token: Option<String>,
    /// How long to watch, from the moment media is connected.
    pub duration: Duration,
    /// Whether to decode the video and read the capture strip.
    pub decode: bool,
    /// Share of incoming media datagrams to lose, 0 to 1.
    pub loss: f64,
    /// Seed of the loss.
    pub seed: u64,
    /// Where media goes instead of to the server's candidates: a proxy before it.
    pub via: Option<SocketAddr>,
}

impl WatchConfig {
    /// Watches for ten seconds, decoding, on a perfect last mile.
    pub fn new(whep_url: impl Into<String>) -> Self {
        let duration = Duration::from_secs(10);
        Self {
            whep_url: whep_url.into(),
            token: None,
            duration,
            decode: true,
            loss: 0.0,
            seed: 1,
            via: None,
        }
    }
}

/// What came on one track.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TrackReport {
    /// RTP packets, each counted once.
    pub packets: u64,
    /// RTP payload bytes.
    pub bytes: u64,
    /// Packets that came late into a hole: retransmitted or reordered.
    pub recovered: u64,
    /// Packets that came more than once.
    pub duplicates: u64,
    /// Packets that never came.
    pub lost: u64,
}

/// Milliseconds from capture to decoded picture.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Latency {
    /// Pictures measured.
    pub samples: usize,
    /// Median.
    pub p50: i32,
    /// 95th percentile.
    pub p95: i32,
    /// Worst.
    pub max: i32,
}

/// A size of the decoded picture, from one moment on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PictureSize {
    /// Milliseconds from the start until its first picture came out of the decoder.
    pub at_ms: u64,
    /// Pixels.
    pub width: usize,
    /// Pixels.
    pub height: usize,
    /// Whether that picture was a keyframe.
    pub keyframe: bool,
}

/// What a viewer saw.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WatchReport {
    /// Milliseconds from the start until media was connected.
    pub connected_ms: u64,
    /// Milliseconds from the start until the first complete video frame.
    pub first_frame_ms: Option<u64>,
    /// Seconds watched.
    pub seconds: f64,
    /// The video track.
    pub video: TrackReport,
    /// The audio track.
    pub audio: TrackReport,
    /// Video frames without a hole.
    pub frames_complete: u64,
    /// Video frames with a hole.
    pub frames_incomplete: u64,
    /// Keyframes among the complete ones.
    pub keyframes: u64,
    /// Frames whose timestamp was not after that of the frame before.
    pub frames_backward: u64,
    /// Longest time in milliseconds between two frames that could be shown: whole ones,
    /// and after a damaged one only from the next keyframe on.
    pub longest_gap_ms: u64,
    /// Pictures that came out of the decoder.
    pub frames_decoded: u64,
    /// Frames that the decoder refused after its first picture. Before that it may lack the
    /// parameter sets: they may have come before the keys.
    pub frames_refused: u64,
    /// Each size that the decoded picture had, in order.
    pub sizes: Vec<PictureSize>,
    /// Keyframe requests sent.
    pub keyframe_requests: u64,
    /// Datagrams that the simulated last mile lost.
    pub impaired: u64,
    /// Latency by the capture strip, when pictures were decoded and carried one.
    pub latency_ms: Option<Latency>,
}

/// Why a watch ended without a report.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The session could not be set up.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// The stream ended before the time was over.
    #[error("the stream ended after {0:.1} s")]
    Ended(f64),
    /// The decoder thread could not be started.
    #[error("decoder: {0}")]
    Decoder(#[from] std::io::Error),
}

/// Watches a stream for the configured time and reports.
///
/// # Errors
/// [`WatchError`] when the session cannot be set up or the stream ends early.
pub async fn watch(config: WatchConfig) -> Result<WatchReport, WatchError> {
    watch_until(config, std::future::pending()).await
}

/// [`watch`], but for no longer than until `stop` resolves.
///
/// # Errors
/// As [`watch`].
pub async fn watch_until(
    config: WatchConfig,
    stop: impl Future<Output = ()>,
) -> Result<WatchReport, WatchError> {
    let begun = Instant::now();
    let loss = Loss::new(config.loss, config.seed);
    let runtime = default_runtime()
        .filter(|_| config.loss > 0.0)
        .map(|inner| Arc::new(LossyRuntime::new(inner, Arc::clone(&loss))) as Arc<dyn Runtime>);
    let local = local_address(&config.whep_url).await?;
    let mut peer = Peer::new(local, Role::Viewer, runtime).await?;
    for kind in [RtpCodecKind::Video, RtpCodecKind::Audio] {
        let direction = RTCRtpTransceiverDirection::Recvonly;
        let init = RTCRtpTransceiverInit { direction, streams: vec![], send_encodings: vec![] };
        let added = peer.connection.add_transceiver_from_kind(kind, Some(init)).await;
        added.map_err(PeerError::from)?;
    }
    let token = config.token.as_deref();
    let session = peer.negotiate_through(&config.whep_url, token, config.via).await?;
    let outcome = receive(&config, &mut peer, begun, stop).await;
    session.delete().await;
    peer.close().await;
    outcome.map(|report| WatchReport { impaired: loss.dropped(), ..report })
}

/// A packet on its way from a track to the counters.
struct Arrival {
    video: bool,
    packet: rtc::rtp::Packet,
}

async fn receive(
    config: &WatchConfig,
    peer: &mut Peer,
    begun: Instant,
    stop: impl Future<Output = ()>,
) -> Result<WatchReport, WatchError> {
    let (arrivals, mut packets) = mpsc::channel(PACKET_QUEUE);
    let mut video_track = None;
    for track in peer.connected().await? {
        open(track, &arrivals, &mut video_track).await;
    }
    let start = Instant::now();
    let mut watcher = Watcher::new(config.decode, begun)?;
    watcher.report.connected_ms = (start - begun).as_millis() as u64;
    let mut tick = tokio::time::interval(TICK);
    let mut end = start + config.duration;
    let mut last = None;
    tokio::pin!(stop);
    let mut stopped = false;
    loop {
        let now = Instant::now();
        if now >= end {
            // What was sent by now may still be repaired; what comes newer does not count.
            last.get_or_insert_with(|| watcher.freeze());
            if now >= end + GRACE {
                break;
            }
        }
        tokio::select! {
            Some(arrival) = packets.recv() => watcher.handle(&arrival, last.is_some()),
            event = peer.events.recv() => match event {
                Some(PeerEvent::Track(track)) => open(track, &arrivals, &mut video_track).await,
                Some(PeerEvent::State(state)) if is_over(state) => {
                    return Err(WatchError::Ended(start.elapsed().as_secs_f64()));
                }
                Some(_) => {}
                None => return Err(WatchError::Ended(start.elapsed().as_secs_f64())),
            },
            _ = tick.tick() => watcher.assemble(Instant::now()),
            () = &mut stop, if !stopped => {
                stopped = true;
                end = end.min(Instant::now());
            }
        }
        if let Some(track) = &video_track {
            watcher.give_feedback(track).await;
        }
    }
    watcher.report.seconds = (end - start).as_secs_f64();
    Ok(watcher.finish(last.unwrap_or_default()))
}

/// Starts a task that moves a track's packets to the counters.
async fn open(
    track: Arc<dyn TrackRemote>,
    arrivals: &mpsc::Sender<Arrival>,
    video_track: &mut Option<Arc<dyn TrackRemote>>,
) {
    let video = track.kind().await == RtpCodecKind::Video;
    if video {
        *video_track = Some(Arc::clone(&track));
    }
    let arrivals = arrivals.clone();
    tokio::spawn(async move {
        while let Some(event) = track.poll().await {
            let TrackRemoteEvent::OnRtpPacket(packet) = event else { continue };
            if arrivals.send(Arrival { video, packet }).await.is_err() {
                break;
            }
        }
    });
}

/// Counts, assembles and hands frames to the decoder.
struct Watcher {
    begun: Instant,
    report: WatchReport,
    video: Sequence,
    audio: Sequence,
    assembler: Assembler,
    estimator: Estimator,
    decoder: Option<DecoderThread>,
    /// Timestamp of the last frame, and when the last one that could be shown came.
    last_timestamp: Option<u32>,
    shown: Option<Instant>,
    /// A reference picture is missing: only a keyframe helps.
    broken: bool,
    asked: Option<Instant>,
    media_ssrc: u32,
    frozen: bool,
}

impl Watcher {
    fn new(decode: bool, begun: Instant) -> Result<Self, WatchError> {
        let decoder = if decode { Some(DecoderThread::start(begun)?) } else { None };
        Ok(Self {
            begun,
            report: WatchReport::default(),
            video: Sequence::default(),
            audio: Sequence::default(),
            assembler: Assembler::default(),
            estimator: Estimator::default(),
            decoder,
            last_timestamp: None,
            shown: None,
            broken: true,
            asked: None,
            media_ssrc: 0,
            frozen: false,
        })
    }

    /// Ends the counting; returns the last video and audio numbers that count.
    fn freeze(&mut self) -> (u64, u64) {
        self.frozen = true;
        let last = |sequence: &Sequence| sequence.highest().unwrap_or_default();
        (last(&self.video), last(&self.audio))
    }

    fn handle(&mut self, arrival: &Arrival, repairs_only: bool) {
        let header = &arrival.packet.header;
        let now = Instant::now();
        self.estimator.handle_bytes(now, arrival.packet.payload.len());
        if arrival.video {
            self.estimator.handle_frame(now, header.timestamp);
        }
        let sequence = if arrival.video { &mut self.video } else { &mut self.audio };
        let ahead = sequence
            .highest()
            .is_some_and(|highest| header.sequence_number.wrapping_sub(highest as u16) as i16 > 0);
        if repairs_only && ahead {
            return;
        }
        let Some(number) = sequence.arrived(header.sequence_number) else { return };
        let payload = &arrival.packet.payload;
        let report = if arrival.video { &mut self.report.video } else { &mut self.report.audio };
        report.bytes += payload.len() as u64;
        if arrival.video {
            self.media_ssrc = header.ssrc;
            let payload = payload.clone();
            self.assembler.handle(now, number, header.timestamp, header.marker, payload);
            self.assemble(now);
        }
    }

    fn assemble(&mut self, now: Instant) {
        while let Some(frame) = self.assembler.poll(now) {
            self.frame(frame);
        }
    }

    fn frame(&mut self, frame: Assembled) {
        if !frame.complete {
            // Reports and requests for what is missing begin with the stream's second
            // packet at best: what was lost before can never come again.
            if self.report.frames_complete == 0 {
                self.video.begin_here();
            }
            self.report.frames_incomplete += 1;
            self.broken = true;
            return;
        }
        self.report.frames_complete += 1;
        self.report.keyframes += u64::from(frame.keyframe);
        let since = self.begun.elapsed().as_millis() as u64;
        self.report.first_frame_ms.get_or_insert(since);
        let back = |last: u32| frame.timestamp.wrapping_sub(last) as i32 <= 0;
        self.report.frames_backward += u64::from(self.last_timestamp.is_some_and(back));
        self.last_timestamp = Some(frame.timestamp);
        self.broken &= !frame.keyframe;
        if !self.broken {
            let now = Instant::now();
            let gap = self.shown.map_or(0, |shown| (now - shown).as_millis() as u64);
            self.report.longest_gap_ms = self.report.longest_gap_ms.max(gap);
            self.shown = Some(now);
        }
        if let Some(decoder) = self.decoder.as_ref().filter(|_| !self.broken) {
            self.broken = !decoder.decode(frame);
        }
    }

    /// Asks for a keyframe while the picture is broken, not too often, and tells what
    /// the path carries.
    async fn give_feedback(&mut self, track: &Arc<dyn TrackRemote>) {
        if self.frozen || self.media_ssrc == 0 {
            return;
        }
        // A decoder that refuses pictures, like one that came too late for the parameter
        // sets, needs a whole keyframe.
        self.broken |= self.decoder.as_ref().is_some_and(DecoderThread::take_refusal);
        let mut feedback: Vec<Box<dyn RtcpPacket>> = Vec::new();
        if let Some(bits) = self.estimator.poll(Instant::now()) {
            feedback.push(Box::new(ReceiverEstimatedMaximumBitrate {
                sender_ssrc: 0,
                bitrate: bits as f32,
                ssrcs: vec![self.media_ssrc],
            }));
        }
        let due = self.asked.is_none_or(|at| at.elapsed() >= PLI_EVERY);
        if self.broken && due && self.begun.elapsed() >= PLI_EVERY {
            self.asked = Some(Instant::now());
            self.report.keyframe_requests += 1;
            let media_ssrc = self.media_ssrc;
            feedback.push(Box::new(PictureLossIndication { sender_ssrc: 0, media_ssrc }));
        }
        if !feedback.is_empty()
            && let Err(error) = track.write_rtcp(feedback).await
        {
            tracing::debug!(%error, "feedback not sent");
        }
    }

    fn finish(self, (video, audio): (u64, u64)) -> WatchReport {
        let mut report = self.report;
        for (track, sequence, last) in
            [(&mut report.video, &self.video, video), (&mut report.audio, &self.audio, audio)]
        {
            track.packets = sequence.packets;
            track.recovered = sequence.filled;
            track.duplicates = sequence.duplicates;
            track.lost = sequence.lost(last);
        }
        if let Some(decoder) = self.decoder {
            let seen = decoder.finish();
            (report.frames_decoded, report.frames_refused) = (seen.decoded, seen.refused);
            report.latency_ms = percentiles(seen.ages);
            report.sizes = seen.sizes;
        }
        report
    }
}

/// A decoder on its own thread, so that reception is not held up.
struct DecoderThread {
    frames: SyncSender<Assembled>,
    thread: thread::JoinHandle<Decoded>,
    /// Set by the thread when the decoder refused a picture.
    refusal: Arc<AtomicBool>,
}

/// What came out of the decoder.
#[derive(Default)]
struct Decoded {
    decoded: u64,
    refused: u64,
    /// Age of each picture with a strip, in milliseconds.
    ages: Vec<i32>,
    sizes: Vec<PictureSize>,
}

impl Decoded {
    /// Decodes a frame; `false` when the decoder refused it.
    fn frame(&mut self, decoder: &mut Decoder, frame: &Assembled, begun: Instant) -> bool {
        let picture = match decoder.decode(&frame.data) {
            Ok(Some(picture)) => picture,
            Ok(None) => return true,
            Err(_) => {
                self.refused += u64::from(self.decoded > 0);
                return false;
            }
        };
        self.decoded += 1;
        let (width, height) = picture.dimensions();
        let before = self.sizes.last().map(|size| (size.width, size.height));
        if before != Some((width, height)) && self.sizes.len() < SIZES {
            let at_ms = begun.elapsed().as_millis() as u64;
            self.sizes.push(PictureSize { at_ms, width, height, keyframe: frame.keyframe });
        }
        let stamp = strip::decode(picture.y(), picture.strides().0, width, height);
        self.ages.extend(stamp.map(|stamp| strip::age_millis(stamp, utc_micros() / 1000)));
        true
    }
}

impl DecoderThread {
    fn start(begun: Instant) -> std::io::Result<Self> {
        let (frames, queue) = sync_channel::<Assembled>(DECODE_QUEUE);
        let refusal = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&refusal);
        let body = move || {
            let mut seen = Decoded::default();
            let Ok(mut decoder) = Decoder::new() else { return seen };
            for frame in &queue {
                if !seen.frame(&mut decoder, &frame, begun) {
                    told.store(true, Ordering::Relaxed);
                }
            }
            seen
        };
        let thread = thread::Builder::new().name("viewer-decode".to_owned()).spawn(body)?;
        Ok(Self { frames, thread, refusal })
    }

    /// Whether the decoder has refused a picture since the last call.
    fn take_refusal(&self) -> bool {
        self.refusal.swap(false, Ordering::Relaxed)
    }

    /// Queues a frame; `false` when the decoder is behind and the frame was skipped.
    fn decode(&self, frame: Assembled) -> bool {
        !matches!(self.frames.try_send(frame), Err(TrySendError::Full(_)))
    }

    /// Decodes what is queued; returns what it has seen.
    fn finish(self) -> Decoded {
        drop(self.frames);
        self.thread.join().unwrap_or_default()
    }
}

fn percentiles(mut ages: Vec<i32>) -> Option<Latency> {
    ages.sort_unstable();
    let at = |share: usize| ages.get((ages.len() * share / 100).min(ages.len().saturating_sub(1)));
    let (p50, p95, max) = (*at(50)?, *at(95)?, *ages.last()?);
    Some(Latency { samples: ages.len(), p50, p95, max })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_few_and_many() {
        assert_eq!(percentiles(vec![]), None);
        assert_eq!(percentiles(vec![9]), Some(Latency { samples: 1, p50: 9, p95: 9, max: 9 }));
        let hundred = percentiles((1..=100).rev().collect()).unwrap();
        assert_eq!((hundred.p50, hundred.p95, hundred.max), (51, 96, 100));
    }
}
