//! Puts new data in the place of those that are there, and back, by renames alone.
//!
//! Usually `db/etcd` is renamed. Where it is a mount point or a link, `member` is renamed within what it leads to, so that the data
//! stay on the disk that they were put on; the new ones are then built there too.

use std::fs;
use std::path::{Path, PathBuf};

use super::journal::{Journal, Unreadable};
use crate::datadir::{DataDir, DataDirError};
use crate::durable::{self, WriteError};
use crate::error::{Exit, Explained};
use crate::faults;
use crate::host;
use crate::plan::restore::{Interrupted, Recovery, recover};

/// Where the data are, and what is exchanged with what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// In use.
    pub current: PathBuf,
    /// Where new ones are built.
    pub staged: PathBuf,
    /// Where the ones in use go, if there are any.
    pub old: Option<PathBuf>,
    /// Where all that is only needed meanwhile lies.
    pub work: PathBuf,
}

/// Why the data were not exchanged.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// Something could not be renamed or removed.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The place for the work cannot be made.
    #[error(transparent)]
    Place(#[from] DataDirError),
    /// The journal says nothing.
    #[error(transparent)]
    Journal(#[from] Unreadable),
    /// Data are where none should be.
    #[error("{} is there, and was not when the {act} broke off", path.display())]
    InTheWay {
        /// What.
        path: PathBuf,
        /// What broke off.
        act: &'static str,
    },
    /// A link where a directory should be.
    #[error("{} is a symbolic link, and quorate works there", .0.display())]
    Link(PathBuf),
}

impl Explained for ExchangeError {
    fn exit(&self) -> Exit {
        match self {
            Self::Write(error) => error.exit(),
            Self::Journal(error) => error.exit(),
            Self::Place(error) => error.exit(),
            Self::InTheWay { .. } | Self::Link(_) => Exit::Refused,
        }
    }

    fn next(&self) -> Option<String> {
        match self {
            Self::Write(error) => error.next(),
            Self::Journal(error) => error.next(),
            Self::Place(error) => error.next(),
            Self::InTheWay { path, .. } => Some(format!("move {} away, and start again", path.display())),
            Self::Link(path) => Some(format!("remove it: rm {}", path.display())),
        }
    }
}

impl Paths {
    /// Where the data of `data` are exchanged, with the ones in use going to where the first free second from `now` on names.
    #[must_use]
    pub fn of(data: &DataDir, now: u64) -> Self {
        let etcd = data.etcd();
        let is_inside =
            etcd.is_symlink() || data.etcd_member().is_symlink() || (is_there(&etcd) && host::is_mount_point(&etcd));
        let (current, dir, aside) = if is_inside {
            let member = fs::canonicalize(data.etcd_member())
                .or_else(|_| fs::canonicalize(&etcd).map(|etcd| etcd.join("member")))
                .unwrap_or_else(|_| data.etcd_member());
            let dir = member.parent().unwrap_or(&etcd).to_path_buf();
            (member, dir, "member-old")
        } else {
            (etcd, data.db(), "etcd-old")
        };
        let mut places = (now..=u64::MAX).map(|second| dir.join(format!("{aside}-{second}")));
        let free = places.find(|path| !is_there(path));
        let (work, staged) = if is_inside {
            let work = dir.join("quorate-restore");
            let staged = work.join("etcd").join("member");
            (work, staged)
        } else {
            let work = data.restore();
            let staged = work.join("etcd");
            (work, staged)
        };
        Self { old: free.filter(|_| is_there(&current)), current, staged, work }
    }

    /// The data directory that is built: what etcd's `data-dir` is, with `member` in it.
    #[must_use]
    pub fn built(&self) -> PathBuf {
        self.work.join("etcd")
    }

    /// Makes room for what is built, with nothing in it.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn clear(&self, data: &DataDir) -> Result<(), ExchangeError> {
        for dir in [&data.restore(), &self.work] {
            if dir.is_symlink() {
                return Err(ExchangeError::Link(dir.clone()));
            }
            data.prepare_dir(dir)?;
        }
        for entry in fs::read_dir(&self.work).into_iter().flatten().flatten() {
            remove(&entry.path())?;
        }
        Ok(())
    }
}

fn is_there(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

fn remove(path: &Path) -> Result<(), WriteError> {
    if path.is_dir() && !path.is_symlink() {
        durable::remove_dir_all(path)
    } else {
        durable::remove_file(path).map(drop)
    }
}

/// A named step, where tests inject faults.
fn step(name: &str, path: &Path) -> Result<(), WriteError> {
    faults::point(&format!("restore::{name}")).map_err(|source| WriteError {
        act: "exchange the data at",
        path: path.to_path_buf(),
        source,
    })
}

/// Puts what was built in its place. The journal must have been written.
///
/// # Errors
/// If it cannot be renamed; [`back`] then undoes it.
pub fn put_in_place(journal: &Journal) -> Result<(), ExchangeError> {
    if let Some(old) = &journal.old {
        step("old_aside", &journal.current)?;
        durable::rename(&journal.current, old)?;
    }
    step("new_in_place", &journal.current)?;
    durable::rename(&journal.staged, &journal.current)?;
    step("exchanged", &journal.current)?;
    Ok(())
}

/// What there is of an exchange.
#[must_use]
pub fn look(journal: &Journal) -> Interrupted {
    Interrupted {
        phase: journal.phase,
        had_old: journal.old.is_some(),
        old_is_aside: journal.old.as_deref().is_some_and(is_there),
        is_staged: is_there(&journal.staged),
        has_current: is_there(&journal.current),
    }
}

/// Brings the data from before back, in whatever state the exchange is. It can be repeated.
///
/// # Errors
/// If something cannot be renamed.
pub fn back(journal: &Journal) -> Result<Recovery, ExchangeError> {
    let found = look(journal);
    let recovery = recover(found);
    if recovery == Recovery::Back {
        if found.has_current {
            if found.is_staged {
                return Err(ExchangeError::InTheWay { path: journal.current.clone(), act: journal.act.word() });
            }
            step("new_back", &journal.current)?;
            durable::rename(&journal.current, &journal.staged)?;
        }
        if let Some(old) = &journal.old {
            step("old_back", old)?;
            durable::rename(old, &journal.current)?;
        }
    }
    Ok(recovery)
}

/// Removes what was only needed meanwhile, the journal first: without it, what is left means nothing.
///
/// # Errors
/// If it cannot be removed.
pub fn tidy(data: &DataDir, work: &Path) -> Result<(), ExchangeError> {
    step("tidy", work)?;
    durable::remove_file(&data.restore_journal())?;
    for dir in [work, &data.restore()] {
        if is_there(dir) {
            remove(dir)?;
        }
    }
    Ok(())
}
