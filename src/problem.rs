//! HTTP errors as problem documents (RFC 9457): a stable `type`, a short title,
//! a sentence for the caller; what is internal stays in the log.

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse;
use serde::Serialize;

/// An error answer. `kind` is the stable last part of its `type` URI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    status: StatusCode,
    kind: &'static str,
    title: &'static str,
    detail: String,
    retry_after: Option<u32>,
    /// Boxed, to keep results that carry a problem small.
    extra: Option<Box<(HeaderName, HeaderValue)>>,
}

#[derive(Serialize)]
struct Document<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
}

impl Problem {
    /// A problem whose `type` is `urn:railbird:problem:{kind}`.
    pub fn new(
        status: StatusCode,
        kind: &'static str,
        title: &'static str,
        detail: impl Into<String>,
    ) -> Self {
        Self { status, kind, title, detail: detail.into(), retry_after: None, extra: None }
    }

    /// Adds `Retry-After`, in seconds.
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// Adds a header, e.g. `Accept-Post` to a 415; the last one added counts.
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.extra = Some(Box::new((name, value)));
        self
    }

    /// The HTTP status.
    pub const fn status(&self) -> StatusCode {
        self.status
    }

    /// The stable last part of the `type` URI; also a metric label.
    pub const fn kind(&self) -> &'static str {
        self.kind
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response<Body> {
        let document = Document {
            r#type: format!("urn:railbird:problem:{}", self.kind),
            title: self.title,
            status: self.status.as_u16(),
            detail: &self.detail,
        };
        let body = serde_json::to_vec(&document).unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(extra) = self.extra {
            let (name, value) = *extra;
            headers.insert(name, value);
        }
        response
    }
}
