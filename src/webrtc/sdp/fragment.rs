//! Trickle ICE fragments (RFC 8840 §9, `application/trickle-ice-sdpfrag`), which
//! a WHIP or WHEP client PATCHes (RFC 9725 §4.3). An ICE-lite server sends no
//! checks, so candidates are only counted; new credentials mean an ICE restart.

use std::fmt::Write as _;
use std::net::SocketAddr;

use super::answer::write_candidates;
use super::error::SdpError;
use super::line::{Line, lines};
use super::offer::{MAX_SDP_BYTES, MAX_SECTIONS};
use super::section::{Direction, MediaSection};
use super::transport::TransportAttributes;
use crate::webrtc::ice_lite::IceCredentials;

/// A parsed fragment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IceFragment {
    /// The credentials that the candidates belong to. Those of the session:
    /// trickled candidates; others: an ICE restart. `None`: not given.
    pub ice: Option<IceCredentials>,
    /// How many `a=candidate` lines there are.
    pub candidates: usize,
    /// The mids that the candidates stand under, in order.
    pub mids: Vec<String>,
    /// `a=end-of-candidates`, at any level.
    pub end_of_candidates: bool,
    /// `m=` value of the first section; the answer to a restart repeats it.
    media: Option<String>,
}

impl IceFragment {
    /// Parses a fragment. An empty one is valid and says nothing.
    ///
    /// # Errors
    /// As for an offer: too large, malformed lines, too many sections, one
    /// credential without the other, sections that do not agree on them.
    pub fn parse(text: &str) -> Result<Self, SdpError> {
        if text.len() > MAX_SDP_BYTES {
            return Err(SdpError::TooLarge);
        }
        let mut fragment = Self {
            ice: None,
            candidates: 0,
            mids: Vec::new(),
            end_of_candidates: false,
            media: None,
        };
        // One set of attributes for each level, joined when the level ends.
        let mut joined = TransportAttributes::default();
        let mut level = TransportAttributes::default();
        let mut sections = 0;
        for (number, line) in lines(text) {
            let malformed = |what| SdpError::Malformed { line: number, what };
            match line.map_err(malformed)? {
                Line::Media(_) if sections == MAX_SECTIONS => {
                    return Err(SdpError::TooManySections);
                }
                Line::Media(value) => {
                    let section = MediaSection::parse(value, Direction::default());
                    let section = section.map_err(malformed)?;
                    sections += 1;
                    fragment.media.get_or_insert_with(|| {
                        format!("{} 9 {} {}", section.media, section.protocol, section.first_format)
                    });
                    joined.join(&std::mem::take(&mut level))?;
                }
                Line::Attribute(attribute) => match attribute.name {
                    "candidate" => fragment.candidates += 1,
                    "end-of-candidates" => fragment.end_of_candidates = true,
                    "mid" => fragment.take_mid(attribute.value).map_err(malformed)?,
                    _ => level.take(attribute).map_err(malformed)?,
                },
                Line::Other(..) => {}
            }
        }
        joined.join(&level)?;
        fragment.ice = joined.credentials();
        if fragment.ice.is_none() && (joined.ufrag.is_some() || joined.pwd.is_some()) {
            return Err(SdpError::NoIceCredentials);
        }
        Ok(fragment)
    }

    /// At most one mid for each section counts.
    fn take_mid(&mut self, mid: &str) -> Result<(), &'static str> {
        if !super::line::is_token(mid, 64) || self.mids.len() == MAX_SECTIONS {
            return Err("a=mid must be a token of at most 64 bytes, one in each section");
        }
        self.mids.push(mid.to_owned());
        Ok(())
    }

    /// The fragment that answers an ICE restart (RFC 9725 §4.3.3): the server's
    /// new credentials and all its candidates, under the client's first section.
    pub fn write_restart(&self, ice: &IceCredentials, candidates: &[SocketAddr]) -> String {
        let mut text = String::from("a=ice-lite\r\na=ice-options:ice2 trickle\r\n");
        if self.mids.len() > 1 {
            let _ = write!(text, "a=group:BUNDLE {}\r\n", self.mids.join(" "));
        }
        let _ = write!(text, "a=ice-ufrag:{}\r\na=ice-pwd:{}\r\n", ice.ufrag, ice.pwd);
        if let (Some(media), Some(mid)) = (&self.media, self.mids.first()) {
            let _ = write!(text, "m={media}\r\na=mid:{mid}\r\n");
        }
        write_candidates(&mut text, candidates);
        text
    }
}
