//! Two places: what `ls`, `verify`, `delete`, `prune` and `hold` do in each, and how often the store is asked.

use std::fs;

use quorate::error::Code;
use serde_json::{Value, json};

use crate::kit::s3::{Fault, Store};
use crate::kit::{Etcd, Node, Timed, eventually};
use crate::s3::basic::{list, name_of, save};

/// A snapshot and its manifest as this quorate uploads them, without taking one.
fn plant(store: &Store, folder: &str, base: &str, node: &str, at: u64) -> String {
    let name = format!("{base}-{node}-{at}");
    let content = format!("snapshot {name}");
    fs::create_dir_all(store.path(&format!("{folder}/.metadata"))).unwrap();
    fs::write(store.path(&format!("{folder}/{name}")), &content).unwrap();
    let manifest = json!({
        "version": 1, "name": name, "base": base, "node": node, "size": content.len(), "revision": 7, "keys": 3,
        "created": chrono::DateTime::from_timestamp(i64::try_from(at).unwrap(), 0).unwrap().to_rfc3339(),
        "reason": "on-demand", "etcd_version": "3.5.30", "sha256": "00", "object": { "etag": "", "crc64nvme": "", "verified_by": "MD5" },
    });
    fs::write(store.path(&format!("{folder}/.metadata/{name}.json")), manifest.to_string()).unwrap();
    name
}

#[test]
fn verbs_work_on_both_places_and_on_each() {
    let _timed = Timed::start();
    let store = Store::start_tls();
    let mut node = Node::new(&Etcd::usual()).config(&store.config());
    node.start_ready();
    node.etcdctl(&["put", "a", "1"]);
    let [first, second] = [(); 2].map(|()| name_of(&save(&node, &[])));
    // Verified where they are, and that is remembered.
    let ran = node.quorate(&["etcd-snapshot", "verify", "--all", "-o", "json"]);
    let items = serde_json::from_str::<Value>(ran.succeeds()).unwrap()["items"].as_array().unwrap().clone();
    assert_eq!(items.len(), 4, "{items:?}");
    assert!(items.iter().all(|item| item["status"] == "good"), "{items:?}");
    let verified_at = |items: &[Value]| items[0]["verified_at"].as_str().unwrap().to_owned();
    let before = verified_at(&list(&node, &["--s3"]));
    // Times are whole seconds.
    eventually("a later verification", || {
        node.quorate(&["etcd-snapshot", "verify", "--s3", &first]).succeeds();
        (verified_at(&list(&node, &["--s3"])) > before).then_some(())
    });
    // Held there, it stays there.
    node.quorate(&["etcd-snapshot", "hold", "--s3", &first]).succeeds();
    let held = list(&node, &["--s3"]);
    assert_eq!((&held[0]["held"], &held[1]["held"]), (&true.into(), &false.into()));
    assert_eq!(list(&node, &["--local"])[0]["held"], false);
    node.quorate(&["etcd-snapshot", "delete", &first]).fails(Code::SnapshotHeld, &["release"]);
    assert_eq!(list(&node, &[]).len(), 4);
    // Only here.
    node.quorate(&["etcd-snapshot", "delete", "--local", &first]).succeeds();
    assert_eq!((list(&node, &["--local"]).len(), list(&node, &["--s3"]).len()), (1, 2));
    // The last good one of a place wants a word more.
    node.quorate(&["etcd-snapshot", "delete", &second]).fails(Code::LastGoodSnapshot, &[&second]);
    node.quorate(&["etcd-snapshot", "release", &first]).succeeds();
    let ran = node.quorate(&["etcd-snapshot", "delete", "--s3", &first]);
    assert_eq!(ran.succeeds(), format!("s3://backups/prod/{first} deleted\n"));
    assert_eq!(store.objects("prod"), std::slice::from_ref(&second));
    node.quorate(&["etcd-snapshot", "delete", &first]).fails(Code::SnapshotNotFound, &[&first]);
    // What another program changes there is seen.
    let path = store.path(&format!("prod/{second}"));
    let mut content = fs::read(&path).unwrap();
    content[100] ^= 1;
    fs::write(&path, &content).unwrap();
    let ran = node.quorate(&["etcd-snapshot", "verify", "--s3", &second]);
    ran.fails(Code::SnapshotCorrupt, &[&second]);
    assert_eq!(list(&node, &["--s3"])[0]["status"], "corrupt");
    assert_eq!(list(&node, &["--local"])[0]["status"], "good");
    // With the server down, from the file alone.
    node.stop();
    assert_eq!(list(&node, &[]).len(), 2);
}

