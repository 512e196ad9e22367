//! A bad last mile as a sans-IO machine: datagrams go in, and come out later, in
//! another order, or not at all. One seed and one order of calls give one outcome.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde::Serialize;

/// Datagrams on their way at once; of more, the newest are dropped and counted as
/// overflow, like by a router.
const IN_FLIGHT: usize = 4096;
/// How long a datagram may wait for its turn under a rate limit; what would wait
/// longer is dropped and counted as overflow: a router's queue of 300 ms.
const QUEUE: Duration = Duration::from_millis(300);
/// How far a reordered datagram falls behind.
const BEHIND: Duration = Duration::from_millis(10);

/// What the last mile does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Impairment {
    /// Share of datagrams lost, 0 to 1.
    pub loss: f64,
    /// Share of datagrams that fall behind those after them, 0 to 1.
    pub reorder: f64,
    /// Delay of each datagram.
    #[serde(skip)]
    pub delay: Duration,
    /// Further delay, evenly spread from nothing to this.
    #[serde(skip)]
    pub jitter: Duration,
    /// Bits a second that pass; `None` without a limit.
    pub rate: Option<u64>,
}

impl Impairment {
    /// Whether it does anything at all.
    pub fn is_any(&self) -> bool {
        *self != Self::default()
    }
}

/// What happened to the datagrams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Went in.
    pub taken: u64,
    /// Lost by chance.
    pub lost: u64,
    /// Dropped because the queue was full.
    pub overflow: u64,
    /// Fell behind others.
    pub reordered: u64,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.taken += other.taken;
        self.lost += other.lost;
        self.overflow += other.overflow;
        self.reordered += other.reordered;
    }
}

/// One direction of a last mile; `T` is whatever travels with the bytes.
pub struct Link<T> {
    impairment: Impairment,
    random: StdRng,
    queue: BinaryHeap<Reverse<Entry<T>>>,
    count: u64,
    /// When the limited line is free again.
    free: Option<Instant>,
    /// Datagrams without jitter keep their order: none is due before the one before it.
    last: Option<Instant>,
    tally: Tally,
}

struct Entry<T> {
    due: Instant,
    order: u64,
    datagram: Vec<u8>,
    with: T,
}

impl<T> Entry<T> {
    fn key(&self) -> (Instant, u64) {
        (self.due, self.order)
    }
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}
impl<T> Eq for Entry<T> {}
impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

impl<T> Link<T> {
    /// A link whose chances follow from `seed`.
    pub fn new(impairment: Impairment, seed: u64) -> Self {
        Self {
            impairment,
            random: StdRng::seed_from_u64(seed),
            queue: BinaryHeap::new(),
            count: 0,
            free: None,
            last: None,
            tally: Tally::default(),
        }
    }

    /// Changes the line from now on; what is on its way already arrives as it would have.
    pub fn change(&mut self, impairment: Impairment) {
        self.impairment = impairment;
    }

    /// Takes a datagram.
    pub fn handle(&mut self, now: Instant, datagram: &[u8], with: T) {
        self.tally.taken += 1;
        let Impairment { loss, reorder, delay, jitter, rate } = self.impairment;
        // Each chance is drawn for each datagram, so that one setting does not change
        // the course of another.
        let lost = self.random.random_bool(loss.clamp(0.0, 1.0));
        let behind = self.random.random_bool(reorder.clamp(0.0, 1.0));
        let further = jitter.mul_f64(self.random.random_range(0.0..1.0));
        if lost {
            self.tally.lost += 1;
            return;
        }
        let mut due = now;
        if let Some(rate) = rate.filter(|&rate| rate > 0) {
            let start = self.free.map_or(now, |free| free.max(now));
            if start - now > QUEUE {
                self.tally.overflow += 1;
                return;
            }
            due = start + Duration::from_secs_f64(datagram.len() as f64 * 8.0 / rate as f64);
            self.free = Some(due);
        }
        if self.queue.len() >= IN_FLIGHT {
            self.tally.overflow += 1;
            return;
        }
        due += delay + further;
        if behind {
            self.tally.reordered += 1;
            due += BEHIND.max(jitter);
        } else {
            // Jitter stretches and squeezes; only `reorder` overtakes.
            due = self.last.map_or(due, |last| last.max(due));
            self.last = Some(due);
        }
        self.count += 1;
        let entry = Entry { due, order: self.count, datagram: datagram.to_vec(), with };
        self.queue.push(Reverse(entry));
    }

