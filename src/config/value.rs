//! Turns what is written into what is meant: durations, addresses, ranges, choices.
//!
//! A check takes a [`Raw`] and returns the checked value or a [`Refusal`] that says
//! what was expected. The same check serves the file and the environment.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use toml::de::DeValue;

use crate::net::dscp::Dscp;

/// A value as it was given: typed by TOML, or the text of a variable.
pub(super) enum Raw<'a> {
    Toml(&'a DeValue<'a>),
    /// Lists are separated by commas here.
    Text(&'a str),
}

/// Why a value does not fit.
pub(super) struct Refusal {
    pub(super) problem: String,
    pub(super) expected: String,
}

impl Refusal {
    pub(super) fn new(problem: impl Into<String>, expected: impl Into<String>) -> Self {
        Self { problem: problem.into(), expected: expected.into() }
    }
}

impl Raw<'_> {
    fn text(&self) -> Option<&str> {
        match self {
            Self::Toml(DeValue::String(text)) => Some(text),
            Self::Text(text) => Some(text),
            Self::Toml(_) => None,
        }
    }

    fn integer(&self) -> Option<i64> {
        match self {
            Self::Toml(DeValue::Integer(n)) => i64::from_str_radix(n.as_str(), n.radix()).ok(),
            Self::Text(text) => text.trim().parse().ok(),
            Self::Toml(_) => None,
        }
    }

    fn boolean(&self) -> Option<bool> {
        match self {
            Self::Toml(DeValue::Boolean(value)) => Some(*value),
            Self::Text(text) => text.trim().parse().ok(),
            Self::Toml(_) => None,
        }
    }

    fn float(&self) -> Option<f64> {
        match self {
            Self::Toml(DeValue::Float(n)) => n.as_str().parse().ok(),
            Self::Toml(_) => self.integer().map(|n| n as f64),
            Self::Text(text) => text.trim().parse().ok(),
        }
    }

    fn items(&self) -> Option<Vec<Raw<'_>>> {
        match self {
            Self::Toml(DeValue::Array(items)) => {
                Some(items.iter().map(|item| Raw::Toml(item.get_ref())).collect())
            }
            Self::Text(text) => {
                let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
                Some(items.map(Raw::Text).collect())
            }
            Self::Toml(_) => None,
        }
    }

    /// The value as a person would write it, for messages.
    fn shown(&self) -> String {
        match self {
            Self::Toml(DeValue::String(text)) => format!("{text:?}"),
            Self::Toml(DeValue::Integer(n)) => n.to_string(),
            Self::Toml(DeValue::Float(n)) => n.to_string(),
            Self::Toml(DeValue::Boolean(value)) => value.to_string(),
            Self::Toml(DeValue::Datetime(when)) => when.to_string(),
            Self::Toml(DeValue::Array(_)) => "a list".to_owned(),
            Self::Toml(DeValue::Table(_)) => "a table".to_owned(),
            Self::Text(text) => format!("{text:?}"),
        }
    }

    fn refused(&self, expected: impl Into<String>) -> Refusal {
        Refusal::new(format!("{} does not fit", self.shown()), expected)
    }
}

/// `true` or `false`.
pub(super) fn flag(raw: &Raw<'_>) -> Result<bool, Refusal> {
    raw.boolean().ok_or_else(|| raw.refused("true or false"))
}

