//! Owners and modes below `D`.
//!
//! Everything is ours and private, except what etcd needs when it runs as another user: `db/etcd` belongs to that user,
//! its group may traverse (not list) the directories above it, and may read a few certificates and keys. Modes that are
//! too open are fixed; files of any other user are refused. The mode of `D` itself is kept if it is shared.

use std::fs::{self, Metadata};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::datadir::{CertificatePaths, DataDir};
use crate::durable::{self, Access, DirError, DirHandle, OnPath as _, PRIVATE_DIR, WriteError};
use crate::error::{Code, Diagnostic};
use crate::faults;
use crate::host::User;

/// Mode of a directory that etcd's group may traverse.
const TRAVERSE_MODE: u32 = 0o710;

/// Why the data directory cannot be used as it is.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// A directory or file could not be created or fixed.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// An entry of an etcd directory is not as expected.
    #[error(transparent)]
    Held(#[from] DirError),
    /// A file of another user is in place of our data.
    #[error("{} belongs to user {owner}, but must belong to user {wanted}", path.display())]
    ForeignOwner {
        path: PathBuf,
        owner: u32,
        /// The user id that should own it.
        wanted: u32,
    },
    /// etcd's user cannot reach its data.
    #[error("etcd runs as {user}, who may not traverse {}", path.display())]
    NotTraversable { path: PathBuf, user: String },
    /// Other users may create files in `D`.
    #[error("users other than root may write to {}", .0.display())]
    Writable(PathBuf),
    /// A file is in place of a directory.
    #[error("{} is not a directory", .0.display())]
    NotADirectory(PathBuf),
    #[error("{} is a symbolic link to a target that does not exist", .0.display())]
    Dangling(PathBuf),
}

impl Diagnostic for DataDirError {
    fn code(&self) -> Code {
        match self {
            Self::Write(error) => error.code(),
            Self::Held(error) => error.code(),
            Self::ForeignOwner { .. } => Code::WrongOwner,
            Self::Writable(_) => Code::UntrustedPath,
            // The target of a link may be a data disk that is not mounted.
            Self::Dangling(_) => Code::DanglingLink,
            Self::NotADirectory(_) => Code::NotADirectory,
            Self::NotTraversable { .. } => Code::NotTraversable,
        }
    }

    fn next_step(&self) -> Option<String> {
        match self {
            Self::Write(error) => error.next_step(),
            Self::Held(error) => error.next_step(),
            Self::ForeignOwner { path, owner, wanted } => Some(format!(
                "if etcd ran as user {owner} before, set etcd-user to it; or change the owner: chown -R {wanted} {}",
                path.display()
            )),
            Self::Writable(path) => Some(format!("chmod go-w {}, or choose another --data-dir", path.display())),
            Self::NotTraversable { path, .. } => {
                Some(format!("chmod o+x {}, or choose another --data-dir", path.display()))
            }
            Self::Dangling(path) => Some(format!(
                "mount its target (readlink {0}), or, if there is no data there, remove the link: rm {0}",
                path.display()
            )),
            Self::NotADirectory(path) => Some(format!("move {} away, or choose another --data-dir", path.display())),
        }
    }
}

/// A permission that was wrong and has been fixed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PermissionFix {
    /// Other users could enter this directory, or read this file.
    ModeTightened(PathBuf),
    /// The owner of this and its contents was changed to etcd's user.
    OwnerChanged(PathBuf),
}

pub(super) fn own_uid() -> u32 {
    nix::unistd::geteuid().as_raw()
}

impl DataDir {
    /// Creates what must exist before the lock can be taken: `D` and `S`. Returns what had to be fixed.
    pub fn prepare_for_lock(&self) -> Result<Vec<PermissionFix>, DataDirError> {
        if self.root.is_symlink() && !self.root.exists() {
            return Err(DataDirError::Dangling(self.root.clone()));
        }
        durable::create_dir_all(&self.root, PRIVATE_DIR)?;
        if own_uid() == 0 {
            // A user who may change `D` could redirect us with links to any directory of this machine.
            let found = owned_by(&self.root, 0)?;
            if found.permissions().mode() & 0o022 != 0 && found.permissions().mode() & 0o1000 == 0 {
                return Err(DataDirError::Writable(self.root.clone()));
            }
        }
        let server = self.server();
        Ok(if self.ensure_private_dir(&server)? { vec![PermissionFix::ModeTightened(server)] } else { Vec::new() })
    }

