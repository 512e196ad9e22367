//! Cutting and playlists, over every version that a table went through.

use std::collections::BTreeMap;

use super::fixture::{AUDIO, Feed, START, VIDEO, audio_source, h264, video_source};
use super::rig::{Rig, TARGETS};
use crate::codec::Codec;
use crate::egress::hls::playlist::HAIR;
use crate::egress::hls::store::Resource;

/// A table with sound that ran for `seconds`.
fn table(seconds: u64) -> Rig {
    let mut rig = Rig::new(&[video_source(Codec::H264), audio_source()]);
    for (layer, frame) in Feed::new().between(0, seconds * 1000) {
        rig.push(layer, &frame);
    }
    rig
}

/// Video whose source sends keyframes only when asked, `delay` frames later.
fn on_demand(frames: u64, delay: u64) -> Rig {
    let mut rig = Rig::new(&[video_source(Codec::H264)]);
    let (feed, mut due) = (Feed::new(), Some(0));
    for n in 0..frames {
        let mut frame = feed.video(n);
        let key = due.is_some_and(|at| n >= at);
        let unit = if key { 0 } else { 1 };
        (frame.data, frame.keyframe) = h264()[unit].clone();
        if key {
            due = None;
        }
        rig.push(VIDEO, &frame);
        if !rig.keyframes_asked.is_empty() {
            rig.keyframes_asked.clear();
            due = due.or(Some(n + delay));
        }
    }
    rig
}

#[test]
fn p1_no_part_is_longer_than_part_target() {
    let mut rig = Rig::new(&[video_source(Codec::H264)]);
    let feed = Feed::new();
    // Capture times that wander by up to 20 ms, as a browser's do.
    for n in 0..600 {
        let mut frame = feed.video(n);
        frame.dts += n * 7919 % 1800;
        frame.pts = frame.dts;
        rig.push(VIDEO, &frame);
    }
    for playlist in &rig.playlists[0] {
        for part in playlist.parts() {
            assert!(part.duration <= playlist.part_target, "{part:?}");
        }
    }
}

#[test]
fn p2_parts_fill_most_of_part_target() {
    let rig = table(20);
    for playlist in rig.playlists.iter().flatten() {
        for segment in playlist.complete().filter(|segment| !segment.parts.is_empty()) {
            let (_, inner) = segment.parts.split_last().unwrap();
            for part in inner.iter().filter(|part| !part.independent) {
                assert!(part.duration >= 0.85 * playlist.part_target, "{part:?}");
            }
        }
    }
}

#[test]
fn p3_p4_hold_backs_and_skip_boundary() {
    for playlist in table(10).playlists.iter().flatten() {
        assert_eq!(playlist.control["CAN-BLOCK-RELOAD"], "YES");
        assert!(playlist.control("PART-HOLD-BACK") >= 3.0 * playlist.part_target);
        assert!(playlist.control("HOLD-BACK") >= 3.0 * playlist.target as f64);
        assert!(playlist.control("CAN-SKIP-UNTIL") >= 6.0 * playlist.target as f64);
    }
}

#[test]
fn p5_target_duration_is_constant_and_kept() {
    for rig in [table(40), on_demand(900, 3), on_demand(900, 40)] {
        let first = rig.playlists[0][0].clone();
        for playlist in rig.playlists.iter().flatten() {
            assert_eq!(playlist.target, first.target);
            assert_eq!(playlist.control_line, first.control_line);
            for segment in playlist.complete() {
                assert!(segment.duration.unwrap().round() as u64 <= playlist.target);
            }
        }
    }
}

#[test]
fn p6_sequences_never_decrease_and_segments_keep_their_numbers() {
    let mut rig = table(80);
    rig.finish();
    for versions in &rig.playlists {
        let mut uris = BTreeMap::new();
        for pair in versions.windows(2) {
            assert!(pair[0].msn <= pair[1].msn);
            assert!(pair[0].discontinuity_sequence <= pair[1].discontinuity_sequence);
        }
        for segment in versions.iter().flat_map(|p| p.complete()) {
            assert_eq!(uris.entry(segment.msn).or_insert(segment.uri.clone()), &segment.uri);
        }
        assert!(versions.last().unwrap().msn > 0, "the window moved");
    }
}

