//! The formats of commit 1b4c942, which wrote version 1 of `cluster.json` and of the journal: its data directories and its interrupted
//! resets are taken over.
//!
//! The state is made with this quorate, and the JSON is replaced by what the other one would have written. With `QUORATE_TEST_PREVIOUS`,
//! the path of an executable of that commit with fault injection, the same tests also run with that one.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::steps::Template;
use super::{epoch, keys, left_nothing, restored, save};
use crate::kit::{Etcd, Node, Timed, eventually};

/// `cluster.json`, as 1b4c942 wrote it after a start (it had no lineage yet then).
const RECORD: &str = include_str!("upgrade/cluster.json");
/// `journal.json` of a restore in phase `trying`; the later phase was `passed`.
const JOURNAL: &str = include_str!("upgrade/journal.json");

fn read(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// `new`, with the fields of the fixture `old`, and of those values only the ones that are of this data directory.
fn in_the_old_form(old: &Value, new: &Value) -> Value {
    let Value::Object(fields) = old else { panic!("{old} is no object") };
    let value = |name: &str, value: &Value| match name {
        "version" | "phase" | "members" | "control_urls" => value.clone(),
        "act" => new["kind"].clone(),
        "begun" => new["started"].clone(),
        "before" | "after" => in_the_old_form(value, &new[name]),
        _ => new[name].clone(),
    };
    fields.iter().map(|(name, old)| (name.clone(), value(name, old))).collect()
}

fn replace(path: &Path, old: &Value) {
    let text = serde_json::to_vec_pretty(&in_the_old_form(old, &read(path))).unwrap();
    fs::write(path, text).unwrap();
}

fn previous() -> Option<PathBuf> {
    std::env::var_os("QUORATE_TEST_PREVIOUS").map(PathBuf::from)
}

/// A stopped server of the previous version: by its executable, or by its form of the record.
fn template(previous: Option<&Path>) -> Template {
    let Some(executable) = previous else {
        let template = Template::new();
        replace(&template.node.server_dir().join("cluster.json"), &serde_json::from_str(RECORD).unwrap());
        return template;
    };
    let mut node = Node::new(&Etcd::usual());
    let present = std::mem::replace(&mut node.executable, executable.to_path_buf());
    node.start_ready();
    node.etcdctl(&["put", "a", "1"]);
    let name = save(&node);
    node.etcdctl(&["put", "b", "1"]);
    let record = node.server_dir().join("cluster.json");
    eventually("the record", || (read(&record)["member_id"] != "").then_some(()));
    node.stop();
    node.executable = present;
    Template { node, name }
}

/// Interrupts a restore of the previous version at a step.
fn interrupt(node: &mut Node, snapshot: &str, step: &str, phase: &str, previous: Option<&Path>) {
    let path = format!("--cluster-reset-restore-path={snapshot}");
    let present = node.executable.clone();
    if let Some(executable) = previous {
        node.executable = executable.to_path_buf();
    }
    node.env = vec![("FAILPOINTS".into(), format!("restore::{step}=return(kill)"))];
    let ran = node.run_server_with(&["--cluster-reset", &path]);
    assert_eq!(ran.code, None, "killed at {step}: {ran:#?}");
    node.env.clear();
    node.executable = present;
    let journal = node.server_dir().join("db/restore/journal.json");
    if previous.is_none() {
        let mut old: Value = serde_json::from_str(JOURNAL).unwrap();
        old["phase"] = json!(phase);
        replace(&journal, &old);
    }
    let found = read(&journal);
    assert_eq!((&found["version"], &found["phase"], &found["act"]), (&json!(1), &json!(phase), &json!("restore")));
}

fn all_of(previous: Option<&Path>) {
    let template = template(previous);
    // A clean stop.
    let mut node = template.copy();
    let record = node.server_dir().join("cluster.json");
    let before = read(&record);
    assert_eq!((before.get("version"), &before["members"]), (None, &json!(1)));
    node.start_ready();
    assert_eq!(keys(&node), "a b");
    let after = eventually("version 2 of the record", || {
        Some(read(&record)).filter(|record| record["version"] == 2 && record["servers"][0]["seen"].is_u64())
    });
    for field in ["cluster_id", "epoch", "member_id", "member_name"] {
        assert_eq!(after[field], before[field], "{field}");
    }
    assert_eq!((after["servers"].as_array().unwrap().len(), after.get("members")), (1, None));
    node.stop();

    // A restore that was interrupted before its data were found good is rolled back, and can be repeated.
    for step in ["old_aside", "new_in_place", "exchanged", "gate"] {
        let mut node = template.copy();
        interrupt(&mut node, &template.name, step, "trying", previous);
        node.start_ready();
        assert_eq!((keys(&node).as_str(), epoch(&node)), ("a b", 1), "{step}");
        node.stop();
        // Only now: a server that runs may just be writing the record.
        left_nothing(&node);
        let path = format!("--cluster-reset-restore-path={}", template.name);
        restored(&node.run_server_with(&["--cluster-reset", &path]));
    }
    // One that was interrupted after that is finished, and can be undone.
    for step in ["label", "remember", "flag", "tidy"] {
        let mut node = template.copy();
        interrupt(&mut node, &template.name, step, "passed", previous);
        node.start_ready();
        node.wait_event("reset-finished", &[]);
        assert_eq!((keys(&node).as_str(), epoch(&node)), ("a", 2), "{step}");
        node.stop();
        // Only now: a server that runs may just be writing the record.
        left_nothing(&node);
        restored(&node.run_server_with(&["--undo-reset"]));
        node.start_ready();
        assert_eq!((keys(&node).as_str(), epoch(&node)), ("a b", 3), "{step}");
        node.stop();
    }
}

#[test]
fn the_data_and_half_finished_resets_of_the_previous_version_are_taken_over() {
    let _timed = Timed::start();
    all_of(None);
    if let Some(previous) = previous() {
        all_of(Some(&previous));
    }
}
