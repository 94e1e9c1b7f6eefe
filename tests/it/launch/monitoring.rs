//! What systemd, Prometheus and log collectors get.

use std::fs;
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use quorate::error::Code;

use crate::kit::{Etcd, Node, Timed, eventually, fake_etcd, http_get, http_get_over};

#[test]
fn systemd_gets_ready_status_stopping_and_watchdog() {
    let _timed = Timed::start();
    let mut node = Node::new(&Etcd::usual());
    let socket = node.dir.path().join("notify");
    let systemd = UnixDatagram::bind(&socket).unwrap();
    systemd.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    node.env = vec![("NOTIFY_SOCKET".into(), socket.display().to_string()), ("WATCHDOG_USEC".into(), "200000".into())];
    let messages = || {
        let mut buffer = [0; 4096];
        let length = systemd.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    node.start();
    let mut seen = String::new();
    while !seen.contains("READY=1") {
        seen += &messages();
    }
    assert!(seen.contains("STATUS="), "{seen}");
    let url = format!("https://127.0.0.1:{}", node.ports.client());
    assert!(seen.contains(&format!("is ready at {url}")), "{seen}");
    assert_eq!(seen.matches("READY=1").count(), 1, "etcd must not speak for quorate: {seen}");
    assert_eq!(node.status().code, Some(0), "READY=1 came before etcd was ready");
    let fed = (0..5).filter(|_| messages().contains("WATCHDOG=1")).count();
    assert!(fed >= 4, "the watchdog was fed {fed} times in five messages");
    node.signal(nix::sys::signal::Signal::SIGTERM);
    eventually("STOPPING=1", || messages().contains("STOPPING=1").then_some(()));
    assert_eq!(node.wait_end().code(), Some(0));
}

/// Any local user may connect: who says nothing, or a byte now and then, keeps no probe out.
#[test]
fn idle_connections_do_not_keep_probes_out() {
    use std::io::Write as _;
    let _timed = Timed::start();
    let mut node = Node::new(&Etcd::usual());
    node.start_ready();
    let port = node.ports.metrics();
    let mut idle: Vec<TcpStream> = (0..100).map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap()).collect();
    for _ in 0..5 {
        for stream in &mut idle {
            // Some are closed already.
            let _ = stream.write_all(b"G");
        }
        let probe = TcpStream::connect(("127.0.0.1", port)).unwrap();
        probe.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
        assert_eq!(http_get_over(probe, "/readyz").0, 200);
        idle.extend((0..20).map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap()));
    }
    node.stop();
}

#[test]
fn metrics_and_probes_are_served_on_loopback() {
    let _timed = Timed::start();
    let mut node = Node::new(&Etcd::usual());
    node.start_ready();
    let port = node.ports.metrics();
    assert_eq!(http_get(port, "/livez"), (200, "ok\n".into()));
    assert_eq!(http_get(port, "/readyz"), (200, "ok\n".into()));
    assert_eq!(http_get(port, "/v1/status").0, 404, "the control API is not on the network");
    let (code, page) = http_get(port, "/metrics");
    assert_eq!(code, 200);
    for path in ["/livez", "/readyz", "/metrics"] {
        let socket = std::os::unix::net::UnixStream::connect(node.server_dir().join("quorate.sock")).unwrap();
        assert_eq!(http_get_over(socket, path).0, 200, "{path} on the control socket");
    }
    let documented = include_str!("../../../docs/metrics.md");
    let names = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")).filter_map(|line| line.split(' ').next());
    for name in names {
        assert!(documented.contains(&format!("`{name}")), "{name} is not in docs/metrics.md");
    }
    for line in [
        "quorate_child_state{state=\"ready\"} 1",
        "quorate_child_restarts_total 0",
        "quorate_etcd_has_leader 1.0",
        "quorate_etcd_db_size_bytes ",
        "quorate_etcd_db_in_use_bytes ",
        "quorate_child_ready_seconds ",
        "quorate_certificate_days_left{name=\"server-client\"} 364",
        "quorate_etcd_wal_fsync_p99_seconds ",
    ] {
        assert!(page.contains(line), "no `{line}` in\n{page}");
    }
    node.stop();
}

#[test]
fn etcds_own_metrics_are_on_loopback_unless_exposed() {
    let _timed = Timed::start();
    let mut node = Node::new(&Etcd::usual()).arg("--node-ip=127.0.0.2");
    node.start_ready();
    let connect = |address: &str| TcpStream::connect((address, node.ports.etcd_metrics()));
    assert!(connect("127.0.0.1").is_ok() && connect("127.0.0.2").is_err());
    node.stop();
    node.args.push("--etcd-expose-metrics".into());
    node.start_ready();
    let connect = |address: &str| TcpStream::connect((address, node.ports.etcd_metrics()));
    for address in ["127.0.0.1", "127.0.0.2"] {
        let (code, page) = http_get_over(connect(address).unwrap(), "/metrics");
        assert!(code == 200 && page.contains("etcd_server_has_leader 1"), "{address}: {code}");
    }
    node.stop();
}

#[test]
fn every_log_line_is_json_if_asked() {
    let _timed = Timed::start();
    let mut node = Node::new(&Etcd::usual()).arg("--log-format=json").arg("--debug");
    node.start_ready();
    node.stop();
    let log = node.log();
    let lines: Vec<serde_json::Value> =
        log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect();
    for line in &lines {
        for field in ["time", "level", "target", "message"] {
            assert!(line[field].is_string(), "{line} lacks {field}");
        }
    }
    let ready = lines.iter().find(|line| line["event"] == "etcd-ready").unwrap();
    assert_eq!(ready["target"], "quorate");
    let from_etcd = lines.iter().find(|line| line["target"] == "etcd" && line["caller"].is_string());
    assert!(from_etcd.is_some(), "no line of etcd's with its fields");
    assert!(lines.iter().any(|line| line["level"] == "debug"));
}

