//! What becomes of an operation that was interrupted: it is finished, rolled back, or left to the server that coordinates it.

use crate::datadir::DataDir;
use crate::durable::{self, DirError, PRIVATE_FILE};
use crate::error::{AppError, Code, Diagnostic};
use crate::plan::restore::{Interruption, JournalPhase, Recovery, on_interruption};
use crate::recovery::journal::{Journal, OperationKind};
use crate::recovery::retired;
use crate::recovery::step::step;
use crate::recovery::swap::{self, SwapError};
use crate::recovery::workspace::{self, RecoveryDirs};

/// An operation over several servers has begun here, and is not decided.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the operation {operation} over several servers is {} here, and not decided", phase.word())]
pub struct OperationUndecided {
    pub operation: String,
    /// How far it is on this server.
    pub phase: JournalPhase,
}

impl Diagnostic for OperationUndecided {
    fn code(&self) -> Code {
        Code::OperationUndecided
    }

    fn next_step(&self) -> Option<String> {
        Some("finish or undo it on the server that coordinates it".into())
    }
}

/// What was left of an earlier operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Resumed {
    /// Nothing is left of any: there was none, or it is finished or rolled back now.
    Clear,
    /// New data is next to the data in use, and is kept for the operation with this ID. The data in use can be started.
    Prepared(OperationUndecided),
}

/// Finishes or rolls back an operation that was interrupted. To be called with the lock held and no etcd running.
pub(crate) fn resume(data: &DataDir) -> Result<Resumed, AppError> {
    let Some(mut journal) = Journal::read(data)? else {
        // Without a journal, only the stage exists.
        let has_work = RecoveryDirs::of(data)?.map_or(Ok(false), |dirs| dirs.has_work())?;
        if has_work || data.restore().exists() {
            tracing::warn!(
                event = "reset-discarded",
                "a reset or restore was interrupted before anything was changed; removed its files"
            );
            swap::clean_up(data)?;
        }
        return Ok(Resumed::Clear);
    };
    let (act, begun) = (journal.kind.word(), journal.started.clone());
    let undecided = journal.operation.clone().map(|operation| OperationUndecided { operation, phase: journal.phase });
    match (on_interruption(journal.phase, undecided.is_some()), undecided) {
        (Interruption::Keep, Some(undecided)) => {
            // A swap that was interrupted is no swap.
            swap::roll_back(data, &journal)?;
            tracing::warn!(
                event = "operation-prepared",
                operation = undecided.operation,
                "a {act} over several servers is prepared here and not decided; the data in use are those from before"
            );
            return Ok(Resumed::Prepared(undecided));
        }
        (Interruption::Wait, Some(undecided)) => return Err(undecided.into()),
        (Interruption::Finish, _) => {
            tracing::warn!(
                event = "reset-finished",
                begun,
                "a {act} was interrupted after its data was verified; finished it"
            );
            commit(data, &mut journal)?;
        }
        (Interruption::RollBack | Interruption::Keep | Interruption::Wait, _) => {
            if roll_back(data, &mut journal)? == Recovery::Back {
                tracing::warn!(
                    event = "reset-undone",
                    begun,
                    "a {act} was interrupted before its data was verified; the previous data is in place again"
                );
            } else {
                tracing::warn!(
                    event = "reset-not-begun",
                    begun,
                    "a {act} was interrupted before the swap; the data is unchanged"
                );
            }
        }
    }
    Ok(Resumed::Clear)
}

/// Puts the data from before back, and removes what was built. It can be repeated.
pub(crate) fn roll_back(data: &DataDir, journal: &mut Journal) -> Result<Recovery, SwapError> {
    if !matches!(journal.phase, JournalPhase::Prepared | JournalPhase::Swapped) {
        // First: a start that found it verified would take what is in place for the new data.
        journal.phase = JournalPhase::Swapped;
        journal.write(data)?;
    }
    let recovery = swap::roll_back(data, journal)?;
    if journal.kind == OperationKind::Undo
        && journal.after.was_healthy()
        && let Some(staged) = workspace::staged(data, journal)?
    {
        retired::write_record(&staged, &journal.after)?;
    }
    swap::clean_up(data)?;
    Ok(recovery)
}

/// The file with a new token of the server.
pub(crate) fn staged_token(data: &DataDir) -> std::path::PathBuf {
    data.restore().join("token")
}

