//! What WHIP and WHEP have in common (RFC 9725 §4): an offer is posted, the
//! session becomes a resource that is patched and deleted.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, patch, post};

use super::tables::Tables;
use super::{layer, whep, whip};
use crate::hub::{Registry, TableName};
use crate::problem::Problem;
use crate::qos::Metrics;
use crate::time::Clock;
use crate::webrtc::ice_lite::IceCredentials;
use crate::webrtc::sdp::{IceFragment, LocalIdentity, MAX_SDP_BYTES, NegotiationError, Offer};
use crate::worker::{CloseError, MediaPool, SessionId, SessionKind, SessionView};

/// Seconds after which a request that a busy worker could not take may be made again.
const BUSY_RETRY_SECONDS: u32 = 1;
const SDP: &str = "application/sdp";
const SDP_FRAGMENT: &str = "application/trickle-ice-sdpfrag";
pub(super) const ACCEPT_POST: HeaderName = HeaderName::from_static("accept-post");
const ACCEPT_PATCH: HeaderName = HeaderName::from_static("accept-patch");

/// What the WHIP and WHEP routes work on. Shared as `Arc<MediaApi>`.
pub struct MediaApi {
    /// The tables.
    pub registry: Arc<Registry>,
    /// The media workers.
    pub pool: Arc<MediaPool>,
    /// What the tables' media takes.
    pub tables: Arc<Tables>,
    /// Where refusals are counted.
    pub metrics: Metrics,
    /// UTC for what is created.
    pub clock: Clock,
}

/// The routes of WHIP and WHEP.
pub fn router(api: Arc<MediaApi>) -> Router {
    Router::new()
        .route("/whip/{table}", post(whip::publish).options(endpoint_options))
        .route("/whep/{table}", post(whep::watch).options(endpoint_options))
        .route(
            "/whip/{table}/{session}",
            patch(patch_publisher).delete(delete_publisher).options(session_options),
        )
        .route(
            "/whep/{table}/{session}",
            patch(patch_viewer).delete(delete_viewer).options(session_options),
        )
        .route(
            "/whep/{table}/{session}/layer",
            get(layer::show).post(layer::choose).delete(layer::reset).options(layer::options),
        )
        .with_state(api)
}

/// The numbers of a session that is about to be.
pub(super) struct FreshSession {
    pub(super) id: SessionId,
    pub(super) created: Instant,
    pub(super) local: LocalIdentity,
}

impl MediaApi {
    #[allow(clippy::disallowed_methods, reason = "a session begins when its offer comes")]
    pub(super) fn fresh_session(&self) -> FreshSession {
        let id = SessionId::from_random(rand::random());
        let local = LocalIdentity {
            ice: IceCredentials::from_random(rand::random()),
            fingerprint: *self.pool.identity().fingerprint(),
            candidates: self.pool.candidates(),
            session_id: rand::random::<u64>() >> 1,
            cname: id.to_string(),
        };
        FreshSession { id, created: Instant::now(), local }
    }

    /// Counts a session that was refused because something is full.
    pub(super) fn count_refused(&self, kind: SessionKind, reason: &'static str) {
        self.metrics.session_refused(kind.as_str(), reason);
    }

    /// The session, if it is one of `kind` on `table`.
    pub(super) fn find(
        &self,
        kind: SessionKind,
        table: &str,
        session: &str,
    ) -> Result<(SessionId, SessionView), Problem> {
        let found = session.parse().ok().and_then(|id| Some((id, self.pool.view(id)?)));
        found
            .filter(|(_, view)| view.kind == kind && view.table.as_str() == table)
            .ok_or_else(no_such_session)
    }

