//! What is wrong with a file system under etcd's data or under the snapshots.

use std::path::Path;

use crate::error::Code;
use crate::host::disk::DiskUsage;
use crate::plan::command::shell_word;
use crate::plan::condition::{Condition, Problem, problem};
use crate::text::format_bytes;

/// Free bytes below which the next page or log segment of etcd may not fit.
const DISK_FULL: u64 = 16 << 20;
/// Free bytes below which an operator should free some: four segments of etcd's log.
const DISK_LOW: u64 = 256 << 20;
/// etcd creates a file for each log segment and raft snapshot, quorate one for each snapshot and its manifest.
const INODES_LOW: u64 = 1000;
/// Free inodes below which file creation will fail soon.
const INODES_FULL: u64 = 16;

/// The codes of what can be wrong with a disk.
struct DiskCodes {
    full: Code,
    low: Code,
    inodes_full: Code,
    inodes_low: Code,
    read_only: Code,
}

const DATA_DISK: DiskCodes = DiskCodes {
    full: Code::DiskFull,
    low: Code::DiskLow,
    inodes_full: Code::DiskInodesFull,
    inodes_low: Code::DiskInodesLow,
    read_only: Code::DiskReadOnly,
};

const SNAPSHOT_DISK: DiskCodes = DiskCodes {
    full: Code::SnapshotDiskFull,
    low: Code::SnapshotDiskLow,
    inodes_full: Code::SnapshotDiskInodesFull,
    inodes_low: Code::SnapshotDiskInodesLow,
    read_only: Code::SnapshotDiskReadOnly,
};

pub(super) fn disk_space(path: &Path, usage: DiskUsage, of_data: bool) -> Option<Problem> {
    let (what, worst, codes) = if of_data {
        ("etcd's data", Condition::Unhealthy, DATA_DISK)
    } else {
        ("the snapshots", Condition::Degraded, SNAPSHOT_DISK)
    };
    let shown = path.display();
    let find = format!("see what uses the space: du -xsh {}/*", shell_word(path));
    if usage.is_read_only {
        let message = format!("the file system under {shown} is read-only: {what} cannot be written");
        let next = "check the kernel log: dmesg | tail; after a repair: mount -o remount,rw on it";
        return Some(problem(worst, codes.read_only, message, next.to_owned()));
    }
    if usage.free < DISK_FULL {
        let message = format!("{} free under {shown}: no space for {what}", format_bytes(usage.free));
        return Some(problem(worst, codes.full, message, find));
    }
    if usage.free_inodes.is_some_and(|free| free < INODES_FULL) {
        let message = format!("no inodes are free under {shown}: no file can be created for {what}");
        let next = format!("remove files there; check with: df -i {}", shell_word(path));
        return Some(problem(worst, codes.inodes_full, message, next));
    }
    if usage.free < DISK_LOW {
        let message = format!("only {} free for {what} under {shown}", format_bytes(usage.free));
        return Some(problem(Condition::Degraded, codes.low, message, find));
    }
    if let Some(free) = usage.free_inodes.filter(|free| *free < INODES_LOW) {
        let message = format!("only {free} inodes are free for {what} under {shown}");
        let next = format!("remove files there; check with: df -i {}", shell_word(path));
        return Some(problem(Condition::Degraded, codes.inodes_low, message, next));
    }
    None
}
