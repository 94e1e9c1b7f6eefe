//! Why a reset, restore or undo failed, and the state it left.

use std::path::PathBuf;

use crate::boltdb::membership::MembershipError;
use crate::error::{Code, Diagnostic, ErrorReport, Exit};
use crate::plan::command::Invocation;
use crate::plan::start::KnownSnapshot;
use crate::text::format_bytes;

#[derive(Debug, thiserror::Error)]
pub enum ResetError {
    #[error("there is no etcd data in {}; nothing to reset", etcd.display())]
    NoData {
        etcd: PathBuf,
        /// For the commands that are printed.
        invocation: Box<Invocation>,
        /// The newest snapshot of this server.
        newest: Option<Box<KnownSnapshot>>,
    },
    /// There are data without a log.
    #[error("{} holds etcd data, but no write-ahead log to resume from", .0.display())]
    MissingWal(PathBuf),
    #[error("there is no earlier data to return to: no etcd-old-… with a database in {}", .0.display())]
    NoEarlierData(PathBuf),
    #[error("the new data needs {}, but only {} is free in {}", format_bytes(*needed), format_bytes(*free), dir.display())]
    Space { needed: u64, free: u64, dir: PathBuf },
    #[error(transparent)]
    Membership(#[from] MembershipError),
    /// It failed before anything was changed.
    #[error("the {act} failed, and nothing was changed")]
    Untouched {
        act: &'static str,
        #[source]
        why: ErrorReport,
    },
    #[error("the {act} failed and was rolled back: the previous data is in place")]
    RolledBack {
        act: &'static str,
        #[source]
        why: ErrorReport,
    },
    /// It failed, and could not be undone now.
    #[error("the {act} failed, and rolling it back failed, too: {why}")]
    NotRolledBack {
        act: &'static str,
        why: String,
        #[source]
        source: ErrorReport,
    },
    /// The data are in place, and something after that failed.
    #[error("the {act} has completed with verified data in place, but this could not be recorded")]
    NotRecorded {
        act: &'static str,
        #[source]
        source: ErrorReport,
    },
}

impl Diagnostic for ResetError {
    fn code(&self) -> Code {
        match self {
            Self::NoData { .. } => Code::NoEtcdData,
            Self::MissingWal(_) => Code::DataIncomplete,
            Self::NoEarlierData(_) => Code::NoEarlierData,
            Self::Space { .. } => Code::NoSpace,
            Self::Membership(_) => Code::InvalidMembership,
            Self::Untouched { why, .. } => why.code,
            Self::RolledBack { .. } => Code::ResetRolledBack,
            Self::NotRolledBack { .. } => Code::ResetNotRolledBack,
            Self::NotRecorded { .. } => Code::ResetNotRecorded,
        }
    }

    fn exit(&self) -> Exit {
        match self {
            // Another program replaced the data: a retry does not help.
            Self::RolledBack { why, .. }
            | Self::NotRolledBack { source: why, .. }
            | Self::NotRecorded { source: why, .. }
                if why.exit() == Exit::Refused =>
            {
                Exit::Refused
            }
            Self::Untouched { why, .. } => why.exit(),
            _ => self.code().exit(),
        }
    }

    fn next_step(&self) -> Option<String> {
        Some(match self {
            Self::NoData { invocation, newest: Some(newest), .. } => format!(
                "is the disk of the data mounted? If the data is lost, the newest snapshot is {newest}. Restore it: {}",
                invocation.restore(&newest.name)
            ),
            Self::NoData { invocation, newest: None, .. } => format!(
                "is the disk of the data mounted? No snapshot of this server was found; restore one from elsewhere: {}",
                invocation.restore("PATH")
            ),
            Self::MissingWal(etcd) => format!(
                "restore the newest snapshot (quorate etcd-snapshot ls), or the database there without its log: \
                 --cluster-reset-restore-path={}/member/snap/db --skip-hash-check",
                etcd.display()
            ),
            Self::NoEarlierData(_) => "quorate etcd-snapshot ls shows the snapshots that can be restored".into(),
            Self::Space { dir, .. } => format!("see what uses the space: du -xsh {}/*", dir.display()),
            Self::Membership(_) => return None,
            Self::Untouched { why, .. } => return why.next_step(),
            Self::RolledBack { why, .. } => {
                return why.next_step().or_else(|| Some("fix the cause above, then run the same command again".into()));
            }
            Self::NotRolledBack { source, .. } | Self::NotRecorded { source, .. } if source.exit() == Exit::Refused => {
                return source.next_step();
            }
            Self::NotRolledBack { .. } | Self::NotRecorded { .. } => {
                "fix that, then start the server without the flags: the next start finishes or rolls back from its journal"
                    .into()
            }
        })
    }
}
