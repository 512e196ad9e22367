//! Differentiated services code points: how packets ask the network to be treated.
//!
//! Six bits of the IPv4 TOS byte and the IPv6 traffic class (RFC 2474 §3). The other
//! two bits are ECN and stay 0: nothing here answers to congestion marks.

use std::fmt;
use std::str::FromStr;

/// A code point, 0 to 63.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dscp(u8);

/// Names of the registry at IANA: class selectors (RFC 2474), assured forwarding
/// (RFC 2597), expedited forwarding (RFC 3246), voice admit (RFC 5865), lower effort
/// (RFC 8622).
const NAMES: [(&str, Dscp); 25] = [
    ("CS0", Dscp(0)),
    ("OFF", Dscp(0)),
    ("LE", Dscp(1)),
    ("CS1", Dscp(8)),
    ("AF11", Dscp(10)),
    ("AF12", Dscp(12)),
    ("AF13", Dscp(14)),
    ("CS2", Dscp(16)),
    ("AF21", Dscp(18)),
    ("AF22", Dscp(20)),
    ("AF23", Dscp(22)),
    ("CS3", Dscp(24)),
    ("AF31", Dscp(26)),
    ("AF32", Dscp(28)),
    ("AF33", Dscp(30)),
    ("CS4", Dscp(32)),
    ("AF41", Dscp(34)),
    ("AF42", Dscp(36)),
    ("AF43", Dscp(38)),
    ("CS5", Dscp(40)),
    ("VOICE-ADMIT", Dscp(44)),
    ("EF", Dscp(46)),
    ("CS6", Dscp(48)),
    ("CS7", Dscp(56)),
    ("DF", Dscp(0)),
];

impl Dscp {
    /// Default forwarding: packets are not marked.
    pub const UNMARKED: Self = Self(0);
    /// Multimedia streaming (RFC 4594 §4.5): low drop precedence of class 3.
    pub const AF31: Self = Self(26);
    /// Interactive video, and the audio beside it (RFC 8837 §5).
    pub const AF41: Self = Self(34);
    /// Expedited forwarding: audio on its own (RFC 8837 §5).
    pub const EF: Self = Self(46);

    /// The code point with this number; `None` past 63.
    pub const fn new(code: u8) -> Option<Self> {
        if code < 64 { Some(Self(code)) } else { None }
    }

    /// The TOS byte or traffic class that carries it, with ECN 0.
    pub const fn tos(self) -> u8 {
        self.0 << 2
    }
}

impl fmt::Display for Dscp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.iter().find(|(_, dscp)| dscp == self) {
            Some((name, _)) => f.write_str(name),
            None => self.0.fmt(f),
        }
    }
}

/// Neither a name of a code point nor its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no such code point")]
pub struct UnknownDscp;

impl FromStr for Dscp {
    type Err = UnknownDscp;

    fn from_str(text: &str) -> Result<Self, UnknownDscp> {
        let text = text.trim();
        let named = NAMES.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
        let numbered = || text.parse().ok().and_then(Self::new);
        named.map(|(_, dscp)| *dscp).or_else(numbered).ok_or(UnknownDscp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_read_and_nothing_else() {
        for (text, tos) in
            [("AF41", 0x88), ("ef", 0xb8), (" off ", 0), ("CS0", 0), ("63", 252), ("26", 0x68)]
        {
            assert_eq!(text.parse::<Dscp>().map(Dscp::tos), Ok(tos), "{text}");
        }
        for text in ["", "AF44", "64", "-1", "256", "0x22", "EF1"] {
            assert_eq!(text.parse::<Dscp>(), Err(UnknownDscp), "{text}");
        }
    }

    #[test]
    fn code_points_show_their_names() {
        for (name, dscp) in NAMES {
            assert_eq!(dscp.to_string().parse(), Ok(dscp), "{name}");
        }
        assert_eq!(Dscp::AF41.to_string(), "AF41");
        assert_eq!(Dscp(3).to_string(), "3");
    }

    #[test]
    fn assured_forwarding_follows_its_formula() {
        for class in 1..=4u8 {
            for precedence in 1..=3u8 {
                let name = format!("AF{class}{precedence}");
                assert_eq!(name.parse(), Ok(Dscp(8 * class + 2 * precedence)), "{name}");
            }
        }
    }
}
