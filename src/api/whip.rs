//! WHIP (RFC 9725): an offer becomes a publisher of a table.

use std::sync::Arc;
use std::task::Waker;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::sessions::{MediaApi, Resource, read_offer, sdp_problem, table_name};
use crate::hub::{PublishError, PublishRequest, TableName};
use crate::problem::Problem;
use crate::webrtc::sdp::{PublisherRules, answer_publisher};
use crate::webrtc::transport::RemoteDtls;
use crate::worker::{NewRole, NewSession, OwnerWaker, SessionKind};

/// Seconds after which a refused publisher may try again.
const RETRY_SECONDS: u32 = 5;

/// `POST /whip/{table}`.
pub(super) async fn publish(
    State(api): State<Arc<MediaApi>>,
    Path(table): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let offered = async {
        let table = table_name(&table)?;
        let offer = read_offer(&headers, body).await?;
        admit(&api, table, &headers, &offer)
    };
    offered.await.unwrap_or_else(IntoResponse::into_response)
}

fn admit(
    api: &MediaApi,
    table: TableName,
    headers: &HeaderMap,
    offer: &crate::webrtc::sdp::Offer,
) -> Result<Response, Problem> {
    if !api.pool.has_room(SessionKind::Publisher) {
        return Err(too_many(api));
    }
    let fresh = api.fresh_session();
    let answer = answer_publisher(offer, &fresh.local, &PublisherRules::default())
        .map_err(|error| sdp_problem(&error))?;
    let owner = Arc::new(OwnerWaker::default());
    let request = PublishRequest {
        table: table.clone(),
        tracks: answer.tracks.iter().map(|track| track.info.clone()).collect(),
        credentials: bearer(headers).map(str::to_owned),
        now: api.clock.utc(fresh.created),
        waker: Waker::from(owner.clone()),
    };
    let publisher = api.registry.publish(request).map_err(|error| refused(api, error))?;
    let resource = Resource::new("whip", &table, &fresh);
    let session = NewSession {
        id: fresh.id,
        table,
        credentials: fresh.local.ice,
        remote_ufrag: offer.ice.ufrag.clone(),
        remote_dtls: RemoteDtls { fingerprint: offer.fingerprint, our_role: answer.dtls_role },
        created: fresh.created,
        role: NewRole::Publisher { publisher, tracks: answer.tracks, owner },
    };
    api.pool.admit(session).map_err(|_| too_many(api))?;
    Ok(resource.created(answer.sdp))
}

/// The token of `Authorization: Bearer` (RFC 6750 §2.1).
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

fn refused(api: &MediaApi, error: PublishError) -> Problem {
    match error {
        PublishError::TableTaken => Problem::new(
            StatusCode::CONFLICT,
            "table-taken",
            "The table has a publisher",
            "Another publisher is live on this table. The same bearer token takes it over; \
             otherwise wait until it ends.",
        )
        .retry_after(RETRY_SECONDS),
        PublishError::TooManyTables => {
            api.count_refused(SessionKind::Publisher, "tables");
            Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "too-many-tables",
                "No room for another table",
                "This gateway carries as many tables as it is configured to.",
            )
            .retry_after(RETRY_SECONDS)
        }
    }
}

fn too_many(api: &MediaApi) -> Problem {
    api.count_refused(SessionKind::Publisher, "publishers");
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "too-many-publishers",
        "No room for another publisher",
        "This gateway has as many publishers as it is configured to take.",
    )
    .retry_after(RETRY_SECONDS)
}
