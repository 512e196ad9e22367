//! Sockets: the media port, and HTTP with and without TLS.

pub mod addresses;
pub mod tcp;
pub mod tls;
pub mod udp;
