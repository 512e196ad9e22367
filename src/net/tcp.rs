//! HTTP over TCP: listeners, a task per connection, and what comes before the first request.
//!
//! Bounded here: how many connections there are, how long their first bytes may take (TLS
//! handshake and HTTP/2 preface), and how long a stop waits. What is spoken then has its
//! bounds in `connection`, what a request may do in the router.
#![allow(clippy::disallowed_methods, reason = "an I/O shell: it waits on the runtime's clock")]

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use rustix::net::RecvFlags;
use socket2::{Domain, SockRef, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::connection::Protocol;
use super::dscp::Dscp;

/// Connections that may wait for `accept`; more are refused by the kernel.
const BACKLOG: i32 = 4096;

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

    /// A connection was closed because its client asked too slowly, or did not read.
    pub(super) fn count_slow(&self) {
        self.slow.fetch_add(1, Ordering::Relaxed);
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

/// Binds a listener. An IPv6 address takes no IPv4, so that `0.0.0.0` and `[::]`
/// may stand side by side.
///
/// # Errors
/// What the system says, such as the port being taken. Must run within tokio.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket =
        Socket::new(Domain::for_address(address), Type::STREAM, Some(socket2::Protocol::TCP))?;
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
    pub(super) router: Router,
    tls: Option<TlsAcceptor>,
    pub(super) limits: Limits,
    dscp: Dscp,
    pub(super) stats: Arc<Stats>,
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
            None => Box::pin(self.clear(stream, peer, stop)).await,
            Some(tls) => Box::pin(self.secure(tls, stream, peer, stop)).await,
        }
    }

    async fn clear(&self, stream: TcpStream, peer: SocketAddr, stop: watch::Receiver<bool>) {
        let opened = Box::pin(self.opening(protocol_of(&stream), stop.clone())).await;
        if let Some(Ok(protocol)) = opened {
            self.serve(stream, protocol, peer, stop).await;
        }
    }

    async fn secure(
        &self,
        tls: &TlsAcceptor,
        stream: TcpStream,
        peer: SocketAddr,
        stop: watch::Receiver<bool>,
    ) {
        match Box::pin(self.opening(tls.accept(stream), stop.clone())).await {
            Some(Ok(stream)) => {
                let protocol = match stream.get_ref().1.alpn_protocol() {
                    Some(b"h2") => Protocol::Http2,
                    _ => Protocol::Http1,
                };
                Box::pin(self.serve(stream, protocol, peer, stop)).await;
            }
            Some(Err(error)) => {
                self.stats.tls.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(%peer, %error, "TLS handshake failed");
            }
            None => {}
        }
    }

    /// Waits for what a connection begins with. `None` when that takes too long, or the
    /// gateway stops.
    async fn opening<T>(
        &self,
        first: impl Future<Output = T>,
        mut stop: watch::Receiver<bool>,
    ) -> Option<T> {
        let opened = tokio::select! {
            opened = timeout(self.limits.header_timeout, first) => opened,
            () = stopped(&mut stop) => return None,
        };
        if opened.is_err() {
            self.stats.count_slow();
        }
        opened.ok()
    }
}

/// What a client in the clear speaks. HTTP/2 by prior knowledge begins with a preface,
/// whose method no request of HTTP/1 has (RFC 9113 §3.4).
async fn protocol_of(stream: &TcpStream) -> io::Result<Protocol> {
    const PREFACE: &[u8] = b"PRI ";
    let look = || {
        let mut first = [0; PREFACE.len()];
        let (_, seen) = rustix::net::recv(stream, &mut first, RecvFlags::PEEK)?;
        match &first[..seen] {
            PREFACE => Ok(Protocol::Http2),
            // Until more comes.
            some if !some.is_empty() && PREFACE.starts_with(some) => {
                Err(io::ErrorKind::WouldBlock.into())
            }
            _ => Ok(Protocol::Http1),
        }
    };
    stream.async_io(Interest::READABLE, look).await
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
pub(super) async fn stopped(stop: &mut watch::Receiver<bool>) {
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

    #[tokio::test]
    async fn connections_are_marked_by_the_family_of_their_packets() {
        let open = |ip: [u16; 8], only_v6| {
            let socket =
                Socket::new(Domain::IPV6, Type::STREAM, Some(socket2::Protocol::TCP)).unwrap();
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
