//! Faults of the machine: ports, disks, directories, power.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use quorate::error::Code;

use crate::kit::{self, Etcd, Mount, Node, Timed, etcds_on, eventually, fake_etcd};

#[test]
fn a_taken_port_is_named_with_its_option_and_holder() {
    let _timed = Timed::start();
    let node = Node::new(&Etcd::usual());
    let us = std::process::id().to_string();
    for (port, option) in [
        (node.ports.client(), "etcd-client-port"),
        (node.ports.peer(), "etcd-peer-port"),
        (node.ports.etcd_metrics(), "etcd-metrics-port"),
        (node.ports.metrics(), "metrics-port"),
    ] {
        let _taken = TcpListener::bind(("127.0.0.1", port)).unwrap();
        node.run_server().fails(Code::PortInUse, &[&format!("127.0.0.1:{port}"), option, &us]);
        assert!(!node.etcd_dir().exists(), "nothing was begun");
    }
}

/// As after `apt-get install etcd-server`, whose service sits on the port.
#[test]
fn an_etcd_on_the_port_is_taken_for_the_distributions_service() {
    let _timed = Timed::start();
    let etcd = Etcd::usual();
    let node = Node::new(&etcd);
    let dir = tempfile::tempdir().unwrap();
    let url = |port: u16| format!("http://127.0.0.1:{port}");
    let (client, peer) = (url(node.ports.client()), url(node.ports.peer()));
    let mut service = Command::new(etcd.binary())
        .arg(format!("--data-dir={}", dir.path().display()))
        .args(["--listen-client-urls", &client, "--advertise-client-urls", &client, "--listen-peer-urls", &peer])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    eventually("the service", || std::net::TcpStream::connect(("127.0.0.1", node.ports.client())).ok());
    let ran = node.run_server();
    service.kill().unwrap();
    service.wait().unwrap();
    ran.fails(Code::PortInUse, &[&service.id().to_string(), "(etcd)", "systemctl disable --now etcd"]);
}

#[test]
fn a_bad_binary_is_refused_and_nothing_is_touched() {
    let _timed = Timed::start();
    let mut node = Node::with_binary(None);
    let dir = node.dir.path().to_path_buf();
    let write = |name: &str, text: &str, mode: u32| {
        let path = dir.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    };
    let not_runnable = Code::EtcdNotRunnable;
    for (binary, code, facts) in [
        (dir.join("missing"), not_runnable, &["/missing", "No such file"][..]),
        (write("plain", "text", 0o644), not_runnable, &["/plain", "Permission denied"]),
        (write("garbage", "\u{1}\u{2}garbage", 0o755), not_runnable, &["/garbage", "because:"]),
        ("/bin/true".into(), not_runnable, &["/bin/true"]),
        (write("endless", "#!/bin/sh\nexec yes", 0o755), not_runnable, &["/endless", "`y`"]),
        (write("shy", "#!/bin/sh\nsleep 1000 & echo $! >$0.pid; wait", 0o755), not_runnable, &["/shy", " s"]),
        (fake_etcd(&dir, "3.3.25", "exit 1"), Code::EtcdUnsupported, &["3.3.25", "3.4", "3.7"]),
    ] {
        node.etcd = Some(binary);
        let ran = node.run_server();
        ran.fails(code, facts);
        ran.fails(code, &["--etcd-binary"]);
        assert!(!node.data_dir.exists(), "{:?}", node.files());
    }
    let left: i32 = fs::read_to_string(dir.join("shy.pid")).unwrap().trim().parse().unwrap();
    assert!(kit::eventually_gone(left), "what the silent one had started was left behind");
    node.etcd = Some(fake_etcd(&dir, "3.8.0", "exit 1"));
    node.run_server().fails(Code::EtcdUnsupported, &["3.8.0"]);
}

