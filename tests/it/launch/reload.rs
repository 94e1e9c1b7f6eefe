//! SIGHUP: the configuration is read again while the server runs.

use std::fs;

use nix::sys::signal::Signal;
use quorate::error::Code;

use crate::kit::events::lines_of;
use crate::kit::{Etcd, Node, Timed, eventually};

/// Sends SIGHUP and gives the log lines from there to the end of the reload.
fn reload(node: &Node) -> String {
    let end = node.log_end();
    node.signal(Signal::SIGHUP);
    node.wait_event_from(end, "reload-ended", &[]);
    node.log_from(end)
}

/// The settings that wait for a restart, from log lines in JSON.
fn pending(log: &str) -> Vec<String> {
    let key = |line: &&str| serde_json::from_str::<serde_json::Value>(line).ok()?["key"].as_str().map(str::to_owned);
    lines_of(log, "setting-pending").iter().filter_map(key).collect()
}

#[test]
fn what_can_be_applied_is_and_the_rest_is_named() {
    let _timed = Timed::start();
    let mut node = Node::new(&Etcd::usual()).config("tls-san: [a.example]\n");
    node.start_ready();
    let pid = node.child_pid();
    let log = reload(&node);
    assert!(lines_of(&log, "setting-changed").is_empty() && lines_of(&log, "setting-pending").is_empty(), "{log}");

    let token = "a-secret-of-ours";
    fs::write(
        node.config_path(),
        format!("tls-san: [a.example, b.example]\nlog-format: json\netcd-quota-backend-bytes: 1GiB\ntoken: {token}\n"),
    )
    .unwrap();
    let log = reload(&node);
    assert!(lines_of(&log, "setting-pending").len() == 2 && !node.has_code(Code::InvalidConfiguration), "{log}");
    let renewed = lines_of(&log, "certificate-renewed");
    assert!(renewed.iter().any(|line| line.contains("b.example")), "the certificate has the new name: {log}");
    assert!(!node.log().contains(token));
    let last: serde_json::Value = serde_json::from_str(node.log().lines().last().unwrap()).unwrap();
    assert_eq!(last["level"], "info", "the new format counts from there on");
    // What waits for a restart is named again, what was applied is not.
    let log = reload(&node);
    assert_eq!(pending(&log), ["token", "etcd-quota-backend-bytes"], "{log}");
    assert!(!log.contains("\"key\":\"tls-san\""), "{log}");

    // A bad file changes nothing and says so.
    fs::write(node.config_path(), "tls-san: [c.example]\nnonsense: 1\n").unwrap();
    let log = reload(&node);
    assert!(log.contains("`nonsense`") && log.contains("config.yaml:2"), "{log}");
    assert!(node.has_code(Code::InvalidConfiguration), "{log}");
    for event in ["setting-changed", "setting-pending", "certificate-renewed"] {
        assert!(lines_of(&log, event).is_empty(), "{event}: {log}");
    }
    assert_eq!(node.child_pid(), pid, "etcd ran on through all of it");
    assert_eq!(node.status().code, Some(0));
    node.stop();
}

#[test]
fn debug_can_be_switched_on_and_off() {
    let _timed = Timed::start();
    let mut node = Node::new(&Etcd::usual());
    node.start_ready();
    fs::write(node.config_path(), "debug: true\n").unwrap();
    let log = reload(&node);
    assert!(
        lines_of(&log, "setting-changed").iter().any(|line| line.ends_with("from=false key=debug to=true")),
        "{log}"
    );
    node.signal_child(Signal::SIGKILL);
    node.wait_log("DEBUG ");
    assert!(lines_of(&log, "setting-pending").iter().any(|line| line.ends_with("key=etcd-log-level")), "{log}");
    let cmdline = |node: &Node| fs::read_to_string(format!("/proc/{}/cmdline", node.child_pid().unwrap())).unwrap();
    eventually("another etcd", || (node.status().code == Some(0)).then_some(()));
    assert!(cmdline(&node).contains("--log-level=info"));
    node.stop();
    node.start_ready();
    assert!(cmdline(&node).contains("--log-level=debug"));
    node.stop();
}

#[test]
fn systemd_is_notified_of_a_reload() {
    let _timed = Timed::start();
    let mut node = Node::new(&Etcd::usual());
    let socket = node.dir.path().join("notify");
    let systemd = std::os::unix::net::UnixDatagram::bind(&socket).unwrap();
    systemd.set_read_timeout(Some(crate::kit::DEADLINE)).unwrap();
    node.env = vec![("NOTIFY_SOCKET".into(), socket.display().to_string())];
    node.start_ready();
    let mut buffer = [0; 4096];
    let mut until = |wanted: &str| loop {
        let length = systemd.recv(&mut buffer).unwrap();
        let message = String::from_utf8_lossy(&buffer[..length]).into_owned();
        if message.contains(wanted) {
            return message;
        }
    };
    until("READY=1");
    fs::write(node.config_path(), "debug: perhaps\n").unwrap();
    node.signal(Signal::SIGHUP);
    assert!(until("RELOADING=1").contains("MONOTONIC_USEC="));
    let ready = until("READY=1");
    assert!(ready.contains(&format!("https://127.0.0.1:{}", node.ports.client())), "{ready}");
    assert!(node.has_code(Code::InvalidConfiguration), "{}", node.log());
    node.stop();
}
