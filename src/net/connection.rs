//! HTTP on one connection, and its limits.
//!
//! How many requests there may be at once, how big a head may be, and how long a client may
//! ask nothing or leave answers unread. HTTP/1.1: RFC 9112; HTTP/2: RFC 9113.
#![allow(clippy::disallowed_methods, reason = "an I/O shell: it waits on the runtime's clock")]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::{Service, service_fn};
use hyper::{Request, Response, rt};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tower::ServiceExt;

use super::activity::{Activity, Watched};
use super::tcp::{Server, stopped};

/// Longest head of an HTTP/1 request, and of an HTTP/2 one; longer ones are answered 431.
const MAX_HEAD_BYTES: usize = 16 * 1024;

/// Requests in flight on one HTTP/2 connection; more wait at the client.
const MAX_STREAMS: u32 = 128;

/// Answer bytes buffered for one HTTP/2 stream; the handler's body waits beyond.
const MAX_STREAM_BUFFER: usize = 256 * 1024;

/// An HTTP/2 client that answers no ping for so long is gone.
const PING: Duration = Duration::from_secs(20);

/// Versions of HTTP. Who serves a connection knows which: a server that finds out by itself
/// keeps buffers of twice the size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    /// HTTP/1.0 and 1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

impl Server {
    /// Serves a connection until it ends, or its client is too slow.
    pub(super) async fn serve<Io>(
        &self,
        io: Io,
        protocol: Protocol,
        peer: SocketAddr,
        stop: watch::Receiver<bool>,
    ) where
        TokioIo<Io>: rt::Read + rt::Write + Unpin + Send + 'static,
    {
        let activity = Arc::new(Activity::default());
        let (io, service) = (TokioIo::new(io), self.service(&activity));
        let ended = match protocol {
            Protocol::Http1 => {
                let connection = pin!(http1().serve_connection(io, service));
                self.drive(connection, &activity, stop).await
            }
            // In a box: those in the clear are few, those over TLS have room for it anyway.
            Protocol::Http2 => {
                let mut connection = Box::pin(http2().serve_connection(io, service));
                self.drive(connection.as_mut(), &activity, stop).await
            }
        };
        if let Err(error) = ended {
            tracing::trace!(%peer, %error, "connection ended");
        }
    }

    fn service(
        &self,
        activity: &Arc<Activity>,
    ) -> impl Service<
        Request<Incoming>,
        Response = Response<Watched>,
        Error = Infallible,
        Future: Send + 'static,
    > + use<> {
        let (router, activity) = (self.router.clone(), activity.clone());
        service_fn(move |request: Request<Incoming>| {
            let stream = activity.begin();
            let response = router.clone().oneshot(request.map(body));
            async move { response.await.map(|response| stream.watch(response)) }
        })
    }

    async fn drive<Connection: GracefulConnection<Error = hyper::Error>>(
        &self,
        mut connection: Pin<&mut Connection>,
        activity: &Activity,
        mut stop: watch::Receiver<bool>,
    ) -> hyper::Result<()> {
        let period = self.limits.header_timeout;
        let mut look_at = interval_at(Instant::now() + period, period);
        look_at.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut quiet_periods, mut stopping) = (0, false);
        let mut epoch = Instant::now();
        loop {
            tokio::select! {
                biased;
                ended = connection.as_mut() => return ended,
                now = look_at.tick() => {
                    if now - epoch >= self.limits.unread_timeout / Activity::UNREAD_EPOCHS {
                        activity.next_epoch();
                        epoch = now;
                    }
                    if activity.requests() == 0 || activity.has_unread() {
                        self.stats.count_slow();
                        return Ok(());
                    }
                    quiet_periods = if activity.take_progress() { 0 } else { quiet_periods + 1 };
                    match (activity.is_idle(), quiet_periods) {
                        (false, _) | (true, 0) => {}
                        // What is buffered may still leave.
                        (true, 1) => connection.as_mut().graceful_shutdown(),
                        (true, _) => return Ok(()),
                    }
                }
                () = stopped(&mut stop), if !stopping => {
                    stopping = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }
}

fn http1() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        // [`Server::drive`] bounds the time: a timer per request would be another.
        .header_read_timeout(None)
        .max_buf_size(MAX_HEAD_BYTES);
    builder
}

fn http2() -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEAD_BYTES as u32)
        .max_send_buf_size(MAX_STREAM_BUFFER)
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING);
    builder
}

/// The body of a request; most have none, and cost nothing.
fn body(incoming: Incoming) -> Body {
    if incoming.is_end_stream() { Body::empty() } else { Body::new(incoming) }
}

#[cfg(test)]
#[path = "connection_tests.rs"]
mod tests;
