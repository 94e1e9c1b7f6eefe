//! How verbs print: data on standard output, talk on standard error, tables that fit 80 columns.

use std::io::{self, Write as _};

use clap::ValueEnum;
use serde::Serialize;

use crate::error::Explained;

/// What `-o` takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people.
    #[default]
    Table,
    /// A contract: fields are added, never renamed.
    Json,
    /// The same as JSON.
    Yaml,
}

/// No runtime.
#[derive(Debug, thiserror::Error)]
#[error("the system gives no thread or no poller")]
pub(super) struct RuntimeError(#[source] pub(super) io::Error);

impl Explained for RuntimeError {}

/// Writes to standard output. A reader that went away (`| head`) is no failure.
pub(super) fn data(text: &str) {
    let _ = io::stdout().write_all(text.as_bytes());
}

/// Writes to standard error.
pub(super) fn talk(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}

/// Prints `value` as JSON or YAML; `false` if the format is a table, which the verb makes itself.
pub(super) fn structured(value: &impl Serialize, format: Format) -> bool {
    match format {
        Format::Table => return false,
        Format::Json => data(&(serde_json::to_string_pretty(value).unwrap_or_default() + "\n")),
        Format::Yaml => data(&serde_yaml::to_string(value).unwrap_or_default()),
    }
    true
}
