//! `etcd-snapshot verify`: what it computes is what etcd computes, and what is broken is called so.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use quorate::error::Code;
use serde_json::Value;

use crate::kit::{Etcd, Node, Ran, Timed, executable};

crate::matrix!(agrees_with_etcd);

/// `verify` of a path, without any server.
fn verify(path: &Path, more: &[&str]) -> Ran {
    let mut command = Command::new(executable());
    command.args(["etcd-snapshot", "verify", "-o", "json"]).args(more).arg(path);
    command.args(["--data-dir", "/nonexistent"]);
    Ran::of(&command.output().unwrap())
}

fn item(ran: &Ran) -> Value {
    serde_json::from_str::<Value>(ran.succeeds()).unwrap()["items"][0].clone()
}

/// What the real `etcdctl snapshot status` says. That of 3.5 reads files of every version; 3.6 has it in etcdutl only.
pub fn status_by_etcd(path: &Path) -> Option<Value> {
    let etcdctl = Etcd::find("3.5")?.dir.join("etcdctl");
    let output =
        Command::new(etcdctl).args(["snapshot", "status", "-w", "json"]).arg(path).env("ETCDCTL_API", "3").output();
    serde_json::from_slice(&output.unwrap().stdout).ok()
}

mod cases {
    use super::*;

    pub fn agrees_with_etcd(etcd: &Etcd) {
        let mut node = Node::new(etcd);
        node.start_ready();
        let path = node.dir.path().join("s.db");
        let save = || {
            let _ = fs::remove_file(&path);
            node.etcdctl(&["snapshot", "save", path.to_str().unwrap()]);
        };
        let compare = |what: &str| {
            let against_live =
                || node.quorate(&["etcd-snapshot", "verify", "-o", "json", "--against-live", path.to_str().unwrap()]);
            let item = super::item(&super::verify(&path, &[]));
            if item["compact_revision"] == item["revision"] {
                // A member shows nothing of the revision that it compacted at.
                let ran = against_live();
                assert_eq!((ran.code, ran.error_code()), (Some(1), Some(Code::NotComparable)), "{what}: {ran:?}");
            } else {
                assert_eq!(super::item(&against_live())["same_as_live"], true, "{what}");
            }
            if let Some(status) = status_by_etcd(&path) {
                let hash = u32::from_str_radix(item["hash"].as_str().unwrap(), 16).unwrap();
                assert_eq!(status["hash"], hash, "{what}");
                // Of a keyspace without a record, snapshot status says 0; a member says what it is.
                if status["revision"] != 0 {
                    assert_eq!(status["revision"], item["revision"], "{what}");
                }
                assert_eq!(status["totalKey"], item["total_keys"], "{what}");
            }
            assert_eq!(item["size"], fs::metadata(&path).unwrap().len());
            item
        };
        // Nothing but what every cluster has.
        save();
        assert_eq!(compare("an empty keyspace")["keys"], 0);

        let runtime = tokio::runtime::Runtime::new().unwrap();
        let (revision, count) = runtime.block_on(async {
            let mut client = node.access().client().await;
            let lease = client.lease_grant(3600, None).await.unwrap().id();
            for number in 0..600u32 {
                let options = (number % 7 == 0).then(|| etcd_client::PutOptions::new().with_lease(lease));
                let value = "v".repeat(usize::try_from(number % 50 * 20).unwrap());
                client.put(format!("k/{:03}", number % 200), value, options).await.unwrap();
                if number % 11 == 0 {
                    client.delete(format!("k/{:03}", number % 200), None).await.unwrap();
                }
            }
            let all = client.get("k", Some(etcd_client::GetOptions::new().with_prefix())).await.unwrap();
            (all.header().unwrap().revision(), all.count())
        });
        save();
        let full = compare("updates, deletions and leases");
        assert_eq!(full["revision"], revision);
        assert_eq!(full["keys"], count);
        assert_eq!(full["leases"], 1);

        // Compacted in the middle, at a deletion, at the end.
        for revision in [revision - 300, revision - 12, revision] {
            node.etcdctl(&["compact", &revision.to_string(), "--physical"]);
            save();
            let item = compare(&format!("compacted up to {revision}"));
            assert_eq!(item["compact_revision"], revision);
            assert_eq!(item["keys"], count);
        }
        node.etcdctl(&["put", "after", "compaction"]);
        save();
        compare("a change after the compaction");
        node.etcdctl(&["put", "not", "in it"]);
        // Still comparable: at its revision the live member has the same.
        compare("a change after the snapshot");
        // Deleted altogether.
        node.etcdctl(&["del", "", "--prefix"]);
        let last = node.status_json()["member"]["revision"].as_i64().unwrap() + 1;
        let _ = node.quorate(&["etcdctl", "--", "compact", &last.to_string(), "--physical"]);
        save();
        assert_eq!(compare("no key is left")["keys"], 0);

        // A snapshot of other data is whole, and not this member's.
        let mut other = Node::new(etcd);
        other.start_ready();
        for number in 0..1000 {
            if other.status_json()["member"]["revision"].as_i64().unwrap() >= last {
                break;
            }
            other.etcdctl(&["put", "x", &number.to_string()]);
            if number == 3 {
                break;
            }
        }
        let ran = other.quorate(&["etcd-snapshot", "verify", "--against-live", path.to_str().unwrap()]);
        assert_eq!(ran.code, Some(1), "{ran:?}");
        assert!(matches!(ran.error_code(), Some(Code::NotComparable | Code::LiveMemberDiffers)), "{}", ran.err);
        other.stop();
        node.stop();
    }
}

