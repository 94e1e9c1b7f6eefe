//! The error of a failed write, rename or removal: what was attempted, on which path, and why it failed.

use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Code, Diagnostic};

/// A write, rename or removal that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {act} {}", path.display())]
pub struct WriteError {
    /// What was attempted, as a verb: "write", "create the directory", …
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
                "another file has this name: check it (ls -ld), and move it away"
            }
            // `ErrorKind::FilesystemLoop` is not stable yet.
            _ if self.source.raw_os_error() == Some(nix::errno::Errno::ELOOP as i32) => {
                "it is a symbolic link to itself: check it (ls -l), and remove it"
            }
            // Any other error of the disk or kernel.
            _ => "see dmesg for the kernel's messages",
        };
        Some(advice.into())
    }
}

impl WriteError {
    /// Adds a remark to the message.
    pub(super) fn with(self, more: &str) -> Self {
        Self { source: io::Error::new(self.source.kind(), format!("{}; {more}", self.source)), ..self }
    }

    /// The fsync of a directory failed after `path` had been changed in it: adds its present state, and what it may be
    /// after a power loss.
    pub(super) fn after(self, path: &Path, state: &str) -> Self {
        self.with(&format!("{} {state} after a power loss", path.display()))
    }

    /// Removes the unfinished file; names it in the message if that fails.
    pub(super) fn unless_removed(self, hidden: &Path, remove: impl FnOnce() -> io::Result<()>) -> Self {
        match remove() {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                self.with(&format!("{} is left over and could not be removed: {error}", hidden.display()))
            }
            _ => self,
        }
    }
}

/// Adds act and path to an [`io::Error`].
pub trait OnPath<T> {
    /// Adds the attempted action and the path.
    fn on(self, act: &'static str, path: &Path) -> Result<T, WriteError>;
}

impl<T> OnPath<T> for io::Result<T> {
    fn on(self, act: &'static str, path: &Path) -> Result<T, WriteError> {
        self.map_err(|source| WriteError { act, path: path.to_path_buf(), source })
    }
}
