//! One client: takes a variant, reloads the playlists of its renditions by blocking
//! requests, and fetches their parts, the hinted one before it exists.
//!
//! Every rendition has one connection for playlists and one for media: HTTP/1.1 answers
//! one request after the other, and both kinds may be held by the server.
#![allow(clippy::disallowed_methods, reason = "the I/O shell: requests wait on the clock")]

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use reqwest::Url;
use tokio::sync::watch;
use tokio::task::yield_now;
use tokio::time::sleep;

use super::http::{Answer, Connection, Failure, Network, Want};
use super::multivariant::{Choice, Multivariant};
use super::playhead::{Loaded, Playhead};
use super::playlist::{MediaPlaylist, Resource, micros};
use super::tally::{Rendition, Tally};
use super::timeline::{Ask, Cursor, Item, Ledger, Next, Start, same_start};
use crate::time::utc_micros;

/// Pause before a request is repeated, when the server does not say.
const RETRY: Duration = Duration::from_secs(1);
/// Longest pause taken over from a server.
const RETRY_MAX: Duration = Duration::from_secs(10);
/// How long a request may take that is not held.
const REQUEST_LIMIT: Duration = Duration::from_secs(15);
/// How many TARGETDURATIONs a server may hold a request (rfc8216bis §6.2.5.2).
const HOLD_DURATIONS: u32 = 3;
/// Unreadable playlists in a row, after which a client gives up.
const MAX_UNREADABLE: u32 = 5;

/// What clients are to do.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Video rendition.
    pub choice: Choice,
    /// Also the audio rendition.
    pub audio: bool,
    /// Fetch media too.
    pub media: bool,
    /// Ask for hinted parts.
    pub hints: bool,
    /// How far away a client is: it pauses so long before each request.
    pub rtt: Duration,
    /// How long a request that is refused for now is repeated.
    pub patience: Duration,
}

/// What one client saw of the stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Times that its buffer was empty.
    pub stalls: u64,
    /// Time in them.
    pub stalled: Duration,
}

/// One client.
pub struct Client {
    network: Arc<Network>,
    tally: Arc<Tally>,
    options: Options,
    due: Instant,
    playhead: OnceLock<Mutex<Playhead>>,
}

impl Client {
    /// A client that is due to join at `due`.
    pub const fn new(
        network: Arc<Network>,
        tally: Arc<Tally>,
        options: Options,
        due: Instant,
    ) -> Self {
        Self { network, tally, options, due, playhead: OnceLock::new() }
    }

    /// Watches until the stream ends.
    ///
    /// # Errors
    /// The [`Failure`] over which it gave up.
    pub async fn watch(&self, url: &Url) -> Result<(), Failure> {
        let mut connection = Connection::new(Arc::clone(&self.network));
        let answer = self.get(&mut connection, url, None, Want::Playlist, REQUEST_LIMIT).await?;
        let (video, audio) = self.renditions(url, &answer)?;
        let (start, _) = watch::channel(None);
        let tracks = if audio.is_some() { 2 } else { 1 };
        let first = self.rendition(0, tracks, (url, video), connection, &start);
        let Some(audio) = audio else { return first.await };
        let connection = Connection::new(Arc::clone(&self.network));
        let second = self.rendition(1, tracks, (url, audio), connection, &start);
        tokio::try_join!(first, second).map(|_| ())
    }

    /// What it has seen so far.
    pub fn seen(&self, now: Instant) -> Seen {
        let Some(playhead) = self.playhead.get() else { return Seen::default() };
        let mut playhead = playhead.lock().unwrap_or_else(PoisonError::into_inner);
        let (stalls, stalled) = playhead.stalls(now);
        Seen { stalls, stalled }
    }

