//! The etcd and etcdctl embedded in this executable, if any.
//!
//! They are unpacked once under `D/data/<sha256>/bin`; their SHA-256 is checked after unpacking and at each later use.
//! If `D` is mounted without execution, they run from anonymous memory (`memfd_create(2)`) instead.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use aws_lc_rs::digest;
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::datadir::DataDir;
use crate::durable::{self, OnPath as _, WriteError};
use crate::etcd::payload::{self, Payload, PayloadProgram};
use crate::host;

/// Our own executable, even after an upgrade has replaced it.
const OWN_FILE: &str = "/proc/self/exe";

/// Opens our own executable. In a chroot without `/proc`, by the path that was executed.
fn open_own_file() -> io::Result<File> {
    File::open(OWN_FILE).or_else(|error| {
        let executed = OsStr::from_bytes(rustix::param::linux_execfn().to_bytes());
        if error.kind() == io::ErrorKind::NotFound { File::open(executed) } else { Err(error) }
    })
}

/// A path to execute an embedded program.
#[derive(Debug)]
pub struct Unpacked {
    pub path: PathBuf,
    /// Keeps anonymous memory alive while `path` is in use.
    pub memory: Option<OwnedFd>,
}

/// Version and SHA-256 of an embedded program; `None` if there is none, or it cannot be read.
#[must_use]
pub fn facts(program: &str) -> Option<(&'static str, &'static str)> {
    let (payload, program) = find(program).ok()??;
    Some((payload.version.as_str(), program.sha256.as_str()))
}

/// The table of the payload, read once.
fn payload() -> Result<Option<&'static Payload>, WriteError> {
    static PAYLOAD: OnceLock<io::Result<Option<Payload>>> = OnceLock::new();
    match PAYLOAD.get_or_init(|| payload::find(&open_own_file()?)) {
        Ok(payload) => Ok(payload.as_ref()),
        // An `io::Error` cannot be cloned.
        Err(error) => Err(io::Error::new(error.kind(), error)).on("read the etcd inside", Path::new(OWN_FILE)),
    }
}

fn find(program: &str) -> Result<Option<(&'static Payload, &'static PayloadProgram)>, WriteError> {
    let Some(payload) = payload()? else { return Ok(None) };
    Ok(payload.programs.iter().find(|found| found.name == program).map(|found| (payload, found)))
}

/// Unpacks the embedded `program`, under the data directory or into memory; `None` if there is none. Only for the
/// holder of the data directory's lock.
pub fn unpack(program: &str, data: &DataDir) -> Result<Option<Unpacked>, WriteError> {
    let Some((payload, file)) = find(program)? else { return Ok(None) };
    let dir = data.unpacked().join(&payload.sha256).join("bin");
    if host::is_noexec(nearest_existing(&dir)) {
        return in_memory(file).map(Some);
    }
    let path = dir.join(program);
    if !is_intact(file, &path) {
        durable::create_dir_all(&dir, 0o755)?;
        // Left over from an interrupted start.
        let _ = durable::sweep(&dir);
        durable::write_stream(&path, durable::EXECUTABLE, |out| copy_checked(file, out))?;
    }
    Ok(Some(Unpacked { path, memory: None }))
}

/// Like [`unpack`], but does not change the data directory: runs a program that is not unpacked yet from memory.
pub fn open_in_memory(program: &str, data: &DataDir) -> Result<Option<Unpacked>, WriteError> {
    let Some((payload, file)) = find(program)? else { return Ok(None) };
    let path = data.unpacked().join(&payload.sha256).join("bin").join(program);
    if !host::is_noexec(nearest_existing(&path)) && is_intact(file, &path) {
        return Ok(Some(Unpacked { path, memory: None }));
    }
    in_memory(file).map(Some)
}

/// Removes programs unpacked by older executables, except the newest (for a downgrade), and returns what was removed.
#[must_use]
pub fn prune(data: &DataDir) -> Vec<PathBuf> {
    let current = payload().ok().flatten().map(|payload| payload.sha256.as_str());
    let is_payload = |path: &Path| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.len() == 64 && Some(name) != current)
    };
    let mut others: Vec<(std::time::SystemTime, PathBuf)> = fs::read_dir(data.unpacked())
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| is_payload(&entry.path()))
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    others.sort();
    others.pop();
    others.into_iter().map(|(_, path)| path).filter(|path| durable::remove_dir_all(path).is_ok()).collect()
}

fn nearest_existing(path: &Path) -> &Path {
    path.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(path)
}

fn is_intact(file: &PayloadProgram, path: &Path) -> bool {
    let Ok(mut found) = File::open(path) else { return false };
    if found.metadata().is_ok_and(|found| found.len() != file.size) {
        return false;
    }
    let mut context = digest::Context::new(&digest::SHA256);
    let mut buffer = vec![0; 1 << 18];
    loop {
        match found.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => context.update(&buffer[..count]),
            Err(_) => return false,
        }
    }
    hex::encode(context.finish().as_ref()) == file.sha256
}

fn copy_checked(file: &PayloadProgram, out: &mut impl Write) -> io::Result<()> {
    let mut hashed = HashingWriter { out, context: digest::Context::new(&digest::SHA256) };
    let mut own = open_own_file()?;
    own.seek(SeekFrom::Start(file.offset))?;
    zstd::stream::copy_decode(own.take(file.compressed_size), &mut hashed)?;
    if hex::encode(hashed.context.finish().as_ref()) == file.sha256 {
        return Ok(());
    }
    Err(io::Error::other(format!("the {} inside this quorate is damaged: its SHA-256 is wrong", file.name)))
}

struct HashingWriter<'a, W> {
    out: &'a mut W,
    context: digest::Context,
}

impl<W: Write> Write for HashingWriter<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.out.write(bytes)?;
        self.context.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn in_memory(file: &PayloadProgram) -> Result<Unpacked, WriteError> {
    let name = Path::new(&file.name);
    let memory = memfd_create(file.name.as_str(), MFdFlags::MFD_CLOEXEC)
        .map_err(io::Error::from)
        .on("create memory for", name)?;
    let mut out = File::from(memory);
    copy_checked(file, &mut out).on("unpack into memory", name)?;
    let memory = OwnedFd::from(out);
    // Close-on-exec closes the descriptor only after the program is loaded from it.
    Ok(Unpacked { path: PathBuf::from(format!("/proc/self/fd/{}", memory.as_raw_fd())), memory: Some(memory) })
}
