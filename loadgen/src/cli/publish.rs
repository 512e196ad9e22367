//! `loadgen publish`: tables over WHIP.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use railbird_loadgen::source::pattern::{self, PatternConfig};
use railbird_loadgen::source::{Clip, ClipError, SourceConfig, layers};
use railbird_loadgen::{DealerConfig, DealerStats, run_dealer_counted};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::progress::{self, say};
use super::values::{bits, duration};
use super::watch::expand;

/// Layers of a simulcast: their names, and by how much they are smaller.
const LAYERS: [(&str, u32); 3] = [("f", 1), ("h", 2), ("q", 4)];

/// Longest name of a layer.
const MAX_RID: usize = 16;

/// Arguments of `loadgen publish`.
#[derive(clap::Args)]
pub struct Args {
    /// WHIP endpoint, such as http://127.0.0.1:8080/whip/demo; {} in it stands for
    /// 1 to --tables.
    #[arg(long)]
    url: String,
    /// Bearer token.
    #[arg(long)]
    token: Option<String>,
    /// Name drawn on the table; by default the last part of the URL.
    #[arg(long)]
    table: Option<String>,
    /// Tables to publish; more than one needs {} in the URL.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    tables: u32,
    /// Stop after this long (such as 30s, 5m); without it, run until Ctrl-C.
    #[arg(long, value_parser = duration)]
    duration: Option<Duration>,
    /// Picture width; the height follows at 16:9.
    #[arg(long, default_value_t = 1280)]
    width: u32,
    /// Frames a second.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=60))]
    fps: u32,
    /// Video bits a second, such as 1800k or 2.5M.
    #[arg(long, default_value = "1800k", value_parser = bits)]
    bitrate: u64,
    /// What to publish: `dealer` (drawn and encoded live), `pattern` (encoded once and
    /// played in a loop, for next to no CPU), or a file, played in a loop: .mp4 (H.264,
    /// H.265, VP8, VP9 or AV1, without B-frames; Opus), .ivf, .h264. Several files are the
    /// layers of a simulcast: of one recording, and each with its rid before it
    /// (q=low.mp4), or named f, h and q by their bit rates.
    #[arg(long, default_value = "dealer")]
    source: Vec<String>,
    /// Publish dealer or pattern in three layers (rid f, h and q): whole, half and quarter
    /// size, the smaller ones at a quarter and a sixteenth of the bit rate. Several files
    /// are a simulcast without it.
    #[arg(long)]
    simulcast: bool,
    /// Between keyframes of the pattern.
    #[arg(long, default_value = "2s", value_parser = duration)]
    keyframe_interval: Duration,
    /// Audio bits a second; 0 leaves the pattern without sound.
    #[arg(long, default_value = "64k", value_parser = bits_or_none)]
    audio_bitrate: u64,
}

/// Parses a bit rate that may be zero.
fn bits_or_none(text: &str) -> Result<u64, String> {
    if text == "0" { Ok(0) } else { bits(text) }
}

impl Args {
    fn configs(&self) -> anyhow::Result<Vec<DealerConfig>> {
        let urls = expand(&self.url, self.tables);
        anyhow::ensure!(
            urls.len() == self.tables as usize,
            "--tables needs {{}} in --url, such as http://127.0.0.1:8080/whip/table{{}}"
        );
        let source = self.source()?;
        let config = |url: String| {
            let name = url.trim_end_matches('/').rsplit('/').next().unwrap_or("demo").to_owned();
            let mut config = DealerConfig::new(self.table.clone().unwrap_or(name), url);
            config.token.clone_from(&self.token);
            (config.width, config.height) = (self.width, self.width * 9 / 16);
            (config.fps, config.bitrate) = (self.fps, rate(self.bitrate));
            config.audio_bitrate = rate(self.audio_bitrate);
            config.source = source.clone();
            config
        };
        Ok(urls.into_iter().map(config).collect())
    }

