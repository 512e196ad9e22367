//! `loadgen watch`: a crowd of viewers, or one that decodes.

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use railbird_loadgen::crowd::report::CrowdReport;
use railbird_loadgen::crowd::thresholds::Thresholds;
use railbird_loadgen::crowd::viewer::Estimate;
use railbird_loadgen::crowd::{self, CrowdConfig, Group};
use railbird_loadgen::impair::Impairment;

use super::values::{bits, duration, positive, share};
use super::{decode, progress, table};

/// What a crowd needs to know, whatever it does.
#[derive(clap::Args)]
pub struct CrowdArgs {
    /// WHEP endpoint, such as http://127.0.0.1:8080/whep/demo; several are taken in turn,
    /// and {} in one stands for 1 to --tables.
    #[arg(long = "url", required = true)]
    urls: Vec<String>,
    /// Tables that {} in the URL stands for.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    tables: u32,
    /// Bearer token.
    #[arg(long)]
    token: Option<String>,
    /// How long to watch once all have joined (such as 10s, 1m).
    #[arg(long, default_value = "10s", value_parser = duration)]
    duration: Duration,
    /// Threads for media.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: u16,
    /// Bandwidth that each viewer tells the server (REMB), such as 2.5M; `off` tells
    /// nothing; by default half more than what comes.
    #[arg(long, value_parser = estimate)]
    remb: Option<Estimate>,
    /// Share of viewers that check the authentication tag of every packet.
    #[arg(long, default_value = "1%", value_parser = share)]
    verify: f64,
    /// Ask for video only.
    #[arg(long)]
    no_audio: bool,
    /// Seed of the simulated last miles; viewer n uses seed + n.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How long a viewer that is refused for now (404, 503, Retry-After) tries again.
    #[arg(long, default_value = "15s", value_parser = duration)]
    join_patience: Duration,
    /// Send media to this address instead of to those in the answer: to a `loadgen impair`
    /// before the server's media port.
    #[arg(long)]
    via: Option<SocketAddr>,
    /// Process of the server, on this machine, to read its CPU time and memory.
    #[arg(long)]
    server_pid: Option<u32>,
    /// Print the report as JSON instead of a table.
    #[arg(long)]
    json: bool,
    /// With --json, report each viewer too.
    #[arg(long, requires = "json")]
    each: bool,
    #[command(flatten)]
    limits: Limits,
}

/// When the run counts as failed (exit code 1).
#[derive(clap::Args)]
#[command(next_help_heading = "Thresholds")]
struct Limits {
    /// Most packets lost for good, such as 0.1%.
    #[arg(long, value_parser = share)]
    max_loss: Option<f64>,
    /// Slowest first frame of the fastest 95 %, such as 500ms.
    #[arg(long, value_parser = duration)]
    max_first_frame_p95: Option<Duration>,
    /// Highest latency of the fastest 99 % of frames.
    #[arg(long, value_parser = duration)]
    max_latency_p99: Option<Duration>,
    /// Most freezes, of all viewers together.
    #[arg(long)]
    max_freezes: Option<u64>,
    /// Most viewers that may fail to join or end early.
    #[arg(long, default_value_t = 0)]
    max_failed: u64,
}

/// A bad last mile.
#[derive(clap::Args)]
#[command(next_help_heading = "Last mile")]
pub struct ImpairArgs {
    /// Share of datagrams to lose, such as 0.05 or 5%.
    #[arg(long, default_value = "0", value_parser = share)]
    loss: f64,
    /// Delay of each datagram.
    #[arg(long, default_value = "0ms", value_parser = duration)]
    delay: Duration,
    /// Further delay, from nothing to this.
    #[arg(long, default_value = "0ms", value_parser = duration)]
    jitter: Duration,
    /// Share of datagrams that fall behind those after them.
    #[arg(long, default_value = "0", value_parser = share)]
    reorder: f64,
}

impl ImpairArgs {
    /// The last mile, with bits a second that pass.
    pub fn impairment(&self, rate: Option<u64>) -> Impairment {
        let Self { loss, delay, jitter, reorder } = *self;
        Impairment { loss, reorder, delay, jitter, rate }
    }
}

/// Arguments of `loadgen watch`.
#[derive(clap::Args)]
pub struct Args {
    /// Viewers at once.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    viewers: u32,
    /// Viewers that join per second.
    #[arg(long, default_value = "100", value_parser = positive)]
    join_rate: f64,
    /// Decode the picture and read the synthetic dealer's clock in it: for few viewers.
    #[arg(long)]
    decode: bool,
    #[command(flatten)]
    crowd: CrowdArgs,
    /// Media that comes to impaired viewers suffers this; set-up is spared.
    #[command(flatten)]
    impair: ImpairArgs,
    /// Bits a second that pass, such as 1.5M.
    #[arg(long, value_parser = bits, help_heading = "Last mile")]
    rate: Option<u64>,
    /// Share of viewers that are impaired.
    #[arg(long, default_value = "1", value_parser = share)]
    impair_share: f64,
}

