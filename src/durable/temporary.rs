//! Hidden names of files that are being written: creating, locking and recognising them.
//!
//! `.tmp-quorate-LABEL-RANDOM-COUNT-MACHINE.BOOT-PID`, where MACHINE and BOOT stand for the ids of the machine and of
//! its boot. The pid is informational; the lock shows whether the writer is alive.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::checksum::crc32;
use crate::durable::leftover::{Leftover, LockState, WriterIdentity, is_abandoned};
use crate::host::{self, FileSystem};

/// The prefix of every hidden name.
pub(super) const PREFIX: &str = ".tmp-quorate-";
/// Maximum length of a label in bytes: a file name has at most 255.
const MAX_LABEL_BYTES: usize = 160;
const MAX_ATTEMPTS: u32 = 100;

fn this_process() -> &'static WriterIdentity {
    static THIS_PROCESS: OnceLock<WriterIdentity> = OnceLock::new();
    THIS_PROCESS.get_or_init(|| {
        let tag = |id: &str| format!("{:08x}", crc32(id.as_bytes()));
        WriterIdentity { machine: tag(&host::machine_id()), boot: tag(&host::boot_id()) }
    })
}

/// A hidden name for the file that will be called `label`.
fn name(label: &OsStr) -> OsString {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let mut name = OsString::from(PREFIX);
    let label = label.as_bytes();
    name.push(OsStr::from_bytes(&label[..label.len().min(MAX_LABEL_BYTES)]));
    // Without randomness the name can be guessed, which is harmless.
    let random = u32::from_le_bytes(crate::random::random::<4>().unwrap_or_default());
    let (count, WriterIdentity { machine, boot }) = (COUNT.fetch_add(1, Ordering::Relaxed), this_process());
    name.push(format!("-{random:08x}-{count}-{machine}.{boot}-{}", std::process::id()));
    name
}

/// Creates a file or directory under a hidden name with `make`, which opens it, and locks it.
pub(super) fn create(label: &OsStr, mut make: impl FnMut(&OsStr) -> io::Result<File>) -> io::Result<(OsString, File)> {
    for _ in 0..MAX_ATTEMPTS {
        let name = name(label);
        match make(&name) {
            // Another process created this name.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
            // Otherwise a sweep removed it before it was locked.
            Ok(file) if lock(&file) != LockState::Held && file.metadata()?.nlink() > 0 => return Ok((name, file)),
            Ok(_) => {}
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// Locks it while it, or a duplicate of its descriptor, is open: `Held` if another process has the lock.
fn lock(file: &File) -> LockState {
    match host::try_lock(file, false) {
        Ok(true) => LockState::Free,
        Ok(false) => LockState::Held,
        Err(_) => LockState::Unknown,
    }
}

/// The machine and boot of a hidden name; `None` for names of older versions, which do not contain them.
fn origin(name: &OsStr) -> Option<WriterIdentity> {
    let name = name.to_string_lossy();
    let (machine, boot) = name.rsplit('-').nth(1)?.split_once('.')?;
    let is_tag = |tag: &str| tag.len() == 8 && tag.bytes().all(|byte| byte.is_ascii_hexdigit());
    (is_tag(machine) && is_tag(boot)).then(|| WriterIdentity { machine: machine.to_owned(), boot: boot.to_owned() })
}

/// True if this is a hidden name of quorate, for `label` if given.
pub(super) fn is_temporary_name(name: &OsStr, label: Option<&str>) -> bool {
    let rest = name.as_bytes().strip_prefix(PREFIX.as_bytes());
    rest.is_some_and(|rest| label.is_none_or(|label| rest.starts_with(label.as_bytes())))
}

/// Whether this file in `dir` is a leftover. It stays locked until `opened` is closed, so that a writer, if there is
/// one after all, notices the removal.
pub(super) fn is_left(dir: &Path, name: &OsStr, found: &Metadata, opened: Option<&File>) -> bool {
    if !is_temporary_name(name, None) {
        return false;
    }
    let age = found.modified().ok().and_then(|modified| crate::clock::now().duration_since(modified).ok());
    let lock = opened.map_or(LockState::Unknown, lock);
    let is_shared = host::file_system(dir) == FileSystem::Network;
    is_abandoned(&Leftover { origin: origin(name), lock, age: age.unwrap_or_default(), is_shared }, this_process())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_contains_its_origin() {
        let ours = name(OsStr::new("a-b.json"));
        assert_eq!(origin(&ours).as_ref(), Some(this_process()));
        assert!(is_temporary_name(&ours, Some("a-b")) && !is_temporary_name(&ours, Some("b")));
        assert!(name(OsStr::new(&"x".repeat(255))).len() <= 255);
        for text in [
            ".tmp-quorate-x-00112233-1-4194304",
            ".tmp-quorate-x-00112233-1-xxxxxxxx.yyyyyyyy-1",
            ".tmp-quorate-x.y",
            ".tmp-quorate-",
        ] {
            assert_eq!(origin(OsStr::new(text)), None, "{text}");
            assert!(is_temporary_name(OsStr::new(text), None), "{text}");
        }
        assert!(!is_temporary_name(OsStr::new("x-0-1-00000000.00000000-1"), None));
    }
}
