//! What was found in a database.

use crate::boltdb::walk::Walked;

/// The contents of an intact database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inspection {
    pub revision: i64,
    pub compact_revision: Option<i64>,
    /// Number of keys at the revision.
    pub keys: u64,
    /// Number of pairs in all buckets, as counted by `snapshot status` of etcd up to 3.5.
    pub total_pairs: u64,
    /// The hash that `snapshot status` prints.
    pub status_hash: u32,
    /// The HashKV of a live member with this data.
    pub hash_kv: u32,
    /// The version of the cluster, such as `3.5.0`.
    pub cluster_version: Option<String>,
    /// The version of the storage format; from 3.6 on.
    pub storage_version: Option<String>,
    pub leases: u64,
    /// Alarms, such as `NOSPACE`.
    pub alarms: Vec<String>,
    pub auth_enabled: bool,
    pub members: Vec<u64>,
    pub consistent_index: u64,
    /// Bytes of a page.
    pub page_size: u32,
    /// Pages in use, and free pages.
    pub pages: Walked,
}

impl Inspection {
    /// There are no keys, as in a snapshot of a new cluster.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys == 0
    }

    /// The version of the etcd that wrote it, as far as known: the storage version, or the cluster version.
    #[must_use]
    pub fn etcd_version(&self) -> Option<String> {
        self.storage_version.clone().or_else(|| self.cluster_version.clone())
    }
}
