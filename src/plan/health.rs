//! Whether a server is healthy, degraded or unhealthy, and what an operator should do about it.
//!
//! *Unhealthy*: clients cannot be served, or their writes cannot be kept. *Degraded*: clients are served and their data
//! is kept, but something needs attention. Given facts, decides; never queries anything itself.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::Code;
use crate::host::disk::DiskUsage;
use crate::plan::command::{Invocation, shell_word};
use crate::plan::condition::{Condition, Problem, problem};
use crate::plan::disk_space::disk_space;
use crate::text::format_bytes;

/// The share of its quota from which the database is near it, in percent.
pub const QUOTA_PERCENT: u64 = 90;
/// This many exits of etcd within [`EXIT_WINDOW`] are a problem.
pub const RESTARTING_EXITS: usize = 2;
/// How long an exit of etcd counts.
pub const EXIT_WINDOW: Duration = Duration::from_secs(600);
/// This many failed snapshots in a row are a problem.
pub const FAILING_SNAPSHOTS: u64 = 3;

/// Whether a file that etcd has open is still where etcd opened it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Presence {
    /// Unknown, for example because etcd does not run.
    #[default]
    Unknown,
    Present,
    /// Its path does not exist: it was deleted, or its file system was unmounted.
    Missing,
    Moved(PathBuf),
    /// Another file is in its place.
    Replaced,
}

/// The file system under a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchedDisk {
    pub path: PathBuf,
    /// The usage of the file system; `None` if the query failed or timed out.
    pub usage: Option<DiskUsage>,
}

/// The last observation of a server's files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StorageFacts {
    pub database: Presence,
    /// The newest segment of etcd's log.
    pub log: Presence,
    pub data_disk: Option<WatchedDisk>,
    /// Of the snapshot directory; `None` if it does not exist yet.
    pub snapshot_disk: Option<WatchedDisk>,
    /// The file systems did not answer for this long.
    pub unanswered: Option<Duration>,
}

/// A snapshot of data that vanished while etcd was running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rescued {
    /// The file, or its name in object storage.
    pub snapshot: PathBuf,
    /// Revision of the keyspace; later writes are not in it.
    pub revision: i64,
}

/// All that the assessment depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerFacts {
    /// Why etcd does not serve clients, if it does not.
    pub not_serving: Option<String>,
    pub alarms: Vec<String>,
    /// Bytes of the database file; 0 if not known.
    pub db_size: u64,
    /// Its quota in bytes; 0 for no limit.
    pub db_quota: u64,
    /// Unexpected exits of etcd within [`EXIT_WINDOW`].
    pub recent_exits: usize,
    /// How the last of them ended.
    pub last_exit: Option<String>,
    /// Snapshots that failed since the last one that succeeded.
    pub snapshot_failures: u64,
    /// How the last of them failed.
    pub snapshot_failure: Option<String>,
    /// Why the snapshot directory cannot be listed.
    pub snapshots_unlisted: Option<String>,
    pub storage: StorageFacts,
    /// The snapshot of data that vanished.
    pub rescued: Option<Rescued>,
    pub etcd_dir: PathBuf,
    /// `--data-dir`.
    pub data_dir: PathBuf,
    /// For the commands that are printed.
    pub invocation: Invocation,
}

/// How a server is, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assessment {
    pub condition: Condition,
    pub problems: Vec<Problem>,
}

impl Assessment {
    /// The worst problem, in a sentence.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        self.problems.first().map(|problem| problem.message.as_str())
    }
}

#[must_use]
pub fn assess(seen: &ServerFacts) -> Assessment {
    let mut problems: Vec<Problem> = files(seen);
    problems.extend(disks(seen));
    problems.extend(serving(seen));
    problems.extend(warnings(seen));
    // A stable sort: of equally bad problems, causes come before consequences.
    problems.sort_by_key(|problem| std::cmp::Reverse(problem.condition));
    let condition = problems.first().map_or(Condition::Healthy, |problem| problem.condition);
    Assessment { condition, problems }
}

