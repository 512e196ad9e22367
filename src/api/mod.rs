//! The HTTP surfaces: public for players and providers, admin for operators.
//!
//! [`sessions`] is WHIP and WHEP, HLS brings its own router; [`public`] puts them
//! together with the pages and `/api/tables` and lays [`layers`] around everything.

pub mod admin;
#[doc(hidden)]
pub mod fuzzing;
pub mod health;
mod layer;
mod layers;
mod pages;
pub mod public;
pub mod sessions;
pub mod tables;
mod trace;
mod whep;
mod whip;

pub use trace::TraceContext;
