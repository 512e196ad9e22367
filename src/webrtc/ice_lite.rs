//! ICE-lite (RFC 8445 §2.5): the server answers binding requests that prove
//! knowledge of the session's password, and never sends one.
//!
//! The two halves of the work are apart so that a datagram costs no more than
//! it must: [`BindingRequest::parse`] finds whose request it is, and
//! [`BindingRequest::authenticate`] runs the HMAC once that session is found.

use std::net::SocketAddr;

use rtc::stun::attributes::{ATTR_MESSAGE_INTEGRITY, ATTR_USE_CANDIDATE};
use rtc::stun::fingerprint::FINGERPRINT;
use rtc::stun::integrity::MessageIntegrity;
use rtc::stun::message::{BINDING_SUCCESS, Message};
use rtc::stun::xoraddr::XorMappedAddress;
use rtc_crypto::RTCCryptoProvider;

/// Longest request looked at; a real one is about 100 bytes.
const MAX_LEN: usize = 548;
/// HMAC-SHA1 (RFC 8489 §14.5).
const INTEGRITY_LEN: usize = 20;
/// Type, length, cookie and transaction id (RFC 8489 §5).
const HEADER_LEN: usize = 20;
const MAGIC_COOKIE: [u8; 4] = 0x2112_a442_u32.to_be_bytes();
const BINDING_REQUEST_TYPE: u16 = 0x0001;
/// Attribute types (RFC 8489 §18.3).
const USERNAME_TYPE: u16 = 0x0006;
const INTEGRITY_TYPE: u16 = 0x0008;
/// USERNAME is `local:remote`, each at most 256 characters (RFC 8839 §5.4).
const MAX_USERNAME: usize = 513;

/// User fragment and password of one side of a session (RFC 8445 §5.3).
#[derive(Clone, PartialEq, Eq)]
pub struct IceCredentials {
    /// `a=ice-ufrag`.
    pub ufrag: String,
    /// `a=ice-pwd`; a secret.
    pub pwd: String,
}

impl IceCredentials {
    /// Credentials from random bytes: a ufrag of 64 bits and a password of 144 bits
    /// (RFC 8445 §5.3 asks for 24 and 128).
    pub fn from_random(bytes: [u8; 26]) -> Self {
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        Self { ufrag: hex(&bytes[..8]), pwd: hex(&bytes[8..]) }
    }
}

impl std::fmt::Debug for IceCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "IceCredentials({})", self.ufrag)
    }
}

/// Why a STUN message was dropped; the value of the `reason` label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StunReject {
    /// Longer than any request a peer has reason to send.
    #[error("oversized")]
    Oversized,
    /// Not a well-formed STUN message.
    #[error("malformed")]
    Malformed,
    /// Well-formed, but not a binding request.
    #[error("not a binding request")]
    NotRequest,
    /// No USERNAME of the form `local:remote`, or no MESSAGE-INTEGRITY.
    #[error("no credentials")]
    NoCredentials,
    /// No session has this local user fragment.
    #[error("unknown user fragment")]
    UnknownUfrag,
    /// MESSAGE-INTEGRITY does not fit the session's password.
    #[error("wrong integrity")]
    WrongIntegrity,
    /// Another peer has proven lately that the address is its own.
    #[error("address of another peer")]
    AddressTaken,
    /// More requests for one session than any peer has reason to send.
    #[error("too many requests")]
    Flood,
}

impl StunReject {
    /// The value of the `reason` metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Oversized => "stun_oversized",
            Self::Malformed => "stun_malformed",
            Self::NotRequest => "stun_not_request",
            Self::NoCredentials => "stun_no_credentials",
            Self::UnknownUfrag => "stun_unknown_ufrag",
            Self::WrongIntegrity => "stun_wrong_integrity",
            Self::AddressTaken => "stun_address_taken",
            Self::Flood => "stun_flood",
        }
    }
}

/// A binding request that looks well-formed and whose sender is not yet proven. It
/// borrows the datagram: a flood of them allocates nothing.
#[derive(Clone, Copy)]
pub struct BindingRequest<'a> {
    datagram: &'a [u8],
    local_ufrag: &'a str,
}

