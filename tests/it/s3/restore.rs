//! Restoring from the bucket: which snapshot is meant, what is interrupted and resumed, and what must not be trusted.

use std::fs;

use quorate::error::Code;

use crate::kit::s3::{Fault, Seen, Store};
use crate::kit::{Etcd, Node, Timed, eventually};
use crate::s3::basic::{fill, name_of, restore, save};

/// A request for some of the snapshot itself.
fn is_part(seen: &Seen) -> bool {
    seen.method == "GET" && seen.path.starts_with("/backups/prod/on-demand-node-")
}

/// A server with a snapshot of some megabytes in both places, stopped.
fn saved(store: &Store, more: &str) -> (Node, String) {
    let mut node = Node::new(&Etcd::usual()).config(&format!("{}{more}", store.config()));
    node.start_ready();
    fill(&node, 200, |number| {
        (0..100_000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> (number % 24)).to_le_bytes()[0]).collect()
    });
    let item = save(&node, &[]);
    node.stop();
    (node, name_of(&item))
}

#[test]
fn a_name_in_two_places_is_one_snapshot_or_a_question() {
    let _timed = Timed::start();
    let store = Store::start();
    let (node, name) = saved(&store, "");
    store.seen();
    let ran = restore(&node, &name, &["--dry-run"]);
    assert!(ran.succeeds().contains("db/snapshots/on-demand-node-"), "the one on this node: {}", ran.out);
    assert!(
        !store.seen().iter().any(|seen| seen.method == "GET" && seen.path.ends_with(&name)),
        "it was not downloaded"
    );
    // The command line means S3; the file only configures it.
    let ran = restore(&node, &name, &["--dry-run", "--etcd-s3"]);
    let said = ran.succeeds().split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(said.contains(&format!("s3://backups/prod/{name}")), "{said}");
    let ran = restore(&node, &format!("s3://backups/prod/{name}"), &["--dry-run"]);
    assert!(ran.succeeds().contains("s3://backups/prod/on-demand"), "{}", ran.out);
    // Another one under the same name.
    let path = node.server_dir().join("db/snapshots").join(&name);
    let other = fs::read(&path).unwrap();
    fs::write(store.path(&format!("prod/{name}")), [&other[..], &[0]].concat()).unwrap();
    restore(&node, &name, &[]).fails(Code::SnapshotAmbiguous, &["db/snapshots/", "s3://backups/prod/"]);
    // Copied there by hand, nothing identifies it but the snapshot itself.
    let by_hand = path.with_file_name("by-hand");
    fs::write(&by_hand, &other).unwrap();
    fs::write(store.path("prod/by-hand"), &other).unwrap();
    assert!(restore(&node, "by-hand", &["--dry-run"]).succeeds().contains("db/snapshots/by-hand"));
    let mut changed = other.clone();
    changed[100_000] ^= 1;
    fs::write(store.path("prod/by-hand"), &changed).unwrap();
    restore(&node, "by-hand", &["--dry-run"]).fails(Code::SnapshotAmbiguous, &["by-hand"]);
    restore(&node, "no-such", &[]).fails(Code::SnapshotNotFound, &["no-such"]);
    restore(&node, "s3://backups/prod/no-such", &[])
        .fails(Code::SnapshotNotFound, &["no-such", "s3://backups/prod/", "ls --s3"]);
    restore(&node, "s3://backups", &[]).fails(Code::InvalidConfiguration, &["s3://BUCKET/KEY"]);
}

#[test]
fn an_interrupted_download_resumes() {
    let _timed = Timed::start();
    let store = Store::start();
    let (mut node, name) = saved(&store, "");
    let url = format!("s3://backups/prod/{name}");
    fs::remove_dir_all(node.server_dir().join("db/etcd")).unwrap();
    // Two parts are cut off in their middle; each goes on from there.
    store.inject(Fault::CutOff(1 << 20), 0, 2, is_part);
    store.inject(Fault::Close, 1, 1, is_part);
    store.inject(Fault::Answer(503, "SlowDown", "Please reduce your request rate.", vec![]), 2, 1, is_part);
    // And then it ends, with some of it here.
    store.inject(Fault::Answer(403, "AccessDenied", "Access Denied", vec![]), 1, usize::MAX, is_part);
    restore(&node, &url, &[]).fails(Code::S3AccessDenied, &["AccessDenied"]);
    let partial = node.server_dir().join("db/download").join(format!("{name}.partial"));
    assert!(partial.exists());
    assert!(!node.etcd_dir().join("member").exists());
    store.heal();
    store.seen();
    restore(&node, &url, &[]).succeeds();
    let parts = store.seen().into_iter().filter(is_part).count();
    assert!(parts < 3, "{parts} parts came again");
    assert!(!node.server_dir().join("db/download").exists());
    node.start_ready();
    assert_eq!(
        node.etcdctl(&["get", "fill/", "--prefix", "--count-only", "-w", "fields"]).matches("\"Count\" : 200").count(),
        1
    );
    node.stop();
}

