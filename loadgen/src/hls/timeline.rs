//! What a client does with the playlists of one rendition, one after the other: checks
//! that they continue each other ([`Ledger`]) and walks along their media ([`Cursor`]).
//! Pure; source: rfc8216bis §6.2.1 (what must not change), §6.3.3 and §6.3.4.

use std::time::Duration;

use super::playlist::{MediaPlaylist, Place, Resource, Segment, micros};

/// Parts between the place where a client starts and the live edge.
const PARTS_BACK: usize = 3;

/// What a client asks of a blocking reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// `_HLS_msn` and `_HLS_part`.
    pub place: Place,
    /// Whether there are parts at all.
    pub parts: bool,
    /// `_HLS_skip=YES`.
    pub skip: bool,
}

impl Ask {
    /// The next part, or segment, after what `playlist` lists.
    pub fn after(playlist: &MediaPlaylist) -> Self {
        let parts = playlist.part_target.is_some();
        Self { place: playlist.edge(), parts, skip: playlist.skip_until.is_some() }
    }

    /// Query parameters.
    pub fn query(&self) -> String {
        let (msn, part) = self.place;
        let mut query = format!("_HLS_msn={msn}");
        if self.parts {
            query += &format!("&_HLS_part={part}");
        }
        if self.skip {
            query += "&_HLS_skip=YES";
        }
        query
    }
}

/// Checks that a playlist continues those before it.
#[derive(Debug, Default)]
pub struct Ledger {
    seen: Option<Seen>,
}

#[derive(Debug)]
struct Seen {
    media_sequence: u64,
    discontinuity_sequence: u64,
    target: Duration,
    edge: Place,
    hint: Option<Resource>,
}

/// What came of a check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Rules that were broken.
    pub faults: Vec<&'static str>,
    /// The part that was hinted came under another name.
    pub hint_missed: bool,
}

impl Ledger {
    /// Checks the answer to `ask`.
    pub fn check(&mut self, playlist: &MediaPlaylist, ask: Option<Ask>) -> Checked {
        let edge = playlist.edge();
        let mut checked = Checked::default();
        let mut fault = |broken: bool, name| {
            if broken {
                checked.faults.push(name);
            }
        };
        if let Some(seen) = &self.seen {
            fault(playlist.media_sequence < seen.media_sequence, "media sequence went back");
            let breaks = playlist.discontinuity_sequence < seen.discontinuity_sequence;
            fault(breaks, "discontinuity sequence went back");
            fault(playlist.target != seen.target, "target duration changed");
            fault(edge < seen.edge, "live edge went back");
            fault(playlist.first_listed() > seen.edge.0, "media sequence numbers are missing");
            checked.hint_missed = seen.hint.as_ref().is_some_and(|hint| {
                part_at(playlist, seen.edge).is_some_and(|resource| !same_start(resource, hint))
            });
        }
        if let Some(ask) = ask.filter(|_| !playlist.ended) {
            let late = if ask.parts { edge <= ask.place } else { edge.0 <= ask.place.0 };
            fault(late, "answered before what was asked for");
        }
        self.seen = Some(Seen {
            media_sequence: playlist.media_sequence,
            discontinuity_sequence: playlist.discontinuity_sequence,
            target: playlist.target,
            edge,
            hint: playlist.hint.clone(),
        });
        checked
    }
}

/// The part at a place, where a place past the end of a segment is the next one's first.
fn part_at(playlist: &MediaPlaylist, (msn, part): Place) -> Option<&Resource> {
    let segment = playlist.segment(msn)?;
    let index = usize::try_from(part).ok()?;
    match segment.parts.get(index) {
        Some(part) => Some(&part.resource),
        None if segment.whole.is_some() && !segment.parts.is_empty() => {
            let next = playlist.segment(msn.checked_add(1)?)?;
            next.parts.first().map(|part| &part.resource)
        }
        None => None,
    }
}

