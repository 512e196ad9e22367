//! DTLS 1.2 (RFC 6347) with one peer: the handshake that keys SRTP (RFC 5764).
//!
//! The gateway is the server, unless the offer says `a=setup:passive` (ffmpeg does).
//! A server follows the order of SRTP profiles in the client's offer, and browsers
//! put SHA1_80 first, which costs five times as much per packet. So the server
//! offers GCM alone, unless the first ClientHello shows that the client has none.

mod client_hello;

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
use rtc_crypto::RTCCryptoProvider;
use rtc_crypto::providers::AwsLcRsProvider;

use self::client_hello::{ClientHelloReader, Offered};
use super::srtp::{KeyingMaterial, Opener, Profile, RtcpSealer, Sealer};

/// RFC 5764 §4.2.
const EXPORTER_LABEL: &str = "EXTRACTOR-dtls_srtp";
/// The library tells peers apart by address; each of ours has an endpoint of its
/// own, so that a peer whose address changes keeps its keys.
const PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9);
const GCM: SrtpProtectionProfile = SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm;
const SHA1: SrtpProtectionProfile = SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80;
/// Wait before a flight is sent again; the library keeps it constant and gives up
/// after eight. Half of RFC 6347 §4.2.4.1's second, so that one loss does not cost a
/// viewer its startup target, and still four seconds of patience.
const FLIGHT_INTERVAL: Duration = Duration::from_millis(500);
/// Records that the library may be given before the handshake is over; a real one
/// has about twenty, with all retransmissions under 160. It keeps them, and what it
/// keeps has no bound of its own; past this they are dropped.
const HANDSHAKE_RECORDS: u32 = 256;
/// Handshake records taken once the handshake is over: the peer repeats its last
/// flight when ours was lost. They need no keys, so anybody can forge them.
const LATE_HANDSHAKE_RECORDS: u32 = 32;
/// Records in one datagram; more have no place in a handshake.
const RECORDS_PER_DATAGRAM: u32 = 16;
/// Longest datagram that is handed to the handshake.
const MAX_DATAGRAM: usize = 2048;

/// SHA-256 of a certificate, as `a=fingerprint` carries it (RFC 8122 §5).
pub type Fingerprint = [u8; 32];

/// A fingerprint as `a=fingerprint:sha-256` writes it.
pub fn fingerprint_text(fingerprint: &Fingerprint) -> String {
    let mut text = String::with_capacity(95);
    for (i, byte) in fingerprint.iter().enumerate() {
        let separator = if i == 0 { "" } else { ":" };
        // Writing to a string cannot fail.
        let _ = write!(text, "{separator}{byte:02X}");
    }
    text
}

/// Who sends the ClientHello (RFC 8842 §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DtlsRole {
    /// We do: the answer says `a=setup:active`.
    Client,
    /// The peer does: the answer says `a=setup:passive`.
    Server,
}

/// Why a peer's handshake ended its session; the value of the `reason` label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DtlsError {
    /// The library could not go on with what it was given.
    #[error("handshake failed")]
    Handshake,
    /// The certificate is not the one that the offer promised.
    #[error("certificate does not fit the fingerprint in the offer")]
    Fingerprint,
    /// No SRTP profile in common, or no keys from the handshake.
    #[error("no SRTP keys")]
    NoSrtp,
}

/// The gateway's certificate and handshake settings, made once, shared by all peers.
pub struct DtlsIdentity {
    gcm: Arc<HandshakeConfig>,
    sha1: Arc<HandshakeConfig>,
    client: Arc<HandshakeConfig>,
    fingerprint: Fingerprint,
    provider: Arc<dyn RTCCryptoProvider>,
}

impl DtlsIdentity {
    /// A fresh self-signed certificate (ECDSA P-256); its fingerprint goes into answers.
    ///
    /// # Errors
    /// A message from the cryptography library.
    pub fn generate() -> Result<Arc<Self>, String> {
        let provider: Arc<dyn RTCCryptoProvider> = Arc::new(AwsLcRsProvider::default());
        let certificate =
            Certificate::generate_self_signed(vec!["railbird".to_owned()], provider.crypto())
                .map_err(|error| error.to_string())?;
        let der = certificate.certificate.first().ok_or("no certificate was made")?;
        let fingerprint = sha256(der);
        let config = |role, profiles| {
            ConfigBuilder::default()
                .with_crypto_provider(provider.clone())
                .with_certificates(vec![certificate.clone()])
                .with_srtp_protection_profiles(profiles)
                .with_client_auth(ClientAuthType::RequireAnyClientCert)
                // The certificate is checked against the offer's fingerprint below.
                .with_insecure_skip_verify(true)
                .with_extended_master_secret(ExtendedMasterSecretType::Require)
                .with_flight_interval(FLIGHT_INTERVAL)
                .build(role == DtlsRole::Client, None)
                .map(Arc::new)
                .map_err(|error| error.to_string())
        };
        Ok(Arc::new(Self {
            gcm: config(DtlsRole::Server, vec![GCM])?,
            sha1: config(DtlsRole::Server, vec![SHA1])?,
            client: config(DtlsRole::Client, vec![GCM, SHA1])?,
            fingerprint,
            provider,
        }))
    }

