//! How a worker is reached from other threads: bounded queues and a wake-up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Wake;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::session::SessionId;
use crate::hub::{PacketSink, StreamId};
use crate::media::{LayerId, Packet};
use crate::route::Route;
use crate::webrtc::ice_lite::IceCredentials;

/// Packets that may wait for one worker: 0.2 s of 200 tables at 2.5 Mbit/s. Past it
/// packets are dropped and counted; viewers then see a loss that is not resent.
const MEDIA_QUEUE: usize = 16 * 1024;
/// Requests that may wait for one worker. Past it a request of the HTTP side is
/// refused, or made again by its peer.
const MAIL_QUEUE: usize = 8 * 1024;
/// Datagrams for one worker that other workers' sockets got. Past it they are dropped
/// and counted, as by a full socket. A queue of their own: anybody can send them.
const STRAY_QUEUE: usize = 2 * 1024;

/// A packet of a stream that this worker subscribed to.
pub(super) struct Media {
    pub(super) stream: StreamId,
    pub(super) layer: LayerId,
    pub(super) packet: Arc<Packet>,
}

/// A datagram that the kernel gave to another worker's socket.
pub(super) struct Stray {
    pub(super) from: Route,
    pub(super) bytes: Vec<u8>,
}

/// Everything else that a worker is asked to do.
pub(super) enum Mail {
    /// New ICE credentials for a session (RFC 8445 §9).
    RestartIce { session: SessionId, credentials: IceCredentials },
    /// End a session that this worker owns.
    Close { session: SessionId, reason: &'static str },
    /// A viewer has chosen a layer: look at what its [`Watching`] says.
    ///
    /// [`Watching`]: crate::egress::fanout::Watching
    ChooseLayer { session: SessionId },
    /// A stream that this worker subscribed to is over.
    StreamEnded(StreamId),
    /// End all sessions and the thread.
    Shutdown,
}

/// The sending half of a worker's queues. Shared as `Arc<Mailbox>`.
pub(super) struct Mailbox {
    mail: Sender<Mail>,
    media: Sender<Media>,
    strays: Sender<Stray>,
    waker: mio::Waker,
    /// Set by the worker before it waits; whoever clears it makes the system call.
    asleep: AtomicBool,
    /// Set by whoever wants the worker's publishers to look at their commands.
    publishers_poked: AtomicBool,
    /// Packets and datagrams that did not fit.
    overflows: AtomicU64,
}

/// The receiving half. owner: the worker.
pub(super) struct Inbox {
    pub(super) mail: Receiver<Mail>,
    pub(super) media: Receiver<Media>,
    pub(super) strays: Receiver<Stray>,
}

impl Inbox {
    pub(super) fn is_empty(&self) -> bool {
        self.mail.is_empty() && self.media.is_empty() && self.strays.is_empty()
    }
}

/// The worker cannot take more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Full;

pub(super) fn mailbox(waker: mio::Waker) -> (Arc<Mailbox>, Inbox) {
    let (mail, mail_receiver) = bounded(MAIL_QUEUE);
    let (media, media_receiver) = bounded(MEDIA_QUEUE);
    let (strays, stray_receiver) = bounded(STRAY_QUEUE);
    let mailbox = Mailbox {
        mail,
        media,
        strays,
        waker,
        asleep: AtomicBool::new(false),
        publishers_poked: AtomicBool::new(false),
        overflows: AtomicU64::new(0),
    };
    let inbox = Inbox { mail: mail_receiver, media: media_receiver, strays: stray_receiver };
    (Arc::new(mailbox), inbox)
}

impl Mailbox {
    pub(super) fn send(&self, mail: Mail) -> Result<(), Full> {
        let sent = self.mail.try_send(mail);
        if sent.is_err() {
            self.overflows.fetch_add(1, Ordering::Relaxed);
        }
        self.rouse();
        sent.map_err(|_| Full)
    }

    /// Passes a datagram on to the worker that owns its peer.
    pub(super) fn pass_on(&self, stray: Stray) {
        if self.strays.try_send(stray).is_err() {
            self.overflows.fetch_add(1, Ordering::Relaxed);
        }
        self.rouse();
    }

    pub(super) fn overflows(&self) -> u64 {
        self.overflows.load(Ordering::Relaxed)
    }

    /// Called by the worker: announces that it is about to wait. It must look at its
    /// queues once more between this and the wait.
    pub(super) fn fall_asleep(&self) {
        self.asleep.store(true, Ordering::SeqCst);
    }

    /// Called by the worker after the wait.
    pub(super) fn awake(&self) {
        self.asleep.store(false, Ordering::SeqCst);
    }

    /// Called by the worker: whether its publishers have commands to look at.
    pub(super) fn take_poke(&self) -> bool {
        self.publishers_poked.swap(false, Ordering::SeqCst)
    }

    pub(super) fn is_poked(&self) -> bool {
        self.publishers_poked.load(Ordering::SeqCst)
    }

    fn rouse(&self) {
        if self.asleep.swap(false, Ordering::SeqCst)
            && let Err(error) = self.waker.wake()
        {
            tracing::error!(%error, "cannot wake a media worker");
        }
    }
}

/// Waking a worker through its mailbox: its publishers have commands.
impl Wake for Mailbox {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.publishers_poked.store(true, Ordering::SeqCst);
        self.rouse();
    }
}

/// Feeds a worker the packets of one stream.
pub(super) struct MediaSink {
    pub(super) stream: StreamId,
    pub(super) mailbox: Arc<Mailbox>,
}

impl PacketSink for MediaSink {
    fn packet(&mut self, layer: LayerId, packet: &Arc<Packet>) {
        let media = Media { stream: self.stream, layer, packet: packet.clone() };
        if self.mailbox.media.try_send(media).is_err() {
            self.mailbox.overflows.fetch_add(1, Ordering::Relaxed);
        }
        self.mailbox.rouse();
    }

    fn ended(&mut self) {
        // When this does not fit, the worker learns it from the stream itself.
        let _ = self.mailbox.send(Mail::StreamEnded(self.stream));
    }
}
