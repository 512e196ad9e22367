//! Media playlists, read strictly: a tag that is malformed or out of place is an error,
//! a tag that is unknown is none (rfc8216bis §6.3.1 wants it ignored).
//!
//! A pure reader of hostile text: its result is never longer than the text. Positions
//! are absolute (media sequence numbers, microseconds of UTC), so that a delta update
//! reads like any other playlist (rfc8216bis §4.4 for the tags, §6.2.5.1 for deltas).

use std::time::Duration;

use super::attributes::{Attributes, Malformed, integer, seconds};
use super::date;

/// Longest text that is read, in bytes: hours of parts.
pub const MAX_TEXT: usize = 4 << 20;

/// Why a text is not a playlist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct ReadError {
    /// Counted from 1; 0 for the playlist as a whole.
    pub line: usize,
    /// What is wrong with it.
    pub what: &'static str,
}

/// A part of a file, or all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// As written, relative to the playlist.
    pub uri: String,
    /// First byte and length.
    pub range: Option<(u64, u64)>,
}

/// `EXT-X-PART`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its bytes.
    pub resource: Resource,
    /// Its length.
    pub duration: Duration,
    /// Whether a player can start with it.
    pub independent: bool,
    /// There is no media.
    pub gap: bool,
}

/// A segment: complete, or as far as it is in parts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// Media sequence number.
    pub msn: u64,
    /// Whether timestamps or encoding change before it.
    pub discontinuity: bool,
    /// Its init segment, when this playlist says so.
    pub map: Option<Resource>,
    /// Capture time of its first sample, in microseconds of UTC.
    pub start: Option<i64>,
    /// Its parts, while they are listed.
    pub parts: Vec<Part>,
    /// Length and bytes, once it is complete.
    pub whole: Option<(Duration, Resource)>,
    /// There is no media.
    pub gap: bool,
}

/// `EXT-X-PRELOAD-HINT:TYPE=PART`: `length` of its range is 0 when it is not known yet.
pub type Hint = Resource;

/// A media playlist.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MediaPlaylist {
    /// EXT-X-TARGETDURATION.
    pub target: Duration,
    /// PART-TARGET, of a low-latency playlist.
    pub part_target: Option<Duration>,
    /// CAN-BLOCK-RELOAD.
    pub can_block: bool,
    /// CAN-SKIP-UNTIL.
    pub skip_until: Option<Duration>,
    /// PART-HOLD-BACK.
    pub part_hold_back: Option<Duration>,
    /// EXT-X-MEDIA-SEQUENCE.
    pub media_sequence: u64,
    /// EXT-X-DISCONTINUITY-SEQUENCE.
    pub discontinuity_sequence: u64,
    /// SKIPPED-SEGMENTS of a delta update.
    pub skipped: u64,
    /// Without those skipped.
    pub segments: Vec<Segment>,
    /// The next part, before it exists.
    pub hint: Option<Hint>,
    /// EXT-X-ENDLIST.
    pub ended: bool,
}

/// The place of a part: media sequence number, and index in the segment. A segment that
/// is complete ends at the first part of the next one.
pub type Place = (u64, u64);

impl MediaPlaylist {
    /// Reads a playlist.
    ///
    /// # Errors
    /// [`ReadError`], with the first line that is wrong.
    pub fn read(text: &str) -> Result<Self, ReadError> {
        if text.len() > MAX_TEXT {
            return Err(ReadError { line: 0, what: "the playlist is too long" });
        }
        let mut reader = Reader::default();
        for (number, line) in text.lines().enumerate() {
            reader
                .line(number, line.trim_end())
                .map_err(|what| ReadError { line: number + 1, what })?;
        }
        reader.finish().map_err(|what| ReadError { line: 0, what })
    }

    /// Media sequence number of the first segment that is spelled out.
    pub const fn first_listed(&self) -> u64 {
        self.media_sequence.saturating_add(self.skipped)
    }

