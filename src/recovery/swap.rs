//! Swaps new data in, and rolls back, with renames only.
//!
//! Usually `db/etcd` is renamed. If it is a mount point or a link, `member` is renamed inside its target, so that the
//! data stays on its disk; new data is built there, too.

use std::path::PathBuf;

use crate::cluster::file::RecordWriteError;
use crate::datadir::{DataDir, DataDirError};
use crate::durable::{self, DirError, WriteError};
use crate::error::{Code, Diagnostic};
use crate::plan::restore::{Interrupted, Recovery, recover};
use crate::recovery::journal::{Journal, JournalUnreadable, OperationKind};
use crate::recovery::step::step;
use crate::recovery::workspace::{RecoveryDirs, SwappedDirs};

/// What a step of it does to a path, for messages.
const SWAP: &str = "exchange the data at";

#[derive(Debug, thiserror::Error)]
pub enum SwapError {
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A file is not as expected.
    #[error(transparent)]
    Held(#[from] DirError),
    /// The working directory cannot be created.
    #[error(transparent)]
    Place(#[from] DataDirError),
    #[error(transparent)]
    Journal(#[from] JournalUnreadable),
    /// The cluster record cannot be replaced.
    #[error(transparent)]
    Record(#[from] RecordWriteError),
    #[error("{} exists, but did not when the {act} was interrupted", path.display())]
    PathInTheWay { path: PathBuf, act: &'static str },
}

impl Diagnostic for SwapError {
    fn code(&self) -> Code {
        match self {
            Self::Write(error) => error.code(),
            Self::Held(error) => error.code(),
            Self::Journal(error) => error.code(),
            Self::Record(error) => error.code(),
            Self::Place(error) => error.code(),
            Self::PathInTheWay { .. } => Code::PathInTheWay,
        }
    }

    fn next_step(&self) -> Option<String> {
        match self {
            Self::Write(error) => error.next_step(),
            Self::Held(error) => error.next_step(),
            Self::Journal(error) => error.next_step(),
            Self::Record(error) => error.next_step(),
            Self::Place(error) => error.next_step(),
            Self::PathInTheWay { path, .. } => Some(format!("move {} away, and start again", path.display())),
        }
    }
}

/// Puts what was built in its place. The journal must have been written. It can be repeated.
///
/// # Errors
/// If it cannot be renamed; `back` then undoes it.
pub fn swap_in(data: &DataDir, journal: &Journal) -> Result<(), SwapError> {
    let held = SwappedDirs::of(data, journal)?;
    // Opened before any rename, so that etcd's user cannot redirect the path.
    let staged = held.staged()?;
    let found = inspect(journal, &held)?;
    if !found.is_staged && found.has_current && found.had_old == found.old_is_aside {
        // Done before; the caller checks that it is the right one.
        return Ok(());
    }
    let (above, name) = staged.ok_or_else(|| DirError::Replaced(journal.staged.clone()))?;
    if let Some(old) = held.old.as_ref().filter(|_| !found.old_is_aside) {
        step("old_aside", SWAP, &journal.current)?;
        held.place.rename(&held.current, &held.place, old)?;
    }
    step("new_in_place", SWAP, &journal.current)?;
    above.rename(name, &held.place, &held.current)?;
    step("exchanged", SWAP, &journal.current)?;
    Ok(())
}

fn inspect(journal: &Journal, held: &SwappedDirs) -> Result<Interrupted, DirError> {
    // If etcd's user replaced a directory of the path, none of our data is there.
    let is_staged = match held.staged() {
        Ok(Some((above, name))) => above.stat(name)?.is_some(),
        Err(DirError::System(error)) => return Err(error.into()),
        Ok(None) | Err(_) => false,
    };
    Ok(Interrupted {
        phase: journal.phase,
        had_old: journal.old.is_some(),
        old_is_aside: held.old.as_ref().map_or(Ok(false), |old| held.has(old))?,
        is_staged,
        has_current: held.has(&held.current)?,
    })
}

/// Restores the previous data, in any state of the swap. Idempotent.
pub fn roll_back(data: &DataDir, journal: &Journal) -> Result<Recovery, SwapError> {
    let held = SwappedDirs::of(data, journal)?;
    let found = inspect(journal, &held)?;
    let recovery = recover(found);
    if recovery == Recovery::Back {
        if found.has_current {
            if found.is_staged {
                return Err(SwapError::PathInTheWay { path: journal.current.clone(), act: journal.kind.word() });
            }
            step("new_back", SWAP, &journal.current)?;
            match held.staged() {
                Ok(Some((above, name))) => held.place.rename(&held.current, &above, name)?,
                // New data is removed afterwards anyway; data of an undo returns to its place in the same directory.
                Ok(None) | Err(_) if journal.kind != OperationKind::Undo => {
                    held.place.remove_all(&held.current)?;
                }
                Ok(None) => return Err(DirError::Missing(journal.staged.clone()).into()),
                Err(error) => return Err(error.into()),
            }
        }
        if let Some(old) = &held.old {
            step("old_back", SWAP, &journal.current)?;
            held.place.rename(old, &held.place, &held.current)?;
        }
    }
    Ok(recovery)
}

/// Removes the working files, the journal first: without it, the rest is meaningless.
pub fn clean_up(data: &DataDir) -> Result<(), SwapError> {
    step("tidy", SWAP, &data.restore())?;
    durable::remove_file(&data.restore_journal())?;
    if let Some(place) = RecoveryDirs::of(data)? {
        place.remove_work()?;
    }
    if let Some(db) = data.open_db()? {
        db.remove_all(DataDir::RESTORE_NAME)?;
    }
    Ok(())
}
