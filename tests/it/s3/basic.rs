//! The plain way: save, list, lose the node, restore.

use std::fs;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::kit::s3::{BUCKET, Fault, Seen, Store};
use crate::kit::{Etcd, Node, Ran, Timed, eventually};

pub fn save(node: &Node, args: &[&str]) -> Value {
    let ran = node.quorate(&[&["etcd-snapshot", "save", "-o", "json"], args].concat());
    serde_json::from_str(ran.succeeds()).unwrap()
}

pub fn name_of(item: &Value) -> String {
    item["name"].as_str().unwrap().to_owned()
}

/// A server that uploads, and tries again soon.
pub fn started(store: &Store, more: &str) -> Node {
    let config = format!("{}{more}", store.config());
    let mut node = Node::new(&Etcd::usual()).config(&config).env("QUORATE_TEST_UPLOAD_MS", "300");
    node.start_ready();
    node.etcdctl(&["put", "a", "1"]);
    node
}

/// Some keys of 100 kB: 200 make an upload in three parts.
pub fn fill(node: &Node, keys: u32, value: impl Fn(u32) -> Vec<u8>) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let mut client = node.access().client().await;
        for number in 0..keys {
            client.put(format!("fill/{number:03}"), value(number), None).await.unwrap();
        }
    });
}

/// One that compresses well.
pub fn plain(_: u32) -> Vec<u8> {
    vec![b'x'; 100_000]
}

/// A request to write a snapshot, or a part of one.
pub fn is_upload(seen: &Seen) -> bool {
    seen.method == "PUT" && seen.path.starts_with("/backups/prod/on-demand-node-")
}

/// The launcher was killed when it had sent one part of an upload.
pub fn killed_in_an_upload(store: &Store, node: &mut Node) {
    fill(node, 200, plain);
    store.inject(Fault::Silence, 1, usize::MAX, is_upload);
    let mut command = Command::new(&node.executable);
    command.args(["etcd-snapshot", "save", "--data-dir"]).arg(&node.data_dir).arg("--config").arg(node.config_path());
    let mut saving = command.stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    eventually("a part to be sent", || store.seen().iter().any(is_upload).then_some(()));
    node.kill_launcher();
    saving.wait().unwrap();
    store.heal();
}

pub fn list(node: &Node, args: &[&str]) -> Vec<Value> {
    let ran = node.quorate(&[&["etcd-snapshot", "ls", "-o", "json"], args].concat());
    serde_json::from_str::<Value>(ran.succeeds()).unwrap()["items"].as_array().unwrap().clone()
}

pub fn restore(node: &Node, snapshot: &str, more: &[&str]) -> Ran {
    let path = format!("--cluster-reset-restore-path={snapshot}");
    node.run_server_with(&[&["--cluster-reset", &path], more].concat())
}

#[test]
fn a_node_that_is_lost_comes_back_from_the_bucket() {
    let _timed = Timed::start();
    let store = Store::start();
    let mut node = Node::new(&Etcd::usual()).config(&store.config());
    node.start_ready();
    node.etcdctl(&["put", "a", "1"]);
    let item = save(&node, &["--snapshot-compress=zip"]);
    let name = name_of(&item);
    let url = format!("s3://{BUCKET}/prod/{name}");
    assert_eq!(item["uploaded_to"], url);
    assert_eq!(store.objects("prod"), std::slice::from_ref(&name));
    assert_eq!(store.objects("prod/.metadata"), [format!("{name}.json")]);
    let all = list(&node, &[]);
    assert_eq!(all.len(), 2, "{all:?}");
    assert_eq!((&all[1]["location"], &all[1]["status"]), (&url.clone().into(), &"good".into()));
    assert_eq!(all[0]["sha256"], all[1]["sha256"]);
    assert_eq!(list(&node, &["--s3"]).len(), 1);
    assert_eq!(list(&node, &["--local"]).len(), 1);
    node.stop();
    // All is lost but the bucket.
    fs::remove_dir_all(&node.data_dir).unwrap();
    let ran = restore(&node, &name, &[]);
    ran.succeeds();
    assert!(ran.err.contains(&url), "{}", ran.err);
    node.start_ready();
    assert_eq!(node.etcdctl(&["get", "a", "--print-value-only"]).trim(), "1");
    node.stop();
}
