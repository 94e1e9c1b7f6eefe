//! `make bench`: snapshots against `etcdctl snapshot save`, `zip -6` and `openssl dgst`, in one run, medians, as ratios.
//!
//! Nothing is asserted: a time is a measurement, not a test. The aims are those of the project. `QUORATE_BENCH_MB` is the size of
//! the large database.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods, missing_docs)]

#[path = "../tests/it/kit/mod.rs"]
mod kit;
#[path = "measure/mod.rs"]
mod measure;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use kit::{Etcd, Node, Ran, eventually};
use measure::{fill, mib, row, spread, status_field};
use nix::sys::signal::Signal;

const RUNS: usize = 5;
const MANY: usize = 10_000;

fn main() {
    let etcd = Etcd::usual();
    let megabytes: usize = std::env::var("QUORATE_BENCH_MB").map_or(850, |text| text.parse().unwrap());
    println!("\nsnapshots of etcd {}, {RUNS} runs each, medians (min to max)\n", etcd.version());
    // As with other benches, a word after -- chooses.
    let only: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let wanted = |what: &str| only.is_empty() || only.iter().any(|word| word == what);
    let mut node = Node::new(&etcd).config(&settings(false)).env("QUORATE_LOG", "quorate=info,etcd=error");
    node.start_ready();
    if wanted("small") {
        pairs(&node, "small database: save", &["--snapshot-compress=none"], None, 1.0);
    }
    if ["save", "memory", "puts", "verify", "zip"].into_iter().any(wanted) {
        large_database(&node, megabytes, wanted);
    }
    node.stop();
    if wanted("ls") {
        listing(&node);
    }
}

fn large_database(node: &Node, megabytes: usize, wanted: impl Fn(&str) -> bool) {
    let begun = Instant::now();
    fill(node, megabytes << 20);
    println!("\nfilled with {megabytes} MB of values like Kubernetes' in {:.0} s", begun.elapsed().as_secs_f64());
    settle(node);
    for how in ["stream", "copy"] {
        set(node, how);
        if wanted("save") {
            raw(node, how);
        }
        if wanted("memory") {
            memory(node, how, "none");
            memory(node, how, "zstd");
        }
        if wanted("puts") {
            puts(node, how);
        }
    }
    if wanted("verify") {
        verify(node);
    }
    if !wanted("zip") {
        return;
    }
    for (how, aim) in [("copy", 0.2), ("stream", 0.33)] {
        set(node, how);
        pairs(node, &format!("save by {how}, zstd, against etcdctl + zip -6"), &["--snapshot-compress"], Some(()), aim);
    }
}

fn set(node: &Node, how: &str) {
    let times = || node.log().matches("reloading the configuration").count();
    let before = times();
    fs::write(node.config_path(), settings(how == "copy")).unwrap();
    node.signal(Signal::SIGHUP);
    eventually("the reload", || (times() > before).then_some(()));
}

fn settings(copy: bool) -> String {
    format!("etcd-snapshot-copy: {copy}\netcd-disable-snapshots: true\netcd-auto-defrag: false\n")
}

/// Waits until the disk has what was written.
fn settle(node: &Node) {
    nix::unistd::sync();
    let size = node.status_json()["member"]["db_size"].as_u64().unwrap_or(0);
    println!("database {:.0} MiB\n", mib(size));
}

struct Saved {
    took: Duration,
    path: PathBuf,
}

fn save(node: &Node, args: &[&str]) -> Saved {
    let begun = Instant::now();
    let ran = node.quorate(&[&["etcd-snapshot", "save", "-o", "json"], args].concat());
    let took = begun.elapsed();
    let item: serde_json::Value = serde_json::from_str(ran.succeeds()).unwrap();
    Saved { took, path: PathBuf::from(item["location"].as_str().unwrap().strip_prefix("file://").unwrap()) }
}

fn etcdctl_save(node: &Node, path: &Path) -> Duration {
    let _ = fs::remove_file(path);
    let begun = Instant::now();
    node.etcdctl(&["snapshot", "save", path.to_str().unwrap()]);
    begun.elapsed()
}

