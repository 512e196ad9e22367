//! The command line: one file per subcommand, and what they share.
//!
//! Exit codes: 0 when all went well, 1 when a threshold was missed, 2 for a wrong
//! usage or when there was nothing to measure, with a hint where there is one.

mod decode;
mod hls;
mod hostile;
mod impair;
mod progress;
mod publish;
mod storm;
mod table;
mod values;
mod watch;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use railbird_loadgen::crowd::CrowdError;
use railbird_loadgen::crowd::join::JoinError;
use railbird_loadgen::hls::HlsError;
use railbird_loadgen::peer::PeerError;
use railbird_loadgen::publisher::hint;
use railbird_loadgen::{PublishError, WatchError};

/// A threshold was missed.
const MISSED: u8 = 1;
/// There is nothing to measure.
const FAILED: u8 = 2;

#[derive(Parser)]
#[command(
    name = "loadgen",
    about = "Publishers, crowds of viewers and bad networks for any WHIP/WHEP/LL-HLS server"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Publish tables over WHIP until interrupted.
    Publish(publish::Args),
    /// Watch streams over WHEP with many viewers, and report what came.
    Watch(watch::Args),
    /// Watch streams over LL-HLS with many clients, and report what came.
    Hls(hls::Args),
    /// Let many viewers join at once, and report how soon they saw a picture.
    Storm(storm::Args),
    /// Attack a server of your own with viewers that misbehave, and report what the
    /// good ones beside them saw.
    Hostile(hostile::Args),
    /// Put a bad network between two UDP endpoints.
    Impair(impair::Args),
}

/// Runs the command that the arguments name.
pub fn run() -> ExitCode {
    let command = Cli::parse().command;
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.into()),
    };
    let done = runtime.block_on(async {
        match command {
            Command::Publish(args) => publish::run(args).await,
            Command::Watch(args) => watch::run(args).await,
            Command::Hls(args) => hls::run(args).await,
            Command::Storm(args) => storm::run(args).await,
            Command::Hostile(args) => hostile::run(args).await,
            Command::Impair(args) => impair::run(args).await,
        }
    });
    match done {
        Ok(missed) if missed.is_empty() => ExitCode::SUCCESS,
        Ok(missed) => {
            missed.iter().for_each(|line| progress::say(&format!("missed: {line}\n")));
            ExitCode::from(MISSED)
        }
        Err(error) => failed(&error),
    }
}

fn failed(error: &anyhow::Error) -> ExitCode {
    let hint = hint_for(error).map(|hint| format!(" ({hint})")).unwrap_or_default();
    progress::say(&format!("error: {error}{hint}\n"));
    ExitCode::from(FAILED)
}

/// A hint, for errors that have an obvious next step.
fn hint_for(error: &anyhow::Error) -> Option<&'static str> {
    if let Some(hls) = error.chain().find_map(|cause| cause.downcast_ref::<HlsError>()) {
        return hls.hint();
    }
    let peer = error.chain().find_map(|cause| {
        if let Some(PublishError::Peer(peer)) = cause.downcast_ref() {
            return Some(peer);
        }
        if let Some(WatchError::Peer(peer)) = cause.downcast_ref() {
            return Some(peer);
        }
        match cause.downcast_ref() {
            Some(CrowdError::Peer(peer) | CrowdError::Join(JoinError::Peer(peer))) => Some(peer),
            Some(CrowdError::NoMedia(_)) => Some(&PeerError::Timeout),
            _ => cause.downcast_ref(),
        }
    });
    peer.and_then(hint)
}
