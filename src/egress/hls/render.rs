//! The playlists of a version in all forms that are asked for, made once.
//!
//! A version comes with every part, and all but its end is what it was before. Old
//! segments are therefore written and compressed once, in blocks, and the rest is put
//! around them: the cost of a version does not grow with the window. Compressed blocks
//! stand in one gzip stream because each ends at a byte and refers to nothing before
//! itself (RFC 1951 §2: a block boundary after a full flush; RFC 1952: the trailer).

use std::cell::RefCell;
use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hasher};

use bytes::Bytes;
use flate2::{Compress, Compression, Crc, FlushCompress, Status};

use super::blocking::Skip;
use super::playlist::Version;

/// Segments in a block. Blocks begin at multiples of it, and only whole ones are kept.
const BLOCK: u64 = 32;

/// RFC 1952 §2.3: deflate, no flags, no time, fastest, unknown system.
const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 4, 0xff];

/// A playlist in both encodings; made once per version, shared by all who ask.
#[derive(Debug, Clone, Default)]
pub struct Rendered {
    /// The text.
    pub plain: Bytes,
    /// The text, gzipped.
    pub gzip: Bytes,
    /// Differs between texts: what an entity tag needs.
    pub hash: u64,
}

impl Rendered {
    /// Compresses `text` once.
    pub fn new(text: String) -> Self {
        Self::assemble(&[Piece::Text(&text)])
    }

    fn assemble(pieces: &[Piece<'_>]) -> Self {
        let length = pieces.iter().map(|piece| piece.text().len()).sum();
        let mut plain = Vec::with_capacity(length);
        for piece in pieces {
            plain.extend_from_slice(piece.text().as_bytes());
        }
        let mut hasher = DefaultHasher::new();
        hasher.write(&plain);
        Self { plain: plain.into(), gzip: gzip(pieces).into(), hash: hasher.finish() }
    }
}

/// The forms of a media playlist.
#[derive(Debug, Clone, Default)]
pub struct Forms {
    /// The whole.
    pub full: Rendered,
    /// The answer to `_HLS_skip=YES`.
    pub delta: Rendered,
    /// The answer to `_HLS_skip=v2`.
    pub delta_v2: Rendered,
}

impl Forms {
    /// The form that was asked for.
    pub const fn of(&self, skip: Option<Skip>) -> &Rendered {
        match skip {
            None => &self.full,
            Some(Skip::Segments) => &self.delta,
            Some(Skip::DateRanges) => &self.delta_v2,
        }
    }
}

/// Old segments that are written the same in every version.
struct Block {
    /// Media sequence number of the first.
    msn: u64,
    text: String,
    /// A run of deflate blocks.
    packed: Vec<u8>,
    crc: Crc,
}

/// Renders one rendition. owner: the packager's task.
#[derive(Default)]
pub struct Renderer {
    /// Bounded by the segments listed.
    blocks: VecDeque<Block>,
}

enum Piece<'a> {
    Text(&'a str),
    Block(&'a Block),
}

impl Piece<'_> {
    fn text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            Self::Block(block) => &block.text,
        }
    }
}

impl Renderer {
    /// All forms of a version. Versions of a rendition come in order.
    pub fn render(&mut self, version: Version<'_>) -> Forms {
        self.keep_blocks(&version);
        let full = self.full(&version);
        let delta = |skip| version.delta(skip).map_or_else(|| full.clone(), Rendered::new);
        Forms { delta: delta(Skip::Segments), delta_v2: delta(Skip::DateRanges), full }
    }

    fn full(&self, version: &Version<'_>) -> Rendered {
        let count = version.view.listed_complete().len();
        let index = |msn: u64| (msn - version.view.media_sequence()) as usize;
        let first = self.blocks.front().map_or(count, |block| index(block.msn));
        let after = self.blocks.back().map_or(count, |block| index(block.msn + BLOCK));
        let mut head = String::with_capacity(4096);
        version.write_head(&mut head, None, 0);
        version.write_segments(&mut head, 0..first);
        if self.blocks.is_empty() {
            version.write_tail(&mut head);
            return Rendered::new(head);
        }
        let mut tail = String::with_capacity(4096);
        version.write_segments(&mut tail, after..count);
        version.write_tail(&mut tail);
        let mut pieces = vec![Piece::Text(&head)];
        pieces.extend(self.blocks.iter().map(Piece::Block));
        pieces.push(Piece::Text(&tail));
        Rendered::assemble(&pieces)
    }

