//! The child's life: kills, hangs, orphans, signals, floods.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use quorate::error::Code;

use crate::kit::{self, Etcd, Node, Timed, etcds_on, eventually, fake_etcd, http_get, is_running};

/// A fake that starts like an etcd would, but hears no SIGTERM.
const DEAF: &str = "trap '' TERM\necho started >&2\nwhile :; do sleep 0.05; done";

#[test]
fn an_idle_child_that_is_killed_comes_back() {
    let _timed = Timed::start();
    let mut node = Node::new(&Etcd::usual());
    node.start_ready();
    let killed = node.signal_child(Signal::SIGKILL);
    eventually("another etcd", || node.child_pid().filter(|pid| *pid != killed));
    eventually("health", || (node.status().code == Some(0)).then_some(()));
    let status = node.status_json();
    assert_eq!(status["etcd"]["restarts"], 1);
    assert!(status["etcd"]["last_exit"].as_str().unwrap().contains("SIGKILL"), "{status}");
    assert!(http_get(node.ports.metrics(), "/metrics").1.contains("quorate_child_restarts_total 1"));
    node.stop();
}

#[test]
fn a_child_that_exits_at_once_fails_the_server_with_its_last_lines() {
    let _timed = Timed::start();
    let mut node = Node::with_binary(None).arg("--log-format=json").env("QUORATE_TEST_BACKOFF_MS", "10");
    node.etcd = Some(fake_etcd(node.dir.path(), "3.5.30", "echo 'the disk is on fire' >&2; exit 7"));
    let ran = node.run_server();
    ran.fails(Code::EtcdKeepsExiting, &["exit code 7", "the disk is on fire"]);
    let lines = ran.err.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let waits: Vec<u64> = lines.filter_map(|line| line["retry_in_ms"].as_u64()).collect();
    // Doubled each time, less up to a tenth.
    assert_eq!(waits.len(), 4, "{ran:#?}");
    for (wait, longest) in waits.iter().zip([1000, 2000, 4000, 8000]) {
        assert!((longest * 9 / 10..=longest).contains(wait), "{waits:?}");
    }
    assert!(!node.server_dir().join("child.json").exists());
}

#[test]
fn an_unread_report_does_not_prevent_the_exit() {
    let _timed = Timed::start();
    let mut node = Node::with_binary(None);
    let flood = "head -c 200000 /dev/zero | tr '\\0' 'x' | fold -w 1000 >&2; exit 7";
    node.etcd = Some(fake_etcd(node.dir.path(), "3.5.30", flood));
    let mut launcher = node.server_command().stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let unread = launcher.stderr.take();
    node.adopt(launcher);
    assert_eq!(node.wait_end().code(), Some(1));
    drop(unread);
}

#[test]
fn a_failure_is_json_if_the_log_is() {
    let _timed = Timed::start();
    let node = Node::new(&Etcd::usual()).arg("--log-format=json");
    let _taken = std::net::TcpListener::bind(("127.0.0.1", node.ports.client())).unwrap();
    let ran = node.run_server();
    let last: serde_json::Value = serde_json::from_str(ran.err.lines().last().unwrap()).unwrap();
    assert_eq!((ran.code, &last["exit_code"], &last["level"]), (Some(1), &1.into(), &"error".into()));
    assert_eq!(last["code"], Code::PortInUse.name());
    assert!(last["message"].as_str().unwrap().contains(&node.ports.client().to_string()), "{last}");
    assert!(last["next"].as_str().unwrap().contains("--etcd-client-port"), "{last}");
}

/// An upgrade of the package while quorate runs.
#[test]
fn a_binary_that_was_replaced_is_not_run_before_it_was_looked_at() {
    let _timed = Timed::start();
    let etcd = Etcd::usual();
    let mut node = Node::new(&etcd);
    let binary = node.dir.path().join("etcd");
    fs::copy(etcd.binary(), &binary).unwrap();
    node.etcd = Some(binary.clone());
    node.start_ready();
    let newer = fake_etcd(node.dir.path(), "3.9.0", "touch \"$0.ran\"; exit 1");
    fs::rename(newer, &binary).unwrap();
    let killed = node.signal_child(Signal::SIGKILL);
    eventually("another etcd", || node.child_pid().filter(|pid| *pid != killed));
    eventually("health", || (node.status().code == Some(0)).then_some(()));
    assert!(node.has_event("etcd-binary-replaced"));
    assert!(!node.dir.path().join("etcd.ran").exists());
    // The next launcher finds it, no matter what ended the last one.
    let orphan = node.child_pid().unwrap();
    node.kill_launcher();
    node.run_server().fails(Code::EtcdUnsupported, &["3.9.0", "3.4", "3.7"]);
    fs::copy(etcd.binary(), node.dir.path().join("good")).unwrap();
    fs::rename(node.dir.path().join("good"), &binary).unwrap();
    node.start_ready();
    assert!(!is_running(orphan));
    node.stop();
}