#[test]
fn a_lost_data_directory_never_becomes_an_empty_cluster() {
    let _timed = Timed::start();
    let mut node = Node::new(&Etcd::usual());
    node.start_ready();
    let cluster = node.status_json()["member"]["cluster_id"].as_str().unwrap().to_owned();
    node.etcdctl(&["put", "a", "1"]);
    node.stop();
    let kept = node.dir.path().join("kept");
    fs::rename(node.etcd_dir(), &kept).unwrap();
    node.run_server().fails(Code::DataLost, &[&cluster, "--new-cluster"]);
    assert!(!node.etcd_dir().exists());

    // A directory without a log is as lost as none.
    fs::create_dir_all(node.etcd_dir().join("member/snap")).unwrap();
    node.run_server().fails(Code::DataLost, &[]);
    fs::remove_dir_all(node.etcd_dir()).unwrap();
    // Nor is a link to a disk that is not mounted nothing.
    std::os::unix::fs::symlink("/does/not/exist", node.etcd_dir()).unwrap();
    node.run_server().fails(Code::DanglingLink, &["db/etcd", "mount"]);
    fs::remove_file(node.etcd_dir()).unwrap();

    // Brought back, it is as before.
    fs::rename(&kept, node.etcd_dir()).unwrap();
    node.start_ready();
    assert_eq!(node.etcdctl(&["get", "a", "--print-value-only"]), "1\n");
    node.stop();

    // On request it begins again, and remembers that it did; what was in the way is kept.
    fs::remove_dir_all(node.etcd_dir().join("member/wal")).unwrap();
    node.args.push("--new-cluster".into());
    node.start_ready();
    let status = node.status_json();
    assert_eq!(status["member"]["epoch"], 2);
    assert_ne!(status["member"]["cluster_id"], cluster.as_str());
    assert_eq!(node.etcdctl(&["get", "a", "--print-value-only"]), "");
    assert_eq!(node.retire().len(), 1);
    node.stop();
}

/// etcd that is ended in the first moments of a new cluster leaves a log without a single committed entry. Started again on
/// it, etcd (seen with 3.5) has no voter and waits for ever.
#[test]
fn a_first_start_interrupted_before_the_first_commit_is_repeated() {
    let _timed = Timed::start();
    let mut node = Node::new(&Etcd::usual());
    let wal = node.etcd_dir().join("member/wal");
    fs::create_dir_all(&wal).unwrap();
    fs::create_dir_all(node.etcd_dir().join("member/snap")).unwrap();
    // The records that etcd writes before the first entry: crc, metadata (a member and a cluster id), snapshot.
    let mut log = vec![
        0x04, 0, 0, 0, 0, 0, 0, 0x84, 0x08, 0x04, 0x10, 0, 0, 0, 0, 0, 0x1f, 0, 0, 0, 0, 0, 0, 0x81, 0x08, 0x01, 0x10,
        0x9f, 0xa7, 0xc7, 0xca, 0x0a, 0x1a, 0x15, 0x08, 0xb3, 0xff, 0x8a, 0xf0, 0xee, 0xe7, 0xe7, 0x81, 0x82, 0x01,
        0x10, 0xb1, 0xd7, 0xed, 0xda, 0xa4, 0xea, 0x95, 0xfb, 0x20, 0, 0x0d, 0, 0, 0, 0, 0, 0, 0x83, 0x08, 0x05, 0x10,
        0xf5, 0xe2, 0x87, 0x51, 0x1a, 0x04, 0x08, 0, 0x10, 0, 0, 0, 0,
    ];
    log.resize(64_000_000, 0);
    fs::write(wal.join("0000000000000000-0000000000000000.wal"), log).unwrap();
    node.start_ready();
    assert!(node.has_event("first-start-interrupted"));
    assert_eq!(node.etcdctl(&["put", "a", "1"]), "OK\n");
    let kept = node.retire();
    assert_eq!(kept.len(), 1, "its remains are kept, whatever they are");
    assert!(kept[0].join("member/wal/0000000000000000-0000000000000000.wal").exists());
    node.stop();
    node.start_ready();
    assert_eq!(node.etcdctl(&["get", "a", "--print-value-only"]), "1\n");
    node.stop();
}

