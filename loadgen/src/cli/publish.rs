//! `loadgen publish`: tables over WHIP.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use railbird_loadgen::source::pattern::{self, PatternConfig};
use railbird_loadgen::source::{Clip, ClipError, SourceConfig};
use railbird_loadgen::{DealerConfig, DealerStats, run_dealer_counted};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::progress::{self, say};
use super::values::{bits, duration};
use super::watch::expand;

/// Layers of a simulcast: their names, and by how much they are smaller.
const LAYERS: [(&str, u32); 3] = [("f", 1), ("h", 2), ("q", 4)];

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
    /// played in a loop, for next to no CPU), or a file: .h264, .ivf.
    #[arg(long, default_value = "dealer")]
    source: PathBuf,
    /// Publish dealer or pattern in three layers (rid f, h and q): whole, half and quarter
    /// size, the smaller ones at a quarter and a sixteenth of the bit rate.
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
        let source = self.source.to_str();
        anyhow::ensure!(
            !self.simulcast || matches!(source, Some("dealer" | "pattern")),
            "--simulcast needs --source dealer or pattern"
        );
        match source {
            Some("dealer") if self.simulcast => {
                let layers = LAYERS.iter().map(|(rid, scale)| ((*rid).to_owned(), *scale));
                Ok(SourceConfig::DealerLayers(layers.collect()))
            }
            Some("dealer") => Ok(SourceConfig::Dealer),
            Some("pattern") if self.simulcast => {
                let layer = |(rid, scale): &(&str, u32)| {
                    let sound = if *scale == 1 { self.audio_bitrate } else { 0 };
                    Ok(((*rid).to_owned(), Arc::new(self.pattern(*scale, sound)?)))
                };
                Ok(SourceConfig::Layers(
                    LAYERS.iter().map(layer).collect::<Result<_, ClipError>>()?,
                ))
            }
            Some("pattern") => {
                Ok(SourceConfig::Clip(Arc::new(self.pattern(1, self.audio_bitrate)?)))
            }
            _ => Ok(SourceConfig::Clip(Arc::new(Clip::open(&self.source, self.fps)?))),
        }
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
