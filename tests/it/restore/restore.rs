//! One good snapshot, end to end.

use std::fs;

use quorate::error::Code;

use super::{epoch, keys, left_nothing, restore, restored, said, save, snapshot_dir};
use crate::kit::events::lines_of;
use crate::kit::{BareEtcd, Etcd, Node, Ran, Timed, eventually};
use crate::matrix;

matrix!(
    a_snapshot_is_restored,
    without_a_raise_everything_is_as_it_was,
    watchers_and_caches_list_again,
    leases_and_logins_are_kept
);

mod cases {
    use super::*;

    pub fn a_snapshot_is_restored(etcd: &Etcd) {
        let mut node = Node::new(etcd);
        node.start_ready();
        for (key, value) in [("a", "1"), ("a", "2"), ("b", "1"), ("c", "1")] {
            node.etcdctl(&["put", key, value]);
        }
        node.etcdctl(&["del", "b"]);
        let name = save(&node);
        node.etcdctl(&["put", "late", "1"]);
        let (member, before) = (node.status_json()["member"].clone(), epoch(&node));
        restore(&node, &name, &[]).fails(Code::DataDirInUse, &[&node.launcher_pid().to_string()]);
        node.stop();
        let etcd_before = crate::restore::everything(&node.etcd_dir());
        let ran = restore(&node, &name, &[]);
        restored(&ran);
        for fact in ["2 keys", " 6 ", " 1000000008 ", "quorate server --undo-reset", "/pre-restore-"] {
            assert!(said(&ran).contains(fact), "{fact}: {}", ran.err);
        }
        left_nothing(&node);
        let aside = node.retire();
        assert_eq!(aside.len(), 1);
        for (path, content) in &etcd_before {
            let there = aside[0].join(path.strip_prefix(node.etcd_dir()).unwrap());
            assert!(there.is_dir() || fs::read(&there).unwrap() == *content, "{} was changed", there.display());
        }
        assert!(node.server_dir().join("db/reset-flag").metadata().unwrap().len() == 0);
        // Not a second time before it was started.
        restore(&node, &name, &[]).fails(Code::ResetFlag, &["reset-flag"]);
        node.run_server_with(&["--cluster-reset"]).fails(Code::ResetFlag, &["reset-flag"]);
        node.start_ready();
        assert_eq!(keys(&node), "a c");
        assert_eq!(node.etcdctl(&["get", "a", "--print-value-only"]).trim(), "2");
        eventually("the mark to go", || (!node.server_dir().join("db/reset-flag").exists()).then_some(()));
        assert_eq!(epoch(&node), before + 1);
        let status = node.status_json();
        let now = &status["member"];
        assert_eq!(now["members"], 1);
        assert_ne!(now["cluster_id"], member["cluster_id"], "stale members can never mix with it");
        assert_ne!(now["id"], member["id"]);
        let list = node.etcdctl(&["member", "list"]);
        assert!(list.contains(&format!("https://127.0.0.1:{}", node.ports.peer())), "{list}");
        // What was there before is in the snapshot that was taken first.
        let ran = node.quorate(&["etcd-snapshot", "ls", "-o", "json"]);
        let items: serde_json::Value = serde_json::from_str(ran.succeeds()).unwrap();
        let net = items["items"].as_array().unwrap().iter().find(|item| item["reason"] == "pre-restore").unwrap();
        assert_eq!(net["status"], "good");
        assert!(net["revision"].as_i64() >= Some(6));
        node.stop();
    }

    pub fn without_a_raise_everything_is_as_it_was(etcd: &Etcd) {
        let mut node = Node::new(etcd);
        node.start_ready();
        for number in 0..30 {
            node.etcdctl(&["put", &format!("k{}", number % 7), &number.to_string()]);
        }
        node.etcdctl(&["del", "k3"]);
        node.etcdctl(&["compact", "20"]);
        let name = save(&node);
        node.stop();
        restored(&restore(&node, &name, &["--cluster-reset-bump-revision=0"]));
        node.start_ready();
        let ran = node.quorate(&["etcd-snapshot", "verify", &name, "--against-live", "-o", "json"]);
        let verified: serde_json::Value = serde_json::from_str(ran.succeeds()).unwrap();
        assert_eq!(verified["items"][0]["same_as_live"], true);
        assert_eq!(node.etcdctl(&["get", "k1", "--rev=25", "--print-value-only"]).trim(), "22");
        node.stop();
    }

