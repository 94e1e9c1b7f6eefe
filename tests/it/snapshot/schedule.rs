//! Scheduled snapshots: taken once a slot, made up for once, kept by retention, reloaded, and loud when they fail.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::sys::signal::Signal;
use quorate::error::Code;

use crate::kit::{Etcd, Mount, Node, Timed, eventually, http_get};
use crate::snapshot::save::{list, save};

const HOUR: i64 = 3600;

/// A schedule of once an hour, in UTC, whose next slot is about half an hour away.
fn hourly_in_half_an_hour() -> String {
    let minutes = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() / 60;
    format!("{} * * * *", (minutes + 30) % 60)
}

fn scheduled(node: &Node) -> usize {
    list(node).iter().filter(|item| item["reason"] == "scheduled").count()
}

#[test]
fn a_slot_is_taken_once_and_retention_follows() {
    let _timed = Timed::start();
    let cron = hourly_in_half_an_hour();
    let mut node = Node::new(&Etcd::usual())
        .config(&format!("etcd-snapshot-schedule-cron: '{cron}'\netcd-snapshot-retention: 1\nnode-name: node\n"))
        .env("TZ", "UTC")
        .with_clock(0);
    node.start_ready();
    save(&node, &[]);
    let next = || node.status_json()["snapshots"]["next"].as_str().map(str::to_owned);
    let slot = eventually("the next slot in the status", next);
    assert_eq!(scheduled(&node), 0);
    node.set_clock(HOUR / 2);
    eventually("the scheduled snapshot", || (scheduled(&node) == 1).then_some(()));
    eventually("the slot after it in the status", || next().filter(|later| *later != slot));
    let first = list(&node).into_iter().find(|item| item["reason"] == "scheduled").unwrap();
    assert!(first["name"].as_str().unwrap().starts_with("etcd-snapshot-node-"), "{first}");
    assert_eq!(first["status"], "good");
    node.wait_event("snapshot-due", &[]);
    eventually("it in the status", || {
        let status = node.status_json();
        let is_last = status["snapshots"]["last_good"]["name"] == first["name"];
        (is_last && status["snapshots"]["next"].is_string()).then_some(())
    });
    assert_eq!(node.count_events("snapshot-due"), 1, "{}", node.log());
    // Started again within the same slot it takes no other; in the next one it does, and the older one goes.
    node.stop();
    node.start_ready();
    eventually("the next slot in the status", || node.status_json()["snapshots"]["next"].as_str().map(str::to_owned));
    assert_eq!(scheduled(&node), 1);
    assert!(!node.has_event("snapshot-due"));
    node.set_clock(HOUR / 2 + HOUR);
    eventually("the next scheduled snapshot", || {
        let items = list(&node);
        let now = items.iter().find(|item| item["reason"] == "scheduled" && item["name"] != first["name"]);
        (now.is_some() && scheduled(&node) == 1).then_some(())
    });
    assert!(list(&node).iter().any(|item| item["reason"] == "on-demand"), "another base name is not touched");
    let page = http_get(node.ports.metrics(), "/metrics").1;
    for line in [
        "quorate_etcd_snapshot_save_duration_seconds_count{status=\"success\"} 1",
        "quorate_etcd_snapshot_consecutive_failures 0",
        "quorate_etcd_snapshot_last_good_revision ",
        "quorate_etcd_snapshot_last_good_time_seconds ",
        "quorate_etcd_snapshot_last_verified_time_seconds ",
    ] {
        assert!(page.contains(line), "no `{line}` in\n{page}");
    }
    node.stop();
}

#[test]
fn a_snapshot_of_the_future_neither_silences_nor_maddens_the_schedule() {
    let _timed = Timed::start();
    let mut node = Node::new(&Etcd::usual()).config("node-name: node\netcd-snapshot-schedule-cron: '@every 1h'\n");
    node.start_ready();
    let item = save(&node, &["--name=etcd-snapshot"]);
    let name = item["name"].as_str().unwrap();
    let path = node.server_dir().join(format!("db/snapshots/.metadata/{name}.json"));
    let mut manifest: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    manifest["created"] = "2036-01-01T00:00:00Z".into();
    manifest["reason"] = "scheduled".into();
    node.stop();
    fs::write(&path, manifest.to_string()).unwrap();
    node.env = vec![("QUORATE_TEST_CLOCK_SHIFT".into(), (HOUR + 10).to_string())];
    node.start_ready();
    let due = || node.count_events("snapshot-due");
    eventually("the slot", || (scheduled(&node) == 2).then_some(()));
    eventually("the next slot in the status", || node.status_json()["snapshots"]["next"].as_str().map(str::to_owned));
    assert_eq!(due(), 1, "{}", node.log_since_start());
    assert_ne!(node.status_json()["snapshots"]["last_good"]["name"], name, "the future is not the newest");
    node.stop();
    // Nor does it hide after a restart that the slot was taken.
    node.start_ready();
    eventually("the next slot in the status", || node.status_json()["snapshots"]["next"].as_str().map(str::to_owned));
    assert_eq!(scheduled(&node), 2);
    node.stop();
}

