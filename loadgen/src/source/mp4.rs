//! MP4 files (ISO/IEC 14496-12) with H.264, H.265, VP8, VP9 or AV1, and Opus.
//!
//! `shiguredo_mp4` reads the boxes; here the samples become frames as WebRTC carries them:
//! NAL units behind start codes, parameter sets before each keyframe (ISO/IEC 14496-15
//! keeps them in the sample entry), pictures in the order in which they are shown. Every
//! number of the file is checked before it is believed.

use std::borrow::Cow;
use std::num::NonZeroU32;
use std::time::Duration;

use bytes::Bytes;
use shiguredo_mp4::TrackKind;
use shiguredo_mp4::boxes::{AvccBox, HvccBox, SampleEntry};
use shiguredo_mp4::demux::{DemuxError, Input, Mp4FileDemuxer, RequiredInput, Sample};

use super::{Clip, ClipFrame, LONGEST, Reason, Video, is_keyframe};
use crate::dealer::sound::BLOCK_MS;
use crate::dealer::video::nal_units;

/// Tracks looked at; a file with more is refused.
const TRACKS: usize = 64;
/// NAL unit types of the sequence parameter set, by which in-band parameter sets are known.
const H264_SPS: u8 = 7;
const H265_SPS: u8 = 33;

/// Reads a file; frames whose durations say nothing last 1 / `fps` s.
///
/// # Errors
/// What is wrong with it, or why WebRTC cannot carry it, in words.
pub fn read(data: &[u8], fps: u32) -> Result<Clip, Reason> {
    let mut demuxer = Mp4FileDemuxer::new();
    while let Some(required) = demuxer.required_input() {
        let position = required.position;
        demuxer.handle_input(Input { position, data: piece(data, required) });
    }
    let tracks = demuxer.tracks().map_err(malformed)?.len();
    if tracks > TRACKS {
        return Err("more than 64 tracks".into());
    }
    let mut reader = Reader::new(data, fps);
    while let Some(sample) = demuxer.next_sample().map_err(malformed)? {
        reader.take(&sample)?;
    }
    reader.finish()
}

/// The bytes that are asked for, as far as the file has them; an end that is short makes
/// the demuxer give up.
fn piece(data: &[u8], required: RequiredInput) -> &[u8] {
    let start = usize::try_from(required.position).unwrap_or(usize::MAX);
    let rest = data.get(start..).unwrap_or_default();
    rest.get(..required.size.unwrap_or(rest.len())).unwrap_or(rest)
}

fn malformed(error: DemuxError) -> Reason {
    Cow::Owned(match error {
        DemuxError::DecodeError(error) => format!("not a readable MP4 file: {}", error.reason),
        other => format!("not a readable MP4 file: {other}"),
    })
}

/// Parameter sets of a sample entry, and how samples are written.
#[derive(Default)]
struct Format {
    video: Video,
    /// Bytes of the length before each NAL unit; none in formats without NAL units.
    length_size: Option<usize>,
    /// What a keyframe begins with when it has none of its own, ready to be sent.
    parameters: Vec<u8>,
}

struct Reader<'a> {
    data: &'a [u8],
    usual: Duration,
    /// Bytes of all samples so far: more than the file has means that they overlap.
    total: usize,
    video: Option<(u32, Format)>,
    audio: Option<u32>,
    frames: Vec<ClipFrame>,
    /// When the last picture is shown, in units of its track.
    shown: Option<i64>,
    sound: Vec<Bytes>,
    left_out: Vec<String>,
}

impl<'a> Reader<'a> {
    fn new(data: &'a [u8], fps: u32) -> Self {
        Self {
            data,
            usual: Duration::from_secs(1) / fps.max(1),
            total: 0,
            video: None,
            audio: None,
            frames: Vec::new(),
            shown: None,
            sound: Vec::new(),
            left_out: Vec::new(),
        }
    }

