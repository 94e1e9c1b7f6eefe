//! A directory that is held open, and what is done with the names in it.
//!
//! For directories in which another user may exchange things while we work there: whatever becomes of its path, a held directory stays
//! the same one, and every name is opened relative to it, one at a time (openat2(2) with `RESOLVE_BENEATH` and `RESOLVE_NO_SYMLINKS`, or
//! openat(2) with `O_NOFOLLOW` where the kernel has no openat2). A symbolic link is followed only if it is ours and lies in a directory
//! that nobody else can change. A file is a regular one of the directory's owner, or refused; a pipe or device is never opened.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::durable::refusal::{DirError, MAX_ENTRIES};
use crate::durable::{OnPath as _, WriteError, chase};

/// A directory that stays the same one, whatever happens to its path.
#[derive(Debug)]
pub struct DirHandle {
    file: File,
    path: PathBuf,
    uid: u32,
    /// Nobody but us, or root, can change what is in it.
    is_ours_alone: bool,
}

/// Whether `uid` is ours or root's.
pub(super) fn is_trusted(uid: u32) -> bool {
    uid == 0 || uid == own_uid()
}

pub(super) fn own_uid() -> u32 {
    nix::unistd::geteuid().as_raw()
}

/// Opens one name in a directory without following a link. `..` and absolute paths fail.
pub(super) fn open_at(dir: &File, name: &OsStr, flags: OFlags, more: ResolveFlags) -> rustix::io::Result<File> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | more;
    let all = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat2(dir, name, all, Mode::empty(), resolve) {
        // Before Linux 5.6, or forbidden by a container's filter of system calls; and of a link itself, NO_SYMLINKS refuses even to
        // open the link.
        Err(Errno::NOSYS | Errno::PERM | Errno::LOOP) => open_one(dir, name, all, more),
        done => done.map(File::from),
    }
}

/// As [`open_at`], without openat2(2).
fn open_one(dir: &File, name: &OsStr, flags: OFlags, more: ResolveFlags) -> rustix::io::Result<File> {
    if !matches!(Path::new(name).components().collect::<Vec<_>>().as_slice(), [Component::Normal(_)]) {
        return Err(Errno::INVAL);
    }
    let opened = File::from(rustix::fs::openat(dir, name, flags, Mode::empty())?);
    if more.contains(ResolveFlags::NO_XDEV) {
        let device = |file: &File| file.metadata().map(|found| found.dev()).map_err(|_| Errno::IO);
        if device(dir)? != device(&opened)? {
            return Err(Errno::XDEV);
        }
    }
    Ok(opened)
}

/// The word for what something is.
fn kind(found: &Metadata) -> &'static str {
    let kind = found.file_type();
    match () {
        () if kind.is_dir() => "directory",
        () if kind.is_file() => "regular file",
        () if kind.is_symlink() => "symbolic link",
        () if kind.is_fifo() => "named pipe",
        () if kind.is_socket() => "socket",
        () => "device",
    }
}

