//! How a server starts: resume existing data, begin a new cluster, or refuse.

use std::fmt;
use std::path::PathBuf;

use crate::cluster::record::{ClusterRecord, ServerRecord};
use crate::error::{Code, Diagnostic};
use crate::plan::command::Invocation;
use crate::version::Version;

/// The state of the child's data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataState {
    Absent,
    Present,
    /// etcd data without a log to resume from: etcd would start a new cluster over it.
    MissingWal,
    /// No data, and at most a log without any committed entry: an interrupted first start. etcd would resume from it
    /// without a single voter and wait forever (seen with 3.5).
    NeverInitialized,
}

/// A snapshot that may be restored instead of starting a new cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownSnapshot {
    /// File name; as a restore path it is searched on this node and in object storage.
    pub name: String,
    /// The directory or bucket that it is in.
    pub place: String,
    pub taken: String,
    pub revision: Option<i64>,
    pub is_verified: bool,
}

impl fmt::Display for KnownSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let revision = self.revision.map(|revision| format!(", revision {revision}")).unwrap_or_default();
        let verified = if self.is_verified { "" } else { ", not verified" };
        write!(f, "{}, taken {}{revision}{verified} (in {})", self.name, self.taken, self.place)
    }
}

/// All that the decision depends on.
#[derive(Clone, Debug)]
pub struct Observed {
    /// `cluster.json`.
    pub cluster: Option<ClusterRecord>,
    /// `db/etcd/member`.
    pub data: DataState,
    /// `db/etcd/name`.
    pub name: Option<String>,
    /// `--new-cluster`.
    pub new_cluster: bool,
    /// `node-name`.
    pub node_name: String,
    /// The newest snapshot of this server, if it has no data.
    pub newest: Option<KnownSnapshot>,
    /// `--data-dir`.
    pub data_dir: PathBuf,
    /// For the commands that are printed.
    pub invocation: Invocation,
    /// Eight random hexadecimal digits, for a new member name.
    pub random: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartPlan {
    pub name: String,
    pub decision: StartDecision,
    pub is_alone: bool,
    /// The epoch to record once healthy.
    pub epoch: u64,
    pub notes: Vec<String>,
}

impl StartPlan {
    /// The record to write before a new cluster begins, so that the intention survives an interrupted start.
    #[must_use]
    pub fn pending_record(&self, remembered: Option<ClusterRecord>, binary: Version) -> ClusterRecord {
        ClusterRecord {
            epoch: self.epoch,
            member_name: self.name.clone(),
            servers: vec![ServerRecord { name: self.name.clone(), ..ServerRecord::default() }],
            etcd_version: Some(binary),
            other: remembered.map(|cluster| cluster.other).unwrap_or_default(),
            ..ClusterRecord::default()
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartDecision {
    /// There is no data, and none is expected.
    NewCluster,
    Resume,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartRefusal {
    /// A cluster is recorded, but its data is gone.
    #[error(
        "this server was member {member} of cluster {cluster}, and its etcd data in {} is gone; \
         starting would silently create an empty cluster",
        data_dir.join("server/db/etcd").display()
    )]
    DataLost {
        /// `--data-dir`.
        data_dir: PathBuf,
        /// For the commands that are printed.
        invocation: Box<Invocation>,
        newest: Option<Box<KnownSnapshot>>,
        cluster: String,
        member: String,
    },
    /// There is no data, but there are snapshots of this server.
    #[error(
        "there is no etcd data in {}, but there are snapshots of this server; starting would silently create an empty cluster",
        data_dir.display()
    )]
    SnapshotsExist {
        /// `--data-dir`.
        data_dir: PathBuf,
        /// For the commands that are printed.
        invocation: Box<Invocation>,
        newest: Box<KnownSnapshot>,
    },
    /// There is data that cannot be resumed.
    #[error(
        "db/etcd/member contains etcd data, but no write-ahead log to resume from; \
         starting would silently create an empty cluster"
    )]
    DataIncomplete,
    #[error("db/etcd is the data of member {found}, but this server was member {remembered}")]
    MemberMismatch { found: String, remembered: String },
    /// The binary is older than the data.
    #[error("this data was last run by etcd {last}; etcd {binary} is older and cannot read it safely")]
    EtcdOlderThanData { last: Version, binary: Version },
    /// The binary is too much newer than the data.
    #[error(
        "this data was last run by etcd {last}; etcd {binary} is more than one minor newer, and etcd upgrades one minor at a time"
    )]
    EtcdTooNew { last: Version, binary: Version },
}

