//! UTC for the load generator: one read of the wall clock, and its NTP form.
//!
//! The drawing code is told the time in milliseconds or microseconds since the
//! Unix epoch; only the studio threads and the viewer read the clock, here.
//! NTP timestamps are 32.32 fixed point since 1900 (RFC 5905 §6).

use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds between the NTP epoch (1900) and the Unix epoch (1970).
const NTP_UNIX_OFFSET: u64 = 2_208_988_800;

/// Microseconds since the Unix epoch, now. A clock set before 1970 reads as 0.
pub fn utc_micros() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// Microseconds since the Unix epoch as a 64-bit NTP timestamp.
pub fn ntp_from_micros(micros: i64) -> u64 {
    let micros = micros.max(0) as u64;
    let fraction = ((micros % 1_000_000) << 32) / 1_000_000;
    ((micros / 1_000_000 + NTP_UNIX_OFFSET) << 32) | fraction
}

/// A 64-bit NTP timestamp as microseconds since the Unix epoch.
pub fn micros_from_ntp(ntp: u64) -> i64 {
    let seconds = (ntp >> 32) as i64 - NTP_UNIX_OFFSET as i64;
    let fraction = ((ntp & 0xffff_ffff) * 1_000_000) >> 32;
    seconds * 1_000_000 + fraction as i64
}

/// Calendar date (year, month, day) of a day counted from 1970-01-01, in the
/// proleptic Gregorian calendar, by eras of 400 years that start on 1 March.
pub fn civil_date(days: i64) -> (i64, u32, u32) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = (day_of_year - (153 * month_index + 2) / 5 + 1) as u32;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 } as u32;
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ntp_of_the_unix_epoch_and_a_half_second() {
        assert_eq!(ntp_from_micros(0), NTP_UNIX_OFFSET << 32);
        let micros = 1_700_000_000_123_456;
        assert!((micros_from_ntp(ntp_from_micros(micros)) - micros).abs() <= 1);
        assert_eq!(ntp_from_micros(500_000), (NTP_UNIX_OFFSET << 32) | 0x8000_0000);
    }

    #[test]
    fn civil_dates_across_leap_days() {
        assert_eq!(civil_date(0), (1970, 1, 1));
        assert_eq!(civil_date(11_016), (2000, 2, 29));
        assert_eq!(civil_date(20_512), (2026, 2, 28));
        assert_eq!(civil_date(20_513), (2026, 3, 1));
    }
}
