//! The operators' surface: metrics, health, tables. It has no authentication and
//! listens on loopback unless the configuration says otherwise.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::health::Health;
use super::layers::{self, Front, Rules};
use super::public::list;
use super::tables::Tables;
use crate::problem::Problem;
use crate::qos::Metrics;

/// Longest body of an admin request, in bytes: none of them needs one.
const MAX_BODY: usize = 1024;

/// What the admin router is made of.
pub struct Parts {
    /// What `/metrics` shows.
    pub metrics: Metrics,
    /// What `/healthz/ready` tells.
    pub health: Arc<Health>,
    /// What `/tables` shows.
    pub tables: Arc<Tables>,
}

/// Puts the parts together.
pub fn router(parts: Parts) -> Router {
    let rules = Rules {
        listener: "admin",
        metrics: parts.metrics.clone(),
        max_body_bytes: MAX_BODY,
        cors: false,
    };
    Router::new()
        .route("/metrics", get(metrics).with_state(parts.metrics))
        .route("/healthz/live", get(|| async { "live\n" }))
        .route("/healthz/ready", get(ready).with_state(parts.health))
        .route("/tables", get(list).with_state(parts.tables))
        .fallback(layers::not_found)
        .method_not_allowed_fallback(layers::method_not_allowed)
        .layer(Front::new(rules))
}

async fn metrics(State(metrics): State<Metrics>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], metrics.render())
}

async fn ready(State(health): State<Arc<Health>>) -> Response {
    match health.not_ready() {
        None => "ready\n".into_response(),
        Some(reason) => {
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not-ready", "Not ready", reason)
                .into_response()
        }
    }
}
