//! Quality of service as operators see it.
//!
//! [`names`] is the contract (every metric's name, type, labels and meaning),
//! [`metrics`] holds the values.

mod histogram;
pub mod metrics;
pub mod names;

pub use histogram::{Histogram, Observed};
pub use metrics::{Metrics, Scrape, Transport};