/// A good snapshot of some size, made once for the tests that break it.
fn good(dir: &Path) -> PathBuf {
    let etcd = Etcd::usual();
    let mut node = Node::new(&etcd);
    node.start_ready();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let mut client = node.access().client().await;
        for number in 0..400 {
            client.put(format!("key-{number:04}"), "x".repeat(200), None).await.unwrap();
        }
    });
    let path = dir.join("good.db");
    node.etcdctl(&["snapshot", "save", path.to_str().unwrap()]);
    node.stop();
    path
}

#[test]
fn every_kind_of_damage_is_found() {
    let _timed = Timed::start();
    let dir = tempfile::tempdir().unwrap();
    let good = good(dir.path());
    let bytes = fs::read(&good).unwrap();
    assert_eq!(item(&verify(&good, &[]))["status"], "good");
    let broken = |name: &str, bytes: &[u8]| broken(dir.path(), name, bytes);
    let flipped = |at: usize| {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1;
        bytes
    };
    let database = bytes.len() - 32;
    // A bit in each region: both heads, the middle of every page, the hash.
    let mut places: Vec<usize> = vec![20, 60, 4096 + 20, 4096 + 60, database, bytes.len() - 1];
    places.extend((2..database / 4096).map(|page| page * 4096 + 2048));
    for at in places {
        verify(&broken("flipped", &flipped(at)), &[])
            .fails(Code::SnapshotCorrupt, &["byte", "quorate etcd-snapshot ls"]);
    }
    for (name, content, code, command) in [
        ("no-trailer", &bytes[..database], Code::SnapshotUnhashed, "--skip-hash-check"),
        ("half-trailer", &bytes[..database + 16], Code::SnapshotUnhashed, ""),
        ("half", &bytes[..database / 2 / 4096 * 4096 + 32], Code::SnapshotCorrupt, "quorate etcd-snapshot ls"),
        ("odd", &bytes[..database - 100], Code::SnapshotCorrupt, "quorate etcd-snapshot ls"),
        ("empty", b"", Code::SnapshotUnhashed, ""),
        ("text", b"hello", Code::SnapshotUnhashed, ""),
    ] {
        verify(&broken(name, content), &[]).fails(code, &[name, command]);
    }
    // A plain copy of the database is structurally checked.
    item(&verify(&broken("plain", &bytes[..database]), &["--skip-hash-check"]));
    let mut cut = bytes[..database].to_vec();
    cut[3 * 4096..4 * 4096].fill(0);
    verify(&broken("zeroed", &cut), &["--skip-hash-check"]).fails(Code::SnapshotCorrupt, &["byte"]);
    verify(&dir.path().join("missing"), &[]).fails(Code::SnapshotNotFound, &["missing"]);
    verify(dir.path(), &[]).fails(Code::ReadFailed, &["regular file"]);
    // Hash and structure get apart: a right hash over wrong pages.
    let mut wrong = bytes[..database].to_vec();
    wrong[5 * 4096] ^= 1;
    let digest = sha256(&wrong);
    wrong.extend(digest);
    let ran = verify(&broken("rehashed", &wrong), &[]);
    assert!(ran.code == Some(0) || ran.error_code() == Some(Code::SnapshotCorrupt), "{ran:?}");
    assert!(ran.code == Some(0) || ran.err.contains("SHA-256"), "{ran:?}");
}

