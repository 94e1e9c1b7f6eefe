//! Verifies a snapshot: its trailing hash, the structure of the database, and everything that `inspect` checks. One
//! thread computes the hash while another walks the pages.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use aws_lc_rs::digest;
use aws_lc_rs::digest::{Context, Digest};

use crate::boltdb::database::Length;
use crate::boltdb::page::{Corruption, ReadError};
use crate::compression::Compression;
use crate::error::{Code, Diagnostic};
use crate::snapshot::file::{self, OpenError, SnapshotFile};
use crate::snapshot::hash;
use crate::snapshot::inspect::{self, Inspection};

/// Why a snapshot is not good.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// It cannot be opened or unpacked.
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("{} is corrupt: {finding}{}", path.display(), hash_note(*.hash_is_right))]
    Corrupt {
        path: PathBuf,
        /// The first thing that is wrong.
        finding: Corruption,
        /// The result of the trailing hash.
        hash_is_right: Option<bool>,
    },
    /// A raw copy of `member/snap/db`.
    #[error("{} has no trailing SHA-256, so it cannot be verified completely", .0.display())]
    NoHash(PathBuf),
    #[error("the verification was cancelled")]
    Cancelled,
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
}

impl VerifyError {
    /// Converts an error of reading the database at `path`; `hash_is_right` is the result of its hash.
    pub(crate) fn of(error: ReadError, path: &Path, hash_is_right: Option<bool>) -> Self {
        let path = path.to_path_buf();
        match error {
            ReadError::Damaged(finding) => Self::Corrupt { path, finding, hash_is_right },
            ReadError::Io { source, .. } => Self::Read { path, source },
            ReadError::Cancelled => Self::Cancelled,
        }
    }
}

fn hash_note(hash_is_right: Option<bool>) -> &'static str {
    match hash_is_right {
        Some(true) => " (although its SHA-256 is correct: it was damaged before it was saved)",
        Some(false) => " (and its SHA-256 does not match the database)",
        None => "",
    }
}

impl Diagnostic for VerifyError {
    fn code(&self) -> Code {
        match self {
            Self::Open(error) => error.code(),
            Self::Corrupt { .. } => Code::SnapshotCorrupt,
            Self::NoHash(_) => Code::SnapshotUnhashed,
            Self::Read { .. } => Code::ReadFailed,
            Self::Cancelled => Code::Cancelled,
        }
    }

    fn next_step(&self) -> Option<String> {
        match self {
            Self::Open(error) => error.next_step(),
            Self::Corrupt { path, .. } => Some(file::other_snapshot_hint(path)),
            Self::NoHash(_) => {
                Some("if it is a raw copy of member/snap/db: --skip-hash-check checks everything else".into())
            }
            Self::Read { .. } => Some("check the kernel log (dmesg) for disk errors".into()),
            Self::Cancelled => Some("start it again".into()),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    pub path: PathBuf,
    pub stored_size: u64,
    pub packing: Compression,
    pub database_size: u64,
    /// SHA-256 of the file as stored, hexadecimal.
    pub sha256: String,
    pub inspection: Inspection,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VerifyOptions {
    /// Accept a raw copy of `member/snap/db`, without a hash.
    pub skip_hash: bool,
}

/// Verifies the snapshot at `path`. `progress` receives the bytes done, and the total, and can end it.
pub fn verify(
    path: &Path,
    demands: VerifyOptions,
    progress: &mut inspect::ProgressCallback<'_>,
) -> Result<Verified, VerifyError> {
    let snapshot = file::open(path)?;
    if snapshot.trailer.is_none() && !demands.skip_hash {
        return Err(VerifyError::NoHash(path.to_path_buf()));
    }
    let unreadable = |source| VerifyError::Read { path: path.to_path_buf(), source };
    let (hashed, is_cancelled) = (AtomicU64::new(0), AtomicBool::new(false));
    let (hashes, inspected) = std::thread::scope(|scope| {
        let hashes = scope.spawn(|| hash(&snapshot, &hashed, &is_cancelled));
        let length = if snapshot.trailer.is_some() { Length::Exact } else { Length::AtLeast };
        let size = snapshot.database_size;
        let inspected = inspect::inspect(&snapshot.database, size, length, &mut |done, all| {
            // The hash is computed in parallel.
            let walked = size.saturating_mul(done) / all.max(1);
            let flow = progress(walked.min(hashed.load(Ordering::Relaxed)), size);
            is_cancelled.fetch_or(flow.is_break(), Ordering::Relaxed);
            flow
        });
        (hashes.join(), inspected)
    });
    if matches!(inspected, Err(ReadError::Cancelled)) {
        return Err(VerifyError::Cancelled);
    }
    let hashes = hashes.unwrap_or_else(|_| Err(io::Error::other("cannot compute the hash"))).map_err(unreadable)?;
    let hash_is_right = snapshot.trailer.map(|trailer| hashes.database.as_ref() == trailer);
    let inspection = inspected.map_err(|error| VerifyError::of(error, path, hash_is_right))?;
    if hash_is_right == Some(false) {
        let finding = Corruption::new(snapshot.database_size, "the trailing SHA-256 does not match the database");
        return Err(VerifyError::Corrupt { path: path.to_path_buf(), finding, hash_is_right: None });
    }
    Ok(Verified {
        path: path.to_path_buf(),
        stored_size: snapshot.stored_size,
        packing: snapshot.packing,
        database_size: snapshot.database_size,
        sha256: hex::encode(hashes.stored.as_ref()),
        inspection,
    })
}

struct Hashes {
    database: Digest,
    stored: Digest,
}

fn hash(snapshot: &SnapshotFile, done: &AtomicU64, is_cancelled: &AtomicBool) -> io::Result<Hashes> {
    let mut context = Context::new(&digest::SHA256);
    hash::feed(&mut context, &snapshot.database, snapshot.database_size, |at| {
        done.store(at, Ordering::Relaxed);
        !is_cancelled.load(Ordering::Relaxed)
    })?;
    let database = context.clone().finish();
    let stored = if snapshot.packing == Compression::Raw {
        context.update(snapshot.trailer.as_ref().map_or(&[][..], |trailer| &trailer[..]));
        context.finish()
    } else {
        let mut context = Context::new(&digest::SHA256);
        hash::feed(&mut context, &File::open(&snapshot.path)?, snapshot.stored_size, |_| {
            !is_cancelled.load(Ordering::Relaxed)
        })?;
        context.finish()
    };
    Ok(Hashes { database, stored })
}
