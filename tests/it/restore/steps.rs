//! Every named step, failing and killed: afterwards there are the old data or the new ones, whole, and the same command works.

use std::path::Path;
use std::process::Command;

use quorate::error::Code;

use super::{keys, left_nothing, restored, save, snapshot_dir};
use crate::kit::{Etcd, Node, Ran, Timed, etcds_on, eventually};

/// A server that was stopped, with a snapshot in which `b` is not.
pub struct Template {
    pub node: Node,
    pub name: String,
}

impl Template {
    pub fn new() -> Self {
        let mut node = Node::new(&Etcd::usual());
        node.start_ready();
        node.etcdctl(&["put", "a", "1"]);
        let name = save(&node);
        node.etcdctl(&["put", "b", "1"]);
        node.stop();
        assert!(snapshot_dir(&node).join(&name).exists());
        Self { node, name }
    }

    pub fn copy(&self) -> Node {
        let node = Node::new(&Etcd::usual());
        copy(&self.node.data_dir, &node.data_dir);
        node
    }
}

fn copy(from: &Path, to: &Path) {
    let done = Command::new("cp").args(["-a", "--sparse=always"]).arg(from).arg(to).status().unwrap();
    assert!(done.success());
}

/// Runs the act with a fault; then a normal start, and the act again.
fn survives(template: &Template, act: &[&str], faults: &str, new: &str) {
    let mut node = template.copy();
    node.env = vec![("FAILPOINTS".into(), faults.into())];
    let ran = node.run_server_with(act);
    node.env.clear();
    let context = format!("{act:?} with {faults}: {ran:#?}");
    assert_ne!(ran.code, Some(0), "the fault was not met: {context}");
    // One etcd, with the old data or the new.
    node.start_ready();
    assert_eq!(etcds_on(&node.etcd_dir()).len(), 1, "{context}");
    let found = keys(&node);
    assert!(found == "a b" || found == new, "{found}: {context}");
    if let Some(code) = ran.error_code() {
        // Neither code is for a failure before the data were exchanged, nor for one that was rolled back.
        assert_ne!(code, Code::ResetNotRolledBack, "{context}");
        assert_eq!(found, if code == Code::ResetNotRecorded { new } else { "a b" }, "{context}");
    }
    assert_eq!(ran.code.is_some(), ran.error_code().is_some(), "{context}");
    left_nothing(&node);
    node.stop();
    again(&mut node, act, new, &context);
    // And the same command without a start between: it finishes or undoes, and then does it, or says that it was done.
    let mut node = template.copy();
    node.env = vec![("FAILPOINTS".into(), faults.into())];
    node.run_server_with(act);
    node.env.clear();
    let ran: Ran = node.run_server_with(act);
    if ran.code == Some(4) {
        assert_eq!(ran.error_code(), Some(Code::ResetFlag), "{context} then {ran:#?}");
        node.start_ready();
        assert_eq!(keys(&node), new, "{context} then {ran:#?}");
        node.stop();
    } else {
        restored(&ran);
        node.start_ready();
        assert_eq!(keys(&node), new, "{context}");
        node.stop();
    }
    left_nothing(&node);
}

fn again(node: &mut Node, act: &[&str], new: &str, context: &str) {
    if act[0] == "--undo-reset" {
        return;
    }
    restored(&node.run_server_with(act));
    left_nothing(node);
    node.start_ready();
    assert_eq!(keys(node), new, "{context}");
    node.stop();
}

fn sweep(steps: &[&str], fault: &str) {
    let template = Template::new();
    let path = format!("--cluster-reset-restore-path={}", template.name);
    for step in steps {
        survives(&template, &["--cluster-reset", &path], &format!("restore::{step}=return({fault})"), "a");
    }
}

pub const BUILDING: [&str; 3] = ["copy", "edited", "built"];
pub const EXCHANGING: [&str; 6] = ["old_aside", "new_in_place", "exchanged", "swapped", "gate", "verified"];
pub const GOING_BACK: [&str; 3] = ["new_back", "old_back", "tidy"];
pub const FINISHING: [&str; 7] = ["committed", "label", "name", "remember", "token", "flag", "tidy"];

#[test]
fn building_fails() {
    let _timed = Timed::start();
    sweep(&BUILDING, "eio");
}

#[test]
fn building_is_killed() {
    let _timed = Timed::start();
    sweep(&BUILDING, "kill");
}

#[test]
fn exchanging_fails() {
    let _timed = Timed::start();
    sweep(&EXCHANGING, "eio");
}

