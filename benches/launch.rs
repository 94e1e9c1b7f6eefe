//! `make bench`: quorate against a bare etcd of the same version and settings, in one run, medians, as ratios.
//!
//! Nothing is asserted: a time is a measurement, not a test. The aims are those of the project.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods, missing_docs)]

#[path = "../tests/it/kit/mod.rs"]
mod kit;
#[path = "measure/mod.rs"]
mod measure;

use std::fs::{self, File};
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use kit::{Etcd, Node};
use measure::{mib, row, status_field};

const RUNS: usize = 7;
const IDLE: Duration = Duration::from_secs(60);

fn main() {
    let etcd = Etcd::usual();
    println!("quorate against etcd {}, {} runs each, medians (min to max)\n", etcd.version(), RUNS);
    let mut node = Node::new(&etcd).arg("--log-format=json");
    let (first, restarts) = starts(&mut node);
    let own: Vec<Duration> = restarts.iter().map(|start| start.own).collect();
    row(
        "launcher's own part of a first start",
        &first.iter().map(|start| start.own).collect::<Vec<_>>(),
        Some(100.0),
        None,
    );
    row("launcher's own part of a restart", &own, Some(100.0), None);
    let total: Vec<Duration> = restarts.iter().map(|start| start.total).collect();
    let bare = bare_restarts(&node, &[]);
    let bare_usual = bare_restarts(&node, &["--heartbeat-interval=100", "--election-timeout=1000"]);
    let bare_slow = bare_restarts(&node, &["--heartbeat-interval=500", "--election-timeout=5000"]);
    row("restart until ready: quorate", &total, Some(500.0), None);
    row("restart until ready: bare etcd, same settings", &bare, None, Some(&total));
    row("restart until ready: bare etcd, 100/1000 ms", &bare_usual, None, Some(&total));
    row("restart until ready: bare etcd, 500/5000 ms", &bare_slow, None, Some(&total));
    idle(&mut node);
    let size = fs::metadata(kit::executable()).unwrap().len();
    println!("{:<48} {:>9.1} MiB   aim < 20 MiB", "executable without an etcd inside", mib(size));
}

struct Start {
    own: Duration,
    total: Duration,
}

/// First starts on empty directories, then restarts of one.
fn starts(node: &mut Node) -> (Vec<Start>, Vec<Start>) {
    let first = (0..RUNS)
        .map(|_| {
            let _ = fs::remove_dir_all(&node.data_dir);
            start(node)
        })
        .collect();
    (first, (0..RUNS).map(|_| start(node)).collect())
}

/// One start under a systemd of our own, from exec to READY=1.
fn start(node: &mut Node) -> Start {
    let socket = node.dir.path().join("notify");
    let _ = fs::remove_file(&socket);
    let _ = fs::remove_file(node.log_path());
    let systemd = UnixDatagram::bind(&socket).unwrap();
    systemd.set_read_timeout(Some(kit::DEADLINE)).unwrap();
    node.env = vec![("NOTIFY_SOCKET".into(), socket.display().to_string())];
    let begun = SystemTime::now();
    node.start();
    let mut buffer = [0; 4096];
    let ready = loop {
        let length = systemd.recv(&mut buffer).unwrap();
        if String::from_utf8_lossy(&buffer[..length]).contains("READY=1") {
            break SystemTime::now();
        }
    };
    kit::eventually("the ready line", || node.log().contains("etcd is ready").then_some(()));
    let log = node.log();
    let spawned = logged_at(&log, "etcd started");
    let serving = logged_at(&log, "ready to serve client requests");
    node.stop();
    let since = |later: SystemTime, earlier: SystemTime| later.duration_since(earlier).unwrap_or_default();
    Start { own: since(spawned, begun) + since(ready, serving), total: since(ready, begun) }
}

fn logged_at(log: &str, message: &str) -> SystemTime {
    let line = log.lines().find(|line| line.contains(message)).unwrap_or_else(|| panic!("no `{message}` in\n{log}"));
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    quorate::clock::parse_rfc3339(line["time"].as_str().unwrap()).unwrap()
}

/// The same etcd with the same flags on the same data, without quorate, until its health page says yes.
fn bare_restarts(node: &Node, overrides: &[&str]) -> Vec<Duration> {
    (0..RUNS)
        .map(|_| {
            let begun = Instant::now();
            let mut etcd = bare(node, overrides);
            kit::eventually("a healthy bare etcd", || {
                std::net::TcpStream::connect(("127.0.0.1", node.ports.etcd_metrics())).ok()?;
                kit::http_get(node.ports.etcd_metrics(), "/health").1.contains("\"true\"").then_some(())
            });
            let took = begun.elapsed();
            end(&mut etcd);
            took
        })
        .collect()
}

fn bare(node: &Node, overrides: &[&str]) -> Child {
    let flags = fs::read_to_string(node.etcd_dir().join("config")).unwrap();
    let log = File::create(node.dir.path().join("bare.log")).unwrap();
    Command::new(node.etcd.as_ref().unwrap())
        .args(flags.lines().filter(|line| line.starts_with("--")))
        .args(overrides)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

fn end(etcd: &mut Child) {
    let pid = nix::unistd::Pid::from_raw(etcd.id().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    etcd.wait().unwrap();
}

/// Memory and processor time of the launcher and of its etcd, after and over a minute without clients; and of a bare etcd.
fn idle(node: &mut Node) {
    node.env.clear();
    node.start_ready();
    let (launcher, child) = (node.launcher_pid(), node.child_pid().unwrap());
    std::thread::sleep(Duration::from_secs(5));
    let before = [processor_time(launcher), processor_time(child)];
    std::thread::sleep(IDLE);
    let after = [processor_time(launcher), processor_time(child)];
    let percent = |index: usize| (after[index] - before[index]) / IDLE.as_secs_f64() * 100.0;
    let [launcher_cpu, child_cpu] = [percent(0), percent(1)];
    let [launcher_memory, child_memory] = [resident(launcher), resident(child)];
    let anonymous = status_field(launcher, "RssAnon:");
    node.stop();
    let mut etcd = bare(node, &["--heartbeat-interval=100", "--election-timeout=1000"]);
    let pid = etcd.id().cast_signed();
    std::thread::sleep(Duration::from_secs(5));
    let before = processor_time(pid);
    std::thread::sleep(IDLE);
    let bare_cpu = (processor_time(pid) - before) / IDLE.as_secs_f64() * 100.0;
    end(&mut etcd);
    println!(
        "{:<48} {:>9.1} MiB   aim < 20 MiB; {:.1} MiB of it anonymous; its etcd: {:.1} MiB (ratio {:.2})",
        "launcher's memory at idle (resident)",
        mib(launcher_memory),
        mib(anonymous),
        mib(child_memory),
        mib(launcher_memory) / mib(child_memory)
    );
    println!(
        "{:<48} {launcher_cpu:>9.2} %     aim < 0.2 %; its etcd {child_cpu:.2} %, a bare etcd with 100/1000 ms {bare_cpu:.2} %",
        "launcher's processor time at idle, of a core"
    );
}

/// Seconds.
#[allow(clippy::cast_precision_loss)]
fn processor_time(pid: i32) -> f64 {
    let stat = procfs::process::Process::new(pid).unwrap().stat().unwrap();
    (stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64
}

fn resident(pid: i32) -> u64 {
    status_field(pid, "VmRSS:")
}
