//! What is built, byte for byte against what etcd's own tools write.

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Command;

use quorate::boltdb::membership::Membership;
use quorate::boltdb::raft_snapshot;
use quorate::job::JobControl;
use quorate::recovery::build::{self, DataDirSpec};
use quorate::snapshot::file;
use quorate::snapshot::verify::{VerifyOptions, verify};
use quorate::version::Version;

use crate::kit::{Etcd, Timed};

struct Theirs {
    dir: PathBuf,
}

fn cluster(count: usize) -> Vec<(String, Vec<String>)> {
    (1..=count).map(|n| (format!("m{n}"), vec![format!("http://127.0.0.1:{}", 25_380 + n)])).collect()
}

/// The snapshot restored by etcdutl, or by etcdctl 3.4, for the last of `count` members.
fn theirs(etcd: &Etcd, snapshot: &Path, dir: &Path, count: usize, token: &str) -> Theirs {
    let tool = etcd.dir.join(if etcd.minor == "3.4" { "etcdctl" } else { "etcdutl" });
    let members = cluster(count);
    let initial: Vec<String> = members.iter().map(|(name, urls)| format!("{name}={}", urls[0])).collect();
    let (name, urls) = members.last().unwrap();
    let ran = Command::new(tool)
        .env("ETCDCTL_API", "3")
        .args(["snapshot", "restore", "--skip-hash-check", "--name", name])
        .arg(format!("--initial-cluster={}", initial.join(",")))
        .arg(format!("--initial-advertise-peer-urls={}", urls[0]))
        .arg(format!("--initial-cluster-token={token}"))
        .arg(format!("--data-dir={}", dir.display()))
        .arg(snapshot)
        .output()
        .unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    Theirs { dir: dir.to_path_buf() }
}

#[test]
fn logs_and_raft_snapshots_are_those_that_etcd_writes() {
    let _timed = Timed::start();
    for minor in ["3.4", "3.5", "3.6", "3.7"] {
        let Some(etcd) = Etcd::find(minor) else { continue };
        let target: Version = etcd.version().parse().unwrap();
        let seed = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/bolt").join(format!("etcd-{minor}"));
        for count in [1, 3, 12] {
            let dir = tempfile::tempdir().unwrap();
            let theirs = theirs(&etcd, &seed, &dir.path().join("theirs"), count, "some-token");
            let ours = dir.path().join("ours");
            let membership = Membership::new(&cluster(count), "some-token").unwrap();
            let name = format!("m{count}");
            let blueprint = DataDirSpec { name, membership: membership.clone(), target, raise: 0, allow_empty: false };
            let built =
                build::build(&file::open(&seed).unwrap(), &ours, &blueprint, &JobControl::default(), &mut |_, _| {})
                    .unwrap();
            let both = |path: &str| [&ours, &theirs.dir].map(|dir| fs::read(dir.join("member").join(path)).unwrap());
            let context = format!("etcd {target}, {count} members");
            let [log, expected] = both("wal/0000000000000000-0000000000000000.wal");
            // 3.4 says nothing of the voters at the end of its log, and 3.7's library for messages leaves out what is 0. Both read it.
            if ["3.5", "3.6"].contains(&minor) {
                assert!(log == expected, "the logs differ: {context}");
            }
            assert_eq!(log.len(), expected.len(), "{context}");
            let snap = format!("snap/{}", raft_snapshot::file_name(&membership));
            let [ours_snap, expected] = both(&snap);
            // From 3.6 on, the order of the old store's events is that of a map: another one each time.
            if ["3.4", "3.5"].contains(&minor) {
                assert!(ours_snap == expected, "the raft snapshots differ: {context}");
            }
            assert_eq!(raft_snapshot::decode(&ours_snap), raft_snapshot::decode(&expected), "{context}");
            // The databases hold the same, but for the marks that only quorate sets right.
            let demands = VerifyOptions { skip_hash: true };
            let [ours, expected] = [&ours, &theirs.dir].map(|dir| {
                verify(&dir.join("member/snap/db"), demands, &mut |_, _| ControlFlow::Continue(())).unwrap().inspection
            });
            assert_eq!(ours, built.inspection, "{context}");
            assert_eq!(
                (ours.hash_kv, ours.revision, ours.keys),
                (expected.hash_kv, expected.revision, expected.keys),
                "{context}"
            );
            assert_eq!(ours.consistent_index, u64::try_from(count).unwrap(), "{context}");
            assert_eq!(ours.members.len(), count, "{context}");
            if minor != "3.4" {
                // 3.4 leaves the members from before in.
                let mut expected = expected.members;
                expected.sort_unstable();
                let mut members = ours.members;
                members.sort_unstable();
                assert_eq!(members, expected, "{context}");
            }
        }
    }
}

/// A raised revision: the same key, mark and HashKV as those of etcdutl.
#[test]
fn a_raised_revision_is_as_etcdutl_raises_it() {
    let _timed = Timed::start();
    for minor in ["3.5", "3.6", "3.7"] {
        let Some(etcd) = Etcd::find(minor) else { continue };
        let seed = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/bolt").join(format!("etcd-{minor}"));
        let dir = tempfile::tempdir().unwrap();
        let theirs = dir.path().join("theirs");
        let ran = Command::new(etcd.dir.join("etcdutl"))
            .args(["snapshot", "restore", "--skip-hash-check", "--bump-revision=1000", "--mark-compacted", "--name=m1"])
            .args([
                "--initial-cluster=m1=http://127.0.0.1:25381",
                "--initial-advertise-peer-urls=http://127.0.0.1:25381",
            ])
            .arg(format!("--data-dir={}", theirs.display()))
            .arg(&seed)
            .output()
            .unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        let ours = dir.path().join("ours");
        let membership = Membership::new(&cluster(1), "etcd-cluster").unwrap();
        let target = etcd.version().parse().unwrap();
        let blueprint = DataDirSpec { name: "m1".into(), membership, target, raise: 1000, allow_empty: false };
        let built =
            build::build(&file::open(&seed).unwrap(), &ours, &blueprint, &JobControl::default(), &mut |_, _| {})
                .unwrap();
        assert_eq!(built.inspection.revision, built.revision_before + 1000);
        let demands = VerifyOptions { skip_hash: true };
        let [ours, expected] = [&ours, &theirs].map(|dir| {
            verify(&dir.join("member/snap/db"), demands, &mut |_, _| ControlFlow::Continue(())).unwrap().inspection
        });
        assert_eq!(
            (ours.hash_kv, ours.revision, ours.compact_revision, ours.keys),
            (expected.hash_kv, expected.revision, expected.compact_revision, expected.keys),
            "{minor}"
        );
    }
}
