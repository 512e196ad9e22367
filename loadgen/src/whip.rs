//! WHIP and WHEP signalling: one POST for the session, one DELETE to end it.
//!
//! Both protocols are the same exchange (RFC 9725 §4.2, WHEP draft §4.2): an SDP
//! offer goes up, the answer and the session's URL come back.

use std::net::SocketAddr;
use std::time::Duration;

use reqwest::header::{ACCEPT, CONTENT_TYPE, LOCATION, RETRY_AFTER};
use reqwest::{Client, StatusCode, Url};

/// How long the server may take to answer a request.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of an answer that are read; a longer body is refused.
const MAX_BODY: usize = 256 * 1024;

/// Why a session could not be negotiated.
#[derive(Debug, thiserror::Error)]
pub enum SignalError {
    /// The address is not a URL.
    #[error("not a usable URL: {0}")]
    Url(String),
    /// The request did not get an answer.
    #[error("{url} did not answer: {source}")]
    Http {
        /// The URL asked.
        url: String,
        /// What went wrong.
        source: reqwest::Error,
    },
    /// The server refused the offer.
    #[error("{url} refused the offer: {status}{detail}")]
    Refused {
        /// The URL asked.
        url: String,
        /// HTTP status.
        status: StatusCode,
        /// The server's own words, with a leading separator, or nothing.
        detail: String,
        /// Seconds to wait before another try, when the server said so.
        retry_after: Option<u64>,
    },
    /// The server said "created" without saying where.
    #[error("{0} answered 201 without a usable Location")]
    NoLocation(String),
    /// The answer is too long to be an SDP.
    #[error("{0} answered with more than 256 KiB")]
    TooLong(String),
}

impl SignalError {
    /// Whether trying again later can help: everything but a refusal that a
    /// human must settle (wrong token, wrong address, no codec in common).
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Url(_) => false,
            Self::Refused { status, .. } => {
                status.is_server_error() || matches!(status.as_u16(), 404 | 408 | 409 | 423 | 429)
            }
            _ => true,
        }
    }
}

/// A negotiated session, to be deleted at the end.
#[derive(Debug)]
pub struct Session {
    client: Client,
    resource: Url,
    token: Option<String>,
}

/// Posts `offer` to a WHIP or WHEP endpoint. Returns the session and the answer.
///
/// # Errors
/// Any [`SignalError`].
pub async fn negotiate(
    url: &str,
    token: Option<&str>,
    offer: String,
) -> Result<(Session, String), SignalError> {
    negotiate_with(&client(url)?, url, token, offer).await
}

/// An HTTP client for signalling, with its own pool of connections.
///
/// # Errors
/// [`SignalError::Http`], naming `url`, when TLS cannot be set up.
pub fn client(url: &str) -> Result<Client, SignalError> {
    let http = |source| SignalError::Http { url: url.to_owned(), source };
    Client::builder().timeout(TIMEOUT).build().map_err(http)
}

/// [`negotiate`] over the connections of `client`.
///
/// # Errors
/// Any [`SignalError`].
pub async fn negotiate_with(
    client: &Client,
    url: &str,
    token: Option<&str>,
    offer: String,
) -> Result<(Session, String), SignalError> {
    let endpoint = parse(url)?;
    let http = |source| SignalError::Http { url: url.to_owned(), source };
    let mut request = client
        .post(endpoint.clone())
        .header(CONTENT_TYPE, "application/sdp")
        .header(ACCEPT, "application/sdp")
        .body(offer);
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    let response = request.send().await.map_err(http)?;
    if response.status() != StatusCode::CREATED {
        return Err(refusal(url, response).await);
    }
    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    let resource = location
        .and_then(|location| response.url().join(location).ok())
        .ok_or_else(|| SignalError::NoLocation(url.to_owned()))?;
    let session = Session { client: client.clone(), resource, token: token.map(str::to_owned) };
    match read_body(response).await {
        Ok(Some(answer)) => Ok((session, answer)),
        Ok(None) => Err(SignalError::TooLong(url.to_owned())),
        Err(source) => Err(http(source)),
    }
}

