//! Bad input and bad machines: one clear message, nothing that looks good, nothing left behind, older snapshots untouched.

use std::fs;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::Command;

use etcd_client::{AlarmAction, AlarmOptions, AlarmType};

use quorate::error::Code;

use crate::kit::{Etcd, Mount, Node, Ran, Timed, eventually, executable, skip};
use crate::snapshot::save::{begin, everything, fill, list, path_of, save};

crate::matrix!(a_corrupt_member_is_saved_and_the_manifest_says_so);

mod cases {
    use super::*;

    pub fn a_corrupt_member_is_saved_and_the_manifest_says_so(etcd: &Etcd) {
        let mut node = Node::new(etcd).config("node-name: node\n");
        node.start_ready();
        node.etcdctl(&["put", "a", "1"]);
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let mut client = node.access().client().await;
            let id = client.status().await.unwrap().header().unwrap().member_id();
            let mut options = AlarmOptions::new();
            options.with_member(id);
            client.alarm(AlarmAction::Activate, AlarmType::Corrupt, Some(options)).await.unwrap();
        });
        eventually("an unhealthy etcd", || (node.status().code == Some(1)).then_some(()));
        let item = save(&node, &[]);
        let name = item["name"].as_str().unwrap();
        let manifest = node.server_dir().join(format!("db/snapshots/.metadata/{name}.json"));
        let manifest: serde_json::Value = serde_json::from_slice(&fs::read(manifest).unwrap()).unwrap();
        assert_eq!(manifest["alarms"], serde_json::json!(["CORRUPT"]), "{manifest}");
        node.wait_event("snapshot-with-alarms", &["alarms=CORRUPT"]);
        node.stop();
    }
}

/// A client that may write into the directory could exchange what is restored later.
#[test]
fn a_directory_that_others_could_change_is_closed_or_refused() {
    use std::os::unix::fs::{PermissionsExt as _, chown};
    let _timed = Timed::start();
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::new(&Etcd::usual()).config(&format!("etcd-snapshot-dir: {}\n", dir.path().display()));
    let mode = || fs::metadata(dir.path()).unwrap().permissions().mode() & 0o7777;
    for (before, after) in [(0o777, 0o775), (0o1777, 0o1777), (0o750, 0o750)] {
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(before)).unwrap();
        node.start_ready();
        assert_eq!(mode(), after);
        // And while it runs.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(before)).unwrap();
        save(&node, &[]);
        assert_eq!(mode(), after);
        if nix::unistd::geteuid().is_root() {
            chown(dir.path(), Some(65534), None).unwrap();
            node.quorate(&["etcd-snapshot", "save"]).fails(Code::SnapshotDirExposed, &["65534"]);
            chown(dir.path(), Some(0), None).unwrap();
        }
        node.stop();
    }
    if nix::unistd::geteuid().is_root() {
        chown(dir.path(), Some(65534), None).unwrap();
        node.run_server().fails(Code::SnapshotDirExposed, &["65534", "chown 0 "]);
        chown(dir.path(), Some(0), None).unwrap();
    }
}

/// The disk is filled by another user while the snapshot is written, and while it is packed.
#[test]
fn a_disk_that_fills_up_meanwhile_leaves_nothing() {
    let _timed = Timed::start();
    let dir = tempfile::tempdir().unwrap();
    let Some(_mount) = Mount::tmpfs(dir.path(), "size=300m") else { return };
    // 20 ms for each 32 KiB; and time to look between verifying and packing.
    let slow = "snapshot::write=sleep(20);snapshot::verified=sleep(3000)";
    let mut node = Node::new(&Etcd::usual()).env("FAILPOINTS", slow).config("etcd-snapshot-copy: false\n");
    node.start_ready();
    fill(&node, 100);
    let to = format!("--dir={}", dir.path().display());
    let hidden = |at_least: u64| {
        let found = everything(dir.path()).into_iter().find(|path| path.to_string_lossy().contains("tmp-quorate"));
        found.filter(|path| fs::metadata(path).is_ok_and(|found| found.len() >= at_least)).map(drop)
    };
    let ballast = dir.path().join("ballast");
    let fill_up = || {
        let mut file = fs::File::create(&ballast).unwrap();
        for chunk in [1 << 20, 4096] {
            let bytes = vec![1; chunk];
            while file.write_all(&bytes).is_ok() {}
        }
    };
    let writing = begin(&node, &[&to]);
    eventually("some of it to be written", || hidden(1 << 20));
    fill_up();
    let ran = Ran::of(&writing.wait_with_output().unwrap());
    ran.fails(Code::NoSpace, &["No space left on device"]);
    assert_eq!(everything(dir.path()), std::slice::from_ref(&ballast));
    fs::remove_file(&ballast).unwrap();
    // All of it is there, and what is packed cannot be finished: values that do not shrink.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let mut client = node.access().client().await;
        for number in 0..60u8 {
            let mut noise = vec![0; 100_000];
            fs::File::open("/dev/urandom")
                .and_then(|mut file| std::io::Read::read_exact(&mut file, &mut noise))
                .unwrap();
            client.put(format!("noise/{number}"), noise, None).await.unwrap();
        }
    });
    let packing = begin(&node, &[&to, "--snapshot-compress=zstd"]);
    eventually("all of it to be written", || hidden(15 << 20));
    fill_up();
    let ran = Ran::of(&packing.wait_with_output().unwrap());
    ran.fails(Code::NoSpace, &["No space left on device"]);
    assert_eq!(everything(dir.path()), [ballast]);
    node.stop();
}

