//! Values that people type: durations, shares, bit rates.

use std::time::Duration;

/// Parses `500ms`, `10s`, `5m` or plain seconds.
pub fn duration(text: &str) -> Result<Duration, String> {
    let (value, unit) = split(text)?;
    let seconds = match unit {
        "" | "s" => value,
        "ms" => value / 1000.0,
        "m" => value * 60.0,
        "h" => value * 3600.0,
        _ => return Err(format!("unknown unit `{unit}`: use ms, s, m or h")),
    };
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

/// Parses a share: `0.05` or `5%`.
pub fn share(text: &str) -> Result<f64, String> {
    let value = match text.strip_suffix('%') {
        Some(percent) => percent.trim().parse().map(|value: f64| value / 100.0),
        None => text.parse(),
    };
    match value {
        Ok(value) if (0.0..=1.0).contains(&value) => Ok(value),
        _ => Err(format!("`{text}` is not a share: use 0 to 1, or 0% to 100%")),
    }
}

/// Parses a bit rate: `2500000`, `2500k`, `2.5M` or `1G`.
pub fn bits(text: &str) -> Result<u64, String> {
    let (value, unit) = split(text)?;
    let scale = match unit {
        "" => 1.0,
        "k" | "K" => 1e3,
        "m" | "M" => 1e6,
        "g" | "G" => 1e9,
        _ => return Err(format!("unknown unit `{unit}`: use k, M or G")),
    };
    let bits = value * scale;
    if bits >= 1.0 { Ok(bits as u64) } else { Err(format!("`{text}` is not a bit rate")) }
}

/// Parses a bit rate, or `off` for no limit.
pub fn limit(text: &str) -> Result<Option<u64>, String> {
    if text == "off" { Ok(None) } else { bits(text).map(Some) }
}

/// A limit that changes: from each moment on, so many bits a second pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule(pub Vec<(Duration, Option<u64>)>);

/// Parses a schedule, `3M` or `3M,600k@5s,off@20s`: the first limit holds from the start,
/// each other from its moment on.
pub fn schedule(text: &str) -> Result<Schedule, String> {
    let mut steps: Vec<(Duration, Option<u64>)> = Vec::new();
    for step in text.split(',') {
        let (limits, at) = match (step.split_once('@'), steps.last()) {
            (None, None) => (step, Duration::ZERO),
            (None, Some(_)) => return Err(format!("`{step}` needs a moment, such as {step}@5s")),
            (Some((_, at)), None) => {
                return Err(format!("the first limit holds from the start: leave out `@{at}`"));
            }
            (Some((limits, at)), Some((before, _))) => {
                let at = duration(at)?;
                if at <= *before {
                    return Err(format!("`{step}` is not after the one before it"));
                }
                (limits, at)
            }
        };
        steps.push((at, limit(limits)?));
    }
    Ok(Schedule(steps))
}

/// Parses a positive number.
pub fn positive(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(value) if value > 0.0 && value < 1e9 => Ok(value),
        _ => Err(format!("`{text}` is not a positive number")),
    }
}

fn split(text: &str) -> Result<(f64, &str), String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let value: f64 = digits.parse().map_err(|_| format!("`{text}` is not a number"))?;
    if value.is_finite() && value >= 0.0 {
        Ok((value, &text[digits.len()..]))
    } else {
        Err(format!("`{text}` is out of range"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_changes_at_moments_that_follow_each_other() {
        let seconds = Duration::from_secs;
        let plain = schedule("1.5M").unwrap();
        assert_eq!(plain.0, [(Duration::ZERO, Some(1_500_000))]);
        let steps = schedule("3M,600k@5s,off@20s").unwrap();
        let expected = [(0, Some(3_000_000)), (5, Some(600_000)), (20, None)];
        assert_eq!(steps.0, expected.map(|(at, rate)| (seconds(at), rate)));
        for bad in ["", "3M@1s", "3M,600k", "3M,600k@5s,1M@5s", "3M,x@5s", "3M,600k@", "3M,"] {
            assert!(schedule(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn units_are_understood_and_nonsense_is_refused() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1.5m"), Ok(Duration::from_secs(90)));
        assert_eq!(bits("2.5M"), Ok(2_500_000));
        assert_eq!((share("5%"), share("0.05")), (Ok(0.05), Ok(0.05)));
        for bad in ["", "x", "-1s", "5d", "infs"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
        assert!(share("120%").is_err() && bits("0").is_err() && positive("0").is_err());
    }
}