impl<'a> BindingRequest<'a> {
    /// Finds whose request a datagram that looks like STUN is (RFC 8489 §5). Costs no
    /// cryptography and no memory.
    ///
    /// # Errors
    /// [`StunReject`]; such a datagram gets no answer, so that the port does not amplify.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, StunReject> {
        if datagram.len() > MAX_LEN {
            return Err(StunReject::Oversized);
        }
        let (header, body) = datagram.split_at_checked(HEADER_LEN).ok_or(StunReject::Malformed)?;
        let message_type = u16::from_be_bytes([header[0], header[1]]);
        let len = usize::from(u16::from_be_bytes([header[2], header[3]]));
        let body = body.get(..len).ok_or(StunReject::Malformed)?;
        if header[4..8] != MAGIC_COOKIE {
            return Err(StunReject::Malformed);
        }
        if message_type != BINDING_REQUEST_TYPE {
            return Err(StunReject::NotRequest);
        }
        let username = covered_username(body)?;
        let username = std::str::from_utf8(username).map_err(|_| StunReject::NoCredentials)?;
        let (local_ufrag, _) = username.split_once(':').ok_or(StunReject::NoCredentials)?;
        Ok(Self { datagram, local_ufrag })
    }

    /// The user fragment of our side: it names the session.
    pub fn local_ufrag(&self) -> &'a str {
        self.local_ufrag
    }

    /// Proves that the sender knows `pwd` (RFC 8489 §9.1.3) and gives the answer.
    ///
    /// # Errors
    /// [`StunReject::WrongIntegrity`], or [`StunReject::Malformed`] for what shows only now.
    pub fn authenticate(
        self,
        pwd: &str,
        from: SocketAddr,
        crypto: &dyn RTCCryptoProvider,
    ) -> Result<Binding, StunReject> {
        let mut message = Message { raw: self.datagram.to_vec(), ..Message::default() };
        message.decode().map_err(|_| StunReject::Malformed)?;
        MessageIntegrity::check(&mut message, pwd.as_bytes(), crypto.crypto())
            .map_err(|_| StunReject::WrongIntegrity)?;
        let covered = |typ| typ != ATTR_MESSAGE_INTEGRITY;
        let end = message.attributes.0.iter().take_while(|a| covered(a.typ)).count();
        message.attributes.0.truncate(end);
        let nominates = message.contains(ATTR_USE_CANDIDATE);
        let mut reply = Message::new();
        let mapped = XorMappedAddress { ip: from.ip(), port: from.port() };
        let integrity =
            MessageIntegrity::new_short_term_integrity_with_provider(pwd.into(), crypto.crypto());
        reply
            .build(&[
                // Copies the transaction id.
                Box::new(message),
                Box::new(BINDING_SUCCESS),
                Box::new(mapped),
                Box::new(integrity),
                Box::new(FINGERPRINT),
            ])
            .map_err(|_| StunReject::Malformed)?;
        Ok(Binding { reply: reply.raw, nominates })
    }
}

/// The USERNAME that stands before a MESSAGE-INTEGRITY: what stands behind that is not
/// under it (RFC 8489 §14.5).
fn covered_username(mut body: &[u8]) -> Result<&[u8], StunReject> {
    let mut username = None;
    let mut covered = None;
    while !body.is_empty() {
        let (head, rest) = body.split_first_chunk::<4>().ok_or(StunReject::Malformed)?;
        let len = usize::from(u16::from_be_bytes([head[2], head[3]]));
        let padded = len.next_multiple_of(4);
        let (value, rest) = rest.split_at_checked(padded).ok_or(StunReject::Malformed)?;
        let value = value.get(..len).ok_or(StunReject::Malformed)?;
        match u16::from_be_bytes([head[0], head[1]]) {
            USERNAME_TYPE if username.is_none() => username = Some(value),
            INTEGRITY_TYPE if covered.is_none() => {
                let fits = value.len() == INTEGRITY_LEN;
                covered = Some(username.filter(|name| fits && name.len() <= MAX_USERNAME));
            }
            _ => {}
        }
        body = rest;
    }
    covered.flatten().ok_or(StunReject::NoCredentials)
}

