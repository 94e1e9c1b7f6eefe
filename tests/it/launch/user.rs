//! etcd as a user of its own.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use quorate::error::Code;

use crate::kit::{self, Etcd, Node, Timed, embedded_executable, eventually};

/// Debian has it since ever, for exactly this: a user that owns nothing else.
const USER: &str = "nobody";

fn ids() -> Option<(u32, u32)> {
    if !nix::unistd::geteuid().is_root() {
        kit::skip("running etcd as another user needs root");
        return None;
    }
    let user = nix::unistd::User::from_name(USER).unwrap().unwrap();
    Some((user.uid.as_raw(), user.gid.as_raw()))
}

/// A node whose directory others may pass through, as /var/lib is.
fn node(etcd: &Etcd) -> Node {
    use std::os::unix::fs::PermissionsExt as _;
    let node = Node::new(etcd);
    fs::set_permissions(node.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    node
}

fn uids_of(pid: i32) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    status.lines().filter(|line| ["Uid:", "Gid:", "Groups:"].iter().any(|name| line.starts_with(name))).collect()
}

#[test]
fn it_owns_its_data_and_reads_nothing_else() {
    let _timed = Timed::start();
    let Some((uid, gid)) = ids() else { return };
    // A data directory from before, when etcd ran as root.
    let mut node = node(&Etcd::usual());
    node.start_ready();
    node.etcdctl(&["put", "a", "1"]);
    node.stop();
    node.args.push(format!("--etcd-user={USER}"));
    node.env.push(("QUORATE_TEST_CERTIFICATE_MS".into(), "100".into()));
    node.start_ready();
    assert!(node.has_event("owner-changed"));
    assert_eq!(node.etcdctl(&["get", "a", "--print-value-only"]), "1\n");
    let shown = uids_of(node.child_pid().unwrap());
    assert!(shown.contains(&format!("Uid:\t{uid}\t{uid}\t{uid}\t{uid}")), "{shown}");
    assert!(shown.contains(&format!("Gid:\t{gid}\t{gid}\t{gid}\t{gid}")), "{shown}");
    for path in kit::files_under(&node.etcd_dir().join("member")) {
        assert_eq!(fs::symlink_metadata(&path).unwrap().uid(), uid, "{}", path.display());
    }
    // Of what quorate keeps, etcd's user can read its two leaves and the CAs' certificates.
    let mut readable = Vec::new();
    for path in kit::files_under(&node.server_dir()) {
        let mut command = std::process::Command::new("head");
        std::os::unix::process::CommandExt::uid(&mut command, uid);
        std::os::unix::process::CommandExt::gid(&mut command, gid);
        if path.is_file()
            && !path.starts_with(node.etcd_dir())
            && command.arg("-c1").arg(&path).output().unwrap().status.success()
        {
            readable.push(path.file_name().unwrap().to_string_lossy().into_owned());
        }
    }
    readable.sort();
    let expected =
        ["peer-ca.crt", "peer-server-client.crt", "peer-server-client.key", "server-ca.crt", "server-client.crt"];
    assert_eq!(readable, [&expected[..], &["server-client.key"]].concat());

    // A renewal while running keeps it readable.
    let certificate = node.server_dir().join("tls/etcd/server-client.crt");
    fs::write(&certificate, "-----BEGIN CERT").unwrap();
    node.wait_event("certificate-renewed", &[]);
    assert_eq!(fs::metadata(&certificate).unwrap().gid(), gid);
    node.etcdctl(&["put", "after", "renewal"]);
    // Killed with -9, it is recognised and replaced although it is another user's.
    node.kill_launcher();
    node.start_ready();
    assert_eq!(kit::etcds_on(&node.etcd_dir()).len(), 1);
    node.stop();

    // Without the option the data is a stranger's: no data changes its owner without it.
    node.args.clear();
    node.run_server().fails(Code::WrongOwner, &[&uid.to_string(), "etcd-user", "chown -R 0"]);
}

