//! The background tasks of a server: whichever ends, the server ends in order.

use quorate::error::Code;

use crate::kit::{Etcd, Node, Timed, etcds_on};

/// Every task that `launcher::assemble` starts; the reaper runs as PID 1 only.
const TASKS: [&str; 9] =
    ["supervisor", "control", "schedule", "uploads", "drill", "maintenance", "rescue", "health", "storage"];

/// code B2: a background task that ended was not noticed, and what it had seen last was shown for ever.
#[test]
fn whichever_task_panics_or_returns_the_server_ends_in_order_with_exit_1() {
    let _timed = Timed::start();
    let source = include_str!("../../../src/launcher/assemble.rs");
    let started = source.matches("tasks.spawn(\"").count();
    assert_eq!(started, TASKS.len() + 1, "a task of the launcher is missing here");
    for (number, task) in TASKS.into_iter().enumerate() {
        let what = if number % 2 == 0 { "panic" } else { "return(eio)" };
        let node = Node::new(&Etcd::usual()).env("FAILPOINTS", &format!("task::{task}={what}"));
        let ran = node.run_server();
        ran.fails(Code::TaskEnded, &[task]);
        assert_eq!(etcds_on(&node.etcd_dir()), Vec::<i32>::new(), "{task}");
        assert!(!node.server_dir().join("quorate.sock").exists(), "{task}");
    }
}
