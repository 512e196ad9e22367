//! The controlling ICE agent of one viewer (RFC 8445 §7, RFC 7675), as small as one
//! socket, one component and a bundled session allow.
//!
//! Every candidate of the server is checked with USE-CANDIDATE; the first that answers
//! with proof is the path. Requests of a full agent on the other side are answered.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rtc::stun::attributes::{
    ATTR_ICE_CONTROLLING, ATTR_PRIORITY, ATTR_USE_CANDIDATE, ATTR_USERNAME, RawAttribute,
};
use rtc::stun::fingerprint::FINGERPRINT;
use rtc::stun::integrity::MessageIntegrity;
use rtc::stun::message::{
    BINDING_REQUEST, BINDING_SUCCESS, CLASS_REQUEST, CLASS_SUCCESS_RESPONSE, Message, TransactionId,
};
use rtc::stun::textattrs::TextAttribute;
use rtc::stun::xoraddr::XorMappedAddress;
use rtc_crypto::RTCCrypto;

/// First pause before a check is repeated; it doubles up to the last (RFC 8445 §14.3).
const REPEAT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(800));
/// Between consent checks, varied by a fifth (RFC 7675 §5.1).
const CONSENT_EVERY: Duration = Duration::from_secs(5);
/// Without an answer for so long, consent is gone.
const CONSENT_LASTS: Duration = Duration::from_secs(30);
/// Requests whose answers are awaited; older ones are forgotten.
const PENDING: usize = 16;
/// Longest STUN message looked at.
const MAX_LEN: usize = 548;
/// Priority of the candidate that a check may reveal (RFC 8445 §5.1.2, peer reflexive).
const PRIORITY: u32 = 110 << 24 | 65_535 << 8 | 255;

/// Names and passwords of both sides.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// Our user fragment.
    pub local_ufrag: String,
    /// Our password.
    pub local_pwd: String,
    /// The server's user fragment.
    pub remote_ufrag: String,
    /// The server's password.
    pub remote_pwd: String,
}

impl Credentials {
    /// A binding request that nominates its path (RFC 8445 §7.2.2).
    pub(super) fn request(
        &self,
        id: TransactionId,
        tie_breaker: u64,
        crypto: &dyn RTCCrypto,
    ) -> Option<Vec<u8>> {
        let raw = |typ, value: Vec<u8>| RawAttribute { typ, length: 0, value };
        let username = format!("{}:{}", self.remote_ufrag, self.local_ufrag);
        let mut message = Message::new();
        let built = message.build(&[
            Box::new(BINDING_REQUEST),
            Box::new(id),
            Box::new(TextAttribute::new(ATTR_USERNAME, username)),
            Box::new(raw(ATTR_PRIORITY, PRIORITY.to_be_bytes().to_vec())),
            Box::new(raw(ATTR_ICE_CONTROLLING, tie_breaker.to_be_bytes().to_vec())),
            Box::new(raw(ATTR_USE_CANDIDATE, Vec::new())),
            Box::new(MessageIntegrity::new_short_term_integrity_with_provider(
                self.remote_pwd.clone(),
                crypto,
            )),
            Box::new(FINGERPRINT),
        ]);
        built.ok().map(|()| message.raw)
    }
}

/// What a STUN message led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing for the caller.
    Nothing,
    /// The path is found: this is the server's address.
    Selected(SocketAddr),
}

struct Request {
    id: TransactionId,
    to: SocketAddr,
    sent: Instant,
}

/// The agent.
pub struct Agent {
    credentials: Credentials,
    candidates: Vec<SocketAddr>,
    selected: Option<SocketAddr>,
    pending: VecDeque<Request>,
    out: VecDeque<(SocketAddr, Vec<u8>)>,
    due: Instant,
    pause: Duration,
    confirmed: Instant,
    rtt: Option<Duration>,
    /// Varies the pauses and breaks ties.
    random: u64,
}

