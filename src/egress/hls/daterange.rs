//! Date ranges: what happens at a table, on the clock of its playlists.
//!
//! Source: rfc8216bis §4.4.5.1 (EXT-X-DATERANGE), §4.4.5.2 and §6.2.5.1 (delta updates
//! that skip them). A range is announced once by its ID and may be told more of later;
//! what was told does not change. All media playlists of a table list the same set, each
//! range as long as a segment that it covers is listed (`p16`).

use std::collections::VecDeque;
use std::fmt::Write;
use std::time::{Duration, Instant};

use crate::time::Utc;

/// Ranges of one table at once; more are refused. The rounds of an hour fit.
pub const MAX_RANGES: usize = 128;

/// Longest text of a range: id, class, names and values together, in bytes.
pub const MAX_RANGE_BYTES: usize = 2048;

/// A span of time at a table, or the beginning of one whose end is not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DateRange {
    /// Names it; another range of the table must not have the same.
    pub id: String,
    /// What it is, such as `railbird.outage`. All ranges of a class have the same
    /// attributes with the same meaning.
    pub class: String,
    /// When it begins.
    pub start: Utc,
    /// How long it lasts; `None` until it is over.
    pub duration: Option<Duration>,
    /// How long it is expected to last.
    pub planned_duration: Option<Duration>,
    /// Further attributes: names of `X-` and then `A-Z 0-9 -`, and their values.
    pub attributes: Vec<(String, String)>,
}

/// Why a date range is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DateRangeError {
    /// A text cannot stand in quotes: it is empty, or has a control character or `"`.
    #[error("an id, class or value is empty or has a control character or a quotation mark")]
    BadText,
    /// An attribute's name is not `X-` and `A-Z 0-9 -`, or is there twice.
    #[error("an attribute is not named X- and then A-Z, 0-9 or -, or is there twice")]
    BadName,
    /// Longer than [`MAX_RANGE_BYTES`].
    #[error("the date range is longer than {MAX_RANGE_BYTES} bytes")]
    TooLong,
    /// The table lists [`MAX_RANGES`] already.
    #[error("the table lists {MAX_RANGES} date ranges already")]
    TooMany,
    /// The id was used for something else, or what was said of it would change.
    #[error("a date range cannot change what was said of it")]
    Changed,
    /// HLS does not know the table now.
    #[error("the table is not live")]
    NotLive,
}

impl DateRange {
    /// A range that begins at `start`.
    pub fn new(id: impl Into<String>, class: impl Into<String>, start: Utc) -> Self {
        Self {
            id: id.into(),
            class: class.into(),
            start,
            duration: None,
            planned_duration: None,
            attributes: Vec::new(),
        }
    }