#[test]
fn exchanging_is_killed() {
    let _timed = Timed::start();
    sweep(&EXCHANGING, "kill");
}

#[test]
fn finishing_fails() {
    let _timed = Timed::start();
    sweep(&FINISHING, "eio");
}

#[test]
fn finishing_is_killed() {
    let _timed = Timed::start();
    sweep(&FINISHING, "kill");
}

/// What does not pass the gate goes back; killed on the way back, the next start goes on with that.
#[test]
fn the_way_back_fails_or_is_killed() {
    let _timed = Timed::start();
    let template = Template::new();
    let path = format!("--cluster-reset-restore-path={}", template.name);
    for step in GOING_BACK {
        let faults = format!("restore::gate=return;restore::{step}=return(kill)");
        survives(&template, &["--cluster-reset", &path], &faults, "a");
    }
    let mut node = template.copy();
    node.env = vec![("FAILPOINTS".into(), "restore::gate=return;restore::old_back=return".into())];
    let ran = node.run_server_with(&["--cluster-reset", &path]);
    ran.fails(Code::ResetNotRolledBack, &[]);
    node.env.clear();
    node.start_ready();
    node.wait_event("reset-undone", &[]);
    assert_eq!(keys(&node), "a b");
    node.stop();
    left_nothing(&node);
}

/// Stopped in the middle of it, it goes back and says so.
#[test]
fn a_signal_rolls_it_back() {
    let _timed = Timed::start();
    let template = Template::new();
    let path = format!("--cluster-reset-restore-path={}", template.name);
    // Before anything was changed, while etcd is tried, and after it passed.
    for (step, code) in [
        ("copy", Code::Cancelled),
        ("exchanged", Code::ResetRolledBack),
        ("gate", Code::ResetRolledBack),
        ("verified", Code::ResetRolledBack),
    ] {
        let mut node = template.copy();
        node.env = vec![("FAILPOINTS".into(), format!("restore::{step}=sleep(1500)"))];
        let mut command = node.server_command();
        command.args(["--cluster-reset", &path]);
        node.start_command(command);
        let begun = if step == "copy" { "db/restore/etcd/member" } else { "db/restore/journal.json" };
        eventually("it to be on its way", || node.server_dir().join(begun).exists().then_some(()));
        node.signal(nix::sys::signal::Signal::SIGTERM);
        assert_eq!(node.wait_end().code(), Some(1), "{step}: {}", node.log_since_start());
        let log = node.log_since_start();
        assert!(log.ends_with(&format!("  code: {code}\n")), "{step}: {log}");
        left_nothing(&node);
        node.env.clear();
        node.start_ready();
        assert_eq!(keys(&node), "a b", "{step}");
        node.stop();
    }
}

#[test]
fn a_reset_fails_or_is_killed() {
    let _timed = Timed::start();
    let template = Template::new();
    for step in ["edited", "exchanged", "gate", "remember"] {
        for fault in ["eio", "kill"] {
            survives(&template, &["--cluster-reset"], &format!("restore::{step}=return({fault})"), "a b");
        }
    }
}

#[test]
fn an_undoing_fails_or_is_killed() {
    let _timed = Timed::start();
    let template = Template::new();
    let path = format!("--cluster-reset-restore-path={}", template.name);
    // In use is what was restored, without b; back goes what has it.
    restored(&template.node.run_server_with(&["--cluster-reset", &path]));
    for step in [
        "old_aside",
        "new_in_place",
        "exchanged",
        "swapped",
        "verified",
        "committed",
        "label",
        "remember",
        "flag",
        "tidy",
    ] {
        for fault in ["eio", "kill"] {
            let mut node = template.copy();
            node.env = vec![("FAILPOINTS".into(), format!("restore::{step}=return({fault})"))];
            let ran = node.run_server_with(&["--undo-reset"]);
            assert_ne!(ran.code, Some(0), "{step} {fault}: {ran:#?}");
            node.env.clear();
            node.start_ready();
            let found = keys(&node);
            let is_done = ran.error_code() == Some(Code::ResetNotRecorded);
            if ran.code.is_some() {
                assert_eq!(found, if is_done { "a b" } else { "a" }, "{step} {fault}: {ran:#?}");
            }
            assert!(found == "a" || found == "a b", "{step} {fault}: {found}");
            assert_eq!(node.retire().len(), 1, "{step} {fault}");
            node.stop();
            left_nothing(&node);
        }
    }
}
