//! When to ask the publisher for a keyframe (PLI, RFC 4585 §6.3.1): one request
//! an interval while one is wanted, however many want it.

use std::time::{Duration, Instant};

/// The keyframe requests of one layer. owner: its layer.
pub(super) struct KeyframeRequests {
    interval: Duration,
    wanted: bool,
    sent: Option<Instant>,
}

impl KeyframeRequests {
    pub(super) fn new(interval: Duration) -> Self {
        Self { interval, wanted: false, sent: None }
    }

    /// Somebody wants one. It stays wanted until [`Self::arrived`].
    pub(super) fn want(&mut self) {
        self.wanted = true;
    }

    /// A keyframe began.
    pub(super) fn arrived(&mut self) {
        self.wanted = false;
    }

    /// When the next request is to be sent; `None` when none is wanted.
    /// `now` stands for "at once".
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        self.wanted.then(|| self.sent.map_or(now, |sent| sent + self.interval))
    }

    /// True when a request is to be sent now; it counts as sent.
    pub(super) fn take_due(&mut self, now: Instant) -> bool {
        let due = self.due(now).is_some_and(|due| due <= now);
        if due {
            self.sent = Some(now);
        }
        due
    }
}
