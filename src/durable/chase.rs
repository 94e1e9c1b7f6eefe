//! Resolves a path link by link, and refuses links that another user controls.
//!
//! The rule is that of systemd's `CHASE_SAFE`: a directory of root or of our user may lead anywhere; a directory of
//! another user only to files of that user, and never through a link. So the owner of a directory on the path cannot
//! redirect us to files of others.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::durable::access::is_trusted;
use crate::durable::error::{OnPath as _, WriteError};
use crate::durable::names::os_string;
use crate::durable::refusal::DirError;

/// The maximum number of links in a path, as in Linux.
const MAX_LINKS: u32 = 40;

/// Opens the directory that `target` resolves to, starting at `from`. `origin` is the link or path named in messages.
pub(super) fn resolve_links(from: &File, target: &Path, origin: &Path) -> Result<File, DirError> {
    let system = |act, source: io::Error| DirError::from(WriteError { act, path: origin.to_path_buf(), source });
    let open = |dir: &File, name: &OsStr, flags| {
        rustix::fs::openat(dir, name, flags | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty()).map(File::from)
    };
    let mut at = from.try_clone().on("open", origin)?;
    let mut pending: Vec<OsString> = parts(target);
    let mut links = 0;
    while let Some(part) = pending.pop() {
        let owner = at.metadata().on("look at", origin)?.uid();
        let next = match open(&at, &part, OFlags::PATH) {
            Err(Errno::NOENT) => return Err(DirError::Dangling(origin.to_path_buf())),
            opened => opened.map_err(|error| system("open", error.into()))?,
        };
        let found = next.metadata().on("look at", origin)?;
        if !is_trusted(owner) && found.uid() != owner && part != ".." {
            return Err(DirError::LedAway { path: origin.to_path_buf(), owner });
        }
        if !found.is_symlink() {
            at = next;
            continue;
        }
        // A user's link in a directory that others may write to (such as /tmp) is under the control of that user.
        if let Some(owner) = [owner, found.uid()].into_iter().find(|uid| !is_trusted(*uid)) {
            return Err(DirError::LedAway { path: origin.to_path_buf(), owner });
        }
        links += 1;
        if links > MAX_LINKS {
            return Err(system("open", Errno::LOOP.into()));
        }
        let target = rustix::fs::readlinkat(&at, &part, Vec::new()).map_err(|error| system("open", error.into()))?;
        pending.extend(parts(&PathBuf::from(os_string(&target))));
    }
    let opened = open(&at, OsStr::new("."), OFlags::RDONLY | OFlags::DIRECTORY);
    match opened {
        Err(Errno::NOTDIR) => Err(DirError::Kind { path: origin.to_path_buf(), found: "file", wanted: "directory" }),
        opened => opened.map_err(|error| system("open", error.into())),
    }
}

/// The components of a path in reverse order.
fn parts(path: &Path) -> Vec<OsString> {
    let mut parts: Vec<OsString> = path
        .components()
        .filter(|part| !matches!(part, Component::CurDir))
        .map(|part| part.as_os_str().to_os_string())
        .collect();
    parts.reverse();
    parts
}