    /// SHA-256 of the gateway's certificate.
    pub fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    /// The cryptography that STUN shares with DTLS.
    pub fn provider(&self) -> &dyn RTCCryptoProvider {
        &*self.provider
    }
}

/// SRTP keys of an established session.
pub struct SrtpKeys {
    /// The profile agreed on.
    pub profile: Profile,
    /// Seals the RTP that we send; whoever sends it takes it.
    pub sealer: Option<Sealer>,
    /// Seals the RTCP that we send.
    pub rtcp_sealer: RtcpSealer,
    /// Opens what the peer sends.
    pub opener: Opener,
}

enum State {
    /// Client: until the peer has a proven address.
    Idle,
    /// Server: collecting the first ClientHello, to choose the handshake settings.
    Choosing(ClientHelloReader),
    Running(Box<Endpoint>),
}

/// The DTLS side of one peer. Order of calls: [`Self::handle_datagram`] with each
/// datagram and [`Self::handle_timeout`] at [`Self::poll_timeout`], each followed
/// by [`Self::poll_transmit`] until it returns `None`.
pub struct Dtls {
    identity: Arc<DtlsIdentity>,
    remote_fingerprint: Fingerprint,
    role: DtlsRole,
    state: State,
    established: bool,
    /// The library refused a datagram.
    stumbled: bool,
    /// Records that may still be given to the library, see [`HANDSHAKE_RECORDS`].
    budget: u32,
}

/// What a datagram led to.
pub enum DtlsOutcome {
    /// Nothing for the caller.
    Progress,
    /// Not DTLS, or more of it than a handshake needs: dropped.
    Refused,
    /// The handshake is complete; SRTP may start.
    Established(Box<SrtpKeys>),
    /// The peer closed the association.
    Closed,
}

impl Dtls {
    /// For a peer whose offer promised `remote_fingerprint`.
    pub fn new(
        identity: Arc<DtlsIdentity>,
        remote_fingerprint: Fingerprint,
        role: DtlsRole,
    ) -> Self {
        let state = match role {
            DtlsRole::Client => State::Idle,
            DtlsRole::Server => State::Choosing(ClientHelloReader::default()),
        };
        Self {
            identity,
            remote_fingerprint,
            role,
            state,
            established: false,
            stumbled: false,
            budget: HANDSHAKE_RECORDS,
        }
    }

    /// The peer has proven an address: a client says hello now. Later calls, and a
    /// server, do nothing.
    ///
    /// # Errors
    /// [`DtlsError::Handshake`] when the library cannot make a hello.
    pub fn start(&mut self, now: Instant) -> Result<(), DtlsError> {
        if !matches!(self.state, State::Idle) {
            return Ok(());
        }
        let mut endpoint = Endpoint::new(PEER, TransportProtocol::UDP, None);
        endpoint
            .connect(now, PEER, self.identity.client.clone(), None)
            .map_err(|_| DtlsError::Handshake)?;
        self.state = State::Running(Box::new(endpoint));
        Ok(())
    }