impl DirHandle {
    /// Holds the directory at `path`. Links on the way are followed, so this is only for paths that nobody but us can change.
    pub fn open(path: &Path) -> Result<Self, DirError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = rustix::fs::open(path, flags, Mode::empty()).map_err(io::Error::from).on("open", path)?;
        Self::of(File::from(opened), path.to_path_buf())
    }

    /// Holds the directory at `path`. Links on the way are followed unless a user other than root and us could have made them.
    ///
    /// # Errors
    /// If it cannot be opened, is no directory, or somebody could have led us there.
    pub fn chase(path: &Path) -> Result<Self, DirError> {
        let root = Self::open(Path::new("/"))?;
        Self::of(chase::resolve_links(&root.file, path, path)?, path.to_path_buf())
    }

    pub(super) fn into_file(self) -> File {
        self.file
    }

    pub(super) fn of(file: File, path: PathBuf) -> Result<Self, DirError> {
        let found = file.metadata().on("look at", &path)?;
        let is_ours_alone = is_trusted(found.uid()) && found.permissions().mode() & 0o022 == 0;
        Ok(Self { file, path, uid: found.uid(), is_ours_alone })
    }

    /// What it is called in messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The user that owned it when it was opened.
    #[must_use]
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// Where it really is now, without links.
    pub fn real_path(&self) -> Result<PathBuf, DirError> {
        Ok(std::fs::read_link(self.proc_path()).on("look at", &self.path)?)
    }

    /// A path that leads here from within this process, whatever is done to the names on the way.
    #[must_use]
    pub fn proc_path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.file.as_raw_fd()))
    }

    /// True if nobody but us or root can exchange what is in it.
    #[must_use]
    pub fn is_private(&self) -> bool {
        self.is_ours_alone
    }

    pub(super) fn try_clone_file(&self) -> &File {
        &self.file
    }

    /// What makes it the same one: device and inode.
    pub fn id(&self) -> Result<(u64, u64), DirError> {
        let found = self.file.metadata().on("look at", &self.path)?;
        Ok((found.dev(), found.ino()))
    }

    pub(super) fn at(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.path.join(name.as_ref())
    }

    /// What has this name, without following a link; `None` if nothing has.
    pub fn stat(&self, name: impl AsRef<OsStr>) -> Result<Option<Metadata>, DirError> {
        match open_at(&self.file, name.as_ref(), OFlags::PATH, ResolveFlags::empty()) {
            Ok(found) => Ok(Some(found.metadata().on("look at", &self.at(name))?)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(WriteError { act: "look at", path: self.at(name), source: error.into() }.into()),
        }
    }

    /// Holds the directory of this name; `None` if nothing has the name.
    ///
    /// # Errors
    /// If it is no directory, or a link that is not followed.
    pub fn open_dir(&self, name: impl AsRef<OsStr>) -> Result<Option<Self>, DirError> {
        self.open_dir_within(name.as_ref(), ResolveFlags::empty())
    }

    pub(super) fn open_dir_within(&self, name: &OsStr, more: ResolveFlags) -> Result<Option<Self>, DirError> {
        let path = self.at(name);
        match open_at(&self.file, name, OFlags::RDONLY | OFlags::DIRECTORY, more) {
            Ok(file) => Self::of(file, path).map(Some),
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::XDEV) => Err(DirError::Mounted(path)),
            Err(Errno::LOOP | Errno::NOTDIR) => {
                let Some(found) = self.stat(name)? else { return Ok(None) };
                if !found.is_symlink() {
                    return Err(DirError::Kind { path, found: kind(&found), wanted: "directory" });
                }
                self.link_error(&path, &found)?;
                let target = rustix::fs::readlinkat(&self.file, name, Vec::new()).map_err(io::Error::from);
                let target = PathBuf::from(super::os_string(&target.on("read the link", &path)?));
                Self::of(chase::resolve_links(&self.file, &target, &path)?, path).map(Some)
            }
            Err(error) => Err(WriteError { act: "open", path, source: error.into() }.into()),
        }
    }

    fn link_error(&self, path: &Path, link: &Metadata) -> Result<(), DirError> {
        if self.is_ours_alone && is_trusted(link.uid()) {
            return Ok(());
        }
        let owner = if self.is_ours_alone { link.uid() } else { self.uid };
        Err(DirError::Link { path: path.to_path_buf(), owner })
    }

    /// The same directory, held once more.
    pub fn reopen(&self) -> Result<Self, DirError> {
        let file = self.file.try_clone().on("open", &self.path)?;
        Ok(Self { file, path: self.path.clone(), ..*self })
    }

    pub fn open_nested(&self, names: &[&str]) -> Result<Option<Self>, DirError> {
        let Some((first, rest)) = names.split_first() else { return Ok(None) };
        let mut dir = self.open_dir(first)?;
        for name in rest {
            let Some(above) = dir else { return Ok(None) };
            dir = above.open_dir(name)?;
        }
        Ok(dir)
    }

    /// Opens the regular file of this name for reading; `None` if nothing has the name.
    pub fn file(&self, name: impl AsRef<OsStr>) -> Result<Option<File>, DirError> {
        self.open_file(name.as_ref(), OFlags::RDONLY)
    }

    /// As [`Self::file`], for reading and writing.
    pub fn file_to_change(&self, name: impl AsRef<OsStr>) -> Result<Option<File>, DirError> {
        self.open_file(name.as_ref(), OFlags::RDWR)
    }

    fn open_file(&self, name: &OsStr, flags: OFlags) -> Result<Option<File>, DirError> {
        let path = self.at(name);
        let Some(seen) = self.stat(name)? else { return Ok(None) };
        self.check_file(&path, &seen)?;
        // Opening another user's file can wait for a lease of theirs; without waiting, it fails.
        match open_at(&self.file, name, flags | OFlags::NONBLOCK | OFlags::NOCTTY, ResolveFlags::empty()) {
            Ok(file) => {
                let found = file.metadata().on("look at", &path)?;
                if (found.dev(), found.ino()) == (seen.dev(), seen.ino()) {
                    Ok(Some(file))
                } else {
                    Err(DirError::Replaced(path))
                }
            }
            Err(Errno::NOENT | Errno::LOOP) => Err(DirError::Replaced(path)),
            Err(error) => Err(WriteError { act: "open", path, source: error.into() }.into()),
        }
    }

    /// A regular file, and the owner's of the directory, or ours under no other name: a name that another user gave to a file of ours
    /// would let them read or change it through us.
    pub fn check_file(&self, path: &Path, found: &Metadata) -> Result<(), DirError> {
        let path = path.to_path_buf();
        if found.is_symlink() {
            return Err(DirError::Link { path, owner: if self.is_ours_alone { found.uid() } else { self.uid } });
        }
        if !found.is_file() {
            return Err(DirError::Kind { path, found: kind(found), wanted: "regular file" });
        }
        let is_well_owned =
            self.is_ours_alone || found.uid() == self.uid || (found.uid() == own_uid() && found.nlink() == 1);
        if is_well_owned { Ok(()) } else { Err(DirError::Owner { path, found: found.uid(), wanted: self.uid }) }
    }

    /// Reads a regular file of at most `limit` bytes; `None` if nothing has the name.
    pub fn read(&self, name: impl AsRef<OsStr>, limit: u64) -> Result<Option<Vec<u8>>, DirError> {
        let path = self.at(name.as_ref());
        let Some(file) = self.file(name)? else { return Ok(None) };
        let size = file.metadata().on("look at", &path)?.len();
        let mut bytes = Vec::new();
        if size <= limit {
            file.take(limit + 1).read_to_end(&mut bytes).on("read", &path)?;
        }
        let size = size.max(bytes.len() as u64);
        if size > limit { Err(DirError::Large { path, size, limit }) } else { Ok(Some(bytes)) }
    }

    /// The names in it, in order.
    ///
    /// # Errors
    /// If it cannot be read, or there are more than any directory of etcd's has.
    pub fn names(&self) -> Result<Vec<OsString>, DirError> {
        self.names_that(|_| true)
    }

    /// As [`Self::names`], of those that are wanted.
    pub(super) fn names_that(&self, is_wanted: impl Fn(&OsStr) -> bool) -> Result<Vec<OsString>, DirError> {
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.file).map_err(io::Error::from).on("read", &self.path)? {
            let entry = entry.map_err(io::Error::from).on("read", &self.path)?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") || !is_wanted(OsStr::from_bytes(name)) {
                continue;
            }
            if names.len() == MAX_ENTRIES {
                return Err(DirError::Crowded(self.path.clone()));
            }
            names.push(super::os_string(entry.file_name()));
        }
        names.sort();
        Ok(names)
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests put files there by hand")]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn is_link(refused: &DirError) -> bool {
        matches!(refused, DirError::Link { .. })
    }

    #[test]
    fn names_are_one_name_and_links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("real/below")).unwrap();
        fs::write(dir.path().join("real/file"), "x").unwrap();
        symlink("real", dir.path().join("link")).unwrap();
        symlink("real/file", dir.path().join("file")).unwrap();
        let held = DirHandle::open(dir.path()).unwrap();
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        for name in ["link", "..", "real/below", "/etc"] {
            for opened in [
                open_at(&held.file, OsStr::new(name), flags | OFlags::DIRECTORY, ResolveFlags::empty()),
                open_one(&held.file, OsStr::new(name), flags | OFlags::DIRECTORY, ResolveFlags::empty()),
            ] {
                // openat2 goes down several names without links; that is no harm.
                assert!(opened.is_err() || name == "real/below", "{name}");
            }
        }
        assert!(is_link(&held.file("file").unwrap_err()));
        // Ours, in a directory of ours alone: followed. In one that others can write into: not.
        assert_eq!(held.open_dir("link").unwrap().unwrap().read("file", 10).unwrap().unwrap(), b"x");
        held.set_mode(0o777).unwrap();
        assert!(is_link(&DirHandle::open(dir.path()).unwrap().open_dir("link").unwrap_err()));
    }

    #[test]
    fn another_user_leads_us_nowhere() {
        if own_uid() != 0 {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::create_dir_all(path("theirs/data")).unwrap();
        fs::create_dir_all(path("ours")).unwrap();
        for name in ["theirs", "theirs/data"] {
            std::os::unix::fs::chown(path(name), Some(12345), None).unwrap();
        }
        symlink(path("ours"), path("theirs/link")).unwrap();
        assert!(DirHandle::chase(&path("theirs/data")).is_ok());
        assert!(matches!(DirHandle::chase(&path("theirs/link")), Err(DirError::LedAway { owner: 12345, .. })));
        fs::remove_dir(path("theirs/data")).unwrap();
        fs::create_dir(path("theirs/data")).unwrap();
        assert!(matches!(DirHandle::chase(&path("theirs/data")), Err(DirError::LedAway { owner: 12345, .. })));
        // A second name of a file of ours would let them read or change it.
        fs::write(path("ours/secret"), "x").unwrap();
        let theirs = DirHandle::open(&path("theirs")).unwrap();
        fs::hard_link(path("ours/secret"), path("theirs/secret")).unwrap();
        assert!(matches!(theirs.file("secret"), Err(DirError::Owner { wanted: 12345, .. })));
    }

    #[test]
    fn a_write_replaces_what_is_there_and_no_more() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("secret"), "x").unwrap();
        symlink("secret", dir.path().join("name")).unwrap();
        let held = DirHandle::open(dir.path()).unwrap();
        assert!(held.write_if_changed("name", b"n", 0o600).unwrap());
        assert!(!held.write_if_changed("name", b"n", 0o600).unwrap());
        assert_eq!(fs::read(dir.path().join("secret")).unwrap(), b"x");
        assert!(matches!(held.read("name", 0), Err(DirError::Large { size: 1, .. })));
        assert_eq!(held.names().unwrap(), ["name", "secret"]);
        held.rename("name", &held, "other").unwrap();
        assert!(held.rename("other", &held, "secret").is_err(), "a name that is taken is not given again");
    }
}
