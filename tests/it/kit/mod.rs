//! The test kit: real `quorate` binaries with real etcds, on free loopback ports, in temporary directories.
//!
//! A [`Node`] is a server with a directory of its own. Tests start, signal, kill and restart it and wait on conditions
//! with deadlines, never for a fixed time. When a test fails its log is printed; however it ends, no process stays behind.

#![allow(dead_code, missing_docs)]

pub mod s3;

use std::fs::{self, File};
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// Generous, for busy machines: only a hang reaches it.
pub const DEADLINE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

/// Waits until `look` finds something.
#[track_caller]
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < DEADLINE, "waited in vain for: {what}");
        std::thread::sleep(POLL);
    }
}

/// Says on the terminal, and to `make test`, that something was not tested.
pub fn skip(why: &str) {
    println!("SKIPPED: {why}");
    note("skipped", why);
}

fn note(kind: &str, text: &str) {
    let Some(path) = std::env::var_os("QUORATE_TEST_NOTES") else { return };
    if let Ok(mut notes) = File::options().append(true).create(true).open(path) {
        let _ = writeln!(notes, "{kind}\t{text}");
    }
}

/// Measures a test from here to the end of its scope, for the list of the slowest.
pub struct Timed {
    begun: Instant,
}

impl Timed {
    pub fn start() -> Self {
        Self { begun: Instant::now() }
    }
}

impl Drop for Timed {
    fn drop(&mut self) {
        let name = std::thread::current().name().unwrap_or("?").to_owned();
        note("time", &format!("{}\t{name}", self.begun.elapsed().as_millis()));
    }
}

fn target() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target")
}

/// A real etcd of some minor version.
#[derive(Clone, Debug)]
pub struct Etcd {
    pub minor: &'static str,
    pub dir: PathBuf,
}

impl Etcd {
    /// The etcd of this minor that `make test` has put under `target/etcd`; `None`, and said, if it is not there.
    pub fn find(minor: &'static str) -> Option<Self> {
        let dir = target().join("etcd").join(minor);
        if dir.join("etcd").exists() && dir.join("etcdctl").exists() {
            return Some(Self { minor, dir });
        }
        skip(&format!("etcd {minor} is not in target/etcd (make matrix fetches it)"));
        None
    }

    /// The one that tests use which do not care.
    pub fn usual() -> Self {
        ["3.5", "3.4", "3.6", "3.7"]
            .into_iter()
            .find_map(Self::find)
            .expect("no etcd at all in target/etcd: run `make matrix`")
    }

    pub fn binary(&self) -> PathBuf {
        self.dir.join("etcd")
    }

    pub fn version(&self) -> String {
        let output = Command::new(self.binary()).arg("--version").output().unwrap();
        String::from_utf8_lossy(&output.stdout).lines().next().unwrap().replace("etcd Version: ", "")
    }
}

/// Makes a test for each supported minor from one function.
#[macro_export]
macro_rules! matrix {
    ($($name:ident),+ $(,)?) => {$(
        mod $name {
            #[test]
            fn v3_4() { $crate::kit::with_etcd("3.4", super::cases::$name); }
            #[test]
            fn v3_5() { $crate::kit::with_etcd("3.5", super::cases::$name); }
            #[test]
            fn v3_6() { $crate::kit::with_etcd("3.6", super::cases::$name); }
            #[test]
            fn v3_7() { $crate::kit::with_etcd("3.7", super::cases::$name); }
        }
    )+};
}

pub fn with_etcd(minor: &'static str, case: fn(&Etcd)) {
    let _timed = Timed::start();
    if let Some(etcd) = Etcd::find(minor) {
        case(&etcd);
    }
}

/// Five ports in a row that nobody uses, kept from other tests for as long as this lives.
#[derive(Debug)]
pub struct Ports {
    pub base: u16,
    _claim: nix::fcntl::Flock<File>,
}

