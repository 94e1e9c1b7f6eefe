//! Health reports the truth: what cannot be kept is not healthy, and what is printed as the next command saves it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;
use quorate::error::Code;

use crate::kit::{Etcd, Mount, Node, Timed, eventually, http_get};

/// The codes of the problems that `status` lists.
fn problems(node: &Node) -> Vec<String> {
    let status = node.status_json();
    let list = status["problems"].as_array().unwrap();
    list.iter().map(|problem| problem["code"].as_str().unwrap().to_owned()).collect()
}

#[track_caller]
fn wait_for_problem(node: &Node, code: &str) {
    eventually(&format!("the problem {code}"), || problems(node).iter().any(|found| found == code).then_some(()));
}

fn quick() -> Node {
    Node::new(&Etcd::usual()).env("QUORATE_TEST_STORAGE_MS", "200")
}

/// Saves into a directory outside of the data, as the message says, and gives the snapshot.
#[track_caller]
fn save_elsewhere(node: &Node) -> (tempfile::TempDir, PathBuf) {
    let elsewhere = tempfile::tempdir().unwrap();
    let dir = elsewhere.path().to_str().unwrap().to_owned();
    node.quorate(&["etcd-snapshot", "save", "--wait", "--dir", &dir]).succeeds();
    let saved = fs::read_dir(elsewhere.path()).unwrap().flatten().map(|entry| entry.path()).find(|path| path.is_file());
    (elsewhere, saved.expect("a snapshot"))
}

/// ux F1: the data deleted under a running server was "healthy", and lost at the next stop.
#[test]
fn data_deleted_under_a_running_etcd_is_unhealthy_and_can_still_be_saved() {
    let _timed = Timed::start();
    let mut node = quick();
    node.start_ready();
    node.etcdctl(&["put", "precious", "1"]);
    fs::remove_dir_all(node.server_dir().join("db/etcd/member")).unwrap();
    wait_for_problem(&node, "data-missing");
    assert_eq!(node.status().code, Some(1));
    let (code, text) = http_get(node.ports.metrics(), "/readyz?verbose");
    assert!(code == 503 && text.contains("data-missing"), "{code} {text}");
    let rescued = eventually("a snapshot automatically", || {
        let next = node.status_json()["problems"][0]["next"].as_str()?.to_owned();
        let (_, path) = next.split_once("restore-path=")?;
        Some(PathBuf::from(path))
    });
    let (_keep, saved) = save_elsewhere(&node);
    assert_eq!(node.quorate(&["etcd-snapshot", "get", saved.to_str().unwrap(), "precious"]).succeeds().trim(), "1");
    // Never started again on nothing, which would be an empty cluster.
    node.signal_child(Signal::SIGKILL);
    assert_eq!(node.wait_end().code(), Some(4));
    assert!(!node.server_dir().join("db/etcd/member").exists());
    let path = format!("--cluster-reset-restore-path={}", rescued.display());
    assert_eq!(node.run_server_with(&["--cluster-reset", &path]).code, Some(0));
    node.start_ready();
    assert_eq!(node.etcdctl(&["get", "--print-value-only", "precious"]).trim(), "1");
}

/// The log alone, the database alone, and another file in its place.
#[test]
fn each_file_of_the_data_is_watched() {
    type Harm = fn(&Path);
    let table: [(Harm, &str); 4] = [
        (|member| fs::remove_file(member.join("snap/db")).unwrap(), "database-missing"),
        (|member| fs::remove_dir_all(member.join("wal")).unwrap(), "log-missing"),
        (|member| fs::rename(member, member.with_extension("away")).unwrap(), "data-moved"),
        (
            |member| {
                fs::copy(member.join("snap/db"), member.join("snap/copy")).unwrap();
                fs::rename(member.join("snap/copy"), member.join("snap/db")).unwrap();
            },
            "database-replaced",
        ),
    ];
    for (harm, code) in table {
        let mut node = quick();
        node.start_ready();
        node.etcdctl(&["put", "precious", "1"]);
        assert_eq!(problems(&node), Vec::<String>::new());
        harm(&node.server_dir().join("db/etcd/member"));
        wait_for_problem(&node, code);
        let (_keep, saved) = save_elsewhere(&node);
        node.quorate(&["etcd-snapshot", "verify", saved.to_str().unwrap()]).succeeds();
    }
}

