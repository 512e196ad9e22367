//! One HTTP/1.1 connection of a client, kept alive, opened again when the server closes
//! it. No pool, no shared lock, no task of its own and no buffer that outlives an answer:
//! thousands of clients never wait for one another, and cost little enough beside the
//! server that the figures are the server's.
#![allow(clippy::disallowed_methods, reason = "the I/O shell: requests wait on the clock")]

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::future::poll_fn;
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::Url;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use super::playlist::MAX_TEXT;
use super::socket::Socket;
use super::wire::{Received, Receiver};

/// How long a connection may take to open.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Bytes read at once.
const READ: usize = 64 * 1024;

thread_local! {
    /// What was read and is taken apart before anything else is read: one for all.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; READ]);
}

/// Why there is no usable answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The address is no usable URL.
    #[error("not a usable URL: {0}")]
    Url(String),
    /// No connection.
    #[error("no connection: {0}")]
    Connect(String),
    /// No TLS, or a certificate that is not trusted.
    #[error("no TLS: {0}")]
    Tls(String),
    /// It broke off, before or in an answer.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// No answer in time.
    #[error("no answer in time")]
    Late,
    /// A status that is not success.
    #[error("status {0}")]
    Status(u16, Option<Duration>),
    /// The body is longer than any playlist, or not what its headers say.
    #[error("unusable answer: {0}")]
    Body(&'static str),
}

/// Where connections go, resolved once for all clients.
pub struct Network {
    tls: TlsConnector,
    addresses: Mutex<HashMap<String, Vec<SocketAddr>>>,
    authorization: Option<String>,
}

impl Network {
    /// With a bearer token for every request, if any.
    pub fn new(tls: TlsConnector, token: Option<&str>) -> Self {
        let authorization = token.map(|token| format!("Bearer {token}"));
        Self { tls, addresses: Mutex::default(), authorization }
    }

    async fn resolve(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, Failure> {
        let name = format!("{host}:{port}");
        if let Some(known) = self.addresses().get(&name).cloned() {
            return Ok(known);
        }
        let found = tokio::net::lookup_host(&name).await;
        let found: Vec<_> = found.map_err(|error| Failure::Connect(error.to_string()))?.collect();
        self.addresses().insert(name, found.clone());
        Ok(found)
    }

    fn addresses(&self) -> MutexGuard<'_, HashMap<String, Vec<SocketAddr>>> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn open(&self, origin: &Origin) -> Result<Socket, Failure> {
        let Origin { secure, host, port } = origin;
        let mut last = Failure::Connect("the name has no address".to_owned());
        for address in self.resolve(host, *port).await? {
            let stream = match TcpStream::connect(address).await {
                Ok(stream) => stream,
                Err(error) => {
                    last = Failure::Connect(error.to_string());
                    continue;
                }
            };
            // Requests are single writes: nothing to gather.
            let _ = stream.set_nodelay(true);
            if !secure {
                return Ok(Socket::plain(stream));
            }
            let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned());
            let name = name.map_err(|_| Failure::Url(host.clone()))?;
            let stream = self.tls.connect(name, stream).await;
            let stream = stream.map_err(|error| Failure::Tls(error.to_string()))?;
            return Ok(Socket::Tls(Box::new(stream)));
        }
        Err(last)
    }
}

/// Where a connection leads.
#[derive(Debug, PartialEq, Eq)]
struct Origin {
    secure: bool,
    host: String,
    port: u16,
}

impl Origin {
    fn of(url: &Url) -> Result<Self, Failure> {
        let bad = || Failure::Url(url.to_string());
        let host = url.host_str().ok_or_else(bad)?.to_owned();
        let port = url.port_or_known_default().ok_or_else(bad)?;
        Ok(Self { secure: url.scheme() == "https", host, port })
    }

    fn is_of(&self, url: &Url) -> bool {
        self.secure == (url.scheme() == "https")
            && url.host_str() == Some(&self.host)
            && url.port_or_known_default() == Some(self.port)
    }
}

/// A successful answer.
#[derive(Debug)]
pub struct Answer {
    /// When the request was written.
    pub asked: Instant,
    /// When the last of the answer came.
    pub answered: Instant,
    /// The bytes as they came, of a playlist.
    pub body: Bytes,
    /// Whether they are gzipped.
    pub gzip: bool,
    /// Their number.
    pub bytes: u64,
}

impl Answer {
    /// The text of a playlist.
    ///
    /// # Errors
    /// [`Failure::Body`] when it is no text, or too much.
    pub fn text(&self) -> Result<String, Failure> {
        let mut text = String::new();
        let limit = MAX_TEXT as u64 + 1;
        let read = if self.gzip {
            flate2::read::GzDecoder::new(&self.body[..]).take(limit).read_to_string(&mut text)
        } else {
            (&self.body[..]).take(limit).read_to_string(&mut text)
        };
        match read {
            Ok(read) if read <= MAX_TEXT => Ok(text),
            Ok(_) => Err(Failure::Body("the playlist is too long")),
            Err(_) => Err(Failure::Body("the playlist is not UTF-8, or not gzip")),
        }
    }
}

/// What is asked for.
#[derive(Clone, Copy)]
pub enum Want {
    /// A playlist: kept.
    Playlist,
    /// Media, all of it or a first byte and a length: counted.
    Media(Option<(u64, u64)>),
}

