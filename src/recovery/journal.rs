//! `S/db/restore/journal.json`: how far a reset, restore or undo is, so that the next start can finish it or roll it back.
//!
//! Version 2 has the phases prepared, swapped, verified and committed, and the id of an operation over several servers. Version 1, which
//! had `trying` and `passed`, is read: `trying` was written before the swap, as `prepared` is, and `passed` is `verified`.

use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::cluster::record::ClusterRecord;
use crate::datadir::DataDir;
use crate::durable::{self, PRIVATE_FILE, WriteError};
use crate::error::{Code, Diagnostic};
use crate::host;
use crate::plan::restore::JournalPhase;
use crate::recovery::paths::RecoveryPaths;
use crate::snapshot::inspect::Inspection;

/// The version of the file that is written.
const VERSION: u32 = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OperationKind {
    /// `--cluster-reset`.
    Reset,
    /// `--cluster-reset` with a snapshot.
    Restore,
    /// `--undo-reset`.
    Undo,
}

impl OperationKind {
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Reset => "cluster reset",
            Self::Restore => "restore",
            Self::Undo => "undoing of a reset",
        }
    }
}

/// What etcd must report about the data that were built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpectedData {
    pub revision: i64,
    pub keys: u64,
    pub hash_kv: u32,
    pub size: u64,
}

impl ExpectedData {
    /// Of a database of `size` bytes in which this was found.
    #[must_use]
    pub fn of(inspection: &Inspection, size: u64) -> Self {
        Self { revision: inspection.revision, keys: inspection.keys, hash_kv: inspection.hash_kv, size }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journal {
    pub version: u32,
    #[serde(alias = "act")]
    pub kind: OperationKind,
    /// The operation over several servers that this is a part of. Its coordinator decides what becomes of it.
    #[serde(default)]
    pub operation: Option<String>,
    pub phase: JournalPhase,
    /// When it was started (RFC 3339).
    #[serde(alias = "begun")]
    pub started: String,
    /// Where the data in use are.
    pub current: PathBuf,
    /// Where the new data were built.
    pub staged: PathBuf,
    /// Where the data from before are put; `None` if there were none.
    pub old: Option<PathBuf>,
    /// The directory for everything that is only needed meanwhile.
    pub work: PathBuf,
    pub before: Option<ClusterRecord>,
    /// The cluster record once it is committed, with all members of the new cluster.
    pub after: ClusterRecord,
    /// What etcd must report; `None` if the data were not built, but come back.
    #[serde(default)]
    pub expected: Option<ExpectedData>,
}

/// The journal exists, but cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}, the journal of a reset or restore that was interrupted", path.display())]
pub struct JournalUnreadable {
    path: PathBuf,
    source: io::Error,
}

impl Diagnostic for JournalUnreadable {
    fn code(&self) -> Code {
        Code::JournalUnreadable
    }

    fn next_step(&self) -> Option<String> {
        let dir = self.path.parent().unwrap_or(&self.path).display();
        Some(format!(
            "the data in use is db/etcd; the previous data is the newest db/etcd-old-…. Check which of them is good (quorate \
             etcd-snapshot verify --skip-hash-check DIR/member/snap/db), put it in the place of db/etcd, and mv {dir} {dir}-broken; if \
             that changes the data in use, mv server/cluster.json away, too"
        ))
    }
}

impl Journal {
    /// A new one, in the phase `prepared`.
    #[must_use]
    pub fn begin(kind: OperationKind, started: String, paths: RecoveryPaths, after: ClusterRecord) -> Self {
        let RecoveryPaths { current, staged, old, work } = paths;
        Self {
            version: VERSION,
            kind,
            operation: None,
            phase: JournalPhase::Prepared,
            started,
            current,
            staged,
            old,
            work,
            before: None,
            after,
            expected: None,
        }
    }

    /// Reads it, if there is one.
    ///
    /// # Errors
    /// If it cannot be read, or was written by a newer quorate.
    pub fn read(data: &DataDir) -> Result<Option<Self>, JournalUnreadable> {
        let path = data.restore_journal();
        let read = match host::read_small(&path) {
            Ok(text) => Self::parse(&text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => Err(error),
        };
        read.map(Some).map_err(|source| JournalUnreadable { path, source })
    }

    fn parse(text: &[u8]) -> io::Result<Self> {
        #[derive(Deserialize)]
        struct VersionField {
            version: u32,
        }
        let VersionField { version } = serde_json::from_slice(text)?;
        if !(1..=VERSION).contains(&version) {
            let what = format!("it has version {version}, and this quorate reads up to version {VERSION}");
            return Err(io::Error::other(what));
        }
        // What is written of it from now on has the new form.
        Ok(Self { version: VERSION, ..serde_json::from_slice(text)? })
    }

    pub fn write(&self, data: &DataDir) -> Result<(), WriteError> {
        let mut text = serde_json::to_vec_pretty(self).unwrap_or_default();
        text.push(b'\n');
        durable::write_file(&data.restore_journal(), &text, PRIVATE_FILE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As commit 1b4c942 wrote it.
    const VERSION_1: &str = r#"{"version":1,"act":"restore","phase":"PHASE","begun":"2026-11-25T17:35:27Z",
        "current":"/d/server/db/etcd","staged":"/d/server/db/restore/etcd","old":"/d/server/db/etcd-old-1","work":"/d/server/db/restore",
        "before":null,"after":{"cluster_id":"c","epoch":2,"member_id":"m","member_name":"n","members":1,"control_urls":[],
        "etcd_version":"3.5.30"}}"#;

    #[test]
    fn version_1_is_read() {
        for (word, phase) in [("trying", JournalPhase::Prepared), ("passed", JournalPhase::Verified)] {
            let read = Journal::parse(VERSION_1.replace("PHASE", word).as_bytes()).unwrap();
            assert_eq!((read.phase, read.kind, read.operation.as_ref()), (phase, OperationKind::Restore, None));
            assert_eq!((read.version, read.after.member_count(), read.expected), (VERSION, 1, None));
            let written = serde_json::to_vec(&read).unwrap();
            assert_eq!(Journal::parse(&written).unwrap(), read);
        }
    }

    #[test]
    fn another_version_is_refused() {
        for version in ["0", "3"] {
            let text = VERSION_1.replacen('1', version, 1).replace("PHASE", "trying");
            assert!(Journal::parse(text.as_bytes()).is_err(), "{version}");
        }
    }
}
