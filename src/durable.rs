//! The only seam through which files are written.
//!
//! Given bytes and a path, a file is either wholly there, with the mode asked for and safe against power loss, or as
//! it was before: written under a hidden name beside it, fsynced, renamed, the directory fsynced. An error of fsync
//! is final for that file (retrying an fsync proves nothing, since Linux drops the dirty pages). Nothing here knows about etcd.

#![allow(clippy::disallowed_methods, reason = "this is the seam that the ban points to")]

mod draft;

pub use draft::{Draft, DraftDir, draft_dir, sweep_dirs};

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown, lchown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::Explained;
use crate::faults;
use crate::host;

/// Mode of files that nobody but the owner may read.
pub const PRIVATE: u32 = 0o600;
/// Mode of directories that nobody but the owner may enter.
pub const PRIVATE_DIR: u32 = 0o700;
/// Mode of executables.
pub const EXECUTABLE: u32 = 0o755;

/// Who may do what with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Mode bits.
    pub mode: u32,
    /// Its group, if not the one that new files get.
    pub group: Option<u32>,
}

impl From<u32> for Access {
    fn from(mode: u32) -> Self {
        Self { mode, group: None }
    }
}

const TEMPORARY: &str = ".tmp-quorate-";

/// A write, rename or removal that did not happen.
#[derive(Debug, thiserror::Error)]
#[error("cannot {act} {}", path.display())]
pub struct WriteError {
    /// What was tried, as a verb: "write", "create the directory", …
    pub act: &'static str,
    /// On what.
    pub path: PathBuf,
    /// The operating system's answer.
    pub source: io::Error,
}

impl Explained for WriteError {
    fn next(&self) -> Option<String> {
        let advice = match self.source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                "free some space there (df -h), then start again"
            }
            io::ErrorKind::ReadOnlyFilesystem => {
                "the file system is mounted read-only: see dmesg for why, remount it, or choose another --data-dir"
            }
            io::ErrorKind::PermissionDenied => {
                "run quorate as the user that owns the data directory (usually root), or choose another --data-dir"
            }
            io::ErrorKind::IsADirectory | io::ErrorKind::NotADirectory => {
                "something else is in its place: look at it (ls -ld), and move it away"
            }
            _ => return None,
        };
        Some(advice.into())
    }
}

/// Adds act and path to an [`io::Error`].
pub trait OnPath<T> {
    /// Says what was tried on which path.
    ///
    /// # Errors
    /// The error itself, explained.
    fn on(self, act: &'static str, path: &Path) -> Result<T, WriteError>;
}

impl<T> OnPath<T> for io::Result<T> {
    fn on(self, act: &'static str, path: &Path) -> Result<T, WriteError> {
        self.map_err(|source| WriteError { act, path: path.to_path_buf(), source })
    }
}

/// Replaces `path` with `bytes` under `access` (a mode, or a mode and a group), atomically and durably.
///
/// # Errors
/// The step that failed; `path` is then as it was before.
pub fn write_file(path: &Path, bytes: &[u8], access: impl Into<Access>) -> Result<(), WriteError> {
    write_stream(path, access, |file| file.write_all(bytes))
}

/// As [`write_file`], but leaves a file alone that has these bytes already. True if it was written.
///
/// # Errors
/// As [`write_file`].
pub fn write_if_changed(path: &Path, bytes: &[u8], mode: u32) -> Result<bool, WriteError> {
    let present = host::open_regular(path).and_then(|file| {
        let mut present = Vec::new();
        // One byte more tells a longer file.
        file.take(bytes.len() as u64 + 1).read_to_end(&mut present).map(|_| present)
    });
    if present.is_ok_and(|present| present == bytes) {
        return Ok(false);
    }
    write_file(path, bytes, mode).map(|()| true)
}

/// As [`write_file`], with the bytes coming from `fill`.
///
/// # Errors
/// As [`write_file`], or what `fill` returned.
pub fn write_stream(
    path: &Path,
    access: impl Into<Access>,
    fill: impl FnOnce(&mut File) -> io::Result<()>,
) -> Result<(), WriteError> {
    let Access { mode, group } = access.into();
    let temporary = temporary_beside(path);
    let written = (|| {
        faults::point("durable::create").on("write", path)?;
        let mut file = create_new(&temporary, mode).on("write", path)?;
        faults::point("durable::write").on("write", path)?;
        fill(&mut file).on("write", path)?;
        if group.is_some() {
            fchown(&file, None, group).on("change the group of", path)?;
        }
        // The umask may have taken bits away.
        file.set_permissions(fs::Permissions::from_mode(mode)).on("set the mode of", path)?;
        faults::point("durable::fsync").on("fsync", path)?;
        file.sync_all().on("fsync", path)?;
        faults::point("durable::rename").on("rename into place", path)?;
        fs::rename(&temporary, path).on("rename into place", path)
    })();
    if written.is_err() {
        // Best effort: a leftover is swept at the next start, and the error that matters is the first one.
        let _ = fs::remove_file(&temporary);
    }
    written?;
    sync_parent(path)
}

fn create_new(path: &Path, mode: u32) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).mode(mode).open(path)
}

