//! One task per table: takes frames off a bounded queue, has them cut, and follows the
//! table from one publication to the next.
//!
//! The hub calls [`FrameQueue`] on the publisher's thread; everything after the
//! queue happens on the runtime. The work is [`Table`]'s; here are the queue, the clock
//! and the end.

#![allow(clippy::disallowed_methods, reason = "the I/O shell: a task that waits on the clock")]

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::sleep_until;

pub use super::live::{Live, Published, Rendition};
use super::segmenter::RenditionSource;
use super::store::Numbers;
use super::table::{Plan, Table};
use super::{HlsSettings, HlsStats, count};
use crate::hub::{FrameSink, StreamId, TableName};
use crate::media::{Frame, LayerId};

/// Frames that may wait: more than a replayed GOP of five seconds at 60 frames/s
/// with its sound. When full, frames are dropped and counted, and the layer
/// resumes at its next random access point.
const FRAME_QUEUE: usize = 1024;

/// Where a packager's media comes from.
pub struct Source {
    /// The publication; `None` when it is not the hub's (tests).
    pub stream: Option<StreamId>,
    /// The table that it plays at.
    pub table: TableName,
    /// Opens the names of all resources; differs between tables that ended and those
    /// that came after them.
    pub token: String,
    /// The layers to package, the leading one first.
    pub renditions: Vec<RenditionSource>,
    /// Asks the source for a random access point.
    pub request_keyframe: Box<dyn Fn(LayerId) + Send>,
}

/// A frame on its way to the packager.
struct Queued {
    layer: LayerId,
    frame: Arc<Frame>,
    /// Frames of the layer were dropped before this one.
    after_loss: bool,
}

/// The hub's end of the queue.
pub struct FrameQueue {
    /// `None` once the stream has ended.
    sender: Option<mpsc::Sender<Queued>>,
    /// The layers wanted, and whether the newest frame of each was dropped.
    layers: Vec<(LayerId, bool)>,
    stats: Arc<HlsStats>,
}

impl FrameSink for FrameQueue {
    fn frame(&mut self, layer: LayerId, frame: &Arc<Frame>) {
        let Some(sender) = &self.sender else { return };
        let Some((_, lost)) = self.layers.iter_mut().find(|(wanted, _)| *wanted == layer) else {
            return;
        };
        let queued = Queued { layer, frame: frame.clone(), after_loss: *lost };
        match sender.try_send(queued) {
            Ok(()) => *lost = false,
            Err(TrySendError::Full(_)) => {
                *lost = true;
                count(&self.stats.frames_dropped_queue, 1);
            }
            // The packager follows another publication: nothing is lost here.
            Err(TrySendError::Closed(_)) => self.sender = None,
        }
    }

    fn ended(&mut self) {
        self.sender = None;
    }
}

/// owner: one task.
pub struct Packager {
    table: Table,
    /// The layers of this publication.
    sources: Vec<RenditionSource>,
    queue: mpsc::Receiver<Queued>,
    request_keyframe: Box<dyn Fn(LayerId) + Send>,
    stats: Arc<HlsStats>,
}

impl Packager {
    /// A packager, and its table with nothing in it yet, counted from `numbers`. `None`
    /// when there is nothing that HLS can carry.
    pub fn new(
        settings: &HlsSettings,
        source: Source,
        numbers: Numbers,
        stats: Arc<HlsStats>,
    ) -> Option<Self> {
        let Source { table, token, renditions, request_keyframe, .. } = source;
        let plan = Plan { table, token, renditions: renditions.clone(), numbers };
        let table = Table::new(settings, plan, stats.clone())?;
        // Ends at once, until there is a sink.
        let (_, queue) = mpsc::channel(1);
        Some(Self { table, sources: renditions, queue, request_keyframe, stats })
    }

    /// The table that it feeds.
    pub const fn live(&self) -> &Arc<Live> {
        self.table.live()
    }

    /// The way in. A sink that is asked for again replaces the one before.
    pub fn sink(&mut self) -> FrameQueue {
        let (sender, queue) = mpsc::channel(FRAME_QUEUE);
        self.queue = queue;
        let layers = self.sources.iter().map(|source| (source.layer, false)).collect();
        FrameQueue { sender: Some(sender), layers, stats: self.stats.clone() }
    }

    /// Packages until the sink is gone or has ended, and ends the playlists. Time passes
    /// with the frames alone: where none come, there are no gaps.
    #[cfg(test)]
    pub async fn run(mut self) {
        while let Some(Queued { layer, frame, after_loss }) = self.queue.recv().await {
            self.table.handle_frame(layer, &frame, after_loss);
            while let Some(layer) = self.table.poll_keyframe_request() {
                (self.request_keyframe)(layer);
            }
        }
        self.finish();
    }

    /// Packages until the sink is gone or has ended, or `interrupt` completes. The
    /// playlists stay as they are.
    pub async fn follow(&mut self, interrupt: impl Future<Output = ()>) {
        let mut interrupt = pin!(interrupt);
        loop {
            let due = self.table.poll_timeout();
            tokio::select! {
                queued = self.queue.recv() => match queued {
                    Some(Queued { layer, frame, after_loss }) => {
                        self.table.handle_frame(layer, &frame, after_loss);
                    }
                    None => return,
                },
                () = wait_until(due) => self.table.handle_timeout(Instant::now()),
                () = &mut interrupt => return,
            }
            while let Some(layer) = self.table.poll_keyframe_request() {
                (self.request_keyframe)(layer);
            }
        }
    }

    /// The publication is over. What time passes is gaps, for `patience` or until
    /// `next` completes: then its result.
    pub async fn idle<T>(
        &mut self,
        patience: Duration,
        next: impl Future<Output = T>,
    ) -> Option<T> {
        if patience.is_zero() {
            return None;
        }
        let end = Instant::now() + patience;
        self.table.end_publication(Instant::now());
        let mut next = pin!(next);
        loop {
            let due = self.table.poll_timeout().filter(|due| *due < end);
            tokio::select! {
                next = &mut next => return Some(next),
                () = wait_until(due.or(Some(end))) => {
                    let now = Instant::now();
                    self.table.handle_timeout(now);
                    if now >= end {
                        return None;
                    }
                }
            }
        }
    }

    /// Goes on with another publication of the table. When it cannot, because players
    /// would have to know of it, the source comes back.
    ///
    /// # Errors
    /// The source, when its renditions are not the table's.
    pub fn continue_with(&mut self, source: Source) -> Result<(), Source> {
        if !self.table.continues(&source.renditions) {
            return Err(source);
        }
        let (table, stream) = (&source.table, source.stream);
        tracing::info!(%table, ?stream, "another publication takes the table up");
        self.table.start_publication(&source.renditions, Instant::now());
        self.sources = source.renditions;
        self.request_keyframe = source.request_keyframe;
        Ok(())
    }

    /// Releases what is held and ends the playlists. Returns from where a later table
    /// of the same name counts.
    pub fn finish(mut self) -> Numbers {
        self.table.finish(Instant::now());
        self.table.numbers()
    }
}

/// Never, when there is no instant.
pub(super) async fn wait_until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}
