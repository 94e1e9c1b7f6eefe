//! The way back, and the data that were retired.

use std::fs;

use quorate::error::Code;

use super::{epoch, keys, left_nothing, restore, restored, said, save};
use crate::kit::{Etcd, Node, Timed, eventually};
use crate::matrix;

matrix!(a_restore_is_undone_later_on);

mod cases {
    use super::*;

    pub fn a_restore_is_undone_later_on(etcd: &Etcd) {
        let mut node = Node::new(etcd);
        node.start_ready();
        node.etcdctl(&["put", "a", "1"]);
        let name = save(&node);
        node.etcdctl(&["put", "b", "1"]);
        let cluster = node.status_json()["member"]["cluster_id"].clone();
        node.run_server_with(&["--undo-reset"]).fails(Code::DataDirInUse, &[&node.launcher_pid().to_string()]);
        node.stop();
        node.run_server_with(&["--undo-reset"]).fails(Code::NoEarlierData, &[]);
        restored(&restore(&node, &name, &[]));
        node.start_ready();
        node.etcdctl(&["put", "c", "1"]);
        node.stop();
        let ran = node.run_server_with(&["--undo-reset"]);
        restored(&ran);
        assert!(said(&ran).contains("/etcd-old-"), "{}", ran.err);
        left_nothing(&node);
        assert!(!node.server_dir().join("db/reset-flag").exists());
        node.start_ready();
        assert_eq!(keys(&node), "a b");
        assert_eq!(node.status_json()["member"]["cluster_id"], cluster);
        assert_eq!(epoch(&node), 3);
        node.stop();
        // And forth again.
        restored(&node.run_server_with(&["--undo-reset"]));
        node.start_ready();
        assert_eq!(keys(&node), "a c");
        node.stop();
    }
}

#[test]
fn only_the_newest_old_data_are_kept_and_none_goes_before_its_successor_is_healthy() {
    let _timed = Timed::start();
    let mut node = Node::new(&Etcd::usual()).config("etcd-old-retention: 2\n");
    node.start_ready();
    node.etcdctl(&["put", "a", "1"]);
    let name = save(&node);
    node.stop();
    for _ in 0..3 {
        restored(&restore(&node, &name, &[]));
        fs::remove_file(node.server_dir().join("db/reset-flag")).unwrap();
    }
    let aside = node.retire();
    assert_eq!(aside.len(), 3, "in the same second too, each has a name of its own");
    let nets = fs::read_dir(crate::restore::snapshot_dir(&node)).unwrap().flatten();
    assert_eq!(nets.filter(|entry| entry.file_name().to_string_lossy().starts_with("pre-restore-")).count(), 2);
    node.start_ready();
    eventually("the oldest to go", || (node.retire().len() == 2).then_some(()));
    node.wait_event("old-data-removed", &[]);
    let status = node.status_json();
    let old = status["old_data"].as_array().unwrap();
    assert_eq!(old.len(), 2);
    assert!(old[0]["bytes"].as_u64().unwrap() > 1 << 20 && old[0]["second"].as_u64() >= old[1]["second"].as_u64());
    let table = node.quorate(&["status"]);
    assert!(table.succeeds().contains("old data"), "{table:?}");
    node.stop();
}

/// Data that are damaged are not gone back to.
#[test]
fn damaged_old_data_stay_where_they_are() {
    let _timed = Timed::start();
    let mut node = Node::new(&Etcd::usual());
    node.start_ready();
    node.etcdctl(&["put", "a", "1"]);
    let name = save(&node);
    node.stop();
    restored(&restore(&node, &name, &[]));
    let bolt = node.retire()[0].join("member/snap/db");
    let good = fs::read(&bolt).unwrap();
    fs::write(&bolt, &good[..5000]).unwrap();
    let before = crate::restore::everything(&node.server_dir().join("db"));
    node.run_server_with(&["--undo-reset"]).fails(Code::DatabaseDamaged, &["5000"]);
    assert_eq!(crate::restore::everything(&node.server_dir().join("db")), before);
    node.start_ready();
    assert_eq!(keys(&node), "a");
    node.stop();
}

/// ux F5, F6: over lost data, the newest snapshot is named with the command that restores it, and no way back is promised.
#[test]
fn a_restore_over_lost_data_promises_nothing_that_it_does_not_have() {
    let _timed = Timed::start();
    let mut node = Node::new(&Etcd::usual());
    node.start_ready();
    node.etcdctl(&["put", "a", "1"]);
    let name = save(&node);
    node.stop();
    std::fs::remove_dir_all(node.etcd_dir().join("member")).unwrap();
    // A start, a reset, and a start after the record of the cluster is gone, too: each names the same command.
    let command = format!("--cluster-reset --cluster-reset-restore-path={name}");
    node.run_server().fails(Code::DataLost, &["revision 2", &command, "--new-cluster"]);
    node.run_server_with(&["--cluster-reset"]).fails(Code::NoEtcdData, &["revision 2", &command]);
    std::fs::remove_file(node.server_dir().join("cluster.json")).unwrap();
    node.run_server().fails(Code::SnapshotsExist, &["revision 2", &command, "--new-cluster"]);
    let ran = restore(&node, &name, &[]);
    restored(&ran);
    assert!(!said(&ran).contains("--undo-reset"), "{}", ran.err);
    node.run_server_with(&["--undo-reset"]).fails(Code::NoEarlierData, &[]);
    node.start_ready();
    assert_eq!(node.etcdctl(&["get", "--print-value-only", "a"]).trim(), "1");
    // What that restore retired does not hide what a later one does.
    node.stop();
    let ran = restore(&node, &name, &[]);
    restored(&ran);
    assert!(said(&ran).contains("--undo-reset"), "{}", ran.err);
    restored(&node.run_server_with(&["--undo-reset"]));
    node.start_ready();
    node.stop();
}
