//! `loadgen watch --decode`: few viewers on the `webrtc` crate that decode the picture
//! and read the synthetic dealer's clock in it: latency up to the eye.

use std::io::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use railbird_loadgen::viewer::PictureSize;
use railbird_loadgen::{WatchConfig, WatchReport, watch};

use super::progress::say;

/// What to watch, and how.
pub struct Decoding {
    /// WHEP endpoint.
    pub url: String,
    /// Bearer token.
    pub token: Option<String>,
    /// Viewers at once; the first decodes.
    pub viewers: usize,
    /// How long to watch.
    pub duration: Duration,
    /// Share of media to lose.
    pub loss: f64,
    /// Seed of the loss.
    pub seed: u64,
    /// Where media goes instead of to the server's candidates.
    pub via: Option<SocketAddr>,
    /// Print JSON.
    pub json: bool,
}

/// Runs the viewers and prints what they saw.
pub async fn run(args: Decoding) -> anyhow::Result<Vec<String>> {
    let mut viewers = tokio::task::JoinSet::new();
    for index in 0..args.viewers as u64 {
        let mut config = WatchConfig::new(&args.url);
        config.token.clone_from(&args.token);
        (config.duration, config.loss) = (args.duration, args.loss);
        config.via = args.via;
        config.seed = args.seed.wrapping_add(index);
        config.decode = index == 0;
        viewers.spawn(async move { (index, watch(config).await) });
    }
    let Decoding { url, duration, .. } = &args;
    say(&format!("watching {url} with {} viewer(s) for {duration:?}\n", args.viewers));
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
    failure.map_or(Ok(Vec::new()), |error| Err(error.into()))
}

fn table(reports: &[(u64, WatchReport)]) -> String {
    let mut text = String::from(
        "viewer  first ms  frames  damaged  fps   kbit/s  packets  lost  recovered  audio lost  longest gap  latency p50/p95\n",
    );
    for (index, report) in reports {
        let seconds = report.seconds.max(1e-3);
        let first = report.first_frame_ms.map_or("-".to_owned(), |ms| ms.to_string());
        let latency = report.latency_ms.as_ref();
        let latency = latency.map_or("-".to_owned(), |l| format!("{}/{} ms", l.p50, l.p95));
        text += &format!(
            "{index:>6}  {first:>8}  {:>6}  {:>7}  {:>4.1}  {:>6.0}  {:>7}  {:>4}  {:>9}  {:>10}  {:>8} ms  {latency}\n",
            report.frames_complete,
            report.frames_incomplete,
            report.frames_complete as f64 / seconds,
            report.video.bytes as f64 * 8.0 / 1000.0 / seconds,
            report.video.packets,
            report.video.lost,
            report.video.recovered,
            report.audio.lost,
            report.longest_gap_ms,
        );
        if report.sizes.len() > 1 {
            let words = |size: &PictureSize| {
                let seconds = size.at_ms as f64 / 1000.0;
                format!("{}x{} after {seconds:.1} s", size.width, size.height)
            };
            let sizes: Vec<_> = report.sizes.iter().map(words).collect();
            text += &format!("        {}\n", sizes.join(", "));
        }
    }
    text
}
