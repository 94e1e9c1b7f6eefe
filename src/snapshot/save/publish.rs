//! Gives a snapshot that is whole and safe its name, and describes it.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::clock;
use crate::compression::Compression;
use crate::durable::{NewFile, WriteError};
use crate::etcd::client;
use crate::plan::snapshot_name::compose;
use crate::snapshot::manifest::{self, Manifest, Verification};
use crate::snapshot::save::error::SaveError;
use crate::snapshot::save::request::{SaveRequest, step};
use crate::snapshot::verify::Verified;

/// A name this far ahead, in seconds, comes from a clock that was wrong.
const MAX_CLOCK_AHEAD_SECONDS: u64 = 60;

/// Gives the draft its name: that of the second in which it was begun, or of the next one that nobody has.
pub(super) fn publish(wish: &SaveRequest, draft: NewFile, begun: SystemTime) -> Result<PathBuf, SaveError> {
    step(wish, "named", draft.path())?;
    let now = clock::unix_seconds(begun);
    let mut second = if wish.last_named < now + MAX_CLOCK_AHEAD_SECONDS { now.max(wish.last_named + 1) } else { now };
    let mut draft = draft;
    loop {
        let is_taken = [Compression::Raw, Compression::Zstd, Compression::Zip]
            .iter()
            .any(|packing| wish.dir.join(compose(&wish.base, &wish.node, second, *packing)).exists());
        if !is_taken {
            let path = wish.dir.join(compose(&wish.base, &wish.node, second, wish.packing));
            match draft.publish(&path)? {
                None => return Ok(path),
                Some(again) => draft = again,
            }
        }
        second += 1;
    }
}

pub(super) fn write_manifest(
    wish: &SaveRequest,
    facts: &client::MemberSource,
    verified: &Verified,
    path: &Path,
    begun: SystemTime,
) -> Result<Manifest, SaveError> {
    let found =
        std::fs::metadata(path).map_err(|source| WriteError { act: "look at", path: path.to_path_buf(), source })?;
    let inspection = &verified.inspection;
    let manifest = Manifest {
        version: manifest::VERSION,
        name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        base: wish.base.to_string(),
        node: wish.node.clone(),
        size: verified.stored_size,
        created: clock::rfc3339(begun),
        revision: inspection.revision,
        keys: inspection.keys,
        total_keys: inspection.total_pairs,
        database_size: verified.database_size,
        etcd_version: facts.version.clone(),
        sha256: verified.sha256.clone(),
        hash_kv: inspection.hash_kv,
        compression: verified.packing.word().into(),
        reason: wish.reason.into(),
        labels: wish.labels.clone(),
        member_id: facts.member_id.clone(),
        cluster_id: facts.cluster_id.clone(),
        lineage: wish.lineage.clone(),
        alarms: facts.alarms.clone(),
        verification: Some(Verification {
            status: "good".into(),
            at: clock::rfc3339(clock::now()),
            size: found.len(),
            modified: manifest::modified(&found),
            finding: None,
        }),
        held: false,
    };
    step(wish, "described", path)?;
    manifest.write(&wish.dir)?;
    Ok(manifest)
}
