//! Files and directories under a hidden name, until they are given their own. As long as one is held, it is locked, so that nobody sweeps it.

#![allow(clippy::disallowed_methods, reason = "this is the seam that the ban points to")]

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::{OnPath as _, PRIVATE_DIR, WriteError, create_new, rename, sync_parent, temporary};
use crate::faults;

/// A file under a hidden name, until it is given its own. Dropped before that, it is removed.
#[derive(Debug)]
pub struct Draft {
    path: PathBuf,
    is_published: bool,
    /// Holds the lock, also when the file that is written was closed.
    _lock: File,
}

impl Draft {
    /// Makes one in `dir`, with a hidden name made from `label`.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn create(dir: &Path, label: &str, mode: u32) -> Result<(Self, File), WriteError> {
        faults::point("durable::create").on("write into", dir)?;
        let make = |name: &OsStr| create_new(&dir.join(name), mode);
        let (name, file) = temporary::create(OsStr::new(label), make).on("write into", dir)?;
        let path = dir.join(name);
        let lock = file.try_clone().on("write", &path)?;
        let draft = Self { path, is_published: false, _lock: lock };
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
    /// If it cannot be renamed, or the name cannot be made durable: then the name is removed again, or the error says that it is there.
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
                // It has its name. A second one that stays is swept.
                let _ = fs::remove_file(&self.path);
            }
            done => done.map_err(io::Error::from).on("rename into place", to)?,
        }
        self.is_published = true;
        let synced = faults::point("durable::fsync_name").on("fsync", to).and_then(|()| sync_parent(to));
        let Err(error) = synced else { return Ok(None) };
        Err(match faults::point("durable::unname").and_then(|()| fs::remove_file(to)) {
            Ok(()) => error.with(&format!("{} was removed again", to.display())),
            Err(_) => error.after(to, "is there, and may be gone"),
        })
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.is_published {
            name_what_is_left(&self.path, fs::remove_file(&self.path));
        }
    }
}

fn name_what_is_left(path: &Path, removed: io::Result<()>) {
    if let Err(error) = removed
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "an unfinished file is left and cannot be removed; remove it by hand");
    }
}

/// A directory under a hidden name, until it is given its own. Dropped before that, it is removed with all in it.
#[derive(Debug)]
pub struct DraftDir {
    path: PathBuf,
    is_published: bool,
    /// Holds the lock.
    _lock: File,
}

/// Makes one, to be given the name `path`. It is ours alone, also where everybody may make directories.
///
/// # Errors
/// If it cannot be made.
pub fn draft_dir(path: &Path) -> Result<DraftDir, WriteError> {
    faults::point("durable::mkdir").on("create a directory beside", path)?;
    let make = |name: &OsStr| {
        let hidden = path.with_file_name(name);
        // One that is there is somebody else's, who may have known the name.
        DirBuilder::new().mode(PRIVATE_DIR).create(&hidden)?;
        File::open(&hidden)
    };
    let label = path.file_name().unwrap_or_default();
    let (name, lock) = temporary::create(label, make).on("create a directory beside", path)?;
    let draft = DraftDir { path: path.with_file_name(name), is_published: false, _lock: lock };
    super::set_mode(&draft.path, PRIVATE_DIR)?;
    sync_parent(&draft.path)?;
    Ok(draft)
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
    /// If it cannot be renamed, or the name cannot be made durable.
    pub fn publish(mut self, to: &Path) -> Result<(), WriteError> {
        let renamed = rename(&self.path, to);
        // Also if only the fsync failed: it has its name then.
        self.is_published = !self.path.exists();
        renamed
    }
}

impl Drop for DraftDir {
    fn drop(&mut self) {
        if !self.is_published {
            let removed = super::remove_dir_all(&self.path);
            name_what_is_left(&self.path, removed.map_err(|error| error.source));
        }
    }
}