/// One after the other, so that both see the same machine.
fn pairs(node: &Node, name: &str, args: &[&str], zip: Option<()>, aim: f64) {
    let theirs_path = node.dir.path().join("theirs.db");
    let (mut ours, mut theirs, mut sizes) = (Vec::new(), Vec::new(), (0, 0));
    for _ in 0..RUNS {
        let mut took = etcdctl_save(node, &theirs_path);
        sizes.1 = fs::metadata(&theirs_path).unwrap().len();
        if zip.is_some() {
            let archive = node.dir.path().join("theirs.zip");
            let _ = fs::remove_file(&archive);
            let begun = Instant::now();
            let done = Command::new("zip").args(["-6", "-q"]).arg(&archive).arg(&theirs_path).status().unwrap();
            assert!(done.success());
            took += begun.elapsed();
            sizes.1 = fs::metadata(&archive).unwrap().len();
        }
        theirs.push(took);
        let saved = save(node, args);
        sizes.0 = fs::metadata(&saved.path).unwrap().len();
        ours.push(saved.took);
        remove(node, &saved.path);
    }
    compare(name, &ours, &theirs, aim);
    if zip.is_some() {
        let (ours, theirs) = (mib(sizes.0), mib(sizes.1));
        println!("{:<48} {ours:>9.1} MiB   zip -6: {theirs:.1} MiB, ratio {:.2}", "  its size", ours / theirs);
    }
}

fn compare(name: &str, ours: &[Duration], theirs: &[Duration], aim: f64) {
    row(&format!("{name}: quorate"), ours, None, None);
    row(&format!("{name}: the peer"), theirs, None, None);
    println!("{:<48} {:>9.2}      aim at most {aim:.2}\n", "  ratio", spread(ours).1 / spread(theirs).1);
}

fn remove(node: &Node, path: &Path) {
    let name = path.file_name().unwrap().to_str().unwrap();
    node.quorate(&["etcd-snapshot", "delete", "--force", name]).succeeds();
}

fn raw(node: &Node, how: &str) {
    let aim = if how == "copy" { 0.4 } else { 1.0 };
    pairs(node, &format!("save by {how}, against etcdctl"), &["--snapshot-compress=none"], None, aim);
}

fn puts(node: &Node, how: &str) {
    idle_puts(node);
    let ours = puts_during(node, || {
        let saved = save(node, &["--snapshot-compress=none"]);
        remove(node, &saved.path);
    });
    let theirs = puts_during(node, || {
        etcdctl_save(node, &node.dir.path().join("theirs.db"));
    });
    for (what, ours, theirs) in [("p99", ours.p99, theirs.p99), ("slowest", ours.slowest, theirs.slowest)] {
        println!(
            "{:<48} {ours:>9.1} ms    etcdctl snapshot save: {theirs:.1} ms, ratio {:.2}, aim at most 1.00",
            format!("{what} put during a save by {how}"),
            ours / theirs
        );
    }
    println!();
}

