//! Why a reset, restore or undoing of one was not done, and what is left of it.

use std::path::PathBuf;

use crate::boltdb::membership::MembershipError;
use crate::error::{Exit, Explained, Told};
use crate::plan::space::human;

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub enum ResetError {
    /// There are no data.
    #[error("there are no data of etcd's in {}, so there is nothing to reset", .0.display())]
    NoData(PathBuf),
    /// There are data without a log.
    #[error("{} holds data of etcd's without a log to go on from", .0.display())]
    Torn(PathBuf),
    /// Nothing was set aside.
    #[error("there are no data to go back to: no etcd-old-… in {}", .0.display())]
    NothingAside(PathBuf),
    /// There is no room.
    #[error("the new data need {}, and {} are free in {}", human(*needed), human(*free), dir.display())]
    Space {
        /// Bytes.
        needed: u64,
        /// Bytes.
        free: u64,
        /// Where.
        dir: PathBuf,
    },
    /// The member cannot be one.
    #[error(transparent)]
    Membership(#[from] MembershipError),
    /// It failed before anything was changed.
    #[error("the {act} was not done, and nothing was changed")]
    Untouched {
        /// What.
        act: &'static str,
        /// Why.
        #[source]
        why: Told,
    },
    /// It failed after that.
    #[error("the {act} failed and was undone: everything is as it was before")]
    Undone {
        /// What.
        act: &'static str,
        /// Why.
        #[source]
        why: Told,
    },
    /// It failed, and could not be undone now.
    #[error("the {act} failed, and cannot be undone now: {why}")]
    NotUndone {
        /// What.
        act: &'static str,
        /// Why it failed.
        why: String,
        /// Why it cannot be undone.
        #[source]
        source: Told,
    },
    /// The data are in place, and something after that failed.
    #[error("the {act} is done, and its data are in place and good, but this could not be written down")]
    NotFinished {
        /// What.
        act: &'static str,
        /// Why.
        #[source]
        source: Told,
    },
}

impl Explained for ResetError {
    fn exit(&self) -> Exit {
        match self {
            Self::NoData(_) | Self::NothingAside(_) => Exit::NotFound,
            Self::Torn(_) => Exit::Refused,
            Self::Untouched { why, .. } => why.exit(),
            _ => Exit::Failed,
        }
    }

    fn next(&self) -> Option<String> {
        Some(match self {
            Self::NoData(_) => {
                "to restore a snapshot, name it with --cluster-reset-restore-path; is the disk of the data mounted?"
                    .into()
            }
            Self::Torn(etcd) => format!(
                "restore the newest snapshot (quorate etcd-snapshot ls), or what the database there holds: \
                 --cluster-reset-restore-path={}/member/snap/db --skip-hash-check",
                etcd.display()
            ),
            Self::NothingAside(_) => "quorate etcd-snapshot ls shows the snapshots that can be restored".into(),
            Self::Space { dir, .. } => format!("see what takes the space: du -xsh {}/*", dir.display()),
            Self::Membership(_) => return None,
            Self::Untouched { why, .. } => return why.next(),
            Self::Undone { why, .. } => {
                return why.next().or_else(|| Some("the reason is above; mend it and try again".into()));
            }
            Self::NotUndone { .. } | Self::NotFinished { .. } => {
                "mend that, then start the server without the flags: the next start goes on with it from its journal"
                    .into()
            }
        })
    }
}