impl Diagnostic for StartRefusal {
    fn code(&self) -> Code {
        match self {
            Self::DataLost { .. } => Code::DataLost,
            Self::SnapshotsExist { .. } => Code::SnapshotsExist,
            Self::DataIncomplete => Code::DataIncomplete,
            Self::MemberMismatch { .. } => Code::MemberMismatch,
            Self::EtcdOlderThanData { .. } => Code::EtcdOlderThanData,
            Self::EtcdTooNew { .. } => Code::EtcdTooNew,
        }
    }

    fn next_step(&self) -> Option<String> {
        Some(match self {
            Self::DataLost { invocation, newest: Some(newest), .. }
            | Self::SnapshotsExist { invocation, newest, .. } => {
                format!(
                    "is the disk of the data mounted? If the data is lost, the newest snapshot is {newest}. Restore it: \
                     {}; or begin an empty cluster: {}",
                    invocation.restore(&newest.name),
                    invocation.server("--new-cluster")
                )
            }
            Self::DataLost { invocation, newest: None, .. } => format!(
                "is the disk of the data mounted? No snapshot of this server was found; restore one from elsewhere: {}; \
                 or begin an empty cluster: {}",
                invocation.restore("PATH"),
                invocation.server("--new-cluster")
            ),
            Self::DataIncomplete => {
                "restore server/db/etcd from a backup, or, if an empty cluster is intended, start once with \
                 --new-cluster: the old data is then moved to server/db/etcd-old-…"
                    .into()
            }
            Self::MemberMismatch { .. } => {
                "restore this server's own server/db/etcd; two servers with the data of one member would harm both. \
                 If that member is gone for good and this server takes its place, mv server/cluster.json away"
                    .into()
            }
            Self::EtcdOlderThanData { last, .. } => {
                format!("run etcd {} again: install it, or name it with --etcd-binary", last.minor_text())
            }
            Self::EtcdTooNew { last, .. } => {
                format!("run etcd {}.{} first, until it is ready, then this one", last.major, last.minor + 1)
            }
        })
    }
}

/// # Errors
/// A [`StartRefusal`] where starting could lose data.
pub fn plan(observed: &Observed) -> Result<StartPlan, StartRefusal> {
    let remembered = observed.cluster.as_ref();
    let made = || format!("{}-{}", observed.node_name, observed.random);
    if observed.data != DataState::Present {
        if !observed.new_cluster {
            if observed.data == DataState::MissingWal {
                return Err(StartRefusal::DataIncomplete);
            }
            if let Some(cluster) = remembered.filter(|cluster| cluster.was_healthy()) {
                let (cluster, member) = (cluster.cluster_id.clone(), cluster.member_name.clone());
                let (data_dir, newest) = (observed.data_dir.clone(), observed.newest.clone().map(Box::new));
                let invocation = Box::new(observed.invocation.clone());
                return Err(StartRefusal::DataLost { data_dir, invocation, newest, cluster, member });
            }
            // A recorded, unfinished first start continues.
            if let (None, Some(newest)) = (remembered, &observed.newest) {
                return Err(StartRefusal::SnapshotsExist {
                    data_dir: observed.data_dir.clone(),
                    invocation: Box::new(observed.invocation.clone()),
                    newest: Box::new(newest.clone()),
                });
            }
        }
        return Ok(StartPlan {
            name: made(),
            decision: StartDecision::NewCluster,
            is_alone: true,
            epoch: remembered.map_or(1, |cluster| cluster.epoch + u64::from(cluster.was_healthy())),
            notes: Vec::new(),
        });
    }
    if let (Some(found), Some(cluster)) = (&observed.name, remembered)
        && !cluster.member_name.is_empty()
        && *found != cluster.member_name
    {
        return Err(StartRefusal::MemberMismatch { found: found.clone(), remembered: cluster.member_name.clone() });
    }
    let mut notes = Vec::new();
    if observed.new_cluster {
        notes.push("new-cluster has no effect: there is data, which is kept".into());
    }
    let name = observed
        .name
        .clone()
        .or_else(|| remembered.map(|cluster| cluster.member_name.clone()))
        .filter(|name| !name.is_empty())
        .unwrap_or_else(made);
    Ok(StartPlan {
        name,
        decision: StartDecision::Resume,
        // Data without a record is from a first start that never became ready.
        is_alone: remembered.is_none_or(|cluster| cluster.member_count() <= 1),
        epoch: remembered.map_or(1, |cluster| cluster.epoch),
        notes,
    })
}