    /// Creates or fixes every directory below `S`, and lets etcd's user reach its data. Returns what had to be fixed.
    pub fn prepare(&self) -> Result<Vec<PermissionFix>, DataDirError> {
        let mut fixes = Vec::new();
        for dir in [self.server(), self.server().join("tls"), self.tls(), self.db()] {
            if self.ensure_private_dir(&dir)? {
                fixes.push(PermissionFix::ModeTightened(dir));
            }
        }
        fixes.extend(self.tighten_modes()?);
        if let Some(user) = &self.etcd_user {
            self.grant_traverse(user)?;
        }
        // db/etcd must not be created before it is known that its absence is no data loss.
        if self.etcd().exists() || self.etcd().is_symlink() {
            fixes.extend(self.ensure_etcd_dir()?);
        }
        Ok(fixes)
    }

    pub fn prepare_etcd(&self) -> Result<Vec<PermissionFix>, DataDirError> {
        self.ensure_etcd_dir()
    }

    /// Sets owner and modes of the files of a CA or leaf. True if other users could read more before.
    pub fn set_certificate_modes(&self, files: &CertificatePaths) -> Result<Vec<PermissionFix>, DataDirError> {
        let mut fixes = Vec::new();
        for (path, Access { mode, group }) in
            [(&files.certificate, files.certificate_access), (&files.key, files.key_access)]
        {
            let Ok(found) = fs::metadata(path) else { continue };
            if group.is_some_and(|group| found.gid() != group) {
                durable::set_owner(path, None, group)?;
            }
            let present = found.permissions().mode() & 0o777;
            if present != mode {
                durable::set_mode(path, mode)?;
            }
            if present & 0o077 & !mode != 0 {
                fixes.push(PermissionFix::ModeTightened(path.clone()));
            }
        }
        Ok(fixes)
    }

    /// Creates a directory of ours below `D` that etcd's user may traverse.
    pub fn prepare_dir(&self, dir: &Path) -> Result<(), DataDirError> {
        self.ensure_private_dir(dir).map(|_| ())
    }

    /// Changes the owner of data that was built in a private directory to etcd's user, if that is another user.
    pub fn chown_to_etcd_user(&self, dir: &DirHandle) -> Result<(), DirError> {
        match &self.etcd_user {
            Some(user) => dir.chown_recursive(user.uid, user.gid),
            None => Ok(()),
        }
    }

    /// Makes an open directory ours, traversable for etcd's group.
    pub fn grant_read_to_etcd(&self, dir: &DirHandle) -> Result<(), DirError> {
        let Some(user) = &self.etcd_user else { return Ok(()) };
        dir.set_owner(None, Some(user.gid))?;
        dir.set_mode(TRAVERSE_MODE)
    }

    /// Makes `dir` ours, closed to all but etcd's group; true if its mode was too open.
    fn ensure_private_dir(&self, dir: &Path) -> Result<bool, DataDirError> {
        create_dir(dir)?;
        let found = owned_by(dir, own_uid())?;
        let mode = match &self.etcd_user {
            None => PRIVATE_DIR,
            Some(user) => {
                if found.gid() != user.gid {
                    durable::set_owner(&resolve_symlink(dir)?, None, Some(user.gid))?;
                }
                TRAVERSE_MODE
            }
        };
        let present = found.permissions().mode() & 0o777;
        if present & 0o077 != mode & 0o077 {
            durable::set_mode(dir, mode)?;
        }
        Ok(present & 0o077 & !mode != 0)
    }

