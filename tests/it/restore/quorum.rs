//! A quorum that is lost, and one that is not.

use std::fs;

use nix::sys::signal::Signal;
use quorate::error::Code;

use super::{PHRASE, epoch, left_nothing, restored, said};
use crate::kit::{BareEtcd, Etcd, Node, Timed, Writer, eventually, is_running};

fn three(node: &mut Node, etcd: &Etcd) -> (BareEtcd, BareEtcd) {
    node.start_ready();
    (BareEtcd::join(node, etcd, "second"), BareEtcd::join(node, etcd, "third"))
}

fn lose_quorum(etcd: &Etcd) {
    let mut node = Node::new(etcd);
    let (second, third) = three(&mut node, etcd);
    eventually("all three to be known", || (node.status_json()["member"]["members"] == 3).then_some(()));
    // Only what this member has acknowledged is certainly on its disk.
    let writer = Writer::start(vec![node.access()], 1);
    writer.wait_for_more(200);
    // All of it at once, in the middle of everything.
    second.kill();
    third.kill();
    let child = node.signal_child(Signal::SIGKILL);
    node.kill_launcher();
    drop((second, third));
    eventually("etcd to be gone", || (!is_running(child)).then_some(()));
    let ledger = writer.stop();
    let before = epoch(&node);
    let ran = node.run_server_with(&["--cluster-reset"]);
    restored(&ran);
    assert!(said(&ran).contains("3 members"), "{}", ran.err);
    // What has to be done on the other two.
    assert!(said(&ran).contains("server/db/etcd"), "{}", ran.err);
    left_nothing(&node);
    node.start_ready();
    ledger.verify(&node.access());
    assert_eq!(node.status_json()["member"]["members"], 1);
    assert_eq!(epoch(&node), before + 1);
    node.stop();
}

#[test]
fn a_lost_quorum_is_reset_without_losing_a_write() {
    let _timed = Timed::start();
    for minor in ["3.4", "3.5", "3.6", "3.7"] {
        if let Some(etcd) = Etcd::find(minor) {
            lose_quorum(&etcd);
        }
    }
}

#[test]
fn members_that_are_alive_do_not_notice_the_reset_of_another() {
    let _timed = Timed::start();
    let etcd = Etcd::usual();
    let mut node = Node::new(&etcd);
    let (second, third) = three(&mut node, &etcd);
    let names =
        eventually("the names", || second.access.members().filter(|names| names.iter().all(|name| !name.is_empty())));
    assert_eq!(names.len(), 3);
    node.stop();
    eventually("the two to go on", || second.access.put("during"));
    let ran = node.run_server_with(&["--cluster-reset"]);
    assert!(said(&ran).contains(PHRASE), "{}", ran.err);
    node.start_ready();
    eventually("the two to serve", || third.access.put("after"));
    for member in [&second, &third] {
        assert_eq!(member.access.members().as_ref(), Some(&names), "no member was removed");
    }
    assert_eq!(second.access.hash_kv(), third.access.hash_kv());
    assert_eq!(node.status_json()["member"]["members"], 1);
    assert!(!node.etcdctl(&["get", "after"]).contains("after"), "they are two clusters now");
    node.stop();
}

#[test]
fn a_reset_of_a_server_that_runs_or_has_no_data_is_refused() {
    let _timed = Timed::start();
    let mut node = Node::new(&Etcd::usual());
    node.run_server_with(&["--cluster-reset"]).fails(Code::NoEtcdData, &["--cluster-reset-restore-path=PATH"]);
    node.start_ready();
    node.run_server_with(&["--cluster-reset"]).fails(Code::DataDirInUse, &["systemctl stop quorate-server"]);
    node.etcdctl(&["put", "a", "1"]);
    node.stop();
    // By environment, and in the configuration: once, and then never again automatically.
    node.env = vec![("QUORATE_CLUSTER_RESET".into(), "true".into())];
    restored(&node.run_server());
    node.run_server().fails(Code::ResetFlag, &["reset-flag"]);
    node.env.clear();
    node.start_ready();
    assert_eq!(crate::restore::keys(&node), "a");
    node.stop();
    fs::write(node.config_path(), "cluster-reset: true\n").unwrap();
    restored(&node.run_server());
    node.run_server().fails(Code::ResetFlag, &["reset-flag"]);
}

/// What is not in the database yet is in the log, torn at its end by the crash.
#[test]
fn a_torn_log_is_read_as_far_as_it_goes() {
    let _timed = Timed::start();
    for minor in ["3.4", "3.5", "3.6", "3.7"] {
        let Some(etcd) = Etcd::find(minor) else { continue };
        let mut node = Node::new(&etcd);
        node.start_ready();
        for number in 0..20 {
            node.etcdctl(&["put", &format!("k{number}"), "v"]);
        }
        let child = node.signal_child(Signal::SIGKILL);
        node.kill_launcher();
        eventually("etcd to be gone", || (!is_running(child)).then_some(()));
        let wal = fs::read_dir(node.etcd_dir().join("member/wal")).unwrap().flatten().map(|entry| entry.path());
        let last = wal.filter(|path| path.extension().is_some_and(|ending| ending == "wal")).max().unwrap();
        let mut bytes = fs::read(&last).unwrap();
        let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        // A length, and the first bytes of a record that was never written to its end.
        let at = end.next_multiple_of(8);
        bytes[at..at + 8].copy_from_slice(&2000u64.to_le_bytes());
        bytes[at + 8..at + 12].copy_from_slice(&[8, 2, 16, 1]);
        fs::write(&last, bytes).unwrap();
        restored(&node.run_server_with(&["--cluster-reset"]));
        node.start_ready();
        assert_eq!(crate::restore::keys(&node).split(' ').count(), 20, "{minor}");
        node.stop();
    }
}