impl Agent {
    /// An agent that starts its checks at the next timeout.
    pub fn new(
        now: Instant,
        credentials: Credentials,
        candidates: Vec<SocketAddr>,
        random: u64,
    ) -> Self {
        Self {
            credentials,
            candidates,
            selected: None,
            pending: VecDeque::new(),
            out: VecDeque::new(),
            due: now,
            pause: REPEAT.0,
            confirmed: now,
            rtt: None,
            random: random | 1,
        }
    }

    /// The server's address, once found.
    pub fn selected(&self) -> Option<SocketAddr> {
        self.selected
    }

    /// Round trip of the last check that was answered.
    pub fn rtt(&self) -> Option<Duration> {
        self.rtt
    }

    /// Whether the server has not answered for the time that consent lasts.
    pub fn is_dead(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.confirmed) >= CONSENT_LASTS
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Instant {
        self.due
    }

    /// The next message and where it goes.
    pub fn poll_transmit(&mut self) -> Option<(SocketAddr, Vec<u8>)> {
        self.out.pop_front()
    }

    /// Sends the checks that are due.
    pub fn handle_timeout(&mut self, now: Instant, crypto: &dyn RTCCrypto) {
        if now < self.due {
            return;
        }
        if let Some(selected) = self.selected {
            self.check(now, selected, crypto);
            // A fifth more or less, so that viewers do not fall into step.
            self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let spread = CONSENT_EVERY * 2 / 5;
            let part = (self.random >> 40) as f64 / f64::from(1 << 24);
            self.due = now + CONSENT_EVERY - spread / 2 + spread.mul_f64(part);
        } else {
            for to in self.candidates.clone() {
                self.check(now, to, crypto);
            }
            self.due = now + self.pause;
            self.pause = (self.pause * 2).min(REPEAT.1);
        }
    }

    fn check(&mut self, now: Instant, to: SocketAddr, crypto: &dyn RTCCrypto) {
        let id = TransactionId::new();
        if let Some(request) = self.credentials.request(id, self.random, crypto) {
            if self.pending.len() >= PENDING {
                self.pending.pop_front();
            }
            self.pending.push_back(Request { id, to, sent: now });
            self.out.push_back((to, request));
        }
    }

    /// Takes a STUN message; what proves nothing is ignored.
    pub fn handle(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &[u8],
        crypto: &dyn RTCCrypto,
    ) -> Outcome {
        if datagram.len() > MAX_LEN {
            return Outcome::Nothing;
        }
        let mut message = Message { raw: datagram.to_vec(), ..Message::default() };
        if message.decode().is_err() {
            return Outcome::Nothing;
        }
        match message.typ.class {
            CLASS_SUCCESS_RESPONSE => self.answered(now, message, crypto),
            CLASS_REQUEST => {
                self.answer(from, message, crypto);
                Outcome::Nothing
            }
            _ => Outcome::Nothing,
        }
    }

    fn answered(&mut self, now: Instant, mut message: Message, crypto: &dyn RTCCrypto) -> Outcome {
        let Some(at) = self.pending.iter().position(|r| r.id == message.transaction_id) else {
            return Outcome::Nothing;
        };
        let pwd = self.credentials.remote_pwd.as_bytes();
        if MessageIntegrity::check(&mut message, pwd, crypto).is_err() {
            return Outcome::Nothing;
        }
        let Some(request) = self.pending.remove(at) else { return Outcome::Nothing };
        self.rtt = Some(now.saturating_duration_since(request.sent));
        self.confirmed = now;
        if self.selected.is_some() {
            return Outcome::Nothing;
        }
        self.selected = Some(request.to);
        self.pending.clear();
        self.due = now + CONSENT_EVERY;
        Outcome::Selected(request.to)
    }

