//! etcd's own directories, held open: what quorate reads and renames there is never reached through a link that etcd's user could have made.

use std::fs::File;
use std::io;

use super::DataDir;
use crate::durable::{HeldDir, HeldError};

/// `None` for a directory that is not there.
fn absent(held: Result<HeldDir, HeldError>) -> Result<Option<HeldDir>, HeldError> {
    match held {
        Ok(held) => Ok(Some(held)),
        Err(HeldError::Dangling(_)) => Ok(None),
        Err(HeldError::System(error)) if error.source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Opens the database in a `member` directory of etcd's; `None` if there is none.
///
/// # Errors
/// If it is no regular file, is reached through a link that another user could have made, or cannot be opened.
pub fn bolt_of(member: &HeldDir) -> Result<Option<File>, HeldError> {
    match member.enter("snap")? {
        Some(snap) => snap.file("db"),
        None => Ok(None),
    }
}

impl DataDir {
    /// Holds `S/db`; `None` if it is not there.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn hold_db(&self) -> Result<Option<HeldDir>, HeldError> {
        absent(HeldDir::open(&self.db()))
    }

    /// Holds the child's data directory; `None` if it is not there.
    ///
    /// # Errors
    /// If it cannot be opened, or is a link that is not ours.
    pub fn hold_etcd(&self) -> Result<Option<HeldDir>, HeldError> {
        match self.hold_db()? {
            Some(db) => db.enter(Self::ETCD_NAME),
            None => Ok(None),
        }
    }

    /// Holds what etcd itself writes; `None` if it is not there.
    ///
    /// # Errors
    /// If it cannot be opened, or is a link while etcd runs as a user of its own.
    pub fn hold_member(&self) -> Result<Option<HeldDir>, HeldError> {
        match self.hold_etcd()? {
            Some(etcd) => self.member_of(&etcd),
            None => Ok(None),
        }
    }

    /// True if a link at `member` counts: etcd has no user of its own, who could put another one there.
    #[must_use]
    pub fn follows_member(&self) -> bool {
        self.etcd_user.is_none()
    }

    /// As [`Self::hold_member`], of a data directory that is held already.
    ///
    /// # Errors
    /// As [`Self::hold_member`].
    pub fn member_of(&self, etcd: &HeldDir) -> Result<Option<HeldDir>, HeldError> {
        if let Some(user) = &self.etcd_user
            && etcd.look(Self::MEMBER_NAME)?.is_some_and(|found| found.is_symlink())
        {
            // Also one that root made: the directory that it lies in is that user's.
            return Err(HeldError::Link { path: self.etcd_member(), owner: user.uid });
        }
        etcd.enter(Self::MEMBER_NAME)
    }

    /// Opens the database of the data in use; `None` if there is none.
    ///
    /// # Errors
    /// If it is no regular file, is reached through a link that another user could have made, or cannot be opened.
    pub fn bolt(&self) -> Result<Option<File>, HeldError> {
        match self.hold_member()? {
            Some(member) => bolt_of(&member),
            None => Ok(None),
        }
    }

    /// The nearest directory to the child's data that exists, held: it may be on a disk of its own.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn hold_storage(&self) -> Result<HeldDir, HeldError> {
        match self.hold_etcd()? {
            Some(etcd) => Ok(etcd),
            None => HeldDir::open(&self.db()),
        }
    }
}
