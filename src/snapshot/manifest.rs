//! The manifest of a snapshot: `.metadata/<file name>.json` in the snapshot directory.
//!
//! The fields are documented in `docs/snapshots.md`; fields are added, never renamed. Fields of newer versions are
//! kept.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::cluster::record::MemberIdentity;
use crate::durable::{self, OnPath as _, PRIVATE_DIR, PRIVATE_FILE, WriteError};

/// The directory of manifests, in the snapshot directory.
pub const DIR: &str = crate::datadir::DataDir::METADATA_NAME;
/// Maximum size of a manifest, in bytes.
const MAX_BYTES: u64 = 1 << 20;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Manifest {
    pub version: u32,
    pub name: String,
    pub base: String,
    /// `node-name` of the server that took it.
    pub node: String,
    pub size: u64,
    /// RFC 3339.
    pub created: String,
    pub revision: i64,
    pub keys: u64,
    pub total_keys: u64,
    pub database_size: u64,
    /// The version of the etcd that it was taken from.
    pub etcd_version: String,
    /// SHA-256 of the file as stored, hexadecimal.
    pub sha256: String,
    /// HashKV of a live member at the revision.
    pub hash_kv: u32,
    /// `zstd`, `zip`, or empty.
    pub compression: String,
    /// `on-demand` or `scheduled`.
    pub reason: String,
    pub labels: BTreeMap<String, String>,
    /// Hexadecimal.
    pub member_id: String,
    /// Hexadecimal.
    pub cluster_id: String,
    /// The lineage of the data directory that it was taken from, the oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lineage: Vec<MemberIdentity>,
    /// Alarms that were raised, such as `CORRUPT`.
    pub alarms: Vec<String>,
    /// The last time that it was verified.
    pub verification: Option<Verification>,
    pub held: bool,
}

/// The result of a verification, and size and modification time of the file then.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verification {
    /// `good` or `corrupt`.
    pub status: String,
    /// RFC 3339.
    pub at: String,
    pub size: u64,
    /// Nanoseconds since 1970.
    pub modified: i128,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finding: Option<String>,
}

pub const VERSION: u32 = 1;

/// Facts that require reading the whole snapshot.
const OF_CONTENT: [&str; 7] = ["revision", "keys", "total_keys", "database_size", "etcd_version", "sha256", "hash_kv"];
/// Facts known only for snapshots that quorate took.
const OF_ORIGIN: [&str; 6] = ["base", "node", "etcd_version", "reason", "member_id", "cluster_id"];

/// The result of reading a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ManifestState {
    Absent,
    /// It exists but is unreadable, so its content (for example a hold) is unknown.
    Unreadable,
    Read(Box<Manifest>),
}

fn read_bytes(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(2048);
    File::open(path)?.take(MAX_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn path(dir: &Path, name: &str) -> PathBuf {
    dir.join(DIR).join(format!("{name}.json"))
}

impl Manifest {
    /// Reads the manifest of the snapshot `name` in `dir`.
    #[must_use]
    pub fn find(dir: &Path, name: &str) -> ManifestState {
        match read_bytes(&path(dir, name)) {
            // A name that is too long cannot have a manifest.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidFilename) => {
                ManifestState::Absent
            }
            Err(_) => ManifestState::Unreadable,
            Ok(bytes) => match serde_json::from_slice::<Self>(&bytes) {
                // A manifest that was copied for another file is ignored.
                Ok(manifest) if manifest.name == name => ManifestState::Read(Box::new(manifest)),
                Ok(manifest) if !manifest.name.is_empty() => ManifestState::Absent,
                _ => ManifestState::Unreadable,
            },
        }
    }

    #[must_use]
    pub fn life(&self) -> MemberIdentity {
        MemberIdentity { cluster_id: self.cluster_id.clone(), member_id: self.member_id.clone() }
    }

    /// The incarnations of the data directory, the last one being that of its data.
    #[must_use]
    pub fn write_lineage(&self) -> Vec<MemberIdentity> {
        self.lineage.iter().cloned().chain([self.life()]).collect()
    }

    /// Writes it for its snapshot in `dir`. Fields of newer versions are kept.
    pub fn write(&self, dir: &Path) -> Result<(), WriteError> {
        durable::create_dir(&dir.join(DIR), PRIVATE_DIR)?;
        let path = path(dir, &self.name);
        let before: Option<Map<String, Value>> =
            read_bytes(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let mut fields = before.unwrap_or_default();
        if let Ok(Value::Object(ours)) = serde_json::to_value(self) {
            fields.extend(ours);
        }
        if self.sha256.is_empty() {
            // It was never read completely, so these are unknown.
            fields.retain(|name, _| !OF_CONTENT.contains(&name.as_str()));
        }
        fields.retain(|name, value| !(OF_ORIGIN.contains(&name.as_str()) && value == ""));
        let mut text = serde_json::to_vec_pretty(&fields).unwrap_or_default();
        text.push(b'\n');
        durable::write_file(&path, &text, PRIVATE_FILE)
    }
}

/// Removes the manifest of a deleted snapshot.
pub fn remove(dir: &Path, name: &str) -> Result<(), WriteError> {
    match durable::remove_file(&path(dir, name)) {
        // A manifest with a name that is too long was never written.
        Err(error) if error.source.kind() == ErrorKind::InvalidFilename => Ok(()),
        done => done.map(|_| ()),
    }
}

/// The manifests in `dir` whose snapshots are gone.
pub fn orphans(dir: &Path) -> Result<Vec<String>, WriteError> {
    let metadata = dir.join(DIR);
    let entries = match fs::read_dir(&metadata) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.on("read", &metadata)?,
    };
    let names = entries.flatten().filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        name.strip_suffix(".json").map(str::to_owned)
    });
    Ok(names.filter(|name| !name.starts_with('.') && !dir.join(name).exists()).collect())
}

