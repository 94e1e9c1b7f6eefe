//! What a snapshot is called on the command line, where it is looked for, and whose it is.

use std::fs;

use quorate::error::Code;

use crate::kit::{Etcd, Node, Timed, eventually};
use crate::snapshot::save::{list, path_of, save};

fn name_of(item: &serde_json::Value) -> String {
    item["name"].as_str().unwrap().to_owned()
}

fn damage(path: &std::path::Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

/// Issue 14, point 1.1; bugs F10 and W4; ux F31.
#[test]
fn a_snapshot_is_found_by_every_name_that_people_type() {
    let _timed = Timed::start();
    let mut node = Node::new(&Etcd::usual()).config("node-name: node\n");
    node.start_ready();
    node.etcdctl(&["put", "a", "1"]);
    let old = save(&node, &["--name=before-upgrade"]);
    node.etcdctl(&["put", "a", "2"]);
    let good = save(&node, &["--name=before-upgrade", "--snapshot-compress=zip"]);
    node.etcdctl(&["put", "a", "3"]);
    let newest = save(&node, &[]);
    node.etcdctl(&["put", "a", "4"]);
    let bad = save(&node, &["--name=before-upgrade"]);
    node.stop();
    damage(&path_of(&bad));
    let run = |args: &[&str]| node.quorate(&[&["etcd-snapshot"], args].concat());
    let value = |named: &str| run(&["get", named, "a"]).succeeds().to_owned();

    // The newest good ones; what is passed over is named.
    assert_eq!(
        (value("latest"), value("before-upgrade"), value("on-demand")),
        ("3\n".into(), "2\n".into(), "3\n".into())
    );
    let ran = run(&["get", "before-upgrade", "a"]);
    assert!(ran.err.contains(&name_of(&bad)), "{}", ran.err);
    assert!(ran.err.contains(&name_of(&good)) && ran.err.contains("revision 3"), "{}", ran.err);
    assert_eq!(run(&["get", "-q", "before-upgrade", "a"]).err, "");
    // As `ls` prints it, without the ending, and by its very name.
    let stem = name_of(&good).strip_suffix(".zip").unwrap().to_owned();
    for named in [name_of(&good), good["location"].as_str().unwrap().to_owned(), stem.clone()] {
        assert_eq!(value(&named), "2\n", "{named}");
    }
    // The same words everywhere.
    assert!(run(&["ls", "latest"]).succeeds().ends_with("  a\n"));
    assert!(run(&["history", "before-upgrade", "a"]).succeeds().ends_with("  2\n"));
    assert!(run(&["status", "latest"]).succeeds().contains(&name_of(&newest)));
    assert_eq!(run(&["diff", "before-upgrade", "latest"]).succeeds(), "~ a\n");
    assert!(
        run(&["verify", "latest", "before-upgrade", old["location"].as_str().unwrap()])
            .succeeds()
            .ends_with("3 snapshots: 3 good\n")
    );
    let out = node.dir.path().join("out");
    run(&["restore", "latest", "--data-dir-out", out.to_str().unwrap()]).succeeds();
    assert!(out.join("member/snap/db").exists());
    // A file of that very name wins.
    let dir = node.server_dir().join("db/snapshots");
    fs::copy(path_of(&old), dir.join("latest")).unwrap();
    assert_eq!(value("latest"), "1\n");
    fs::remove_file(dir.join("latest")).unwrap();

    // What is not there: where it was looked for, and what was probably meant.
    run(&["get", "before-upgarde", "a"]).fails(Code::SnapshotNotFound, &[dir.to_str().unwrap(), "before-upgrade?"]);
    run(&["get", &format!("{}/{stem}", dir.display()), "a"]).fails(Code::SnapshotNotFound, &[&format!("{stem}.zip?")]);
    run(&["verify", &stem.replace("before", "befroe")]).fails(Code::SnapshotNotFound, &["before-upgrade", "?"]);
    run(&["delete", &stem]).fails(Code::SnapshotNotFound, &[&format!("{stem}.zip?")]);
    run(&["get", "", "a"]).fails(Code::Usage, &["'<SNAPSHOT>'"]);
    let empty_dir = format!("--dir={}", node.dir.path().display());
    run(&["get", &empty_dir, "latest", "a"]).fails(Code::SnapshotNotFound, &["latest"]);
    // Nothing good of a base name.
    for item in [&old, &good] {
        damage(&path_of(item));
    }
    run(&["get", "before-upgrade", "a"])
        .fails(Code::NoGoodSnapshot, &[&name_of(&old), &name_of(&good), &name_of(&bad)]);
}

/// Issue 14, point 1.1: README's `$(ls -t …)` is not needed, and nothing that names no snapshot becomes a reset.
#[test]
fn the_newest_good_one_is_restored_by_its_base_name() {
    let _timed = Timed::start();
    let mut node = Node::new(&Etcd::usual()).config("node-name: node\n");
    node.start_ready();
    node.etcdctl(&["put", "a", "1"]);
    let first = save(&node, &["--name=before-upgrade"]);
    node.etcdctl(&["put", "a", "2"]);
    save(&node, &[]);
    node.stop();
    let restore = |word: &str, more: &[&str]| {
        let path = format!("--cluster-reset-restore-path={word}");
        node.run_server_with(&[&["--cluster-reset", &path], more].concat())
    };
    restore("before-upgarde", &[]).fails(Code::SnapshotNotFound, &["before-upgrade?"]);
    assert!(node.retire().is_empty());
    let ran = restore("before-upgrade", &["--dry-run"]);
    assert!(ran.succeeds().contains(&name_of(&first)), "{ran:?}");
    let ran = restore("before-upgrade", &[]);
    ran.succeeds();
    assert!(ran.err.contains(&name_of(&first)) && ran.err.contains("revision 2"), "{}", ran.err);
    node.start_ready();
    assert_eq!(node.etcdctl(&["get", "a", "--print-value-only"]), "1\n");
    node.stop();
    // Of what the restore replaced a snapshot was taken: `latest` is not that, however often it is said.
    for _ in 0..2 {
        node.run_server_with(&["--cluster-reset", "--cluster-reset-restore-path=latest"]).succeeds();
        node.start_ready();
        assert_eq!(node.etcdctl(&["get", "a", "--print-value-only"]), "2\n");
        node.stop();
    }
}

/// bugs F5: what this data directory took is its own under every name, and no other snapshot is.
#[test]
fn retention_follows_the_data_and_not_the_name_of_the_node() {
    let _timed = Timed::start();
    let mut node = Node::new(&Etcd::usual()).arg("--node-name=old-host");
    let shared = node.dir.path().join("shared");
    fs::create_dir(&shared).unwrap();
    let config = |node_name: &str| format!("node-name: {node_name}\netcd-snapshot-dir: {}\n", shared.display());
    fs::write(node.config_path(), config("old-host")).unwrap();
    node.start_ready();
    let early = name_of(&save(&node, &["--name=etcd-snapshot"]));
    node.stop();
    // A reset makes another member of another cluster of it.
    node.run_server_with(&["--cluster-reset", "--no-pre-restore-snapshot"]).succeeds();
    node.start_ready();
    let late = name_of(&save(&node, &["--name=etcd-snapshot"]));
    node.stop();
    // Another server in the same directory, which has the name that this one has dropped.
    let mut other =
        Node::new(&Etcd::usual()).arg("--node-name=old-host").arg("--new-cluster").config(&config("old-host"));
    other.start_ready();
    let foreign = name_of(&save(&other, &["--name=etcd-snapshot"]));
    other.wait_event("foreign-snapshots", &[]);
    let prune = |node: &Node, more: &[&str]| {
        node.quorate(
            &[&["etcd-snapshot", "prune", "--etcd-snapshot-name=etcd-snapshot", "--keep-last=1"], more].concat(),
        )
        .succeeds()
        .to_owned()
    };
    assert_eq!(prune(&other, &[]), "kept 1, deleted 0\n");
    other.stop();

    node.args = vec!["--node-name=new-host".into()];
    fs::write(node.config_path(), config("new-host")).unwrap();
    node.start_ready();
    node.wait_event("node-renamed", &["count=2", "old-host"]);
    assert_eq!(prune(&node, &[]), format!("{early} deleted\nkept 1, deleted 1\n"));
    // Names of two nodes may be of one second, which shows nothing about which is newer.
    let second_of = |name: &str| name.rsplit('-').next().unwrap().parse::<i64>().unwrap();
    let second = second_of(&late).max(second_of(&foreign));
    eventually("the next second", || (chrono::Utc::now().timestamp() > second).then_some(()));
    let newest = name_of(&save(&node, &["--name=etcd-snapshot"]));
    assert_eq!(prune(&node, &[]), format!("{late} deleted\nkept 1, deleted 1\n"));
    let left: Vec<String> = list(&node).iter().map(name_of).collect();
    assert_eq!(left, [foreign.clone(), newest.clone()]);
    node.stop();
    // Of another node only when that is asked for.
    assert_eq!(prune(&node, &["--node=old-host"]), "kept 1, deleted 0\n", "the newest good one of a node stays");
    assert!(prune(&node, &["--node=other-node"]).ends_with("kept 0, deleted 0\n"));
    assert_eq!(list(&node).len(), 2);
}

/// bugs F11, F10; ux F18.
#[test]
fn every_verb_works_on_another_directory() {
    let _timed = Timed::start();
    let mut node = Node::new(&Etcd::usual()).config("node-name: node\n");
    node.start_ready();
    node.etcdctl(&["put", "a", "1"]);
    let elsewhere = node.dir.path().join("elsewhere");
    let dir = format!("--dir={}", elsewhere.display());
    let run = |args: &[&str]| node.quorate(&[&["etcd-snapshot"], args].concat());
    run(&["verify", "--all"]).fails(Code::NoSnapshots, &[]);
    for args in [&["ls"][..], &["verify", "--all"], &["prune"], &["delete", "x"]] {
        run(&[args, &[&dir]].concat()).fails(Code::DirectoryNotFound, &[elsewhere.to_str().unwrap()]);
    }
    let said = run(&["save", &dir]).succeeds().to_owned();
    let name = run(&["ls", &dir, "-o", "name"]).succeeds().trim().to_owned();
    assert!(said.contains(&elsewhere.join(&name).display().to_string()), "{said}");
    assert_eq!(run(&["ls", "-o", "name"]).succeeds(), "");
    let dir = format!("--etcd-snapshot-dir={}", elsewhere.display());
    assert_eq!(run(&["get", &dir, "latest", "a"]).succeeds(), "1\n");
    assert!(run(&["verify", &dir, "--all"]).succeeds().ends_with("1 snapshot: 1 good\n"));
    run(&["hold", &dir, &name]).succeeds();
    assert!(run(&["ls", &dir]).succeeds().contains("good, held"));
    let location = format!("file://{}/{name}", elsewhere.display());
    run(&["release", &dir, &location]).succeeds();
    assert_eq!(run(&["prune", &dir, "--keep-last=1"]).succeeds(), "kept 1, deleted 0\n");
    run(&["delete", &location]).fails(Code::SnapshotNotFound, &[&name]);
    run(&["delete", &dir, "--force", &location]).succeeds();
    assert!(!elsewhere.join(&name).exists());
    node.stop();
}