    /// The playlists to follow; a media playlist stands for itself.
    fn renditions(&self, url: &Url, answer: &Answer) -> Result<(Url, Option<Url>), Failure> {
        let text = answer.text()?;
        let list = match Multivariant::read(&text) {
            Ok(list) => list,
            Err(_) if MediaPlaylist::read(&text).is_ok() => return Ok((url.clone(), None)),
            Err(error) => {
                self.tally.error(&format!("multivariant playlist: {error}"));
                return Err(Failure::Body("the multivariant playlist cannot be read"));
            }
        };
        let (variant, audio) = list
            .choose(self.options.choice)
            .ok_or(Failure::Body("there is no variant to choose"))?;
        let audio = audio.filter(|_| self.options.audio).and_then(|audio| audio.uri.as_ref());
        // One that a variant repeats (audio alone) is no rendition of its own.
        let audio = audio.filter(|uri| **uri != variant.uri);
        Ok((join(url, &variant.uri)?, audio.map(|uri| join(url, uri)).transpose()?))
    }

    async fn rendition(
        &self,
        track: usize,
        tracks: usize,
        (listed_in, url): (&Url, Url),
        connection: Connection,
        start: &watch::Sender<Option<Start>>,
    ) -> Result<(), Failure> {
        let (latest, playlists) = watch::channel(None);
        // Its own address may be one viewer's alone; all find it in the same place.
        let shared = self.tally.rendition(listed_in, track);
        let reload = self.reload(track, &url, connection, (shared, latest));
        if !self.options.media {
            return reload.await;
        }
        let viewer = Viewer {
            client: self,
            track,
            url: &url,
            connection: Connection::new(Arc::clone(&self.network)),
            init: None,
            early: None,
        };
        tokio::try_join!(reload, viewer.run(tracks, playlists, start)).map(|_| ())
    }

    /// Blocking reloads, until the playlist ends.
    async fn reload(
        &self,
        track: usize,
        url: &Url,
        mut connection: Connection,
        (rendition, latest): (Arc<Mutex<Rendition>>, watch::Sender<Option<Arc<MediaPlaylist>>>),
    ) -> Result<(), Failure> {
        let mut ledger = Ledger::default();
        let mut last: Option<Arc<MediaPlaylist>> = None;
        let (mut started, mut unreadable) = (false, 0);
        loop {
            let ask = last.as_deref().map(Ask::after);
            let answer = match self.ask(&mut connection, url, ask, last.as_deref()).await {
                Err(Failure::Status(400, _)) if ask.is_some() => {
                    // Asked too far ahead, or of a server that started anew.
                    (last, ledger) = (None, Ledger::default());
                    sleep(RETRY).await;
                    continue;
                }
                other => other?,
            };
            let Some(playlist) = self.read(&rendition, &answer)? else {
                unreadable += 1;
                if unreadable >= MAX_UNREADABLE {
                    return Err(Failure::Body("the playlist cannot be read"));
                }
                sleep(RETRY).await;
                continue;
            };
            unreadable = 0;
            let checked = ledger.check(&playlist, ask);
            checked.faults.iter().for_each(|fault| self.tally.error(fault));
            self.tally.count.hints_missed.fetch_add(checked.hint_missed.into(), Relaxed);
            self.account_for(&rendition, &playlist, &answer, ask);
            if !std::mem::replace(&mut started, true) && track == 0 {
                Tally::one(&self.tally.count.started);
            }
            let stands = last.as_ref().is_some_and(|last| last.edge() == playlist.edge());
            latest.send_replace(Some(Arc::clone(&playlist)));
            if playlist.ended {
                return Ok(());
            }
            if stands {
                // It did not block: not a reason to flood it.
                sleep(playlist.part_target.unwrap_or(RETRY)).await;
            }
            last = Some(playlist);
        }
    }

