//! `loadgen hostile`: viewers that misbehave, against a server of one's own.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Duration;

use railbird_loadgen::crowd::hostile::{self, HostileConfig, HostileReport, Kind, KindReport};

use super::progress;
use super::values::{duration, positive, share};

/// Arguments of `loadgen hostile`.
///
/// Attacks: run it only against a server of your own. Addresses that are not private are
/// refused without --i-own-this-server.
#[derive(clap::Args)]
pub struct Args {
    /// WHEP endpoint, such as http://127.0.0.1:8080/whep/demo.
    #[arg(long)]
    url: String,
    /// Bearer token.
    #[arg(long)]
    token: Option<String>,
    /// What to do: nack-storm, forged-feedback, feedback-flood, replay, address-hop,
    /// stun-flood, or all of them one after the other.
    #[arg(long, default_value = "all", value_parser = kinds)]
    kind: Kinds,
    /// Hostile viewers at once.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    sources: u16,
    /// Packets a second that each sends.
    #[arg(long, default_value = "5000", value_parser = positive)]
    rate: f64,
    /// Between two changes of address (address-hop).
    #[arg(long, default_value = "1s", value_parser = duration)]
    hop_every: Duration,
    /// Quiet before each attack, to compare the server's CPU time with.
    #[arg(long, default_value = "2s", value_parser = duration)]
    quiet: Duration,
    /// How long each attack is (such as 5s).
    #[arg(long, default_value = "5s", value_parser = duration)]
    duration: Duration,
    /// Good viewers beside them; with any, a run without an attack comes first.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    beside: u32,
    /// Share of the good viewers that check the authentication tag of every packet.
    #[arg(long, default_value = "1%", value_parser = share)]
    verify: f64,
    /// Process of the server, on this machine, to read its CPU time and memory.
    #[arg(long)]
    server_pid: Option<u32>,
    /// Seed of what is random.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Most packets that the good viewers may lose for good, such as 0.1%.
    #[arg(long, value_parser = share)]
    max_loss: Option<f64>,
    /// The server is mine though its address is not a private one.
    #[arg(long)]
    i_own_this_server: bool,
    /// Print the report as JSON instead of a table.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Debug)]
struct Kinds(Vec<Kind>);

fn kinds(text: &str) -> Result<Kinds, String> {
    if text == "all" {
        return Ok(Kinds(Kind::ALL.to_vec()));
    }
    let find = |name: &str| Kind::ALL.into_iter().find(|kind| kind.as_str() == name);
    let names = text.split(',').map(|name| find(name).ok_or(format!("`{name}` is no kind")));
    names.collect::<Result<_, _>>().map(Kinds)
}

/// Runs the command; returns the thresholds missed.
pub async fn run(args: Args) -> anyhow::Result<Vec<String>> {
    let config = HostileConfig {
        token: args.token,
        sources: args.sources.into(),
        rate: args.rate,
        hop_every: args.hop_every,
        quiet: args.quiet,
        duration: args.duration,
        beside: args.beside as usize,
        verify: args.verify,
        server_pid: args.server_pid,
        seed: args.seed,
        anywhere: args.i_own_this_server,
        ..HostileConfig::new(args.url, args.kind.0)
    };
    let report = hostile::run(config, progress::over(None)).await?;
    let text = match args.json {
        true => serde_json::to_string_pretty(&report)? + "\n",
        false => render(&report),
    };
    std::io::stdout().write_all(text.as_bytes())?;
    let most = args.max_loss.unwrap_or(1.0);
    let beside = report.kinds.iter().filter_map(|kind| Some((kind.kind, kind.beside.as_ref()?)));
    let missed = beside.filter(|(_, group)| group.loss > most);
    Ok(missed
        .map(|(kind, group)| {
            format!("{kind}: {:.4} % lost, at most {:.4} %", group.loss * 100.0, most * 100.0)
        })
        .collect())
}

fn render(report: &HostileReport) -> String {
    let mut text = format!(
        "{:16}{:>10}{:>12}{:>12}{:>14}{:>10}{:>10}{:>10}{:>10}{:>20}\n",
        "kind",
        "packets",
        "packets/s",
        "ns/packet",
        "server cores",
        "RSS MB",
        "lost",
        "damaged",
        "freezes",
        "p50/p95/p99 ms"
    );
    for kind in &report.kinds {
        row(&mut text, kind);
    }
    text
}

fn row(text: &mut String, kind: &KindReport) {
    let KindReport { kind: name, seconds, tally, server, beside, .. } = kind;
    let server = server.map_or(["-".into(), "-".into(), "-".into()], |cost| {
        [
            if tally.packets == 0 {
                "-".to_owned()
            } else {
                format!("{:.0}", cost.nanos_per_packet)
            },
            format!("{:.2} -> {:.2}", cost.cores_before, cost.cores),
            format!("{:.0}", cost.rss as f64 / 1e6),
        ]
    });
    let good = beside.as_ref().map_or(["-".into(), "-".into(), "-".into(), "-".into()], |group| {
        let latency = group
            .latency_ms
            .all
            .map_or("-".to_owned(), |all| format!("{:.1}/{:.1}/{:.1}", all.p50, all.p95, all.p99));
        [
            format!("{}", group.video.lost + group.audio.lost),
            group.frames_damaged.to_string(),
            group.freezes.to_string(),
            latency,
        ]
    });
    let rate = tally.packets as f64 / seconds.max(1e-3);
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "{name:16}{:>10}{rate:>12.0}{:>12}{:>14}{:>10}{:>10}{:>10}{:>10}{:>20}",
        tally.packets, server[0], server[1], server[2], good[0], good[1], good[2], good[3]
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_named_singly_in_a_list_or_all() {
        assert_eq!(kinds("all").unwrap().0.len(), 6);
        assert_eq!(kinds("replay,stun-flood").unwrap().0, [Kind::Replay, Kind::StunFlood]);
        assert!(kinds("nice").is_err());
    }
}
