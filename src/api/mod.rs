//! The HTTP surfaces (WHIP, WHEP).

pub mod sessions;
mod whep;
mod whip;