impl Ports {
    pub fn claim() -> Self {
        // Below the range that the kernel hands out by itself.
        const FIRST: u16 = 20_000;
        const BLOCKS: u16 = 1_200;
        let dir = std::env::temp_dir().join("quorate-test-ports");
        fs::create_dir_all(&dir).unwrap();
        let start = u16::try_from(std::process::id() % u32::from(BLOCKS)).unwrap();
        for step in 0..BLOCKS {
            let base = FIRST + ((start + step) % BLOCKS) * 10;
            let file = File::options().create(true).append(true).open(dir.join(base.to_string())).unwrap();
            let Ok(claim) = nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusiveNonblock) else {
                continue;
            };
            if (0..5).all(|offset| TcpListener::bind(("0.0.0.0", base + offset)).is_ok()) {
                return Self { base, _claim: claim };
            }
        }
        panic!("no free ports");
    }

    pub fn client(&self) -> u16 {
        self.base
    }
    pub fn peer(&self) -> u16 {
        self.base + 1
    }
    pub fn etcd_metrics(&self) -> u16 {
        self.base + 2
    }
    pub fn metrics(&self) -> u16 {
        self.base + 3
    }
    pub fn supervisor(&self) -> u16 {
        self.base + 4
    }
}

/// What a command printed and how it ended.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Ran {
    pub fn of(output: &Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Asserts the exit code and that standard error says each of `words`.
    #[track_caller]
    pub fn fails(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:#?}");
        for word in words {
            assert!(self.err.contains(word), "standard error lacks `{word}`:\n{}", self.err);
        }
    }

    #[track_caller]
    pub fn succeeds(&self) -> &str {
        assert_eq!(self.code, Some(0), "{self:#?}");
        &self.out
    }
}

/// The executable under test.
pub fn executable() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_quorate"))
}

/// The same with an etcd inside, if `make test` has built it.
pub fn embedded_executable() -> Option<PathBuf> {
    let path = target().join("embedded").join("quorate");
    if path.exists() {
        return Some(path);
    }
    skip("target/embedded/quorate was not built (make embedded)");
    None
}

/// A server with a directory, ports and a log of its own.
pub struct Node {
    pub dir: TempDir,
    pub ports: Ports,
    pub executable: PathBuf,
    pub etcd: Option<PathBuf>,
    /// More arguments of `quorate server`.
    pub args: Vec<String>,
    /// Environment of the server.
    pub env: Vec<(String, String)>,
    pub data_dir: PathBuf,
    launcher: Option<Child>,
}

impl Node {
    pub fn new(etcd: &Etcd) -> Self {
        Self::with_binary(Some(etcd.binary()))
    }

