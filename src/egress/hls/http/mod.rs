//! LL-HLS over HTTP: playlists that may be held, parts, segments.
//!
//! Source: rfc8216bis §6.2.5 (blocking reload, preload hints), RFC 9110 §14
//! (ranges). Names of media say which publication they belong to and never come
//! back with other bytes, so they may be cached for ever; playlists for a second.
//!
//! Thousands wait here at once, and all are answered within the same few milliseconds:
//! what is kept of a request while it waits is small ([`Asked`]), and what it is
//! answered with is shared.

#![allow(clippy::disallowed_methods, reason = "the I/O shell: requests wait on the clock")]

mod answer;
mod body;
mod visit;
mod wait;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::{Response, StatusCode};
use axum::routing::get;
use tokio::time::Instant;

use super::blocking::{BadDirectives, Decision, Directives, decide};
use super::packager::{Live, Published, Rendition};
use super::session::pass::is_spelled_right;
use super::store::Resource;
use super::{Hls, count};
use crate::hub::TableName;
use crate::problem::Problem;

pub use answer::accepts_gzip;
use answer::{Asked, for_one_viewer, media_response, playlist_response};
pub(super) use body::{Range, range_of, slice};
use visit::{Guest, invite};
use wait::{Waiting, wait};

/// The public routes: `/hls/{table}/index.m3u8` and what is below it. CORS is the
/// public router's.
pub fn router(hls: Arc<Hls>) -> Router {
    Router::new()
        .route("/hls/{table}/index.m3u8", get(multivariant))
        .route("/hls/{table}/{rendition}/{file}", get(below))
        .route("/hls/{table}/{pass}/{rendition}/{file}", get(below_pass))
        .with_state(hls)
}

async fn multivariant(
    State(hls): State<Arc<Hls>>,
    Path(table): Path<String>,
    asked: Asked,
) -> Result<Response<Body>, Problem> {
    count(&hls.stats.multivariant_requests, 1);
    let begun = Instant::now();
    let live = find(&hls, &table)?;
    let mut published = live.multivariant.subscribe();
    let deadline = begun + hls.settings.start_wait;
    let rendered = wait(&hls, &mut published, deadline, not_ready, |rendered| Ok(rendered.clone()));
    let rendered = rendered.await?;
    let own = hls.settings.sessions.then(|| invite(&hls, begun.into(), &live, &rendered)).flatten();
    Ok(match own {
        Some(own) => for_one_viewer(playlist_response(&hls.stats, &own, &asked)),
        None => playlist_response(&hls.stats, &rendered, &asked),
    })
}

async fn below(
    State(hls): State<Arc<Hls>>,
    Path((table, rendition, file)): Path<(String, String, String)>,
    RawQuery(query): RawQuery,
    asked: Asked,
) -> Result<Response<Body>, Problem> {
    serve(hls, (&table, None, &rendition, &file), query, asked).await
}

async fn below_pass(
    State(hls): State<Arc<Hls>>,
    Path((table, pass, rendition, file)): Path<(String, String, String, String)>,
    RawQuery(query): RawQuery,
    asked: Asked,
) -> Result<Response<Body>, Problem> {
    // Anything else here could spell another address, e.g. `x/../../other`, for a cache
    // that decodes and normalises what it keys on.
    if !is_spelled_right(&pass) {
        return Err(no_such("address"));
    }
    serve(hls, (&table, Some(&pass), &rendition, &file), query, asked).await
}

async fn serve(
    hls: Arc<Hls>,
    (table, pass, rendition, file): (&str, Option<&str>, &str, &str),
    query: Option<String>,
    asked: Asked,
) -> Result<Response<Body>, Problem> {
    let live = hls.of_file(find(&hls, table)?, file);
    let rendition = live.rendition(rendition).ok_or_else(|| no_such("rendition"))?;
    let is_playlist = file == "index.m3u8";
    let guest = Guest::enter(&hls, &live, pass, is_playlist && asked.is_get());
    if is_playlist {
        let query = query.unwrap_or_default();
        return media_playlist(&hls, &live, rendition, &query, &asked, &guest).await;
    }
    let resource = match Name::parse(file, &live.token).ok_or_else(|| no_such("file"))? {
        Name::Init(number) => {
            count(&hls.stats.init_requests, 1);
            rendition.published.borrow().view.init(number)
        }
        Name::Segment(msn) => {
            count(&hls.stats.segment_requests, 1);
            rendition.published.borrow().view.segment(msn)
        }
        Name::Part(number) => {
            count(&hls.stats.part_requests, 1);
            part(&hls, &live, rendition, number).await?
        }
    };
    let delivery = guest.deliver(rendition, &resource);
    match resource {
        Resource::Piece(bytes) => media_response(&hls.stats, file, vec![bytes], &asked, delivery),
        Resource::Segment(segment) => {
            let pieces = segment.parts.iter().map(|part| part.media.data.clone()).collect();
            media_response(&hls.stats, file, pieces, &asked, delivery)
        }
        Resource::Hinted | Resource::Unknown => Err(no_such("file")),
    }
}

