//! An executable that carries its etcd.

use std::fs;
use std::path::PathBuf;

use quorate::error::Code;

use crate::kit::{Mount, Node, Timed, embedded_executable, etcds_on, eventually};

fn node() -> Option<Node> {
    let mut node = Node::with_binary(None).env("PATH", "/nonexistent");
    node.executable = embedded_executable()?;
    Some(node)
}

fn unpacked(node: &Node) -> Vec<PathBuf> {
    let payloads = fs::read_dir(node.data_dir.join("data")).into_iter().flatten().flatten();
    payloads.map(|entry| entry.path().join("bin")).collect()
}

#[test]
fn it_needs_nothing_else() {
    let _timed = Timed::start();
    let Some(mut node) = node() else { return };
    node.start_ready();
    assert_eq!(node.etcdctl(&["put", "a", "1"]), "OK\n");
    let dirs = unpacked(&node);
    assert_eq!(dirs.len(), 1);
    eventually("etcdctl to be unpacked", || dirs[0].join("etcdctl").exists().then_some(()));
    let etcd = dirs[0].join("etcd");
    assert_eq!(node.status_json()["etcd"]["binary"], etcd.display().to_string());
    let size = fs::metadata(&etcd).unwrap().len();
    let unpacked_at = fs::metadata(&etcd).unwrap().modified().unwrap();
    node.stop();

    // Unpacked once …
    node.start_ready();
    assert_eq!(fs::metadata(&etcd).unwrap().modified().unwrap(), unpacked_at);
    node.stop();

    // … and again when it is not what it was, even by one byte of the same size.
    let mut bytes = fs::read(&etcd).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&etcd, &bytes).unwrap();
    node.start_ready();
    assert_eq!(fs::metadata(&etcd).unwrap().len(), size);
    assert_ne!(fs::read(&etcd).unwrap(), bytes);
    node.stop();
}

#[test]
fn etcdctl_writes_nothing_into_a_data_directory() {
    let _timed = Timed::start();
    let Some(node) = node() else { return };
    let ran = node.quorate(&["etcdctl", "--", "version"]);
    assert!(ran.succeeds().contains("etcdctl version"), "{ran:?}");
    assert!(!node.data_dir.exists(), "{:?}", node.files());
}

#[test]
fn a_bad_argument_leaves_the_data_directory_untouched() {
    let _timed = Timed::start();
    let Some(node) = node() else { return };
    let node = node.arg("--etcd-arg=no-such-thing=1");
    node.run_server().fails(Code::EtcdArgument, &["no-such-thing=1"]);
    assert!(!node.data_dir.exists(), "{:?}", node.files());
}

#[test]
fn it_runs_from_memory_where_nothing_may_be_executed() {
    let _timed = Timed::start();
    let Some(mut node) = node() else { return };
    node.data_dir = node.dir.path().join("noexec");
    let Some(_mount) = Mount::tmpfs(&node.data_dir, "size=400m,noexec") else { return };
    node.start_ready();
    assert_eq!(unpacked(&node), Vec::<PathBuf>::new());
    assert_eq!(node.etcdctl(&["put", "a", "1"]), "OK\n");
    node.kill_launcher();
    node.start_ready();
    assert!(etcds_on(&node.etcd_dir()).len() == 1);
    node.stop();
}
