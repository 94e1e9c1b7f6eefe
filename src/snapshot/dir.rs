//! The snapshot directory: which of its files are snapshots.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::durable::{OnPath as _, WriteError};

/// The snapshots in `dir`, sorted by name; none if it does not exist. Hidden files and directories are ignored.
pub fn snapshots(dir: &Path) -> Result<Vec<PathBuf>, WriteError> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.on("read", dir)?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.on("read", dir)?;
        let is_hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        // Links are followed.
        let kind = entry.file_type().on("look at", dir)?;
        if !is_hidden && (kind.is_file() || (kind.is_symlink() && entry.path().is_file())) {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}