    /// Where the next part will be.
    pub fn edge(&self) -> Place {
        match self.segments.last() {
            None => (self.first_listed(), 0),
            Some(last) if last.whole.is_some() => (last.msn.saturating_add(1), 0),
            Some(last) => (last.msn, last.parts.len() as u64),
        }
    }

    /// UTC of the end of the newest media, in microseconds.
    pub fn edge_utc(&self) -> Option<i64> {
        let last = self.segments.last()?;
        let length = match &last.whole {
            Some((duration, _)) => *duration,
            None => total(&last.parts),
        };
        Some(last.start?.saturating_add(micros(length)))
    }

    /// The segment of this media sequence number, if it is spelled out.
    pub fn segment(&self, msn: u64) -> Option<&Segment> {
        let index = msn.checked_sub(self.first_listed())?;
        self.segments.get(usize::try_from(index).ok()?)
    }
}

/// The length of parts together.
pub fn total(parts: &[Part]) -> Duration {
    parts.iter().fold(Duration::ZERO, |sum, part| sum.saturating_add(part.duration))
}

/// Whole microseconds.
pub fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// Where a range ends, for one that continues it.
#[derive(Default)]
struct Ranges(Option<(String, u64)>);

impl Ranges {
    /// Reads `n[@o]` for `uri`; without `o` it continues the range before it.
    fn resource(&mut self, uri: &str, range: Option<&str>) -> Result<Resource, &'static str> {
        const BAD: &str = "the byte range is malformed or continues none";
        let uri = uri.to_owned();
        let Some(range) = range else {
            self.0 = None;
            return Ok(Resource { uri, range: None });
        };
        let (length, offset) = match range.split_once('@') {
            Some((length, offset)) => (length, Some(offset)),
            None => (range, None),
        };
        let length = integer(length).map_err(|Malformed| BAD)?;
        let offset = match (offset, &self.0) {
            (Some(offset), _) => integer(offset).map_err(|Malformed| BAD)?,
            (None, Some((before, end))) if *before == uri => *end,
            (None, _) => return Err(BAD),
        };
        let end = offset.checked_add(length).filter(|_| length > 0).ok_or(BAD)?;
        self.0 = Some((uri.clone(), end));
        Ok(Resource { uri, range: Some((offset, length)) })
    }
}

#[derive(Default)]
struct Reader {
    out: MediaPlaylist,
    has_target: bool,
    has_control: bool,
    /// The segment that the tags read so far belong to.
    segment: Segment,
    extinf: Option<Duration>,
    byte_range: Option<String>,
    part_ranges: Ranges,
    segment_ranges: Ranges,
    /// UTC of the segment, when the one before it tells.
    expected_start: Option<i64>,
}

type Step = Result<(), &'static str>;

const ATTRIBUTES: &str = "the attributes are malformed";
const NO_URI: &str = "a URI is missing";

impl From<Malformed> for &'static str {
    fn from(Malformed: Malformed) -> Self {
        ATTRIBUTES
    }
}

impl Reader {
    fn line(&mut self, number: usize, line: &str) -> Step {
        if number == 0 {
            return if line == "#EXTM3U" { Ok(()) } else { Err("a playlist begins with #EXTM3U") };
        }
        if line.is_empty() {
            return Ok(());
        }
        if !line.starts_with('#') {
            return self.uri(line);
        }
        let (tag, value) = line.split_once(':').unwrap_or((line, ""));
        if self.out.ended && tag.starts_with("#EXT-X-PART") {
            return Err("a part after the end of the list");
        }
        match tag {
            "#EXTINF"
            | "#EXT-X-BYTERANGE"
            | "#EXT-X-DISCONTINUITY"
            | "#EXT-X-MAP"
            | "#EXT-X-GAP"
            | "#EXT-X-PROGRAM-DATE-TIME"
            | "#EXT-X-PART" => self.segment_tag(tag, value),
            "#EXT-X-STREAM-INF" => Err("this is a multivariant playlist"),
            _ => self.playlist_tag(tag, value),
        }
    }

