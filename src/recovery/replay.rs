//! Lets etcd apply a complete log, in a copy, as the only remaining member (`--force-new-cluster`).
//!
//! Never in place: a forced etcd would report to running members that they were removed. Never with a shorter log: etcd
//! drops entries that this member did not know to be committed, although the majority may have acknowledged them to a
//! client, so all entries in the log of the copy are marked as committed first.

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
use crate::recovery::isolated_etcd::{IsolatedEtcd, IsolatedEtcdError, IsolatedProgram, health_timeout};

const CHUNK: usize = 4 << 20;

/// Why the log could not be applied.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A file there is not as expected.
    #[error(transparent)]
    Held(#[from] DirError),
    #[error("no write-ahead log in {}", .0.display())]
    WalMissing(PathBuf),
    /// etcd does not run on the copy.
    #[error("etcd cannot apply the log of this member")]
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
            Self::Read { .. } => Some("check the kernel log (dmesg) for disk errors".into()),
            // The entries of the log are lost then, but not the database.
            Self::WalMissing(_) | Self::IsolatedEtcd(IsolatedEtcdError::Ended { .. }) => Some(
                "restore the newest snapshot (quorate etcd-snapshot ls), or the database of this member without its log: \
                 --cluster-reset-restore-path=…/server/db/etcd/member/snap/db --skip-hash-check"
                    .into(),
            ),
            Self::IsolatedEtcd(error) => error.next_step(),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplayInfo {
    /// Number of entries that this member did not know to be committed.
    pub uncertain: u64,
}

/// Size of a copy of the data in use, in bytes; 0 if it cannot be determined.
#[must_use]
pub fn size(data: &DataDir) -> u64 {
    data.open_member().ok().flatten().map_or(0, |member| size_of(&member))
}

/// Size of the files that etcd reads in a `member` directory, in bytes.
#[must_use]
pub fn size_of(member: &DirHandle) -> u64 {
    let files = files(member).unwrap_or_default();
    let length = |(dir, name): &(DirHandle, OsString)| dir.stat(name).ok().flatten().map_or(0, |found| found.len());
    files.iter().map(length).sum()
}

/// Copies `member` to `copy`, with all entries of the log marked as committed.
pub fn copy(member: &DirHandle, copy: &Path, progress: &mut dyn FnMut(u64, u64)) -> Result<ReplayInfo, ReplayError> {
    faults::point("restore::replay").on("copy", member.path())?;
    durable::create_dir_all(&copy.join("snap"), PRIVATE_DIR)?;
    durable::create_dir_all(&copy.join("wal"), PRIVATE_DIR)?;
    let all = size_of(member);
    let mut done = 0;
    for (dir, name) in files(member)? {
        // etcd is not running, so it cannot have removed it.
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

/// The files that etcd reads when it starts: database, snapshots and log.
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
        // etcd checks it and reports more.
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

/// There may be a torn record after the end.
fn replace_end(file: &File, path: &Path, at: u64, record: &[u8]) -> Result<(), ReplayError> {
    let found = file.metadata().map_err(|source| ReplayError::Read { path: path.to_path_buf(), source })?;
    durable::set_length(file, path, at)?;
    durable::write_at(file, path, record, at)?;
    durable::set_length(file, path, found.len().max(at + record.len() as u64))?;
    Ok(())
}

/// Runs an etcd on the copy of this size until it has applied its log.
pub async fn run(
    trial: &IsolatedEtcd<'_>,
    program: &IsolatedProgram,
    bytes: u64,
    control: &JobControl,
) -> Result<(), ReplayError> {
    let mut running = trial.start(program).await?;
    // A linearizable read (of the single member) is ordered after all entries.
    let asked = running
        .until(health_timeout(bytes), control, async |client: &mut EtcdClient| {
            client.revision().await.map_err(|why| why.to_string())
        })
        .await;
    let stopped = running.stop().await;
    asked?;
    Ok(stopped?)
}