    fn check(&self) -> Result<(), DateRangeError> {
        let texts = [&self.id, &self.class].into_iter();
        let texts = texts.chain(self.attributes.iter().map(|(_, value)| value));
        let names = || self.attributes.iter().map(|(name, _)| name);
        let length: usize = texts.clone().chain(names()).map(String::len).sum();
        if length > MAX_RANGE_BYTES {
            return Err(DateRangeError::TooLong);
        }
        let quotable = |text: &String| {
            !text.is_empty() && !text.contains(|c: char| c == '"' || c.is_control())
        };
        if !texts.clone().all(quotable) {
            return Err(DateRangeError::BadText);
        }
        let allowed = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'-';
        let named = |name: &String| {
            name.strip_prefix("X-")
                .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(allowed))
        };
        let once = |name: &String| names().filter(|other| *other == name).count() == 1;
        let fine = names().all(|name| named(name) && once(name));
        fine.then_some(()).ok_or(DateRangeError::BadName)
    }

    /// Whether everything that `self` says is said by `newer`, too.
    fn is_told_more_by(&self, newer: &Self) -> bool {
        let kept = |old: Option<Duration>, new| old.is_none() || old == new;
        (&self.id, &self.class, self.start) == (&newer.id, &newer.class, newer.start)
            && kept(self.duration, newer.duration)
            && kept(self.planned_duration, newer.planned_duration)
            && self.attributes.iter().all(|attribute| newer.attributes.contains(attribute))
    }

    /// When it is over; `None` while that is not known.
    fn end(&self) -> Option<Utc> {
        let micros = i64::try_from(self.duration?.as_micros()).unwrap_or(i64::MAX);
        Some(self.start.offset_micros(micros))
    }

    fn write(&self, out: &mut String) {
        let (id, class, start) = (&self.id, &self.class, self.start.rfc3339_millis());
        // Writing to a String does not fail.
        let _ =
            write!(out, "#EXT-X-DATERANGE:ID=\"{id}\",CLASS=\"{class}\",START-DATE=\"{start}\"");
        for (name, value) in
            [("DURATION", self.duration), ("PLANNED-DURATION", self.planned_duration)]
        {
            if let Some(value) = value {
                let _ = write!(out, ",{name}={:.3}", value.as_secs_f64());
            }
        }
        for (name, value) in &self.attributes {
            let _ = write!(out, ",{name}=\"{value}\"");
        }
        out.push('\n');
    }
}

/// The ranges of a table.
#[derive(Debug, Default)]
pub struct DateRanges {
    /// In the order in which they were announced. Bounded by [`MAX_RANGES`].
    listed: Vec<(DateRange, Instant)>,
    /// Ids that left the playlists, and when. Bounded by [`MAX_RANGES`]: past it the
    /// oldest is forgotten, and clients learn of it with their next full playlist.
    removed: VecDeque<(String, Instant)>,
    /// Counts the changes.
    version: u64,
}

/// The set as playlists write it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RangeLines {
    /// The tags of all ranges.
    pub all: String,
    /// The tags of those that came or changed a short while ago.
    pub recent: String,
    /// Ids of those that left a short while ago, with tabs between them.
    pub removed: String,
}

impl DateRanges {
    /// Announces a range, or tells more of one that was.
    ///
    /// # Errors
    /// See [`DateRangeError`]; nothing changed then.
    pub fn set(&mut self, range: DateRange, now: Instant) -> Result<(), DateRangeError> {
        range.check()?;
        let is_full = self.listed.len() >= MAX_RANGES;
        let known = self.listed.iter_mut().find(|(known, _)| known.id == range.id);
        match known {
            Some((known, _)) if *known == range => return Ok(()),
            Some((known, _)) if !known.is_told_more_by(&range) => {
                return Err(DateRangeError::Changed);
            }
            Some(known) => *known = (range, now),
            None if self.removed.iter().any(|(id, _)| *id == range.id) => {
                return Err(DateRangeError::Changed);
            }
            None if is_full => return Err(DateRangeError::TooMany),
            None => self.listed.push((range, now)),
        }
        self.version += 1;
        Ok(())
    }

    /// Takes those off that ended before `oldest`, the first listed segment.
    pub fn expire(&mut self, oldest: Utc, now: Instant) {
        let over = |range: &DateRange| range.end().is_some_and(|end| end <= oldest);
        for (range, _) in self.listed.extract_if(.., |(range, _)| over(range)) {
            if self.removed.len() == MAX_RANGES {
                self.removed.pop_front();
            }
            self.removed.push_back((range.id, now));
            self.version += 1;
        }
    }