/// Records the decision, and then everything that follows from it. It can be repeated.
pub(crate) fn commit(data: &DataDir, journal: &mut Journal) -> Result<(), SwapError> {
    let work = journal.work.clone();
    let step = |name: &str| step(name, "finish the work in", &work);
    if journal.phase != JournalPhase::Committed {
        step("committed")?;
        journal.phase = JournalPhase::Committed;
        journal.write(data)?;
    }
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
    if journal.kind == OperationKind::Undo {
        durable::remove_file(&data.reset_flag())?;
    } else {
        durable::write_file(&data.reset_flag(), b"", PRIVATE_FILE)?;
    }
    swap::clean_up(data)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;
    use crate::cluster::record::ClusterRecord;
    use crate::recovery::operation::Prepared;
    use crate::recovery::paths::RecoveryPaths;

    const OPERATION: &str = "operation-1";

    /// A data directory in which `old` is in use and `new` is next to it, with a journal.
    fn prepared(operation: Option<&str>) -> (TempDir, DataDir, Journal) {
        let root = tempfile::tempdir().unwrap();
        let data = DataDir::new(root.path());
        data.prepare_for_lock().unwrap();
        data.prepare().unwrap();
        for (dir, content) in [(data.etcd(), "old"), (data.restore().join("etcd"), "new")] {
            fs::create_dir_all(dir.join("member/snap")).unwrap();
            fs::write(dir.join("member/snap/db"), content).unwrap();
        }
        let paths = RecoveryPaths::of(&data, 1).unwrap();
        let after = ClusterRecord { cluster_id: "c2".into(), member_name: "n".into(), ..ClusterRecord::default() };
        let mut journal = Journal::begin(OperationKind::Restore, String::new(), paths, after);
        journal.operation = operation.map(str::to_owned);
        journal.write(&data).unwrap();
        (root, data, journal)
    }

    fn in_use(data: &DataDir) -> String {
        fs::read_to_string(data.etcd_bolt()).unwrap()
    }

    fn at(data: &DataDir, journal: &mut Journal, phase: JournalPhase) {
        if phase >= JournalPhase::Swapped {
            swap::swap_in(data, journal).unwrap();
        }
        journal.phase = phase;
        journal.write(data).unwrap();
    }

    #[test]
    fn alone_each_phase_is_rolled_back_or_finished() {
        for (phase, expected) in [
            (JournalPhase::Prepared, "old"),
            (JournalPhase::Swapped, "old"),
            (JournalPhase::Verified, "new"),
            (JournalPhase::Committed, "new"),
        ] {
            let (_root, data, mut journal) = prepared(None);
            at(&data, &mut journal, phase);
            assert_eq!(resume(&data).unwrap(), Resumed::Clear);
            assert_eq!(in_use(&data), expected, "{phase:?}");
            assert!(!data.restore().exists(), "{phase:?}");
            assert_eq!(data.cluster().exists(), expected == "new", "{phase:?}");
        }
    }

    /// However often the server starts, and wherever the swap was interrupted.
    #[test]
    fn what_is_prepared_for_several_servers_survives_restarts() {
        let (_root, data, mut journal) = prepared(Some(OPERATION));
        let old = journal.old.clone().unwrap();
        let undecided = OperationUndecided { operation: OPERATION.into(), phase: JournalPhase::Prepared };
        let interruptions: [fn(&Journal); 4] = [
            |_| {},
            |journal| fs::rename(&journal.current, journal.old.as_ref().unwrap()).unwrap(),
            |_| {},
            |journal| {
                fs::rename(&journal.current, journal.old.as_ref().unwrap()).unwrap();
                fs::rename(&journal.staged, &journal.current).unwrap();
            },
        ];
        for interrupt in interruptions {
            interrupt(&journal);
            assert_eq!(resume(&data).unwrap(), Resumed::Prepared(undecided.clone()));
            assert_eq!((in_use(&data), old.exists(), journal.staged.exists()), ("old".into(), false, true));
        }
        // The coordinator goes on, takes up each step twice, and decides.
        let member = Prepared::load(&data).unwrap().unwrap().member;
        swap::swap_in(&data, &journal).unwrap();
        swap::swap_in(&data, &journal).unwrap();
        assert_eq!((in_use(&data), old.exists()), ("new".into(), true));
        assert_eq!(Prepared::load(&data).unwrap().unwrap().member, member, "before and after the swap");
        for phase in [JournalPhase::Swapped, JournalPhase::Verified] {
            at(&data, &mut journal, phase);
            let refused = resume(&data).unwrap_err().to_report();
            assert_eq!(refused.code, Code::OperationUndecided);
            assert_eq!(in_use(&data), "new", "nothing is changed");
        }
        at(&data, &mut journal, JournalPhase::Committed);
        assert_eq!(resume(&data).unwrap(), Resumed::Clear);
        assert_eq!((in_use(&data), old.exists(), data.reset_flag().exists()), ("new".into(), true, true));
        assert!(Prepared::load(&data).unwrap().is_none());
    }

    #[test]
    fn the_coordinator_rolls_back_in_each_phase() {
        for phase in [JournalPhase::Prepared, JournalPhase::Swapped, JournalPhase::Verified] {
            let (_root, data, mut journal) = prepared(Some(OPERATION));
            at(&data, &mut journal, phase);
            roll_back(&data, &mut journal).unwrap();
            assert_eq!((in_use(&data), data.restore().exists()), ("old".into(), false), "{phase:?}");
            assert_eq!(resume(&data).unwrap(), Resumed::Clear);
        }
    }
}
