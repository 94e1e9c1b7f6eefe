//! The directory that snapshots are saved in.

use std::path::Path;

use crate::durable::{self, OnPath as _, PRIVATE_DIR};
use crate::host::{self, FileSystem};
use crate::snapshot::save::error::SaveError;

/// Ensures that the snapshot directory exists. Creates it if its parent exists: creating more would hide an unmounted
/// disk or a typo.
pub fn prepare_dir(dir: &Path) -> Result<(), SaveError> {
    let place = |why| SaveError::Unusable { dir: dir.to_path_buf(), why };
    if dir.is_dir() {
        return Ok(());
    }
    if dir.exists() {
        return Err(place("it is not a directory"));
    }
    if dir.is_symlink() {
        return Err(place("it is a symbolic link to a target that does not exist"));
    }
    if !dir.parent().is_some_and(Path::is_dir) {
        return Err(place("neither it nor its parent directory exists"));
    }
    durable::create_dir(dir, PRIVATE_DIR)?;
    Ok(())
}

/// Like [`prepare_dir`], for the snapshot directory of this server, where no other user may replace files: it must
/// belong to us or root. If it is writable for all users (without the sticky bit), the mode is fixed. On a network file
/// system, which may map root to another user, neither is checked.
///
/// # Errors
/// Like [`prepare_dir`]; or if it belongs to another user, or its mode cannot be fixed.
pub fn prepare_own_dir(dir: &Path) -> Result<(), SaveError> {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    prepare_dir(dir)?;
    if host::file_system(dir) == FileSystem::Network {
        return Ok(());
    }
    let found = std::fs::metadata(dir).on("look at", dir)?;
    let us = nix::unistd::geteuid().as_raw();
    let exposed = |why| SaveError::Exposed { dir: dir.to_path_buf(), why };
    if found.uid() != us && found.uid() != 0 {
        return Err(exposed(format!("it belongs to user {}", found.uid())));
    }
    let mode = found.permissions().mode();
    if mode & 0o1002 != 0o0002 {
        return Ok(());
    }
    if found.uid() != us {
        return Err(exposed("it is writable for all users".into()));
    }
    durable::set_mode(dir, mode & 0o7775)?;
    tracing::warn!(path = %dir.display(), "the snapshot directory was writable for all users; mode fixed");
    Ok(())
}
