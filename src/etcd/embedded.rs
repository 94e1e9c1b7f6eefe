//! The etcd and etcdctl that this executable carries, if it was built with them.
//!
//! They are unpacked once under `D/data/<sha256>/bin`, with their SHA-256 checked after unpacking and at each later use.
//! Where `D` forbids execution they are put into anonymous memory (`memfd_create(2)`) instead and run from there.

use std::fs::{self, File};
use std::io::{self, Read as _, Write};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest;
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::datadir::DataDir;
use crate::durable::{self, OnPath as _, WriteError};
use crate::host;

include!(concat!(env!("OUT_DIR"), "/embedded.rs"));

struct EmbeddedFile {
    name: &'static str,
    size: u64,
    sha256: &'static str,
    zstd: &'static [u8],
}

/// Where an embedded program can be executed from.
#[derive(Debug)]
pub struct Unpacked {
    /// What to execute.
    pub path: PathBuf,
    /// Keeps anonymous memory alive for as long as `path` is to be used.
    pub memory: Option<OwnedFd>,
}

/// True if this executable carries `program`.
#[must_use]
pub fn has_program(program: &str) -> bool {
    file(program).is_some()
}

/// Version and SHA-256 of an embedded program.
#[must_use]
pub fn facts(program: &str) -> Option<(&'static str, &'static str)> {
    file(program).map(|file| (VERSION, file.sha256))
}

fn file(program: &str) -> Option<&'static EmbeddedFile> {
    FILES.iter().find(|file| file.name == program)
}

/// Makes the embedded `program` executable, under the data directory or in memory; `None` if there is none. Only for who holds
/// the lock of the data directory.
///
/// # Errors
/// If it cannot be unpacked, or is not what was packed.
pub fn unpack(program: &str, data: &DataDir) -> Result<Option<Unpacked>, WriteError> {
    let Some(file) = file(program) else { return Ok(None) };
    let dir = data.unpacked().join(SHA256).join("bin");
    if host::is_noexec(nearest_existing(&dir)) {
        return in_memory(file).map(Some);
    }
    let path = dir.join(program);
    if !is_intact(file, &path) {
        durable::create_dir_all(&dir, 0o755)?;
        // Of a start that broke off while unpacking.
        let _ = durable::sweep(&dir);
        durable::write_stream(&path, durable::EXECUTABLE, |out| copy_checked(file, out))?;
    }
    Ok(Some(Unpacked { path, memory: None }))
}

/// As [`unpack`], but leaves the data directory as it is: runs from memory what is not unpacked yet.
///
/// # Errors
/// As [`unpack`].
pub fn open_in_memory(program: &str, data: &DataDir) -> Result<Option<Unpacked>, WriteError> {
    let Some(file) = file(program) else { return Ok(None) };
    let path = data.unpacked().join(SHA256).join("bin").join(program);
    if !host::is_noexec(nearest_existing(&path)) && is_intact(file, &path) {
        return Ok(Some(Unpacked { path, memory: None }));
    }
    in_memory(file).map(Some)
}

/// Removes what older executables unpacked, except the newest of it (a way back), and returns what is gone.
#[must_use]
pub fn prune(data: &DataDir) -> Vec<PathBuf> {
    let is_payload = |path: &Path| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.len() == 64 && name != SHA256)
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

fn is_intact(file: &EmbeddedFile, path: &Path) -> bool {
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
    hex(context.finish().as_ref()) == file.sha256
}

fn copy_checked(file: &EmbeddedFile, out: &mut impl Write) -> io::Result<()> {
    let mut hashed = HashingWriter { out, context: digest::Context::new(&digest::SHA256) };
    zstd::stream::copy_decode(file.zstd, &mut hashed)?;
    if hex(hashed.context.finish().as_ref()) == file.sha256 {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "the {} inside this quorate is damaged: its SHA-256 is not what was packed",
        file.name
    )))
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

fn in_memory(file: &EmbeddedFile) -> Result<Unpacked, WriteError> {
    let name = Path::new(file.name);
    let memory = memfd_create(file.name, MFdFlags::MFD_CLOEXEC).map_err(io::Error::from).on("make memory for", name)?;
    let mut out = File::from(memory);
    copy_checked(file, &mut out).on("unpack into memory", name)?;
    let memory = OwnedFd::from(out);
    // Close-on-exec ends the descriptor only once the new program is loaded from it.
    Ok(Unpacked { path: PathBuf::from(format!("/proc/self/fd/{}", memory.as_raw_fd())), memory: Some(memory) })
}

/// Lower-case hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