/// Whether a hint was for this: the length of a hinted range need not be known.
pub fn same_start(resource: &Resource, hint: &Resource) -> bool {
    let start = |range: Option<(u64, u64)>| range.map_or(0, |(start, _)| start);
    resource.uri == hint.uri && start(resource.range) == start(hint.range)
}

/// Media to fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Its bytes.
    pub resource: Resource,
    /// Whether it is a part, not a whole segment.
    pub part: bool,
    /// Its init segment, as far as it was ever said.
    pub map: Option<Resource>,
    /// UTC of its first sample, in microseconds.
    pub start: Option<i64>,
    /// Its length.
    pub duration: Duration,
    /// There is nothing to fetch.
    pub gap: bool,
}

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Media that is there.
    Item(Item),
    /// All that is listed has been taken.
    Nothing,
}

/// The place of a client in a rendition.
#[derive(Clone, Debug)]
pub struct Cursor {
    place: Place,
    map: Option<Resource>,
    expected: Option<i64>,
    /// Times that media left the playlist before it was fetched.
    pub overruns: u64,
}

/// Where a client starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// The first part or segment to fetch.
    pub place: Place,
    /// UTC at which to play, in microseconds.
    pub utc: Option<i64>,
    /// Media between the first that is fetched and the place to play.
    pub lead: Duration,
}

struct Candidate {
    place: Place,
    start: Option<i64>,
    duration: Duration,
    independent: bool,
}

/// All parts that are listed, and segments that have none.
fn candidates(playlist: &MediaPlaylist) -> Vec<Candidate> {
    let mut out = Vec::new();
    for segment in &playlist.segments {
        let mut start = segment.start;
        for (index, part) in segment.parts.iter().enumerate() {
            let (place, duration) = ((segment.msn, index as u64), part.duration);
            out.push(Candidate { place, start, duration, independent: part.independent });
            start = start.map(|start| start.saturating_add(micros(duration)));
        }
        if let (true, Some((duration, _))) = (segment.parts.is_empty(), &segment.whole) {
            let (place, duration) = ((segment.msn, 0), *duration);
            out.push(Candidate { place, start, duration, independent: true });
        }
    }
    out
}

impl Start {
    /// Three parts back from the live edge, from the random access point at or before
    /// it. `None` while nothing is listed.
    pub fn at_edge(playlist: &MediaPlaylist) -> Option<Self> {
        let all = candidates(playlist);
        let play = all.len().saturating_sub(PARTS_BACK);
        let chosen = all.get(play)?;
        let first = all.iter().take(play + 1).rposition(|one| one.independent);
        // Without any mark (sound of some origins) every part will do.
        let first = first.unwrap_or(play);
        let lead = all.get(first..play).unwrap_or_default().iter();
        let lead = lead.fold(Duration::ZERO, |sum, one| sum.saturating_add(one.duration));
        let place = all.get(first)?.place;
        Some(Self { place, utc: chosen.start, lead })
    }

    /// At the part in which `utc` falls, or the first that is listed when it was
    /// before that; at the edge where nothing has a date.
    pub fn at_utc(playlist: &MediaPlaylist, utc: i64) -> Option<Self> {
        let all = candidates(playlist);
        let end = |one: &Candidate| one.start.map(|s| s.saturating_add(micros(one.duration)));
        let holds = |one: &&Candidate| end(one).is_some_and(|end| end > utc);
        match all.iter().find(holds) {
            Some(one) => {
                let before = utc.saturating_sub(one.start.unwrap_or(utc)).max(0);
                let lead = Duration::from_micros(before.unsigned_abs());
                Some(Self { place: one.place, utc: Some(utc), lead })
            }
            // What holds it has not come yet: it is the next part.
            None if all.last().and_then(end).is_some() => {
                Some(Self { place: playlist.edge(), utc: Some(utc), lead: Duration::ZERO })
            }
            None => Self::at_edge(playlist),
        }
    }
}

impl Cursor {
    /// At a place.
    pub const fn at(place: Place) -> Self {
        Self { place, map: None, expected: None, overruns: 0 }
    }

