//! The database's space: what uses it, what reclaims it, and the remedy when the quota is reached.

use std::fs;

use nix::sys::signal::Signal;
use quorate::error::Code;
use serde_json::Value;

use crate::kit::{Etcd, Mount, Node, Ran, Timed, eventually};
use crate::snapshot::save::{begin, fill, interruptible};

crate::matrix!(a_database_that_history_has_filled_is_emptied, near_the_quota_it_is_defragmented_automatically);

/// Writes `times` values of 100 kB under one key; false if etcd refused one.
fn write_history(node: &Node, key: &str, times: usize) -> bool {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let mut client = node.access().client().await;
        for _ in 0..times {
            if client.put(key, vec![b'x'; 100_000], None).await.is_err() {
                return false;
            }
        }
        true
    })
}

fn space(node: &Node) -> Value {
    serde_json::from_str(node.quorate(&["space", "-o", "json"]).succeeds()).unwrap()
}

fn has_alarm(node: &Node) -> bool {
    node.status_json()["member"]["alarms"] == serde_json::json!(["NOSPACE"])
}

mod cases {
    use super::*;

    pub fn a_database_that_history_has_filled_is_emptied(etcd: &Etcd) {
        let quota = "etcd-quota-backend-bytes: 20MiB\netcd-auto-defrag: false\nnode-name: node\n";
        let mut node = Node::new(etcd).config(quota);
        node.start_ready();
        node.etcdctl(&["put", "users/1", "a"]);
        node.etcdctl(&["put", "users/1", "b"]);
        node.etcdctl(&["put", "users/2", "a"]);
        node.etcdctl(&["del", "users/2"]);
        assert!(!write_history(&node, "/registry/leases/one", 500), "there is a quota");
        eventually("the alarm", || has_alarm(&node).then_some(()));
        let status = node.status();
        assert!(status.code == Some(1) && status.out.contains("quorate space"), "{status:?}");
        // Reached by holding the file: it is larger than what is received.
        let before = space(&node);
        assert!(before["size"].as_u64().unwrap() > 16 << 20, "{before}");
        assert_eq!((&before["keys"], &before["compact_revision"]), (&2.into(), &Value::Null), "{before}");
        let records = before["revision"].as_u64().unwrap() - 1;
        assert_eq!(before["records"], records, "every change is a record");
        let [leases, users] = [&before["prefixes"][0], &before["prefixes"][1]];
        assert_eq!((&leases["prefix"], &leases["keys"]), (&"/registry/leases/".into(), &1.into()), "{before}");
        assert_eq!((&users["prefix"], &users["keys"], &users["records"]), (&"users/".into(), &1.into(), &4.into()));
        let table = node.quorate(&["space"]);
        assert!(table.succeeds().lines().all(|line| line.chars().count() <= 80), "{}", table.out);
        assert!(table.out.contains("quorate space --free"), "{}", table.out);

        let freed: Value = serde_json::from_str(node.quorate(&["space", "--free", "-o", "json"]).succeeds()).unwrap();
        assert_eq!((&freed["is_compacted"], &freed["is_disarmed"]), (&true.into(), &true.into()), "{freed}");
        assert!(freed["after"]["file"].as_u64() < Some(1 << 20), "{freed}");
        // At once, and not when it is next looked at.
        assert_eq!(node.status().code, Some(0), "{:?}", node.status());
        assert_eq!(node.etcdctl(&["get", "users/1", "--print-value-only"]).trim(), "b");
        node.etcdctl(&["put", "users/3", "c"]);
        let after = space(&node);
        assert_eq!((&after["keys"], &after["records"]), (&3.into(), &3.into()), "{after}");
        for is_compacted in [true, false] {
            let again: Value =
                serde_json::from_str(node.quorate(&["space", "--free", "-o", "json"]).succeeds()).unwrap();
            assert_eq!(again["is_compacted"], is_compacted, "{again}");
        }
        node.stop();
    }

    /// Whatever etcd believes: 3.4 never learns what the compaction has freed, since nothing is written any more.
    pub fn near_the_quota_it_is_defragmented_automatically(etcd: &Etcd) {
        let config = "etcd-quota-backend-bytes: 20MiB\n";
        let mut node = Node::new(etcd).config(config).env("QUORATE_TEST_MAINTENANCE_MS", "100");
        node.start_ready();
        assert!(!write_history(&node, "one", 500), "there is a quota");
        eventually("the alarm", || has_alarm(&node).then_some(()));
        assert!(!node.has_event("defragment-due"), "nothing is free before history is discarded");
        let revision = space(&node)["revision"].to_string();
        node.etcdctl(&["compact", "--physical=true", &revision]);
        eventually("a healthy etcd", || (node.status().code == Some(0)).then_some(()));
        node.wait_event("defragment-due", &[]);
        node.wait_event("alarm-cleared", &[]);
        node.stop();
    }
}

