//! The regular files that a process has open, and whether their names still exist (proc(5), `/proc/PID/fd`).

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// The suffix that the kernel appends to the link of a deleted file.
const DELETED: &str = " (deleted)";

/// A file that a process has open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenFile {
    /// Its present path, or the last one before it was deleted. On a detached file system, without the mount point.
    pub path: PathBuf,
    pub is_deleted: bool,
    pub identity: (u64, u64),
}

/// Device and inode number of a file.
pub fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::metadata(path).map(|found| (found.dev(), found.ino()))
}

/// The regular files that the process has open, without sockets, pipes and files that are closed meanwhile.
pub fn open_files(pid: i32) -> io::Result<Vec<OpenFile>> {
    let mut open = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))?.flatten() {
        let Ok(target) = fs::read_link(entry.path()) else { continue };
        if !target.is_absolute() {
            continue;
        }
        // Through the link, so that this is the open file even if its name now refers to another.
        let Ok(found) = fs::metadata(entry.path()) else { continue };
        if !found.is_file() {
            continue;
        }
        let is_deleted = found.nlink() == 0;
        let path = match target.to_str().and_then(|text| text.strip_suffix(DELETED)).filter(|_| is_deleted) {
            Some(path) => PathBuf::from(path),
            None => target,
        };
        open.push(OpenFile { path, is_deleted, identity: (found.dev(), found.ino()) });
    }
    Ok(open)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deleted_and_a_moved_file_are_still_known() {
        let dir = tempfile::tempdir().unwrap();
        let (gone, moved) = (dir.path().join("gone"), dir.path().join("moved"));
        let _held = [fs::File::create(&gone).unwrap(), fs::File::create(&moved).unwrap()];
        fs::remove_file(&gone).unwrap();
        fs::rename(&moved, dir.path().join("elsewhere")).unwrap();
        let open = open_files(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(open.iter().any(|file| file.path == gone && file.is_deleted));
        let found = open.iter().find(|file| file.path == dir.path().join("elsewhere")).unwrap();
        assert_eq!((found.is_deleted, found.identity), (false, identity(&dir.path().join("elsewhere")).unwrap()));
    }
}
