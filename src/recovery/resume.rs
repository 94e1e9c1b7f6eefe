//! What becomes of a reset or restore once its data were tried, or once it broke off: written down, or undone.

use crate::datadir::DataDir;
use crate::durable::{self, DirError, PRIVATE_FILE, WriteError};
use crate::error::AppError;
use crate::faults;
use crate::plan::restore::{Phase, Recovery};
use crate::recovery::journal::{Journal, Operation};
use crate::recovery::retired;
use crate::recovery::swap::{self, SwapError};
use crate::recovery::workspace::{self, RecoveryDirs};

/// Looks whether one broke off, and finishes or undoes it. To be called with the lock held and no etcd running.
pub(crate) fn settle(data: &DataDir) -> Result<(), AppError> {
    let Some(journal) = Journal::read(data)? else {
        // What is there without a journal was being built.
        let has_work = RecoveryDirs::of(data)?.map_or(Ok(false), |dirs| dirs.has_work())?;
        if has_work || data.restore().exists() {
            tracing::warn!(
                event = "reset-discarded",
                "a reset or restore was interrupted before anything was changed; what it had built is removed"
            );
            swap::clean_up(data)?;
        }
        return Ok(());
    };
    let (act, begun) = (journal.act.word(), &journal.begun);
    if journal.phase == Phase::Passed {
        tracing::warn!(
            event = "reset-finished",
            begun,
            "a {act} broke off after its data were in place and found good; it is finished now"
        );
        return Ok(complete(data, &journal)?);
    }
    if resume_or_roll_back(data, &journal)? == Recovery::Back {
        tracing::warn!(
            event = "reset-undone",
            begun,
            "a {act} broke off before its data were found good; the data from before are back in place"
        );
    } else {
        tracing::warn!(
            event = "reset-not-begun",
            begun,
            "a {act} broke off before the data were exchanged; they are as they were"
        );
    }
    Ok(())
}

/// Everything is as before.
pub(crate) fn resume_or_roll_back(data: &DataDir, journal: &Journal) -> Result<Recovery, SwapError> {
    let recovery = swap::roll_back(data, journal)?;
    if journal.act == Operation::Undo
        && journal.after.was_healthy()
        && let Some(staged) = workspace::staged(data, journal)?
    {
        retired::write_record(&staged, &journal.after)?;
    }
    swap::clean_up(data)?;
    Ok(recovery)
}

/// Where a token lies that is to be the server's.
pub(crate) fn staged_token(data: &DataDir) -> std::path::PathBuf {
    data.restore().join("token")
}

/// Writes down that it was done. It can be repeated.
pub(crate) fn complete(data: &DataDir, journal: &Journal) -> Result<(), SwapError> {
    let step = |name: &str| {
        let failed = |source| WriteError { act: "finish the work in", path: journal.work.clone(), source };
        faults::point(&format!("restore::{name}")).map_err(failed)
    };
    step("label")?;
    if let (Some(retired), Some(before)) = (workspace::old(data, journal)?, &journal.before) {
        retired::write_record(&retired, before)?;
    }
    step("name")?;
    if !journal.after.member_name.is_empty() {
        let etcd = data.open_etcd()?.ok_or_else(|| DirError::Replaced(data.etcd()))?;
        etcd.write_if_changed(DataDir::NAME_NAME, journal.after.member_name.as_bytes(), PRIVATE_FILE)?;
    }
    step("remember")?;
    crate::cluster::file::write(data, &journal.after)?;
    step("token")?;
    let token = staged_token(data);
    if token.exists() {
        durable::rename(&token, &data.token())?;
    }
    step("flag")?;
    if journal.act == Operation::Undo {
        durable::remove_file(&data.reset_flag())?;
    } else {
        durable::write_file(&data.reset_flag(), b"", PRIVATE_FILE)?;
    }
    swap::clean_up(data)
}