    fn take(&mut self, sample: &Sample<'_>) -> Result<(), Reason> {
        let start = usize::try_from(sample.data_offset).ok();
        let end = start.and_then(|start| start.checked_add(sample.data_size));
        let data = start.zip(end).and_then(|(start, end)| self.data.get(start..end));
        let data = data.ok_or("a sample that lies outside the file")?;
        self.total = self.total.saturating_add(data.len().max(1));
        if self.total > self.data.len() {
            return Err("samples that overlap".into());
        }
        if let Some(entry) = sample.sample_entry {
            self.enter(sample, entry)?;
        }
        let track = sample.track.track_id;
        match &self.video {
            Some((chosen, format)) if *chosen == track => {
                let frame = frame(format, sample, data, self.usual)?;
                self.keep_order(sample)?;
                self.frames.push(frame);
            }
            _ if self.audio == Some(track) => self.sound.push(Bytes::copy_from_slice(data)),
            _ => {}
        }
        Ok(())
    }

    /// A track begins, or goes on in another format.
    fn enter(&mut self, sample: &Sample<'_>, entry: &SampleEntry) -> Result<(), Reason> {
        let track = sample.track.track_id;
        match sample.track.kind {
            TrackKind::Video => {
                let chosen = self.video.as_ref().map(|(chosen, format)| (*chosen, format.video));
                if chosen.is_some_and(|(chosen, _)| chosen != track) {
                    self.leave_out("a second video track");
                    return Ok(());
                }
                let format = format(entry)?;
                if chosen.is_some_and(|(_, before)| before != format.video) {
                    return Err("the video changes its codec".into());
                }
                self.video = Some((track, format));
            }
            TrackKind::Audio => match entry {
                SampleEntry::Opus(_) if self.audio.is_none_or(|chosen| chosen == track) => {
                    let ticks = u64::from(sample.track.timescale.get()) * BLOCK_MS as u64 / 1000;
                    match u64::from(sample.duration) == ticks {
                        true => self.audio = Some(track),
                        false => self.leave_out("Opus in frames other than of 20 ms"),
                    }
                }
                SampleEntry::Opus(_) => self.leave_out("a second audio track"),
                SampleEntry::Mp4a(_) => self.leave_out("AAC audio, which WebRTC does not carry"),
                _ => self.leave_out("audio that is not Opus"),
            },
            TrackKind::Subtitle => self.leave_out("subtitles"),
        }
        Ok(())
    }

    fn leave_out(&mut self, what: &str) {
        if !self.left_out.iter().any(|known| known == what) {
            self.left_out.push(what.to_owned());
        }
    }

    /// Refuses pictures that are not shown in the order in which they are decoded. The
    /// last one of a track has a time like any other, so that one number tells.
    fn keep_order(&mut self, sample: &Sample<'_>) -> Result<(), Reason> {
        let offset = sample.composition_time_offset.unwrap_or(0);
        let shown = i64::try_from(sample.timestamp).unwrap_or(i64::MAX).saturating_add(offset);
        if self.shown.is_some_and(|before| shown < before) {
            return Err(
                "has B-frames, which WebRTC does not carry: encode it without (-bf 0)".into()
            );
        }
        self.shown = Some(shown);
        Ok(())
    }

    fn finish(self) -> Result<Clip, Reason> {
        let Some((_, format)) = self.video else {
            return Err("no pictures in it; of a fragmented file make a plain one: \
                        ffmpeg -i IN.mp4 -c copy OUT.mp4"
                .into());
        };
        let clip = Clip::from_frames(format.video, self.frames)?;
        Ok(Clip { sound: self.sound, left_out: self.left_out, ..clip })
    }
}

/// One picture as it is sent.
fn frame(
    format: &Format,
    sample: &Sample<'_>,
    data: &[u8],
    usual: Duration,
) -> Result<ClipFrame, Reason> {
    let mut frame = match format.length_size {
        Some(size) => start_codes(data, size).ok_or("a sample whose NAL units do not fit it")?,
        None => data.to_vec(),
    };
    let keyframe = is_keyframe(format.video, &frame);
    if keyframe && !has_parameters(format.video, &frame) {
        frame.splice(..0, format.parameters.iter().copied());
    }
    let lasts = lasts(sample.duration, sample.track.timescale);
    let lasts = lasts.filter(|time| !time.is_zero() && *time <= LONGEST).unwrap_or(usual);
    Ok(ClipFrame { data: frame.into(), keyframe, lasts })
}

fn lasts(ticks: u32, timescale: NonZeroU32) -> Option<Duration> {
    let nanos = u64::from(ticks).checked_mul(1_000_000_000)? / u64::from(timescale.get());
    Some(Duration::from_nanos(nanos))
}