    pub fn watchers_and_caches_list_again(etcd: &Etcd) {
        let mut node = Node::new(etcd);
        node.start_ready();
        node.etcdctl(&["put", "a", "1"]);
        let name = save(&node);
        for number in 0..20 {
            node.etcdctl(&["put", "a", &number.to_string()]);
        }
        let seen = node.status_json()["member"]["revision"].as_i64().unwrap();
        node.stop();
        restored(&restore(&node, &name, &[]));
        node.start_ready();
        let access = node.access();
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            let mut client = access.client().await;
            // A reader that goes on at the revision that it saw last.
            let options = etcd_client::GetOptions::new().with_revision(seen);
            let refused = client.get("a", Some(options)).await.unwrap_err().to_string();
            assert!(refused.contains("compacted"), "{refused}");
            let listed = client.get("a", None).await.unwrap();
            assert_eq!(listed.kvs()[0].value(), b"1");
            assert!(listed.header().unwrap().revision() > seen, "a revision never goes back");
            let options = etcd_client::WatchOptions::new().with_start_revision(seen + 1);
            let mut stream = client.watch("a", Some(options)).await.unwrap();
            let answer = loop {
                let message = tokio::time::timeout(crate::kit::DEADLINE, stream.message()).await.unwrap().unwrap();
                let message = message.expect("the watch does not end silently");
                if message.canceled() || message.compact_revision() > 0 {
                    break message;
                }
            };
            assert!(answer.compact_revision() > seen, "{answer:?}");
        });
        node.stop();
    }

    pub fn leases_and_logins_are_kept(etcd: &Etcd) {
        let mut node = Node::new(etcd);
        node.start_ready();
        let lease = node.etcdctl(&["lease", "grant", "600"]).split_whitespace().nth(1).unwrap().to_owned();
        let short = node.etcdctl(&["lease", "grant", "2"]).split_whitespace().nth(1).unwrap().to_owned();
        node.etcdctl(&["put", "leased", "1", &format!("--lease={lease}")]);
        node.etcdctl(&["put", "short", "1", &format!("--lease={short}")]);
        for args in [
            &["user", "add", "root:secret"][..],
            &["user", "grant-role", "root", "root"],
            &["role", "add", "reader"],
            &["user", "add", "etcd-client:x"],
            &["user", "grant-role", "etcd-client", "root"],
            &["auth", "enable"],
        ] {
            node.etcdctl(args);
        }
        let name = save(&node);
        node.stop();
        restored(&restore(&node, &name, &[]));
        node.start_ready();
        // The certificates' common names are users of etcd: without one no client gets in, and with one as before.
        assert_eq!(node.etcdctl(&["get", "leased", "--print-value-only"]).trim(), "1");
        assert!(node.etcdctl(&["lease", "timetolive", &lease, "--keys"]).contains("leased"));
        assert!(node.etcdctl(&["user", "list"]).contains("etcd-client"));
        eventually("the short lease to end", || {
            node.etcdctl(&["get", "short", "--print-value-only"]).trim().is_empty().then_some(())
        });
        let ran = node.quorate(&["etcdctl", "--", "--user", "root:wrong", "get", "a"]);
        assert_ne!(ran.code, Some(0), "{ran:?}");
        node.stop();
    }
}

/// Every pair of versions that is allowed, and one that is not.
#[test]
fn snapshots_are_restored_by_other_versions() {
    let _timed = Timed::start();
    let minors = ["3.4", "3.5", "3.6", "3.7"];
    let etcds: Vec<Option<Etcd>> = minors.iter().map(|minor| Etcd::find(minor)).collect();
    for (from, etcd) in etcds.iter().enumerate() {
        let Some(etcd) = etcd else { continue };
        let mut node = Node::new(etcd);
        node.start_ready();
        node.etcdctl(&["put", "a", "1"]);
        node.etcdctl(&["put", "a", "2"]);
        let snapshot = snapshot_dir(&node).join(save(&node));
        node.stop();
        for (to, other) in etcds.iter().enumerate() {
            let Some(other) = other else { continue };
            let mut target = Node::new(other);
            let ran = restore(&target, snapshot.to_str().unwrap(), &[]);
            let (from, to) = (minors[from], minors[to]);
            if minors.iter().position(|minor| *minor == to).unwrap() + 1
                < minors.iter().position(|minor| *minor == from).unwrap()
            {
                ran.fails(Code::SnapshotNeedsOtherEtcd, &["--etcd-binary"]);
                assert!(!target.etcd_dir().exists());
                continue;
            }
            restored(&ran);
            target.start_ready();
            assert_eq!(target.etcdctl(&["get", "a", "--print-value-only"]).trim(), "2", "{from} -> {to}");
            target.etcdctl(&["put", "b", "3"]);
            target.stop();
            // And once more, from what it wrote itself.
            target.start_ready();
            assert_eq!(keys(&target), "a b", "{from} -> {to}");
            target.stop();
        }
    }
}

