//! Somebody else's reader of playlists, to agree with ours: the crate `quick-m3u8`, the
//! only one in Rust that knows the tags of low latency.

use crate::egress::hls::playlist::HAIR;
use quick_m3u8::config::ParsingOptionsBuilder;
use quick_m3u8::tag::KnownTag;
use quick_m3u8::tag::hls::Tag;
use quick_m3u8::{HlsLine, Reader};

use super::parser::{Multivariant, Playlist};

fn tags(text: &str) -> (Vec<Tag<'_>>, Vec<String>) {
    let options = ParsingOptionsBuilder::new().with_parsing_for_all_tags().build();
    let mut reader = Reader::from_str(text, options);
    let (mut tags, mut uris) = (Vec::new(), Vec::new());
    while let Some(line) = reader.read_line().expect("it can be read") {
        match line {
            HlsLine::KnownTag(KnownTag::Hls(tag)) => tags.push(tag),
            HlsLine::Uri(uri) => uris.push(uri.into_owned()),
            other => panic!("unexpected {other:?}"),
        }
    }
    (tags, uris)
}

/// Both readers find the same in a media playlist.
pub fn agrees_on_media(text: &str) -> Playlist {
    let ours = Playlist::parse(text);
    let (tags, uris) = tags(text);
    let expected: Vec<_> = ours.complete().map(|segment| segment.uri.clone()).collect();
    assert_eq!(uris, expected);
    let (mut parts, mut lengths, mut gaps, mut dates, mut ranges) = (vec![], vec![], 0, vec![], 0);
    for tag in &tags {
        match tag {
            Tag::Version(tag) => assert_eq!(tag.version(), u64::from(ours.version)),
            Tag::Targetduration(tag) => assert_eq!(tag.target_duration(), ours.target),
            Tag::MediaSequence(tag) => assert_eq!(tag.media_sequence(), ours.msn),
            Tag::DiscontinuitySequence(tag) => {
                assert_eq!(tag.discontinuity_sequence(), ours.discontinuity_sequence);
            }
            Tag::PartInf(tag) => assert_eq!(tag.part_target(), ours.part_target),
            Tag::Skip(tag) => assert_eq!(tag.skipped_segments(), ours.skipped),
            Tag::Part(tag) => {
                parts.push((tag.uri().to_owned(), tag.duration(), tag.independent(), tag.gap()));
            }
            Tag::Inf(tag) => lengths.push(tag.duration()),
            Tag::Gap(_) => gaps += 1,
            Tag::ProgramDateTime(tag) => dates.push(tag.program_date_time().to_string()),
            Tag::Daterange(tag) => {
                assert!(ours.ranges.contains_key(tag.id()));
                ranges += 1;
            }
            Tag::PreloadHint(tag) => assert_eq!(tag.uri(), ours.hints[0]),
            _ => {}
        }
    }
    let part =
        |part: &super::parser::Part| (part.uri.clone(), part.duration, part.independent, part.gap);
    assert_eq!(parts, ours.parts().map(part).collect::<Vec<_>>());
    let announced = lengths.iter().map(|length| ((length + HAIR) * 1e5).round() / 1e5);
    let lengths = ours.complete().filter_map(|segment| segment.duration);
    assert!(announced.eq(lengths), "{ours:?}");
    assert_eq!(gaps, ours.segments.iter().filter(|segment| segment.gap).count());
    assert_eq!(dates.len(), ours.segments.len());
    assert_eq!(ranges, ours.ranges.len());
    ours
}

/// Both readers find the same variants.
pub fn agrees_on_multivariant(text: &str) -> Multivariant {
    let ours = Multivariant::parse(text);
    let (tags, uris) = tags(text);
    assert_eq!(uris, ours.variants.iter().map(|(_, uri)| uri.clone()).collect::<Vec<_>>());
    let streams: Vec<_> = tags
        .iter()
        .filter_map(|tag| match tag {
            Tag::StreamInf(tag) => Some(tag),
            _ => None,
        })
        .collect();
    assert_eq!(streams.len(), ours.variants.len());
    for (theirs, (ours, _)) in streams.iter().zip(&ours.variants) {
        assert_eq!(theirs.bandwidth().to_string(), ours["BANDWIDTH"]);
        assert_eq!(
            theirs.codecs().map(|codecs| format!("\"{codecs}\"")),
            ours.get("CODECS").cloned()
        );
    }
    ours
}
