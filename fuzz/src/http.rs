//! What HTTP requests say beyond their bodies.

use bytes::Bytes;
use railbird::egress::hls::fuzzing as hls_readers;

use super::records::Records;

/// An HLS request: records of a query (0), a file name or pass (1), a `Range` (2) and an
/// `Accept-Encoding` (3), by their tag.
pub fn hls(data: &[u8]) {
    for (tag, bytes) in Records(data).take(16) {
        let Ok(text) = std::str::from_utf8(bytes) else { continue };
        match tag & 3 {
            0 => hls_readers::decide_on(text),
            1 => {
                // Caches key on names: each file has one.
                let name = hls_readers::read_name(text, "0123456789abcdef");
                assert!(name.is_none_or(|name| name == text), "{text}");
                let pass = hls_readers::read_pass(text);
                assert!(pass.is_none_or(|pass| pass == text), "{text}");
            }
            2 => check_range(text),
            _ => _ = hls_readers::accepts_gzip(text),
        }
    }
}

/// A range is of bytes that exist, and a response has just those.
fn check_range(value: &str) {
    const BODY: &[u8] = b"0123456789abcdefghij";
    for pieces in [vec![], vec![&BODY[..1]], vec![&BODY[..7], &BODY[7..], &BODY[..0]]] {
        let whole: Vec<u8> = pieces.concat();
        let pieces = pieces.into_iter().map(Bytes::from_static).collect();
        let Some((first, last, slices)) = hls_readers::slice_range(value, pieces) else { continue };
        let (first, last) = (first as usize, last as usize);
        assert_eq!(slices.concat(), &whole[first..=last]);
    }
}

/// The headers of WHIP and WHEP: one value, read as each of them.
pub fn http_headers(data: &[u8]) {
    let Some(read) = railbird::api::fuzzing::read_headers(data, "edge0001") else { return };
    let text = String::from_utf8_lossy(data);
    assert!(!read.is_sdp || text.to_ascii_lowercase().contains("application/sdp"));
    assert!(!read.matches || text.contains('*') || text.contains("\"edge0001\""));
    if let Some(token) = read.bearer {
        assert!(!token.is_empty() && text.contains(&token));
    }
}
