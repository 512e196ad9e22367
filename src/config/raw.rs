//! Finds the values of a configuration and remembers where they stand.
//!
//! The schema asks for its keys one by one ([`Section::read`]); what nobody asked
//! for is unknown. So the list of keys exists once, as the calls that read them,
//! and every error is collected instead of ending at the first.

use std::collections::BTreeMap;
use std::fmt;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::value::{Raw, Refusal};

/// Variables with this prefix override keys: `RAILBIRD__MEDIA__PORT` is `media.port`.
const ENV_PREFIX: &str = "RAILBIRD__";

/// A key is offered as a hint when this many edits or fewer turn one into the other.
const HINT_DISTANCE: usize = 3;

/// One thing that is wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    place: Place,
    message: String,
}

/// Where a value stands. Ordered: the file from top to bottom, then the environment.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    File { name: String, line: usize, column: usize },
    Variable(String),
    Whole(String),
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::File { name, line, column } => write!(f, "{name}:{line}:{column}")?,
            Place::Variable(name) | Place::Whole(name) => f.write_str(name)?,
        }
        write!(f, ": {}", self.message)
    }
}

/// Everything that is wrong with the configuration, one line each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(Vec<ConfigError>);

impl ConfigErrors {
    pub(super) fn unreadable(name: &str, error: &std::io::Error) -> Self {
        let place = Place::Whole(name.to_owned());
        Self(vec![ConfigError { place, message: format!("cannot be read: {error}") }])
    }

