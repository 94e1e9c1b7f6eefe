//! status, etcdctl, env: what people and scripts use in addition to the server.

use std::fs;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use quorate::error::Code;

use crate::kit::{Etcd, Node, Ran, Timed, eventually};

#[test]
fn without_a_server_the_exit_code_is_6() {
    let _timed = Timed::start();
    let mut node = Node::new(&Etcd::usual());
    node.quorate(&["status"]).fails(Code::NotRunning, &["systemctl start"]);
    node.start_ready();
    node.stop();
    node.quorate(&["status"]).fails(Code::NotRunning, &[]);
    let ran = node.quorate(&["env"]);
    assert!(ran.succeeds().contains("export ETCDCTL_ENDPOINTS=https://127.0.0.1:2379"));
    assert!(
        ran.err.starts_with("quorate: warning: ") && ran.err.contains(node.data_dir.to_str().unwrap()),
        "{}",
        ran.err
    );
}

#[test]
fn status_fits_80_columns_and_speaks_json_and_yaml() {
    let _timed = Timed::start();
    let mut node = Node::new(&Etcd::usual());
    node.start_ready();
    let table = node.quorate(&["status"]);
    let table = table.succeeds();
    for word in [
        "health       healthy",
        "clients      https://127.0.0.1:",
        "leader of 1 member",
        "database",
        "certificates valid for",
    ] {
        assert!(table.contains(word), "{table}");
    }
    // Only paths of the test may be longer.
    for line in table.lines().filter(|line| !line.starts_with("data ")) {
        assert!(line.chars().count() <= 80, "{line}");
    }
    let yaml: serde_json::Value = serde_yaml::from_str(node.quorate(&["status", "-o", "yaml"]).succeeds()).unwrap();
    let json = node.status_json();
    assert_eq!(yaml["member"]["id"], json["member"]["id"]);
    assert_eq!(json["launcher"]["pid"], node.launcher_pid());
    node.quorate(&["status", "-o", "xml"]).fails(Code::Usage, &["'xml'"]);
    node.stop();
}

