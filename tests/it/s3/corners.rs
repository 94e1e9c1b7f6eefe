//! What a sceptical reader asked: corners where something could be lost, or said that is not so.

use std::fs;

use nix::sys::signal::Signal;
use quorate::error::Code;

use crate::kit::s3::{ACCESS_KEY, Fault, SECRET_KEY, Store};
use crate::kit::{Etcd, Node, Timed, eventually};
use crate::s3::basic::{fill, is_upload, killed_in_an_upload, list, name_of, plain, restore, save, started};

#[test]
fn a_count_for_this_node_is_none_for_the_bucket() {
    let _timed = Timed::start();
    let store = Store::start();
    let mut node = started(&store, "etcd-s3-retention: 3\n");
    for _ in 0..4 {
        save(&node, &[]);
    }
    node.quorate(&["etcd-snapshot", "prune", "--keep-last=1"]).succeeds();
    assert_eq!((list(&node, &["--local"]).len(), list(&node, &["--s3"]).len()), (1, 3));
    node.quorate(&["etcd-snapshot", "prune", "--keep-last=4"]).succeeds();
    assert_eq!(list(&node, &["--s3"]).len(), 3);
    save(&node, &[]);
    let ran = node.quorate(&["etcd-snapshot", "prune", "--s3", "--keep-last=4"]);
    assert_eq!(ran.succeeds(), "kept 4, deleted 0\n");
    assert_eq!(list(&node, &["--s3"]).len(), 4, "a smaller count of the file takes nothing of what was said");
    node.quorate(&["etcd-snapshot", "prune", "--keep-last=1", "--s3-retention=2"]).succeeds();
    assert_eq!(list(&node, &["--s3"]).len(), 2);
    node.stop();
}

#[test]
fn a_verification_that_cannot_be_made_is_none() {
    let _timed = Timed::start();
    let store = Store::start();
    let mut node = started(&store, "");
    let name = name_of(&save(&node, &[]));
    let url = format!("s3://backups/prod/{name}");
    for args in [&["--s3", &url][..], &[&url], &["--s3=false", &url]] {
        let ran = node.quorate(&[&["etcd-snapshot", "verify"], args].concat());
        assert!(ran.succeeds().starts_with(&format!("{url}: good\n")), "{}", ran.out);
    }
    node.quorate(&["etcd-snapshot", "verify", &format!("{url}0")])
        .fails(Code::SnapshotNotFound, &[&format!("{name}0"), "s3://backups/prod/"]);
    node.quorate(&["etcd-snapshot", "verify", "s3://backups"]).fails(Code::Usage, &["s3://BUCKET/KEY"]);
    node.quorate(&["etcd-snapshot", "verify", "--against-live", &url]).fails(Code::Usage, &["--against-live"]);
    node.quorate(&["etcd-snapshot", "verify", "--s3", "/some/path"]).fails(Code::Usage, &["/some/path"]);
    node.quorate(&["etcd-snapshot", "verify", "--s3", "--against-live", &name]).fails(Code::Usage, &["--against-live"]);
    node.quorate(&["etcd-snapshot", "verify", "--against-live", &name]).succeeds();
    node.stop();
}

#[test]
fn one_manifest_that_cannot_be_read_hides_no_other() {
    let _timed = Timed::start();
    let store = Store::start();
    let mut node = started(&store, "");
    let [first, second] = [(); 2].map(|()| name_of(&save(&node, &[])));
    node.stop();
    fs::remove_dir_all(node.server_dir().join("cache")).ok();
    let of_first = format!(".metadata/{first}.json");
    store.inject(
        Fault::Answer(403, "InvalidObjectState", "The operation is not valid for the object's storage class", vec![]),
        0,
        usize::MAX,
        move |seen| seen.is("GET", &of_first),
    );
    let items = list(&node, &["--s3"]);
    let status = |name: &str| items.iter().find(|item| item["name"] == name).unwrap()["status"].clone();
    assert_eq!((status(&first), status(&second)), ("unreadable".into(), "good".into()));
    // What could not be read is asked for again.
    store.heal();
    assert!(list(&node, &["--s3"]).iter().all(|item| item["status"] == "good"));
    // It is restored all the same.
    restore(&node, &format!("s3://backups/prod/{first}"), &[]).succeeds();
    node.start_ready();
    node.stop();
}

