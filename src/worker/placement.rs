//! Which worker owns a viewer: the one whose socket gets its first binding request,
//! unless that one has clearly more viewers than another. Sans-IO.
//!
//! The kernel spreads peers over the sockets by the hash of their addresses. That is
//! even on the average, never exactly, and it does not know who has left
//! (`docs/decisions/0012-placement-and-headroom.md` has the figures). Sending to a
//! viewer costs far more than receiving from it, so a viewer may be owned by another
//! worker than the one that receives from it, which passes its few datagrams on.

/// A worker hands a viewer over when it has more than this share above the least
/// loaded one's viewers, and [`SPARE_VIEWERS`] beyond that: passing datagrams on has
/// its cost too, and small differences even out by themselves.
const SPARE_SHARE: f64 = 0.12;
/// So that the first few viewers stay where they come in.
const SPARE_VIEWERS: f64 = 8.0;

/// What a worker can take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum WorkerState {
    /// More viewers.
    #[default]
    Fit,
    /// It has too much to do: viewers go to others while there are fit ones.
    Busy,
    /// Nothing: its thread has ended.
    Gone,
}

#[derive(Clone, Copy, Debug, Default)]
struct Place {
    viewers: usize,
    state: WorkerState,
}

/// How many viewers each worker owns.
#[derive(Debug)]
pub(super) struct Placement {
    workers: Vec<Place>,
}

impl Placement {
    pub(super) fn new(workers: usize) -> Self {
        Self { workers: vec![Place::default(); workers] }
    }

    /// Chooses the owner of a viewer that comes in at `receiving`, and counts it there.
    pub(super) fn place(&mut self, receiving: usize) -> usize {
        let owner = self.choose(receiving);
        if let Some(place) = self.workers.get_mut(owner) {
            place.viewers += 1;
        }
        owner
    }

    /// A viewer of `owner` has gone.
    pub(super) fn remove(&mut self, owner: usize) {
        if let Some(place) = self.workers.get_mut(owner) {
            place.viewers = place.viewers.saturating_sub(1);
        }
    }

    /// Notes what the workers can take, in their order.
    pub(super) fn set_states(&mut self, states: &[WorkerState]) {
        for (place, state) in self.workers.iter_mut().zip(states) {
            place.state = *state;
        }
    }

    /// Viewers of each worker.
    pub(super) fn viewers(&self) -> Vec<usize> {
        self.workers.iter().map(|place| place.viewers).collect()
    }

    fn choose(&self, receiving: usize) -> usize {
        let Some(here) = self.workers.get(receiving) else { return receiving };
        let fit = self.workers.iter().enumerate().filter(|(_, p)| p.state == WorkerState::Fit);
        let Some((least, there)) = fit.min_by_key(|(_, place)| place.viewers) else {
            // None is better than another.
            return receiving;
        };
        let bound = there.viewers as f64 * (1.0 + SPARE_SHARE) + SPARE_VIEWERS;
        let crowded = here.viewers as f64 > bound;
        if here.state != WorkerState::Fit || crowded { least } else { receiving }
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    /// Owner and receiver of viewers that come in at random, as by the kernel's hash.
    fn crowd(placement: &mut Placement, random: &mut StdRng, count: usize) -> Vec<[usize; 2]> {
        let workers = placement.workers.len();
        (0..count)
            .map(|_| random.random_range(0..workers))
            .map(|receiving| [placement.place(receiving), receiving])
            .collect()
    }

    fn leave(placement: &mut Placement, random: &mut StdRng, crowd: &mut Vec<[usize; 2]>) {
        let [owner, _] = crowd.swap_remove(random.random_range(0..crowd.len()));
        placement.remove(owner);
    }

    /// The busiest worker's viewers in relation to the mean.
    fn imbalance(placement: &Placement) -> f64 {
        let viewers = placement.viewers();
        let most = viewers.iter().copied().max().unwrap_or(0) as f64;
        most * viewers.len() as f64 / viewers.iter().sum::<usize>() as f64
    }

    #[test]
    fn viewers_are_spread_within_the_bound_and_few_are_handed_over() {
        for (seed, workers) in [(1, 2), (2, 4), (3, 8)] {
            let mut random = StdRng::seed_from_u64(seed);
            let mut placement = Placement::new(workers);
            let owners = crowd(&mut placement, &mut random, 1000);
            let handed_over = owners.iter().filter(|[owner, at]| owner != at).count();
            let worst = imbalance(&placement);
            assert!(worst < 1.12, "{workers} workers: {worst}");
            assert!(handed_over < 100, "{workers} workers: {handed_over}");
        }
    }

    #[test]
    fn the_spread_holds_while_viewers_come_and_go() {
        for (seed, workers) in [(1, 2), (2, 4), (3, 8)] {
            let mut random = StdRng::seed_from_u64(seed);
            let mut placement = Placement::new(workers);
            let mut owners = crowd(&mut placement, &mut random, 1000);
            for _ in 0..10_000 {
                leave(&mut placement, &mut random, &mut owners);
                owners.extend(crowd(&mut placement, &mut random, 1));
                assert!(imbalance(&placement) < 1.2, "{workers}: {placement:?}");
            }
        }
    }

    #[test]
    fn newcomers_fill_what_leaving_viewers_left_uneven() {
        let mut random = StdRng::seed_from_u64(4);
        let mut placement = Placement::new(4);
        let owners = crowd(&mut placement, &mut random, 1000);
        // Everybody on two of the workers leaves.
        owners.iter().filter(|[owner, _]| *owner < 2).for_each(|[owner, _]| {
            placement.remove(*owner);
        });
        assert!(imbalance(&placement) > 1.9);
        crowd(&mut placement, &mut random, 500);
        assert!(imbalance(&placement) < 1.12, "{placement:?}");
    }

    #[test]
    fn small_differences_hand_nobody_over() {
        let mut placement = Placement::new(2);
        for _ in 0..9 {
            assert_eq!(placement.place(0), 0);
        }
        assert_eq!(placement.place(0), 1, "8 more than none is the bound");
    }

    #[test]
    fn busy_workers_give_viewers_away_and_dead_ones_get_none() {
        let mut placement = Placement::new(3);
        placement.set_states(&[WorkerState::Busy, WorkerState::Gone, WorkerState::Fit]);
        assert_eq!(placement.place(0), 2);
        for _ in 0..50 {
            assert_eq!(placement.place(2), 2, "the others are no choice");
        }
        placement.set_states(&[WorkerState::Busy, WorkerState::Gone, WorkerState::Busy]);
        assert_eq!(placement.place(0), 0, "none is better");
        assert_eq!(placement.viewers(), [1, 0, 51]);
    }
}