/// A client that joins afterwards gets all keys, not only what the young log holds.
#[test]
fn a_member_that_joins_afterwards_gets_everything() {
    let _timed = Timed::start();
    for minor in ["3.4", "3.5", "3.6", "3.7"] {
        let Some(etcd) = Etcd::find(minor) else { continue };
        let mut node = Node::new(&etcd);
        node.start_ready();
        for number in 0..50 {
            node.etcdctl(&["put", &format!("k{number}"), "v"]);
        }
        let name = save(&node);
        node.stop();
        restored(&restore(&node, &name, &[]));
        node.start_ready();
        let second = BareEtcd::join(&node, &etcd, "second");
        eventually("the second member to have all keys", || {
            let (ours, theirs) = (node.access().hash_kv(), second.access.hash_kv());
            (ours.is_some() && ours == theirs).then_some(())
        });
        drop(second);
        // Alone again it has no majority any more.
        node.signal(nix::sys::signal::Signal::SIGTERM);
        node.wait_end();
    }
}

#[test]
fn what_is_packed_or_made_elsewhere_is_restored() {
    let _timed = Timed::start();
    let etcd = Etcd::usual();
    let mut node = Node::new(&etcd);
    node.start_ready();
    node.etcdctl(&["put", "a", "1"]);
    let mut files = Vec::new();
    for packing in ["zstd", "zip"] {
        let compress = format!("--snapshot-compress={packing}");
        let ran = node.quorate(&["etcd-snapshot", "save", "-o", "json", &compress]);
        let item: serde_json::Value = serde_json::from_str(ran.succeeds()).unwrap();
        files.push((item["name"].as_str().unwrap().to_owned(), vec![]));
    }
    let theirs = node.dir.path().join("theirs.db");
    node.etcdctl(&["snapshot", "save", theirs.to_str().unwrap()]);
    files.push((theirs.to_str().unwrap().to_owned(), vec![]));
    node.stop();
    // What another program copied from a stopped etcd has no hash.
    let plain = node.dir.path().join("plain.db");
    fs::copy(node.etcd_dir().join("member/snap/db"), &plain).unwrap();
    let plain = plain.to_str().unwrap();
    restore(&node, plain, &[]).fails(Code::SnapshotUnhashed, &["--skip-hash-check"]);
    files.push((plain.to_owned(), vec!["--skip-hash-check"]));
    for (file, more) in files {
        restored(&restore(&node, &file, &more));
        node.start_ready();
        assert_eq!(keys(&node), "a", "{file}");
        node.stop();
    }
    left_nothing(&node);
}

#[test]
fn a_node_with_nothing_and_another_address_gets_the_data() {
    let _timed = Timed::start();
    let etcd = Etcd::usual();
    let mut node = Node::new(&etcd).config("token: the-old-one\n");
    node.start_ready();
    node.etcdctl(&["put", "a", "1"]);
    let snapshot = snapshot_dir(&node).join(save(&node));
    let token = fs::read_to_string(node.server_dir().join("token")).unwrap();
    node.stop();
    let mut other = Node::new(&etcd).arg("--node-name=other").arg("--node-ip=127.0.0.2");
    // Relative paths count from where the command is given.
    let dir = other.dir.path().to_path_buf();
    fs::copy(&snapshot, dir.join("file")).unwrap();
    let mut command = other.server_command();
    command.current_dir(&dir).args(["--cluster-reset", "--cluster-reset-restore-path=./file"]);
    let ran = Ran::of(&command.arg(format!("--token={}", token.trim())).output().unwrap());
    restored(&ran);
    // Clients need the new certificates.
    assert!(said(&ran).contains("server-ca.crt, client.crt, client.key"), "{}", ran.err);
    assert!(!said(&ran).contains("--undo-reset"), "there was nothing before: {}", ran.err);
    let theirs = fs::read_to_string(other.server_dir().join("token")).unwrap();
    assert!(theirs.ends_with("::server:the-old-one\n") && theirs != token, "{theirs}");
    other.start_ready();
    assert_eq!(keys(&other), "a");
    let list = other.etcdctl(&["member", "list"]);
    assert!(list.contains("other-") && list.contains("https://127.0.0.2:"), "{list}");
    other.stop();
}

