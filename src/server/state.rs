//! The state of a running server, for the routes of the control API.

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
    pub config: Config,
    pub data: DataDir,
    pub started: SystemTime,
    pub member_name: String,
    /// True if etcd was started as the only member, with the timing of one.
    pub started_alone: bool,
    pub epoch: u64,
    pub binary: InstalledEtcd,
    /// The fsync latency of the disk before the start.
    pub fsync_p99: Option<Duration>,
    pub child: watch::Receiver<ChildStatus>,
    pub health: watch::Receiver<Health>,
    pub storage: watch::Receiver<StorageFacts>,
    /// The snapshot of data that vanished.
    pub rescued: watch::Receiver<Option<Rescued>>,
    pub snapshots: Snapshots,
    pub maintenance: Maintenance,
    /// What the status says of the disk.
    pub disk_sampler: DiskSampler,
    pub certificates: watch::Receiver<Vec<Expiry>>,
}

impl ServerState {
    /// The recorded facts about the cluster that its member does not report.
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
