//! From the DTLS handshake's keying material to session keys
//! (RFC 5764 §4.2, RFC 3711 §4.3).

use aws_lc_rs::cipher::{AES_128, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::iv::FixedLength;

const KEY_LEN: usize = 16;

/// The protection profiles that the gateway speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// RFC 7714 §14.2.
    AeadAes128Gcm,
    /// RFC 5764 §4.1.2.
    Aes128CmSha1_80,
}

impl Profile {
    /// The value of the `profile` metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AeadAes128Gcm => "aead_aes_128_gcm",
            Self::Aes128CmSha1_80 => "aes128_cm_hmac_sha1_80",
        }
    }

    /// Bytes to export from the handshake: two keys and two salts.
    pub const fn keying_material_len(self) -> usize {
        2 * (KEY_LEN + self.salt_len())
    }

    pub(super) const fn salt_len(self) -> usize {
        match self {
            Self::AeadAes128Gcm => 12,
            Self::Aes128CmSha1_80 => 14,
        }
    }
}

/// What both sides exported from the handshake (RFC 5764 §4.2), cut in its four pieces.
pub struct KeyingMaterial<'a> {
    profile: Profile,
    bytes: &'a [u8],
}

impl<'a> KeyingMaterial<'a> {
    /// `None` unless `bytes` has [`Profile::keying_material_len`] bytes.
    pub fn new(profile: Profile, bytes: &'a [u8]) -> Option<Self> {
        (bytes.len() == profile.keying_material_len()).then_some(Self { profile, bytes })
    }

    pub(super) fn profile(&self) -> Profile {
        self.profile
    }

    /// Master key and salt of the DTLS client (`true`) or server (`false`).
    pub(super) fn master(&self, client: bool) -> (&[u8], &[u8]) {
        let side = usize::from(!client);
        let (keys, salts) = self.bytes.split_at(2 * KEY_LEN);
        let salt_len = self.profile.salt_len();
        (&keys[side * KEY_LEN..][..KEY_LEN], &salts[side * salt_len..][..salt_len])
    }
}

/// What a derived key is for (RFC 3711 §4.3.2); SRTCP's labels are three higher.
#[derive(Clone, Copy)]
#[repr(u8)]
pub(super) enum Label {
    Encryption = 0,
    Authentication = 1,
    Salt = 2,
}

/// RFC 3711 §4.3.1 with key derivation rate 0: the AES-CM key stream under the
/// master key, started at the master salt with the label at its place.
pub(super) fn derive<const N: usize>(
    (key, salt): (&[u8], &[u8]),
    label: Label,
    for_rtcp: bool,
) -> Result<[u8; N], Unspecified> {
    let mut block = [0u8; 16];
    block[..salt.len()].copy_from_slice(salt);
    block[7] ^= label as u8 + if for_rtcp { 3 } else { 0 };
    let cipher = EncryptingKey::ctr(UnboundCipherKey::new(&AES_128, key)?)?;
    let mut stream = [0u8; N];
    cipher.less_safe_encrypt(&mut stream, EncryptionContext::Iv128(FixedLength::from(block)))?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let digits = text.as_bytes().chunks(2);
        digits.map(|d| u8::from_str_radix(std::str::from_utf8(d).unwrap(), 16).unwrap()).collect()
    }

    /// RFC 3711 appendix B.3.
    #[test]
    fn derives_the_keys_of_the_rfc() {
        let key = hex("E1F97A0D3E018BE0D64FA32C06DE4139");
        let salt = hex("0EC675AD498AFEEBB6960B3AABE6");
        let master = (&key[..], &salt[..]);
        let cipher: [u8; 16] = derive(master, Label::Encryption, false).unwrap();
        assert_eq!(cipher[..], hex("C61E7A93744F39EE10734AFE3FF7A087"));
        let salt: [u8; 14] = derive(master, Label::Salt, false).unwrap();
        assert_eq!(salt[..], hex("30CBBC08863D8C85D49DB34A9AE1"));
        let auth: [u8; 20] = derive(master, Label::Authentication, false).unwrap();
        assert_eq!(auth[..], hex("CEBE321F6FF7716B6FD4AB49AF256A156D38BAA4"));
    }
}
