//! The network between the gateway and its peers: loses, delays, reorders and
//! doubles datagrams by a seeded random source, on virtual time.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// SplitMix64: the same numbers from the same seed, everywhere and always.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    /// True in `permille` of 1000 cases.
    pub(super) fn chance(&mut self, permille: u32) -> bool {
        self.next() % 1000 < u64::from(permille)
    }

    pub(super) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}

/// What one direction does to datagrams; rates in thousandths.
#[derive(Clone, Copy, Default)]
pub(super) struct Way {
    pub(super) loss: u32,
    pub(super) duplicate: u32,
    pub(super) delay: Duration,
    /// Added evenly at random: datagrams overtake each other.
    pub(super) jitter: Duration,
}

/// A datagram on its way.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Datagram {
    pub(super) at: Instant,
    /// Of two that arrive together the one sent first is first.
    order: u64,
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) bytes: Vec<u8>,
}

/// A last mile: a queue that is emptied at a rate, and drops what does not fit.
struct Narrow {
    bps: u64,
    /// When what is in the queue has left it.
    free_at: Option<Instant>,
}

/// What the queue of a narrow last mile holds.
const NARROW_QUEUE: Duration = Duration::from_millis(300);

impl Narrow {
    /// How long a datagram waits; `None`: there is no room for it.
    fn wait(&mut self, now: Instant, bytes: usize) -> Option<Duration> {
        let begin = self.free_at.map_or(now, |at| at.max(now));
        if begin - now > NARROW_QUEUE {
            return None;
        }
        // IPv4 and UDP headers count too.
        let bits = (bytes as u64 + 28) * 8;
        let end = begin + Duration::from_micros(bits * 1_000_000 / self.bps);
        self.free_at = Some(end);
        Some(end - now)
    }
}

pub(super) struct Link {
    random: Random,
    /// Towards the gateway.
    pub(super) up: Way,
    /// From the gateway.
    pub(super) down: Way,
    narrow: HashMap<SocketAddr, Narrow>,
    queue: BinaryHeap<Reverse<Datagram>>,
    sent: u64,
    pub(super) lost: u64,
}

impl Link {
    pub(super) fn new(seed: u64, up: Way, down: Way) -> Self {
        Self {
            random: Random::new(seed),
            up,
            down,
            narrow: HashMap::new(),
            queue: BinaryHeap::new(),
            sent: 0,
            lost: 0,
        }
    }

    /// Lets at most `bps` bits a second through to `to` from now on.
    pub(super) fn narrow(&mut self, to: SocketAddr, bps: u64) {
        self.narrow.insert(to, Narrow { bps, free_at: None });
    }

    pub(super) fn send(
        &mut self,
        now: Instant,
        from: SocketAddr,
        to: SocketAddr,
        bytes: &[u8],
        way: Way,
    ) {
        if self.random.chance(way.loss) {
            self.lost += 1;
            return;
        }
        let Some(wait) = self
            .narrow
            .get_mut(&to)
            .map_or(Some(Duration::ZERO), |narrow| narrow.wait(now, bytes.len()))
        else {
            self.lost += 1;
            return;
        };
        let copies = 1 + usize::from(self.random.chance(way.duplicate));
        for _ in 0..copies {
            let jitter = self.random.below(way.jitter.as_micros() as usize + 1) as u64;
            let at = now + wait + way.delay + Duration::from_micros(jitter);
            self.sent += 1;
            let datagram = Datagram { at, order: self.sent, from, to, bytes: bytes.to_vec() };
            self.queue.push(Reverse(datagram));
        }
    }

    /// When the next datagram arrives.
    pub(super) fn next_arrival(&self) -> Option<Instant> {
        self.queue.peek().map(|Reverse(datagram)| datagram.at)
    }

    /// The next datagram that has arrived by `now`.
    pub(super) fn receive(&mut self, now: Instant) -> Option<Datagram> {
        if self.next_arrival()? > now {
            return None;
        }
        self.queue.pop().map(|Reverse(datagram)| datagram)
    }
}
