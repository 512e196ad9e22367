//! Bodies made of pieces that are shared, and ranges of them (RFC 9110 §14).

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};

use super::visit::Delivery;

/// The end of a body that is asked for by itself: only when the rest is on its way does
/// the connection ask for it, which tells how fast a viewer takes what it is sent.
const TAIL: usize = 16 * 1024;

/// What a `Range` header asks of a body.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::egress::hls) enum Range {
    /// All of it; also when the header is malformed or names several ranges,
    /// which a server may ignore (RFC 9110 §14.2).
    Whole,
    /// From the first to the last byte, both included.
    Bytes(u64, u64),
    /// Nothing of it exists.
    Unsatisfiable,
}

pub(in crate::egress::hls) fn range_of(value: &str, length: u64) -> Range {
    let parsed = value.strip_prefix("bytes=").and_then(|spec| spec.split_once('-'));
    let Some((first, last)) = parsed else { return Range::Whole };
    let number = |digits: &str| digits.trim().parse::<u64>().ok();
    match (first.trim().is_empty(), number(first), last.trim().is_empty(), number(last)) {
        (true, _, false, Some(suffix)) if suffix > 0 && length > 0 => {
            Range::Bytes(length.saturating_sub(suffix), length - 1)
        }
        (true, _, false, Some(_)) => Range::Unsatisfiable,
        (false, Some(first), _, last) if last.is_some_and(|last| last < first) => Range::Whole,
        (false, Some(first), true, _) | (false, Some(first), false, Some(_)) if first >= length => {
            Range::Unsatisfiable
        }
        (false, Some(first), true, _) => Range::Bytes(first, length - 1),
        (false, Some(first), false, Some(last)) => Range::Bytes(first, last.min(length - 1)),
        _ => Range::Whole,
    }
}

/// The bytes from `first` to `last`, both included, of a chain.
pub(in crate::egress::hls) fn slice(pieces: Vec<Bytes>, first: u64, last: u64) -> Vec<Bytes> {
    let mut start = 0u64;
    let mut out = Vec::new();
    for piece in pieces {
        let end = start + piece.len() as u64;
        let (from, to) = (first.max(start), (last + 1).min(end));
        if from < to {
            out.push(piece.slice((from - start) as usize..(to - start) as usize));
        }
        start = end;
    }
    out
}

/// A body of pieces that are sent as they are, with a known length.
pub(super) struct Chain {
    pieces: std::vec::IntoIter<Bytes>,
    pub(super) left: u64,
    delivery: Delivery,
}

impl Chain {
    pub(super) fn new(mut pieces: Vec<Bytes>, delivery: Delivery) -> Self {
        let left = pieces.iter().map(|piece| piece.len() as u64).sum();
        let long = pieces.last_mut().filter(|last| last.len() > 2 * TAIL);
        if let Some(tail) = long.map(|last| last.split_off(last.len() - TAIL)) {
            pieces.push(tail);
        }
        Self { pieces: pieces.into_iter(), left, delivery }
    }
}

impl hyper::body::Body for Chain {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Some(piece) = self.pieces.next() else { return Poll::Ready(None) };
        self.left -= piece.len() as u64;
        self.delivery.sent(piece.len());
        if self.left == 0 {
            self.delivery.complete();
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h13_ranges_are_read_as_rfc_9110_says() {
        assert_eq!(range_of("bytes=0-9", 100), Range::Bytes(0, 9));
        assert_eq!(range_of("bytes=90-", 100), Range::Bytes(90, 99));
        assert_eq!(range_of("bytes=90-500", 100), Range::Bytes(90, 99));
        assert_eq!(range_of("bytes=-10", 100), Range::Bytes(90, 99));
        assert_eq!(range_of("bytes=-500", 100), Range::Bytes(0, 99));
        for none in ["bytes=100-", "bytes=100-200", "bytes=-0"] {
            assert_eq!(range_of(none, 100), Range::Unsatisfiable, "{none}");
        }
        for whole in ["bytes=9-0", "bytes=", "bytes=-", "bytes=0-1,5-6", "items=0-1", "bytes=a-b"] {
            assert_eq!(range_of(whole, 100), Range::Whole, "{whole}");
        }
        assert_eq!(range_of("bytes=0-", 0), Range::Unsatisfiable);
    }

    #[test]
    fn slices_run_over_piece_borders() {
        let pieces = || vec![Bytes::from_static(b"abc"), Bytes::from_static(b"defg")];
        assert_eq!(slice(pieces(), 0, 6).concat(), b"abcdefg");
        assert_eq!(slice(pieces(), 2, 4).concat(), b"cde");
        assert_eq!(slice(pieces(), 3, 3).concat(), b"d");
    }
}
