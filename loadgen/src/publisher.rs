//! The publisher: keeps one synthetic table live at a WHIP endpoint.
//!
//! A *session* negotiates, connects, starts the studio and sends what it makes;
//! when the gateway goes away the next session is tried with a growing pause.
//! RTP timestamps follow the capture schedule, sender reports and the absolute
//! capture time say when that was in UTC.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rtc::media_stream::MediaStreamTrack;
use rtc::rtcp::sender_report::SenderReport;
use rtc::rtp::codec::av1::Av1Payloader;
use rtc::rtp::codec::h264::H264Payloader;
use rtc::rtp::codec::vp8::Vp8Payloader;
use rtc::rtp::codec::vp9::Vp9Payloader;
use rtc::rtp::packetizer::Payloader;
use rtc::rtp_transceiver::rtp_sender::{
    RTCRtpCodec, RTCRtpCodingParameters, RTCRtpEncodingParameters, RtpCodecKind,
};
use tokio::sync::Notify;
use webrtc::media_stream::track_local::TrackLocal;
use webrtc::media_stream::track_local::static_rtp::TrackLocalStaticRTP;
use webrtc::rtp_transceiver::RtpSender;

use crate::dealer::DealerError;
use crate::dealer::studio::{Kind, Media, StudioConfig};
use crate::peer::{
    ABS_CAPTURE_TIME, Peer, PeerError, PeerEvent, Role, is_over, local_address, opus, video,
};
use crate::source::{Source, SourceConfig, Video};
use crate::time::{ntp_from_micros, utc_micros};
use crate::whip::SignalError;

/// Largest RTP payload in bytes.
pub const MAX_PAYLOAD: usize = 1200;
/// Packets of a frame sent back to back before a breath, so that a keyframe does
/// not overrun the receiver's socket buffer.
const BURST: usize = 24;
const BREATH: Duration = Duration::from_millis(1);
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// Pause before a new session: doubles from the first to the last.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(8));
/// A session that lived this long resets the pause.
const STABLE: Duration = Duration::from_secs(10);

/// What to publish, and where.
#[derive(Clone, Debug)]
pub struct DealerConfig {
    /// Name of the table, as drawn and as the seed of its game.
    pub table: String,
    /// WHIP endpoint.
    pub whip_url: String,
    /// Bearer token.
    pub token: Option<String>,
    /// Picture width in pixels; 16:9 in steps of 32x18.
    pub width: u32,
    /// Picture height in pixels.
    pub height: u32,
    /// Frames a second.
    pub fps: u32,
    /// Video bits a second.
    pub bitrate: u32,
    /// Audio bits a second.
    pub audio_bitrate: u32,
    /// Where the media comes from. Size, rates and bit rates above are the dealer's; a
    /// clip has its own.
    pub source: SourceConfig,
}

impl DealerConfig {
    /// A 720p30 table at 1.8 Mbit/s with 64 kbit/s of sound.
    pub fn new(table: impl Into<String>, whip_url: impl Into<String>) -> Self {
        Self {
            table: table.into(),
            whip_url: whip_url.into(),
            token: None,
            width: 1280,
            height: 720,
            fps: 30,
            bitrate: 1_800_000,
            audio_bitrate: 64_000,
            source: SourceConfig::Dealer,
        }
    }

    fn studio(&self) -> StudioConfig {
        StudioConfig {
            table: self.table.clone(),
            width: self.width,
            height: self.height,
            fps: self.fps,
            bitrate: self.bitrate,
            audio_bitrate: self.audio_bitrate,
        }
    }
}