#[test]
fn keys_that_fill_the_quota_are_named_and_nothing_is_said_to_be_well() {
    let _timed = Timed::start();
    let mut node = Node::new(&Etcd::usual()).config("etcd-quota-backend-bytes: 8MiB\n");
    node.start_ready();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let mut client = node.access().client().await;
        let mut number = 0;
        while client.put(format!("big/{number}"), vec![b'x'; 100_000], None).await.is_ok() {
            number += 1;
        }
    });
    eventually("the alarm", || has_alarm(&node).then_some(()));
    node.quorate(&["space", "--free"]).fails(Code::QuotaStillFull, &["8.0 MiB"]);
    assert!(has_alarm(&node));
    assert_eq!(space(&node)["prefixes"][0]["prefix"], "big/");
    node.etcdctl(&["del", "--prefix", "big/"]);
    node.quorate(&["space", "--free"]).succeeds();
    assert_eq!(node.status().code, Some(0));
    node.stop();
}

#[test]
fn it_is_defragmented_automatically_where_it_is_worth_it() {
    let _timed = Timed::start();
    let mut node = Node::new(&Etcd::usual()).env("QUORATE_TEST_MAINTENANCE_MS", "100");
    node.start_ready();
    assert!(write_history(&node, "one", 100));
    let revision = space(&node)["revision"].to_string();
    node.etcdctl(&["compact", "--physical=true", &revision]);
    // What a transaction has freed counts as free when the next one is committed.
    node.etcdctl(&["put", "after", "1"]);
    fs::write(node.config_path(), "etcd-defrag-threshold: 5MiB\n").unwrap();
    node.signal(Signal::SIGHUP);
    node.wait_event("defragmented", &[]);
    assert!(space(&node)["size"].as_u64() < Some(1 << 20));
    node.stop();
}

#[test]
fn without_room_for_a_copy_it_is_not_begun() {
    let _timed = Timed::start();
    let mut node = Node::new(&Etcd::usual());
    fs::create_dir_all(node.etcd_dir()).unwrap();
    // Two segments of etcd's log (128 MiB), and 40 MiB of database, of which a copy would have to fit.
    let Some(_mount) = Mount::tmpfs(&node.etcd_dir(), "size=230m") else { return };
    node.start_ready();
    fill(&node, 300);
    node.quorate(&["defrag"]).fails(Code::NoSpace, &[" MiB"]);
    // On so small a disk it is degraded, and serves.
    assert!(node.is_serving());
    node.stop();
}

#[test]
fn nothing_is_defragmented_while_a_snapshot_is_taken() {
    let _timed = Timed::start();
    // Slow enough (20 ms for each 32 KiB) to be caught in the middle.
    let mut node = Node::new(&Etcd::usual()).env("FAILPOINTS", "snapshot::write=sleep(20)").arg("--debug");
    node.start_ready();
    fill(&node, 50);
    let saving = begin(&node, &[]);
    let dir = node.server_dir().join("db/snapshots");
    eventually("a snapshot to be begun", || fs::read_dir(&dir).ok()?.next().map(drop));
    for args in [&["defrag"][..], &["space", "--free"]] {
        node.quorate(args).fails(Code::Busy, &["--wait"]);
    }
    // Who stops waiting has asked for nothing.
    let mut waiting = interruptible(&node);
    waiting.args(["space", "--free", "--wait", "--data-dir"]).arg(&node.data_dir);
    let mut waiting = waiting.spawn().unwrap();
    node.wait_event("operation-queued", &[]);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(waiting.id().cast_signed()), Signal::SIGINT).unwrap();
    waiting.wait().unwrap();
    // It is looked at all the same.
    assert_eq!(space(&node)["keys"], 50);
    let waited = node.quorate(&["defrag", "--wait"]);
    assert!(waited.succeeds().starts_with("defragmented in "), "{waited:?}");
    Ran::of(&saving.wait_with_output().unwrap()).succeeds();
    assert_eq!(space(&node)["compact_revision"], Value::Null, "nothing was discarded");
    node.stop();
    node.quorate(&["defrag"]).fails(Code::NotRunning, &[]);
    node.quorate(&["space"]).fails(Code::NotRunning, &[]);
}
