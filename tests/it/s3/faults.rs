//! What may go wrong with an upload: one clear message each, the snapshot safe on its node, and another attempt until it is there.

use std::fs;

use quorate::error::Code;
use serde_json::Value;

use crate::kit::s3::{Fault, Store};
use crate::kit::{Etcd, Node, Ran, Timed, eventually, files_under};
use crate::s3::basic::{fill, is_upload, killed_in_an_upload, list, name_of, plain, restore, save, started};

fn try_to_save(node: &Node, args: &[&str]) -> Ran {
    node.quorate(&[&["etcd-snapshot", "save"], args].concat())
}

fn pending(node: &Node) -> Vec<Value> {
    node.status_json()["snapshots"]["s3"]["pending"].as_array().unwrap().clone()
}

/// The snapshot is on the node and good; it is uploaded in the end, and is good there.
fn settled(store: &Store, node: &Node, count: usize) {
    assert_eq!(list(node, &["--local"]).len(), count);
    eventually("the upload to succeed", || pending(node).is_empty().then_some(()));
    let there = list(node, &["--s3"]);
    assert_eq!(there.len(), count, "{there:?}");
    assert!(there.iter().all(|item| item["status"] == "good"), "{there:?}");
    let uploads = files_under(store.root.path()).into_iter().filter(|path| path.to_string_lossy().contains(".upload"));
    assert_eq!(uploads.count(), 0, "no upload in parts is left");
}

/// The same page again and again, pages with nothing on them, new ones for ever.
#[test]
fn a_listing_without_end_ends() {
    let _timed = Timed::start();
    let store = Store::start();
    let node = Node::new(&Etcd::usual()).config(&store.config());
    for fault in [Fault::Page(1, Some("again")), Fault::Page(0, None), Fault::Page(1, None)] {
        store.heal();
        store.inject(fault, 0, usize::MAX, |seen| seen.query.contains("list-type=2"));
        node.quorate(&["etcd-snapshot", "ls", "--s3"]).fails(Code::S3Unsupported, &["s3://backups/prod/"]);
    }
}

/// What a store says of its region is advice that is typed into a shell.
#[test]
fn a_region_that_cannot_be_one_is_not_advised() {
    let _timed = Timed::start();
    let store = Store::start();
    let node = Node::new(&Etcd::usual()).config(&store.config());
    for (region, is_advised) in [("eu-west-1", true), ("x; rm -rf /", false), ("$(id)", false)] {
        store.heal();
        let answer = Fault::Answer(301, "PermanentRedirect", "elsewhere", vec![("x-amz-bucket-region", region)]);
        store.inject(answer, 0, usize::MAX, |_| true);
        let ran = node.quorate(&["etcd-snapshot", "ls", "--s3"]);
        ran.fails(Code::S3WrongRegion, &["etcd-s3-region"]);
        assert_eq!(ran.err.contains(region), is_advised, "{}", ran.err);
    }
}

#[test]
fn a_burst_of_errors_is_waited_out() {
    let _timed = Timed::start();
    let store = Store::start();
    let mut node = started(&store, "");
    fill(&node, 200, plain);
    store.inject(Fault::Answer(503, "SlowDown", "Please reduce your request rate.", vec![]), 0, 2, is_upload);
    store.inject(Fault::Answer(500, "InternalError", "We encountered an internal error.", vec![]), 1, 1, is_upload);
    store.inject(Fault::Close, 2, 1, is_upload);
    let ran = try_to_save(&node, &[]);
    ran.succeeds();
    settled(&store, &node, 1);
    node.stop();
}

