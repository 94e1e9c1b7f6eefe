//! What writes leave behind that were interrupted, and what acts say that failed at their end.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use quorate::error::Code;

use crate::kit::{Etcd, Node, Ran, Timed, eventually};
use crate::snapshot::save::{begin, everything, list, save};

fn drafts(dir: &Path) -> Vec<PathBuf> {
    everything(dir).into_iter().filter(|path| path.to_string_lossy().contains("tmp-quorate")).collect()
}

/// Two servers keep their snapshots in one directory. Where it is shared between containers, both may be process 1.
#[test]
fn files_of_another_writing_server_are_never_removed() {
    let _timed = Timed::start();
    let dir = tempfile::tempdir().unwrap();
    let config = format!("etcd-snapshot-dir: {}\n", dir.path().display());
    let mut one = Node::new(&Etcd::usual()).env("FAILPOINTS", "snapshot::write=1*return(stop)").config(&config);
    one.start_ready();
    let mut other = Node::new(&Etcd::usual()).config(&config).arg("--node-name=other");
    let saving = begin(&one, &[]);
    let pid = one.launcher_pid();
    let is_stopped = || fs::read_to_string(format!("/proc/{pid}/stat")).unwrap().contains(") T ");
    eventually("the first one to write", || is_stopped().then_some(()));
    let [draft] = drafts(dir.path()).try_into().unwrap();
    let inode = fs::metadata(&draft).unwrap().ino();
    // Left by another process whose process id is in use again, for ever.
    for name in [".tmp-quorate-x-00112233-1-1", ".metadata/.tmp-quorate-x.json-00112233-1-1"] {
        fs::create_dir_all(dir.path().join(".metadata")).unwrap();
        fs::write(dir.path().join(name), "x").unwrap();
    }
    other.start_ready();
    save(&other, &[]);
    assert_eq!(drafts(dir.path()), std::slice::from_ref(&draft), "what is written stays, and what was left is gone");
    assert_eq!(fs::metadata(&draft).unwrap().ino(), inode);
    kill(Pid::from_raw(pid), Signal::SIGCONT).unwrap();
    assert_eq!(saving.wait_with_output().unwrap().status.code(), Some(0));
    assert_eq!(drafts(dir.path()), Vec::<PathBuf>::new());
    // Killed while it writes, the next one removes it.
    one.stop();
    one.env = vec![("FAILPOINTS".into(), "snapshot::write=return(kill)".into())];
    one.start_ready();
    assert_ne!(one.quorate(&["etcd-snapshot", "save"]).code, Some(0));
    one.wait_end();
    assert_eq!(drafts(dir.path()).len(), 1);
    save(&other, &[]);
    assert_eq!(drafts(dir.path()), Vec::<PathBuf>::new());
    other.stop();
}

/// In every directory that quorate writes to, regardless of the process id is in the name.
#[test]
fn a_start_removes_what_was_left_everywhere() {
    let _timed = Timed::start();
    let elsewhere = tempfile::tempdir().unwrap();
    let mut node = Node::new(&Etcd::usual()).config(&format!("etcd-snapshot-dir: {}\n", elsewhere.path().display()));
    node.start_ready();
    node.stop();
    let server = node.server_dir();
    let dirs = [
        node.data_dir.clone(),
        server.clone(),
        server.join("tls"),
        server.join("tls/etcd"),
        server.join("cache"),
        server.join("db"),
        server.join("db/etcd"),
        server.join("db/snapshots"),
        server.join("db/snapshots/.metadata"),
        elsewhere.path().to_path_buf(),
        elsewhere.path().join(".metadata"),
    ];
    for dir in &dirs {
        fs::create_dir_all(dir).unwrap();
        for pid in ["1", "4194304", &std::process::id().to_string()] {
            fs::write(dir.join(format!(".tmp-quorate-x.json-00112233-1-{pid}")), "x").unwrap();
        }
        fs::create_dir_all(dir.join(".tmp-quorate-d-00112233-1-1/below")).unwrap();
    }
    node.start_ready();
    let left: Vec<PathBuf> = dirs.iter().flat_map(|dir| drafts(dir)).collect();
    assert_eq!(left, Vec::<PathBuf>::new());
    node.stop();
}