    fn playlist_tag(&mut self, tag: &str, value: &str) -> Step {
        const NUMBER: &str = "the number is malformed";
        let first = self.out.segments.is_empty() && self.segment == Segment::default();
        match tag {
            "#EXT-X-TARGETDURATION" => {
                let target = integer(value).map_err(|Malformed| NUMBER)?;
                self.out.target = Duration::from_secs(target.min(1_000_000));
                self.has_target = true;
            }
            "#EXT-X-MEDIA-SEQUENCE" if first => {
                self.out.media_sequence = integer(value).map_err(|Malformed| NUMBER)?;
            }
            "#EXT-X-DISCONTINUITY-SEQUENCE" if first => {
                self.out.discontinuity_sequence = integer(value).map_err(|Malformed| NUMBER)?;
            }
            "#EXT-X-SKIP" if first => {
                let skipped = Attributes::read(value)?.integer("SKIPPED-SEGMENTS")?;
                self.out.skipped = skipped.ok_or("SKIPPED-SEGMENTS is missing")?;
            }
            "#EXT-X-MEDIA-SEQUENCE" | "#EXT-X-DISCONTINUITY-SEQUENCE" | "#EXT-X-SKIP" => {
                return Err("the tag stands behind a segment");
            }
            "#EXT-X-SERVER-CONTROL" => {
                let control = Attributes::read(value)?;
                self.out.can_block = control.flag("CAN-BLOCK-RELOAD")?;
                self.out.skip_until = control.seconds("CAN-SKIP-UNTIL")?;
                self.out.part_hold_back = control.seconds("PART-HOLD-BACK")?;
                self.has_control = true;
            }
            "#EXT-X-PART-INF" => {
                let target = Attributes::read(value)?.seconds("PART-TARGET")?;
                let target = target.filter(|target| !target.is_zero());
                self.out.part_target = Some(target.ok_or("PART-TARGET is missing")?);
            }
            "#EXT-X-PRELOAD-HINT" => self.hint(value)?,
            "#EXT-X-ENDLIST" => self.out.ended = true,
            _ => {}
        }
        Ok(())
    }

    fn segment_tag(&mut self, tag: &str, value: &str) -> Step {
        let begun = !self.segment.parts.is_empty();
        match tag {
            "#EXTINF" => {
                let length = value.split_once(',').map_or(value, |(length, _)| length);
                self.extinf = Some(seconds(length).map_err(|Malformed| "EXTINF is malformed")?);
            }
            "#EXT-X-BYTERANGE" => self.byte_range = Some(value.to_owned()),
            "#EXT-X-GAP" => self.segment.gap = true,
            "#EXT-X-PART" => self.part(value)?,
            // What follows describes a segment from its first part on.
            _ if begun => return Err("the tag stands behind a part of its segment"),
            "#EXT-X-DISCONTINUITY" => self.segment.discontinuity = true,
            "#EXT-X-MAP" => {
                let map = Attributes::read(value)?;
                let (uri, range) = (map.text("URI")?.ok_or(NO_URI)?, map.text("BYTERANGE")?);
                let range = range.map(|range| match range.contains('@') {
                    true => range.to_owned(),
                    false => format!("{range}@0"),
                });
                self.segment.map = Some(Ranges::default().resource(uri, range.as_deref())?);
            }
            _ => {
                let start = date::utc_micros(value).ok_or("the date is malformed")?;
                self.segment.start = Some(start);
            }
        }
        Ok(())
    }

    fn part(&mut self, value: &str) -> Step {
        if self.extinf.is_some() {
            return Err("a part behind the EXTINF of its segment");
        }
        let part = Attributes::read(value)?;
        let uri = part.text("URI")?.ok_or(NO_URI)?;
        let resource = self.part_ranges.resource(uri, part.text("BYTERANGE")?)?;
        let duration = part.seconds("DURATION")?.ok_or("DURATION is missing")?;
        let (independent, gap) = (part.flag("INDEPENDENT")?, part.flag("GAP")?);
        self.segment.parts.push(Part { resource, duration, independent, gap });
        Ok(())
    }

