//! `make bench`: uploads and downloads against `rclone copyto` with its own settings, over one S3 server in this process, medians, as
//! ratios; the launcher's memory meanwhile; and how often the store is asked to list and to prune.
//!
//! Nothing is asserted: a time is a measurement, not a test. `QUORATE_BENCH_MB` is the size of the database.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods, missing_docs)]

#[path = "../tests/it/kit/mod.rs"]
mod kit;
#[path = "measure/mod.rs"]
mod measure;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kit::s3::{ACCESS_KEY, BUCKET, SECRET_KEY, Store};
use kit::{Etcd, Node, Ran};
use measure::{fill, mib, row, spread, status_field_of};

const RUNS: usize = 5;

fn main() {
    let megabytes: usize = std::env::var("QUORATE_BENCH_MB").map_or(1024, |text| text.parse().unwrap());
    let store = Store::start();
    let etcd = Etcd::usual();
    println!("\nobject storage, etcd {}, {RUNS} runs each, medians (min to max)\n", etcd.version());
    let config = format!(
        "node-name: node\n{}etcd-s3-timeout: 30s\netcd-disable-snapshots: true\n",
        store.config().replace("etcd-s3-timeout: 2s\n", "")
    );
    let mut node = Node::new(&etcd).config(&config);
    node.start_ready();
    fill(&node, megabytes << 20);
    transfers(&store, &mut node);
    listing(&store, &node);
}

/// How long ago something is said to have taken, of all log lines that begin so.
fn took(log: &str, line: &str) -> Vec<Duration> {
    let said = log.lines().filter(|found| found.contains(line)).filter_map(|found| {
        let (_, rest) = found.split_once("took_ms=")?;
        rest.split_whitespace().next()?.parse().ok()
    });
    said.map(Duration::from_millis).collect()
}

fn rclone(from: &str, to: &str, store: &Store) -> Duration {
    let begun = Instant::now();
    let mut command = Command::new("rclone");
    command.args(["copyto", from, to]).stdin(Stdio::null());
    // Whatever else is there may change its settings.
    command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
    for (name, value) in [
        ("RCLONE_S3_PROVIDER", "Other"),
        ("RCLONE_S3_ACCESS_KEY_ID", ACCESS_KEY),
        ("RCLONE_S3_SECRET_ACCESS_KEY", SECRET_KEY),
        ("RCLONE_S3_ENDPOINT", &store.endpoint()),
        ("RCLONE_CONFIG", "/dev/null"),
    ] {
        command.env(name, value);
    }
    Ran::of(&command.output().unwrap()).succeeds();
    begun.elapsed()
}

fn transfers(store: &Store, node: &mut Node) {
    let pid = node.launcher_pid();
    let idle = status_field_of(pid, "RssAnon:").unwrap();
    let (peak, stop) = watched(pid);
    let mut theirs_up = Vec::new();
    let mut name = String::new();
    for run in 0..RUNS {
        if !name.is_empty() {
            node.quorate(&["etcd-snapshot", "delete", "--force", &name]).succeeds();
        }
        let saved = node.quorate(&["etcd-snapshot", "save", "-o", "json"]);
        let item: serde_json::Value = serde_json::from_str(saved.succeeds()).unwrap();
        item["name"].as_str().unwrap().clone_into(&mut name);
        let path = node.server_dir().join("db/snapshots").join(&name);
        nix::unistd::sync();
        theirs_up.push(rclone(path.to_str().unwrap(), &format!(":s3:{BUCKET}/rclone-{run}"), store));
        fs::remove_file(store.path(&format!("rclone-{run}"))).unwrap();
        nix::unistd::sync();
    }
    stop.store(true, Ordering::Relaxed);
    let most = peak.join().unwrap();
    let size = fs::metadata(node.server_dir().join("db/snapshots").join(&name)).unwrap().len();
    println!("snapshot of {:.0} MiB", mib(size));
    let ours_up = took(&node.log(), "snapshot uploaded and verified");
    row("upload, verified: quorate", &ours_up, None, None);
    row("upload: rclone copyto", &theirs_up, None, Some(&ours_up));
    println!(
        "launcher's anonymous memory during saves and uploads: {:.1} MiB more (aim 96)",
        mib(most.saturating_sub(idle))
    );
    node.stop();
    let (mut ours, mut theirs, mut memory) = (Vec::new(), Vec::new(), Vec::new());
    let to: PathBuf = node.dir.path().join("rclone-download");
    for _ in 0..RUNS {
        nix::unistd::sync();
        theirs.push(rclone(&format!(":s3:{BUCKET}/prod/{name}"), to.to_str().unwrap(), store));
        fs::remove_file(&to).unwrap();
        nix::unistd::sync();
        let (said, most) = dry_run(node, &format!("s3://{BUCKET}/prod/{name}"));
        ours.extend(took(&said, "the snapshot is downloaded and matches its checksum"));
        memory.push(most);
    }
    row("download, checked and safe on disk: quorate", &ours, None, None);
    row("download: rclone copyto", &theirs, None, Some(&ours));
    println!(
        "most anonymous memory of the command that downloads: {:.1} MiB (aim 96)",
        mib(memory.into_iter().max().unwrap())
    );
}

