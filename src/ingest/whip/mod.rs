//! WHIP publishers (RFC 9725).

pub mod receiver;
