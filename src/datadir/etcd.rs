//! etcd's own directories, held open: what quorate reads and renames there is never reached through a link that etcd's user could have made.

use std::fs::File;
use std::io;

use crate::datadir::DataDir;
use crate::durable::{DirError, DirHandle};

/// `None` for a directory that is not there.
fn absent(held: Result<DirHandle, DirError>) -> Result<Option<DirHandle>, DirError> {
    match held {
        Ok(held) => Ok(Some(held)),
        Err(DirError::Dangling(_)) => Ok(None),
        Err(DirError::System(error)) if error.source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Opens the database in a `member` directory of etcd's; `None` if there is none.
///
/// # Errors
/// If it is no regular file, is reached through a link that another user could have made, or cannot be opened.
pub fn database_name(member: &DirHandle) -> Result<Option<File>, DirError> {
    match member.open_dir("snap")? {
        Some(snap) => snap.file("db"),
        None => Ok(None),
    }
}

impl DataDir {
    /// Holds `S/db`; `None` if it is not there.
    pub fn open_db(&self) -> Result<Option<DirHandle>, DirError> {
        absent(DirHandle::open(&self.db()))
    }

    /// Holds the child's data directory; `None` if it is not there.
    ///
    /// # Errors
    /// If it cannot be opened, or is a link that is not ours.
    pub fn open_etcd(&self) -> Result<Option<DirHandle>, DirError> {
        match self.open_db()? {
            Some(db) => db.open_dir(Self::ETCD_NAME),
            None => Ok(None),
        }
    }

    /// Holds what etcd itself writes; `None` if it is not there.
    ///
    /// # Errors
    /// If it cannot be opened, or is a link while etcd runs as a user of its own.
    pub fn open_member(&self) -> Result<Option<DirHandle>, DirError> {
        match self.open_etcd()? {
            Some(etcd) => self.member_of(&etcd),
            None => Ok(None),
        }
    }

    /// True if a link at `member` counts: etcd has no user of its own, who could put another one there.
    #[must_use]
    pub fn follows_member_link(&self) -> bool {
        self.etcd_user.is_none()
    }

    /// As [`Self::hold_member`], of a data directory that is held already.
    pub fn member_of(&self, etcd: &DirHandle) -> Result<Option<DirHandle>, DirError> {
        if let Some(user) = &self.etcd_user
            && etcd.stat(Self::MEMBER_NAME)?.is_some_and(|found| found.is_symlink())
        {
            // Also one that root made: the directory that it lies in is that user's.
            return Err(DirError::Link { path: self.etcd_member(), owner: user.uid });
        }
        etcd.open_dir(Self::MEMBER_NAME)
    }

    /// Opens the database of the data in use; `None` if there is none.
    ///
    /// # Errors
    /// If it is no regular file, is reached through a link that another user could have made, or cannot be opened.
    pub fn bolt(&self) -> Result<Option<File>, DirError> {
        match self.open_member()? {
            Some(member) => database_name(&member),
            None => Ok(None),
        }
    }

    /// The nearest directory to the child's data that exists, held: it may be on a disk of its own.
    pub fn open_storage(&self) -> Result<DirHandle, DirError> {
        match self.open_etcd()? {
            Some(etcd) => Ok(etcd),
            None => DirHandle::open(&self.db()),
        }
    }
}
