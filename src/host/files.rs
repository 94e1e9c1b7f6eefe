//! Files that are opened without waiting, read within a bound, and locked.

use std::path::Path;

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

/// A file with settings, certificates or a key may be this large, in bytes.
const MAX_SETTINGS_BYTES: u64 = 1 << 20;

/// Reads a file of settings, which is a regular one and not large.
pub fn read_small(path: &Path) -> std::io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    open_file(path)?.take(MAX_SETTINGS_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_SETTINGS_BYTES {
        return Err(std::io::Error::other("it is larger than 1 MiB"));
    }
    Ok(bytes)
}

/// Opens a regular file for reading and nothing else: no link is followed, and a pipe or device, whose opening or reading would
/// wait for ever, is refused. For files in directories where another user may put things.
///
/// # Errors
/// If it is not there, is something else, or cannot be opened.
pub fn open_regular(path: &Path) -> std::io::Result<std::fs::File> {
    open_as_file(path, OFlag::O_NOFOLLOW)
}

/// As [`open_regular`], of what a link leads to. It never waits, whatever the path becomes meanwhile.
///
/// # Errors
/// If it is not there, is something else, or cannot be opened.
pub fn open_file(path: &Path) -> std::io::Result<std::fs::File> {
    open_as_file(path, OFlag::empty())
}

fn open_as_file(path: &Path, more: OFlag) -> std::io::Result<std::fs::File> {
    let not_regular = || std::io::Error::other("it is not a regular file");
    // Before it is opened: opening a device can do things. A link is looked at where it leads.
    if std::fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        return Err(not_regular());
    }
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC | more;
    let file = std::fs::File::from(nix::fcntl::open(path, flags, Mode::empty())?);
    if file.metadata()?.is_file() { Ok(file) } else { Err(not_regular()) }
}

/// Locks an open file (flock(2)) for as long as it, or a copy of its descriptor, is open, unless somebody else has it. True if it is ours
/// now. Closing it is what unlocks it: that cannot fail.
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
