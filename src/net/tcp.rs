//! HTTP over TCP: listeners, and a task per connection with its limits.
//!
//! What a client can do to a connection is bounded here: how many there are, how
//! long the first request may take (TLS handshake and HTTP/2 preface included),
//! how big a head may be, how long a connection may be idle or leave its answers
//! unread, and how long a stop waits. What a request may do is bounded by the router.
//! HTTP/1.1: RFC 9112; HTTP/2: RFC 9113, by ALPN over TLS or prior knowledge without.
#![allow(clippy::disallowed_methods, reason = "an I/O shell: it waits on the runtime's clock")]

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::{Body as _, Incoming};
use hyper::service::service_fn;
use hyper::{Request, rt};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

use super::activity::Activity;
use super::dscp::Dscp;

/// Connections that may wait for `accept`; more are refused by the kernel.
const BACKLOG: i32 = 4096;

/// Longest head of an HTTP/1 request, and of an HTTP/2 one; longer ones are answered 431.
const MAX_HEAD_BYTES: usize = 16 * 1024;

/// Requests in flight on one HTTP/2 connection; more wait at the client.
const MAX_STREAMS: u32 = 128;

/// Answer bytes buffered for one HTTP/2 stream; the handler's body waits beyond.
const MAX_STREAM_BUFFER: usize = 256 * 1024;

/// An HTTP/2 client that answers no ping for so long is gone.
const PING: Duration = Duration::from_secs(20);

/// A client that takes no byte for so long is disconnected: by the kernel when the
/// connection stands still, by [`Activity`] when HTTP/2 keeps its streams' windows shut.
pub const UNREAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Pause after a failed `accept`: out of descriptors is the usual cause, and
/// trying at once would only burn the core.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections past the limit that are told so; beyond that they are just closed.
const MAX_REFUSALS: usize = 64;

const REFUSAL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
    Content-Type: application/problem+json\r\nRetry-After: 5\r\nConnection: close\r\n\
    Content-Length: 139\r\n\r\n\
    {\"type\":\"urn:railbird:problem:too-many-connections\",\"title\":\"Too many connections\",\
    \"status\":503,\"detail\":\"The gateway is full; try later.\"}";

/// What bounds the connections of one listener group.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at once.
    pub max_connections: usize,
    /// Time to the first request, for a later request's head, and between two.
    pub header_timeout: Duration,
    /// Time that open requests have when the gateway stops.
    pub shutdown_timeout: Duration,
    /// Time after which a client that takes no byte of its answers is disconnected.
    pub unread_timeout: Duration,
}

/// Counters of one listener group. Read at scrape time.
#[derive(Debug, Default)]
pub struct Stats {
    open: AtomicU64,
    full: AtomicU64,
    slow: AtomicU64,
    tls: AtomicU64,
    accept: AtomicU64,
    unmarked: AtomicU64,
}

impl Stats {
    /// Connections open now.
    pub fn open(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    /// Connections that go unmarked because the system refused their DSCP.
    pub fn unmarked(&self) -> u64 {
        self.unmarked.load(Ordering::Relaxed)
    }

    /// Connections closed before they were served, by reason.
    pub fn refused(&self) -> [(&'static str, u64); 4] {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [
            ("full", read(&self.full)),
            ("slow", read(&self.slow)),
            ("tls", read(&self.tls)),
            ("accept", read(&self.accept)),
        ]
    }
}

/// The address of the client, as an extension of each request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerAddr(pub SocketAddr);

/// Binds a listener. An IPv6 address takes no IPv4, so that `0.0.0.0` and `[::]`
/// may stand side by side.
///
/// # Errors
/// What the system says, such as the port being taken. Must run within tokio.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// A group of listeners that serve the same router under the same limits.
pub struct Server {
    router: Router,
    tls: Option<TlsAcceptor>,
    limits: Limits,
    dscp: Dscp,
    stats: Arc<Stats>,
    slots: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
}

impl Server {
    /// A server of `router`, over TLS when `tls` is given.
    pub fn new(router: Router, tls: Option<TlsAcceptor>, limits: Limits) -> Self {
        let slots = Arc::new(Semaphore::new(limits.max_connections));
        let refusals = Arc::new(Semaphore::new(MAX_REFUSALS));
        let dscp = Dscp::UNMARKED;
        Self { router, tls, limits, dscp, stats: Arc::default(), slots, refusals }
    }

