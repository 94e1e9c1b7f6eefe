//! `etcd-snapshot save` and `ls`: what is said to be saved is saved, and nothing else looks as if it were.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::Signal;
use quorate::error::Code;
use serde_json::Value;

use crate::kit::{self, Etcd, Mount, Node, Timed, eventually, fake_etcd};

crate::matrix!(what_is_saved_is_accepted_by_etcd);

pub fn save(node: &Node, args: &[&str]) -> Value {
    let ran = node.quorate(&[&["etcd-snapshot", "save", "-o", "json"], args].concat());
    serde_json::from_str(ran.succeeds()).unwrap()
}

pub fn list(node: &Node) -> Vec<Value> {
    let ran = node.quorate(&["etcd-snapshot", "ls", "-o", "json"]);
    serde_json::from_str::<Value>(ran.succeeds()).unwrap()["items"].as_array().unwrap().clone()
}

pub fn path_of(item: &Value) -> PathBuf {
    PathBuf::from(item["location"].as_str().unwrap().strip_prefix("file://").unwrap())
}

/// Some megabytes of keys, so that a save takes a moment.
pub fn fill(node: &Node, keys: usize) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let mut client = node.access().client().await;
        for number in 0..keys {
            client.put(format!("fill/{number:05}"), vec![b'x'; 100_000], None).await.unwrap();
        }
    });
}

/// Everything in a snapshot directory, hidden files too.
pub fn everything(dir: &Path) -> Vec<PathBuf> {
    let mut all: Vec<_> = kit::files_under(dir).into_iter().filter(|path| path.is_file()).collect();
    all.sort();
    all
}

/// What the tool of the same version says: etcdutl, or before there was one, etcdctl.
fn status_by_its_own(etcd: &Etcd, path: &Path) -> Option<Value> {
    let tool = ["etcdutl", "etcdctl"].map(|name| etcd.dir.join(name)).into_iter().find(|tool| tool.exists())?;
    let output =
        Command::new(tool).args(["snapshot", "status", "-w", "json"]).arg(path).env("ETCDCTL_API", "3").output();
    serde_json::from_slice(&output.unwrap().stdout).ok()
}

mod cases {
    use super::*;

    pub fn what_is_saved_is_accepted_by_etcd(etcd: &Etcd) {
        let mut node = Node::new(etcd);
        node.start_ready();
        node.etcdctl(&["put", "a", "1"]);
        for (compress, compression) in [("none", ""), ("zstd", "zstd"), ("zip", "zip")] {
            let item =
                save(&node, &[&format!("--snapshot-compress={compress}"), "--label", "why=test", "--name", "mine"]);
            assert_eq!(item["compression"], compression);
            assert_eq!((&item["status"], &item["reason"]), (&"good".into(), &"on-demand".into()));
            assert_eq!((&item["labels"]["why"], &item["node"]), (&"test".into(), &"node".into()));
            assert_eq!(item["etcd_version"], etcd.version());
            let path = path_of(&item);
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            assert_eq!(item["size"], fs::metadata(&path).unwrap().len());
            let ran = node.quorate(&[
                "etcd-snapshot",
                "verify",
                "-o",
                "json",
                "--against-live",
                item["name"].as_str().unwrap(),
            ]);
            let verified: Value = serde_json::from_str::<Value>(ran.succeeds()).unwrap()["items"][0].clone();
            assert_eq!((&verified["sha256"], &verified["revision"]), (&item["sha256"], &item["revision"]));
            if compress == "none" {
                for status in [crate::snapshot::verify::status_by_etcd(&path), status_by_its_own(etcd, &path)] {
                    let status = status.unwrap();
                    assert_eq!(status["revision"], item["revision"]);
                    assert_eq!(format!("{:x}", status["hash"].as_u64().unwrap()), verified["hash"].as_str().unwrap());
                }
            }
        }
        // Three within a second have three names.
        let items = list(&node);
        assert_eq!(items.len(), 3);
        // The same with the server down.
        node.stop();
        assert_eq!(list(&node), items);
        node.quorate(&["etcd-snapshot", "save"]).fails(Code::NotRunning, &[]);
        assert_eq!(list(&node), items);
    }
}

