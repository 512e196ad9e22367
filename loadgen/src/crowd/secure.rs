//! DTLS 1.2 and SRTP of one viewer (RFC 5764): the handshake in either role, the check
//! of the server's certificate against the answer, and the keys that come of it.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::digest;
use bytes::BytesMut;
use rtc::dtls::config::{ClientAuthType, ConfigBuilder, ExtendedMasterSecretType, HandshakeConfig};
use rtc::dtls::crypto::Certificate;
use rtc::dtls::endpoint::{Endpoint, EndpointEvent};
use rtc::dtls::extension::extension_use_srtp::SrtpProtectionProfile;
use rtc::shared::TransportProtocol;
use rtc_crypto::providers::AwsLcRsProvider;
use rtc_crypto::{RTCCrypto, RTCCryptoProvider};
use rtc_srtp::context::Context;
use rtc_srtp::protection_profile::ProtectionProfile;

/// The library tells peers apart by address; each viewer has an endpoint of its own.
const PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9);
/// RFC 5764 §4.2.
const EXPORTER_LABEL: &str = "EXTRACTOR-dtls_srtp";
/// Before a flight of the handshake is repeated.
const FLIGHT_INTERVAL: Duration = Duration::from_millis(500);
/// In the order of our wishes: a server that follows it gives the cheap one.
const PROFILES: [SrtpProtectionProfile; 3] = [
    SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm,
    SrtpProtectionProfile::Srtp_Aead_Aes_256_Gcm,
    SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80,
];

/// Why there are no keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecureError {
    /// The handshake could not go on.
    #[error("DTLS handshake failed")]
    Handshake,
    /// The server is not who the answer says.
    #[error("the server's certificate does not fit the answer's fingerprint")]
    Fingerprint,
    /// No SRTP profile in common, or no keys.
    #[error("no SRTP keys")]
    NoSrtp,
}

/// The certificate and settings that all viewers of a process share.
pub struct Identity {
    client: Arc<HandshakeConfig>,
    server: Arc<HandshakeConfig>,
    fingerprint: String,
    provider: Arc<dyn RTCCryptoProvider>,
}

impl Identity {
    /// Makes a self-signed certificate.
    ///
    /// # Errors
    /// A message of the cryptography library.
    pub fn generate() -> Result<Arc<Self>, String> {
        let provider: Arc<dyn RTCCryptoProvider> = Arc::new(AwsLcRsProvider::default());
        let certificate =
            Certificate::generate_self_signed(vec!["viewer".to_owned()], provider.crypto())
                .map_err(|error| error.to_string())?;
        let der = certificate.certificate.first().ok_or("no certificate was made")?;
        let mut fingerprint = "sha-256 ".to_owned();
        for (index, byte) in sha256(der).iter().enumerate() {
            let separator = if index == 0 { "" } else { ":" };
            // Writing to a string cannot fail.
            let _ = write!(fingerprint, "{separator}{byte:02X}");
        }
        let config = |client| {
            ConfigBuilder::default()
                .with_crypto_provider(provider.clone())
                .with_certificates(vec![certificate.clone()])
                .with_srtp_protection_profiles(PROFILES.to_vec())
                .with_client_auth(ClientAuthType::RequireAnyClientCert)
                // The certificate is checked against the answer's fingerprint below.
                .with_insecure_skip_verify(true)
                .with_extended_master_secret(ExtendedMasterSecretType::Request)
                .with_flight_interval(FLIGHT_INTERVAL)
                .build(client, None)
                .map(Arc::new)
                .map_err(|error| error.to_string())
        };
        let (client, server) = (config(true)?, config(false)?);
        Ok(Arc::new(Self { client, server, fingerprint, provider }))
    }

    /// The value of `a=fingerprint`.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The cryptography that STUN needs too.
    pub fn crypto(&self) -> &dyn RTCCrypto {
        self.provider.crypto()
    }
}

/// What a datagram led to.
pub enum Outcome {
    /// Nothing for the caller.
    Progress,
    /// The handshake is complete.
    Keys(Box<Keys>),
    /// The server has closed.
    Closed,
}

