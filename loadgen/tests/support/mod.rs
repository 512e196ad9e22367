//! A WHIP/WHEP server of a hundred lines, on the `webrtc` crate.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::{delete, post};
use railbird_loadgen::peer::{Peer, PeerEvent, Role, h264, opus};
use rtc::media_stream::MediaStreamTrack;
use rtc::rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtc::rtp_transceiver::rtp_sender::{
    RTCRtpCodingParameters, RTCRtpEncodingParameters, RTCRtpRtxParameters, RtpCodecKind,
};
use tokio::sync::{Mutex, broadcast, mpsc};
use webrtc::media_stream::track_local::TrackLocal;
use webrtc::media_stream::track_local::static_rtp::TrackLocalStaticRTP;
use webrtc::media_stream::track_remote::{TrackRemote, TrackRemoteEvent};
use webrtc::peer_connection::{PeerConnection, RTCSessionDescription};

/// SSRCs of what a viewer is sent.
const VIDEO_SSRC: u32 = 1001;
const RTX_SSRC: u32 = 1002;
const AUDIO_SSRC: u32 = 1003;

/// What the handlers share.
struct Shared {
    token: Option<&'static str>,
    video: mpsc::Sender<rtc::rtp::Packet>,
    live: broadcast::Sender<(bool, rtc::rtp::Packet)>,
    publisher: Mutex<Option<(Arc<dyn TrackRemote>, u32)>>,
    peers: Mutex<Vec<Box<dyn PeerConnection>>>,
    capture_times: Arc<AtomicU64>,
    deleted: Arc<AtomicU64>,
}

/// The running server.
pub struct Server {
    base: String,
    shared: Arc<Shared>,
    /// Video packets of the publisher.
    pub video: mpsc::Receiver<rtc::rtp::Packet>,
    /// Packets that carried an absolute capture time.
    pub capture_times: Arc<AtomicU64>,
    /// Sessions deleted.
    pub deleted: Arc<AtomicU64>,
}

impl Server {
    /// Starts on a free port; refuses publishers without `token` when given.
    pub async fn start(token: Option<&'static str>) -> Self {
        let (sender, video) = mpsc::channel(4096);
        let (capture_times, deleted) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let shared = Arc::new(Shared {
            token,
            video: sender,
            live: broadcast::channel(1024).0,
            publisher: Mutex::new(None),
            peers: Mutex::new(Vec::new()),
            capture_times: Arc::clone(&capture_times),
            deleted: Arc::clone(&deleted),
        });
        let router = Router::new()
            .route("/{kind}/{table}", post(offer))
            .route("/{kind}/{table}/{session}", delete(end))
            .with_state(Arc::clone(&shared));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { base, shared, video, capture_times, deleted }
    }

    /// URL of an endpoint, `whip` or `whep`.
    pub fn url(&self, kind: &str) -> String {
        format!("{}/{kind}/demo", self.base)
    }

    /// Closes every peer, as a gateway that goes away does.
    pub async fn drop_peers(&self) {
        for peer in self.shared.peers.lock().await.drain(..) {
            peer.close().await.unwrap();
        }
    }

    /// Sends a PLI to the publisher.
    pub async fn request_keyframe(&self) {
        let publisher = self.shared.publisher.lock().await;
        let (track, media_ssrc) = publisher.as_ref().expect("a publisher is live");
        let pli = PictureLossIndication { sender_ssrc: 1, media_ssrc: *media_ssrc };
        track.write_rtcp(vec![Box::new(pli)]).await.unwrap();
    }
}

async fn end(State(shared): State<Arc<Shared>>) {
    shared.deleted.fetch_add(1, Ordering::Relaxed);
}

