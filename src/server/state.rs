//! The state of a running server, for the routes of the control API.

use std::sync::Arc;

use tokio::sync::watch;

use crate::pki::Expiry;
use crate::plan::health::{Rescued, StorageFacts};
use crate::server::context::Context;
use crate::server::disk_sample::DiskSampler;
use crate::server::maintenance::MaintenanceService;
use crate::server::snapshots::service::SnapshotService;

/// Handles of the services, and what they publish.
#[derive(Debug)]
pub struct ServerState {
    pub context: Arc<Context>,
    pub snapshots: Arc<SnapshotService>,
    pub maintenance: Arc<MaintenanceService>,
    pub storage: watch::Receiver<StorageFacts>,
    /// The snapshot of data that vanished.
    pub rescued: watch::Receiver<Option<Rescued>>,
    /// What the status says of the disk.
    pub disk_sampler: DiskSampler,
    pub certificates: watch::Receiver<Vec<Expiry>>,
}