    fn hint(&mut self, value: &str) -> Step {
        let hint = Attributes::read(value)?;
        if hint.word("TYPE")? != Some("PART") {
            return Ok(());
        }
        let uri = hint.text("URI")?.ok_or(NO_URI)?.to_owned();
        let (start, length) = (hint.integer("BYTERANGE-START")?, hint.integer("BYTERANGE-LENGTH")?);
        let range = (start.is_some() || length.is_some())
            .then(|| (start.unwrap_or_default(), length.unwrap_or_default()));
        if self.out.hint.replace(Resource { uri, range }).is_some() {
            return Err("a second hint for a part");
        }
        Ok(())
    }

    fn uri(&mut self, uri: &str) -> Step {
        let duration = self.extinf.take().ok_or("a URI without EXTINF")?;
        let range = self.byte_range.take();
        let resource = self.segment_ranges.resource(uri, range.as_deref())?;
        self.segment.whole = Some((duration, resource));
        self.close(duration);
        Ok(())
    }

    /// Lists the segment; its successor begins where it ends.
    fn close(&mut self, duration: Duration) {
        let mut segment = std::mem::take(&mut self.segment);
        segment.msn = self.out.first_listed().saturating_add(self.out.segments.len() as u64);
        if !segment.discontinuity {
            segment.start = segment.start.or(self.expected_start);
        }
        self.expected_start = segment.start.map(|start| start.saturating_add(micros(duration)));
        self.out.segments.push(segment);
    }

