//! `make bench`: restores against `etcdutl snapshot restore`, `etcdctl snapshot restore` 3.4, `cp` and `openssl dgst`, in one run,
//! medians, as ratios.
//!
//! Nothing is asserted: a time is a measurement, not a test. The aims are those of the project. `QUORATE_BENCH_MB` is the size of the
//! large database.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods, missing_docs)]

#[path = "../tests/it/kit/mod.rs"]
mod kit;
#[path = "measure/mod.rs"]
mod measure;

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use kit::{Etcd, Node, Ran};
use measure::{fill, mib, row, spread, status_field_of};

const RUNS: usize = 5;

fn main() {
    let megabytes: usize = std::env::var("QUORATE_BENCH_MB").map_or(850, |text| text.parse().unwrap());
    let etcd = Etcd::usual();
    println!("\nrestores with etcd {}, {RUNS} runs each, medians (min to max)\n", etcd.version());
    let mut node = Node::new(&etcd).config("etcd-disable-snapshots: true\netcd-auto-defrag: false\n");
    node.start_ready();
    for number in 0..20 {
        node.etcdctl(&["put", &format!("k{number}"), "v"]);
    }
    let small = save(&node);
    fill(&node, megabytes << 20);
    let large = save(&node);
    node.stop();
    nix::unistd::sync();
    for (name, snapshot) in [("small", &small), ("large", &large)] {
        println!("{name} database, {:.0} MiB", mib(fs::metadata(snapshot).unwrap().len()));
        building(&node, snapshot);
    }
    whole(&mut node, &large);
}

fn save(node: &Node) -> std::path::PathBuf {
    let ran = node.quorate(&["etcd-snapshot", "save", "-o", "json"]);
    let item: serde_json::Value = serde_json::from_str(ran.succeeds()).unwrap();
    node.server_dir().join("db/snapshots").join(item["name"].as_str().unwrap())
}

fn timed(work: impl FnOnce()) -> Duration {
    let begun = Instant::now();
    work();
    begun.elapsed()
}

/// One after the other, so that all see the same machine.
fn building(node: &Node, snapshot: &Path) {
    let dir = node.dir.path().join("built");
    let out = |command: &mut Command| Ran::of(&command.stdin(Stdio::null()).output().unwrap()).succeeds().len();
    let tools: Vec<(String, std::path::PathBuf)> = [("3.5", "etcdutl"), ("3.4", "etcdctl")]
        .into_iter()
        .filter_map(|(minor, tool)| Some((format!("{tool} {minor}"), Etcd::find(minor)?.dir.join(tool))))
        .collect();
    let mut ours = Vec::new();
    let mut theirs: Vec<Vec<Duration>> = vec![Vec::new(); tools.len()];
    let (mut copies, mut hashes) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        for ((_, tool), took) in tools.iter().zip(&mut theirs) {
            let _ = fs::remove_dir_all(&dir);
            took.push(timed(|| {
                let mut command = Command::new(tool);
                command.env("ETCDCTL_API", "3").args(["snapshot", "restore"]).arg(snapshot).arg("--data-dir").arg(&dir);
                out(&mut command);
            }));
        }
        let _ = fs::remove_dir_all(&dir);
        ours.push(timed(|| {
            let mut command = Command::new(kit::executable());
            command.args(["etcd-snapshot", "restore"]).arg(snapshot).arg("--data-dir-out").arg(&dir);
            command.arg("--data-dir").arg(&node.data_dir).arg("--config").arg(node.config_path());
            out(&mut command);
        }));
        let _ = fs::remove_dir_all(&dir);
        copies.push(timed(|| {
            out(Command::new("cp").arg("--reflink=never").arg(snapshot).arg(&dir));
            File::open(&dir).unwrap().sync_all().unwrap();
        }));
        let _ = fs::remove_file(&dir);
        hashes.push(timed(|| {
            out(Command::new("openssl").args(["dgst", "-sha256"]).arg(snapshot));
        }));
    }
    row("building: quorate etcd-snapshot restore", &ours, None, None);
    for ((name, _), took) in tools.iter().zip(&theirs) {
        let aim = if name.contains("3.4") { 0.2 } else { 0.45 };
        row(&format!("building: {name} snapshot restore"), took, None, None);
        println!("{:<48} {:>9.2}      aim at most {aim:.2}", "  ratio", spread(&ours).1 / spread(took).1);
    }
    row("cp and fsync", &copies, None, None);
    row("openssl dgst -sha256", &hashes, None, None);
    let larger = spread(&copies).1.max(spread(&hashes).1);
    println!("{:<48} {:>9.2}      aim at most 1.20\n", "  quorate / the larger of the two", spread(&ours).1 / larger);
}

/// The whole command, without the safety net, and its memory.
fn whole(node: &mut Node, snapshot: &Path) {
    let mut took = Vec::new();
    let mut most = 0;
    for _ in 0..RUNS {
        let mut command = node.server_command();
        let path = format!("--cluster-reset-restore-path={}", snapshot.display());
        command.args(["--cluster-reset", &path, "--no-pre-restore-snapshot"]);
        let begun = Instant::now();
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let pid = child.id().cast_signed();
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            most = most.max(status_field_of(pid, "RssAnon:").unwrap_or(0));
            std::thread::sleep(Duration::from_millis(5));
        };
        took.push(begun.elapsed());
        assert!(status.success());
        fs::remove_file(node.server_dir().join("db/reset-flag")).unwrap();
        for old in node.retire() {
            fs::remove_dir_all(old).unwrap();
        }
    }
    row("the whole command, large database", &took, Some(6000.0), None);
    println!("{:<48} {:>9.1} MiB   aim < 64 MiB", "its anonymous memory", mib(most));
    let begun = Instant::now();
    node.start_ready();
    println!("{:<48} {:>9.0} ms", "the start after it, until ready", begun.elapsed().as_secs_f64() * 1000.0);
    node.stop();
}
