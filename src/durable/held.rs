//! A directory that is kept open, and access to its entries by name.
//!
//! For directories in which another user may replace files while we work there: the open directory stays the same
//! whatever happens to its path, and every name is opened relative to it, one component at a time (openat2(2) with
//! `RESOLVE_BENEATH` and `RESOLVE_NO_SYMLINKS`, or openat(2) with `O_NOFOLLOW` where the kernel has no openat2). A
//! symbolic link is followed only if it is ours and in a directory that no other user can change. Only regular files of
//! the directory's owner are opened, never a pipe or device.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::durable::access::{is_trusted, own_uid};
use crate::durable::chase;
use crate::durable::error::{OnPath as _, WriteError};
use crate::durable::names::os_string;
use crate::durable::refusal::{DirError, MAX_ENTRIES};

/// A directory that stays the same, whatever happens to its path.
#[derive(Debug)]
pub struct DirHandle {
    file: File,
    path: PathBuf,
    uid: u32,
    /// Only our user or root can change its entries.
    is_ours_alone: bool,
}

/// Opens one name in a directory without following a link. `..` and absolute paths fail.
pub(super) fn open_at(dir: &File, name: &OsStr, flags: OFlags, more: ResolveFlags) -> rustix::io::Result<File> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | more;
    let all = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat2(dir, name, all, Mode::empty(), resolve) {
        // Before Linux 5.6, or forbidden by a container's seccomp filter; NO_SYMLINKS also refuses to open a link
        // itself.
        Err(Errno::NOSYS | Errno::PERM | Errno::LOOP) => open_one(dir, name, all, more),
        done => done.map(File::from),
    }
}

/// Like [`open_at`], without openat2(2).
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
    /// Opens the directory at `path`. Follows links, so only for paths that no other user can change.
    pub fn open(path: &Path) -> Result<Self, DirError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = rustix::fs::open(path, flags, Mode::empty()).map_err(io::Error::from).on("open", path)?;
        Self::of(File::from(opened), path.to_path_buf())
    }

    /// Opens the directory at `path`. Follows links unless a user other than root and ours could have created them.
    ///
    /// # Errors
    /// If it cannot be opened, is not a directory, or another user could have redirected the path.
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

    pub fn real_path(&self) -> Result<PathBuf, DirError> {
        Ok(std::fs::read_link(self.proc_path()).on("look at", &self.path)?)
    }

    /// A path to it that is valid in this process, whatever happens to its names.
    #[must_use]
    pub fn proc_path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.file.as_raw_fd()))
    }

    /// True if only our user or root can replace its entries.
    #[must_use]
    pub fn is_private(&self) -> bool {
        self.is_ours_alone
    }

    pub(super) fn try_clone_file(&self) -> &File {
        &self.file
    }

    pub fn id(&self) -> Result<(u64, u64), DirError> {
        let found = self.file.metadata().on("look at", &self.path)?;
        Ok((found.dev(), found.ino()))
    }

    pub(super) fn at(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.path.join(name.as_ref())
    }

    /// The metadata of the entry `name`, without following a link; `None` if it does not exist.
    pub fn stat(&self, name: impl AsRef<OsStr>) -> Result<Option<Metadata>, DirError> {
        match open_at(&self.file, name.as_ref(), OFlags::PATH, ResolveFlags::empty()) {
            Ok(found) => Ok(Some(found.metadata().on("look at", &self.at(name))?)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(WriteError { act: "examine", path: self.at(name), source: error.into() }.into()),
        }
    }

    /// Opens the directory `name`; `None` if it does not exist.
    ///
    /// # Errors
    /// If it is not a directory, or a link that must not be followed.
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
                let target = PathBuf::from(os_string(&target.on("read the link", &path)?));
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

    /// Opens the regular file `name` for reading; `None` if it does not exist.
    pub fn file(&self, name: impl AsRef<OsStr>) -> Result<Option<File>, DirError> {
        self.open_file(name.as_ref(), OFlags::RDONLY)
    }

    /// Like [`Self::file`], for reading and writing.
    pub fn file_to_change(&self, name: impl AsRef<OsStr>) -> Result<Option<File>, DirError> {
        self.open_file(name.as_ref(), OFlags::RDWR)
    }

    fn open_file(&self, name: &OsStr, flags: OFlags) -> Result<Option<File>, DirError> {
        let path = self.at(name);
        let Some(seen) = self.stat(name)? else { return Ok(None) };
        self.check_file(&path, &seen)?;
        // Opening another user's file can block on that user's lease; fail instead.
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

    /// A regular file of the directory's owner, or ours without further hard links: another user's hard link to our
    /// file would let that user read or change it through us.
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

    /// Reads a regular file of at most `limit` bytes; `None` if it does not exist.
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

    /// # Errors
    /// If it cannot be read, or has more than `MAX_ENTRIES`.
    pub fn names(&self) -> Result<Vec<OsString>, DirError> {
        self.names_that(|_| true)
    }

    /// Like [`Self::names`], filtered by `is_wanted`.
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
            names.push(os_string(entry.file_name()));
        }
        names.sort();
        Ok(names)
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests create files directly")]
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
                // openat2 resolves several components without links, which is harmless.
                assert!(opened.is_err() || name == "real/below", "{name}");
            }
        }
        assert!(is_link(&held.file("file").unwrap_err()));
        // Our link in a private directory is followed, in one that others can write to it is not.
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
        // A hard link to our file would let them read or change it.
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
        assert!(held.rename("other", &held, "secret").is_err(), "a name in use is not replaced");
    }
}