    /// Reads an answer; `None`, and an error counted, when it cannot be read.
    fn read(
        &self,
        rendition: &Mutex<Rendition>,
        answer: &Answer,
    ) -> Result<Option<Arc<MediaPlaylist>>, Failure> {
        match rendition.lock().unwrap_or_else(PoisonError::into_inner).read(answer) {
            Ok(playlist) if playlist.can_block || playlist.ended => Ok(Some(playlist)),
            Ok(_) => Err(Failure::Body("the playlist offers no blocking reload")),
            Err(error) => {
                self.tally.error(&error);
                Ok(None)
            }
        }
    }

    async fn ask(
        &self,
        connection: &mut Connection,
        url: &Url,
        ask: Option<Ask>,
        last: Option<&MediaPlaylist>,
    ) -> Result<Answer, Failure> {
        let hold = last.map_or(Duration::ZERO, |last| last.target.min(RETRY * 60));
        let limit = hold * HOLD_DURATIONS + REQUEST_LIMIT;
        let query = ask.map(|ask| ask.query());
        self.get(connection, url, query.as_deref(), Want::Playlist, limit).await
    }

    /// Counts an answer, and measures it when it was waited for.
    fn account_for(
        &self,
        rendition: &Mutex<Rendition>,
        playlist: &MediaPlaylist,
        answer: &Answer,
        ask: Option<Ask>,
    ) {
        let count = &self.tally.count;
        Tally::one(&count.playlists);
        count.playlist_bytes.fetch_add(answer.bytes, Relaxed);
        if ask.is_none() {
            return;
        }
        let delay = rendition.lock().unwrap_or_else(PoisonError::into_inner).delay(
            playlist.edge(),
            answer.asked,
            answer.answered,
        );
        let Some(delay) = delay else { return };
        Tally::one(&count.blocked);
        let age = playlist.edge_utc().map(|edge| utc_micros().saturating_sub(edge));
        self.tally.record(|spreads| {
            spreads.answer_spread.record(micros(delay));
            age.into_iter().for_each(|age| spreads.edge.record(age));
        });
    }

    /// A request that is repeated while its refusal can pass.
    async fn get(
        &self,
        connection: &mut Connection,
        url: &Url,
        query: Option<&str>,
        want: Want,
        limit: Duration,
    ) -> Result<Answer, Failure> {
        let begun = Instant::now();
        let mut reused = connection.opened > 0;
        loop {
            if self.options.rtt.is_zero() {
                // Those who have an answer waiting read it first: they are not to be kept
                // from it by what this one asks next.
                yield_now().await;
            } else {
                sleep(self.options.rtt).await;
            }
            let opened = connection.opened;
            let result = connection.get(url, query, want, limit).await;
            let count = &self.tally.count;
            count.connections.fetch_add(connection.opened - opened, Relaxed);
            reused = reused && connection.opened == opened;
            let failure = match result {
                Ok(answer) => {
                    let ranged = matches!(want, Want::Media(Some(_)));
                    self.tally.status(if ranged { 206 } else { 200 });
                    count.bytes.fetch_add(answer.bytes, Relaxed);
                    return Ok(answer);
                }
                Err(failure) => failure,
            };
            let pause = match &failure {
                Failure::Status(status, retry) => {
                    self.tally.status(*status);
                    let passes = matches!(status, 429 | 503)
                        || (*status == 404 && matches!(want, Want::Playlist));
                    if !passes {
                        self.tally.error(&format!("{} refused: {failure}", kind(want)));
                        return Err(failure);
                    }
                    Tally::one(&count.retries);
                    retry.unwrap_or(RETRY).min(RETRY_MAX)
                }
                // A server may close a connection that is idle, as we write to it.
                Failure::Broken(_) if std::mem::take(&mut reused) => continue,
                _ => {
                    self.tally.error(&failure.to_string());
                    RETRY
                }
            };
            if begun.elapsed() + pause > self.options.patience {
                return Err(failure);
            }
            sleep(pause).await;
        }
    }

