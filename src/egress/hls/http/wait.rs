//! Requests that wait for a version, and what bounds them.
#![allow(clippy::disallowed_methods, reason = "the I/O shell: requests wait on the clock")]

use std::sync::atomic::{AtomicUsize, Ordering};

use axum::http::StatusCode;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::super::{Hls, HlsStats, count};
use super::not_live;
use crate::problem::Problem;

/// Looks at each version until `pick` takes something from one.
pub(super) async fn wait<V, T>(
    hls: &Hls,
    published: &mut watch::Receiver<V>,
    deadline: Instant,
    too_late: fn() -> Problem,
    mut pick: impl FnMut(&V) -> Result<Option<T>, Problem>,
) -> Result<T, Problem> {
    if let Some(picked) = pick(&published.borrow_and_update())? {
        return Ok(picked);
    }
    let _held = Held::new(hls)?;
    loop {
        match timeout_at(deadline, published.changed()).await {
            Ok(Ok(())) => {}
            // The sender lives in the table that the caller holds.
            Ok(Err(_)) => return Err(not_live()),
            Err(_) => {
                count(&hls.stats.timed_out_requests, 1);
                return Err(too_late());
            }
        }
        if let Some(picked) = pick(&published.borrow_and_update())? {
            return Ok(picked);
        }
    }
}

/// Counts a held request while it lives, and bounds their number.
struct Held<'a>(&'a HlsStats);

impl<'a> Held<'a> {
    fn new(hls: &'a Hls) -> Result<Self, Problem> {
        let held = Self(&hls.stats);
        let before = hls.stats.held_requests.fetch_add(1, Ordering::Relaxed);
        if before < hls.settings.max_held_requests {
            return Ok(held);
        }
        count(&hls.stats.refused_requests, 1);
        Err(Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "too-many-requests-held",
            "Too many requests are waiting",
            "the gateway holds as many playlist requests as it is allowed to",
        )
        .retry_after(1))
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.held_requests.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts a playlist request of one rendition while it lives.
pub(super) struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    pub(super) fn new(counter: &'a AtomicUsize) -> Self {
        counter.fetch_add(1, Ordering::Relaxed);
        Self(counter)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