/// Modification time in nanoseconds since 1970.
#[must_use]
pub fn modified(found: &fs::Metadata) -> i128 {
    use std::os::unix::fs::MetadataExt as _;
    i128::from(found.mtime()) * 1_000_000_000 + i128::from(found.mtime_nsec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_is_read_back_with_what_a_newer_quorate_wrote() {
        let dir = tempfile::tempdir().unwrap();
        let mut manifest = Manifest { version: VERSION, name: "a-1".into(), ..Manifest::default() };
        manifest.write(dir.path()).unwrap();
        assert_eq!(Manifest::find(dir.path(), "a-1"), ManifestState::Read(Box::new(manifest.clone())));
        let with_more = fs::read_to_string(path(dir.path(), "a-1")).unwrap().replacen('{', "{\"later\": [1],", 1);
        fs::write(path(dir.path(), "a-1"), with_more).unwrap();
        manifest.held = true;
        manifest.write(dir.path()).unwrap();
        let text = fs::read_to_string(path(dir.path(), "a-1")).unwrap();
        assert!(text.contains("\"later\": [") && text.contains("\"held\": true"), "{text}");
        assert_eq!(orphans(dir.path()).unwrap(), ["a-1"]);
        fs::write(dir.path().join("a-1"), "").unwrap();
        assert!(orphans(dir.path()).unwrap().is_empty());
        // A manifest that was renamed by hand no longer belongs to the snapshot.
        fs::rename(path(dir.path(), "a-1"), path(dir.path(), "b-2")).unwrap();
        assert_eq!(Manifest::find(dir.path(), "b-2"), ManifestState::Absent);
        for broken in ["{broken", "", "{}", "[]", "{\"name\": 1}"] {
            fs::write(path(dir.path(), "a-1"), broken).unwrap();
            assert_eq!(Manifest::find(dir.path(), "a-1"), ManifestState::Unreadable, "{broken}");
        }
        remove(dir.path(), "a-1").unwrap();
        remove(dir.path(), "a-1").unwrap();
        // Unknown values are absent, not 0.
        let found = Manifest { name: "a-1".into(), ..Manifest::default() };
        found.write(dir.path()).unwrap();
        assert_eq!(Manifest::find(dir.path(), "a-1"), ManifestState::Read(Box::new(found.clone())));
        let is_there = |field: &str| {
            let text = fs::read_to_string(path(dir.path(), "a-1")).unwrap();
            text.contains(&format!("\"{field}\""))
        };
        assert!(is_there("verification") && !OF_CONTENT.iter().any(|field| is_there(field)));
        Manifest { sha256: "00".into(), ..found }.write(dir.path()).unwrap();
        assert!(is_there("revision") && is_there("hash_kv") && !is_there("node"));
    }
}