    /// Takes media of a track to the playhead, and measures what it shows then.
    fn load(&self, track: usize, media: Loaded) {
        let Some(playhead) = self.playhead.get() else { return };
        let now = Instant::now();
        let mut playhead = playhead.lock().unwrap_or_else(PoisonError::into_inner);
        let had_begun = playhead.has_begun();
        playhead.load(now, track, media);
        let shown = playhead.shown_utc(now);
        let ahead = playhead.ahead(now);
        if playhead.has_begun() && !had_begun {
            Tally::one(&self.tally.count.playing);
        }
        if track > 0 || !playhead.has_begun() {
            return;
        }
        drop(playhead);
        self.tally.record(|spreads| {
            spreads.buffer.record(micros(ahead));
            if let Some(shown) = shown {
                spreads.latency.record(utc_micros().saturating_sub(shown));
            }
        });
    }
}

fn join(base: &Url, uri: &str) -> Result<Url, Failure> {
    base.join(uri).map_err(|_| Failure::Url(uri.to_owned()))
}

const fn kind(want: Want) -> &'static str {
    match want {
        Want::Playlist => "playlist",
        Want::Media(_) => "media",
    }
}

/// Latest playlist of a rendition; closed when there will be no other.
type Playlists = watch::Receiver<Option<Arc<MediaPlaylist>>>;

/// The media of one rendition.
struct Viewer<'a> {
    client: &'a Client,
    track: usize,
    url: &'a Url,
    connection: Connection,
    /// Init segment that was fetched last.
    init: Option<Resource>,
    /// Part that was asked for by its hint: here already, or refused (`false`).
    early: Option<(Resource, bool)>,
}