/// The DTLS side of a viewer.
pub struct Handshake {
    identity: Arc<Identity>,
    endpoint: Endpoint,
    expected: [u8; 32],
    client: bool,
    done: bool,
}

impl Handshake {
    /// Starts: a client says hello, a server waits for it. `expected` is the SHA-256 of
    /// the server's certificate.
    ///
    /// # Errors
    /// [`SecureError::Handshake`] when the library cannot start.
    pub fn start(
        now: Instant,
        identity: Arc<Identity>,
        expected: [u8; 32],
        client: bool,
    ) -> Result<Self, SecureError> {
        let server = (!client).then(|| Arc::clone(&identity.server));
        let mut endpoint = Endpoint::new(PEER, TransportProtocol::UDP, server);
        if client {
            endpoint
                .connect(now, PEER, Arc::clone(&identity.client), None)
                .map_err(|_| SecureError::Handshake)?;
        }
        Ok(Self { identity, endpoint, expected, client, done: false })
    }

    /// Takes a datagram of the server.
    ///
    /// # Errors
    /// [`SecureError`]: the session cannot go on.
    pub fn handle(&mut self, now: Instant, datagram: &[u8]) -> Result<Outcome, SecureError> {
        let events = match self.endpoint.read(now, PEER, None, BytesMut::from(datagram)) {
            Ok(events) => events,
            Err(error) => {
                // What is merely wrong is ignored (RFC 6347 §4.1.2.7).
                tracing::debug!(%error, "DTLS datagram ignored");
                return Ok(Outcome::Progress);
            }
        };
        for event in events {
            match event {
                EndpointEvent::HandshakeComplete => {
                    self.done = true;
                    return self.keys().map(|keys| Outcome::Keys(Box::new(keys)));
                }
                EndpointEvent::PeerClosed => return Ok(Outcome::Closed),
                _ => {}
            }
        }
        Ok(Outcome::Progress)
    }

    /// Repeats a flight that was not answered.
    ///
    /// # Errors
    /// [`SecureError::Handshake`] when the server never answered.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), SecureError> {
        match self.endpoint.handle_timeout(PEER, now) {
            Err(_) if !self.done && self.client => Err(SecureError::Handshake),
            _ => Ok(()),
        }
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.endpoint.poll_timeout(&PEER)
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<BytesMut> {
        self.endpoint.poll_transmit().map(|transmit| transmit.message)
    }

    /// Queues the goodbye.
    pub fn close(&mut self, now: Instant) {
        self.endpoint.stop(now, PEER);
    }

    fn keys(&self) -> Result<Keys, SecureError> {
        let state = self.endpoint.get_connection_state(PEER).ok_or(SecureError::NoSrtp)?;
        let certificate = state.peer_certificates.first().ok_or(SecureError::Fingerprint)?;
        if sha256(certificate) != self.expected {
            return Err(SecureError::Fingerprint);
        }
        let profile = match state.srtp_protection_profile() {
            SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm => ProtectionProfile::AeadAes128Gcm,
            SrtpProtectionProfile::Srtp_Aead_Aes_256_Gcm => ProtectionProfile::AeadAes256Gcm,
            SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80 => {
                ProtectionProfile::Aes128CmHmacSha1_80
            }
            _ => return Err(SecureError::NoSrtp),
        };
        let (key, salt) = (profile.key_len(), profile.salt_len());
        let exported = state
            .export_keying_material(EXPORTER_LABEL, &[], 2 * (key + salt))
            .map_err(|_| SecureError::NoSrtp)?;
        Keys::new(profile, exported.as_ref(), self.client, self.identity.crypto())
    }
}

/// SRTP and SRTCP of an established session.
pub struct Keys {
    receive: Context,
    send: Context,
    profile: ProtectionProfile,
}