#[test]
fn a_first_start_as_a_user_works_and_runs_from_memory_too() {
    let _timed = Timed::start();
    if ids().is_none() {
        return;
    }
    let mut node = node(&Etcd::usual());
    node.args.push(format!("--etcd-user={USER}"));
    node.start_ready();
    node.stop();
    let Some(executable) = embedded_executable() else { return };
    let mut node = Node::with_binary(None).arg(&format!("--etcd-user={USER}"));
    node.executable = executable;
    std::fs::set_permissions(node.dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    node.data_dir = node.dir.path().join("noexec");
    let Some(_mount) = kit::Mount::tmpfs(&node.data_dir, "size=400m,noexec,mode=700") else { return };
    node.start_ready();
    assert_eq!(node.etcdctl(&["put", "a", "1"]), "OK\n");
    eventually("etcdctl not to be unpacked", || (!node.data_dir.join("data").exists()).then_some(()));
    node.stop();
}

#[test]
fn what_keeps_it_from_running_is_named() {
    use std::os::unix::fs::PermissionsExt as _;
    let _timed = Timed::start();
    if ids().is_none() {
        return;
    }
    let mut node = node(&Etcd::usual()).arg("--etcd-user=no-such-user");
    node.run_server().fails(Code::InvalidConfiguration, &["no-such-user", "useradd --system"]);
    assert!(!node.data_dir.exists());
    node.args = vec![format!("--etcd-user={USER}")];
    fs::set_permissions(node.dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
    node.run_server().fails(Code::NotTraversable, &[&node.dir.path().display().to_string(), "chmod o+x"]);
    fs::set_permissions(node.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let closed = node.dir.path().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    fs::copy(Etcd::usual().binary(), closed.join("etcd")).unwrap();
    node.etcd = Some(closed.join("etcd"));
    node.run_server().fails(Code::EtcdNotRunnable, &["nobody", "Permission denied", "namei -l"]);
    assert!(!node.etcd_dir().exists());
}

/// Whatever etcd's user, or another one, puts in the way.
#[test]
fn root_is_not_led_astray_by_others() {
    use std::os::unix::fs::PermissionsExt as _;
    let _timed = Timed::start();
    let Some((uid, gid)) = ids() else { return };
    let mut node = node(&Etcd::usual());
    node.args.push(format!("--etcd-user={USER}"));
    node.start_ready();
    node.etcdctl(&["put", "a", "1"]);
    let member = node.status_json()["member"]["name"].clone();
    node.stop();
    // A pipe without a writer, and a link to what has no end.
    let (config, name) = (node.etcd_dir().join("config"), node.etcd_dir().join("name"));
    fs::remove_file(&config).unwrap();
    fs::remove_file(&name).unwrap();
    nix::unistd::mkfifo(&config, nix::sys::stat::Mode::S_IRWXU).unwrap();
    std::os::unix::fs::symlink("/dev/zero", &name).unwrap();
    for path in [&config, &name] {
        std::os::unix::fs::lchown(path, Some(uid), Some(gid)).unwrap();
    }
    node.start_ready();
    assert_eq!(node.status_json()["member"]["name"], member);
    assert!(fs::symlink_metadata(&name).unwrap().is_file() && fs::symlink_metadata(&config).unwrap().is_file());
    node.stop();
    // Files of root's in the user's data are named, not run into.
    let bolt = node.etcd_dir().join("member/snap/db");
    std::os::unix::fs::chown(&bolt, Some(0), Some(0)).unwrap();
    node.run_server().fails(Code::WrongOwner, &[&format!("chown -R {uid}")]);
    std::os::unix::fs::chown(&bolt, Some(uid), Some(gid)).unwrap();
    // A data directory that others may change could lead anywhere.
    fs::set_permissions(&node.data_dir, fs::Permissions::from_mode(0o777)).unwrap();
    node.run_server().fails(Code::UntrustedPath, &["chmod go-w"]);
    fs::set_permissions(&node.data_dir, fs::Permissions::from_mode(0o755)).unwrap();
    std::os::unix::fs::chown(&node.data_dir, Some(uid), None).unwrap();
    node.run_server().fails(Code::WrongOwner, &[&uid.to_string()]);
}

#[test]
fn a_file_that_cannot_be_handed_over_stops_the_start_and_the_next_one_works() {
    let _timed = Timed::start();
    if ids().is_none() {
        return;
    }
    let mut node = node(&Etcd::usual());
    node.start_ready();
    node.etcdctl(&["put", "a", "1"]);
    node.stop();
    node.args.push(format!("--etcd-user={USER}"));
    node.env.push(("FAILPOINTS".into(), "durable::chown=return(eio)".into()));
    let ran = node.run_server();
    ran.fails(Code::WriteFailed, &[node.data_dir.to_str().unwrap()]);
    node.env.clear();
    node.start_ready();
    assert_eq!(node.etcdctl(&["get", "a", "--print-value-only"]), "1\n");
    node.stop();
}
