//! Opens files without blocking, reads them within a bound, and locks them.

use std::path::Path;

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

/// Maximum size of a file with settings, certificates or a key, in bytes.
const MAX_SETTINGS_BYTES: u64 = 1 << 20;

/// Reads a small regular file, such as one with settings.
pub fn read_small(path: &Path) -> std::io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    open_file(path)?.take(MAX_SETTINGS_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_SETTINGS_BYTES {
        return Err(std::io::Error::other("larger than 1 MiB"));
    }
    Ok(bytes)
}

/// Opens a regular file for reading. Follows no link, and refuses pipes and devices, which could block forever. For
/// files in directories that another user may change.
///
/// # Errors
/// If it does not exist, is not a regular file, or cannot be opened.
pub fn open_regular(path: &Path) -> std::io::Result<std::fs::File> {
    open_as_file(path, OFlag::O_NOFOLLOW)
}

/// Like [`open_regular`], but follows links. Never blocks, even if the path is replaced meanwhile.
///
/// # Errors
/// If it does not exist, is not a regular file, or cannot be opened.
pub fn open_file(path: &Path) -> std::io::Result<std::fs::File> {
    open_as_file(path, OFlag::empty())
}

fn open_as_file(path: &Path, more: OFlag) -> std::io::Result<std::fs::File> {
    let not_regular = || std::io::Error::other("not a regular file");
    // Checked before it is opened, since opening a device can have effects. Links are followed.
    if std::fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        return Err(not_regular());
    }
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC | more;
    let file = std::fs::File::from(nix::fcntl::open(path, flags, Mode::empty())?);
    if file.metadata()?.is_file() { Ok(file) } else { Err(not_regular()) }
}

/// Tries to lock an open file (flock(2)). The lock lasts while the file, or a duplicate of its descriptor, is open;
/// closing cannot fail. True if it was acquired, false if another process has it.
pub fn try_lock(file: &std::fs::File, is_shared: bool) -> std::io::Result<bool> {
    use rustix::fs::FlockOperation::{NonBlockingLockExclusive, NonBlockingLockShared};
    match rustix::fs::flock(file, if is_shared { NonBlockingLockShared } else { NonBlockingLockExclusive }) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The process that holds an advisory lock on the file, where visible.
#[must_use]
pub fn lock_holder(file: &std::fs::File) -> Option<i32> {
    use std::os::unix::fs::MetadataExt as _;
    let inode = file.metadata().ok()?.ino();
    procfs::locks()
        .ok()?
        .into_iter()
        .filter(|lock| lock.inode == inode)
        .find_map(|lock| lock.pid.filter(|pid| *pid > 0))
}
