//! A strict reader of playlists: an unknown tag, a tag out of place, one that is there
//! twice or a malformed attribute fails the test. Source: rfc8216bis §4.

use crate::egress::hls::playlist::HAIR;
use std::collections::{BTreeMap, BTreeSet};

pub type Attributes = BTreeMap<String, String>;

#[derive(Debug, Clone, Default)]
pub struct Playlist {
    pub version: u32,
    pub target: u64,
    pub part_target: f64,
    pub control: Attributes,
    pub control_line: String,
    pub msn: u64,
    pub discontinuity_sequence: u64,
    pub skipped: u64,
    /// By ID.
    pub ranges: BTreeMap<String, Attributes>,
    /// IDs of those that left; only in a delta update that may skip date ranges.
    pub removed_ranges: Option<Vec<String>>,
    /// The last one has no `duration` while it is in progress.
    pub segments: Vec<Segment>,
    pub hints: Vec<String>,
    pub reports: Vec<Attributes>,
    pub ended: bool,
}

#[derive(Debug, Clone, Default)]
pub struct Segment {
    pub msn: u64,
    pub discontinuities: u64,
    pub map: Option<String>,
    pub date: Option<String>,
    pub gap: bool,
    pub parts: Vec<Part>,
    pub duration: Option<f64>,
    pub uri: String,
}

#[derive(Debug, Clone, Default)]
pub struct Part {
    pub duration: f64,
    pub uri: String,
    pub independent: bool,
    pub gap: bool,
}

/// Tags that stand once in a media playlist, before its segments.
const HEAD: [&str; 7] = [
    "#EXT-X-VERSION",
    "#EXT-X-TARGETDURATION",
    "#EXT-X-SERVER-CONTROL",
    "#EXT-X-PART-INF",
    "#EXT-X-MEDIA-SEQUENCE",
    "#EXT-X-DISCONTINUITY-SEQUENCE",
    "#EXT-X-SKIP",
];

impl Playlist {
    pub fn parse(text: &str) -> Self {
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("#EXTM3U"));
        assert!(text.ends_with('\n'));
        let (mut out, mut segment, mut seen) =
            (Self::default(), Segment::default(), BTreeSet::new());
        for line in lines {
            assert!(!out.ended, "after ENDLIST: {line}");
            let (tag, value) = line.split_once(':').unwrap_or((line, ""));
            if HEAD.contains(&tag) {
                assert!(seen.insert(tag.to_owned()), "twice: {line}");
                assert!(out.segments.is_empty() && segment.is_fresh(), "out of place: {line}");
                out.head(tag, value, line);
            } else if tag.starts_with('#') {
                out.tag(tag, value, line, &mut segment);
            } else {
                assert!(segment.duration.is_some(), "URI without EXTINF: {line}");
                segment.uri = line.to_owned();
                out.add(std::mem::take(&mut segment));
            }
        }
        if segment.is_fresh() {
            assert_eq!(segment.date, None, "tags without a segment");
        } else {
            out.add(segment);
        }
        for tag in HEAD.iter().filter(|tag| **tag != "#EXT-X-SKIP") {
            assert!(seen.contains(*tag), "{tag} is missing");
        }
        out
    }

    fn head(&mut self, tag: &str, value: &str, line: &str) {
        match tag {
            "#EXT-X-VERSION" => self.version = value.parse().unwrap(),
            "#EXT-X-TARGETDURATION" => self.target = value.parse().unwrap(),
            "#EXT-X-SERVER-CONTROL" => {
                self.control = attributes(value);
                self.control_line = line.to_owned();
            }
            "#EXT-X-PART-INF" => self.part_target = number(&attributes(value), "PART-TARGET"),
            "#EXT-X-MEDIA-SEQUENCE" => self.msn = value.parse().unwrap(),
            "#EXT-X-DISCONTINUITY-SEQUENCE" => {
                self.discontinuity_sequence = value.parse().unwrap();
            }
            _ => {
                let skip = attributes(value);
                self.skipped = skip["SKIPPED-SEGMENTS"].parse().unwrap();
                self.removed_ranges = skip.get("RECENTLY-REMOVED-DATERANGES").map(|_| {
                    let ids = text_of(&skip, "RECENTLY-REMOVED-DATERANGES");
                    ids.split('\t').filter(|id| !id.is_empty()).map(str::to_owned).collect()
                });
            }
        }
    }

    fn tag(&mut self, tag: &str, value: &str, line: &str, segment: &mut Segment) {
        let fresh = segment.is_fresh();
        match tag {
            "#EXT-X-DATERANGE" => {
                let range = attributes(value);
                let id = text_of(&range, "ID");
                assert!(self.ranges.insert(id, range).is_none(), "twice: {line}");
            }
            "#EXT-X-DISCONTINUITY" if fresh => segment.discontinuities += 1,
            "#EXT-X-MAP" if fresh => segment.map = Some(text_of(&attributes(value), "URI")),
            "#EXT-X-PROGRAM-DATE-TIME" if fresh => segment.date = Some(value.to_owned()),
            "#EXT-X-GAP" if fresh && value.is_empty() => segment.gap = true,
            "#EXT-X-PART" if segment.duration.is_none() => segment.parts.push(part(value)),
            "#EXTINF" if segment.duration.is_none() => {
                let announced: f64 = value.strip_suffix(',').unwrap().parse().unwrap();
                // To the digit that durations are written with.
                segment.duration = Some(((announced + HAIR) * 1e5).round() / 1e5);
            }
            "#EXT-X-ENDLIST" => self.ended = true,
            "#EXT-X-PRELOAD-HINT" => {
                let hint = attributes(value);
                assert_eq!(hint["TYPE"], "PART");
                self.hints.push(text_of(&hint, "URI"));
            }
            "#EXT-X-RENDITION-REPORT" => self.reports.push(attributes(value)),
            _ => panic!("unexpected {line}"),
        }
    }

    fn add(&mut self, mut segment: Segment) {
        segment.msn = self.msn + self.skipped + self.segments.len() as u64;
        self.segments.push(segment);
    }

    pub fn complete(&self) -> impl Iterator<Item = &Segment> {
        self.segments.iter().filter(|segment| segment.duration.is_some())
    }

    pub fn parts(&self) -> impl Iterator<Item = &Part> {
        self.segments.iter().flat_map(|segment| &segment.parts)
    }

    /// Everything that it names and that can be fetched.
    pub fn uris(&self) -> Vec<String> {
        let parts = self.parts().filter(|part| !part.gap);
        let mut uris: Vec<String> = parts.map(|part| part.uri.clone()).collect();
        let segments = self.complete().filter(|segment| !segment.gap);
        uris.extend(segments.map(|segment| segment.uri.clone()));
        uris.extend(self.segments.iter().filter_map(|segment| segment.map.clone()));
        uris
    }

    pub fn control(&self, name: &str) -> f64 {
        number(&self.control, name)
    }
}

