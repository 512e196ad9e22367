//! Outgoing RTP: frames are cut into packets that say when they were captured, and of a
//! simulcast also which layer they are (RFC 8852, RFC 8853).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use rtc::media_stream::MediaStreamTrack;
use rtc::rtcp::sender_report::SenderReport;
use rtc::rtp::codec::av1::Av1Payloader;
use rtc::rtp::codec::h264::H264Payloader;
use rtc::rtp::codec::h265::HevcPayloader;
use rtc::rtp::codec::vp8::Vp8Payloader;
use rtc::rtp::codec::vp9::Vp9Payloader;
use rtc::rtp::packetizer::Payloader;
use rtc::rtp_transceiver::rtp_sender::{
    RTCRtpCodec, RTCRtpCodingParameters, RTCRtpEncodingParameters, RtpCodecKind,
};
use webrtc::media_stream::track_local::TrackLocal;
use webrtc::media_stream::track_local::static_rtp::TrackLocalStaticRTP;
use webrtc::rtp_transceiver::RtpSender;

use crate::dealer::studio::{Kind, Media};
use crate::peer::{ABS_CAPTURE_TIME, MID, Peer, PeerError, RID, opus, video};
use crate::publisher::DealerStats;
use crate::source::Video;
use crate::time::{ntp_from_micros, utc_micros};

/// Largest RTP payload in bytes.
pub const MAX_PAYLOAD: usize = 1200;
/// Packets of a frame sent back to back before a breath, so that a keyframe does
/// not overrun the receiver's socket buffer.
const BURST: usize = 24;
const BREATH: Duration = Duration::from_millis(1);
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// One outgoing RTP stream.
pub struct Sender {
    track: Arc<TrackLocalStaticRTP>,
    sender: Arc<dyn RtpSender>,
    format: Video,
    payloader: Option<Box<dyn Payloader + Send>>,
    /// RTP clock, ticks a second.
    clock: i64,
    ssrc: u32,
    payload_type: u8,
    /// Id of the absolute capture time, when negotiated.
    capture_id: Option<u8>,
    /// Name of the layer, of a simulcast.
    rid: Option<String>,
    /// What names section and layer in each packet of a simulcast, by extension id.
    names: Vec<(u8, Bytes)>,
    sequence: u16,
    first_timestamp: u32,
    packets: u32,
    octets: u32,
    reported: Option<Instant>,
}

impl Sender {
    /// Adds a track to a peer: one stream of it, or one for each layer of a simulcast.
    ///
    /// # Errors
    /// [`PeerError::WebRtc`] when the stack refuses it.
    pub async fn open(
        peer: &Peer,
        kind: Kind,
        format: Video,
        rids: &[String],
    ) -> Result<Vec<Self>, PeerError> {
        let (codec, rtp_kind, label) = match kind {
            Kind::Video => (video(format), RtpCodecKind::Video, "video"),
            Kind::Audio => (opus(), RtpCodecKind::Audio, "audio"),
        };
        let clock = i64::from(codec.clock_rate);
        let rids: Vec<Option<&String>> =
            if rids.is_empty() { vec![None] } else { rids.iter().map(Some).collect() };
        let streams: Vec<(u32, &str)> =
            rids.iter().map(|rid| (rand::random(), rid.map_or("", |rid| rid.as_str()))).collect();
        let description = description(&codec, rtp_kind, label, &streams);
        let track = Arc::new(TrackLocalStaticRTP::new(description));
        let sender = peer.connection.add_track(Arc::clone(&track) as Arc<dyn TrackLocal>).await?;
        // The layers of a picture share its timestamp.
        let first_timestamp = rand::random();
        let stream = |(&(ssrc, _), rid): (&(u32, &str), &Option<&String>)| Self {
            track: Arc::clone(&track),
            sender: Arc::clone(&sender),
            format,
            payloader: (kind == Kind::Video).then(|| payloader(format)),
            clock,
            ssrc,
            payload_type: 0,
            capture_id: None,
            rid: rid.cloned(),
            names: Vec::new(),
            sequence: rand::random(),
            first_timestamp,
            packets: 0,
            octets: 0,
            reported: None,
        };
        Ok(streams.iter().zip(&rids).map(stream).collect())
    }

