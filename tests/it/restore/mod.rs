//! Resets and restores, against real etcds: what comes out of them, and what is left when they fail.

mod bad_input;
mod cancel;
mod coordinated;
mod formats;
mod inside;
mod places;
mod quorum;
#[allow(clippy::module_inception, reason = "the restore itself, among what surrounds it")]
mod restore;
pub mod steps;
mod swapped;
mod syscalls;
mod undo;
mod upgrade;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::kit::{self, Node, Ran};

/// What every success says, as the RKE2 page promises.
const PHRASE: &str = "quorate can be restarted without the flags: systemctl start quorate-server";

/// Takes a snapshot and gives its name.
fn save(node: &Node) -> String {
    let ran = node.quorate(&["etcd-snapshot", "save", "-o", "json"]);
    let item: serde_json::Value = serde_json::from_str(ran.succeeds()).unwrap();
    item["name"].as_str().unwrap().to_owned()
}

fn snapshot_dir(node: &Node) -> PathBuf {
    node.server_dir().join("db/snapshots")
}

fn restore(node: &Node, snapshot: &str, more: &[&str]) -> Ran {
    let path = format!("--cluster-reset-restore-path={snapshot}");
    node.run_server_with(&[&["--cluster-reset", &path], more].concat())
}

/// What is said, with its lines joined.
fn said(ran: &Ran) -> String {
    ran.err.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[track_caller]
fn restored(ran: &Ran) {
    ran.succeeds();
    assert!(said(ran).contains(PHRASE), "{}", ran.err);
}

/// The content of every file below `dir`, and where links lead.
fn everything(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let read = |path: PathBuf| {
        let content = if path.is_symlink() {
            fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()
        } else if path.is_dir() {
            Vec::new()
        } else {
            fs::read(&path).unwrap()
        };
        (path, content)
    };
    kit::files_under(dir).into_iter().map(read).collect()
}

/// What a reset leaves in no case: temporary files, its directory, an etcd.
#[track_caller]
fn left_nothing(node: &Node) {
    let left: Vec<_> = node
        .files()
        .into_iter()
        .filter(|path| {
            path.to_string_lossy().contains("tmp-quorate")
                || path.ends_with("restore")
                || path.ends_with("quorate-restore")
        })
        .collect();
    assert_eq!(left, Vec::<PathBuf>::new());
    assert!(!node.server_dir().join("child.json").exists() || node.child_pid().is_some_and(kit::is_running));
}

fn keys(node: &Node) -> String {
    node.etcdctl(&["get", "", "--prefix", "--keys-only"]).split_whitespace().collect::<Vec<_>>().join(" ")
}

fn epoch(node: &Node) -> u64 {
    let text = fs::read_to_string(node.server_dir().join("cluster.json")).unwrap();
    serde_json::from_str::<serde_json::Value>(&text).unwrap()["epoch"].as_u64().unwrap()
}
