//! A quorate server under test: its directory, ports, log, processes, and the commands that are run against it.

use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::{
    Access, DEADLINE, Etcd, POLL, Ports, Ran, eventually, eventually_gone, executable, files_under, is_running,
    network, try_http_get, weight::Weight,
};

/// Where a server runs: usually on 127.0.0.1 of the machine; in a [`super::Cluster`] on an address or in a network namespace of its own.
#[derive(Clone, Debug)]
pub struct Host {
    /// `--node-ip`.
    pub address: IpAddr,
    /// Where its loopback sockets are.
    pub loopback: IpAddr,
    /// The network namespace of its processes; `None` is the one of the tests.
    pub namespace: Option<String>,
}

impl Default for Host {
    fn default() -> Self {
        let address = Ipv4Addr::LOCALHOST.into();
        Self { address, loopback: address, namespace: None }
    }
}

/// A server with a directory, ports and a log of its own.
pub struct Node {
    pub dir: TempDir,
    pub name: String,
    pub host: Host,
    pub ports: Arc<Ports>,
    pub executable: PathBuf,
    pub etcd: Option<PathBuf>,
    /// More arguments of `quorate server`.
    pub args: Vec<String>,
    /// Environment of the server.
    pub env: Vec<(String, String)>,
    pub data_dir: PathBuf,
    launcher: Option<Child>,
    /// How long the log was at the last start.
    log_start: usize,
    /// The log of a failed test is printed by the cluster.
    pub(super) is_quiet: bool,
    weight: Option<Weight>,
}

impl Node {
    pub fn new(etcd: &Etcd) -> Self {
        Self::with_binary(Some(etcd.binary()))
    }

    pub fn with_binary(etcd: Option<PathBuf>) -> Self {
        let weight = Weight::take(1);
        let mut node = Self::part_of_cluster("node", Host::default(), Arc::new(Ports::claim()), etcd);
        node.weight = Some(weight);
        node
    }

    /// One of several, which share their ports and their weight.
    pub(super) fn part_of_cluster(name: &str, host: Host, ports: Arc<Ports>, etcd: Option<PathBuf>) -> Self {
        let dir = tempfile::Builder::new().prefix("quorate-test-").tempdir().unwrap();
        fs::write(dir.path().join("config.yaml"), "").unwrap();
        let data_dir = dir.path().join("data");
        Self {
            name: name.to_owned(),
            host,
            ports,
            executable: executable(),
            etcd,
            args: Vec::new(),
            env: Vec::new(),
            data_dir,
            launcher: None,
            log_start: 0,
            is_quiet: false,
            weight: None,
            dir,
        }
    }

