//! Files, environment and flags: what is taken, what is refused, what is shown.

use std::fs;
use std::process::Command;

use nix::sys::signal::Signal;
use quorate::error::Code;

use crate::kit::{Etcd, Node, Timed};

#[test]
fn each_bad_configuration_is_one_clear_error_and_nothing_is_touched() {
    let _timed = Timed::start();
    let etcd = Etcd::usual();
    for (yaml, facts) in [
        ("data-dirr: /x\n", &["config.yaml:1: ", "`data-dirr`", "`data-dir`?"][..]),
        ("zzz: 1\n", &["config.yaml:1: ", "`zzz`", "--help"]),
        ("debug: maybe\n", &["config.yaml:1: `debug`", "true", "false", "`maybe`"]),
        ("# x\netcd-client-port: many\n", &["config.yaml:2: `etcd-client-port`", "`many`"]),
        ("node-name: a\nnode-name: b\n", &["config.yaml:2: `node-name`", "line 1"]),
        ("node-ip: {a: b}\n", &["config.yaml:1: `node-ip`", "mapping"]),
        ("node-name: [a]\n", &["config.yaml:1: `node-name`", "list"]),
        ("node-name+: a\n", &["config.yaml:1: `node-name+`"]),
        ("a: [1\nb: 2\n", &["config.yaml", "YAML"]),
        ("- a\n", &["config.yaml", "`key: value`"]),
        ("config: /x\n", &["config.yaml:1: `config`"]),
        ("services: 5\n", &["config.yaml:1: `services`", "mapping"]),
        ("services: {}\ndata-dirr: /x\n", &["config.yaml:2: ", "`data-dirr`"]),
        ("tls-san: [ok, 'not ok']\n", &["config.yaml:1: `tls-san`", "`not ok`"]),
        ("token-file: /does/not/exist\n", &["config.yaml:1: ", "`token-file`", "/does/not/exist"]),
        ("etcd-arg: ['data-dir=/x']\n", &["config.yaml:1: ", "`etcd-arg`", "`data-dir`"]),
        ("etcd-arg: ['initial-cluster-state=new']\n", &["config.yaml:1: ", "`initial-cluster-state`"]),
        ("etcd-arg: ['client-cert-allowed-hostname=x']\n", &["config.yaml:1: ", "`client-cert-allowed-hostname`"]),
        ("etcd-arg: [\"max-txn-ops=1\\n2\"]\n", &["config.yaml:1: ", "`max-txn-ops`", "control character"]),
        ("token: K10abc::server:x\n", &["config.yaml:1: ", "token", "K10"]),
        ("token: two words\n", &["config.yaml:1: ", "token"]),
        ("cluster-reset-restore-path: /x\n", &["`cluster-reset-restore-path`", "`cluster-reset`"]),
        (
            "cluster-reset: true\ncluster-reset-restore-path: s3://bucket\n",
            &["config.yaml:2: `cluster-reset-restore-path`", "s3://BUCKET/KEY"],
        ),
        ("etcd-s3-endpoint: http://127.0.0.1:99999\n", &["config.yaml:1: `etcd-s3-endpoint`", "127.0.0.1:99999"]),
        (
            "etcd-s3: true\netcd-s3-bucket: backups\netcd-s3-endpoint: https://0a.r2.cloudflarestorage.com/backups\n",
            &["config.yaml:3: `etcd-s3-endpoint`", "`backups`", " 0a.r2.cloudflarestorage.com"],
        ),
        ("cluster-reset-bump-revision: -1\n", &["config.yaml:1: `cluster-reset-bump-revision`"]),
    ] {
        let node = Node::new(&etcd).config(yaml);
        let ran = node.run_server();
        ran.fails(Code::InvalidConfiguration, facts);
        assert!(!node.data_dir.exists(), "{yaml:?} touched {:?}", node.files());
    }
}

