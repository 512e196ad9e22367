//! One HTTP/1.1 connection of a client, kept alive, opened again when the server closes
//! it. hyper's bare client: no pool and no shared lock, so that thousands of clients
//! cost some kilobytes each and never wait for one another.
#![allow(clippy::disallowed_methods, reason = "the I/O shell: requests wait on the clock")]

use std::collections::HashMap;
use std::io::Read as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, HOST, RANGE, RETRY_AFTER};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use reqwest::Url;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use super::playlist::MAX_TEXT;

/// How long a connection may take to open.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// What a connection buffers; hyper needs this much to read heads.
const BUFFER: usize = 16 * 1024;

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

    async fn open(&self, url: &Url) -> Result<SendRequest<Empty<Bytes>>, Failure> {
        let bad = || Failure::Url(url.to_string());
        let host = url.host_str().ok_or_else(bad)?;
        let port = url.port_or_known_default().ok_or_else(bad)?;
        let mut last = Failure::Connect("the name has no address".to_owned());
        for address in self.resolve(host, port).await? {
            let stream = match TcpStream::connect(address).await {
                Ok(stream) => stream,
                Err(error) => {
                    last = Failure::Connect(error.to_string());
                    continue;
                }
            };
            // Requests are single writes: nothing to gather.
            let _ = stream.set_nodelay(true);
            if url.scheme() != "https" {
                return handshake(stream).await;
            }
            let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned());
            let stream = self.tls.connect(name.map_err(|_| bad())?, stream).await;
            let stream = stream.map_err(|error| Failure::Tls(error.to_string()))?;
            return handshake(stream).await;
        }
        Err(last)
    }
}

async fn handshake<S>(stream: S) -> Result<SendRequest<Empty<Bytes>>, Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = http1::Builder::new();
    let opened = builder.max_buf_size(BUFFER).handshake(TokioIo::new(stream)).await;
    let (sender, connection) = opened.map_err(|error| Failure::Connect(error.to_string()))?;
    // It ends with the sender, and says what went wrong to whoever waits for an answer.
    tokio::spawn(connection);
    Ok(sender)
}

/// A successful answer.
#[derive(Debug)]
pub struct Answer {
    /// When the request was written.
    pub asked: Instant,
    /// When the whole answer was there.
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

/// One connection, to one server at a time.
pub struct Connection {
    network: Arc<Network>,
    open: Option<(String, SendRequest<Empty<Bytes>>)>,
    /// Times that it was opened.
    pub opened: u64,
}

impl Connection {
    /// Not open yet.
    pub const fn new(network: Arc<Network>) -> Self {
        Self { network, open: None, opened: 0 }
    }

    /// Asks, and takes the answer.
    ///
    /// # Errors
    /// Any [`Failure`]; the connection is opened anew by the next request, if need be.
    pub async fn get(&mut self, url: &Url, want: Want, limit: Duration) -> Result<Answer, Failure> {
        self.connect(url).await?;
        let request = self.request(url, want)?;
        let Some((_, sender)) = &mut self.open else {
            return Err(Failure::Connect("it is not open".to_owned()));
        };
        let asked = Instant::now();
        let exchange = async {
            let response = sender.send_request(request).await.map_err(broken)?;
            receive(response, want).await
        };
        let result = timeout(limit, exchange).await.unwrap_or(Err(Failure::Late));
        let (bytes, body, gzip) = match result {
            Ok(received) => received,
            Err(failure) => {
                // The body of a refusal is read to its end; all else leaves the
                // connection in the middle of something.
                if !matches!(failure, Failure::Status(..)) {
                    self.open = None;
                }
                return Err(failure);
            }
        };
        Ok(Answer { asked, answered: Instant::now(), body, gzip, bytes })
    }

    /// Gives up what is under way.
    pub fn close(&mut self) {
        self.open = None;
    }

    /// Opens the connection, when it is closed or leads elsewhere.
    async fn connect(&mut self, url: &Url) -> Result<(), Failure> {
        let origin = url.origin().ascii_serialization();
        if let Some((to, sender)) = &mut self.open
            && *to == origin
            && sender.ready().await.is_ok()
        {
            return Ok(());
        }
        self.open = None;
        let opened = timeout(CONNECT_LIMIT, self.network.open(url)).await;
        let sender = opened.unwrap_or(Err(Failure::Connect("timed out".to_owned())))?;
        self.open = Some((origin, sender));
        self.opened += 1;
        Ok(())
    }

    fn request(&self, url: &Url, want: Want) -> Result<Request<Empty<Bytes>>, Failure> {
        let target = url.query().map_or(url.path().to_owned(), |q| format!("{}?{q}", url.path()));
        let host = url.host_str().unwrap_or_default();
        let host = url.port().map_or(host.to_owned(), |port| format!("{host}:{port}"));
        let mut request = Request::get(target).header(HOST, host);
        if let Some(authorization) = &self.network.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        match want {
            Want::Playlist => request = request.header(ACCEPT_ENCODING, "gzip"),
            Want::Media(Some((first, length))) => {
                let last = first.saturating_add(length).saturating_sub(1);
                request = request.header(RANGE, format!("bytes={first}-{last}"));
            }
            Want::Media(None) => {}
        }
        request.body(Empty::new()).map_err(|_| Failure::Url(url.to_string()))
    }
}

fn broken(error: hyper::Error) -> Failure {
    Failure::Broken(error.to_string())
}

/// Reads an answer: number of bytes, the bytes of a playlist, and whether it is gzipped.
async fn receive(response: Response<Incoming>, want: Want) -> Result<(u64, Bytes, bool), Failure> {
    let status = response.status();
    let retry = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    let retry = retry.and_then(|value| value.parse().ok()).map(Duration::from_secs);
    let gzip = response.headers().get(CONTENT_ENCODING).is_some_and(|value| value == "gzip");
    let expected = match want {
        Want::Media(Some(_)) => StatusCode::PARTIAL_CONTENT,
        _ => StatusCode::OK,
    };
    if status != expected || matches!(want, Want::Media(_)) {
        let bytes = count(response.into_body()).await?;
        if status != expected {
            return Err(Failure::Status(status.as_u16(), retry));
        }
        return match want {
            Want::Media(Some((_, length))) if length != bytes => {
                Err(Failure::Body("the byte range has another length"))
            }
            _ if bytes == 0 => Err(Failure::Body("the media is empty")),
            _ => Ok((bytes, Bytes::new(), false)),
        };
    }
    let body = Limited::new(response.into_body(), MAX_TEXT).collect().await;
    let body = body.map_err(|error| match error.is::<LengthLimitError>() {
        true => Failure::Body("the playlist is too long"),
        false => Failure::Broken(error.to_string()),
    })?;
    let body = body.to_bytes();
    Ok((body.len() as u64, body, gzip))
}

async fn count(mut body: Incoming) -> Result<u64, Failure> {
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        bytes += frame.map_err(broken)?.data_ref().map_or(0, |data| data.len() as u64);
    }
    Ok(bytes)
}