fn estimate(text: &str) -> Result<Estimate, String> {
    if text == "off" { Ok(Estimate::Silent) } else { bits(text).map(Estimate::Fixed) }
}

/// Fills the number of each table into a pattern.
pub fn expand(pattern: &str, tables: u32) -> Vec<String> {
    if pattern.contains("{}") {
        (1..=tables).map(|n| pattern.replace("{}", &n.to_string())).collect()
    } else {
        vec![pattern.to_owned()]
    }
}

impl CrowdArgs {
    /// The configuration of a crowd of `groups`.
    fn config(&self, groups: Vec<Group>) -> CrowdConfig {
        CrowdConfig {
            urls: self.urls.iter().flat_map(|url| expand(url, self.tables)).collect(),
            token: self.token.clone(),
            groups,
            duration: self.duration,
            threads: self.threads.into(),
            estimate: self.remb.unwrap_or(Estimate::Measured),
            verify: self.verify,
            seed: self.seed,
            audio: !self.no_audio,
            join_patience: self.join_patience,
            server_pid: self.server_pid,
            via: self.via,
        }
    }

    fn thresholds(&self) -> Thresholds {
        let millis = |limit: Option<Duration>| limit.map(|limit| limit.as_secs_f64() * 1000.0);
        Thresholds {
            max_loss: self.limits.max_loss,
            max_first_frame_p95: millis(self.limits.max_first_frame_p95),
            max_latency_p99: millis(self.limits.max_latency_p99),
            max_freezes: self.limits.max_freezes,
            max_failed: self.limits.max_failed,
        }
    }

    /// Runs a crowd, prints its report, and returns the thresholds missed.
    pub async fn run(&self, groups: Vec<Group>) -> anyhow::Result<Vec<String>> {
        let viewers = groups.iter().map(|group| group.viewers).sum();
        let live = Arc::default();
        let shown = progress::show(Arc::clone(&live), viewers);
        let report = crowd::run(self.config(groups), live, progress::over(None)).await;
        progress::end(&shown);
        let mut report = report?;
        let missed = self.thresholds().missed(&report);
        if !self.each {
            report.viewers.clear();
        }
        std::io::stdout().write_all(self.render(&report, &missed)?.as_bytes())?;
        Ok(missed)
    }

    fn render(&self, report: &CrowdReport, missed: &[String]) -> anyhow::Result<String> {
        if !self.json {
            return Ok(table::render(report));
        }
        let mut json = serde_json::to_value(report)?;
        json["missed"] = missed.into();
        Ok(serde_json::to_string_pretty(&json)? + "\n")
    }
}

/// Runs the command.
pub async fn run(args: Args) -> anyhow::Result<Vec<String>> {
    let viewers = args.viewers as usize;
    let impairment = args.impair.impairment(args.rate);
    if args.decode {
        anyhow::ensure!(viewers <= 200, "at most 200 viewers can decode; leave out --decode");
        let crowd = &args.crowd;
        let url = expand(&crowd.urls[0], 1).remove(0);
        return decode::run(decode::Decoding {
            url,
            token: crowd.token.clone(),
            viewers,
            duration: crowd.duration,
            loss: impairment.loss,
            seed: crowd.seed,
            via: crowd.via,
            json: crowd.json,
        })
        .await;
    }
    let impaired =
        if impairment.is_any() { (viewers as f64 * args.impair_share).round() as usize } else { 0 };
    let group = |name: &str, viewers, impairment| Group {
        join_rate: args.join_rate,
        impairment,
        ..Group::new(name, viewers)
    };
    let mut groups = vec![
        group("clean", viewers - impaired, Impairment::default()),
        group("impaired", impaired, impairment),
    ];
    groups.retain(|group| group.viewers > 0);
    args.crowd.run(groups).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_names_each_table_and_a_plain_url_one() {
        assert_eq!(expand("h/{}", 3), ["h/1", "h/2", "h/3"]);
        assert_eq!(expand("h/demo", 3), ["h/demo"]);
    }

    #[test]
    fn the_bandwidth_is_a_number_or_off() {
        assert_eq!(estimate("off"), Ok(Estimate::Silent));
        assert_eq!(estimate("2.5M"), Ok(Estimate::Fixed(2_500_000)));
        assert!(estimate("on").is_err());
    }
}
