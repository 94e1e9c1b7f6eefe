//! The only module through which files are written.
//!
//! Given bytes and a path, the file is either complete, with the requested mode and safe against power loss, or as it
//! was before: the bytes are written to a hidden file in the same directory, which is fsynced and renamed, then the
//! directory is fsynced. An fsync error is final for that file (a retry proves nothing, since Linux drops the dirty
//! pages). Nothing here knows about etcd.

#![allow(clippy::disallowed_methods, reason = "the ban points to this module")]

mod change;
mod chase;
mod draft;
mod error;
mod held;
mod refusal;
mod sweep;
mod temporary;
mod tree;

pub use draft::{NewDir, NewFile, new_dir};
pub use error::{OnPath, WriteError};
pub use held::DirHandle;
pub use refusal::DirError;
pub use sweep::{sweep, sweep_named};

use std::ffi::{CStr, OsStr, OsString};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown, lchown};
use std::path::Path;

use crate::faults;
use crate::host;

/// Mode of private files.
pub const PRIVATE_FILE: u32 = 0o600;
/// Mode of private directories.
pub const PRIVATE_DIR: u32 = 0o700;
pub const EXECUTABLE: u32 = 0o755;

/// The permissions of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    pub mode: u32,
    /// Its group, if not the default for new files.
    pub group: Option<u32>,
}

impl From<u32> for Access {
    fn from(mode: u32) -> Self {
        Self { mode, group: None }
    }
}

/// Replaces `path` with `bytes` under `access` (a mode, or a mode and a group), atomically and durably.
///
/// # Errors
/// The step that failed. `path` is then unchanged, unless it was the last step, the fsync of the directory: then it is
/// replaced, and the error says so.
pub fn write_file(path: &Path, bytes: &[u8], access: impl Into<Access>) -> Result<(), WriteError> {
    write_stream(path, access, |file| file.write_all(bytes))
}

/// Like [`write_file`], but does not write a file that has these bytes already. True if it was written.
pub fn write_if_changed(path: &Path, bytes: &[u8], mode: u32) -> Result<bool, WriteError> {
    let present = host::open_regular(path).and_then(|file| {
        let mut present = Vec::new();
        // One byte more detects a longer file.
        file.take(bytes.len() as u64 + 1).read_to_end(&mut present).map(|_| present)
    });
    if present.is_ok_and(|present| present == bytes) {
        return Ok(false);
    }
    write_file(path, bytes, mode).map(|()| true)
}

/// Like [`write_file`], with the bytes written by `fill`.
pub fn write_stream(
    path: &Path,
    access: impl Into<Access>,
    fill: impl FnOnce(&mut File) -> io::Result<()>,
) -> Result<(), WriteError> {
    let access = access.into();
    faults::point("durable::create").on("write", path)?;
    let make = |name: &OsStr| create_file_new(&path.with_file_name(name), access.mode);
    let (name, file) = temporary::create(path.file_name().unwrap_or_default(), make).on("write", path)?;
    let hidden = path.with_file_name(name);
    let written = write_through(path, access, file, fill, || fs::rename(&hidden, path));
    written.map_err(|error| error.unless_removed(&hidden, || fs::remove_file(&hidden)))?;
    sync_parent(path).map_err(|error| error.after(path, "has its new content, but may have the old one"))
}

/// The steps of a write to the hidden file `file`, which `rename` renames to `path`.
fn write_through(
    path: &Path,
    Access { mode, group }: Access,
    mut file: File,
    fill: impl FnOnce(&mut File) -> io::Result<()>,
    rename: impl FnOnce() -> io::Result<()>,
) -> Result<(), WriteError> {
    faults::point("durable::write").on("write", path)?;
    fill(&mut file).on("write", path)?;
    if group.is_some() {
        fchown(&file, None, group).on("change the group of", path)?;
    }
    // The umask may have cleared bits.
    file.set_permissions(fs::Permissions::from_mode(mode)).on("set the mode of", path)?;
    faults::point("durable::fsync").on("fsync", path)?;
    file.sync_all().on("fsync", path)?;
    faults::point("durable::rename").on("rename into place", path)?;
    rename().on("rename into place", path)
}

fn create_file_new(path: &Path, mode: u32) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).mode(mode).open(path)
}

/// Replaces the content of a file that is already open, in place: for lock files, whose inode must stay.
///
/// # Errors
/// The step that failed. The content may then be torn, which readers of lock files must tolerate.
pub fn rewrite_open(file: &mut File, path: &Path, bytes: &[u8]) -> Result<(), WriteError> {
    file.set_len(0).on("write", path)?;
    file.rewind().on("write", path)?;
    file.write_all(bytes).on("write", path)?;
    file.flush().on("write", path)
}

