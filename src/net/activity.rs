//! What goes on in one HTTP connection, so that its shell can tell when it is idle or
//! stuck. HTTP/2 has no timer of its own for either: its pings are answered by clients
//! that ask nothing and by those that never open a stream's window (RFC 9113 §10.5).

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::response::Response;
use hyper::body::{Frame, SizeHint};

/// Shared by the connection's task and its requests.
#[derive(Debug, Default)]
pub(super) struct Activity {
    /// Requests that ever came.
    requests: AtomicU64,
    /// Requests whose handler runs; handlers bound their own time.
    handling: AtomicU32,
    /// Requests that are not answered to the last byte.
    open: AtomicU32,
    /// Something moved since it was looked at last.
    progress: AtomicBool,
}

impl Activity {
    /// A request has come; the guard stands for it.
    pub(super) fn begin(self: &Arc<Self>) -> Stream {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.handling.fetch_add(1, Ordering::Relaxed);
        self.open.fetch_add(1, Ordering::Relaxed);
        self.progress.store(true, Ordering::Relaxed);
        Stream { activity: self.clone(), handling: true }
    }

    /// Requests that ever came.
    pub(super) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// No request is open.
    pub(super) fn is_idle(&self) -> bool {
        self.open.load(Ordering::Relaxed) == 0
    }

    /// A handler works on an answer.
    pub(super) fn is_handling(&self) -> bool {
        self.handling.load(Ordering::Relaxed) > 0
    }

    /// Whether a request came, was answered or took bytes since the last call.
    pub(super) fn take_progress(&self) -> bool {
        self.progress.swap(false, Ordering::Relaxed)
    }
}

/// One request, until its answer's body is gone.
pub(super) struct Stream {
    activity: Arc<Activity>,
    handling: bool,
}

impl Stream {
    /// Follows the body of the answer.
    pub(super) fn watch(mut self, response: Response) -> hyper::Response<Watched> {
        self.handled();
        response.map(|body| Watched { body, stream: self })
    }

    fn handled(&mut self) {
        self.activity.progress.store(true, Ordering::Relaxed);
        if std::mem::take(&mut self.handling) {
            self.activity.handling.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.handled();
        self.activity.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A body that tells when the connection takes bytes of it.
pub(super) struct Watched {
    body: Body,
    stream: Stream,
}

impl hyper::body::Body for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if polled.is_ready() {
            self.stream.activity.progress.store(true, Ordering::Relaxed);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_open_until_its_body_is_gone() {
        let activity = Arc::new(Activity::default());
        assert!(activity.is_idle() && !activity.take_progress());
        let stream = activity.begin();
        assert!(activity.is_handling() && !activity.is_idle() && activity.take_progress());
        let response = stream.watch(Response::new(Body::from("x")));
        assert!(!activity.is_handling() && !activity.is_idle() && activity.take_progress());
        assert!(!activity.take_progress());
        drop(response);
        assert!(activity.is_idle() && activity.take_progress());
        assert_eq!(activity.requests(), 1);
    }
}