#[test]
fn each_bad_flag_is_refused_and_nothing_is_touched() {
    let _timed = Timed::start();
    let etcd = Etcd::usual();
    let same_port = |node: &Node| format!("--etcd-peer-port={}", node.ports.client());
    let invalid = Code::InvalidConfiguration;
    for (flag, code, facts) in [
        ("--node-name=No.Label", invalid, &["--node-name", "DNS label"][..]),
        ("--node-ip=192.0.2.77", invalid, &["--node-ip", "192.0.2.77", "127.0.0.1"]),
        ("--node-ip=300.1.1.1", invalid, &["--node-ip", "300.1.1.1"]),
        ("--no-such-flag", Code::Usage, &["'--no-such-flag'"]),
        ("--etcd-quota-backend-bytes=lots", invalid, &["--etcd-quota-backend-bytes", "lots"]),
        ("--etcd-election-timeout=200", invalid, &["`etcd-election-timeout`", "`etcd-heartbeat-interval`"]),
        ("same port", invalid, &["`etcd-client-port`", "`etcd-peer-port`"]),
        ("--config=/does/not/exist.yaml", invalid, &["--config", "/does/not/exist.yaml"]),
    ] {
        let mut node = Node::new(&etcd);
        let flag = if flag == "same port" { same_port(&node) } else { flag.to_owned() };
        let ran = if flag.starts_with("--config") {
            // Given once only: the kit's own --config is left out.
            let output =
                Command::new(&node.executable).args(["server", &flag, "--data-dir"]).arg(&node.data_dir).output();
            crate::kit::Ran::of(&output.unwrap())
        } else {
            node.args.push(flag.clone());
            node.run_server()
        };
        ran.fails(code, facts);
        assert!(!node.data_dir.exists(), "{flag} touched {:?}", node.files());
    }
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let _timed = Timed::start();
    let node = Node::new(&Etcd::usual());
    fs::write(node.config_path(), b"node-name: a\ntls-san: \xff\xfe\n").unwrap();
    node.run_server().fails(Code::InvalidConfiguration, &["config.yaml", "line 2", "UTF-8"]);
    fs::write(node.config_path(), vec![b'#'; (1 << 20) + 1]).unwrap();
    node.run_server().fails(Code::InvalidConfiguration, &["1 MiB"]);
    fs::remove_file(node.config_path()).unwrap();
    fs::create_dir(node.config_path()).unwrap();
    node.run_server().fails(Code::InvalidConfiguration, &["regular file"]);
    assert!(!node.data_dir.exists());
}

#[test]
fn all_problems_of_all_sources_come_at_once() {
    let _timed = Timed::start();
    let node = Node::new(&Etcd::usual())
        .config("node-nam: x\netcd-peer-port: 0\n")
        .arg("--tls-san=not ok")
        .env("QUORATE_LOG_FORMAT", "xml");
    let drop_ins = node.dir.path().join("config.yaml.d");
    fs::create_dir(&drop_ins).unwrap();
    fs::write(drop_ins.join("20-b.yaml"), "debug: perhaps\n").unwrap();
    fs::write(drop_ins.join("10-a.yml"), "unknown-thing: 1\n").unwrap();
    fs::write(drop_ins.join("ignored.txt"), "nonsense").unwrap();
    let ran = node.run_server();
    ran.fails(
        Code::InvalidConfiguration,
        &[
            "config.yaml:1",
            "config.yaml:2",
            "10-a.yml:1",
            "20-b.yaml:1",
            "QUORATE_LOG_FORMAT",
            "`log-format`",
            "`xml`",
            "--tls-san",
        ],
    );
}

