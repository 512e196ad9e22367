//! Playlists as text. Pure functions of what a rendition offers.
//!
//! Source: rfc8216bis §4 (tags) and §6.2.5 (what a low-latency server lists).
//! URIs are relative to the playlist. A part's URI counts over segments, not
//! within one, so that the hinted URI is right even when the segment ends before it.

use std::fmt::Write;
use std::hash::{DefaultHasher, Hasher};
use std::io::Write as _;
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;

use super::store::{Segment, View};

/// The lengths that every playlist of a stream states alike; fixed for its life.
#[derive(Debug, Clone, Copy)]
pub struct Targets {
    /// PART-TARGET.
    pub part: Duration,
    /// EXT-X-TARGETDURATION, in seconds.
    pub duration: u64,
}

impl Targets {
    /// `n` times TARGETDURATION.
    pub const fn durations(&self, n: u64) -> Duration {
        Duration::from_secs(self.duration * n)
    }

    fn server_control(&self) -> String {
        format!(
            "#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,CAN-SKIP-UNTIL={:.1},HOLD-BACK={:.1},PART-HOLD-BACK={:.3}",
            (self.duration * 6) as f64,
            (self.duration * 3) as f64,
            (self.part * 3).as_secs_f64(),
        )
    }
}

/// A playlist in both encodings; made once per version, shared by all who ask.
#[derive(Debug, Clone, Default)]
pub struct Rendered {
    /// The text.
    pub plain: Bytes,
    /// The text, gzipped.
    pub gzip: Bytes,
    /// Differs between texts: what an entity tag needs.
    pub hash: u64,
}

impl Rendered {
    /// Compresses `text` once.
    pub fn new(text: String) -> Self {
        let mut encoder = GzEncoder::new(Vec::with_capacity(text.len() / 4), Compression::fast());
        // Writing to memory does not fail; were it to, the empty result is never chosen.
        let gzip = encoder.write_all(text.as_bytes()).and_then(|()| encoder.finish());
        let mut hasher = DefaultHasher::new();
        hasher.write(text.as_bytes());
        let hash = hasher.finish();
        Self { plain: text.into(), gzip: gzip.unwrap_or_default().into(), hash }
    }
}

/// How far another rendition is, for EXT-X-RENDITION-REPORT.
#[derive(Debug, Clone)]
pub struct Report {
    /// Name of that rendition.
    pub name: String,
    /// Its newest segment with a part, and the index of its newest part there.
    pub newest: (u64, usize),
}

/// A media playlist of `view`. `token` opens the names of all its resources.
/// With `skip` it is a delta update, when there is enough to skip.
pub fn media(view: &View, token: &str, targets: Targets, reports: &[Report], skip: bool) -> String {
    let listed = view.listed();
    let skipped = if skip { skippable(view, targets) } else { 0 };
    let mut out = String::with_capacity(4096);
    let version = if skipped > 0 { 9 } else { 6 };
    // Writing to a String does not fail.
    let _ = writeln!(out, "#EXTM3U\n#EXT-X-VERSION:{version}");
    let _ = writeln!(out, "#EXT-X-TARGETDURATION:{}", targets.duration);
    let _ = writeln!(out, "{}", targets.server_control());
    let _ = writeln!(out, "#EXT-X-PART-INF:PART-TARGET={:.3}", targets.part.as_secs_f64());
    let _ = writeln!(out, "#EXT-X-MEDIA-SEQUENCE:{}", view.media_sequence());
    let _ = writeln!(out, "#EXT-X-DISCONTINUITY-SEQUENCE:{}", view.discontinuities);
    if skipped > 0 {
        let _ = writeln!(out, "#EXT-X-SKIP:SKIPPED-SEGMENTS={skipped}");
    }
    let total: u64 = listed.iter().map(|segment| segment.duration).sum();
    let recent = ticks(targets.durations(3), view);
    let mut before_end = total;
    let mut init = None;
    for (index, segment) in listed.iter().enumerate() {
        before_end -= segment.duration;
        let new_init = init.replace(segment.init.number) != Some(segment.init.number);
        if index >= skipped {
            let parts = before_end < recent;
            write_segment(&mut out, view, segment, token, new_init, parts);
        }
    }
    if view.ended {
        out.push_str("#EXT-X-ENDLIST\n");
    } else {
        let next = view.next_part();
        let _ = writeln!(out, "#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"{token}-p{next}.m4s\"");
        for report in reports {
            let (msn, part) = report.newest;
            let name = &report.name;
            let _ = writeln!(
                out,
                "#EXT-X-RENDITION-REPORT:URI=\"../{name}/index.m3u8\",LAST-MSN={msn},LAST-PART={part}"
            );
        }
    }
    out
}

