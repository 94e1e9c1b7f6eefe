//! What was found in a database.

use crate::boltdb::walk::Walked;

/// What was found in a database that is whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inspection {
    pub revision: i64,
    /// Up to here history was compacted, if it ever was.
    pub compact_revision: Option<i64>,
    /// Keys that are there at the revision.
    pub keys: u64,
    /// Pairs in all buckets, as `snapshot status` of etcd up to 3.5 counts.
    pub total_pairs: u64,
    /// The hash that `snapshot status` prints.
    pub status_hash: u32,
    /// What a live member with these data answers to HashKV.
    pub hash_kv: u32,
    /// The version of the cluster, such as `3.5.0`.
    pub cluster_version: Option<String>,
    /// The version of the storage format; from 3.6 on.
    pub storage_version: Option<String>,
    pub leases: u64,
    /// Alarms, such as `NOSPACE`.
    pub alarms: Vec<String>,
    pub auth_enabled: bool,
    /// Members, as the database knows them.
    pub members: Vec<u64>,
    /// The last raft entry that is in it.
    pub consistent_index: u64,
    /// Bytes of a page.
    pub page_size: u32,
    /// Pages in use, and free ones.
    pub pages: Walked,
}

impl Inspection {
    /// No key is there: etcd would serve nothing. A snapshot of a new cluster is like that.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys == 0
    }

    /// The version of the etcd that wrote it, as far as it tells: its storage format, or what the cluster had agreed on.
    #[must_use]
    pub fn etcd_version(&self) -> Option<String> {
        self.storage_version.clone().or_else(|| self.cluster_version.clone())
    }
}