#[test]
fn etcdctl_is_etcdctl() {
    let _timed = Timed::start();
    let mut node = Node::new(&Etcd::usual());
    node.start_ready();
    // From the first foreign word on, options are etcdctl's, also those that quorate has too.
    assert_eq!(node.quorate(&["etcdctl", "put", "k", "v", "--debug=false"]).succeeds(), "OK\n");
    assert_eq!(node.quorate(&["etcdctl", "--write-out=simple", "get", "k"]).succeeds(), "k\nv\n");
    assert_eq!(node.quorate(&["etcdctl", "get", "k", "--print-value-only", "-w", "simple"]).succeeds(), "v\n");
    // Its exit code and its standard error are its own.
    let failed = node.quorate(&["etcdctl", "nonsense"]);
    assert_eq!(failed.code, Some(1), "{failed:?}");
    assert!(failed.err.contains("unknown command"), "{failed:?}");
    // Standard input is passed through.
    let mut child = Command::new(&node.executable)
        .args(["etcdctl", "--data-dir"])
        .arg(&node.data_dir)
        .args(["put", "from-stdin"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"typed").unwrap();
    assert_eq!(Ran::of(&child.wait_with_output().unwrap()).succeeds(), "OK\n");
    assert_eq!(node.etcdctl(&["get", "from-stdin", "--print-value-only"]), "typed\n");
    // What the user sets wins.
    let elsewhere = node.quorate(&[
        "etcdctl",
        "--",
        "--endpoints=https://127.0.0.1:1",
        "--dial-timeout=200ms",
        "--command-timeout=500ms",
        "get",
        "k",
    ]);
    assert_ne!(elsewhere.code, Some(0));
    node.stop();
}

#[test]
fn an_unhealthy_table_fits_80_columns_and_says_why() {
    let _timed = Timed::start();
    let mut node = Node::new(&Etcd::usual());
    node.start_ready();
    node.signal_child(Signal::SIGSTOP);
    let ran = eventually("ill health", || Some(node.quorate(&["status"])).filter(|ran| ran.code == Some(1)));
    assert_eq!(node.status_json()["problems"][0]["code"], Code::EtcdNotServing.name());
    assert!(ran.out.contains("last lines of etcd:\n") && !ran.out.contains("{\""), "{}", ran.out);
    for line in ran.out.lines().filter(|line| !line.starts_with("data ")) {
        assert!(line.chars().count() <= 80, "{line}");
    }
    node.stop();
}

#[test]
fn etcd_is_usable_while_the_launcher_hangs() {
    let _timed = Timed::start();
    let mut node = Node::new(&Etcd::usual());
    let etcd = Etcd::usual();
    let yaml = format!("etcd-client-port: {}\netcd-binary: {}\n", node.ports.client(), etcd.binary().display());
    fs::write(node.config_path(), yaml).unwrap();
    node.start_ready();
    node.signal(Signal::SIGSTOP);
    let ran = node.quorate(&["etcdctl", "--", "put", "a", "1"]);
    node.signal(Signal::SIGCONT);
    assert_eq!(ran.succeeds(), "OK\n");
    assert!(ran.err.contains(node.data_dir.to_str().unwrap()), "{}", ran.err);
    node.stop();
}

#[test]
fn what_cannot_be_printed_is_no_success() {
    let _timed = Timed::start();
    let mut node = Node::new(&Etcd::usual());
    node.start_ready();
    for verb in ["status", "env"] {
        let mut command = Command::new(&node.executable);
        command.arg(verb).arg("--data-dir").arg(&node.data_dir);
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        Ran::of(&command.stdout(full).output().unwrap()).fails(Code::OutputFailed, &["No space"]);
    }
    node.stop();
}

#[test]
fn a_missing_etcdctl_names_the_package() {
    let _timed = Timed::start();
    let node = Node::with_binary(None);
    let output = Command::new(&node.executable)
        .args(["etcdctl", "--data-dir"])
        .arg(&node.data_dir)
        .args(["get", "k"])
        .env("PATH", "/nonexistent")
        .output()
        .unwrap();
    Ran::of(&output).fails(Code::EtcdNotFound, &["etcdctl", "apt-get install etcd-client"]);
    let output = Command::new(&node.executable)
        .args(["server", "--node-ip=127.0.0.1", "--node-name=n", "--data-dir"])
        .arg(&node.data_dir)
        .env("PATH", "/nonexistent")
        .output()
        .unwrap();
    Ran::of(&output).fails(Code::EtcdNotFound, &["--etcd-binary"]);
    assert!(!node.data_dir.exists());
}

#[test]
fn env_is_what_a_shell_needs() {
    let _timed = Timed::start();
    let etcd = Etcd::usual();
    let mut node = Node::new(&etcd);
    node.data_dir = node.dir.path().join("it's a dir");
    node.start_ready();
    let script = format!(
        "eval \"$('{}' env --data-dir \"$1\")\" && ETCDCTL_API=3 '{}' put from shell",
        node.executable.display(),
        etcd.dir.join("etcdctl").display()
    );
    let output = Command::new("sh").args(["-c", &script, "sh"]).arg(&node.data_dir).output().unwrap();
    assert_eq!(Ran::of(&output).succeeds(), "OK\n");
    node.stop();
}

#[test]
fn the_commands_find_the_server_through_the_configuration() {
    let _timed = Timed::start();
    let mut node = Node::new(&Etcd::usual());
    let yaml = format!("data-dir: {}\n", node.data_dir.display());
    fs::write(node.config_path(), &yaml).unwrap();
    node.start_ready();
    let ask = |config: &std::path::Path| {
        let output = Command::new(&node.executable).arg("status").arg("--config").arg(config).output().unwrap();
        Ran::of(&output)
    };
    ask(&node.config_path()).succeeds();
    // At three in the morning a broken file must not keep anyone from looking.
    fs::write(node.config_path(), yaml + "nonsense: 1\n").unwrap();
    let ran = ask(&node.config_path());
    ran.succeeds();
    assert!(
        ran.err.contains("config.yaml:2: ")
            && ran.err.contains("`nonsense`")
            && ran.err.contains(node.data_dir.to_str().unwrap()),
        "{}",
        ran.err
    );
    node.stop();
}

#[test]
fn versions_completions_and_manual_pages_are_made() {
    let _timed = Timed::start();
    let run = |args: &[&str]| Ran::of(&Command::new(crate::kit::executable()).args(args).output().unwrap());
    let version: serde_json::Value = serde_json::from_str(run(&["version", "-o", "json"]).succeeds()).unwrap();
    assert_eq!((&version["version"], &version["etcd"]), (&env!("CARGO_PKG_VERSION").into(), &serde_json::Value::Null));
    assert!(run(&["version"]).succeeds().contains(env!("CARGO_PKG_VERSION")));
    if let Some(executable) = crate::kit::embedded_executable() {
        let output = Command::new(executable).args(["version", "-o", "json"]).output().unwrap();
        let version: serde_json::Value = serde_json::from_str(Ran::of(&output).succeeds()).unwrap();
        assert_eq!(version["etcd"]["version"], Etcd::usual().version());
        assert_eq!(version["etcd"]["sha256"].as_str().unwrap().len(), 64);
    }
    // The scripts are taken by the shells that they are for.
    for (shell, check) in [("bash", "bash"), ("zsh", "zsh"), ("fish", "fish")] {
        let ran = run(&["completion", shell]);
        let script = ran.succeeds();
        assert!(script.contains("_QUORATE_COMPLETE"), "{shell}");
        let Ok(mut child) = Command::new(check).arg("-n").stdin(Stdio::piped()).spawn() else { continue };
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), script.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success(), "{shell}");
    }
    // What the scripts ask: each option once, and the names of snapshots.
    let snapshots = tempfile::tempdir().unwrap();
    fs::write(snapshots.path().join("before-upgrade-n-1700000000"), vec![0; 8192]).unwrap();
    let asked = |words: &[&str]| {
        let mut command = Command::new(crate::kit::executable());
        command.env("_QUORATE_COMPLETE", "bash").env("_CLAP_IFS", "\n");
        command.env("_CLAP_COMPLETE_INDEX", (words.len() - 1).to_string());
        command.env("QUORATE_ETCD_SNAPSHOT_DIR", snapshots.path()).env_remove("QUORATE_CONFIG");
        let ran = Ran::of(&command.arg("--").args(words).output().unwrap());
        ran.succeeds().lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(asked(&["quorate", "etcd-snapshot", "get", ""])[..2], ["latest", "before-upgrade-n-1700000000"]);
    assert_eq!(asked(&["quorate", "etcd-snapshot", "get", "b"]), ["before-upgrade-n-1700000000"]);
    let options = asked(&["quorate", "etcd-snapshot", "get", "--s3-b"]);
    assert_eq!(options, ["--s3-bucket", "--s3-bucket-lookup-type"]);
    run(&["completion", "csh"]).fails(Code::Usage, &["'csh'"]);
    let dir = tempfile::tempdir().unwrap();
    run(&["man", dir.path().to_str().unwrap()]).succeeds();
    for page in
        ["quorate.1", "quorate-server.1", "quorate-status.1", "quorate-completion.1", "quorate-etcd-snapshot-prune.1"]
    {
        let text = fs::read_to_string(dir.path().join(page)).unwrap();
        assert!(text.starts_with(".ie") || text.contains(".TH "), "{page}: {}", &text[..60]);
    }
    let page = fs::read_to_string(dir.path().join("quorate-server.1")).unwrap();
    assert!(page.contains("etcd\\-client\\-port"), "the options are in it");
    for section in ["SYNOPSIS", "OPTIONS", "EXAMPLES", "EXIT STATUS", "FILES", "SEE ALSO"] {
        assert!(page.contains(section), "{section}");
    }
}

#[test]
fn help_names_every_option_with_its_variable() {
    let _timed = Timed::start();
    let output = Command::new(crate::kit::executable()).args(["server", "--help"]).output().unwrap();
    let help = Ran::of(&output);
    let help = help.succeeds();
    for spec in quorate::config::options::OPTIONS {
        assert!(help.contains(&format!("--{}", spec.name)), "{}", spec.name);
        assert!(help.contains(&spec.variable()), "{}", spec.variable());
    }
    let output = Command::new(crate::kit::executable()).arg("--version").output().unwrap();
    assert!(Ran::of(&output).succeeds().starts_with("quorate "));
    let output = Command::new(crate::kit::executable()).output().unwrap();
    Ran::of(&output).fails(Code::Usage, &["Usage: quorate"]);
}
