//! Removes the leftovers of interrupted writes: our files and directories under hidden names that no process is writing
//! to.

use std::ffi::OsString;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::ResolveFlags;

use crate::durable::held::DirHandle;
use crate::durable::temporary;

/// Removes the leftovers of interrupted writes in the directory `dir`, and returns their names.
#[must_use]
pub fn sweep(dir: &Path) -> Vec<OsString> {
    DirHandle::open(dir).map(|dir| dir.sweep(None)).unwrap_or_default()
}

/// Like [`sweep`], but only those of `label`: for directories that other programs use, too.
#[must_use]
pub fn sweep_named(dir: &Path, label: &str) -> Vec<OsString> {
    DirHandle::open(dir).map(|dir| dir.sweep(Some(label))).unwrap_or_default()
}

impl DirHandle {
    /// Removes the leftovers of interrupted writes, and returns their names. With a `label`, only those of this label.
    #[must_use]
    pub fn sweep(&self, label: Option<&str>) -> Vec<OsString> {
        let mut names = self.names_that(|name| temporary::is_temporary_name(name, label)).unwrap_or_default();
        names.retain(|name| self.is_leftover(name) && self.remove_all(name).is_ok());
        names
    }

    fn is_leftover(&self, name: &OsString) -> bool {
        let Ok(Some(found)) = self.stat(name) else { return false };
        if found.uid() != nix::unistd::geteuid().as_raw() {
            return false;
        }
        // Network file systems lock only files that are open for writing.
        let opened = match () {
            () if found.is_dir() => self.open_dir_within(name, ResolveFlags::NO_XDEV).ok().flatten(),
            () if found.is_file() => {
                let file = self.file_to_change(name).ok().flatten();
                return temporary::is_left(self.path(), name, &found, file.as_ref());
            }
            () => None,
        };
        temporary::is_left(self.path(), name, &found, opened.as_ref().map(Self::try_clone_file))
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests create files directly")]
mod tests {
    use std::fs;

    use super::*;
    use crate::durable::{NewFile, PRIVATE_FILE, new_dir};

    #[test]
    fn what_is_written_stays_and_what_was_left_goes() {
        let dir = tempfile::tempdir().unwrap();
        let (draft, file) = NewFile::create(dir.path(), "snapshot", PRIVATE_FILE).unwrap();
        // Like a compressed snapshot: written, closed, and not renamed yet.
        drop(file);
        let tree = new_dir(&dir.path().join("tree")).unwrap();
        fs::write(tree.path().join("file"), "x").unwrap();
        // From another boot of another machine; and from older versions, with a pid that always runs and one that never
        // runs.
        let theirs = ".tmp-quorate-x-00112233-1-ffffffff.ffffffff-1";
        let left = [".tmp-quorate-x-00112233-1-1", ".tmp-quorate-x-00112233-1-4194304"];
        for name in [&[theirs, "x", ".tmp-other"][..], &left].concat() {
            fs::write(dir.path().join(name), "x").unwrap();
        }
        assert!(sweep_named(dir.path(), "y").is_empty());
        assert_eq!(sweep(dir.path()), left);
        assert!(draft.path().exists() && tree.path().join("file").exists());
        assert!(dir.path().join(theirs).exists(), "a day has not passed");
        fs::File::options()
            .write(true)
            .open(dir.path().join(theirs))
            .unwrap()
            .set_modified(crate::clock::now() - crate::durable::leftover::ABANDONED_AFTER)
            .unwrap();
        assert_eq!(sweep(dir.path()), [theirs]);
        // Killed: the locks are gone with the process, the files are left.
        let (kept, name) = (dir.path().join("kept"), draft.path().to_path_buf());
        fs::hard_link(&name, &kept).unwrap();
        drop(draft);
        fs::rename(&kept, &name).unwrap();
        assert_eq!(sweep(dir.path()), [name.file_name().unwrap()]);
    }
}
