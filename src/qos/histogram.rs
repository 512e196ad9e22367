//! A histogram that is counted into without a lock and read at scrape time. For series
//! that end with a table: those of [`super::Metrics`] live as long as the process.

use std::sync::atomic::{AtomicU64, Ordering};

/// `N` upper bounds that rise, and what is above the last of them.
#[derive(Debug)]
pub struct Histogram<const N: usize> {
    bounds: &'static [f64; N],
    buckets: [AtomicU64; N],
    above: AtomicU64,
    /// In millionths, as integers can be added to without a loop.
    sum: AtomicU64,
}

/// What a [`Histogram`] held when it was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Observed {
    /// Upper bounds, and how many observations are up to each and above the one before.
    pub buckets: Vec<(f64, u64)>,
    /// Observations above all bounds.
    pub above: u64,
    /// Sum of all observations.
    pub sum: f64,
}

impl<const N: usize> Histogram<N> {
    /// An empty one.
    pub fn new(bounds: &'static [f64; N]) -> Self {
        let buckets = std::array::from_fn(|_| AtomicU64::new(0));
        Self { bounds, buckets, above: AtomicU64::new(0), sum: AtomicU64::new(0) }
    }

    /// Counts an observation; below zero it counts as zero.
    pub fn observe(&self, value: f64) {
        let fits = self.bounds.iter().position(|bound| value <= *bound);
        let bucket = fits.and_then(|at| self.buckets.get(at)).unwrap_or(&self.above);
        bucket.fetch_add(1, Ordering::Relaxed);
        // The conversion saturates.
        self.sum.fetch_add((value * 1e6) as u64, Ordering::Relaxed);
    }

    /// What it holds now.
    pub fn read(&self) -> Observed {
        let counts = self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed));
        Observed {
            buckets: self.bounds.iter().copied().zip(counts).collect(),
            above: self.above.load(Ordering::Relaxed),
            sum: self.sum.load(Ordering::Relaxed) as f64 / 1e6,
        }
    }
}

impl Observed {
    /// Adds another reading of a histogram with the same bounds.
    pub(super) fn add(&mut self, other: &Self) {
        for ((_, count), (_, more)) in self.buckets.iter_mut().zip(&other.buckets) {
            *count += more;
        }
        self.above += other.above;
        self.sum += other.sum;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn observations_fall_into_the_first_bucket_that_holds_them() {
        let histogram = Histogram::new(&[0.5, 1.0, 2.0]);
        for value in [0.0, 0.5, 0.75, 2.0, 2.5, 100.0] {
            histogram.observe(value);
        }
        let read = histogram.read();
        assert_eq!(read.buckets, [(0.5, 2), (1.0, 1), (2.0, 1)]);
        assert_eq!((read.above, read.sum), (2, 105.75));
        histogram.observe(-1.0);
        assert_eq!((histogram.read().buckets[0], histogram.read().sum), ((0.5, 3), 105.75));
    }
}
