//! Single datagrams of the media port.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::LazyLock;
use std::time::Duration;

use railbird::rtp::extensions::{
    AbsCaptureTime, AbsSendTime, PlayoutDelay, parse_mid, parse_rid, parse_transport_sequence,
};
use railbird::rtp::{HeaderFields, RtpHeader, header_len, write_header};
use railbird::time::Utc;
use railbird::webrtc::dtls::DtlsIdentity;
use railbird::webrtc::ice_lite::BindingRequest;
use railbird::webrtc::rtcp::{self as control, NackSeqs, Rtcp};
use railbird::webrtc::srtp::{
    KeyingMaterial, MAX_RTP_OVERHEAD, Opener, Profile, RtcpSealer, Sealer,
};

use super::records::{Records, choice};

/// The password of every session here.
const PASSWORD: &str = "0123456789012345678901";
/// Exported keys, as long as the longest profile needs.
const KEYS: [u8; 60] = [0x5a; 60];
const FROM: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 4000);

pub(super) static IDENTITY: LazyLock<std::sync::Arc<DtlsIdentity>> =
    LazyLock::new(|| DtlsIdentity::generate().expect("a certificate"));

/// Which protocol a datagram is.
pub fn classify(data: &[u8]) {
    let class = railbird::webrtc::classify::classify(data);
    assert!(class.is_none() || data.len() >= 13);
}

/// A binding request, and the proof of its sender.
pub fn stun(data: &[u8]) {
    let Ok(request) = BindingRequest::parse(data) else { return };
    assert!(!request.local_ufrag().contains(':'));
    if let Ok(binding) = request.authenticate(PASSWORD, FROM, IDENTITY.provider()) {
        assert!(!binding.reply.is_empty() && binding.reply.len() <= 128);
    }
}

/// An RTP packet: its header, extensions and what they carry.
pub fn rtp(data: &[u8]) {
    let Ok(header) = RtpHeader::parse_protected(data) else {
        assert!(RtpHeader::parse(data).is_err());
        return;
    };
    assert!(data.get(header.payload_range.clone()).is_some());
    assert!(header.csrcs().count() <= 15);
    if let Ok(clear) = RtpHeader::parse(data) {
        let payload = data.get(clear.payload_range.clone()).expect("inside of the packet");
        assert_eq!(clear.payload_range.start, header.payload_range.start);
        assert!(payload.len() + usize::from(clear.padding) <= data.len());
    }
    for (id, value) in header.extensions() {
        assert!(header.extension(id).is_some());
        read_extension(value);
    }
    write_back(&header);
}

fn read_extension(value: &[u8]) {
    if let Some(time) = AbsCaptureTime::parse(value) {
        time.write();
        AbsCaptureTime::write_short(time.capture);
        time.capture.offset_micros(time.clock_offset_micros.unwrap_or(0)).rfc3339_millis();
    }
    if let (Some(a), Some(b)) = (AbsSendTime::parse(value), AbsSendTime::parse(&[0xff; 3])) {
        assert_eq!(a.write(), value[..3]);
        a.micros_since(b);
    }
    if let Some(delay) = PlayoutDelay::parse(value) {
        assert!(delay.max_millis() <= PlayoutDelay::MAX_MILLIS);
        assert_eq!(delay.write(), value[..3]);
    }
    parse_transport_sequence(value);
    assert!(parse_mid(value).is_none_or(|mid| mid.len() == value.len()));
    assert!(parse_rid(value).is_none_or(|rid| rid.len() == value.len()));
}

/// What was read can be written, and reads back the same.
fn write_back(header: &RtpHeader<'_>) {
    let extensions: Vec<(u8, &[u8])> = header.extensions().collect();
    let fields = HeaderFields {
        marker: header.marker,
        payload_type: header.payload_type,
        sequence: header.sequence,
        timestamp: header.timestamp,
        ssrc: header.ssrc,
    };
    let Ok(len) = header_len(&extensions) else { return };
    let mut out = vec![0; len];
    write_header(&mut out, &fields, &extensions).expect("as long as it says");
    let again = RtpHeader::parse(&out[..len]).expect("our own header");
    assert_eq!(again.extensions().collect::<Vec<_>>(), extensions);
    assert_eq!((again.sequence, again.timestamp), (fields.sequence, fields.timestamp));
}

/// A decrypted compound RTCP packet.
pub fn rtcp(data: &[u8]) {
    let Ok(messages) = control::parse(data) else { return };
    assert!(messages.len() <= 64);
    for message in &messages {
        match message {
            Rtcp::Nack { seqs, .. } => assert!(seqs.iter().count() <= NackSeqs::MAX_PAIRS * 17),
            Rtcp::Remb { ssrcs, .. } | Rtcp::Bye { ssrcs } => {
                assert!(ssrcs.len() * 4 <= data.len())
            }
            Rtcp::ReceptionReport(report) => {
                let now = Utc::from_micros(1_700_000_000_000_000);
                let trip = control::round_trip(now, &report.block);
                assert!(trip.is_none_or(|trip| trip <= Duration::from_secs(60)));
            }
            Rtcp::SenderReport(report) => _ = Utc::from_ntp(report.ntp).rfc3339_millis(),
            _ => {}
        }
    }
}

/// SRTP and SRTCP packets of one session. The first byte chooses the profile; a
/// record's tag says RTP (0) or RTCP (1), and whether it comes as it is or
/// sealed by the peer (2), which must open to the same bytes.
pub fn srtp(data: &[u8]) {
    let (first, data) = choice(data);
    let profile = [Profile::AeadAes128Gcm, Profile::Aes128CmSha1_80][first % 2];
    let keys = KeyingMaterial::new(profile, &KEYS[..profile.keying_material_len()]);
    let keys = keys.expect("as many as are needed");
    let mut opener = Opener::new(&keys, true).expect("keys");
    let sealer = Sealer::new(&keys, true).expect("keys");
    let mut rtcp_sealer = RtcpSealer::new(&keys, true).expect("keys");
    for (tag, bytes) in Records(data).take(64) {
        match (tag & 1, tag & 2) {
            (0, 0) => _ = opener.open_rtp(&mut bytes.to_vec()),
            (_, 0) => _ = opener.open_rtcp(&mut bytes.to_vec()),
            (0, _) => {
                let mut packet = bytes.to_vec();
                packet.resize(bytes.len() + MAX_RTP_OVERHEAD, 0);
                let index = bytes.get(2..4).map_or(0, |s| u16::from_be_bytes([s[0], s[1]]));
                let sealed = sealer.seal_rtp(&mut packet, bytes.len(), index.into());
                let Ok(len) = sealed else { continue };
                if let Ok(opened) = opener.open_rtp(&mut packet[..len]) {
                    assert_eq!(&packet[..opened], bytes);
                }
            }
            _ => {
                let mut packet = bytes.to_vec();
                if rtcp_sealer.seal_rtcp(&mut packet).is_ok()
                    && let Ok(opened) = opener.open_rtcp(&mut packet)
                {
                    assert_eq!(&packet[..opened], bytes);
                }
            }
        }
    }
}
