//! `quorate etcd-snapshot get`, `history` and `diff`, and `ls FILE`: browse a snapshot without restoring it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::cli::etcd_snapshot::context::{DownloadedSnapshot, SnapshotContext};
use crate::cli::output::{self, Format};
use crate::error::{AppError, Code, Diagnostic, Exit};
use crate::snapshot::browse::{self, BrowseError, Difference, KeyEvent, Value, Wanted};
use crate::snapshot::file::{self, SnapshotFile};
use crate::snapshot::verify::VerifyError;
use crate::text::{escape_control, format_bytes};

/// Reads the snapshot without restoring it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  quorate etcd-snapshot get latest /registry/config
  quorate etcd-snapshot get before-upgrade /registry/config --rev 41
  quorate etcd-snapshot history s3://backups/prod/latest /registry/config")]
pub(super) struct KeyArgs {
    /// Its name, `latest`, a base name, a path (anything with a /), or `s3://BUCKET/KEY`
    #[arg(value_name = "SNAPSHOT")]
    snapshot: String,
    /// The key
    key: String,
    /// Show the key at this revision, if the snapshot still has it
    #[arg(long, value_name = "REVISION")]
    rev: Option<i64>,
    /// Output format
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,
}

/// Prints + for a key that only B has, - for one that only A has, ~ for one whose value differs.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  quorate etcd-snapshot diff before-upgrade latest
  quorate etcd-snapshot diff ./monday.db ./tuesday.db --prefix /registry/")]
pub(super) struct DiffArgs {
    /// The older one: its name, `latest`, a base name, a path (anything with a /), or `s3://BUCKET/KEY`
    #[arg(value_name = "A")]
    first: String,
    /// The newer one, in the same forms
    #[arg(value_name = "B")]
    second: String,
    /// Only keys with this prefix
    #[arg(long, default_value = "")]
    prefix: String,
    /// Output format
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,
}

/// The key is not there.
#[derive(Debug, thiserror::Error)]
#[error("{snapshot} has no key {key}{}", .revision.map(|revision| format!(" at revision {revision}")).unwrap_or_default())]
struct KeyNotFound {
    snapshot: String,
    key: String,
    revision: Option<i64>,
}

impl Diagnostic for KeyNotFound {
    fn code(&self) -> Code {
        Code::KeyNotFound
    }

    fn next_step(&self) -> Option<String> {
        Some("quorate etcd-snapshot ls NAME-OR-PATH [PREFIX] shows its keys, and history the changes of one".into())
    }
}

/// A key in JSON output. Keys and values that are not valid UTF-8 are hexadecimal.
#[derive(Serialize)]
struct KeyItem {
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_hex: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_hex: Option<String>,
    value_size: u64,
    create_revision: i64,
    mod_revision: i64,
    version: i64,
    lease: String,
}

fn text_or_hex(bytes: &[u8]) -> (Option<String>, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (Some(text.to_owned()), None),
        Err(_) => (None, Some(hex::encode(bytes))),
    }
}

impl KeyItem {
    fn of(key: &[u8], value: &Value) -> Self {
        let (text, in_hex) = text_or_hex(key);
        let (value_text, value_hex) = value.content.value().map_or((None, None), text_or_hex);
        Self {
            key: text,
            key_hex: in_hex,
            value: value_text,
            value_hex,
            value_size: value.length,
            create_revision: value.create_revision,
            mod_revision: value.mod_revision,
            version: value.version,
            lease: format!("{:x}", value.lease),
        }
    }
}

/// For a terminal: control characters are escaped.
fn shown(bytes: &[u8]) -> String {
    escape_control(&String::from_utf8_lossy(bytes))
}

/// The open snapshot, and the guard of a download.
fn open(place: &SnapshotContext, named: &str) -> Result<(SnapshotFile, DownloadedSnapshot), AppError> {
    let got = place.get(named, None)?;
    Ok((file::open(&got.path)?, got))
}

fn failed(path: &Path) -> impl Fn(BrowseError) -> AppError + '_ {
    move |error| match error {
        BrowseError::Read(error) => VerifyError::of(error, path, None).into(),
        BrowseError::Future { .. } | BrowseError::Compacted { .. } => {
            RevisionUnavailable { path: path.to_path_buf(), why: error }.into()
        }
    }
}

/// The snapshot does not contain the revision.
#[derive(Debug, thiserror::Error)]
#[error("{}: {why}", path.display())]
struct RevisionUnavailable {
    path: PathBuf,
    why: BrowseError,
}

impl Diagnostic for RevisionUnavailable {
    fn code(&self) -> Code {
        match self.why {
            BrowseError::Future { .. } | BrowseError::Compacted { .. } => Code::RevisionUnavailable,
            BrowseError::Read(_) => Code::SnapshotCorrupt,
        }
    }

