//! Connections over loopback: who is cut off, when, and what is counted.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use axum::Router;
use axum::routing::get;
use bytes::Bytes;
use hyper::body::Frame;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::super::tcp::{Limits, Stats, listen};
use super::*;

const LIMITS: Limits = Limits {
    max_connections: 4,
    header_timeout: Duration::from_millis(50),
    shutdown_timeout: Duration::from_millis(100),
    unread_timeout: Duration::from_millis(200),
};

/// What is bounded must come about within this; it takes a fraction of it.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server of `router` on loopback.
struct Rig {
    address: SocketAddr,
    stats: Arc<Stats>,
    stop: watch::Sender<bool>,
    running: JoinHandle<()>,
}

impl Rig {
    fn start(router: Router, limits: Limits) -> Self {
        let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let server = Server::new(router, None, limits);
        let stats = server.stats();
        let (stop, stopping) = watch::channel(false);
        let running = tokio::spawn(server.run(vec![listener], stopping));
        Self { address, stats, stop, running }
    }

    async fn connect(&self, first: &[u8]) -> TcpStream {
        let mut client = TcpStream::connect(self.address).await.unwrap();
        client.write_all(first).await.unwrap();
        client
    }

    async fn stop(self) {
        self.stop.send_replace(true);
        self.running.await.unwrap();
    }
}

async fn until(mut done: impl FnMut() -> bool, what: &str) {
    let wait = async {
        while !done() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{what}"));
}

/// A body without end, and how much of it was taken.
struct Endless(Arc<AtomicU64>);

impl hyper::body::Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        const PIECE: &[u8] = &[0; 16 * 1024];
        self.0.fetch_add(PIECE.len() as u64, Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(PIECE)))))
    }
}

fn endless(taken: &Arc<AtomicU64>) -> Router {
    let taken = taken.clone();
    Router::new().route("/", get(async move || Body::new(Endless(taken.clone()))))
}

/// The beginning of an HTTP/2 connection whose client takes `window` bytes of each answer:
/// preface and SETTINGS with INITIAL_WINDOW_SIZE (RFC 9113 §3.4, §6.5).
fn preface(window: u32) -> Vec<u8> {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend([0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4]);
    bytes.extend(window.to_be_bytes());
    bytes
}

/// HEADERS with END_STREAM and END_HEADERS: GET / of http, all from the static table
/// (RFC 9113 §6.2, RFC 7541 appendix A).
fn request(stream: u32) -> Vec<u8> {
    let [a, b, c, d] = stream.to_be_bytes();
    vec![0, 0, 3, 1, 5, a, b, c, d, 0x82, 0x84, 0x86]
}