/// Puts a start code in the place of each length; `None` when they do not fit.
fn start_codes(mut data: &[u8], length_size: usize) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(data.len() + 8);
    while !data.is_empty() {
        let (length, rest) = data.split_at_checked(length_size)?;
        let length = length.iter().fold(0usize, |sum, &byte| sum << 8 | usize::from(byte));
        let (nal, rest) = rest.split_at_checked(length)?;
        append(&mut out, nal);
        data = rest;
    }
    Some(out)
}

fn append(out: &mut Vec<u8>, nal: &[u8]) {
    if !nal.is_empty() {
        out.extend([0, 0, 0, 1]);
        out.extend(nal);
    }
}

/// Whether a keyframe has its parameter sets with it.
fn has_parameters(video: Video, frame: &[u8]) -> bool {
    let any = |is: fn(u8) -> bool| nal_units(frame).filter_map(<[u8]>::first).any(|&byte| is(byte));
    match video {
        Video::H264 => any(|header| header & 0x1f == H264_SPS),
        Video::H265 => any(|header| header >> 1 & 0x3f == H265_SPS),
        // In AV1 a keyframe is known by its sequence header; the others have none.
        Video::Vp8 | Video::Vp9 | Video::Av1 => true,
    }
}

/// What a sample entry says of the samples after it.
fn format(entry: &SampleEntry) -> Result<Format, Reason> {
    let plain = |video| Ok(Format { video, ..Format::default() });
    match entry {
        SampleEntry::Avc1(entry) => Ok(h264(&entry.avcc_box)),
        SampleEntry::Hvc1(entry) => Ok(h265(&entry.hvcc_box)),
        SampleEntry::Hev1(entry) => Ok(h265(&entry.hvcc_box)),
        SampleEntry::Vp08(_) => plain(Video::Vp8),
        SampleEntry::Vp09(_) => plain(Video::Vp9),
        SampleEntry::Av01(_) => plain(Video::Av1),
        _ => Err("video that is not H.264, H.265, VP8, VP9 or AV1".into()),
    }
}

fn h264(config: &AvccBox) -> Format {
    let mut parameters = Vec::new();
    for set in config.sps_list.iter().chain(&config.pps_list) {
        append(&mut parameters, set);
    }
    let length_size = Some(usize::from(config.length_size_minus_one.get()) + 1);
    Format { video: Video::H264, length_size, parameters }
}

