//! Blocking playlist reload: answer now, later or not at all.
//!
//! A pure decision over the directives of a request and how far a rendition is.
//! Source: rfc8216bis §6.2.5.2.

use std::time::Duration;

/// The delivery directives of a playlist request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Directives {
    /// `_HLS_msn`: the media sequence number to wait for.
    pub msn: Option<u64>,
    /// `_HLS_part`: the part of it to wait for.
    pub part: Option<u64>,
    /// `_HLS_skip`: a delta update will do.
    pub skip: Option<Skip>,
}

/// What a delta update may leave out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Skip {
    /// `YES`: old segments.
    Segments,
    /// `v2`: old date ranges, too.
    DateRanges,
}

/// The directives do not make sense; the text is for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadDirectives {
    /// A directive is not a decimal integer.
    #[error("_HLS_msn and _HLS_part are decimal integers")]
    NotANumber,
    /// `_HLS_part` stands alone.
    #[error("_HLS_part needs _HLS_msn")]
    PartWithoutMsn,
    /// `_HLS_skip` is neither `YES` nor `v2`.
    #[error("_HLS_skip is YES or v2")]
    UnknownSkip,
    /// Further ahead than anyone may ask.
    #[error("the requested segment or part is too far in the future")]
    TooFarAhead,
}

impl Directives {
    /// Reads the query of a playlist request. Other parameters are none of our business.
    ///
    /// # Errors
    /// [`BadDirectives`] when a directive is malformed.
    pub fn parse(query: &str) -> Result<Self, BadDirectives> {
        let mut directives = Self::default();
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match name {
                "_HLS_msn" => directives.msn = Some(integer(value)?),
                "_HLS_part" => directives.part = Some(integer(value)?),
                "_HLS_skip" => {
                    directives.skip = Some(match value {
                        "YES" => Skip::Segments,
                        "v2" => Skip::DateRanges,
                        _ => return Err(BadDirectives::UnknownSkip),
                    });
                }
                _ => {}
            }
        }
        if directives.part.is_some() && directives.msn.is_none() {
            return Err(BadDirectives::PartWithoutMsn);
        }
        Ok(directives)
    }
}

/// Digits only: `u64::from_str` would also take a sign.
fn integer(value: &str) -> Result<u64, BadDirectives> {
    if !value.bytes().all(|b| b.is_ascii_digit()) {
        return Err(BadDirectives::NotANumber);
    }
    value.parse().map_err(|_| BadDirectives::NotANumber)
}

/// How far a rendition is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// The first segment that has, or will have, media.
    pub first_msn: u64,
    /// The first segment that is not complete: in progress, or the next to begin.
    pub open_msn: u64,
    /// Parts of it so far.
    pub open_parts: u64,
    /// Parts of the segment before it.
    pub last_parts: u64,
    /// Nothing will be added.
    pub ended: bool,
}

impl Progress {
    /// There is a complete segment. Before it, hls.js takes a playlist for empty
    /// and gives up after two more tries.
    pub const fn has_segment(&self) -> bool {
        self.open_msn > self.first_msn
    }
}

/// What to do with a playlist request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Answer with the current playlist.
    Answer,
    /// Ask again after the next part.
    Wait,
    /// Refuse with 400.
    Refuse,
}

/// Decides on a request whose directives were parsed.
pub fn decide(directives: Directives, at: Progress, part_target: Duration) -> Decision {
    let Some(msn) = directives.msn else {
        return if at.has_segment() || at.ended { Decision::Answer } else { Decision::Wait };
    };
    if at.ended {
        return Decision::Answer;
    }
    // "plus two" counts from the last complete segment.
    if msn > at.open_msn.saturating_add(1) {
        return Decision::Refuse;
    }
    // A number from before the first segment is an older table's, whose player may not be
    // given a playlist without a segment either.
    if !at.has_segment() && msn < at.open_msn {
        return Decision::Wait;
    }
    let Some(part) = directives.part else {
        return if msn < at.open_msn { Decision::Answer } else { Decision::Wait };
    };
    // A part that a finished segment does not have is the first of the next one.
    let beyond_last = msn + 1 == at.open_msn && part >= at.last_parts;
    let (msn, part) = if beyond_last { (at.open_msn, 0) } else { (msn, part) };
    if msn < at.open_msn {
        return Decision::Answer;
    }
    let present = if msn == at.open_msn { at.open_parts } else { 0 };
    if part < present {
        Decision::Answer
    } else if part >= present.saturating_add(advance_part_limit(part_target)) {
        Decision::Refuse
    } else {
        Decision::Wait
    }
}