#[test]
fn keys_that_were_replaced_are_found_without_a_restart() {
    let _timed = Timed::start();
    let store = Store::start();
    let dir = tempfile::Builder::new().prefix("quorate-test-").tempdir().unwrap();
    let path = dir.path().join("credentials");
    let write = |secret: &str| {
        fs::write(&path, format!("[default]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {secret}\n"))
            .unwrap();
    };
    write("an older one");
    let config = store.config_without("-key:");
    let mut node = Node::new(&Etcd::usual()).config(&config).env("QUORATE_TEST_UPLOAD_MS", "300");
    node.env.push(("AWS_SHARED_CREDENTIALS_FILE".into(), path.display().to_string()));
    node.start_ready();
    node.quorate(&["etcd-snapshot", "save"]).fails(Code::UploadPending, &["etcd-s3-secret-key"]);
    write(SECRET_KEY);
    eventually("the upload to succeed", || (store.objects("prod").len() == 1).then_some(()));
    node.stop();
}

#[test]
fn a_multipart_upload_is_not_forgotten_while_it_cannot_be_aborted() {
    let _timed = Timed::start();
    let store = Store::start();
    let mut node = started(&store, "");
    killed_in_an_upload(&store, &mut node);
    // At the next start the store cannot be reached yet.
    store.inject(Fault::Close, 0, usize::MAX, |_| true);
    node.start_ready();
    node.wait_code(Code::S3Unreachable, &[]);
    store.heal();
    store.seen();
    eventually("the upload to succeed", || (store.objects("prod").len() == 1).then_some(()));
    eventually("nothing to be left", || is_clean(&store));
    node.stop();
}

/// Nothing of an upload in parts is left.
fn is_clean(store: &Store) -> Option<()> {
    let mut left = fs::read_dir(store.root.path()).unwrap().flatten();
    (!left.any(|entry| entry.file_name().to_string_lossy().starts_with(".upload"))).then_some(())
}

#[test]
fn a_multipart_upload_is_aborted_even_if_its_snapshot_is_gone() {
    let _timed = Timed::start();
    let store = Store::start();
    let mut node = started(&store, "");
    killed_in_an_upload(&store, &mut node);
    assert_eq!(is_clean(&store), None);
    let name = name_of(&list(&node, &["--local"])[0]);
    node.quorate(&["etcd-snapshot", "delete", "--local", "--force", &name]).succeeds();
    node.start_ready();
    eventually("nothing to be left", || is_clean(&store));
    assert_eq!(store.objects("prod"), Vec::<String>::new());
    node.stop();
}

/// Changes a byte, and nothing that `ls` looks at, at one moment.
fn damage(path: &std::path::Path) {
    let other = path.with_file_name(".other");
    let mut content = fs::read(path).unwrap();
    content[10_000] ^= 1;
    fs::write(&other, content).unwrap();
    let done = std::process::Command::new("touch").arg("-r").arg(path).arg(&other).status().unwrap();
    assert!(done.success());
    fs::rename(other, path).unwrap();
}

