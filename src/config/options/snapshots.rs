//! When snapshots are taken, how, and how many are kept.

use crate::config::options::spec::{OptionKind, Spec, live, noted, spec};

pub const ETCD_DISABLE_SNAPSHOTS: Spec =
    live(spec("etcd-disable-snapshots", OptionKind::Switch, "false", "Take no scheduled snapshots."));

pub const ETCD_SNAPSHOT_SCHEDULE_CRON: Spec = live(spec(
    "etcd-snapshot-schedule-cron",
    OptionKind::Cron,
    "0 */12 * * *",
    "When to take snapshots, in the local time zone: five cron fields, @hourly and the like, or @every 5m.",
));

pub const ETCD_SNAPSHOT_NAME: Spec =
    live(spec("etcd-snapshot-name", OptionKind::SnapshotName, "etcd-snapshot", "Base name of scheduled snapshots."));

pub const ETCD_SNAPSHOT_DIR: Spec = live(noted(
    "server/db/snapshots under the data directory",
    spec("etcd-snapshot-dir", OptionKind::Path, "", "Directory of the snapshots."),
));

pub const ETCD_SNAPSHOT_COMPRESS: Spec = live(spec(
    "etcd-snapshot-compress",
    OptionKind::Compression,
    "false",
    "Compress snapshots: true means zstd; zip is for tools that expect RKE2's format.",
));

pub const ETCD_SNAPSHOT_RETENTION: Spec = live(spec(
    "etcd-snapshot-retention",
    OptionKind::Count,
    "5",
    "Number of snapshots of this node and base name to keep; 0 keeps all.",
));

pub const ETCD_SNAPSHOT_RETENTION_POLICY: Spec = live(spec(
    "etcd-snapshot-retention-policy",
    OptionKind::Retention,
    "",
    "Additional rules, such as daily=7,weekly=4,monthly=12,yearly=3,within=30d; a snapshot that any rule keeps is kept.",
));

pub const ETCD_SNAPSHOT_COPY: Spec = live(spec(
    "etcd-snapshot-copy",
    OptionKind::Switch,
    "true",
    "Copy large databases directly from disk instead of streaming them through the etcd API: several times faster, and deleted data is left out.",
));

pub const ETCD_SNAPSHOT_TIMEOUT: Spec = live(noted(
    "none; a stalled snapshot is aborted anyway",
    spec("etcd-snapshot-timeout", OptionKind::Duration, "", "Maximum duration of a snapshot, such as 10m."),
));

pub const ETCD_SNAPSHOT_ON_FAILURE: Spec = live(spec(
    "etcd-snapshot-on-failure",
    OptionKind::Text,
    "",
    "Shell command to run when a scheduled snapshot or drill fails; the error is in QUORATE_SNAPSHOT_ERROR.",
));

pub const ETCD_SNAPSHOT_DRILL_CRON: Spec = live(noted(
    "off",
    spec(
        "etcd-snapshot-drill-cron",
        OptionKind::Cron,
        "",
        "When to rehearse a restore of the newest good snapshot: an isolated etcd runs on it, what it serves is compared, and all of it is removed again.",
    ),
));