#[test]
fn the_table_fits_and_knows_what_changed_since() {
    let _timed = Timed::start();
    let mut node = Node::new(&Etcd::usual());
    // A directory that is not there is not an empty one: a typing error must not look like it (ux F18).
    node.quorate(&["etcd-snapshot", "ls"]).fails(Code::DirectoryNotFound, &[]);
    node.start_ready();
    let dir = node.server_dir().join("db/snapshots");
    node.quorate(&["etcd-snapshot", "ls"]).succeeds();
    let said = node.quorate(&["etcd-snapshot", "save"]);
    let item = list(&node)[0].clone();
    let name = item["name"].as_str().unwrap();
    assert!(said.succeeds().starts_with(&format!("saved {name} (")), "{said:?}");
    assert_eq!(
        (said.out.lines().count(), node.quorate(&["etcd-snapshot", "ls", "-o", "name"]).out),
        (1, format!("{name}\n"))
    );
    let copied = dir.join("from-elsewhere-1700000000");
    fs::copy(path_of(&item), &copied).unwrap();
    fs::write(dir.join(".hidden"), "x").unwrap();
    let items = list(&node);
    assert_eq!(items.len(), 2);
    assert_eq!((&items[0]["created"], &items[0]["status"]), (&"2023-11-14T22:13:20Z".into(), &"unverified".into()));
    assert_eq!(items[0]["revision"], item["revision"], "from its last page");
    let mut bytes = fs::read(path_of(&item)).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    fs::write(path_of(&item), bytes).unwrap();
    assert_eq!(list(&node)[1]["status"], "changed");
    let wide = node.quorate(&["etcd-snapshot", "list", "--wide"]);
    for word in ["Location", "Created", "Revision", "Keys", "Etcd", "Status", "changed", "unverified"] {
        assert!(wide.succeeds().contains(word), "{}", wide.out);
    }
    assert_eq!(wide.out, node.quorate(&["etcd-snapshot", "ls", "-o", "wide"]).out);
    let ran = node.quorate(&["etcd-snapshot", "ls", "--no-headers", "--sort-by=age"]);
    let first = ran.succeeds().lines().next().unwrap();
    assert!(first.starts_with(name) && first.contains("changed") && first.ends_with("node"), "{}", ran.out);
    let ran = node.quorate(&["etcd-snapshot", "verify", "--all"]);
    ran.fails(Code::SnapshotCorrupt, &[]);
    assert!(ran.out.ends_with("2 snapshots: 1 good, 1 failed\n"), "{}", ran.out);
    assert_eq!(node.quorate(&["etcd-snapshot", "verify", "-q", "from-elsewhere-1700000000"]).succeeds(), "");
    node.stop();
}

#[test]
fn bad_names_and_places_are_refused_and_leave_nothing() {
    let _timed = Timed::start();
    let mut node = Node::new(&Etcd::usual());
    node.start_ready();
    let dir = node.dir.path().join("snaps");
    fs::write(node.dir.path().join("file"), "").unwrap();
    std::os::unix::fs::symlink("/does/not/exist", node.dir.path().join("dangling")).unwrap();
    let to = |name: &str| format!("--dir={}", node.dir.path().join(name).display());
    for (args, code, fact) in [
        (vec!["--name", "a/b"], Code::InvalidSnapshotName, "`a/b`"),
        (vec!["--name", "a b\nc"], Code::InvalidSnapshotName, "a b"),
        (vec!["--name", ".hidden"], Code::InvalidSnapshotName, "`.hidden`"),
        (vec!["--name", ""], Code::Usage, "'--name <NAME>'"),
        (vec!["--label", "x"], Code::Usage, "key=value"),
        (vec!["--snapshot-compress=lzma"], Code::Usage, "`lzma`"),
        (vec![&to("a/b/c")], Code::SnapshotDirUnusable, "/a/b/c"),
        (vec![&to("file")], Code::SnapshotDirUnusable, "/file"),
        (vec![&to("dangling")], Code::SnapshotDirUnusable, "/dangling"),
    ] {
        let ran = node.quorate(&[&["etcd-snapshot", "save"], &args[..]].concat());
        ran.fails(code, &[fact]);
        assert_eq!(ran.out, "", "{args:?}");
    }
    assert_eq!(list(&node).len(), 0);
    // Made if what is above it is there; a link is followed.
    let linked = node.dir.path().join("linked");
    fs::create_dir(&dir).unwrap();
    std::os::unix::fs::symlink(&dir, &linked).unwrap();
    let item = save(&node, &[&format!("--dir={}", linked.display())]);
    assert!(dir.join(item["name"].as_str().unwrap()).exists());
    let made = node.dir.path().join("made");
    save(&node, &[&format!("--dir={}", made.display())]);
    assert_eq!(fs::metadata(&made).unwrap().permissions().mode() & 0o777, 0o700);
    node.stop();
}