fn write_segment(
    out: &mut String,
    view: &View,
    segment: &Segment,
    token: &str,
    new_init: bool,
    parts: bool,
) {
    for _ in 0..segment.discontinuities {
        out.push_str("#EXT-X-DISCONTINUITY\n");
    }
    if new_init {
        let _ = writeln!(out, "#EXT-X-MAP:URI=\"{token}-i{}.mp4\"", segment.init.number);
    }
    let date = segment.program_date_time.rfc3339_millis();
    let _ = writeln!(out, "#EXT-X-PROGRAM-DATE-TIME:{date}");
    for part in segment.parts.iter().filter(|_| parts) {
        let duration = seconds(part.media.duration, view);
        let independent = if part.media.independent { ",INDEPENDENT=YES" } else { "" };
        let number = part.number;
        let _ = writeln!(
            out,
            "#EXT-X-PART:DURATION={duration:.5},URI=\"{token}-p{number}.m4s\"{independent}"
        );
    }
    if segment.complete {
        let duration = seconds(segment.duration, view);
        let _ = writeln!(out, "#EXTINF:{duration:.5},\n{token}-s{}.m4s", segment.msn);
    }
}

/// Segments further from the end than CAN-SKIP-UNTIL (six TARGETDURATIONs).
fn skippable(view: &View, targets: Targets) -> usize {
    let listed = view.listed();
    let until = ticks(targets.durations(6), view);
    let mut from_end: u64 = listed.iter().map(|segment| segment.duration).sum();
    let old = listed.iter().take_while(|segment| {
        let skip = from_end > until;
        from_end -= segment.duration;
        skip && segment.complete
    });
    old.count()
}

fn seconds(ticks: u64, view: &View) -> f64 {
    ticks as f64 / f64::from(view.timescale.get())
}

fn ticks(duration: Duration, view: &View) -> u64 {
    (duration.as_micros() * u128::from(view.timescale.get()) / 1_000_000) as u64
}

/// One rendition as the multivariant playlist describes it.
#[derive(Debug, Clone)]
pub struct Variant {
    /// Name of the rendition.
    pub name: String,
    /// Its `CODECS` entry.
    pub codecs: String,
    /// Peak and mean bits per second.
    pub bandwidth: (u64, u64),
    /// Width and height in pixels, and frames per second; `None` for audio.
    pub picture: Option<(u16, u16, f64)>,
    /// Audio channels; 0 for video.
    pub channels: u8,
}

/// The group that ties the audio renditions to the video variants.
const AUDIO_GROUP: &str = "audio";

/// The multivariant playlist: every video rendition is a variant with the audio
/// renditions as one group; without video each audio rendition is a variant.
pub fn multivariant(renditions: &[Variant]) -> String {
    let mut out = String::from("#EXTM3U\n#EXT-X-VERSION:6\n#EXT-X-INDEPENDENT-SEGMENTS\n");
    let (video, audio): (Vec<_>, Vec<_>) = renditions.iter().partition(|r| r.picture.is_some());
    if video.is_empty() {
        for rendition in audio {
            write_variant(&mut out, rendition, None);
        }
        return out;
    }
    for (index, rendition) in audio.iter().enumerate() {
        let default = if index == 0 { "YES" } else { "NO" };
        let (name, channels) = (&rendition.name, rendition.channels);
        let _ = writeln!(
            out,
            "#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"{AUDIO_GROUP}\",NAME=\"{name}\",DEFAULT={default},AUTOSELECT=YES,CHANNELS=\"{channels}\",URI=\"{name}/index.m3u8\""
        );
    }
    let loudest = audio.iter().max_by_key(|rendition| rendition.bandwidth.0).copied();
    for rendition in video {
        write_variant(&mut out, rendition, loudest);
    }
    out
}

fn write_variant(out: &mut String, rendition: &Variant, audio: Option<&Variant>) {
    let (audio_peak, audio_mean) = audio.map_or((0, 0), |audio| audio.bandwidth);
    let (peak, mean) = rendition.bandwidth;
    let _ = write!(
        out,
        "#EXT-X-STREAM-INF:BANDWIDTH={},AVERAGE-BANDWIDTH={}",
        peak + audio_peak,
        mean + audio_mean
    );
    let _ = match audio {
        Some(audio) => write!(out, ",CODECS=\"{},{}\"", rendition.codecs, audio.codecs),
        None => write!(out, ",CODECS=\"{}\"", rendition.codecs),
    };
    if let Some((width, height, rate)) = rendition.picture {
        let _ = write!(out, ",RESOLUTION={width}x{height},FRAME-RATE={rate:.3}");
    }
    if audio.is_some() {
        let _ = write!(out, ",AUDIO=\"{AUDIO_GROUP}\"");
    }
    let _ = writeln!(out, "\n{}/index.m3u8", rendition.name);
}
