//! A reader of the Prometheus text format, of its own: the names and labels in it
//! are what dashboards rely on.

use std::collections::BTreeMap;

/// One scrape.
pub struct Metrics(Vec<(String, BTreeMap<String, String>, f64)>);

impl Metrics {
    /// Parses a scrape.
    pub fn parse(text: &str) -> Self {
        Self(text.lines().filter(|line| !line.starts_with('#')).map(series).collect())
    }

    /// The sum of the series of `name` that have all `labels`; 0 without any.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let wanted = |have: &BTreeMap<String, String>| {
            labels.iter().all(|(key, value)| have.get(*key).is_some_and(|v| v == value))
        };
        let found = self.0.iter().filter(|(n, have, _)| n == name && wanted(have));
        found.map(|(_, _, value)| value).sum()
    }

    /// Sessions of `kind` that ended for `reason`.
    pub fn ended(&self, kind: &str, reason: &str) -> f64 {
        self.sum("railbird_sessions_ended_total", &[("kind", kind), ("reason", reason)])
    }
}

fn series(line: &str) -> (String, BTreeMap<String, String>, f64) {
    let (name, value) = line.rsplit_once(' ').unwrap();
    let (name, labels) = name.split_once('{').unwrap_or((name, ""));
    let labels = labels.trim_end_matches('}').split(',').filter_map(|label| {
        let (key, value) = label.split_once('=')?;
        Some((key.to_owned(), value.trim_matches('"').to_owned()))
    });
    (name.to_owned(), labels.collect(), value.parse().unwrap())
}
