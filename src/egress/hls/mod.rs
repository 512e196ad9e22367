//! Low-Latency HLS: the mass channel, and the fallback where WebRTC cannot pass.
//!
//! ```text
//!  service ─ packager      one task per table, over its publications
//!     table ─┬ segmenter ─ cutter ─ fmp4         samples → parts → segments
//!            ├ store ─ playlist ─ render         what is listed and fetchable
//!            └ daterange, outage, multivariant   what else playlists say
//!     live                  the newest version of each, for
//!  http ─ blocking          answer now, later, or not at all
//!    └ session              who watches, and how well
//! ```
//!
//! All but `service`, `packager` and `http` is sans-IO. The table publishes an immutable
//! snapshot per part over a watch channel; everybody who waits for a version
//! shares its one rendered and gzipped playlist, so the cost of a playlist does
//! not grow with viewers. VP8 has no place in fMP4 for HLS players: such a table
//! is audio only here, and absent when it has no sound.

mod blocking;
mod cutter;
mod daterange;
mod fmp4;
#[doc(hidden)]
pub mod fuzzing;
mod http;
mod live;
mod multivariant;
mod outage;
mod packager;
mod playlist;
mod render;
mod sample;
mod segmenter;
mod service;
mod session;
mod store;
mod table;
#[cfg(test)]
mod tests;
mod view;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

pub use daterange::{DateRange, DateRangeError};
pub use http::{accepts_gzip, router};
pub use outage::OUTAGE_CLASS;
use service::Tables;
use session::Sessions;

use crate::hub::{Registry, TableName};
use crate::qos::{Scrape, names};
use crate::time::Clock;

/// How LL-HLS is made and served. Checked by the configuration, not here.
#[derive(Debug, Clone)]
pub struct HlsSettings {
    /// PART-TARGET: no part is longer.
    pub part_target: Duration,
    /// Segments end at the first keyframe near this length; TARGETDURATION is
    /// this, rounded up to seconds.
    pub segment_target: Duration,
    /// Content that a playlist lists.
    pub window: Duration,
    /// Bytes of media held per rendition; past it the oldest segments go early.
    pub max_window_bytes: usize,
    /// List gaps before the first media, so that a young playlist is long enough
    /// (`docs/decisions/0015-restarts-and-gaps.md`).
    pub leading_gaps: bool,
    /// How long a table whose publication ended goes on with gaps, for another one to
    /// take it up; at zero it ends at once.
    pub restart_wait: Duration,
    /// How long an ended table can still be fetched.
    pub linger: Duration,
    /// Ended tables that can be fetched at once; past it the oldest goes early.
    pub max_lingering: usize,
    /// How long a request may wait for a stream that has just started.
    pub start_wait: Duration,
    /// Requests that may be held at once, over all tables; more get 503.
    pub max_held_requests: u64,
    /// Whether the multivariant playlist gives each viewer a pass of its own, by which it
    /// is accounted for.
    pub sessions: bool,
    /// Sessions at once, over all tables; more viewers are served without one. A session
    /// takes 176 bytes.
    pub max_sessions: usize,
}

impl Default for HlsSettings {
    fn default() -> Self {
        Self {
            part_target: Duration::from_millis(500),
            segment_target: Duration::from_secs(2),
            window: Duration::from_secs(30),
            max_window_bytes: 64 << 20,
            leading_gaps: false,
            restart_wait: Duration::from_secs(10),
            linger: Duration::from_secs(30),
            max_lingering: 200,
            start_wait: Duration::from_secs(5),
            max_held_requests: 100_000,
            sessions: true,
            max_sessions: 100_000,
        }
    }
}

/// What LL-HLS did so far. Read by the metrics; each field says what it counts.
#[derive(Debug, Default)]
pub struct HlsStats {
    /// Requests for multivariant playlists.
    pub multivariant_requests: AtomicU64,
    /// Requests for media playlists.
    pub playlist_requests: AtomicU64,
    /// Requests for parts.
    pub part_requests: AtomicU64,
    /// Requests for segments.
    pub segment_requests: AtomicU64,
    /// Requests for init segments.
    pub init_requests: AtomicU64,
    /// Requests that are being held now (a gauge).
    pub held_requests: AtomicU64,
    /// Requests that were held too long and got 503.
    pub timed_out_requests: AtomicU64,
    /// Requests refused because too many were held.
    pub refused_requests: AtomicU64,
    /// Bytes of answers' bodies that connections took.
    pub bytes_out: AtomicU64,
    /// Parts made.
    pub parts: AtomicU64,
    /// Segments completed.
    pub segments: AtomicU64,
    /// Segments that are gaps because no media came.
    pub gap_segments: AtomicU64,
    /// Video segments that had to begin without a keyframe, because it was late.
    pub unaligned_segments: AtomicU64,
    /// Frames dropped because a packager's queue was full.
    pub frames_dropped_queue: AtomicU64,
    /// Frames dropped because they could not be decoded or placed on the timeline.
    pub frames_dropped_unusable: AtomicU64,
    /// Tables whose packaging failed by a fault of the gateway, and began anew.
    pub packagers_failed: AtomicU64,
    /// Keyframes asked for.
    pub keyframes_asked: AtomicU64,
}

/// The LL-HLS side of the gateway. Shared as `Arc<Hls>`.
pub struct Hls {
    settings: HlsSettings,
    registry: Arc<Registry>,
    clock: Clock,
    stats: Arc<HlsStats>,
    sessions: Sessions,
    tables: Mutex<Tables>,
}

impl Hls {
    /// Viewers of a table: its sessions, and an estimate of those without one. That is
    /// the most of their requests of its leading rendition that were waiting for one
    /// version, over the newest versions. A low-latency player always has exactly one
    /// such request; players that do not block are not in it.
    pub fn viewers(&self, table: &TableName) -> usize {
        let estimate = self.live(table).map_or(0, |live| live.viewers());
        let audience = self.sessions.audience(table);
        let sessions = audience.map_or(0, |audience| audience.viewers.load(Ordering::Relaxed));
        estimate + sessions as usize
    }

    /// Ends the sessions of viewers that have gone. To be called about once a second.
    pub fn sweep(&self, now: Instant) {
        self.sessions.poll_expired(now, |table| self.live(table).is_some_and(|live| !live.ended()));
    }

    /// Reports what the viewers of each table got, and requests without a session.
    pub fn scrape_sessions(&self, scrape: &mut Scrape) {
        for (reason, requests) in self.sessions.unaccounted() {
            scrape.count(&names::HLS_UNACCOUNTED, &[reason], requests);
        }
        for stream in self.registry.list() {
            if let Some(audience) = self.sessions.audience(&stream.table) {
                audience.scrape(scrape, stream.table.as_str());
            }
        }
    }

    /// What was done so far.
    pub fn stats(&self) -> &Arc<HlsStats> {
        &self.stats
    }

    #[cfg(test)]
    fn tables(&self) -> usize {
        self.lock().by_name.len()
    }
}

/// Adds to a counter of [`HlsStats`].
fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}
