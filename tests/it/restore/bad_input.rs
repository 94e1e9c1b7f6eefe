//! What cannot be restored: one clear message, and everything is as it was.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use quorate::error::Code;

use super::{everything, keys, restore, restored, save, snapshot_dir};
use crate::kit::{Etcd, Mount, Node, Timed};

struct Prepared {
    node: Node,
    snapshot: PathBuf,
    good: Vec<u8>,
}

fn prepared() -> Prepared {
    let mut node = Node::new(&Etcd::usual());
    node.start_ready();
    for number in 0..200 {
        node.etcdctl(&["put", &format!("k{number:03}"), &"v".repeat(100)]);
    }
    let snapshot = snapshot_dir(&node).join(save(&node));
    node.stop();
    let good = fs::read(&snapshot).unwrap();
    Prepared { node, snapshot, good }
}

impl Prepared {
    /// Restores it, which must fail with this code and these facts, and change nothing.
    #[track_caller]
    fn refused(&self, what: &Path, code: Code, facts: &[&str]) {
        let db = self.node.server_dir().join("db");
        let before = everything(&db);
        let ran = restore(&self.node, what.to_str().unwrap(), &[]);
        ran.fails(code, facts);
        let reports = ran.err.lines().filter(|line| line.starts_with("quorate: ")).count();
        assert_eq!(reports, 1, "{}", ran.err);
        assert!(everything(&db) == before, "{} changed something: {}", what.display(), ran.err);
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.node.dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }
}

#[test]
fn files_that_are_no_good_snapshot_change_nothing() {
    let _timed = Timed::start();
    let prepared = prepared();
    let good = &prepared.good;
    let dir = prepared.node.dir.path();
    prepared.refused(&dir.join("not/there"), Code::SnapshotNotFound, &["not/there"]);
    prepared.refused(Path::new("no-such-name"), Code::SnapshotNotFound, &["no-such-name", "etcd-snapshot ls"]);
    prepared.refused(dir, Code::ReadFailed, &["regular file"]);
    prepared.refused(&prepared.file("empty", b""), Code::SnapshotUnhashed, &["/empty"]);
    prepared.refused(&prepared.file("cut", &good[..good.len() / 2]), Code::SnapshotCorrupt, &["/cut"]);
    prepared.refused(&prepared.file("no-hash", &good[..good.len() - 32]), Code::SnapshotUnhashed, &["/no-hash"]);
    let half = [&good[..good.len() - 4096 - 32], &good[good.len() - 32..]].concat();
    prepared.refused(&prepared.file("page-missing", &half), Code::SnapshotCorrupt, &["/page-missing"]);
    prepared.refused(&prepared.file("nonsense", &vec![7; 20_512]), Code::SnapshotCorrupt, &["byte 0"]);
    // A bit in each region: both heads, every page, the hash.
    for at in (20..good.len()).step_by(4096 - 64).chain([good.len() - 1]) {
        let mut flipped = good.clone();
        flipped[at] ^= 0x10;
        prepared.refused(&prepared.file("flipped", &flipped), Code::SnapshotCorrupt, &["/flipped"]);
    }
    // As if nothing had been tried.
    restored(&restore(&prepared.node, prepared.snapshot.to_str().unwrap(), &[]));
}

#[test]
fn archives_that_are_not_one_snapshot_change_nothing() {
    let _timed = Timed::start();
    let prepared = prepared();
    let path = prepared.node.dir.path().join("two.zip");
    let mut archive = zip::ZipWriter::new(fs::File::create(&path).unwrap());
    for name in ["one", "two"] {
        archive.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
        archive.write_all(&prepared.good).unwrap();
    }
    archive.finish().unwrap();
    prepared.refused(&path, Code::ArchiveInvalid, &["2 files"]);
    let bomb = prepared.node.dir.path().join("bomb.zst");
    let mut encoder = zstd::stream::Encoder::new(fs::File::create(&bomb).unwrap(), 3).unwrap();
    for _ in 0..300 {
        encoder.write_all(&vec![0; 1 << 20]).unwrap();
    }
    encoder.finish().unwrap();
    prepared.refused(&bomb, Code::ArchiveInvalid, &["/bomb.zst"]);
    let cut = zstd::stream::encode_all(prepared.good.as_slice(), 3).unwrap();
    prepared.refused(&prepared.file("cut.zst", &cut[..cut.len() - 20]), Code::ArchiveInvalid, &["/cut.zst"]);
    // A name in an archive is only a name.
    let path = prepared.node.dir.path().join("outside.zip");
    let mut archive = zip::ZipWriter::new(fs::File::create(&path).unwrap());
    archive.start_file("../../outside", zip::write::SimpleFileOptions::default()).unwrap();
    archive.write_all(&prepared.good).unwrap();
    archive.finish().unwrap();
    restored(&restore(&prepared.node, path.to_str().unwrap(), &[]));
    assert!(!prepared.node.dir.path().parent().unwrap().join("outside").exists());
}

