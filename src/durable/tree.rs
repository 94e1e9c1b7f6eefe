//! Recursive operations on an open directory: remove, change the owner, measure.
//!
//! All of them work by descriptor, directory by directory, and follow no link, so that a user who replaces files
//! meanwhile only affects files of that user. A directory is chowned to us before it is removed, so that its owner
//! cannot add to it, and is flattened on the way, so that deep directories exhaust neither descriptors nor the stack.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::fs::MetadataExt as _;

use rustix::fs::{AtFlags, Gid, RenameFlags, ResolveFlags, Uid};
use rustix::io::Errno;

use crate::durable::access::PRIVATE_DIR;
use crate::durable::error::{OnPath as _, WriteError};
use crate::durable::held::DirHandle;
use crate::durable::names::os_string;
use crate::durable::refusal::DirError;
use crate::faults;

/// Maximum depth for chown and measuring; etcd has three levels.
const MAX_DEPTH: u32 = 32;
/// Maximum number of entries to measure: a result that is too small is better than none.
const MAX_MEASURED_ENTRIES: u32 = 200_000;

impl DirHandle {
    /// Removes the entry `name`, durably: a file or link itself, or a directory with its contents. True if it existed.
    /// Other file systems mounted below are not removed.
    pub fn remove_all(&self, name: impl AsRef<OsStr>) -> Result<bool, DirError> {
        let name = name.as_ref();
        let removed = self.remove_one(name)?;
        if removed {
            self.sync()?;
        }
        Ok(removed)
    }

    fn remove_one(&self, name: &OsStr) -> Result<bool, DirError> {
        match rustix::fs::unlinkat(self.try_clone_file(), name, AtFlags::empty()) {
            Ok(()) => return Ok(true),
            Err(Errno::NOENT) => return Ok(false),
            // For a directory: EISDIR on Linux, EPERM by POSIX.
            Err(Errno::ISDIR | Errno::PERM) => {}
            Err(error) => return Err(self.not_removed(name, error)),
        }
        let Some(dir) = self.open_dir_within(name, ResolveFlags::NO_XDEV)? else { return Ok(false) };
        dir.empty()?;
        match rustix::fs::unlinkat(self.try_clone_file(), name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(true),
            Err(Errno::NOTDIR | Errno::NOTEMPTY) => Err(DirError::Replaced(self.path().join(name))),
            Err(error) => Err(self.not_removed(name, error)),
        }
    }

    fn not_removed(&self, name: &OsStr, error: Errno) -> DirError {
        WriteError { act: "remove", path: self.path().join(name), source: error.into() }.into()
    }

    /// Removes all that is in it.
    pub fn empty(&self) -> Result<(), DirError> {
        self.remove_level()?;
        let mut count = 0_u64;
        loop {
            let directories = self.unlink_files()?;
            if directories.is_empty() {
                return Ok(());
            }
            for name in directories {
                let Some(dir) = self.open_dir_within(&name, ResolveFlags::NO_XDEV)? else { continue };
                dir.remove_level()?;
                // Subdirectories move up by one level, and are removed in the next round.
                for below in dir.unlink_files()? {
                    self.make_removable(&dir, &below, &mut count)?;
                }
                match rustix::fs::unlinkat(self.try_clone_file(), &name, AtFlags::REMOVEDIR) {
                    Ok(()) | Err(Errno::NOENT) => {}
                    Err(error) => return Err(self.not_removed(&name, error)),
                }
            }
        }
    }

    /// Makes it private, so that its former owner cannot add to it.
    fn remove_level(&self) -> Result<(), DirError> {
        let us = nix::unistd::geteuid().as_raw();
        if self.uid() != us {
            self.set_owner(Some(us), None)?;
        }
        if self.mode()? == PRIVATE_DIR { Ok(()) } else { self.set_mode(PRIVATE_DIR) }
    }

    /// Removes everything but directories, and returns those.
    fn unlink_files(&self) -> Result<Vec<OsString>, DirError> {
        let mut directories = Vec::new();
        let entries = rustix::fs::Dir::read_from(self.try_clone_file());
        for entry in entries.map_err(io::Error::from).on("read", self.path())? {
            let entry = entry.map_err(io::Error::from).on("read", self.path())?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            match rustix::fs::unlinkat(self.try_clone_file(), name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(Errno::ISDIR | Errno::PERM) if self.is_directory(name)? => {
                    directories.push(os_string(name));
                }
                Err(error) => return Err(self.not_removed(&os_string(name), error)),
            }
        }
        Ok(directories)
    }

    fn is_directory(&self, name: &std::ffi::CStr) -> Result<bool, DirError> {
        Ok(self.stat(os_string(name))?.is_some_and(|found| found.is_dir()))
    }

    /// Moves a directory in `below` up into this one, under a free name.
    fn make_removable(&self, below: &Self, name: &OsStr, count: &mut u64) -> Result<(), DirError> {
        loop {
            *count += 1;
            let to = format!("lifted-{count}");
            match rustix::fs::renameat_with(
                below.try_clone_file(),
                name,
                self.try_clone_file(),
                &to,
                RenameFlags::NOREPLACE,
            ) {
                Err(Errno::EXIST) => {}
                // The file system has no RENAME_NOREPLACE; at most an empty directory is replaced.
                Err(Errno::INVAL | Errno::NOSYS) => {
                    let moved = rustix::fs::renameat(below.try_clone_file(), name, self.try_clone_file(), &to);
                    return moved.map_err(|error| below.not_removed(name, error));
                }
                done => return done.map_err(|error| below.not_removed(name, error)),
            }
        }
    }

