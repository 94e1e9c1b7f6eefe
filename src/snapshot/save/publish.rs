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

/// A name this many seconds in the future comes from a wrong clock.
const MAX_CLOCK_AHEAD_SECONDS: u64 = 60;

/// Renames the draft: to the name with its start time, or the next free second.
pub(super) fn publish(request: &SaveRequest, draft: NewFile, begun: SystemTime) -> Result<PathBuf, SaveError> {
    step(request, "named", draft.path())?;
    let now = clock::unix_seconds(begun);
    let mut second =
        if request.last_named < now + MAX_CLOCK_AHEAD_SECONDS { now.max(request.last_named + 1) } else { now };
    let mut draft = draft;
    loop {
        let is_taken = [Compression::Raw, Compression::Zstd, Compression::Zip]
            .iter()
            .any(|packing| request.dir.join(compose(&request.base, &request.node, second, *packing)).exists());
        if !is_taken {
            let path = request.dir.join(compose(&request.base, &request.node, second, request.packing));
            match draft.publish(&path)? {
                None => return Ok(path),
                Some(again) => draft = again,
            }
        }
        second += 1;
    }
}

pub(super) fn write_manifest(
    request: &SaveRequest,
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
        base: request.base.to_string(),
        node: request.node.clone(),
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
        reason: request.reason.into(),
        labels: request.labels.clone(),
        member_id: facts.member_id.clone(),
        cluster_id: facts.cluster_id.clone(),
        lineage: request.lineage.clone(),
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
    step(request, "described", path)?;
    manifest.write(&request.dir)?;
    Ok(manifest)
}