#[test]
fn archives_that_unfold_without_end_are_bounded() {
    let _timed = Timed::start();
    let dir = tempfile::tempdir().unwrap();
    let Some(_mount) = Mount::tmpfs(dir.path(), "size=1g") else { return };
    let mut node = Node::new(&Etcd::usual());
    node.start_ready();
    let good = fs::read(path_of(&save(&node, &[]))).unwrap();
    node.stop();
    // Hundreds of megabytes of zeros behind a good head, and without one.
    for (name, head) in [("with-a-head", good.as_slice()), ("without", &[])] {
        let zst = dir.path().join(format!("{name}.zst"));
        let mut encoder = zstd::stream::Encoder::new(fs::File::create(&zst).unwrap(), 1).unwrap();
        encoder.write_all(head).unwrap();
        for _ in 0..140 {
            encoder.write_all(&vec![0; 1 << 20]).unwrap();
        }
        encoder.finish().unwrap();
        let zip = dir.path().join(format!("{name}.zip"));
        let mut writer = zip::ZipWriter::new(fs::File::create(&zip).unwrap());
        writer.start_file("db", zip::write::SimpleFileOptions::default()).unwrap();
        writer.write_all(head).unwrap();
        for _ in 0..140 {
            writer.write_all(&vec![0; 1 << 20]).unwrap();
        }
        writer.finish().unwrap();
        for path in [zst, zip] {
            let ran = verify(&path);
            ran.fails(Code::ArchiveInvalid, &[path.to_str().unwrap(), " bytes"]);
        }
    }
    assert_eq!(everything(dir.path()).len(), 4, "nothing is left but the archives");
}

fn verify(path: &Path) -> Ran {
    let mut command = Command::new(executable());
    command.args(["etcd-snapshot", "verify", "--data-dir", "/nonexistent"]).arg(path);
    Ran::of(&command.output().unwrap())
}

#[test]
fn a_disk_that_cannot_be_read_is_no_corrupt_snapshot() {
    let _timed = Timed::start();
    let mut node = Node::new(&Etcd::usual());
    node.start_ready();
    let path = path_of(&save(&node, &[]));
    node.stop();
    if Command::new("strace").arg("-V").output().is_err() {
        skip("there is no strace here");
        return;
    }
    // The file's own reads come after the program's.
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o", "/dev/null", "-P"]).arg(&path).args(["-e", "inject=pread64:error=EIO:when=4+"]);
    command.arg(executable()).args(["etcd-snapshot", "verify", "--data-dir", "/nonexistent"]).arg(&path);
    let ran = Ran::of(&command.output().unwrap());
    ran.fails(Code::ReadFailed, &["Input/output error", "dmesg"]);
}