    /// Takes a datagram from an address that ICE has validated.
    ///
    /// # Errors
    /// [`DtlsError`]: the session cannot go on. Datagrams that are merely wrong
    /// are ignored, because anybody can forge them (RFC 6347 §4.1.2.7): also during
    /// the handshake, which then ends by its timeout if it was the peer's own fault.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        datagram: &[u8],
    ) -> Result<DtlsOutcome, DtlsError> {
        let records = if datagram.len() > MAX_DATAGRAM { None } else { count_records(datagram) };
        if !records.is_some_and(|records| self.affords(records)) {
            return Ok(DtlsOutcome::Refused);
        }
        if let State::Choosing(reader) = &mut self.state {
            let Some((offered, datagrams)) = reader.push(datagram) else {
                return Ok(DtlsOutcome::Progress);
            };
            self.state = State::Running(Box::new(self.endpoint(offered)));
            let mut outcome = DtlsOutcome::Progress;
            for datagram in datagrams {
                outcome = self.run(now, &datagram)?;
            }
            return Ok(outcome);
        }
        self.run(now, datagram)
    }

    /// Drives retransmissions of the handshake (RFC 6347 §4.2.4).
    ///
    /// # Errors
    /// [`DtlsError::Handshake`] when the peer never answered.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), DtlsError> {
        match &mut self.state {
            State::Idle | State::Choosing(_) => Ok(()),
            State::Running(endpoint) => match endpoint.handle_timeout(PEER, now) {
                Err(_) if !self.established => Err(DtlsError::Handshake),
                _ => Ok(()),
            },
        }
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match &self.state {
            State::Idle | State::Choosing(_) => None,
            State::Running(endpoint) => endpoint.poll_timeout(&PEER),
        }
    }

    /// Something that came was refused: if the handshake does not finish in time,
    /// this is why, rather than silence.
    pub fn has_stumbled(&self) -> bool {
        self.stumbled
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<BytesMut> {
        match &mut self.state {
            State::Idle | State::Choosing(_) => None,
            State::Running(endpoint) => endpoint.poll_transmit().map(|transmit| transmit.message),
        }
    }

    /// Queues a close_notify for the peer.
    pub fn close(&mut self, now: Instant) {
        if let State::Running(endpoint) = &mut self.state {
            endpoint.stop(now, PEER);
        }
    }

    /// Takes the price of a datagram's records, if there is that much left. Before the
    /// handshake is over the library keeps every record, afterwards only those of it.
    fn affords(&mut self, records: Records) -> bool {
        let price = if self.established { records.handshake } else { records.all };
        match self.budget.checked_sub(price) {
            Some(left) if records.all <= RECORDS_PER_DATAGRAM => {
                self.budget = left;
                true
            }
            _ => false,
        }
    }

    fn endpoint(&self, offered: Offered) -> Endpoint {
        let config = match offered {
            Offered::Gcm => &self.identity.gcm,
            Offered::NoGcm => &self.identity.sha1,
        };
        Endpoint::new(PEER, TransportProtocol::UDP, Some(config.clone()))
    }

    fn run(&mut self, now: Instant, datagram: &[u8]) -> Result<DtlsOutcome, DtlsError> {
        let State::Running(endpoint) = &mut self.state else { return Ok(DtlsOutcome::Progress) };
        let events = match endpoint.read(now, PEER, None, BytesMut::from(datagram)) {
            Ok(events) => events,
            Err(error) => {
                tracing::debug!(%error, "DTLS datagram ignored");
                self.stumbled = true;
                return Ok(DtlsOutcome::Refused);
            }
        };
        for event in events {
            match event {
                EndpointEvent::HandshakeComplete => {
                    self.established = true;
                    self.budget = LATE_HANDSHAKE_RECORDS;
                    return Ok(DtlsOutcome::Established(Box::new(self.keys()?)));
                }
                EndpointEvent::PeerClosed => return Ok(DtlsOutcome::Closed),
                _ => {}
            }
        }
        Ok(DtlsOutcome::Progress)
    }

    fn keys(&self) -> Result<SrtpKeys, DtlsError> {
        let State::Running(endpoint) = &self.state else { return Err(DtlsError::NoSrtp) };
        let state = endpoint.get_connection_state(PEER).ok_or(DtlsError::NoSrtp)?;
        let certificate = state.peer_certificates.first().ok_or(DtlsError::Fingerprint)?;
        if sha256(certificate) != self.remote_fingerprint {
            return Err(DtlsError::Fingerprint);
        }
        let profile = match state.srtp_protection_profile() {
            GCM => Profile::AeadAes128Gcm,
            SHA1 => Profile::Aes128CmSha1_80,
            _ => return Err(DtlsError::NoSrtp),
        };
        let exported = state
            .export_keying_material(EXPORTER_LABEL, &[], profile.keying_material_len())
            .map_err(|_| DtlsError::NoSrtp)?;
        let material = KeyingMaterial::new(profile, exported.as_ref()).ok_or(DtlsError::NoSrtp)?;
        let client = self.role == DtlsRole::Client;
        Ok(SrtpKeys {
            profile,
            sealer: Some(Sealer::new(&material, client).map_err(|_| DtlsError::NoSrtp)?),
            rtcp_sealer: RtcpSealer::new(&material, client).map_err(|_| DtlsError::NoSrtp)?,
            opener: Opener::new(&material, !client).map_err(|_| DtlsError::NoSrtp)?,
        })
    }
}

/// The records of a datagram, by what they cost.
#[derive(Clone, Copy)]
struct Records {
    all: u32,
    /// Handshake and ChangeCipherSpec: what the library may keep although nothing
    /// authenticates it.
    handshake: u32,
}

/// Counts the records of a datagram; `None` unless it consists of whole DTLS 1.0 or
/// 1.2 records (RFC 6347 §4.1). A ClientHello's record may have the former version.
fn count_records(mut datagram: &[u8]) -> Option<Records> {
    const CHANGE_CIPHER_SPEC: u8 = 20;
    const HANDSHAKE: u8 = 22;
    let mut records = Records { all: 0, handshake: 0 };
    while let Some((header, rest)) = datagram.split_at_checked(13) {
        let len = usize::from(u16::from_be_bytes([header[11], header[12]]));
        let known = matches!(header[0], 20..=23) && header[1] == 0xfe;
        let (_, rest) = rest.split_at_checked(len).filter(|_| known && len > 0)?;
        records.all += 1;
        records.handshake += u32::from(matches!(header[0], CHANGE_CIPHER_SPEC | HANDSHAKE));
        datagram = rest;
    }
    (datagram.is_empty() && records.all > 0).then_some(records)
}

fn sha256(bytes: &[u8]) -> Fingerprint {
    let mut fingerprint = [0; 32];
    fingerprint.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    fingerprint
}