#[test]
fn a_refused_upload_is_said_queued_and_done_later_also_across_a_restart() {
    let _timed = Timed::start();
    let store = Store::start();
    let mut node = started(&store, "");
    store.inject(Fault::Answer(403, "AccessDenied", "Access Denied", vec![]), 0, usize::MAX, is_upload);
    let ran = try_to_save(&node, &["-o", "json"]);
    ran.fails(Code::UploadPending, &["s3://backups/prod/", "AccessDenied"]);
    let item: Value = serde_json::from_str(&ran.out).unwrap();
    assert!(item["location"].as_str().unwrap().starts_with("file://") && item["uploaded_to"].is_null(), "{item}");
    assert_eq!(list(&node, &["--s3"]).len(), 0, "nothing is said to be there");
    eventually("another attempt", || (pending(&node)[0]["failures"].as_u64() >= Some(2)).then_some(()));
    let table = node.quorate(&["status"]).out;
    assert!(table.contains("AccessDenied"), "{table}");
    assert!(table.lines().all(|line| line.chars().count() <= 80), "{table}");
    assert!(!table.contains('?'), "{table}");
    let (_, metrics) = crate::kit::http_get(node.ports.metrics(), "/metrics");
    for line in [
        "quorate_etcd_snapshot_uploads_pending 1.0",
        "quorate_etcd_snapshot_save_s3_duration_seconds_count{status=\"error\"}",
    ] {
        assert!(metrics.contains(line), "no `{line}` in\n{metrics}");
    }
    node.kill_launcher();
    store.heal();
    node.start_ready();
    settled(&store, &node, 1);
    assert_eq!(node.count_events("snapshot-uploaded"), 1);
    node.stop();
}

#[test]
fn what_is_pruned_before_it_was_uploaded_is_not_waited_for() {
    let _timed = Timed::start();
    let store = Store::start();
    let mut node = started(&store, "");
    store.inject(Fault::Answer(403, "AccessDenied", "Access Denied", vec![]), 0, usize::MAX, is_upload);
    try_to_save(&node, &[]).fails(Code::UploadPending, &["AccessDenied"]);
    let name = list(&node, &["--local"])[0]["name"].as_str().unwrap().to_owned();
    node.quorate(&["etcd-snapshot", "delete", "--local", "--force", &name]).succeeds();
    // At once (ux F23).
    assert!(pending(&node).is_empty());
    node.wait_code(Code::UploadSourceMissing, &[&name]);
    node.stop();
}

#[test]
fn a_store_that_keeps_less_than_it_says_is_not_believed() {
    let _timed = Timed::start();
    let store = Store::start();
    let mut node = started(&store, "");
    store.inject(Fault::KeepLess, 0, 1, is_upload);
    try_to_save(&node, &[]).fails(Code::UploadPending, &["s3://backups/prod/"]);
    node.wait_code(Code::UploadPending, &["cause=s3-checksum-mismatch"]);
    settled(&store, &node, 1);
    node.stop();
}

#[test]
fn an_object_without_a_checksum_is_read_back() {
    let _timed = Timed::start();
    let store = Store::start();
    // Encrypted with the store's key, its ETags are no MD5s: as if it was, here.
    let mut node = started(&store, "etcd-snapshot-compress: zstd\n");
    store.inject(Fault::NoEtag, 0, usize::MAX, |seen| seen.method == "HEAD");
    store.seen();
    save(&node, &[]);
    assert!(store.seen().iter().any(|seen| seen.method == "GET" && seen.path.contains("/prod/on-demand-node-")));
    store.inject(Fault::Change(300), 0, 1, |seen| {
        seen.method == "GET" && seen.path.starts_with("/backups/prod/on-demand-node-")
    });
    try_to_save(&node, &[]).fails(Code::UploadPending, &["s3://backups/prod/"]);
    node.wait_code(Code::UploadPending, &["cause=s3-checksum-mismatch"]);
    node.stop();
}

#[test]
fn a_stalled_transfer_times_out() {
    let _timed = Timed::start();
    let store = Store::start();
    let mut node = started(&store, "");
    store.inject(Fault::Silence, 0, 4, is_upload);
    try_to_save(&node, &["--s3-timeout=1s"]).fails(Code::UploadPending, &[]);
    node.wait_code(Code::UploadPending, &["cause=s3-timeout"]);
    settled(&store, &node, 1);
    // Asked to slow down, it is not silence, however short the time-out.
    store.inject(Fault::Answer(503, "SlowDown", "Please reduce your request rate.", vec![]), 0, usize::MAX, is_upload);
    try_to_save(&node, &["--s3-timeout=1s"]).fails(Code::UploadPending, &["SlowDown"]);
    node.wait_code(Code::UploadPending, &["cause=s3-throttled"]);
    store.heal();
    settled(&store, &node, 2);
    // What arrives a byte a second makes no progress either; what is slow, but makes progress, may take its time.
    fill(&node, 200, plain);
    store.sip(100_000);
    let ran = try_to_save(&node, &["--s3-timeout=1s"]);
    ran.fails(Code::UploadPending, &[]);
    let name = pending(&node)[0]["name"].as_str().unwrap().to_owned();
    node.wait_code(Code::UploadPending, &[&name, "cause=s3-timeout"]);
    assert_eq!(pending(&node).len(), 1);
    store.heal();
    settled(&store, &node, 3);
    node.stop();
}

