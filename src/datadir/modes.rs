//! The modes below `S`: one table of directories, and the rule for the files in them.
//!
//! Every file directly in one of these directories is private, except certificates and keys that etcd reads, which have
//! etcd's group ([`DataDir::certificate`]). Modes that are too open are tightened, and returned for the log.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::datadir::owner::own_uid;
use crate::datadir::{DataDir, DataDirError, PermissionFix};
use crate::durable::{DirError, DirHandle, OnPath as _, PRIVATE_DIR, PRIVATE_FILE};

/// Whether etcd's group may traverse a directory.
#[derive(Clone, Copy, PartialEq, Eq)]
enum TraverseAccess {
    /// It must: etcd's data or certificates are below it.
    Open,
    Closed,
}

impl DataDir {
    /// The directories of quorate below `S`.
    fn table(&self) -> Vec<(PathBuf, TraverseAccess)> {
        vec![
            (self.server(), TraverseAccess::Open),
            (self.server().join("tls"), TraverseAccess::Open),
            (self.tls(), TraverseAccess::Open),
            (self.db(), TraverseAccess::Open),
            (self.restore(), TraverseAccess::Open),
            (self.cache(), TraverseAccess::Closed),
            (self.downloads(), TraverseAccess::Closed),
            (self.snapshots(), TraverseAccess::Closed),
            (self.snapshots().join(Self::METADATA_NAME), TraverseAccess::Closed),
        ]
    }

    /// Tightens modes of our files that other users can read. Returns what was changed.
    pub(super) fn tighten_modes(&self) -> Result<Vec<PermissionFix>, DataDirError> {
        let mut closed = Vec::new();
        for (path, passage) in self.table() {
            // Missing files and files of other users are checked elsewhere.
            let Ok(dir) = DirHandle::open(&path) else { continue };
            if dir.uid() != own_uid() {
                continue;
            }
            if passage == TraverseAccess::Closed && dir.mode()? & 0o077 != 0 {
                dir.set_mode(PRIVATE_DIR)?;
                closed.push(PermissionFix::ModeTightened(path.clone()));
            }
            match self.tighten_files(&dir, &mut closed) {
                // Too many snapshots to check at every start.
                Err(DirError::Crowded(_)) => {}
                done => done?,
            }
        }
        Ok(closed)
    }

    fn tighten_files(&self, dir: &DirHandle, closed: &mut Vec<PermissionFix>) -> Result<(), DirError> {
        for name in dir.names()? {
            let Some(found) = dir.stat(&name)?.filter(|found| found.is_file() && found.uid() == own_uid()) else {
                continue;
            };
            let path = dir.path().join(&name);
            let wanted = self.mode_of(&path);
            let present = found.permissions().mode() & 0o777;
            if present & 0o077 & !wanted == 0 {
                continue;
            }
            let Some(file) = dir.file(&name)? else { continue };
            file.set_permissions(std::fs::Permissions::from_mode(wanted)).on("set the mode of", &path)?;
            closed.push(PermissionFix::ModeTightened(path));
        }
        Ok(())
    }

    fn mode_of(&self, path: &Path) -> u32 {
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        let files = self.certificate(&name);
        match path {
            path if path == files.certificate => files.certificate_access.mode,
            path if path == files.key => files.key_access.mode,
            _ => PRIVATE_FILE,
        }
    }
}
