//! The directory that snapshots are saved in.

use std::path::Path;

use crate::durable::{self, OnPath as _, PRIVATE_DIR};
use crate::host::{self, FileSystem};
use crate::snapshot::save::error::SaveError;

/// Makes sure that there is a directory for snapshots. It is made if the one above it is there: more would hide a disk that is
/// not mounted, or a typing error.
pub fn prepare_dir(dir: &Path) -> Result<(), SaveError> {
    let place = |why| SaveError::Unusable { dir: dir.to_path_buf(), why };
    if dir.is_dir() {
        return Ok(());
    }
    if dir.exists() {
        return Err(place("it is not a directory"));
    }
    if dir.is_symlink() {
        return Err(place("it is a symbolic link to something that is not there"));
    }
    if !dir.parent().is_some_and(Path::is_dir) {
        return Err(place("neither it nor the directory above it is there"));
    }
    durable::create_dir(dir, PRIVATE_DIR)?;
    Ok(())
}

/// As [`prepare_dir`], for the directory that snapshots of this server are kept in: nobody else may exchange them there. It must be ours or
/// root's. If everybody may write into it (and no sticky bit keeps them from what is not theirs) it is closed to them. On a network file
/// system, which may show root's directories as another user's, both are left as they are.
///
/// # Errors
/// As [`prepare_dir`]; or if it is another user's, or cannot be closed.
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
        return Err(exposed("it is writable for everybody".into()));
    }
    durable::set_mode(dir, mode & 0o7775)?;
    tracing::warn!(path = %dir.display(), "everybody could write into the snapshot directory; closed to others now");
    Ok(())
}
