//! LL-HLS over HTTP: playlists that may be held, parts, segments.
//!
//! Source: rfc8216bis §6.2.5 (blocking reload, preload hints), RFC 9110 §14
//! (ranges). Names of media say which publication they belong to and never come
//! back with other bytes, so they may be cached for ever; playlists may not.

#![allow(clippy::disallowed_methods, reason = "the I/O shell: requests wait on the clock")]

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use axum::routing::get;
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::blocking::{BadDirectives, Decision, Directives, decide};
use super::packager::{Live, Published, Rendition};
use super::render::Rendered;
use super::store::Resource;
use super::{Hls, HlsStats, count};
use crate::hub::TableName;
use crate::problem::Problem;

const PLAYLIST_TYPE: &str = "application/vnd.apple.mpegurl";
const MEDIA_TYPE: &str = "video/mp4";
const PLAYLIST_CACHING: &str = "no-cache";
const MEDIA_CACHING: &str = "public, max-age=31536000, immutable";

/// The public routes: `/hls/{table}/index.m3u8` and what is below it. CORS is the
/// public router's.
pub fn router(hls: Arc<Hls>) -> Router {
    Router::new()
        .route("/hls/{table}/index.m3u8", get(multivariant))
        .route("/hls/{table}/{rendition}/{file}", get(below))
        .with_state(hls)
}

async fn multivariant(
    State(hls): State<Arc<Hls>>,
    Path(table): Path<String>,
    headers: HeaderMap,
) -> Result<Response<Body>, Problem> {
    count(&hls.stats.multivariant_requests, 1);
    let live = find(&hls, &table)?;
    let mut published = live.multivariant.subscribe();
    let deadline = Instant::now() + hls.settings.start_wait;
    let rendered = wait(&hls, &mut published, deadline, not_ready, |rendered| Ok(rendered.clone()));
    Ok(playlist_response(&hls.stats, &rendered.await?, &headers))
}

async fn below(
    State(hls): State<Arc<Hls>>,
    Path((table, rendition, file)): Path<(String, String, String)>,
    RawQuery(query): RawQuery,
    method: Method,
    mut headers: HeaderMap,
) -> Result<Response<Body>, Problem> {
    if method == Method::HEAD {
        // RFC 9110 §14.2: ranges are defined for GET only.
        headers.remove(header::RANGE);
    }
    let live = find(&hls, &table)?;
    let rendition = live.rendition(&rendition).ok_or_else(|| no_such("rendition"))?;
    if file == "index.m3u8" {
        return media_playlist(&hls, &live, rendition, &query.unwrap_or_default(), &headers).await;
    }
    let resource = match Name::parse(&file, &live.token).ok_or_else(|| no_such("file"))? {
        Name::Init(number) => {
            count(&hls.stats.init_requests, 1);
            rendition.published.borrow().view.init(number)
        }
        Name::Segment(msn) => {
            count(&hls.stats.segment_requests, 1);
            rendition.published.borrow().view.segment(msn)
        }
        Name::Part(number) => {
            count(&hls.stats.part_requests, 1);
            part(&hls, &live, rendition, number).await?
        }
    };
    match resource {
        Resource::Piece(bytes) => Ok(media_response(&hls.stats, vec![bytes], &headers)),
        Resource::Segment(segment) => {
            let pieces = segment.parts.iter().map(|part| part.media.data.clone()).collect();
            Ok(media_response(&hls.stats, pieces, &headers))
        }
        Resource::Hinted | Resource::Unknown => Err(no_such("file")),
    }
}

/// What a file name below a rendition stands for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Name {
    Init(u32),
    Segment(u64),
    Part(u64),
}

impl Name {
    /// `{token}-i{n}.mp4`, `{token}-s{msn}.m4s` or `{token}-p{n}.m4s`.
    pub(super) fn parse(file: &str, token: &str) -> Option<Self> {
        let rest = file.strip_prefix(token)?.strip_prefix('-')?;
        let number = |prefix, suffix| -> Option<u64> {
            let digits = rest.strip_prefix(prefix)?.strip_suffix(suffix)?;
            // Only the one spelling that playlists use: caches key on it.
            let canonical = digits == "0" || !digits.starts_with(['0', '+']);
            digits.parse().ok().filter(|_| canonical)
        };
        number('i', ".mp4")
            .and_then(|n| u32::try_from(n).ok())
            .map(Self::Init)
            .or_else(|| number('s', ".m4s").map(Self::Segment))
            .or_else(|| number('p', ".m4s").map(Self::Part))
    }
}

