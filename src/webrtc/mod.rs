//! The server's WebRTC peer, sans-IO: what arrives on the media port, and what
//! an answer promises.

pub mod negotiated;
pub mod sdp;