    async fn patch(
        &self,
        kind: SessionKind,
        (table, session): (String, String),
        headers: &HeaderMap,
        body: Body,
    ) -> Result<Response, Problem> {
        let (id, view) = self.find(kind, &table, &session)?;
        check_content_type(headers, SDP_FRAGMENT, &ACCEPT_PATCH)?;
        check_precondition(headers, &view.ufrag)?;
        let fragment = IceFragment::parse(&read_text(body).await?)
            .map_err(|error| bad_sdp("The fragment cannot be read", &error.to_string()))?;
        let restart = fragment.ice.as_ref().filter(|ice| ice.ufrag != view.remote_ufrag);
        let Some(remote) = restart else {
            // Candidates of the peer: it is the one that sends the checks.
            return Ok(StatusCode::NO_CONTENT.into_response());
        };
        let local = IceCredentials::from_random(rand::random());
        let answer = fragment.write_restart(&local, &self.pool.candidates());
        let etag = etag(&local.ufrag);
        self.pool.restart_ice(id, local, &remote.ufrag);
        let headers = [(header::CONTENT_TYPE, header_value(SDP_FRAGMENT)), (header::ETAG, etag)];
        Ok((StatusCode::OK, headers, answer).into_response())
    }

    fn delete(&self, kind: SessionKind, table: &str, session: &str) -> Result<Response, Problem> {
        let (id, _) = self.find(kind, table, session)?;
        match self.pool.close(id, "closed_by_peer") {
            Ok(()) => Ok(StatusCode::OK.into_response()),
            Err(CloseError::Unknown) => Err(no_such_session()),
            Err(CloseError::Busy) => Err(busy("The session could not be ended now.")),
        }
    }
}

/// The resource that a new session becomes.
pub(super) struct Resource {
    location: String,
    etag: HeaderValue,
    links: Option<HeaderValue>,
}

impl Resource {
    pub(super) fn new(endpoint: &str, table: &TableName, fresh: &FreshSession) -> Self {
        Self {
            location: format!("/{endpoint}/{table}/{}", fresh.id),
            etag: etag(&fresh.local.ice.ufrag),
            links: None,
        }
    }

    /// Adds a `Link` to `{location}/{name}`, which extends the protocol by `relation`.
    pub(super) fn link(mut self, name: &str, relation: &str) -> Self {
        let target = format!("<{}/{name}>; rel=\"{relation}\"", self.location);
        self.links = Some(header_value(&target));
        self
    }

    /// 201 with the answer (RFC 9725 §4.2).
    pub(super) fn created(self, answer: String) -> Response {
        let headers = [
            (header::CONTENT_TYPE, header_value(SDP)),
            (header::LOCATION, header_value(&self.location)),
            (header::ETAG, self.etag),
            (ACCEPT_PATCH, header_value(SDP_FRAGMENT)),
            (header::CACHE_CONTROL, header_value("no-store")),
        ];
        let mut response = (StatusCode::CREATED, headers, answer).into_response();
        if let Some(link) = self.links {
            response.headers_mut().insert(header::LINK, link);
        }
        response
    }
}

pub(super) fn table_name(text: &str) -> Result<TableName, Problem> {
    text.parse().map_err(|error: crate::hub::InvalidTableName| {
        Problem::new(
            StatusCode::BAD_REQUEST,
            "bad-table-name",
            "Not a table name",
            error.to_string(),
        )
    })
}

/// Reads and parses the offer in a POST.
pub(super) async fn read_offer(headers: &HeaderMap, body: Body) -> Result<Offer, Problem> {
    check_offer_type(headers)?;
    Offer::parse(&read_text(body).await?)
        .map_err(|error| bad_sdp("The offer cannot be read", &error.to_string()))
}

pub(super) fn sdp_problem(error: &NegotiationError) -> Problem {
    let (status, kind, title) = match error {
        NegotiationError::NoMedia { .. } => {
            (StatusCode::BAD_REQUEST, "no-media", "Nothing to send or receive")
        }
        NegotiationError::NoUsableCodec { .. } => {
            (StatusCode::NOT_ACCEPTABLE, "no-usable-codec", "No usable codec")
        }
        NegotiationError::NoCommonCodec { .. } => {
            (StatusCode::NOT_ACCEPTABLE, "no-common-codec", "No codec in common")
        }
    };
    Problem::new(status, kind, title, error.to_string())
}

async fn patch_publisher(
    State(api): State<Arc<MediaApi>>,
    Path(path): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let patched = api.patch(SessionKind::Publisher, path, &headers, body).await;
    patched.unwrap_or_else(IntoResponse::into_response)
}

async fn patch_viewer(
    State(api): State<Arc<MediaApi>>,
    Path(path): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let patched = api.patch(SessionKind::Viewer, path, &headers, body).await;
    patched.unwrap_or_else(IntoResponse::into_response)
}

