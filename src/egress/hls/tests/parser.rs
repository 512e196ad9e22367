//! A strict reader of media playlists: an unknown tag, a tag out of place or a
//! malformed attribute fails the test.

use std::collections::BTreeMap;

#[derive(Debug, Clone, Default)]
pub struct Playlist {
    pub version: u32,
    pub target: u64,
    pub part_target: f64,
    pub control: BTreeMap<String, String>,
    pub control_line: String,
    pub msn: u64,
    pub discontinuity_sequence: u64,
    pub skipped: u64,
    /// The last one has no `duration` while it is in progress.
    pub segments: Vec<Segment>,
    pub hints: Vec<String>,
    pub reports: Vec<BTreeMap<String, String>>,
    pub ended: bool,
}

#[derive(Debug, Clone, Default)]
pub struct Segment {
    pub msn: u64,
    pub discontinuities: u64,
    pub map: Option<String>,
    pub date: Option<String>,
    pub parts: Vec<Part>,
    pub duration: Option<f64>,
    pub uri: String,
}

#[derive(Debug, Clone, Default)]
pub struct Part {
    pub duration: f64,
    pub uri: String,
    pub independent: bool,
}

impl Playlist {
    pub fn parse(text: &str) -> Self {
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("#EXTM3U"));
        assert!(text.ends_with('\n'));
        let mut out = Self::default();
        let mut segment = Segment::default();
        for line in lines {
            assert!(!out.ended, "after ENDLIST: {line}");
            let (tag, value) = line.split_once(':').unwrap_or((line, ""));
            let fresh = segment.parts.is_empty() && segment.duration.is_none();
            match tag {
                "#EXT-X-VERSION" => out.version = value.parse().unwrap(),
                "#EXT-X-TARGETDURATION" => out.target = value.parse().unwrap(),
                "#EXT-X-SERVER-CONTROL" => {
                    out.control = attributes(value);
                    out.control_line = line.to_owned();
                }
                "#EXT-X-PART-INF" => out.part_target = number(&attributes(value), "PART-TARGET"),
                "#EXT-X-MEDIA-SEQUENCE" => out.msn = value.parse().unwrap(),
                "#EXT-X-DISCONTINUITY-SEQUENCE" => {
                    out.discontinuity_sequence = value.parse().unwrap();
                }
                "#EXT-X-SKIP" => {
                    out.skipped = number(&attributes(value), "SKIPPED-SEGMENTS") as u64
                }
                "#EXT-X-DISCONTINUITY" if fresh => segment.discontinuities += 1,
                "#EXT-X-MAP" if fresh => segment.map = Some(text_of(&attributes(value), "URI")),
                "#EXT-X-PROGRAM-DATE-TIME" if fresh => segment.date = Some(value.to_owned()),
                "#EXT-X-PART" => segment.parts.push(part(value)),
                "#EXTINF" => {
                    segment.duration = Some(value.strip_suffix(',').unwrap().parse().unwrap())
                }
                "#EXT-X-ENDLIST" => out.ended = true,
                "#EXT-X-PRELOAD-HINT" => {
                    let hint = attributes(value);
                    assert_eq!(hint["TYPE"], "PART");
                    out.hints.push(text_of(&hint, "URI"));
                }
                "#EXT-X-RENDITION-REPORT" => out.reports.push(attributes(value)),
                uri if !uri.starts_with('#') => {
                    assert!(segment.duration.is_some(), "URI without EXTINF: {line}");
                    segment.uri = line.to_owned();
                    out.add(std::mem::take(&mut segment));
                }
                _ => panic!("unexpected {line}"),
            }
        }
        if !segment.parts.is_empty() {
            out.add(segment);
        }
        out
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
        let mut uris: Vec<String> = self.parts().map(|part| part.uri.clone()).collect();
        uris.extend(self.complete().map(|segment| segment.uri.clone()));
        uris.extend(self.segments.iter().filter_map(|segment| segment.map.clone()));
        uris
    }

    pub fn control(&self, name: &str) -> f64 {
        number(&self.control, name)
    }
}

fn part(value: &str) -> Part {
    let attributes = attributes(value);
    let independent = attributes.get("INDEPENDENT").inspect(|v| assert_eq!(*v, "YES")).is_some();
    Part {
        duration: number(&attributes, "DURATION"),
        uri: text_of(&attributes, "URI"),
        independent,
    }
}

/// An attribute list (rfc8216bis §4.2); no value of ours has a comma in quotes.
fn attributes(list: &str) -> BTreeMap<String, String> {
    let pair = |item: &str| {
        let (name, value) = item.split_once('=').expect("an attribute has a value");
        (name.to_owned(), value.to_owned())
    };
    list.split(',').map(pair).collect()
}

fn number(attributes: &BTreeMap<String, String>, name: &str) -> f64 {
    attributes[name].parse().unwrap()
}

fn text_of(attributes: &BTreeMap<String, String>, name: &str) -> String {
    let value = &attributes[name];
    value.strip_prefix('"').and_then(|v| v.strip_suffix('"')).expect("quoted").to_owned()
}