#[test]
fn what_is_damaged_while_it_waits_is_not_uploaded_and_not_removed() {
    let _timed = Timed::start();
    let store = Store::start();
    let mut node = started(&store, "etcd-s3-only: true\n");
    for keys in [0, 200] {
        fill(&node, keys, plain);
        store.inject(Fault::Answer(403, "AccessDenied", "Access Denied", vec![]), 0, usize::MAX, |seen| {
            seen.method != "GET"
        });
        node.quorate(&["etcd-snapshot", "save"]).fails(Code::UploadPending, &[]);
        let items = list(&node, &["--local"]);
        let name = name_of(items.last().unwrap());
        damage(&node.server_dir().join("db/snapshots").join(&name));
        store.heal();
        node.wait_code(Code::UploadRefused, &[&name]);
        eventually("it not to be pending", || {
            node.status_json()["snapshots"]["s3"]["pending"].as_array().unwrap().is_empty().then_some(())
        });
        assert_eq!(store.objects("prod"), Vec::<String>::new());
        assert!(list(&node, &["--local"]).iter().any(|item| item["name"] == *name), "the last copy stays");
        eventually("nothing to be left", || is_clean(&store));
    }
    node.stop();
}

#[test]
fn a_damaged_snapshot_here_is_not_taken_for_the_good_one_there() {
    let _timed = Timed::start();
    let store = Store::start();
    let mut node = started(&store, "");
    let name = name_of(&save(&node, &[]));
    node.stop();
    let path = node.server_dir().join("db/snapshots").join(&name);
    let mut content = fs::read(&path).unwrap();
    content[10_000] ^= 1;
    fs::write(&path, content).unwrap();
    restore(&node, &name, &[]).fails(Code::SnapshotAmbiguous, &[&name]);
    restore(&node, &format!("s3://backups/prod/{name}"), &[]).succeeds();
    node.start_ready();
    node.stop();
}

#[test]
fn another_snapshot_of_the_same_name_is_not_written_over() {
    let _timed = Timed::start();
    let store = Store::start();
    let mut node = started(&store, "");
    // Names of the same second are those of the next ones, which are free here again when they were deleted.
    let mut names: Vec<String> = (0..3).map(|_| name_of(&save(&node, &[]))).collect();
    node.quorate(
        &[&["etcd-snapshot", "delete", "--local", "--force"][..], &[&names[0], &names[1], &names[2]]].concat(),
    )
    .succeeds();
    names.push(name_of(&save(&node, &[])));
    names.dedup();
    assert_eq!((names.len(), store.objects("prod")), (4, names.clone()));
    // And after a restart, with a clock that went back.
    node.quorate(&["etcd-snapshot", "delete", "--local", "--force", &names[3]]).succeeds();
    node.stop();
    let at: u64 = names[0].rsplit('-').next().unwrap().parse().unwrap();
    let content = fs::read(store.path(&format!("prod/{}", names[0]))).unwrap();
    for second in at..at + 100 {
        let name = names[0].replace(&at.to_string(), &second.to_string());
        fs::write(store.path(&format!("prod/{name}")), &content).unwrap();
    }
    node.start_ready();
    let ran = node.quorate(&["etcd-snapshot", "save"]);
    ran.fails(Code::UploadRefused, &["on-demand-node-"]);
    node.wait_code(Code::UploadRefused, &["cause=s3-name-conflict"]);
    assert_eq!(node.status_json()["snapshots"]["s3"]["pending"].as_array().unwrap().len(), 0);
    node.stop();
}

#[test]
fn with_s3_only_what_is_held_stays_here() {
    let _timed = Timed::start();
    let store = Store::start();
    let mut node = started(&store, "etcd-s3-only: true\n");
    store.inject(Fault::Answer(403, "AccessDenied", "Access Denied", vec![]), 0, usize::MAX, is_upload);
    node.quorate(&["etcd-snapshot", "save"]).fails(Code::UploadPending, &[]);
    let name = name_of(&list(&node, &["--local"])[0]);
    node.quorate(&["etcd-snapshot", "hold", "--local", &name]).succeeds();
    store.heal();
    eventually("the upload to succeed", || list(&node, &["--s3"]).pop());
    assert_eq!(list(&node, &["--local"]).len(), 1);
    let item = save(&node, &[]);
    assert!(item["location"].as_str().unwrap().starts_with("s3://backups/prod/"), "where it is: {item}");
    assert_eq!(list(&node, &["--local"]).len(), 1);
    node.stop();
}