/// How much more anonymous memory the launcher takes during a save.
fn memory(node: &Node, how: &str, compress: &str) {
    let pid = node.launcher_pid();
    let before = status_field(pid, "RssAnon:");
    let (is_over, most) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let watcher = std::thread::spawn({
        let (is_over, most) = (is_over.clone(), most.clone());
        move || {
            while !is_over.load(Ordering::Relaxed) {
                most.fetch_max(status_field(pid, "RssAnon:"), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    });
    let saved = save(node, &[&format!("--snapshot-compress={compress}")]);
    is_over.store(true, Ordering::Relaxed);
    watcher.join().unwrap();
    remove(node, &saved.path);
    println!(
        "{:<48} {:>9.1} MiB   more than before ({:.1}), aim < 32 MiB",
        format!("launcher's anonymous memory, {how}, {compress}"),
        mib(most.load(Ordering::Relaxed).saturating_sub(before)),
        mib(before)
    );
}

/// Milliseconds.
struct Puts {
    p99: f64,
    /// The median over the runs of the slowest in each.
    slowest: f64,
}

/// How long puts take while something is done `RUNS` times.
fn puts_during(node: &Node, mut work: impl FnMut()) -> Puts {
    let round = Arc::new(AtomicU64::new(0));
    let is_over = Arc::new(AtomicBool::new(false));
    let access = node.access();
    let putter = std::thread::spawn({
        let (is_over, round) = (is_over.clone(), round.clone());
        move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut client = access.client().await;
                let mut took = Vec::new();
                while !is_over.load(Ordering::Relaxed) {
                    let begun = Instant::now();
                    client.put("probe", "x", None).await.unwrap();
                    took.push((begun.elapsed().as_secs_f64() * 1000.0, round.load(Ordering::Relaxed)));
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                took
            })
        }
    });
    for _ in 0..RUNS {
        work();
        round.fetch_add(1, Ordering::Relaxed);
    }
    is_over.store(true, Ordering::Relaxed);
    let took = putter.join().unwrap();
    let slowest_of =
        |number: u64| took.iter().filter(|(_, round)| *round == number).map(|(took, _)| *took).fold(0.0, f64::max);
    let mut slowest: Vec<f64> = (0..RUNS as u64).map(slowest_of).collect();
    slowest.sort_by(f64::total_cmp);
    let mut all: Vec<f64> = took.iter().map(|(took, _)| *took).collect();
    all.sort_by(f64::total_cmp);
    Puts { p99: all[all.len() * 99 / 100], slowest: slowest[RUNS / 2] }
}

fn idle_puts(node: &Node) {
    let Puts { p99, slowest } = puts_during(node, || std::thread::sleep(Duration::from_secs(2)));
    println!("{:<48} {p99:>9.1} ms, slowest {slowest:.1} ms\n", "p99 of a put when nothing else is done");
}

fn verify(node: &Node) {
    let saved = save(node, &["--snapshot-compress=none"]);
    let path = saved.path.to_str().unwrap();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let begun = Instant::now();
        let done = Command::new("openssl").args(["dgst", "-sha256", path]).stdout(Stdio::null()).status().unwrap();
        assert!(done.success());
        theirs.push(begun.elapsed());
        let begun = Instant::now();
        node.quorate(&["etcd-snapshot", "verify", path]).succeeds();
        ours.push(begun.elapsed());
    }
    compare("verify, against openssl dgst -sha256", &ours, &theirs, 1.3);
    remove(node, &saved.path);
}

/// `ls` of many snapshots with manifests.
fn listing(node: &Node) {
    let dir = node.server_dir().join("db/snapshots");
    for entry in fs::read_dir(&dir).unwrap().flatten().filter(|entry| entry.path().is_file()) {
        fs::remove_file(entry.path()).unwrap();
    }
    let manifests = dir.join(".metadata");
    fs::create_dir_all(&manifests).unwrap();
    for number in 0..MANY {
        let name = format!("etcd-snapshot-node-{}", 1_700_000_000 + number);
        fs::write(dir.join(&name), "x").unwrap();
        let manifest = quorate::snapshot::manifest::Manifest {
            version: 1,
            name: name.clone(),
            base: "etcd-snapshot".into(),
            node: "node".into(),
            created: "2026-11-21T00:00:00Z".into(),
            sha256: "0".repeat(64),
            etcd_version: "3.5.30".into(),
            reason: "scheduled".into(),
            verification: Some(quorate::snapshot::manifest::Verification::default()),
            ..Default::default()
        };
        fs::write(manifests.join(format!("{name}.json")), serde_json::to_vec_pretty(&manifest).unwrap()).unwrap();
    }
    let took: Vec<Duration> = (0..RUNS)
        .map(|_| {
            let begun = Instant::now();
            let ran = Command::new(kit::executable())
                .args(["etcd-snapshot", "ls", "-o", "json", "--data-dir"])
                .arg(&node.data_dir)
                .output()
                .unwrap();
            let took = begun.elapsed();
            Ran::of(&ran).succeeds();
            took
        })
        .collect();
    row(&format!("ls of {MANY} snapshots"), &took, Some(200.0), None);
}
