//! Attribute lists of playlist tags (rfc8216bis §4.2): `NAME=value,NAME="text"`.
//!
//! A list is read as a whole, so that a malformed one is refused even where nobody
//! asks for the attribute that spoils it.

use std::time::Duration;

/// Longest time that a playlist may state, in seconds.
const MAX_SECONDS: f64 = 1e6;

/// An attribute is malformed, or is not what its name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

#[derive(Clone, Copy)]
enum Value<'a> {
    /// In quotes.
    Text(&'a str),
    /// Anything else.
    Word(&'a str),
}

/// The attributes of one tag.
pub(super) struct Attributes<'a>(Vec<(&'a str, Value<'a>)>);

impl<'a> Attributes<'a> {
    /// Reads a list.
    ///
    /// # Errors
    /// [`Malformed`] when it is not one, or names an attribute twice.
    pub fn read(list: &'a str) -> Result<Self, Malformed> {
        let mut attributes: Vec<(&str, Value<'_>)> = Vec::new();
        let mut rest = list.trim_end();
        loop {
            let (name, after) = rest.split_once('=').ok_or(Malformed)?;
            let name = name.trim_start();
            let valid = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'-';
            let known = attributes.iter().any(|&(other, _)| other == name);
            if name.is_empty() || known || !name.bytes().all(valid) {
                return Err(Malformed);
            }
            let (value, after) = match after.strip_prefix('"') {
                Some(quoted) => {
                    let (text, after) = quoted.split_once('"').ok_or(Malformed)?;
                    (Value::Text(text), after)
                }
                None => {
                    let end = after.find(',').unwrap_or(after.len());
                    let (word, after) = after.split_at(end);
                    if word.is_empty() || word.contains(['"', ' ', '\t']) {
                        return Err(Malformed);
                    }
                    (Value::Word(word), after)
                }
            };
            attributes.push((name, value));
            if after.is_empty() {
                return Ok(Self(attributes));
            }
            rest = after.strip_prefix(',').ok_or(Malformed)?;
        }
    }

    fn get(&self, name: &str) -> Option<Value<'a>> {
        self.0.iter().find(|(other, _)| *other == name).map(|&(_, value)| value)
    }

    /// A quoted string.
    pub fn text(&self, name: &str) -> Result<Option<&'a str>, Malformed> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(Value::Word(_)) => Err(Malformed),
        }
    }

    /// A value without quotes.
    pub fn word(&self, name: &str) -> Result<Option<&'a str>, Malformed> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Word(word)) => Ok(Some(word)),
            Some(Value::Text(_)) => Err(Malformed),
        }
    }

    /// A decimal integer.
    pub fn integer(&self, name: &str) -> Result<Option<u64>, Malformed> {
        self.word(name)?.map(integer).transpose()
    }

    /// A number of seconds.
    pub fn seconds(&self, name: &str) -> Result<Option<Duration>, Malformed> {
        self.word(name)?.map(seconds).transpose()
    }

    /// `YES` or `NO`; `NO` when it is not there.
    pub fn flag(&self, name: &str) -> Result<bool, Malformed> {
        match self.word(name)? {
            Some("YES") => Ok(true),
            Some("NO") | None => Ok(false),
            Some(_) => Err(Malformed),
        }
    }
}

/// A decimal integer: digits only, where `u64::from_str` also takes a sign.
pub(super) fn integer(text: &str) -> Result<u64, Malformed> {
    if text.bytes().all(|b| b.is_ascii_digit()) {
        text.parse().map_err(|_| Malformed)
    } else {
        Err(Malformed)
    }
}

/// A decimal number of seconds, without sign and exponent.
pub(super) fn seconds(text: &str) -> Result<Duration, Malformed> {
    if !text.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return Err(Malformed);
    }
    match text.parse::<f64>() {
        Ok(value) if value <= MAX_SECONDS => {
            Duration::try_from_secs_f64(value).map_err(|_| Malformed)
        }
        _ => Err(Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_and_equals_signs_in_quotes_belong_to_the_text() {
        let list = Attributes::read(r#"CODECS="avc1.64001f,Opus",URI="a?b=c",N=5,F=0.5,G=YES"#);
        let list = list.unwrap_or_else(|_| panic!("a list"));
        assert_eq!(list.text("CODECS"), Ok(Some("avc1.64001f,Opus")));
        assert_eq!(list.text("URI"), Ok(Some("a?b=c")));
        assert_eq!(
            (list.integer("N"), list.flag("G"), list.flag("H")),
            (Ok(Some(5)), Ok(true), Ok(false))
        );
        assert_eq!(list.seconds("F"), Ok(Some(Duration::from_millis(500))));
        assert_eq!((list.word("URI"), list.text("N")), (Err(Malformed), Err(Malformed)));
    }

    #[test]
    fn malformed_lists_are_refused() {
        for bad in ["", "A", "A=", "=1", "a=1", "A=1,", "A=1,A=2", "A=\"x", "A=\"x\"y", "A=x y"] {
            assert!(Attributes::read(bad).is_err(), "{bad}");
        }
        for bad in ["", "+1", "-1", "1e3", "inf", "99999999"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
        assert!(integer("18446744073709551616").is_err());
    }
}