    /// Counts the changes of the set.
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// The set as playlists write it at `now`; what is younger than `skip` is recent.
    pub fn lines(&mut self, now: Instant, skip: Duration) -> RangeLines {
        let is_recent = |at: Instant| now.saturating_duration_since(at) <= skip;
        self.removed.retain(|(_, at)| is_recent(*at));
        let mut lines = RangeLines::default();
        for (range, at) in &self.listed {
            range.write(&mut lines.all);
            if is_recent(*at) {
                range.write(&mut lines.recent);
            }
        }
        let removed: Vec<&str> = self.removed.iter().map(|(id, _)| id.as_str()).collect();
        lines.removed = removed.join("\t");
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Utc = Utc::from_micros(1_700_000_000_000_000);
    const SKIP: Duration = Duration::from_secs(12);

    fn round(id: &str) -> DateRange {
        DateRange::new(id, "example.round", START)
    }

    #[test]
    fn p16_a_range_is_told_more_of_but_not_changed() {
        let (mut ranges, now) = (DateRanges::default(), Instant::now());
        ranges.set(round("a"), now).unwrap();
        let mut ended = round("a");
        ended.duration = Some(Duration::from_millis(1500));
        ended.attributes.push(("X-RESULT".to_owned(), "17".to_owned()));
        ranges.set(ended.clone(), now).unwrap();
        assert_eq!(
            ranges.lines(now, SKIP).all,
            "#EXT-X-DATERANGE:ID=\"a\",CLASS=\"example.round\",\
             START-DATE=\"2023-11-14T22:13:20.000Z\",DURATION=1.500,X-RESULT=\"17\"\n"
        );
        assert_eq!(ranges.set(round("a"), now), Err(DateRangeError::Changed));
        let longer = DateRange { duration: Some(Duration::from_secs(2)), ..ended.clone() };
        assert_eq!(ranges.set(longer, now), Err(DateRangeError::Changed));
        let version = ranges.version();
        ranges.set(ended, now).unwrap();
        assert_eq!(ranges.version(), version, "nothing new was said");
    }

    #[test]
    fn p16_a_range_leaves_with_the_last_segment_that_it_covers() {
        let (mut ranges, now) = (DateRanges::default(), Instant::now());
        let over = DateRange { duration: Some(Duration::from_secs(10)), ..round("over") };
        ranges.set(over.clone(), now).unwrap();
        ranges.set(round("open"), now).unwrap();
        ranges.expire(START.offset_micros(9_999_999), now);
        assert_eq!(ranges.lines(now, SKIP).removed, "");
        ranges.expire(START.offset_micros(10_000_000), now);
        let lines = ranges.lines(now, SKIP);
        assert!(!lines.all.contains("over") && lines.all.contains("open"));
        assert_eq!(lines.removed, "over");
        assert_eq!(ranges.set(over, now), Err(DateRangeError::Changed), "an id is used once");
        let later = now + SKIP + Duration::from_millis(1);
        let lines = ranges.lines(later, SKIP);
        assert_eq!((lines.removed.as_str(), lines.recent.as_str()), ("", ""));
        assert!(lines.all.contains("open"));
    }

    #[test]
    fn p16_malformed_and_unbounded_ranges_are_refused() {
        let (mut ranges, now) = (DateRanges::default(), Instant::now());
        let mut set = |range| ranges.set(range, now);
        for id in ["", "a\"", "a\tb", "a\nb"] {
            assert_eq!(set(round(id)), Err(DateRangeError::BadText), "{id:?}");
        }
        for name in ["X-", "x-a", "A", "X-a", "X-A B"] {
            let attributes = vec![(name.to_owned(), "1".to_owned())];
            let range = DateRange { attributes, ..round("a") };
            assert_eq!(set(range), Err(DateRangeError::BadName), "{name:?}");
        }
        let twice = vec![("X-A".to_owned(), "1".to_owned()); 2];
        assert_eq!(
            set(DateRange { attributes: twice, ..round("a") }),
            Err(DateRangeError::BadName)
        );
        assert_eq!(set(round(&"a".repeat(MAX_RANGE_BYTES + 1))), Err(DateRangeError::TooLong));
        for n in 0..MAX_RANGES {
            set(round(&n.to_string())).unwrap();
        }
        assert_eq!(set(round("more")), Err(DateRangeError::TooMany));
    }
}