/// Without `cluster.json`, too: what a start sees must be no cluster at all before it begins one.
#[test]
fn data_that_cannot_be_resumed_never_becomes_an_empty_cluster() {
    let _timed = Timed::start();
    let mut node = Node::new(&Etcd::usual());
    node.start_ready();
    node.etcdctl(&["put", "a", "1"]);
    node.stop();
    let record = node.server_dir().join("cluster.json");
    let remembered = fs::read(&record).unwrap();
    fs::remove_file(&record).unwrap();
    let wal = node.etcd_dir().join("member/wal");
    let segment = wal.join("0000000000000000-0000000000000000.wal");
    let log = fs::read(&segment).unwrap();
    let facts = &["--new-cluster", "etcd-old-"];
    for broken in [vec![0; log.len()], Vec::new()] {
        fs::write(&segment, broken).unwrap();
        node.run_server().fails(Code::DataIncomplete, facts);
    }
    fs::remove_file(&segment).unwrap();
    node.run_server().fails(Code::DataIncomplete, facts);
    // Cut off before its first commit: the database shows that there was more.
    fs::write(&segment, &log[..120]).unwrap();
    node.run_server().fails(Code::DataIncomplete, facts);
    fs::remove_dir_all(&wal).unwrap();
    // What cannot be read is not gone.
    std::os::unix::fs::symlink("wal", &wal).unwrap();
    node.run_server().fails(Code::WriteFailed, &["member/wal"]);
    fs::remove_file(&wal).unwrap();
    fs::create_dir(&wal).unwrap();
    fs::write(&segment, log).unwrap();

    // The data of another member, with the cluster record of this server.
    fs::write(&record, &remembered).unwrap();
    let name = fs::read_to_string(node.etcd_dir().join("name")).unwrap();
    fs::write(node.etcd_dir().join("name"), "another-1234").unwrap();
    node.run_server().fails(Code::MemberMismatch, &["another-1234", &name]);
    fs::write(node.etcd_dir().join("name"), name).unwrap();
    node.start_ready();
    assert_eq!(node.etcdctl(&["get", "a", "--print-value-only"]), "1\n");
    node.stop();
    assert_eq!(node.retire().len(), 0);
}

#[test]
fn an_interrupted_new_cluster_is_continued_and_counted_once() {
    let _timed = Timed::start();
    let mut node = Node::new(&Etcd::usual());
    node.start_ready();
    node.stop();
    fs::remove_dir_all(node.etcd_dir()).unwrap();
    node.args.push("--new-cluster".into());
    node.env = vec![("FAILPOINTS".into(), "server::before_spawn=return(kill)".into())];
    assert_eq!(node.run_server().code, None, "killed");
    node.args.clear();
    node.env.clear();
    node.start_ready();
    assert_eq!(node.status_json()["member"]["epoch"], 2);
    node.stop();
}

#[test]
fn things_in_the_way_are_named() {
    let _timed = Timed::start();
    let node = Node::new(&Etcd::usual());
    fs::create_dir_all(node.server_dir().join("lock")).unwrap();
    node.run_server().fails(Code::WriteFailed, &["server/lock"]);
    fs::remove_dir(node.server_dir().join("lock")).unwrap();
    std::os::unix::fs::symlink("/does/not/exist", node.server_dir().join("db")).unwrap();
    node.run_server().fails(Code::DanglingLink, &["server/db", "mount", "rm "]);
}