    pub fn arg(mut self, arg: &str) -> Self {
        self.args.push(arg.to_owned());
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sets the wall clock `ahead` seconds ahead, and the scheduler to read it often, so that [`Self::set_clock`] takes effect soon.
    pub fn with_clock(self, ahead: i64) -> Self {
        self.set_clock(ahead);
        let path = self.clock_path().display().to_string();
        self.env("QUORATE_TEST_CLOCK_FILE", &path).env("QUORATE_TEST_LOOK_MS", "100")
    }

    /// Changes how far the clock of a server [`Self::with_clock`] is ahead, while it runs.
    pub fn set_clock(&self, ahead: i64) {
        let new = self.dir.path().join("clock.new");
        fs::write(&new, ahead.to_string()).unwrap();
        fs::rename(new, self.clock_path()).unwrap();
    }

    fn clock_path(&self) -> PathBuf {
        self.dir.path().join("clock")
    }

    pub fn config(self, yaml: &str) -> Self {
        fs::write(self.config_path(), yaml).unwrap();
        self
    }

    pub fn config_path(&self) -> PathBuf {
        self.dir.path().join("config.yaml")
    }

    pub fn server_dir(&self) -> PathBuf {
        self.data_dir.join("server")
    }

    pub fn etcd_dir(&self) -> PathBuf {
        self.server_dir().join("db/etcd")
    }

    pub fn log_path(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    /// The log of all starts: for what must never be in it. A fact of this start is looked for in [`Self::log_since_start`].
    pub fn log(&self) -> String {
        self.log_from(0)
    }

    /// The log since the last [`Self::start`].
    pub fn log_since_start(&self) -> String {
        self.log_from(self.log_start)
    }

    /// The present end of the log, for [`Self::log_from`] and [`Self::wait_log_from`].
    pub fn log_end(&self) -> usize {
        fs::metadata(self.log_path()).map_or(0, |log| usize::try_from(log.len()).unwrap())
    }

    pub fn log_from(&self, offset: usize) -> String {
        let log = fs::read(self.log_path()).unwrap_or_default();
        String::from_utf8_lossy(log.get(offset..).unwrap_or_default()).into_owned()
    }

    /// Waits for `text` in the log since the last start, and gives that part of the log.
    #[track_caller]
    pub fn wait_log(&self, text: &str) -> String {
        self.wait_log_from(self.log_start, text)
    }

    /// Waits for `text` after an earlier [`Self::log_end`], and gives the log from there.
    #[track_caller]
    pub fn wait_log_from(&self, offset: usize, text: &str) -> String {
        eventually(&format!("`{text}` in the log"), || Some(self.log_from(offset)).filter(|log| log.contains(text)))
    }

    /// `quorate server` with this node's ports and paths.
    pub fn server_command(&self) -> Command {
        let mut command = self.bare_command();
        command.arg("server").arg("--data-dir").arg(&self.data_dir).arg("--config").arg(self.config_path());
        if let Some(etcd) = &self.etcd {
            command.arg("--etcd-binary").arg(etcd);
        }
        for (option, port) in [
            ("etcd-client-port", self.ports.client()),
            ("etcd-peer-port", self.ports.peer()),
            ("etcd-metrics-port", self.ports.etcd_metrics()),
            ("metrics-port", self.ports.metrics()),
            ("supervisor-port", self.ports.supervisor()),
        ] {
            if !self.args.iter().any(|arg| arg.starts_with(&format!("--{option}="))) {
                command.arg(format!("--{option}={port}"));
            }
        }
        if !self.args.iter().any(|arg| arg.starts_with("--node-ip")) {
            command.arg(format!("--node-ip={}", self.host.address));
        }
        if !self.args.iter().any(|arg| arg.starts_with("--node-name")) {
            command.arg(format!("--node-name={}", self.name));
        }
        command.args(&self.args).envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    fn bare_command(&self) -> Command {
        let mut command = match &self.host.namespace {
            None => Command::new(&self.executable),
            Some(namespace) => network::command_in(namespace, &self.executable),
        };
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("QUORATE_")
                || text.starts_with("ETCD")
                || text == "FAILPOINTS"
                || text.starts_with("AWS_")
                || text.to_uppercase().ends_with("_PROXY")
                || text == "NOTIFY_SOCKET"
            {
                command.env_remove(&name);
            }
        }
        if self.host.loopback != IpAddr::from(Ipv4Addr::LOCALHOST) {
            command.env("QUORATE_TEST_LOOPBACK", self.host.loopback.to_string());
        }
        command.stdin(Stdio::null());
        command
    }

    /// Starts the server; its log goes to the log file.
    pub fn start(&mut self) {
        self.start_command(self.server_command());
    }

    /// Starts this variant of [`Self::server_command`] as [`Self::start`] does.
    pub fn start_command(&mut self, mut command: Command) {
        assert!(self.launcher.is_none(), "already started");
        self.log_start = self.log_end();
        let log = File::options().create(true).append(true).open(self.log_path()).unwrap();
        command.stdout(log.try_clone().unwrap()).stderr(log);
        self.launcher = Some(command.spawn().unwrap());
    }

    /// Takes over a launcher that was started with another output.
    pub fn adopt(&mut self, launcher: Child) {
        assert!(self.launcher.replace(launcher).is_none());
    }

    #[track_caller]
    pub fn start_ready(&mut self) {
        self.start();
        self.wait_ready();
    }

    /// Waits until `/readyz` says that clients can be sent there.
    #[track_caller]
    pub fn wait_ready(&mut self) {
        eventually("the server to be ready", || {
            if let Some(status) = self.launcher.as_mut().unwrap().try_wait().unwrap() {
                panic!("the server ended with {status}:\n{}", self.log_since_start());
            }
            self.is_serving().then_some(())
        });
    }

    /// Runs the server to its end, for starts that must fail.
    pub fn run_server(&self) -> Ran {
        self.run_server_with(&[])
    }

    /// As [`Self::run_server`], with these arguments too: for resets, which end by themselves.
    pub fn run_server_with(&self, args: &[&str]) -> Ran {
        let log = self.dir.path().join("run.err");
        let out = self.dir.path().join("run.out");
        let mut command = self.server_command();
        command.args(args);
        let mut child =
            command.stdout(File::create(&out).unwrap()).stderr(File::create(&log).unwrap()).spawn().unwrap();
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if begun.elapsed() > DEADLINE {
                let _ = kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM);
                let _ = child.wait();
                panic!("the server was to end automatically:\n{}", fs::read_to_string(&log).unwrap());
            }
            std::thread::sleep(POLL);
        };
        Ran { code: status.code(), out: fs::read_to_string(out).unwrap(), err: fs::read_to_string(log).unwrap() }
    }

    /// Runs another verb against this node's data directory.
    pub fn quorate(&self, args: &[&str]) -> Ran {
        self.quorate_with(&[], args)
    }

    /// As [`Self::quorate`], with these environment variables.
    pub fn quorate_with(&self, env: &[(&str, &str)], args: &[&str]) -> Ran {
        let mut command = self.bare_command();
        command.envs(env.iter().copied());
        let (verb, rest) = args.split_first().unwrap();
        command.arg(verb).arg("--data-dir").arg(&self.data_dir).arg("--config").arg(self.config_path()).args(rest);
        Ran::of(&command.output().unwrap())
    }