#[test]
fn a_killed_upload_is_aborted_and_repeated() {
    let _timed = Timed::start();
    let store = Store::start();
    let mut node = started(&store, "");
    killed_in_an_upload(&store, &mut node);
    store.seen();
    node.start_ready();
    settled(&store, &node, 1);
    let aborted = store.seen().iter().any(|seen| seen.is("DELETE", "uploadId="));
    assert!(aborted, "the upload that was begun is aborted");
    // Nothing of it is in the snapshots either.
    let left: Vec<_> = fs::read_dir(node.server_dir().join("db/snapshots")).unwrap().collect();
    assert_eq!(left.len(), 2, "a snapshot, and the manifests");
    node.stop();
}

#[test]
fn credentials_that_expire_in_an_upload_are_said() {
    let _timed = Timed::start();
    let store = Store::start();
    let mut node = started(&store, "");
    fill(&node, 200, plain);
    let expired = Fault::Answer(400, "ExpiredToken", "The provided token has expired.", vec![]);
    store.inject(expired, 1, usize::MAX, is_upload);
    try_to_save(&node, &[]).fails(Code::UploadPending, &[]);
    node.wait_code(Code::UploadPending, &["cause=s3-credentials-expired"]);
    store.heal();
    settled(&store, &node, 1);
    node.stop();
}

#[test]
fn a_scheduled_upload_that_fails_runs_the_command() {
    let _timed = Timed::start();
    let store = Store::start();
    let node_dir = tempfile::Builder::new().prefix("quorate-test-").tempdir().unwrap();
    let said = node_dir.path().join("said");
    let more = format!("etcd-snapshot-on-failure: printf %s \"$QUORATE_SNAPSHOT_ERROR\" > {}\n", said.display());
    let mut node = started(&store, &more);
    store.inject(Fault::Answer(403, "AccessDenied", "Access Denied", vec![]), 0, usize::MAX, is_upload);
    try_to_save(&node, &[]).fails(Code::UploadPending, &[]);
    eventually("the command to be run", || fs::read_to_string(&said).ok().filter(|said| said.contains("AccessDenied")));
    node.stop();
}

#[test]
fn encryption_class_and_session_are_sent_to_the_store() {
    let _timed = Timed::start();
    let store = Store::start();
    let dir = tempfile::Builder::new().prefix("quorate-test-").tempdir().unwrap();
    let key = dir.path().join("key");
    fs::write(&key, [7; 32]).unwrap();
    fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let mut node = started(&store, "");
    // This store knows none of it: what matters is what it is reported.
    store.inject(Fault::Answer(400, "InvalidRequest", "as the test wants it", vec![]), 0, usize::MAX, is_upload);
    let customer = format!("--s3-sse=sse-c:{}", key.display());
    for (more, header, value) in [
        (&["--s3-sse=AES256"][..], "x-amz-server-side-encryption", "AES256"),
        (&["--s3-sse=aws:kms"], "x-amz-server-side-encryption", "aws:kms"),
        (&["--s3-sse=aws:kms:my-key"], "x-amz-server-side-encryption-aws-kms-key-id", "my-key"),
        (&[&customer], "x-amz-server-side-encryption-customer-key", "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc="),
        (&[&customer], "x-amz-server-side-encryption-customer-algorithm", "AES256"),
        (&["--s3-storage-class=STANDARD_IA"], "x-amz-storage-class", "STANDARD_IA"),
        (
            &["--s3-access-key=QUORATETESTKEY", "--s3-secret-key=s", "--s3-session-token=t0k3n"],
            "x-amz-security-token",
            "t0k3n",
        ),
    ] {
        store.seen();
        try_to_save(&node, more).fails(Code::UploadPending, &[]);
        let report = store
            .seen()
            .into_iter()
            .filter(is_upload)
            .any(|seen| seen.headers.get(header).is_some_and(|found| found == value));
        assert!(report, "{more:?}: {header} is not {value}");
    }
    assert!(!node.log().contains("t0k3n"));
    node.stop();
}

