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
    /// The earlier lives of the data directory.
    pub lineage: Vec<MemberIdentity>,
    /// The database of the running etcd, if it is to be copied there instead of being sent by etcd.
    pub live: Option<Source>,
    /// The second of the newest name that was given, which a bucket may have when it is free here; 0 if there is none.
    pub last_named: u64,
    /// How far it is, and whether it is still wanted.
    pub course: JobControl,
}

#[derive(Clone)]
pub struct Source {
    pub data: DataDir,
    /// Whether it is still the same etcd: what another one does with the file is not what the first one held still.
    pub is_same: Arc<dyn Fn() -> bool + Send + Sync>,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Source").field(&self.data).finish()
    }
}

/// A named step: where tests inject faults, and where a save that nobody wants any more ends.
pub(super) fn step(wish: &SaveRequest, name: &'static str, path: &Path) -> Result<(), SaveError> {
    if wish.course.is_cancelled() {
        return Err(SaveError::Cancelled);
    }
    faults::point(&format!("snapshot::{name}")).on("save", path)?;
    Ok(())
}