#[test]
fn p7_an_old_stream_lists_enough() {
    let rig = table(80);
    for versions in &rig.playlists {
        let newest = versions.last().unwrap();
        let listed: f64 = newest.complete().filter_map(|segment| segment.duration).sum();
        assert!(newest.complete().count() >= 6);
        assert!((28.0..=36.0).contains(&listed), "{listed}");
    }
}

#[test]
fn p8_old_parts_are_unlisted_but_fetchable() {
    let rig = table(80);
    let newest = rig.newest(0);
    let mut after = 0.0;
    for segment in newest.segments.iter().rev() {
        assert_eq!(segment.parts.is_empty(), after >= 3.0 * newest.target as f64, "{segment:?}");
        after += segment.duration.unwrap_or_else(|| segment.parts.iter().map(|p| p.duration).sum());
    }
    let view = rig.view(0);
    let listed: u64 = newest.parts().map(|part| number(&part.uri)).min().unwrap();
    for number in listed.saturating_sub(12)..listed {
        assert!(matches!(view.part(number), Resource::Piece(_)), "part {number}");
    }
}

fn number(uri: &str) -> u64 {
    uri.trim_start_matches("t-p").trim_end_matches(".m4s").parse().unwrap()
}

#[test]
fn p9_a_part_comes_with_each_part_target() {
    let mut rig = Rig::new(&[video_source(Codec::H264)]);
    let feed = Feed::new();
    let mut last = 0;
    for n in 0..300 {
        let before = rig.playlists[0].len();
        rig.push(VIDEO, &feed.video(n));
        if rig.playlists[0].len() > before {
            // 15 frames and the one that completes the last of them.
            assert!(n - last <= 16, "frame {n}, last {last}");
            last = n;
        }
    }
    assert!(last >= 284);
}

#[test]
fn p10_independent_only_on_random_access_point() {
    let rig = on_demand(600, 40);
    for part in rig.newest(0).parts() {
        let Resource::Piece(data) = rig.view(0).part(number(&part.uri)) else { panic!("{part:?}") };
        assert_eq!(part.independent, first_sample_is_sync(&data), "{part:?}");
    }
}

/// The first sample's flags in the only `trun` of a fragment.
fn first_sample_is_sync(fragment: &[u8]) -> bool {
    let at = fragment.windows(4).position(|w| w == b"trun").unwrap();
    // Type, version and flags, sample count, data offset; then duration, size, flags.
    let flags = u32::from_be_bytes(fragment[at + 24..at + 28].try_into().unwrap());
    flags & 0x0001_0000 == 0
}

#[test]
fn p11_segments_start_on_keyframes_that_were_asked_for() {
    let rig = on_demand(900, 4);
    let newest = rig.newest(0);
    assert!(newest.complete().count() >= 13);
    assert!(rig.playlists[0].iter().any(|p| p.msn == 0 && p.segments[0].duration < Some(0.7)));
    for segment in newest.segments.iter().filter(|segment| !segment.parts.is_empty()) {
        assert!(segment.parts[0].independent, "{segment:?}");
    }
    for segment in newest.complete().filter(|segment| segment.msn > 0) {
        assert!((1.7..=2.0).contains(&segment.duration.unwrap()), "{segment:?}");
    }
}

#[test]
fn p11_a_late_keyframe_ends_the_segment_at_the_limit_and_then_realigns() {
    // A keyframe comes 1.33 s after it was asked for: past the limit.
    let rig = on_demand(600, 40);
    let lengths: Vec<f64> = rig.newest(0).complete().filter_map(|s| s.duration).collect();
    assert!(lengths.iter().all(|length| *length < 2.5), "{lengths:?}");
    assert!(lengths.iter().any(|length| *length > 2.3), "{lengths:?}");
    // Right after the late one a short segment leads to the keyframe.
    assert!(lengths.iter().any(|length| *length < 1.0), "{lengths:?}");
}

