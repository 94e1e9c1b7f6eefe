//! Open handles of etcd's directories: quorate reads and renames files there by descriptor, never through a link that
//! etcd's user could have created.

use std::fs::File;
use std::io;

use crate::datadir::DataDir;
use crate::durable::{DirError, DirHandle};

/// `None` for a directory that does not exist.
fn absent(held: Result<DirHandle, DirError>) -> Result<Option<DirHandle>, DirError> {
    match held {
        Ok(held) => Ok(Some(held)),
        Err(DirError::Dangling(_)) => Ok(None),
        Err(DirError::System(error)) if error.source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Opens the database in a `member` directory of etcd; `None` if there is none.
///
/// # Errors
/// If it is not a regular file, the path has a link that another user could have created, or it cannot be opened.
pub fn database_name(member: &DirHandle) -> Result<Option<File>, DirError> {
    match member.open_dir("snap")? {
        Some(snap) => snap.file("db"),
        None => Ok(None),
    }
}

/// Maximum length of a member name file, in bytes.
const MAX_NAME_BYTES: u64 = 1024;

impl DataDir {
    /// The member name stored next to etcd's data; `None` if it is missing or unreadable.
    #[must_use]
    pub fn member_name(&self) -> Option<String> {
        // If etcd runs as another user, that user could put anything there.
        let bytes = self.open_etcd().ok()??.read(Self::NAME_NAME, MAX_NAME_BYTES).ok()??;
        String::from_utf8(bytes).ok().map(|name| name.trim().to_owned()).filter(|name| !name.is_empty())
    }

    /// Opens `S/db`; `None` if it does not exist.
    pub fn open_db(&self) -> Result<Option<DirHandle>, DirError> {
        absent(DirHandle::open(&self.db()))
    }

    /// Opens the child's data directory; `None` if it does not exist.
    ///
    /// # Errors
    /// If it cannot be opened, or is a link that is not ours.
    pub fn open_etcd(&self) -> Result<Option<DirHandle>, DirError> {
        match self.open_db()? {
            Some(db) => db.open_dir(Self::ETCD_NAME),
            None => Ok(None),
        }
    }

    /// Opens the `member` directory of etcd; `None` if it does not exist.
    ///
    /// # Errors
    /// If it cannot be opened, or is a link while etcd runs as a user of its own.
    pub fn open_member(&self) -> Result<Option<DirHandle>, DirError> {
        match self.open_etcd()? {
            Some(etcd) => self.member_of(&etcd),
            None => Ok(None),
        }
    }

    /// True if a link at `member` may be followed: etcd runs as our user, so no other user can replace it.
    #[must_use]
    pub fn follows_member_link(&self) -> bool {
        self.etcd_user.is_none()
    }

    /// Like [`Self::open_member`], for a data directory that is open already.
    pub fn member_of(&self, etcd: &DirHandle) -> Result<Option<DirHandle>, DirError> {
        if let Some(user) = &self.etcd_user
            && etcd.stat(Self::MEMBER_NAME)?.is_some_and(|found| found.is_symlink())
        {
            // Even a link of root: its parent directory belongs to that user.
            return Err(DirError::Link { path: self.etcd_member(), owner: user.uid });
        }
        etcd.open_dir(Self::MEMBER_NAME)
    }

    /// Opens the database of the current data; `None` if there is none.
    ///
    /// # Errors
    /// If it is not a regular file, the path has a link that another user could have created, or it cannot be opened.
    pub fn bolt(&self) -> Result<Option<File>, DirError> {
        match self.open_member()? {
            Some(member) => database_name(&member),
            None => Ok(None),
        }
    }

    /// Opens the nearest existing directory to the child's data, which may be on a separate disk.
    pub fn open_storage(&self) -> Result<DirHandle, DirError> {
        match self.open_etcd()? {
            Some(etcd) => Ok(etcd),
            None => DirHandle::open(&self.db()),
        }
    }
}