    fn finish(mut self) -> Result<MediaPlaylist, &'static str> {
        if self.extinf.is_some() {
            return Err("an EXTINF without its URI");
        }
        let parts = !self.segment.parts.is_empty();
        if parts {
            self.close(Duration::ZERO);
        }
        let out = self.out;
        let any_part = out.segments.iter().any(|segment| !segment.parts.is_empty());
        if !self.has_target {
            Err("there is no EXT-X-TARGETDURATION")
        } else if any_part && out.part_target.is_none() {
            Err("there are parts without EXT-X-PART-INF")
        } else if out.part_target.is_some() && out.part_hold_back.is_none() && self.has_control {
            Err("there is EXT-X-PART-INF without PART-HOLD-BACK")
        } else {
            Ok(out)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "#EXTM3U\n#EXT-X-VERSION:9\n#EXT-X-TARGETDURATION:2\n\
        #EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,CAN-SKIP-UNTIL=12.0,PART-HOLD-BACK=1.5\n\
        #EXT-X-PART-INF:PART-TARGET=0.5\n#EXT-X-MEDIA-SEQUENCE:7\n";

    fn read(tail: &str) -> Result<MediaPlaylist, ReadError> {
        MediaPlaylist::read(&format!("{HEAD}{tail}"))
    }

    #[test]
    fn a_live_playlist_is_read_to_its_edge() {
        let list = read(
            "#EXT-X-MAP:URI=\"i.mp4\"\n#EXT-X-PROGRAM-DATE-TIME:1970-01-01T00:00:10Z\n\
             #EXTINF:2.0,\ns7.m4s\n#EXT-X-PART:DURATION=0.5,URI=\"p0\",INDEPENDENT=YES\n\
             #EXT-X-PART:DURATION=0.25,URI=\"p1\"\n#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"p2\"\n\
             #EXT-X-RENDITION-REPORT:URI=\"a\",LAST-MSN=8\n#EXT-X-OF-TOMORROW:X\n",
        );
        let list = list.unwrap();
        assert_eq!((list.edge(), list.edge_utc()), ((8, 2), Some(12_750_000)));
        assert_eq!((list.can_block, list.skip_until), (true, Some(Duration::from_secs(12))));
        assert_eq!(list.segment(8).unwrap().start, Some(12_000_000));
        assert!(list.segment(8).unwrap().parts[0].independent && list.segment(9).is_none());
        assert_eq!(list.hint.unwrap().uri, "p2");
    }

    #[test]
    fn a_delta_update_keeps_its_numbers() {
        let list = read("#EXT-X-SKIP:SKIPPED-SEGMENTS=3\n#EXTINF:2.0,\ns10.m4s\n").unwrap();
        assert_eq!((list.first_listed(), list.edge()), (10, (11, 0)));
        assert!(list.segment(9).is_none() && list.segment(10).is_some());
    }

    #[test]
    fn byte_ranges_continue_one_another() {
        let list = read(
            "#EXT-X-PART:DURATION=0.5,URI=\"s\",BYTERANGE=\"100@20\"\n\
             #EXT-X-PART:DURATION=0.5,URI=\"s\",BYTERANGE=\"50\"\n\
             #EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"s\",BYTERANGE-START=170\n",
        );
        let list = list.unwrap();
        let ranges: Vec<_> = list.segments[0].parts.iter().map(|p| p.resource.range).collect();
        assert_eq!(ranges, [Some((20, 100)), Some((120, 50))]);
        assert_eq!(list.hint.unwrap().range, Some((170, 0)));
        assert!(read("#EXT-X-PART:DURATION=0.5,URI=\"s\",BYTERANGE=\"50\"\n").is_err());
        let end = "#EXT-X-PART:DURATION=0.5,URI=\"s\",BYTERANGE=\"2@18446744073709551615\"\n";
        assert!(read(end).is_err());
    }

    #[test]
    fn a_break_has_a_date_of_its_own_or_none() {
        let list = read(
            "#EXT-X-PROGRAM-DATE-TIME:1970-01-01T00:00:10Z\n#EXTINF:2,\na\n\
             #EXT-X-DISCONTINUITY\n#EXTINF:2,\nb\n",
        );
        let starts: Vec<_> = list.unwrap().segments.iter().map(|s| s.start).collect();
        assert_eq!(starts, [Some(10_000_000), None]);
    }

    #[test]
    fn what_is_wrong_is_refused_with_its_line() {
        let error = read("s.m4s\n").unwrap_err();
        assert_eq!(error.to_string(), "line 7: a URI without EXTINF");
        for tail in [
            "#EXTINF:x,\ns\n",
            "#EXTINF:2,\n",
            "#EXTINF:2,\n#EXT-X-PART:DURATION=1,URI=\"p\"\ns\n",
            "#EXT-X-PART:DURATION=1\n",
            "#EXT-X-PART:URI=\"p\"\n",
            "#EXT-X-PART:DURATION=1,URI=\"p\",GAP=1\n",
            "#EXT-X-PART:DURATION=1,URI=\"p\"\n#EXT-X-MAP:URI=\"i\"\n",
            "#EXTINF:2,\ns\n#EXT-X-MEDIA-SEQUENCE:3\n",
            "#EXT-X-MAP:URI=i\n",
            "#EXT-X-PROGRAM-DATE-TIME:yesterday\n",
            "#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"a\"\n#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"b\"\n",
            "#EXT-X-ENDLIST\n#EXT-X-PART:DURATION=1,URI=\"p\"\n",
            "#EXT-X-STREAM-INF:BANDWIDTH=1\nv\n",
            "#EXT-X-MEDIA-SEQUENCE:-1\n",
        ] {
            assert!(read(tail).is_err(), "{tail}");
        }
        for text in ["", "#EXTM3U\n", "\u{feff}#EXTM3U\n#EXT-X-TARGETDURATION:2\n"] {
            assert!(MediaPlaylist::read(text).is_err(), "{text}");
        }
        assert!(MediaPlaylist::read(&"#".repeat(MAX_TEXT + 1)).is_err());
    }

    #[test]
    fn numbers_at_their_limit_do_not_overflow() {
        let list = MediaPlaylist::read(
            "#EXTM3U\n#EXT-X-TARGETDURATION:18446744073709551615\n\
             #EXT-X-MEDIA-SEQUENCE:18446744073709551615\n\
             #EXT-X-SKIP:SKIPPED-SEGMENTS=18446744073709551615\n#EXTINF:1,\na\n#EXTINF:1,\nb\n",
        );
        assert_eq!(list.unwrap().edge().1, 0);
    }
}