async fn delete_publisher(
    State(api): State<Arc<MediaApi>>,
    Path((table, session)): Path<(String, String)>,
) -> Response {
    let deleted = api.delete(SessionKind::Publisher, &table, &session);
    deleted.unwrap_or_else(IntoResponse::into_response)
}

async fn delete_viewer(
    State(api): State<Arc<MediaApi>>,
    Path((table, session)): Path<(String, String)>,
) -> Response {
    let deleted = api.delete(SessionKind::Viewer, &table, &session);
    deleted.unwrap_or_else(IntoResponse::into_response)
}

/// What may be posted (RFC 9725 §4.2).
async fn endpoint_options() -> Response {
    let headers =
        [(ACCEPT_POST, header_value(SDP)), (header::ALLOW, header_value("OPTIONS, POST"))];
    (StatusCode::NO_CONTENT, headers).into_response()
}

async fn session_options() -> Response {
    let headers = [
        (ACCEPT_PATCH, header_value(SDP_FRAGMENT)),
        (header::ALLOW, header_value("OPTIONS, PATCH, DELETE")),
    ];
    (StatusCode::NO_CONTENT, headers).into_response()
}

pub(super) fn check_offer_type(headers: &HeaderMap) -> Result<(), Problem> {
    check_content_type(headers, SDP, &ACCEPT_POST)
}

pub(super) fn check_content_type(
    headers: &HeaderMap,
    expected: &'static str,
    accept: &HeaderName,
) -> Result<(), Problem> {
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = given.and_then(|value| value.split(';').next()).map(str::trim);
    if media_type.is_some_and(|media_type| media_type.eq_ignore_ascii_case(expected)) {
        return Ok(());
    }
    let given = given.unwrap_or("none");
    Err(Problem::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "unsupported-media-type",
        "Unsupported media type",
        format!("The body must be {expected}; its Content-Type is {given}."),
    )
    .header(accept.clone(), header_value(expected)))
}

/// RFC 9725 §4.3: a PATCH says which ICE session it is about; `*` is any.
pub(super) fn check_precondition(headers: &HeaderMap, ufrag: &str) -> Result<(), Problem> {
    let Some(given) = headers.get(header::IF_MATCH) else {
        return Err(Problem::new(
            StatusCode::PRECONDITION_REQUIRED,
            "if-match-required",
            "If-Match is required",
            "Send the ETag of the session as If-Match.",
        ));
    };
    let current = etag(ufrag);
    let matches = |value: &str| {
        let mut tags = value.split(',').map(str::trim);
        tags.any(|tag| tag == "*" || tag == "\"*\"" || tag.as_bytes() == current.as_bytes())
    };
    if given.to_str().is_ok_and(matches) {
        return Ok(());
    }
    Err(Problem::new(
        StatusCode::PRECONDITION_FAILED,
        "ice-session-changed",
        "The ICE session has changed",
        "If-Match does not fit the session's ETag: its ICE was restarted since.",
    ))
}

async fn read_text(body: Body) -> Result<String, Problem> {
    let bytes = axum::body::to_bytes(body, MAX_SDP_BYTES)
        .await
        .map_err(|_| super::layers::too_long(MAX_SDP_BYTES))?;
    String::from_utf8(bytes.into())
        .map_err(|_| bad_sdp("The body cannot be read", "it is not UTF-8 text"))
}

pub(super) fn busy(detail: &str) -> Problem {
    let (kind, title) = ("busy", "The gateway is busy");
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, kind, title, detail)
        .retry_after(BUSY_RETRY_SECONDS)
}

pub(super) fn no_such_session() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "no-such-session",
        "No such session",
        "The session does not exist, or it has ended.",
    )
}

fn bad_sdp(title: &'static str, detail: &str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "bad-sdp", title, detail)
}

/// The user fragment names the ICE session, so it is the entity tag (RFC 9725 §4.3.1).
fn etag(ufrag: &str) -> HeaderValue {
    header_value(&format!("\"{ufrag}\""))
}

/// For text of ours, which has no characters that a header cannot carry.
pub(super) fn header_value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}