    /// The source that all tables share.
    fn source(&self) -> anyhow::Result<SourceConfig> {
        let [source] = self.source.as_slice() else { return self.files() };
        anyhow::ensure!(
            !self.simulcast || matches!(source.as_str(), "dealer" | "pattern"),
            "--simulcast needs --source dealer or pattern, or --source FILE for each layer"
        );
        match source.as_str() {
            "dealer" if self.simulcast => {
                let layers = LAYERS.iter().map(|(rid, scale)| ((*rid).to_owned(), *scale));
                Ok(SourceConfig::DealerLayers(layers.collect()))
            }
            "dealer" => Ok(SourceConfig::Dealer),
            "pattern" if self.simulcast => {
                let layer = |(rid, scale): &(&str, u32)| {
                    let sound = if *scale == 1 { self.audio_bitrate } else { 0 };
                    Ok(((*rid).to_owned(), Arc::new(self.pattern(*scale, sound)?)))
                };
                Ok(SourceConfig::Layers(
                    LAYERS.iter().map(layer).collect::<Result<_, ClipError>>()?,
                ))
            }
            "pattern" => Ok(SourceConfig::Clip(Arc::new(self.pattern(1, self.audio_bitrate)?))),
            file => Ok(SourceConfig::Clip(Arc::new(self.file(file)?))),
        }
    }

    /// Files as the layers of a simulcast.
    fn files(&self) -> anyhow::Result<SourceConfig> {
        let drawn = |source: &String| source == "dealer" || source == "pattern";
        anyhow::ensure!(!self.source.iter().any(drawn), "the layers of a simulcast are files");
        let named: Vec<_> = self.source.iter().map(|source| split_rid(source)).collect();
        let (mut rids, mut clips) = (Vec::new(), Vec::new());
        for (rid, file) in &named {
            rids.push(rid.map(str::to_owned));
            clips.push(self.file(file)?);
        }
        layers::align(&mut clips)?;
        let rids = name_layers(rids, &clips)?;
        Ok(SourceConfig::Layers(rids.into_iter().zip(clips.into_iter().map(Arc::new)).collect()))
    }

    /// Reads a file, and says what of it is not published.
    fn file(&self, file: &str) -> Result<Clip, ClipError> {
        let clip = Clip::open(Path::new(file), self.fps)?;
        clip.left_out.iter().for_each(|what| say(&format!("{file}: leaves out {what}\n")));
        Ok(clip)
    }

    /// The pattern at a fraction of the size.
    fn pattern(&self, scale: u32, audio_bitrate: u64) -> Result<Clip, ClipError> {
        pattern::encode(&PatternConfig {
            width: self.width / scale,
            height: self.width * 9 / 16 / scale,
            fps: self.fps,
            bitrate: rate(self.bitrate) / (scale * scale),
            keyframe_interval: self.keyframe_interval,
            audio_bitrate: rate(audio_bitrate),
        })
    }
}

/// The rid before a file's name, if there is one (RFC 8851 §10: letters, digits, - and _;
/// a file may have = in its name).
fn split_rid(source: &str) -> (Option<&str>, &str) {
    let is_rid = |rid: &str| {
        let letter = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        (1..=MAX_RID).contains(&rid.len()) && rid.chars().all(letter)
    };
    match source.split_once('=') {
        Some((rid, file)) if is_rid(rid) && !Path::new(source).exists() => (Some(rid), file),
        _ => (None, source),
    }
}

/// Names for layers: all given, or f, h and q from the highest bit rate down.
fn name_layers(rids: Vec<Option<String>>, clips: &[Clip]) -> anyhow::Result<Vec<String>> {
    if let Some(given) = rids.iter().cloned().collect::<Option<Vec<_>>>() {
        let mut distinct = given.clone();
        distinct.sort();
        distinct.dedup();
        anyhow::ensure!(distinct.len() == given.len(), "two layers have the same rid");
        return Ok(given);
    }
    anyhow::ensure!(rids.iter().all(Option::is_none), "give a rid to every file or to none");
    anyhow::ensure!(clips.len() <= LAYERS.len(), "more than three layers: give each a rid");
    let mut order: Vec<usize> = (0..clips.len()).collect();
    order.sort_by(|a, b| clips[*b].bits_per_second().total_cmp(&clips[*a].bits_per_second()));
    let mut names = vec![String::new(); clips.len()];
    for (index, (name, _)) in order.into_iter().zip(LAYERS) {
        name.clone_into(&mut names[index]);
    }
    Ok(names)
}

/// A bit rate as the encoders take it.
fn rate(bits: u64) -> u32 {
    u32::try_from(bits).unwrap_or(u32::MAX)
}

