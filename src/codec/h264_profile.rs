//! Whether a payload type that a viewer offers can take a published H.264
//! stream: `fmtp` parameters and profiles (RFC 6184 §8.1, §8.2.2).
//!
//! Profiles are compared by what they mean and not by their bytes: the same
//! profile has several spellings (RFC 6184 table 5), and one profile's streams
//! may be streams of another too. Levels are handled as browsers do: they offer
//! level 3.1 and decode far more, and say so with `level-asymmetry-allowed=1`.

/// A profile in the sense of RFC 6184 table 5, plus the constrained high
/// profile of H.264 §A.2.4.2 that browsers tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Baseline with what Main lacks left out.
    ConstrainedBaseline,
    /// Baseline.
    Baseline,
    /// Extended.
    Extended,
    /// Main.
    Main,
    /// High without B-frames and interlace.
    ConstrainedHigh,
    /// High.
    High,
    /// High 10.
    High10,
    /// High 4:2:2.
    High422,
    /// High 4:4:4 Predictive.
    High444,
}

impl Profile {
    /// From `profile_idc` and the constraint flags (`profile-iop`).
    pub const fn new(profile_idc: u8, constraints: u8) -> Option<Self> {
        let [set0, set1] = [constraints & 0x80 != 0, constraints & 0x40 != 0];
        Some(match (profile_idc, set0, set1) {
            (66, _, true) | (77, true, _) | (88, true, true) => Self::ConstrainedBaseline,
            (66, ..) | (88, true, false) => Self::Baseline,
            (77, ..) => Self::Main,
            (88, ..) => Self::Extended,
            (100, ..) if constraints & 0x0c == 0x0c => Self::ConstrainedHigh,
            (100, ..) => Self::High,
            (110, ..) => Self::High10,
            (122, ..) => Self::High422,
            (244, ..) => Self::High444,
            _ => return None,
        })
    }

    /// True when a decoder of `self` decodes what encoders make as `stream`.
    ///
    /// Baseline counts as constrained: its extras (FMO, ASO, redundant slices)
    /// are made by no live encoder and decoded by no browser.
    pub const fn decodes(self, stream: Self) -> bool {
        use Profile::{
            Baseline, ConstrainedBaseline, ConstrainedHigh, Extended, High, High10, High422,
            High444, Main,
        };
        match stream {
            ConstrainedBaseline | Baseline => true,
            Main => matches!(self, Main | High | High10 | High422 | High444),
            Extended => matches!(self, Extended),
            ConstrainedHigh => {
                matches!(self, ConstrainedHigh | High | High10 | High422 | High444)
            }
            High => matches!(self, High | High10 | High422 | High444),
            High10 => matches!(self, High10 | High422 | High444),
            High422 => matches!(self, High422 | High444),
            High444 => matches!(self, High444),
        }
    }
}

/// `profile-level-id`: three bytes in hexadecimal (RFC 6184 §8.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProfileLevelId {
    /// `profile_idc`.
    pub profile_idc: u8,
    /// `profile-iop`: the constraint flags.
    pub constraints: u8,
    /// `level_idc`: ten times the level.
    pub level_idc: u8,
}

impl ProfileLevelId {
    /// What holds when the parameter is missing: Baseline at level 1 (RFC 6184 §8.1).
    pub const DEFAULT: Self = Self { profile_idc: 66, constraints: 0, level_idc: 10 };

    /// Reads six hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != 6 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let [_, profile_idc, constraints, level_idc] =
            u32::from_str_radix(text, 16).ok()?.to_be_bytes();
        Some(Self { profile_idc, constraints, level_idc })
    }

    /// The profile, unless it is none that is sent over RTP.
    pub const fn profile(&self) -> Option<Profile> {
        Profile::new(self.profile_idc, self.constraints)
    }

    /// The level in a form that compares: level 1b lies between 1.0 and 1.1
    /// (H.264 §A.3.4.1).
    const fn level_order(&self) -> u16 {
        let is_1b = match self.profile_idc {
            66 | 77 | 88 => self.level_idc == 11 && self.constraints & 0x10 != 0,
            _ => self.level_idc == 9,
        };
        if is_1b { 21 } else { self.level_idc as u16 * 2 }
    }
}

/// The H.264 parameters of an `a=fmtp` line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct H264Params {
    /// Profile and level.
    pub profile_level_id: ProfileLevelId,
    /// 0: one NAL unit per packet; 1: STAP-A and FU-A too; 2: interleaved.
    pub packetization_mode: u8,
    /// `level-asymmetry-allowed=1`.
    pub level_asymmetry_allowed: bool,
}

/// How well an offered payload type takes a published stream; more is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fit {
    /// The offered profile also decodes the published one.
    Decodes,
    /// The profiles are the same.
    Same,
}

