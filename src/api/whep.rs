//! WHEP (draft-ietf-wish-whep): an offer becomes a viewer of a table.

use std::ops::RangeInclusive;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use rand::RngExt as _;

use super::layer;
use super::sessions::{MediaApi, Resource, read_offer, sdp_problem, table_name};
use crate::hub::{Stream, TableName};
use crate::problem::Problem;
use crate::webrtc::negotiated::SendTrack;
use crate::webrtc::sdp::{Offer, answer_viewer};
use crate::webrtc::transport::RemoteDtls;
use crate::worker::{NewRole, NewSession, Refusal, SessionKind};

/// Seconds after which a viewer may ask again for a table that is not live.
const NOT_LIVE_RETRY_SECONDS: u32 = 2;
/// Seconds after which a viewer may ask again when there is no room: no two shall come
/// back at once, and the headroom is judged over ten seconds.
const FULL_RETRY_SECONDS: RangeInclusive<u32> = 5..=15;

/// `POST /whep/{table}`.
pub(super) async fn watch(
    State(api): State<Arc<MediaApi>>,
    Path(table): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let offered = async {
        let table = table_name(&table)?;
        let offer = read_offer(&headers, body).await?;
        admit(&api, table, &offer)
    };
    offered.await.unwrap_or_else(IntoResponse::into_response)
}

fn admit(api: &MediaApi, table: TableName, offer: &Offer) -> Result<Response, Problem> {
    let stream = live_stream(api, &table)?;
    let bps = api.tables.viewer_bps(&stream);
    // Before the offer is worked on; what counts is the admission at the end.
    api.pool.check_viewer(bps).map_err(|refusal| refused(api, refusal))?;
    let fresh = api.fresh_session();
    let answer = answer_viewer(offer, &fresh.local, &stream.tracks, &mut rand::random)
        .map_err(|error| sdp_problem(&error))?;
    let mut resource = Resource::new("whep", &table, &fresh);
    let layers = |track: &SendTrack| {
        stream.tracks.get(usize::from(track.track)).map_or(0, |info| info.rids.len())
    };
    if answer.tracks.iter().any(|track| layers(track) > 1) {
        resource = resource.link("layer", layer::RELATION);
    }
    let session = NewSession {
        id: fresh.id,
        table,
        credentials: fresh.local.ice,
        remote_ufrag: offer.ice.ufrag.clone(),
        remote_dtls: RemoteDtls { fingerprint: offer.fingerprint, our_role: answer.dtls_role },
        created: fresh.created,
        role: NewRole::Viewer { stream, tracks: answer.tracks },
    };
    api.pool.admit_viewer(session, bps).map_err(|refusal| refused(api, refusal))?;
    Ok(resource.created(answer.sdp))
}

fn live_stream(api: &MediaApi, table: &TableName) -> Result<Arc<Stream>, Problem> {
    let problem = |status, kind, title, detail: String| {
        Err(Problem::new(status, kind, title, detail).retry_after(NOT_LIVE_RETRY_SECONDS))
    };
    match api.registry.get(table) {
        Some(stream) if stream.is_live() => Ok(stream),
        Some(_) => problem(
            StatusCode::CONFLICT,
            "table-not-live-yet",
            "The table is not live yet",
            format!("The publisher of {table} is connecting; no media has arrived yet."),
        ),
        None => problem(
            StatusCode::NOT_FOUND,
            "table-not-live",
            "The table is not live",
            format!("Nobody publishes {table} at the moment."),
        ),
    }
}

fn refused(api: &MediaApi, refusal: Refusal) -> Problem {
    api.count_refused(SessionKind::Viewer, refusal.as_str());
    let (kind, title, detail) = match refusal {
        Refusal::Viewers => (
            "too-many-viewers",
            "No room for another viewer",
            "This gateway has as many viewers as it is configured to serve.",
        ),
        Refusal::Egress => (
            "no-headroom",
            "No bandwidth for another viewer",
            "The bandwidth that this gateway may use is taken. Those who watch are served on; \
             another gateway may have room, or this one later.",
        ),
        Refusal::WorkerBusy => (
            "no-headroom",
            "No time for another viewer",
            "This gateway's media workers have as much to do as they can do well. Those who watch \
             are served on; another gateway may have room, or this one later.",
        ),
    };
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, kind, title, detail)
        .retry_after(rand::rng().random_range(FULL_RETRY_SECONDS))
}
