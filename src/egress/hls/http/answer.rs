//! What is kept of a request's head, and answers with a body: their headers, and which
//! bytes they carry. Source: RFC 9110 §8.8.3 (entity tags), §13 (conditions), §14 (ranges).

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};
use bytes::Bytes;

use super::super::HlsStats;
use super::super::render::Rendered;
use super::body::{Chain, Range, range_of, slice};
use super::visit::Delivery;
use crate::problem::Problem;

const PLAYLIST_TYPE: &str = "application/vnd.apple.mpegurl";
const MEDIA_TYPE: &str = "video/mp4";
/// Blocking reloads have addresses of their own (`_HLS_msn`, `_HLS_part`), whose answers
/// stay right; a player without them is at most a second behind. That second is what
/// lets a cache answer a crowd with one request.
const PLAYLIST_CACHING: &str = "public, max-age=1";
const MEDIA_CACHING: &str = "public, max-age=31536000, immutable";
/// Headers of an answer, with those that the layers add.
const HEADERS: usize = 12;

/// What matters of a request's head. The head itself goes before the request waits: it
/// would hold the buffer that it was read into.
#[derive(Debug, Default)]
pub(super) struct Asked {
    get: bool,
    gzip: bool,
    range: Option<Box<str>>,
    if_range: Option<Box<str>>,
    if_none_match: Option<Box<str>>,
}

impl<S: Sync> FromRequestParts<S> for Asked {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let headers = &parts.headers;
        let text = |name: HeaderName| -> Option<Box<str>> {
            headers.get(name).and_then(|value| value.to_str().ok()).map(Box::from)
        };
        // Ranges are defined for GET only (RFC 9110 §14.2).
        let get = parts.method == Method::GET;
        let range = if get { text(header::RANGE) } else { None };
        Ok(Self {
            get,
            gzip: accepts_gzip(headers),
            if_range: range.as_ref().and_then(|_| text(header::IF_RANGE)),
            range,
            if_none_match: text(header::IF_NONE_MATCH),
        })
    }
}

impl Asked {
    /// Whether the client wants more than to look (RFC 9110 §9.3.2).
    pub(super) const fn is_get(&self) -> bool {
        self.get
    }

    /// Whether the client has what `etag` stands for (RFC 9110 §13.1.2).
    fn has(&self, etag: &str) -> bool {
        let Some(known) = &self.if_none_match else { return false };
        known
            .split(',')
            .map(str::trim)
            .any(|one| one == "*" || one.trim_start_matches("W/") == etag)
    }

    /// The range that is asked for, unless it is of something else (RFC 9110 §13.1.5).
    fn range(&self, etag: &str) -> Option<&str> {
        self.range.as_deref().filter(|_| self.if_range.as_deref().is_none_or(|one| one == etag))
    }
}

/// An answer with the headers that all have.
fn answer(status: StatusCode, body: Body, etag: String, caching: &'static str) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let mut headers = HeaderMap::with_capacity(HEADERS);
    if let Ok(etag) = HeaderValue::from_maybe_shared(Bytes::from(etag)) {
        headers.insert(header::ETAG, etag);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(caching));
    *response.headers_mut() = headers;
    response
}

pub(super) fn playlist_response(
    stats: &Arc<HlsStats>,
    rendered: &Rendered,
    asked: &Asked,
) -> Response<Body> {
    let (bytes, coding) =
        if asked.gzip { (&rendered.gzip, "-gzip") } else { (&rendered.plain, "") };
    let etag = format!("\"{:016x}{coding}\"", rendered.hash);
    let has = asked.has(&etag);
    let mut response = if has {
        answer(StatusCode::NOT_MODIFIED, Body::empty(), etag, PLAYLIST_CACHING)
    } else {
        let body = Body::new(Chain::text(stats, bytes.clone()));
        answer(StatusCode::OK, body, etag, PLAYLIST_CACHING)
    };
    let headers = response.headers_mut();
    headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    if !has {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PLAYLIST_TYPE));
        if asked.gzip {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
    }
    response
}

/// Keeps an answer that names one viewer's pass from caches that others share.
pub(super) fn for_one_viewer(mut response: Response<Body>) -> Response<Body> {
    let caching = HeaderValue::from_static("private, no-store");
    response.headers_mut().insert(header::CACHE_CONTROL, caching);
    response
}

/// Whether a client takes gzip (RFC 9110 §12.5.3); `gzip;q=0` is a refusal.
pub fn accepts_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT_ENCODING).iter();
    values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).any(
        |coding| {
            let mut pieces = coding.split(';').map(str::trim);
            let named = pieces.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
            let refused = pieces
                .filter_map(|piece| piece.strip_prefix("q="))
                .any(|weight| weight.parse::<f32>().is_ok_and(|weight| weight <= 0.0));
            named && !refused
        },
    )
}

/// Media by its file name, which nothing else ever has.
///
/// # Errors
/// 416 for a range of what the file does not have.
pub(super) fn media_response(
    stats: &Arc<HlsStats>,
    file: &str,
    pieces: Vec<Bytes>,
    asked: &Asked,
    mut delivery: Delivery,
) -> Result<Response<Body>, Problem> {
    let etag = format!("\"{file}\"");
    if asked.has(&etag) {
        return Ok(answer(StatusCode::NOT_MODIFIED, Body::empty(), etag, MEDIA_CACHING));
    }
    let length: u64 = pieces.iter().map(|piece| piece.len() as u64).sum();
    let range = asked.range(&etag).map_or(Range::Whole, |range| range_of(range, length));
    let (status, pieces, content_range) = match range {
        Range::Whole => (StatusCode::OK, pieces, None),
        Range::Bytes(first, last) => {
            let content_range = format!("bytes {first}-{last}/{length}");
            if last + 1 < length {
                delivery = delivery.incomplete();
            }
            (StatusCode::PARTIAL_CONTENT, slice(pieces, first, last), Some(content_range))
        }
        Range::Unsatisfiable => return Err(no_such_range(length)),
    };
    let body = Body::new(Chain::media(stats, pieces, delivery));
    let mut response = answer(status, body, etag, MEDIA_CACHING);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if let Some(range) = content_range.and_then(|range| HeaderValue::try_from(range).ok()) {
        headers.insert(header::CONTENT_RANGE, range);
    }
    Ok(response)
}

/// RFC 9110 §15.5.17: it says how long the file is.
fn no_such_range(length: u64) -> Problem {
    let problem = Problem::new(
        StatusCode::RANGE_NOT_SATISFIABLE,
        "range-not-satisfiable",
        "The file does not have this range",
        format!("the file has {length} bytes"),
    );
    match HeaderValue::try_from(format!("bytes */{length}")) {
        Ok(range) => problem.header(header::CONTENT_RANGE, range),
        Err(_) => problem,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_used_only_when_wanted() {
        let asks = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(value));
            accepts_gzip(&headers)
        };
        assert!(asks("gzip") && asks("br, GZIP;q=0.5") && asks("deflate,gzip"));
        assert!(!asks("br") && !asks("gzip;q=0") && !asks("identity"));
        assert!(!accepts_gzip(&HeaderMap::new()));
    }
}
