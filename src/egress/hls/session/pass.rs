//! What the URIs of a viewer carry from one request to the next: a [`Pass`].
//!
//! A pass stands in the path, `/hls/{table}/{pass}/{rendition}/…`, because relative
//! URIs inherit the path they are found under. So a media playlist stays the same for
//! all, and every request below it still says whose it is: without cookies, which
//! players across origins do not send, and without queries, which relative URIs lose
//! (RFC 3986 §5.3).
//!
//! A pass is unforgeable and needs no memory: a random session number and the time of
//! issue, with an HMAC (RFC 2104) over both and the table. Whoever is to be let in
//! later, by the authentication that is not there yet, will be let in by a pass.

use std::time::{Duration, Instant};

use aws_lc_rs::hmac;

use crate::hub::TableName;

/// Begins every pass. Names of renditions have no dot, so neither is taken for the other.
const PREFIX: &str = "s.";
/// Bytes of the session's number, of the time of issue and of the truncated HMAC.
/// Forgery is online only, where 80 bits are plenty (RFC 2104 §5).
const SESSION: usize = 8;
const ISSUED: usize = 6;
const MAC: usize = 10;
/// All of it: a multiple of three, so that base64 needs no padding.
const BYTES: usize = SESSION + ISSUED + MAC;
const TEXT: usize = BYTES / 3 * 4;

/// base64url (RFC 4648 §5).
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// A pass that was verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pass {
    /// Number of the session: random, and nobody's choice but ours.
    pub session: u64,
    /// When it was issued, to the millisecond.
    pub issued: Instant,
}

/// Not a pass of this table and this process: forged, garbled, another table's, or
/// from before a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the pass in the path is not one of this table")]
pub struct InvalidPass;

/// Issues passes and knows its own.
pub struct Passes {
    key: hmac::Key,
    /// Times of issue count from here.
    epoch: Instant,
}

impl Passes {
    /// `key` is random and stays within the process, which lives from `epoch` on.
    pub fn new(key: &[u8; 32], epoch: Instant) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, key), epoch }
    }

    /// The pass of a new session at `table`, as a segment of a path. `session` is random.
    pub fn issue(&self, now: Instant, table: &TableName, session: u64) -> String {
        let millis = now.saturating_duration_since(self.epoch).as_millis() as u64;
        let mut bytes = [0; BYTES];
        let (head, mac) = bytes.split_at_mut(SESSION + ISSUED);
        head[..SESSION].copy_from_slice(&session.to_be_bytes());
        head[SESSION..].copy_from_slice(&millis.to_be_bytes()[8 - ISSUED..]);
        mac.copy_from_slice(&self.mac(table, head));
        let mut text = String::with_capacity(PREFIX.len() + TEXT);
        text.push_str(PREFIX);
        encode(&bytes, &mut text);
        text
    }

    /// Reads a segment of a path as a pass to `table`.
    ///
    /// # Errors
    /// [`InvalidPass`] when it is not one that [`Self::issue`] made.
    pub fn verify(&self, table: &TableName, text: &str) -> Result<Pass, InvalidPass> {
        let bytes = text.strip_prefix(PREFIX).and_then(decode).ok_or(InvalidPass)?;
        let (head, mac) = bytes.split_at(SESSION + ISSUED);
        aws_lc_rs::constant_time::verify_slices_are_equal(&self.mac(table, head), mac)
            .map_err(|_| InvalidPass)?;
        let number = |bytes: &[u8]| bytes.iter().fold(0u64, |n, byte| n << 8 | u64::from(*byte));
        let (session, issued) = head.split_at(SESSION);
        let issued = self.epoch.checked_add(Duration::from_millis(number(issued)));
        Ok(Pass { session: number(session), issued: issued.ok_or(InvalidPass)? })
    }

    fn mac(&self, table: &TableName, head: &[u8]) -> [u8; MAC] {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(head);
        context.update(table.as_str().as_bytes());
        let mut mac = [0; MAC];
        // HMAC-SHA-256 has 32 bytes.
        mac.copy_from_slice(&context.sign().as_ref()[..MAC]);
        mac
    }
}

/// Whether `segment` of a path looks like a pass, whoever issued it. Nothing else is
/// served in its place: what caches take out of their keys must not be able to name
/// another address.
pub fn is_spelled_right(segment: &str) -> bool {
    segment.strip_prefix(PREFIX).and_then(decode).is_some()
}

