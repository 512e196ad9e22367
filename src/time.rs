//! UTC and the monotonic clock.
//!
//! Protocol code is told the time as an [`Instant`]; only the edges of the
//! program read clocks. [`Clock`] is the one bridge between the monotonic clock
//! and UTC, so that every part of a process agrees on what an instant means.

use std::fmt;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Seconds between the NTP epoch (1900) and the Unix epoch (1970), RFC 5905 §6.
const NTP_UNIX_OFFSET: i64 = 2_208_988_800;

/// A point on the UTC time line, in microseconds since the Unix epoch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Utc(i64);

impl Utc {
    /// From microseconds since the Unix epoch.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds since the Unix epoch.
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// Whole milliseconds since the Unix epoch, rounded down.
    pub const fn millis(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// From a 64-bit NTP timestamp (32.32 fixed point, RFC 5905 §6).
    ///
    /// Seconds below 2^31 belong to the era that begins in 2036 (RFC 4330 §3).
    pub fn from_ntp(ntp: u64) -> Self {
        let seconds = (ntp >> 32) as i64;
        let era = if seconds < 1 << 31 { 1 << 32 } else { 0 };
        let seconds = seconds + era - NTP_UNIX_OFFSET;
        let micros = ((ntp & 0xffff_ffff) * 1_000_000) >> 32;
        Self(seconds * 1_000_000 + micros as i64)
    }

    /// As a 64-bit NTP timestamp (32.32 fixed point, RFC 5905 §6).
    pub fn to_ntp(self) -> u64 {
        let seconds = self.0.div_euclid(1_000_000) + NTP_UNIX_OFFSET;
        let micros = self.0.rem_euclid(1_000_000) as u64;
        // Rounded up, so that a round trip through 32.32 gives the same microsecond.
        let fraction = (micros << 32).div_ceil(1_000_000);
        ((seconds as u64) << 32) | fraction
    }

    /// This instant moved by `micros` microseconds (negative: earlier).
    pub const fn offset_micros(self, micros: i64) -> Self {
        Self(self.0.saturating_add(micros))
    }

    /// Microseconds from `earlier` to `self` (negative when `self` is before it).
    pub const fn micros_since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }

    /// RFC 3339 with milliseconds and `Z`, as LL-HLS and the logs write it.
    pub fn rfc3339_millis(self) -> String {
        let millis = self.millis();
        let (days, ms_of_day) = (millis.div_euclid(86_400_000), millis.rem_euclid(86_400_000));
        let (year, month, day) = civil_from_days(days);
        let (s, ms) = (ms_of_day / 1000, ms_of_day % 1000);
        format!(
            "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{ms:03}Z",
            s / 3600,
            s / 60 % 60,
            s % 60
        )
    }
}

impl fmt::Debug for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.rfc3339_millis())
    }
}

/// Gregorian date of a day counted from 1970-01-01, with eras of 400 years so
/// that leap days fall at the end of the counted year.
fn civil_from_days(days: i64) -> (i64, u32, u32) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = (day_of_year - (153 * month_index + 2) / 5 + 1) as u32;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 } as u32;
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

/// Maps the monotonic clock to UTC; copied freely, all copies agree.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    anchor: Instant,
    anchor_utc: Utc,
}

impl Clock {
    /// Reads both clocks of the system once.
    #[allow(clippy::disallowed_methods, reason = "the one bridge from the system's clocks")]
    pub fn system() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Self { anchor: Instant::now(), anchor_utc: Utc(since_epoch.as_micros() as i64) }
    }

    /// A clock that says `utc` at `instant`: for tests on a virtual clock.
    pub const fn fixed(instant: Instant, utc: Utc) -> Self {
        Self { anchor: instant, anchor_utc: utc }
    }

    /// UTC at `instant`.
    pub fn utc(&self, instant: Instant) -> Utc {
        match instant.checked_duration_since(self.anchor) {
            Some(after) => self.anchor_utc.offset_micros(after.as_micros() as i64),
            None => {
                let before = self.anchor.duration_since(instant).as_micros() as i64;
                self.anchor_utc.offset_micros(-before)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc3339_of_known_days() {
        assert_eq!(Utc::from_micros(0).rfc3339_millis(), "1970-01-01T00:00:00.000Z");
        let leap = Utc::from_micros(951_827_696_789_000);
        assert_eq!(leap.rfc3339_millis(), "2000-02-29T12:34:56.789Z");
        assert_eq!(Utc::from_micros(-1000).rfc3339_millis(), "1969-12-31T23:59:59.999Z");
    }

    #[test]
    fn ntp_round_trip_keeps_the_microsecond() {
        for micros in [0, 1, 999_999, 1_700_000_000_123_457, 1_700_000_000_999_999] {
            let utc = Utc::from_micros(micros);
            assert_eq!(Utc::from_ntp(utc.to_ntp()), utc);
        }
    }

    #[test]
    fn ntp_goes_on_after_its_first_era() {
        let utc = Utc::from_micros(2_085_978_496_000_000 + 5_000_000);
        assert_eq!(utc.to_ntp() >> 32, 5, "the seconds wrap in February 2036");
        assert_eq!(Utc::from_ntp(utc.to_ntp()), utc);
    }

    #[test]
    fn clock_runs_in_both_directions() {
        let t = Instant::now() + Duration::from_secs(10);
        let clock = Clock::fixed(t, Utc::from_micros(5_000_000));
        assert_eq!(clock.utc(t + Duration::from_millis(1)).micros(), 5_001_000);
        assert_eq!(clock.utc(t - Duration::from_secs(1)).micros(), 4_000_000);
    }
}