/// A dry run downloads as a restore does; its disk is that of the data here.
fn dry_run(node: &Node, url: &str) -> (String, u64) {
    let mut command = node.server_command();
    command.args(["--cluster-reset", &format!("--cluster-reset-restore-path={url}"), "--dry-run"]);
    let log = node.dir.path().join("dry.err");
    command.env("TMPDIR", node.dir.path()).stdout(Stdio::null()).stderr(fs::File::create(&log).unwrap());
    let mut child = command.spawn().unwrap();
    let (peak, stop) = watched(child.id().cast_signed());
    assert!(child.wait().unwrap().success(), "{}", fs::read_to_string(&log).unwrap());
    stop.store(true, Ordering::Relaxed);
    (fs::read_to_string(&log).unwrap(), peak.join().unwrap())
}

/// The most anonymous memory of a process until it is stopped.
fn watched(pid: i32) -> (std::thread::JoinHandle<u64>, Arc<AtomicBool>) {
    let stop = Arc::new(AtomicBool::new(false));
    let report = stop.clone();
    let watching = std::thread::spawn(move || {
        let mut most = 0;
        while !report.load(Ordering::Relaxed) {
            most = status_field_of(pid, "RssAnon:").map_or(most, |now| now.max(most));
            std::thread::sleep(Duration::from_millis(20));
        }
        most
    });
    (watching, stop)
}

/// Ten thousand snapshots with their manifests.
fn listing(store: &Store, node: &Node) {
    let folder = store.path("prod/.metadata");
    let plant = |number: u64| {
        let name = format!("on-demand-node-{}", 1_600_000_000 + number);
        fs::write(store.path(&format!("prod/{name}")), &name).unwrap();
        let created = kit_time(1_600_000_000 + number);
        let manifest = serde_json::json!({
            "version": 1, "name": name, "base": "on-demand", "node": "node", "size": name.len(), "created": created, "revision": 7,
            "sha256": "00", "object": { "etag": "", "crc64nvme": "", "verified_by": "MD5" },
        });
        fs::write(folder.join(format!("{name}.json")), manifest.to_string()).unwrap();
    };
    (0..9_999).for_each(plant);
    let ls = || {
        store.seen();
        let begun = Instant::now();
        node.quorate(&["etcd-snapshot", "ls", "--s3", "-o", "json"]).succeeds();
        (begun.elapsed(), store.seen().len())
    };
    let (first, asked_first) = ls();
    println!("ls of 10,000 remote snapshots, for the first time: {:.0} ms, {asked_first} requests", spread(&[first]).1);
    let mut samples = Vec::new();
    let mut asked = 0;
    for _ in 0..RUNS {
        let (took, requests) = ls();
        samples.push(took);
        asked = requests;
    }
    row("ls of 10,000 remote snapshots, nothing changed", &samples, None, None);
    println!("requests: {asked} (aim 22)");
    store.seen();
    let begun = Instant::now();
    let pruned = node.quorate(&["etcd-snapshot", "prune", "--s3", "--s3-retention=9000"]);
    let gone = pruned.succeeds().lines().count();
    let deletes = store.seen().iter().filter(|seen| seen.is("POST", "delete")).count();
    println!("prune of {gone}: {:.0} ms, {deletes} requests to delete (aim 3)", spread(&[begun.elapsed()]).1);
}

fn kit_time(unix: u64) -> String {
    chrono::DateTime::from_timestamp(i64::try_from(unix).unwrap(), 0).unwrap().to_rfc3339()
}