#[test]
fn sources_win_in_the_right_order_and_are_shown() {
    let _timed = Timed::start();
    let node = Node::new(&Etcd::usual())
        .config("debug: yes\nlog-format: json\netcd-quota-backend-bytes: 1GiB\ntls-san: [a.example, b.example]\n")
        .env("QUORATE_LOG_FORMAT", "text")
        .env("QUORATE_ETCD_QUOTA_BACKEND_BYTES", "2GiB")
        .env("QUORATE_ETCD_ARG", "max-txn-ops=256 snapshot-count=5000")
        .env("QUORATE_TOKEN", "")
        .arg("--etcd-quota-backend-bytes=3GiB")
        .arg("--print-config");
    let drop_ins = node.dir.path().join("config.yaml.d");
    fs::create_dir(&drop_ins).unwrap();
    fs::write(drop_ins.join("10.yaml"), "tls-san+: c.example\n").unwrap();
    let ran = node.run_server();
    let shown = ran.succeeds().to_owned();
    for line in [
        "debug: yes  # ",
        "log-format: text  # environment QUORATE_LOG_FORMAT",
        "etcd-quota-backend-bytes: 3GiB  # command line --etcd-quota-backend-bytes",
        "tls-san: [a.example, b.example, c.example]  # ",
        "etcd-arg: [max-txn-ops=256, snapshot-count=5000]  # environment QUORATE_ETCD_ARG",
        "token: ~  # not set",
        "etcd-expose-metrics: false  # default",
        "node-name: node  # command line --node-name",
    ] {
        assert!(shown.lines().any(|shown| shown.starts_with(line)), "no line `{line}` in\n{shown}");
    }
    assert!(shown.contains("10.yaml:1"));
    assert!(!node.data_dir.exists());
    // What is shown is itself a configuration.
    fs::remove_dir_all(drop_ins).unwrap();
    let again = Node::new(&Etcd::usual()).config(&shown);
    let output =
        Command::new(&again.executable).args(["server", "--print-config", "-c"]).arg(again.config_path()).output();
    let again = crate::kit::Ran::of(&output.unwrap());
    assert!(again.succeeds().contains("etcd-quota-backend-bytes: 3GiB"));
}

#[test]
fn secrets_appear_nowhere() {
    let _timed = Timed::start();
    const SECRET: &str = "hunter2-and-more";
    for by_environment in [false, true] {
        let mut node = Node::new(&Etcd::usual()).arg("--debug");
        if by_environment {
            node.env.push(("QUORATE_TOKEN".into(), SECRET.into()));
        } else {
            node.args.push("--token".into());
            node.args.push(SECRET.into());
        }
        node.start_ready();
        let pid = node.launcher_pid();
        for file in ["cmdline", "environ"] {
            for pid in [pid, node.child_pid().unwrap()] {
                let shown = fs::read(format!("/proc/{pid}/{file}")).unwrap();
                assert!(!String::from_utf8_lossy(&shown).contains(SECRET), "{file} of {pid} shows the token");
            }
        }
        let cmdline = fs::read(format!("/proc/{pid}/cmdline")).unwrap();
        assert!(String::from_utf8_lossy(&cmdline).contains("--node-name=node"), "only secrets are masked");
        assert!(!node.log().contains(SECRET));
        let token = fs::read_to_string(node.server_dir().join("token")).unwrap();
        assert!(token.starts_with("K10") && token.trim().ends_with(&format!("::server:{SECRET}")));
        // Bugs B11: a reload does not read the asterisks that took its place.
        node.signal(Signal::SIGHUP);
        node.wait_event("reload-ended", &[]);
        assert!(!node.has_event("setting-pending") && !node.has_event("setting-changed"), "{}", node.log());
        node.args.push("--print-config".into());
        let shown = node.run_server();
        assert!(shown.succeeds().contains("token: '***'"), "{}", shown.out);
        assert!(!shown.out.contains(SECRET) && !shown.err.contains(SECRET));
        node.args.pop();
        node.stop();
    }
}

#[test]
fn another_clusters_token_is_refused() {
    let _timed = Timed::start();
    let mut node = Node::new(&Etcd::usual());
    node.start_ready();
    node.stop();
    let token = fs::read_to_string(node.server_dir().join("token")).unwrap();
    let file = node.dir.path().join("token");
    fs::write(&file, &token).unwrap();
    node.args.push(format!("--token-file={}", file.display()));
    node.start_ready();
    node.stop();
    fs::write(&file, "another\n").unwrap();
    node.run_server().fails(Code::WrongToken, &["server/token"]);
    fs::write(&file, "K10abc::server:x\n").unwrap();
    node.run_server().fails(Code::InvalidConfiguration, &["K10"]);
    assert_eq!(fs::read_to_string(node.server_dir().join("token")).unwrap(), token);
}

