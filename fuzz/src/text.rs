//! Short texts: what stands in URLs, `fmtp` lines and the configuration.

use railbird::api::TraceContext;
use railbird::codec::Codec;
use railbird::codec::h264_profile::{H264Params, ProfileLevelId};
use railbird::hub::TableName;
use railbird::worker::SessionId;

/// Names of tables, sessions, traces, codecs and H.264 parameters. A name has
/// one spelling: what is accepted prints as it was read.
pub fn names(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(table) = text.parse::<TableName>() {
        assert_eq!(table.as_str(), text);
        assert!(text.len() <= TableName::MAX_LEN && !text.contains(['/', '.', '"', ' ']));
    }
    if let Ok(session) = text.parse::<SessionId>() {
        assert_eq!(session.to_string(), text);
    }
    let trace = TraceContext::of(Some(text));
    assert_eq!(TraceContext::of(Some(&trace.to_string())).trace_id(), trace.trace_id());
    if let Some(codec) = Codec::from_encoding_name(text) {
        assert!(codec.encoding_name().eq_ignore_ascii_case(text));
    }
    if let Some(id) = ProfileLevelId::parse(text) {
        id.profile();
    }
    let (stream, viewer) = text.split_once('\n').unwrap_or((text, text));
    if let (Some(stream), Some(viewer)) = (H264Params::parse(stream), H264Params::parse(viewer)) {
        viewer.fit(&stream);
    }
}

/// A configuration file; after a NUL, environment variables, one a line.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (file, variables) = text.split_once('\0').unwrap_or((text, ""));
    let variables = variables.lines().filter_map(|line| line.split_once('='));
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    if let Err(errors) = railbird::config::parse("fuzz.toml", file, variables) {
        assert!(errors.iter().count() > 0);
        assert!(!errors.to_string().is_empty());
    }
}