/// Replaces the content of a file that is already open, in place: for lock files, whose inode must stay.
///
/// # Errors
/// The step that failed. The content may then be torn; readers of lock files must bear that.
pub fn rewrite_open(file: &mut File, path: &Path, bytes: &[u8]) -> Result<(), WriteError> {
    file.set_len(0).on("write", path)?;
    file.rewind().on("write", path)?;
    file.write_all(bytes).on("write", path)?;
    file.flush().on("write", path)
}

/// Opens, and if need be creates, a file that only serves to be locked.
///
/// # Errors
/// If it cannot be opened for writing.
pub fn open_lock(path: &Path) -> Result<File, WriteError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(PRIVATE)
        .custom_flags(nix::fcntl::OFlag::O_NOFOLLOW.bits())
        .open(path)
        .on("open", path)
}

/// Makes the content of a file durable. An error is final: the file must be given up.
///
/// # Errors
/// What the disk says.
pub fn sync(file: &File, path: &Path) -> Result<(), WriteError> {
    faults::point("durable::fsync").on("fsync", path)?;
    file.sync_all().on("fsync", path)
}

/// Makes a file that was not there, for reading and writing. Nothing is safe before [`sync`].
///
/// # Errors
/// If it is there, or cannot be made.
pub fn create(path: &Path, mode: u32) -> Result<File, WriteError> {
    faults::point("durable::create").on("write", path)?;
    create_new(path, mode).on("write", path)
}

/// Opens a file that is there for reading and writing.
///
/// # Errors
/// If it cannot be opened.
pub fn open_to_change(path: &Path) -> Result<File, WriteError> {
    let flags = nix::fcntl::OFlag::O_NOFOLLOW.bits();
    OpenOptions::new().read(true).write(true).custom_flags(flags).open(path).on("open", path)
}

/// Copies up to `length` bytes from the same place of another file, within the kernel where it can: at the speed of the disk, or without
/// copying at all where the file system can share blocks. Gives how many; 0 at the other's end.
///
/// # Errors
/// What the disk says.
pub fn copy_range(from: &File, to: &File, offset: u64, length: usize) -> io::Result<usize> {
    use rustix::io::Errno;
    let (mut read_at, mut write_at) = (offset, offset);
    match rustix::fs::copy_file_range(from, Some(&mut read_at), to, Some(&mut write_at), length) {
        // Across file systems, or where one of them cannot.
        Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::IO) => {
            let mut buffer = vec![0; length.min(1 << 18)];
            let count = from.read_at(&mut buffer, offset)?;
            to.write_all_at(&buffer[..count], offset).map(|()| count)
        }
        Err(Errno::INTR) => copy_range(from, to, offset, length),
        done => Ok(done?),
    }
}

/// Makes the names in directories durable.
///
/// # Errors
/// What the disk says.
pub fn sync_dirs(dirs: &[&Path]) -> Result<(), WriteError> {
    dirs.iter().try_for_each(|dir| sync_dir(dir))
}

