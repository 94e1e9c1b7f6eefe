//! An etcd without TLS on a data directory, and etcd's own restore.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use etcd_client::{Client, ConnectOptions, GetOptions};

use crate::kit::{Etcd, Ports};

/// Longer than any of them takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

/// What an etcd serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub revision: i64,
    pub keys: i64,
    pub hash_kv: u32,
    pub compact_revision: i64,
}

/// It is killed when it is not needed any more.
pub struct Running {
    child: Child,
    pub url: String,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Running {
    pub fn start(etcd: &Etcd, dir: &Path, ports: &Ports, log: &Path) -> Self {
        let url = format!("http://127.0.0.1:{}", ports.client());
        let mut command = Command::new(etcd.binary());
        command.arg("--name=m").arg(format!("--data-dir={}", dir.display()));
        for flag in ["listen-client-urls", "advertise-client-urls"] {
            command.arg(format!("--{flag}={url}"));
        }
        let peer = format!("http://127.0.0.1:{}", ports.peer());
        for flag in ["listen-peer-urls", "initial-advertise-peer-urls"] {
            command.arg(format!("--{flag}={peer}"));
        }
        command.arg(format!("--initial-cluster=m={peer}")).args(["--heartbeat-interval=20", "--election-timeout=200"]);
        if etcd.minor != "3.4" {
            command.arg("--unsafe-no-fsync");
        }
        let log = File::create(log).unwrap();
        let child = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        Self { child, url }
    }

    /// Waits until `ask` has an answer.
    pub fn until<T>(&mut self, log: &Path, mut ask: impl AsyncFnMut(&mut Client) -> Option<T>) -> Result<T, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return Err(format!("etcd ended with {status}: {}", last_line(log)));
            }
            if begun.elapsed() > DEADLINE {
                return Err(format!("etcd did not answer: {}", last_line(log)));
            }
            let answer = runtime.block_on(async {
                let options = ConnectOptions::new().with_timeout(Duration::from_secs(5));
                let mut client = Client::connect([&self.url], Some(options)).await.ok()?;
                ask(&mut client).await
            });
            match answer {
                Some(answer) => return Ok(answer),
                None => std::thread::sleep(POLL),
            }
        }
    }
}

/// What the etcd on `dir` serves, or why it does not.
pub fn run(etcd: &Etcd, dir: &Path, ports: &Ports) -> Result<Answer, String> {
    let log = dir.with_extension("log");
    let mut running = Running::start(etcd, dir, ports, &log);
    running.until(&log, async |client| {
        let options = GetOptions::new().with_all_keys().with_count_only();
        let all = client.get("", Some(options)).await.ok()?;
        let hash = client.hash_kv(0).await.ok()?;
        Some(Answer {
            revision: all.header()?.revision(),
            keys: all.count(),
            hash_kv: hash.hash(),
            compact_revision: hash.compact_version(),
        })
    })
}

/// `etcdutl snapshot restore`, or etcdctl's of 3.4.
pub fn restore(etcd: &Etcd, snapshot: &Path, dir: &Path, ports: &Ports) -> Result<(), String> {
    let tool = etcd.dir.join(if etcd.minor == "3.4" { "etcdctl" } else { "etcdutl" });
    let peer = format!("http://127.0.0.1:{}", ports.peer());
    let log = dir.with_extension("restore.log");
    let mut command = Command::new(tool);
    command.env("ETCDCTL_API", "3").args(["snapshot", "restore", "--name=m"]);
    command.arg(format!("--initial-cluster=m={peer}")).arg(format!("--initial-advertise-peer-urls={peer}"));
    command.arg(format!("--data-dir={}", dir.display())).arg(snapshot);
    let to = File::create(&log).unwrap();
    let child = command.stdin(Stdio::null()).stdout(to.try_clone().unwrap()).stderr(to).spawn().unwrap();
    match wait(child) {
        Some(status) if status.success() => Ok(()),
        Some(status) => Err(format!("etcd's restore ended with {status}: {}", last_line(&log))),
        None => Err("etcd's restore did not end".into()),
    }
}

fn wait(mut child: Child) -> Option<ExitStatus> {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if begun.elapsed() > DEADLINE {
            let _ = child.kill();
            let _ = child.wait();
            return None;
        }
        std::thread::sleep(POLL);
    }
}

/// The line that says why.
fn last_line(log: &Path) -> String {
    let text = fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let is_why = |line: &&str| ["panic", "fatal", "Error", "error", "SIG"].iter().any(|word| line.contains(word));
    let line = text.lines().find(is_why).or_else(|| text.lines().last()).unwrap_or_default();
    line.chars().take(400).collect()
}
