//! Finds the etcd and etcdctl to run, and determines the version of etcd.
//!
//! Order for etcd: `--etcd-binary`, the embedded copy, next to this executable, `PATH`. For etcdctl: the embedded copy,
//! next to `--etcd-binary`, next to this executable, `PATH`. A configured path that is not an etcd is an error, without
//! fallback. Every run of a binary here has a deadline.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::config::{EtcdArg, suggest};
use crate::datadir::DataDir;
use crate::durable::WriteError;
use crate::environment;
use crate::error::{Code, Diagnostic};
use crate::etcd::embedded;
use crate::etcd::pinned::PinnedExecutable;
use crate::etcd::process::{become_user, etcd_environment, kill_group, spawn_registered};
use crate::host::User;
use crate::version::{self, NotAVersion, Version};

/// The timeout of `etcd --version`.
const VERSION_TIMEOUT: Duration = Duration::from_secs(10);
/// The maximum output that is read, in bytes: several times the length of `etcd --help`.
const MAX_OUTPUT_BYTES: u64 = 256 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BinarySource {
    /// `--etcd-binary`, or next to it.
    Configured,
    Embedded,
    /// In the directory of this executable.
    Adjacent,
    /// In `PATH`.
    Path,
}

impl BinarySource {
    /// Where it was found, for messages.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Configured => "from etcd-binary",
            Self::Embedded => "inside quorate",
            Self::Adjacent => "next to quorate",
            Self::Path => "from PATH",
        }
    }
}

/// A program that can be run.
#[derive(Debug)]
pub struct Program {
    pub path: PathBuf,
    pub source: BinarySource,
    /// Keeps a program in memory alive.
    _memory: Option<OwnedFd>,
}

impl Program {
    /// Pins the file, so that the checked file is the one that runs later.
    pub fn pin(&self) -> Result<PinnedExecutable, BinaryError> {
        PinnedExecutable::open(&self.path).map_err(|source| BinaryError::Run { path: self.path.clone(), source })
    }
}