/// Whether `binary` may open data that `last` ran: etcd reads data of its own minor and of the one before, and upgrades
/// one minor at a time. Returns a note for the operator.
///
/// # Errors
/// A [`StartRefusal`] where opening the data could damage it.
pub fn check_versions(last: Version, binary: Version) -> Result<Vec<String>, StartRefusal> {
    if (binary.major, binary.minor) < (last.major, last.minor) {
        return Err(StartRefusal::EtcdOlderThanData { last, binary });
    }
    if binary.major > last.major || binary.minor > last.minor + 1 {
        return Err(StartRefusal::EtcdTooNew { last, binary });
    }
    // etcd-io/etcd's upgrade guide to 3.6: members that an older 3.5 promoted may be lost from the new member store.
    const MIN_VERSION_BEFORE_3_6: Version = Version::new(3, 5, 26);
    let mut notes = Vec::new();
    if last.minor == 5 && binary.minor == 6 && last < MIN_VERSION_BEFORE_3_6 {
        notes.push(format!(
            "etcd requires at least {MIN_VERSION_BEFORE_3_6} before 3.6, but {last} ran last; with several members, go back and run that first"
        ));
    }
    Ok(notes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Exit;
    use proptest::prelude::*;

    fn record(version: &str) -> ClusterRecord {
        ClusterRecord {
            cluster_id: "c1".into(),
            epoch: 4,
            member_name: "n-1".into(),
            servers: vec![ServerRecord::default()],
            etcd_version: version.parse().ok(),
            ..ClusterRecord::default()
        }
    }

    fn observed(cluster: Option<ClusterRecord>, data: DataState) -> Observed {
        Observed {
            cluster,
            data,
            name: None,
            new_cluster: false,
            node_name: "node".into(),
            newest: None,
            data_dir: "/d".into(),
            invocation: Invocation { common: " --data-dir=/d".into(), server: String::new() },
            random: "0a1b2c3d".into(),
        }
    }

    #[test]
    fn an_empty_directory_begins_and_a_full_one_resumes() {
        let begun = plan(&observed(None, DataState::Absent)).unwrap();
        assert_eq!((begun.name.as_str(), begun.decision, begun.epoch), ("node-0a1b2c3d", StartDecision::NewCluster, 1));
        let resumed = plan(&observed(Some(record("3.5.30")), DataState::Present)).unwrap();
        assert_eq!((resumed.name.as_str(), resumed.decision, resumed.epoch), ("n-1", StartDecision::Resume, 4));
        assert!(resumed.is_alone);
    }

    #[test]
    fn an_interrupted_first_start_is_repeated() {
        let begun = plan(&observed(None, DataState::NeverInitialized)).unwrap();
        assert_eq!(begun.decision, StartDecision::NewCluster);
        let intention = begun.pending_record(None, Version::new(3, 5, 30));
        assert!(!intention.was_healthy());
        for data in [DataState::Absent, DataState::NeverInitialized] {
            let again = plan(&observed(Some(intention.clone()), data)).unwrap();
            assert_eq!((again.decision, again.epoch), (StartDecision::NewCluster, 1));
        }
        assert_eq!(plan(&observed(None, DataState::Present)).unwrap().decision, StartDecision::Resume);
    }

    #[test]
    fn lost_data_is_never_replaced_silently() {
        for data in [DataState::Absent, DataState::MissingWal, DataState::NeverInitialized] {
            let mut seen = observed(Some(record("3.5.30")), data);
            assert_eq!(plan(&seen).unwrap_err().exit(), Exit::Refused);
            seen.new_cluster = true;
            let begun = plan(&seen).unwrap();
            assert_eq!((begun.decision, begun.epoch), (StartDecision::NewCluster, 5));
            // If it ended before it was healthy, the requested first start continues, and its epoch is kept.
            let intended =
                observed(Some(begun.pending_record(seen.cluster, Version::new(3, 5, 30))), DataState::Absent);
            assert_eq!(plan(&intended).unwrap().epoch, 5);
        }
        assert_eq!(
            plan(&observed(None, DataState::MissingWal)),
            Err(StartRefusal::DataIncomplete),
            "also without a record"
        );
    }

    #[test]
    fn snapshots_of_a_server_without_data_are_restored_or_discarded_on_purpose() {
        let newest = KnownSnapshot {
            name: "s-node-7".into(),
            place: "s3://b/f/".into(),
            taken: "12s ago".into(),
            revision: Some(431),
            is_verified: true,
        };
        let with = |cluster, data| Observed { newest: Some(newest.clone()), ..observed(cluster, data) };
        let refused = plan(&with(None, DataState::Absent)).unwrap_err();
        assert_eq!(refused.exit(), Exit::Refused);
        let next = refused.next_step().unwrap();
        assert!(next.contains("quorate server --data-dir=/d --cluster-reset --cluster-reset-restore-path=s-node-7"));
        let lost = plan(&with(Some(record("3.5.30")), DataState::Absent)).unwrap_err();
        assert!(lost.next_step().unwrap().contains("s-node-7, taken 12s ago, revision 431"), "{lost:?}");
        let mut requested = with(None, DataState::Absent);
        requested.new_cluster = true;
        assert_eq!(plan(&requested).unwrap().decision, StartDecision::NewCluster);
        let begun = plan(&observed(None, DataState::Absent)).unwrap().pending_record(None, Version::new(3, 5, 30));
        assert!(plan(&with(Some(begun), DataState::Absent)).is_ok(), "a continued first start");
        assert!(plan(&with(Some(record("3.5.30")), DataState::Present)).is_ok());
    }

    #[test]
    fn the_data_of_another_member_is_refused() {
        let mut seen = observed(Some(record("3.5.30")), DataState::Present);
        seen.name = Some("n-1".into());
        assert!(plan(&seen).is_ok());
        seen.name = Some("n-2".into());
        assert!(matches!(plan(&seen), Err(StartRefusal::MemberMismatch { .. })));
    }

    #[test]
    fn versions_go_up_one_minor_at_a_time_and_never_down() {
        for (last, binary, fine) in [
            ("3.5.30", "3.5.16", true),
            ("3.5.30", "3.6.1", true),
            ("3.5.30", "3.4.23", false),
            ("3.5.30", "3.7.0", false),
            ("3.4.23", "3.5.30", true),
        ] {
            assert_eq!(
                check_versions(last.parse().unwrap(), binary.parse().unwrap()).is_ok(),
                fine,
                "{last} -> {binary}"
            );
        }
        let early = check_versions(Version::new(3, 5, 16), Version::new(3, 6, 1)).unwrap();
        assert!(early[0].contains("3.5.26"));
    }

    #[test]
    fn several_members_get_the_timing_of_a_cluster() {
        let cluster = ClusterRecord { servers: vec![ServerRecord::default(); 3], ..record("3.5.30") };
        assert!(!plan(&observed(Some(cluster), DataState::Present)).unwrap().is_alone);
    }

    proptest! {
        #[test]
        fn a_remembered_cluster_without_data_begins_only_on_request(
            torn: bool, requested: bool, epoch in 0u64..1000,
        ) {
            let mut cluster = record("3.5.30");
            cluster.epoch = epoch;
            let mut seen = observed(Some(cluster), if torn { DataState::MissingWal } else { DataState::Absent });
            seen.new_cluster = requested;
            match plan(&seen) {
                Ok(begun) => prop_assert!(requested && begun.epoch == epoch + 1),
                Err(refusal) => prop_assert!(!requested && refusal.exit() == Exit::Refused),
            }
        }
    }
}