#[test]
fn a_cancelled_download_leaves_nothing() {
    let _timed = Timed::start();
    let store = Store::start();
    let mut node = started(&store, "");
    let name = name_of(&save(&node, &[]));
    node.stop();
    let url = format!("s3://backups/prod/{name}");
    let temporary = node.dir.path().join("tmp");
    fs::create_dir(&temporary).unwrap();
    // One that was killed left this.
    let left = temporary.join(".tmp-quorate-quorate-download-0-0-999999999");
    fs::create_dir(&left).unwrap();
    let (read, part) = (format!("prod/{name}"), format!("prod/{name}"));
    store.inject(Fault::Silence, 0, usize::MAX, move |seen| seen.is("GET", &part));
    for (signal, code) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143)] {
        store.seen();
        let mut command = std::process::Command::new(&node.executable);
        command.args(["etcd-snapshot", "ls", &url, "--data-dir"]).arg(&node.data_dir).arg("--config");
        let mut looking = command.arg(node.config_path()).env("TMPDIR", &temporary).spawn().unwrap();
        eventually("a part to be asked for", || store.seen().iter().any(|seen| seen.is("GET", &read)).then_some(()));
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(looking.id().cast_signed()), signal).unwrap();
        assert_eq!(looking.wait().unwrap().code(), Some(code));
        assert_eq!(fs::read_dir(&temporary).unwrap().count(), 0);
    }
    // A restore that is stopped while it looks, and the store says nothing.
    store.inject(Fault::Silence, 0, usize::MAX, |_| true);
    let mut command = node.server_command();
    command.args(["--cluster-reset", &format!("--cluster-reset-restore-path={url}"), "--etcd-s3-timeout=1h"]);
    store.seen();
    let log = fs::File::create(node.dir.path().join("reset.log")).unwrap();
    let mut reset = command.stderr(log).spawn().unwrap();
    eventually("the store to be asked", || (!store.seen().is_empty()).then_some(()));
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(reset.id().cast_signed()), Signal::SIGTERM).unwrap();
    eventually("the reset to end before the store answers", || reset.try_wait().unwrap());
    node.start_ready();
    node.stop();
}

#[test]
fn disabled_uploads_do_not_block_a_client() {
    let _timed = Timed::start();
    let store = Store::start();
    let mut node = started(&store, "");
    store.inject(Fault::Answer(403, "AccessDenied", "Access Denied", vec![]), 0, usize::MAX, is_upload);
    node.quorate(&["etcd-snapshot", "save"]).fails(Code::UploadPending, &[]);
    let config = fs::read_to_string(node.config_path()).unwrap();
    fs::write(node.config_path(), config.replace("etcd-s3: true", "etcd-s3: false")).unwrap();
    node.signal(Signal::SIGHUP);
    node.wait_event("setting-changed", &["from=true key=etcd-s3 to=false"]);
    node.quorate(&["etcd-snapshot", "save"]).succeeds();
    assert_eq!(node.status_json()["snapshots"]["s3"]["pending"].as_array().unwrap().len(), 1, "it is not forgotten");
    store.heal();
    fs::write(node.config_path(), config).unwrap();
    node.signal(Signal::SIGHUP);
    eventually("the upload to succeed", || (store.objects("prod").len() == 1).then_some(()));
    node.stop();
}

#[test]
fn what_cannot_be_deleted_keeps_its_manifest_and_the_rest_is_said() {
    let _timed = Timed::start();
    let store = Store::start();
    let mut node = started(&store, "");
    let names: Vec<String> = (0..3).map(|_| name_of(&save(&node, &[]))).collect();
    store.inject(Fault::Locked(format!("prod/{}", names[0])), 0, 1, |seen| seen.is("POST", "delete"));
    let ran = node.quorate(&["etcd-snapshot", "prune", "--s3", "--s3-retention=1"]);
    assert!(ran.succeeds().contains(&names[0]), "{}", ran.out);
    assert!(store.objects("prod/.metadata").contains(&format!("{}.json", names[0])));
    node.stop();
}