/// How many parts past the last one a request may name: three seconds' worth,
/// and three parts when they are longer than a second.
fn advance_part_limit(part_target: Duration) -> u64 {
    if part_target < Duration::from_secs(1) {
        let micros = part_target.as_micros().max(1) as u64;
        3_000_000_u64.div_ceil(micros)
    } else {
        3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HALF: Duration = Duration::from_millis(500);
    /// Segment 10 is complete with 4 parts, 11 has 2 parts.
    const AT: Progress =
        Progress { first_msn: 0, open_msn: 11, open_parts: 2, last_parts: 4, ended: false };

    fn ask(query: &str, at: Progress) -> Decision {
        decide(Directives::parse(query).unwrap(), at, HALF)
    }

    #[test]
    fn h1_msn_waits_for_the_whole_segment() {
        assert_eq!(ask("_HLS_msn=10", AT), Decision::Answer);
        assert_eq!(ask("_HLS_msn=11", AT), Decision::Wait);
        assert_eq!(ask("_HLS_msn=12", AT), Decision::Wait);
    }

    #[test]
    fn h2_part_waits_for_that_part() {
        assert_eq!(ask("_HLS_msn=11&_HLS_part=1", AT), Decision::Answer);
        assert_eq!(ask("_HLS_msn=11&_HLS_part=2", AT), Decision::Wait);
        assert_eq!(ask("_HLS_msn=12&_HLS_part=0", AT), Decision::Wait);
    }

    #[test]
    fn h3_part_past_a_finished_segment_is_the_first_of_the_next() {
        assert_eq!(ask("_HLS_msn=10&_HLS_part=4", AT), Decision::Answer);
        let between = Progress { open_parts: 0, ..AT };
        assert_eq!(ask("_HLS_msn=10&_HLS_part=4", between), Decision::Wait);
        assert_eq!(ask("_HLS_msn=10&_HLS_part=3", between), Decision::Answer);
    }

    #[test]
    fn h4_evicted_msn_is_answered_at_once() {
        assert_eq!(ask("_HLS_msn=0", AT), Decision::Answer);
        assert_eq!(ask("_HLS_msn=0&_HLS_part=99", AT), Decision::Answer);
    }

    #[test]
    fn h5_malformed_directives_are_refused() {
        for query in ["_HLS_msn=", "_HLS_msn=x", "_HLS_msn=-1", "_HLS_msn=+1", "_HLS_msn=1.5"] {
            assert_eq!(Directives::parse(query), Err(BadDirectives::NotANumber), "{query}");
        }
        assert_eq!(Directives::parse("_HLS_part=1"), Err(BadDirectives::PartWithoutMsn));
        assert_eq!(Directives::parse("_HLS_skip=no"), Err(BadDirectives::UnknownSkip));
        assert!(Directives::parse("_HLS_msn=99999999999999999999999").is_err());
        assert_eq!(Directives::parse("token=a&x"), Ok(Directives::default()));
    }

    #[test]
    fn h6_too_far_ahead_is_refused() {
        assert_eq!(ask("_HLS_msn=13", AT), Decision::Refuse);
        assert_eq!(ask("_HLS_msn=18446744073709551615", AT), Decision::Refuse);
        // Three seconds of half-second parts: parts 2 to 7 may be waited for.
        assert_eq!(ask("_HLS_msn=11&_HLS_part=7", AT), Decision::Wait);
        assert_eq!(ask("_HLS_msn=11&_HLS_part=8", AT), Decision::Refuse);
        assert_eq!(ask("_HLS_msn=12&_HLS_part=6", AT), Decision::Refuse);
        assert_eq!(advance_part_limit(Duration::from_millis(1500)), 3);
    }

    #[test]
    fn h8_an_ended_stream_answers_everything() {
        let ended = Progress { ended: true, ..AT };
        for query in ["", "_HLS_msn=11", "_HLS_msn=99", "_HLS_msn=11&_HLS_part=99"] {
            assert_eq!(ask(query, ended), Decision::Answer);
        }
    }

    #[test]
    fn a_stream_without_media_waits() {
        let fresh = Progress::default();
        assert_eq!(ask("", fresh), Decision::Wait);
        assert_eq!(ask("", Progress { open_parts: 1, ..fresh }), Decision::Wait);
        assert_eq!(ask("", Progress { open_msn: 1, ..fresh }), Decision::Answer);
        assert_eq!(ask("_HLS_msn=0&_HLS_part=0", fresh), Decision::Wait);
        assert_eq!(ask("_HLS_msn=2", fresh), Decision::Refuse);
        let later = Progress { first_msn: 70, open_msn: 70, ..fresh };
        assert_eq!(ask("", later), Decision::Wait, "numbers need not begin at 0");
        assert_eq!(ask("", Progress { open_msn: 71, ..later }), Decision::Answer);
        // A player of the table before this one goes on with its numbers.
        for query in
            ["_HLS_msn=60", "_HLS_msn=69", "_HLS_msn=60&_HLS_part=1", "_HLS_msn=69&_HLS_part=9"]
        {
            assert_eq!(ask(query, later), Decision::Wait, "{query}");
            assert_eq!(ask(query, Progress { open_parts: 2, ..later }), Decision::Wait, "{query}");
            let begun = Progress { open_msn: 71, last_parts: 4, ..later };
            assert_eq!(ask(query, begun), Decision::Answer, "{query}");
        }
        assert_eq!(ask("_HLS_msn=60", Progress { ended: true, ..later }), Decision::Answer);
    }

    #[test]
    fn h9_both_kinds_of_delta_updates_are_told_apart() {
        let skip = |query| Directives::parse(query).unwrap().skip;
        assert_eq!(skip("_HLS_skip=YES"), Some(Skip::Segments));
        assert_eq!(skip("_HLS_skip=v2"), Some(Skip::DateRanges));
        assert_eq!(skip("_HLS_msn=1"), None);
    }
}
