//! RTP as bytes: headers, sequence numbers, payload formats (sans-IO).

mod depacketizer;
pub mod extensions;
mod header;
mod keyframe;
mod payload;
pub mod rewrite;
mod sequence;

pub use depacketizer::Depacketizer;
pub use header::{
    Extensions, FIXED_LEN, HeaderFields, RtpError, RtpHeader, header_len, write_header,
};
pub use keyframe::{resolution_of_keyframe_payload, starts_keyframe};
pub use sequence::{SequenceUnwrapper, TimestampUnwrapper, is_newer, is_newer_timestamp};