#[test]
fn a_bucket_that_is_not_there_and_an_object_that_was_replaced_are_told_apart() {
    let _timed = Timed::start();
    let store = Store::start();
    let mut node = started(&store, "");
    let [first, second] = [(); 2].map(|()| {
        node.etcdctl(&["put", "a", "2"]);
        name_of(&save(&node, &[]))
    });
    node.stop();
    restore(&node, &format!("s3://typo-bucket/prod/{first}"), &[]).fails(Code::S3BucketNotFound, &["typo-bucket"]);
    // Another good snapshot under its key.
    fs::copy(store.path(&format!("prod/{second}")), store.path(&format!("prod/{first}"))).unwrap();
    let url = format!("s3://backups/prod/{first}");
    let hidden = fs::read_dir(store.root.path()).unwrap().flatten().map(|entry| entry.path());
    for path in hidden.filter(|path| {
        path.is_file() && path.to_string_lossy().contains(&first) && path.to_string_lossy().contains("internal")
    }) {
        fs::remove_file(path).unwrap();
    }
    restore(&node, &url, &[]).fails(Code::S3ChecksumMismatch, &[&first]);
    restore(&node, &format!("s3://backups/prod/{second}"), &[]).succeeds();
    node.start_ready();
    node.stop();
}

/// The index, with a finding of another server's in it: `ls` shows it.
fn planted(name: &str, version: &str) -> String {
    let verification = serde_json::json!({
        "status": "corrupt", "at": "2026-01-02T03:04:05Z", "size": 1, "modified": 0, "finding": "as the test wants it",
    });
    serde_json::json!({ "verified": { name: [version, verification] } }).to_string()
}

#[test]
fn what_several_servers_find_is_not_lost_and_a_lost_index_is_rebuilt() {
    let _timed = Timed::start();
    let store = Store::start();
    let mut node = started(&store, "");
    let [first, second] = [(); 2].map(|()| name_of(&save(&node, &[])));
    let index = store.path("prod/.metadata/.index.json");
    // What it calls this version of the object.
    node.quorate(&["etcd-snapshot", "verify", "--s3", &first]).succeeds();
    let written: serde_json::Value = serde_json::from_str(&fs::read_to_string(&index).unwrap()).unwrap();
    let version = written["verified"][&first][0].as_str().unwrap().to_owned();
    fs::remove_file(&index).unwrap();
    fs::remove_dir_all(node.server_dir().join("cache")).unwrap();
    let statuses = || {
        let items = list(&node, &["--s3"]);
        let status = |name: &str| items.iter().find(|item| item["name"] == name).unwrap()["status"].clone();
        (status(&first), status(&second))
    };
    // Another server writes what it found, between our look and our word.
    let (path, theirs) = (index.clone(), planted(&first, &version));
    store.inject(
        Fault::Answer(412, "PreconditionFailed", "At least one precondition did not hold.", vec![]),
        0,
        1,
        move |seen| {
            let is_first = seen.is("PUT", ".index.json") && seen.headers.contains_key("if-none-match");
            if is_first {
                fs::write(&path, &theirs).unwrap();
            }
            is_first
        },
    );
    node.quorate(&["etcd-snapshot", "verify", "--s3", &second]).succeeds();
    assert_eq!(statuses(), ("corrupt".into(), "good".into()));
    let written = fs::read_to_string(&index).unwrap();
    assert!(written.contains(&first) && written.contains(&second), "{written}");
    // Without the index, this node still knows, and the next finding brings all of it back. This store knows no conditions.
    fs::remove_file(&index).unwrap();
    assert_eq!(statuses(), ("corrupt".into(), "good".into()));
    store.inject(
        Fault::Answer(501, "NotImplemented", "A header implies what is not implemented.", vec![]),
        0,
        1,
        |seen| seen.is("PUT", ".index.json"),
    );
    node.quorate(&["etcd-snapshot", "verify", "--s3", &second]).succeeds();
    let written = fs::read_to_string(&index).unwrap();
    assert!(written.contains("as the test wants it"), "{written}");
    // Looked at again, it is what it is now.
    node.quorate(&["etcd-snapshot", "verify", "--s3", &first]).succeeds();
    assert_eq!(statuses(), ("good".into(), "good".into()));
    store.seen();
    assert_eq!(statuses(), ("good".into(), "good".into()));
    let asked = store.seen();
    assert_eq!(asked.len(), 2, "two listings, and nothing else: {asked:?}");
    node.stop();
}

