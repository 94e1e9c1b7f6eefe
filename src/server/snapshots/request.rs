//! A request to save a snapshot, and why it is refused.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::compression::Compression;
use crate::error::{Code, Diagnostic};
use crate::etcd::client::ClientError;
use crate::plan::snapshot_name::NamePrefix;

#[derive(Debug, thiserror::Error)]
pub enum SnapshotRefused {
    #[error("cannot take a snapshot: {0}")]
    NotReady(String),
    #[error("the server is stopping; the snapshot was cancelled, and no files are left")]
    Stopping,
    #[error("the snapshot took longer than etcd-snapshot-timeout ({} s) and was cancelled; no files are left", .0.as_secs())]
    TooLong(Duration),
    #[error("object storage did not answer within {} s", .0.as_secs())]
    StoreTimeout(Duration),
    #[error("cannot reach etcd")]
    Client(#[source] ClientError),
}

impl Diagnostic for SnapshotRefused {
    fn code(&self) -> Code {
        match self {
            Self::TooLong(_) => Code::SnapshotTimeout,
            Self::StoreTimeout(_) => Code::S3Timeout,
            Self::NotReady(_) | Self::Client(_) => Code::EtcdUnreachable,
            Self::Stopping => Code::Stopping,
        }
    }

    fn next_step(&self) -> Option<String> {
        Some(match self {
            Self::TooLong(_) => "see quorate status, and raise etcd-snapshot-timeout if the database has grown".into(),
            Self::StoreTimeout(_) => "quorate etcd-snapshot s3-check".into(),
            Self::NotReady(_) | Self::Client(_) => "see quorate status".into(),
            Self::Stopping => "try again when it runs".into(),
        })
    }
}

#[derive(Clone, Debug)]
pub struct SaveOrder {
    pub base: NamePrefix,
    /// Another directory than the configured one.
    pub dir: Option<PathBuf>,
    /// Another compression than the configured one.
    pub packing: Option<Compression>,
    /// `on-demand` or `scheduled`.
    pub reason: &'static str,
    pub labels: BTreeMap<String, String>,
    /// Wait if another one is being taken.
    pub wait: bool,
    /// The options of object storage for this snapshot, by name.
    pub s3: BTreeMap<String, String>,
}