#[test]
fn p12_dates_are_on_every_segment_and_agree_with_the_media() {
    let rig = table(20);
    for versions in &rig.playlists {
        let newest = versions.last().unwrap();
        let mut expected = START.micros();
        for segment in &newest.segments {
            let date = segment.date.as_deref().unwrap();
            let at = crate::time::Utc::from_micros(expected).rfc3339_millis();
            assert_eq!(date, at);
            expected += (segment.duration.unwrap_or(0.0) * 1e6).round() as i64;
        }
        assert!(newest.segments[0].map.is_some());
    }
}

#[test]
fn p13_rendition_reports_name_each_other_playlist() {
    let rig = table(10);
    for (index, versions) in rig.playlists.iter().enumerate() {
        let report = &versions.last().unwrap().reports;
        assert_eq!(report.len(), 1);
        let other = 1 - index;
        assert_eq!(report[0]["URI"], format!("\"../r{other}/index.m3u8\""));
        let newest = rig.newest(other).segments.last().unwrap().msn;
        assert!(report[0]["LAST-MSN"].parse::<u64>().unwrap().abs_diff(newest) <= 1);
        assert!(report[0].contains_key("LAST-PART"));
    }
}

#[test]
fn p14_the_hint_is_the_next_part() {
    let mut rig = on_demand(600, 4);
    rig.finish();
    let versions = &rig.playlists[0];
    for pair in versions.windows(2).filter(|pair| !pair[1].ended) {
        assert_eq!(pair[0].hints.len(), 1);
        let newest = |p: &super::parser::Playlist| p.parts().last().unwrap().uri.clone();
        if newest(&pair[0]) != newest(&pair[1]) {
            assert_eq!(pair[0].hints[0], newest(&pair[1]));
        }
    }
    assert!(versions.last().unwrap().hints.is_empty());
}

#[test]
fn p15_version_is_as_low_as_the_tags_allow() {
    let rig = table(60);
    assert_eq!(rig.newest(0).version, 6);
    let delta = super::parser::Playlist::parse(&rig.text(0, true));
    assert_eq!(delta.version, 9);
    assert!(delta.skipped > 0);
    let full = rig.newest(0);
    assert_eq!(delta.skipped as usize + delta.segments.len(), full.segments.len());
    assert_eq!(delta.segments.last().unwrap().msn, full.segments.last().unwrap().msn);
    assert_eq!(delta.segments[0].map, full.segments[0].map);
    // Too young to skip anything: an ordinary playlist.
    let young = super::parser::Playlist::parse(&table(5).text(0, true));
    assert_eq!((young.version, young.skipped), (6, 0));
}

#[test]
fn p18_a_change_of_resolution_is_a_discontinuity_everywhere() {
    let mut rig = Rig::new(&[video_source(Codec::H264), audio_source()]);
    let feed = Feed::new();
    for (layer, frame) in feed.between(0, 9_000) {
        let mut frame = (*frame).clone();
        if layer == VIDEO && frame.keyframe && frame.dts >= 777_000 + 360_000 {
            frame.data = other_level(&frame.data);
        }
        rig.push(layer, &frame);
    }
    for index in 0..2 {
        let breaks: Vec<_> = rig
            .newest(index)
            .segments
            .iter()
            .filter(|segment| segment.discontinuities > 0)
            .collect();
        assert_eq!(breaks.len(), 1);
        assert_eq!(breaks[0].msn, 2);
        assert_eq!(breaks[0].map.is_some(), index == 0);
    }
}

/// The same access unit with another level in its SPS.
pub fn other_level(data: &[u8]) -> bytes::Bytes {
    let mut data = data.to_vec();
    let sps = data.windows(2).position(|w| w[0] & 0x1f == 7 && w[1] == 66).unwrap();
    data[sps + 3] = 51;
    data.into()
}

#[test]
fn p20_endlist_only_at_the_end() {
    let mut rig = table(5);
    assert!(rig.playlists.iter().flatten().all(|playlist| !playlist.ended));
    rig.finish();
    for versions in &rig.playlists {
        let last = versions.last().unwrap();
        assert!(last.ended && last.reports.is_empty());
        let total: f64 = last.complete().filter_map(|segment| segment.duration).sum();
        assert!((4.9..=5.1).contains(&total), "{total}");
    }
}

