//! Words to the terminal: standard error for people, one line that is rewritten.

use std::io::{IsTerminal as _, Write as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use railbird_loadgen::crowd::live::Live;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;

const WIDTH: usize = 24;
const EVERY: Duration = Duration::from_millis(500);

/// Writes to standard error; a closed terminal is no reason to stop.
pub fn say(text: &str) {
    let mut out = std::io::stderr();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Whether a person looks at standard error.
pub fn has_audience() -> bool {
    std::io::stderr().is_terminal()
}

/// Shows a crowd of `viewers` on a terminal until aborted.
pub fn show(live: Arc<Live>, viewers: usize) -> JoinHandle<()> {
    let mut last = live.counts();
    rewrite(viewers, move |seconds| {
        let counts = live.counts();
        let words = format!(
            "{} connected, {} with picture, {} refused, {} ended, {:.0} Mbit/s",
            counts.connected,
            counts.first_frames,
            counts.refused,
            counts.ended,
            (counts.bytes - last.bytes) as f64 * 8.0 / 1e6 / seconds,
        );
        last = counts;
        (counts.first_frames + counts.refused, words)
    })
}

/// Rewrites a line on a terminal until aborted: a bar of how many of `all` have settled,
/// and words. `look` is told the seconds since it looked before.
pub fn rewrite(
    all: usize,
    mut look: impl FnMut(f64) -> (u64, String) + Send + 'static,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut tick = tokio::time::interval(EVERY);
        let mut at = Instant::now();
        while has_audience() {
            tick.tick().await;
            let (settled, words) = look(at.elapsed().as_secs_f64().max(1e-3));
            let settled = settled.min(all as u64) as usize;
            let filled = (settled * WIDTH).checked_div(all).unwrap_or(WIDTH);
            say(&format!("\r[{}{}] {words}   ", "#".repeat(filled), ".".repeat(WIDTH - filled)));
            at = Instant::now();
        }
    })
}

/// Ends the line that [`rewrite`] rewrites.
pub fn end(shown: &JoinHandle<()>) {
    shown.abort();
    if has_audience() {
        say("\n");
    }
}

/// Resolves after `duration`, if any, or when told to end by Ctrl-C or SIGTERM, so that
/// sessions are deleted and not left to time out.
pub async fn over(duration: Option<Duration>) {
    let terminated = async {
        match signal(SignalKind::terminate()) {
            Ok(mut signal) => drop(signal.recv().await),
            Err(_) => std::future::pending().await,
        }
    };
    let timer = async {
        match duration {
            Some(duration) => tokio::time::sleep(duration).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = timer => {}
        _ = tokio::signal::ctrl_c() => {}
        () = terminated => {}
    }
}
