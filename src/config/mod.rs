//! The configuration: a TOML file, environment variables over it, and defaults.
//!
//! [`raw`] finds values and their places, [`value`] turns them into types, and
//! [`checked`] is the schema: each key's name, default, meaning and check stand
//! in one line there. Every error of a file is reported in one run.

mod checked;
mod raw;
mod value;

use std::path::Path;

pub use checked::{Admin, Config, Demo, Hls, Http, Log, LogFormat, Marks, Media, TlsFiles};
pub use raw::{ConfigError, ConfigErrors};

/// Reads `file` (or only defaults, when `None`) with the environment over it.
///
/// # Errors
/// All that is wrong, each with its place.
pub fn load(file: Option<&Path>) -> Result<Config, ConfigErrors> {
    let (name, text) = match file {
        None => ("defaults".to_owned(), String::new()),
        Some(path) => {
            let name = path.display().to_string();
            let text = std::fs::read_to_string(path)
                .map_err(|error| ConfigErrors::unreadable(&name, &error))?;
            (name, text)
        }
    };
    // `vars` would panic on one that is not Unicode; its name is none of ours.
    let environment = std::env::vars_os().filter_map(|(name, value)| {
        Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
    });
    parse(&name, &text, environment)
}

/// Reads the configuration from `text`; `name` stands for the file in errors and
/// `environment` gives the variables, of which those named `RAILBIRD__*` count.
///
/// # Errors
/// All that is wrong, each with its place.
pub fn parse(
    name: &str,
    text: &str,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Config, ConfigErrors> {
    let mut document = raw::Document::new(name, text, environment);
    let config = checked::read(&mut document);
    document.finish().map(|()| config)
}

#[cfg(test)]
mod tests;