    /// The next datagram that has arrived.
    pub fn poll(&mut self, now: Instant) -> Option<(Vec<u8>, T)> {
        let Reverse(first) = self.queue.peek()?;
        if first.due > now {
            return None;
        }
        self.queue.pop().map(|Reverse(entry)| (entry.datagram, entry.with))
    }

    /// When the next datagram arrives.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.queue.peek().map(|Reverse(entry)| entry.due)
    }

    /// What happened so far.
    pub fn tally(&self) -> Tally {
        self.tally
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Sends `count` datagrams, one a millisecond; returns what came, and when.
    fn run(impairment: Impairment, seed: u64, count: u64) -> (Vec<(u64, u128)>, Tally) {
        let (mut link, start) = (Link::new(impairment, seed), Instant::now());
        let mut came = Vec::new();
        for tick in 0..count + 2000 {
            let now = start + MS * tick as u32;
            if tick < count {
                link.handle(now, &[0; 125], tick);
            }
            while let Some((_, number)) = link.poll(now) {
                came.push((number, (now - start).as_millis()));
            }
        }
        (came, link.tally())
    }

    #[test]
    fn one_seed_gives_one_course() {
        let impairment = Impairment {
            loss: 0.1,
            reorder: 0.05,
            delay: 30 * MS,
            jitter: 10 * MS,
            rate: Some(2_000_000),
        };
        let (came, tally) = run(impairment, 7, 1000);
        assert_eq!((came.clone(), tally), run(impairment, 7, 1000));
        assert_ne!(came, run(impairment, 8, 1000).0);
        assert!(
            (60..140).contains(&tally.lost) && (20..80).contains(&tally.reordered),
            "{tally:?}"
        );
        assert_eq!(came.len() as u64 + tally.lost, 1000);
        assert!(!came.is_sorted_by_key(|(number, _)| *number));
        assert!(came.iter().all(|&(number, at)| at >= u128::from(number) + 30));
    }

    #[test]
    fn delay_and_jitter_keep_the_order() {
        let impairment = Impairment { delay: 20 * MS, jitter: 15 * MS, ..Impairment::default() };
        let (came, tally) = run(impairment, 1, 500);
        assert!(came.len() == 500 && came.is_sorted() && tally.lost == 0);
        let late = came.iter().map(|&(number, at)| at - u128::from(number));
        assert!(late.clone().max().unwrap() <= 37 && late.max().unwrap() > 30);
    }

    #[test]
    fn a_rate_limit_spreads_and_its_queue_is_bounded() {
        // A datagram of 1000 bits each millisecond is 1 Mbit/s.
        let half = Impairment { rate: Some(500_000), ..Impairment::default() };
        let (came, tally) = run(half, 1, 2000);
        assert!((800..1000).contains(&tally.overflow), "{tally:?}");
        let waits = came.iter().map(|&(number, at)| at - u128::from(number));
        assert!(waits.max().unwrap() <= QUEUE.as_millis() + 4);
        let ample = Impairment { rate: Some(2_000_000), ..Impairment::default() };
        assert_eq!(run(ample, 1, 500).1.overflow, 0);
    }

    #[test]
    fn a_line_that_narrows_and_widens_keeps_what_is_on_its_way() {
        let at = |rate| Impairment { rate: Some(rate), ..Impairment::default() };
        let (mut link, start) = (Link::new(at(10_000_000), 1), Instant::now());
        let mut came = Vec::new();
        for tick in 0..3000u32 {
            let now = start + MS * tick;
            match tick {
                1000 => link.change(at(500_000)),
                2000 => link.change(at(10_000_000)),
                _ => {}
            }
            link.handle(now, &[0; 125], tick);
            came.extend(std::iter::from_fn(|| link.poll(now)).map(|(_, number)| (number, tick)));
        }
        assert!(came.is_sorted(), "a wider line overtakes nothing");
        let late = |ticks: std::ops::Range<u32>| {
            came.iter().filter(|(_, at)| ticks.contains(at)).map(|(n, at)| at - n).max().unwrap()
        };
        assert!(
            late(0..1000) <= 1 && (280..320).contains(&late(1500..2000)) && late(2600..3000) <= 1
        );
    }

    #[test]
    fn nothing_happens_without_a_setting() {
        assert!(!Impairment::default().is_any());
        let (came, tally) = run(Impairment::default(), 1, 100);
        assert!(came.iter().all(|&(number, at)| u128::from(number) == at));
        assert_eq!(tally, Tally { taken: 100, ..Tally::default() });
    }
}
