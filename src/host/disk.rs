//! The free space of a file system, and whether it is writable.

use std::io;
use std::path::Path;

use nix::sys::statvfs::{self, FsFlags};

/// The free space of a file system, as statvfs(3) reports it for an unprivileged writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskUsage {
    /// Bytes that can still be written.
    pub free: u64,
    pub size: u64,
    /// Files that can still be created; `None` where the file system has no limit (btrfs).
    pub free_inodes: Option<u64>,
    /// Mounted read-only, or remounted read-only by the kernel after an I/O error (`errors=remount-ro`).
    pub is_read_only: bool,
}

/// Queries the file system of `path`. Blocks while the file system does not answer.
///
/// # Errors
/// If the path does not exist, or the file system reports an error.
pub fn disk_usage(path: &Path) -> io::Result<DiskUsage> {
    let found = statvfs::statvfs(path)?;
    let unit = found.fragment_size();
    Ok(DiskUsage {
        free: found.blocks_available().saturating_mul(unit),
        size: found.blocks().saturating_mul(unit),
        free_inodes: (found.files() > 0).then(|| found.files_available()),
        is_read_only: found.flags().contains(FsFlags::ST_RDONLY),
    })
}
