//! What every service of a server needs: its configuration at the start, its data, and the state of etcd.

use std::time::{Duration, SystemTime};

use tokio::sync::watch;

use crate::cluster::file::RecordInput;
use crate::config::Config;
use crate::datadir::DataDir;
use crate::etcd::child::ChildStatus;
use crate::etcd::installed::InstalledEtcd;
use crate::server::health::Health;

/// Facts of the start, and what changes while running as receivers.
#[derive(Debug)]
pub struct Context {
    /// As at the start; what a reload changes is with the service that it concerns.
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
    /// True from the first reason to stop on.
    pub stopping: watch::Receiver<bool>,
}

impl Context {
    /// Returns when the server is stopping.
    pub async fn stopped(&self) {
        let _ = self.stopping.clone().wait_for(|stopping| *stopping).await;
    }

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
