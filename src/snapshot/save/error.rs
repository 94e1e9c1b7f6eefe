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
    /// There is no room, or no way to write it.
    #[error(transparent)]
    Pace(#[from] DiskSpaceError),
    #[error("etcd's snapshot broke off after {}", format_bytes(*after))]
    Stream { after: u64, source: ClientError },
    /// What came is not what etcd sent.
    #[error("what etcd sent does not have the SHA-256 that etcd gives for it")]
    Hash,
    /// etcd ended the stream too early.
    #[error("etcd's snapshot ended after {}, without its SHA-256", format_bytes(*.0))]
    Truncated(u64),
    /// What was saved is not good.
    #[error("the snapshot was not kept, because what etcd sent is not good")]
    Invalid(#[source] VerifyError),
    /// What was packed is not what was to be packed.
    #[error("the packed snapshot is not what was to be packed")]
    NotReadBack(#[source] io::Error),
    /// The place for it cannot be used.
    #[error("snapshots cannot be kept in {}: {why}", dir.display())]
    Unusable { dir: PathBuf, why: &'static str },
    /// Others could exchange what is kept there.
    #[error("snapshots are not kept in {}: {why}, who could exchange what is restored later", dir.display())]
    Exposed { dir: PathBuf, why: String },
    #[error(transparent)]
    Write(#[from] WriteError),
    /// It failed at the end, and what was made cannot be removed.
    #[error("the snapshot failed, and {} could not be removed", path.display())]
    Leftover {
        path: PathBuf,
        #[source]
        why: Box<SaveError>,
    },
    #[error("the snapshot was broken off, and nothing of it is left")]
    Cancelled,
    #[error("a thread of the snapshot was lost")]
    WorkerPanicked,
}

impl Diagnostic for SaveError {
    fn code(&self) -> Code {
        match self {
            Self::Pace(error) => error.code(),
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
            Self::Pace(DiskSpaceError::Space { .. }) => true,
            Self::Pace(DiskSpaceError::Write(error)) | Self::Write(error) => is_disk_full(&error.source),
            _ => false,
        }
    }

    fn next_step(&self) -> Option<String> {
        match self {
            Self::Pace(error) => error.next_step(),
            Self::Stream { .. } | Self::Truncated(_) | Self::Hash | Self::WorkerPanicked | Self::Cancelled => {
                Some("see quorate status, and try again".into())
            }
            Self::Invalid(_) => {
                Some("this member's data may be damaged: quorate status, and journalctl -u quorate-server".into())
            }
            Self::NotReadBack(_) => Some("see dmesg for what the disk says, and try again".into()),
            Self::Exposed { dir, .. } => {
                let us = nix::unistd::geteuid();
                Some(format!("chown {us} {0} && chmod go-w {0}, or choose another etcd-snapshot-dir", dir.display()))
            }
            Self::Leftover { path, .. } => {
                Some(format!("see dmesg for what the disk says; then: rm {}", path.display()))
            }
            Self::Unusable { .. } => Some("make the directory, or choose another one".into()),
            Self::Write(error) => error.next_step(),
        }
    }
}
