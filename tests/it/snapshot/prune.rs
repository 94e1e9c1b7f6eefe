//! `delete`, `prune`, `hold`, `release`, and what `verify` records.

use std::fs;
use std::path::Path;

use quorate::error::Code;

use crate::kit::{Etcd, Node, Timed};
use crate::snapshot::save::{list, path_of, save};

fn names(node: &Node) -> Vec<String> {
    list(node).iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect()
}

/// Gives a snapshot another time and name, as if it had been taken then.
fn age(dir: &Path, name: &str, base: &str, node: &str, created: &str, unix: u64) -> String {
    let new = format!("{base}-{node}-{unix}");
    let manifest = dir.join(".metadata").join(format!("{name}.json"));
    let mut value: serde_json::Value = serde_json::from_slice(&fs::read(&manifest).unwrap()).unwrap();
    value["name"] = new.as_str().into();
    value["base"] = base.into();
    value["node"] = node.into();
    if node != "node" {
        // Of another server also by its data.
        value["member_id"] = "1".into();
    }
    value["created"] = created.into();
    fs::rename(dir.join(name), dir.join(&new)).unwrap();
    fs::write(dir.join(".metadata").join(format!("{new}.json")), value.to_string()).unwrap();
    fs::remove_file(manifest).unwrap();
    new
}

#[test]
fn prune_and_delete_take_exactly_what_they_say() {
    let _timed = Timed::start();
    let mut node = Node::new(&Etcd::usual()).config("node-name: node\n");
    node.start_ready();
    let dir = node.server_dir().join("db/snapshots");
    let take = |base: &str, owner: &str, day: u32| {
        let item = save(&node, &[]);
        let created = format!("2026-01-{day:02}T12:00:00Z");
        age(&dir, item["name"].as_str().unwrap(), base, owner, &created, 1_767_268_800 + u64::from(day - 1) * 86_400)
    };
    let mine: Vec<String> = (1..=8).map(|day| take("foo", "node", day)).collect();
    let similar = take("foobar", "node", 1);
    let other_node = take("foo", "other", 1);
    let held = mine[0].clone();
    node.quorate(&["etcd-snapshot", "hold", &held]).succeeds();
    // Copied in without a manifest: ours by its name, or of no server.
    fs::copy(dir.join(&mine[7]), dir.join("foo-node-1000")).unwrap();
    fs::copy(dir.join(&mine[7]), dir.join("foo-else")).unwrap();
    let before = names(&node);
    let prune = |more: &[&str]| {
        let ran = node.quorate(&[&["etcd-snapshot", "prune", "--name=foo"], more].concat());
        ran.succeeds().to_owned()
    };
    let plan = prune(&["--snapshot-retention=2", "--dry-run"]);
    assert_eq!(names(&node), before, "--dry-run changes nothing");
    assert!(plan.contains(&format!("keep {}: ", mine[7])) && plan.contains(&format!("keep {held}: ")), "{plan}");
    assert!(plan.contains(&format!("drop {}: ", mine[3])), "{plan}");
    assert!(!plan.contains("foobar") && !plan.contains("other") && !plan.contains("foo-else"), "{plan}");
    assert_eq!(prune(&["--etcd-snapshot-retention=0"]), "kept 9, deleted 0\n", "0 keeps all");
    assert_eq!(prune(&["--keep-within=5000w", "--keep-daily=3"]), "kept 9, deleted 0\n", "all are young enough");
    assert!(prune(&["--keep-daily=2", "--keep-monthly=1"]).ends_with("kept 3, deleted 6\n"));
    let left = names(&node);
    let mut expected = vec![mine[7].clone(), mine[6].clone(), held.clone(), similar, other_node, "foo-else".to_owned()];
    expected.sort();
    let mut sorted = left.clone();
    sorted.sort();
    assert_eq!(sorted, expected);
    assert!(!dir.join(".metadata").join(format!("{}.json", mine[3])).exists());

    // All names are checked first.
    let delete = |names: &[&str]| node.quorate(&[&["etcd-snapshot", "delete"], names].concat());
    delete(&[&mine[6], "missing"]).fails(Code::SnapshotNotFound, &["missing"]);
    delete(&["../snapshots/foo-else"]).fails(Code::SnapshotNotFound, &["foo-else"]);
    delete(&[".metadata"]).fails(Code::SnapshotNotFound, &[".metadata"]);
    delete(&[&held]).fails(Code::SnapshotHeld, &["release"]);
    assert_eq!(names(&node), left);
    node.quorate(&["etcd-snapshot", "release", &held]).succeeds();
    let all: Vec<&str> = left.iter().map(String::as_str).collect();
    delete(&all).fails(Code::LastGoodSnapshot, &["--force"]);
    assert_eq!(names(&node), left);
    delete(&[&mine[6], &held]).succeeds();
    let all: Vec<String> = names(&node);
    let mut with_force: Vec<&str> = all.iter().map(String::as_str).collect();
    with_force.push("--force");
    delete(&with_force).succeeds();
    assert_eq!(names(&node), Vec::<String>::new());
    node.stop();
}

#[test]
fn what_verify_found_is_shown_and_counts() {
    let _timed = Timed::start();
    let mut node = Node::new(&Etcd::usual()).config("node-name: node\n");
    node.start_ready();
    let dir = node.server_dir().join("db/snapshots");
    let good = save(&node, &[]);
    let bad = save(&node, &[]);
    node.stop();
    fs::copy(path_of(&good), dir.join("copied-in.db")).unwrap();
    let mut bytes = fs::read(path_of(&bad)).unwrap();
    bytes[60] ^= 1;
    fs::write(path_of(&bad), bytes).unwrap();
    node.quorate(&["etcd-snapshot", "verify", "--all"]).fails(Code::SnapshotCorrupt, &["byte 0"]);
    let status = |name: &str| {
        let item = list(&node).into_iter().find(|item| item["name"] == name).unwrap();
        (item["status"].as_str().unwrap().to_owned(), item["revision"].as_i64(), item["verified_at"].is_string())
    };
    assert_eq!(status("copied-in.db"), ("good".into(), good["revision"].as_i64(), true));
    assert_eq!(status(bad["name"].as_str().unwrap()).0, "corrupt");
    // The damaged one does not count, and does not go.
    let ran = node.quorate(&["etcd-snapshot", "prune", "--snapshot-retention=1", "--dry-run"]);
    assert!(ran.succeeds().contains(bad["name"].as_str().unwrap()), "{}", ran.out);
    assert!(!ran.out.contains("drop"), "{}", ran.out);
}
