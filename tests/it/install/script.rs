//! `packaging/install.sh` and `uninstall.sh` where there is no systemd, and where things go wrong.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use crate::install::machine::Tree;
use crate::kit::{Mount, Timed};

const UNPACK: &str = "cd /root && tar -xzf /dist/quorate-*.tar.gz && cd quorate-*";

/// What an installation leaves, where there was none: files, directories, and the system user.
const UNTOUCHED: &str =
    "find /etc/quorate /opt/quorate /usr/local/bin -mindepth 1; ls -d /etc/quorate /opt/quorate; getent passwd quorate";

#[test]
fn without_systemd_it_installs_and_says_how_to_start() {
    let _timed = Timed::start();
    let Some(tree) = Tree::new() else { return };
    let first = tree.run(&format!("{UNPACK} && QUORATE_TOKEN=it\\'s-\\$3same QUORATE_DATA_DIR=/srv/q QUORATE_LOG=info QUORATE_ETCD_ARG='max-txn-ops=200 snapshot-count=7000' ./install.sh"));
    first.succeeds();
    for fact in ["/usr/local/bin/quorate", "systemd"] {
        assert!(first.err.contains(fact), "{}", first.err);
    }
    tree.run("getent passwd quorate").succeeds();
    assert!(!first.err.contains("3same"), "{}", first.err);
    assert!(first.err.lines().count() <= 6, "a summary, not each manual page: {}", first.err);
    // Nothing that may hold a secret is readable by others, and nothing else holds one.
    let shown = tree.run("stat -c '%a %n' $(find /etc/quorate -type f | sort) /usr/local/bin/quorate; grep -rls s-.3same /etc /usr/local");
    assert_eq!(
        shown.out,
        "600 /etc/quorate/config.yaml\n600 /etc/quorate/config.yaml.d/90-install.yaml\n600 /etc/quorate/server.env\n\
         755 /usr/local/bin/quorate\n/etc/quorate/config.yaml.d/90-install.yaml\n"
    );
    let kept = std::fs::read_to_string(tree.root().join("etc/quorate/server.env")).unwrap();
    assert_eq!(kept, "QUORATE_LOG=\"info\"\n");
    // Every command knows what was given, not only the service.
    let shown = tree.run("quorate server --node-ip=127.0.0.1 --print-config");
    for line in ["data-dir: /srv/q  # ", "etcd-arg: [max-txn-ops=200, snapshot-count=7000]  # ", "token: '***'"] {
        assert!(shown.succeeds().contains(line), "{}", shown.out);
    }
    assert!(tree.run("quorate version").succeeds().contains("etcd 3."));
    tree.run("test -f /usr/local/share/man/man1/quorate-server.1").succeeds();

    let installed = "stat -c '%i %Y %n' /usr/local/bin/quorate $(find /etc/quorate -type f | sort)";
    let before = tree.run(installed).out;
    tree.run("cd /root/quorate-* && ./install.sh").succeeds();
    assert_eq!(tree.run(installed).out, before, "nothing has changed");
    // What was given before is not forgotten.
    tree.run("cd /root/quorate-* && QUORATE_LOG_FORMAT=json ./install.sh").succeeds();
    let shown = tree.run("quorate server --node-ip=127.0.0.1 --print-config");
    for line in ["data-dir: /srv/q  # ", "log-format: json  # ", "token: '***'"] {
        assert!(shown.succeeds().contains(line), "{}", shown.out);
    }
    // A configuration of the operator's is never touched.
    tree.run("echo '# mine' >>/etc/quorate/config.yaml").succeeds();
    tree.run("cd /root/quorate-* && ./install.sh").succeeds();
    assert!(tree.run("tail -n 1 /etc/quorate/config.yaml").out.contains("# mine"));

    tree.run("quorate-uninstall.sh --keep").succeeds();
    tree.run("test -f /etc/quorate/config.yaml").succeeds();
    assert_eq!(tree.run("find /usr/local -name '*quorate*'").out, "");
}

