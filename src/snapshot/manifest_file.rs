//! Records the result of a verification in the manifest, so that `ls` can show it.

use std::fs;
use std::path::Path;

use crate::clock;
use crate::durable::{OnPath as _, WriteError};
use crate::snapshot::list::{self, SnapshotStatus};
use crate::snapshot::manifest::{self, Manifest, Verification};
use crate::snapshot::prune;
use crate::snapshot::verify::{Verified, VerifyError};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// Nothing to record: the error is not about the snapshot itself (it is gone, cannot be read, or there was no space
    /// to unpack it), or it is not a snapshot of the directory.
    Nothing,
    Result,
    /// The result and the facts about the file, which is another one than the manifest describes.
    Replaced,
}

/// Writes it into the manifest, which is created if it is missing. `before` is the state of the file when the
/// verification began: if it has changed meanwhile, nothing is recorded.
pub fn write(path: &Path, before: &fs::Metadata, found: &Result<Verified, VerifyError>) -> Result<Written, WriteError> {
    let (status, finding) = match found {
        Ok(_) => ("good", None),
        Err(error @ (VerifyError::Corrupt { .. } | VerifyError::NoHash(_))) => ("corrupt", Some(error.to_string())),
        Err(VerifyError::Open(error)) if error.is_damage() => ("corrupt", Some(error.to_string())),
        Err(_) => return Ok(Written::Nothing),
    };
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else { return Ok(Written::Nothing) };
    let on_disk = fs::metadata(path).on("look at", path)?;
    if (on_disk.len(), manifest::modified(&on_disk)) != (before.len(), manifest::modified(before)) {
        return Ok(Written::Nothing);
    }
    let Some(listed) = list::one(dir, name).filter(|listed| listed.status != SnapshotStatus::Unreadable) else {
        return Ok(Written::Nothing);
    };
    let mut manifest: Manifest = listed.manifest.clone().unwrap_or_else(|| prune::unknown(&listed));
    manifest.verification = Some(Verification {
        status: status.into(),
        at: clock::rfc3339(clock::now()),
        size: on_disk.len(),
        modified: manifest::modified(&on_disk),
        finding,
    });
    let mut written = Written::Result;
    if let Ok(verified) = found
        && verified.sha256 != manifest.sha256
    {
        if listed.manifest.as_ref().is_some_and(|manifest| !manifest.sha256.is_empty()) {
            written = Written::Replaced;
        }
        let inspection = &verified.inspection;
        manifest.revision = inspection.revision;
        manifest.keys = inspection.keys;
        manifest.total_keys = inspection.total_pairs;
        manifest.size = verified.stored_size;
        manifest.database_size = verified.database_size;
        manifest.hash_kv = inspection.hash_kv;
        manifest.sha256.clone_from(&verified.sha256);
        manifest.compression = verified.packing.word().into();
        // Only etcd itself knows its exact version: the database contains the cluster version.
        manifest.etcd_version = String::new();
    }
    manifest.write(dir)?;
    Ok(written)
}
