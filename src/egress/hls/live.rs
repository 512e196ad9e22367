//! A table as the HTTP side sees it: the newest version of each rendition.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::daterange::DateRanges;
use super::playlist::Targets;
use super::render::{Forms, Rendered};
use super::segmenter::RenditionSource;
use super::store::{Numbers, View};
use crate::codec::MediaKind;
use crate::hub::TableName;
use crate::media::LayerId;

/// A version of one rendition.
pub struct Published {
    /// What it offers.
    pub view: View,
    /// Its playlist, whole and as delta updates.
    pub playlist: Forms,
}

impl Published {
    /// Whether this is a version at all: what stands here before the first one is none.
    pub const fn is_rendered(&self) -> bool {
        !self.playlist.full.plain.is_empty()
    }
}

/// A rendition as the HTTP side sees it.
pub struct Rendition {
    /// Its name in URIs.
    pub name: String,
    /// Picture or sound.
    pub kind: MediaKind,
    /// Its newest version; a change wakes those who wait.
    pub published: watch::Sender<Arc<Published>>,
    /// Playlist requests without a session that wait for the next version.
    pub waiting: AtomicUsize,
}

impl Rendition {
    pub(super) fn new(source: &RenditionSource, timescale: NonZeroU32, numbers: Numbers) -> Self {
        let view = View::empty(timescale, numbers);
        Self {
            name: name(source),
            kind: source.codec.kind(),
            published: watch::Sender::new(Arc::new(Published { view, playlist: Forms::default() })),
            waiting: AtomicUsize::new(0),
        }
    }
}

/// The name of the rendition that a layer becomes: kind, track and layer.
pub fn name(source: &RenditionSource) -> String {
    let LayerId { track, layer } = source.layer;
    format!("{}{track}-{layer}", source.codec.kind().as_str())
}

/// A table as the HTTP side sees it. It may outlive publications.
pub struct Live {
    /// The table.
    pub table: TableName,
    /// Opens the names of all resources.
    pub token: String,
    /// PART-TARGET and TARGETDURATION.
    pub targets: Targets,
    /// All renditions, the leading one first; they do not change.
    pub renditions: Vec<Rendition>,
    /// The multivariant playlist, once it is known which renditions there are.
    pub multivariant: watch::Sender<Option<Rendered>>,
    pub(super) viewers: AtomicUsize,
    ranges: Mutex<DateRanges>,
}

impl Live {
    pub(super) fn new(
        table: TableName,
        token: String,
        targets: Targets,
        renditions: Vec<Rendition>,
    ) -> Self {
        Self {
            table,
            token,
            targets,
            renditions,
            multivariant: watch::Sender::new(None),
            viewers: AtomicUsize::new(0),
            ranges: Mutex::default(),
        }
    }

    /// See [`super::Hls::viewers`].
    pub fn viewers(&self) -> usize {
        self.viewers.load(Ordering::Relaxed)
    }

    /// Whether nothing will be added.
    pub fn ended(&self) -> bool {
        self.renditions.iter().all(|rendition| rendition.published.borrow().view.ended)
    }

    /// The rendition of this name.
    pub fn rendition(&self, name: &str) -> Option<&Rendition> {
        self.renditions.iter().find(|rendition| rendition.name == name)
    }

    /// Its date ranges, which the next version of each playlist lists.
    pub fn ranges(&self) -> MutexGuard<'_, DateRanges> {
        // No code panics while it holds this lock; the set is whole in any case.
        self.ranges.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