#[test]
fn what_goes_wrong_is_said_and_nothing_is_installed() {
    let _timed = Timed::start();
    let Some(tree) = Tree::new() else { return };
    tree.run(UNPACK).succeeds();
    let install = |before: &str| tree.run(&format!("cd /root/quorate-* && {before} ./install.sh"));
    for (settings, code, facts) in [
        ("INSTALL_QUORATE_EXEC='--token=abc'", 2, &["QUORATE_TOKEN_FILE"][..]),
        ("INSTALL_QUORATE_SKIP_STRAT=true", 2, &["INSTALL_QUORATE_SKIP_STRAT"]),
        ("INSTALL_QUORATE_SKIP_START=maybe", 2, &["`maybe`"]),
        ("INSTALL_QUORATE_BIN_DIR=relative", 2, &["INSTALL_QUORATE_BIN_DIR"]),
        ("INSTALL_QUORATE_EXEC='x;touch /tmp/pwn;#'", 2, &["INSTALL_QUORATE_EXEC"]),
        ("INSTALL_QUORATE_EXEC='a|b&c'", 2, &["INSTALL_QUORATE_EXEC"]),
        ("QUORATE_NEW_CLUSTER=true", 2, &["QUORATE_NEW_CLUSTER"]),
        ("QUORATE_CONFIG=/srv/c.yaml", 2, &["QUORATE_CONFIG"]),
        ("QUORATE_FOO=1", 2, &["`foo`"]),
        ("QUORATE_ETCD_CLIENT_PORT=443", 2, &["443"]),
        ("INSTALL_QUORATE_ARTIFACT=/missing", 5, &["/missing"]),
        ("INSTALL_QUORATE_ARTIFACT=/etc/passwd", 1, &["/etc/passwd"]),
        ("INSTALL_QUORATE_ARTIFACT=http://127.0.0.1/x.tar.gz", 2, &["http://127.0.0.1/x.tar.gz"]),
        // Nothing listens there: as good as no network.
        ("INSTALL_QUORATE_ARTIFACT=https://127.0.0.1:1/x.tar.gz", 1, &["https://127.0.0.1:1/x.tar.gz", "next:"]),
        ("INSTALL_QUORATE_SHA256=0000 INSTALL_QUORATE_ARTIFACT=$(echo /dist/*.tar.gz)", 1, &["0000"]),
    ] {
        install(settings).exits(code, facts);
        assert_eq!(tree.run(UNTOUCHED).out, "", "{settings}");
    }
    tree.run("cd /root/quorate-* && ./install.sh --data-dir=/srv").exits(2, &["`--data-dir=/srv`"]);
    // A download is checked against the list next to it; a list that does not fit is no success.
    let address = "INSTALL_QUORATE_ARTIFACT=file://$(echo /dist/*.tar.gz)";
    // `t` ends the line's script after a replacement, so that the first digit always becomes another one.
    tree.run("cp /dist/SHA256SUMS /dist/kept && sed -i 's/^0/1/;t;s/^./0/' /dist/SHA256SUMS").succeeds();
    install(address).exits(1, &["quorate-", ".tar.gz"]);
    tree.run("rm /dist/SHA256SUMS").succeeds();
    install(address).exits(1, &["/dist/quorate-"]);
    assert_eq!(tree.run(UNTOUCHED).out, "");
    // Cut off on its way, it does nothing.
    let cut = tree.run("cd /root/quorate-* && head -c 11000 install.sh | sh");
    assert_ne!(cut.code, Some(0));
    assert_eq!(tree.run(UNTOUCHED).out, "");
    tree.run("mv /dist/kept /dist/SHA256SUMS").succeeds();
    install(address).succeeds();
    tree.run("quorate-uninstall.sh --sure").exits(2, &["--sure"]);
    tree.run("quorate-uninstall.sh --keep --purge").exits(2, &["--keep", "--purge"]);
}

