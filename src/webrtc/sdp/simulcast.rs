//! `a=rid` (RFC 8851) and `a=simulcast` (RFC 8853) of a sender. Both direction
//! words of the older drafts and `~` for a paused stream are understood.

/// Bytes of a rid: it travels in a one-byte header extension (RFC 8285 §4.2).
const MAX_RID_BYTES: usize = 16;
/// Streams of one `a=simulcast` that are looked at.
const MAX_STREAMS: usize = 16;

/// One `a=rid:<id> send [<restrictions>]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rid {
    /// The id.
    pub id: String,
    /// Payload types it is restricted to; empty: all of the section.
    pub payload_types: Vec<u8>,
    /// The restrictions as written; an answer repeats them (RFC 8851 §6.3).
    pub restrictions: String,
}

/// `None` for other directions and for malformed lines.
pub(super) fn parse_rid(value: &str) -> Option<Rid> {
    let mut words = value.splitn(3, ' ');
    let (id, direction) = (words.next()?, words.next()?);
    if !is_rid(id) || direction != "send" {
        return None;
    }
    let restrictions = words.next().unwrap_or("").trim();
    let payload_types = restrictions.split(';').find_map(|pair| pair.trim().strip_prefix("pt="));
    let payload_types = match payload_types {
        Some(list) => list.split(',').take(128).map(|pt| pt.parse().ok()).collect::<Option<_>>()?,
        None => Vec::new(),
    };
    Some(Rid { id: id.to_owned(), payload_types, restrictions: restrictions.to_owned() })
}

/// The ids after `send`: streams are parted by `;`, alternatives of one stream
/// by `,` (the first is taken), `~` marks a stream that starts paused.
pub(super) fn parse_send_streams(value: &str) -> Vec<String> {
    let words: Vec<&str> = value.split_ascii_whitespace().take(4).collect();
    let list = words.chunks_exact(2).find(|pair| pair.first() == Some(&"send"));
    let Some([_, list]) = list else { return Vec::new() };
    let mut ids: Vec<String> = Vec::new();
    for stream in list.strip_prefix("rid=").unwrap_or(list).split(';').take(MAX_STREAMS) {
        let first = stream.split(',').next().unwrap_or(stream);
        let id = first.strip_prefix('~').unwrap_or(first);
        if is_rid(id) && !ids.iter().any(|known| known == id) {
            ids.push(id.to_owned());
        }
    }
    ids
}

fn is_rid(text: &str) -> bool {
    (1..=MAX_RID_BYTES).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

impl Rid {
    /// Whether the stream may carry this payload type.
    pub fn allows(&self, payload_type: u8) -> bool {
        self.payload_types.is_empty() || self.payload_types.contains(&payload_type)
    }
}
