//! Several servers at a time. Until quorate joins servers to one cluster, these tests prove the test kit itself.

mod record;

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::kit::{Cluster, Etcd, Node, Timed, Writer, eventually};

#[test]
fn servers_with_the_same_ports_run_concurrently() {
    let _timed = Timed::start();
    let mut cluster = Cluster::independent(&Etcd::usual(), 3).with(|node| node.arg("--log-format=json"));
    cluster.start_ready();
    let urls = cluster.all(|node| node.status_json()["client_url"].as_str().unwrap().to_owned());
    let port = cluster[0].ports.client();
    assert_eq!(urls, [2, 3, 4].map(|last| format!("https://127.0.0.{last}:{port}")));
    cluster.all(|node| node.etcdctl(&["put", "name", &node.name]));
    assert_eq!(
        cluster.all(|node| node.etcdctl(&["get", "name", "--print-value-only"])),
        ["node1\n", "node2\n", "node3\n"]
    );
    assert!(cluster.leader().is_none(), "three clusters have three leaders");
    cluster[1].stop();
    cluster[2].stop();
    assert_eq!(cluster.leader().unwrap().name, "node1");
    for name in ["node1: ", "node2: ", "node3: "] {
        assert!(cluster.timeline().lines().any(|line| line.starts_with(name)));
    }
    cluster[0].stop();
}

#[test]
fn a_writer_knows_what_was_acknowledged_and_how_long_it_was_without_service() {
    let _timed = Timed::start();
    let mut cluster = Cluster::independent(&Etcd::usual(), 1);
    cluster.start_ready();
    let writer = Writer::start(vec![cluster[0].access()], 7);
    writer.wait_for_more(20);
    let (etcd, pause) = (cluster[0].child_pid().unwrap(), Duration::from_millis(500));
    cluster[0].signal_child(Signal::SIGSTOP);
    std::thread::sleep(pause);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(etcd), Signal::SIGCONT).unwrap();
    writer.wait_for_more(20);
    cluster[0].signal_child(Signal::SIGKILL);
    writer.wait_for_more(20);
    let ledger = writer.stop();
    assert!(ledger.acknowledged >= 60 && ledger.longest_gap >= pause, "{ledger:?}");
    ledger.verify(&cluster[0].access());
    // A write that is missing is noticed, and one with another value.
    for change in [&["del"][..], &["put"]] {
        let key = format!("ledger/{:016x}/{:08}", 7, 3);
        cluster[0].etcdctl(&[change, &[&key], if change == ["put"] { &["other"] } else { &[] }].concat());
        let verified = std::panic::catch_unwind(|| ledger.verify(&cluster[0].access()));
        let message = *verified.unwrap_err().downcast::<String>().unwrap();
        assert!(message.contains("seed 7") && message.contains(&key), "{message}");
    }
    cluster[0].stop();
}

#[test]
fn a_network_is_cut_healed_and_slowed() {
    let _timed = Timed::start();
    let Some(mut cluster) = Cluster::independent_in_network(&Etcd::usual(), 3) else { return };
    cluster.start_ready();
    let network = cluster.network();
    let reaches = |from: usize, to: usize| cluster[to].access_from(&cluster[from]).hash_kv().is_some();
    assert!(reaches(0, 1) && reaches(1, 0) && reaches(0, 2));
    network.partition(0, 1);
    assert!(!reaches(0, 1) && !reaches(1, 0), "cut in both directions");
    assert!(reaches(0, 2) && reaches(2, 1), "other links work");
    assert_eq!(cluster.all(Node::is_serving), [true; 3], "probes are on loopback");
    network.heal();
    assert!(reaches(0, 1) && reaches(1, 0));
    network.isolate(2);
    assert!(!reaches(2, 0) && !reaches(1, 2) && reaches(0, 1));
    network.heal();
    assert!(reaches(2, 0));

    // Over a connection that is there, what is sent meanwhile arrives when the network is healed.
    let writer = Writer::start(vec![cluster[1].access_from(&cluster[0])], 1);
    writer.wait_for_more(10);
    network.cut(1, 0);
    eventually("a writer that waits", || {
        let before = writer.acknowledged();
        std::thread::sleep(Duration::from_millis(300));
        (writer.acknowledged() == before).then_some(())
    });
    network.heal();
    writer.wait_for_more(10);
    let ledger = writer.stop();
    ledger.verify(&cluster[1].access());

    if network.delay(1, 200) {
        let begun = std::time::Instant::now();
        assert!(reaches(0, 1));
        assert!(begun.elapsed() >= Duration::from_millis(200));
        network.heal();
    }
    cluster.stop();
}