/// Parses an `http` or `https` URL.
///
/// # Errors
/// [`SignalError::Url`] when it is not one.
pub fn parse(url: &str) -> Result<Url, SignalError> {
    Url::parse(url)
        .ok()
        .filter(|parsed| matches!(parsed.scheme(), "http" | "https") && parsed.host().is_some())
        .ok_or_else(|| SignalError::Url(url.to_owned()))
}

/// An answer whose candidates (RFC 8839 §5.1) are all at `via`: media then takes the way
/// through what listens there, such as `loadgen impair`.
pub fn through(answer: &str, via: SocketAddr) -> String {
    let mut text = String::with_capacity(answer.len());
    for line in answer.split_inclusive('\n') {
        let mut words: Vec<&str> = line.trim_end().split(' ').collect();
        let (address, port) = (via.ip().to_string(), via.port().to_string());
        if line.starts_with("a=candidate:")
            && let Some([at, number]) = words.get_mut(4..6)
        {
            (*at, *number) = (&address, &port);
            text += &(words.join(" ") + "\r\n");
        } else {
            text += line;
        }
    }
    text
}

async fn read_body(mut response: reqwest::Response) -> Result<Option<String>, reqwest::Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > MAX_BODY {
            return Ok(None);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Some(String::from_utf8_lossy(&body).into_owned()))
}

/// Turns a refusal into an error that carries the problem document's words (RFC 9457).
async fn refusal(url: &str, response: reqwest::Response) -> SignalError {
    let status = response.status();
    let retry_after = response
        .headers()
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.parse().ok());
    let body = read_body(response).await.ok().flatten().unwrap_or_default();
    let problem: Option<serde_json::Value> = serde_json::from_str(&body).ok();
    let words = problem.as_ref().and_then(|problem| {
        let text = |key| problem.get(key).and_then(serde_json::Value::as_str);
        text("detail").or_else(|| text("title"))
    });
    let words = words.or_else(|| body.lines().next().filter(|line| !line.is_empty()));
    let detail = words.map(|words| format!(": {}", words.chars().take(200).collect::<String>()));
    let detail = detail.unwrap_or_default();
    SignalError::Refused { url: url.to_owned(), status, detail, retry_after }
}

impl Session {
    /// URL of the session.
    pub fn resource(&self) -> &str {
        self.resource.as_str()
    }

    /// Ends the session on the server. A server that is gone is not an error worth
    /// stopping for: the outcome is only logged.
    pub async fn delete(self) {
        let mut request = self.client.delete(self.resource.clone());
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        match request.send().await {
            Ok(response) if response.status().is_success() => {}
            Ok(response) => tracing::debug!(status = %response.status(), "session not deleted"),
            Err(error) => tracing::debug!(%error, "session not deleted"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16) -> SignalError {
        let status = StatusCode::from_u16(status).unwrap();
        SignalError::Refused {
            url: String::new(),
            status,
            detail: String::new(),
            retry_after: None,
        }
    }

    #[test]
    fn only_refusals_that_can_pass_are_retried() {
        for status in [404, 409, 429, 500, 503] {
            assert!(refused(status).is_temporary(), "{status}");
        }
        for status in [400, 401, 403, 406, 415] {
            assert!(!refused(status).is_temporary(), "{status}");
        }
    }

    #[test]
    fn media_goes_through_another_address_and_nothing_else_changes() {
        let answer = "v=0\r\na=candidate:1 1 udp 2130706431 192.0.2.1 8443 typ host\r\n\
                      a=candidate:broken\r\na=end-of-candidates\r\n";
        let through = through(answer, "127.0.0.1:9000".parse().unwrap());
        assert_eq!(through, answer.replace("192.0.2.1 8443", "127.0.0.1 9000"));
    }

    #[test]
    fn urls_must_be_http() {
        assert!(parse("http://127.0.0.1:8080/whip/demo").is_ok());
        assert!(parse("rtmp://host/app").is_err() && parse("demo").is_err());
    }
}
