//! For `fuzz/` alone: the readers of request headers, which are private
//! elsewhere. No part of the interface.

use axum::http::{HeaderMap, HeaderValue, header};

use super::{sessions, whip};

/// What one value says as each of the headers.
pub struct Headers {
    /// As `Content-Type`: an SDP body.
    pub is_sdp: bool,
    /// As `If-Match`: the session's ETag.
    pub matches: bool,
    /// As `Authorization`: the token.
    pub bearer: Option<String>,
}

/// Reads `value` as each of the headers of WHIP and WHEP, for a session whose
/// user fragment is `ufrag`. `None`: HTTP cannot carry it.
pub fn read_headers(value: &[u8], ufrag: &str) -> Option<Headers> {
    let value = HeaderValue::from_bytes(value).ok()?;
    let mut headers = HeaderMap::new();
    for name in [header::CONTENT_TYPE, header::IF_MATCH, header::AUTHORIZATION] {
        headers.insert(name, value.clone());
    }
    Some(Headers {
        is_sdp: sessions::check_offer_type(&headers).is_ok(),
        matches: sessions::check_precondition(&headers, ufrag).is_ok(),
        bearer: whip::bearer(&headers).map(str::to_owned),
    })
}
