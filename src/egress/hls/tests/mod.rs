//! LL-HLS against `docs/ll-hls` checklist lines: a test's name opens with the
//! line that it proves.

mod browser;
mod fixture;
mod formats;
mod http;
mod parser;
mod rig;
mod timeline;