impl Segment {
    /// Nothing of it came but tags that stand before its parts.
    fn is_fresh(&self) -> bool {
        self.parts.is_empty() && self.duration.is_none()
    }

    /// Length in seconds, of what is there.
    pub fn length(&self) -> f64 {
        self.duration.unwrap_or_else(|| self.parts.iter().map(|part| part.duration).sum())
    }

    /// Milliseconds since the Unix epoch at which it begins.
    pub fn millis(&self) -> i64 {
        millis(self.date.as_deref().expect("each segment has a date"))
    }
}

/// Milliseconds since the Unix epoch of `2023-11-14T22:13:20.000Z`.
pub fn millis(date: &str) -> i64 {
    let field = |range: std::ops::Range<usize>| date[range].parse::<i64>().unwrap();
    assert!(date.len() == 24 && date.ends_with('Z'), "{date}");
    let (year, month, day) = (field(0..4), field(5..7), field(8..10));
    // Days from the civil date, with years that begin in March.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1 - 719_468;
    let seconds = days * 86_400 + field(11..13) * 3600 + field(14..16) * 60 + field(17..19);
    seconds * 1000 + field(20..23)
}

fn part(value: &str) -> Part {
    let attributes = attributes(value);
    let yes = |name| attributes.get(name).inspect(|v| assert_eq!(*v, "YES")).is_some();
    Part {
        duration: number(&attributes, "DURATION"),
        uri: text_of(&attributes, "URI"),
        independent: yes("INDEPENDENT"),
        gap: yes("GAP"),
    }
}

/// An attribute list (§4.2). Only text in quotes may have commas.
pub fn attributes(list: &str) -> Attributes {
    let (mut out, mut rest) = (Attributes::new(), list);
    while !rest.is_empty() {
        let (name, value) = rest.split_once('=').expect("an attribute has a value");
        let allowed = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'-';
        assert!(!name.is_empty() && name.bytes().all(allowed), "{list}");
        let end = match value.strip_prefix('"') {
            Some(quoted) => quoted.find('"').expect("the quote ends") + 2,
            None => value.find(',').unwrap_or(value.len()),
        };
        let (value, after) = value.split_at(end);
        assert!(!value.is_empty(), "{list}");
        assert!(out.insert(name.to_owned(), value.to_owned()).is_none(), "twice: {list}");
        assert!(after.is_empty() || after.len() > 1, "a comma at the end: {list}");
        rest = if after.is_empty() { after } else { after.strip_prefix(',').expect("a comma") };
    }
    out
}

pub fn number(attributes: &Attributes, name: &str) -> f64 {
    attributes[name].parse().unwrap()
}

pub fn text_of(attributes: &Attributes, name: &str) -> String {
    let value = &attributes[name];
    value.strip_prefix('"').and_then(|v| v.strip_suffix('"')).expect("quoted").to_owned()
}

/// A multivariant playlist.
#[derive(Debug, Clone, Default)]
pub struct Multivariant {
    pub version: u32,
    /// Audio renditions.
    pub media: Vec<Attributes>,
    /// Variants: the attributes, and the address of the media playlist.
    pub variants: Vec<(Attributes, String)>,
}

impl Multivariant {
    pub fn parse(text: &str) -> Self {
        let (mut out, mut lines, mut independent) = (Self::default(), text.lines(), false);
        assert_eq!(lines.next(), Some("#EXTM3U"));
        while let Some(line) = lines.next() {
            let (tag, value) = line.split_once(':').unwrap_or((line, ""));
            match tag {
                "#EXT-X-VERSION" => out.version = value.parse().unwrap(),
                "#EXT-X-INDEPENDENT-SEGMENTS" => independent = true,
                "#EXT-X-MEDIA" => out.media.push(attributes(value)),
                "#EXT-X-STREAM-INF" => {
                    let uri = lines.next().expect("a variant has an address");
                    assert!(!uri.starts_with('#'), "{uri}");
                    out.variants.push((attributes(value), uri.to_owned()));
                }
                _ => panic!("unexpected {line}"),
            }
        }
        assert!(independent, "P11: EXT-X-INDEPENDENT-SEGMENTS");
        out
    }

    /// Names of the renditions that it lists.
    pub fn names(&self) -> Vec<String> {
        let media = self.media.iter().map(|media| text_of(media, "URI"));
        let uris = self.variants.iter().map(|(_, uri)| uri.clone()).chain(media);
        uris.map(|uri| uri.strip_suffix("/index.m3u8").unwrap().to_owned()).collect()
    }
}