/// ux section 4, F4: 50 lines of a first start, none of which said whether the cluster was new.
#[test]
fn a_start_is_a_few_lines_that_say_what_it_starts_on() {
    let _timed = Timed::start();
    let mut node = Node::new(&Etcd::usual()).arg("--log-format=json");
    for is_first in [true, false] {
        node.start_ready();
        let lines = eventually("the line of the next snapshot", || {
            let log = node.log_since_start();
            let lines = log.lines().filter_map(|line| serde_json::from_str(line).ok());
            // On a slow disk etcd has something to say, too.
            let lines: Vec<serde_json::Value> =
                lines.filter(|line: &serde_json::Value| line["target"] == "quorate").collect();
            lines.iter().any(|line| line["event"] == "snapshot-scheduled").then_some(lines)
        });
        // A slow disk is a line more.
        assert!(lines.len() <= 5, "{lines:#?}");
        let has = |event: &str| lines.iter().any(|line| line["event"] == event);
        assert!(has("new-cluster") == is_first && has("data-resumed") != is_first, "{lines:#?}");
        assert!(lines.iter().any(|line| line["data"] == node.data_dir.to_str().unwrap()), "{lines:#?}");
        node.stop();
    }
    let log = node.log();
    let first = log.lines().next().unwrap();
    let order = ["\"time\"", "\"level\"", "\"message\"", "\"target\""].map(|key| first.find(key).unwrap());
    assert!(order.is_sorted(), "{first}");
}

/// What etcd says for information is kept back while it starts, and shown if it does not become ready.
#[test]
fn an_etcd_that_does_not_become_ready_is_heard() {
    let _timed = Timed::start();
    let mut node = Node::with_binary(None);
    let line = r#"{"level":"info","msg":"looking for the reason"}"#;
    node.etcd = Some(fake_etcd(node.dir.path(), "3.5.30", &format!("echo '{line}' >&2; exit 3")));
    node.start();
    node.wait_log("looking for the reason");
    node.stop();
}

#[test]
fn the_filter_chooses_lines() {
    let _timed = Timed::start();
    let mut node = Node::new(&Etcd::usual()).env("QUORATE_LOG", "quorate=info,etcd=off");
    node.start_ready();
    node.stop();
    assert!(!node.log().contains(" etcd: "), "{}", node.log());
    assert!(node.has_event("etcd-ready"));
    let node = Node::new(&Etcd::usual()).env("QUORATE_LOG", "quorate=loud");
    node.run_server().fails(Code::InvalidConfiguration, &["QUORATE_LOG", "quorate=loud"]);
    assert!(!node.data_dir.exists());
}

#[test]
fn what_is_remembered_of_the_cluster_is_kept_up_to_date() {
    let _timed = Timed::start();
    let etcd = Etcd::usual();
    let mut node = Node::new(&etcd);
    node.start_ready();
    // Before etcd starts the file has only what is intended; the member is recorded after the first healthy answer.
    let read = || {
        let text = fs::read(node.server_dir().join("cluster.json")).ok()?;
        let record: serde_json::Value = serde_json::from_slice(&text).ok()?;
        record["member_id"].as_str().is_some_and(|id| !id.is_empty()).then_some(record)
    };
    let record = eventually("the member in cluster.json", read);
    assert_eq!(record["servers"].as_array().unwrap().len(), 1);
    assert_eq!(record["etcd_version"], etcd.version());
    assert_eq!(record["member_id"], node.status_json()["member"]["id"]);
    node.stop();
}

#[test]
fn an_alarm_is_ill_health() {
    let _timed = Timed::start();
    let mut node = Node::new(&Etcd::usual()).arg("--etcd-quota-backend-bytes=1MiB");
    node.start_ready();
    let value = "x".repeat(100_000);
    eventually("a full database", || {
        (node.quorate(&["etcdctl", "--", "put", "k", &value]).code != Some(0)).then_some(())
    });
    let ran =
        eventually("the alarm in the status", || Some(node.quorate(&["status"])).filter(|ran| ran.code == Some(1)));
    assert_eq!(node.status_json()["problems"][0]["code"], "alarm-nospace");
    assert!(ran.out.contains("1 MiB") || ran.out.contains("1.0 MiB"), "the sizes are still shown: {ran:?}");
    assert_eq!(http_get(node.ports.metrics(), "/readyz").0, 503);
    assert_eq!(node.status_json()["member"]["alarms"][0], "NOSPACE");
    let page = http_get(node.ports.metrics(), "/metrics").1;
    assert!(page.contains("quorate_etcd_alarm{alarm=\"NOSPACE\"} 1"), "{page}");
    assert!(page.contains("quorate_etcd_healthy 0.0"), "{page}");
    // It still starts: reads work, and this is the moment to look at it.
    node.stop();
    node.start();
    node.wait_event("etcd-ready", &[]);
    eventually("the alarm after a restart", || {
        // While it starts it is unhealthy for another reason.
        let status = node.status_json();
        (status["etcd"]["state"] == "ready" && status["problems"][0]["code"] == "alarm-nospace").then_some(())
    });
    node.stop();
}

#[test]
fn ipv6_works_too() {
    let _timed = Timed::start();
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        return crate::kit::skip("there is no IPv6 here");
    }
    let mut node = Node::new(&Etcd::usual()).arg("--node-ip=::1");
    node.start_ready();
    assert_eq!(node.status_json()["client_url"], format!("https://[::1]:{}", node.ports.client()));
    assert_eq!(node.etcdctl(&["put", "a", "1"]), "OK\n");
    node.stop();
}