#[test]
fn a_child_that_runs_out_of_memory_is_said_to() {
    let _timed = Timed::start();
    let Some(group) = MemoryGroup::new("24000000") else { return };
    let mut node = Node::with_binary(None);
    // tail keeps the last line, and /dev/zero has no end of line.
    let body = format!("echo $$ >{}/cgroup.procs; sleep 5; exec tail /dev/zero", group.0.display());
    node.etcd = Some(fake_etcd(node.dir.path(), "3.5.30", &body));
    node.start();
    node.wait_event("etcd-exited", &["out-of-memory"]);
    node.stop();
}

/// A control group with a limit on memory; `None`, and said, where that cannot be made.
struct MemoryGroup(std::path::PathBuf);

impl MemoryGroup {
    fn new(limit: &str) -> Option<Self> {
        for (root, file) in [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")] {
            let group = Self(std::path::Path::new(root).join(format!("quorate-test-{}", std::process::id())));
            if fs::create_dir(&group.0).is_ok() && fs::write(group.0.join(file), limit).is_ok() {
                return Some(group);
            }
        }
        kit::skip("no control group with a limit on memory can be made here");
        None
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // Only once it is empty.
        eventually("the end of the control group", || {
            let _ = fs::remove_dir(&self.0);
            (!self.0.exists()).then_some(())
        });
    }
}

#[test]
fn a_stopped_child_is_seen_and_can_still_be_stopped_in_order() {
    let _timed = Timed::start();
    let mut node = Node::new(&Etcd::usual()).env("QUORATE_LOG", "quorate=info,etcd=info");
    node.start_ready();
    let pid = node.signal_child(Signal::SIGSTOP);
    eventually("ill health", || (node.status().code == Some(1)).then_some(()));
    let (code, why) = http_get(node.ports.metrics(), "/readyz?verbose");
    assert_eq!(code, 503);
    assert!(why.contains(Code::EtcdNotServing.name()), "{why}");
    assert_eq!(http_get(node.ports.metrics(), "/livez").0, 200);
    assert!(is_running(pid), "it is ill, not dead: it is not restarted");
    node.stop();
    assert!(node.log_since_start().contains("closed etcd server"), "it was woken and ended in order");
}

#[test]
fn a_deaf_child_is_killed_after_the_grace() {
    let _timed = Timed::start();
    let mut node = Node::with_binary(None).env("QUORATE_TEST_GRACE_MS", "300");
    node.etcd = Some(fake_etcd(node.dir.path(), "3.5.30", DEAF));
    node.start();
    let pid = eventually("the child", || node.child_pid());
    node.stop();
    node.wait_event("etcd-killed", &[&format!("pid={pid}")]);
}

#[test]
fn a_second_signal_kills_etcd_at_once() {
    let _timed = Timed::start();
    // Far longer than what the end is waited for.
    let mut node = Node::with_binary(None).env("QUORATE_TEST_GRACE_MS", "3600000");
    node.etcd = Some(fake_etcd(node.dir.path(), "3.5.30", DEAF));
    node.start();
    let pid = eventually("the child", || node.child_pid());
    node.wait_log("started\n");
    node.signal(Signal::SIGTERM);
    node.wait_event("stopping", &[]);
    node.signal(Signal::SIGINT);
    assert_eq!(node.wait_end().code(), Some(0));
    assert!(!is_running(pid));
}

/// code B1: signals were not heeded for as long as a snapshot took to be cancelled.
#[test]
fn a_second_signal_does_not_wait_for_a_snapshot() {
    let _timed = Timed::start();
    let mut node = Node::new(&Etcd::usual()).env("FAILPOINTS", "snapshot::write=sleep(60000)");
    node.start_ready();
    std::thread::scope(|scope| {
        let saving = scope.spawn(|| node.quorate(&["etcd-snapshot", "save"]));
        let snapshots = node.server_dir().join("db/snapshots");
        eventually("a snapshot that is being written", || {
            kit::files_under(&snapshots).iter().any(|path| path.is_file()).then_some(())
        });
        node.signal(Signal::SIGTERM);
        node.wait_event("stopping", &[]);
        let begun = Instant::now();
        node.signal(Signal::SIGINT);
        eventually("the end of etcd", || node.child_pid().is_none_or(|pid| !is_running(pid)).then_some(()));
        assert!(begun.elapsed() < Duration::from_secs(10), "15 s would have been waited for the snapshot");
        saving.join().unwrap();
    });
    assert_eq!(node.wait_end().code(), Some(0));
}

