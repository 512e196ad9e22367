//! Dates of `EXT-X-PROGRAM-DATE-TIME` (rfc8216bis §4.4.4.6): ISO 8601 with a time zone,
//! as microseconds since the Unix epoch.

/// Reads such as `2026-02-19T14:54:23.031Z` or `…+08:00`.
pub(super) fn utc_micros(text: &str) -> Option<i64> {
    let (date, time) = text.split_once('T')?;
    let mut date = date.splitn(3, '-').map(digits);
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let zone = time.find(['Z', '+', '-'])?;
    let (clock, zone) = time.split_at(zone);
    let mut clock = clock.splitn(3, ':');
    let (hour, minute) = (digits(clock.next()?)?, digits(clock.next()?)?);
    let second = clock.next()?;
    let (second, fraction) = second.split_once('.').unwrap_or((second, "0"));
    let (second, fraction) = (digits(second)?, micros(fraction)?);
    let valid = (1..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60;
    let seconds = day_number(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    let zone = zone_seconds(zone)?;
    valid.then(|| (seconds - zone) * 1_000_000 + fraction)
}

/// One to four digits.
fn digits(text: &str) -> Option<i64> {
    let valid = (1..=4).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    if valid { text.parse().ok() } else { None }
}

/// Digits after the point; those past microseconds do not count.
fn micros(text: &str) -> Option<i64> {
    if text.is_empty() || text.len() > 18 || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.bytes().chain([b'0'; 6]).take(6).try_fold(0, |sum, b| Some(sum * 10 + i64::from(b - b'0')))
}

/// `Z`, `+hh:mm`, `+hhmm` or `+hh`.
fn zone_seconds(text: &str) -> Option<i64> {
    if text == "Z" {
        return Some(0);
    }
    let sign = if text.starts_with('-') { -1 } else { 1 };
    let text = text.get(1..)?;
    let (hours, minutes) = match text.split_once(':') {
        Some((hours, minutes)) => (hours, minutes),
        None if text.len() == 4 && text.is_ascii() => text.split_at(2),
        None => (text, "0"),
    };
    let (hours, minutes) = (digits(hours)?, digits(minutes)?);
    (hours < 24 && minutes < 60).then_some(sign * (hours * 3600 + minutes * 60))
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar: years are counted from
/// March, so that the leap day is the last of its year.
fn day_number(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let month = (month + 9) % 12;
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    365 * year + leap_days + (153 * month + 2) / 5 + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::civil_date;

    #[test]
    fn every_day_is_the_inverse_of_the_calendar() {
        for days in (-719_000..800_000).step_by(17).chain([0, 11_016, 11_017, 20_512]) {
            let (year, month, day) = civil_date(days);
            assert_eq!(day_number(year, month.into(), day.into()), days);
        }
    }

    #[test]
    fn zones_and_fractions_are_understood() {
        let at = Some(1_771_512_863_031_000);
        assert_eq!(utc_micros("2026-02-19T14:54:23.031Z"), at);
        for same in ["2026-02-19T22:54:23.031+08:00", "2026-02-19T12:24:23.0310000-0230"] {
            assert_eq!(utc_micros(same), at, "{same}");
        }
        assert_eq!(utc_micros("1970-01-01T00:00:01Z"), Some(1_000_000));
    }

    #[test]
    fn what_is_no_date_is_refused() {
        for bad in [
            "",
            "2026-02-19",
            "2026-02-19T14:54:23",
            "2026-13-19T14:54:23Z",
            "T::Z",
            "2026-02-19T25:54:23Z",
            "2026-02-19T14:54:23.Z",
            "2026-02-19T14:54:23+é",
        ] {
            assert_eq!(utc_micros(bad), None, "{bad}");
        }
    }
}
