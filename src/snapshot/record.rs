//! Writes down beside a snapshot what a verification found, so that `ls` can show it.

use std::fs;
use std::path::Path;

use super::list;
use super::manifest::{self, Manifest, Verification};
use super::prune;
use super::verify::{Verified, VerifyError};
use crate::clock;
use crate::durable::{OnPath as _, WriteError};

/// Writes it into the manifest; one is made where there was none. What says nothing about the snapshot itself (it is gone, it
/// cannot be read, there was no room to unpack it) is not written down.
///
/// # Errors
/// If it cannot be written.
pub fn write(path: &Path, found: &Result<Verified, VerifyError>) -> Result<(), WriteError> {
    let (status, finding) = match found {
        Ok(_) => ("good", None),
        Err(error @ (VerifyError::Corrupt { .. } | VerifyError::NoHash(_))) => ("corrupt", Some(error.to_string())),
        Err(VerifyError::Open(error)) if error.is_damage() => ("corrupt", Some(error.to_string())),
        Err(_) => return Ok(()),
    };
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
    let on_disk = fs::metadata(path).on("look at", path)?;
    let Some(listed) = list::one(dir, name) else { return Ok(()) };
    let mut manifest: Manifest = listed.manifest.clone().unwrap_or_else(|| prune::unknown(&listed));
    manifest.verification = Some(Verification {
        status: status.into(),
        at: clock::rfc3339(clock::now()),
        size: on_disk.len(),
        modified: manifest::modified(&on_disk),
        finding,
    });
    if let (Ok(verified), None) = (found, &listed.manifest) {
        let inspection = &verified.inspection;
        manifest.revision = inspection.revision;
        manifest.keys = inspection.keys;
        manifest.total_keys = inspection.total_pairs;
        manifest.database_size = verified.database_size;
        manifest.hash_kv = inspection.hash_kv;
        manifest.sha256.clone_from(&verified.sha256);
        manifest.compression = verified.packing.word().into();
        manifest.etcd_version = inspection.etcd_version().unwrap_or_default();
    }
    manifest.write(dir)
}
