//! Railbird: a live-streaming edge gateway for live-dealer tables.
//!
//! ```text
//!  WHIP ─── ingest ── hub: stream/track ─┬─ fan-out workers ── WHEP viewers   (WebRTC, one UDP port)
//!                                        └─ packager ───────── LL-HLS viewers (HTTP/1.1, h2)
//! ```
//!
//! The modules below stand in the order of that path: leaves first (what the
//! bytes mean), then the sockets, the media threads, the hub and its two sides,
//! and last the surfaces that people and programs talk to.
//! `docs/architecture.md` walks the same path file by file.

#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "a test's virtual clock starts at the real time")
)]

// Leaves: sans-IO, no module of ours above them.
pub mod codec;
pub mod media;
pub mod problem;
pub mod route;
pub mod rtp;
pub mod time;
pub mod webrtc;

// The operating system.
pub mod config;
pub mod net;
pub mod qos;

// The data path.
pub mod egress;
pub mod hub;
pub mod ingest;
pub mod worker;

// The surfaces, and the one place that knows all parts.
pub mod api;
pub mod app;
pub mod logging;