/// What a file name below a rendition stands for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Name {
    Init(u32),
    Segment(u64),
    Part(u64),
}

impl Name {
    /// `{token}-i{n}.mp4`, `{token}-s{msn}.m4s` or `{token}-p{n}.m4s`.
    pub(super) fn parse(file: &str, token: &str) -> Option<Self> {
        let rest = file.strip_prefix(token)?.strip_prefix('-')?;
        let number = |prefix, suffix| -> Option<u64> {
            let digits = rest.strip_prefix(prefix)?.strip_suffix(suffix)?;
            // Only the one spelling that playlists use: caches key on it.
            let canonical = digits == "0" || !digits.starts_with(['0', '+']);
            digits.parse().ok().filter(|_| canonical)
        };
        number('i', ".mp4")
            .and_then(|n| u32::try_from(n).ok())
            .map(Self::Init)
            .or_else(|| number('s', ".m4s").map(Self::Segment))
            .or_else(|| number('p', ".m4s").map(Self::Part))
    }
}

async fn media_playlist(
    hls: &Hls,
    live: &Live,
    rendition: &Rendition,
    query: &str,
    asked: &Asked,
    guest: &Guest,
) -> Result<Response<Body>, Problem> {
    count(&hls.stats.playlist_requests, 1);
    let directives = Directives::parse(query).map_err(bad_directives)?;
    let mut published = rendition.published.subscribe();
    let begun = published.borrow().view.progress().has_segment();
    let patience = if begun { live.targets.durations(3) } else { hls.settings.start_wait };
    let too_late = if begun { held_too_long } else { not_ready };
    let deadline = Instant::now() + patience;
    // Who has a session is counted by it.
    let waiting = (!guest.is_accounted()).then(|| Waiting::new(&rendition.waiting));
    let version = wait(hls, &mut published, deadline, too_late, |version: &Arc<Published>| {
        match decide(directives, version.view.progress(), live.targets.part) {
            Decision::Answer if version.is_rendered() => Ok(Some(version.clone())),
            Decision::Answer | Decision::Wait => Ok(None),
            Decision::Refuse => Err(bad_directives(BadDirectives::TooFarAhead)),
        }
    });
    let version = version.await?;
    drop(waiting);
    guest.offer(rendition, &version.view);
    Ok(playlist_response(&hls.stats, version.playlist.of(directives.skip), asked))
}

/// The part of this number; the hinted one is waited for.
async fn part(
    hls: &Hls,
    live: &Live,
    rendition: &Rendition,
    number: u64,
) -> Result<Resource, Problem> {
    let mut published = rendition.published.subscribe();
    let deadline = Instant::now() + live.targets.durations(3);
    wait(hls, &mut published, deadline, held_too_long, |version: &Arc<Published>| {
        Ok(match version.view.part(number) {
            Resource::Hinted => None,
            resource => Some(resource),
        })
    })
    .await
}

fn find(hls: &Hls, table: &str) -> Result<Arc<Live>, Problem> {
    table.parse::<TableName>().ok().and_then(|table| hls.live(&table)).ok_or_else(not_live)
}

fn not_live() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "table-not-live",
        "The table is not live",
        "nobody publishes this table now, or nothing that HLS can carry",
    )
    .retry_after(1)
}

fn no_such(what: &str) -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "no-such-media",
        "There is no such media",
        format!("the table has no such {what}, or not any more"),
    )
}

fn not_ready() -> Problem {
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "table-not-ready",
        "The table has no media yet",
        "the table is live but nothing playable has come from its publisher",
    )
    .retry_after(1)
}

fn held_too_long() -> Problem {
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "held-too-long",
        "The media did not come",
        "what was asked for has not been produced within three target durations",
    )
    .retry_after(1)
}

fn bad_directives(error: BadDirectives) -> Problem {
    let title = "The delivery directives are not valid";
    Problem::new(StatusCode::BAD_REQUEST, "bad-delivery-directives", title, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_one_spelling() {
        assert_eq!(Name::parse("t-p10.m4s", "t"), Some(Name::Part(10)));
        assert_eq!(Name::parse("t-s0.m4s", "t"), Some(Name::Segment(0)));
        assert_eq!(Name::parse("t-i1.mp4", "t"), Some(Name::Init(1)));
        for bad in ["t-p01.m4s", "t-p+1.m4s", "t-p.m4s", "u-p1.m4s", "t-p1.mp4", "tp1.m4s", ""] {
            assert_eq!(Name::parse(bad, "t"), None, "{bad}");
        }
    }
}
