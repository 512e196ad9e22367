//! `loadgen impair`: a bad network between any two UDP endpoints.

use std::net::SocketAddr;
use std::time::Duration;

use railbird_loadgen::impair::link::Tally;
use railbird_loadgen::impair::proxy::{ProxyConfig, serve};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;

use super::progress;
use super::values::duration;
use super::watch::ImpairArgs;

/// Arguments of `loadgen impair`.
#[derive(clap::Args)]
pub struct Args {
    /// Address to listen on, such as 127.0.0.1:9000.
    #[arg(long)]
    listen: SocketAddr,
    /// Address of the server behind it, such as 127.0.0.1:8443.
    #[arg(long)]
    to: SocketAddr,
    /// Both directions suffer this, each by its own chances.
    #[command(flatten)]
    impair: ImpairArgs,
    /// Seed of the chances.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Stop after this long; without it, run until Ctrl-C.
    #[arg(long, value_parser = duration)]
    duration: Option<Duration>,
}

/// Runs the command.
pub async fn run(args: Args) -> anyhow::Result<Vec<String>> {
    let socket = UdpSocket::bind(args.listen).await?;
    let listen = socket.local_addr()?;
    let config = ProxyConfig { to: args.to, impairment: args.impair.impairment(), seed: args.seed };
    progress::say(&format!("{listen} -> {}, seed {}\n", args.to, args.seed));
    let (tally, mut tallies) = mpsc::unbounded_channel();
    tokio::select! {
        ended = serve(socket, config, tally) => ended?,
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