#[test]
fn too_little_room_and_a_read_only_disk_change_nothing() {
    let _timed = Timed::start();
    let etcd = Etcd::usual();
    let mut node = Node::new(&etcd);
    let Some(mount) = Mount::tmpfs(&node.data_dir, "size=700m,mode=700") else { return };
    node.start_ready();
    node.etcdctl(&["put", "a", "1"]);
    let snapshot = node.dir.path().join("snapshot");
    fs::copy(snapshot_dir(&node).join(save(&node)), &snapshot).unwrap();
    node.etcdctl(&["put", "b", "1"]);
    node.stop();
    let db = node.server_dir().join("db");
    let snapshot = snapshot.to_str().unwrap().to_owned();
    let ballast = node.data_dir.join("ballast");
    let fill = |leave: u64| {
        let found = nix::sys::statvfs::statvfs(&node.data_dir).unwrap();
        let free = found.blocks_available() * found.fragment_size();
        fs::write(&ballast, vec![1; usize::try_from(free - leave).unwrap()]).unwrap();
    };
    fill(100 << 20);
    let before = everything(&db);
    restore(&node, &snapshot, &[]).fails(Code::NoSpace, &["du -xsh"]);
    assert!(everything(&db) == before);
    fs::remove_file(&ballast).unwrap();
    mount.remount("ro");
    let ran = restore(&node, &snapshot, &[]);
    ran.fails(Code::ReadOnlyFileSystem, &[]);
    mount.remount("rw");
    assert!(everything(&db) == before);
    node.start_ready();
    assert_eq!(keys(&node), "a b");
    node.stop();
}

/// The disk is full in the middle of it: of building, of trying, of writing down.
#[test]
fn a_disk_that_fills_up_on_the_way_changes_nothing() {
    let _timed = Timed::start();
    let etcd = Etcd::usual();
    for (size, is_enough_to_begin) in [("330m", false), ("420m", true)] {
        let mut node = Node::new(&etcd);
        let Some(_mount) = Mount::tmpfs(&node.data_dir, &format!("size={size},mode=700")) else { return };
        node.start_ready();
        node.etcdctl(&["put", "a", "1"]);
        let snapshot = node.dir.path().join("snapshot");
        fs::copy(snapshot_dir(&node).join(save(&node)), &snapshot).unwrap();
        node.etcdctl(&["put", "b", "1"]);
        node.stop();
        let ran = restore(&node, snapshot.to_str().unwrap(), &[]);
        node.start_ready();
        let expected = if ran.code == Some(0) { "a" } else { "a b" };
        let is_refused = ran.error_code() == Some(Code::NoSpace);
        assert!(ran.code == Some(0) || is_enough_to_begin || is_refused, "{}", ran.err);
        assert_eq!(keys(&node), expected, "{}", ran.err);
        node.stop();
        crate::restore::left_nothing(&node);
    }
}

