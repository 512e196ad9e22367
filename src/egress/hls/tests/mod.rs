//! LL-HLS against the checklist of what players need: a test's name opens with
//! the number of the line that it proves (P: playlists, H: HTTP).

mod endurance;
mod fixture;
mod formats;
mod http;
mod http_sessions;
mod hub;
mod oracle;
mod parser;
mod rig;
mod rules;
mod sim;
mod table;
mod tables;
mod timeline;
