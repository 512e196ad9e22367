//! Two workers on two cores against one: packets per second of wall time.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use crate::engine::Engine;

/// The median of how many times as many packets two threads send as one, each with
/// its own viewers and socket.
pub(crate) fn scaling(viewers: usize, time: Duration, rounds: usize) -> f64 {
    let mut ratios: Vec<f64> = (0..rounds.max(1))
        .map(|_| throughput(2, viewers, time) / throughput(1, viewers, time))
        .collect();
    ratios.sort_by(f64::total_cmp);
    ratios[ratios.len() / 2]
}

fn throughput(threads: usize, viewers: usize, time: Duration) -> f64 {
    let start = Barrier::new(threads);
    std::thread::scope(|scope| {
        let run = || {
            let mut engine = Engine::new(viewers / threads, false);
            // Caches warm.
            engine.run(time / 4);
            start.wait();
            let begun = Instant::now();
            let packets = engine.run(time).packets;
            packets as f64 / begun.elapsed().as_secs_f64()
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
        workers.into_iter().map(|worker| worker.join().expect("a worker")).sum()
    })
}
