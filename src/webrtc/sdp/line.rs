//! SDP's line grammar (RFC 8866 §5): `<type>=<value>`, of which only `m=` and
//! `a=` mean something in an offer. Own and small, because a general SDP parser
//! leaves every attribute as text anyway and cannot say which line was wrong.

/// One line of interest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    /// The value of `m=`.
    Media(&'a str),
    /// `a=name` or `a=name:value`; the value of the first is empty.
    Attribute(Attribute<'a>),
    /// Any other type of line.
    Other(u8, &'a str),
}

/// An attribute, not yet understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attribute<'a> {
    pub name: &'a str,
    pub value: &'a str,
}

/// The lines of `text` with their numbers from 1; blank lines are passed over.
/// CRLF and LF both end a line, as everybody sends both.
pub(super) fn lines(
    text: &str,
) -> impl Iterator<Item = (usize, Result<Line<'_>, &'static str>)> + '_ {
    text.lines()
        .enumerate()
        .filter(|(_, line)| !line.is_empty())
        .map(|(index, line)| (index + 1, parse(line)))
}

fn parse(line: &str) -> Result<Line<'_>, &'static str> {
    // A stray CR in a value that the answer repeats would start a line of its own.
    if line.chars().any(char::is_control) {
        return Err("control character");
    }
    let (kind, value) = line.split_once('=').ok_or("not of the form <type>=<value>")?;
    match kind.as_bytes() {
        b"m" => Ok(Line::Media(value)),
        b"a" => {
            if !value.is_ascii() {
                return Err("an attribute must be ASCII");
            }
            let (name, value) = value.split_once(':').unwrap_or((value, ""));
            Ok(Line::Attribute(Attribute { name, value }))
        }
        [other] => Ok(Line::Other(*other, value)),
        _ => Err("the type of a line is one letter"),
    }
}

/// A `token` of RFC 8866 §9 of at most `max` bytes.
pub(super) fn is_token(text: &str, max: usize) -> bool {
    !text.is_empty()
        && text.len() <= max
        && text.bytes().all(|b| b.is_ascii_graphic() && !b"\"(),/:;<=>?@[\\]".contains(&b))
}
