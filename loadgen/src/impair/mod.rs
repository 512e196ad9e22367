//! Bad networks in user space, seeded: [`link`] is one direction of a last mile as a
//! machine of its own, [`proxy`] puts two of them between any two UDP endpoints, and
//! [`runtime`] loses what comes to a viewer on the `webrtc` crate.

pub mod link;
pub mod proxy;
pub mod runtime;

pub use link::{Impairment, Link, Tally};
pub use runtime::{Loss, LossyRuntime};