    /// Changes the owner of `db/etcd` to etcd's user. What is ours inside is changed, too; once it belongs to that
    /// user, nothing in it is touched: that user could put a link there.
    fn ensure_etcd_dir(&self) -> Result<Vec<PermissionFix>, DataDirError> {
        let db = DirHandle::open(&self.db())?;
        let mut fixes = Vec::new();
        let wanted = self.etcd_user.as_ref().map_or_else(own_uid, |user| user.uid);
        let (mut etcd, is_new) = match db.open_dir(Self::ETCD_NAME)? {
            Some(etcd) => (etcd, false),
            None => (db.make_dir(Self::ETCD_NAME, PRIVATE_DIR)?, true),
        };
        if let Some(user) = &self.etcd_user
            && etcd.uid() == own_uid()
        {
            // Before it is theirs: a link there is refused.
            self.member_of(&etcd)?;
            etcd.set_mode(PRIVATE_DIR)?;
            etcd = db.open_dir(Self::ETCD_NAME)?.ok_or_else(|| DirError::Replaced(self.etcd()))?;
            etcd.chown_recursive(user.uid, user.gid)?;
            etcd = db.open_dir(Self::ETCD_NAME)?.ok_or_else(|| DirError::Replaced(self.etcd()))?;
            if !is_new {
                fixes.push(PermissionFix::OwnerChanged(self.etcd()));
            }
        }
        if etcd.uid() != wanted {
            return Err(DataDirError::ForeignOwner { path: self.etcd(), owner: etcd.uid(), wanted });
        }
        if etcd.mode()? & 0o077 != 0 {
            etcd.set_mode(PRIVATE_DIR)?;
            fixes.push(PermissionFix::ModeTightened(self.etcd()));
        }
        let Some(member) = self.member_of(&etcd)? else { return Ok(fixes) };
        // etcd creates these; their owner is the user that ran it.
        for dir in [member.open_dir("wal")?, member.open_dir("snap")?, Some(member)].into_iter().flatten() {
            self.check_entries(&dir, wanted)?;
        }
        faults::point("datadir::owned").on("look at", &self.etcd())?;
        Ok(fixes)
    }

    /// Only directories and regular files of `wanted`.
    fn check_entries(&self, dir: &DirHandle, wanted: u32) -> Result<(), DataDirError> {
        let foreign = |owner| DataDirError::ForeignOwner { path: self.etcd(), owner, wanted };
        if dir.uid() != wanted {
            return Err(foreign(dir.uid()));
        }
        for name in dir.names()? {
            let Some(found) = dir.stat(&name)? else { continue };
            if found.uid() != wanted {
                return Err(foreign(found.uid()));
            }
            let is_our_link = found.is_symlink() && dir.is_private();
            if !(found.is_dir() || is_our_link) {
                dir.check_file(&dir.path().join(&name), &found)?;
            }
        }
        Ok(())
    }

    /// Lets etcd's group traverse `D`, if it is private, and checks that the directories above are traversable.
    fn grant_traverse(&self, user: &User) -> Result<(), DataDirError> {
        let found = fs::metadata(&self.root).on("look at", &self.root)?;
        if !can_traverse(&found, user) && found.uid() == own_uid() && found.permissions().mode() & 0o077 == 0 {
            durable::set_owner(&resolve_symlink(&self.root)?, None, Some(user.gid))?;
            durable::set_mode(&self.root, TRAVERSE_MODE)?;
        }
        let etcd = if self.etcd().exists() { self.etcd() } else { self.db() };
        for dir in resolve_symlink(&etcd)?.ancestors().skip(usize::from(self.etcd().exists())) {
            let found = fs::metadata(dir).on("look at", dir)?;
            if !can_traverse(&found, user) {
                return Err(DataDirError::NotTraversable { path: dir.to_path_buf(), user: user.name.clone() });
            }
        }
        Ok(())
    }
}

/// Creates `dir` if it does not exist. True if it was created.
fn create_dir(dir: &Path) -> Result<bool, DataDirError> {
    match fs::metadata(dir) {
        Ok(found) if !found.is_dir() => Err(DataDirError::NotADirectory(dir.to_path_buf())),
        Ok(_) => Ok(false),
        Err(_) if dir.is_symlink() => Err(DataDirError::Dangling(dir.to_path_buf())),
        Err(_) => Ok(durable::create_dir(dir, PRIVATE_DIR)?),
    }
}