impl H264Params {
    /// Reads `key=value` pairs that semicolons part; unknown keys are ignored.
    /// `None` when a known key has a value that cannot be.
    pub fn parse(fmtp: &str) -> Option<Self> {
        let mut params = Self {
            profile_level_id: ProfileLevelId::DEFAULT,
            packetization_mode: 0,
            level_asymmetry_allowed: false,
        };
        for pair in fmtp.split(';') {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (key, value) = (key.trim(), value.trim());
            if key.eq_ignore_ascii_case("profile-level-id") {
                params.profile_level_id = ProfileLevelId::parse(value)?;
            } else if key.eq_ignore_ascii_case("packetization-mode") {
                params.packetization_mode = value.parse().ok().filter(|mode: &u8| *mode <= 2)?;
            } else if key.eq_ignore_ascii_case("level-asymmetry-allowed") {
                params.level_asymmetry_allowed = value == "1";
            }
        }
        Some(params)
    }

    /// Whether a payload type offered with these parameters can take a stream
    /// published with `published`, and how well. The level counts only when
    /// the offer does not allow asymmetry.
    pub fn fit(&self, published: &Self) -> Option<Fit> {
        if self.packetization_mode > 1 || published.packetization_mode > self.packetization_mode {
            return None;
        }
        let (offered_id, published_id) = (&self.profile_level_id, &published.profile_level_id);
        if !self.level_asymmetry_allowed && published_id.level_order() > offered_id.level_order() {
            return None;
        }
        let (offered, stream) = (offered_id.profile()?, published_id.profile()?);
        match offered == stream {
            true => Some(Fit::Same),
            false => offered.decodes(stream).then_some(Fit::Decodes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(id: &str) -> H264Params {
        H264Params::parse(&format!(
            "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id={id}"
        ))
        .unwrap()
    }

    #[test]
    fn fmtp_is_read_with_its_defaults() {
        assert_eq!(
            H264Params::parse("").unwrap(),
            H264Params {
                profile_level_id: ProfileLevelId::DEFAULT,
                packetization_mode: 0,
                level_asymmetry_allowed: false
            }
        );
        let read = H264Params::parse(" Profile-Level-Id=640C1F ; packetization-mode=1;x;y=z");
        let read = read.unwrap();
        assert_eq!(read.profile_level_id.profile(), Some(Profile::ConstrainedHigh));
        assert_eq!((read.profile_level_id.level_idc, read.packetization_mode), (31, 1));
        for bad in ["profile-level-id=42e0", "profile-level-id=+2e01f", "packetization-mode=3"] {
            assert_eq!(H264Params::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn spellings_of_one_profile_are_the_same() {
        // RFC 6184 table 5.
        for id in ["42c01f", "42e01f", "4d801f", "58c01f"] {
            assert_eq!(
                ProfileLevelId::parse(id).unwrap().profile(),
                Some(Profile::ConstrainedBaseline),
                "{id}"
            );
        }
        assert_eq!(params("42e01f").fit(&params("42c028")), Some(Fit::Same));
        assert_eq!(params("64001f").fit(&params("640834")), Some(Fit::Same));
    }

    #[test]
    fn a_larger_profile_takes_a_smaller_one_and_not_the_reverse() {
        assert_eq!(params("64001f").fit(&params("42e01f")), Some(Fit::Decodes));
        assert_eq!(params("42e01f").fit(&params("42001f")), Some(Fit::Decodes));
        assert_eq!(params("42e01f").fit(&params("64001f")), None);
        assert_eq!(params("640c1f").fit(&params("64001f")), None);
        assert_eq!(params("42001f").fit(&params("4d001f")), None);
        assert!(Fit::Same > Fit::Decodes);
    }

    #[test]
    fn modes_and_levels_bind_as_offered() {
        let single = H264Params { packetization_mode: 0, ..params("42e01f") };
        assert_eq!(single.fit(&params("42e01f")), None, "FU-A does not reach a mode 0 receiver");
        assert_eq!(params("42e01f").fit(&single), Some(Fit::Same));
        let interleaved = H264Params { packetization_mode: 2, ..params("42e01f") };
        assert_eq!(interleaved.fit(&params("42e01f")), None);

        let strict = H264Params { level_asymmetry_allowed: false, ..params("42e01f") };
        assert_eq!(strict.fit(&params("42e028")), None);
        assert_eq!(strict.fit(&params("42e01e")), Some(Fit::Same));
        assert_eq!(params("42e01f").fit(&params("42e028")), Some(Fit::Same));
        let level_1b = H264Params { level_asymmetry_allowed: false, ..params("42f00b") };
        assert_eq!(level_1b.fit(&params("42e00b")), None, "1b is below 1.1");
    }
}
