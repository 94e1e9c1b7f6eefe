//! Who can read what quorate keeps to itself: files, and the environment of etcd.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::kit::events::lines_of;
use crate::kit::{Etcd, Node, Timed};

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Keys of S3, the password of a proxy, and settings that would change what etcd does: no etcd that quorate runs has them in its environment.
#[test]
fn etcd_gets_an_environment_that_is_made_from_nothing() {
    let _timed = Timed::start();
    let mut node = Node::new(&Etcd::usual());
    let (wrapper, seen) = (node.dir.path().join("etcd"), node.dir.path().join("seen"));
    let script = format!("#!/bin/sh\nenv >>{}\nexec {} \"$@\"\n", seen.display(), Etcd::usual().binary().display());
    fs::write(&wrapper, script).unwrap();
    chmod(&wrapper, 0o755);
    node.etcd = Some(wrapper);
    for name in [
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "HTTPS_PROXY",
        "https_proxy",
        "FORWARD_PROXY",
        "ETCD_FORCE_NEW_CLUSTER",
        "QUORATE_UNKNOWN",
        "SOMETHING_ELSE",
        "HOME",
    ] {
        node.env.push((name.into(), "http://u:SECRET@127.0.0.1:9".into()));
    }
    node.env.extend([("GOMAXPROCS".into(), "2".into()), ("TZ".into(), "UTC".into())]);
    node.start_ready();
    let environ = fs::read(format!("/proc/{}/environ", node.child_pid().unwrap())).unwrap();
    assert!(!String::from_utf8_lossy(&environ).contains("SECRET"));
    node.stop();
    // Asked for its version, asked about its arguments, run on a copy, run as a trial, and run.
    node.run_server_with(&["--cluster-reset"]).succeeds();
    let seen = fs::read_to_string(seen).unwrap();
    let names: BTreeSet<&str> = seen.lines().filter_map(|line| line.split('=').next()).collect();
    // What a shell makes itself.
    let by_shell = ["PWD", "OLDPWD", "SHLVL", "_"];
    let allowed = [
        "PATH",
        "TZ",
        "LANG",
        "GODEBUG",
        "GOGC",
        "GOMAXPROCS",
        "GOMEMLIMIT",
        "GOTRACEBACK",
        "SSL_CERT_DIR",
        "SSL_CERT_FILE",
    ];
    for name in &names {
        assert!(allowed.contains(name) || by_shell.contains(name), "{name} of {names:?}");
    }
    assert!(names.contains("GOMAXPROCS") && names.contains("TZ") && names.contains("PATH"), "{names:?}");
    assert!(seen.matches("GOMAXPROCS=2").count() >= 5, "{seen}");
}

/// Whatever lies in the server's directory and could be read by others is closed, and said.
#[test]
fn what_others_could_read_is_closed_and_named() {
    let _timed = Timed::start();
    let mut node = Node::new(&Etcd::usual());
    node.start_ready();
    node.quorate(&["etcd-snapshot", "save"]).succeeds();
    node.stop();
    let server = node.server_dir();
    fs::create_dir_all(server.join("cache")).unwrap();
    fs::write(server.join("token.bak"), "secret").unwrap();
    let snapshot = fs::read_dir(server.join("db/snapshots")).unwrap().flatten().map(|entry| entry.path());
    let snapshot = snapshot.filter(|path| path.is_file()).last().unwrap();
    let files = [
        server.join("token"),
        server.join("token.bak"),
        server.join("cluster.json"),
        server.join("tls/etcd/client.key"),
        server.join("tls/etcd/server-ca.key"),
        snapshot,
    ];
    let dirs =
        [server.clone(), server.join("tls"), server.join("db"), server.join("db/snapshots"), server.join("cache")];
    for path in &files {
        chmod(path, 0o644);
    }
    for path in &dirs {
        chmod(path, 0o777);
    }
    node.start_ready();
    let log = node.log();
    for path in files.iter().chain(&dirs) {
        let mode = fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode & 0o077, 0, "{} has {mode:o}", path.display());
        let field = format!("path={}", path.display());
        assert!(lines_of(&log, "access-closed").iter().any(|line| line.ends_with(&field)), "{field} in {log}");
    }
    node.stop();
}