    fn answer(&mut self, from: SocketAddr, mut message: Message, crypto: &dyn RTCCrypto) {
        let pwd = self.credentials.local_pwd.clone();
        if MessageIntegrity::check(&mut message, pwd.as_bytes(), crypto).is_err() {
            return;
        }
        let mut reply = Message::new();
        let built = reply.build(&[
            // Copies the transaction id.
            Box::new(message),
            Box::new(BINDING_SUCCESS),
            Box::new(XorMappedAddress { ip: from.ip(), port: from.port() }),
            Box::new(MessageIntegrity::new_short_term_integrity_with_provider(pwd, crypto)),
            Box::new(FINGERPRINT),
        ]);
        if built.is_ok() {
            self.out.push_back((from, reply.raw));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rtc_crypto::RTCCryptoProvider as _;
    use rtc_crypto::providers::AwsLcRsProvider;

    fn credentials(local: &str, remote: &str) -> Credentials {
        let pwd = |name: &str| format!("{name}-password-password");
        Credentials {
            local_ufrag: local.to_owned(),
            local_pwd: pwd(local),
            remote_ufrag: remote.to_owned(),
            remote_pwd: pwd(remote),
        }
    }

    fn address(port: u16) -> SocketAddr {
        ([127, 0, 0, 1], port).into()
    }

    #[test]
    fn the_first_candidate_that_answers_is_the_path_and_is_asked_again_for_consent() {
        let (provider, now) = (AwsLcRsProvider::default(), Instant::now());
        let crypto = provider.crypto();
        let candidates = vec![address(1), address(2)];
        let mut viewer = Agent::new(now, credentials("v", "s"), candidates, 7);
        let mut server = Agent::new(now, credentials("s", "v"), vec![], 9);
        viewer.handle_timeout(now, crypto);
        let (first, second) = (viewer.poll_transmit().unwrap(), viewer.poll_transmit().unwrap());
        assert_eq!((first.0, second.0), (address(1), address(2)));
        assert_eq!(server.handle(now, address(9), &second.1, crypto), Outcome::Nothing);
        let (to, reply) = server.poll_transmit().expect("a proven request is answered");
        assert_eq!(to, address(9));
        let later = now + Duration::from_millis(30);
        let outcome = viewer.handle(later, address(2), &reply, crypto);
        assert_eq!(outcome, Outcome::Selected(address(2)));
        assert_eq!(viewer.rtt(), Some(Duration::from_millis(30)));
        let due = viewer.poll_timeout();
        viewer.handle_timeout(due, crypto);
        assert_eq!(viewer.poll_transmit().unwrap().0, address(2));
        let next = viewer.poll_timeout() - due;
        assert!((Duration::from_secs(4)..=Duration::from_secs(6)).contains(&next), "{next:?}");
        assert!(!viewer.is_dead(later + Duration::from_secs(29)));
        assert!(viewer.is_dead(later + Duration::from_secs(30)));
    }

    #[test]
    fn what_proves_nothing_changes_nothing() {
        let (provider, now) = (AwsLcRsProvider::default(), Instant::now());
        let crypto = provider.crypto();
        let mut viewer = Agent::new(now, credentials("v", "s"), vec![address(1)], 7);
        let mut stranger = Agent::new(now, credentials("s", "x"), vec![address(1)], 9);
        viewer.handle_timeout(now, crypto);
        let (_, request) = viewer.poll_transmit().unwrap();
        stranger.credentials.local_pwd = "wrong".to_owned();
        stranger.handle(now, address(9), &request, crypto);
        assert!(stranger.poll_transmit().is_none(), "a request with another password");
        for len in 0..request.len() {
            viewer.handle(now, address(1), &request[..len], crypto);
        }
        assert!(viewer.selected().is_none() && viewer.poll_transmit().is_none());
    }

    #[test]
    fn silence_is_asked_again_ever_more_slowly() {
        let (provider, mut now) = (AwsLcRsProvider::default(), Instant::now());
        let mut viewer = Agent::new(now, credentials("v", "s"), vec![address(1)], 7);
        let mut pauses = Vec::new();
        for _ in 0..5 {
            viewer.handle_timeout(now, provider.crypto());
            pauses.push((viewer.poll_timeout() - now).as_millis());
            now = viewer.poll_timeout();
        }
        assert_eq!(pauses, [100, 200, 400, 800, 800]);
    }
}