/// A file that only root may read, for another user.
#[test]
fn a_snapshot_that_may_not_be_read_changes_nothing() {
    use std::os::unix::process::CommandExt as _;
    let _timed = Timed::start();
    if !nix::unistd::geteuid().is_root() {
        return crate::kit::skip("only root can be another user");
    }
    let prepared = prepared();
    let node = &prepared.node;
    let private = prepared.file("private", &prepared.good);
    for (path, mode) in [(node.dir.path(), 0o755), (&private, 0o600)] {
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    }
    let given = std::process::Command::new("chown").args(["-R", "65534:65534"]).arg(&node.data_dir).status().unwrap();
    assert!(given.success());
    let before = everything(&node.server_dir().join("db"));
    let mut command = node.server_command();
    command.args(["--cluster-reset", &format!("--cluster-reset-restore-path={}", private.display())]);
    let ran = crate::kit::Ran::of(&command.uid(65534).gid(65534).output().unwrap());
    ran.fails(Code::PermissionDenied, &[private.to_str().unwrap()]);
    assert!(everything(&node.server_dir().join("db")) == before);
}

/// Data on which no etcd runs, for whatever reason, do not stay.
#[test]
fn data_that_no_etcd_runs_on_go_back() {
    let _timed = Timed::start();
    let mut prepared = prepared();
    let real = prepared.node.etcd.clone();
    let version = Etcd::usual().version();
    let says = "echo '{\"level\":\"fatal\",\"msg\":\"cannot\",\"error\":\"disk on fire\"}' >&2";
    prepared.node.etcd = Some(crate::kit::fake_etcd(prepared.node.dir.path(), &version, &format!("{says}; exit 3")));
    let before = everything(&prepared.node.etcd_dir());
    let ran = restore(&prepared.node, prepared.snapshot.to_str().unwrap(), &[]);
    ran.fails(Code::ResetRolledBack, &["exit code 3", "disk on fire"]);
    assert!(everything(&prepared.node.etcd_dir()) == before);
    crate::restore::left_nothing(&prepared.node);
    prepared.node.etcd = real;
    prepared.node.start_ready();
    assert_eq!(keys(&prepared.node).split(' ').count(), 200);
    prepared.node.stop();
}

#[test]
fn flags_that_contradict_each_other_are_usage_errors() {
    let node = Node::new(&Etcd::usual());
    node.run_server_with(&["--cluster-reset-restore-path=x"]).fails(Code::InvalidConfiguration, &["`cluster-reset`"]);
    node.run_server_with(&["--cluster-reset", "--undo-reset"]).fails(Code::Usage, &["--undo-reset"]);
    restore(&node, "s3://bucket", &[]).fails(Code::InvalidConfiguration, &["s3://BUCKET/KEY"]);
    restore(&node, "x", &["--cluster-reset-bump-revision=x"])
        .fails(Code::InvalidConfiguration, &["`cluster-reset-bump-revision`"]);
    assert!(!node.data_dir.exists());
}

/// A snapshot of a new cluster is good, and over data in use it is most likely a mistake (attack 2).
#[test]
fn an_empty_snapshot_is_restored_only_when_that_is_asked_for() {
    let _timed = Timed::start();
    let mut node = Node::new(&Etcd::usual());
    node.start_ready();
    let empty = snapshot_dir(&node).join(save(&node));
    node.etcdctl(&["put", "a", "1"]);
    node.stop();
    let empty = empty.to_str().unwrap();
    let verified = node.quorate(&["etcd-snapshot", "verify", "-o", "json", empty]);
    let verified: serde_json::Value = serde_json::from_str(verified.succeeds()).unwrap();
    assert_eq!((&verified["items"][0]["status"], &verified["items"][0]["keys"]), (&"good".into(), &0.into()));
    let before = everything(&node.etcd_dir());
    for more in [&["--dry-run"][..], &[]] {
        restore(&node, empty, more).fails(Code::SnapshotEmpty, &["--allow-empty"]);
    }
    assert!(everything(&node.etcd_dir()) == before);
    let out = node.dir.path().join("out");
    let args = ["etcd-snapshot", "restore", empty, "--data-dir-out", out.to_str().unwrap()];
    node.quorate(&args).fails(Code::SnapshotEmpty, &["--allow-empty"]);
    assert!(!out.exists());
    node.quorate(&[&args[..], &["--allow-empty"]].concat()).succeeds();
    assert!(out.join("member/snap/db").exists());
    restored(&restore(&node, empty, &["--allow-empty"]));
    node.start_ready();
    assert_eq!(keys(&node), "");
    node.stop();
}