#[test]
fn what_is_inside_is_shown_of_those_in_the_bucket_too() {
    let _timed = Timed::start();
    let store = Store::start();
    let mut node = Node::new(&Etcd::usual()).config(&store.config());
    node.start_ready();
    node.etcdctl(&["put", "a", "1"]);
    let first = name_of(&save(&node, &["--snapshot-compress=zip"]));
    node.etcdctl(&["put", "b", "2"]);
    let second = name_of(&save(&node, &[]));
    node.quorate(&["etcd-snapshot", "delete", "--local", &first]).succeeds();
    let (url, temporary) = (format!("s3://backups/prod/{first}"), node.dir.path().join("tmp"));
    fs::create_dir(&temporary).unwrap();
    let env = [("TMPDIR", temporary.to_str().unwrap())];
    let run = |args: &[&str]| node.quorate_with(&env, &[&["etcd-snapshot"], args].concat());
    for of_first in [&first, &url] {
        assert!(run(&["ls", of_first]).succeeds().ends_with("  a\n"));
        assert_eq!(run(&["get", of_first, "a"]).succeeds(), "1\n");
        run(&["get", of_first, "b"]).fails(Code::KeyNotFound, &[&url, " b"]);
        assert!(run(&["history", of_first, "a"]).succeeds().ends_with("  1\n"));
        assert!(run(&["status", of_first]).succeeds().starts_with(&format!("{url}\n  hash")));
        assert_eq!(run(&["diff", of_first, &second]).succeeds(), "+ b\n");
    }
    // By one that is in both places, here; by its URL, there.
    store.seen();
    assert_eq!(run(&["get", &second, "b"]).succeeds(), "2\n");
    assert!(!store.seen().iter().any(|seen| seen.method == "GET" && seen.path.ends_with(&second)));
    assert_eq!(run(&["get", "--s3", &second, "b"]).succeeds(), "2\n");
    assert!(store.seen().iter().any(|seen| seen.method == "GET" && seen.path.ends_with(&second)));
    let out = node.dir.path().join("out");
    run(&["restore", &url, "--data-dir-out", out.to_str().unwrap()]).succeeds();
    assert!(out.join("member/snap/db").exists());
    run(&["get", "no-such", "a"]).fails(Code::SnapshotNotFound, &["no-such"]);
    run(&["get", "s3://backups/prod/no-such", "a"]).fails(Code::SnapshotNotFound, &["no-such", "s3://backups/prod/"]);
    // Without the store, what is here is shown, and what that may mean is said.
    store.inject(Fault::Close, 0, usize::MAX, |_| true);
    let ran = run(&["get", "--s3-timeout=1s", &second, "b"]);
    assert_eq!(ran.succeeds(), "2\n");
    assert!(ran.err.starts_with("quorate: warning: ") && ran.err.contains(&store.address.to_string()), "{}", ran.err);
    node.stop();
    // Nothing stays anywhere.
    let entries: Vec<_> = fs::read_dir(&temporary).unwrap().chain(fs::read_dir(node.dir.path()).unwrap()).collect();
    assert!(!entries.iter().flatten().any(|entry| entry.file_name().to_string_lossy().starts_with('.')), "{entries:?}");
}