    pub fn with_binary(etcd: Option<PathBuf>) -> Self {
        let dir = tempfile::Builder::new().prefix("quorate-test-").tempdir().unwrap();
        fs::write(dir.path().join("config.yaml"), "").unwrap();
        let data_dir = dir.path().join("data");
        Self {
            ports: Ports::claim(),
            executable: executable(),
            etcd,
            args: Vec::new(),
            env: Vec::new(),
            data_dir,
            launcher: None,
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

    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
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
            command.arg("--node-ip=127.0.0.1");
        }
        if !self.args.iter().any(|arg| arg.starts_with("--node-name")) {
            command.arg("--node-name=node");
        }
        command.args(&self.args).envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    fn bare_command(&self) -> Command {
        let mut command = Command::new(&self.executable);
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
        command.stdin(Stdio::null());
        command
    }

    /// Starts the server; its log goes to the log file.
    pub fn start(&mut self) {
        assert!(self.launcher.is_none(), "already started");
        let log = File::options().create(true).append(true).open(self.log_path()).unwrap();
        let mut command = self.server_command();
        command.stdout(log.try_clone().unwrap()).stderr(log);
        self.launcher = Some(command.spawn().unwrap());
    }

    pub fn adopt(&mut self, launcher: Child) {
        assert!(self.launcher.replace(launcher).is_none());
    }

    #[track_caller]
    pub fn start_ready(&mut self) {
        self.start();
        self.wait_ready();
    }

    #[track_caller]
    pub fn wait_ready(&mut self) {
        eventually("the server to be ready", || {
            if let Some(status) = self.launcher.as_mut().unwrap().try_wait().unwrap() {
                panic!("the server ended with {status}:\n{}", self.log());
            }
            // Degraded is ready, too: a small file system is, from the start.
            let status = self.status();
            let is_degraded = || status.out.contains("\"health\": \"degraded\"");
            (status.code == Some(0) || is_degraded()).then_some(())
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
                panic!("the server was to end by itself:\n{}", fs::read_to_string(&log).unwrap());
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
        http_get(self.ports.metrics(), "/readyz").0 == 200
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
        assert_eq!(status.code(), Some(0), "{status} {}", self.log());
        if let Some(pid) = child {
            assert!(!is_running(pid), "etcd {pid} is still there after a stop");
        }
    }

    /// kill -9 of the launcher.
    pub fn kill_launcher(&mut self) {
        self.signal(Signal::SIGKILL);
        assert_eq!(self.wait_end().signal(), Some(9));
    }

    #[track_caller]
    pub fn wait_log(&self, text: &str) {
        eventually(&format!("`{text}` in the log"), || self.log().contains(text).then_some(()));
    }

    /// What a client of etcd needs, for as long as one likes.
    pub fn access(&self) -> Access {
        Access { tls: self.server_dir().join("tls/etcd"), port: self.ports.client() }
    }

    /// The directories that were set aside.
    pub fn set_aside(&self) -> Vec<PathBuf> {
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

/// Where an etcd is, and the certificates for people.
pub struct Access {
    tls: PathBuf,
    port: u16,
}

impl Access {
    pub async fn client(&self) -> etcd_client::Client {
        let file = |name: &str| fs::read(self.tls.join(name)).unwrap();
        let tls = etcd_client::TlsOptions::new()
            .ca_certificate(etcd_client::Certificate::from_pem(file("server-ca.crt")))
            .identity(etcd_client::Identity::from_pem(file("client.crt"), file("client.key")));
        let options = etcd_client::ConnectOptions::new().with_tls(tls).with_timeout(Duration::from_secs(2));
        let url = format!("https://127.0.0.1:{}", self.port);
        etcd_client::Client::connect([url], Some(options)).await.unwrap()
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
        if std::thread::panicking() {
            println!("---- log of the server ----\n{}", self.log());
        }
    }
}

fn mentions(pid: i32, dir: &Path) -> bool {
    fs::read(format!("/proc/{pid}/cmdline"))
        .is_ok_and(|line| String::from_utf8_lossy(&line).contains(&*dir.to_string_lossy()))
}

/// True if the process is there and not a zombie.
pub fn is_running(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !matches!(stat.rsplit(") ").next().and_then(|rest| rest.chars().next()), Some('Z' | 'X')))
}

pub fn eventually_gone(pid: i32) -> bool {
    let begun = Instant::now();
    while is_running(pid) && begun.elapsed() < DEADLINE {
        std::thread::sleep(POLL);
    }
    !is_running(pid)
}

/// The etcds that run on this directory: pids of processes whose arguments name it as their data-dir.
pub fn etcds_on(dir: &Path) -> Vec<i32> {
    let wanted = format!("--data-dir={}", dir.display());
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| line.split(|byte| *byte == 0).any(|arg| arg == wanted.as_bytes()))
                && is_running(*pid)
        })
        .collect()
}

pub fn files_under(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        found.push(entry.path());
        if entry.path().is_dir() && !entry.path().is_symlink() {
            found.extend(files_under(&entry.path()));
        }
    }
    found
}

/// A shell script that passes for an etcd: it answers `--version`, and does `body` when run.
pub fn fake_etcd(dir: &Path, version: &str, body: &str) -> PathBuf {
    let path = dir.join("fake-etcd");
    let script = format!(
        "#!/bin/sh\nfor arg in \"$@\"; do [ \"$arg\" = --version ] && {{ echo 'etcd Version: {version}'; exit 0; }}; done\n{body}\n"
    );
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// A small file system in memory; `None`, and said, where mounting is not allowed.
pub struct Mount {
    pub path: PathBuf,
}

impl Mount {
    pub fn tmpfs(at: &Path, options: &str) -> Option<Self> {
        fs::create_dir_all(at).unwrap();
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(at).output();
        if done.is_ok_and(|output| output.status.success()) {
            return Some(Self { path: at.to_path_buf() });
        }
        skip("mounting a tmpfs is not allowed here");
        None
    }

    pub fn remount(&self, options: &str) {
        let done = Command::new("mount").args(["-o", &format!("remount,{options}")]).arg(&self.path).status().unwrap();
        assert!(done.success());
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}

/// One plain HTTP GET; status and body.
pub fn http_get(port: u16, path: &str) -> (u16, String) {
    let stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    http_get_over(stream, path)
}

/// The same over a stream.
pub fn http_get_over(mut stream: impl std::io::Read + std::io::Write, path: &str) -> (u16, String) {
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let status = text.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    let body = text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
    (status, body)
}
