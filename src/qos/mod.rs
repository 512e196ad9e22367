//! Quality of service as operators see it: metrics and who is watching.
//!
//! [`names`] is the contract (every metric's name, type, labels and meaning),
//! [`metrics`] holds the values, [`audience`] counts viewers per table.

pub mod audience;
pub mod metrics;
pub mod names;

pub use audience::{Audience, Transport, ViewerGuard};
pub use metrics::{Metrics, Scrape, SessionKind};
