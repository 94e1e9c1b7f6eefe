//! The test kit: real `quorate` binaries with real etcds, on free loopback ports, in temporary directories.
//!
//! A [`Node`] is a server with a directory of its own. Tests start, signal, kill and restart it and wait on conditions
//! with deadlines, never for a fixed time. When a test fails its log is printed; however it ends, no process stays behind.
//! `tests/README.md` describes each piece.

#![allow(dead_code, unused_imports, missing_docs, reason = "a bench uses a part of the kit")]

mod access;
mod bare;
mod cluster;
mod etcd;
pub mod events;
mod network;
mod node;
mod ports;
mod process;
pub mod s3;
mod weight;
mod writer;

pub use access::Access;
pub use bare::BareEtcd;
pub use cluster::Cluster;
pub use etcd::{Etcd, with_etcd};
pub use network::Network;
pub use node::{Host, Node};
pub use ports::Ports;
pub use process::{etcds_on, eventually_gone, fake_etcd, files_under, is_running};
pub use writer::{Ledger, Writer};

use std::fs::{self, File};
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use quorate::error::Code;

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

/// As [`skip`], for a piece that `make` fetches or builds: `etcd`, `embedded`, `moto`, `test-root`.
///
/// # Panics
/// If `QUORATE_TEST_REQUIRE` lists it, or is `all`.
pub fn skip_without(piece: &str, why: &str) {
    let required = std::env::var("QUORATE_TEST_REQUIRE").unwrap_or_default();
    assert!(!is_required(&required, piece), "QUORATE_TEST_REQUIRE={required}, and {why}");
    skip(why);
}

fn is_required(required: &str, piece: &str) -> bool {
    required.split(',').any(|one| one == piece || one == "all")
}

#[test]
fn what_is_required_is_not_skipped() {
    assert!(is_required("all", "moto") && is_required("etcd,moto", "moto"));
    assert!(!is_required("etcd", "moto") && !is_required("", "etcd"));
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

    /// The stable code of the failure: the line `code: NAME` at the end of standard error, or the field of an error in JSON.
    pub fn error_code(&self) -> Option<Code> {
        let of_line = |line: &str| match line.trim().strip_prefix("code: ") {
            Some(name) => Code::named(name),
            None => Code::named(serde_json::from_str::<serde_json::Value>(line).ok()?["code"].as_str()?),
        };
        self.err.lines().rev().find_map(of_line)
    }

    /// True if it says what to do: the line `next: …`, or the field of an error in JSON.
    pub fn has_next_step(&self) -> bool {
        self.err.lines().any(|line| line.trim().starts_with("next: ") || line.contains("\"next\":\""))
    }

    /// Asserts the code of the failure with its exit code, that it says what to do, and that standard error has each of
    /// `facts`: names, paths, numbers, options, commands to type. Wording is no fact.
    #[track_caller]
    pub fn fails(&self, code: Code, facts: &[&str]) {
        self.fails_with(code, code.exit() as i32, facts);
    }

    /// As [`Self::fails`], with the exit code of a cause that has another code.
    #[track_caller]
    pub fn fails_with(&self, code: Code, exit: i32, facts: &[&str]) {
        // Their messages say what is right, or nothing can be done.
        const WITHOUT_NEXT: [Code; 4] = [Code::Usage, Code::InvalidSnapshotName, Code::OutputFailed, Code::OsError];
        assert_eq!(self.error_code(), Some(code), "{self:#?}");
        assert!(WITHOUT_NEXT.contains(&code) || self.has_next_step(), "{code} without a next step:\n{}", self.err);
        self.exits(exit, facts);
    }

    /// Asserts the exit code and that standard error has each of `facts`: for programs that have no codes.
    #[track_caller]
    pub fn exits(&self, exit: i32, facts: &[&str]) {
        assert_eq!(self.code, Some(exit), "{self:#?}");
        for fact in facts {
            assert!(self.err.contains(fact), "standard error lacks `{fact}`:\n{}", self.err);
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
    skip_without("embedded", "target/embedded/quorate was not built (make embedded)");
    None
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

    /// An ext4 of this many MiB in the file `image`, which can be frozen; `None`, and reported, if that is not
    /// possible.
    pub fn ext4(at: &Path, image: &Path, mib: u64) -> Option<Self> {
        fs::create_dir_all(at).unwrap();
        File::create(image).unwrap().set_len(mib << 20).unwrap();
        let succeeds = |command: &mut Command| command.output().is_ok_and(|output| output.status.success());
        if succeeds(Command::new("mkfs.ext4").arg("-q").arg(image))
            && succeeds(Command::new("mount").args(["-o", "loop"]).arg(image).arg(at))
        {
            return Some(Self { path: at.to_path_buf() });
        }
        skip("mounting an ext4 from a file is not possible here");
        None
    }

    /// Until the result is dropped, all writes there block, as on a disk that does not respond.
    pub fn freeze(&self) -> Frozen<'_> {
        assert!(Command::new("fsfreeze").arg("-f").arg(&self.path).status().unwrap().success());
        Frozen(self)
    }

    pub fn remount(&self, options: &str) {
        let done = Command::new("mount").args(["-o", &format!("remount,{options}")]).arg(&self.path).status().unwrap();
        assert!(done.success());
    }
}

/// A file system that blocks all writes.
pub struct Frozen<'a>(&'a Mount);

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        let _ = Command::new("fsfreeze").arg("-u").arg(&self.0.path).status();
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}

/// One plain HTTP GET on 127.0.0.1; status and body.
pub fn http_get(port: u16, path: &str) -> (u16, String) {
    try_http_get((Ipv4Addr::LOCALHOST, port).into(), path).unwrap()
}

/// The same; `None` without an answer.
pub fn try_http_get(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    let stream = TcpStream::connect_timeout(&address, Duration::from_secs(2)).ok()?;
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    Some(http_get_over(stream, path)).filter(|(code, _)| *code != 0)
}

/// The same over a stream; status 0 if it is closed without an answer.
pub fn http_get_over(mut stream: impl std::io::Read + std::io::Write, path: &str) -> (u16, String) {
    let mut text = String::new();
    let asked = write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    if asked.and_then(|()| stream.read_to_string(&mut text)).is_err() {
        return (0, String::new());
    }
    let status = text.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    let body = text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
    (status, body)
}
