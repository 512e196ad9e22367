//! Joining: the WHEP exchange of each viewer, paced and bounded.
//!
//! A viewer's times count from the moment it was due to join, not from when its turn
//! came: a server that is slow to answer is not helped by a crowd that waits for it.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::Client;

use super::answer::{Answer, AnswerError};
use super::offer::Offer;
use super::secure::Identity;
use super::viewer::{Estimate, Setup};
use super::worker::Joined;
use crate::impair::Impairment;
use crate::peer::PeerError;
use crate::whip::{self, Session, SignalError};

/// Pause before a refused join is tried again, when the server does not say.
const RETRY: Duration = Duration::from_secs(1);
/// Longest pause taken over from a server.
const RETRY_MAX: Duration = Duration::from_secs(10);

/// Why a viewer could not join.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The server's address, or the exchange.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// An answer that cannot be used.
    #[error(transparent)]
    Answer(#[from] AnswerError),
    /// No address to send media to.
    #[error("the answer has no UDP candidate of our address family")]
    NoCandidate,
    /// No socket.
    #[error("no socket: {0}")]
    Socket(#[from] std::io::Error),
}

impl From<SignalError> for JoinError {
    fn from(error: SignalError) -> Self {
        Self::Peer(error.into())
    }
}

/// What all joins of a run have in common.
pub struct Joiner {
    /// HTTP client with its pool of connections.
    pub client: Client,
    /// Certificate and cryptography.
    pub identity: Arc<Identity>,
    /// Bearer token.
    pub token: Option<String>,
    /// Local address towards each URL.
    pub endpoints: Vec<(String, IpAddr)>,
    /// Whether to ask for sound.
    pub audio: bool,
    /// What viewers say they can take.
    pub estimate: Estimate,
    /// How long a refusal that can pass is tried again.
    pub patience: Duration,
    /// Seed of what is random in a viewer.
    pub seed: u64,
    /// Where media goes instead of to the server's candidates.
    pub via: Option<SocketAddr>,
}

/// One viewer to be.
#[derive(Clone, Copy, Debug)]
pub struct Seat {
    /// Its number.
    pub index: usize,
    /// Its group.
    pub group: usize,
    /// Whether it opens every packet.
    pub verify: bool,
    /// When it is due to join.
    pub due: Instant,
    /// Its last mile.
    pub impairment: Impairment,
}

impl Joiner {
    /// Joins as the viewer of `seat`; returns it and its session.
    ///
    /// # Errors
    /// [`JoinError`], for a refusal that can pass only after the time for that.
    pub async fn join(&self, seat: Seat) -> Result<(Joined, Session), JoinError> {
        let (url, local) = &self.endpoints[seat.index % self.endpoints.len()];
        let socket = UdpSocket::bind(SocketAddr::new(*local, 0))?;
        let random: [u64; 4] = std::array::from_fn(|_| rand::random());
        let (ufrag, pwd) =
            (format!("{:08x}", random[0] as u32), format!("{:016x}{:016x}", random[1], random[2]));
        let offer = Offer {
            ufrag: &ufrag,
            pwd: &pwd,
            fingerprint: self.identity.fingerprint(),
            local: socket.local_addr()?,
            id: random[3],
            audio: self.audio,
        };
        let (session, answer) = self.negotiate(url, &offer.text(), seat.due).await?;
        let answer = match self.via {
            Some(via) => whip::through(&answer, via),
            None => answer,
        };
        let answer = match usable(&answer, local.is_ipv4()) {
            Ok(answer) => answer,
            Err(error) => {
                session.delete().await;
                return Err(error);
            }
        };
        let setup = Setup {
            index: seat.index,
            group: seat.group,
            verify: seat.verify,
            estimate: self.estimate,
            delay: seat.impairment.delay + seat.impairment.jitter,
            due: seat.due,
            ufrag,
            pwd,
            answer,
            ssrc: rand::random(),
        };
        let seed = self.seed.wrapping_add(seat.index as u64);
        let impairment = seat.impairment.is_any().then_some((seat.impairment, seed));
        Ok((Joined { setup, socket, impairment }, session))
    }

    /// Posts the offer, again when the server says so (`Retry-After`).
    async fn negotiate(
        &self,
        url: &str,
        offer: &str,
        due: Instant,
    ) -> Result<(Session, String), JoinError> {
        let token = self.token.as_deref();
        loop {
            let error = match whip::negotiate_with(&self.client, url, token, offer.to_owned()).await
            {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            let SignalError::Refused { retry_after, .. } = &error else { return Err(error.into()) };
            let pause = retry_after.map_or(RETRY, Duration::from_secs).min(RETRY_MAX);
            if !error.is_temporary() || due.elapsed() + pause > self.patience {
                return Err(error.into());
            }
            tokio::time::sleep(pause).await;
        }
    }
}

/// Reads an answer, and keeps of its candidates those that our socket can reach.
fn usable(sdp: &str, ipv4: bool) -> Result<Answer, JoinError> {
    let mut answer = Answer::parse(sdp)?;
    answer.candidates.retain(|address| address.is_ipv4() == ipv4);
    if answer.candidates.is_empty() {
        return Err(JoinError::NoCandidate);
    }
    Ok(answer)
}