/// ux F2: without its directory the server could not be reached, and every advice was wrong.
#[test]
fn a_server_whose_directory_was_deleted_can_be_reached_and_saved() {
    let _timed = Timed::start();
    let mut node = quick();
    node.start_ready();
    node.etcdctl(&["put", "precious", "1"]);
    fs::remove_dir_all(&node.data_dir).unwrap();
    eventually("the socket to be made again", || node.server_dir().join("quorate.sock").exists().then_some(()));
    wait_for_problem(&node, "data-missing");
    // A second one is kept out by the lock, and on another directory by the ports, which are known to be quorate's.
    assert_eq!(node.run_server().code, Some(3));
    let elsewhere = tempfile::tempdir().unwrap();
    let first = std::mem::replace(&mut node.data_dir, elsewhere.path().join("data"));
    let second = node.run_server();
    node.data_dir = first;
    second.fails(Code::PortInUseByQuorate, &["quorate status"]);
    let (_keep, saved) = save_elsewhere(&node);
    node.quorate(&["etcd-snapshot", "verify", saved.to_str().unwrap()]).succeeds();
    node.stop();
    // What was put back keeps the next start from beginning an empty cluster.
    assert_eq!(node.run_server().code, Some(4));
}

/// ux F3: a full disk was "healthy", and the reason of etcd's end was not shown.
#[test]
fn a_full_disk_is_unhealthy_and_etcds_last_words_are_shown() {
    let _timed = Timed::start();
    let mut node = quick();
    let Some(disk) = Mount::tmpfs(&node.dir.path().join("disk"), "size=300m") else { return };
    node.data_dir = disk.path.join("data");
    node.start_ready();
    let filler = disk.path.join("filler");
    let fill = || {
        let free = nix::sys::statvfs::statvfs(&disk.path).unwrap();
        let bytes = free.blocks_available() * free.fragment_size();
        // etcd writes, too, and may have taken the last of it.
        let _ = fs::write(&filler, vec![1; usize::try_from(bytes.saturating_sub(4096)).unwrap()]);
    };
    fill();
    wait_for_problem(&node, "disk-full");
    assert_eq!(http_get(node.ports.metrics(), "/readyz").0, 503);
    let metrics = http_get(node.ports.metrics(), "/metrics").1;
    assert!(metrics.contains(r#"quorate_disk_free_bytes{disk="data"}"#), "{metrics}");
    assert!(metrics.contains(r#"quorate_health{condition="unhealthy"} 1"#), "{metrics}");
    // Large values until etcd ends of it: they need pages that the disk does not have.
    let value = "v".repeat(1 << 20);
    let words = eventually("etcd to end for lack of space", || {
        let _ = node.quorate(&["etcdctl", "--", "put", "large", &value[..100_000]]);
        node.status_json()["etcd"]["last_exit"].as_str().map(str::to_owned)
    });
    assert!(words.contains("no space left on device"), "{words}");
    fs::remove_file(&filler).unwrap();
    eventually("the disk to have room again", || (!problems(&node).contains(&"disk-full".into())).then_some(()));
}

/// Another view of the data, which is read-only: files that are open keep a file system itself from being made so.
#[test]
fn a_read_only_disk_is_unhealthy() {
    let _timed = Timed::start();
    let mut node = quick();
    node.start_ready();
    let etcd = node.etcd_dir();
    let mount = |options: &[&str]| Command::new("mount").args(options).arg(&etcd).status().is_ok_and(|s| s.success());
    if !mount(&["--bind", etcd.to_str().unwrap()]) {
        return crate::kit::skip("mounting is not allowed here");
    }
    assert!(mount(&["-o", "remount,bind,ro"]));
    wait_for_problem(&node, "disk-read-only");
    assert!(Command::new("umount").arg("-l").arg(&etcd).status().unwrap().success());
    eventually("the disk to be writable again", || node.status_json()["healthy"].as_bool().unwrap().then_some(()));
}

/// An etcd that keeps exiting is degraded once it is back, with the count and the way it ended.
#[test]
fn an_etcd_that_keeps_crashing_is_degraded() {
    let _timed = Timed::start();
    let mut node = quick();
    node.start_ready();
    for _ in 0..2 {
        let before = node.signal_child(Signal::SIGKILL);
        eventually("etcd to be back", || {
            let status = node.status_json();
            let is_back = status["etcd"]["state"] == "ready" && status["etcd"]["pid"] != before;
            is_back.then_some(())
        });
    }
    wait_for_problem(&node, "etcd-restarting");
    let status = node.status_json();
    assert_eq!((status["health"].as_str(), status["healthy"].as_bool()), (Some("degraded"), Some(false)));
    assert_eq!(node.status().code, Some(1));
    assert_eq!(http_get(node.ports.metrics(), "/readyz").0, 200, "clients can be sent there");
}

/// Every check in one table, with and without a server; what is bad has a next step, and is exit 1.
#[test]
fn the_doctor_finds_what_is_wrong() {
    let _timed = Timed::start();
    let mut node = quick();
    let ports: Vec<String> = [
        ("etcd-client-port", node.ports.client()),
        ("etcd-peer-port", node.ports.peer()),
        ("etcd-metrics-port", node.ports.etcd_metrics()),
        ("metrics-port", node.ports.metrics()),
    ]
    .iter()
    .map(|(key, port)| format!("{key}: {port}\n"))
    .collect();
    let etcd = format!("etcd-binary: {}\n", Etcd::usual().binary().display());
    node = node.config(&format!("node-ip: 127.0.0.1\nnode-name: node\n{etcd}{}", ports.concat()));
    let examine = |node: &Node| -> (Option<i32>, serde_json::Value) {
        let ran = node.quorate(&["doctor", "-o", "json"]);
        (ran.code, serde_json::from_str(&ran.out).unwrap())
    };
    let bad = |report: &serde_json::Value| -> Vec<String> {
        let items = report["items"].as_array().unwrap().iter().filter(|item| item["result"] == "bad");
        items.map(|item| item["check"].as_str().unwrap().to_owned()).collect()
    };
    // Nothing is there yet, and nothing is wrong.
    let (code, report) = examine(&node);
    assert_eq!((code, bad(&report)), (Some(0), vec![]), "{report:#}");
    node.start_ready();
    node.quorate(&["etcd-snapshot", "save"]).succeeds();
    let (code, report) = examine(&node);
    assert_eq!((code, bad(&report)), (Some(0), vec![]), "{report:#}");
    for check in
        ["configuration", "server", "data", "modes", "disk", "fsync", "clock", "etcd", "certificates", "snapshots"]
    {
        assert!(report["items"].as_array().unwrap().iter().any(|item| item["check"] == check), "{check}: {report:#}");
    }
    // A key that others can read, lost data, a port that is taken.
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(node.server_dir().join("tls/etcd/client.key"), fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(bad(&examine(&node).1), vec!["modes"]);
    node.stop();
    fs::remove_dir_all(node.etcd_dir().join("member")).unwrap();
    let _taken = std::net::TcpListener::bind(("127.0.0.1", node.ports.client())).unwrap();
    let (code, report) = examine(&node);
    assert_eq!((code, bad(&report)), (Some(1), vec!["data".into(), "modes".into(), "ports".into()]), "{report:#}");
    for item in report["items"].as_array().unwrap().iter().filter(|item| item["result"] == "bad") {
        assert!(item["next"].is_string(), "{item}");
    }
}
