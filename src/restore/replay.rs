//! Lets etcd read a log to its end, in a copy, as the only member that is left (`--force-new-cluster`).
//!
//! Never in place: an etcd that is forced there would tell members that are still alive that they were removed. And never with less than
//! the log holds: etcd drops what this member did not know to be committed, although the majority may have acknowledged it to a client; so
//! the copy's log is first made to say that all of it is.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::trial::{Program, Trial, TrialError, patience};
use crate::boltdb::wal::{self, End, HardState};
use crate::durable::{self, PRIVATE, PRIVATE_DIR, WriteError};
use crate::error::{Exit, Explained};
use crate::etcd::client::EtcdClient;
use crate::host;
use crate::snapshot::aside::Course;

/// Bytes that are copied at a time.
const CHUNK: usize = 4 << 20;

/// Why the log was not read to its end.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// Something there cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// What.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The copy cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// There is no log.
    #[error("there is no log in {}", .0.display())]
    NoLog(PathBuf),
    /// etcd does not run on the copy.
    #[error("etcd cannot read the log of this member to its end")]
    Trial(#[from] TrialError),
}

impl Explained for ReplayError {
    fn exit(&self) -> Exit {
        match self {
            Self::Write(error) => error.exit(),
            Self::NoLog(_) => Exit::Refused,
            Self::Trial(error) => error.exit(),
            Self::Read { .. } => Exit::Failed,
        }
    }

    fn next(&self) -> Option<String> {
        match self {
            Self::Write(error) => error.next(),
            Self::Read { .. } => Some("see dmesg for what the disk says".into()),
            // What the log would have added is lost then; what the database holds is not.
            Self::NoLog(_) | Self::Trial(TrialError::Ended { .. }) => Some(
                "restore the newest snapshot (quorate etcd-snapshot ls), or what the database of this member holds without its log: \
                 --cluster-reset-restore-path=…/server/db/etcd/member/snap/db --skip-hash-check"
                    .into(),
            ),
            Self::Trial(error) => error.next(),
        }
    }
}

/// What was found in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Entries that were in the log, and that this member did not know to be committed.
    pub uncertain: u64,
}

/// Bytes that the copy will take.
#[must_use]
pub fn size(member: &Path) -> u64 {
    files(member).unwrap_or_default().iter().filter_map(|path| fs::metadata(path).ok()).map(|found| found.len()).sum()
}

/// Copies `member` to `copy`, with a log of which all is committed.
///
/// # Errors
/// If it cannot be read or written.
pub fn copy(member: &Path, copy: &Path, progress: &mut dyn FnMut(u64, u64)) -> Result<Kept, ReplayError> {
    durable::create_dir_all(&copy.join("snap"), PRIVATE_DIR)?;
    durable::create_dir_all(&copy.join("wal"), PRIVATE_DIR)?;
    let all = size(member);
    let mut done = 0;
    for from in files(member)? {
        let unreadable = |source| ReplayError::Read { path: from.clone(), source };
        let to = copy.join(from.strip_prefix(member).unwrap_or(&from));
        let (source, target) = (host::open_regular(&from).map_err(unreadable)?, durable::create(&to, PRIVATE)?);
        let mut at = 0;
        loop {
            let copied = durable::copy_range(&source, &target, at, CHUNK);
            let copied = copied.map_err(|source| WriteError { act: "copy to", path: to.clone(), source })?;
            if copied == 0 {
                break;
            }
            at += copied as u64;
            progress(done + at, all);
        }
        done += at;
    }
    commit_everything(&copy.join("wal"))
}

/// What etcd reads when it starts: the database, the snapshots and the log.
fn files(member: &Path) -> Result<Vec<PathBuf>, ReplayError> {
    let mut found = Vec::new();
    for dir in [member.join("snap"), member.join("wal")] {
        let entries = fs::read_dir(&dir).map_err(|source| ReplayError::Read { path: dir.clone(), source })?;
        let is_wanted = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name == "db" || [".wal", ".snap", ".snap.db"].iter().any(|ending| name.ends_with(ending))
        };
        found.extend(entries.flatten().map(|entry| entry.path()).filter(is_wanted));
    }
    found.sort();
    Ok(found)
}

fn commit_everything(log: &Path) -> Result<Kept, ReplayError> {
    let unreadable = |path: &Path| {
        let path = path.to_path_buf();
        move |source| ReplayError::Read { path, source }
    };
    let entries = fs::read_dir(log).map_err(unreadable(log))?;
    let segments =
        entries.flatten().map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "wal"));
    let Some(last) = segments.max() else { return Err(ReplayError::NoLog(log.to_path_buf())) };
    let file = durable::open_to_change(&last)?;
    let end = match End::read(io::BufReader::new(&file)) {
        Ok(end) => end,
        // etcd judges it, and says more.
        Err(error) if error.kind() == ErrorKind::InvalidData => return Ok(Kept::default()),
        Err(source) => return Err(unreadable(&last)(source)),
    };
    let before =
        wal::first_index(&last.file_name().unwrap_or_default().to_string_lossy()).map(|first| first.saturating_sub(1));
    let (Some(state), Some(newest)) = (end.state, end.last_entry.or(before)) else { return Ok(Kept::default()) };
    if newest <= state.commit {
        return Ok(Kept::default());
    }
    let record = end.go_on_with(HardState { commit: newest, ..state });
    replace_end(&file, &last, end.at, &record)?;
    Ok(Kept { uncertain: newest - state.commit })
}

/// What is behind the end may be half a record.
fn replace_end(file: &File, path: &Path, at: u64, record: &[u8]) -> Result<(), ReplayError> {
    let found = file.metadata().map_err(|source| ReplayError::Read { path: path.to_path_buf(), source })?;
    durable::set_length(file, path, at)?;
    durable::write_at(file, path, record, at)?;
    durable::set_length(file, path, found.len().max(at + record.len() as u64))?;
    Ok(())
}

/// Runs an etcd on the copy until it has applied all of its log.
///
/// # Errors
/// If it does not come to its end.
pub async fn run(trial: &Trial<'_>, program: &Program, course: &Course) -> Result<(), ReplayError> {
    let bytes = size(&trial.dir.join("member"));
    let mut running = trial.start(program)?;
    // A read that all agree on, and all are one, comes after everything before it.
    let asked = running
        .until(patience(bytes), course, async |client: &mut EtcdClient| {
            client.revision().await.map_err(|why| why.to_string())
        })
        .await;
    let stopped = running.stop().await;
    asked?;
    Ok(stopped?)
}
