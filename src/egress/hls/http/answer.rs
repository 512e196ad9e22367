//! Answers with a body: their headers, and which bytes they carry.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use bytes::Bytes;

use super::super::playlist::Rendered;
use super::super::{HlsStats, count};
use super::body::{Chain, Range, range_of, slice};
use super::visit::Delivery;

const PLAYLIST_TYPE: &str = "application/vnd.apple.mpegurl";
const MEDIA_TYPE: &str = "video/mp4";
const PLAYLIST_CACHING: &str = "no-cache";
const MEDIA_CACHING: &str = "public, max-age=31536000, immutable";

pub(super) fn playlist_response(
    stats: &HlsStats,
    rendered: &Rendered,
    asked: &HeaderMap,
) -> Response<Body> {
    let gzip = accepts_gzip(asked);
    let bytes = if gzip { &rendered.gzip } else { &rendered.plain };
    count(&stats.bytes_out, bytes.len() as u64);
    let mut response = Response::new(Body::from(bytes.clone()));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PLAYLIST_TYPE));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(PLAYLIST_CACHING));
    headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    if gzip {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
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

pub(super) fn media_response(
    stats: &HlsStats,
    pieces: Vec<Bytes>,
    asked: &HeaderMap,
    mut delivery: Delivery,
) -> Response<Body> {
    let length: u64 = pieces.iter().map(|piece| piece.len() as u64).sum();
    let range = asked.get(header::RANGE).and_then(|value| value.to_str().ok());
    let (status, pieces, content_range) = match range.map_or(Range::Whole, |r| range_of(r, length))
    {
        Range::Whole => (StatusCode::OK, pieces, None),
        Range::Bytes(first, last) => {
            let content_range = format!("bytes {first}-{last}/{length}");
            if last + 1 < length {
                delivery = delivery.incomplete();
            }
            (StatusCode::PARTIAL_CONTENT, slice(pieces, first, last), Some(content_range))
        }
        Range::Unsatisfiable => {
            let content_range = format!("bytes */{length}");
            (StatusCode::RANGE_NOT_SATISFIABLE, Vec::new(), Some(content_range))
        }
    };
    let body = Chain::new(pieces, delivery);
    count(&stats.bytes_out, body.left);
    let mut response = Response::new(Body::new(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if status != StatusCode::RANGE_NOT_SATISFIABLE {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(MEDIA_CACHING));
    }
    if let Some(range) = content_range.and_then(|range| HeaderValue::try_from(range).ok()) {
        headers.insert(header::CONTENT_RANGE, range);
    }
    response
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