    /// Marks the packets of its connections.
    #[must_use]
    pub fn marked(mut self, dscp: Dscp) -> Self {
        self.dscp = dscp;
        self
    }

    /// The counters.
    pub fn stats(&self) -> Arc<Stats> {
        self.stats.clone()
    }

    /// Serves until `stop` is true (or its sender gone) and the connections have
    /// ended, which takes [`Limits::shutdown_timeout`] at most.
    pub async fn run(self, listeners: Vec<TcpListener>, stop: watch::Receiver<bool>) {
        let server = Arc::new(self);
        let mut accepting = JoinSet::new();
        for listener in listeners {
            accepting.spawn(server.clone().accept(listener, stop.clone()));
        }
        while accepting.join_next().await.is_some() {}
    }

    async fn accept(self: Arc<Self>, listener: TcpListener, mut stop: watch::Receiver<bool>) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => self.admit(&mut connections, stream, peer, &stop),
                    Err(error) => {
                        self.stats.accept.fetch_add(1, Ordering::Relaxed);
                        tracing::debug!(%error, "accept failed");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(_) = connections.join_next() => {}
                () = stopped(&mut stop) => break,
            }
        }
        drop(listener);
        // The connections have been told as well; this is the bound for the stubborn.
        let all_ended = async { while connections.join_next().await.is_some() {} };
        if timeout(self.limits.shutdown_timeout, all_ended).await.is_err() {
            tracing::debug!("connections cut off by the shutdown timeout");
        }
    }

    fn admit(
        self: &Arc<Self>,
        connections: &mut JoinSet<()>,
        stream: TcpStream,
        peer: SocketAddr,
        stop: &watch::Receiver<bool>,
    ) {
        match self.slots.clone().try_acquire_owned() {
            Ok(slot) => {
                connections.spawn(self.clone().connection(stream, peer, slot, stop.clone()));
            }
            Err(_) => {
                self.stats.full.fetch_add(1, Ordering::Relaxed);
                // Over TLS nothing readable can be said without a handshake.
                if self.tls.is_none()
                    && let Ok(permit) = self.refusals.clone().try_acquire_owned()
                {
                    connections.spawn(refuse(stream, permit));
                }
            }
        }
    }

    async fn connection(
        self: Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        _slot: OwnedSemaphorePermit,
        stop: watch::Receiver<bool>,
    ) {
        let _open = OpenGuard::new(self.stats.clone());
        if mark(&stream, peer, self.dscp).is_err() {
            self.stats.unmarked.fetch_add(1, Ordering::Relaxed);
        }
        // Without these options the connection is only worse, not wrong.
        let _ = stream.set_nodelay(true);
        #[cfg(target_os = "linux")]
        let _ = SockRef::from(&stream).set_tcp_user_timeout(Some(self.limits.unread_timeout));
        // In boxes: a connection in the clear is not to hold the room that TLS needs, nor
        // one with TLS the room of its handshake.
        match &self.tls {
            None => Box::pin(self.drive(stream, peer, stop)).await,
            Some(tls) => Box::pin(self.secure(tls, stream, peer, stop)).await,
        }
    }

    async fn secure(
        &self,
        tls: &TlsAcceptor,
        stream: TcpStream,
        peer: SocketAddr,
        stop: watch::Receiver<bool>,
    ) {
        let mut stopping = stop.clone();
        let accept = Box::pin(timeout(self.limits.header_timeout, tls.accept(stream)));
        let handshake = tokio::select! {
            handshake = accept => handshake,
            () = stopped(&mut stopping) => return,
        };
        match handshake {
            Ok(Ok(stream)) => Box::pin(self.drive(stream, peer, stop)).await,
            Ok(Err(error)) => {
                self.stats.tls.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(%peer, %error, "TLS handshake failed");
            }
            Err(_) => {
                self.stats.slow.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    async fn drive<Io>(&self, io: Io, peer: SocketAddr, mut stop: watch::Receiver<bool>)
    where
        TokioIo<Io>: rt::Read + rt::Write + Unpin + Send + 'static,
    {
        let activity = Arc::new(Activity::default());
        let service = {
            let activity = activity.clone();
            service_fn(move |mut request: Request<Incoming>| {
                let stream = activity.begin();
                request.extensions_mut().insert(PeerAddr(peer));
                let response = self.router.clone().oneshot(request.map(body));
                async move { response.await.map(|response| stream.watch(response)) }
            })
        };
        let builder = self.protocol();
        let mut connection = pin!(builder.serve_connection(TokioIo::new(io), service));
        let period = self.limits.header_timeout;
        let mut look_at = interval_at(Instant::now() + period, period);
        look_at.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let unread = self.limits.unread_timeout.as_millis();
        let unread_periods = unread.div_ceil(period.as_millis().max(1)) as u32;
        let (mut quiet_periods, mut stopping) = (0, false);
        loop {
            tokio::select! {
                biased;
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        tracing::trace!(%peer, %error, "connection ended");
                    }
                    return;
                }
                _ = look_at.tick() => {
                    quiet_periods = if activity.take_progress() { 0 } else { quiet_periods + 1 };
                    let asked_nothing = activity.requests() == 0;
                    let left_unread = quiet_periods > unread_periods && !activity.is_handling();
                    if asked_nothing || left_unread {
                        self.stats.slow.fetch_add(1, Ordering::Relaxed);
                        return;
                    }
                    match (activity.is_idle(), quiet_periods) {
                        (false, _) | (true, 0) => {}
                        // What is buffered may still leave.
                        (true, 1) => connection.as_mut().graceful_shutdown(),
                        (true, _) => return,
                    }
                }
                () = stopped(&mut stop), if !stopping => {
                    stopping = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }

    fn protocol(&self) -> auto::Builder<TokioExecutor> {
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            // [`Server::drive`] bounds the time: a timer per request would be another.
            .header_read_timeout(None)
            .max_buf_size(MAX_HEAD_BYTES);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(MAX_HEAD_BYTES as u32)
            .max_send_buf_size(MAX_STREAM_BUFFER)
            .keep_alive_interval(PING)
            .keep_alive_timeout(PING);
        builder
    }
}

/// The body of a request; most have none, and cost nothing.
fn body(incoming: Incoming) -> Body {
    if incoming.is_end_stream() { Body::empty() } else { Body::new(incoming) }
}

/// Marks what is sent to `peer`. The kernel looks at the option of the family of the
/// packets, which are IPv4 also to the mapped peers of an IPv6 socket.
fn mark(stream: &TcpStream, peer: SocketAddr, dscp: Dscp) -> io::Result<()> {
    if dscp == Dscp::UNMARKED {
        return Ok(());
    }
    let socket = SockRef::from(stream);
    if peer.ip().to_canonical().is_ipv6() {
        return socket.set_tclass_v6(dscp.tos().into());
    }
    socket.set_tos_v4(dscp.tos().into())?;
    // With the mark the kernel ranks the packets in the host's own queue, by rules that
    // make AF31 bulk (RFC 1349). They keep the rank that they have without.
    #[cfg(target_os = "linux")]
    let _ = socket.set_priority(0);
    Ok(())
}

/// Returns once `stop` is true or nobody can set it any more.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Says that the gateway is full. The request is waited for, because clients take an
/// answer that comes before it for an error, and then the client's end, because a
/// close with unread input would reset the connection.
async fn refuse(mut stream: TcpStream, _permit: OwnedSemaphorePermit) {
    let polite = async {
        let mut sink = [0; 1024];
        if stream.read(&mut sink).await? == 0 {
            return Ok(());
        }
        stream.write_all(REFUSAL).await?;
        stream.shutdown().await?;
        while stream.read(&mut sink).await? > 0 {}
        io::Result::Ok(())
    };
    let _ = timeout(Duration::from_secs(1), polite).await;
}

/// Counts a connection while it is open.
struct OpenGuard(Arc<Stats>);

impl OpenGuard {
    fn new(stats: Arc<Stats>) -> Self {
        stats.open.fetch_add(1, Ordering::Relaxed);
        Self(stats)
    }
}

impl Drop for OpenGuard {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refusal_announces_its_length() {
        let text = std::str::from_utf8(REFUSAL).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{}", body.len());
        assert!(serde_json::from_str::<serde_json::Value>(body).is_ok());
    }

    /// A body without end, and how much of it was taken.
    struct Endless(Arc<AtomicU64>);

    impl hyper::body::Body for Endless {
        type Data = bytes::Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<hyper::body::Frame<bytes::Bytes>, Self::Error>>>
        {
            const PIECE: &[u8] = &[0; 16 * 1024];
            self.0.fetch_add(PIECE.len() as u64, Ordering::Relaxed);
            let frame = hyper::body::Frame::data(bytes::Bytes::from_static(PIECE));
            std::task::Poll::Ready(Some(Ok(frame)))
        }
    }

    #[tokio::test]
    async fn a_client_that_reads_nothing_is_cut_off_and_little_is_kept_for_it() {
        let taken = Arc::new(AtomicU64::new(0));
        let body = taken.clone();
        let segment = async move || Body::new(Endless(body.clone()));
        let router = Router::new().route("/", axum::routing::get(segment));
        let limits = Limits {
            max_connections: 4,
            header_timeout: Duration::from_millis(50),
            shutdown_timeout: Duration::from_millis(100),
            unread_timeout: Duration::from_millis(200),
        };
        let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let server = Server::new(router, None, limits);
        let stats = server.stats();
        let (stop, stopping) = watch::channel(false);
        let running = tokio::spawn(server.run(vec![listener], stopping));
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let cut_off = async {
            while taken.load(Ordering::Relaxed) == 0 || stats.open() > 0 {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(20), cut_off).await.expect("it is still served");
        // What the kernel took for it on both sides, and our own buffer.
        let kernel = 16 << 20;
        assert!(taken.load(Ordering::Relaxed) < kernel, "{taken:?} bytes were made");
        stop.send_replace(true);
        running.await.unwrap();
    }

    /// Thousands of connections wait at once: each byte here is one of every viewer.
    #[tokio::test]
    async fn a_connection_in_the_clear_is_small() {
        let limits = Limits {
            max_connections: 1,
            header_timeout: Duration::from_secs(1),
            shutdown_timeout: Duration::from_secs(1),
            unread_timeout: Duration::from_secs(1),
        };
        let server = Arc::new(Server::new(Router::new(), None, limits));
        let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let peer = client.local_addr().unwrap();
        let (_stop, stopping) = watch::channel(false);
        let slot = server.slots.clone().try_acquire_owned().unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let inner = size_of_val(&server.drive(client, peer, stopping.clone()));
        let outer = size_of_val(&server.clone().connection(stream, peer, slot, stopping));
        assert!(outer <= 1024 && inner <= 6 * 1024, "{outer} and {inner} bytes");
    }

    #[tokio::test]
    async fn connections_are_marked_by_the_family_of_their_packets() {
        let open = |ip: [u16; 8], only_v6| {
            let socket = Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP)).unwrap();
            socket.set_only_v6(only_v6).unwrap();
            socket.bind(&SocketAddr::from((ip, 0)).into()).unwrap();
            socket.listen(1).unwrap();
            socket.set_nonblocking(true).unwrap();
            TcpListener::from_std(socket.into()).unwrap()
        };
        let accept = async |listener: TcpListener, ip: &str| {
            let port = listener.local_addr().unwrap().port();
            let client = TcpStream::connect((ip, port)).await.unwrap();
            let (stream, peer) = listener.accept().await.unwrap();
            mark(&stream, peer, Dscp::AF31).unwrap();
            (client, stream)
        };
        let v4 = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        for listener in [v4, open([0; 8], false)] {
            let (_client, stream) = accept(listener, "127.0.0.1").await;
            let socket = SockRef::from(&stream);
            assert_eq!((socket.tos_v4().unwrap(), socket.priority().unwrap()), (0x68, 0));
        }
        let (_client, stream) = accept(open([0; 8], true), "::1").await;
        assert_eq!(SockRef::from(&stream).tclass_v6().unwrap(), 0x68);
    }
}