fn files(seen: &ServerFacts) -> Vec<Problem> {
    let member = seen.etcd_dir.join("member");
    let (database, log) = (&seen.storage.database, &seen.storage.log);
    let is_same_kind = std::mem::discriminant(database) == std::mem::discriminant(log);
    let (data, log_directory) = (moved_directory(database, 2), moved_directory(log, 1));
    let named = if is_same_kind {
        vec![([Code::DataMissing, Code::DataMoved, Code::DataReplaced], "data", member, &data)]
    } else {
        vec![
            (
                [Code::DatabaseMissing, Code::DatabaseMoved, Code::DatabaseReplaced],
                "database",
                member.join("snap").join("db"),
                database,
            ),
            (
                [Code::LogMissing, Code::LogMoved, Code::LogReplaced],
                "write-ahead log",
                member.join("wal"),
                &log_directory,
            ),
        ]
    };
    let save = format!("{} --wait --dir=/var/tmp", seen.invocation.command("etcd-snapshot save"));
    let rescue = match &seen.rescued {
        None => format!(
            "do not stop it: etcd still has the data open, but exits within 30 s. Save it to another disk now: {save}"
        ),
        Some(Rescued { snapshot, revision }) => format!(
            "it was saved up to revision {revision}. Stop the server and restore that: {}",
            seen.invocation.restore(&snapshot.display().to_string())
        ),
    };
    let mut problems = Vec::new();
    for ([missing, moved, replaced], what, path, presence) in named {
        let path = path.display().to_string();
        let (code, message) = match presence {
            Presence::Unknown | Presence::Present => continue,
            Presence::Missing => (
                missing,
                format!(
                    "etcd's {what} {path} is gone (deleted, or its disk was unmounted) while etcd runs: all data is lost when \
                     etcd stops"
                ),
            ),
            Presence::Moved(to) => (
                moved,
                format!(
                    "etcd's {what} {path} was moved to {} while etcd runs: etcd exits when it notices",
                    to.display()
                ),
            ),
            Presence::Replaced => (
                replaced,
                format!(
                    "etcd's {what} {path} was replaced by another file while etcd runs: present writes are lost \
                     when etcd stops"
                ),
            ),
        };
        let next = match presence {
            Presence::Moved(to) => format!("move it back: mv {} {}", shell_word(to), shell_word(Path::new(&path))),
            _ => rescue.clone(),
        };
        problems.push(problem(Condition::Unhealthy, code, message, next));
    }
    problems
}

/// The present path of a moved directory, from that of a file this many levels below it.
fn moved_directory(file: &Presence, levels: usize) -> Presence {
    match file {
        Presence::Moved(to) => Presence::Moved(to.ancestors().nth(levels).unwrap_or(to).to_path_buf()),
        other => other.clone(),
    }
}

fn disks(seen: &ServerFacts) -> Vec<Problem> {
    let storage = &seen.storage;
    let mut problems = Vec::new();
    if let Some(waited) = storage.unanswered {
        problems.push(problem(
            Condition::Unhealthy,
            Code::DiskNotAnswering,
            format!("the disk under {} has not answered for {} s", seen.data_dir.display(), waited.as_secs()),
            "check the kernel log: dmesg | tail; is a network file system or device gone?".to_owned(),
        ));
        return problems;
    }
    for (disk, of_data) in [(&storage.data_disk, true), (&storage.snapshot_disk, false)] {
        let Some(WatchedDisk { path, usage: Some(usage) }) = disk else { continue };
        // A disk under both is reported once.
        let is_shared = !of_data && storage.data_disk.as_ref().and_then(|disk| disk.usage) == Some(*usage);
        if !is_shared {
            problems.extend(disk_space(path, *usage, of_data));
        }
    }
    problems
}