#[test]
fn with_s3_only_a_launcher_that_is_killed_leaves_nothing_here_after_the_next_start() {
    let _timed = Timed::start();
    let store = Store::start();
    let mut node = Node::new(&Etcd::usual()).config(&format!("{}etcd-s3-only: true\n", store.config()));
    node.env = vec![("FAILPOINTS".into(), "snapshot::remove-uploaded=return(kill)".into())];
    node.start_ready();
    assert_ne!(node.quorate(&["etcd-snapshot", "save"]).code, Some(0));
    node.wait_end();
    assert_eq!(store.objects("prod").len(), 1);
    assert_eq!(list(&node, &["--local"]).len(), 1, "the word that it is there comes first");
    node.env.clear();
    node.start_ready();
    eventually("it to be removed", || list(&node, &["--local"]).is_empty().then_some(()));
    assert_eq!(list(&node, &["--s3"])[0]["status"], "good");
    for code in [Code::UploadPending, Code::UploadRefused, Code::UploadSourceMissing] {
        assert!(!node.has_code(code), "nothing is wrong with it");
    }
    node.stop();
}

#[test]
fn what_a_wrong_clock_dated_ahead_is_not_the_newest_in_the_bucket() {
    let _timed = Timed::start();
    let store = Store::start();
    let mut node = Node::new(&Etcd::usual()).config(&store.config());
    // Its certificates are from before.
    node.start_ready();
    node.stop();
    node.env = vec![("QUORATE_TEST_CLOCK_SHIFT".into(), "172800".into())];
    node.start_ready();
    save(&node, &["--wait"]);
    node.stop();
    node.env.clear();
    node.start_ready();
    let status = node.status_json()["snapshots"].clone();
    assert_eq!((&status["s3"]["last"], &status["last_good"]), (&serde_json::Value::Null, &serde_json::Value::Null));
    let name = name_of(&save(&node, &["--wait"]));
    let status = node.status_json()["snapshots"].clone();
    assert_eq!(status["s3"]["last"]["name"], format!("s3://backups/prod/{name}"));
    assert_eq!(status["last_good"]["name"], *name);
    node.stop();
}

#[test]
fn a_directory_that_is_away_for_a_while_costs_no_upload() {
    let _timed = Timed::start();
    let store = Store::start();
    let mut node = started(&store, "");
    store.inject(Fault::Answer(403, "AccessDenied", "Access Denied", vec![]), 0, usize::MAX, is_upload);
    node.quorate(&["etcd-snapshot", "save"]).fails(Code::UploadPending, &[]);
    let dir = node.server_dir().join("db/snapshots");
    let away = node.server_dir().join("db/away");
    fs::rename(&dir, &away).unwrap();
    store.heal();
    node.wait_code(Code::UploadSourceMissing, &[]);
    assert_eq!(node.status_json()["snapshots"]["s3"]["pending"].as_array().unwrap().len(), 1, "it is not forgotten");
    fs::rename(&away, &dir).unwrap();
    eventually("the upload to succeed", || (store.objects("prod").len() == 1).then_some(()));
    node.stop();
}