#[test]
fn a_read_only_bin_dir_is_named_or_avoided() {
    let _timed = Timed::start();
    let Some(tree) = Tree::new() else { return };
    tree.run(UNPACK).succeeds();
    let Some(mount) = Mount::tmpfs(&tree.root().join("usr/local/bin"), "ro") else { return };
    let refused = tree.run("cd /root/quorate-* && INSTALL_QUORATE_BIN_DIR=/usr/local/bin ./install.sh");
    refused.exits(1, &["/usr/local/bin", "next:"]);
    let avoided = tree.run("cd /root/quorate-* && ./install.sh");
    avoided.succeeds();
    assert!(avoided.err.contains("/opt/quorate/bin"), "{}", avoided.err);
    tree.run("/opt/quorate/bin/quorate version && grep -q '^ExecStart=/opt/quorate/bin/quorate server$' /etc/systemd/system/quorate-server.service").succeeds();
    tree.run("/opt/quorate/bin/quorate-uninstall.sh").succeeds();
    assert_eq!(tree.run("find /opt -name '*quorate?*'").out, "");
    drop(mount);
}

#[test]
fn uninstalling_removes_only_the_requested_data() {
    let _timed = Timed::start();
    let Some(tree) = Tree::new() else { return };
    tree.run(&format!("{UNPACK} && ./install.sh")).succeeds();
    let (data, payload) = ("/var/lib/quorate", "0".repeat(64));
    let fill = format!(
        "mkdir -p {data}/server/db/etcd/member {data}/server/db/snapshots {data}/server/tls {data}/data && \
         touch {data}/server/token {data}/server/cluster.json {data}/server/db/snapshots/one {data}/other && \
         mkdir {data}/data/photos {data}/data/{payload} && touch {data}/data/photos/one.jpg {data}/data/{payload}/etcd"
    );
    tree.run(&fill).succeeds();
    let left = || tree.run(&format!("cd {data} && find . -type f | sort")).out;
    // Without a terminal and silently, everything stays.
    let ran = tree.run("quorate-uninstall.sh");
    ran.succeeds();
    assert!(ran.err.contains("/var/lib/quorate"), "{}", ran.err);
    let unpacked = format!("./data/{payload}/etcd\n");
    let mine = "./data/photos/one.jpg\n./other\n";
    let rest = "./server/cluster.json\n./server/db/snapshots/one\n./server/token\n";
    assert_eq!(left(), format!("{unpacked}{mine}{rest}"));
    // With a configuration that cannot be read it is unknown where the data is.
    tree.run("cd /root/quorate-* && ./install.sh && echo 'nonsense: 1' >>/etc/quorate/config.yaml").succeeds();
    tree.run("quorate-uninstall.sh --yes").exits(4, &["QUORATE_DATA_DIR="]);
    assert_eq!(left(), format!("{unpacked}{mine}{rest}"));
    tree.run("sed -i '/nonsense/d' /etc/quorate/config.yaml").succeeds();

    tree.run("cd /root/quorate-* && ./install.sh").succeeds();
    let ran = tree.run("quorate-uninstall.sh --yes");
    ran.succeeds();
    assert_eq!(left(), format!("{mine}./server/db/snapshots/one\n./server/token\n"), "a stranger's files stay");

    // A data directory that only the configuration knows.
    tree.run("cd /root/quorate-* && ./install.sh && echo 'data-dir: /srv/else where' >>/etc/quorate/config.yaml")
        .succeeds();
    tree.run("mkdir -p '/srv/else where/server' && touch '/srv/else where/server/token'").succeeds();
    tree.run("quorate-uninstall.sh --purge --yes").succeeds();
    assert_eq!(tree.run("ls -A /srv; ls -d /etc/quorate; getent passwd quorate").out, "");
    assert_eq!(
        left(),
        format!("{mine}./server/db/snapshots/one\n./server/token\n"),
        "another directory than the one asked for"
    );
}

#[test]
fn the_scripts_and_the_unit_are_clean() {
    let _timed = Timed::start();
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    for script in ["install.sh", "uninstall.sh", "dist.sh"] {
        let path = root.join("packaging").join(script);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o111, 0o111, "{script} can be run");
        assert!(Command::new("sh").arg("-n").arg(path).status().unwrap().success());
    }
}
