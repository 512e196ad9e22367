//! The multivariant playlist: which renditions there are and what each needs.
//!
//! Source: rfc8216bis §4.4.6 and Apple's HLS authoring specification §9. Bit rates are
//! measured, never what somebody announced.

use std::cmp::Reverse;
use std::fmt::Write;

/// A player that measured nothing yet starts with the first variant (Apple's do; others
/// go by their own estimate). It is the best that a common line carries, in bits per
/// second; the others follow from the best to the least.
const START_BANDWIDTH: u64 = 3_000_000;

/// The group that ties the audio renditions to the video variants.
const AUDIO_GROUP: &str = "audio";

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

/// The playlist: every video rendition is a variant with the audio renditions as one
/// group; without video each audio rendition is a variant.
pub fn multivariant(renditions: &[Variant]) -> String {
    let mut out = String::from("#EXTM3U\n#EXT-X-VERSION:6\n#EXT-X-INDEPENDENT-SEGMENTS\n");
    let (mut video, audio): (Vec<_>, Vec<_>) = renditions.iter().partition(|r| r.picture.is_some());
    if video.is_empty() {
        for rendition in audio {
            write_variant(&mut out, rendition, None);
        }
        return out;
    }
    for (index, rendition) in audio.iter().enumerate() {
        let default = if index == 0 { "YES" } else { "NO" };
        let (name, channels) = (&rendition.name, rendition.channels);
        // Writing to a String does not fail.
        let _ = writeln!(
            out,
            "#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"{AUDIO_GROUP}\",NAME=\"{name}\",DEFAULT={default},AUTOSELECT=YES,CHANNELS=\"{channels}\",URI=\"{name}/index.m3u8\""
        );
    }
    let loudest = audio.iter().max_by_key(|rendition| rendition.bandwidth.0).copied();
    let sound = loudest.map_or(0, |audio| audio.bandwidth.0);
    video.sort_by_key(|rendition| Reverse(rendition.bandwidth.0));
    let fits = |rendition: &&Variant| rendition.bandwidth.0 + sound <= START_BANDWIDTH;
    let start = video.iter().position(fits).unwrap_or(video.len() - 1);
    if let Some(upto_start) = video.get_mut(..=start) {
        upto_start.rotate_right(1);
    }
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
    if rendition.picture.is_some() {
        // Without it, players look for captions in the media (A§9.19).
        out.push_str(",CLOSED-CAPTIONS=NONE");
    }
    let _ = writeln!(out, "\n{}/index.m3u8", rendition.name);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn video(name: &str, peak: u64) -> Variant {
        Variant {
            name: name.to_owned(),
            codecs: "avc1.42c01f".to_owned(),
            bandwidth: (peak, peak / 2),
            picture: Some((1280, 720, 29.97)),
            channels: 0,
        }
    }

    fn order(renditions: &[Variant]) -> Vec<String> {
        let text = multivariant(renditions);
        text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    }

    #[test]
    fn p19_the_first_variant_is_the_best_that_a_common_line_carries() {
        let (low, mid, high) = (video("q", 300_000), video("h", 900_000), video("f", 5_000_000));
        let names =
            |names: &[&str]| names.iter().map(|n| format!("{n}/index.m3u8")).collect::<Vec<_>>();
        let all = [low.clone(), mid.clone(), high.clone()];
        assert_eq!(order(&all), names(&["h", "f", "q"]));
        assert_eq!(order(&[low, mid]), names(&["h", "q"]));
        assert_eq!(order(std::slice::from_ref(&high)), names(&["f"]));
        assert_eq!(order(&[high, video("g", 4_000_000)]), names(&["g", "f"]));
    }
}
