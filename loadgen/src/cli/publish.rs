//! `loadgen publish`: tables over WHIP.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use railbird_loadgen::{DealerConfig, DealerStats, run_dealer_counted};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::progress::{self, say};
use super::values::{bits, duration};
use super::watch::expand;

/// Arguments of `loadgen publish`.
#[derive(clap::Args)]
pub struct Args {
    /// WHIP endpoint, such as http://127.0.0.1:8080/whip/demo; {n} stands for 1 to
    /// --tables.
    #[arg(long)]
    url: String,
    /// Bearer token.
    #[arg(long)]
    token: Option<String>,
    /// Name drawn on the table; by default the last part of the URL.
    #[arg(long)]
    table: Option<String>,
    /// Tables to publish; more than one needs {n} in the URL.
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
}

impl Args {
    fn configs(&self) -> anyhow::Result<Vec<DealerConfig>> {
        let urls = expand(&self.url, self.tables);
        anyhow::ensure!(
            urls.len() == self.tables as usize,
            "--tables needs {{n}} in --url, such as http://127.0.0.1:8080/whip/table{{n}}"
        );
        let config = |url: String| {
            let name = url.trim_end_matches('/').rsplit('/').next().unwrap_or("demo").to_owned();
            let mut config = DealerConfig::new(self.table.clone().unwrap_or(name), url);
            config.token.clone_from(&self.token);
            (config.width, config.height) = (self.width, self.width * 9 / 16);
            (config.fps, config.bitrate) = (self.fps, self.bitrate.min(200_000_000) as u32);
            config
        };
        Ok(urls.into_iter().map(config).collect())
    }
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
