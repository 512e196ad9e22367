//! Table names: what may stand in a URL, a metric label and a log line alike.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The name of a table: 1 to 64 of `A-Z a-z 0-9 _ -`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableName(Arc<str>);

/// Not a table name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a table name is 1 to 64 characters of A-Z a-z 0-9 _ -")]
pub struct InvalidTableName;

impl TableName {
    /// Longest name, in bytes.
    pub const MAX_LEN: usize = 64;

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TableName {
    type Err = InvalidTableName;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let fits = (1..=Self::MAX_LEN).contains(&name.len());
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        if fits && name.bytes().all(allowed) {
            Ok(Self(name.into()))
        } else {
            Err(InvalidTableName)
        }
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_names_and_refuses_the_rest() {
        for good in ["demo", "Roulette_7-b", &"x".repeat(64)] {
            assert_eq!(good.parse::<TableName>().unwrap().as_str(), good);
        }
        for bad in ["", "a/b", "a b", "é", "..", &"x".repeat(65)] {
            assert_eq!(bad.parse::<TableName>(), Err(InvalidTableName));
        }
    }
}