#[test]
fn hostile_names_in_the_directory_harm_neither_terminal_nor_files() {
    let _timed = Timed::start();
    let mut node = Node::new(&Etcd::usual()).config("node-name: node\n");
    node.start_ready();
    let good = path_of(&save(&node, &[]));
    let dir = good.parent().unwrap();
    let long = "n".repeat(255);
    let names: [&[u8]; 5] = [b"two words", b"new\nline", b"\x1b[2Jred", b"not \xff utf-8", long.as_bytes()];
    for name in names {
        fs::copy(&good, dir.join(std::ffi::OsStr::from_bytes(name))).unwrap();
    }
    std::os::unix::fs::symlink("/etc/passwd", dir.join("link")).unwrap();
    fs::create_dir(dir.join("directory")).unwrap();
    let table = node.quorate(&["etcd-snapshot", "ls", "--wide"]);
    assert!(!table.succeeds().contains('\u{1b}'), "{}", table.out);
    assert_eq!(table.out.lines().count(), 1 + 1 + names.len() + 1, "a line each: {}", table.out);
    assert_eq!(list(&node).len(), 1 + names.len() + 1);
    let ran = node.quorate(&["etcd-snapshot", "verify", "--all"]);
    // The link leads to something that is no snapshot; what has too long a name for a manifest is reported.
    ran.fails(Code::SnapshotUnhashed, &["link", "nnn"]);
    assert!(!ran.err.contains('\u{1b}') && !ran.out.contains('\u{1b}'), "{ran:?}");
    for name in ["two words", "new\nline", "\u{1b}[2Jred", &long] {
        node.quorate(&["etcd-snapshot", "delete", name]).succeeds();
    }
    node.quorate(&["etcd-snapshot", "delete", "link"]).succeeds();
    assert!(Path::new("/etc/passwd").exists());
    for name in ["../snapshots", "directory", ".metadata", "..", "/etc/passwd"] {
        node.quorate(&["etcd-snapshot", "delete", name]).fails(Code::SnapshotNotFound, &[name]);
    }
    node.quorate(&["etcd-snapshot", "delete", ""]).fails(Code::Usage, &["NAME"]);
    assert!(dir.join("directory").exists());
    assert_eq!(list(&node).len(), 2);
    node.stop();
}

#[test]
fn snapshots_of_a_wrong_clock_are_neither_overwritten_nor_pruned_nor_taken_for_the_newest() {
    let _timed = Timed::start();
    let mut node = Node::new(&Etcd::usual()).config("node-name: node\netcd-disable-snapshots: true\n");
    // Right, three months ahead, and right again.
    for days in [0, 90, 0] {
        node.env = vec![("QUORATE_TEST_CLOCK_SHIFT".into(), (days * 86_400).to_string())];
        node.start_ready();
        save(&node, &[]);
        save(&node, &[]);
        node.stop();
    }
    let items = list(&node);
    assert_eq!(items.len(), 6);
    let created: Vec<&str> = items.iter().map(|item| item["created"].as_str().unwrap()).collect();
    assert!(created.is_sorted(), "{created:?}");
    let dry = node.quorate(&["etcd-snapshot", "prune", "--keep-last", "1", "--dry-run"]);
    assert!(dry.succeeds().matches("future").count() == 2, "{}", dry.out);
    node.quorate(&["etcd-snapshot", "prune", "--keep-last", "1"]).succeeds();
    let left = list(&node);
    assert_eq!(left.len(), 3, "the newest, and two of the future: {left:?}");
    assert_eq!(left[0], items[3]);
}

/// While it is packed, which takes longest: the client disconnects, then the server is stopped.
#[test]
fn a_cancelled_snapshot_has_ended_and_left_nothing() {
    let _timed = Timed::start();
    let mut node = Node::new(&Etcd::usual())
        .env("FAILPOINTS", "snapshot::verified=sleep(1500)")
        .config("node-name: node\netcd-snapshot-compress: zstd\n");
    node.start_ready();
    fill(&node, 20);
    let dir = node.server_dir().join("db/snapshots");
    let is_begun = || fs::read_dir(&dir).ok()?.flatten().find(|entry| entry.path().is_file()).map(drop);
    let first = begin(&node, &["--name=same"]);
    eventually("a snapshot to be begun", is_begun);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(first.id().cast_signed()), nix::sys::signal::Signal::SIGINT)
        .unwrap();
    drop(first.wait_with_output());
    // It still has its turn until it has ended.
    let second = node.quorate(&["etcd-snapshot", "save", "--name=same", "--wait"]);
    second.succeeds();
    assert_eq!(everything(&dir).len(), 2, "the snapshot and its manifest: {:?}", everything(&dir));
    assert_eq!(node.status_json()["snapshots"]["failures"], 0, "to change one's mind is no failure");
    let third = begin(&node, &["--name=third"]);
    eventually("a snapshot to be begun", || (everything(&dir).len() > 2).then_some(()));
    node.stop();
    let third = Ran::of(&third.wait_with_output().unwrap());
    third.fails(Code::Stopping, &[]);
    assert_eq!(everything(&dir).len(), 2, "{:?}", everything(&dir));
}