#[test]
fn a_missed_slot_is_made_up_for_once_and_a_young_server_has_missed_none() {
    let _timed = Timed::start();
    let mut node = Node::new(&Etcd::usual()).config("node-name: node\n");
    node.start_ready();
    eventually("the next slot in the status", || node.status_json()["snapshots"]["next"].as_str().map(str::to_owned));
    assert_eq!(list(&node).len(), 0, "twelve hours are not over");
    node.stop();
    // Off for more than half a day.
    node.env = vec![("QUORATE_TEST_CLOCK_SHIFT".into(), (13 * 3600).to_string())];
    node.start_ready();
    eventually("the missed snapshot", || (scheduled(&node) == 1).then_some(()));
    node.stop();
    node.start_ready();
    eventually("the next slot in the status", || node.status_json()["snapshots"]["next"].as_str().map(str::to_owned));
    assert_eq!(scheduled(&node), 1, "once");
    node.stop();
}

#[test]
fn bad_settings_stop_the_start_and_a_reload_changes_the_schedule() {
    let _timed = Timed::start();
    for (yaml, fact) in [
        ("etcd-snapshot-schedule-cron: '0 0 * *'\n", "`0 */12 * * *`"),
        ("etcd-snapshot-schedule-cron: '@every 5'\n", "`@every 5`"),
        // Bugs F7, W1, W9.
        ("etcd-snapshot-schedule-cron: '0 0 31 2 *'\n", "`0 0 31 2 *`"),
        ("etcd-snapshot-schedule-cron: 'CRON_TZ=UTC 0 3 * * *'\n", " TZ"),
        ("etcd-snapshot-schedule-cron: '@every 30s'\n", "minute"),
        ("etcd-snapshot-retention-policy: within=2m\n", "`mo`"),
        ("etcd-snapshot-name: a/b\n", "`etcd-snapshot-name`"),
        ("etcd-snapshot-retention: -1\n", "`-1`"),
        ("etcd-snapshot-retention-policy: often=5\n", "last=5"),
        ("etcd-snapshot-compress: lzma\n", "zstd"),
    ] {
        let node = Node::new(&Etcd::usual()).config(yaml);
        let (option, _) = yaml.split_once(':').unwrap();
        node.run_server().fails(Code::InvalidConfiguration, &["config.yaml:1: ", &format!("`{option}`"), fact]);
        assert!(!node.etcd_dir().exists(), "{yaml}");
    }
    let node = Node::new(&Etcd::usual()).config("etcd-snapshot-dir: /does/not/exist/at-all\n");
    node.run_server().fails(Code::SnapshotDirUnusable, &["/does/not/exist/at-all"]);
    assert!(!node.etcd_dir().exists());
    let mut node = Node::new(&Etcd::usual()).config("etcd-disable-snapshots: true\n");
    node.start_ready();
    assert_eq!(node.status_json()["snapshots"]["next"], serde_json::Value::Null);
    let elsewhere = node.dir.path().join("elsewhere");
    let yaml = format!("etcd-snapshot-schedule-cron: '@hourly'\netcd-snapshot-dir: {}\n", elsewhere.display());
    fs::write(node.config_path(), yaml).unwrap();
    node.signal(Signal::SIGHUP);
    eventually("the schedule", || node.status_json()["snapshots"]["next"].as_str().map(str::to_owned));
    assert_eq!(node.status_json()["snapshots"]["dir"], elsewhere.display().to_string());
    save(&node, &[]);
    assert_eq!(list(&node).len(), 1);
    assert!(elsewhere.join(".metadata").exists());
    node.stop();
}

#[test]
fn a_failure_is_counted_reported_and_acted_upon() {
    let _timed = Timed::start();
    let mut node = Node::new(&Etcd::usual());
    let dir = node.dir.path().join("small");
    let report = node.dir.path().join("report");
    let Some(mount) = Mount::tmpfs(&dir, "size=16m") else { return };
    let yaml = format!(
        "node-name: node\netcd-snapshot-dir: {}\netcd-snapshot-on-failure: 'echo \"$QUORATE_SNAPSHOT_NODE: $QUORATE_SNAPSHOT_ERROR\" >{}'\n",
        dir.display(),
        report.display()
    );
    fs::write(node.config_path(), yaml).unwrap();
    node.start_ready();
    node.stop();
    node.env = vec![("QUORATE_TEST_CLOCK_SHIFT".into(), (13 * 3600).to_string())];
    node.start_ready();
    let said = eventually("the command to be run", || fs::read_to_string(&report).ok().filter(|said| !said.is_empty()));
    assert!(said.starts_with("node: ") && said.contains(dir.to_str().unwrap()), "{said}");
    assert_eq!(node.status_json()["snapshots"]["failures"], 1);
    let table = node.quorate(&["status"]);
    // On so small a disk it is degraded.
    assert_eq!(table.code, Some(1));
    assert!(table.out.contains("1 snapshot FAILED"), "{}", table.out);
    node.wait_code(Code::NoSpace, &[]);
    for line in table.out.lines().filter(|line| !line.starts_with("data ") && !line.contains("/tmp")) {
        assert!(line.chars().count() <= 80, "{line}");
    }
    assert!(http_get(node.ports.metrics(), "/metrics").1.contains("quorate_etcd_snapshot_consecutive_failures 1"));
    assert_eq!(list(&node).len(), 0);
    // With room again, the next one ends the count.
    mount.remount("size=400m");
    save(&node, &[]);
    assert_eq!(node.status_json()["snapshots"]["failures"], 0);
    node.stop();
}
