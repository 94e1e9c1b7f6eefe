//! Why a snapshot is not found.

use std::path::PathBuf;
use std::time::Duration;

use crate::error::{Code, Diagnostic};
use crate::plan::select::LATEST;

pub(super) const LIST: &str = "quorate etcd-snapshot ls";

/// The same in object storage alone.
pub(super) const LIST_S3: &str = "quorate etcd-snapshot ls --s3";

/// The timeout of the store if there is a local snapshot.
pub(super) const SEARCH_TIMEOUT: Duration = Duration::from_secs(20);

/// Why a snapshot is not found.
#[derive(Debug, thiserror::Error)]
pub(super) enum LocateError {
    #[error("two different snapshots are called {name}: {} and {there}", here.display())]
    Ambiguous { name: String, here: PathBuf, there: String },
    /// The store is slow, and not essential.
    #[error("object storage did not answer within {} s", SEARCH_TIMEOUT.as_secs())]
    Timeout,
    #[error("cancelled")]
    Cancelled,
    /// A URL without a key in it.
    #[error("{0} is not the URL of a snapshot: the form is s3://BUCKET/KEY")]
    NoKey(String),
    #[error("snapshot {name} not found in {}", places.join(", nor in "))]
    NotFound { name: String, places: Vec<String>, hint: Option<String>, list: &'static str },
    /// There are candidates, but none is good.
    #[error("{name} matches no good snapshot in {}: {}", places.join(", nor in "), why.join("; "))]
    NoneGood { name: String, places: Vec<String>, why: Vec<String>, list: &'static str },
}

impl Diagnostic for LocateError {
    fn code(&self) -> Code {
        match self {
            Self::Ambiguous { .. } => Code::SnapshotAmbiguous,
            Self::NoKey(_) => Code::Usage,
            Self::NotFound { .. } => Code::SnapshotNotFound,
            Self::NoneGood { .. } => Code::NoGoodSnapshot,
            Self::Timeout => Code::S3Timeout,
            Self::Cancelled => Code::Cancelled,
        }
    }

    fn next_step(&self) -> Option<String> {
        Some(match self {
            Self::Ambiguous { here, there, .. } => format!("specify one of them: {} or {there}", here.display()),
            Self::NoKey(url) => format!("specify one in it, such as {}/{LATEST}", url.trim_end_matches('/')),
            Self::NotFound { hint: Some(hint), list, .. } => format!("{hint} {list} shows all"),
            Self::NotFound { hint: None, list, .. } => {
                format!("{list} shows all snapshots; anything with a / is a path")
            }
            Self::NoneGood { list, .. } => format!("{list} shows all snapshots; specify one of them to use it anyway"),
            Self::Timeout | Self::Cancelled => "try again".into(),
        })
    }
}
