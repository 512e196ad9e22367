//! The thread of an attack: all sources of one kind.

use std::io;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::source::Source;
use super::{Kind, Tally};
use crate::crowd::secure::Identity;
use crate::crowd::viewer::{Setup, Viewer};

/// Between two looks at the sources: their packets go out in bursts of that time.
const TICK: Duration = Duration::from_millis(1);

/// What the thread is told and tells.
#[derive(Default)]
struct Orders {
    attack: AtomicBool,
    stop: AtomicBool,
    /// Sources that are ready, and sources that are over.
    ready: AtomicUsize,
    over: AtomicUsize,
}

/// What a thread did.
pub(super) struct Done {
    /// During the attack, of all sources.
    pub(super) tally: Tally,
    /// Sources that were over before its end.
    pub(super) ended: usize,
}

/// The handle of the thread.
pub(super) struct Engine {
    orders: Arc<Orders>,
    thread: JoinHandle<Done>,
    sources: usize,
}

impl Engine {
    /// Starts a thread whose sources connect.
    pub(super) fn start(
        kind: Kind,
        joined: Vec<(Setup, UdpSocket)>,
        identity: &Arc<Identity>,
        (rate, hop_every, seed): (f64, Duration, u64),
    ) -> io::Result<Self> {
        let mut sources = Vec::new();
        for (setup, socket) in joined {
            let viewer = Viewer::new(Instant::now(), Arc::clone(identity), setup);
            sources.push(Source::new(kind, viewer, socket, seed + sources.len() as u64)?);
        }
        let (orders, count) = (Arc::new(Orders::default()), sources.len());
        let shared = Arc::clone(&orders);
        let run = move || run(&shared, sources, rate, hop_every);
        let thread = std::thread::Builder::new().name(format!("hostile-{kind}")).spawn(run)?;
        Ok(Self { orders, thread, sources: count })
    }

    /// Waits until all sources are connected, for `limit` at most; how many are.
    pub(super) async fn ready(&self, limit: Duration) -> usize {
        let deadline = Instant::now() + limit;
        loop {
            let (ready, over) = (self.orders.ready.load(Relaxed), self.orders.over.load(Relaxed));
            if ready + over >= self.sources || Instant::now() >= deadline {
                return ready;
            }
            tokio::time::sleep(TICK * 10).await;
        }
    }

    /// Begins the attack.
    pub(super) fn attack(&self) {
        self.orders.attack.store(true, Relaxed);
    }

    /// Ends the attack and the sessions.
    pub(super) async fn finish(self) -> io::Result<Done> {
        self.orders.stop.store(true, Relaxed);
        let joined = tokio::task::spawn_blocking(|| self.thread.join()).await;
        joined
            .ok()
            .and_then(Result::ok)
            .ok_or_else(|| io::Error::other("a hostile thread panicked"))
    }
}

fn run(orders: &Orders, mut sources: Vec<Source>, rate: f64, hop_every: Duration) -> Done {
    let mut attacked = false;
    while !orders.stop.load(Relaxed) {
        let attack = orders.attack.load(Relaxed);
        if attack && !std::mem::replace(&mut attacked, true) {
            sources.iter_mut().for_each(|source| source.tally = Tally::default());
        }
        for source in &mut sources {
            source.run();
            if attack {
                source.attack(Instant::now(), rate, hop_every);
            }
        }
        orders.ready.store(sources.iter().filter(|source| source.is_ready()).count(), Relaxed);
        orders.over.store(sources.iter().filter(|source| source.is_over()).count(), Relaxed);
        std::thread::sleep(TICK);
    }
    let mut done = Done { tally: Tally::default(), ended: 0 };
    for source in &mut sources {
        done.tally.add(&source.tally);
        done.ended += usize::from(source.is_over());
        source.close();
    }
    done
}
