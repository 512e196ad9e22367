//! The WebRTC peer that publisher and viewer share.
//!
//! One H.264 format (constrained baseline 3.1) with RTX, one Opus format, the
//! absolute capture time extension, and exactly the interceptors that each side
//! needs. Candidates are gathered before the offer leaves: one round trip, no trickle.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rtc::ice::mdns::MulticastDnsMode;
use rtc::interceptor::{
    Interceptor, NackGeneratorBuilder, NackResponderBuilder, Packet, ReceiverReportBuilder,
    Registry, Slot, StreamInfo, TaggedPacket,
};
use rtc::rtcp::payload_feedbacks::full_intra_request::FullIntraRequest;
use rtc::rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtc::rtp_transceiver::rtp_sender::{
    RTCPFeedback, RTCRtpCodec, RTCRtpCodecParameters, RTCRtpHeaderExtensionCapability, RtpCodecKind,
};
use rtc::sansio::Protocol;
use rtc::shared::error::Error;
use tokio::sync::mpsc;
use webrtc::media_stream::track_remote::TrackRemote;
use webrtc::peer_connection::{
    MediaEngine, PeerConnection, PeerConnectionBuilder, PeerConnectionEventHandler,
    RTCConfigurationBuilder, RTCIceGatheringState, RTCPeerConnectionState, RTCSessionDescription,
    SettingEngineBuilder,
};
use webrtc::runtime::Runtime;

use crate::source::Video;
use crate::whip::{self, Session, SignalError};

/// Header extension that carries the capture time as 64-bit NTP.
pub const ABS_CAPTURE_TIME: &str = "http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time";
/// Header extensions that name section and layer of a simulcast (RFC 9143, RFC 8852).
pub const MID: &str = "urn:ietf:params:rtp-hdrext:sdes:mid";
/// See [`MID`].
pub const RID: &str = "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id";
/// Payload type of video, of whatever format.
pub const H264: u8 = 102;
const RTX: u8 = 103;
/// Payload type of Opus.
pub const OPUS: u8 = 111;
/// Events waiting for the owner of the peer; more are dropped, as only the
/// latest state matters and a session has two tracks.
const EVENTS: usize = 64;
/// How long ICE and DTLS may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Silence until a peer counts as disconnected, then as failed; pause between checks.
const ICE_TIMEOUTS: [Duration; 3] =
    [Duration::from_secs(3), Duration::from_secs(5), Duration::from_secs(1)];

