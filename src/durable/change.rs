//! Changes in an open directory: entries are created, renamed, replaced and removed relative to it, durably.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::{PermissionsExt as _, fchown};

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags, ResolveFlags};
use rustix::io::Errno;

use crate::durable::access::{Access, own_uid};
use crate::durable::error::{OnPath as _, WriteError};
use crate::durable::file::write_through;
use crate::durable::held::DirHandle;
use crate::durable::refusal::DirError;
use crate::durable::temporary;
use crate::faults;

impl DirHandle {
    /// Creates a directory in it, durably, and opens it.
    ///
    /// # Errors
    /// If the name is taken, it cannot be created, or it was replaced at once.
    pub fn make_dir(&self, name: impl AsRef<OsStr>, mode: u32) -> Result<Self, DirError> {
        let (name, path) = (name.as_ref(), self.at(name.as_ref()));
        faults::point("durable::mkdir").on("create the directory", &path)?;
        rustix::fs::mkdirat(self.try_clone_file(), name, Mode::from_raw_mode(mode))
            .map_err(io::Error::from)
            .on("create the directory", &path)?;
        let made = self.open_dir_within(name, ResolveFlags::NO_XDEV)?.filter(|made| made.uid() == own_uid());
        let made = made.ok_or(DirError::Replaced(path))?;
        // The umask may have cleared bits.
        made.set_mode(mode)?;
        self.sync()?;
        Ok(made)
    }

    pub fn set_mode(&self, mode: u32) -> Result<(), DirError> {
        Ok(self
            .try_clone_file()
            .set_permissions(std::fs::Permissions::from_mode(mode))
            .on("set the mode of", self.path())?)
    }

    pub fn mode(&self) -> Result<u32, DirError> {
        Ok(self.try_clone_file().metadata().on("look at", self.path())?.permissions().mode() & 0o7777)
    }

    pub fn set_owner(&self, owner: Option<u32>, group: Option<u32>) -> Result<(), DirError> {
        faults::point("durable::chown").on("change the owner of", self.path())?;
        Ok(fchown(self.try_clone_file(), owner, group).on("change the owner of", self.path())?)
    }

    pub fn sync(&self) -> Result<(), WriteError> {
        faults::point("durable::fsync_dir").on("fsync", self.path())?;
        self.try_clone_file().sync_all().on("fsync", self.path())
    }

    /// Renames, durably, to a name that is free. A link is renamed itself, never its target.
    pub fn rename(&self, name: impl AsRef<OsStr>, to: &Self, to_name: impl AsRef<OsStr>) -> Result<(), DirError> {
        let (name, to_name) = (name.as_ref(), to_name.as_ref());
        let path = self.at(name);
        faults::point("durable::rename").on("rename", &path)?;
        let renamed = rustix::fs::renameat_with(
            self.try_clone_file(),
            name,
            to.try_clone_file(),
            to_name,
            RenameFlags::NOREPLACE,
        );
        let renamed = match renamed {
            // The file system has no RENAME_NOREPLACE.
            Err(Errno::INVAL | Errno::NOSYS) if to.stat(to_name)?.is_none() => {
                rustix::fs::renameat(self.try_clone_file(), name, to.try_clone_file(), to_name)
            }
            done => done,
        };
        renamed.map_err(io::Error::from).on("rename", &path)?;
        let synced = to.sync().and_then(|()| self.sync());
        Ok(synced.map_err(|error| error.after(&to.at(to_name), "has this name, but may have the old one"))?)
    }

    /// Replaces the file of this name, atomically and durably.
    pub fn write_file(
        &self,
        name: impl AsRef<OsStr>,
        bytes: &[u8],
        access: impl Into<Access>,
    ) -> Result<(), WriteError> {
        self.write_with(name, access, |file| file.write_all(bytes))
    }

    /// Like [`Self::write_file`], with the bytes written by `fill`.
    pub fn write_with(
        &self,
        name: impl AsRef<OsStr>,
        access: impl Into<Access>,
        fill: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> Result<(), WriteError> {
        let (name, path, access) = (name.as_ref(), self.at(name.as_ref()), access.into());
        faults::point("durable::create").on("write", &path)?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let make = |hidden: &OsStr| {
            let made = rustix::fs::openat(self.try_clone_file(), hidden, flags, Mode::from_raw_mode(access.mode));
            made.map(File::from).map_err(io::Error::from)
        };
        let (hidden, file) = temporary::create(name, make).on("write", &path)?;
        let rename = || {
            rustix::fs::renameat(self.try_clone_file(), &hidden, self.try_clone_file(), name).map_err(io::Error::from)
        };
        let remove = || rustix::fs::unlinkat(self.try_clone_file(), &hidden, AtFlags::empty()).map_err(io::Error::from);
        let written = write_through(&path, access, file, fill, rename);
        written.map_err(|error| error.unless_removed(&self.at(&hidden), remove))?;
        self.sync().map_err(|error| error.after(&path, "has its new content, but may have the old one"))
    }

    /// Like [`Self::write_file`], but does not write a file that has these bytes already.
    pub fn write_if_changed(&self, name: impl AsRef<OsStr>, bytes: &[u8], mode: u32) -> Result<bool, WriteError> {
        let present = self.read(name.as_ref(), bytes.len() as u64);
        if present.is_ok_and(|present| present.is_some_and(|present| present == bytes)) {
            return Ok(false);
        }
        self.write_file(name, bytes, mode).map(|()| true)
    }

    /// Removes a file or link, durably. True if it was there.
    pub fn remove_file(&self, name: impl AsRef<OsStr>) -> Result<bool, WriteError> {
        match rustix::fs::unlinkat(self.try_clone_file(), name.as_ref(), AtFlags::empty()) {
            Ok(()) => {
                let path = self.at(name);
                let synced = self.sync().map_err(|error| error.after(&path, "is removed, but may be back"));
                synced.map(|()| true)
            }
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(WriteError { act: "remove", path: self.at(name), source: error.into() }),
        }
    }
}
