//! What to save, and how.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::cluster::record::MemberIdentity;
use crate::compression::Compression;
use crate::datadir::DataDir;
use crate::durable::OnPath as _;
use crate::faults;
use crate::job::JobControl;
use crate::plan::snapshot_name::NamePrefix;
use crate::snapshot::save::error::SaveError;

#[derive(Clone, Debug)]
pub struct SaveRequest {
    pub dir: PathBuf,
    pub base: NamePrefix,
    pub node: String,
    pub packing: Compression,
    /// `on-demand` or `scheduled`.
    pub reason: &'static str,
    pub labels: BTreeMap<String, String>,
    /// The lineage of the data directory.
    pub lineage: Vec<MemberIdentity>,
    /// The data directory of the running etcd, for a direct copy.
    pub live: Option<LiveSource>,
    /// The timestamp of the newest name in use, since a bucket may have names that are free locally; 0 if there is
    /// none.
    pub last_named: u64,
    pub job: JobControl,
}

#[derive(Clone)]
pub struct LiveSource {
    pub data: DataDir,
    /// Whether it is still the same etcd process: another one does not pin the pages.
    pub is_same: Arc<dyn Fn() -> bool + Send + Sync>,
}

impl std::fmt::Debug for LiveSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Source").field(&self.data).finish()
    }
}

/// A named step, where tests inject faults and a cancelled save ends.
pub(super) fn step(request: &SaveRequest, name: &'static str, path: &Path) -> Result<(), SaveError> {
    if request.job.is_cancelled() {
        return Err(SaveError::Cancelled);
    }
    faults::point(&format!("snapshot::{name}")).on("save", path)?;
    Ok(())
}
