//! An empty value is a mistake, never "not given": on the command line everywhere, for the snapshot to restore also in files and
//! in the environment. In other variables it still means "not set".

use std::fs;
use std::process::Command;

use quorate::error::Code;

use crate::kit::{Etcd, Node, Ran, Timed};

#[test]
fn an_empty_restore_path_is_never_a_reset() {
    let _timed = Timed::start();
    let mut node = Node::new(&Etcd::usual());
    node.start_ready();
    node.etcdctl(&["put", "a", "1"]);
    node.stop();
    let look = || node.files_with_times();
    let before = look();
    let reset = |args: &[&str]| node.run_server_with(&[&["--cluster-reset"], args].concat());
    for args in [
        &["--cluster-reset-restore-path="][..],
        &["--cluster-reset-restore-path", ""],
        &["--cluster-reset-restore-path= "],
    ] {
        for more in [&[][..], &["--dry-run"], &["--print-config"]] {
            reset(&[args, more].concat()).fails(Code::Usage, &["--cluster-reset-restore-path"]);
        }
    }
    for (yaml, line) in [
        ("cluster-reset-restore-path: ''\n", "config.yaml:1: "),
        ("cluster-reset-restore-path: '  '\n", "config.yaml:1: "),
        ("cluster-reset-restore-path:\n", "config.yaml:1: "),
        ("cluster-reset-restore-path: ~\n", "config.yaml:1: "),
        ("cluster-reset: true\ncluster-reset-restore-path: null\n", "config.yaml:2: "),
    ] {
        fs::write(node.config_path(), yaml).unwrap();
        let facts = [line, "`cluster-reset-restore-path`"];
        reset(&[]).fails(Code::InvalidConfiguration, &facts);
        reset(&["--dry-run"]).fails(Code::InvalidConfiguration, &facts);
    }
    // Without a reset, a line without a value asks for nothing; an empty text is a mistake all the same.
    fs::write(node.config_path(), "cluster-reset-restore-path:\n").unwrap();
    node.run_server_with(&["--print-config"]).succeeds();
    fs::write(node.config_path(), "cluster-reset-restore-path: ''\n").unwrap();
    node.run_server_with(&["--print-config"]).fails(Code::InvalidConfiguration, &["`cluster-reset-restore-path`"]);
    fs::write(node.config_path(), "").unwrap();
    for (name, value, fact) in [
        ("QUORATE_CLUSTER_RESET_RESTORE_PATH", "", "environment QUORATE_CLUSTER_RESET_RESTORE_PATH: "),
        ("QUORATE_CLUSTER_RESET_RESTORE_PATH", " ", "environment QUORATE_CLUSTER_RESET_RESTORE_PATH: "),
        ("QUORATE_CLUSTER_RESET_RESTOREPATH", "/x", "QUORATE_CLUSTER_RESET_RESTORE_PATH?"),
    ] {
        let output = node.server_command().arg("--cluster-reset").env(name, value).output().unwrap();
        Ran::of(&output).fails(Code::InvalidConfiguration, &[fact]);
    }
    assert_eq!(look(), before);
    node.start_ready();
    assert_eq!(node.etcdctl(&["get", "a", "--print-value-only"]), "1\n");
    node.stop();
}

#[test]
fn an_empty_variable_is_not_set_and_usage_lines_know_no_variables() {
    let _timed = Timed::start();
    let run = |args: &[&str], config: &str| {
        let mut command = Command::new(crate::kit::executable());
        command.args(args).env("QUORATE_CONFIG", config).env("QUORATE_DATA_DIR", "").env("QUORATE_TOKEN", "");
        Ran::of(&command.output().unwrap())
    };
    // Bugs F1, ux F17.
    for verb in ["version", "completion"] {
        let args = if verb == "completion" { vec![verb, "bash"] } else { vec![verb] };
        run(&args, "").succeeds();
    }
    let printed = run(&["server", "--print-config", "--node-ip=127.0.0.1", "--node-name=n"], "");
    assert!(printed.succeeds().contains("data-dir: /var/lib/quorate  # default\n"), "{}", printed.out);
    // ux F22.
    let bare = run(&[], "/etc/quorate/config.yaml");
    bare.fails(Code::Usage, &["quorate [OPTIONS] <COMMAND>", "etcd-snapshot"]);
    assert!(!bare.err.contains("man "), "the help has no hidden command: {}", bare.err);
    let usage = run(&["completion"], "/etc/quorate/config.yaml");
    usage.fails(Code::Usage, &["quorate completion <SHELL>"]);
    for args in [
        &["status", "--config="][..],
        &["status", "-c", ""],
        &["status", "--data-dir", ""],
        &["status", "--data-dir= "],
    ] {
        run(args, "").fails(Code::Usage, &["'--"]);
    }
}