    /// Reads what the answer settled: payload type and extension ids. `mid` names the
    /// section of video.
    ///
    /// # Errors
    /// [`PeerError::WebRtc`] when nothing was settled.
    pub async fn learn_parameters(&mut self, mid: &str) -> Result<(), PeerError> {
        let parameters = self.sender.get_parameters().await?.rtp_parameters;
        let codec = parameters.codecs.first();
        self.payload_type =
            codec.ok_or(rtc::shared::error::Error::ErrRTPTransceiverCodecUnsupported)?.payload_type;
        let id = |uri: &str| {
            let extension = parameters.header_extensions.iter().find(|e| e.uri == uri)?;
            u8::try_from(extension.id).ok()
        };
        self.capture_id = id(ABS_CAPTURE_TIME);
        if let Some(rid) = &self.rid {
            let names = [(id(MID), mid), (id(RID), rid.as_str())];
            let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
            self.names =
                names.into_iter().filter_map(|(id, name)| Some((id?, bytes(name)))).collect();
        }
        Ok(())
    }

    /// Packetises and sends one frame.
    ///
    /// # Errors
    /// [`PeerError::WebRtc`] when the stack refuses it.
    pub async fn send(&mut self, media: &Media, stats: &DealerStats) -> Result<(), PeerError> {
        let timestamp = self.first_timestamp.wrapping_add(media.ticks);
        let payloads = match &mut self.payloader {
            Some(payloader) => {
                let payloads = payloader.payload(MAX_PAYLOAD, &media.data)?;
                if self.format == Video::Vp9 {
                    vp9_predicted(payloads, !media.keyframe)
                } else {
                    payloads
                }
            }
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
            for (id, name) in &self.names {
                packet.header.set_extension(*id, name.clone())?;
            }
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

/// Says in each VP9 payload descriptor whether the frame is predicted from others (RFC
/// 9628 §4.2: P), which the payloader leaves out, and hence that references are not told
/// frame by frame (F).
fn vp9_predicted(payloads: Vec<Bytes>, predicted: bool) -> Vec<Bytes> {
    let mark = |payload: Bytes| {
        let mut payload = BytesMut::from(payload);
        if let Some(descriptor) = payload.first_mut() {
            *descriptor = *descriptor & !0x50 | if predicted { 0x40 } else { 0 };
        }
        payload.freeze()
    };
    payloads.into_iter().map(mark).collect()
}

/// Cuts frames of `format` into RTP payloads.
fn payloader(format: Video) -> Box<dyn Payloader + Send> {
    match format {
        Video::H264 => Box::new(H264Payloader::default()),
        Video::H265 => Box::new(HevcPayloader),
        Video::Vp8 => Box::new(Vp8Payloader::default()),
        Video::Vp9 => Box::new(Vp9Payloader::default()),
        Video::Av1 => Box::new(Av1Payloader::default()),
    }
}

/// A track with an encoding for each SSRC and layer.
fn description(
    codec: &RTCRtpCodec,
    kind: RtpCodecKind,
    label: &str,
    streams: &[(u32, &str)],
) -> MediaStreamTrack {
    let encoding = |&(ssrc, rid): &(u32, &str)| RTCRtpEncodingParameters {
        rtp_coding_parameters: RTCRtpCodingParameters {
            ssrc: Some(ssrc),
            rid: rid.to_owned(),
            ..RTCRtpCodingParameters::default()
        },
        codec: codec.clone(),
        ..RTCRtpEncodingParameters::default()
    };
    let (stream, id) = ("dealer".to_owned(), format!("dealer-{label}"));
    let encodings = streams.iter().map(encoding).collect();
    MediaStreamTrack::new(stream, id, label.to_owned(), kind, encodings)
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
