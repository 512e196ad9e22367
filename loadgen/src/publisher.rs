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

use tokio::sync::Notify;

use crate::dealer::DealerError;
use crate::dealer::studio::{Kind, StudioConfig};
use crate::peer::{Peer, PeerError, PeerEvent, Role, is_over, local_address};
use crate::sender::Sender;
use crate::source::{Source, SourceConfig};
use crate::whip::SignalError;

pub use crate::sender::MAX_PAYLOAD;

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
            scales: self.source.scales(),
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
    let rids = config.source.rids();
    let mut video = Sender::open(&peer, Kind::Video, format, &rids).await?;
    let mut audio = Sender::open(&peer, Kind::Audio, format, &[]).await?;
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
    video: &mut [Sender],
    audio: &mut [Sender],
    asked: &Notify,
    mut stop: std::pin::Pin<&mut S>,
) -> Result<End, PublishError> {
    let mid = peer.video_mid().await;
    for sender in video.iter_mut().chain(audio.iter_mut()) {
        sender.learn_parameters(&mid).await?;
    }
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
                let (layer, media) = media?;
                let sender = match media.kind {
                    Kind::Video => video.get_mut(layer),
                    Kind::Audio => audio.first_mut(),
                };
                if let Some(sender) = sender {
                    sender.send(&media, stats).await?;
                }
                stats.dropped.store(source.dropped(), Ordering::Relaxed);
            }
        }
    }
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