/// code B2: a background task that ended was not noticed, and what it had seen last was shown for ever.
#[test]
fn a_background_task_that_is_lost_ends_the_server_in_order() {
    let _timed = Timed::start();
    let mut node = Node::new(&Etcd::usual()).env("FAILPOINTS", "server::storage_look=3*off->panic");
    node.env.push(("QUORATE_TEST_STORAGE_MS".into(), "500".into()));
    node.start_ready();
    let pid = node.child_pid().unwrap();
    assert_eq!(node.wait_end().code(), Some(1));
    assert!(!is_running(pid));
    assert!(node.log().ends_with(&format!("  code: {}\n", Code::TaskEnded)), "{}", node.log());
}

#[test]
fn a_signal_during_the_start_ends_it_cleanly() {
    let _timed = Timed::start();
    let etcd = Etcd::usual();
    for delay_ms in [0, 10, 20, 30, 35, 40, 45, 50, 60, 80, 120] {
        let mut node = Node::new(&etcd);
        node.start();
        // Before main has taken the signals over, the default action is an end, too.
        eventually("the launcher's own signal handlers", || {
            let status = fs::read_to_string(format!("/proc/{}/status", node.launcher_pid())).ok()?;
            let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"))?.trim().to_owned();
            (u64::from_str_radix(&caught, 16).ok()? & (1 << 14) != 0).then_some(())
        });
        std::thread::sleep(Duration::from_millis(delay_ms));
        node.stop();
        assert_eq!(etcds_on(&node.etcd_dir()), Vec::<i32>::new());
        node.start_ready();
        node.stop();
    }
}

#[test]
fn a_killed_launcher_takes_its_child_along_and_the_next_one_starts_clean() {
    let _timed = Timed::start();
    let mut node = Node::new(&Etcd::usual());
    node.start_ready();
    node.etcdctl(&["put", "a", "1"]);
    for _ in 0..3 {
        node.kill_launcher();
        node.start();
        // Never two at a time, however quickly the next one comes.
        eventually("health", || {
            let running = etcds_on(&node.etcd_dir());
            assert!(running.len() <= 1, "two etcds on one directory: {running:?}");
            (node.status().code == Some(0)).then_some(())
        });
    }
    assert_eq!(node.etcdctl(&["get", "a", "--print-value-only"]), "1\n");
    node.stop();
}

#[test]
fn an_orphan_that_hangs_is_recognised_and_ended_first() {
    let _timed = Timed::start();
    let mut node = Node::with_binary(None).env("QUORATE_TEST_GRACE_MS", "300");
    // It hears neither the signal that its launcher's death sends nor that of the next launcher.
    node.etcd = Some(fake_etcd(node.dir.path(), "3.5.30", &DEAF.replace("TERM", "TERM HUP")));
    node.start();
    let orphan = eventually("the child", || node.child_pid());
    node.wait_log("started\n");
    node.kill_launcher();
    assert!(is_running(orphan));
    node.start();
    eventually("another child", || node.child_pid().filter(|pid| *pid != orphan));
    assert!(!is_running(orphan), "two at a time");
    for event in ["orphan-found", "orphan-killed"] {
        node.wait_event(event, &[&format!("pid={orphan}")]);
    }
    node.stop();
}