/// Writes into an open file at a place; not synced.
///
/// # Errors
/// What the disk says.
pub fn write_at(file: &File, path: &Path, bytes: &[u8], offset: u64) -> Result<(), WriteError> {
    faults::point("durable::write").on("write", path)?;
    file.write_all_at(bytes, offset).on("write", path)
}

/// Reserves room for the first `bytes` of an open file, without making it longer. Where the file system cannot, nothing is reserved.
///
/// # Errors
/// If there is too little room.
pub fn reserve(file: &File, bytes: u64) -> io::Result<()> {
    use rustix::io::Errno;
    match rustix::fs::fallocate(file, rustix::fs::FallocateFlags::KEEP_SIZE, 0, bytes) {
        // Of no bytes, not to be had here, or disturbed: it is no more than a help.
        Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INTR) => Ok(()),
        done => done.map_err(io::Error::from),
    }
}

/// Makes an open file so long; what is new is zero.
///
/// # Errors
/// What the disk says.
pub fn set_length(file: &File, path: &Path, length: u64) -> Result<(), WriteError> {
    file.set_len(length).on("change the length of", path)
}

/// A file without a name in `dir`: gone when it is closed, however the program ends.
///
/// # Errors
/// If the directory or its file system does not take one.
pub fn anonymous(dir: &Path) -> Result<File, WriteError> {
    let flags = nix::fcntl::OFlag::O_TMPFILE.bits();
    match OpenOptions::new().read(true).write(true).mode(PRIVATE).custom_flags(flags).open(dir) {
        // Some file systems cannot; a name that is removed at once is nearly as good.
        Err(error) if error.kind() == io::ErrorKind::Unsupported => {
            let path = temporary_beside(&dir.join("unnamed"));
            let file = create_new(&path, PRIVATE).on("write", &path)?;
            fs::remove_file(&path).on("remove", &path)?;
            Ok(file)
        }
        done => done.on("write into", dir),
    }
}

/// Creates a directory with `mode` and makes its entry durable. True if it was made, false if it was there.
///
/// # Errors
/// If it cannot be made, or if something else has the name.
pub fn create_dir(path: &Path, mode: u32) -> Result<bool, WriteError> {
    if path.is_dir() {
        return Ok(false);
    }
    faults::point("durable::mkdir").on("create the directory", path)?;
    match DirBuilder::new().mode(mode).create(path) {
        // Somebody else made it a moment ago.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => return Ok(false),
        done => done.on("create the directory", path)?,
    }
    // The umask may have taken bits away.
    set_mode(path, mode)?;
    sync_parent(path)?;
    Ok(true)
}

/// [`create_dir`] for `path` and every missing parent.
///
/// # Errors
/// As [`create_dir`].
pub fn create_dir_all(path: &Path, mode: u32) -> Result<(), WriteError> {
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty() && !parent.exists()) {
        create_dir_all(parent, mode)?;
    }
    create_dir(path, mode).map(|_| ())
}

/// Changes the mode of a file or directory.
///
/// # Errors
/// If the system refuses.
pub fn set_mode(path: &Path, mode: u32) -> Result<(), WriteError> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).on("set the mode of", path)
}

/// Changes owner and group of a file or directory; a symbolic link is changed itself, never followed.
///
/// # Errors
/// If the system refuses.
pub fn set_owner(path: &Path, owner: Option<u32>, group: Option<u32>) -> Result<(), WriteError> {
    faults::point("durable::chown").on("change the owner of", path)?;
    lchown(path, owner, group).on("change the owner of", path)
}

/// Gives a directory and all in it to somebody, the directory itself last: as long as it is not theirs, the work is not done.
/// Links are given, never followed.
///
/// # Errors
/// The first thing that cannot be given.
pub fn hand_over(dir: &Path, owner: u32, group: u32) -> Result<(), WriteError> {
    for entry in fs::read_dir(dir).on("read", dir)? {
        let path = entry.on("read", dir)?.path();
        if path.is_dir() && !path.is_symlink() {
            hand_over(&path, owner, group)?;
        } else {
            set_owner(&path, Some(owner), Some(group))?;
        }
    }
    // Through a link that leads here, if there is one.
    let itself = fs::canonicalize(dir).on("look at", dir)?;
    set_owner(&itself, Some(owner), Some(group))
}

