//! Outages of the source as date ranges: when the leading rendition had no media, for
//! how long, and why.

use std::time::Duration;

use super::daterange::DateRange;
use crate::time::Utc;

/// The class of the ranges.
pub const OUTAGE_CLASS: &str = "railbird.outage";

/// The attribute that says why; told when the outage is over.
const CAUSE: &str = "X-RAILBIRD-CAUSE";

/// The outage of a table, while there is one.
#[derive(Debug, Default)]
pub struct Outage {
    current: Option<DateRange>,
    /// The publication ended in it, or right before it.
    publisher_gone: bool,
}

impl Outage {
    /// There is no media from `start` on. `number` names the outage; one in progress goes on.
    pub fn begin(&mut self, number: u64, start: Utc) {
        let id = || format!("railbird.outage.{number}");
        self.current.get_or_insert_with(|| DateRange::new(id(), OUTAGE_CLASS, start));
    }

    /// The publication is over.
    pub const fn publisher_is_gone(&mut self) {
        self.publisher_gone = true;
    }

    /// The range of the outage in progress.
    pub fn announce(&self) -> Option<DateRange> {
        self.current.clone()
    }

    /// The outage, if there was one, is over at `end`; the range says how long it was.
    pub fn end(&mut self, end: Utc) -> Option<DateRange> {
        let cause =
            if std::mem::take(&mut self.publisher_gone) { "publisher-gone" } else { "no-media" };
        let mut range = self.current.take()?;
        let micros = u64::try_from(end.micros_since(range.start)).unwrap_or(0);
        range.duration = Some(Duration::from_micros(micros));
        range.attributes.push((CAUSE.to_owned(), cause.to_owned()));
        Some(range)
    }
}