#[test]
fn a_foreign_process_with_the_recorded_pid_is_left_alone() {
    let _timed = Timed::start();
    let mut node = Node::new(&Etcd::usual());
    node.start_ready();
    node.stop();
    let mut bystander = Command::new("sleep").arg("300").spawn().unwrap();
    let record = format!(r#"{{"pid":{},"start_ticks":1,"executable":"/usr/bin/etcd","boot_id":"x"}}"#, bystander.id());
    fs::write(node.server_dir().join("child.json"), record).unwrap();
    node.start_ready();
    let untouched = bystander.try_wait().unwrap().is_none();
    bystander.kill().unwrap();
    bystander.wait().unwrap();
    assert!(untouched, "a process that is not ours was ended");
    node.stop();
}

#[test]
fn a_foreign_etcd_on_the_data_is_named_and_left_alone() {
    let _timed = Timed::start();
    let etcd = Etcd::usual();
    let mut node = Node::new(&etcd);
    node.start_ready();
    node.stop();
    let url = |port: u16| format!("http://127.0.0.1:{port}");
    let spare = kit::Ports::claim();
    let mut foreign = Command::new(etcd.binary())
        .arg(format!("--data-dir={}", node.etcd_dir().display()))
        .args(["--listen-client-urls", &url(spare.client()), "--advertise-client-urls", &url(spare.client())])
        .args(["--listen-peer-urls", &url(spare.peer())])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    eventually("the foreign etcd", || std::net::TcpStream::connect(("127.0.0.1", spare.client())).ok());
    let ran = node.run_server();
    let is_alive = foreign.try_wait().unwrap().is_none();
    foreign.kill().unwrap();
    foreign.wait().unwrap();
    ran.fails(Code::EtcdDataInUse, &[&foreign.id().to_string()]);
    assert!(is_alive);
}

#[test]
fn two_launchers_never_share_a_directory() {
    let _timed = Timed::start();
    let mut node = Node::new(&Etcd::usual());
    node.start_ready();
    let pid = node.child_pid();
    let second = node.run_server();
    second.fails(Code::DataDirInUse, &[&node.launcher_pid().to_string(), " 20"]);
    assert_eq!(node.child_pid(), pid);
    assert_eq!(node.status().code, Some(0));
    node.stop();
}

#[test]
fn a_flood_of_lines_is_thinned_and_a_deaf_reader_blocks_nothing() {
    let _timed = Timed::start();
    let mut node = Node::with_binary(None);
    let body = "i=0; while [ $i -lt 200000 ]; do echo \"{\\\"level\\\":\\\"info\\\",\\\"msg\\\":\\\"line $i\\\"}\"; i=$((i+1)); done >&2\n\
                echo flood is over >&2; exec sleep 1000";
    node.etcd = Some(fake_etcd(node.dir.path(), "3.5.30", body));
    node.start();
    node.wait_event("etcd-lines-dropped", &[]);
    eventually("the end of the flood in the status", || {
        let status: serde_json::Value = serde_json::from_str(&node.status().out).ok()?;
        let lines = status["etcd"]["last_lines"].as_array()?.clone();
        lines.iter().any(|line| line == "flood is over").then_some(())
    });
    let lines = node.log().lines().count();
    assert!(lines < 60_000, "{lines} lines were passed on");
    node.stop();

    // Standard error is not read: the pipe fills, the server goes on.
    let mut command = node.server_command();
    let launcher = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut launcher = launcher;
    let pipe = launcher.stderr.take().unwrap();
    node.adopt(launcher);
    eventually("the end of the flood in the status", || {
        let status: serde_json::Value = serde_json::from_str(&node.status().out).ok()?;
        let lines = status["etcd"]["last_lines"].as_array()?.clone();
        lines.iter().any(|line| line == "flood is over").then_some(())
    });
    node.stop();
    drop(pipe);
}

#[test]
fn as_pid_1_it_reaps_what_it_adopts_and_stops_in_order() {
    let _timed = Timed::start();
    if !nix::unistd::geteuid().is_root() {
        return kit::skip("being PID 1 needs root");
    }
    let mut node = Node::with_binary(None).arg("--debug");
    // Leaves a grandchild behind, again and again, as programs in containers do.
    let body = "echo started >&2; while :; do (sleep 0.05 &) ; sleep 0.2; done";
    node.etcd = Some(fake_etcd(node.dir.path(), "3.5.30", body));
    let inner = node.server_command();
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--mount-proc", "--kill-child"]).arg(inner.get_program()).args(inner.get_args());
    command.process_group(0);
    node.start_command(command);
    let outer = node.launcher_pid().cast_unsigned();
    node.wait_log("started");
    let children = |pid: u32| -> Vec<u32> {
        let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
    };
    let quorate = eventually("quorate in its namespace", || children(outer).first().copied());
    eventually("reaped orphans", || (node.count_events("process-reaped") >= 5).then_some(()));
    let zombies = children(quorate)
        .into_iter()
        .filter(|pid| fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z ")))
        .count();
    assert!(zombies <= 3, "{zombies} zombies were left to pile up");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(quorate.cast_signed()), Signal::SIGTERM).unwrap();
    let status = node.wait_end();
    assert_eq!(status.code(), Some(0), "{}", node.log_since_start());
}
