//! Rehearsals of a restore: `verify --drill`, and `etcd-snapshot-drill-cron`.

use std::fs;

use quorate::error::Code;
use serde_json::Value;

use crate::kit::{Etcd, Node, Timed, etcds_on, eventually, fake_etcd, files_under, http_get};
use crate::snapshot::save::{path_of, save};

crate::matrix!(a_snapshot_is_restored_without_touching_the_data);

/// Nothing of a drill is left under the data directory or in `dir`.
fn is_tidy(node: &Node) -> bool {
    files_under(node.dir.path()).iter().all(|path| !path.to_string_lossy().contains("quorate-drill"))
}

mod cases {
    use super::*;

    pub fn a_snapshot_is_restored_without_touching_the_data(etcd: &Etcd) {
        let mut node = Node::new(etcd).config(&format!("etcd-binary: {}\nnode-name: node\n", etcd.binary().display()));
        node.start_ready();
        node.etcdctl(&["put", "a", "1"]);
        node.etcdctl(&["put", "b", "2"]);
        let item = save(&node, &[]);
        node.etcdctl(&["put", "a", "3"]);
        let drill = |named: &str| node.quorate(&["etcd-snapshot", "verify", "--drill", named, "-o", "json"]);
        // In parallel to the running etcd, which notices nothing.
        let pid = node.child_pid();
        let ran = drill("latest");
        let found: Value = serde_json::from_str::<Value>(ran.succeeds()).unwrap()["items"][0].clone();
        assert_eq!(
            (&found["revision"], &found["keys"], &found["status"]),
            (&item["revision"], &item["keys"], &"good".into())
        );
        assert_eq!(found["etcd_version"], etcd.version());
        assert_eq!(node.child_pid(), pid, "the record of the running etcd is its own");
        assert_eq!(etcds_on(&node.etcd_dir()).len(), 1);
        assert_eq!(node.etcdctl(&["get", "a", "--print-value-only"]), "3\n");
        let report = &node.status_json()["snapshots"]["drill"];
        assert_eq!((&report["last"]["passed"], &report["failures"]), (&true.into(), &0.into()), "{report}");
        assert!(node.quorate(&["status"]).out.contains("drill        passed "));
        assert!(
            http_get(node.ports.metrics(), "/metrics")
                .1
                .contains("quorate_snapshot_drill_last_success_timestamp_seconds ")
        );
        node.stop();
        // And without a server.
        let before = fs::read(node.etcd_dir().join("member/snap/db")).unwrap();
        let ran = node.quorate(&["etcd-snapshot", "verify", "--drill", item["name"].as_str().unwrap()]);
        ran.succeeds();
        assert_eq!(fs::read(node.etcd_dir().join("member/snap/db")).unwrap(), before);
        assert!(is_tidy(&node));
    }
}

#[test]
fn a_snapshot_that_cannot_be_restored_fails_the_drill() {
    let _timed = Timed::start();
    let etcd = Etcd::usual();
    let with = |binary: &std::path::Path| format!("etcd-binary: {}\nnode-name: node\n", binary.display());
    let mut node = Node::new(&etcd).config(&with(&etcd.binary()));
    node.start_ready();
    node.etcdctl(&["put", "a", "1"]);
    let good = save(&node, &[]);
    let bad = save(&node, &[]);
    let run = |args: &[&str]| node.quorate(&[&["etcd-snapshot", "verify", "--drill"], args].concat());
    run(&["latest"]).succeeds();
    let path = path_of(&bad);
    let mut bytes = fs::read(&path).unwrap();
    bytes[60] ^= 1;
    fs::write(&path, bytes).unwrap();
    run(&[path.to_str().unwrap()]).fails(Code::SnapshotCorrupt, &[path.to_str().unwrap()]);
    let report = node.status_json()["snapshots"]["drill"].clone();
    assert_eq!((&report["last"]["passed"], &report["failures"]), (&false.into(), &1.into()), "{report}");
    assert!(
        report["last_success"].is_string() && report["last"]["failure"].as_str().unwrap().contains("byte 0"),
        "{report}"
    );
    assert!(http_get(node.ports.metrics(), "/metrics").1.contains("quorate_snapshot_drill_failures_total 1"));
    // What is not this server's own says nothing about it.
    let copied = node.dir.path().join("copied.db");
    fs::copy(path_of(&good), &copied).unwrap();
    run(&[copied.to_str().unwrap()]).succeeds();
    assert_eq!(node.status_json()["snapshots"]["drill"], report);
    run(&["no-such"]).fails(Code::SnapshotNotFound, &["no-such"]);
    run(&["--all"]).fails(Code::Usage, &["'--all'"]);
    // An etcd that does not run on it.
    let broken = fake_etcd(node.dir.path(), &etcd.version(), "echo 'panic: broken' >&2; exit 3");
    fs::write(node.config_path(), with(&broken)).unwrap();
    run(&[good["name"].as_str().unwrap()]).fails(Code::IsolatedEtcdFailed, &["exit code 3"]);
    // Elsewhere.
    fs::write(node.config_path(), with(&etcd.binary())).unwrap();
    let elsewhere = node.dir.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    run(&["latest", "--drill-dir", elsewhere.to_str().unwrap()]).succeeds();
    assert!(is_tidy(&node));
    node.stop();
}