/// Why a peer could not be connected.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// The HTTP exchange failed.
    #[error(transparent)]
    Signal(#[from] SignalError),
    /// The WebRTC stack refused something.
    #[error("WebRTC: {0}")]
    WebRtc(#[from] Error),
    /// No address to send from.
    #[error("no local address towards {host}: {source}")]
    NoAddress {
        /// The server's host.
        host: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// ICE or DTLS did not finish.
    #[error("media did not connect within {} s (is the server's UDP port reachable?)", CONNECT_TIMEOUT.as_secs())]
    Timeout,
}

/// What a peer reports to its owner.
pub enum PeerEvent {
    /// Candidates are gathered.
    Gathered,
    /// The connection changed its state.
    State(RTCPeerConnectionState),
    /// The remote side sends a track.
    Track(Arc<dyn TrackRemote>),
}

/// Which side of the media this peer is.
pub enum Role {
    /// Sends; the function is called for every keyframe request.
    Publisher(Arc<dyn Fn() + Send + Sync>),
    /// Receives.
    Viewer,
}

/// A peer connection with its events.
pub struct Peer {
    /// The connection.
    pub connection: Box<dyn PeerConnection>,
    /// Its events.
    pub events: mpsc::Receiver<PeerEvent>,
}

struct Handler(mpsc::Sender<PeerEvent>);

#[async_trait::async_trait]
impl PeerConnectionEventHandler for Handler {
    async fn on_ice_gathering_state_change(&self, state: RTCIceGatheringState) {
        if state == RTCIceGatheringState::Complete {
            let _ = self.0.try_send(PeerEvent::Gathered);
        }
    }

    async fn on_connection_state_change(&self, state: RTCPeerConnectionState) {
        let _ = self.0.try_send(PeerEvent::State(state));
    }

    async fn on_track(&self, track: Arc<dyn TrackRemote>) {
        let _ = self.0.try_send(PeerEvent::Track(track));
    }
}

impl Peer {
    /// Builds an unconnected peer bound to `local`, on `runtime` when given.
    ///
    /// # Errors
    /// [`PeerError::WebRtc`] when the stack cannot be set up.
    pub async fn new(
        local: IpAddr,
        role: Role,
        runtime: Option<Arc<dyn Runtime>>,
    ) -> Result<Self, PeerError> {
        Self::with_video(local, role, runtime, Video::H264).await
    }

    /// [`Self::new`] with a video format other than H.264.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub async fn with_video(
        local: IpAddr,
        role: Role,
        runtime: Option<Arc<dyn Runtime>>,
        format: Video,
    ) -> Result<Self, PeerError> {
        let (sender, events) = mpsc::channel(EVENTS);
        let [disconnected, failed, keepalive] = ICE_TIMEOUTS;
        let settings = SettingEngineBuilder::new()
            .with_ice_timeouts(Some(disconnected), Some(failed), Some(keepalive))
            .with_include_loopback_candidate(true)
            // Addresses come in the clear; a network without multicast is no reason to fail.
            .with_multicast_dns_mode(MulticastDnsMode::Disabled)
            .build();
        let mut builder = PeerConnectionBuilder::new()
            .with_configuration(RTCConfigurationBuilder::default().build())
            .with_setting_engine(settings)
            .with_media_engine(media_engine(format)?)
            .with_interceptor_registry(interceptors(role))
            .with_handler(Arc::new(Handler(sender)))
            .with_udp_addrs(vec![SocketAddr::new(local, 0)]);
        if let Some(runtime) = runtime {
            builder = builder.with_runtime(runtime);
        }
        Ok(Self { connection: Box::new(builder.build().await?), events })
    }

    /// Offers to a WHIP or WHEP endpoint and applies the answer. Media is not yet
    /// connected when this returns: see [`Self::connected`].
    ///
    /// # Errors
    /// Any [`PeerError`].
    pub async fn negotiate(
        &mut self,
        url: &str,
        token: Option<&str>,
    ) -> Result<Session, PeerError> {
        self.negotiate_through(url, token, None).await
    }

    /// [`Self::negotiate`]; media goes to `via` instead of to the server's candidates.
    ///
    /// # Errors
    /// Any [`PeerError`].
    pub async fn negotiate_through(
        &mut self,
        url: &str,
        token: Option<&str>,
        via: Option<SocketAddr>,
    ) -> Result<Session, PeerError> {
        let offer = self.connection.create_offer(None).await?;
        self.connection.set_local_description(offer).await?;
        let gathered = async {
            while let Some(event) = self.events.recv().await {
                if matches!(event, PeerEvent::Gathered) {
                    break;
                }
            }
        };
        tokio::time::timeout(CONNECT_TIMEOUT, gathered).await.map_err(|_| PeerError::Timeout)?;
        let offer = self.connection.local_description().await.ok_or(Error::ErrConnectionClosed);
        let (session, answer) = whip::negotiate(url, token, offer?.sdp).await?;
        let answer = match via {
            Some(via) => whip::through(&answer, via),
            None => answer,
        };
        let applied = match RTCSessionDescription::answer(answer) {
            Ok(answer) => self.connection.set_remote_description(answer).await,
            Err(error) => Err(error),
        };
        match applied {
            Ok(()) => Ok(session),
            Err(error) => {
                session.delete().await;
                Err(error.into())
            }
        }
    }

    /// Waits until media is connected; tracks that open meanwhile are returned.
    ///
    /// # Errors
    /// [`PeerError::Timeout`] when it does not connect in time, or fails.
    pub async fn connected(&mut self) -> Result<Vec<Arc<dyn TrackRemote>>, PeerError> {
        let mut tracks = Vec::new();
        let wait = async {
            while let Some(event) = self.events.recv().await {
                match event {
                    PeerEvent::State(RTCPeerConnectionState::Connected) => return true,
                    PeerEvent::State(state) if is_over(state) => return false,
                    PeerEvent::Track(track) => tracks.push(track),
                    _ => {}
                }
            }
            false
        };
        match tokio::time::timeout(CONNECT_TIMEOUT, wait).await {
            Ok(true) => Ok(tracks),
            _ => Err(PeerError::Timeout),
        }
    }

    /// Name of the section of video in our offer; empty without one.
    pub async fn video_mid(&self) -> String {
        let sdp = self.connection.local_description().await.map(|local| local.sdp);
        let sdp = sdp.unwrap_or_default();
        let section = sdp.split_once("m=video").map_or("", |(_, section)| section);
        let mid = section.lines().find_map(|line| line.strip_prefix("a=mid:"));
        mid.unwrap_or_default().trim().to_owned()
    }

    /// Closes the connection.
    pub async fn close(self) {
        if let Err(error) = self.connection.close().await {
            tracing::debug!(%error, "peer did not close cleanly");
        }
    }
}

/// Whether a connection in this state is of no more use.
pub fn is_over(state: RTCPeerConnectionState) -> bool {
    matches!(
        state,
        RTCPeerConnectionState::Disconnected
            | RTCPeerConnectionState::Failed
            | RTCPeerConnectionState::Closed
    )
}

/// The local address that reaches the host of `url`.
///
/// # Errors
/// [`PeerError::NoAddress`] when the name or the route does not exist.
pub async fn local_address(url: &str) -> Result<IpAddr, PeerError> {
    let url = whip::parse(url)?;
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let port = url.port_or_known_default().unwrap_or(80);
    let no_address = |source| PeerError::NoAddress { host: host.clone(), source };
    let mut found = tokio::net::lookup_host((host.as_str(), port)).await.map_err(no_address)?;
    let remote = found.next().ok_or_else(|| no_address(std::io::ErrorKind::NotFound.into()))?;
    let any: SocketAddr = if remote.is_ipv4() { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() };
    // Connecting a UDP socket sends nothing; it asks the system for the route.
    let socket = UdpSocket::bind(any).map_err(no_address)?;
    socket.connect(remote).map_err(no_address)?;
    Ok(socket.local_addr().map_err(no_address)?.ip())
}

/// The H.264 format of publisher and viewer.
pub fn h264() -> RTCRtpCodec {
    let feedback = |typ: &str, parameter: &str| RTCPFeedback {
        typ: typ.to_owned(),
        parameter: parameter.to_owned(),
    };
    RTCRtpCodec {
        mime_type: "video/H264".to_owned(),
        clock_rate: 90_000,
        channels: 0,
        sdp_fmtp_line: "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f"
            .to_owned(),
        rtcp_feedback: vec![
            feedback("goog-remb", ""),
            feedback("ccm", "fir"),
            feedback("nack", ""),
            feedback("nack", "pli"),
        ],
    }
}

/// A video format as it is offered.
pub fn video(format: Video) -> RTCRtpCodec {
    let (mime_type, parameters) = match format {
        Video::H264 => return h264(),
        Video::H265 => ("video/H265", "level-id=120;profile-id=1;tier-flag=0;tx-mode=SRST"),
        Video::Vp8 => ("video/VP8", ""),
        Video::Vp9 => ("video/VP9", "profile-id=0"),
        Video::Av1 => ("video/AV1", ""),
    };
    let (mime_type, sdp_fmtp_line) = (mime_type.to_owned(), parameters.to_owned());
    RTCRtpCodec { mime_type, sdp_fmtp_line, ..h264() }
}

/// The Opus format of publisher and viewer.
pub fn opus() -> RTCRtpCodec {
    RTCRtpCodec {
        mime_type: "audio/opus".to_owned(),
        clock_rate: 48_000,
        channels: 2,
        sdp_fmtp_line: "minptime=10;useinbandfec=1".to_owned(),
        rtcp_feedback: Vec::new(),
    }
}

/// Formats and header extensions.
///
/// # Errors
/// When the stack refuses one of them.
pub fn media_engine(format: Video) -> Result<MediaEngine, Error> {
    let mut engine = MediaEngine::default();
    let rtx = RTCRtpCodec {
        mime_type: "video/rtx".to_owned(),
        clock_rate: 90_000,
        channels: 0,
        sdp_fmtp_line: format!("apt={H264}"),
        rtcp_feedback: Vec::new(),
    };
    let formats = [
        (video(format), H264, RtpCodecKind::Video),
        (rtx, RTX, RtpCodecKind::Video),
        (opus(), OPUS, RtpCodecKind::Audio),
    ];
    for (rtp_codec, payload_type, kind) in formats {
        engine.register_codec(RTCRtpCodecParameters { rtp_codec, payload_type }, kind)?;
    }
    for kind in [RtpCodecKind::Video, RtpCodecKind::Audio] {
        let extension = RTCRtpHeaderExtensionCapability { uri: ABS_CAPTURE_TIME.to_owned() };
        engine.register_header_extension(extension, kind, None)?;
    }
    for uri in [MID, RID] {
        let extension = RTCRtpHeaderExtensionCapability { uri: uri.to_owned() };
        engine.register_header_extension(extension, RtpCodecKind::Video, None)?;
    }
    Ok(engine)
}

/// The interceptors of a role. Sender reports are the publisher's own, because
/// only it knows when a frame was captured.
fn interceptors(role: Role) -> Registry {
    match role {
        Role::Publisher(on_request) => Registry::new()
            .with(Slot::NackResponder, NackResponderBuilder::new().with_size(1024).build())
            .with(Slot::ReceiverReport, ReceiverReportBuilder::new().build())
            .with(Slot::from(20_000), Tap::new(Watch::Keyframes(on_request))),
        Role::Viewer => Registry::new()
            .with(Slot::from(6_500), Tap::new(Watch::Rtx(Vec::new())))
            .with(
                Slot::NackGenerator,
                NackGeneratorBuilder::new()
                    .with_size(1024)
                    // It does not know the round trip: asked more often, a server behind
                    // a queue sends the same packet again and again, and feeds the queue.
                    .with_interval(Duration::from_millis(100))
                    .with_max_nacks_per_packet(10)
                    .build(),
            )
            .with(Slot::ReceiverReport, ReceiverReportBuilder::new().build()),
    }
}

/// What a [`Tap`] does with what comes in.
enum Watch {
    /// Calls the function for each PLI or FIR.
    Keyframes(Arc<dyn Fn() + Send + Sync>),
    /// Puts retransmissions (RFC 4588) back into their stream *before* the NACK
    /// generator, which otherwise asks again for what has already come.
    Rtx(Vec<RtxStream>),
}

/// An RTX stream and the one it repairs.
struct RtxStream {
    rtx: u32,
    primary: u32,
    payload_type: u8,
}

/// An interceptor that looks at what comes in and passes everything on.
struct Tap {
    watch: Watch,
    inbound: VecDeque<TaggedPacket>,
    outbound: VecDeque<TaggedPacket>,
}

impl Tap {
    fn new(watch: Watch) -> Self {
        Self { watch, inbound: VecDeque::new(), outbound: VecDeque::new() }
    }
}

/// Undoes RFC 4588 §4: the payload starts with the original sequence number.
fn unwrap_rtx(packet: &mut rtc::rtp::Packet, streams: &[RtxStream]) {
    let Some(stream) = streams.iter().find(|s| s.rtx == packet.header.ssrc) else { return };
    let Some((original, _)) = packet.payload.split_first_chunk::<2>() else { return };
    packet.header.sequence_number = u16::from_be_bytes(*original);
    packet.header.ssrc = stream.primary;
    packet.header.payload_type = stream.payload_type;
    packet.payload = packet.payload.slice(2..);
}

impl Protocol<TaggedPacket, TaggedPacket, ()> for Tap {
    type Rout = TaggedPacket;
    type Wout = TaggedPacket;
    type Eout = ();
    type Error = Error;
    type Time = Instant;

    fn handle_read(&mut self, mut message: TaggedPacket) -> Result<(), Error> {
        match (&self.watch, &mut message.message.packet) {
            (Watch::Keyframes(on_request), Packet::Rtcp(packets)) => {
                let asked = packets.iter().any(|packet| {
                    let packet = packet.as_any();
                    packet.is::<PictureLossIndication>() || packet.is::<FullIntraRequest>()
                });
                if asked {
                    on_request();
                }
            }
            (Watch::Rtx(streams), Packet::Rtp(packet)) => unwrap_rtx(packet, streams),
            _ => {}
        }
        self.inbound.push_back(message);
        Ok(())
    }

    fn poll_read(&mut self) -> Option<TaggedPacket> {
        self.inbound.pop_front()
    }

    fn handle_write(&mut self, message: TaggedPacket) -> Result<(), Error> {
        self.outbound.push_back(message);
        Ok(())
    }

    fn poll_write(&mut self) -> Option<TaggedPacket> {
        self.outbound.pop_front()
    }
}

impl Interceptor for Tap {
    fn bind_local_stream(&mut self, _info: &StreamInfo) {}
    fn unbind_local_stream(&mut self, _info: &StreamInfo) {}
    fn bind_remote_stream(&mut self, info: &StreamInfo) {
        if let (Watch::Rtx(streams), Some(rtx)) = (&mut self.watch, info.ssrc_rtx) {
            streams.retain(|stream| stream.rtx != rtx);
            streams.push(RtxStream { rtx, primary: info.ssrc, payload_type: info.payload_type });
        }
    }
    fn unbind_remote_stream(&mut self, info: &StreamInfo) {
        if let Watch::Rtx(streams) = &mut self.watch {
            streams.retain(|stream| stream.primary != info.ssrc);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retransmission_becomes_the_packet_it_repeats() {
        let streams = [RtxStream { rtx: 7, primary: 5, payload_type: H264 }];
        let mut packet = rtc::rtp::Packet::default();
        packet.header.ssrc = 7;
        packet.payload = bytes::Bytes::from_static(&[0x12, 0x34, 9, 8]);
        unwrap_rtx(&mut packet, &streams);
        assert_eq!((packet.header.ssrc, packet.header.sequence_number), (5, 0x1234));
        assert_eq!(packet.payload[..], [9, 8]);
        unwrap_rtx(&mut packet, &streams);
        assert_eq!(packet.payload.len(), 2, "an ordinary packet is left alone");
    }
}