#[test]
fn a_manifest_that_cannot_be_read_may_hold_and_what_is_not_whole_does_not_count() {
    let _timed = Timed::start();
    let mut node = Node::new(&Etcd::usual()).config("node-name: node\n");
    node.start_ready();
    let held = save(&node, &[]);
    let name = held["name"].as_str().unwrap();
    let dir = path_of(&held).parent().unwrap().to_owned();
    node.quorate(&["etcd-snapshot", "hold", name]).succeeds();
    let manifest = dir.join(".metadata").join(format!("{name}.json"));
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, &text[..text.len() / 2]).unwrap();
    for _ in 0..2 {
        save(&node, &[]);
    }
    let bytes = fs::read(path_of(&held)).unwrap();
    fs::write(dir.join("on-demand-node-1700000000"), "").unwrap();
    fs::write(dir.join("on-demand-node-1700000001"), &bytes[..bytes.len() / 2]).unwrap();
    fs::write(dir.join("on-demand-node-1700000002"), &bytes).unwrap();
    let words: Vec<String> = list(&node).iter().map(|item| item["status"].as_str().unwrap().to_owned()).collect();
    assert_eq!(words, ["partial", "partial", "unverified", "unreadable", "good", "good"]);
    node.quorate(&["etcd-snapshot", "delete", name]).fails(Code::ManifestUnreadable, &["--force"]);
    node.quorate(&["etcd-snapshot", "hold", name]).fails(Code::ManifestUnreadable, &[name]);
    node.quorate(&["etcd-snapshot", "prune", "--keep-last", "2"]).succeeds();
    let left: Vec<_> = list(&node).iter().map(|item| item["status"].clone()).collect();
    assert_eq!(left, ["partial", "partial", "unreadable", "good", "good"], "partial ones do not count");
    node.quorate(&["etcd-snapshot", "delete", "--force", name]).succeeds();
    node.stop();
}

#[test]
fn a_replaced_file_is_detected() {
    let _timed = Timed::start();
    let mut node = Node::new(&Etcd::usual()).config("node-name: node\n");
    node.start_ready();
    let first = save(&node, &["--label", "a=b"]);
    node.etcdctl(&["put", "a", "1"]);
    let second = save(&node, &[]);
    fs::copy(path_of(&second), path_of(&first)).unwrap();
    let name = first["name"].as_str().unwrap();
    let ran = node.quorate(&["etcd-snapshot", "verify", name]);
    ran.succeeds();
    assert!(ran.err.starts_with(&format!("quorate: warning: {name} ")), "{ran:?}");
    let item = list(&node).into_iter().find(|item| item["name"] == name).unwrap();
    assert_eq!(
        (&item["sha256"], &item["revision"], &item["keys"]),
        (&second["sha256"], &second["revision"], &1.into())
    );
    assert_eq!((&item["status"], &item["labels"]["a"]), (&"good".into(), &"b".into()));
    // Programs hear of all of them.
    fs::write(path_of(&second), "nonsense").unwrap();
    let ran = node.quorate(&["etcd-snapshot", "verify", "-o", "json", name, second["name"].as_str().unwrap(), "none"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let items = serde_json::from_str::<serde_json::Value>(&ran.out).unwrap()["items"].clone();
    let words: Vec<_> = items.as_array().unwrap().iter().map(|item| item["status"].as_str().unwrap()).collect();
    assert_eq!(words, ["missing", "good", "failed"]);
    node.stop();
}

#[test]
fn commands_look_where_the_running_server_keeps_its_snapshots() {
    let _timed = Timed::start();
    let mut node = Node::new(&Etcd::usual());
    let elsewhere = node.dir.path().join("elsewhere");
    node = node.arg(&format!("--etcd-snapshot-dir={}", elsewhere.display())).arg("--node-name=other");
    node.start_ready();
    save(&node, &["--name=a"]);
    save(&node, &["--name=a"]);
    assert_eq!(list(&node).len(), 2);
    node.quorate(&["etcd-snapshot", "prune", "--name=a", "--keep-last=1"]).succeeds();
    assert_eq!(list(&node).len(), 1);
    node.stop();
    assert_eq!(list(&node).len(), 0, "the configuration knows nothing of it");
    let mut command = Command::new(&node.executable);
    command.args(["etcd-snapshot", "ls", "-o", "json", "--data-dir"]).arg(&node.data_dir);
    command.env("QUORATE_ETCD_SNAPSHOT_DIR", &elsewhere);
    assert!(Ran::of(&command.output().unwrap()).succeeds().contains("a-other-"));
}