async fn media_playlist(
    hls: &Hls,
    live: &Live,
    rendition: &Rendition,
    query: &str,
    headers: &HeaderMap,
) -> Result<Response<Body>, Problem> {
    count(&hls.stats.playlist_requests, 1);
    let directives = Directives::parse(query).map_err(bad_directives)?;
    let mut published = rendition.published.subscribe();
    let begun = published.borrow().view.progress().has_segment();
    let patience = if begun { live.targets.durations(3) } else { hls.settings.start_wait };
    let too_late = if begun { held_too_long } else { not_ready };
    let deadline = Instant::now() + patience;
    let waiting = Waiting::new(&rendition.waiting);
    let version = wait(hls, &mut published, deadline, too_late, |version: &Arc<Published>| {
        match decide(directives, version.view.progress(), live.targets.part) {
            Decision::Answer => Ok(Some(version.clone())),
            Decision::Wait => Ok(None),
            Decision::Refuse => Err(bad_directives(BadDirectives::TooFarAhead)),
        }
    });
    let version = version.await?;
    drop(waiting);
    Ok(playlist_response(&hls.stats, version.playlist.of(directives.skip), headers))
}

/// The part of this number; the hinted one is waited for.
async fn part(
    hls: &Hls,
    live: &Live,
    rendition: &Rendition,
    number: u64,
) -> Result<Resource, Problem> {
    let mut published = rendition.published.subscribe();
    let deadline = Instant::now() + live.targets.durations(3);
    wait(hls, &mut published, deadline, held_too_long, |version: &Arc<Published>| {
        Ok(match version.view.part(number) {
            Resource::Hinted => None,
            resource => Some(resource),
        })
    })
    .await
}

/// Looks at each version until `pick` takes something from one.
async fn wait<V, T>(
    hls: &Hls,
    published: &mut watch::Receiver<V>,
    deadline: Instant,
    too_late: fn() -> Problem,
    mut pick: impl FnMut(&V) -> Result<Option<T>, Problem>,
) -> Result<T, Problem> {
    if let Some(picked) = pick(&published.borrow_and_update())? {
        return Ok(picked);
    }
    let _held = Held::new(hls)?;
    loop {
        match timeout_at(deadline, published.changed()).await {
            Ok(Ok(())) => {}
            // The sender lives in the table that the caller holds.
            Ok(Err(_)) => return Err(not_live()),
            Err(_) => {
                count(&hls.stats.timed_out_requests, 1);
                return Err(too_late());
            }
        }
        if let Some(picked) = pick(&published.borrow_and_update())? {
            return Ok(picked);
        }
    }
}

/// Counts a held request while it lives, and bounds their number.
struct Held<'a>(&'a HlsStats);

impl<'a> Held<'a> {
    fn new(hls: &'a Hls) -> Result<Self, Problem> {
        let held = Self(&hls.stats);
        let before = hls.stats.held_requests.fetch_add(1, Ordering::Relaxed);
        if before < hls.settings.max_held_requests {
            return Ok(held);
        }
        count(&hls.stats.refused_requests, 1);
        Err(Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "too-many-requests-held",
            "Too many requests are waiting",
            "the gateway holds as many playlist requests as it is allowed to",
        )
        .retry_after(1))
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.held_requests.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts a playlist request of one rendition while it lives.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(counter: &'a AtomicUsize) -> Self {
        counter.fetch_add(1, Ordering::Relaxed);
        Self(counter)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn find(hls: &Hls, table: &str) -> Result<Arc<Live>, Problem> {
    table.parse::<TableName>().ok().and_then(|table| hls.live(&table)).ok_or_else(not_live)
}

fn not_live() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "table-not-live",
        "The table is not live",
        "nobody publishes this table now, or nothing that HLS can carry",
    )
    .retry_after(1)
}

fn no_such(what: &str) -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "no-such-media",
        "There is no such media",
        format!("the table has no such {what}, or not any more"),
    )
}

fn not_ready() -> Problem {
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "table-not-ready",
        "The table has no media yet",
        "the table is live but nothing playable has come from its publisher",
    )
    .retry_after(1)
}

fn held_too_long() -> Problem {
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "held-too-long",
        "The media did not come",
        "what was asked for has not been produced within three target durations",
    )
    .retry_after(1)
}

fn bad_directives(error: BadDirectives) -> Problem {
    let title = "The delivery directives are not valid";
    Problem::new(StatusCode::BAD_REQUEST, "bad-delivery-directives", title, error.to_string())
}