fn owned_by(dir: &Path, wanted: u32) -> Result<Metadata, DataDirError> {
    let found = fs::metadata(dir).on("look at", dir)?;
    if found.uid() != wanted {
        return Err(DataDirError::ForeignOwner { path: dir.to_path_buf(), owner: found.uid(), wanted });
    }
    Ok(found)
}

/// The directory itself, since `dir` may be a link.
fn resolve_symlink(dir: &Path) -> Result<PathBuf, WriteError> {
    fs::canonicalize(dir).on("look at", dir)
}

fn can_traverse(found: &Metadata, user: &User) -> bool {
    let mode = found.permissions().mode();
    let needed = if found.uid() == user.uid {
        0o100
    } else if found.gid() == user.gid {
        0o010
    } else {
        0o001
    };
    mode & needed != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_made_private_and_fixed_but_the_root_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        durable::set_mode(dir.path(), 0o755).unwrap();
        let data = DataDir::new(dir.path());
        data.prepare_for_lock().unwrap();
        assert_eq!(data.prepare().unwrap(), []);
        durable::set_mode(&data.db(), 0o777).unwrap();
        assert_eq!(data.prepare().unwrap(), [PermissionFix::ModeTightened(data.db())]);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&data.db()), 0o700);
        assert_eq!(mode(dir.path()), 0o755);
        assert!(!data.etcd().exists(), "db/etcd is created only when a start is planned");
    }

    #[test]
    fn a_file_in_the_way_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::new(dir.path());
        durable::write_file(&data.server(), b"", 0o600).unwrap();
        assert!(matches!(data.prepare_for_lock(), Err(DataDirError::NotADirectory(_))));
    }

    #[test]
    fn a_user_of_etcds_own_gets_its_data_and_the_way_to_it_and_no_more() {
        if own_uid() != 0 {
            return;
        }
        let above = tempfile::tempdir().unwrap();
        durable::set_mode(above.path(), 0o755).unwrap();
        let root = above.path().join("data");
        let user = User { name: "someone".into(), uid: 12345, gid: 23456 };
        let before = DataDir::new(&root);
        before.prepare_for_lock().unwrap();
        before.prepare().unwrap();
        before.prepare_etcd().unwrap();
        durable::create_dir_all(&before.etcd_member().join("wal"), 0o700).unwrap();
        let ca = before.certificate("server-ca");
        for path in [&ca.certificate, &ca.key] {
            durable::write_file(path, b"pem", ca.key_access).unwrap();
        }

        let data = DataDir::new(&root).with_etcd_user(Some(user.clone()));
        data.prepare_for_lock().unwrap();
        assert_eq!(data.prepare().unwrap(), [PermissionFix::OwnerChanged(data.etcd())]);
        assert_eq!(data.prepare().unwrap(), [], "once is enough");
        data.set_certificate_modes(&data.certificate("server-ca")).unwrap();
        let found = |path: &Path| {
            let found = fs::metadata(path).unwrap();
            (found.uid(), found.gid(), found.permissions().mode() & 0o777)
        };
        for dir in [data.root().to_path_buf(), data.server(), data.tls(), data.db()] {
            assert_eq!(found(&dir), (0, 23456, 0o710), "{}", dir.display());
        }
        assert_eq!(found(&data.etcd_member().join("wal")), (12345, 23456, 0o700));
        assert_eq!(found(&ca.certificate), (0, 23456, 0o640));
        assert_eq!(found(&ca.key).2, 0o600, "etcd does not read the key of a CA");

        // Without `etcd-user`, the data belongs to another user; a closed directory above is named.
        assert!(matches!(before.prepare(), Err(DataDirError::ForeignOwner { owner: 12345, wanted: 0, .. })));
        durable::set_mode(above.path(), 0o700).unwrap();
        assert!(matches!(data.prepare(), Err(DataDirError::NotTraversable { .. })));
    }
}