fn h265(config: &HvccBox) -> Format {
    let mut parameters = Vec::new();
    for set in config.nalu_arrays.iter().flat_map(|array| &array.nalus) {
        append(&mut parameters, set);
    }
    let length_size = Some(usize::from(config.length_size_minus_one.get()) + 1);
    Format { video: Video::H265, length_size, parameters }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shiguredo_mp4::Uint;
    use shiguredo_mp4::boxes::{Avc1Box, VisualSampleEntryFields};
    use shiguredo_mp4::mux::{Mp4FileMuxer, Sample as Written};

    const SPS: &[u8] = &[0x67, 0x42, 0xc0, 0x1f, 1];
    const PPS: &[u8] = &[0x68, 0xce, 2];

    fn avc() -> SampleEntry {
        let visual = VisualSampleEntryFields {
            data_reference_index: VisualSampleEntryFields::DEFAULT_DATA_REFERENCE_INDEX,
            width: 640,
            height: 360,
            horizresolution: VisualSampleEntryFields::DEFAULT_HORIZRESOLUTION,
            vertresolution: VisualSampleEntryFields::DEFAULT_VERTRESOLUTION,
            frame_count: VisualSampleEntryFields::DEFAULT_FRAME_COUNT,
            compressorname: VisualSampleEntryFields::NULL_COMPRESSORNAME,
            depth: VisualSampleEntryFields::DEFAULT_DEPTH,
        };
        let avcc_box = AvccBox {
            avc_profile_indication: 66,
            profile_compatibility: 0xc0,
            avc_level_indication: 31,
            length_size_minus_one: Uint::new(3),
            sps_list: vec![SPS.to_vec()],
            pps_list: vec![PPS.to_vec()],
            chroma_format: None,
            bit_depth_luma_minus8: None,
            bit_depth_chroma_minus8: None,
            sps_ext_list: Vec::new(),
        };
        SampleEntry::Avc1(Avc1Box { visual, avcc_box, unknown_boxes: Vec::new() })
    }

    /// A file of pictures at 25 a second: each a NAL unit, and how much later than it is
    /// decoded it is shown.
    fn file(pictures: &[(&[u8], i64)]) -> Vec<u8> {
        let mut muxer = Mp4FileMuxer::new().unwrap();
        let mut file = muxer.initial_boxes_bytes().to_vec();
        for (index, (nal, offset)) in pictures.iter().enumerate() {
            let data_offset = file.len() as u64;
            file.extend((nal.len() as u32).to_be_bytes());
            file.extend(*nal);
            let sample = Written {
                track_kind: TrackKind::Video,
                sample_entry: (index == 0).then(avc),
                keyframe: nal[0] & 0x1f == 5,
                timescale: NonZeroU32::new(25).unwrap(),
                duration: 1,
                composition_time_offset: Some(*offset),
                data_offset,
                data_size: nal.len() + 4,
            };
            muxer.append_sample(&sample).unwrap();
        }
        for (at, bytes) in muxer.finalize().unwrap().offset_and_bytes_pairs() {
            let end = at as usize + bytes.len();
            file.resize(file.len().max(end), 0);
            file[at as usize..end].copy_from_slice(bytes);
        }
        file
    }

    #[test]
    fn keyframes_get_the_parameter_sets_of_the_sample_entry() {
        let pictures: [(&[u8], i64); 3] = [(&[0x65, 1], 0), (&[0x41, 2], 0), (&[0x65, 3], 0)];
        let clip = read(&file(&pictures), 30).unwrap();
        let keyframe = |last: u8| {
            let mut frame = Vec::new();
            [SPS, PPS, &[0x65, last]].iter().for_each(|nal| append(&mut frame, nal));
            frame
        };
        let frames: Vec<_> = clip.frames.iter().map(|f| (f.keyframe, f.data.to_vec())).collect();
        let between = vec![0, 0, 0, 1, 0x41, 2];
        assert_eq!(frames, [(true, keyframe(1)), (false, between), (true, keyframe(3))]);
        assert!(clip.frames.iter().all(|frame| frame.lasts == Duration::from_millis(40)));
        assert_eq!((clip.video, clip.left_out), (Video::H264, Vec::<String>::new()));
    }

    #[test]
    fn pictures_in_another_order_are_refused_and_a_common_delay_is_not() {
        let delayed: [(&[u8], i64); 3] = [(&[0x65, 1], 2), (&[0x41, 2], 2), (&[0x41, 3], 2)];
        assert_eq!(read(&file(&delayed), 30).unwrap().frames.len(), 3);
        let reordered: [(&[u8], i64); 3] = [(&[0x65, 1], 1), (&[0x41, 2], 2), (&[0x01, 3], 0)];
        let error = read(&file(&reordered), 30).unwrap_err();
        assert!(error.contains("B-frames") && error.contains("-bf 0"), "{error}");
    }

    #[test]
    fn a_file_that_is_cut_or_spoilt_is_an_error_in_words() {
        let whole = file(&[(&[0x65, 1], 0), (&[0x41, 2], 0)]);
        for len in 0..whole.len() {
            assert!(read(&whole[..len], 30).is_err(), "{len}");
        }
        // Any byte may be anything: some clip or an error, but nothing worse.
        for at in 0..whole.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut spoilt = whole.clone();
                spoilt[at] = value;
                if let Ok(clip) = read(&spoilt, 30) {
                    assert!(clip.frames.len() <= 2 && clip.frames[0].keyframe);
                }
            }
        }
    }

    #[test]
    fn lengths_that_go_past_the_sample_do_not_fit() {
        assert_eq!(start_codes(&[0, 1, 9, 0, 0], 2), Some(vec![0, 0, 0, 1, 9]));
        for bad in [&[0, 2, 9][..], &[0], &[0, 1]] {
            assert_eq!(start_codes(bad, 2), None);
        }
        assert_eq!(lasts(u32::MAX, NonZeroU32::MIN), Some(Duration::from_secs(u32::MAX.into())));
    }
}
