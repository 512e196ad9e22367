//! What holds for every request, whichever handler takes it: trace and metrics,
//! CORS, errors as problem documents, bounded bodies.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, HttpBody, to_bytes};
use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tower::{Layer, Service, ServiceExt};
use tracing::{Instrument, Span};

use super::trace::TraceContext;
use crate::problem::Problem;
use crate::qos::Metrics;

/// A body must be here so long after its head.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of a refusal's text that are kept as the problem's detail.
const MAX_DETAIL: usize = 1024;

/// What requests that no route takes are counted as.
const NO_ROUTE: &str = "none";

/// See [`super::trace`].
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Headers that a page of another origin may read.
const EXPOSED: &str = "Location, ETag, Link, Retry-After, Accept-Post, Accept-Patch, \
    Content-Length, Content-Range, traceparent";

/// Methods and headers that a page of another origin may use.
const ALLOWED_METHODS: &str = "GET, HEAD, POST, PATCH, DELETE, OPTIONS";
const ALLOWED_HEADERS: &str = "Authorization, Content-Type, If-Match, If-None-Match, Range, \
    traceparent";

/// The one layer around all routes of a listener. One, because a layer of axum costs
/// each request several allocations, and thousands of requests wait in them at once.
#[derive(Clone)]
pub(super) struct Front(Arc<Rules>);

/// What a [`Front`] does.
pub(super) struct Rules {
    /// Name of the listener, for the metrics.
    pub(super) listener: &'static str,
    /// Where requests are counted.
    pub(super) metrics: Metrics,
    /// Longest request body, in bytes.
    pub(super) max_body_bytes: usize,
    /// Whether pages of other origins may use the listener.
    pub(super) cors: bool,
}

impl Front {
    pub(super) fn new(rules: Rules) -> Self {
        Self(Arc::new(rules))
    }
}

impl<S> Layer<S> for Front {
    type Service = Fronted<S>;

    fn layer(&self, routes: S) -> Fronted<S> {
        Fronted { routes, rules: self.0.clone() }
    }
}

/// Routes behind a [`Front`].
#[derive(Clone)]
pub(super) struct Fronted<S> {
    routes: S,
    rules: Arc<Rules>,
}

impl<S> Service<Request> for Fronted<S>
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.routes.poll_ready(context)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let rules = self.rules.clone();
        let asked = Asked::of(&mut request);
        if request.body().is_end_stream() {
            // The future holds neither the request nor the buffer that it was read from.
            let response = self.routes.call(request);
            return Box::pin(rules.answer(asked, async move { unfailing(response.await) }));
        }
        let routes = self.routes.clone();
        Box::pin(async move {
            let limit = rules.max_body_bytes;
            let response = async {
                match read_body(request, limit).await {
                    Ok(request) => unfailing(routes.oneshot(request).await),
                    Err(problem) => problem.into_response(),
                }
            };
            rules.answer(asked, response).await
        })
    }
}

fn unfailing(result: Result<Response, Infallible>) -> Response {
    let Ok(response) = result;
    response
}

/// What is known of a request after it was handed on.
struct Asked {
    trace: TraceContext,
    /// Whether the client began the trace.
    traced: bool,
    route: Option<MatchedPath>,
    preflight: bool,
    span: Span,
}

impl Asked {
    fn of(request: &mut Request) -> Self {
        let given = request.headers().get(TRACEPARENT).and_then(|value| value.to_str().ok());
        let (trace, traced) = (TraceContext::of(given), given.is_some());
        request.extensions_mut().insert(trace);
        let matched = request.extensions().get::<MatchedPath>().cloned();
        let preflight = request.method() == Method::OPTIONS
            && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        let route = matched.as_ref().map_or(NO_ROUTE, MatchedPath::as_str);
        let span = span_of(request, route, &trace);
        Self { trace, traced, route: matched, preflight, span }
    }

    fn route(&self) -> &str {
        self.route.as_ref().map_or(NO_ROUTE, MatchedPath::as_str)
    }
}

/// The span of a request. Those of players are many, and by themselves say nothing.
fn span_of(request: &Request, route: &str, trace: &TraceContext) -> Span {
    macro_rules! span {
        ($span:ident) => {
            tracing::$span!(
                "request",
                traceId = trace.trace_id(),
                method = %request.method(),
                route,
                table = table_of(route, request.uri().path()),
                sessionId = tracing::field::Empty,
            )
        };
    }
    if is_media(route) { span!(debug_span) } else { span!(info_span) }
}

