//! `/v1/snapshots`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::ErrorReport;
use crate::snapshot::manifest::Manifest;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SaveRequestBody {
    pub name: String,
    /// Another directory than the configured one; absolute.
    pub dir: Option<PathBuf>,
    /// `zstd`, `zip`, `none`, or as configured.
    pub compression: Option<String>,
    pub labels: BTreeMap<String, String>,
    /// Wait if another one is being taken.
    pub wait: bool,
    /// Options of object storage, by name.
    #[serde(default)]
    pub s3: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Saved {
    pub manifest: Manifest,
    pub path: PathBuf,
    /// Its URL in object storage, or why the upload failed.
    pub upload: Option<Result<String, ErrorReport>>,
    #[serde(rename = "remote_only")]
    pub remote_only: bool,
    /// Milliseconds until it was saved locally.
    #[serde(default)]
    pub took_ms: u64,
}
