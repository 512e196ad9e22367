//! What fanning out costs on one core, beside the machine's own limit and beside a
//! general WebRTC stack, measured in turn in one run:
//!
//! - `limit`: nothing but copy, seal and send, for so many viewers (`limit.rs`)
//! - `engine`: the gateway's own fan-out and sockets (`engine.rs`)
//! - `workers`: two engines on two threads against one (`workers.rs`)
//! - `reference`: `rtc`'s peer connections and `send_to` (`reference.rs`)
//!
//! Packets go to an `ifb` device in a network namespace of this process, which takes
//! them and drops them: what is measured is sending, and no receiver. CPU time of the
//! thread, not wall time. `cargo bench --bench fanout -- --help` lists the options.

#![allow(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
#![allow(missing_docs, reason = "a program, not a library")]

#[path = "../common/mod.rs"]
mod common;
mod cpu;
mod engine;
mod limit;
mod network;
mod reference;
mod report;
mod workers;

use std::time::Duration;

use clap::Parser;

/// Bytes of an RTP packet before it is sealed.
pub(crate) const PACKET: usize = 1200;
/// Packets of a frame: 2.6 Mbit/s at 30 frames a second.
pub(crate) const FRAME: usize = 9;

#[derive(Parser)]
#[command(name = "fanout", about = "CPU per delivered packet: engine, limit loop, reference")]
struct Cli {
    /// Rounds; each runs every case once. Medians are reported.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// How long each case runs in a round, in milliseconds.
    #[arg(long, default_value_t = 700)]
    millis: u64,
    /// Numbers of viewers for the engine; the limit loop runs with the reference number.
    #[arg(long, value_delimiter = ',', default_value = "100,1000,2000,4000")]
    viewers: Vec<usize>,
    /// The number of viewers at which engine and limit loop are compared.
    #[arg(long, default_value_t = 1000)]
    compare: usize,
    /// Viewers of the reference; 0 leaves it out.
    #[arg(long, default_value_t = 200)]
    reference: usize,
    /// Let the kernel cut segments, as for a network card without offload.
    #[arg(long)]
    software_gso: bool,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
    /// What `cargo bench` adds.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let cli = Cli::parse();
    let device = network::enter(cli.software_gso);
    let time = Duration::from_millis(cli.millis);
    let mut cases: Vec<(String, Box<dyn FnMut() -> cpu::Cost>)> = Vec::new();
    let mut limit = limit::Limit::new(cli.compare);
    cases.push((format!("limit {}", cli.compare), Box::new(move || limit.run(time))));
    // How the limit itself grows with the keys that it goes through.
    let ends = [cli.viewers.first(), cli.viewers.last()];
    for &viewers in ends.into_iter().flatten().filter(|viewers| **viewers != cli.compare) {
        let mut limit = limit::Limit::new(viewers);
        cases.push((format!("limit {viewers}"), Box::new(move || limit.run(time))));
    }
    for &viewers in &cli.viewers {
        let mut engine = engine::Engine::new(viewers, false);
        cases.push((format!("engine {viewers}"), Box::new(move || engine.run(time))));
    }
    let mut with_audio = engine::Engine::new(cli.compare, true);
    cases.push((
        format!("engine {} with audio", cli.compare),
        Box::new(move || with_audio.run(time)),
    ));
    if cli.reference > 0 {
        let mut reference = reference::Reference::new(cli.reference);
        let name = format!("reference {}", cli.reference);
        cases.push((name, Box::new(move || reference.run(time))));
    }
    let mut results: Vec<report::Row> =
        cases.iter().map(|(name, _)| report::Row::new(name.clone())).collect();
    for round in 0..=cli.rounds {
        for ((name, case), row) in cases.iter_mut().zip(&mut results) {
            eprint!("\rround {round} of {}: {name:<30}", cli.rounds);
            let cost = case();
            // The first round warms caches and clocks up.
            if round > 0 {
                row.add(&cost);
            }
        }
    }
    eprintln!();
    let two_workers = workers::scaling(cli.compare, time, cli.rounds);
    report::print(&device, &results, two_workers, cli.json);
}