#[test]
fn h17_every_version_names_only_what_exists() {
    let mut rig = Rig::new(&[video_source(Codec::H264), audio_source()]);
    for (layer, frame) in Feed::new().between(0, 70_000) {
        let before = [rig.playlists[0].len(), rig.playlists[1].len()];
        rig.push(layer, &frame);
        for (index, versions) in before.into_iter().enumerate() {
            if rig.playlists[index].len() == versions {
                continue;
            }
            let view = rig.view(index);
            for part in rig.newest(index).parts() {
                assert!(matches!(view.part(number(&part.uri)), Resource::Piece(_)));
            }
            for segment in rig.newest(index).complete() {
                assert!(matches!(view.segment(segment.msn), Resource::Segment(_)));
            }
        }
    }
}

#[test]
fn audio_and_video_segments_have_the_same_numbers_at_the_same_time() {
    let rig = table(30);
    let [video, audio] = [0, 1].map(|index| rig.newest(index));
    for (video, audio) in video.complete().zip(audio.complete()) {
        assert_eq!(video.msn, audio.msn);
        assert!((video.duration.unwrap() - audio.duration.unwrap()).abs() < 0.05);
    }
}

#[test]
fn an_audio_only_table_has_segments_of_whole_frames() {
    let mut rig = Rig::new(&[audio_source()]);
    for n in 0..600 {
        rig.push(AUDIO, &Feed::new().audio(n));
    }
    for segment in rig.newest(0).complete() {
        let length = if segment.msn == 0 { 0.5 } else { 2.0 };
        assert!((segment.duration.unwrap() - length).abs() < 1e-9);
        assert!(segment.parts.iter().all(|part| (part.duration - 0.5).abs() < 2.0 * HAIR));
    }
}

#[test]
fn loss_waits_for_a_keyframe_and_asks_for_it() {
    let mut rig = Rig::new(&[video_source(Codec::H264)]);
    let feed = Feed::new();
    // Into the second segment, whose boundary is still far.
    for n in 0..90 {
        rig.push(VIDEO, &feed.video(n));
    }
    rig.keyframes_asked.clear();
    let mut frame = feed.video(91);
    frame.discontinuity = true;
    rig.push(VIDEO, &frame);
    rig.push(VIDEO, &feed.video(92));
    assert_eq!(rig.keyframes_asked, [VIDEO]);
    assert_eq!(rig.segmenter.counts().dropped, 2);
}

#[test]
fn p17_frames_that_resume_after_a_hole_find_it_filled_with_gaps() {
    // No timer fired in the five seconds.
    let mut rig = Rig::new(&[video_source(Codec::H264), audio_source()]);
    let feed = Feed::new();
    for (layer, frame) in feed.between(0, 3_000).into_iter().chain(feed.between(8_000, 14_000)) {
        rig.push(layer, &frame);
    }
    for index in 0..2 {
        let newest = rig.newest(index);
        assert!(newest.segments.iter().all(|segment| segment.discontinuities == 0));
        let dates: Vec<_> = newest.segments.iter().filter_map(|s| s.date.clone()).collect();
        assert!(dates.is_sorted());
        let gaps = newest.segments.iter().filter(|segment| segment.gap);
        let missing: f64 = gaps.map(|gap| gap.duration.unwrap()).sum();
        // Five seconds, to a part.
        assert!((4.5..=5.5).contains(&missing), "{missing}");
        let after = newest.segments.iter().skip_while(|s| !s.gap).find(|s| !s.gap).unwrap();
        assert_eq!(after.date.as_deref(), Some("2023-11-14T22:13:28.000Z"));
        assert!(after.parts.is_empty() || after.parts[0].independent);
    }
}