/// Why a dealer ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The table cannot be drawn or encoded.
    #[error(transparent)]
    Dealer(#[from] DealerError),
    /// The gateway refuses this publisher for good.
    #[error(transparent)]
    Peer(#[from] PeerError),
}

impl PublishError {
    fn is_temporary(&self) -> bool {
        match self {
            Self::Dealer(_) => false,
            Self::Peer(PeerError::Signal(error)) => error.is_temporary(),
            Self::Peer(_) => true,
        }
    }
}

/// Counters of a running dealer; read them at any time.
#[derive(Debug, Default)]
pub struct DealerStats {
    /// Whether media is flowing.
    pub live: AtomicBool,
    /// Sessions that connected.
    pub sessions: AtomicU64,
    /// Video frames sent.
    pub frames: AtomicU64,
    /// Keyframes among them.
    pub keyframes: AtomicU64,
    /// PLI and FIR received.
    pub keyframe_requests: AtomicU64,
    /// RTP packets sent.
    pub packets: AtomicU64,
    /// RTP payload bytes sent.
    pub bytes: AtomicU64,
    /// Frames dropped because the network side was late.
    pub dropped: AtomicU64,
}

/// Publishes a table until `stop` resolves, through any number of sessions.
///
/// # Errors
/// [`PublishError`] when trying again cannot help: a bad configuration, or a
/// refusal that a human must settle.
pub async fn run_dealer(
    config: DealerConfig,
    stop: impl Future<Output = ()>,
) -> Result<(), PublishError> {
    run_dealer_counted(config, Arc::default(), stop).await
}

/// [`run_dealer`] with counters that the caller can watch.
///
/// # Errors
/// As [`run_dealer`].
pub async fn run_dealer_counted(
    config: DealerConfig,
    stats: Arc<DealerStats>,
    stop: impl Future<Output = ()>,
) -> Result<(), PublishError> {
    tokio::pin!(stop);
    let mut pause = BACKOFF.0;
    loop {
        let begun = Instant::now();
        // The session is dropped, not finished, only before it has a resource to delete.
        let ended = session(&config, &stats, stop.as_mut()).await;
        stats.live.store(false, Ordering::Relaxed);
        match ended {
            Ok(End::Stopped) => return Ok(()),
            Ok(End::Lost) => tracing::info!(table = %config.table, "connection lost, reconnecting"),
            Err(error) if error.is_temporary() => {
                tracing::info!(table = %config.table, %error, "not live, trying again");
            }
            Err(error) => return Err(error),
        }
        if begun.elapsed() >= STABLE {
            pause = BACKOFF.0;
        }
        tokio::select! {
            () = stop.as_mut() => return Ok(()),
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(BACKOFF.1),
        }
    }
}

/// How a session ended.
enum End {
    Stopped,
    Lost,
}

/// One session from offer to DELETE.
async fn session<S: Future<Output = ()>>(
    config: &DealerConfig,
    stats: &Arc<DealerStats>,
    mut stop: std::pin::Pin<&mut S>,
) -> Result<End, PublishError> {
    let asked = Arc::new(Notify::new());
    let on_request: Arc<dyn Fn() + Send + Sync> = {
        let (asked, stats) = (Arc::clone(&asked), Arc::clone(stats));
        Arc::new(move || {
            stats.keyframe_requests.fetch_add(1, Ordering::Relaxed);
            asked.notify_one();
        })
    };
    let local = local_address(&config.whip_url).await?;
    let format = config.source.video();
    let mut peer = Peer::with_video(local, Role::Publisher(on_request), None, format).await?;
    let mut video = Sender::new(&peer, Kind::Video, format).await?;
    let mut audio = Sender::new(&peer, Kind::Audio, format).await?;
    let session = tokio::select! {
        () = stop.as_mut() => return Ok(End::Stopped),
        session = peer.negotiate(&config.whip_url, config.token.as_deref()) => session?,
    };
    let connected = tokio::select! {
        () = stop.as_mut() => Ok(None),
        connected = peer.connected() => connected.map(Some),
    };
    let end = match connected {
        Ok(Some(_)) => {
            stats.sessions.fetch_add(1, Ordering::Relaxed);
            tracing::info!(table = %config.table, resource = session.resource(), "live");
            stream(config, stats, &mut peer, &mut video, &mut audio, &asked, stop).await
        }
        Ok(None) => Ok(End::Stopped),
        Err(error) => Err(error.into()),
    };
    session.delete().await;
    peer.close().await;
    end
}

/// Sends media until told to stop or the connection is lost.
async fn stream<S: Future<Output = ()>>(
    config: &DealerConfig,
    stats: &DealerStats,
    peer: &mut Peer,
    video: &mut Sender,
    audio: &mut Sender,
    asked: &Notify,
    mut stop: std::pin::Pin<&mut S>,
) -> Result<End, PublishError> {
    video.learn_parameters().await?;
    audio.learn_parameters().await?;
    let mut source = Source::start(&config.source, &config.studio())?;
    stats.live.store(true, Ordering::Relaxed);
    loop {
        tokio::select! {
            () = stop.as_mut() => return Ok(End::Stopped),
            () = asked.notified() => source.request_keyframe(),
            event = peer.events.recv() => match event {
                Some(PeerEvent::State(state)) if is_over(state) => return Ok(End::Lost),
                Some(_) => {}
                None => return Ok(End::Lost),
            },
            media = source.next() => {
                let media = media?;
                let sender = match media.kind {
                    Kind::Video => &mut *video,
                    Kind::Audio => &mut *audio,
                };
                sender.send(&media, stats).await?;
                stats.dropped.store(source.dropped(), Ordering::Relaxed);
            }
        }
    }
}

/// One outgoing RTP stream.
struct Sender {
    track: Arc<TrackLocalStaticRTP>,
    sender: Arc<dyn RtpSender>,
    payloader: Option<Box<dyn Payloader + Send>>,
    /// RTP clock, ticks a second.
    clock: i64,
    ssrc: u32,
    payload_type: u8,
    /// Id of the absolute capture time, when negotiated.
    capture_id: Option<u8>,
    sequence: u16,
    first_timestamp: u32,
    packets: u32,
    octets: u32,
    reported: Option<Instant>,
}

impl Sender {
    async fn new(peer: &Peer, kind: Kind, format: Video) -> Result<Self, PeerError> {
        let (codec, rtp_kind, label) = match kind {
            Kind::Video => (video(format), RtpCodecKind::Video, "video"),
            Kind::Audio => (opus(), RtpCodecKind::Audio, "audio"),
        };
        let (clock, ssrc) = (i64::from(codec.clock_rate), rand::random());
        let track = Arc::new(TrackLocalStaticRTP::new(description(codec, rtp_kind, label, ssrc)));
        let sender = peer.connection.add_track(Arc::clone(&track) as Arc<dyn TrackLocal>).await?;
        Ok(Self {
            track,
            sender,
            payloader: (kind == Kind::Video).then(|| payloader(format)),
            clock,
            ssrc,
            payload_type: 0,
            capture_id: None,
            sequence: rand::random(),
            first_timestamp: rand::random(),
            packets: 0,
            octets: 0,
            reported: None,
        })
    }

    /// Reads what the answer settled: payload type and extension id.
    async fn learn_parameters(&mut self) -> Result<(), PeerError> {
        let parameters = self.sender.get_parameters().await?.rtp_parameters;
        let codec = parameters.codecs.first();
        self.payload_type =
            codec.ok_or(rtc::shared::error::Error::ErrRTPTransceiverCodecUnsupported)?.payload_type;
        let extension = parameters.header_extensions.iter().find(|e| e.uri == ABS_CAPTURE_TIME);
        self.capture_id = extension.and_then(|extension| u8::try_from(extension.id).ok());
        Ok(())
    }

    /// Packetises and sends one frame.
    async fn send(&mut self, media: &Media, stats: &DealerStats) -> Result<(), PeerError> {
        let timestamp = self.first_timestamp.wrapping_add(media.ticks);
        let payloads = match &mut self.payloader {
            Some(payloader) => payloader.payload(MAX_PAYLOAD, &media.data)?,
            None => vec![media.data.clone()],
        };
        let last = payloads.len().saturating_sub(1);
        let bytes: usize = payloads.iter().map(Bytes::len).sum();
        let is_video = media.kind == Kind::Video;
        for (index, payload) in payloads.into_iter().enumerate() {
            let mut packet = rtc::rtp::Packet { payload, ..rtc::rtp::Packet::default() };
            packet.header.version = 2;
            packet.header.ssrc = self.ssrc;
            packet.header.payload_type = self.payload_type;
            packet.header.sequence_number = self.sequence;
            packet.header.timestamp = timestamp;
            packet.header.marker = is_video && index == last;
            if let Some(id) = self.capture_id.filter(|_| index == 0) {
                let ntp = ntp_from_micros(media.captured).to_be_bytes();
                packet.header.set_extension(id, Bytes::copy_from_slice(&ntp))?;
            }
            self.sequence = self.sequence.wrapping_add(1);
            self.packets = self.packets.wrapping_add(1);
            self.octets = self.octets.wrapping_add(packet.payload.len() as u32);
            self.track.write_rtp(packet).await?;
            if index % BURST == BURST - 1 {
                tokio::time::sleep(BREATH).await;
            }
        }
        stats.packets.fetch_add(last as u64 + 1, Ordering::Relaxed);
        stats.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        stats.frames.fetch_add(u64::from(is_video), Ordering::Relaxed);
        stats.keyframes.fetch_add(u64::from(is_video && media.keyframe), Ordering::Relaxed);
        self.report(media, timestamp).await
    }

    /// Sends a sender report once a second, its two clocks tied at the capture.
    async fn report(&mut self, media: &Media, timestamp: u32) -> Result<(), PeerError> {
        let now = Instant::now();
        if self.reported.is_some_and(|at| now - at < REPORT_EVERY) {
            return Ok(());
        }
        self.reported = Some(now);
        let utc = utc_micros();
        let since = (utc - media.captured).clamp(0, 10_000_000) * self.clock / 1_000_000;
        let report = SenderReport {
            ssrc: self.ssrc,
            ntp_time: ntp_from_micros(utc),
            rtp_time: timestamp.wrapping_add(since as u32),
            packet_count: self.packets,
            octet_count: self.octets,
            ..SenderReport::default()
        };
        Ok(self.track.write_rtcp(vec![Box::new(report)]).await?)
    }
}

/// Cuts frames of `format` into RTP payloads.
fn payloader(format: Video) -> Box<dyn Payloader + Send> {
    match format {
        Video::H264 => Box::new(H264Payloader::default()),
        Video::Vp8 => Box::new(Vp8Payloader::default()),
        Video::Vp9 => Box::new(Vp9Payloader::default()),
        Video::Av1 => Box::new(Av1Payloader::default()),
    }
}

/// A track with one encoding.
fn description(codec: RTCRtpCodec, kind: RtpCodecKind, label: &str, ssrc: u32) -> MediaStreamTrack {
    let coding = RTCRtpCodingParameters { ssrc: Some(ssrc), ..RTCRtpCodingParameters::default() };
    let encoding = RTCRtpEncodingParameters {
        rtp_coding_parameters: coding,
        codec,
        ..RTCRtpEncodingParameters::default()
    };
    let (stream, id) = ("dealer".to_owned(), format!("dealer-{label}"));
    MediaStreamTrack::new(stream, id, label.to_owned(), kind, vec![encoding])
}

/// A hint for the person at the terminal, for errors that have an obvious next step.
pub fn hint(error: &PeerError) -> Option<&'static str> {
    match error {
        PeerError::Signal(SignalError::Url(_)) => {
            Some("use http://host:8080/whip/TABLE or /whep/TABLE")
        }
        PeerError::Signal(SignalError::Http { .. }) => {
            Some("is the gateway running at that address?")
        }
        PeerError::Signal(SignalError::Refused { status, .. }) => match status.as_u16() {
            401 | 403 => Some("pass the table's key with --token"),
            404 => Some("is somebody publishing this table?"),
            _ => None,
        },
        PeerError::Timeout => Some("open the gateway's UDP media port (default 8443)"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dealer::picture::Picture;
    use crate::dealer::video::VideoEncoder;

    #[test]
    fn a_keyframe_is_cut_into_payloads_of_at_most_1200_bytes() {
        let mut picture = Picture::new("demo", 1280, 720).unwrap();
        let mut encoder = VideoEncoder::new(30, 1_800_000, 1).unwrap();
        let unit = encoder.encode(picture.draw(1_700_000_000_000), true).unwrap().unwrap();
        let mut payloader = H264Payloader::default();
        let payloads = payloader.payload(MAX_PAYLOAD, &Bytes::from(unit.data)).unwrap();
        assert!(payloads.len() > 10, "{} packets", payloads.len());
        assert!(payloads.iter().all(|payload| payload.len() <= MAX_PAYLOAD));
        assert_eq!(payloads[0][0] & 0x1f, 24, "parameter sets travel in a STAP-A");
    }
}