/// Bugs W6.
#[test]
fn a_token_of_k3s_is_refused_before_anything_is_made_of_it() {
    let _timed = Timed::start();
    let mut node = Node::new(&Etcd::usual());
    let token = format!("K10{}::server:the-password", "5f".repeat(32));
    node.args.push(format!("--token={token}"));
    node.run_server().fails(Code::ForeignToken, &["k3s", "`::server:`"]);
    assert!(!node.server_dir().join("tls/etcd/server-ca.crt").exists() && !node.server_dir().join("token").exists());
    node.args.pop();
    node.args.push("--token=the-password".into());
    node.start_ready();
    node.stop();
    node.args.pop();
    node.args.push(format!("--token={token}"));
    node.run_server().fails(Code::WrongToken, &[]);
}

#[test]
fn a_token_file_is_read_whole_or_refused_and_shown_nowhere() {
    let _timed = Timed::start();
    let mut node = Node::new(&Etcd::usual()).arg("--debug");
    let file = node.dir.path().join("token");
    fs::write(&file, "x".repeat(4097)).unwrap();
    node.args.push(format!("--token-file={}", file.display()));
    node.run_server().fails(Code::InvalidConfiguration, &["4096"]);
    assert!(!node.data_dir.exists());
    const SECRET: &str = "hunter3-from-a-file";
    fs::write(&file, format!("{SECRET}\n")).unwrap();
    node.start_ready();
    for pid in [node.launcher_pid(), node.child_pid().unwrap()] {
        for shown in ["cmdline", "environ"] {
            let shown = fs::read(format!("/proc/{pid}/{shown}")).unwrap();
            assert!(!String::from_utf8_lossy(&shown).contains(SECRET));
        }
    }
    node.stop();
    assert!(!node.log().contains(SECRET));
    assert!(fs::read_to_string(node.server_dir().join("token")).unwrap().trim().ends_with(SECRET));
}

#[test]
fn a_bad_configuration_leaves_existing_data_as_it_is() {
    let _timed = Timed::start();
    let mut node = Node::new(&Etcd::usual());
    node.start_ready();
    node.etcdctl(&["put", "a", "1"]);
    node.stop();
    let look = || node.files_with_times();
    let before = look();
    for bad in ["--etcd-client-port=0", "--etcd-arg=no-such=1", "--etcd-arg=name=x", "--tls-san=not ok"] {
        let mut command = node.server_command();
        assert_eq!(command.arg(bad).output().unwrap().status.code(), Some(2), "{bad}");
        assert_eq!(look(), before, "{bad}");
    }
    node.start_ready();
    assert_eq!(node.etcdctl(&["get", "a", "--print-value-only"]), "1\n");
    node.stop();
}

#[test]
fn a_path_that_is_no_text_is_refused() {
    use std::os::unix::ffi::OsStringExt as _;
    let _timed = Timed::start();
    let node = Node::new(&Etcd::usual());
    let dir = node.dir.path().join(std::ffi::OsString::from_vec(b"bad-\xff".to_vec()));
    fs::create_dir(&dir).unwrap();
    let mut command = Command::new(&node.executable);
    let output = command.current_dir(&dir).args(["server", "--data-dir=d", "--node-ip=127.0.0.1"]).output().unwrap();
    crate::kit::Ran::of(&output).fails(Code::InvalidConfiguration, &["`data-dir`", "UTF-8"]);
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
}

#[test]
fn a_misspelt_variable_is_pointed_out() {
    let _timed = Timed::start();
    let node = Node::new(&Etcd::usual()).env("QUORATE_DATADIR", "/x").arg("--print-config");
    let ran = node.run_server();
    ran.succeeds();
    assert!(ran.err.contains("QUORATE_DATADIR") && ran.err.contains("QUORATE_DATA_DIR?"), "{}", ran.err);
}

