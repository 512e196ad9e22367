//! What holds for every request, whichever handler takes it: trace and metrics,
//! CORS, errors as problem documents, bounded bodies.

use std::time::Duration;

use axum::body::{Body, HttpBody, to_bytes};
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tracing::Instrument;

use super::trace::TraceContext;
use crate::problem::Problem;
use crate::qos::Metrics;

/// A body must be here so long after its head.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of a refusal's text that are kept as the problem's detail.
const MAX_DETAIL: usize = 1024;

/// Headers that a page of another origin may read.
const EXPOSED: &str = "Location, ETag, Link, Retry-After, Accept-Post, Accept-Patch, \
    Content-Length, Content-Range, traceparent";

/// Methods and headers that a page of another origin may use.
const ALLOWED_METHODS: &str = "GET, HEAD, POST, PATCH, DELETE, OPTIONS";
const ALLOWED_HEADERS: &str = "Authorization, Content-Type, If-Match, Range, traceparent";

/// Name of the listener and where its requests are counted.
#[derive(Clone)]
pub(super) struct Observer {
    pub(super) listener: &'static str,
    pub(super) metrics: Metrics,
}

/// Outermost: a span with the trace id, the `traceparent` of the answer, a count.
pub(super) async fn observe(
    State(observer): State<Observer>,
    mut request: Request,
    next: Next,
) -> Response {
    let given = request.headers().get("traceparent").and_then(|value| value.to_str().ok());
    let trace = TraceContext::of(given);
    request.extensions_mut().insert(trace);
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("none", MatchedPath::as_str);
    let span = tracing::info_span!(
        "request",
        traceId = trace.trace_id(),
        method = %request.method(),
        route,
        table = table_of(route, request.uri().path()),
        sessionId = tracing::field::Empty,
    );
    async {
        let mut response = next.run(request).await;
        let status = response.status();
        observer.metrics.http_request(observer.listener, route, status.as_u16());
        // 503 is how the gateway says "later"; it is counted, and no cause for alarm.
        if status.is_server_error() && status != StatusCode::SERVICE_UNAVAILABLE {
            tracing::warn!(status = status.as_u16(), "request failed");
        } else {
            tracing::debug!(status = status.as_u16(), "request answered");
        }
        if let Ok(value) = HeaderValue::from_str(&trace.to_string()) {
            response.headers_mut().insert("traceparent", value);
        }
        response
    }
    .instrument(span)
    .await
}

/// The segment of `path` that stands where `route` has `{table}`.
fn table_of<'p>(route: &str, path: &'p str) -> Option<&'p str> {
    let mut pairs = route.split('/').zip(path.split('/'));
    pairs.find(|(pattern, _)| *pattern == "{table}").map(|(_, segment)| segment)
}

/// Players and publishers may be pages of any origin: nothing here rests on cookies.
pub(super) async fn cors(request: Request, next: Next) -> Response {
    let preflight = request.method() == Method::OPTIONS
        && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = next.run(request).await;
    if preflight && !response.status().is_success() {
        // The route has no handler of its own for OPTIONS.
        response = StatusCode::NO_CONTENT.into_response();
    }
    let headers = response.headers_mut();
    set(headers, header::ACCESS_CONTROL_ALLOW_ORIGIN, "*");
    set(headers, header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    set(headers, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    if preflight {
        set(headers, header::ACCESS_CONTROL_ALLOW_METHODS, ALLOWED_METHODS);
        set(headers, header::ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED_HEADERS);
        set(headers, header::ACCESS_CONTROL_MAX_AGE, "86400");
    }
    response
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: &'static str) {
    headers.insert(name, HeaderValue::from_static(value));
}

/// Turns errors that are not problem documents yet, such as those of extractors,
/// into ones, and keeps their other headers.
pub(super) async fn problems(request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    let status = response.status();
    if !(status.is_client_error() || status.is_server_error()) || !is_plain(response.headers()) {
        return response;
    }
    let (parts, body) = response.into_parts();
    let detail = to_bytes(body, MAX_DETAIL).await.unwrap_or_default();
    let detail = String::from_utf8_lossy(&detail).into_owned();
    let (kind, title) = kind_of(status);
    let mut response = Problem::new(status, kind, title, detail).into_response();
    for (name, value) in &parts.headers {
        if name != header::CONTENT_TYPE && name != header::CONTENT_LENGTH {
            response.headers_mut().append(name, value.clone());
        }
    }
    response
}

fn is_plain(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    content_type.is_none_or(|value| value.starts_with("text/plain"))
}

fn kind_of(status: StatusCode) -> (&'static str, &'static str) {
    match status {
        StatusCode::NOT_FOUND => ("not-found", "Not found"),
        StatusCode::METHOD_NOT_ALLOWED => ("method-not-allowed", "Method not allowed"),
        StatusCode::NOT_ACCEPTABLE => ("not-acceptable", "Not acceptable"),
        StatusCode::PAYLOAD_TOO_LARGE => ("payload-too-large", "Request body too long"),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => ("unsupported-media-type", "Unsupported media type"),
        _ if status.is_client_error() => ("bad-request", "Bad request"),
        _ => ("internal", "Internal error"),
    }
}

/// Reads the whole body, at most the given number of bytes, before the handler
/// runs: no handler waits for a client that sends slowly.
pub(super) async fn body_limit(
    State(limit): State<usize>,
    request: Request,
    next: Next,
) -> Response {
    let (parts, body) = request.into_parts();
    if body.is_end_stream() {
        return next.run(Request::from_parts(parts, body)).await;
    }
    if body.size_hint().lower() > limit as u64 {
        return too_long(limit).into_response();
    }
    #[allow(clippy::disallowed_methods, reason = "an I/O shell: it waits on the runtime's clock")]
    let read = tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, limit).collect()).await;
    match read {
        Ok(Ok(body)) => next.run(Request::from_parts(parts, Body::from(body.to_bytes()))).await,
        Ok(Err(error)) if error.is::<LengthLimitError>() => too_long(limit).into_response(),
        Ok(Err(_)) => Problem::new(
            StatusCode::BAD_REQUEST,
            "bad-request",
            "Bad request",
            "The request's body broke off.",
        )
        .into_response(),
        Err(_) => Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            "request-timeout",
            "Request timeout",
            "The request's body did not come in time.",
        )
        .into_response(),
    }
}

pub(super) fn too_long(limit: usize) -> Problem {
    let (kind, title) = kind_of(StatusCode::PAYLOAD_TOO_LARGE);
    let detail = format!("A request's body may have {limit} bytes.");
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, kind, title, detail)
}

/// No route.
pub(super) async fn not_found() -> Problem {
    let (kind, title) = kind_of(StatusCode::NOT_FOUND);
    Problem::new(StatusCode::NOT_FOUND, kind, title, "There is nothing at this address.")
}

/// A route without this method; `Allow` is added by the router.
pub(super) async fn method_not_allowed() -> Problem {
    let (kind, title) = kind_of(StatusCode::METHOD_NOT_ALLOWED);
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        kind,
        title,
        "This address does not take this method.",
    )
}