impl Viewer<'_> {
    /// Fetches along the playlists until they end.
    async fn run(
        mut self,
        tracks: usize,
        mut playlists: Playlists,
        start: &watch::Sender<Option<Start>>,
    ) -> Result<(), Failure> {
        let Some(place) = self.begin(tracks, &mut playlists, start).await else { return Ok(()) };
        let mut cursor = Cursor::at(place.place);
        loop {
            let Some(playlist) = playlists.borrow_and_update().clone() else { return Ok(()) };
            let before = cursor.overruns;
            while let Next::Item(item) = cursor.next(&playlist) {
                self.take(item).await?;
            }
            let overruns = cursor.overruns - before;
            self.client.tally.count.overruns.fetch_add(overruns, Relaxed);
            if playlist.ended {
                self.end();
                return Ok(());
            }
            let hint = playlist.hint.clone().filter(|hint| self.takes(hint));
            let more = match hint {
                Some(hint) => self.take_hint(hint, &cursor, &mut playlists).await,
                None => playlists.changed().await.is_ok(),
            };
            if !more {
                return Ok(());
            }
        }
    }

    /// Finds the place to start; the first track decides for the others.
    async fn begin(
        &self,
        tracks: usize,
        playlists: &mut Playlists,
        start: &watch::Sender<Option<Start>>,
    ) -> Option<Start> {
        loop {
            playlists.changed().await.ok()?;
            let playlist = playlists.borrow_and_update().clone()?;
            let found = if self.track == 0 {
                Start::at_edge(&playlist)
            } else {
                let first = *start.subscribe().wait_for(Option::is_some).await.ok()?;
                match first.and_then(|first| first.utc) {
                    Some(utc) => Start::at_utc(&playlist, utc),
                    None => Start::at_edge(&playlist),
                }
            };
            let Some(found) = found else { continue };
            let enough = playlist.part_target.unwrap_or(playlist.target);
            let playhead = self.client.playhead.get_or_init(|| {
                let playhead = Playhead::new(tracks, enough);
                Mutex::new(playhead)
            });
            let mut playhead = playhead.lock().unwrap_or_else(PoisonError::into_inner);
            playhead.start_track(self.track, found.lead);
            drop(playhead);
            if self.track == 0 {
                start.send_replace(Some(found));
            }
            return Some(found);
        }
    }

    /// Fetches media that is listed, unless it is here.
    async fn take(&mut self, item: Item) -> Result<(), Failure> {
        let count = &self.client.tally.count;
        let here = match &self.early {
            Some((hint, true)) => same_start(&item.resource, hint),
            _ => false,
        };
        if item.map.is_some() && self.init != item.map {
            self.init.clone_from(&item.map);
            if let Some(map) = &item.map {
                self.fetch(map).await?;
                Tally::one(&count.inits);
            }
        }
        if item.gap {
            Tally::one(&count.gaps);
        } else if !here {
            match self.fetch(&item.resource).await {
                Ok(()) => {}
                // Counted: the client goes on without it, as a player would.
                Err(Failure::Status(..)) => return Ok(()),
                Err(failure) => return Err(failure),
            }
        }
        Tally::one(if item.part { &count.parts } else { &count.segments });
        let media = Loaded { duration: item.duration, start: item.start };
        let first = self.track == 0 && !self.has_loaded();
        self.client.load(self.track, media);
        if first {
            let waited = self.client.due.elapsed();
            self.client.tally.record(|spreads| spreads.first_part.record(micros(waited)));
        }
        Ok(())
    }

    async fn fetch(&mut self, resource: &Resource) -> Result<(), Failure> {
        let (url, want) = (join(self.url, &resource.uri)?, Want::Media(resource.range));
        self.client.get(&mut self.connection, &url, None, want, REQUEST_LIMIT).await.map(|_| ())
    }

    /// Whether to ask for a hinted part now: not for one that is here or was refused,
    /// nor for a range of unknown length (its parts come when they are listed).
    fn takes(&self, hint: &Resource) -> bool {
        let open = hint.range.is_some_and(|(_, length)| length == 0);
        let known = self.early.as_ref().is_some_and(|(early, _)| early == hint);
        self.client.options.hints && !open && !known
    }

    /// Asks for the hinted part and waits for it, or until it turns out that another
    /// one comes; `false` when no more playlists come.
    async fn take_hint(
        &mut self,
        hint: Resource,
        cursor: &Cursor,
        playlists: &mut Playlists,
    ) -> bool {
        let Ok(url) = join(self.url, &hint.uri) else { return playlists.changed().await.is_ok() };
        let client = self.client;
        let limit = REQUEST_LIMIT * 2;
        let part = client.get(&mut self.connection, &url, None, Want::Media(hint.range), limit);
        let replaced = async {
            while playlists.changed().await.is_ok() {
                let playlist = playlists.borrow().clone();
                if playlist.is_none_or(|playlist| !still_comes(&hint, cursor, &playlist)) {
                    return true;
                }
            }
            // Closed: what is under way may still be of use, but not for long.
            false
        };
        tokio::select! {
            part = part => {
                if part.is_ok() {
                    Tally::one(&client.tally.count.hinted);
                }
                self.early = Some((hint, part.is_ok()));
                true
            }
            more = replaced => {
                self.connection.close();
                self.early = Some((hint, false));
                more
            }
        }
    }

    fn has_loaded(&self) -> bool {
        self.client.playhead.get().is_some_and(|playhead| {
            let playhead = playhead.lock().unwrap_or_else(PoisonError::into_inner);
            playhead.has_loaded(self.track)
        })
    }

    fn end(&self) {
        if let Some(playhead) = self.client.playhead.get() {
            let mut playhead = playhead.lock().unwrap_or_else(PoisonError::into_inner);
            playhead.complete(Instant::now());
        }
    }
}

/// Whether a hinted part is still what comes next.
fn still_comes(hint: &Resource, cursor: &Cursor, playlist: &MediaPlaylist) -> bool {
    match cursor.clone().next(playlist) {
        Next::Item(item) => same_start(&item.resource, hint),
        Next::Nothing => playlist.hint.as_ref() == Some(hint),
    }
}
