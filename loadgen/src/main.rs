//! `loadgen`: publish a synthetic table, or watch a stream and measure it.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use clap::{Args, Parser, Subcommand};
use railbird_loadgen::peer::PeerError;
use railbird_loadgen::publisher::hint;
use railbird_loadgen::{
    DealerConfig, DealerStats, PublishError, WatchConfig, WatchError, WatchReport, watch,
};

#[derive(Parser)]
#[command(name = "loadgen", about = "Synthetic dealer and test viewers for WHIP/WHEP servers")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Publish a synthetic roulette table over WHIP until interrupted.
    Publish(Publish),
    /// Watch a stream over WHEP and report what came.
    Watch(Watch),
}

#[derive(Args)]
struct Publish {
    /// WHIP endpoint, such as http://127.0.0.1:8080/whip/demo
    #[arg(long)]
    url: String,
    /// Bearer token.
    #[arg(long)]
    token: Option<String>,
    /// Name drawn on the table; by default the last part of the URL.
    #[arg(long)]
    table: Option<String>,
    /// Stop after this long (such as 30s, 5m); without it, run until Ctrl-C.
    #[arg(long, value_parser = duration)]
    duration: Option<Duration>,
    /// Picture width; the height follows at 16:9.
    #[arg(long, default_value_t = 1280)]
    width: u32,
    /// Frames a second.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=60))]
    fps: u32,
    /// Video bits a second.
    #[arg(long, default_value_t = 1_800_000)]
    bitrate: u32,
}

#[derive(Args)]
struct Watch {
    /// WHEP endpoint, such as http://127.0.0.1:8080/whep/demo
    #[arg(long)]
    url: String,
    /// Bearer token.
    #[arg(long)]
    token: Option<String>,
    /// How long to watch (such as 10s, 1m).
    #[arg(long, default_value = "10s", value_parser = duration)]
    duration: Duration,
    /// Viewers at once.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=200))]
    viewers: u16,
    /// Share of incoming media datagrams to lose, 0 to 1.
    #[arg(long, default_value_t = 0.0)]
    loss: f64,
    /// Seed of the loss; viewer n uses seed + n.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Do not decode video: cheaper, but without latency. Only the first viewer decodes anyway.
    #[arg(long)]
    no_decode: bool,
    /// Print the reports as JSON instead of a table.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("railbird_loadgen=info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let cli = Cli::parse();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let peer = match error.downcast_ref::<PublishError>() {
                Some(PublishError::Peer(peer)) => Some(peer),
                _ => match error.downcast_ref::<WatchError>() {
                    Some(WatchError::Peer(peer)) => Some(peer),
                    _ => error.downcast_ref::<PeerError>(),
                },
            };
            let hint = peer.and_then(hint).map(|hint| format!(" ({hint})")).unwrap_or_default();
            say(&format!("error: {error}{hint}\n"));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match cli.command {
            Command::Publish(args) => publish(args).await,
            Command::Watch(args) => watch_all(args).await,
        }
    })
}