/// Renames durably within one file system.
///
/// # Errors
/// If the rename or one of the two directory fsyncs fails.
pub fn rename(from: &Path, to: &Path) -> Result<(), WriteError> {
    faults::point("durable::rename").on("rename", from)?;
    fs::rename(from, to).on("rename", from)?;
    sync_parent(to)?;
    sync_parent(from)
}

/// Removes a file durably. True if it was there.
///
/// # Errors
/// If it is there and cannot be removed.
pub fn remove_file(path: &Path) -> Result<bool, WriteError> {
    match fs::remove_file(path) {
        Ok(()) => sync_parent(path).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).on("remove", path),
    }
}

/// Removes a directory and all in it. Links in it are removed, never followed.
///
/// # Errors
/// If something in it cannot be removed.
pub fn remove_dir_all(path: &Path) -> Result<(), WriteError> {
    fs::remove_dir_all(path).on("remove", path)?;
    sync_parent(path)
}

/// Removes what an interrupted [`write_file`] left in `dir`, and returns the names.
#[must_use]
pub fn sweep(dir: &Path) -> Vec<OsString> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    entries
        .flatten()
        .filter(|entry| is_abandoned(&entry.file_name().to_string_lossy()))
        .filter(|entry| fs::remove_file(entry.path()).is_ok())
        .map(|entry| entry.file_name())
        .collect()
}

/// True for a temporary name whose process is gone, or had the pid that we have now.
fn is_abandoned(name: &str) -> bool {
    let Some(rest) = name.strip_prefix(TEMPORARY) else { return false };
    let pid = rest.rsplit('-').next().and_then(|pid| pid.parse::<u32>().ok());
    pid.is_none_or(|pid| pid == std::process::id() || !Path::new("/proc").join(pid.to_string()).exists())
}

fn temporary_beside(path: &Path) -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let mut name = OsString::from(TEMPORARY);
    name.push(path.file_name().unwrap_or_default());
    // Without randomness it can be guessed, and is no less ours for that.
    let random = u32::from_le_bytes(host::random::<4>().unwrap_or_default());
    name.push(format!("-{random:08x}-{}-{}", COUNT.fetch_add(1, Ordering::Relaxed), std::process::id()));
    path.with_file_name(name)
}

fn sync_parent(path: &Path) -> Result<(), WriteError> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    sync_dir(parent)
}

fn sync_dir(dir: &Path) -> Result<(), WriteError> {
    faults::point("durable::fsync_dir").on("fsync", dir)?;
    File::open(dir).and_then(|dir| dir.sync_all()).on("fsync", dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_with_its_mode_and_without_leftovers() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        write_file(&path, b"one", 0o644).unwrap();
        write_file(&path, b"two", PRIVATE).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, PRIVATE);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_no_temporary() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        write_file(&path, b"old", PRIVATE).unwrap();
        let failed = write_stream(&path, PRIVATE, |file| {
            file.write_all(b"half")?;
            Err(io::Error::other("the source broke off"))
        });
        assert!(failed.is_err());
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn the_sweep_takes_only_our_temporaries() {
        let dir = tempfile::tempdir().unwrap();
        // Pid 1 always runs; 2^22 is beyond every pid.
        for name in [".tmp-quorate-x-4194304", ".tmp-quorate-x-1", "x"] {
            fs::write(dir.path().join(name), b"").unwrap();
        }
        assert_eq!(sweep(dir.path()), [OsString::from(".tmp-quorate-x-4194304")]);
        assert!(dir.path().join("x").exists() && dir.path().join(".tmp-quorate-x-1").exists());
    }

    #[test]
    fn an_unchanged_file_is_not_written_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        assert!(write_if_changed(&path, b"a", PRIVATE).unwrap());
        assert!(!write_if_changed(&path, b"a", PRIVATE).unwrap());
        assert!(write_if_changed(&path, b"b", PRIVATE).unwrap());
    }
}
