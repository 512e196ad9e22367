//! The media path end to end, as in production but for sockets and threads: an
//! independent WebRTC stack publishes and watches over a seeded network, and the
//! clock is virtual, so that every run takes the same decisions and none waits.

mod client;
mod codecs;
mod delivery;
mod gateway;
mod hostile;
mod layers;
mod lifecycle;
mod link;
mod media;
mod placement;
mod rtcp_tap;
mod simulcast;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use self::client::{Client, Options};
use self::gateway::{Gateway, media_address};
use self::link::{Link, Random, Way};
use crate::hub::TableName;

/// Events are worked off in steps of this, so that no machine can spin.
const STEP: Duration = Duration::from_millis(1);
/// Turns that a core may want in a row without time passing.
const MAX_TURNS: usize = 200;

/// Sees each datagram on its way to the gateway, and may add others after it.
type Tap = Box<dyn FnMut(&mut Random, &[u8]) -> Vec<Vec<u8>>>;

/// The gateway, its peers and the network between them.
struct World {
    now: Instant,
    gateway: Gateway,
    link: Link,
    clients: Vec<Client>,
    tap: Option<Tap>,
    /// What the gateway sent, as it left, when it is to be kept.
    sent: Option<Vec<(SocketAddr, Vec<u8>)>>,
    random: Random,
    /// The worker whose socket the kernel gives everything to.
    receiving: usize,
}

impl World {
    fn new(seed: u64, up: Way, down: Way) -> Self {
        Self::with_workers(1, seed, up, down)
    }

    fn with_workers(workers: usize, seed: u64, up: Way, down: Way) -> Self {
        let start = Instant::now();
        Self {
            now: start,
            gateway: Gateway::new(workers, start),
            link: Link::new(seed, up, down),
            clients: Vec::new(),
            tap: None,
            sent: None,
            random: Random::new(!seed),
            receiving: 0,
        }
    }

    /// A world with 20 ms each way and nothing lost.
    fn calm() -> Self {
        let way = Way { delay: Duration::from_millis(20), ..Way::default() };
        Self::new(1, way, way)
    }

    fn next_address(&self) -> SocketAddr {
        format!("198.51.100.{}:{}", 1 + self.clients.len(), 40_000 + self.clients.len())
            .parse()
            .unwrap()
    }

    fn publish(&mut self, options: &Options) -> usize {
        let seed = self.clients.len() as u64 + 7;
        let mut client = Client::publisher(self.now, self.next_address(), options, seed);
        let offer = client.offer(self.now);
        let created = self.gateway.publish(self.now, &table(), &offer).unwrap();
        client.accept(self.now, created);
        self.clients.push(client);
        self.clients.len() - 1
    }

    fn watch(&mut self, options: &Options) -> usize {
        let seed = self.clients.len() as u64 + 7;
        let mut client = Client::viewer(self.now, self.next_address(), options, seed);
        let offer = client.offer(self.now);
        let created = self.gateway.watch(self.now, &table(), &offer).expect("the table is live");
        client.accept(self.now, created);
        self.clients.push(client);
        self.clients.len() - 1
    }

    fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.flush();
            let next = self.next_event().map_or(end, |at| at.max(self.now + STEP).min(end));
            self.now = next;
            self.deliver();
            for client in &mut self.clients {
                client.handle_timeout(self.now);
            }
            self.turn();
        }
        self.flush();
    }

    /// Runs until `done`, and panics after `bound`.
    fn run_until(&mut self, bound: Duration, what: &str, done: impl Fn(&Self) -> bool) {
        let end = self.now + bound;
        while !done(self) {
            assert!(self.now < end, "not within {bound:?}: {what}");
            self.run_for(Duration::from_millis(5));
        }
    }

    fn run_until_connected(&mut self, client: usize) {
        self.run_until(Duration::from_secs(5), "connected", |world| {
            world.clients[client].connected_at.is_some()
        });
    }

    fn next_event(&mut self) -> Option<Instant> {
        let now = self.now;
        let clients = self.clients.iter_mut().filter_map(|client| client.next_timeout(now)).min();
        let cores = self.gateway.cores.iter().map(|core| now + core.wait(now)).min();
        [self.link.next_arrival(), clients, cores].into_iter().flatten().min()
    }

    fn flush(&mut self) {
        for client in &mut self.clients {
            for datagram in client.transmit(self.now) {
                let way = self.link.up;
                self.link.send(self.now, client.public, media_address(), &datagram, way);
            }
        }
        for core in &mut self.gateway.cores {
            for (to, datagram) in core.sink.0.drain(..) {
                if let Some(sent) = &mut self.sent {
                    sent.push((to, datagram.clone()));
                }
                let way = self.link.down;
                self.link.send(self.now, media_address(), to, &datagram, way);
            }
        }
    }

    fn deliver(&mut self) {
        while let Some(mut datagram) = self.link.receive(self.now) {
            if datagram.to != media_address() {
                let client = self.clients.iter_mut().find(|client| client.public == datagram.to);
                if let Some(client) = client {
                    client.handle_datagram(self.now, datagram.from, &datagram.bytes);
                    // Its handshake is carried on when it is polled.
                    client.poll(self.now);
                }
                continue;
            }
            let forged = self.tap.as_mut().map(|tap| tap(&mut self.random, &datagram.bytes));
            let core = &mut self.gateway.cores[self.receiving];
            for mut forged in forged.unwrap_or_default() {
                core.handle_datagram(self.now, datagram.from.into(), &mut forged, true);
            }
            core.handle_datagram(self.now, datagram.from.into(), &mut datagram.bytes, true);
        }
    }

    fn turn(&mut self) {
        let mut turns = 0;
        loop {
            for core in &mut self.gateway.cores {
                core.turn(self.now);
            }
            if self.gateway.cores.iter().all(|core| !core.wait(self.now).is_zero()) {
                return;
            }
            turns += 1;
            assert!(turns < MAX_TURNS, "a worker spins");
        }
    }
}

fn table() -> TableName {
    "roulette".parse().unwrap()
}

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
