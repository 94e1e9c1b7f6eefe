//! Files and directories under a hidden name, until they are renamed to their own.
//!
//! A draft is locked while it exists, so that no sweep removes it. Dropped without a rename, it is removed.

#![allow(clippy::disallowed_methods, reason = "the ban points to this module")]

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::durable::access::PRIVATE_DIR;
use crate::durable::dir::sync_parent;
use crate::durable::error::{OnPath as _, WriteError};
use crate::durable::file::create_file_new;
use crate::durable::held::DirHandle;
use crate::durable::refusal::DirError;
use crate::durable::{names, temporary};
use crate::faults;

/// A file under a hidden name, until it is renamed. Dropped before that, it is removed.
#[derive(Debug)]
pub struct NewFile {
    path: PathBuf,
    is_published: bool,
    /// Keeps the lock after the written file is closed.
    _lock: File,
}

impl NewFile {
    /// Creates one in `dir`, with a hidden name derived from `label`.
    pub fn create(dir: &Path, label: &str, mode: u32) -> Result<(Self, File), WriteError> {
        faults::point("durable::create").on("write into", dir)?;
        let make = |name: &OsStr| create_file_new(&dir.join(name), mode);
        let (name, file) = temporary::create(OsStr::new(label), make).on("write into", dir)?;
        let path = dir.join(name);
        let lock = file.try_clone().on("write", &path)?;
        let draft = Self { path, is_published: false, _lock: lock };
        file.set_permissions(fs::Permissions::from_mode(mode)).on("set the mode of", &draft.path)?;
        Ok((draft, file))
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Renames it to its final name, durably. Its content must be synced already. Returns the draft if the name is
    /// taken.
    ///
    /// # Errors
    /// If it cannot be renamed, or the name cannot be made durable: then the name is removed again, or the error says
    /// that it exists.
    pub fn publish(mut self, to: &Path) -> Result<Option<Self>, WriteError> {
        faults::point("durable::rename").on("rename into place", to)?;
        let flags = rustix::fs::RenameFlags::NOREPLACE;
        match rustix::fs::renameat_with(rustix::fs::CWD, &self.path, rustix::fs::CWD, to, flags) {
            Err(rustix::io::Errno::EXIST) => return Ok(Some(self)),
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
                // The file system has no RENAME_NOREPLACE: a hard link also fails if the name exists.
                match fs::hard_link(&self.path, to) {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(Some(self)),
                    done => done.on("rename into place", to)?,
                }
                // It has its final name. The hidden name, if it stays, is swept.
                let _ = fs::remove_file(&self.path);
            }
            done => done.map_err(io::Error::from).on("rename into place", to)?,
        }
        self.is_published = true;
        let synced = faults::point("durable::fsync_name").on("fsync", to).and_then(|()| sync_parent(to));
        let Err(error) = synced else { return Ok(None) };
        Err(match faults::point("durable::unname").and_then(|()| fs::remove_file(to)) {
            Ok(()) => error.with(&format!("{} was removed again", to.display())),
            Err(_) => error.after(to, "exists, but may be gone"),
        })
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.is_published {
            add_leftover(&self.path, fs::remove_file(&self.path));
        }
    }
}

fn add_leftover(path: &Path, removed: io::Result<()>) {
    if let Err(error) = removed
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "cannot remove an unfinished file; remove it by hand");
    }
}

/// A directory under a hidden name, until it is renamed. Dropped before that, it is removed with its contents. It is
/// kept open, so that a user who may change its parent cannot redirect us.
#[derive(Debug)]
pub struct NewDir {
    parent: DirHandle,
    name: OsString,
    dir: DirHandle,
}

/// Creates one, to be renamed to `path`. It is private, even where all users may create directories.
pub fn new_dir(path: &Path) -> Result<NewDir, WriteError> {
    let act = "create a directory next to";
    let refused = |error| match error {
        DirError::System(error) => error.source,
        error => io::Error::other(error),
    };
    let parent = DirHandle::open(names::parent(path)).map_err(refused).on(act, path)?;
    let label = path.file_name().unwrap_or_default();
    let make = |name: &OsStr| parent.make_dir(name, PRIVATE_DIR).map(DirHandle::into_file).map_err(refused);
    let (name, file) = temporary::create(label, make).on(act, path)?;
    let dir = DirHandle::of(file, parent.path().join(&name)).map_err(refused).on(act, path)?;
    Ok(NewDir { parent, name, dir })
}

impl NewDir {
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A path to it that is valid in this process even if it is renamed.
    #[must_use]
    pub fn through(&self) -> PathBuf {
        self.dir.proc_path()
    }

    /// Renames it to its final name, durably; the name must be free.
    ///
    /// # Errors
    /// If it cannot be renamed, or the name cannot be made durable.
    pub fn publish(self, to: &Path) -> Result<(), DirError> {
        self.parent.rename(&self.name, &self.parent, to.file_name().unwrap_or_default())
    }

    /// Moves its entries to these names in the directory `to`, durably and in this order; the last one proves that all
    /// exist. All or nothing.
    ///
    /// # Errors
    /// If an entry cannot be renamed, or the names cannot be made durable.
    pub fn publish_into(self, names: &[&str], to: &DirHandle) -> Result<(), DirError> {
        for (count, name) in names.iter().enumerate() {
            if let Err(error) = self.dir.rename(name, to, name) {
                // Entries that were renamed are removed with the rest. The first error is reported.
                for name in &names[..=count] {
                    let _ = to.rename(name, &self.dir, name);
                }
                return Err(error);
            }
        }
        Ok(())
    }
}

impl Drop for NewDir {
    fn drop(&mut self) {
        // The hidden name is gone after the rename.
        if let Err(error) = self.parent.remove_all(&self.name) {
            let path = self.path().display();
            tracing::warn!(%path, %error, "cannot remove an unfinished directory; remove it by hand");
        }
    }
}