/// Runs the command.
pub async fn run(args: Args) -> anyhow::Result<Vec<String>> {
    let (stop, stopped) = watch::channel(false);
    let mut tables = JoinSet::new();
    let mut all = Vec::new();
    for config in args.configs()? {
        let stats = Arc::new(DealerStats::default());
        all.push(Arc::clone(&stats));
        let mut stopped = stopped.clone();
        let stop = async move {
            // A sender that is gone means the same as a word to stop.
            let _ = stopped.wait_for(|stop| *stop).await;
        };
        tables.spawn(run_dealer_counted(config, stats, stop));
    }
    let shown = tokio::spawn(show(all.clone()));
    let over = progress::over(args.duration);
    tokio::pin!(over);
    let ended = loop {
        tokio::select! {
            () = &mut over, if !*stop.borrow() => drop(stop.send(true)),
            ended = tables.join_next() => match ended {
                Some(Ok(Ok(()))) => {}
                Some(Ok(Err(error))) => break Err(error.into()),
                Some(Err(error)) => break Err(error.into()),
                None => break Ok(Vec::new()),
            }
        }
    };
    progress::end(&shown);
    say(&summary(&all));
    ended
}

/// Sums of a counter over all tables.
fn sum(all: &[Arc<DealerStats>], counter: impl Fn(&DealerStats) -> u64) -> u64 {
    all.iter().map(|stats| counter(stats)).sum()
}

fn summary(all: &[Arc<DealerStats>]) -> String {
    format!(
        "sent {} frames ({} keyframes, {} dropped), {} packets, {:.1} MB in {} session(s)\n",
        sum(all, |stats| stats.frames.load(Relaxed)),
        sum(all, |stats| stats.keyframes.load(Relaxed)),
        sum(all, |stats| stats.dropped.load(Relaxed)),
        sum(all, |stats| stats.packets.load(Relaxed)),
        sum(all, |stats| stats.bytes.load(Relaxed)) as f64 / 1e6,
        sum(all, |stats| stats.sessions.load(Relaxed)),
    )
}

/// One line, rewritten every second on a terminal.
async fn show(all: Vec<Arc<DealerStats>>) {
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    let (mut last_bytes, mut last_frames, mut at) = (0, 0, Instant::now());
    while progress::has_audience() {
        tick.tick().await;
        let bytes = sum(&all, |stats| stats.bytes.load(Relaxed));
        let frames = sum(&all, |stats| stats.frames.load(Relaxed));
        let seconds = at.elapsed().as_secs_f64().max(1e-3);
        say(&format!(
            "\r{} of {} live: {:.1} fps, {:.0} kbit/s, {} keyframe requests   ",
            sum(&all, |stats| u64::from(stats.live.load(Relaxed))),
            all.len(),
            (frames - last_frames) as f64 / seconds,
            (bytes - last_bytes) as f64 * 8.0 / 1000.0 / seconds,
            sum(&all, |stats| stats.keyframe_requests.load(Relaxed)),
        ));
        (last_bytes, last_frames, at) = (bytes, frames, Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use railbird_loadgen::source::ClipFrame;

    fn clip(bytes: usize) -> Clip {
        let (data, lasts) = (Bytes::from(vec![0; bytes]), Duration::from_millis(40));
        Clip { frames: vec![ClipFrame { data, keyframe: true, lasts }], ..Clip::default() }
    }

    #[test]
    fn a_rid_stands_before_a_file() {
        assert_eq!(split_rid("q=low.mp4"), (Some("q"), "low.mp4"));
        assert_eq!(split_rid("low.mp4"), (None, "low.mp4"));
        assert_eq!(split_rid("a/b=c.mp4"), (None, "a/b=c.mp4"));
        assert_eq!(split_rid("=c.mp4"), (None, "=c.mp4"));
    }

    #[test]
    fn layers_are_named_by_hand_or_by_rate() {
        let clips = [clip(100), clip(300), clip(200)];
        assert_eq!(name_layers(vec![None; 3], &clips).unwrap(), ["q", "f", "h"]);
        let some = |rid: &str| Some(rid.to_owned());
        assert_eq!(name_layers(vec![some("x"), some("y")], &clips[..2]).unwrap(), ["x", "y"]);
        assert!(name_layers(vec![some("x"), some("x")], &clips[..2]).is_err());
        assert!(name_layers(vec![some("x"), None], &clips[..2]).is_err());
        assert!(name_layers(vec![None; 4], &[clip(1), clip(2), clip(3), clip(4)]).is_err());
    }
}