/// A multivariant playlist whose URIs lead through `pass`: it stands before each of
/// them, which are all relative.
pub fn carry(multivariant: &str, pass: &str) -> String {
    let uris = multivariant.lines().count();
    let mut out = String::with_capacity(multivariant.len() + uris * (pass.len() + 1));
    for line in multivariant.lines() {
        if line.starts_with('#') {
            out.push_str(&line.replace(",URI=\"", &format!(",URI=\"{pass}/")));
        } else if !line.is_empty() {
            out.push_str(pass);
            out.push('/');
            out.push_str(line);
        }
        out.push('\n');
    }
    out
}

fn encode(bytes: &[u8; BYTES], text: &mut String) {
    for three in bytes.chunks_exact(3) {
        let bits = three.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte));
        for shift in [18, 12, 6, 0] {
            text.push(char::from(ALPHABET[(bits >> shift & 63) as usize]));
        }
    }
}

fn decode(text: &str) -> Option<[u8; BYTES]> {
    let text: &[u8; TEXT] = text.as_bytes().try_into().ok()?;
    let mut bytes = [0; BYTES];
    for (four, three) in text.chunks_exact(4).zip(bytes.chunks_exact_mut(3)) {
        let mut bits = 0;
        for character in four {
            bits = bits << 6 | u32::from(value_of(*character)?);
        }
        three.copy_from_slice(&bits.to_be_bytes()[1..]);
    }
    Some(bytes)
}

const fn value_of(character: u8) -> Option<u8> {
    match character {
        b'A'..=b'Z' => Some(character - b'A'),
        b'a'..=b'z' => Some(character - b'a' + 26),
        b'0'..=b'9' => Some(character - b'0' + 52),
        b'-' => Some(62),
        b'_' => Some(63),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str) -> TableName {
        name.parse().unwrap()
    }

    #[test]
    fn a_pass_says_whose_it_is_and_when_it_was_issued() {
        let epoch = Instant::now();
        let passes = Passes::new(&[7; 32], epoch);
        for (session, millis) in [(0, 0), (u64::MAX, 1), (0x0123_4567_89ab_cdef, 86_400_000 * 365)]
        {
            let issued = epoch + Duration::from_millis(millis);
            let text = passes.issue(issued, &table("demo"), session);
            assert_eq!(
                passes.verify(&table("demo"), &text),
                Ok(Pass { session, issued }),
                "{text}"
            );
            assert_eq!(text.len(), 34);
            assert!(is_spelled_right(&text), "{text}");
            assert!(text.bytes().all(|b| ALPHABET.contains(&b) || b == b'.'), "{text}");
        }
    }

    #[test]
    fn every_other_text_is_no_pass() {
        let now = Instant::now();
        let passes = Passes::new(&[7; 32], now);
        let good = passes.issue(now, &table("demo"), 42);
        for at in 0..good.len() {
            for other in ["A", "B", "_", ".", "é", ""] {
                let bad = format!("{}{other}{}", &good[..at], &good[at + 1..]);
                let verdict = passes.verify(&table("demo"), &bad);
                assert!(bad == good || verdict == Err(InvalidPass), "{bad}");
            }
        }
        for bad in ["", "s.", "video0-0", &good[2..], &format!("{good}A"), &good.to_uppercase()] {
            assert_eq!(passes.verify(&table("demo"), bad), Err(InvalidPass), "{bad}");
        }
        for bad in
            ["", "s.", "x", &good[2..], &good[..33], &good.replace("s.", "s/"), "s.x/../../B"]
        {
            assert!(!is_spelled_right(bad), "{bad}");
        }
        assert_eq!(passes.verify(&table("other"), &good), Err(InvalidPass));
        let restarted = Passes::new(&[8; 32], now);
        assert_eq!(restarted.verify(&table("demo"), &good), Err(InvalidPass));
    }

    #[test]
    fn all_uris_of_a_multivariant_playlist_lead_through_the_pass() {
        let text = "#EXTM3U\n#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"audio\",NAME=\"a\",URI=\"a/index.m3u8\"\n\
            #EXT-X-STREAM-INF:BANDWIDTH=5,AUDIO=\"audio\"\nv/index.m3u8\n";
        let carried = "#EXTM3U\n#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"audio\",NAME=\"a\",URI=\"s.X/a/index.m3u8\"\n\
            #EXT-X-STREAM-INF:BANDWIDTH=5,AUDIO=\"audio\"\ns.X/v/index.m3u8\n";
        assert_eq!(carry(text, "s.X"), carried);
    }
}
