//! The pages, embedded in the binary as `web/` built them.
//!
//! Files below `assets/` carry a hash in their names and never change; the others
//! are asked for anew each time and answered 304 when they are the same.

use std::borrow::Cow;
use std::io::Write;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Path;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use rust_embed::RustEmbed;

use super::layers::not_found;
use crate::egress::hls::accepts_gzip;
use crate::hub::TableName;

#[derive(RustEmbed)]
#[folder = "web/dist"]
struct Dist;

/// Everything comes from the gateway itself, without inline code; MSE plays from
/// `blob:` URLs, and hls.js starts its worker from one.
const CONTENT_SECURITY_POLICY: &str = "default-src 'self'; img-src 'self' data: blob:; \
    media-src 'self' blob:; worker-src 'self' blob:; object-src 'none'; base-uri 'none'; \
    form-action 'self'; frame-ancestors 'self'";

/// One file, ready to be sent.
struct File {
    plain: Bytes,
    /// Only when it is noticeably smaller.
    gzip: Option<Bytes>,
    etag: HeaderValue,
    content_type: &'static str,
    immutable: bool,
}

/// The routes of all embedded files; pages stand at `/`, `/play/…` and `/publish/…`.
pub(super) fn router() -> Router {
    let mut router = Router::new();
    for path in Dist::iter() {
        let Some(embedded) = Dist::get(&path) else { continue };
        let file = Arc::new(File::new(&path, embedded.data, &embedded.metadata.sha256_hash()));
        router = match path.as_ref() {
            "index.html" => router.route("/", file.fixed()),
            "play.html" => router.route("/play/{table}", file.of_table()),
            "publish.html" => {
                router.route("/publish", file.fixed()).route("/publish/{table}", file.of_table())
            }
            _ => router.route(&format!("/{path}"), file.fixed()),
        };
    }
    router
}

impl File {
    fn new(path: &str, data: Cow<'static, [u8]>, hash: &[u8; 32]) -> Self {
        let content_type = content_type(path);
        let plain = match data {
            Cow::Borrowed(data) => Bytes::from_static(data),
            Cow::Owned(data) => Bytes::from(data),
        };
        let hash: String = hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        Self {
            gzip: gzip(&plain).filter(|gzip| gzip.len() < plain.len() / 10 * 9),
            plain,
            // Weak, because the plain and the compressed bytes share it (RFC 9110 §8.8.1).
            // Hexadecimal digits in quotes are a header value.
            etag: HeaderValue::from_str(&format!("W/\"{hash}\""))
                .unwrap_or(HeaderValue::from_static("W/\"\"")),
            content_type,
            immutable: path.starts_with("assets/"),
        }
    }

    fn fixed(self: &Arc<Self>) -> axum::routing::MethodRouter {
        let file = self.clone();
        get(move |headers: HeaderMap| async move { file.answer(&headers) })
    }

    /// The page of any table, live or not; what is no table name is not found.
    fn of_table(self: &Arc<Self>) -> axum::routing::MethodRouter {
        let file = self.clone();
        get(move |Path(table): Path<String>, headers: HeaderMap| async move {
            match table.parse::<TableName>() {
                Ok(_) => file.answer(&headers),
                Err(_) => not_found().await.into_response(),
            }
        })
    }

    fn answer(&self, request: &HeaderMap) -> Response {
        let known = request.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
        let etag = self.etag.to_str().unwrap_or_default().trim_start_matches("W/");
        let unchanged = known.is_some_and(|known| known == "*" || known.contains(etag));
        let gzip = self.gzip.as_ref().filter(|_| accepts_gzip(request));
        let mut response = if unchanged {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            Response::new(Body::from(gzip.unwrap_or(&self.plain).clone()))
        };
        let headers = response.headers_mut();
        let mut set = |name, value| headers.insert(name, HeaderValue::from_static(value));
        set(header::CONTENT_TYPE, self.content_type);
        set(
            header::CACHE_CONTROL,
            if self.immutable { "public, max-age=31536000, immutable" } else { "no-cache" },
        );
        set(header::VARY, "Accept-Encoding");
        if gzip.is_some() && !unchanged {
            set(header::CONTENT_ENCODING, "gzip");
        }
        if self.content_type.starts_with("text/html") {
            set(header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY);
            set(header::REFERRER_POLICY, "no-referrer");
        }
        headers.insert(header::ETAG, self.etag.clone());
        response
    }
}

fn gzip(data: &[u8]) -> Option<Bytes> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(data).ok()?;
    encoder.finish().ok().map(Bytes::from)
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("json" | "webmanifest") => "application/json",
        Some("png") => "image/png",
        Some("ico") => "image/x-icon",
        Some("woff2") => "font/woff2",
        Some("txt") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_file_is_not_sent_twice() {
        let file = File::new("assets/a-1.js", Cow::Owned(vec![b'x'; 5000]), &[7; 32]);
        let mut request = HeaderMap::new();
        let first = file.answer(&request);
        assert_eq!(first.headers()[header::CONTENT_TYPE], "text/javascript; charset=utf-8");
        assert_eq!(first.headers()[header::CACHE_CONTROL], "public, max-age=31536000, immutable");
        request.insert(header::IF_NONE_MATCH, first.headers()[header::ETAG].clone());
        assert_eq!(file.answer(&request).status(), StatusCode::NOT_MODIFIED);
    }
}