fn serving(seen: &ServerFacts) -> Vec<Problem> {
    if let Some(why) = &seen.not_serving {
        return vec![problem(Condition::Unhealthy, Code::EtcdNotServing, why.clone(), None)];
    }
    let alarm = |alarm: &String| {
        let (code, what, next) = match alarm.as_str() {
            "NOSPACE" => (
                Code::AlarmNoSpace,
                "NOSPACE (the database has reached its quota, and writes are refused)",
                format!("see what uses the space: {}; then --free", seen.invocation.command("space")),
            ),
            "CORRUPT" => (
                Code::AlarmCorrupt,
                "CORRUPT (members differ in their data, and requests are refused)",
                "find the member whose hash differs: quorate etcdctl endpoint hashkv --cluster".into(),
            ),
            other => (Code::AlarmOther, other, format!("{} alarm list", seen.invocation.command("etcdctl"))),
        };
        let message = format!("etcd has raised an alarm: {what}");
        problem(Condition::Unhealthy, code, message, next)
    };
    seen.alarms.iter().map(alarm).collect()
}

fn warnings(seen: &ServerFacts) -> Vec<Problem> {
    let mut problems = Vec::new();
    if seen.recent_exits >= RESTARTING_EXITS {
        let last = seen.last_exit.as_deref().unwrap_or("an unknown exit status");
        problems.push(problem(
            Condition::Degraded,
            Code::EtcdRestarting,
            format!(
                "etcd exited {} times in the last {} minutes, the last time with {last}",
                seen.recent_exits,
                EXIT_WINDOW.as_secs() / 60
            ),
            "see its log: journalctl -u quorate-server -e".to_owned(),
        ));
    }
    let is_near = seen.db_quota > 0 && seen.db_size >= seen.db_quota / 100 * QUOTA_PERCENT;
    if is_near && !seen.alarms.iter().any(|alarm| alarm == "NOSPACE") {
        problems.push(problem(
            Condition::Degraded,
            Code::QuotaNear,
            format!(
                "the database has {} of its quota of {}; beyond that etcd refuses writes",
                format_bytes(seen.db_size),
                format_bytes(seen.db_quota)
            ),
            format!("see what uses the space: {}; then --free", seen.invocation.command("space")),
        ));
    }
    if seen.snapshot_failures >= FAILING_SNAPSHOTS {
        let why = seen.snapshot_failure.as_deref().unwrap_or("see the log");
        problems.push(problem(
            Condition::Degraded,
            Code::SnapshotsFailing,
            format!("the last {} snapshots failed: {}", seen.snapshot_failures, why.replace("\n  because: ", ": ")),
            format!("try one by hand: {}", seen.invocation.command("etcd-snapshot save")),
        ));
    }
    if let Some(why) = &seen.snapshots_unlisted {
        problems.push(problem(
            Condition::Degraded,
            Code::SnapshotsUnlisted,
            format!("cannot list the snapshots: {}", why.replace("\n  because: ", ": ")),
            "check the kernel log (dmesg) and the permissions of the directory".to_owned(),
        ));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[allow(clippy::unnecessary_wraps, reason = "same type as the field")]
    fn disk(free: u64, free_inodes: Option<u64>, is_read_only: bool) -> Option<WatchedDisk> {
        Some(WatchedDisk {
            path: "/d".into(),
            usage: Some(DiskUsage { free, size: 1 << 40, free_inodes, is_read_only }),
        })
    }

    fn seen(change: impl FnOnce(&mut ServerFacts)) -> (Condition, Vec<&'static str>) {
        let mut observed = ServerFacts {
            storage: StorageFacts {
                database: Presence::Present,
                log: Presence::Present,
                data_disk: disk(1 << 40, Some(1 << 20), false),
                snapshot_disk: disk(1 << 40, Some(1 << 20), false),
                unanswered: None,
            },
            ..ServerFacts::default()
        };
        change(&mut observed);
        let Assessment { condition, problems } = assess(&observed);
        (condition, problems.into_iter().map(|problem| problem.code.name()).collect())
    }

    #[test]
    fn what_cannot_be_kept_or_served_is_unhealthy_and_what_needs_attention_is_degraded() {
        use Condition::{Degraded, Healthy, Unhealthy};
        type Change = fn(&mut ServerFacts);
        let table: &[(Change, Condition, &[&str])] = &[
            (|_| {}, Healthy, &[]),
            (|o| o.storage.database = Presence::Missing, Unhealthy, &["database-missing"]),
            (|o| o.storage.database = Presence::Moved("/x".into()), Unhealthy, &["database-moved"]),
            (|o| o.storage.log = Presence::Replaced, Unhealthy, &["log-replaced"]),
            (|o| o.storage.log = Presence::Unknown, Healthy, &[]),
            (
                |o| (o.storage.database, o.storage.log) = (Presence::Missing, Presence::Missing),
                Unhealthy,
                &["data-missing"],
            ),
            (|o| o.storage.data_disk = disk(0, None, false), Unhealthy, &["disk-full"]),
            (|o| o.storage.data_disk = disk(100 << 20, None, false), Degraded, &["disk-low"]),
            (|o| o.storage.data_disk = disk(1 << 40, Some(3), false), Unhealthy, &["disk-inodes-full"]),
            (|o| o.storage.data_disk = disk(1 << 40, Some(500), false), Degraded, &["disk-inodes-low"]),
            (|o| o.storage.data_disk = disk(1 << 40, None, true), Unhealthy, &["disk-read-only"]),
            (|o| o.storage.snapshot_disk = disk(0, None, false), Degraded, &["snapshot-disk-full"]),
            (|o| o.storage.snapshot_disk = disk(0, None, true), Degraded, &["snapshot-disk-read-only"]),
            (|o| o.storage.unanswered = Some(Duration::from_secs(30)), Unhealthy, &["disk-not-answering"]),
            (|o| o.not_serving = Some("no leader".into()), Unhealthy, &["etcd-not-serving"]),
            (|o| o.alarms = vec!["NOSPACE".into()], Unhealthy, &["alarm-nospace"]),
            (|o| (o.db_size, o.db_quota) = (85 << 20, 100 << 20), Healthy, &[]),
            (|o| (o.db_size, o.db_quota) = (95 << 20, 100 << 20), Degraded, &["quota-near"]),
            (|o| (o.db_size, o.db_quota) = (95 << 20, 0), Healthy, &[]),
            (|o| o.recent_exits = 1, Healthy, &[]),
            (|o| o.recent_exits = 2, Degraded, &["etcd-restarting"]),
            (|o| o.snapshot_failures = 3, Degraded, &["snapshots-failing"]),
            (|o| o.snapshots_unlisted = Some("EIO".into()), Degraded, &["snapshots-unlisted"]),
            (
                |o| {
                    o.recent_exits = 3;
                    o.storage.data_disk = disk(0, None, false);
                },
                Unhealthy,
                &["disk-full", "etcd-restarting"],
            ),
        ];
        for (number, (change, condition, codes)) in table.iter().enumerate() {
            assert_eq!(seen(change), (*condition, codes.to_vec()), "row {number}");
        }
    }

    #[test]
    fn one_disk_under_data_and_snapshots_is_reported_once() {
        let (condition, codes) = seen(|o| {
            o.storage.data_disk = disk(1, None, false);
            o.storage.snapshot_disk = disk(1, None, false);
        });
        assert_eq!((condition, codes), (Condition::Unhealthy, vec!["disk-full"]));
    }

    proptest! {
        #[test]
        fn the_condition_is_that_of_the_worst_problem(
            free in 0u64..1 << 30, inodes in 0u64..5000, read_only: bool, exits in 0usize..5, failures in 0u64..5,
            missing: bool,
        ) {
            let mut observed = ServerFacts { recent_exits: exits, snapshot_failures: failures, ..ServerFacts::default() };
            observed.storage.data_disk = disk(free, Some(inodes), read_only);
            if missing {
                observed.storage.database = Presence::Missing;
            }
            let found = assess(&observed);
            let worst = found.problems.iter().map(|problem| problem.condition).max().unwrap_or_default();
            prop_assert_eq!(found.condition, worst);
            prop_assert!(!missing || found.condition == Condition::Unhealthy);
            prop_assert!(found.problems.windows(2).all(|pair| pair[0].condition >= pair[1].condition));
        }
    }
}
