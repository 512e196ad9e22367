//! The thread of accounting through a request: from its arrival until its answer's last
//! byte is taken. It reads the clock for `session`, which is told the time.
#![allow(clippy::disallowed_methods, reason = "the I/O shell: it says when what happened")]

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::super::Hls;
use super::super::packager::{Live, Rendition};
use super::super::render::Rendered;
use super::super::session::pass::carry;
use super::super::session::playback::{Pace, Span};
use super::super::session::viewer::{Fetched, Outcome};
use super::super::session::{Request, Visit};
use super::super::store::{Part, Resource, Segment, View};
use crate::time::Utc;

/// A request in progress. It ends when this is dropped, also by a client that leaves.
pub(super) struct Guest {
    hls: Arc<Hls>,
    live: Arc<Live>,
    visit: Visit,
}

impl Guest {
    /// A request has come, with `pass` in its path; `begins` says that it is one with
    /// which viewers begin.
    pub(super) fn enter(
        hls: &Arc<Hls>,
        live: &Arc<Live>,
        pass: Option<&str>,
        begins: bool,
    ) -> Self {
        let pace = Pace { part: live.targets.part, segment: live.targets.durations(1) };
        let request = Request { table: &live.table, pass, begins };
        let visit = hls.sessions.handle_request(Instant::now(), request, pace);
        Self { hls: hls.clone(), live: live.clone(), visit }
    }

    /// Whether it is one of a session's.
    pub(super) const fn is_accounted(&self) -> bool {
        self.visit.is_accounted()
    }

    /// A playlist of `rendition` that lists `view` is about to be sent.
    pub(super) fn offer(&self, rendition: &Rendition, view: &View) {
        let leads = self.live.renditions.first().is_some_and(|first| first.kind == rendition.kind);
        // Nobody fetches gaps: that these are left says nothing.
        let newest = newest_first(view).find(|segment| !segment.is_empty() && !segment.gap);
        if let Some(newest) = newest.filter(|_| leads && self.is_accounted()) {
            let edge = after(view, newest, newest.duration);
            self.hls.sessions.handle_offer(Instant::now(), &self.visit, edge);
        }
    }

    /// What of `rendition` is about to be sent.
    pub(super) fn deliver(self, rendition: &Rendition, resource: &Resource) -> Delivery {
        let fetched = self.fetched(rendition, resource);
        Delivery { guest: self, begun: Instant::now(), bytes: 0, fetched }
    }

    fn fetched(&self, rendition: &Rendition, resource: &Resource) -> Option<Fetched> {
        let all = &self.live.renditions;
        let index = all.iter().position(|other| std::ptr::eq(other, rendition))?;
        // Sound is not followed where there is a picture: it is small, and shares its way.
        if all.first()?.kind != rendition.kind {
            return None;
        }
        let published = rendition.published.borrow();
        let (start, end) = captured(&published.view, resource)?;
        let behind = edge(&published.view)?.micros_since(end);
        Some(Fetched {
            rendition: u8::try_from(index).ok()?,
            span: Span { start, end },
            behind: Duration::from_micros(u64::try_from(behind).unwrap_or(0)),
        })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.hls.sessions.handle_done(Instant::now(), &self.visit);
    }
}

/// Media on its way to a viewer; the answer's body keeps it.
pub(super) struct Delivery {
    guest: Guest,
    begun: Instant,
    bytes: u64,
    fetched: Option<Fetched>,
}

impl Delivery {
    /// The answer does not bring the media to its end.
    pub(super) fn incomplete(mut self) -> Self {
        self.fetched = None;
        self
    }

    /// The connection asked for so many bytes more.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }

    /// The connection took the last of it.
    pub(super) fn complete(&mut self) {
        let Some(fetched) = self.fetched.take() else { return };
        let (now, guest) = (Instant::now(), &self.guest);
        let taken = now.saturating_duration_since(self.begun);
        let outcome = guest.hls.sessions.handle_media(now, &guest.visit, &fetched, taken);
        self.count_switch(&outcome);
    }

    /// A player went over to another rendition: which of them has more bits?
    fn count_switch(&self, outcome: &Outcome) {
        let renditions = &self.guest.live.renditions;
        let target = self.guest.live.targets.durations(1);
        let peak = |index: u8| {
            let rendition = renditions.get(usize::from(index))?;
            Some(rendition.published.borrow().view.bandwidth(target)?.0)
        };
        let Some((from, to)) = outcome.switched else { return };
        let (Some(from), Some(to)) = (peak(from), peak(to)) else { return };
        let audience = &self.guest.visit.audience;
        let counter = if to > from { &audience.switched_up } else { &audience.switched_down };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        self.guest.visit.audience.egress_bytes.fetch_add(self.bytes, Ordering::Relaxed);
    }
}

/// When the media of a part or segment was captured: its first sample, and the end of its
/// last one. `None` of what has no time, or is not listed any more.
fn captured(view: &View, resource: &Resource) -> Option<(Utc, Utc)> {
    let (segment, before, ticks) = match resource {
        Resource::Segment(segment) => (segment, 0, segment.duration),
        Resource::Piece(bytes) => find_part(view, bytes)?,
        Resource::Hinted | Resource::Unknown => return None,
    };
    Some((after(view, segment, before), after(view, segment, before + ticks)))
}

/// When the newest part ends.
fn edge(view: &View) -> Option<Utc> {
    let newest = newest_first(view).find(|segment| !segment.is_empty())?;
    Some(after(view, newest, newest.duration))
}

/// The part with these bytes: its segment, the ticks before it and its own.
fn find_part<'a>(view: &'a View, bytes: &Bytes) -> Option<(&'a Arc<Segment>, u64, u64)> {
    newest_first(view).find_map(|segment| {
        let same = |part: &Part| std::ptr::eq(part.media.data.as_ptr(), bytes.as_ptr());
        let index = segment.parts.iter().position(same)?;
        let (before, from) = segment.parts.split_at(index);
        let before = before.iter().map(|part| part.media.ticks).sum();
        Some((segment, before, from.first()?.media.ticks))
    })
}

fn newest_first(view: &View) -> impl Iterator<Item = &Arc<Segment>> {
    view.open().into_iter().chain(view.listed_complete().iter().rev())
}

/// So many ticks after the segment's first sample.
fn after(view: &View, segment: &Segment, ticks: u64) -> Utc {
    let micros = u128::from(ticks) * 1_000_000 / u128::from(view.timescale.get());
    segment.program_date_time.offset_micros(micros as i64)
}

/// The multivariant playlist for a viewer that `asked` for it and is about to begin.
pub(super) fn invite(
    hls: &Hls,
    asked: Instant,
    live: &Live,
    multivariant: &Rendered,
) -> Option<Rendered> {
    let text = std::str::from_utf8(&multivariant.plain).ok()?;
    let pass = hls.sessions.issue(asked, &live.table, rand::random());
    Some(Rendered::new(carry(text, &pass)))
}
