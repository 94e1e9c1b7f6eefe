//! The checked executable, even if its path is replaced later.
//!
//! A package upgrade replaces the etcd at the same path while the old one runs. When that child exits, the new one must
//! not run on the data unchecked: it may be a minor too new or too old. The checked file stays open, and is used until
//! quorate itself restarts.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

/// A file that stays the same file.
#[derive(Clone, Debug)]
pub struct PinnedExecutable {
    path: PathBuf,
    file: Arc<OwnedFd>,
    content: FileStamp,
}

/// The properties that change when a file is written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileStamp {
    size: u64,
    modified: (i64, i64),
}

impl FileStamp {
    fn of(found: &fs::Metadata) -> Self {
        Self { size: found.len(), modified: (found.mtime(), found.mtime_nsec()) }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Executable {
    /// The file, under its own name.
    AsChecked(PathBuf),
    /// The path has been replaced; this path refers to the checked file.
    Replaced(PathBuf),
}

impl PinnedExecutable {
    /// Pins the file that is at `path` now.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
        let content = FileStamp::of(&fs::metadata(through(&file))?);
        Ok(Self { path: path.to_path_buf(), file: Arc::new(file), content })
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path to execute. # Errors If it was overwritten: the checked file does not exist any more.
    pub fn executable(&self) -> io::Result<Executable> {
        let link = through(&self.file);
        let ours = fs::metadata(&link)?;
        if FileStamp::of(&ours) != self.content {
            return Err(io::Error::other(
                "it was overwritten since quorate started; restart quorate to check it again",
            ));
        }
        let is_same = |found: &fs::Metadata| (found.dev(), found.ino()) == (ours.dev(), ours.ino());
        Ok(match fs::metadata(&self.path) {
            Ok(found) if is_same(&found) => Executable::AsChecked(self.path.clone()),
            _ => Executable::Replaced(link),
        })
    }
}

fn through(file: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_file_is_distinguished_from_an_overwritten_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("etcd");
        fs::write(&path, "one").unwrap();
        let pinned = PinnedExecutable::open(&path).unwrap();
        assert_eq!(pinned.executable().unwrap(), Executable::AsChecked(path.clone()));

        fs::write(dir.path().join("new"), "two").unwrap();
        fs::rename(dir.path().join("new"), &path).unwrap();
        let Executable::Replaced(link) = pinned.executable().unwrap() else { panic!("not noticed") };
        assert_eq!(fs::read(link).unwrap(), b"one");
        fs::remove_file(&path).unwrap();
        assert!(matches!(pinned.executable().unwrap(), Executable::Replaced(_)), "removed is replaced, too");

        fs::write(&path, "three").unwrap();
        let pinned = PinnedExecutable::open(&path).unwrap();
        fs::write(&path, "longer than before").unwrap();
        assert!(pinned.executable().is_err());
    }
}
