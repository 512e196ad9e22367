//! HTTP/1.1 answers, byte by byte as they come (RFC 9112): heads by `httparse`, bodies of
//! known length, chunked, or up to the end of the connection.
//!
//! Sans-IO, and cheap: what comes in one piece is read where it lies, and nothing is kept
//! but the body of an answer that is wanted. A crowd of thousands is answered at once, and
//! what the clients take for that must not be seen in the server's figures.

use std::time::Duration;

/// Longest head, in bytes.
const MAX_HEAD: usize = 64 << 10;
/// Headers of a head; more are an error.
const MAX_HEADERS: usize = 64;
/// Longest line of a chunk's size or a trailer, in bytes.
const MAX_LINE: usize = 4096;

/// Why the bytes are no answer, or not one to keep.
pub(super) type Malformed = &'static str;

/// An answer, once it is complete.
#[derive(Debug, Default)]
pub(super) struct Received {
    /// Its status.
    pub status: u16,
    /// Whether `Content-Encoding` is gzip.
    pub gzip: bool,
    /// `Retry-After`, in seconds.
    pub retry_after: Option<Duration>,
    /// Whether the connection ends with it.
    pub close: bool,
    /// Bytes of the body.
    pub bytes: u64,
    /// The body, of a success of which it was wanted.
    pub body: Vec<u8>,
}

/// Reads one answer.
#[derive(Debug)]
pub(super) struct Receiver {
    /// Longest body to keep; 0 for one that is only counted.
    keep: usize,
    /// A head, or a line, that has not come to its end.
    partial: Vec<u8>,
    state: State,
    answer: Received,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Head,
    /// So many bytes are to come.
    Known(u64),
    UntilClose,
    ChunkSize,
    Chunk(u64),
    /// The line end after a chunk.
    ChunkEnd,
    Trailers,
    Complete,
}

impl Receiver {
    /// For an answer whose body is kept up to so many bytes; 0: it is only counted.
    pub fn new(keep: usize) -> Self {
        Self { keep, partial: Vec::new(), state: State::Head, answer: Received::default() }
    }

    /// Takes what has come; true once the answer is complete.
    ///
    /// # Errors
    /// When it is no HTTP/1.1 answer, or longer than what is to be kept.
    pub fn push(&mut self, mut input: &[u8]) -> Result<bool, Malformed> {
        while self.state != State::Complete {
            let Some(rest) = self.step(input)? else { return Ok(false) };
            input = rest;
        }
        // There is no second request under way whose answer this could be.
        if input.is_empty() { Ok(true) } else { Err("bytes after the answer") }
    }

    /// The connection has ended; true when that ends the answer as well.
    pub fn close(&mut self) -> bool {
        self.answer.close = true;
        self.state == State::UntilClose
    }

    /// The answer.
    pub fn finish(self) -> Received {
        self.answer
    }