/// A binding request of a proven sender.
pub struct Binding {
    /// The success response to send back.
    pub reply: Vec<u8>,
    /// USE-CANDIDATE was set: the peer wants media on this path (RFC 8445 §7.3.1.5).
    pub nominates: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use rtc::stun::attributes::ATTR_USERNAME;
    use rtc::stun::message::{BINDING_REQUEST, TransactionId};
    use rtc::stun::textattrs::TextAttribute;
    use rtc_crypto::providers::AwsLcRsProvider;

    const PWD: &str = "0123456789012345678901";

    fn request(pwd: &str) -> Vec<u8> {
        let provider = AwsLcRsProvider::default();
        let mut message = Message::new();
        message
            .build(&[
                Box::new(BINDING_REQUEST),
                Box::new(TransactionId::new()),
                Box::new(TextAttribute::new(ATTR_USERNAME, "here:there".into())),
                Box::new(MessageIntegrity::new_short_term_integrity_with_provider(
                    pwd.into(),
                    provider.crypto(),
                )),
                Box::new(FINGERPRINT),
            ])
            .unwrap();
        message.raw
    }

    fn from() -> SocketAddr {
        "192.0.2.7:4000".parse().unwrap()
    }

    #[test]
    fn answers_a_proven_request_with_the_mapped_address() {
        let provider = AwsLcRsProvider::default();
        let datagram = request(PWD);
        let request = BindingRequest::parse(&datagram).unwrap();
        assert_eq!(request.local_ufrag(), "here");
        let binding = request.authenticate(PWD, from(), &provider).unwrap();
        assert!(!binding.nominates);
        let mut reply = Message { raw: binding.reply, ..Message::default() };
        reply.decode().unwrap();
        assert_eq!(reply.typ, BINDING_SUCCESS);
        let mut mapped = XorMappedAddress::default();
        use rtc::stun::message::Getter;
        mapped.get_from(&reply).unwrap();
        assert_eq!(SocketAddr::new(mapped.ip, mapped.port), from());
        MessageIntegrity::check(&mut reply, PWD.as_bytes(), provider.crypto()).unwrap();
    }

    #[test]
    fn refuses_a_wrong_password() {
        let datagram = request("another password......");
        let request = BindingRequest::parse(&datagram).unwrap();
        let refused = request.authenticate(PWD, from(), &AwsLcRsProvider::default());
        assert_eq!(refused.err(), Some(StunReject::WrongIntegrity));
    }

    #[test]
    fn what_stands_behind_the_integrity_counts_for_nothing() {
        let mut message = Message { raw: request(PWD), ..Message::default() };
        message.decode().unwrap();
        message.add(ATTR_USE_CANDIDATE, &[]);
        message.encode();
        let request = BindingRequest::parse(&message.raw).unwrap();
        let binding = request.authenticate(PWD, from(), &AwsLcRsProvider::default()).unwrap();
        assert!(!binding.nominates);
    }

    #[test]
    fn every_truncation_and_flip_is_refused_or_unproven() {
        let good = request(PWD);
        for len in 0..good.len() {
            assert!(BindingRequest::parse(&good[..len]).is_err());
        }
        // Bits of the FINGERPRINT, the last 8 bytes, are not under the integrity.
        for bit in 0..(good.len() - 8) * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let outcome = BindingRequest::parse(&bad)
                .and_then(|r| r.authenticate(PWD, from(), &AwsLcRsProvider::default()));
            assert!(outcome.is_err(), "bit {bit} flipped was accepted");
        }
    }

    #[test]
    fn whose_request_it_is_is_read_as_the_library_reads_it() {
        let good = request(PWD);
        for bit in 0..good.len() * 8 {
            let mut flipped = good.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let mut message = Message { raw: flipped.clone(), ..Message::default() };
            let decoded = message.decode().is_ok() && message.typ == BINDING_REQUEST;
            let parsed = BindingRequest::parse(&flipped);
            assert!(decoded || parsed.is_err(), "bit {bit}");
            if let Ok(parsed) = parsed {
                let name = message.get(ATTR_USERNAME).unwrap();
                assert!(name.starts_with(parsed.local_ufrag().as_bytes()), "bit {bit}");
            }
        }
    }
}
