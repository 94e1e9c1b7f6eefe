//! A restore that is a part of an operation over several servers: only its coordinator decides it, whatever this server does meanwhile.

use std::fs;

use quorate::error::Code;
use serde_json::{Value, json};

use super::steps::Template;
use super::{keys, left_nothing, restore, restored};
use crate::kit::{Node, Timed, etcds_on};

const ID: &str = "operation-1";

/// Interrupts a restore at a step, and makes it a part of an operation.
fn interrupted(template: &Template, step: &str) -> Node {
    let mut node = template.copy();
    node.env = vec![("FAILPOINTS".into(), format!("restore::{step}=return(kill)"))];
    assert_eq!(restore(&node, &template.name, &[]).code, None);
    node.env.clear();
    set_operation(&node, json!(ID));
    node
}

fn set_operation(node: &Node, id: Value) {
    let path = node.server_dir().join("db/restore/journal.json");
    let mut journal: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    journal["operation"] = id;
    fs::write(path, journal.to_string()).unwrap();
}

#[test]
fn what_is_prepared_survives_starts_and_excludes_other_resets() {
    let _timed = Timed::start();
    let template = Template::new();
    let staged = "db/restore/etcd/member/snap/db";
    // Before the swap, in the middle of it, and at its end: without its phase in the journal there was none.
    for step in ["old_aside", "new_in_place", "exchanged"] {
        let mut node = interrupted(&template, step);
        for _ in 0..2 {
            node.start_ready();
            node.wait_event("operation-prepared", &[ID]);
            assert_eq!(keys(&node), "a b", "{step}");
            node.stop();
            assert!(node.server_dir().join(staged).exists(), "{step}");
            assert_eq!(node.retire().len(), 0, "{step}");
        }
        for args in [&["--cluster-reset"][..], &["--undo-reset"]] {
            node.run_server_with(args).fails(Code::OperationUndecided, &[ID, "prepared"]);
        }
        assert!(node.server_dir().join(staged).exists(), "{step}");
        // It is this server's own again: the next reset discards what was left of it.
        set_operation(&node, Value::Null);
        restored(&restore(&node, &template.name, &[]));
        left_nothing(&node);
        node.start_ready();
        assert_eq!(keys(&node), "a");
        node.stop();
    }
}

#[test]
fn what_is_swapped_is_not_started_before_it_is_decided() {
    let _timed = Timed::start();
    let template = Template::new();
    for (step, phase, decided) in [("gate", "swapped", "a b"), ("committed", "verified", "a")] {
        let mut node = interrupted(&template, step);
        for args in [&[][..], &["--cluster-reset"], &["--undo-reset"]] {
            node.run_server_with(args).fails(Code::OperationUndecided, &[ID, phase]);
        }
        assert_eq!(etcds_on(&node.etcd_dir()), Vec::<i32>::new());
        set_operation(&node, Value::Null);
        node.start_ready();
        assert_eq!(keys(&node), decided, "{step}");
        node.stop();
        left_nothing(&node);
    }
}
