//! The layer extension of WHEP (`urn:ietf:params:whep:ext:core:layer`): a viewer sees
//! which simulcast layers there are, chooses one, or leaves the choice to the gateway.
//!
//! `GET` answers in the form of the extension's `layers` event: for each video
//! section, by its mid, the layers that flow and those that do not. `POST` takes
//! `{"mediaId": "0", "encodingId": "h"}`; without `encodingId`, and by `DELETE`, the
//! gateway chooses again. Both answer as `GET` does.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use super::layers::too_long;
use super::sessions::{
    ACCEPT_POST, MediaApi, busy, check_content_type, header_value, no_such_session,
};
use super::tables::{LayerView, Tables};
use crate::codec::MediaKind;
use crate::media::{LayerId, TrackInfo};
use crate::problem::Problem;
use crate::worker::{ChooseError, Sent, SessionId, SessionKind, WatchedTrack, Watching};

/// The extension's name, as a `Link` gives it.
pub(super) const RELATION: &str = "urn:ietf:params:whep:ext:core:layer";

const JSON: &str = "application/json";
/// Bytes of a choice: a mid and a rid, with room for members that are not ours.
const MAX_CHOICE_BYTES: usize = 1024;

/// A choice. Other members of the extension (spatial and temporal layers within an
/// encoding) do not apply to simulcast, and are left unread.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Choice {
    media_id: Option<String>,
    encoding_id: Option<String>,
}

