//! The public surface: WHIP, WHEP and HLS as their modules bring them, `/api/tables`
//! and the pages.

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;

use super::layers::{self, Front, Rules};
use super::pages;
use super::tables::Tables;
use crate::qos::Metrics;

/// What the public router is made of.
pub struct Parts {
    /// What `/api/tables` shows.
    pub tables: Arc<Tables>,
    /// Where requests are counted.
    pub metrics: Metrics,
    /// Longest request body, in bytes.
    pub max_body_bytes: usize,
    /// WHIP, WHEP and HLS. They set no fallback: this router does.
    pub routers: Vec<Router>,
}

/// Puts the parts together. Bodies reach the handlers whole and within the limit;
/// errors leave as problem documents; CORS is open.
pub fn router(parts: Parts) -> Router {
    let tables = Router::new().route("/api/tables", get(list)).with_state(parts.tables);
    let routes = parts.routers.into_iter().fold(tables.merge(pages::router()), Router::merge);
    let rules = Rules {
        listener: "public",
        metrics: parts.metrics,
        max_body_bytes: parts.max_body_bytes,
        cors: true,
    };
    routes
        .fallback(layers::not_found)
        .method_not_allowed_fallback(layers::method_not_allowed)
        .layer(DefaultBodyLimit::disable()) // ours holds for all handlers alike
        .layer(Front::new(rules))
}

/// The tables as JSON; also served to operators.
pub(super) async fn list(State(tables): State<Arc<Tables>>) -> impl IntoResponse {
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    (headers, tables.json())
}
