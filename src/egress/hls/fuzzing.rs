//! For `fuzz/` alone: the readers of request text, which are private elsewhere.
//! No part of the interface.

use std::time::{Duration, Instant};

use axum::http::{HeaderMap, HeaderValue, header};
use bytes::Bytes;

use super::blocking::{Directives, Progress, decide};
use super::http::{self, Name, Range};
use super::session::pass::Passes;

/// Reads a query and decides on it, wherever the rendition is.
pub fn decide_on(query: &str) {
    let Ok(directives) = Directives::parse(query) else { return };
    for (open_msn, open_parts) in [(0, 0), (0, 3), (1, 0), (11, 2), (u64::from(u32::MAX), 4)] {
        for ended in [false, true] {
            let at = Progress { first_msn: 0, open_msn, open_parts, last_parts: 4, ended };
            for part_target in [Duration::from_millis(1), Duration::from_millis(500)] {
                decide(directives, at, part_target);
            }
        }
    }
}

/// Reads a file name of the publication `token`; writes it again as playlists do.
pub fn read_name(file: &str, token: &str) -> Option<String> {
    Name::parse(file, token).map(|name| match name {
        Name::Init(number) => format!("{token}-i{number}.mp4"),
        Name::Segment(msn) => format!("{token}-s{msn}.m4s"),
        Name::Part(number) => format!("{token}-p{number}.m4s"),
    })
}

/// Reads a segment of a path as the pass of a viewer; issues it again if it is one.
#[allow(clippy::disallowed_methods, reason = "any time will do")]
pub fn read_pass(text: &str) -> Option<String> {
    let table = "demo".parse().ok()?;
    let passes = Passes::new(&[7; 32], Instant::now());
    let pass = passes.verify(&table, text).ok()?;
    Some(passes.issue(pass.issued, &table, pass.session))
}

/// Reads a `Range` and cuts it out of a body: first and last byte, and the pieces.
pub fn slice_range(value: &str, pieces: Vec<Bytes>) -> Option<(u64, u64, Vec<Bytes>)> {
    let length = pieces.iter().map(|piece| piece.len() as u64).sum();
    match http::range_of(value, length) {
        Range::Bytes(first, last) => Some((first, last, http::slice(pieces, first, last))),
        Range::Whole | Range::Unsatisfiable => None,
    }
}

/// Reads an `Accept-Encoding`.
pub fn accepts_gzip(value: &str) -> bool {
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(header::ACCEPT_ENCODING, value);
    }
    http::accepts_gzip(&headers)
}
