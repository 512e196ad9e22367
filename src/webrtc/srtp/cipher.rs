//! The two ciphers, each keyed once per direction and protocol.

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{AES_128, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::constant_time;
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::hmac;
use aws_lc_rs::iv::FixedLength;

use super::keys::{KeyingMaterial, Label, Profile, derive};

const GCM_TAG: usize = 16;
const SHA1_80_TAG: usize = 10;

/// A keyed cipher for SRTP or for SRTCP, in one direction.
pub(super) enum Cipher {
    Gcm {
        key: LessSafeKey,
        salt: [u8; 12],
    },
    /// Boxed: it is rare, and its keyed hash alone has 1.7 KiB.
    Cm(Box<CmSha1>),
}

/// AES in counter mode with HMAC-SHA1 (RFC 3711 §4.1.1, §4.2.1).
pub(super) struct CmSha1 {
    key: EncryptingKey,
    salt: [u8; 14],
    mac: hmac::Key,
}

/// Which packet of which stream is sealed or opened.
#[derive(Clone, Copy)]
pub(super) struct Nonces {
    pub(super) ssrc: u32,
    /// 48 bits: rollover counter and sequence number for SRTP, the index for SRTCP.
    pub(super) index: u64,
}

impl Cipher {
    pub(super) fn new(
        material: &KeyingMaterial<'_>,
        client: bool,
        for_rtcp: bool,
    ) -> Result<Self, Unspecified> {
        let master = material.master(client);
        let key: [u8; 16] = derive(master, Label::Encryption, for_rtcp)?;
        Ok(match material.profile() {
            Profile::AeadAes128Gcm => Self::Gcm {
                key: LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &key)?),
                salt: derive(master, Label::Salt, for_rtcp)?,
            },
            Profile::Aes128CmSha1_80 => {
                let auth: [u8; 20] = derive(master, Label::Authentication, for_rtcp)?;
                Self::Cm(Box::new(CmSha1 {
                    key: EncryptingKey::ctr(UnboundCipherKey::new(&AES_128, &key)?)?,
                    salt: derive(master, Label::Salt, for_rtcp)?,
                    mac: hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &auth),
                }))
            }
        })
    }

    pub(super) fn tag_len(&self) -> usize {
        match self {
            Self::Gcm { .. } => GCM_TAG,
            Self::Cm(_) => SHA1_80_TAG,
        }
    }

    /// Encrypts `buffer[clear..]` in place and returns the tag in the first
    /// `tag_len` bytes. `trailer` is authenticated after the packet: the rollover
    /// counter (SRTP, SHA1 only) or the index word (SRTCP).
    pub(super) fn seal(
        &self,
        nonces: Nonces,
        buffer: &mut [u8],
        clear: usize,
        trailer: Trailer,
    ) -> Result<[u8; GCM_TAG], Unspecified> {
        let mut out = [0u8; GCM_TAG];
        match self {
            Self::Gcm { key, salt } => {
                let nonce = Nonce::assume_unique_for_key(gcm_nonce(salt, nonces));
                let (aad, body) = buffer.split_at_mut(clear);
                let tag = match trailer {
                    Trailer::Rollover(_) => {
                        key.seal_in_place_separate_tag(nonce, Aad::from(&*aad), body)?
                    }
                    Trailer::Index(word) => {
                        let aad = rtcp_aad(aad, word);
                        key.seal_in_place_separate_tag(nonce, Aad::from(aad), body)?
                    }
                };
                out.copy_from_slice(tag.as_ref());
            }
            Self::Cm(cm) => {
                let CmSha1 { key, salt, mac } = &**cm;
                cm_transform(key, salt, nonces, &mut buffer[clear..])?;
                let tag = cm_tag(mac, buffer, trailer);
                out[..SHA1_80_TAG].copy_from_slice(&tag.as_ref()[..SHA1_80_TAG]);
            }
        }
        Ok(out)
    }

    /// Verifies `tag` and decrypts `buffer[clear..]` in place.
    pub(super) fn open(
        &self,
        nonces: Nonces,
        buffer: &mut [u8],
        clear: usize,
        tag: &[u8],
        trailer: Trailer,
    ) -> Result<(), Unspecified> {
        match self {
            Self::Gcm { key, salt } => {
                let nonce = Nonce::assume_unique_for_key(gcm_nonce(salt, nonces));
                let (aad, body) = buffer.split_at_mut(clear);
                match trailer {
                    Trailer::Rollover(_) => {
                        key.open_in_place_separate_tag(nonce, Aad::from(&*aad), tag, body)
                    }
                    Trailer::Index(word) => {
                        let aad = rtcp_aad(aad, word);
                        key.open_in_place_separate_tag(nonce, Aad::from(aad), tag, body)
                    }
                }?;
            }
            Self::Cm(cm) => {
                let CmSha1 { key, salt, mac } = &**cm;
                let computed = cm_tag(mac, buffer, trailer);
                constant_time::verify_slices_are_equal(&computed.as_ref()[..SHA1_80_TAG], tag)?;
                cm_transform(key, salt, nonces, &mut buffer[clear..])?;
            }
        }
        Ok(())
    }
}

/// What follows the packet under the authentication tag.
#[derive(Clone, Copy)]
pub(super) enum Trailer {
    /// SRTP's rollover counter: implicit, under the tag of SHA1 only (RFC 3711 §4.2).
    Rollover(u32),
    /// SRTCP's E flag and index: on the wire, under the tag (RFC 3711 §3.4, RFC 7714 §9.3).
    Index(u32),
}

/// RFC 7714 §8.1 and §9.1.
fn gcm_nonce(salt: &[u8; 12], Nonces { ssrc, index }: Nonces) -> [u8; 12] {
    let mut nonce = *salt;
    xor(&mut nonce[2..6], &ssrc.to_be_bytes());
    xor(&mut nonce[6..12], &index.to_be_bytes()[2..]);
    nonce
}

/// RFC 7714 §9.2: the first eight bytes and the index word.
fn rtcp_aad(header: &[u8], word: u32) -> [u8; 12] {
    let mut aad = [0u8; 12];
    aad[..8].copy_from_slice(&header[..8]);
    aad[8..].copy_from_slice(&word.to_be_bytes());
    aad
}

/// RFC 3711 §4.1.1: the key stream starts at salt, SSRC and index.
fn cm_transform(
    key: &EncryptingKey,
    salt: &[u8; 14],
    Nonces { ssrc, index }: Nonces,
    body: &mut [u8],
) -> Result<(), Unspecified> {
    let mut block = [0u8; 16];
    block[..14].copy_from_slice(salt);
    xor(&mut block[4..8], &ssrc.to_be_bytes());
    xor(&mut block[8..14], &index.to_be_bytes()[2..]);
    key.less_safe_encrypt(body, EncryptionContext::Iv128(FixedLength::from(block)))?;
    Ok(())
}

fn cm_tag(mac: &hmac::Key, packet: &[u8], trailer: Trailer) -> hmac::Tag {
    let (Trailer::Rollover(word) | Trailer::Index(word)) = trailer;
    let mut context = hmac::Context::with_key(mac);
    context.update(packet);
    context.update(&word.to_be_bytes());
    context.sign()
}

fn xor(target: &mut [u8], with: &[u8]) {
    for (byte, other) in target.iter_mut().zip(with) {
        *byte ^= other;
    }
}
