//! The way in: what publishers send, turned into packets for the hub.

pub mod whip;
