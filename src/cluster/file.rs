//! `S/cluster.json`: what is remembered of the cluster, outside the directory that could be lost.

use std::fs;
use std::io;
use std::path::PathBuf;

use crate::datadir::DataDir;
use crate::durable::{self, PRIVATE_FILE, WriteError};
use crate::error::{Code, Diagnostic};
use crate::etcd::client::MemberFacts;
use crate::plan::owner::{Incarnation, Owner};
use crate::plan::start::ClusterRecord;
use crate::version::Version;

/// The file is there and says nothing.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}, which remembers the cluster of this data directory", path.display())]
pub struct ClusterRecordUnreadable {
    path: PathBuf,
    source: io::Error,
}

impl Diagnostic for ClusterRecordUnreadable {
    fn code(&self) -> Code {
        Code::ClusterRecordUnreadable
    }

    fn next_step(&self) -> Option<String> {
        let path = self.path.display();
        Some(format!(
            "bring it back from a backup. If db/etcd/member is there and whole, `mv {path} {path}.bad` also lets it start; \
             without that data, a start would then begin an empty cluster"
        ))
    }
}

/// Reads the file, if it is there.
///
/// # Errors
/// If it is there and cannot be read: what it would have protected is then unknown.
pub fn load(data: &DataDir) -> Result<Option<ClusterRecord>, ClusterRecordUnreadable> {
    let path = data.cluster();
    let read = match fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(io::Error::other),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    };
    read.map_err(|source| ClusterRecordUnreadable { path, source })
}

/// What is recorded beside what the member says.
#[derive(Clone, Debug)]
pub struct RecordInput {
    /// Where.
    pub data: DataDir,
    /// The epoch of the cluster.
    pub epoch: u64,
    /// This server's member name.
    pub member_name: String,
    /// The etcd that runs.
    pub etcd_version: Version,
}

/// Records what a healthy member says, if it has changed. Gives the number of members if that changed.
pub(crate) fn save_if_changed(input: &RecordInput, facts: &MemberFacts) -> Result<Option<usize>, WriteError> {
    let before = load(&input.data).ok().flatten();
    let now = ClusterRecord {
        cluster_id: facts.cluster_id.clone(),
        epoch: input.epoch,
        member_id: facts.member_id.clone(),
        member_name: input.member_name.clone(),
        members: facts.members,
        etcd_version: Some(input.etcd_version),
        ..before.clone().unwrap_or_default()
    };
    if before.as_ref() == Some(&now) {
        return Ok(None);
    }
    if let Some(before) = before.as_ref().filter(|before| before.was_healthy() && before.cluster_id != now.cluster_id) {
        let (was, is) = (&before.cluster_id, &now.cluster_id);
        tracing::error!(
            was,
            is,
            "the data in db/etcd is not of the cluster that this server was in: somebody has put other data there"
        );
    }
    write(&input.data, &now)?;
    Ok((before.map_or(0, |before| before.members) != now.members).then_some(now.members))
}

/// Whose snapshots those of this server are, which is called `node`; `present` is what it is now, if that is known from elsewhere.
#[must_use]
pub fn owner(data: &DataDir, node: &str, present: Option<Incarnation>) -> Owner {
    match load(data) {
        Ok(Some(record)) => {
            let had_others = record.had_unknown_lives();
            let remembered = record.life();
            Owner::new(node, record.lineage.into_iter().chain([remembered]).chain(present), had_others)
        }
        // Nothing is known but the name.
        Ok(None) | Err(_) => Owner::named(node),
    }
}

/// Writes the file, with the lineage that follows from what it said before.
pub(crate) fn write(data: &DataDir, record: &ClusterRecord) -> Result<(), WriteError> {
    let record = record.clone().after(load(data).ok().flatten().as_ref());
    let mut text = serde_json::to_vec_pretty(&record).unwrap_or_default();
    text.push(b'\n');
    durable::write_file(&data.cluster(), &text, PRIVATE_FILE)
}