/// Opens a lock file, and creates it if it is missing.
pub fn open_lock(path: &Path) -> Result<File, WriteError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(PRIVATE_FILE)
        .custom_flags(nix::fcntl::OFlag::O_NOFOLLOW.bits())
        .open(path)
        .on("open", path)
}

/// Makes the content of a file durable. An error is final: discard the file.
pub fn sync(file: &File, path: &Path) -> Result<(), WriteError> {
    faults::point("durable::fsync").on("fsync", path)?;
    file.sync_all().on("fsync", path)
}

/// Creates a new file for reading and writing. Nothing is durable before [`sync`].
pub fn create(path: &Path, mode: u32) -> Result<File, WriteError> {
    faults::point("durable::create").on("write", path)?;
    create_file_new(path, mode).on("write", path)
}

/// Opens an existing file for reading and writing.
pub fn open_read_write(path: &Path) -> Result<File, WriteError> {
    let flags = nix::fcntl::OFlag::O_NOFOLLOW.bits();
    OpenOptions::new().read(true).write(true).custom_flags(flags).open(path).on("open", path)
}

/// Copies up to `length` bytes from the same offset of another file, inside the kernel if possible: at disk speed, or
/// without copying if the file system can share blocks. Returns the number of bytes; 0 at the end of the other file.
pub fn copy_range(from: &File, to: &File, offset: u64, length: usize) -> io::Result<usize> {
    use rustix::io::Errno;
    let (mut read_at, mut write_at) = (offset, offset);
    match rustix::fs::copy_file_range(from, Some(&mut read_at), to, Some(&mut write_at), length) {
        // Across file systems, or not supported by one of them.
        Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::IO) => {
            let mut buffer = vec![0; length.min(1 << 18)];
            let count = from.read_at(&mut buffer, offset)?;
            to.write_all_at(&buffer[..count], offset).map(|()| count)
        }
        Err(Errno::INTR) => copy_range(from, to, offset, length),
        done => Ok(done?),
    }
}

/// Starts writing a range of the file to disk, and waits for a range that was started before. This bounds the data in
/// flight, so that another process's sync on the same disk does not wait long and the final sync has little left. It
/// makes nothing durable: neither metadata nor the disk cache is written (`sync_file_range(2)`). If the file system
/// does not support it, the final sync does all the work.
pub fn write_back(file: &File, begin: std::ops::Range<u64>, wait_for: std::ops::Range<u64>) {
    use std::os::fd::AsRawFd as _;
    let range = |range: std::ops::Range<u64>, flags: libc::c_uint| {
        let (Ok(from), Ok(length)) = (i64::try_from(range.start), i64::try_from(range.end - range.start)) else {
            return;
        };
        // A length of 0 would mean the rest of the file.
        if length > 0 {
            #[allow(unsafe_code, reason = "no dependency wraps this call, which takes an open descriptor and numbers")]
            // SAFETY: no pointer is passed, and the descriptor is borrowed from `file` for the duration of the call.
            let _ = unsafe { libc::sync_file_range(file.as_raw_fd(), from, length, flags) };
        }
    };
    range(begin, libc::SYNC_FILE_RANGE_WRITE);
    range(wait_for, libc::SYNC_FILE_RANGE_WAIT_BEFORE);
}

/// Makes the entries of directories durable.
pub fn sync_dirs(dirs: &[&Path]) -> Result<(), WriteError> {
    dirs.iter().try_for_each(|dir| sync_dir(dir))
}

/// Writes at an offset of an open file; does not sync.
pub fn write_at(file: &File, path: &Path, bytes: &[u8], offset: u64) -> Result<(), WriteError> {
    faults::point("durable::write").on("write", path)?;
    file.write_all_at(bytes, offset).on("write", path)
}

/// Reserves space for the first `bytes` of an open file, without making it longer. Does nothing where the file system
/// does not support it.
pub fn reserve(file: &File, bytes: u64) -> io::Result<()> {
    use rustix::io::Errno;
    match rustix::fs::fallocate(file, rustix::fs::FallocateFlags::KEEP_SIZE, 0, bytes) {
        // Zero bytes, not supported, or interrupted: this is only an optimisation.
        Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INTR) => Ok(()),
        done => done.map_err(io::Error::from),
    }
}

/// Sets the length of an open file; new bytes are zero.
pub fn set_length(file: &File, path: &Path, length: u64) -> Result<(), WriteError> {
    file.set_len(length).on("change the length of", path)
}

