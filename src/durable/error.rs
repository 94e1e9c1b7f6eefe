//! What a write, rename or removal says that did not happen.

use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Code, Diagnostic};

/// A write, rename or removal that did not happen.
#[derive(Debug, thiserror::Error)]
#[error("cannot {act} {}", path.display())]
pub struct WriteError {
    /// What was tried, as a verb: "write", "create the directory", …
    pub act: &'static str,
    pub path: PathBuf,
    pub source: io::Error,
}

impl Diagnostic for WriteError {
    fn code(&self) -> Code {
        match self.source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Code::NoSpace,
            io::ErrorKind::ReadOnlyFilesystem => Code::ReadOnlyFileSystem,
            io::ErrorKind::PermissionDenied => Code::PermissionDenied,
            _ => Code::WriteFailed,
        }
    }

    fn next_step(&self) -> Option<String> {
        let advice = match self.source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                "free some space there (df -h), then start again"
            }
            io::ErrorKind::ReadOnlyFilesystem => {
                "the file system is mounted read-only: see dmesg for why, remount it, or choose another --data-dir"
            }
            io::ErrorKind::PermissionDenied => {
                "run quorate as the user that owns the data directory (usually root), or choose another --data-dir"
            }
            io::ErrorKind::IsADirectory | io::ErrorKind::NotADirectory => {
                "something else is in its place: look at it (ls -ld), and move it away"
            }
            // `ErrorKind::FilesystemLoop` is not stable yet.
            _ if self.source.raw_os_error() == Some(nix::errno::Errno::ELOOP as i32) => {
                "it is a symbolic link that leads to itself: look at it (ls -l), and remove it"
            }
            // Whatever else a disk or kernel says.
            _ => "see dmesg for what the kernel says of it",
        };
        Some(advice.into())
    }
}

impl WriteError {
    /// With more to say about it.
    pub(super) fn with(self, more: &str) -> Self {
        Self { source: io::Error::new(self.source.kind(), format!("{}; {more}", self.source)), ..self }
    }

    /// The fsync of a directory failed after `path` had been changed in it. Says what it is like, and what it may be like again.
    pub(super) fn after(self, path: &Path, state: &str) -> Self {
        self.with(&format!("{} {state} after a power loss", path.display()))
    }

    /// What was made on the way is removed; what cannot be is named.
    pub(super) fn unless_removed(self, hidden: &Path, remove: impl FnOnce() -> io::Result<()>) -> Self {
        match remove() {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                self.with(&format!("{} is left, and could not be removed: {error}", hidden.display()))
            }
            _ => self,
        }
    }
}

/// Adds act and path to an [`io::Error`].
pub trait OnPath<T> {
    /// Says what was tried on which path.
    fn on(self, act: &'static str, path: &Path) -> Result<T, WriteError>;
}

impl<T> OnPath<T> for io::Result<T> {
    fn on(self, act: &'static str, path: &Path) -> Result<T, WriteError> {
        self.map_err(|source| WriteError { act, path: path.to_path_buf(), source })
    }
}