    /// Drops blocks of segments that are not listed any more, and makes those that can
    /// be made. The first listed segment is in none: it has tags that it had not before.
    fn keep_blocks(&mut self, version: &Version<'_>) {
        let first = version.view.media_sequence();
        while self.blocks.front().is_some_and(|block| block.msn <= first) {
            self.blocks.pop_front();
        }
        let old_end = first + version.with_parts() as u64;
        let next = self.blocks.back().map(|block| block.msn + BLOCK);
        let mut msn = next.unwrap_or_else(|| (first + 1).next_multiple_of(BLOCK));
        while msn + BLOCK <= old_end {
            let index = (msn - first) as usize;
            let mut text = String::with_capacity(BLOCK as usize * 128);
            version.write_segments(&mut text, index..index + BLOCK as usize);
            let (mut packed, mut crc) = (Vec::new(), Crc::new());
            crc.update(text.as_bytes());
            DEFLATE.with_borrow_mut(|deflate| {
                deflate.reset();
                append(deflate, text.as_bytes(), &mut packed, FlushCompress::Full);
            });
            self.blocks.push_back(Block { msn, text, packed, crc });
            msn += BLOCK;
        }
    }
}

fn gzip(pieces: &[Piece<'_>]) -> Vec<u8> {
    let length: usize = pieces.iter().map(|piece| piece.text().len()).sum();
    let mut out = Vec::with_capacity(length / 4 + 128);
    out.extend_from_slice(&GZIP_HEADER);
    let mut crc = Crc::new();
    DEFLATE.with_borrow_mut(|deflate| {
        deflate.reset();
        for piece in pieces {
            match piece {
                Piece::Text(text) => {
                    crc.update(text.as_bytes());
                    append(deflate, text.as_bytes(), &mut out, FlushCompress::Full);
                }
                Piece::Block(block) => {
                    crc.combine(&block.crc);
                    out.extend_from_slice(&block.packed);
                }
            }
        }
        // An empty last block ends the stream.
        append(deflate, &[], &mut out, FlushCompress::Finish);
    });
    out.extend_from_slice(&crc.sum().to_le_bytes());
    out.extend_from_slice(&crc.amount().to_le_bytes());
    out
}

thread_local! {
    /// A compressor has some hundred KiB of state: one per thread, not per rendition.
    static DEFLATE: RefCell<Compress> = RefCell::new(Compress::new(Compression::fast(), false));
}

/// Appends `text` as deflate blocks that refer to nothing before the last full flush.
fn append(deflate: &mut Compress, text: &[u8], out: &mut Vec<u8>, flush: FlushCompress) {
    let before = deflate.total_in();
    loop {
        let done = usize::try_from(deflate.total_in() - before).unwrap_or(usize::MAX);
        let rest = text.get(done..).unwrap_or_default();
        out.reserve(rest.len() / 2 + 64);
        let status = deflate.compress_vec(rest, out, flush);
        let all_in = deflate.total_in() - before >= text.len() as u64;
        // With room left, a flush is complete.
        let flushed = all_in && out.len() < out.capacity();
        let ends = matches!(flush, FlushCompress::Finish);
        // Errors are for streams that were ended, and this one is not.
        if matches!(status, Ok(Status::StreamEnd) | Err(_)) || (flushed && !ends) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use flate2::read::GzDecoder;

    use super::*;
    use crate::codec::Codec;
    use crate::egress::hls::cutter::PartMedia;
    use crate::egress::hls::daterange::RangeLines;
    use crate::egress::hls::playlist::Targets;
    use crate::egress::hls::sample::Sampler;
    use crate::egress::hls::segmenter::{Init, SegmentStart};
    use crate::egress::hls::store::{Store, StoreLimits};
    use crate::time::Utc;

    const TARGETS: Targets = Targets { part: Duration::from_millis(500), duration: 2 };

    /// A store that lists `window` seconds, and how to add parts of half a second.
    fn store(window: u64) -> (Store, impl FnMut(&mut Store)) {
        let limits = StoreLimits {
            window: window * 48_000,
            grace: 48_000 * 10,
            floor: 6 * 48_000,
            max_bytes: usize::MAX,
        };
        let store = Store::new(limits, 48_000.try_into().unwrap());
        let opus = Bytes::from_static(&[0xf8, 0xff, 0xfe]);
        let (_, config) = Sampler::new(Codec::Opus, 2).unwrap().sample(&opus, true).unwrap();
        let init = |number| Arc::new(Init { number, data: Bytes::new(), config: config.clone() });
        let inits = [init(0), init(1)];
        let mut parts = 0;
        let add = move |store: &mut Store| {
            if parts % 4 == 0 {
                let segment = parts / 4;
                store.start_segment(SegmentStart {
                    number: 0,
                    sequence: 0,
                    program_date_time: Utc::from_micros(segment * 2_000_000),
                    // Another configuration now and then, with a break.
                    discontinuities: u32::from(segment % 50 == 49),
                    init: inits[usize::from(segment / 50 % 2 == 1)].clone(),
                    gap: segment % 70 == 69,
                });
            }
            store.add_part(PartMedia {
                data: Bytes::from_static(b"media"),
                duration: 24_000,
                ticks: 24_000,
                independent: true,
                samples: 25,
            });
            parts += 1;
        };
        (store, add)
    }

    #[test]
    fn what_is_kept_reads_as_if_it_were_written_anew() {
        let (mut store, mut add) = store(400);
        let (mut renderer, ranges) = (Renderer::default(), RangeLines::default());
        for part in 0..3000 {
            add(&mut store);
            if part % 3 != 0 && part < 2900 {
                continue;
            }
            let view = store.view();
            let version = Version {
                view: &view,
                token: "t",
                targets: TARGETS,
                reports: &[],
                ranges: &ranges,
            };
            let forms = renderer.render(version);
            for skip in [None, Some(Skip::Segments), Some(Skip::DateRanges)] {
                let (form, expected) = (forms.of(skip), version.text(skip));
                assert!(form.plain == expected, "part {part}, {skip:?}");
                let mut text = String::new();
                GzDecoder::new(&form.gzip[..]).read_to_string(&mut text).unwrap();
                assert!(text == expected, "part {part}, {skip:?}");
            }
        }
        assert!(renderer.blocks.len() >= 4 && renderer.blocks.len() <= 7);
    }

    /// `cargo test --release -p railbird --lib render_cost -- --ignored --nocapture`
    #[test]
    #[ignore = "prints what a version costs on this machine"]
    fn render_cost() {
        for window in [30, 3600] {
            let (mut store, mut add) = store(window);
            for _ in 0..window * 2 + 400 {
                add(&mut store);
            }
            let (mut renderer, ranges) = (Renderer::default(), RangeLines::default());
            let mut times: [Vec<Duration>; 3] = Default::default();
            let mut length = 0;
            for _ in 0..1000 {
                add(&mut store);
                #[allow(clippy::disallowed_methods, reason = "it measures")]
                let now = Instant::now;
                let start = now();
                let view = store.view();
                let viewed = now();
                let version = Version {
                    view: &view,
                    token: "0123456789abcdef",
                    targets: TARGETS,
                    reports: &[],
                    ranges: &ranges,
                };
                renderer.render(version);
                let rendered = now();
                length = Rendered::new(version.text(None)).plain.len();
                let anew = now();
                for (times, time) in
                    times.iter_mut().zip([viewed - start, rendered - viewed, anew - rendered])
                {
                    times.push(time);
                }
            }
            let [view, render, anew] = times.map(|mut times| {
                times.sort();
                times[times.len() / 2]
            });
            eprintln!(
                "window {window} s: {length} bytes; view {view:?}, all forms {render:?}, \
                 the whole written anew {anew:?}"
            );
        }
    }
}
