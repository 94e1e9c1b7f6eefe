//! Why there is no snapshot.

use std::io;
use std::path::PathBuf;

use crate::durable::WriteError;
use crate::error::{Code, Diagnostic, is_disk_full};
use crate::etcd::client::ClientError;
use crate::snapshot::save::space::DiskSpaceError;
use crate::snapshot::verify::VerifyError;
use crate::text::format_bytes;

#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// There is no space, or writing failed.
    #[error(transparent)]
    DiskSpace(#[from] DiskSpaceError),
    #[error("the snapshot stream of etcd failed after {}", format_bytes(*after))]
    Stream { after: u64, source: ClientError },
    /// The received bytes do not match etcd's hash.
    #[error("the snapshot from etcd does not match the SHA-256 that etcd sent")]
    Hash,
    /// etcd ended the stream too early.
    #[error("the snapshot stream of etcd ended after {}, without its SHA-256", format_bytes(*.0))]
    Truncated(u64),
    /// What was saved is not good.
    #[error("the snapshot was discarded, because the database from etcd is corrupt")]
    Invalid(#[source] VerifyError),
    /// The compressed file does not decompress to the input.
    #[error("the compressed snapshot does not match its source")]
    NotReadBack(#[source] io::Error),
    /// The snapshot directory cannot be used.
    #[error("cannot keep snapshots in {}: {why}", dir.display())]
    Unusable { dir: PathBuf, why: &'static str },
    /// Other users could replace snapshots there.
    #[error("refusing to keep snapshots in {}: {why}, who could replace what is restored later", dir.display())]
    Exposed { dir: PathBuf, why: String },
    #[error(transparent)]
    Write(#[from] WriteError),
    /// It failed at the end, and its file cannot be removed.
    #[error("the snapshot failed, and removing {} failed, too", path.display())]
    Leftover {
        path: PathBuf,
        #[source]
        why: Box<SaveError>,
    },
    #[error("the snapshot was cancelled; no files are left")]
    Cancelled,
    #[error("internal error: a worker thread of the snapshot panicked")]
    WorkerPanicked,
}

impl Diagnostic for SaveError {
    fn code(&self) -> Code {
        match self {
            Self::DiskSpace(error) => error.code(),
            Self::Stream { .. } | Self::Truncated(_) | Self::Hash => Code::SnapshotStreamFailed,
            Self::Invalid(_) => Code::SnapshotCorrupt,
            Self::NotReadBack(_) => Code::SnapshotNotReadBack,
            Self::Unusable { .. } => Code::SnapshotDirUnusable,
            Self::Exposed { .. } => Code::SnapshotDirExposed,
            Self::Write(error) => error.code(),
            Self::Leftover { .. } => Code::SnapshotLeftover,
            Self::Cancelled => Code::Cancelled,
            Self::WorkerPanicked => Code::InternalError,
        }
    }

    fn is_out_of_space(&self) -> bool {
        match self {
            Self::DiskSpace(DiskSpaceError::Space(_)) => true,
            Self::DiskSpace(DiskSpaceError::Write(error)) | Self::Write(error) => is_disk_full(&error.source),
            _ => false,
        }
    }

    fn next_step(&self) -> Option<String> {
        match self {
            Self::DiskSpace(error) => error.next_step(),
            Self::Stream { .. } | Self::Truncated(_) | Self::Hash | Self::WorkerPanicked | Self::Cancelled => {
                Some("see quorate status, and try again".into())
            }
            Self::Invalid(_) => {
                Some("this member's data may be damaged: quorate status, and journalctl -u quorate-server".into())
            }
            Self::NotReadBack(_) => Some("check the kernel log (dmesg) for disk errors, and try again".into()),
            Self::Exposed { dir, .. } => {
                let us = nix::unistd::geteuid();
                Some(format!("chown {us} {0} && chmod go-w {0}, or choose another etcd-snapshot-dir", dir.display()))
            }
            Self::Leftover { path, .. } => {
                Some(format!("check the kernel log (dmesg) for disk errors; then: rm {}", path.display()))
            }
            Self::Unusable { .. } => Some("create the directory, or choose another one".into()),
            Self::Write(error) => error.next_step(),
        }
    }
}
