//! Files: replaced whole and durably, or opened to be written in place by a caller that knows what a torn file means.

#![allow(clippy::disallowed_methods, reason = "the ban points to this module")]

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::Path;

use crate::durable::access::{Access, PRIVATE_FILE};
use crate::durable::dir::sync_parent;
use crate::durable::error::{OnPath as _, WriteError};
use crate::durable::temporary;
use crate::faults;
use crate::host;

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
pub(super) fn write_through(
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

pub(super) fn create_file_new(path: &Path, mode: u32) -> io::Result<File> {
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

/// Writes at an offset of an open file; does not sync.
pub fn write_at(file: &File, path: &Path, bytes: &[u8], offset: u64) -> Result<(), WriteError> {
    faults::point("durable::write").on("write", path)?;
    file.write_all_at(bytes, offset).on("write", path)
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