/// A whole number within `range`.
pub(super) fn number<T>(range: RangeInclusive<i64>) -> impl Fn(&Raw<'_>) -> Result<T, Refusal>
where
    T: TryFrom<i64>,
{
    move |raw| {
        raw.integer().filter(|n| range.contains(n)).and_then(|n| T::try_from(n).ok()).ok_or_else(
            || raw.refused(format!("a whole number from {} to {}", range.start(), range.end())),
        )
    }
}

/// A share from 0 to 1.
pub(super) fn ratio(raw: &Raw<'_>) -> Result<f64, Refusal> {
    raw.float()
        .filter(|share| (0.0..=1.0).contains(share))
        .ok_or_else(|| raw.refused("a number from 0 to 1"))
}

/// A time such as `"500ms"` or `"2s"` within `range`.
pub(super) fn duration(
    range: RangeInclusive<Duration>,
) -> impl Fn(&Raw<'_>) -> Result<Duration, Refusal> {
    move |raw| {
        raw.text().and_then(parse_duration).filter(|time| range.contains(time)).ok_or_else(|| {
            raw.refused(format!(
                "a time from \"{}\" to \"{}\", such as \"500ms\", \"2s\" or \"5m\"",
                show_duration(*range.start()),
                show_duration(*range.end())
            ))
        })
    }
}

/// As [`duration`]; the empty string is none.
pub(super) fn optional_duration(
    range: RangeInclusive<Duration>,
) -> impl Fn(&Raw<'_>) -> Result<Option<Duration>, Refusal> {
    let some = duration(range);
    move |raw| match raw.text() {
        Some("") => Ok(None),
        _ => some(raw).map(Some),
    }
}

/// `address:port`; IPv6 addresses stand in brackets.
pub(super) fn socket_address(raw: &Raw<'_>) -> Result<SocketAddr, Refusal> {
    raw.text().and_then(|text| text.parse().ok()).ok_or_else(|| {
        raw.refused("an address and port, such as \"0.0.0.0:8080\" or \"[::]:8080\"")
    })
}

/// A list of what `check` accepts, `least` of them at least.
pub(super) fn list<T>(
    least: usize,
    check: impl Fn(&Raw<'_>) -> Result<T, Refusal>,
) -> impl Fn(&Raw<'_>) -> Result<Vec<T>, Refusal> {
    move |raw| {
        let items = raw.items().ok_or_else(|| raw.refused("a list in brackets"))?;
        if items.len() < least {
            return Err(Refusal::new("the list is too short", format!("{least} or more")));
        }
        items.iter().map(&check).collect()
    }
}

/// A file; the empty string is none. That it exists is checked by who opens it.
pub(super) fn optional_path(raw: &Raw<'_>) -> Result<Option<PathBuf>, Refusal> {
    let text = raw.text().ok_or_else(|| raw.refused("a path in quotes, or \"\" for none"))?;
    Ok((!text.is_empty()).then(|| PathBuf::from(text)))
}

/// Whatever `T` parses from text, described by `expected`.
pub(super) fn parsed<T: std::str::FromStr>(
    expected: &'static str,
) -> impl Fn(&Raw<'_>) -> Result<T, Refusal> {
    move |raw| raw.text().and_then(|t| t.parse().ok()).ok_or_else(|| raw.refused(expected))
}

/// A code point by name or number.
pub(super) fn dscp(raw: &Raw<'_>) -> Result<Dscp, Refusal> {
    let named = || raw.text().and_then(|text| text.parse().ok());
    let number = raw.integer().and_then(|n| u8::try_from(n).ok()).and_then(Dscp::new);
    number.or_else(named).ok_or_else(|| {
        raw.refused(
            "a code point such as \"AF41\", \"EF\", \"CS0\" or \"off\", or a number from 0 to 63",
        )
    })
}

/// One of the named values.
pub(super) fn choice<T: Copy>(
    choices: &'static [(&'static str, T)],
) -> impl Fn(&Raw<'_>) -> Result<T, Refusal> {
    move |raw| {
        let chosen = choices.iter().find(|(name, _)| raw.text() == Some(name));
        chosen.map(|(_, value)| *value).ok_or_else(|| {
            let names: Vec<_> = choices.iter().map(|(name, _)| format!("\"{name}\"")).collect();
            raw.refused(format!("one of {}", names.join(", ")))
        })
    }
}

fn parse_duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (count, unit) = (text.get(..digits)?, text.get(digits..)?.trim());
    let count: u64 = count.parse().ok()?;
    match unit {
        "ms" => Some(Duration::from_millis(count)),
        "s" => Some(Duration::from_secs(count)),
        "m" => count.checked_mul(60).map(Duration::from_secs),
        "h" => count.checked_mul(3600).map(Duration::from_secs),
        _ => None,
    }
}

pub(super) fn show_duration(time: Duration) -> String {
    let (seconds, millis) = (time.as_secs(), time.subsec_millis());
    match (seconds, millis) {
        (s, 0) if s > 0 && s % 3600 == 0 => format!("{}h", s / 3600),
        (s, 0) if s > 0 && s % 60 == 0 => format!("{}m", s / 60),
        (s, 0) => format!("{s}s"),
        _ => format!("{}ms", time.as_millis()),
    }
}