/// Writes to standard error; a closed terminal is no reason to stop.
fn say(text: &str) {
    let mut out = std::io::stderr();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

async fn publish(args: Publish) -> anyhow::Result<()> {
    let name = args.url.trim_end_matches('/').rsplit('/').next().unwrap_or("demo").to_owned();
    let mut config = DealerConfig::new(args.table.unwrap_or(name), args.url);
    config.token = args.token;
    (config.width, config.height) = (args.width, args.width * 9 / 16);
    (config.fps, config.bitrate) = (args.fps, args.bitrate);
    let stats = Arc::new(DealerStats::default());
    let progress = tokio::spawn(show_progress(Arc::clone(&stats)));
    let stop = async move {
        let timer = async move {
            match args.duration {
                Some(duration) => tokio::time::sleep(duration).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = timer => {}
            _ = tokio::signal::ctrl_c() => {}
        }
    };
    let ended = railbird_loadgen::run_dealer_counted(config, Arc::clone(&stats), stop).await;
    progress.abort();
    ended?;
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Relaxed);
    say(&format!(
        "\rsent {} frames ({} keyframes, {} dropped), {} packets, {:.1} MB in {} session(s)\n",
        count(&stats.frames),
        count(&stats.keyframes),
        count(&stats.dropped),
        count(&stats.packets),
        count(&stats.bytes) as f64 / 1e6,
        count(&stats.sessions),
    ));
    Ok(())
}

/// One line, rewritten every second on a terminal.
async fn show_progress(stats: Arc<DealerStats>) {
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    let (mut last_bytes, mut last_frames, mut at) = (0, 0, Instant::now());
    while std::io::stderr().is_terminal() {
        tick.tick().await;
        let (bytes, frames) = (stats.bytes.load(Relaxed), stats.frames.load(Relaxed));
        let seconds = at.elapsed().as_secs_f64().max(1e-3);
        let state = if stats.live.load(Relaxed) { "live" } else { "connecting" };
        say(&format!(
            "\r{state}: {:5.1} fps {:7.0} kbit/s, {} keyframe requests   ",
            (frames - last_frames) as f64 / seconds,
            (bytes - last_bytes) as f64 * 8.0 / 1000.0 / seconds,
            stats.keyframe_requests.load(Relaxed),
        ));
        (last_bytes, last_frames, at) = (bytes, frames, Instant::now());
    }
}

async fn watch_all(args: Watch) -> anyhow::Result<()> {
    let mut viewers = tokio::task::JoinSet::new();
    for index in 0..u64::from(args.viewers) {
        let mut config = WatchConfig::new(&args.url);
        config.token.clone_from(&args.token);
        (config.duration, config.loss) = (args.duration, args.loss);
        config.seed = args.seed.wrapping_add(index);
        config.decode = index == 0 && !args.no_decode;
        viewers.spawn(async move { (index, watch(config).await) });
    }
    say(&format!(
        "watching {} with {} viewer(s) for {:?}\n",
        args.url, args.viewers, args.duration
    ));
    let mut reports = Vec::new();
    let mut failure = None;
    while let Some(joined) = viewers.join_next().await {
        match joined? {
            (index, Ok(report)) => reports.push((index, report)),
            (_, Err(error)) => failure = Some(error),
        }
    }
    reports.sort_by_key(|&(index, _)| index);
    let text = if args.json {
        let plain: Vec<&WatchReport> = reports.iter().map(|(_, report)| report).collect();
        serde_json::to_string_pretty(&plain)? + "\n"
    } else {
        table(&reports)
    };
    std::io::stdout().write_all(text.as_bytes())?;
    failure.map_or(Ok(()), |error| Err(error.into()))
}

fn table(reports: &[(u64, WatchReport)]) -> String {
    let mut text = String::from(
        "viewer  first ms  frames  damaged  fps   kbit/s  packets  lost  recovered  audio lost  latency p50/p95\n",
    );
    for (index, report) in reports {
        let seconds = report.seconds.max(1e-3);
        let first = report.first_frame_ms.map_or("-".to_owned(), |ms| ms.to_string());
        let latency = report.latency_ms.as_ref();
        let latency = latency.map_or("-".to_owned(), |l| format!("{}/{} ms", l.p50, l.p95));
        text += &format!(
            "{index:>6}  {first:>8}  {:>6}  {:>7}  {:>4.1}  {:>6.0}  {:>7}  {:>4}  {:>9}  {:>10}  {latency}\n",
            report.frames_complete,
            report.frames_incomplete,
            report.frames_complete as f64 / seconds,
            report.video.bytes as f64 * 8.0 / 1000.0 / seconds,
            report.video.packets,
            report.video.lost,
            report.video.recovered,
            report.audio.lost,
        );
    }
    text
}

/// Parses `500ms`, `10s`, `5m` or plain seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let value: f64 = digits.parse().map_err(|_| format!("`{text}` is not a duration"))?;
    let seconds = match &text[digits.len()..] {
        "" | "s" => value,
        "ms" => value / 1000.0,
        "m" => value * 60.0,
        "h" => value * 3600.0,
        unit => return Err(format!("unknown unit `{unit}`: use ms, s, m or h")),
    };
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}
