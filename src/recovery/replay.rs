//! Lets etcd read a log to its end, in a copy, as the only member that is left (`--force-new-cluster`).
//!
//! Never in place: an etcd that is forced there would tell members that are still alive that they were removed. And never with less than
//! the log holds: etcd drops what this member did not know to be committed, although the majority may have acknowledged it to a client; so
//! the copy's log is first made to say that all of it is.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::boltdb::wal::{self, HardState, WalTail};
use crate::datadir::DataDir;
use crate::durable::{self, DirError, DirHandle, OnPath as _, PRIVATE_DIR, PRIVATE_FILE, WriteError};
use crate::error::{Code, Diagnostic};
use crate::etcd::client::EtcdClient;
use crate::faults;
use crate::job::JobControl;
use crate::recovery::isolated_etcd::{IsolatedEtcd, IsolatedEtcdError, Program, health_timeout};

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
    /// Something there is not what it should be, or is not followed.
    #[error(transparent)]
    Held(#[from] DirError),
    /// There is no log.
    #[error("there is no log in {}", .0.display())]
    WalMissing(PathBuf),
    /// etcd does not run on the copy.
    #[error("etcd cannot read the log of this member to its end")]
    IsolatedEtcd(#[from] IsolatedEtcdError),
}

impl Diagnostic for ReplayError {
    fn code(&self) -> Code {
        match self {
            Self::Write(error) => error.code(),
            Self::Held(error) => error.code(),
            Self::WalMissing(_) => Code::WalMissing,
            Self::IsolatedEtcd(error) => error.code(),
            Self::Read { .. } => Code::ReadFailed,
        }
    }

    fn next_step(&self) -> Option<String> {
        match self {
            Self::Write(error) => error.next_step(),
            Self::Held(error) => error.next_step(),
            Self::Read { .. } => Some("see dmesg for what the disk says".into()),
            // What the log would have added is lost then; what the database holds is not.
            Self::WalMissing(_) | Self::IsolatedEtcd(IsolatedEtcdError::Ended { .. }) => Some(
                "restore the newest snapshot (quorate etcd-snapshot ls), or what the database of this member holds without its log: \
                 --cluster-reset-restore-path=…/server/db/etcd/member/snap/db --skip-hash-check"
                    .into(),
            ),
            Self::IsolatedEtcd(error) => error.next_step(),
        }
    }
}

/// What was found in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplayInfo {
    /// Entries that were in the log, and that this member did not know to be committed.
    pub uncertain: u64,
}

/// Bytes that a copy of the data in use will take; 0 if they cannot be looked at.
#[must_use]
pub fn size(data: &DataDir) -> u64 {
    data.open_member().ok().flatten().map_or(0, |member| size_of(&member))
}

/// Bytes of what etcd reads in a `member` directory.
#[must_use]
pub fn size_of(member: &DirHandle) -> u64 {
    let files = files(member).unwrap_or_default();
    let length = |(dir, name): &(DirHandle, OsString)| dir.stat(name).ok().flatten().map_or(0, |found| found.len());
    files.iter().map(length).sum()
}

/// Copies `member` to `copy`, with a log of which all is committed.
///
/// # Errors
/// If it cannot be read or written.
pub fn copy(member: &DirHandle, copy: &Path, progress: &mut dyn FnMut(u64, u64)) -> Result<ReplayInfo, ReplayError> {
    faults::point("restore::replay").on("copy", member.path())?;
    durable::create_dir_all(&copy.join("snap"), PRIVATE_DIR)?;
    durable::create_dir_all(&copy.join("wal"), PRIVATE_DIR)?;
    let all = size_of(member);
    let mut done = 0;
    for (dir, name) in files(member)? {
        // etcd may have removed it meanwhile only if it ran, which it does not.
        let path = dir.path().join(&name);
        let source = dir.file(&name)?.ok_or_else(|| DirError::Replaced(path.clone()))?;
        let size = source.metadata().on("look at", &path)?.len();
        if dir.path().ends_with("wal") && size > wal::MAX_SEGMENT_BYTES {
            return Err(DirError::Large { path, size, limit: wal::MAX_SEGMENT_BYTES }.into());
        }
        let to = copy.join(dir.path().file_name().unwrap_or_default()).join(&name);
        let target = durable::create(&to, PRIVATE_FILE)?;
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
    mark_all_committed(&copy.join("wal"))
}

/// What etcd reads when it starts: the database, the snapshots and the log.
fn files(member: &DirHandle) -> Result<Vec<(DirHandle, OsString)>, DirError> {
    let is_wanted = |name: &OsString| {
        let name = name.to_string_lossy();
        name == "db" || [".wal", ".snap", ".snap.db"].iter().any(|ending| name.ends_with(ending))
    };
    let mut found = Vec::new();
    for part in ["snap", "wal"] {
        let missing = || DirError::Missing(member.path().join(part));
        let dir = member.open_dir(part)?.ok_or_else(missing)?;
        for name in dir.names()?.into_iter().filter(is_wanted) {
            found.push((dir.reopen()?, name));
        }
    }
    Ok(found)
}

fn mark_all_committed(log: &Path) -> Result<ReplayInfo, ReplayError> {
    let unreadable = |path: &Path| {
        let path = path.to_path_buf();
        move |source| ReplayError::Read { path, source }
    };
    let entries = fs::read_dir(log).map_err(unreadable(log))?;
    let segments =
        entries.flatten().map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "wal"));
    let Some(last) = segments.max() else { return Err(ReplayError::WalMissing(log.to_path_buf())) };
    let file = durable::open_read_write(&last)?;
    let end = match WalTail::read(io::BufReader::new(&file)) {
        Ok(end) => end,
        // etcd judges it, and says more.
        Err(error) if error.kind() == ErrorKind::InvalidData => return Ok(ReplayInfo::default()),
        Err(source) => return Err(unreadable(&last)(source)),
    };
    let before =
        wal::first_index(&last.file_name().unwrap_or_default().to_string_lossy()).map(|first| first.saturating_sub(1));
    let (Some(state), Some(newest)) = (end.state, end.last_entry.or(before)) else { return Ok(ReplayInfo::default()) };
    if newest <= state.commit {
        return Ok(ReplayInfo::default());
    }
    let record = end.append_hard_state(HardState { commit: newest, ..state });
    replace_end(&file, &last, end.at, &record)?;
    Ok(ReplayInfo { uncertain: newest - state.commit })
}

/// What is behind the end may be half a record.
fn replace_end(file: &File, path: &Path, at: u64, record: &[u8]) -> Result<(), ReplayError> {
    let found = file.metadata().map_err(|source| ReplayError::Read { path: path.to_path_buf(), source })?;
    durable::set_length(file, path, at)?;
    durable::write_at(file, path, record, at)?;
    durable::set_length(file, path, found.len().max(at + record.len() as u64))?;
    Ok(())
}

/// Runs an etcd on the copy, of so many bytes, until it has applied all of its log.
///
/// # Errors
/// If it does not come to its end.
pub async fn run(
    trial: &IsolatedEtcd<'_>,
    program: &Program,
    bytes: u64,
    control: &JobControl,
) -> Result<(), ReplayError> {
    let mut running = trial.start(program).await?;
    // A read that all agree on, and all are one, comes after everything before it.
    let asked = running
        .until(health_timeout(bytes), control, async |client: &mut EtcdClient| {
            client.revision().await.map_err(|why| why.to_string())
        })
        .await;
    let stopped = running.stop().await;
    asked?;
    Ok(stopped?)
}