    pub fn status(&self) -> Ran {
        self.quorate(&["status", "-o", "json"])
    }

    /// Clients can be sent there: healthy, or degraded.
    pub fn is_serving(&self) -> bool {
        self.http_get("/readyz").is_some_and(|(code, _)| code == 200)
    }

    /// A page of the launcher's port for metrics and probes; `None` if it does not answer.
    pub fn http_get(&self, path: &str) -> Option<(u16, String)> {
        let address = SocketAddr::new(self.loopback(), self.ports.metrics());
        network::inside(self.host.namespace.as_deref(), || try_http_get(address, path))
    }

    /// Where the loopback sockets of the server are.
    fn loopback(&self) -> IpAddr {
        let is_ipv6 = self.args.iter().filter_map(|arg| arg.strip_prefix("--node-ip=")).any(|ip| ip.contains(':'));
        if is_ipv6 { Ipv6Addr::LOCALHOST.into() } else { self.host.loopback }
    }

    pub fn status_json(&self) -> serde_json::Value {
        serde_json::from_str(&self.status().out).unwrap()
    }

    /// etcdctl through quorate, as a user would.
    #[track_caller]
    pub fn etcdctl(&self, args: &[&str]) -> String {
        let ran = self.quorate(&[&["etcdctl", "--"], args].concat());
        ran.succeeds().to_owned()
    }

    pub fn launcher_pid(&self) -> i32 {
        self.launcher.as_ref().unwrap().id().cast_signed()
    }

    /// The pid of the child, from its record.
    pub fn child_pid(&self) -> Option<i32> {
        let bytes = fs::read(self.server_dir().join("child.json")).ok()?;
        let value: serde_json::Value = serde_json::from_slice(&bytes).ok()?;
        value["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok())
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.launcher_pid()), signal).unwrap();
    }

    pub fn signal_child(&self, signal: Signal) -> i32 {
        let pid = self.child_pid().expect("a child is recorded");
        kill(Pid::from_raw(pid), signal).unwrap();
        pid
    }

    /// Waits for the launcher to end.
    #[track_caller]
    pub fn wait_end(&mut self) -> ExitStatus {
        let mut launcher = self.launcher.take().unwrap();
        eventually("the launcher to end", || launcher.try_wait().unwrap())
    }

    /// SIGTERM, and the orderly end that follows.
    #[track_caller]
    pub fn stop(&mut self) {
        let child = self.child_pid();
        self.signal(Signal::SIGTERM);
        let status = self.wait_end();
        assert_eq!(status.code(), Some(0), "{status} {}", self.log_since_start());
        if let Some(pid) = child {
            assert!(!is_running(pid), "etcd {pid} is still there after a stop");
        }
    }

    /// kill -9 of the launcher.
    pub fn kill_launcher(&mut self) {
        self.signal(Signal::SIGKILL);
        assert_eq!(self.wait_end().signal(), Some(9));
    }

    /// How a client on the same host reaches etcd.
    pub fn access(&self) -> Access {
        Access {
            tls: self.server_dir().join("tls/etcd"),
            host: self.loopback(),
            port: self.ports.client(),
            namespace: self.host.namespace.clone(),
        }
    }

    /// How a client on the host of `other` reaches etcd, over the network.
    pub fn access_from(&self, other: &Self) -> Access {
        Access { host: self.host.address, namespace: other.host.namespace.clone(), ..self.access() }
    }

    /// The directories that were retired.
    pub fn retire(&self) -> Vec<PathBuf> {
        let found = fs::read_dir(self.server_dir().join("db")).unwrap().flatten().map(|entry| entry.path());
        found.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("etcd-old-")).collect()
    }

    /// Every file of the data directory with the time of its last change: the same before and after means untouched.
    pub fn files_with_times(&self) -> Vec<(std::time::SystemTime, PathBuf)> {
        let stat = |path: &PathBuf| fs::symlink_metadata(path).unwrap().modified().unwrap();
        let mut all: Vec<_> = self.files().into_iter().map(|path| (stat(&path), path)).collect();
        all.sort();
        all
    }

    /// Every file below the data directory, for "untouched".
    pub fn files(&self) -> Vec<PathBuf> {
        files_under(&self.data_dir)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let child = self.child_pid();
        if let Some(mut launcher) = self.launcher.take() {
            let _ = launcher.kill();
            let _ = launcher.wait();
        }
        // A child that a launcher recorded is ours if it uses our directory.
        if let Some(pid) = child.filter(|pid| mentions(*pid, &self.data_dir)) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            let _ = eventually_gone(pid);
        }
        if std::thread::panicking() && !self.is_quiet {
            println!("---- log of the server ----\n{}", self.log_since_start());
        }
    }
}

fn mentions(pid: i32, dir: &Path) -> bool {
    fs::read(format!("/proc/{pid}/cmdline"))
        .is_ok_and(|line| String::from_utf8_lossy(&line).contains(&*dir.to_string_lossy()))
}
