//! Sockets: the media port, and HTTP with and without TLS.

mod activity;
pub mod addresses;
mod connection;
pub mod dscp;
pub mod files;
pub mod interfaces;
pub mod tcp;
pub mod tls;
pub mod udp;
