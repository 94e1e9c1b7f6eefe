//! What runs and what lies on the disk; programs that pass for an etcd.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::{DEADLINE, POLL};

/// True if the process is there and not a zombie.
pub fn is_running(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !matches!(stat.rsplit(") ").next().and_then(|rest| rest.chars().next()), Some('Z' | 'X')))
}

pub fn eventually_gone(pid: i32) -> bool {
    let begun = Instant::now();
    while is_running(pid) && begun.elapsed() < DEADLINE {
        std::thread::sleep(POLL);
    }
    !is_running(pid)
}

/// The etcds that run on this directory: pids of processes whose arguments name it as their data-dir.
pub fn etcds_on(dir: &Path) -> Vec<i32> {
    let wanted = format!("--data-dir={}", dir.display());
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| line.split(|byte| *byte == 0).any(|arg| arg == wanted.as_bytes()))
                && is_running(*pid)
        })
        .collect()
}

pub fn files_under(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        found.push(entry.path());
        if entry.path().is_dir() && !entry.path().is_symlink() {
            found.extend(files_under(&entry.path()));
        }
    }
    found
}

/// A shell script that passes for an etcd: it answers `--version`, and does `body` when run.
pub fn fake_etcd(dir: &Path, version: &str, body: &str) -> PathBuf {
    let path = dir.join("fake-etcd");
    let script = format!(
        "#!/bin/sh\nfor arg in \"$@\"; do [ \"$arg\" = --version ] && {{ echo 'etcd Version: {version}'; exit 0; }}; done\n{body}\n"
    );
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}
