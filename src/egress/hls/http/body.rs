//! Bodies made of pieces that are shared, and ranges of them (RFC 9110 §14).

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};

use super::super::{HlsStats, count};
use super::visit::Delivery;

/// The most that a body gives out at once. A connection asks for a piece when it is about
/// to have room for it (HTTP/2 even a piece earlier), and for what comes after the last
/// one when all before that is on its way: which tells how fast a viewer takes what it is
/// sent. Long enough for few system calls.
const PIECE: usize = 32 * 1024;

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

/// A body of shared pieces, with a known length. It counts what it gives out.
pub(super) struct Chain {
    next: Bytes,
    rest: std::vec::IntoIter<Bytes>,
    left: u64,
    stats: Arc<HlsStats>,
    /// Of media, until all of it was taken.
    delivery: Option<Delivery>,
}

impl Chain {
    /// A playlist.
    pub(super) fn text(stats: &Arc<HlsStats>, text: Bytes) -> Self {
        let left = text.len() as u64;
        Self {
            next: text,
            rest: Vec::new().into_iter(),
            left,
            stats: stats.clone(),
            delivery: None,
        }
    }

    /// Media, whose way to the viewer is `delivery`.
    pub(super) fn media(stats: &Arc<HlsStats>, pieces: Vec<Bytes>, delivery: Delivery) -> Self {
        let left = pieces.iter().map(|piece| piece.len() as u64).sum();
        let (next, rest) = (Bytes::new(), pieces.into_iter());
        Self { next, rest, left, stats: stats.clone(), delivery: Some(delivery) }
    }
}

impl hyper::body::Body for Chain {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        while self.next.is_empty() {
            let Some(next) = self.rest.next() else {
                if let Some(mut delivery) = self.delivery.take() {
                    delivery.complete();
                }
                return Poll::Ready(None);
            };
            self.next = next;
        }
        let length = self.next.len().min(PIECE);
        let piece = self.next.split_to(length);
        self.left -= length as u64;
        count(&self.stats.bytes_out, length as u64);
        if let Some(delivery) = &mut self.delivery {
            delivery.sent(length);
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    /// Not before the connection has asked for what comes after the last piece.
    fn is_end_stream(&self) -> bool {
        self.left == 0 && self.delivery.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

impl Drop for Chain {
    /// HTTP/1 knows the length and does not ask for the end: it drops the body when there
    /// is room for more.
    fn drop(&mut self) {
        if self.left == 0
            && let Some(delivery) = &mut self.delivery
        {
            delivery.complete();
        }
    }
}

#[cfg(test)]
mod tests {
    use hyper::body::Body;

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

    #[test]
    fn bytes_are_counted_as_they_are_given_out_in_pieces() {
        let stats = Arc::new(HlsStats::default());
        let counted = || stats.bytes_out.load(std::sync::atomic::Ordering::Relaxed);
        let text = Bytes::from((0..100_000).map(|n| n as u8).collect::<Vec<_>>());
        let mut body = Chain::text(&stats, text.clone());
        let mut context = Context::from_waker(std::task::Waker::noop());
        let mut taken = Vec::new();
        assert_eq!(counted(), 0, "nothing was taken");
        while !body.is_end_stream() {
            assert_eq!(body.size_hint().exact(), Some((text.len() - taken.len()) as u64));
            let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut body).poll_frame(&mut context) else {
                panic!("it ended at {}", taken.len());
            };
            let piece = frame.into_data().unwrap();
            assert!((1..=PIECE).contains(&piece.len()));
            taken.extend_from_slice(&piece);
            assert_eq!(counted(), taken.len() as u64);
        }
        assert_eq!(taken, text);
    }
}