/// Why no etcd can be run.
#[derive(Debug, thiserror::Error)]
pub enum BinaryError {
    #[error("{0} not found: not inside this quorate, not next to it, and not in PATH")]
    NotFound(&'static str),
    /// The embedded copy cannot be unpacked.
    #[error("cannot unpack the {program} inside this quorate")]
    Unpack { program: &'static str, source: WriteError },
    #[error("cannot run {}", path.display())]
    Run { path: PathBuf, source: io::Error },
    /// It cannot be executed by etcd's own user.
    #[error("user {user} cannot run {}", path.display())]
    Unreachable { path: PathBuf, user: String, source: io::Error },
    #[error("{} --version did not answer within {} s", .0.display(), VERSION_TIMEOUT.as_secs())]
    VersionTimeout(PathBuf),
    /// It runs, and is something else.
    #[error("{} is not an etcd", path.display())]
    NotEtcd { path: PathBuf, source: NotAVersion },
    #[error("{} is etcd {version}; quorate supports {} to {}", path.display(), Version::OLDEST.minor_text(), Version::NEWEST.minor_text())]
    Unsupported { path: PathBuf, version: Version },
    /// It refuses settings from `etcd-arg`.
    #[error("etcd {version} rejects these settings:{}", indented_list(.refused))]
    Arguments {
        version: Version,
        /// Each rejected setting with etcd's message.
        refused: Vec<String>,
    },
}

fn indented_list(lines: &[String]) -> String {
    lines.iter().map(|line| format!("\n  etcd-arg {line}")).collect()
}

impl Diagnostic for BinaryError {
    fn code(&self) -> Code {
        match self {
            Self::NotFound(_) => Code::EtcdNotFound,
            Self::Unpack { source, .. } => source.code(),
            Self::Run { .. } | Self::Unreachable { .. } | Self::VersionTimeout(_) | Self::NotEtcd { .. } => {
                Code::EtcdNotRunnable
            }
            Self::Unsupported { .. } => Code::EtcdUnsupported,
            Self::Arguments { .. } => Code::EtcdArgument,
        }
    }

    fn next_step(&self) -> Option<String> {
        match self {
            Self::NotFound("etcd") => Some(
                "install one without starting the distribution's own service (systemctl mask etcd; apt-get install etcd-server), \
                 or name one with --etcd-binary"
                    .into(),
            ),
            Self::NotFound(_) => Some("apt-get install etcd-client, or put etcdctl next to the etcd binary".into()),
            Self::Unpack { source, .. } => source.next_step(),
            Self::Unreachable { path, .. } => {
                Some(format!("find the closed directory with namei -l {}, or set another etcd-binary", path.display()))
            }
            Self::Arguments { .. } => Some("fix etcd-arg; `etcd --help` lists the settings of this etcd".into()),
            _ => Some("name another one with --etcd-binary".into()),
        }
    }
}

/// Whether an embedded program may be unpacked under the data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unpacking {
    /// No: the data directory must not be changed.
    No,
    /// Yes: the data directory is locked.
    Yes,
}

pub fn find_etcd(asked: Option<&Path>, data: &DataDir, unpacking: Unpacking) -> Result<Program, BinaryError> {
    if let Some(path) = asked {
        return Ok(Program { path: path.to_path_buf(), source: BinarySource::Configured, _memory: None });
    }
    find("etcd", None, data, unpacking)
}

/// Finds the etcdctl to run. Does not change the data directory: only the server, which holds the lock, unpacks.
pub fn find_etcdctl(etcd_binary: Option<&Path>, data: &DataDir) -> Result<Program, BinaryError> {
    find("etcdctl", etcd_binary.and_then(Path::parent), data, Unpacking::No)
}

fn find(
    name: &'static str,
    configured_dir: Option<&Path>,
    data: &DataDir,
    unpacking: Unpacking,
) -> Result<Program, BinaryError> {
    let unpacked = match unpacking {
        Unpacking::Yes => embedded::unpack(name, data),
        Unpacking::No => embedded::open_in_memory(name, data),
    };
    let unpacked = unpacked.map_err(|source| BinaryError::Unpack { program: name, source })?;
    if let Some(unpacked) = unpacked {
        return Ok(Program { path: unpacked.path, source: BinarySource::Embedded, _memory: unpacked.memory });
    }
    let own_dir = std::env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_path_buf));
    let path = environment::value("PATH").unwrap_or_default();
    let places = configured_dir
        .map(|dir| (dir.to_path_buf(), BinarySource::Configured))
        .into_iter()
        .chain(own_dir.map(|dir| (dir, BinarySource::Adjacent)))
        .chain(std::env::split_paths(&path).map(|dir| (dir, BinarySource::Path)));
    places
        .map(|(dir, source)| (dir.join(name), source))
        .find(|(path, _)| is_executable(path))
        .map(|(path, source)| Program { path, source, _memory: None })
        .ok_or(BinaryError::NotFound(name))
}

fn is_executable(path: &Path) -> bool {
    path.is_file() && nix::unistd::access(path, nix::unistd::AccessFlags::X_OK).is_ok()
}

/// Queries the version of an etcd, as `user` if given.
///
/// # Errors
/// If it does not run (or not as `user`), does not answer, is not an etcd, or is not supported.
pub async fn version_of(path: &Path, user: Option<&User>) -> Result<Version, BinaryError> {
    let output = run(path, &["--version".to_owned()], user).await?;
    if let (Some(user), false) = (user, output.status.success()) {
        return Err(not_runnable(path, user, io::Error::other(output.status.to_string())));
    }
    let banner = String::from_utf8_lossy(&output.stdout);
    let version =
        version::of_banner(&banner).map_err(|source| BinaryError::NotEtcd { path: path.to_path_buf(), source })?;
    if version.is_supported() {
        Ok(version)
    } else {
        Err(BinaryError::Unsupported { path: path.to_path_buf(), version })
    }
}