#[test]
fn a_configuration_may_come_through_a_pipe() {
    let _timed = Timed::start();
    let node = Node::new(&Etcd::usual());
    let run = |script: &str| {
        let mut command = Command::new("bash");
        command.args(["-c", script, "bash"]).arg(&node.executable).arg(&node.data_dir);
        crate::kit::Ran::of(&command.output().unwrap())
    };
    const PRINT: &str = "server --print-config --node-name=n --node-ip=127.0.0.1 --data-dir \"$2\"";
    let ran = run(&format!("\"$1\" {PRINT} --config <(echo 'etcd-snapshot-retention: 7')"));
    assert!(ran.succeeds().contains("etcd-snapshot-retention: 7  # /dev/fd/"), "{}", ran.out);
    run(&format!("\"$1\" {PRINT} --config <(exit 1)")).fails(Code::InvalidConfiguration, &["pipe"]);
    run(&format!("\"$1\" {PRINT} --config <(echo 'nonsense: 1')"))
        .fails(Code::InvalidConfiguration, &[":1", "`nonsense`"]);
    run(&format!("\"$1\" {PRINT} --config /dev/null")).succeeds();
}

/// Attack 11.
#[test]
fn a_secret_that_others_can_read_is_pointed_out() {
    use std::os::unix::fs::PermissionsExt as _;
    let _timed = Timed::start();
    let node =
        Node::new(&Etcd::usual()).config("etcd-s3-secret-key: hunter2\netcd-s3-access-key: a\n").arg("--print-config");
    let warned = |mode: u32| {
        fs::set_permissions(node.config_path(), fs::Permissions::from_mode(mode)).unwrap();
        let ran = node.run_server();
        assert!(ran.succeeds().contains("etcd-s3-secret-key: '***'"));
        let next = format!("chmod 600 {}", node.config_path().display());
        ran.err.contains("etcd-s3-secret-key") && ran.err.contains(&next)
    };
    assert!(warned(0o644) && warned(0o604) && !warned(0o600) && !warned(0o700));
    fs::write(node.config_path(), "debug: false\n").unwrap();
    fs::set_permissions(node.config_path(), fs::Permissions::from_mode(0o644)).unwrap();
    let ran = node.run_server();
    ran.succeeds();
    assert!(!ran.err.contains("chmod"), "without a secret all users may read it: {}", ran.err);
}

#[test]
fn the_data_directory_of_k3s_is_left_alone() {
    let _timed = Timed::start();
    let node = Node::new(&Etcd::usual());
    fs::create_dir_all(node.data_dir.join("server/cred")).unwrap();
    let before = node.files();
    node.run_server().fails(Code::InvalidConfiguration, &["--data-dir", "k3s", "RKE2"]);
    assert_eq!(node.files(), before);
    node.quorate(&["etcd-snapshot", "ls"]).succeeds();
}

#[test]
fn a_time_zone_that_does_not_exist_is_pointed_out() {
    let _timed = Timed::start();
    let node = Node::new(&Etcd::usual()).env("TZ", "No/Where").arg("--print-config");
    let ran = node.run_server();
    ran.succeeds();
    assert!(ran.err.contains("environment TZ: ") && ran.err.contains("`No/Where`"), "{}", ran.err);
}

#[test]
fn the_file_can_be_named_by_a_variable_and_must_then_exist() {
    let _timed = Timed::start();
    let node = Node::new(&Etcd::usual()).config("etcd-quota-backend-bytes: 5GiB\n");
    let print = |path: &std::path::Path| {
        let mut command = Command::new(&node.executable);
        command.args(["server", "--print-config", "--node-name=n", "--node-ip=127.0.0.1"]).env("QUORATE_CONFIG", path);
        crate::kit::Ran::of(&command.output().unwrap())
    };
    assert!(print(&node.config_path()).succeeds().contains("etcd-quota-backend-bytes: 5GiB  # "));
    print(&node.dir.path().join("missing")).fails(Code::InvalidConfiguration, &["QUORATE_CONFIG"]);
}
