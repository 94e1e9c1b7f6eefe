//! `/v1/snapshots`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::ErrorReport;
use crate::snapshot::manifest::Manifest;

/// What to save, and how.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SaveRequest {
    /// Base name.
    pub name: String,
    /// Another directory than the configured one; absolute.
    pub dir: Option<PathBuf>,
    /// `zstd`, `zip`, `none`, or as configured.
    pub compression: Option<String>,
    /// What to write on it.
    pub labels: BTreeMap<String, String>,
    /// Wait while another one is being taken.
    pub wait: bool,
    /// What is said of object storage, by option name.
    #[serde(default)]
    pub s3: BTreeMap<String, String>,
}

/// A snapshot that was taken.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Saved {
    /// What is in it.
    pub manifest: Manifest,
    /// Where it is.
    pub path: PathBuf,
    /// And where else, or why not, if it was to be uploaded.
    pub upload: Option<Result<String, ErrorReport>>,
    /// It is only there.
    pub is_only_there: bool,
    /// How long it took to be saved here, in milliseconds.
    #[serde(default)]
    pub took_ms: u64,
}
