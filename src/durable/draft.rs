//! Files and directories under a hidden name, until they are given their own.

#![allow(clippy::disallowed_methods, reason = "this is the seam that the ban points to")]

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::{
    OnPath as _, PRIVATE_DIR, TEMPORARY, WriteError, create_dir, create_new, rename, sync_parent, temporary_beside,
};
use crate::faults;

/// Hidden names that are tried.
const NAMES: u32 = 100;

/// A file under a hidden name, until it is given its own. Dropped before that, it is removed.
#[derive(Debug)]
pub struct Draft {
    path: PathBuf,
    is_published: bool,
}

impl Draft {
    /// Makes one in `dir`, with a hidden name made from `label`.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn create(dir: &Path, label: &str, mode: u32) -> Result<(Self, File), WriteError> {
        let path = temporary_beside(&dir.join(label));
        faults::point("durable::create").on("write into", dir)?;
        let file = create_new(&path, mode).on("write", &path)?;
        let draft = Self { path, is_published: false };
        file.set_permissions(fs::Permissions::from_mode(mode)).on("set the mode of", &draft.path)?;
        Ok((draft, file))
    }

    /// Its hidden name.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives it its name, durably. Its content must have been synced. Gives the draft back if somebody has the name already.
    ///
    /// # Errors
    /// If it cannot be renamed.
    pub fn publish(mut self, to: &Path) -> Result<Option<Self>, WriteError> {
        faults::point("durable::rename").on("rename into place", to)?;
        let flags = rustix::fs::RenameFlags::NOREPLACE;
        match rustix::fs::renameat_with(rustix::fs::CWD, &self.path, rustix::fs::CWD, to, flags) {
            Err(rustix::io::Errno::EXIST) => return Ok(Some(self)),
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
                // A file system that cannot promise it: a link fails where there is a name, too.
                match fs::hard_link(&self.path, to) {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(Some(self)),
                    done => done.on("rename into place", to)?,
                }
                fs::remove_file(&self.path).on("remove", &self.path)?;
            }
            done => done.map_err(io::Error::from).on("rename into place", to)?,
        }
        self.is_published = true;
        sync_parent(to).map(|()| None)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.is_published {
            // Swept at the next start if this does not work.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A directory under a hidden name, until it is given its own. Dropped before that, it is removed with all in it.
#[derive(Debug)]
pub struct DraftDir {
    path: PathBuf,
    is_published: bool,
}

/// Makes one, to be given the name `path`. It is ours alone, also where everybody may make directories.
///
/// # Errors
/// If it cannot be made.
pub fn draft_dir(path: &Path) -> Result<DraftDir, WriteError> {
    for _ in 0..NAMES {
        let path = temporary_beside(path);
        // One that is there is somebody else's, who may have known the name.
        if create_dir(&path, PRIVATE_DIR)? {
            return Ok(DraftDir { path, is_published: false });
        }
    }
    Err(io::Error::from(io::ErrorKind::AlreadyExists)).on("create a directory beside", path)
}

/// Removes directories under hidden names of `name` that processes of ours left in `dir` when they were killed.
pub fn sweep_dirs(dir: &Path, name: &str) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    let ours = nix::unistd::geteuid().as_raw();
    for entry in entries.flatten() {
        let file_name = entry.file_name();
        let pid =
            file_name.to_str().and_then(|text| text.strip_prefix(TEMPORARY)?.strip_prefix(name)?.rsplit('-').next());
        let is_gone = pid.is_some_and(|pid| pid.parse::<u32>().is_ok() && !Path::new("/proc").join(pid).exists());
        if is_gone && entry.metadata().is_ok_and(|found| found.is_dir() && found.uid() == ours) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

impl DraftDir {
    /// Its hidden name.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives it its name, durably; an empty directory may have it already.
    ///
    /// # Errors
    /// If it cannot be renamed.
    pub fn publish(mut self, to: &Path) -> Result<(), WriteError> {
        rename(&self.path, to)?;
        self.is_published = true;
        Ok(())
    }
}

impl Drop for DraftDir {
    fn drop(&mut self) {
        if !self.is_published {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}
