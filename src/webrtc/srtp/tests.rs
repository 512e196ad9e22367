//! Against an independent implementation, both ways, for both profiles.

use rtc_crypto::RTCCryptoProvider;
use rtc_crypto::providers::AwsLcRsProvider;
use rtc_srtp::context::Context;
use rtc_srtp::protection_profile::ProtectionProfile;

use super::*;

const PROFILES: [(Profile, ProtectionProfile); 2] = [
    (Profile::AeadAes128Gcm, ProtectionProfile::AeadAes128Gcm),
    (Profile::Aes128CmSha1_80, ProtectionProfile::Aes128CmHmacSha1_80),
];

fn material(profile: Profile) -> Vec<u8> {
    (0..profile.keying_material_len()).map(|i| (i * 7 + 3) as u8).collect()
}

fn peer(profile: Profile, theirs: ProtectionProfile, client: bool) -> Context {
    let bytes = material(profile);
    let keys = KeyingMaterial::new(profile, &bytes).unwrap();
    let (key, salt) = keys.master(client);
    Context::new(key, salt, theirs, None, None, AwsLcRsProvider::default().crypto()).unwrap()
}

fn rtp(sequence: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x90, 96, 0, 0, 1, 2, 3, 4, 0xca, 0xfe, 0xba, 0xbe];
    packet[2..4].copy_from_slice(&sequence.to_be_bytes());
    packet.extend_from_slice(&[0xbe, 0xde, 0, 1, 0x10, 0x42, 0, 0]);
    packet.extend_from_slice(payload);
    packet
}

/// A receiver report of one block.
fn rtcp() -> Vec<u8> {
    let mut packet = vec![0x81, 201, 0, 7, 0xca, 0xfe, 0xba, 0xbe];
    packet.extend_from_slice(&[5; 24]);
    packet
}

#[test]
fn sealed_rtp_opens_at_an_independent_peer_across_a_rollover() {
    for (ours, theirs) in PROFILES {
        let bytes = material(ours);
        let sealer = Sealer::new(&KeyingMaterial::new(ours, &bytes).unwrap(), false).unwrap();
        let mut peer = peer(ours, theirs, false);
        for index in 65_500u64..65_600 {
            let plain = rtp(index as u16, &vec![index as u8; (index % 200) as usize]);
            let mut buffer = plain.clone();
            buffer.resize(plain.len() + MAX_RTP_OVERHEAD, 0);
            let len = sealer.seal_rtp(&mut buffer, plain.len(), index).unwrap();
            assert_eq!(len, plain.len() + sealer.rtp_overhead());
            assert_eq!(peer.decrypt_rtp(&buffer[..len]).unwrap()[..], plain[..]);
        }
    }
}

#[test]
fn rtp_of_an_independent_peer_opens_across_a_rollover_and_out_of_order() {
    for (ours, theirs) in PROFILES {
        let bytes = material(ours);
        let mut opener = Opener::new(&KeyingMaterial::new(ours, &bytes).unwrap(), true).unwrap();
        let mut peer = peer(ours, theirs, true);
        let sealed: Vec<_> = (65_500u32..65_700)
            .map(|i| rtp(i as u16, &[i as u8; 50]))
            .map(|plain| (peer.encrypt_rtp(&plain).unwrap(), plain))
            .collect();
        for pair in sealed.chunks(2) {
            for (sealed, plain) in pair.iter().rev() {
                let mut packet = sealed.to_vec();
                let len = opener.open_rtp(&mut packet).unwrap();
                assert_eq!(packet[..len], plain[..]);
                assert_eq!(opener.open_rtp(&mut sealed.to_vec()), Err(OpenError::Replayed));
            }
        }
    }
}

#[test]
fn rtcp_goes_both_ways() {
    for (ours, theirs) in PROFILES {
        let bytes = material(ours);
        let keys = KeyingMaterial::new(ours, &bytes).unwrap();
        let mut sealer = RtcpSealer::new(&keys, false).unwrap();
        let mut opener = Opener::new(&keys, true).unwrap();
        let mut receiver = peer(ours, theirs, false);
        let mut sender = peer(ours, theirs, true);
        for _ in 0..3 {
            let mut packet = rtcp();
            sealer.seal_rtcp(&mut packet).unwrap();
            assert_eq!(receiver.decrypt_rtcp(&packet).unwrap()[..], rtcp()[..]);

            let sealed = sender.encrypt_rtcp(&rtcp()).unwrap().to_vec();
            let mut packet = sealed.clone();
            let len = opener.open_rtcp(&mut packet).unwrap();
            assert_eq!(packet[..len], rtcp()[..]);
            assert_eq!(opener.open_rtcp(&mut sealed.clone()), Err(OpenError::Replayed));
        }
    }
}

#[test]
fn every_flip_and_truncation_is_refused_and_leaves_no_state() {
    for (ours, theirs) in PROFILES {
        let bytes = material(ours);
        let mut opener = Opener::new(&KeyingMaterial::new(ours, &bytes).unwrap(), true).unwrap();
        let mut peer = peer(ours, theirs, true);
        let rtp = peer.encrypt_rtp(&rtp(7, b"payload")).unwrap().to_vec();
        let rtcp = peer.encrypt_rtcp(&rtcp()).unwrap().to_vec();
        for bit in 0..rtp.len() * 8 {
            let mut bad = rtp.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(opener.open_rtp(&mut bad).is_err());
        }
        for bit in 0..rtcp.len() * 8 {
            let mut bad = rtcp.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(opener.open_rtcp(&mut bad).is_err());
        }
        for len in 0..rtp.len() {
            assert!(opener.open_rtp(&mut rtp[..len].to_vec()).is_err());
        }
        for len in 0..rtcp.len() {
            assert!(opener.open_rtcp(&mut rtcp[..len].to_vec()).is_err());
        }
        assert!(opener.rtp_streams.is_empty() && opener.rtcp_streams.is_empty());
        assert!(opener.open_rtp(&mut rtp.clone()).is_ok());
    }
}
