//! A bad last mile: seeded loss of incoming media *before* the WebRTC stack.
//!
//! The stack takes its sockets from a [`Runtime`]; this one wraps the usual and
//! throws away a share of the datagrams that carry RTP or RTCP (first byte 128 to
//! 191, RFC 7983 §7). Connection set-up is spared, so that runs are comparable.

use std::future::Future;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use webrtc::runtime::{
    AsyncInterval, AsyncTcpListener, AsyncTcpStream, AsyncUdpSocket, JoinHandle, RecvMeta, Runtime,
    Transmit,
};

/// Decides which datagrams are lost, and counts them.
#[derive(Debug)]
pub struct Loss {
    share: f64,
    random: Mutex<StdRng>,
    dropped: AtomicU64,
}

impl Loss {
    /// Loses `share` (0 to 1) of the media datagrams, the same ones for one `seed`
    /// and one order of arrival.
    pub fn new(share: f64, seed: u64) -> Arc<Self> {
        let random = Mutex::new(StdRng::seed_from_u64(seed));
        Arc::new(Self { share: share.clamp(0.0, 1.0), random, dropped: AtomicU64::new(0) })
    }

    /// Datagrams lost so far.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    fn loses(&self, datagram: &[u8]) -> bool {
        if !matches!(datagram.first(), Some(128..=191)) {
            return false;
        }
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        let lost = random.random_bool(self.share);
        self.dropped.fetch_add(u64::from(lost), Ordering::Relaxed);
        lost
    }

    /// Removes lost datagrams from a buffer of `len` bytes that holds datagrams of
    /// `stride` bytes (the last may be shorter); returns the bytes that remain.
    fn sift(&self, buffer: &mut [u8], len: usize, stride: usize) -> usize {
        let (len, stride) = (len.min(buffer.len()), stride.max(1));
        let mut kept = 0;
        let mut at = 0;
        while at < len {
            let end = (at + stride).min(len);
            if !self.loses(&buffer[at..end]) {
                buffer.copy_within(at..end, kept);
                kept += end - at;
            }
            at = end;
        }
        kept
    }
}

/// A runtime whose UDP sockets lose incoming media.
#[derive(Debug)]
pub struct LossyRuntime {
    inner: Arc<dyn Runtime>,
    loss: Arc<Loss>,
}

impl LossyRuntime {
    /// Wraps `inner`.
    pub fn new(inner: Arc<dyn Runtime>, loss: Arc<Loss>) -> Self {
        Self { inner, loss }
    }
}

type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

impl Runtime for LossyRuntime {
    fn spawn(&self, future: Boxed<'static, ()>) -> Box<dyn JoinHandle> {
        self.inner.spawn(future)
    }
    fn wrap_udp_socket(&self, socket: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        let inner = self.inner.wrap_udp_socket(socket)?;
        Ok(Arc::new(LossySocket { inner, loss: Arc::clone(&self.loss) }))
    }
    fn wrap_tcp_listener(
        &self,
        listener: std::net::TcpListener,
    ) -> io::Result<Arc<dyn AsyncTcpListener>> {
        self.inner.wrap_tcp_listener(listener)
    }
    fn connect_tcp<'a>(
        &'a self,
        remote: SocketAddr,
    ) -> Boxed<'a, io::Result<Arc<dyn AsyncTcpStream>>> {
        self.inner.connect_tcp(remote)
    }
    fn resolve_host<'a>(&'a self, host: &'a str) -> Boxed<'a, io::Result<Vec<SocketAddr>>> {
        self.inner.resolve_host(host)
    }
    fn sleep(&self, duration: Duration) -> Boxed<'static, ()> {
        self.inner.sleep(duration)
    }
    fn interval(&self, period: Duration) -> Box<dyn AsyncInterval> {
        self.inner.interval(period)
    }
    fn block_on(&self, future: Pin<Box<dyn Future<Output = ()> + '_>>) {
        self.inner.block_on(future);
    }
    fn yield_now(&self) -> Boxed<'static, ()> {
        self.inner.yield_now()
    }
}

#[derive(Debug)]
struct LossySocket {
    inner: Arc<dyn AsyncUdpSocket>,
    loss: Arc<Loss>,
}

impl AsyncUdpSocket for LossySocket {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }
    fn poll_send(&self, cx: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<io::Result<usize>> {
        self.inner.poll_send(cx, transmit)
    }
    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let Poll::Ready(count) = self.inner.poll_recv(cx, bufs, meta)? else {
            return Poll::Pending;
        };
        for (buffer, meta) in bufs.iter_mut().zip(meta.iter_mut()).take(count) {
            // An emptied message keeps its slot: its length of zero delivers nothing.
            meta.len = self.loss.sift(buffer, meta.len, meta.stride);
            meta.stride = meta.stride.clamp(1, meta.len.max(1));
        }
        Poll::Ready(Ok(count))
    }
    fn max_gso_segments(&self) -> usize {
        self.inner.max_gso_segments()
    }
    fn max_gro_segments(&self) -> usize {
        self.inner.max_gro_segments()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn coalesced() -> Vec<u8> {
        (0..100u8).flat_map(|n| [128, n, 0, 0]).collect()
    }

    #[test]
    fn one_seed_loses_the_same_packets() {
        let run = |seed| {
            let (loss, mut buffer) = (Loss::new(0.2, seed), coalesced());
            let kept = loss.sift(&mut buffer, 400, 4);
            (buffer[..kept].to_vec(), loss.dropped())
        };
        let (kept, dropped) = run(7);
        assert_eq!((kept.clone(), dropped), run(7));
        assert_ne!(kept, run(8).0);
        assert_eq!(kept.len() as u64 / 4 + dropped, 100);
        assert!((5..40).contains(&dropped) && kept.chunks(4).is_sorted_by_key(|p| p[1]));
    }

    #[test]
    fn handshakes_are_spared_and_nothing_is_lost_at_zero() {
        assert!(!Loss::new(1.0, 1).loses(&[22, 254, 253]) && !Loss::new(1.0, 1).loses(&[0, 1]));
        let (loss, mut buffer) = (Loss::new(0.0, 1), coalesced());
        assert_eq!(loss.sift(&mut buffer, 399, 4), 399);
    }
}