/// The type, stream and payload of the next frame.
async fn frame(client: &mut TcpStream) -> (u8, u32, Vec<u8>) {
    let mut head = [0; 9];
    client.read_exact(&mut head).await.unwrap();
    let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
    client.read_exact(&mut payload).await.unwrap();
    (head[3], u32::from_be_bytes([head[5], head[6], head[7], head[8]]), payload)
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_cut_off_and_little_is_kept_for_it() {
    let taken = Arc::new(AtomicU64::new(0));
    let rig = Rig::start(endless(&taken), LIMITS);
    let _client = rig.connect(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let cut_off = || taken.load(Ordering::Relaxed) > 0 && rig.stats.open() == 0;
    until(cut_off, "it is still served").await;
    // What the kernel took for it on both sides, and our own buffer.
    let kernel = 16 << 20;
    assert!(taken.load(Ordering::Relaxed) < kernel, "{taken:?} bytes were made");
    rig.stop().await;
}

/// Its other requests do not excuse it, nor that it answers pings.
#[tokio::test]
async fn an_http2_client_that_leaves_one_answer_unread_is_cut_off() {
    let taken = Arc::new(AtomicU64::new(0));
    let small = get(async || "small");
    let rig = Rig::start(endless(&taken).route("/index.html", small), LIMITS);
    let mut client = rig.connect(&preface(100)).await;
    client.write_all(&request(1)).await.unwrap();
    let answered = async {
        let mut answered = 0u32;
        for stream in (3..).step_by(2) {
            // The path of index 5 is /index.html: its answer fits the window.
            let mut bytes = request(stream);
            bytes[10] = 0x85;
            if client.write_all(&bytes).await.is_err() {
                return answered;
            }
            loop {
                let mut head = [0; 9];
                if client.read_exact(&mut head).await.is_err() {
                    return answered;
                }
                let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
                let mut payload = vec![0; length];
                if client.read_exact(&mut payload).await.is_err() {
                    return answered;
                }
                // DATA with END_STREAM.
                if head[3] == 0 && head[4] & 1 == 1 {
                    answered += 1;
                    break;
                }
            }
        }
        unreachable!("streams are without end")
    };
    let answered = timeout(PATIENCE, answered).await.expect("it is still served");
    assert!(answered > 10, "the others were answered meanwhile: {answered}");
    until(|| rig.stats.open() == 0, "it is still open").await;
    assert_eq!(rig.stats.refused()[1], ("slow", 1));
    rig.stop().await;
}

/// RFC 9113 §5.1.2: more requests at once than were announced are refused, one by one.
#[tokio::test]
async fn an_http2_connection_has_so_many_requests_at_once() {
    let handled = Arc::new(AtomicUsize::new(0));
    let count = handled.clone();
    let never = async move || {
        count.fetch_add(1, Ordering::Relaxed);
        std::future::pending::<()>().await;
    };
    let rig = Rig::start(
        Router::new().route("/", get(never)),
        Limits { header_timeout: PATIENCE, ..LIMITS },
    );
    let mut client = rig.connect(&preface(100)).await;
    let extra = 10;
    for number in 0..MAX_STREAMS + extra {
        client.write_all(&request(2 * number + 1)).await.unwrap();
    }
    let (mut announced, mut refused) = (None, Vec::new());
    let read = async {
        while refused.len() < extra as usize {
            match frame(&mut client).await {
                (4, 0, payload) if !payload.is_empty() => {
                    announced = payload.chunks_exact(6).find_map(|setting| {
                        let [0, 3, value @ ..] = setting else { return None };
                        Some(u32::from_be_bytes(value.try_into().unwrap()))
                    });
                }
                // RST_STREAM with REFUSED_STREAM: it may be asked again.
                (3, stream, payload) => refused.push((stream, payload)),
                _ => {}
            }
        }
    };
    timeout(PATIENCE, read).await.expect("some were not refused");
    assert_eq!(announced, Some(MAX_STREAMS));
    let beyond = (0..extra).map(|number| (2 * (MAX_STREAMS + number) + 1, vec![0, 0, 0, 7]));
    assert_eq!(refused, beyond.collect::<Vec<_>>());
    until(|| handled.load(Ordering::Relaxed) == MAX_STREAMS as usize, "some wait").await;
    rig.stop().await;
}

#[tokio::test]
async fn an_http2_preface_may_come_in_pieces() {
    let rig = Rig::start(Router::new().route("/", get(async || "x")), LIMITS);
    let mut client = rig.connect(b"P").await;
    let mut rest = preface(100);
    rest.extend(request(1));
    for byte in &rest[1..] {
        tokio::task::yield_now().await;
        client.write_all(&[*byte]).await.unwrap();
    }
    let answer = async { while frame(&mut client).await.0 != 0 {} };
    timeout(PATIENCE, answer).await.expect("no DATA came");
    rig.stop().await;
}

/// Thousands of connections wait at once: each byte here is one of every viewer.
#[tokio::test]
async fn a_connection_in_the_clear_is_small() {
    let server = Arc::new(Server::new(Router::new(), None, LIMITS));
    let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let peer = client.local_addr().unwrap();
    let (_stop, stopping) = watch::channel(false);
    let size = size_of_val(&server.serve(client, Protocol::Http1, peer, stopping));
    assert!(size <= 2048, "{size} bytes");
}