#[test]
fn each_server_prunes_its_own_in_batches_and_a_folder_ends_at_its_name() {
    let _timed = Timed::start();
    let store = Store::start();
    let mut node =
        Node::new(&Etcd::usual()).config(&format!("{}node-name: node\n", store.config())).arg("--new-cluster");
    for at in 0..1000 {
        plant(&store, "prod", "on-demand", "node", 1_700_000_000 + at);
    }
    let other = plant(&store, "prod", "on-demand", "other", 1_700_000_000);
    let longer = plant(&store, "prod", "on-demand-more", "node", 1_700_000_000);
    let sibling = plant(&store, "prod-2", "on-demand", "node", 1_700_000_000);
    node.start_ready();
    node.stop();
    let items = list(&node, &["--s3"]);
    assert_eq!(items.len(), 1002);
    // Again: what is known is not asked for again, and nothing is asked for object by object.
    store.seen();
    assert_eq!(list(&node, &["--s3"]), items);
    let again = store.seen();
    assert!(again.len() <= 4 && again.iter().all(|seen| seen.is("GET", "list-type=2")), "{again:?}");
    let dry = node.quorate(&["etcd-snapshot", "prune", "--s3", "--s3-retention=2", "--dry-run"]);
    assert_eq!(dry.succeeds().lines().filter(|line| line.starts_with("drop ")).count(), 998);
    store.seen();
    let ran = node.quorate(&["etcd-snapshot", "prune", "--s3", "--s3-retention=2"]);
    assert!(ran.succeeds().ends_with("kept 2, deleted 998\n"));
    assert_eq!(ran.out.lines().count(), 999);
    let deletes = store.seen().iter().filter(|seen| seen.is("POST", "delete") || seen.method == "DELETE").count();
    assert!(deletes <= 3, "{deletes} requests to delete");
    let left = store.objects("prod");
    assert_eq!(left.len(), 4, "{left:?}");
    assert!(left.contains(&other) && left.contains(&longer));
    assert_eq!(store.objects("prod-2"), [sibling]);
    assert_eq!(store.objects("prod/.metadata").len(), 4);
}

#[test]
fn the_scheduled_ones_are_uploaded_and_retained_there_by_a_count_of_their_own() {
    let _timed = Timed::start();
    let store = Store::start();
    let config = format!(
        "{}etcd-snapshot-schedule-cron: '@every 1h'\netcd-snapshot-retention: 1\netcd-s3-retention: 2\n",
        store.config()
    );
    let mut node = Node::new(&Etcd::usual()).config(&config);
    node.start_ready();
    for hours in 1..=4 {
        node.stop();
        node.env = vec![("QUORATE_TEST_CLOCK_SHIFT".into(), (hours * 3660).to_string())];
        node.start_ready();
        eventually("another upload", || (node.count_events("snapshot-uploaded") == 1).then_some(()));
    }
    eventually("the older ones to go", || (store.objects("prod").len() == 2).then_some(()));
    assert_eq!(list(&node, &["--local"]).len(), 1);
    let s3 = node.status_json()["snapshots"]["s3"].clone();
    assert_eq!(s3["place"], "s3://backups/prod/");
    assert!(s3["last"]["name"].as_str().unwrap().starts_with("s3://backups/prod/etcd-snapshot-node-"), "{s3}");
    node.stop();
}

#[test]
fn with_s3_only_nothing_stays_here_and_a_restart_misses_no_slot() {
    let _timed = Timed::start();
    let store = Store::start();
    let config = format!("{}etcd-s3-only: true\netcd-snapshot-schedule-cron: '@every 1h'\n", store.config());
    let mut node = Node::new(&Etcd::usual()).config(&config);
    node.start_ready();
    let item = save(&node, &[]);
    let table = node.quorate(&["etcd-snapshot", "ls"]);
    assert!(table.succeeds().lines().nth(1).unwrap().ends_with(" s3"), "{}", table.out);
    assert_eq!(list(&node, &["--local"]), Vec::<Value>::new());
    assert_eq!(list(&node, &["--s3"]).len(), 1);
    assert_eq!(node.status_json()["snapshots"]["last_good"]["name"], item["name"]);
    // A failed upload leaves the snapshot here.
    store.inject(Fault::Answer(403, "AccessDenied", "Access Denied", vec![]), 0, usize::MAX, |seen| {
        seen.method == "PUT"
    });
    let ran = node.quorate(&["etcd-snapshot", "save"]);
    ran.fails(Code::UploadPending, &["AccessDenied"]);
    assert_eq!(list(&node, &["--local"]).len(), 1);
    node.stop();
}