/// Video whose source sends a frame each `step` frames and keyframes when asked.
pub fn slow(frames: u64, step: u64) -> Rig {
    let mut rig = Rig::new(&[video_source(Codec::H264), audio_source()]);
    let (feed, mut key) = (Feed::new(), true);
    for (layer, frame) in feed.between(0, frames * 1000 / 30) {
        let mut frame = (*frame).clone();
        if layer == VIDEO {
            if (frame.dts - 777_000) % (step * 3000) != 0 {
                continue;
            }
            (frame.data, frame.keyframe) = h264()[usize::from(!key)].clone();
            key = false;
        }
        rig.push(layer, &frame);
        key |= !std::mem::take(&mut rig.keyframes_asked).is_empty();
    }
    rig
}

#[test]
fn a_shared_screen_of_one_frame_a_second_is_one_timeline() {
    for step in [18, 30, 60] {
        let rig = slow(900, step);
        let newest = rig.newest(0);
        assert_eq!(rig.segmenter.counts().dropped, 0);
        for versions in &rig.playlists {
            for playlist in versions {
                assert!(playlist.parts().all(|part| part.duration <= playlist.part_target));
                for segment in playlist.complete() {
                    assert_eq!(segment.discontinuities, 0);
                    assert!(segment.duration.unwrap().round() as u64 <= playlist.target);
                }
            }
        }
        // No time is lost: the lengths lead from date to date.
        let mut expected = START.micros();
        for segment in &newest.segments {
            let at = crate::time::Utc::from_micros(expected).rfc3339_millis();
            assert_eq!(segment.date.as_deref(), Some(at.as_str()));
            expected += (segment.duration.unwrap_or(0.0) * 1e6).round() as i64;
        }
        // Nothing is missing: the picture stands, in parts that come in time.
        assert_eq!(rig.segmenter.counts().gaps, 0);
        for segment in newest.complete().filter(|segment| !segment.parts.is_empty()) {
            let parts: f64 = segment.parts.iter().map(|part| part.duration).sum();
            assert!((parts - segment.length()).abs() < 1e-4, "{segment:?}");
        }
        let independent =
            newest.complete().filter(|s| s.parts.first().is_some_and(|part| part.independent));
        assert!(independent.count() >= 1, "a player finds a keyframe near the end");
        let [video, audio] = [0, 1].map(|index| rig.newest(index).segments.last().unwrap().msn);
        assert!(video.abs_diff(audio) <= 1, "{video} {audio}");
    }
}

#[test]
fn renditions_count_the_same_breaks_when_one_has_no_segment_between_two() {
    let mut rig = Rig::new(&[video_source(Codec::H264), audio_source()]);
    for (layer, frame) in Feed::new().between(0, 12_000) {
        let mut frame = (*frame).clone();
        let millis = frame.capture.micros_since(START) / 1000;
        if layer == AUDIO && (1_500..7_000).contains(&millis) {
            continue;
        }
        // Another picture from 4 s to 6 s: two breaks, both where there is no sound.
        if layer == VIDEO && frame.keyframe && (4_000..5_900).contains(&millis) {
            frame.data = other_level(&frame.data);
        }
        rig.push(layer, &frame);
    }
    let breaks = |index: usize| -> u64 {
        let newest = rig.newest(index);
        let listed: u64 = newest.segments.iter().map(|segment| segment.discontinuities).sum();
        newest.discontinuity_sequence + listed
    };
    assert_eq!((breaks(0), breaks(1)), (2, 2));
}

#[test]
fn a_hole_in_the_sound_is_silence() {
    let mut rig = Rig::new(&[video_source(Codec::H264), audio_source()]);
    for (layer, frame) in Feed::new().between(0, 8_000) {
        let micros = frame.capture.micros_since(START);
        if layer == VIDEO || !(3_000_000..5_000_000).contains(&micros) {
            rig.push(layer, &frame);
        }
    }
    let newest = rig.newest(1);
    assert!(newest.segments.iter().all(|segment| segment.discontinuities == 0));
    let listed: f64 = newest.complete().filter_map(|segment| segment.duration).sum();
    assert!((5.9..=6.1).contains(&listed), "{listed}");
}