#[test]
fn a_mounted_data_directory_gets_a_new_cluster_inside_it() {
    let _timed = Timed::start();
    let mut node = Node::new(&Etcd::usual()).arg("--new-cluster");
    let Some(mount) = Mount::tmpfs(&node.etcd_dir(), "size=400m,mode=755") else { return };
    fs::create_dir_all(mount.path.join("member/snap")).unwrap();
    fs::create_dir(mount.path.join("lost+found")).unwrap();
    node.start_ready();
    let inside: Vec<String> = fs::read_dir(&mount.path)
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    assert!(inside.iter().any(|name| name.starts_with("member-old-")), "{inside:?}");
    node.stop();
    node.args.clear();
    node.start_ready();
    node.stop();
}

#[test]
fn data_goes_up_one_minor_at_a_time_and_never_down() {
    let _timed = Timed::start();
    let (Some(old), Some(middle), Some(new)) = (Etcd::find("3.4"), Etcd::find("3.5"), Etcd::find("3.6")) else {
        return;
    };
    let mut node = Node::new(&old);
    node.start_ready();
    node.etcdctl(&["put", "a", "1"]);
    node.stop();
    node.etcd = Some(new.binary());
    node.run_server().fails(Code::EtcdTooNew, &["3.4", "3.5"]);
    for etcd in [&middle, &new] {
        node.etcd = Some(etcd.binary());
        node.start_ready();
        assert_eq!(node.etcdctl(&["get", "a", "--print-value-only"]), "1\n");
        node.stop();
    }
    node.etcd = Some(middle.binary());
    node.run_server().fails(Code::EtcdOlderThanData, &["3.6"]);
}

#[test]
fn a_full_disk_is_said_before_anything_is_begun() {
    let _timed = Timed::start();
    let mut node = Node::new(&Etcd::usual());
    node.data_dir = node.dir.path().join("small");
    let Some(mount) = Mount::tmpfs(&node.data_dir, "size=24m") else { return };
    node.run_server().fails(Code::NoSpace, &["160 MiB", "du -xsh"]);
    assert!(!node.etcd_dir().exists());
    // No room at all, not even for the lock's content.
    fs::write(mount.path.join("ballast"), vec![0; 23 << 20]).unwrap();
    let _ = fs::write(mount.path.join("more"), vec![0; 2 << 20]);
    let ran = node.run_server();
    ran.fails(Code::NoSpace, &[]);
    // With room it starts; this is also how one sees that memory is no place for data.
    fs::remove_file(mount.path.join("ballast")).unwrap();
    mount.remount("size=400m");
    node.start_ready();
    assert!(node.has_event("data-in-memory"));
    node.stop();
}

#[test]
fn a_read_only_data_directory_is_said() {
    let _timed = Timed::start();
    let mut node = Node::new(&Etcd::usual());
    node.data_dir = node.dir.path().join("frozen");
    let Some(mount) = Mount::tmpfs(&node.data_dir, "size=400m") else { return };
    mount.remount("ro");
    node.run_server().fails(Code::ReadOnlyFileSystem, &[]);
    mount.remount("rw");
    node.start_ready();
    node.stop();
    mount.remount("ro");
    node.run_server().fails(Code::ReadOnlyFileSystem, &[]);
}

#[test]
fn directories_are_fixed_or_refused() {
    let _timed = Timed::start();
    let mut node = Node::new(&Etcd::usual());
    node.start_ready();
    node.stop();
    let tls = node.server_dir().join("tls/etcd");
    fs::set_permissions(&tls, fs::Permissions::from_mode(0o755)).unwrap();
    node.start_ready();
    node.wait_event("access-closed", &[tls.to_str().unwrap()]);
    assert_eq!(fs::metadata(&tls).unwrap().permissions().mode() & 0o777, 0o700);
    // Nothing that quorate wrote can be read by others.
    for path in kit::files_under(&node.server_dir()) {
        let found = fs::symlink_metadata(&path).unwrap();
        if !found.is_symlink() && !path.starts_with(node.etcd_dir().join("member")) {
            assert_eq!(found.permissions().mode() & 0o077, 0, "{} is open to others", path.display());
        }
    }
    node.stop();
    if !nix::unistd::geteuid().is_root() {
        return kit::skip("giving files away needs root");
    }
    std::os::unix::fs::chown(node.server_dir().join("db"), Some(12345), None).unwrap();
    node.run_server().fails(Code::WrongOwner, &["12345", "chown"]);
}