#[test]
fn alarms_are_taken_out_and_a_full_database_is_restored() {
    let _timed = Timed::start();
    let mut node = Node::new(&Etcd::usual()).config("etcd-quota-backend-bytes: 2MiB\netcd-auto-defrag: false\n");
    node.start_ready();
    let value = "x".repeat(100_000);
    while node.quorate(&["etcdctl", "--", "put", "a", &value]).code == Some(0) {}
    node.wait_code(Code::AlarmNoSpace, &[]);
    let name = save(&node);
    node.stop();
    let ran = restore(&node, &name, &[]);
    restored(&ran);
    assert!(said(&ran).contains("NOSPACE"), "{}", ran.err);
    fs::write(node.config_path(), "etcd-quota-backend-bytes: 1GiB\n").unwrap();
    node.start_ready();
    node.etcdctl(&["put", "a", "small"]);
    node.stop();
}

#[test]
fn a_dry_run_says_it_all_and_touches_nothing() {
    let _timed = Timed::start();
    let mut node = Node::new(&Etcd::usual());
    node.start_ready();
    node.etcdctl(&["put", "a", "1"]);
    let name = save(&node);
    let ran = restore(&node, &name, &["--dry-run"]);
    ran.succeeds();
    node.run_server_with(&["--cluster-reset", "--dry-run"])
        .fails(Code::DataDirInUse, &[&node.launcher_pid().to_string()]);
    node.stop();
    let before = crate::restore::everything(&node.data_dir);
    let ran = restore(&node, &name, &["--dry-run"]);
    for fact in ["keys ", " 1\n", " 2, ", " 1000000002\n", "etcd-old-"] {
        assert!(ran.succeeds().contains(fact), "{fact}: {ran:?}");
    }
    assert!(node.run_server_with(&["--cluster-reset", "--dry-run"]).succeeds().contains("revision  "));
    node.run_server_with(&["--undo-reset", "--dry-run"]).fails(Code::NoEarlierData, &[]);
    assert_eq!(crate::restore::everything(&node.data_dir), before);
    let empty = Node::new(&Etcd::usual());
    let path = snapshot_dir(&node).join(&name);
    restore(&empty, path.to_str().unwrap(), &["--dry-run"]).succeeds();
    assert!(!empty.data_dir.exists());
    node.run_server_with(&["--dry-run"]).fails(Code::FlagsRequireReset, &["--dry-run"]);
}

#[test]
fn the_pre_restore_snapshot_is_omitted_on_request_and_reported_if_missing() {
    let _timed = Timed::start();
    let mut node = Node::new(&Etcd::usual()).config("server: https://10.0.0.5:9345\n");
    node.run_server().fails(Code::JoinNotSupported, &["https://10.0.0.5:9345", "`server`"]);
    assert!(!node.etcd_dir().exists());
    fs::write(node.config_path(), "").unwrap();
    node.start_ready();
    node.etcdctl(&["put", "a", "1"]);
    let name = save(&node);
    node.stop();
    let nets = |node: &Node| {
        let found = fs::read_dir(snapshot_dir(node)).unwrap().flatten();
        found.filter(|entry| entry.file_name().to_string_lossy().starts_with("pre-restore-")).count()
    };
    fs::write(node.config_path(), "server: https://10.0.0.5:9345\n").unwrap();
    let ran = restore(&node, &name, &["--no-pre-restore-snapshot"]);
    restored(&ran);
    assert_eq!(lines_of(&ran.err, "server-ignored").len(), 1, "{}", ran.err);
    assert_eq!(nets(&node), 0);
    node.start_ready();
    node.wait_event("server-ignored", &[]);
    node.stop();
    // Data that cannot be read are no reason not to restore: they are kept.
    let bolt = node.etcd_dir().join("member/snap/db");
    let good = fs::read(&bolt).unwrap();
    fs::write(&bolt, &good[..good.len() / 3]).unwrap();
    let ran = restore(&node, &name, &[]);
    restored(&ran);
    assert_eq!(nets(&node), 0);
    left_nothing(&node);
    node.start_ready();
    assert_eq!(keys(&node), "a");
    node.stop();
}
