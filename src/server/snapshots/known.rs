//! The newest good snapshot of this server, for a start without data and for messages that recommend a restore.
//!
//! Only lists snapshots, verifies and downloads nothing; object storage has a timeout, and its failure is reported,
//! never treated as "there are none".

use std::time::Duration;

use crate::clock;
use crate::config::Config;
use crate::datadir::DataDir;
use crate::error::AppError;
use crate::log_failure;
use crate::plan::owner::Owner;
use crate::plan::snapshot_name::NamePrefix;
use crate::plan::start::KnownSnapshot;
use crate::snapshot::list::{Listed, SnapshotStatus};
use crate::snapshot::prune;
use crate::snapshot::store::Store as _;
use crate::snapshot::store::local::Directory;
use crate::snapshot::store::s3::Bucket;
use crate::snapshot::store::s3::store::Remote;
use crate::text::age;

/// The timeout of listing object storage.
const S3_TIMEOUT: Duration = Duration::from_secs(20);

#[derive(Debug, Default)]
pub struct KnownSnapshots {
    /// The newest one not known to be damaged.
    pub newest: Option<KnownSnapshot>,
    /// Why object storage could not be listed, if it failed.
    pub unseen: Option<AppError>,
}

/// Searches this node, and object storage if uploads are enabled.
pub async fn newest(config: &Config, data: &DataDir) -> KnownSnapshots {
    let owner = crate::cluster::file::owner(data, &config.node_name, None);
    let dir = config.snapshot.place(data);
    let mut found: Vec<(Listed, String)> = Vec::new();
    match Directory(dir.clone()).list().await {
        Ok(here) => found.extend(here.into_iter().map(|listed| (listed, dir.display().to_string()))),
        Err(failure) => {
            log_failure!(warn, failure.to_report(), path = %dir.display(), "cannot list the snapshots on this node");
        }
    }
    let mut unseen = None;
    if config.snapshot.s3.is_on {
        match in_bucket(config, data).await {
            Ok((listed, place)) => found.extend(listed.into_iter().map(|listed| (listed, place.clone()))),
            Err(failure) => unseen = Some(failure),
        }
    }
    KnownSnapshots { newest: choose(found, &owner, clock::unix_seconds(clock::now())), unseen }
}

async fn in_bucket(config: &Config, data: &DataDir) -> Result<(Vec<Listed>, String), AppError> {
    let listing = async {
        let remote = Remote::new(Bucket::connect(config.snapshot.s3.target()?, None).await?, data);
        Ok((remote.list().await?, remote.place()))
    };
    match tokio::time::timeout(S3_TIMEOUT, listing).await {
        Ok(listed) => listed,
        Err(_) => Err(crate::server::snapshots::request::SnapshotRefused::StoreTimeout(S3_TIMEOUT).into()),
    }
}

fn choose(found: Vec<(Listed, String)>, owner: &Owner, now: u64) -> Option<KnownSnapshot> {
    let is_usable = |listed: &Listed| !matches!(listed.status, SnapshotStatus::Corrupt | SnapshotStatus::Partial);
    let own = found.into_iter().filter(|(listed, _)| owner.of(&prune::origin(listed)).is_own() && is_usable(listed));
    // Ordered as for `latest`: snapshots of data that a restore replaced come last.
    let is_no_safety_copy = |listed: &Listed| {
        owner.base_of(&prune::origin(listed)).is_none_or(|base| base != NamePrefix::pre_restore().to_string())
    };
    let newest = own.max_by_key(|(listed, _)| (is_no_safety_copy(listed), listed.created <= now, listed.created));
    let (listed, place) = newest?;
    Some(KnownSnapshot {
        taken: age::ago(listed.created, now),
        revision: listed.manifest.as_ref().map(|manifest| manifest.revision).filter(|revision| *revision > 0),
        is_verified: listed.status == SnapshotStatus::Good,
        name: listed.name,
        place,
    })
}
