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

/// Epochs that are told apart: more than an answer may stand still, so that none comes
/// round to the place of the current one.
const EPOCHS: usize = 8;

/// Shared by the connection's task and its requests.
#[derive(Debug, Default)]
pub(super) struct Activity {
    /// Requests that ever came.
    requests: AtomicU64,
    /// Requests that are not answered to the last byte.
    open: AtomicU32,
    /// A request came or went since it was looked at last.
    progress: AtomicBool,
    /// Counts stretches of time.
    epoch: AtomicU32,
    /// Answers that wait for the client to take more, by the epoch in which it last did.
    unread: [AtomicU32; EPOCHS],
}

impl Activity {
    /// An answer that stood still for more epochs than this is not read any more.
    pub(super) const UNREAD_EPOCHS: u32 = 4;

    /// A request has come; the guard stands for it.
    pub(super) fn begin(self: &Arc<Self>) -> Stream {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.open.fetch_add(1, Ordering::Relaxed);
        self.progress.store(true, Ordering::Relaxed);
        Stream { activity: self.clone(), unread_since: None }
    }

    /// Requests that ever came.
    pub(super) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// No request is open.
    pub(super) fn is_idle(&self) -> bool {
        self.open.load(Ordering::Relaxed) == 0
    }

    /// Whether a request came or went since the last call.
    pub(super) fn take_progress(&self) -> bool {
        self.progress.swap(false, Ordering::Relaxed)
    }

    /// Time goes on. An epoch has the same length each time.
    pub(super) fn next_epoch(&self) {
        self.epoch.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether the client leaves an answer unread, whatever else it asks for meanwhile.
    pub(super) fn has_unread(&self) -> bool {
        let now = self.epoch.load(Ordering::Relaxed);
        let mut late = Self::UNREAD_EPOCHS + 1..EPOCHS as u32;
        late.any(|age| self.unread_in(now.wrapping_sub(age)).load(Ordering::Relaxed) > 0)
    }

    fn unread_in(&self, epoch: u32) -> &AtomicU32 {
        &self.unread[epoch as usize % EPOCHS]
    }
}

/// One request, until its answer's body is gone.
pub(super) struct Stream {
    activity: Arc<Activity>,
    /// The epoch in which the client last took of the answer, while there is more of it.
    unread_since: Option<u32>,
}

impl Stream {
    /// Follows the body of the answer.
    pub(super) fn watch(mut self, response: Response) -> hyper::Response<Watched> {
        self.wait_for_client();
        response.map(|body| Watched { body, stream: self })
    }

    /// There is more for the client to take, from now on.
    fn wait_for_client(&mut self) {
        self.stop_waiting();
        let now = self.activity.epoch.load(Ordering::Relaxed);
        self.activity.unread_in(now).fetch_add(1, Ordering::Relaxed);
        self.unread_since = Some(now);
    }

    fn stop_waiting(&mut self) {
        if let Some(since) = self.unread_since.take() {
            self.activity.unread_in(since).fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.stop_waiting();
        self.activity.progress.store(true, Ordering::Relaxed);
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
        // A body that has nothing to give for a while is not the client's fault.
        match polled.is_ready() {
            true => self.stream.wait_for_client(),
            false => self.stream.stop_waiting(),
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
    use hyper::body::Body as _;

    use super::*;

    fn epochs(activity: &Activity, count: u32) {
        (0..count).for_each(|_| activity.next_epoch());
    }

    fn poll(response: &mut hyper::Response<Watched>) -> bool {
        let mut context = Context::from_waker(std::task::Waker::noop());
        Pin::new(response.body_mut()).poll_frame(&mut context).is_ready()
    }

    #[test]
    fn a_request_is_open_until_its_body_is_gone() {
        let activity = Arc::new(Activity::default());
        assert!(activity.is_idle() && !activity.take_progress());
        let stream = activity.begin();
        assert!(!activity.is_idle() && activity.take_progress());
        let response = stream.watch(Response::new(Body::from("x")));
        assert!(!activity.is_idle() && !activity.take_progress());
        drop(response);
        assert!(activity.is_idle() && activity.take_progress());
        assert_eq!(activity.requests(), 1);
    }

    #[test]
    fn an_answer_that_is_not_read_is_found_beside_others_that_are() {
        let activity = Arc::new(Activity::default());
        let held = activity.begin();
        let mut left = activity.begin().watch(Response::new(Body::from("x")));
        for _ in 0..Activity::UNREAD_EPOCHS {
            activity.next_epoch();
            let mut read = activity.begin().watch(Response::new(Body::from("x")));
            assert!(poll(&mut read));
            assert!(!activity.has_unread());
        }
        assert!(poll(&mut left), "it is read after all");
        epochs(&activity, Activity::UNREAD_EPOCHS);
        assert!(!activity.has_unread());
        activity.next_epoch();
        assert!(activity.has_unread());
        drop(left);
        assert!(!activity.has_unread(), "who waits for a handler reads nothing");
        drop(held);
    }

    #[test]
    fn a_body_that_has_nothing_to_give_is_not_unread() {
        struct Silent;
        impl hyper::body::Body for Silent {
            type Data = Bytes;
            type Error = std::convert::Infallible;
            fn poll_frame(
                self: Pin<&mut Self>,
                _: &mut Context<'_>,
            ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
                Poll::Pending
            }
        }
        let activity = Arc::new(Activity::default());
        let mut response = activity.begin().watch(Response::new(Body::new(Silent)));
        assert!(!poll(&mut response));
        epochs(&activity, 3 * EPOCHS as u32);
        assert!(!activity.has_unread());
    }
}