    fn next_step(&self) -> Option<String> {
        Some(match &self.why {
            BrowseError::Future { newest, .. } => format!("omit --rev, or use one up to {newest}"),
            BrowseError::Compacted { compacted, .. } => format!("omit --rev, or use one from {compacted} on"),
            BrowseError::Read(_) => return None,
        })
    }
}

pub(super) fn get(place: &SnapshotContext, args: &KeyArgs) -> Result<Exit, AppError> {
    let (snapshot, got) = open(place, &args.snapshot)?;
    let found = browse::get(&snapshot, args.key.as_bytes(), args.rev).map_err(failed(&snapshot.path))?;
    let missing = || KeyNotFound { snapshot: got.shown.clone(), key: escape_control(&args.key), revision: args.rev };
    let value = found.ok_or_else(missing)?;
    if !output::structured(&KeyItem::of(args.key.as_bytes(), &value), args.output)? {
        // Unchanged: it may go into a file, or back into an etcd.
        output::write_stdout(&[value.content.value().unwrap_or_default(), b"\n"].concat())?;
    }
    Ok(Exit::Done)
}

pub(super) fn list(
    place: &SnapshotContext,
    named: &str,
    prefix: &str,
    revision: Option<i64>,
    format: Format,
) -> Result<Exit, AppError> {
    let (snapshot, _got) = open(place, named)?;
    let keys =
        browse::list_keys(&snapshot, prefix.as_bytes(), revision, Wanted::Length).map_err(failed(&snapshot.path))?;
    let items: Vec<KeyItem> = keys.iter().map(|(key, value)| KeyItem::of(key, value)).collect();
    if !output::structured(&serde_json::json!({ "keys": items }), format)? {
        let mut text = format!("{:>12}  {:>8}  {:>10}  Key\n", "Revision", "Version", "Size");
        for (key, value) in &keys {
            let _ = writeln!(
                text,
                "{:>12}  {:>8}  {:>10}  {}",
                value.mod_revision,
                value.version,
                format_bytes(value.length),
                shown(key)
            );
        }
        output::print_stdout(&text)?;
    }
    Ok(Exit::Done)
}

pub(super) fn history(place: &SnapshotContext, args: &KeyArgs) -> Result<Exit, AppError> {
    let (snapshot, got) = open(place, &args.snapshot)?;
    let events = browse::history(&snapshot, args.key.as_bytes(), args.rev).map_err(failed(&snapshot.path))?;
    if events.is_empty() {
        return Err(KeyNotFound { snapshot: got.shown, key: escape_control(&args.key), revision: args.rev }.into());
    }
    let items: Vec<serde_json::Value> = events
        .iter()
        .map(|event| match event {
            KeyEvent::Put(value) => serde_json::json!({ "put": KeyItem::of(args.key.as_bytes(), value) }),
            KeyEvent::Deleted(revision) => serde_json::json!({ "deleted": { "mod_revision": revision } }),
        })
        .collect();
    if !output::structured(&serde_json::json!({ "history": items }), args.output)? {
        let mut text = format!("{:>12}  {:>8}  {:>10}  Value\n", "Revision", "Version", "Size");
        for event in &events {
            let _ = match event {
                KeyEvent::Put(value) => writeln!(
                    text,
                    "{:>12}  {:>8}  {:>10}  {}",
                    value.mod_revision,
                    value.version,
                    format_bytes(value.length),
                    output::truncate(&shown(value.content.value().unwrap_or_default()), 42)
                ),
                KeyEvent::Deleted(revision) => writeln!(text, "{revision:>12}  {:>8}  {:>10}  deleted", "", ""),
            };
        }
        output::print_stdout(&text)?;
    }
    Ok(Exit::Done)
}

pub(super) fn diff(place: &SnapshotContext, args: &DiffArgs) -> Result<Exit, AppError> {
    let keys = |named: &str| -> Result<_, AppError> {
        let (snapshot, _got) = open(place, named)?;
        browse::list_keys(&snapshot, args.prefix.as_bytes(), None, Wanted::Digest).map_err(failed(&snapshot.path))
    };
    let differences = browse::differences(&keys(&args.first)?, &keys(&args.second)?);
    let items: Vec<serde_json::Value> = differences
        .iter()
        .map(|(key, difference)| {
            let (text, in_hex) = text_or_hex(key);
            let word = match difference {
                Difference::Added => "added",
                Difference::Removed => "removed",
                Difference::Changed => "changed",
            };
            serde_json::json!({ "key": text, "key_hex": in_hex, "difference": word })
        })
        .collect();
    if !output::structured(&serde_json::json!({ "differences": items }), args.output)? {
        let mut text = String::new();
        for (key, difference) in &differences {
            let sign = match difference {
                Difference::Added => '+',
                Difference::Removed => '-',
                Difference::Changed => '~',
            };
            let _ = writeln!(text, "{sign} {}", shown(key));
        }
        output::print_stdout(&text)?;
        if differences.is_empty() {
            output::note("quorate: both have the same keys and values\n");
        }
    }
    Ok(Exit::Done)
}
