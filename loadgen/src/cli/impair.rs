//! `loadgen impair`: a bad network between any two UDP endpoints, which may change on a
//! schedule or by word.

use std::io::BufRead as _;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use railbird_loadgen::impair::link::{Impairment, Tally};
use railbird_loadgen::impair::proxy::{ProxyConfig, serve};
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, watch};

use super::progress;
use super::values::{Schedule, duration, limit, schedule, share};
use super::watch::ImpairArgs;

/// Lines of control that wait to be carried out; the reader waits then.
const LINES: usize = 16;

/// Arguments of `loadgen impair`.
#[derive(clap::Args)]
pub struct Args {
    /// Address to listen on, such as 127.0.0.1:9000.
    #[arg(long)]
    listen: SocketAddr,
    /// Address of the server behind it, such as 127.0.0.1:8443.
    #[arg(long)]
    to: SocketAddr,
    /// Read changes from standard input, a line each: a setting and its new value, such
    /// as `rate 600k`, `rate off`, `loss 2%`, `delay 40ms`, `jitter 5ms`, `reorder 1%`.
    #[arg(long)]
    control: bool,
    /// Seed of the chances.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Stop after this long; without it, run until Ctrl-C.
    #[arg(long, value_parser = duration)]
    duration: Option<Duration>,
    /// Both directions suffer this, each by its own chances.
    #[command(flatten)]
    impair: ImpairArgs,
    /// Bits a second that pass, such as 1.5M; or a schedule, such as 3M,600k@5s,off@20s:
    /// 3 Mbit/s from the start, 600 kbit/s after five seconds, no limit after twenty.
    #[arg(long, value_parser = schedule, help_heading = "Last mile")]
    rate: Option<Schedule>,
}

/// Runs the command.
pub async fn run(args: Args) -> anyhow::Result<Vec<String>> {
    let socket = UdpSocket::bind(args.listen).await?;
    let listen = socket.local_addr()?;
    let steps = args.rate.map_or_else(Vec::new, |Schedule(steps)| steps);
    let first = steps.first().and_then(|&(_, rate)| rate);
    let (network, impairment) = watch::channel(args.impair.impairment(first));
    let config = ProxyConfig { to: args.to, impairment, seed: args.seed };
    progress::say(&format!("{listen} -> {}, seed {}\n", args.to, args.seed));
    let (tally, mut tallies) = mpsc::unbounded_channel();
    tokio::select! {
        ended = serve(socket, config, tally) => ended?,
        () = follow(&network, &steps) => {}
        () = obey(&network, args.control) => {}
        () = progress::over(args.duration) => {}
    }
    // The listening half is gone, so every source ends and says what it did.
    let mut sources = 0;
    let (mut up, mut down) = (Tally::default(), Tally::default());
    while let Some((one, other)) = tallies.recv().await {
        sources += 1;
        up += one;
        down += other;
    }
    let words = |tally: Tally| {
        let Tally { taken, lost, overflow, reordered } = tally;
        format!("{taken} taken, {lost} lost, {overflow} over the queue, {reordered} reordered")
    };
    progress::say(&format!("{sources} sources; up: {}; down: {}\n", words(up), words(down)));
    Ok(Vec::new())
}

/// Changes the rate on schedule; never resolves.
async fn follow(network: &watch::Sender<Impairment>, steps: &[(Duration, Option<u64>)]) {
    let start = Instant::now();
    for &(at, rate) in steps.iter().skip(1) {
        tokio::time::sleep_until((start + at).into()).await;
        network.send_modify(|impairment| impairment.rate = rate);
        let words = rate.map_or("off".to_owned(), |rate| rate.to_string());
        progress::say(&format!("rate {words}\n"));
    }
    std::future::pending().await
}

/// Changes what standard input says, and says so; never resolves.
async fn obey(network: &watch::Sender<Impairment>, control: bool) {
    let (words, mut lines) = mpsc::channel(LINES);
    if control {
        // A thread of its own: reading a terminal cannot be given up, and the process
        // does not wait for it at its end.
        std::thread::spawn(move || {
            let lines = std::io::stdin().lock().lines().map_while(Result::ok);
            lines.map(|line| words.blocking_send(line)).take_while(Result::is_ok).for_each(drop);
        });
    }
    while let Some(line) = lines.recv().await {
        let mut changed = *network.borrow();
        match change(&mut changed, &line) {
            Ok(()) => {
                network.send_replace(changed);
                progress::say(&format!("{}\n", line.trim()));
            }
            Err(why) => progress::say(&format!("error: {why}\n")),
        }
    }
    std::future::pending().await
}

/// Carries out one line of control.
fn change(impairment: &mut Impairment, line: &str) -> Result<(), String> {
    let (setting, value) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
    let value = value.trim();
    match setting {
        "rate" => impairment.rate = limit(value)?,
        "loss" => impairment.loss = share(value)?,
        "reorder" => impairment.reorder = share(value)?,
        "delay" => impairment.delay = duration(value)?,
        "jitter" => impairment.jitter = duration(value)?,
        _ => return Err(format!("`{setting}`: use rate, loss, reorder, delay or jitter")),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_change_one_setting_each_and_nonsense_none() {
        let mut network = Impairment::default();
        for line in ["rate 600k", " loss 2%\r", "delay  40ms", "jitter 5ms", "reorder 0.01"] {
            change(&mut network, line).unwrap();
        }
        let millis = Duration::from_millis;
        let (loss, reorder, delay, jitter) = (0.02, 0.01, millis(40), millis(5));
        let expected = Impairment { loss, reorder, delay, jitter, rate: Some(600_000) };
        assert_eq!(network, expected);
        for bad in ["", "rate", "rate x", "loss 200%", "mood good"] {
            assert!(change(&mut network, bad).is_err(), "{bad}");
        }
        assert_eq!(network, expected);
        change(&mut network, "rate off").unwrap();
        assert_eq!(network.rate, None);
    }
}