#[test]
fn a_symbolic_link_is_followed_and_warned_of() {
    let _timed = Timed::start();
    let mut node = Node::new(&Etcd::usual());
    let disk = node.dir.path().join("disk");
    fs::create_dir_all(&disk).unwrap();
    std::os::unix::fs::symlink(&disk, &node.data_dir).unwrap();
    node.start_ready();
    node.wait_event("data-behind-link", &[node.data_dir.to_str().unwrap()]);
    assert!(disk.join("server/db/etcd/member").exists());
    node.stop();
}

#[test]
fn an_impossible_clock_is_refused() {
    let _timed = Timed::start();
    // To 1990.
    let node = Node::new(&Etcd::usual()).env("QUORATE_TEST_CLOCK_SHIFT", "-1160000000");
    node.run_server().fails(Code::ClockWrong, &[" 19", "timedatectl"]);
    assert!(!node.etcd_dir().exists());
}

#[test]
fn expired_and_broken_certificates_are_fixed_or_explained() {
    let _timed = Timed::start();
    let mut node = Node::new(&Etcd::usual());
    node.start_ready();
    node.stop();
    let tls = node.server_dir().join("tls/etcd");

    // A leaf cut short by a power loss, a key that is not its own, one that is gone: repaired at the next start.
    fs::write(tls.join("server-client.crt"), "-----BEGIN CERT").unwrap();
    fs::copy(tls.join("launcher.key"), tls.join("client.key")).unwrap();
    fs::remove_file(tls.join("peer-server-client.key")).unwrap();
    node.start_ready();
    node.etcdctl(&["put", "a", "1"]);
    node.stop();

    // A CA is never replaced automatically.
    let key = fs::read(tls.join("server-ca.key")).unwrap();
    fs::remove_file(tls.join("server-ca.key")).unwrap();
    node.run_server().fails(Code::CaKeyMissing, &["server-ca.key"]);
    fs::write(tls.join("server-ca.key"), "no key").unwrap();
    node.run_server().fails(Code::CaInvalid, &["server-ca.key"]);
    fs::write(tls.join("server-ca.key"), key).unwrap();

    // Eleven years from now.
    node.env.push(("QUORATE_TEST_CLOCK_SHIFT".into(), "346896000".into()));
    node.run_server().fails(Code::CaExpired, &["server-ca.crt", "next: mv "]);
    node.env.clear();
    node.start_ready();
    node.stop();
}

#[test]
fn a_new_address_is_updated_in_the_single_member() {
    let _timed = Timed::start();
    let mut node = Node::new(&Etcd::usual());
    node.start_ready();
    node.etcdctl(&["put", "a", "1"]);
    node.stop();
    node.args.push("--node-ip=127.0.0.2".into());
    node.start_ready();
    node.wait_event("peer-url-changed", &["https://127.0.0.2:"]);
    assert!(node.etcdctl(&["member", "list"]).contains("https://127.0.0.2"));
    assert_eq!(node.etcdctl(&["get", "a", "--print-value-only"]), "1\n");
    node.stop();
}

#[test]
fn a_foreign_thing_in_the_place_of_the_socket_is_refused_and_a_dead_socket_replaced() {
    let _timed = Timed::start();
    let mut node = Node::new(&Etcd::usual());
    node.start_ready();
    let socket = node.server_dir().join("quorate.sock");
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    node.kill_launcher();
    assert!(socket.exists(), "a killed launcher leaves its socket");
    node.start_ready();
    node.stop();
    assert!(!socket.exists());
    let victim = node.dir.path().join("victim");
    fs::write(&victim, "precious").unwrap();
    std::os::unix::fs::symlink(&victim, &socket).unwrap();
    node.run_server().fails(Code::SocketPathTaken, &["quorate.sock"]);
    assert_eq!(fs::read_to_string(victim).unwrap(), "precious");
}