/// An unnamed file in `dir`: it disappears when it is closed, however the program ends.
pub fn anonymous(dir: &Path) -> Result<File, WriteError> {
    let flags = nix::fcntl::OFlag::O_TMPFILE.bits();
    match OpenOptions::new().read(true).write(true).mode(PRIVATE_FILE).custom_flags(flags).open(dir) {
        // Not every file system supports O_TMPFILE; unlinking at once is nearly as good.
        Err(error) if error.kind() == io::ErrorKind::Unsupported => {
            let make = |name: &OsStr| create_file_new(&dir.join(name), PRIVATE_FILE);
            let (name, file) = temporary::create(OsStr::new("unnamed"), make).on("write into", dir)?;
            let path = dir.join(name);
            fs::remove_file(&path).on("remove", &path)?;
            Ok(file)
        }
        done => done.on("write into", dir),
    }
}

/// Creates a directory with `mode` and makes its entry durable. True if it was created, false if it existed.
///
/// # Errors
/// If it cannot be created, or another file has the name.
pub fn create_dir(path: &Path, mode: u32) -> Result<bool, WriteError> {
    if path.is_dir() {
        return Ok(false);
    }
    faults::point("durable::mkdir").on("create the directory", path)?;
    match DirBuilder::new().mode(mode).create(path) {
        // Another process created it a moment ago.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => return Ok(false),
        done => done.on("create the directory", path)?,
    }
    // The umask may have cleared bits.
    set_mode(path, mode)?;
    sync_parent(path).map_err(|error| error.after(path, "exists, but may be gone"))?;
    Ok(true)
}

/// [`create_dir`] for `path` and every missing parent.
pub fn create_dir_all(path: &Path, mode: u32) -> Result<(), WriteError> {
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty() && !parent.exists()) {
        create_dir_all(parent, mode)?;
    }
    create_dir(path, mode).map(|_| ())
}

/// Changes the mode of a file or directory.
pub fn set_mode(path: &Path, mode: u32) -> Result<(), WriteError> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).on("set the mode of", path)
}

/// Changes owner and group of a file or directory; a symbolic link is changed itself, never followed.
pub fn set_owner(path: &Path, owner: Option<u32>, group: Option<u32>) -> Result<(), WriteError> {
    faults::point("durable::chown").on("change the owner of", path)?;
    lchown(path, owner, group).on("change the owner of", path)
}

/// Renames durably within one file system.
pub fn rename(from: &Path, to: &Path) -> Result<(), WriteError> {
    faults::point("durable::rename").on("rename", from)?;
    fs::rename(from, to).on("rename", from)?;
    let synced = sync_parent(to).and_then(|()| sync_parent(from));
    synced.map_err(|error| error.after(to, "has this name, but may have the old one"))
}

/// Removes a file durably. True if it was there.
pub fn remove_file(path: &Path) -> Result<bool, WriteError> {
    faults::point("durable::unlink").on("remove", path)?;
    match fs::remove_file(path) {
        Ok(()) => {
            let synced = sync_parent(path).map_err(|error| error.after(path, "is removed, but may be back"));
            synced.map(|()| true)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).on("remove", path),
    }
}

/// Removes a directory and its contents. Links in it are removed, never followed.
pub fn remove_dir_all(path: &Path) -> Result<(), WriteError> {
    let name = path.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput)).on("remove", path)?;
    match DirHandle::open(parent(path)).and_then(|parent| parent.remove_all(name)) {
        Ok(_) => Ok(()),
        Err(DirError::System(error)) => Err(error),
        Err(error) => Err(io::Error::other(error)).on("remove", path),
    }
}

fn os_string(name: &CStr) -> OsString {
    OsStr::from_bytes(name.to_bytes()).to_os_string()
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn sync_parent(path: &Path) -> Result<(), WriteError> {
    sync_dir(parent(path))
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
        write_file(&path, b"two", PRIVATE_FILE).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, PRIVATE_FILE);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_no_temporary() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        write_file(&path, b"old", PRIVATE_FILE).unwrap();
        let failed = write_stream(&path, PRIVATE_FILE, |file| {
            file.write_all(b"half")?;
            Err(io::Error::other("the source failed"))
        });
        assert!(failed.is_err());
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_unchanged_file_is_not_written_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        assert!(write_if_changed(&path, b"a", PRIVATE_FILE).unwrap());
        assert!(!write_if_changed(&path, b"a", PRIVATE_FILE).unwrap());
        assert!(write_if_changed(&path, b"b", PRIVATE_FILE).unwrap());
    }
}