/// Checks whether an etcd accepts these settings: it parses all flags before it handles `--version`. # Errors
/// [`BinaryError::Arguments`] with all rejected settings.
pub async fn check_arguments(
    path: &Path,
    version: Version,
    args: &[EtcdArg],
    user: Option<&User>,
) -> Result<(), BinaryError> {
    if args.is_empty() {
        return Ok(());
    }
    let flag = |arg: &EtcdArg| format!("--{}={}", arg.key, arg.value);
    if refused_arguments(path, args.iter().map(flag).collect(), user).await?.is_none() {
        return Ok(());
    }
    // etcd stops at the first; all are reported.
    let mut refused = Vec::new();
    let mut known = None;
    for arg in args {
        let Some(said) = refused_arguments(path, vec![flag(arg)], user).await? else { continue };
        let mut line = format!("{}={}: {said}", arg.key, arg.value);
        if said.starts_with("flag provided but not defined") {
            let flags = match &known {
                Some(flags) => flags,
                None => known.insert(flags_of(path, user).await?),
            };
            line = format!("{}={}: unknown setting", arg.key, arg.value);
            if let Some(meant) = suggest::closest(&arg.key, flags.iter().map(String::as_str)) {
                line = format!("{line}; did you mean {meant}?");
            }
        }
        refused.push(crate::text::escape_control(&line));
    }
    Err(BinaryError::Arguments { version, refused })
}

async fn refused_arguments(
    path: &Path,
    mut flags: Vec<String>,
    user: Option<&User>,
) -> Result<Option<String>, BinaryError> {
    flags.push("--version".to_owned());
    let output = run(path, &flags, user).await?;
    if output.status.success() {
        return Ok(None);
    }
    let said = [&output.stderr, &output.stdout]
        .into_iter()
        .filter_map(|bytes| String::from_utf8_lossy(bytes).lines().next().map(str::to_owned))
        .find(|line| !line.is_empty());
    Ok(Some(said.unwrap_or_else(|| output.status.to_string())))
}

/// The flags in `etcd --help`.
async fn flags_of(path: &Path, user: Option<&User>) -> Result<Vec<String>, BinaryError> {
    let output = run(path, &["--help".to_owned()], user).await?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    let is_flag = |c: char| c.is_ascii_alphanumeric() || c == '-';
    Ok(text
        .split_whitespace()
        .filter_map(|word| word.strip_prefix("--"))
        .map(|word| word.split(|c| !is_flag(c)).next().unwrap_or_default().to_owned())
        .filter(|word| !word.is_empty())
        .collect())
}

struct Output {
    status: ExitStatus,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

fn not_runnable(path: &Path, user: &User, source: io::Error) -> BinaryError {
    BinaryError::Unreachable { path: path.to_path_buf(), user: user.name.clone(), source }
}

/// Runs it in a new process group, which is killed completely after the timeout.
async fn run(path: &Path, args: &[String], user: Option<&User>) -> Result<Output, BinaryError> {
    let mut command = std::process::Command::new(path);
    etcd_environment(&mut command);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    if let Some(user) = user {
        become_user(&mut command, user);
    }
    let failed = |source| match user {
        Some(user) => not_runnable(path, user, source),
        None => BinaryError::Run { path: path.to_path_buf(), source },
    };
    let (mut child, _registered) = spawn_registered(command).map_err(failed)?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let exchange = async {
        let (stdout, stderr) = tokio::join!(bounded(out), bounded(err));
        Ok(Output { status: child.wait().await?, stdout: stdout?, stderr: stderr? })
    };
    if let Ok(done) = tokio::time::timeout(VERSION_TIMEOUT, exchange).await {
        return done.map_err(failed);
    }
    if let Some(pid) = child.id() {
        kill_group(pid);
    }
    Err(BinaryError::VersionTimeout(path.to_path_buf()))
}

/// The beginning of the output; the pipe is closed after that, which ends a program with endless output.
async fn bounded(pipe: Option<impl AsyncRead + Unpin>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        pipe.take(MAX_OUTPUT_BYTES).read_to_end(&mut bytes).await?;
    }
    Ok(bytes)
}