    /// Changes the owner of it and of its contents, itself last, so that an interrupted run is recognised. Links are
    /// changed themselves, never followed; directories of the new owner are not entered. It must be ours and private,
    /// so that no other user adds to it meanwhile.
    pub fn chown_recursive(&self, owner: u32, group: u32) -> Result<(), DirError> {
        if self.is_private() { self.chown_level(owner, group, 0) } else { self.chown_refusal() }
    }

    fn chown_refusal(&self) -> Result<(), DirError> {
        let us = nix::unistd::geteuid().as_raw();
        Err(DirError::Owner { path: self.path().to_path_buf(), found: self.uid(), wanted: us })
    }

    fn chown_level(&self, owner: u32, group: u32, depth: u32) -> Result<(), DirError> {
        if depth > MAX_DEPTH {
            return Err(WriteError {
                act: "change the owner of",
                path: self.path().to_path_buf(),
                source: Errno::LOOP.into(),
            }
            .into());
        }
        for name in self.names()? {
            let Some(found) = self.stat(&name)? else { continue };
            if !found.is_dir() {
                faults::point("durable::chown").on("change the owner of", &self.path().join(&name))?;
                let (uid, gid) = (Uid::from_raw(owner), Gid::from_raw(group));
                let given =
                    rustix::fs::chownat(self.try_clone_file(), &name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW);
                given.map_err(io::Error::from).on("change the owner of", &self.path().join(&name))?;
                continue;
            }
            let Some(dir) = self.open_dir(&name)? else { continue };
            if dir.uid() != owner {
                dir.chown_level(owner, group, depth + 1)?;
            }
        }
        self.set_owner(Some(owner), Some(group))
    }

    /// Bytes that its contents occupy on disk, as far as visible.
    #[must_use]
    pub fn size(&self) -> u64 {
        let mut left = MAX_MEASURED_ENTRIES;
        self.measure(&mut left, 0)
    }

    fn measure(&self, left: &mut u32, depth: u32) -> u64 {
        let Ok(entries) = rustix::fs::Dir::read_from(self.try_clone_file()) else { return 0 };
        let mut bytes = 0;
        for entry in entries.flatten() {
            let name = os_string(entry.file_name());
            if *left == 0 || depth > MAX_DEPTH {
                break;
            }
            if name == "." || name == ".." {
                continue;
            }
            *left -= 1;
            let Ok(Some(found)) = self.stat(&name) else { continue };
            if !found.is_dir() {
                bytes += found.blocks() * 512;
            } else if let Ok(Some(dir)) = self.open_dir_within(&name, ResolveFlags::NO_XDEV) {
                bytes += dir.measure(left, depth + 1);
            }
        }
        bytes
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests create files directly")]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::*;

    /// Deeper than the longest path, and than the limit of open files.
    #[test]
    fn a_tree_of_any_depth_is_removed_and_nothing_that_it_links_to() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("victim")).unwrap();
        fs::write(dir.path().join("victim/file"), "x").unwrap();
        let held = DirHandle::open(dir.path()).unwrap();
        let mut at = held.make_dir("tree", PRIVATE_DIR).unwrap();
        for _ in 0..1_500 {
            symlink(dir.path().join("victim"), at.proc_path().join("link")).unwrap();
            fs::write(at.proc_path().join("file"), "x").unwrap();
            fs::create_dir(at.proc_path().join("lifted-1")).unwrap();
            at = at.open_dir("lifted-1").unwrap().unwrap();
        }
        assert!(held.size() > 0);
        assert!(held.remove_all("tree").unwrap());
        assert!(!held.remove_all("tree").unwrap());
        assert_eq!(held.names().unwrap(), ["victim"]);
        assert_eq!(fs::read(dir.path().join("victim/file")).unwrap(), b"x");
    }

    #[test]
    fn what_is_handed_over_is_all_of_it_and_no_more() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("data/member/wal")).unwrap();
        fs::create_dir(dir.path().join("victim")).unwrap();
        symlink(dir.path().join("victim"), dir.path().join("data/member/link")).unwrap();
        fs::write(dir.path().join("data/member/wal/file"), "x").unwrap();
        let data = DirHandle::open(&dir.path().join("data")).unwrap();
        data.set_mode(0o777).unwrap();
        let open = DirHandle::open(&dir.path().join("data")).unwrap();
        assert!(
            matches!(open.chown_recursive(12345, 12345), Err(DirError::Owner { .. })),
            "other users could change it meanwhile"
        );
        data.chown_recursive(12345, 23456).unwrap();
        let ids = |path: &str| {
            let found = fs::symlink_metadata(dir.path().join(Path::new(path))).unwrap();
            (found.uid(), found.gid())
        };
        for path in ["data", "data/member", "data/member/link", "data/member/wal", "data/member/wal/file"] {
            assert_eq!(ids(path), (12345, 23456), "{path}");
        }
        assert_eq!(ids("victim"), (0, 0));
    }
}