#[test]
fn the_newest_good_snapshot_is_drilled_on_schedule() {
    let _timed = Timed::start();
    let report = tempfile::NamedTempFile::new().unwrap();
    let failed = format!("etcd-snapshot-on-failure: 'echo \"$QUORATE_SNAPSHOT_ERROR\" >{}'\n", report.path().display());
    let mut node = Node::new(&Etcd::usual()).config(&format!(
        "node-name: node\netcd-disable-snapshots: true\netcd-snapshot-drill-cron: '@every 1h'\n{failed}"
    ));
    node.start_ready();
    node.etcdctl(&["put", "a", "1"]);
    let item = save(&node, &[]);
    let next = |node: &Node| node.status_json()["snapshots"]["drill"]["next"].as_str().map(str::to_owned);
    eventually("the next drill in the status", || next(&node));
    node.stop();
    // The data began more than an hour ago. (The clock is not shifted: certificates of the drill would be of the future.)
    let hours_ago = |hours: u64| std::time::SystemTime::now() - std::time::Duration::from_secs(hours * 3600 + 60);
    let name = fs::File::options().append(true).open(node.etcd_dir().join("name")).unwrap();
    name.set_modified(hours_ago(3)).unwrap();
    node.start_ready();
    let last = |node: &Node| {
        Some(node.status_json()["snapshots"]["drill"]["last"].clone()).filter(serde_json::Value::is_object)
    };
    let drilled = eventually("the drill", || last(&node));
    assert_eq!((&drilled["snapshot"], &drilled["passed"]), (&item["name"], &true.into()), "{drilled}");
    assert_eq!(node.count_events("drill-due"), 1);
    node.stop();
    assert!(is_tidy(&node));
    // Not twice in a slot; and one that finds nothing good says so.
    fs::write(path_of(&item), "x").unwrap();
    node.start_ready();
    eventually("the next drill in the status", || next(&node));
    assert_eq!(last(&node), Some(drilled.clone()));
    assert!(!node.has_event("drill-due"));
    node.stop();
    let record = node.server_dir().join("drill.json");
    let at = chrono::DateTime::<chrono::Utc>::from(hours_ago(1)).to_rfc3339();
    let text = fs::read_to_string(&record).unwrap().replace(drilled["at"].as_str().unwrap(), &at);
    fs::write(&record, text).unwrap();
    node.start_ready();
    let failed = eventually("a drill that fails", || last(&node).filter(|last| last["passed"] == false));
    node.wait_code(Code::NoGoodSnapshot, &[]);
    // The command gets the same report.
    let failure = failed["failure"].as_str().unwrap();
    eventually("the command", || fs::read_to_string(report.path()).unwrap().contains(failure).then_some(()));
    node.stop();
}

#[test]
fn a_stopping_server_leaves_no_files_of_a_drill() {
    let _timed = Timed::start();
    let mut node = Node::new(&Etcd::usual())
        .config("node-name: node\netcd-disable-snapshots: true\netcd-snapshot-drill-cron: '@every 1h'\n");
    node.start_ready();
    save(&node, &[]);
    node.stop();
    let began = std::time::SystemTime::now() - std::time::Duration::from_secs(7_200);
    fs::File::options().append(true).open(node.etcd_dir().join("name")).unwrap().set_modified(began).unwrap();
    node.env = vec![("FAILPOINTS".into(), "restore::gate=sleep(2000)".into())];
    node.start_ready();
    let drilled = || {
        fs::read_dir("/proc").unwrap().flatten().find(|entry| {
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line);
            line.contains("quorate-drill") && line.contains(node.dir.path().to_str().unwrap())
        })
    };
    let etcd = eventually("the etcd of the drill", drilled);
    // It does not take the processor from the one that serves.
    let stat = fs::read_to_string(etcd.path().join("stat")).unwrap();
    assert_eq!(stat.rsplit(") ").next().unwrap().split(' ').nth(16), Some("19"), "{stat}");
    node.stop();
    assert!(!etcd.path().exists() && is_tidy(&node));
    assert!(!node.server_dir().join("drill.json").exists(), "it says nothing about the snapshot");
}
