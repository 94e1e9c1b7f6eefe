//! A configuration with mistakes: what writes or deletes stops, what reads goes on and says where, and what is printed as the
//! next command checks the same configuration.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use quorate::error::Code;

use crate::kit::{Etcd, Node, Ran, Timed};

/// Attack 3.
#[test]
fn with_mistakes_in_the_configuration_nothing_is_written_or_deleted() {
    let _timed = Timed::start();
    let node = Node::new(&Etcd::usual());
    let dir = node.server_dir().join("db/snapshots");
    fs::create_dir_all(&dir).unwrap();
    for path in [&node.data_dir, &node.server_dir(), &dir] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).unwrap();
    }
    let names: Vec<String> = (1..4).map(|index| format!("b-node-170000000{index}")).collect();
    for name in &names {
        fs::write(dir.join(name), "x").unwrap();
    }
    let written = node.dir.path().join("out");
    let missing = Path::new("/nonexistent/quorate.yaml");
    let run = |config: &Path, words: &[&str]| {
        let mut command = Command::new(&node.executable);
        command.args(words).arg("--data-dir").arg(&node.data_dir).arg("--config").arg(config);
        Ran::of(&command.env("QUORATE_NODE_NAME", "node").output().unwrap())
    };
    let out = written.to_str().unwrap();
    let restore = |from| vec!["etcd-snapshot", "restore", from, "--data-dir-out", out];
    let by_path = dir.join(&names[0]);
    for (yaml, problem) in [
        (Some("a: [1\n"), "config.yaml"),
        (Some("nonsense: 1\n"), "config.yaml:1: "),
        (None, "/nonexistent/quorate.yaml"),
    ] {
        let config = if let Some(yaml) = yaml {
            fs::write(node.config_path(), yaml).unwrap();
            node.config_path()
        } else {
            missing.to_path_buf()
        };
        for words in [
            vec!["etcd-snapshot", "prune", "--name=b", "--keep-last=1"],
            vec!["etcd-snapshot", "delete", &names[0], "--force"],
            vec!["etcd-snapshot", "hold", &names[0]],
            vec!["etcd-snapshot", "release", &names[0]],
            vec!["etcd-snapshot", "save"],
            vec!["etcd-snapshot", "s3-check"],
            restore(&names[0]),
            restore("s3://bucket/key"),
            vec!["defrag"],
            vec!["space", "--free"],
        ] {
            run(&config, &words).fails(Code::InvalidConfiguration, &[problem, "server --print-config"]);
        }
        for (words, code) in [
            (vec!["etcd-snapshot", "ls"], None),
            (vec!["etcd-snapshot", "verify", "--all"], Some(Code::SnapshotUnhashed)),
            (vec!["etcd-snapshot", "status", &names[0]], Some(Code::SnapshotUnhashed)),
            (restore(by_path.to_str().unwrap()), Some(Code::SnapshotUnhashed)),
            (vec!["status"], Some(Code::NotRunning)),
            (vec!["space"], Some(Code::NotRunning)),
            (vec!["env"], None),
        ] {
            let ran = run(&config, &words);
            // What is wrong, and where it looks all the same.
            ran.exits(code.map_or(0, |code| code.exit() as i32), &[problem, node.data_dir.to_str().unwrap()]);
            assert_eq!(ran.error_code(), code, "{words:?}: {ran:#?}");
        }
        // A flag that was typed just now is a usage error, whatever the verb does.
        run(&config, &["status", "--log-format=xml"]).fails(Code::InvalidConfiguration, &["--log-format"]);
    }
    assert_eq!(names.iter().filter(|name| dir.join(name).exists()).count(), 3);
    assert!(!written.exists());
    // Of object storage a running server may know the rest; without one, nothing is deleted here either.
    fs::write(node.config_path(), "etcd-s3: true\netcd-s3-bucket: backups\netcd-s3-access-key: a\n").unwrap();
    run(&node.config_path(), &["etcd-snapshot", "prune", "--name=b", "--keep-last=1"])
        .fails(Code::InvalidConfiguration, &["`etcd-s3-secret-key`"]);
    run(&node.config_path(), &["etcd-snapshot", "delete", &names[0], "--force"])
        .fails(Code::InvalidConfiguration, &["`etcd-s3-secret-key`"]);
    assert_eq!(names.iter().filter(|name| dir.join(name).exists()).count(), 3);
    fs::write(node.config_path(), "").unwrap();
    // Bugs F9: said where it is said, and never queued.
    for verb in ["save", "ls", "s3-check"] {
        let words = ["etcd-snapshot", verb, "--s3", "--s3-bucket=backups", "--s3-endpoint=http://127.0.0.1:99999"];
        run(&node.config_path(), &words).fails(Code::InvalidConfiguration, &["--etcd-s3-endpoint", "127.0.0.1:99999"]);
    }
    run(&node.config_path(), &["etcd-snapshot", "delete", &names[0], "--force"]).succeeds();
}

/// ux F8.
#[test]
fn the_next_command_of_a_configuration_error_reports_the_same_problems() {
    let _timed = Timed::start();
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("it's c2.yaml"), "etcd-client-port: many\nnode-nam: x\n").unwrap();
    fs::write(dir.path().join("empty.yaml"), "").unwrap();
    let problems = |err: &str| -> Vec<String> {
        let problem =
            |line: &&str| line.starts_with("  ") && !["  next:", "  code:"].iter().any(|last| line.starts_with(last));
        err.lines().filter(problem).map(str::to_owned).collect()
    };
    let flags = ["--config=it's c2.yaml", "--etcd-snapshot-retention=many", "--tls-san=not ok", "--tls-san=also not"];
    let s3 = ["etcd-snapshot", "prune", "-c", "it's c2.yaml", "--s3-timeout=soon"];
    for (args, variables, expected) in [
        (&["server"][..], &[("QUORATE_LOG_FORMAT", "xml"), ("QUORATE_CONFIG", "it's c2.yaml")][..], 3),
        (&[&["server"][..], &flags[..]].concat(), &[], 5),
        (&s3, &[("QUORATE_ETCD_PEER_PORT", "0")], 4),
        (&["server", "--node-name=n"], &[("QUORATE_CONFIG", "missing.yaml")], 1),
        (&["server", "--node-name=n"], &[("QUORATE_CONFIG", "empty.yaml"), ("QUORATE_LOG", "a=b=c")], 1),
    ] {
        let run = |command: &mut Command| Ran::of(&command.current_dir(dir.path()).output().unwrap());
        let first = run(Command::new(crate::kit::executable()).args(args).envs(variables.iter().copied()));
        first.fails(Code::InvalidConfiguration, &["server --print-config"]);
        let next = first.err.lines().find_map(|line| line.strip_prefix("  next: ")).unwrap();
        let (_, next) = next.split_once(": ").unwrap();
        // As typed in another shell, without these variables.
        let path = format!("{}:/usr/bin:/bin", crate::kit::executable().parent().unwrap().display());
        let second = run(Command::new("sh").args(["-c", next]).env("PATH", path));
        assert_eq!(second.code, Some(2), "{next}: {second:?}");
        assert_eq!(problems(&second.err), problems(&first.err), "{next}");
        assert_eq!(problems(&first.err).len(), expected, "{}", first.err);
    }
}