/// The layers of one video section.
#[derive(Debug, Serialize)]
struct MediaView {
    /// What flows, and does not.
    active: Vec<Encoding>,
    inactive: Vec<Encoding>,
    /// What may be chosen with effect: as `active`, under the names of a choice.
    layers: Vec<Choosable>,
    /// The choice in force; `null`: the gateway chooses.
    chosen: Option<String>,
    /// What the viewer is sent; `null` before the first packet and while paused.
    sent: Option<String>,
    /// The path does not carry the lowest layer: audio goes on alone.
    paused: bool,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Encoding {
    id: String,
    simulcast_idx: usize,
    #[serde(flatten)]
    facts: Facts,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Choosable {
    encoding_id: String,
    simulcast_idx: usize,
    #[serde(flatten)]
    facts: Facts,
}

/// Measured at the gateway's input.
#[derive(Clone, Debug, Serialize)]
struct Facts {
    #[serde(skip_serializing_if = "Option::is_none")]
    width: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    height: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fps: Option<f64>,
    bitrate: u64,
}

impl From<&LayerView> for Facts {
    fn from(view: &LayerView) -> Self {
        Self { width: view.width, height: view.height, fps: view.fps, bitrate: view.bitrate }
    }
}

/// `GET /whep/{table}/{session}/layer`.
pub(super) async fn show(
    State(api): State<Arc<MediaApi>>,
    Path((table, session)): Path<(String, String)>,
) -> Response {
    let found = watching(&api, &table, &session);
    found.map_or_else(IntoResponse::into_response, |(_, watching)| document(&api.tables, &watching))
}

/// `POST /whep/{table}/{session}/layer`.
pub(super) async fn choose(
    State(api): State<Arc<MediaApi>>,
    Path((table, session)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let chosen = async {
        let (id, watching) = watching(&api, &table, &session)?;
        check_content_type(&headers, JSON, &ACCEPT_POST)?;
        let choice = read_choice(body).await?;
        apply(&api, id, &watching, &choice)
    };
    chosen.await.unwrap_or_else(IntoResponse::into_response)
}

/// `DELETE /whep/{table}/{session}/layer`.
pub(super) async fn reset(
    State(api): State<Arc<MediaApi>>,
    Path((table, session)): Path<(String, String)>,
) -> Response {
    let found = watching(&api, &table, &session);
    let reset = found.and_then(|(id, watching)| apply(&api, id, &watching, &Choice::default()));
    reset.unwrap_or_else(IntoResponse::into_response)
}

/// `OPTIONS /whep/{table}/{session}/layer`.
pub(super) async fn options() -> Response {
    let headers = [
        (ACCEPT_POST, header_value(JSON)),
        (header::ALLOW, header_value("OPTIONS, GET, HEAD, POST, DELETE")),
    ];
    (StatusCode::NO_CONTENT, headers).into_response()
}

fn watching(
    api: &MediaApi,
    table: &str,
    session: &str,
) -> Result<(SessionId, Arc<Watching>), Problem> {
    let (id, view) = api.find(SessionKind::Viewer, table, session)?;
    view.watching.map(|watching| (id, watching)).ok_or_else(no_such_session)
}

async fn read_choice(body: Body) -> Result<Choice, Problem> {
    let bytes = axum::body::to_bytes(body, MAX_CHOICE_BYTES)
        .await
        .map_err(|_| too_long(MAX_CHOICE_BYTES))?;
    serde_json::from_slice(&bytes).map_err(|error| {
        let detail = format!("The body is no choice of a layer: {error}.");
        Problem::new(StatusCode::BAD_REQUEST, "bad-layer-choice", "Not a choice of a layer", detail)
    })
}

fn apply(
    api: &MediaApi,
    id: SessionId,
    watching: &Watching,
    choice: &Choice,
) -> Result<Response, Problem> {
    let videos: Vec<(&WatchedTrack, &TrackInfo)> = videos(watching)
        .filter(|(watched, _)| choice.media_id.as_ref().is_none_or(|mid| *mid == watched.mid))
        .collect();
    if videos.is_empty() {
        return Err(unprocessable("This session has no such video section."));
    }
    // All of them are found before the first one is changed.
    let chosen: Vec<(u8, Option<u8>)> = videos
        .iter()
        .map(|(watched, info)| Ok((watched.track, layer_of(info, choice)?)))
        .collect::<Result<_, Problem>>()?;
    for (track, layer) in chosen {
        api.pool.choose_layer(id, track, layer).map_err(|error| match error {
            ChooseError::Unknown => no_such_session(),
            ChooseError::Busy => busy("The layer could not be chosen now."),
        })?;
    }
    Ok(document(&api.tables, watching))
}

/// The index of the chosen layer; `None`: the gateway chooses.
fn layer_of(info: &TrackInfo, choice: &Choice) -> Result<Option<u8>, Problem> {
    let Some(rid) = &choice.encoding_id else { return Ok(None) };
    let found = info.rids.iter().position(|known| known == rid);
    match found.and_then(|index| u8::try_from(index).ok()) {
        Some(layer) => Ok(Some(layer)),
        None => Err(unprocessable("The track has no layer of this name.")),
    }
}

fn unprocessable(detail: &str) -> Problem {
    let (kind, title) = ("no-such-layer", "There is no such layer");
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, kind, title, detail)
}

/// The video sections of a viewer, with what the publisher announced for each.
fn videos(watching: &Watching) -> impl Iterator<Item = (&WatchedTrack, &TrackInfo)> {
    watching.tracks.iter().filter_map(|watched| {
        let info = watching.stream.tracks.get(usize::from(watched.track))?;
        (info.kind() == MediaKind::Video).then_some((watched, info))
    })
}

fn document(tables: &Tables, watching: &Watching) -> Response {
    let media: BTreeMap<&str, MediaView> = videos(watching)
        .map(|(watched, info)| (&*watched.mid, media_view(tables, watching, watched, info)))
        .collect();
    let body = serde_json::to_vec(&media).unwrap_or_default();
    let headers = [(header::CONTENT_TYPE, JSON), (header::CACHE_CONTROL, "no-store")];
    (headers, body).into_response()
}

fn media_view(
    tables: &Tables,
    watching: &Watching,
    watched: &WatchedTrack,
    info: &TrackInfo,
) -> MediaView {
    let rid = |layer: u8| info.rids.get(usize::from(layer)).cloned();
    let (mut active, mut inactive) = (Vec::new(), Vec::new());
    for (layer, simulcast_idx) in (0..=u8::MAX).zip(0..info.rids.len()) {
        let id = LayerId { track: watched.track, layer };
        let Some((view, flows)) = tables.layer(&watching.stream, id) else { continue };
        let facts = Facts::from(&view);
        let encoding = Encoding { id: view.rid, simulcast_idx, facts };
        if flows { &mut active } else { &mut inactive }.push(encoding);
    }
    let choosable = |encoding: &Encoding| Choosable {
        encoding_id: encoding.id.clone(),
        simulcast_idx: encoding.simulcast_idx,
        facts: encoding.facts.clone(),
    };
    let sent = watched.sent();
    MediaView {
        layers: active.iter().map(choosable).collect(),
        active,
        inactive,
        chosen: watched.chosen().and_then(rid),
        sent: if let Sent::Layer(layer) = sent { rid(layer) } else { None },
        paused: sent == Sent::Paused,
    }
}

#[cfg(test)]
#[path = "layer_tests.rs"]
mod tests;
