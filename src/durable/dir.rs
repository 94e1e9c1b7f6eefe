//! Directories and the names in them: made, renamed and removed so that it survives a power loss.

#![allow(clippy::disallowed_methods, reason = "the ban points to this module")]

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, lchown};
use std::path::Path;

use crate::durable::error::{OnPath as _, WriteError};
use crate::durable::held::DirHandle;
use crate::durable::names::parent;
use crate::durable::refusal::DirError;
use crate::faults;

/// Makes the entries of directories durable.
pub fn sync_dirs(dirs: &[&Path]) -> Result<(), WriteError> {
    dirs.iter().try_for_each(|dir| sync_dir(dir))
}

/// Creates a directory with `mode` and makes its entry durable. True if it was created, false if it existed.
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

/// Removes a directory and its contents. Links in it are removed, never followed.
pub fn remove_dir_all(path: &Path) -> Result<(), WriteError> {
    let name = path.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput)).on("remove", path)?;
    match DirHandle::open(parent(path)).and_then(|parent| parent.remove_all(name)) {
        Ok(_) => Ok(()),
        Err(DirError::System(error)) => Err(error),
        Err(error) => Err(io::Error::other(error)).on("remove", path),
    }
}

pub(super) fn sync_parent(path: &Path) -> Result<(), WriteError> {
    sync_dir(parent(path))
}

fn sync_dir(dir: &Path) -> Result<(), WriteError> {
    faults::point("durable::fsync_dir").on("fsync", dir)?;
    File::open(dir).and_then(|dir| dir.sync_all()).on("fsync", dir)
}
