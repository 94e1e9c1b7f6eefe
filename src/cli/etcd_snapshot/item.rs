//! A snapshot in one store, as in `ls -o json` and `save -o json`.
//!
//! The fields are documented in `docs/snapshots.md`; fields are added, never renamed. Unknown values are `null`.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use serde::Serialize;

use crate::clock;
use crate::snapshot::list::{self, Listed, SnapshotStatus};
use crate::snapshot::manifest::Manifest;

/// One snapshot.
#[derive(Clone, Debug, Serialize)]
pub(super) struct SnapshotItem {
    pub(super) name: String,
    pub(super) node: Option<String>,
    pub(super) location: String,
    pub(super) size: u64,
    pub(super) created: String,
    pub(super) revision: Option<i64>,
    pub(super) keys: Option<u64>,
    pub(super) etcd_version: Option<String>,
    pub(super) sha256: Option<String>,
    pub(super) compression: String,
    pub(super) reason: Option<String>,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) status: String,
    pub(super) verified_at: Option<String>,
    pub(super) held: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) uploaded_to: Option<String>,
    /// Seconds since 1970.
    #[serde(skip)]
    pub(super) taken_at: u64,
}

/// A text, if there is one.
fn known(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

impl SnapshotItem {
    /// One of a directory.
    pub(super) fn of_directory(listed: Listed, dir: &Path) -> Self {
        let path = dir.join(&listed.name);
        let is_damaged = matches!(listed.status, SnapshotStatus::Corrupt | SnapshotStatus::Partial);
        let mut item = Self::of_listed(listed, &format!("file://{}", path.display()));
        if item.revision.is_none() && !is_damaged {
            item.revision = list::read_details(&path);
        }
        item
    }

    /// One that is at `location`.
    pub(super) fn of_listed(listed: Listed, location: &str) -> Self {
        let created = clock::rfc3339(UNIX_EPOCH + Duration::from_secs(listed.created));
        let manifest = listed.manifest.unwrap_or_else(|| Manifest { created, ..Manifest::default() });
        let item = Self::of_manifest(manifest, location.to_owned());
        Self {
            name: listed.name,
            size: listed.size,
            status: listed.status.word().into(),
            taken_at: listed.created,
            ..item
        }
    }

    /// One that was just saved, or whose manifest is known.
    pub(super) fn of_manifest(manifest: Manifest, location: String) -> Self {
        // A snapshot that was never read completely has no hash, and zeros for its contents.
        let was_read = !manifest.sha256.is_empty();
        let status = manifest.verification.as_ref().map_or_else(|| "unverified".into(), |found| found.status.clone());
        Self {
            location,
            taken_at: clock::parse_rfc3339(&manifest.created).map(clock::unix_seconds).unwrap_or_default(),
            name: manifest.name,
            node: known(manifest.node),
            size: manifest.size,
            created: manifest.created,
            revision: was_read.then_some(manifest.revision),
            keys: was_read.then_some(manifest.keys),
            etcd_version: known(manifest.etcd_version),
            sha256: known(manifest.sha256),
            compression: manifest.compression,
            reason: known(manifest.reason),
            labels: manifest.labels,
            status,
            verified_at: manifest.verification.map(|found| found.at),
            held: manifest.held,
            uploaded_to: None,
        }
    }

    /// True if it is in object storage.
    pub(super) fn is_there(&self) -> bool {
        self.location.starts_with("s3://")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::manifest::Verification;
    use crate::snapshot::prune;

    /// bugs F12, ux F14.
    #[test]
    fn what_is_not_known_is_null() {
        let listed = |status, manifest| Listed {
            name: "p-n1-1700000001".into(),
            size: 1,
            created: 1_700_000_001,
            status,
            manifest,
        };
        let foreign = listed(SnapshotStatus::Unverified, None);
        let written = Manifest {
            verification: Some(Verification { status: "corrupt".into(), ..Verification::default() }),
            ..prune::unknown(&foreign)
        };
        for listed in [foreign, listed(SnapshotStatus::Corrupt, Some(written))] {
            let item = serde_json::to_value(SnapshotItem::of_listed(listed, "file:///x")).unwrap();
            for field in ["revision", "keys", "etcd_version", "sha256", "node", "reason"] {
                assert_eq!(item[field], serde_json::Value::Null, "{field}");
            }
            assert_eq!((&item["size"], &item["created"]), (&1.into(), &"2023-11-14T22:13:21Z".into()));
        }
        let empty = Manifest { sha256: "00".into(), revision: 1, keys: 0, node: "n".into(), ..Manifest::default() };
        let item = SnapshotItem::of_manifest(empty, "file:///x".into());
        assert_eq!((item.revision, item.keys, item.node.as_deref()), (Some(1), Some(0), Some("n")));
    }
}
