//! A disk that does not answer: the server still answers, says so, and ends.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::kit::{Etcd, Mount, Node, Timed, eventually, http_get};

/// code B6, B7: certificates, the record of the cluster and the status were read and written on the event loop, so that two requests were
/// enough to freeze signals, the watchdog and every route.
#[test]
fn a_frozen_disk_freezes_neither_signals_nor_routes() {
    let _timed = Timed::start();
    let mut node = Node::new(&Etcd::usual());
    let Some(mount) = Mount::ext4(&node.data_dir, &node.dir.path().join("image"), 512) else { return };
    for (name, value) in [
        ("QUORATE_TEST_STORAGE_MS", "200"),
        ("QUORATE_TEST_CERTIFICATE_MS", "200"),
        ("QUORATE_TEST_MAINTENANCE_MS", "200"),
    ] {
        node.env.push((name.into(), value.into()));
    }
    node.start_ready();
    let frozen = mount.freeze();
    // Everything that writes to the disk gets the time to do so: etcd does when it is asked to, the launcher at its checks.
    let is_unhealthy = || (http_get(node.ports.metrics(), "/readyz").0 == 503).then_some(());
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| node.quorate(&["etcdctl", "--", "--command-timeout=5s", "put", "a", "b"]));
        for _ in 0..4 {
            let asked = Instant::now();
            assert_eq!(http_get(node.ports.metrics(), "/livez").0, 200);
            assert!(node.status().code.is_some_and(|code| code <= 1));
            http_get(node.ports.metrics(), "/metrics");
            assert!(asked.elapsed() < Duration::from_secs(20), "only a hang takes this long");
        }
        writing.join().unwrap();
    });
    eventually("the server to be called unhealthy", is_unhealthy);
    node.signal(Signal::SIGTERM);
    node.wait_event("stopping", &[]);
    drop(frozen);
    node.wait_end();
}
