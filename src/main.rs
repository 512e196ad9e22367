//! The command line: `serve`, `check` and `demo`.

use std::io::{Write, stderr, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use railbird::{app, config, logging};

/// Thousands of connections that come and go: half the time of glibc's for an LL-HLS
/// answer, and what they held is given back (docs/tuning.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Tasks that still run then are left behind; the gateway itself has stopped.
const RUNTIME_STOP: Duration = Duration::from_secs(1);

/// Live-streaming edge gateway for live-dealer tables.
#[derive(Parser)]
#[command(name = "railbird", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the gateway.
    Serve {
        /// Configuration file (TOML).
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        #[command(flatten)]
        tls: DevTls,
    },
    /// Checks a configuration file and reports everything that is wrong with it.
    Check {
        /// Configuration file (TOML).
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Runs the gateway with a synthetic dealer's table already live.
    #[cfg(feature = "demo")]
    Demo {
        /// Configuration file (TOML); defaults without it.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        #[command(flatten)]
        tls: DevTls,
    },
}

#[derive(Args)]
struct DevTls {
    /// Serve HTTPS with a self-signed certificate when none is configured.
    #[arg(long)]
    dev_tls: bool,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Serve { config, tls } => run(Some(&config), tls.dev_tls, false),
        Command::Check { config } => check(&config),
        #[cfg(feature = "demo")]
        Command::Demo { config, tls } => run(config.as_deref(), tls.dev_tls, true),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Configuration errors take a line each; others read best as one.
            let _ = writeln!(stderr(), "{}", format!("{error:#}").trim_end());
            ExitCode::FAILURE
        }
    }
}

fn check(file: &Path) -> anyhow::Result<()> {
    config::load(Some(file))?;
    writeln!(stdout(), "{}: ok", file.display())?;
    Ok(())
}

fn run(file: Option<&Path>, dev_tls: bool, demo: bool) -> anyhow::Result<()> {
    let config = config::load(file)?;
    logging::start(&config.log);
    // The allocator asks for huge pages, which hold as much for a connection's buffers of
    // which a tenth is used. Where they cannot be refused, it only takes more memory.
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(app::run(config, app::Options { dev_tls, demo }));
    runtime.shutdown_timeout(RUNTIME_STOP);
    outcome
}