#[test]
fn a_full_or_read_only_disk_gives_no_snapshot_and_leaves_the_older_ones() {
    let _timed = Timed::start();
    let mut node = Node::new(&Etcd::usual());
    let dir = node.dir.path().join("small");
    let Some(mount) = Mount::tmpfs(&dir, "size=130m") else { return };
    node.start_ready();
    fill(&node, 100);
    let to = format!("--dir={}", dir.display());
    let item = save(&node, &[&to]);
    let before = everything(&dir);
    // Before: it is known that there is no room.
    fs::write(dir.join("ballast"), vec![0; 40 << 20]).unwrap();
    let ran = node.quorate(&["etcd-snapshot", "save", &to]);
    ran.fails(Code::NoSpace, &[dir.to_str().unwrap()]);
    fs::remove_file(dir.join("ballast")).unwrap();
    assert_eq!(everything(&dir), before);
    mount.remount("ro");
    node.quorate(&["etcd-snapshot", "save", &to]).fails(Code::ReadOnlyFileSystem, &[]);
    mount.remount("rw");
    assert_eq!(everything(&dir), before);
    node.quorate(&["etcd-snapshot", "verify", path_of(&item).to_str().unwrap()]).succeeds();
    node.stop();
}

pub const STEPS: [&str; 7] = ["received", "synced", "verified", "packed", "packed_synced", "named", "described"];

/// Each step of a save, failing: nothing that looks good, nothing left.
#[test]
fn a_save_that_fails_at_any_step_leaves_nothing() {
    let _timed = Timed::start();
    let etcd = Etcd::usual();
    for step in STEPS {
        for fault in ["enospc", "kill"] {
            let mut node = Node::new(&etcd).env("FAILPOINTS", &format!("snapshot::{step}=1*return({fault})->off"));
            node.start_ready();
            node.etcdctl(&["put", "a", "1"]);
            let ran = node.quorate(&["etcd-snapshot", "save", "--snapshot-compress"]);
            let dir = node.server_dir().join("db/snapshots");
            if fault == "kill" {
                ran.fails(Code::NoAnswer, &[]);
                assert_eq!(node.wait_end().code(), None);
                node.env.clear();
                node.start_ready();
            } else {
                ran.fails(Code::NoSpace, &[]);
            }
            let left = everything(&dir);
            let hidden = left.iter().find(|path| path.to_string_lossy().contains("tmp-quorate"));
            assert_eq!(hidden, None, "{step} {fault}");
            // Killed between its name and its manifest, it is a snapshot all the same: it was verified.
            let is_whole = (step, fault) == ("described", "kill");
            assert_eq!(list(&node).len(), usize::from(is_whole), "{step} {fault}");
            for item in list(&node) {
                node.quorate(&["etcd-snapshot", "verify", item["name"].as_str().unwrap()]).succeeds();
            }
            save(&node, &[]);
            node.stop();
        }
    }
}

#[test]
fn a_snapshot_that_exceeds_its_timeout_is_cancelled() {
    let _timed = Timed::start();
    // 100 messages of 32 KiB, 20 ms each.
    let mut node = Node::new(&Etcd::usual())
        .env("FAILPOINTS", "snapshot::write=sleep(20)")
        .config("etcd-snapshot-timeout: 1s\nnode-name: node\n");
    node.start_ready();
    fill(&node, 100);
    node.quorate(&["etcd-snapshot", "save"]).fails(Code::SnapshotTimeout, &["etcd-snapshot-timeout", "1 s"]);
    eventually("nothing to be left", || everything(&node.server_dir().join("db/snapshots")).is_empty().then_some(()));
    node.stop();
}

