//! The cluster record of a data directory: read at the start, updated whenever etcd is healthy, and never replaced by the record of
//! another cluster or when it cannot be read.

use std::path::PathBuf;

use crate::clock;
use crate::cluster::record::{ClusterRecord, MemberIdentity, RecordError, ServerRecord};
use crate::datadir::DataDir;
use crate::durable::WriteError;
use crate::error::{Code, Diagnostic};
use crate::etcd::client::MemberFacts;
use crate::plan::owner::Owner;
use crate::version::Version;

/// The file is there and cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}, the record of this data directory's cluster", path.display())]
pub struct ClusterRecordUnreadable {
    path: PathBuf,
    source: RecordError,
}

impl Diagnostic for ClusterRecordUnreadable {
    fn code(&self) -> Code {
        Code::ClusterRecordUnreadable
    }

    fn next_step(&self) -> Option<String> {
        if matches!(self.source, RecordError::NewerVersion { .. }) {
            return Some("run the newer quorate that wrote it".into());
        }
        let path = self.path.display();
        Some(format!(
            "restore it from a backup. If db/etcd/member is intact, `mv {path} {path}.bad` also lets it start; without that data, a start would then begin an empty cluster"
        ))
    }
}

/// etcd is healthy on the data of another cluster than the recorded one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the data in db/etcd is of cluster {found}, but this server was in cluster {recorded}: the data was replaced")]
pub struct WrongCluster {
    pub recorded: String,
    /// The cluster id that etcd reports.
    pub found: String,
    path: PathBuf,
}

impl Diagnostic for WrongCluster {
    fn code(&self) -> Code {
        Code::WrongCluster
    }

    fn next_step(&self) -> Option<String> {
        let path = self.path.display();
        Some(format!(
            "bring back this server's own db/etcd; or, if this data is what you want, `mv {path} {path}.old` and start it again"
        ))
    }
}

/// Why the record was not written.
#[derive(Debug, thiserror::Error)]
pub enum RecordWriteError {
    /// What is there cannot be read, and is not replaced.
    #[error(transparent)]
    Unreadable(#[from] ClusterRecordUnreadable),
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl Diagnostic for RecordWriteError {
    fn code(&self) -> Code {
        match self {
            Self::Unreadable(error) => error.code(),
            Self::Write(error) => error.code(),
        }
    }

    fn next_step(&self) -> Option<String> {
        match self {
            Self::Unreadable(error) => error.next_step(),
            Self::Write(error) => error.next_step(),
        }
    }
}

/// What became of the record when etcd was healthy.
#[derive(Debug)]
pub enum RecordOutcome {
    Unchanged,
    /// It was written; with the number of members, if that has changed.
    Saved {
        new_member_count: Option<usize>,
    },
    /// etcd serves another cluster. Nothing was written; etcd must be stopped.
    WrongCluster(WrongCluster),
    /// What is there cannot be read. Nothing was written.
    Unreadable(ClusterRecordUnreadable),
}

/// The recorded facts that the member does not report.
#[derive(Clone, Debug)]
pub struct RecordInput {
    pub data: DataDir,
    pub epoch: u64,
    pub member_name: String,
    pub etcd_version: Version,
}

/// Reads the file, if it is there.
///
/// # Errors
/// If it is there and cannot be used: what it would have protected is then unknown.
pub fn load(data: &DataDir) -> Result<Option<ClusterRecord>, ClusterRecordUnreadable> {
    let path = data.cluster();
    ClusterRecord::read(&path).map_err(|source| ClusterRecordUnreadable { path, source })
}

/// Records what a healthy member says, if it has changed.
pub fn save_if_changed(input: &RecordInput, facts: &MemberFacts) -> Result<RecordOutcome, WriteError> {
    let before = match load(&input.data) {
        Ok(before) => before,
        Err(error) => return Ok(RecordOutcome::Unreadable(error)),
    };
    if let Err(wrong) = compare(&input.data, before.as_ref(), &facts.cluster_id) {
        return Ok(RecordOutcome::WrongCluster(wrong));
    }
    let mut now = ClusterRecord {
        cluster_id: facts.cluster_id.clone(),
        epoch: input.epoch,
        member_id: facts.member_id.clone(),
        member_name: input.member_name.clone(),
        etcd_version: Some(input.etcd_version),
        ..before.clone().unwrap_or_default()
    };
    let listed = facts.member_list.iter().map(|listed| ServerRecord {
        name: listed.name.clone(),
        member_id: listed.id.clone(),
        peer_urls: listed.peer_urls.clone(),
        ..ServerRecord::default()
    });
    now.update_servers(listed, clock::unix_seconds(clock::now()));
    if before.as_ref() == Some(&now) {
        return Ok(RecordOutcome::Unchanged);
    }
    now.after(before.as_ref()).write(&input.data.cluster())?;
    let count = facts.member_list.len();
    let is_new = before.map_or(0, |before| before.member_count()) != count;
    Ok(RecordOutcome::Saved { new_member_count: is_new.then_some(count) })
}

/// Whether the cluster that etcd serves is the recorded one. A record that cannot be read says nothing against it.
pub fn check(data: &DataDir, cluster_id: &str) -> Result<(), WrongCluster> {
    compare(data, load(data).ok().flatten().as_ref(), cluster_id)
}

fn compare(data: &DataDir, recorded: Option<&ClusterRecord>, found: &str) -> Result<(), WrongCluster> {
    match recorded.filter(|recorded| recorded.was_healthy() && recorded.cluster_id != found) {
        Some(recorded) => {
            let (recorded, found) = (recorded.cluster_id.clone(), found.to_owned());
            Err(WrongCluster { recorded, found, path: data.cluster() })
        }
        None => Ok(()),
    }
}

/// Whose snapshots those of this server are, which is called `node`; `present` is its identity, if that is known from elsewhere.
#[must_use]
pub fn owner(data: &DataDir, node: &str, present: Option<MemberIdentity>) -> Owner {
    match load(data) {
        Ok(Some(record)) => {
            let had_others = record.had_unknown_identities();
            let recorded = record.identity();
            Owner::new(node, record.lineage.into_iter().chain([recorded]).chain(present), had_others)
        }
        // Only the name is known.
        Ok(None) | Err(_) => Owner::named(node),
    }
}

/// Writes the record of the cluster that is about to begin, or has just been put in place, with the lineage that follows from the record
/// before it.
///
/// # Errors
/// If the record before it cannot be read, or this one cannot be written.
pub(crate) fn write(data: &DataDir, record: &ClusterRecord) -> Result<(), RecordWriteError> {
    let record = record.clone().after(load(data)?.as_ref());
    Ok(record.write(&data.cluster())?)
}