/// Whether no cache may keep it.
fn is_kept_by_none(response: &Response) -> bool {
    let caching = response.headers().get(header::CACHE_CONTROL);
    caching.is_some_and(|value| value.as_bytes().ends_with(b"no-store"))
}

/// Playlists, parts and segments.
fn is_media(route: &str) -> bool {
    route.starts_with("/hls/")
}

impl Rules {
    /// Waits for the routes' answer, and counts and completes it.
    async fn answer(
        self: Arc<Self>,
        asked: Asked,
        response: impl Future<Output = Response>,
    ) -> Result<Response, Infallible> {
        let mut response = response.instrument(asked.span.clone()).await;
        let status = response.status();
        if (status.is_client_error() || status.is_server_error()) && is_plain(response.headers()) {
            response = as_problem(response).await;
        }
        if self.cors {
            allow_origins(&mut response, asked.preflight);
        }
        let status = response.status();
        self.metrics.http_request(self.listener, asked.route(), status.as_u16());
        asked.span.in_scope(|| {
            // 503 is how the gateway says "later"; it is counted, and no cause for alarm.
            if status.is_server_error() && status != StatusCode::SERVICE_UNAVAILABLE {
                tracing::warn!(status = status.as_u16(), route = asked.route(), "request failed");
            } else {
                tracing::debug!(status = status.as_u16(), "request answered");
            }
        });
        // Caches give what players get to others: only what they do not keep bears a
        // trace, and only when it was asked in one.
        let told = !is_media(asked.route()) || asked.traced && is_kept_by_none(&response);
        if told && let Ok(value) = HeaderValue::from_str(&asked.trace.to_string()) {
            response.headers_mut().insert(TRACEPARENT, value);
        }
        Ok(response)
    }
}

/// The segment of `path` that stands where `route` has `{table}`.
fn table_of<'p>(route: &str, path: &'p str) -> Option<&'p str> {
    let mut pairs = route.split('/').zip(path.split('/'));
    pairs.find(|(pattern, _)| *pattern == "{table}").map(|(_, segment)| segment)
}

/// Players and publishers may be pages of any origin: nothing here rests on cookies.
fn allow_origins(response: &mut Response, preflight: bool) {
    if preflight && !response.status().is_success() {
        // The route has no handler of its own for OPTIONS.
        *response = StatusCode::NO_CONTENT.into_response();
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
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: &'static str) {
    headers.insert(name, HeaderValue::from_static(value));
}

/// Turns an error that is no problem document yet, such as an extractor's, into one,
/// and keeps its other headers.
async fn as_problem(response: Response) -> Response {
    let status = response.status();
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

/// Reads the whole body, at most `limit` bytes, before the handler runs: no handler
/// waits for a client that sends slowly.
async fn read_body(request: Request, limit: usize) -> Result<Request, Problem> {
    let (parts, body) = request.into_parts();
    if body.size_hint().lower() > limit as u64 {
        return Err(too_long(limit));
    }
    #[allow(clippy::disallowed_methods, reason = "an I/O shell: it waits on the runtime's clock")]
    let read = tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, limit).collect()).await;
    match read {
        Ok(Ok(body)) => Ok(Request::from_parts(parts, Body::from(body.to_bytes()))),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_long(limit)),
        Ok(Err(_)) => Err(Problem::new(
            StatusCode::BAD_REQUEST,
            "bad-request",
            "Bad request",
            "The request's body broke off.",
        )),
        Err(_) => Err(Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            "request-timeout",
            "Request timeout",
            "The request's body did not come in time.",
        )),
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

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use axum::routing::get;

    use super::*;

    #[tokio::test]
    async fn what_caches_keep_bears_no_trace() {
        let kept =
            |caching: &'static str| get(move || async move { [(header::CACHE_CONTROL, caching)] });
        let rules =
            Rules { listener: "public", metrics: Metrics::new(), max_body_bytes: 1024, cors: true };
        let routes = Router::new()
            .route("/hls/media", kept("public, max-age=31536000, immutable"))
            .route("/hls/playlist", kept("public, max-age=1"))
            .route("/hls/own", kept("private, no-store"))
            .layer(Front::new(rules));
        for (path, traced) in [("/hls/media", false), ("/hls/playlist", false), ("/hls/own", true)]
        {
            let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
            let request = Request::get(path).header(TRACEPARENT, trace).body(Body::empty());
            let answer = routes.clone().oneshot(request.unwrap()).await.unwrap();
            assert_eq!(answer.status(), StatusCode::OK);
            assert_eq!(answer.headers().contains_key(TRACEPARENT), traced, "{path}");
        }
    }
}