fn playlist_response(stats: &HlsStats, rendered: &Rendered, asked: &HeaderMap) -> Response<Body> {
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

fn media_response(stats: &HlsStats, pieces: Vec<Bytes>, asked: &HeaderMap) -> Response<Body> {
    let length: u64 = pieces.iter().map(|piece| piece.len() as u64).sum();
    let range = asked.get(header::RANGE).and_then(|value| value.to_str().ok());
    let (status, pieces, content_range) = match range.map_or(Range::Whole, |r| range_of(r, length))
    {
        Range::Whole => (StatusCode::OK, pieces, None),
        Range::Bytes(first, last) => {
            let content_range = format!("bytes {first}-{last}/{length}");
            (StatusCode::PARTIAL_CONTENT, slice(pieces, first, last), Some(content_range))
        }
        Range::Unsatisfiable => {
            let content_range = format!("bytes */{length}");
            (StatusCode::RANGE_NOT_SATISFIABLE, Vec::new(), Some(content_range))
        }
    };
    let body = Chain::new(pieces);
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

/// What a `Range` header asks of a body.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Range {
    /// All of it; also when the header is malformed or names several ranges,
    /// which a server may ignore (RFC 9110 §14.2).
    Whole,
    /// From the first to the last byte, both included.
    Bytes(u64, u64),
    /// Nothing of it exists.
    Unsatisfiable,
}

pub(super) fn range_of(value: &str, length: u64) -> Range {
    let parsed = value.strip_prefix("bytes=").and_then(|spec| spec.split_once('-'));
    let Some((first, last)) = parsed else { return Range::Whole };
    let number = |digits: &str| digits.trim().parse::<u64>().ok();
    match (first.trim().is_empty(), number(first), last.trim().is_empty(), number(last)) {
        (true, _, false, Some(suffix)) if suffix > 0 && length > 0 => {
            Range::Bytes(length.saturating_sub(suffix), length - 1)
        }
        (true, _, false, Some(_)) => Range::Unsatisfiable,
        (false, Some(first), _, last) if last.is_some_and(|last| last < first) => Range::Whole,
        (false, Some(first), true, _) | (false, Some(first), false, Some(_)) if first >= length => {
            Range::Unsatisfiable
        }
        (false, Some(first), true, _) => Range::Bytes(first, length - 1),
        (false, Some(first), false, Some(last)) => Range::Bytes(first, last.min(length - 1)),
        _ => Range::Whole,
    }
}

/// The bytes from `first` to `last`, both included, of a chain.
pub(super) fn slice(pieces: Vec<Bytes>, first: u64, last: u64) -> Vec<Bytes> {
    let mut start = 0u64;
    let mut out = Vec::new();
    for piece in pieces {
        let end = start + piece.len() as u64;
        let (from, to) = (first.max(start), (last + 1).min(end));
        if from < to {
            out.push(piece.slice((from - start) as usize..(to - start) as usize));
        }
        start = end;
    }
    out
}

/// A body of pieces that are sent as they are, with a known length.
struct Chain {
    pieces: std::vec::IntoIter<Bytes>,
    left: u64,
}

impl Chain {
    fn new(pieces: Vec<Bytes>) -> Self {
        let left = pieces.iter().map(|piece| piece.len() as u64).sum();
        Self { pieces: pieces.into_iter(), left }
    }
}

impl hyper::body::Body for Chain {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let piece = self.pieces.next();
        self.left -= piece.as_ref().map_or(0, |piece| piece.len() as u64);
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h13_ranges_are_read_as_rfc_9110_says() {
        assert_eq!(range_of("bytes=0-9", 100), Range::Bytes(0, 9));
        assert_eq!(range_of("bytes=90-", 100), Range::Bytes(90, 99));
        assert_eq!(range_of("bytes=90-500", 100), Range::Bytes(90, 99));
        assert_eq!(range_of("bytes=-10", 100), Range::Bytes(90, 99));
        assert_eq!(range_of("bytes=-500", 100), Range::Bytes(0, 99));
        for none in ["bytes=100-", "bytes=100-200", "bytes=-0"] {
            assert_eq!(range_of(none, 100), Range::Unsatisfiable, "{none}");
        }
        for whole in ["bytes=9-0", "bytes=", "bytes=-", "bytes=0-1,5-6", "items=0-1", "bytes=a-b"] {
            assert_eq!(range_of(whole, 100), Range::Whole, "{whole}");
        }
        assert_eq!(range_of("bytes=0-", 0), Range::Unsatisfiable);
    }

    #[test]
    fn slices_run_over_piece_borders() {
        let pieces = || vec![Bytes::from_static(b"abc"), Bytes::from_static(b"defg")];
        assert_eq!(slice(pieces(), 0, 6).concat(), b"abcdefg");
        assert_eq!(slice(pieces(), 2, 4).concat(), b"cde");
        assert_eq!(slice(pieces(), 3, 3).concat(), b"d");
    }

    #[test]
    fn names_have_one_spelling() {
        assert_eq!(Name::parse("t-p10.m4s", "t"), Some(Name::Part(10)));
        assert_eq!(Name::parse("t-s0.m4s", "t"), Some(Name::Segment(0)));
        assert_eq!(Name::parse("t-i1.mp4", "t"), Some(Name::Init(1)));
        for bad in ["t-p01.m4s", "t-p+1.m4s", "t-p.m4s", "u-p1.m4s", "t-p1.mp4", "tp1.m4s", ""] {
            assert_eq!(Name::parse(bad, "t"), None, "{bad}");
        }
    }

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