    /// The errors in the order of their places; never empty.
    pub fn iter(&self) -> impl Iterator<Item = &ConfigError> {
        self.0.iter()
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            let end = if index + 1 == self.0.len() { "" } else { "\n" };
            write!(f, "{error}{end}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// What the schema says about one key, for the sample file.
#[derive(Debug, Clone)]
pub(super) struct KeyDoc {
    pub(super) section: &'static str,
    pub(super) key: &'static str,
    #[cfg_attr(not(test), expect(dead_code, reason = "only the sample file shows it"))]
    pub(super) doc: &'static str,
    /// The default as TOML.
    #[cfg_attr(not(test), expect(dead_code, reason = "only the sample file shows it"))]
    pub(super) default: &'static str,
}

/// A parsed file with the environment over it, and the errors found so far.
pub(super) struct Document<'a> {
    name: &'a str,
    text: &'a str,
    root: DeTable<'a>,
    environment: BTreeMap<String, String>,
    asked: Vec<KeyDoc>,
    errors: Vec<ConfigError>,
    /// Lines that do not parse: what seems wrong with their keys is only a consequence.
    broken_lines: Vec<usize>,
}

impl<'a> Document<'a> {
    pub(super) fn new(
        name: &'a str,
        text: &'a str,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Self {
        let (root, syntax_errors) = DeTable::parse_recoverable(text);
        let environment =
            environment.into_iter().filter(|(name, _)| name.starts_with(ENV_PREFIX)).collect();
        let mut document = Self {
            name,
            text,
            root: root.into_inner(),
            environment,
            asked: Vec::new(),
            errors: Vec::new(),
            broken_lines: Vec::new(),
        };
        for error in syntax_errors {
            let place = document.place(error.span().map_or(0, |span| span.start));
            if let Place::File { line, .. } = place {
                if document.broken_lines.contains(&line) {
                    continue;
                }
                document.broken_lines.push(line);
            }
            let message = format!("not valid TOML: {}", error.message().replace('\n', "; "));
            document.errors.push(ConfigError { place, message });
        }
        document
    }

    /// Starts reading `[name]`.
    pub(super) fn section(&mut self, name: &'static str) -> Section<'_, 'a> {
        Section { document: self, name }
    }

    /// What the schema asked for, in its order.
    #[cfg(test)]
    pub(super) fn asked(&self) -> &[KeyDoc] {
        &self.asked
    }

    /// All errors: those found while reading, and the keys that nobody asked for.
    pub(super) fn finish(mut self) -> Result<(), ConfigErrors> {
        self.find_unknown_keys();
        self.find_unknown_variables();
        let broken = std::mem::take(&mut self.broken_lines);
        let consequence = |error: &ConfigError| match &error.place {
            Place::File { line, .. } => {
                broken.contains(line) && !error.message.starts_with("not valid TOML")
            }
            _ => false,
        };
        self.errors.retain(|error| !consequence(error));
        self.errors.sort_by(|a, b| a.place.cmp(&b.place));
        if self.errors.is_empty() { Ok(()) } else { Err(ConfigErrors(self.errors)) }
    }

    fn find_unknown_keys(&mut self) {
        let mut found = Vec::new();
        for (section, value) in &self.root {
            let known_section = self.asked.iter().any(|k| k.section == section.get_ref().as_ref());
            let table = match value.get_ref() {
                _ if !known_section => {
                    let sections = self.asked.iter().map(|k| k.section);
                    let hint = hint(section.get_ref(), sections);
                    found.push((
                        section.span().start,
                        format!("{}: unknown section{hint}", section.get_ref()),
                    ));
                    continue;
                }
                DeValue::Table(table) => table,
                _ => {
                    let message =
                        format!("{0}: a value; expected a section [{0}]", section.get_ref());
                    found.push((value.span().start, message));
                    continue;
                }
            };
            for key in table.keys() {
                found.extend(self.unknown_key(section.get_ref(), key));
            }
        }
        for (offset, message) in found {
            let place = self.place(offset);
            self.errors.push(ConfigError { place, message });
        }
    }

    fn unknown_key(&self, section: &str, key: &Spanned<DeString<'_>>) -> Option<(usize, String)> {
        let of_section = || self.asked.iter().filter(|k| k.section == section).map(|k| k.key);
        if of_section().any(|known| known == key.get_ref().as_ref()) {
            return None;
        }
        let hint = hint(key.get_ref(), of_section());
        Some((key.span().start, format!("{section}.{}: unknown key{hint}", key.get_ref())))
    }

    fn find_unknown_variables(&mut self) {
        let known: Vec<String> = self.asked.iter().map(|k| variable(k.section, k.key)).collect();
        for name in self.environment.keys().filter(|name| !known.contains(name)) {
            let hint = hint(name, known.iter().map(String::as_str));
            self.errors.push(ConfigError {
                place: Place::Variable(name.clone()),
                message: format!("overrides no key{hint}"),
            });
        }
    }

    fn place(&self, offset: usize) -> Place {
        let before = self.text.get(..offset).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let line = before.matches('\n').count() + 1;
        let column = before.get(line_start..).map_or(1, |tail| tail.chars().count() + 1);
        Place::File { name: self.name.to_owned(), line, column }
    }
}

/// Reads the keys of one section.
pub(super) struct Section<'d, 'a> {
    document: &'d mut Document<'a>,
    name: &'static str,
}

impl Section<'_, '_> {
    /// The value of `key`, checked by `check`. A missing key, and one whose value
    /// is refused (that is reported), gives `default`, which is TOML text.
    pub(super) fn read<T>(
        &mut self,
        key: &'static str,
        doc: &'static str,
        default: &'static str,
        check: impl Fn(&Raw<'_>) -> Result<T, Refusal>,
    ) -> T {
        self.document.asked.push(KeyDoc { section: self.name, key, doc, default });
        let variable = variable(self.name, key);
        let given = match self.document.environment.get(&variable) {
            Some(text) => Some(check(&Raw::Text(text))),
            None => self.value(key).map(|value| check(&Raw::Toml(value.get_ref()))),
        };
        match given {
            Some(Ok(value)) => return value,
            Some(Err(refusal)) => self.refuse(key, &refusal),
            None => {}
        }
        // The schema is a constant: a test reads every default of it.
        let default = DeValue::parse(default).expect("a default is TOML");
        match check(&Raw::Toml(default.get_ref())) {
            Ok(value) => value,
            Err(refusal) => panic!("default of {}.{key}: {}", self.name, refusal.problem),
        }
    }

    /// Reports what is wrong with `key` in the light of other keys.
    pub(super) fn refuse(&mut self, key: &'static str, refusal: &Refusal) {
        let variable = variable(self.name, key);
        let place = if self.document.environment.contains_key(&variable) {
            Place::Variable(variable)
        } else if let Some(value) = self.value(key) {
            self.document.place(value.span().start)
        } else {
            Place::Whole(self.document.name.to_owned())
        };
        let message =
            format!("{}.{key}: {}; expected {}", self.name, refusal.problem, refusal.expected);
        self.document.errors.push(ConfigError { place, message });
    }

    fn value(&self, key: &str) -> Option<&Spanned<DeValue<'_>>> {
        match self.document.root.get(self.name)?.get_ref() {
            DeValue::Table(table) => table.get(key),
            _ => None,
        }
    }
}

fn variable(section: &str, key: &str) -> String {
    format!("{ENV_PREFIX}{}__{}", section.to_uppercase(), key.to_uppercase())
}

/// `; did you mean …?` when one of `known` is close to `word`, or a list of them.
fn hint<'k>(word: &str, known: impl Iterator<Item = &'k str>) -> String {
    let mut known: Vec<&str> = known.collect();
    known.dedup();
    let closest = known.iter().map(|k| (distance(word, k), *k)).min();
    match closest {
        Some((edits, key)) if edits <= HINT_DISTANCE.min(word.len().div_ceil(2)) => {
            format!("; did you mean `{key}`?")
        }
        _ if known.len() <= 20 => format!("; expected one of {}", known.join(", ")),
        _ => String::new(),
    }
}

/// Levenshtein distance: insertions, deletions and substitutions of characters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