impl Keys {
    /// Splits what DTLS exported (RFC 5764 §4.2): both keys, then both salts, the
    /// client's first.
    fn new(
        profile: ProtectionProfile,
        material: &[u8],
        client: bool,
        crypto: &dyn RTCCrypto,
    ) -> Result<Self, SecureError> {
        let (key, salt) = (profile.key_len(), profile.salt_len());
        if material.len() != 2 * (key + salt) {
            return Err(SecureError::NoSrtp);
        }
        let (keys, salts) = material.split_at(2 * key);
        let (first, second) = ((&keys[..key], &salts[..salt]), (&keys[key..], &salts[salt..]));
        let (ours, theirs) = if client { (first, second) } else { (second, first) };
        let context = |(key, salt)| {
            Context::new(key, salt, profile, None, None, crypto).map_err(|_| SecureError::NoSrtp)
        };
        Ok(Self { receive: context(theirs)?, send: context(ours)?, profile })
    }

    /// The profile agreed on, as the registry of RFC 5764 names it.
    pub fn profile(&self) -> &'static str {
        match self.profile {
            ProtectionProfile::AeadAes128Gcm => "AEAD_AES_128_GCM",
            ProtectionProfile::AeadAes256Gcm => "AEAD_AES_256_GCM",
            _ => "AES128_CM_HMAC_SHA1_80",
        }
    }

    /// Opens an RTP packet; `None` when its authentication tag is wrong.
    pub fn open_rtp(&mut self, packet: &[u8]) -> Option<BytesMut> {
        self.receive.decrypt_rtp(packet).ok()
    }

    /// Opens an RTCP packet; `None` when its authentication tag is wrong.
    pub fn open_rtcp(&mut self, packet: &[u8]) -> Option<BytesMut> {
        self.receive.decrypt_rtcp(packet).ok()
    }

    /// Seals a compound RTCP packet that [`super::rtcp::Writer`] wrote.
    pub fn seal_rtcp(&mut self, compound: &[u8]) -> Option<BytesMut> {
        self.send.encrypt_rtcp(compound).ok()
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut fingerprint = [0; 32];
    fingerprint.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    fingerprint
}

#[cfg(test)]
mod tests {
    use super::*;

    fn print(identity: &Identity) -> [u8; 32] {
        let digits = identity.fingerprint().strip_prefix("sha-256 ").unwrap();
        let bytes: Vec<u8> =
            digits.split(':').map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect();
        bytes.try_into().unwrap()
    }

    /// Runs two handshakes against each other; returns the outcome of each.
    fn shake(expected: [u8; 32]) -> [Result<Option<Box<Keys>>, SecureError>; 2] {
        let now = Instant::now();
        let (here, there) = (Identity::generate().unwrap(), Identity::generate().unwrap());
        let expected = if expected == [0; 32] { print(&there) } else { expected };
        let client_print = print(&here);
        let mut peers = [
            Handshake::start(now, here, expected, true).unwrap(),
            Handshake::start(now, there, client_print, false).unwrap(),
        ];
        let mut outcomes = [Ok(None), Ok(None)];
        for _ in 0..10 {
            for side in 0..2 {
                while let Some(datagram) = peers[side].poll_transmit() {
                    match peers[1 - side].handle(now, &datagram) {
                        Ok(Outcome::Keys(keys)) => outcomes[1 - side] = Ok(Some(keys)),
                        Ok(_) => {}
                        Err(error) => outcomes[1 - side] = Err(error),
                    }
                }
            }
        }
        outcomes
    }

    #[test]
    fn both_roles_get_keys_that_fit_and_the_cheapest_profile() {
        let [Ok(Some(mut client)), Ok(Some(mut server))] = shake([0; 32]) else {
            panic!("no keys");
        };
        assert_eq!(client.profile(), "AEAD_AES_128_GCM");
        let compound = super::super::rtcp::Writer::new(5, &[]).picture_loss(6).finish();
        let sealed = client.seal_rtcp(&compound).unwrap();
        assert_eq!(server.open_rtcp(&sealed).unwrap(), compound);
        let mut forged = sealed.to_vec();
        forged[9] ^= 1;
        assert!(server.open_rtcp(&forged).is_none());
        assert!(server.open_rtcp(&[]).is_none() && server.open_rtp(&[0x80; 7]).is_none());
    }

    #[test]
    fn a_certificate_that_the_answer_did_not_promise_is_refused() {
        let [client, _] = shake([1; 32]);
        assert!(matches!(client, Err(SecureError::Fingerprint)));
    }
}
