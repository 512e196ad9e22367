//! `loadgen storm`: many joins in a short time, on top of viewers that are there.

use std::time::Duration;

use railbird_loadgen::crowd::Group;

use super::values::duration;
use super::watch::CrowdArgs;

/// The viewers that are there may settle for so long.
const SETTLE: Duration = Duration::from_secs(2);
/// How fast they join, per second.
const BASE_RATE: f64 = 100.0;

/// Arguments of `loadgen storm`.
#[derive(clap::Args)]
pub struct Args {
    /// Viewers that join.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    joins: u32,
    /// Time in which they join, evenly.
    #[arg(long, default_value = "1s", value_parser = duration)]
    within: Duration,
    /// Viewers that are there before.
    #[arg(long, default_value_t = 0)]
    base: u32,
    #[command(flatten)]
    crowd: CrowdArgs,
}

/// Runs the command.
pub async fn run(args: Args) -> anyhow::Result<Vec<String>> {
    let joins = args.joins as usize;
    let base =
        Group { join_rate: BASE_RATE, settle: SETTLE, ..Group::new("base", args.base as usize) };
    let join_rate = joins as f64 / args.within.as_secs_f64().max(1e-3);
    let storm = Group { join_rate, ..Group::new("storm", joins) };
    let mut groups = vec![base, storm];
    groups.retain(|group| group.viewers > 0);
    args.crowd.run(groups).await
}
