//! B8: SIGTERM and Ctrl-C end the checks that change nothing, too, within a moment.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use quorate::error::Code;

use super::steps::Template;
use super::{everything, keys, left_nothing, restored};
use crate::kit::{Node, Timed};

/// Each progress report of a check is so slow that all of it would take minutes.
const SLOW: &str = "restore::check=sleep(1000)";
/// One report, and the end of the process.
const SOON: Duration = Duration::from_secs(6);

fn is_cancelled_while_checking(node: &mut Node, args: &[&str], signal: Signal) {
    let before = everything(&node.server_dir().join("db"));
    node.env = vec![("FAILPOINTS".into(), SLOW.into())];
    let mut command = node.server_command();
    command.args(args);
    node.start_command(command);
    node.wait_event("reset-checking", &[]);
    let begun = Instant::now();
    node.signal(signal);
    assert_eq!(node.wait_end().code(), Some(1), "{args:?}: {}", node.log_since_start());
    assert!(begun.elapsed() < SOON, "{args:?} took {:?}", begun.elapsed());
    let log = node.log_since_start();
    assert!(log.ends_with(&format!("  code: {}\n", Code::Cancelled)), "{args:?}: {log}");
    assert_eq!(everything(&node.server_dir().join("db")), before, "{args:?}");
    node.env.clear();
}

#[test]
fn a_signal_ends_a_dry_run_and_the_check_of_earlier_data() {
    let _timed = Timed::start();
    let template = Template::new();
    let path = format!("--cluster-reset-restore-path={}", template.name);
    let mut node = template.copy();
    for (args, signal) in [
        (&["--cluster-reset", "--dry-run"][..], Signal::SIGTERM),
        (&["--cluster-reset", &path, "--dry-run"], Signal::SIGINT),
    ] {
        is_cancelled_while_checking(&mut node, args, signal);
    }
    restored(&node.run_server_with(&["--cluster-reset", &path]));
    for args in [&["--undo-reset", "--dry-run"][..], &["--undo-reset"]] {
        is_cancelled_while_checking(&mut node, args, Signal::SIGTERM);
    }
    left_nothing(&node);
    node.start_ready();
    assert_eq!(keys(&node), "a");
    node.stop();
}
