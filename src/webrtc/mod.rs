//! The server's WebRTC peer, sans-IO: what arrives on the media port, and what
//! an answer promises.

pub mod budget;
pub mod classify;
pub mod dtls;
pub mod ice_lite;
pub mod negotiated;
pub mod rtcp;
pub mod sdp;
pub mod srtp;
pub mod transport;
