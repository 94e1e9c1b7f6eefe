//! What a running server knows, for those who serve it to others.

use std::time::{Duration, SystemTime};

use tokio::sync::watch;

use crate::cluster::file::RecordInput;
use crate::config::Config;
use crate::datadir::DataDir;
use crate::etcd::child::ChildStatus;
use crate::etcd::installed::InstalledEtcd;
use crate::pki::Expiry;
use crate::plan::health::{Rescued, StorageFacts};
use crate::server::disk_sample::DiskSampler;
use crate::server::health::Health;
use crate::server::maintenance::Maintenance;
use crate::server::snapshots::Snapshots;

/// Read by routes; changed through the channels inside.
#[derive(Debug)]
pub struct ServerState {
    /// The effective configuration.
    pub config: Config,
    /// Its data directory.
    pub data: DataDir,
    /// When the launcher started.
    pub started: SystemTime,
    /// Our member name.
    pub member_name: String,
    /// True if etcd was started as the only member, with the timing of one.
    pub started_alone: bool,
    /// The epoch of the cluster.
    pub epoch: u64,
    /// The etcd that runs.
    pub binary: InstalledEtcd,
    /// What the disk took before the start.
    pub fsync_p99: Option<Duration>,
    /// The child's state.
    pub child: watch::Receiver<ChildStatus>,
    /// Its health.
    pub health: watch::Receiver<Health>,
    /// Its files and disks.
    pub storage: watch::Receiver<StorageFacts>,
    /// Where data that vanished was saved.
    pub rescued: watch::Receiver<Option<Rescued>>,
    /// What takes snapshots.
    pub snapshots: Snapshots,
    /// What sees to the database's space.
    pub maintenance: Maintenance,
    /// What the status says of the disk.
    pub disk_sampler: DiskSampler,
    /// The certificates.
    pub certificates: watch::Receiver<Vec<Expiry>>,
}

impl ServerState {
    /// What is recorded of the cluster beside what its member says.
    #[must_use]
    pub fn record_input(&self) -> RecordInput {
        RecordInput {
            data: self.data.clone(),
            epoch: self.epoch,
            member_name: self.member_name.clone(),
            etcd_version: self.binary.version,
        }
    }
}
