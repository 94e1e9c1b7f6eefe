//! `cluster.json`: never overwritten with another cluster, nor when it cannot be read.

use std::fs;

use quorate::error::Code;

use crate::kit::{Etcd, Node, Timed, etcds_on, eventually};

fn record(node: &Node) -> serde_json::Value {
    serde_json::from_slice(&fs::read(node.server_dir().join("cluster.json")).unwrap()).unwrap()
}

/// B5: another server's data under this server's member name.
#[test]
fn the_data_of_another_cluster_is_refused_and_the_record_stays() {
    let _timed = Timed::start();
    let (mut node, mut other) = (Node::new(&Etcd::usual()), Node::new(&Etcd::usual()));
    for node in [&mut node, &mut other] {
        node.start_ready();
        eventually("the record", || node.server_dir().join("cluster.json").exists().then_some(()));
        node.stop();
    }
    let (own, foreign) = (record(&node), record(&other));
    assert_eq!((&own["version"], own["servers"].as_array().unwrap().len()), (&2.into(), 1));
    assert_eq!(own["servers"][0]["member_id"], own["member_id"]);
    assert!(own["servers"][0]["peer_urls"][0].as_str().unwrap().starts_with("https://"), "{own}");
    let before = fs::read(node.server_dir().join("cluster.json")).unwrap();
    let name = fs::read(node.etcd_dir().join("name")).unwrap();
    let kept = node.dir.path().join("own");
    fs::rename(node.etcd_dir(), &kept).unwrap();
    fs::rename(other.etcd_dir(), node.etcd_dir()).unwrap();
    fs::write(node.etcd_dir().join("name"), name).unwrap();

    let ids = [own["cluster_id"].as_str().unwrap(), foreign["cluster_id"].as_str().unwrap()];
    node.run_server().fails(Code::WrongCluster, &ids);
    assert_eq!(fs::read(node.server_dir().join("cluster.json")).unwrap(), before);
    assert_eq!(etcds_on(&node.etcd_dir()), Vec::<i32>::new());

    // This server's own data is started again.
    fs::remove_dir_all(node.etcd_dir()).unwrap();
    fs::rename(kept, node.etcd_dir()).unwrap();
    node.start_ready();
    node.stop();
}

/// B5: neither at a start nor while the server runs.
#[test]
fn a_record_that_cannot_be_read_is_not_overwritten() {
    let _timed = Timed::start();
    let mut node = Node::new(&Etcd::usual());
    node.start_ready();
    let path = node.server_dir().join("cluster.json");
    // Until then it is the record of a cluster that is about to begin, and is about to be replaced.
    let good = eventually("the record of a healthy member", || {
        let text = fs::read_to_string(&path).ok()?;
        let record: serde_json::Value = serde_json::from_str(&text).ok()?;
        (!record["cluster_id"].as_str()?.is_empty()).then_some(text)
    });
    let newer = good.replacen("\"version\": 2", "\"version\": 3", 1);
    assert_ne!(newer, good);
    for bad in ["not JSON", &newer] {
        let new = node.dir.path().join("new");
        fs::write(&new, bad).unwrap();
        let end = node.log_end();
        fs::rename(new, &path).unwrap();
        eventually("the record to be looked at", || {
            node.log_from(end).contains(Code::ClusterRecordUnreadable.name()).then_some(())
        });
        assert_eq!(fs::read_to_string(&path).unwrap(), bad);
        assert!(node.is_serving());
    }
    node.stop();
    assert_eq!(fs::read_to_string(&path).unwrap(), newer);
    node.run_server().fails(Code::ClusterRecordUnreadable, &["cluster.json", "version 3"]);
    for reset in [&["--cluster-reset"][..], &["--cluster-reset", "--dry-run"]] {
        node.run_server_with(reset).fails(Code::ClusterRecordUnreadable, &["cluster.json"]);
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), newer);
}