    /// Takes the next media that `playlist` lists.
    pub fn next(&mut self, playlist: &MediaPlaylist) -> Next {
        let first = playlist.first_listed();
        if self.place.0 < first && !playlist.segments.is_empty() {
            self.overruns += 1;
            self.jump(first);
        }
        // Bounded: each turn goes to the segment after.
        while let Some(segment) = playlist.segment(self.place.0) {
            if let Some(item) = self.take(playlist, segment) {
                return Next::Item(item);
            }
            if segment.whole.is_none() {
                return Next::Nothing;
            }
            if segment.parts.is_empty() && self.place.1 > 0 {
                // Its other parts are not listed any more.
                self.overruns += 1;
                self.expected = None;
            }
            self.place = (self.place.0.saturating_add(1), 0);
            if self.place.0 == u64::MAX {
                return Next::Nothing;
            }
        }
        Next::Nothing
    }

    fn jump(&mut self, msn: u64) {
        self.place = (msn, 0);
        self.expected = None;
    }

    /// The next media of a segment.
    fn take(&mut self, playlist: &MediaPlaylist, segment: &Segment) -> Option<Item> {
        let index = usize::try_from(self.place.1).ok()?;
        let (resource, duration, gap, part) = match (segment.parts.get(index), &segment.whole) {
            (Some(part), _) => (&part.resource, part.duration, part.gap || segment.gap, true),
            (None, Some((duration, whole))) if segment.parts.is_empty() && index == 0 => {
                (whole, *duration, segment.gap, false)
            }
            _ => return None,
        };
        if index == 0 && segment.discontinuity {
            self.expected = None;
        }
        let before = segment.parts.iter().take(index);
        let offset = before.fold(0, |sum: i64, part| sum.saturating_add(micros(part.duration)));
        let start = segment.start.map(|start| start.saturating_add(offset)).or(self.expected);
        self.expected = start.map(|start| start.saturating_add(micros(duration)));
        let listed = playlist.segments.iter().take_while(|other| other.msn <= segment.msn);
        if let Some(map) = listed.filter_map(|other| other.map.as_ref()).last() {
            self.map = Some(map.clone());
        }
        self.place = if part {
            (self.place.0, self.place.1.saturating_add(1))
        } else {
            (self.place.0.saturating_add(1), 0)
        };
        let (resource, map) = (resource.clone(), self.map.clone());
        Some(Item { resource, part, map, start, duration, gap })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n\
        #EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,CAN-SKIP-UNTIL=12,PART-HOLD-BACK=1.5\n\
        #EXT-X-PART-INF:PART-TARGET=0.5\n";

    /// Segment 1 whole, 2 in four parts (the first independent), 3 in `parts` parts; a
    /// hint for the next. Segment n begins n * 2 s after 1970.
    fn live(parts: u64) -> MediaPlaylist {
        let mut text = format!("{HEAD}#EXT-X-MEDIA-SEQUENCE:1\n#EXT-X-MAP:URI=\"i\"\n");
        text += "#EXT-X-PROGRAM-DATE-TIME:1970-01-01T00:00:02Z\n#EXTINF:2,\ns1\n";
        for number in 8..12 + parts {
            let mark = if number % 4 == 0 { ",INDEPENDENT=YES" } else { "" };
            text += &format!("#EXT-X-PART:DURATION=0.5,URI=\"p{number}\"{mark}\n");
            if number == 11 {
                text += "#EXTINF:2,\ns2\n";
            }
        }
        text += &format!("#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"p{}\"\n", 12 + parts);
        MediaPlaylist::read(&text).unwrap()
    }

    fn delta(first: u64, tail: &str) -> MediaPlaylist {
        let text = format!("{HEAD}#EXT-X-SKIP:SKIPPED-SEGMENTS={first}\n{tail}");
        MediaPlaylist::read(&text).unwrap()
    }

    fn uris(cursor: &mut Cursor, playlist: &MediaPlaylist) -> Vec<String> {
        let next = || match cursor.next(playlist) {
            Next::Item(item) => Some(item.resource.uri),
            Next::Nothing => None,
        };
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn a_client_starts_three_parts_back_from_a_keyframe() {
        let start = Start::at_edge(&live(2)).unwrap();
        assert_eq!((start.place, start.utc), ((2, 0), Some(5_500_000)));
        assert_eq!(start.lead, Duration::from_millis(1500));
        let mut cursor = Cursor::at(start.place);
        assert_eq!(uris(&mut cursor, &live(2)), ["p8", "p9", "p10", "p11", "p12", "p13"]);
        assert_eq!(uris(&mut cursor, &live(3)), ["p14"]);
    }

    #[test]
    fn sound_starts_where_the_picture_does() {
        let start = Start::at_utc(&live(2), 5_600_000).unwrap();
        assert_eq!((start.place, start.lead), ((2, 3), Duration::from_millis(100)));
        assert_eq!(Start::at_utc(&live(2), 60_000_000).unwrap().place, (3, 2));
        assert_eq!(Start::at_utc(&live(2), 0).unwrap().place, (1, 0));
    }

    #[test]
    fn items_carry_their_init_segment_and_their_time() {
        let mut cursor = Cursor::at((1, 0));
        let Next::Item(first) = cursor.next(&live(1)) else { panic!("a segment") };
        assert_eq!((first.part, first.start), (false, Some(2_000_000)));
        assert_eq!(first.map.unwrap().uri, "i");
        // A delta update says neither again.
        let tail = "#EXTINF:2,\ns2\n#EXTINF:2,\ns3\n";
        let Next::Item(second) = cursor.next(&delta(2, tail)) else { panic!("a segment") };
        assert_eq!((second.resource.uri.as_str(), second.start), ("s2", Some(4_000_000)));
        assert_eq!(second.map.unwrap().uri, "i");
    }

    #[test]
    fn media_that_left_the_playlist_is_counted_and_skipped() {
        let mut cursor = Cursor::at((0, 2));
        assert_eq!(uris(&mut cursor, &live(0)).first().unwrap(), "s1");
        assert_eq!(cursor.overruns, 1);
        let mut inside = Cursor::at((1, 3));
        assert_eq!(uris(&mut inside, &live(0)).first().unwrap(), "p8");
        assert_eq!(inside.overruns, 1);
    }

    #[test]
    fn playlists_that_continue_each_other_have_no_fault() {
        let mut ledger = Ledger::default();
        assert_eq!(ledger.check(&live(0), None), Checked::default());
        let ask = Ask::after(&live(0));
        assert_eq!(ask.query(), "_HLS_msn=3&_HLS_part=0&_HLS_skip=YES");
        assert_eq!(ledger.check(&live(1), Some(ask)), Checked::default());
        assert_eq!(Ask::after(&live(1)).query(), "_HLS_msn=3&_HLS_part=1&_HLS_skip=YES");
    }

    #[test]
    fn each_broken_rule_has_a_name() {
        let mut ledger = Ledger::default();
        ledger.check(&live(2), None);
        let early = ledger.check(&live(2), Some(Ask::after(&live(2))));
        assert_eq!(early.faults, ["answered before what was asked for"]);
        assert_eq!(ledger.check(&live(1), None).faults, ["live edge went back"]);
        let far = ledger.check(&delta(9, "#EXTINF:2,\ns9\n"), None);
        assert!(far.faults.contains(&"media sequence numbers are missing"), "{far:?}");
        let back = ledger.check(&live(4), None);
        assert!(back.faults.contains(&"live edge went back"), "{back:?}");
    }

    #[test]
    fn a_hint_must_come_true() {
        let mut ledger = Ledger::default();
        let mut wrong = live(1);
        wrong.hint.as_mut().unwrap().uri = "other".to_owned();
        ledger.check(&wrong, None);
        assert!(ledger.check(&live(2), None).hint_missed);
        assert!(!ledger.check(&live(3), None).hint_missed);
    }
}