/// It ends when it is interrupted, even if these tests run in the background of a shell, where that is ignored.
pub fn interruptible(node: &Node) -> Command {
    let mut command = Command::new("env");
    command.arg("--default-signal=INT").arg(&node.executable);
    command
}

pub fn begin(node: &Node, args: &[&str]) -> Child {
    let mut command = interruptible(node);
    command.args(["etcd-snapshot", "save", "--data-dir"]).arg(&node.data_dir).args(args);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn only_one_runs_at_a_time_and_a_disconnected_client_leaves_nothing() {
    let _timed = Timed::start();
    // Slow enough (20 ms for each 32 KiB) to be caught in the middle.
    let mut node = Node::new(&Etcd::usual()).env("FAILPOINTS", "snapshot::write=sleep(20)");
    node.start_ready();
    fill(&node, 100);
    let dir = node.server_dir().join("db/snapshots");
    let begun =
        |dir: &Path| everything(dir).iter().any(|path| path.to_string_lossy().contains("tmp-quorate")).then_some(());
    let first = begin(&node, &[]);
    eventually("a snapshot to be begun", || begun(&dir));
    node.quorate(&["etcd-snapshot", "save"]).fails(Code::Busy, &["--wait"]);
    let waiting = begin(&node, &["--wait", "--name=second"]);
    // Interrupted: cancelled, and the one that waits has its turn.
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(first.id().cast_signed()), Signal::SIGINT).unwrap();
    drop(first.wait_with_output());
    let second = kit::Ran::of(&waiting.wait_with_output().unwrap());
    second.succeeds();
    let items = list(&node);
    assert_eq!(items.len(), 1, "{items:?}");
    assert!(items[0]["name"].as_str().unwrap().starts_with("second-node-"));
    assert_eq!(everything(&dir).len(), 2, "{:?}", everything(&dir));

    // The server is stopped meanwhile.
    let third = begin(&node, &["--name=third"]);
    eventually("a snapshot to be begun", || begun(&dir));
    node.stop();
    let third = kit::Ran::of(&third.wait_with_output().unwrap());
    third.fails(Code::Stopping, &[]);
    assert_eq!(everything(&dir).len(), 2, "{:?}", everything(&dir));

    // Killed with -9: what is left is swept at the next start.
    node.start_ready();
    let fourth = begin(&node, &["--name=fourth"]);
    eventually("a snapshot to be begun", || begun(&dir));
    node.kill_launcher();
    let fourth = kit::Ran::of(&fourth.wait_with_output().unwrap());
    fourth.fails(Code::NoAnswer, &[]);
    node.start_ready();
    assert_eq!(everything(&dir).len(), 2, "{:?}", everything(&dir));
    // etcd is killed in the middle.
    let fifth = begin(&node, &["--name=fifth"]);
    eventually("a snapshot to be begun", || begun(&dir));
    node.signal_child(Signal::SIGKILL);
    let fifth = kit::Ran::of(&fifth.wait_with_output().unwrap());
    fifth.fails(Code::SnapshotStreamFailed, &[]);
    assert_eq!(everything(&dir).len(), 2, "{:?}", everything(&dir));
    node.stop();
}

#[test]
fn without_a_healthy_etcd_there_is_no_snapshot() {
    let _timed = Timed::start();
    let mut node = Node::with_binary(None);
    node.etcd = Some(fake_etcd(node.dir.path(), "3.5.30", "exec sleep 1000"));
    node.start();
    eventually("the control socket", || (node.status().code == Some(1)).then_some(()));
    node.quorate(&["etcd-snapshot", "save"]).fails(Code::EtcdUnreachable, &["quorate status"]);
    node.quorate(&["defrag"]).fails(Code::EtcdUnreachable, &["quorate status"]);
    node.stop();
}