#[test]
fn what_is_encrypted_with_a_key_of_ours_comes_back_with_it_and_without_it_not() {
    let _timed = Timed::start();
    let store = Store::start();
    let dir = tempfile::Builder::new().prefix("quorate-test-").tempdir().unwrap();
    let [key, other] = [7, 8].map(|byte| {
        let path = dir.path().join(format!("key-{byte}"));
        fs::write(&path, [byte; 32]).unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        path.display().to_string()
    });
    let mut node = started(&store, &format!("etcd-s3-sse: sse-c:{key}\n"));
    let small = name_of(&save(&node, &[]));
    fill(&node, 200, plain);
    let in_parts = name_of(&save(&node, &[]));
    let ran = node.quorate(&["etcd-snapshot", "verify", "--s3", "--all"]);
    assert_eq!(ran.succeeds().matches(": good").count(), 2, "{}", ran.out);
    assert!(list(&node, &["--s3"]).iter().all(|item| item["status"] == "good"));
    node.quorate(&["etcd-snapshot", "s3-check"]).succeeds();
    node.stop();
    // Without the key nothing is known of them but that they are there, and nothing is read.
    let changed = format!("--s3-sse=sse-c:{other}");
    fs::remove_dir_all(node.server_dir().join("cache")).unwrap();
    assert!(list(&node, &["--s3", &changed]).iter().all(|item| item["status"] == "unreadable"));
    node.quorate(&["etcd-snapshot", "verify", "--s3", &changed, &small]).fails(Code::S3RequestFailed, &["400"]);
    let url = format!("s3://backups/prod/{in_parts}");
    restore(&node, &url, &[&format!("--etcd-s3-sse=sse-c:{other}")]).fails(Code::S3RequestFailed, &["400"]);
    restore(&node, &url, &[]).succeeds();
    node.start_ready();
    assert_eq!(node.etcdctl(&["get", "a", "--print-value-only"]).trim(), "1");
    node.stop();
}

#[test]
fn an_upload_interrupted_by_a_stop_continues_at_the_next_start() {
    let _timed = Timed::start();
    let store = Store::start();
    let mut node = started(&store, "");
    store.inject(Fault::Silence, 0, usize::MAX, is_upload);
    let mut command = std::process::Command::new(&node.executable);
    command.args(["etcd-snapshot", "save", "--s3-timeout=20s", "--data-dir"]).arg(&node.data_dir);
    command
        .arg("--config")
        .arg(node.config_path())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped());
    let saving = command.spawn().unwrap();
    eventually("the upload to begin", || store.seen().iter().any(is_upload).then_some(()));
    node.stop();
    let said = Ran::of(&saving.wait_with_output().unwrap());
    said.fails(Code::UploadPending, &[]);
    store.heal();
    node.start_ready();
    settled(&store, &node, 1);
    node.stop();
}

#[test]
fn an_invalid_s3_configuration_does_not_prevent_a_local_snapshot() {
    let _timed = Timed::start();
    let store = Store::start();
    let dir = tempfile::Builder::new().prefix("quorate-test-").tempdir().unwrap();
    let path = dir.path().join("s3.yaml");
    fs::write(&path, "storage-class: STANDARD\n").unwrap();
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let mut node = started(&store, &format!("etcd-s3-config-file: {}\n", path.display()));
    fs::remove_file(&path).unwrap();
    try_to_save(&node, &[]).fails(Code::UploadPending, &["`etcd-s3-config-file`", path.to_str().unwrap()]);
    fs::write(&path, "storage-class: STANDARD\n").unwrap();
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    settled(&store, &node, 1);
    // In a request it is reported before anything is done.
    try_to_save(&node, &["--s3-bucket=Not/One"]).fails(Code::InvalidConfiguration, &["etcd-s3-bucket"]);
    assert_eq!(list(&node, &["--local"]).len(), 1);
    node.stop();
}
