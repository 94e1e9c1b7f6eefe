//! What is given once: a new cluster, a reset, a restore.

use crate::config::options::spec::{OptionKind, Spec, spec};

pub const NEW_CLUSTER: Spec = spec(
    "new-cluster",
    OptionKind::Switch,
    "false",
    "Start an empty cluster although this data directory remembers one whose data is gone. Meant for the command line, once.",
);

pub const CLUSTER_RESET: Spec = spec(
    "cluster-reset",
    OptionKind::Switch,
    "false",
    "Forget all peers, become the only member of a new cluster with the same data, and exit. Meant for the command line, once.",
);

pub const CLUSTER_RESET_RESTORE_PATH: Spec = spec(
    "cluster-reset-restore-path",
    OptionKind::Snapshot,
    "",
    "With cluster-reset: the snapshot to restore: a name as etcd-snapshot ls shows it, a base name for its newest good one, latest, a path (anything with a /), or s3://BUCKET/KEY.",
);

pub const CLUSTER_RESET_BUMP_REVISION: Spec = spec(
    "cluster-reset-bump-revision",
    OptionKind::Number,
    "1000000000",
    "With cluster-reset-restore-path: bump the revision by N and mark everything before as compacted, so that watches and informers re-list; 0: no bump.",
);

pub const ETCD_OLD_RETENTION: Spec = spec(
    "etcd-old-retention",
    OptionKind::Count,
    "3",
    "Number of old data directories to keep after a reset or restore, once etcd is healthy on the new data.",
);