#[test]
fn what_came_whole_need_not_come_again_when_the_next_step_fails() {
    let _timed = Timed::start();
    let store = Store::start();
    let (mut node, name) = saved(&store, "");
    let url = format!("s3://backups/prod/{name}");
    let fail = |node: &mut Node| {
        node.env = vec![("FAILPOINTS".into(), "restore::copy=return(enospc)".into())];
        restore(node, &url, &[]).fails(Code::NoSpace, &[]);
        node.env.clear();
        store.seen();
    };
    let here = node.server_dir().join("db/download").join(&name);
    fail(&mut node);
    assert!(here.exists());
    restore(&node, &url, &["--dry-run"]).succeeds();
    store.seen();
    restore(&node, &url, &[]).succeeds();
    assert_eq!(store.seen().into_iter().filter(is_part).count(), 0, "it was here");
    assert!(!here.exists());
    node.start_ready();
    node.stop();
    // Not if the disk has spoiled it meanwhile.
    fail(&mut node);
    let mut content = fs::read(&here).unwrap();
    content[100_000] ^= 1;
    fs::write(&here, content).unwrap();
    restore(&node, &url, &[]).succeeds();
    assert!(store.seen().into_iter().filter(is_part).count() > 0, "it came again");
    node.start_ready();
    node.stop();
    // What is corrupt is called what the operator knows.
    let mut content = fs::read(store.path(&format!("prod/{name}"))).unwrap();
    content[100_000] ^= 1;
    fs::write(store.path("prod/by-hand"), content).unwrap();
    let ran = restore(&node, "s3://backups/prod/by-hand", &[]);
    ran.fails(Code::SnapshotCorrupt, &["s3://backups/prod/by-hand"]);
    assert!(!ran.err.contains("db/download"), "{}", ran.err);
    node.start_ready();
    node.stop();
}

#[test]
fn a_launcher_that_is_killed_in_a_download_leaves_nothing_after_the_next_start() {
    let _timed = Timed::start();
    let store = Store::start();
    let (mut node, name) = saved(&store, "");
    store.inject(Fault::Silence, 1, usize::MAX, is_part);
    let mut command = node.server_command();
    command.args(["--cluster-reset", &format!("--cluster-reset-restore-path=s3://backups/prod/{name}")]);
    let mut reset = command.stderr(std::process::Stdio::null()).spawn().unwrap();
    let downloads = node.server_dir().join("db/download");
    eventually("a download to begin", || downloads.exists().then_some(()));
    reset.kill().unwrap();
    reset.wait().unwrap();
    node.start_ready();
    assert!(!downloads.exists(), "removed at the next start");
    assert_eq!(
        node.etcdctl(&["get", "fill/", "--prefix", "--count-only", "-w", "fields"]).matches("\"Count\" : 200").count(),
        1
    );
    node.stop();
}

#[test]
fn what_is_not_what_was_uploaded_is_not_restored() {
    let _timed = Timed::start();
    let store = Store::start();
    let (mut node, name) = saved(&store, "");
    let url = format!("s3://backups/prod/{name}");
    // Changed on the way.
    store.inject(Fault::Change(500_000), 0, 1, is_part);
    restore(&node, &url, &[]).fails(Code::S3ChecksumMismatch, &["CRC-64/NVME"]);
    store.heal();
    // Gone between a look and the download.
    store.inject(Fault::Answer(404, "NoSuchKey", "The specified key does not exist.", vec![]), 0, usize::MAX, is_part);
    restore(&node, &url, &[]).fails(Code::S3ObjectNotFound, &["NoSuchKey"]);
    store.heal();
    // Replaced between a look and the download.
    store.inject(
        Fault::Answer(412, "PreconditionFailed", "At least one precondition did not hold.", vec![]),
        0,
        usize::MAX,
        is_part,
    );
    restore(&node, &url, &[]).fails(Code::S3ObjectReplaced, &[&url]);
    store.heal();
    // Another region: a HEAD says it in a header only.
    let elsewhere = Fault::Answer(301, "", "", vec![("x-amz-bucket-region", "eu-west-1")]);
    store.inject(elsewhere, 0, usize::MAX, |_| true);
    restore(&node, &url, &[]).fails(Code::S3WrongRegion, &["eu-west-1", "etcd-s3-region"]);
    store.heal();
    // Silence, and a byte a second.
    for fault in [Fault::Silence, Fault::Drip] {
        store.inject(fault, 0, usize::MAX, is_part);
        restore(&node, &url, &["--etcd-s3-timeout=1s"]).fails(Code::S3Timeout, &["etcd-s3-endpoint"]);
        store.heal();
    }
    node.start_ready();
    assert_eq!(
        node.etcdctl(&["get", "fill/", "--prefix", "--count-only", "-w", "fields"]).matches("\"Count\" : 200").count(),
        1
    );
    node.stop();
}

/// ux F4: the whole data directory was lost, and a start silently began an empty cluster next to six snapshots of this server.
#[test]
fn a_server_without_data_refuses_to_start_if_the_bucket_has_its_snapshots() {
    let _timed = Timed::start();
    let store = Store::start();
    let (mut node, name) = saved(&store, "");
    fs::remove_dir_all(&node.data_dir).unwrap();
    node.run_server().fails(
        Code::SnapshotsExist,
        &[&format!("--cluster-reset-restore-path={name}"), "s3://backups/prod/", "--new-cluster"],
    );
    // Snapshots of another server in the same bucket are no obstacle.
    let mut other = Node::new(&Etcd::usual()).config(&store.config()).arg("--node-name=other");
    other.start_ready();
    other.stop();
    restore(&node, &name, &[]).succeeds();
    node.start_ready();
    node.stop();
    fs::remove_dir_all(&node.data_dir).unwrap();
    node.args.push("--new-cluster".into());
    node.start_ready();
    node.stop();
}
