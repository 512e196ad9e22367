//! What a media section says of its transport: ICE credentials (RFC 8839 §5.4),
//! DTLS fingerprint (RFC 8122) and DTLS role (RFC 8842). Each may stand at
//! session level for all sections; inside a BUNDLE all must agree (RFC 9143 §7.1.3).

use super::error::SdpError;
use super::line::Attribute;
use crate::webrtc::ice_lite::IceCredentials;

/// The DTLS role that the client offers in `a=setup`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SetupRole {
    /// Either; also what an offer without `a=setup` is taken for.
    #[default]
    ActPass,
    /// It will send the ClientHello.
    Active,
    /// It waits for a ClientHello.
    Passive,
}

/// The attributes of one level (the session, or one section), as far as given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct TransportAttributes {
    pub ufrag: Option<String>,
    pub pwd: Option<String>,
    pub sha256: Option<[u8; 32]>,
    /// A fingerprint with another hash was given.
    pub other_hash: bool,
    pub setup: Option<SetupRole>,
}

impl TransportAttributes {
    /// Takes the attribute if it is one of the transport's.
    pub fn take(&mut self, attribute: Attribute<'_>) -> Result<(), &'static str> {
        let value = attribute.value.trim();
        match attribute.name {
            "ice-ufrag" => {
                self.ufrag = Some(credential(value, 4, "a=ice-ufrag must be 4 to 256 ice-chars")?);
            }
            "ice-pwd" => {
                self.pwd = Some(credential(value, 22, "a=ice-pwd must be 22 to 256 ice-chars")?);
            }
            "fingerprint" => self.take_fingerprint(value)?,
            "setup" => {
                self.setup = Some(match value {
                    "actpass" => SetupRole::ActPass,
                    "active" => SetupRole::Active,
                    "passive" => SetupRole::Passive,
                    _ => return Err("a=setup must be actpass, active or passive"),
                });
            }
            _ => {}
        }
        Ok(())
    }

    /// Several fingerprints with several hashes may stand side by side (RFC
    /// 8122 §5); of several with SHA-256 the first is taken.
    fn take_fingerprint(&mut self, value: &str) -> Result<(), &'static str> {
        let (hash, digits) =
            value.split_once(' ').ok_or("a=fingerprint must be <hash> <digits>")?;
        if !hash.eq_ignore_ascii_case("sha-256") {
            self.other_hash = true;
        } else if self.sha256.is_none() {
            let digest = parse_digest(digits.trim());
            self.sha256 =
                Some(digest.ok_or("a=fingerprint:sha-256 must be 32 bytes in hex with colons")?);
        }
        Ok(())
    }

    /// The attributes of a section: its own, else the session's.
    pub fn or(&self, session: &Self) -> Self {
        Self {
            ufrag: self.ufrag.clone().or_else(|| session.ufrag.clone()),
            pwd: self.pwd.clone().or_else(|| session.pwd.clone()),
            sha256: self.sha256.or(session.sha256),
            other_hash: self.other_hash || session.other_hash,
            setup: self.setup.or(session.setup),
        }
    }

    /// Joins the attributes of the next bundled section: what both give must be equal.
    pub fn join(&mut self, next: &Self) -> Result<(), SdpError> {
        agree(&mut self.ufrag, next.ufrag.as_ref(), "a=ice-ufrag")?;
        agree(&mut self.pwd, next.pwd.as_ref(), "a=ice-pwd")?;
        agree(&mut self.sha256, next.sha256.as_ref(), "a=fingerprint")?;
        agree(&mut self.setup, next.setup.as_ref(), "a=setup")?;
        self.other_hash |= next.other_hash;
        Ok(())
    }

    /// Both credentials, or neither.
    pub fn credentials(&self) -> Option<IceCredentials> {
        let (ufrag, pwd) = (self.ufrag.clone()?, self.pwd.clone()?);
        Some(IceCredentials { ufrag, pwd })
    }
}

fn agree<T: Clone + PartialEq>(
    have: &mut Option<T>,
    next: Option<&T>,
    what: &'static str,
) -> Result<(), SdpError> {
    match (&have, next) {
        (Some(have), Some(next)) if have != next => Err(SdpError::TransportsDisagree(what)),
        (None, Some(next)) => {
            *have = Some(next.clone());
            Ok(())
        }
        _ => Ok(()),
    }
}

/// RFC 8839 §5.4 allows ALPHA / DIGIT / "+" / "/". Any visible byte passes here
/// but the colon, which parts the two ufrags in a STUN username.
fn credential(value: &str, min: usize, what: &'static str) -> Result<String, &'static str> {
    let well_formed = (min..=256).contains(&value.len())
        && value.bytes().all(|b| b.is_ascii_graphic() && b != b':');
    if well_formed { Ok(value.to_owned()) } else { Err(what) }
}

fn parse_digest(digits: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    let mut parts = digits.split(':');
    for byte in &mut digest {
        let part = parts.next()?;
        // `from_str_radix` alone would take a sign.
        if part.len() != 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(digest)
}