#[test]
fn capture_clocks_that_do_not_agree_are_anchored_by_arrival() {
    let mut rig = Rig::new(&[video_source(Codec::H264), audio_source()]);
    for (layer, frame) in Feed::new().between(0, 8_000) {
        let mut frame = (*frame).clone();
        if layer == AUDIO {
            frame.capture = frame.capture.offset_micros(i64::MAX / 2);
        }
        rig.push(layer, &frame);
    }
    let [video, audio] = [0, 1].map(|index| rig.newest(index));
    assert!(audio.segments.iter().all(|segment| segment.discontinuities == 0));
    assert_eq!(audio.segments[0].date, video.segments[0].date);
    assert_eq!(audio.complete().count(), video.complete().count());
}

#[test]
fn a_capture_clock_that_is_set_anchors_anew_once() {
    let mut rig = Rig::new(&[video_source(Codec::H264), audio_source()]);
    for (layer, frame) in Feed::new().between(0, 12_000) {
        let mut frame = (*frame).clone();
        if frame.capture.micros_since(START) > 4_000_000 {
            frame.capture = frame.capture.offset_micros(-3_600_000_000);
        }
        rig.push(layer, &frame);
    }
    for index in 0..2 {
        let newest = rig.newest(index);
        let breaks: Vec<_> = newest.segments.iter().filter(|s| s.discontinuities > 0).collect();
        assert_eq!(breaks.len(), 1);
        assert!(breaks[0].date.as_deref().unwrap().starts_with("2023-11-14T21:13:"));
    }
}

#[test]
fn memory_is_bounded_by_the_byte_limit() {
    use crate::egress::hls::store::{Store, StoreLimits};
    let rig = table(4);
    let segment = &rig.view(0).listed()[0].clone();
    let limits =
        StoreLimits { window: u64::MAX, grace: u64::MAX, floor: 0, max_bytes: 5 * segment.len() };
    let mut store = Store::new(limits, 90_000.try_into().unwrap());
    for _ in 0..100 {
        store.start_segment(crate::egress::hls::segmenter::SegmentStart {
            number: 0,
            sequence: 0,
            program_date_time: START,
            discontinuities: 1,
            init: segment.init.clone(),
            gap: false,
        });
        for part in &segment.parts {
            store.add_part(part.media.clone());
        }
        store.end_segment();
    }
    let view = store.view();
    let bytes: usize = view.listed().iter().map(|segment| segment.len()).sum();
    assert!(bytes <= limits.max_bytes && view.listed().len() == 5);
    assert_eq!(view.discontinuities, 95);
    assert_eq!(view.media_sequence(), 95);
    assert_eq!(TARGETS.durations(3).as_secs(), 6);
}

#[test]
fn p12_segments_begin_at_whole_milliseconds_and_are_never_announced_longer_than_they_are() {
    // 30 frames a second: a frame is 33.3 ms.
    let rig = table(20);
    for index in 0..rig.stores.len() {
        let view = rig.view(index);
        let scale = u64::from(view.timescale.get());
        for segment in view.listed_complete() {
            let micros = segment.program_date_time.micros_since(crate::time::Utc::default());
            assert_eq!(micros % 1_000, 0, "{segment:?}");
            assert_eq!(segment.duration * 1_000 % scale, 0, "{segment:?}");
        }
        let announced = rig.newest(index).complete().map(|segment| segment.duration.unwrap());
        for (announced, segment) in announced.zip(view.listed_complete()) {
            // The reader has taken the hair off by which it is announced shorter.
            assert_eq!(segment.duration as f64 / scale as f64, announced);
        }
    }
}

#[test]
fn p12_later_parts_never_seem_to_begin_before_their_media() {
    let rig = table(20);
    for index in 0..rig.stores.len() {
        let (view, playlist) = (rig.view(index), rig.newest(index));
        let scale = f64::from(view.timescale.get());
        let mut compared = 0;
        for (announced, segment) in playlist.complete().zip(view.listed_complete()) {
            let (mut seems, mut is) = (0.0, 0);
            for (part, kept) in announced.parts.iter().zip(&segment.parts) {
                seems += part.duration;
                is += kept.media.duration;
                let early = is as f64 / scale - seems;
                assert!((-1.5 * HAIR..-0.5 * HAIR).contains(&early), "{early} of {segment:?}");
                compared += 1;
            }
        }
        assert!(compared > 8, "{compared} parts");
    }
}
