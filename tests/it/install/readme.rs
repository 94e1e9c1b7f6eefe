//! Every command of README.md, as a newcomer would type it.

use std::fs;
use std::process::{Command, Stdio};

use crate::install::machine::Machine;
use crate::kit::s3::Store;
use crate::kit::{Etcd, Node, Ran, Timed};

const README: &str = include_str!("../../../README.md");

/// The commands under a heading: its indented lines.
fn commands(heading: &str) -> Vec<&'static str> {
    let lines = README.lines().skip_while(|line| line.trim_start_matches('#').trim() != heading).skip(1);
    let found: Vec<_> =
        lines.take_while(|line| !line.starts_with('#')).filter_map(|line| line.strip_prefix("    ")).collect();
    assert!(!found.is_empty(), "README.md has no commands under `{heading}`");
    found
}

#[test]
fn what_it_says_about_installing_works_word_by_word() {
    let _timed = Timed::start();
    let Some(machine) = Machine::boot() else { return };
    let mut run = 0;
    let mut follow = |heading: &str, only: &str| {
        for command in commands(heading).into_iter().filter(|command| command.contains(only)) {
            machine.must(&format!("cd /dist && {command}"));
            run += 1;
        }
    };
    for (install, uninstall) in [("With the package", "apt-get"), ("With the archive", "quorate-uninstall.sh")] {
        for heading in [install, "Configure it", "First start", "Snapshots", "Reset and restore", "Day two"] {
            follow(heading, "");
        }
        follow("Uninstall", uninstall);
    }
    // What is not run above stands under headings that are run elsewhere.
    let all = README.lines().filter(|line| line.starts_with("    ")).count();
    let once = commands("With the package").len() + commands("With the archive").len() + 2;
    let tried = commands("Try it").len() + commands("Object storage").len();
    assert_eq!(
        run,
        once + 2 * ["Configure it", "First start", "Snapshots", "Reset and restore", "Day two"]
            .map(|h| commands(h).len())
            .iter()
            .sum::<usize>()
    );
    assert_eq!(all, tried + once + (run - once) / 2, "commands that no test runs");
}

#[test]
fn what_it_says_about_trying_works() {
    let _timed = Timed::start();
    let (made, typed): (Vec<_>, Vec<_>) = commands("Try it").into_iter().partition(|line| line.starts_with("make "));
    // These two are the continuous integration's.
    assert_eq!(made.iter().map(|line| line.split_whitespace().nth(1).unwrap()).collect::<Vec<_>>(), ["run", "test"]);
    let mut node = Node::new(&Etcd::usual());
    node.data_dir = node.dir.path().join("data");
    node.start_ready();
    let built = node.dir.path().join("target/quick");
    fs::create_dir_all(&built).unwrap();
    std::os::unix::fs::symlink(&node.executable, built.join("quorate")).unwrap();
    let script: Vec<_> =
        typed.into_iter().filter(|line| !line.starts_with("INFO ") && !line.starts_with("WARN ")).collect();
    let script = format!("set -e\n{}", script.join("\n"));
    let mut command = Command::new("sh");
    command.args(["-c", &script]).current_dir(node.dir.path()).stdin(Stdio::null());
    let ran = Ran::of(&command.output().unwrap());
    assert!(ran.succeeds().ends_with("OK\nhello\nworld\n"), "{ran:?}");
    node.stop();
}

#[test]
fn what_it_says_about_object_storage_works() {
    let _timed = Timed::start();
    let store = Store::start();
    let mut node = Node::new(&Etcd::usual()).config(&store.config());
    node.start_ready();
    let path = node.dir.path().join("bin");
    fs::create_dir_all(&path).unwrap();
    std::os::unix::fs::symlink(&node.executable, path.join("quorate")).unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", &format!("set -e\n{}", commands("Object storage").join("\n"))]).stdin(Stdio::null());
    command.env("PATH", format!("{}:/usr/bin:/bin", path.display()));
    command.env("QUORATE_DATA_DIR", &node.data_dir).env("QUORATE_CONFIG", node.config_path());
    let ran = Ran::of(&command.output().unwrap());
    assert!(ran.succeeds().contains("s3://backups/prod/before-upgrade-node-"), "{ran:?}");
    node.stop();
}
