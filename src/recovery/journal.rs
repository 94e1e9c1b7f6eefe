//! `S/db/restore/journal.json`: what is being done with the data, so that whoever starts next knows it.

use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::cluster::record::ClusterRecord;
use crate::datadir::DataDir;
use crate::durable::{self, PRIVATE_FILE, WriteError};
use crate::error::{Code, Diagnostic};
use crate::host;
use crate::plan::restore::Phase;
use crate::recovery::workspace::RecoveryPaths;

/// The version of the journal's form.
const VERSION: u32 = 1;

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Operation {
    /// `--cluster-reset`.
    Reset,
    /// … with a snapshot.
    Restore,
    /// `--undo-reset`.
    Undo,
}

impl Operation {
    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Reset => "cluster reset",
            Self::Restore => "restore",
            Self::Undo => "undoing of a reset",
        }
    }
}

/// Paths, and what is to be remembered when it is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journal {
    /// Of this form.
    pub version: u32,
    /// What.
    pub act: Operation,
    /// How far.
    pub phase: Phase,
    /// When it was begun (RFC 3339).
    pub begun: String,
    /// Where data are in use.
    pub current: PathBuf,
    /// Where the new ones were built.
    pub staged: PathBuf,
    /// Where the ones from before are put; `None` if there were none.
    pub old: Option<PathBuf>,
    /// Where all that is only needed meanwhile lies.
    pub work: PathBuf,
    /// The cluster from before.
    pub before: Option<ClusterRecord>,
    /// The cluster from now on.
    pub after: ClusterRecord,
}

/// The journal is there and cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}, the journal of a reset or restore that broke off", path.display())]
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
            "the data in use are db/etcd; those from before are the newest db/etcd-old-…. See which of them is whole (quorate \
             etcd-snapshot verify --skip-hash-check DIR/member/snap/db), put it in the place of db/etcd, and mv {dir} {dir}-broken"
        ))
    }
}

impl Journal {
    /// A new one.
    #[must_use]
    pub fn begin(act: Operation, begun: String, paths: RecoveryPaths, after: ClusterRecord) -> Self {
        let RecoveryPaths { current, staged, old, work } = paths;
        Self { version: VERSION, act, phase: Phase::Trying, begun, current, staged, old, work, before: None, after }
    }

    /// Reads it, if there is one.
    ///
    /// # Errors
    /// If it cannot be read, or was written by a newer quorate.
    pub fn read(data: &DataDir) -> Result<Option<Self>, JournalUnreadable> {
        let path = data.restore_journal();
        let read = match host::read_small(&path) {
            Ok(bytes) => serde_json::from_slice::<Self>(&bytes).map_err(io::Error::other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => Err(error),
        };
        match read {
            Ok(journal) if journal.version == VERSION => Ok(Some(journal)),
            Ok(_) => Err(JournalUnreadable {
                path,
                source: io::Error::other("it was written by another version of quorate"),
            }),
            Err(source) => Err(JournalUnreadable { path, source }),
        }
    }

    /// Writes it.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, data: &DataDir) -> Result<(), WriteError> {
        let mut text = serde_json::to_vec_pretty(self).unwrap_or_default();
        text.push(b'\n');
        durable::write_file(&data.restore_journal(), &text, PRIVATE_FILE)
    }
}
