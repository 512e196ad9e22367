//! What a session is, before and after a worker owns it.

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, OnceLock};
use std::task::Wake;
use std::time::Instant;

use super::mailbox::Mailbox;
use crate::hub::{EndReason, Publisher, Stream, TableName};
use crate::webrtc::ice_lite::IceCredentials;
use crate::webrtc::negotiated::{ReceiveTrack, SendTrack};
use crate::webrtc::transport::RemoteDtls;

/// Names a session in URLs and logs: 128 random bits, so that only its owner can
/// end it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionId(u128);

impl SessionId {
    /// From 128 bits of a cryptographic random source.
    pub const fn from_random(bits: u128) -> Self {
        Self(bits)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for SessionId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let canonical =
            text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if !canonical {
            return Err(());
        }
        u128::from_str_radix(text, 16).map(Self).map_err(|_| ())
    }
}

/// Which side of a table a session is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SessionKind {
    /// Watches.
    Viewer,
    /// Publishes.
    Publisher,
}

impl SessionKind {
    /// The value of the `kind` metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Publisher => "publisher",
        }
    }
}

/// A negotiated session on its way to a worker.
pub struct NewSession {
    /// Its name.
    pub id: SessionId,
    /// Its table.
    pub table: TableName,
    /// The credentials in our answer.
    pub credentials: IceCredentials,
    /// The user fragment of the peer; another one in a PATCH means an ICE restart.
    pub remote_ufrag: String,
    /// What its offer says of its DTLS.
    pub remote_dtls: RemoteDtls,
    /// When the offer came.
    pub created: Instant,
    /// What it does.
    pub role: NewRole,
}

impl NewSession {
    /// Ends a session that no worker took.
    pub(super) fn end(self, reason: &'static str) {
        if let NewRole::Publisher { publisher, .. } = self.role {
            publisher.end(end_reason(reason));
        }
    }
}

/// What a session's reason means for the stream it published.
pub(super) fn end_reason(reason: &str) -> EndReason {
    match reason {
        "shutdown" => EndReason::Shutdown,
        "replaced" => EndReason::Replaced,
        "consent_expired" | "ingest_timeout" | "connect_timeout" => EndReason::Timeout,
        _ => EndReason::Closed,
    }
}

/// What a new session does.
pub enum NewRole {
    /// Watches a stream.
    Viewer {
        /// The stream.
        stream: Arc<Stream>,
        /// Which of its tracks, and how.
        tracks: Vec<SendTrack>,
    },
    /// Publishes a stream.
    Publisher {
        /// The way into the hub.
        publisher: Publisher,
        /// What will come.
        tracks: Vec<ReceiveTrack>,
        /// The waker that the publisher was made with.
        owner: Arc<OwnerWaker>,
    },
}

impl NewRole {
    /// Viewer or publisher.
    pub const fn kind(&self) -> SessionKind {
        match self {
            Self::Viewer { .. } => SessionKind::Viewer,
            Self::Publisher { .. } => SessionKind::Publisher,
        }
    }
}

/// Wakes the worker that owns a publisher, once one does. Before that its
/// commands wait, and are looked at when it is claimed.
#[derive(Default)]
pub struct OwnerWaker {
    pub(super) mailbox: OnceLock<Arc<Mailbox>>,
}

impl Wake for OwnerWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if let Some(mailbox) = self.mailbox.get() {
            mailbox.wake_by_ref();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn session_ids_read_back_and_nothing_else_does() {
        let id = SessionId::from_random(0x0123_4567_89ab_cdef);
        assert_eq!(id.to_string().parse(), Ok(id));
        let long = "0".repeat(33);
        for bad in ["", "0", "+0000000000000000000000000000001", &long, &"G".repeat(32)] {
            assert_eq!(bad.parse::<SessionId>(), Err(()));
        }
    }
}
