//! Files and directories under a hidden name, until they are given their own.

#![allow(clippy::disallowed_methods, reason = "this is the seam that the ban points to")]

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::{OnPath as _, PRIVATE_DIR, WriteError, create_dir, create_new, rename, sync_parent, temporary_beside};
use crate::faults;

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

/// Makes one, to be given the name `path`.
///
/// # Errors
/// If it cannot be made.
pub fn draft_dir(path: &Path) -> Result<DraftDir, WriteError> {
    let path = temporary_beside(path);
    create_dir(&path, PRIVATE_DIR)?;
    Ok(DraftDir { path, is_published: false })
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