#[test]
fn a_long_path_is_no_obstacle() {
    let _timed = Timed::start();
    let mut node = Node::new(&Etcd::usual());
    node.data_dir = node.dir.path().join("d".repeat(120)).join("e".repeat(60));
    node.start_ready();
    node.etcdctl(&["put", "a", "1"]);
    node.stop();
}

/// Crashes a start at every step that changes the disk, then starts for real: it always comes up, as the first epoch of one
/// cluster, with nothing left lying around.
#[test]
fn a_start_that_is_killed_at_any_step_is_followed_by_a_good_one() {
    let _timed = Timed::start();
    sweep("kill", |node| {
        let mut command = node.server_command();
        let status = command.output().unwrap().status;
        assert!(std::os::unix::process::ExitStatusExt::signal(&status).is_some() || !status.success(), "{status}");
    });
}

/// The same with the disk full at every step: it fails with a message, then works.
#[test]
fn a_start_that_hits_a_full_disk_at_any_step_says_so_and_is_followed_by_a_good_one() {
    let _timed = Timed::start();
    sweep("enospc", |node| {
        let ran = node.run_server();
        ran.fails(Code::NoSpace, &["No space left on device"]);
    });
}

fn sweep(fault: &str, faulty_start: impl Fn(&Node)) {
    let etcd = Etcd::usual();
    // The writes before the first spawn; those after it are best effort, and swept by other tests.
    let steps = [
        ("durable::mkdir", 5),
        ("durable::create", 14),
        ("durable::fsync", 14),
        ("durable::rename", 14),
        ("durable::fsync_dir", 14),
        ("server::locked", 1),
        ("server::before_spawn", 1),
    ];
    for (step, times) in steps {
        for passed in (0..times).step_by(if times > 5 { 3 } else { 2 }) {
            let mut node = Node::new(&etcd);
            node.env = vec![("FAILPOINTS".into(), format!("{step}={passed}*off->return({fault})"))];
            faulty_start(&node);
            node.env.clear();
            node.start_ready();
            let status = node.status_json();
            assert_eq!(status["member"]["epoch"], 1, "{step} after {passed}");
            eventually("one etcd", || (etcds_on(&node.etcd_dir()).len() == 1).then_some(()));
            // What the running server is writing at the moment is gone in the next.
            eventually(&format!("nothing left by {step} after {passed}"), || {
                let left = |path: &std::path::PathBuf| path.to_string_lossy().contains(".tmp-quorate");
                (!kit::files_under(&node.data_dir).iter().any(left)).then_some(())
            });
            node.stop();
        }
    }
}

#[test]
fn a_slow_disk_is_said() {
    let _timed = Timed::start();
    let node = Node::new(&Etcd::usual());
    let inner = node.server_command();
    let mut command = Command::new("strace");
    command
        .args([
            "-f",
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            "trace=fdatasync",
            "-e",
            "inject=fdatasync:delay_enter=30000:when=1..5",
        ])
        .arg(inner.get_program())
        .args(inner.get_args())
        .envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let log = fs::File::create(node.log_path()).unwrap();
    let Ok(mut traced) = command.stdout(log.try_clone().unwrap()).stderr(log).spawn() else {
        return kit::skip("strace is not there");
    };
    // strace must not be ended before what it traces.
    let is_ready = eventually("a start on a slow disk", || {
        if traced.try_wait().unwrap().is_some() {
            return Some(false);
        }
        (node.status().code == Some(0)).then_some(true)
    });
    if !is_ready {
        return kit::skip("strace may not trace here");
    }
    assert!(node.has_event("disk-slow"), "{}", node.log());
    let pid = node.status_json()["launcher"]["pid"].as_i64().unwrap();
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    eventually("the end", || traced.try_wait().unwrap());
}