    /// Takes what belongs to the state and gives the rest; `None`: more must come.
    fn step<'i>(&mut self, input: &'i [u8]) -> Result<Option<&'i [u8]>, Malformed> {
        match self.state {
            State::Head => self.head(input),
            State::Complete => Ok(Some(input)),
            _ if input.is_empty() => Ok(None),
            State::Known(left) => self.body(input, left, State::Complete, State::Known),
            State::Chunk(left) => self.body(input, left, State::ChunkEnd, State::Chunk),
            State::UntilClose => {
                self.take(input)?;
                Ok(None)
            }
            State::ChunkSize | State::ChunkEnd | State::Trailers => self.line(input),
        }
    }

    fn head<'i>(&mut self, input: &'i [u8]) -> Result<Option<&'i [u8]>, Malformed> {
        if self.partial.is_empty() {
            return match self.parse_head(input)? {
                Some(length) => Ok(Some(input.get(length..).unwrap_or_default())),
                None => {
                    self.partial.extend_from_slice(input);
                    Ok(None)
                }
            };
        }
        let before = self.partial.len();
        let mut whole = std::mem::take(&mut self.partial);
        whole.extend_from_slice(input);
        let parsed = self.parse_head(&whole)?;
        let Some(length) = parsed else {
            self.partial = whole;
            return Ok(None);
        };
        Ok(Some(input.get(length.saturating_sub(before)..).unwrap_or_default()))
    }

    /// Reads a head and gives its length; `None` while it is not whole.
    fn parse_head(&mut self, bytes: &[u8]) -> Result<Option<usize>, Malformed> {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut response = httparse::Response::new(&mut headers);
        let parsed = response.parse(bytes).map_err(|_| "not an HTTP/1.1 answer")?;
        let httparse::Status::Complete(length) = parsed else {
            return if bytes.len() > MAX_HEAD { Err("the head is too long") } else { Ok(None) };
        };
        let status = response.code.unwrap_or(0);
        if (100..200).contains(&status) {
            // An interim answer: the one that counts comes after it (RFC 9110 §15.2).
            return Ok(Some(length));
        }
        let answer = &mut self.answer;
        answer.status = status;
        answer.close = response.version == Some(0);
        let (mut known, mut chunked) = (None, false);
        for header in response.headers.iter() {
            let value = std::str::from_utf8(header.value).unwrap_or_default().trim();
            let named = |name: &str| header.name.eq_ignore_ascii_case(name);
            if named("content-length") {
                known = Some(value.parse::<u64>().map_err(|_| "Content-Length is no number")?);
            } else if named("transfer-encoding") {
                chunked = value.to_ascii_lowercase().ends_with("chunked");
            } else if named("connection") {
                answer.close |= value.eq_ignore_ascii_case("close");
            } else if named("content-encoding") {
                answer.gzip = value.eq_ignore_ascii_case("gzip");
            } else if named("retry-after") {
                answer.retry_after = value.parse().ok().map(Duration::from_secs);
            }
        }
        self.state = match known {
            _ if matches!(status, 204 | 304) => State::Complete,
            _ if chunked => State::ChunkSize,
            Some(0) => State::Complete,
            Some(length) => State::Known(length),
            None => State::UntilClose,
        };
        Ok(Some(length))
    }

    fn body<'i>(
        &mut self,
        input: &'i [u8],
        left: u64,
        then: State,
        stay: fn(u64) -> State,
    ) -> Result<Option<&'i [u8]>, Malformed> {
        let now = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
        let (taken, rest) = input.split_at(now);
        self.take(taken)?;
        let left = left - now as u64;
        self.state = if left == 0 { then } else { stay(left) };
        Ok(Some(rest))
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), Malformed> {
        self.answer.bytes += bytes.len() as u64;
        if self.keep == 0 || self.answer.status != 200 {
            return Ok(());
        }
        if self.answer.body.len() + bytes.len() > self.keep {
            return Err("the playlist is too long");
        }
        self.answer.body.extend_from_slice(bytes);
        Ok(())
    }

    /// Takes a line of the chunked coding (RFC 9112 §7.1).
    fn line<'i>(&mut self, input: &'i [u8]) -> Result<Option<&'i [u8]>, Malformed> {
        let end = input.iter().position(|byte| *byte == b'\n');
        let (now, rest) = input.split_at(end.map_or(input.len(), |end| end + 1));
        self.partial.extend_from_slice(now);
        if self.partial.len() > MAX_LINE {
            return Err("a line of the chunked coding is too long");
        }
        if end.is_none() {
            return Ok(None);
        }
        let line = std::mem::take(&mut self.partial);
        let line = std::str::from_utf8(&line).map_err(|_| "not a chunked body")?.trim_end();
        self.state = match self.state {
            State::ChunkEnd if line.is_empty() => State::ChunkSize,
            State::Trailers if line.is_empty() => State::Complete,
            State::Trailers => State::Trailers,
            State::ChunkSize => {
                let size = line.split(';').next().unwrap_or_default().trim();
                match u64::from_str_radix(size, 16).map_err(|_| "not a chunked body")? {
                    0 => State::Trailers,
                    size => State::Chunk(size),
                }
            }
            _ => return Err("not a chunked body"),
        };
        Ok(Some(rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads `text` in pieces of every length; all must give the same.
    fn read(keep: usize, text: &str) -> Result<Option<Received>, Malformed> {
        let mut last = None;
        for size in 1..=text.len() {
            let mut receiver = Receiver::new(keep);
            let mut complete = Ok(false);
            for piece in text.as_bytes().chunks(size) {
                complete = receiver.push(piece);
                if !matches!(complete, Ok(false)) {
                    break;
                }
            }
            let outcome = complete.map(|complete| complete.then(|| receiver.finish()));
            let shown = format!("{outcome:?}");
            let before = last.replace((shown.clone(), outcome));
            assert!(before.is_none_or(|(before, _)| before == shown), "in pieces of {size}");
        }
        last.unwrap().1
    }

    #[test]
    fn bodies_of_known_length_are_kept_when_they_are_wanted() {
        let text = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\ncontent-encoding: gzip\r\n\r\nhello";
        let kept = read(10, text).unwrap().unwrap();
        assert_eq!((kept.status, &kept.body[..], kept.bytes), (200, &b"hello"[..], 5));
        assert!(kept.gzip && !kept.close);
        let counted = read(0, text).unwrap().unwrap();
        assert_eq!((counted.body.len(), counted.bytes), (0, 5));
        assert_eq!(read(4, text).unwrap_err(), "the playlist is too long");
    }

    #[test]
    fn chunks_are_put_together_and_trailers_skipped() {
        let text = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                    5;x=y\r\nhello\r\n1\r\n!\r\n0\r\nA: b\r\n\r\n";
        let answer = read(10, text).unwrap().unwrap();
        assert_eq!((&answer.body[..], answer.bytes), (&b"hello!"[..], 6));
        let bad = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n";
        assert!(read(10, bad).is_err());
        assert!(read(10, &bad.replace("\nx\r\n", "\n1\r\nab\r\n")).is_err());
    }

    #[test]
    fn refusals_say_when_to_come_again_and_interim_answers_are_passed_over() {
        let text = "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 503 Later\r\n\
                    Retry-After: 3\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno";
        let answer = read(10, text).unwrap().unwrap();
        assert_eq!((answer.status, answer.bytes, answer.body.len()), (503, 2, 0));
        assert_eq!(answer.retry_after, Some(Duration::from_secs(3)));
        assert!(answer.close);
        let none = read(10, "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n");
        assert_eq!(none.unwrap().unwrap().status, 304);
    }

    #[test]
    fn an_answer_without_a_length_ends_with_the_connection() {
        let mut receiver = Receiver::new(10);
        assert_eq!(receiver.push(b"HTTP/1.0 200 OK\r\n\r\nab"), Ok(false));
        assert_eq!(receiver.push(b"c"), Ok(false));
        assert!(receiver.close());
        assert_eq!(receiver.finish().body, b"abc");
        let mut short = Receiver::new(10);
        assert_eq!(short.push(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab"), Ok(false));
        assert!(!short.close());
    }

    #[test]
    fn what_is_no_answer_is_refused_and_nothing_grows() {
        for bad in ["x\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", "\0\0\0\0\0"] {
            assert!(read(10, bad).is_err(), "{bad}");
        }
        let mut receiver = Receiver::new(10);
        assert_eq!(receiver.push(b"HTTP/1.1 200 OK\r\nA: "), Ok(false));
        let refused = (0..100).map(|_| receiver.push(&[b'x'; 1024])).find(Result::is_err);
        assert_eq!(refused, Some(Err("the head is too long")));
        let more = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab";
        assert_eq!(Receiver::new(10).push(more), Err("bytes after the answer"));
    }
}