#[test]
fn a_lock_keeps_what_retention_would_delete_and_that_is_no_error() {
    let _timed = Timed::start();
    let store = Store::start();
    let node = Node::new(&Etcd::usual()).config(&format!("{}node-name: node\n", store.config()));
    let names = [0, 1, 2].map(|at| plant(&store, "prod", "on-demand", "node", 1_700_000_000 + at));
    store.inject(Fault::Locked(format!("prod/{}", names[0])), 0, usize::MAX, |seen| seen.is("POST", "delete"));
    let ran = node.quorate(&["etcd-snapshot", "prune", "--s3", "--s3-retention=1", "-o", "json"]);
    let items = serde_json::from_str::<Value>(ran.succeeds()).unwrap()["items"].as_array().unwrap().clone();
    let actions: Vec<&str> = items.iter().map(|item| item["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["keep", "drop", "locked"], "{items:?}");
    let ran = node.quorate(&["etcd-snapshot", "prune", "--s3", "--s3-retention=1"]);
    assert!(ran.succeeds().contains(&names[0]), "{}", ran.out);
}

#[test]
fn what_the_command_line_says_goes_before_the_servers_own_settings() {
    let _timed = Timed::start();
    let store = Store::start();
    let mut node = Node::new(&Etcd::usual());
    node.start_ready();
    node.etcdctl(&["put", "a", "1"]);
    node.quorate(&["etcd-snapshot", "ls", "--s3"]).fails(Code::S3NotConfigured, &[]);
    // One message, not a warning and then another one.
    let ran = node.quorate(&["etcd-snapshot", "save", "--s3"]);
    ran.fails(Code::InvalidConfiguration, &["`etcd-s3-bucket`"]);
    assert_eq!(ran.err.lines().filter(|line| line.starts_with("quorate: ")).count(), 1, "{}", ran.err);
    assert_eq!(list(&node, &[]).len(), 0, "said before anything is done");
    let endpoint = format!("--s3-endpoint={}", store.endpoint());
    let said = ["--s3", &endpoint, "--s3-bucket=backups", "--s3-folder=/by/hand/", "--s3-access-key=QUORATETESTKEY"];
    let secret = format!("--s3-secret-key={}", crate::kit::s3::SECRET_KEY);
    let with_secret = [&said[..], &[&secret]].concat();
    let item = save(&node, &with_secret);
    assert_eq!(item["uploaded_to"], format!("s3://backups/by/hand/{}", name_of(&item)));
    // RKE2's command takes the keys from these variables.
    let env = [("AWS_ACCESS_KEY_ID", "QUORATETESTKEY"), ("AWS_SECRET_ACCESS_KEY", crate::kit::s3::SECRET_KEY)];
    let without_keys = [&["etcd-snapshot", "save"], &said[..4]].concat();
    node.quorate_with(&env, &without_keys).succeeds();
    assert_eq!(store.objects("by/hand").len(), 2);
    let listed = list(&node, &with_secret);
    assert_eq!(listed.len(), 2);
    // Nothing secret is where others see it.
    let status = node.status().out;
    for text in [node.log(), status, node.quorate(&["server", "--print-config"]).out] {
        assert!(!text.contains(crate::kit::s3::SECRET_KEY), "{text}");
    }
    node.stop();
}

/// Issue 14, point 1.1: `latest` and base names are those of both places, and the copy on this node is used if there is one.
#[test]
fn the_newest_good_one_is_found_wherever_it_is() {
    let _timed = Timed::start();
    let store = Store::start();
    let config = format!("{}etcd-disable-snapshots: true\n", store.config());
    let mut node = Node::new(&Etcd::usual()).config(&config);
    node.start_ready();
    node.etcdctl(&["put", "a", "1"]);
    let first = name_of(&save(&node, &["--name=before-upgrade"]));
    node.etcdctl(&["put", "a", "2"]);
    let second = name_of(&save(&node, &["--name=before-upgrade"]));
    let run = |node: &Node, args: &[&str]| node.quorate(&[&["etcd-snapshot"], args].concat());
    let value = |node: &Node, named: &str| run(node, &["get", named, "a"]).succeeds().to_owned();
    store.seen();
    assert_eq!(value(&node, "latest"), "2\n");
    assert!(!store.seen().iter().any(|seen| seen.method == "GET" && seen.path.ends_with(&second)), "it is here");
    let table = run(&node, &["ls"]);
    assert_eq!(table.succeeds().lines().count(), 3, "a row for each, wherever it is: {}", table.out);
    assert!(
        table.out.lines().all(|line| !line.contains(&second) || line.ends_with("good    node, s3")),
        "{}",
        table.out
    );
    // only in S3.
    run(&node, &["delete", "--local", &second]).succeeds();
    assert_eq!(
        (value(&node, "before-upgrade"), value(&node, "s3://backups/prod/latest")),
        ("2\n".into(), "2\n".into())
    );
    let ran = run(&node, &["verify", "--drill", "s3://backups/prod/latest"]);
    assert!(ran.succeeds().starts_with(&format!("s3://backups/prod/{second}: ")), "{}", ran.out);
    assert_eq!(node.status_json()["snapshots"]["drill"]["last"]["passed"], true);
    assert!(run(&node, &["verify", "s3://backups/prod/before-upgrade"]).succeeds().starts_with("s3://backups/prod/"));
    // Damaged there: the older one, and what was passed over.
    let path = store.path(&format!("prod/{second}"));
    let mut content = fs::read(&path).unwrap();
    content[100] ^= 1;
    fs::write(&path, &content).unwrap();
    run(&node, &["verify", "--s3", &second]).fails(Code::SnapshotCorrupt, &[&second]);
    let ran = run(&node, &["get", "latest", "a"]);
    assert_eq!(ran.succeeds(), "1\n");
    assert!(ran.err.contains(&format!("s3://backups/prod/{second}: ")), "{}", ran.err);
    run(&node, &["get", "s3://backups/prod/before-upgarde", "a"]).fails(Code::SnapshotNotFound, &["before-upgrade?"]);
    node.stop();
    // On an empty server, from the bucket alone.
    let mut empty = Node::new(&Etcd::usual()).config(&config);
    crate::s3::basic::restore(&empty, "before-upgarde", &[])
        .fails(Code::SnapshotNotFound, &["s3://backups/prod/", "before-upgrade?"]);
    let ran = crate::s3::basic::restore(&empty, "before-upgrade", &[]);
    ran.succeeds();
    assert!(ran.err.contains(&first), "{}", ran.err);
    empty.start_ready();
    assert_eq!(empty.etcdctl(&["get", "a", "--print-value-only"]), "1\n");
    // It goes on with the data, so their snapshots in the bucket are its own.
    save(&empty, &["--name=before-upgrade"]);
    let ran = run(&empty, &["prune", "--s3", "--name=before-upgrade", "--s3-retention=1"]);
    assert!(ran.succeeds().contains(&format!("{first} deleted")), "{}", ran.out);
    empty.stop();
    // Under another name, too (bugs F5); another server's stay, whatever they are called.
    let other = plant(&store, "prod", "before-upgrade", "other", 1_700_000_000);
    empty.args = vec!["--node-name=renamed".into()];
    empty.start_ready();
    let third = name_of(&save(&empty, &["--name=before-upgrade"]));
    let ran = run(&empty, &["prune", "--s3", "--name=before-upgrade", "--s3-retention=1"]);
    assert!(ran.succeeds().ends_with("kept 2, deleted 1\n"), "{}", ran.out);
    let left = store.objects("prod");
    // The damaged one does not count, and stays.
    assert_eq!(left.iter().filter(|name| ![&other, &third, &second].contains(name)).count(), 0, "{left:?}");
    assert_eq!(left.len(), 3);
    let ran = run(&empty, &["prune", "--s3", "--name=before-upgrade", "--node=other", "--s3-retention=1"]);
    assert_eq!(ran.succeeds(), "kept 1, deleted 0\n");
    empty.stop();
}