fn broken(dir: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, bytes).unwrap();
    path
}

fn sha256(bytes: &[u8]) -> Vec<u8> {
    aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes).as_ref().to_vec()
}

#[test]
fn archives_are_read_by_content_and_bounded() {
    use std::io::Write as _;
    let _timed = Timed::start();
    let dir = tempfile::tempdir().unwrap();
    let good = good(dir.path());
    let bytes = fs::read(&good).unwrap();
    let expected = item(&verify(&good, &[]));
    let zip = |name: &str, entries: &[(&str, &[u8])]| {
        let path = dir.path().join(name);
        let mut writer = zip::ZipWriter::new(fs::File::create(&path).unwrap());
        for (name, content) in entries {
            writer.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
            writer.write_all(content).unwrap();
        }
        writer.finish().unwrap();
        path
    };
    let zst = dir.path().join("named.zip");
    fs::write(&zst, zstd::bulk::compress(&bytes, 3).unwrap()).unwrap();
    let with_state = zip("rke1", &[("backup/one", &bytes), ("backup/one.rkestate", b"{}")]);
    let hostile_name = zip("traversal", &[("../../../../tmp/quorate-was-here", &bytes)]);
    for (path, compression) in [(&zst, "zstd"), (&with_state, "zip"), (&hostile_name, "zip")] {
        let item = item(&verify(path, &[]));
        assert_eq!(
            (&item["hash"], &item["revision"], &item["keys"]),
            (&expected["hash"], &expected["revision"], &expected["keys"])
        );
        assert_eq!(item["compression"], compression);
    }
    assert!(!Path::new("/tmp/quorate-was-here").exists());
    verify(&zip("two", &[("one", &bytes), ("two", &bytes)]), &[]).fails(Code::ArchiveInvalid, &["2 files"]);
    // attack 11: readers differ in which of the two counts.
    let mut twice = fs::read(zip("twice", &[("one", b"garbage"), ("two", &bytes)])).unwrap();
    let names: Vec<usize> = (0..twice.len() - 3).filter(|at| twice[*at..].starts_with(b"two")).collect();
    for at in names {
        twice[at..at + 3].copy_from_slice(b"one");
    }
    verify(&broken(dir.path(), "twice", &twice), &[]).fails(Code::ArchiveInvalid, &["two entries"]);
    let hidden =
        [zip("hidden", &[("one", &bytes)]), zip("listed", &[("two", &bytes)])].map(|path| fs::read(path).unwrap());
    verify(&broken(dir.path(), "hidden", &hidden.concat()), &[]).fails(Code::ArchiveInvalid, &["directory"]);
    let many: Vec<(String, &[u8])> = (0..2000).map(|number| (format!("{number}.rkestate"), &b"{}"[..])).collect();
    let many: Vec<(&str, &[u8])> = many.iter().map(|(name, content)| (name.as_str(), *content)).collect();
    verify(&zip("many", &many), &[]).fails(Code::ArchiveInvalid, &["entries"]);
    verify(&zip("none", &[("one.rkestate", b"{}")]), &[]).fails(Code::ArchiveInvalid, &["database"]);
    verify(&zip("nonsense", &[("one", b"hello")]), &[]).fails(Code::SnapshotUnhashed, &["SHA-256"]);
    for (path, name) in [(&zst, "cut.zst"), (&with_state, "cut.zip")] {
        let packed = fs::read(path).unwrap();
        let cut = dir.path().join(name);
        fs::write(&cut, &packed[..packed.len() * 2 / 3]).unwrap();
        verify(&cut, &[]).fails(Code::ArchiveInvalid, &[]);
        // A bit in the middle: the archive's own checksum, or the snapshot's.
        let mut flipped = packed.clone();
        flipped[packed.len() / 2] ^= 1;
        fs::write(&cut, flipped).unwrap();
        let ran = verify(&cut, &[]);
        assert!(matches!(ran.error_code(), Some(Code::SnapshotCorrupt | Code::ArchiveInvalid)), "{ran:#?}");
        assert_eq!(ran.code, Some(1));
    }
    // Nothing is left behind, whatever happened.
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().starts_with('.')), "{left:?}");
}