async fn offer(
    State(shared): State<Arc<Shared>>,
    Path((kind, table)): Path<(String, String)>,
    headers: HeaderMap,
    sdp: String,
) -> impl IntoResponse {
    let authorized = shared.token.is_none_or(|token| {
        headers.get(header::AUTHORIZATION).is_some_and(|v| v == &format!("Bearer {token}"))
    });
    if !authorized {
        return Err((StatusCode::UNAUTHORIZED, r#"{"detail":"wrong key"}"#));
    }
    let publishing = kind == "whip";
    let role = if publishing { Role::Viewer } else { Role::Publisher(Arc::new(|| {})) };
    let mut peer = Peer::new([127, 0, 0, 1].into(), role, None).await.unwrap();
    let tracks = if publishing { None } else { Some(outgoing(&*peer.connection).await) };
    peer.connection
        .set_remote_description(RTCSessionDescription::offer(sdp).unwrap())
        .await
        .unwrap();
    let answer = peer.connection.create_answer(None).await.unwrap();
    peer.connection.set_local_description(answer).await.unwrap();
    while !matches!(peer.events.recv().await, Some(PeerEvent::Gathered)) {}
    let answer = peer.connection.local_description().await.unwrap().sdp;
    let Peer { connection, mut events } = peer;
    shared.peers.lock().await.push(connection);
    let worker = Arc::clone(&shared);
    tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            match event {
                PeerEvent::Track(track) => drop(tokio::spawn(take(track, Arc::clone(&worker)))),
                PeerEvent::State(state) if state.to_string() == "connected" => {
                    if let Some(tracks) = tracks.clone() {
                        tokio::spawn(give(tracks, worker.live.subscribe()));
                    }
                }
                _ => {}
            }
        }
    });
    let location = format!("/{kind}/{table}/1");
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], answer))
}

/// Receives a publisher's track.
async fn take(track: Arc<dyn TrackRemote>, shared: Arc<Shared>) {
    let video = track.kind().await == RtpCodecKind::Video;
    while let Some(event) = track.poll().await {
        let TrackRemoteEvent::OnRtpPacket(packet) = event else { continue };
        let capture = packet.header.extensions.iter().any(|ext| ext.payload.len() == 8);
        if video {
            shared.capture_times.fetch_add(u64::from(capture), Ordering::Relaxed);
            let mut publisher = shared.publisher.lock().await;
            publisher.get_or_insert_with(|| (Arc::clone(&track), packet.header.ssrc));
            drop(publisher);
            let _ = shared.video.try_send(packet.clone());
        }
        let _ = shared.live.send((video, packet));
    }
}

type Tracks = [Arc<TrackLocalStaticRTP>; 2];

async fn outgoing(connection: &dyn PeerConnection) -> Tracks {
    let track = |codec, kind, ssrc, rtx: Option<u32>, id: &str| {
        let coding = RTCRtpCodingParameters {
            ssrc: Some(ssrc),
            rtx: rtx.map(|ssrc| RTCRtpRtxParameters { ssrc }),
            ..RTCRtpCodingParameters::default()
        };
        let encoding = RTCRtpEncodingParameters {
            rtp_coding_parameters: coding,
            codec,
            ..RTCRtpEncodingParameters::default()
        };
        let description =
            MediaStreamTrack::new("s".into(), id.into(), id.into(), kind, vec![encoding]);
        Arc::new(TrackLocalStaticRTP::new(description))
    };
    let tracks = [
        track(h264(), RtpCodecKind::Video, VIDEO_SSRC, Some(RTX_SSRC), "v"),
        track(opus(), RtpCodecKind::Audio, AUDIO_SSRC, None, "a"),
    ];
    for track in &tracks {
        connection.add_track(Arc::clone(track) as Arc<dyn TrackLocal>).await.unwrap();
    }
    tracks
}

/// Forwards live media to a viewer.
async fn give(tracks: Tracks, mut live: broadcast::Receiver<(bool, rtc::rtp::Packet)>) {
    loop {
        let (video, mut packet) = match live.recv().await {
            Ok(item) => item,
            Err(broadcast::error::RecvError::Lagged(_)) => continue,
            Err(broadcast::error::RecvError::Closed) => return,
        };
        packet.header.extension = false;
        packet.header.extensions.clear();
        let (track, ssrc) = if video { (&tracks[0], VIDEO_SSRC) } else { (&tracks[1], AUDIO_SSRC) };
        packet.header.ssrc = ssrc;
        if track.write_rtp(packet).await.is_err() {
            return;
        }
    }
}