impl Want {
    /// What an answer is worth.
    fn judge(self, received: Received) -> Result<(u64, Bytes, bool), Failure> {
        let Received { status, bytes, body, gzip, retry_after, .. } = received;
        let expected = if matches!(self, Self::Media(Some(_))) { 206 } else { 200 };
        match self {
            _ if status != expected => Err(Failure::Status(status, retry_after)),
            Self::Media(Some((_, length))) if length != bytes => {
                Err(Failure::Body("the byte range has another length"))
            }
            Self::Media(_) if bytes == 0 => Err(Failure::Body("the media is empty")),
            _ => Ok((bytes, body.into(), gzip)),
        }
    }
}

/// One connection, to one server at a time.
pub struct Connection {
    network: Arc<Network>,
    open: Option<(Origin, Socket)>,
    /// The request, in a buffer that is used again.
    request: String,
    /// Times that it was opened.
    pub opened: u64,
}

impl Connection {
    /// Not open yet.
    pub const fn new(network: Arc<Network>) -> Self {
        Self { network, open: None, request: String::new(), opened: 0 }
    }

    /// Asks, with more query parameters than `url` has, if any, and takes the answer.
    ///
    /// # Errors
    /// Any [`Failure`]; the connection is opened anew by the next request, if need be.
    pub async fn get(
        &mut self,
        url: &Url,
        query: Option<&str>,
        want: Want,
        limit: Duration,
    ) -> Result<Answer, Failure> {
        self.connect(url).await?;
        self.write_request(url, query, want);
        // What is not read to its end leaves the connection in the middle of something.
        let Some((origin, mut socket)) = self.open.take() else {
            return Err(Failure::Connect("it is not open".to_owned()));
        };
        let asked = Instant::now();
        let exchange = exchange(&mut socket, self.request.as_bytes(), want);
        let (received, answered) = timeout(limit, exchange).await.unwrap_or(Err(Failure::Late))?;
        if !received.close {
            self.open = Some((origin, socket));
        }
        let (bytes, body, gzip) = want.judge(received)?;
        Ok(Answer { asked, answered, body, gzip, bytes })
    }

    /// Gives up what is under way.
    pub fn close(&mut self) {
        self.open = None;
    }

    /// Opens the connection, when it is closed or leads elsewhere.
    async fn connect(&mut self, url: &Url) -> Result<(), Failure> {
        if self.open.as_ref().is_some_and(|(origin, _)| origin.is_of(url)) {
            return Ok(());
        }
        self.open = None;
        let origin = Origin::of(url)?;
        let opened = timeout(CONNECT_LIMIT, self.network.open(&origin)).await;
        let socket = opened.unwrap_or(Err(Failure::Connect("timed out".to_owned())))?;
        self.open = Some((origin, socket));
        self.opened += 1;
        Ok(())
    }

    /// A parsed URL holds nothing that could end a line.
    fn write_request(&mut self, url: &Url, query: Option<&str>, want: Want) {
        let text = &mut self.request;
        text.clear();
        text.push_str("GET ");
        text.push_str(url.path());
        for (index, query) in [url.query(), query].into_iter().flatten().enumerate() {
            text.push(if index == 0 { '?' } else { '&' });
            text.push_str(query);
        }
        text.push_str(" HTTP/1.1\r\nHost: ");
        text.push_str(url.host_str().unwrap_or_default());
        // Writing to a string cannot fail.
        if let Some(port) = url.port() {
            let _ = write!(text, ":{port}");
        }
        if let Some(authorization) = &self.network.authorization {
            let _ = write!(text, "\r\nAuthorization: {authorization}");
        }
        match want {
            Want::Playlist => text.push_str("\r\nAccept-Encoding: gzip"),
            Want::Media(Some((first, length))) => {
                let last = first.saturating_add(length).saturating_sub(1);
                let _ = write!(text, "\r\nRange: bytes={first}-{last}");
            }
            Want::Media(None) => {}
        }
        text.push_str("\r\n\r\n");
    }
}

fn broken(error: io::Error) -> Failure {
    Failure::Broken(error.to_string())
}

/// Writes a request and reads its answer; also tells when the last of it came.
async fn exchange(
    socket: &mut Socket,
    request: &[u8],
    want: Want,
) -> Result<(Received, Instant), Failure> {
    socket.write(request).await.map_err(broken)?;
    let keep = if matches!(want, Want::Playlist) { MAX_TEXT } else { 0 };
    let mut receiver = Receiver::new(keep);
    loop {
        let received = poll_fn(|context| poll_receive(socket, &mut receiver, context)).await?;
        if let Some(came) = received {
            return Ok((receiver.finish(), came));
        }
    }
}

/// Reads once; tells when the last bytes came once the answer is complete.
fn poll_receive(
    socket: &mut Socket,
    receiver: &mut Receiver,
    context: &mut Context<'_>,
) -> Poll<Result<Option<Instant>, Failure>> {
    SCRATCH.with_borrow_mut(|scratch| {
        let (bytes, came) = ready!(socket.poll_read(context, scratch)).map_err(broken)?;
        let complete = match scratch.get(..bytes).unwrap_or_default() {
            [] if receiver.close() => Ok(true),
            [] => Err(Failure::Broken("it ended before the answer did".to_owned())),
            bytes => receiver.push(bytes).map_err(Failure::Body),
        };
        Poll::Ready(complete.map(|complete| complete.then_some(came)))
    })
}