/// The fsync of the directory fails after the rename: then the snapshot is not there, or it is said that it is.
#[test]
fn a_name_that_cannot_be_made_durable_is_removed_or_named() {
    let _timed = Timed::start();
    let mut node = Node::new(&Etcd::usual());
    for packing in ["", "zstd", "zip"] {
        node.env = vec![("FAILPOINTS".into(), "durable::fsync_name=return(eio)".into())];
        node.start_ready();
        let compress = format!("--snapshot-compress={packing}");
        let args = if packing.is_empty() { vec![] } else { vec![compress.as_str()] };
        let saved = |node: &Node| node.quorate(&[&["etcd-snapshot", "save"], args.as_slice()].concat());
        saved(&node).fails(Code::WriteFailed, &[]);
        assert_eq!(list(&node).len(), 0, "{packing}");
        assert_eq!(drafts(&node.server_dir()), Vec::<PathBuf>::new());
        node.stop();
    }
    node.env = vec![("FAILPOINTS".into(), "durable::fsync_name=return(eio);durable::unname=return(eio)".into())];
    node.start_ready();
    let ran = node.quorate(&["etcd-snapshot", "save"]);
    let [item] = list(&node).try_into().unwrap();
    let name = item["name"].as_str().unwrap().to_owned();
    ran.fails(Code::WriteFailed, &[&name]);
    node.stop();
    fs::create_dir_all(node.server_dir().join("db/snapshots/.metadata")).unwrap();
    // What replaces a file cannot be aborted: it is said.
    let hold = [("FAILPOINTS", "durable::fsync_dir=return(eio)")];
    let ran = node.quorate_with(&hold, &["etcd-snapshot", "hold", &name]);
    ran.fails(Code::WriteFailed, &[&format!("{name}.json")]);
    assert_eq!(list(&node)[0]["held"], true);
}

/// One that cannot be deleted does not keep the others, and what is gone is reported.
#[test]
fn deletions_are_reported_although_something_else_failed() {
    let _timed = Timed::start();
    let mut node = Node::new(&Etcd::usual());
    node.start_ready();
    let names: Vec<String> = (0..4).map(|_| save(&node, &[])["name"].as_str().unwrap().to_owned()).collect();
    node.stop();
    // The second snapshot; each has a manifest.
    let fault = [("FAILPOINTS", "durable::unlink=2*off->1*return(eio)->off")];
    let ran = node.quorate_with(&fault, &["etcd-snapshot", "prune", "--keep-last=1", "-o", "json"]);
    assert_eq!(ran.code, Some(1), "{ran:#?}");
    let report = actions(&ran);
    let left: Vec<String> = list(&node).iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect();
    for name in &names {
        let action = report.iter().find(|(report, _)| report == name).map(|(_, action)| action.as_str());
        assert_eq!(action == Some("drop"), !left.contains(name), "{name}: {report:?}, left are {left:?}");
    }
    assert_eq!(left.len(), 2, "the one that is kept, and the one that could not be deleted: {left:?}");
}

/// What was known is not forgotten because it cannot be seen for a while.
#[test]
fn a_directory_that_cannot_be_listed_keeps_what_was_known() {
    let _timed = Timed::start();
    let mut node = Node::new(&Etcd::usual()).env("QUORATE_TEST_LOOK_MS", "200");
    node.start_ready();
    let name = save(&node, &[])["name"].clone();
    let (dir, away) = (node.server_dir().join("db/snapshots"), node.server_dir().join("db/away"));
    fs::rename(&dir, &away).unwrap();
    fs::write(&dir, "").unwrap();
    let codes = |status: &serde_json::Value| -> Vec<String> {
        let problems = status["problems"].as_array().unwrap().iter();
        problems.map(|problem| problem["code"].as_str().unwrap().to_owned()).collect()
    };
    let status = eventually("the problem", || {
        Some(node.status_json()).filter(|status| codes(status).contains(&"snapshots-unlisted".to_owned()))
    });
    assert_eq!(status["snapshots"]["last_good"]["name"], name, "{status}");
    fs::remove_file(&dir).unwrap();
    fs::rename(&away, &dir).unwrap();
    eventually("the end of it", || codes(&node.status_json()).is_empty().then_some(()));
    node.stop();
}

fn actions(ran: &Ran) -> Vec<(String, String)> {
    let report: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    let items = report["items"].as_array().unwrap().iter();
    let text = |item: &serde_json::Value, field: &str| item[field].as_str().unwrap_or_default().to_owned();
    items.map(|item| (text(item, "name"), text(item, "action"))).collect()
}
