//! Decisions of a reset or restore: whether it is allowed, the bumped revision, how to recover from an interruption,
//! and which old data is deleted.

use serde::{Deserialize, Serialize};

use crate::error::{Code, Diagnostic};
use crate::version::Version;

/// The default revision bump of a restore: more revisions than any cluster creates between a snapshot and its restore,
/// so that no client has seen a newer one (etcd's recovery guide uses the same number).
pub const DEFAULT_REVISION_BUMP: u64 = 1_000_000_000;

/// Why a snapshot is not restored here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestoreRefusal {
    /// This etcd is too old for it.
    #[error("the snapshot was written by etcd {written}, and etcd {binary} may not be able to read it")]
    NeedsOtherEtcd { written: String, binary: Version },
    #[error("the revision {revision} cannot be bumped by {by}")]
    RevisionOverflow { revision: i64, by: u64 },
    #[error("the snapshot has no keys: etcd would be empty after the restore")]
    Empty,
    /// A reset was done, and the server was not started since.
    #[error("a reset or restore was done already, and the server was not started since: {flag} exists")]
    ResetFlag { flag: String },
}

impl Diagnostic for RestoreRefusal {
    fn code(&self) -> Code {
        match self {
            Self::NeedsOtherEtcd { .. } => Code::SnapshotNeedsOtherEtcd,
            Self::RevisionOverflow { .. } => Code::RevisionOverflow,
            Self::Empty => Code::SnapshotEmpty,
            Self::ResetFlag { .. } => Code::ResetFlag,
        }
    }

    fn next_step(&self) -> Option<String> {
        Some(match self {
            Self::NeedsOtherEtcd { written, .. } => format!("restore it with etcd {written}, named with --etcd-binary"),
            Self::RevisionOverflow { .. } => "use a smaller --cluster-reset-bump-revision".into(),
            Self::Empty => {
                "restore another one (quorate etcd-snapshot ls), or add --allow-empty if this is intended".into()
            }
            Self::ResetFlag { flag } => format!(
                "start it without the flags (systemctl start quorate-server): the flag is removed when etcd is ready. To reset once more instead: rm {flag}"
            ),
        })
    }
}

/// Whether the etcd `binary` may open data that the etcd `written` wrote: it may be one minor older, for which unknown
/// records are removed, or newer. Returns a note for the operator.
pub fn check_target(written: Version, binary: Version) -> Result<Option<String>, RestoreRefusal> {
    if (binary.major, binary.minor + 1) < (written.major, written.minor) {
        return Err(RestoreRefusal::NeedsOtherEtcd { written: written.minor_text(), binary });
    }
    Ok((binary.minor < written.minor).then(|| {
        format!(
            "the data was written by etcd {}; records that etcd {} does not know are removed",
            written.minor_text(),
            binary.minor_text()
        )
    }))
}

/// Whether a snapshot with this many keys may be restored. One without keys is probably a mistake: of a new cluster, or
/// of one that had lost all data.
pub fn check_not_empty(keys: u64, allow_empty: bool) -> Result<(), RestoreRefusal> {
    if keys > 0 || allow_empty { Ok(()) } else { Err(RestoreRefusal::Empty) }
}

/// The revision bumped by this much.
pub fn bumped(revision: i64, by: u64) -> Result<i64, RestoreRefusal> {
    let bumped = i64::try_from(by).ok().and_then(|by| revision.checked_add(by));
    // Every later write needs one more.
    bumped.filter(|bumped| *bumped < i64::MAX / 2).ok_or(RestoreRefusal::RevisionOverflow { revision, by })
}

/// How far an operation is, as its journal says. The names of the first version of the journal are read, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JournalPhase {
    /// The new data is next to the data in use; the swap may have begun.
    #[serde(alias = "trying")]
    Prepared,
    /// The new data are in place, those from before aside.
    Swapped,
    /// An etcd ran on the new data and passed the gate.
    #[serde(alias = "passed")]
    Verified,
    /// It is decided: what is in place stays.
    Committed,
}

impl JournalPhase {
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Prepared => "prepared",
            Self::Swapped => "swapped",
            Self::Verified => "verified",
            Self::Committed => "committed",
        }
    }
}

/// What a start does about an operation that was interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interruption {
    /// The data from before come back.
    RollBack,
    Finish,
    /// The new data is kept next to the data in use, which is started.
    Keep,
    /// Nothing is started: either data could be wrong.
    Wait,
}

/// Decides. A single server decides about its own operations; the coordinator decides about an operation of several
/// servers.
#[must_use]
pub fn on_interruption(phase: JournalPhase, is_coordinated: bool) -> Interruption {
    match (phase, is_coordinated) {
        (JournalPhase::Committed, _) | (JournalPhase::Verified, false) => Interruption::Finish,
        (JournalPhase::Prepared | JournalPhase::Swapped, false) => Interruption::RollBack,
        (JournalPhase::Prepared, true) => Interruption::Keep,
        (JournalPhase::Swapped | JournalPhase::Verified, true) => Interruption::Wait,
    }
}

/// The observed state of an interrupted reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "each is an observation of one path")]
pub struct Interrupted {
    pub phase: JournalPhase,
    pub had_old: bool,
    pub old_is_aside: bool,
    /// The new data is still in the stage.
    pub is_staged: bool,
    pub has_current: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// Nothing was swapped yet: remove what was built.
    Discard,
    /// Roll back: the old data returns; new data, if any, is removed.
    Back,
    /// The data in place is verified: finish the bookkeeping.
    Finish,
}

/// Decides. Success is never reported before `Phase::Verified`, so that until then everything goes back.
#[must_use]
pub fn recover(found: Interrupted) -> Recovery {
    match found.phase {
        JournalPhase::Verified | JournalPhase::Committed => Recovery::Finish,
        JournalPhase::Prepared | JournalPhase::Swapped if found.old_is_aside => Recovery::Back,
        // There was no data before, and the data in place was built by us.
        JournalPhase::Prepared | JournalPhase::Swapped if !found.had_old && !found.is_staged && found.has_current => {
            Recovery::Back
        }
        JournalPhase::Prepared | JournalPhase::Swapped => Recovery::Discard,
    }
}

/// The retired data directories, by their second, to delete so that the newest `keep` remain.
#[must_use]
pub fn outdated<T: Clone>(mut aside: Vec<(u64, T)>, keep: usize) -> Vec<T> {
    aside.sort_by_key(|(second, _)| std::cmp::Reverse(*second));
    aside.into_iter().skip(keep).map(|(_, what)| what).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Exit;
    use proptest::prelude::*;

    #[test]
    fn an_etcd_may_be_older_by_one_minor() {
        let version = |text: &str| text.parse::<Version>().unwrap();
        for (written, binary, is_allowed, is_noted) in [
            ("3.4.0", "3.4.23", true, false),
            ("3.4.0", "3.7.3", true, false),
            ("3.5.0", "3.4.23", true, true),
            ("3.6.0", "3.5.30", true, true),
            ("3.6.0", "3.4.23", false, false),
            ("3.7.0", "3.5.30", false, false),
        ] {
            let checked = check_target(version(written), version(binary));
            assert_eq!(checked.is_ok(), is_allowed, "{written} -> {binary}");
            assert_eq!(checked.ok().flatten().is_some(), is_noted, "{written} -> {binary}");
        }
    }

    #[test]
    fn a_revision_is_raised_while_there_is_room() {
        assert_eq!(bumped(7, DEFAULT_REVISION_BUMP), Ok(1_000_000_007));
        assert_eq!(bumped(7, 0), Ok(7));
        for by in [u64::MAX, i64::MAX.unsigned_abs(), i64::MAX.unsigned_abs() - 7] {
            assert!(bumped(7, by).is_err());
        }
    }

    #[test]
    fn an_empty_snapshot_is_restored_only_when_that_is_asked_for() {
        for (keys, allow_empty, is_allowed) in [(0, false, false), (0, true, true), (1, false, true), (1, true, true)] {
            assert_eq!(check_not_empty(keys, allow_empty).is_ok(), is_allowed, "{keys} {allow_empty}");
        }
        assert_eq!(RestoreRefusal::Empty.exit(), Exit::Refused);
    }

    #[test]
    fn only_a_coordinator_decides_what_it_has_begun() {
        for (phase, alone, coordinated) in [
            (JournalPhase::Prepared, Interruption::RollBack, Interruption::Keep),
            (JournalPhase::Swapped, Interruption::RollBack, Interruption::Wait),
            (JournalPhase::Verified, Interruption::Finish, Interruption::Wait),
            (JournalPhase::Committed, Interruption::Finish, Interruption::Finish),
        ] {
            assert_eq!(
                (on_interruption(phase, false), on_interruption(phase, true)),
                (alone, coordinated),
                "{phase:?}"
            );
        }
    }

    #[test]
    fn the_oldest_go() {
        assert_eq!(outdated(vec![(3, "c"), (1, "a"), (2, "b")], 2), ["a"]);
        assert!(outdated(vec![(1, "a")], 3).is_empty());
    }

    /// The states between atomic renames: nothing moved, old data retired, new data in place; and the same in a
    /// rollback.
    #[test]
    fn an_interrupted_reset_is_rolled_back_or_finished() {
        let state = |had_old, old_is_aside, is_staged, has_current| Interrupted {
            phase: JournalPhase::Prepared,
            had_old,
            old_is_aside,
            is_staged,
            has_current,
        };
        for (found, expected) in [
            (state(true, false, true, true), Recovery::Discard),
            (state(true, true, true, false), Recovery::Back),
            (state(true, true, false, true), Recovery::Back),
            // In a rollback: the new data is removed already, or the old data is back already.
            (state(true, true, false, false), Recovery::Back),
            (state(true, false, false, true), Recovery::Discard),
            (state(false, false, true, false), Recovery::Discard),
            (state(false, false, false, true), Recovery::Back),
            (state(false, false, false, false), Recovery::Discard),
        ] {
            assert_eq!(recover(found), expected, "{found:?}");
        }
    }

    proptest! {
        #[test]
        fn old_data_that_lie_aside_always_come_back_unless_the_new_ones_passed(
            phase in 0usize..4, had_old: bool, old_is_aside: bool, is_staged: bool, has_current: bool,
        ) {
            let phase = [JournalPhase::Prepared, JournalPhase::Swapped, JournalPhase::Verified, JournalPhase::Committed][phase];
            let passed = phase >= JournalPhase::Verified;
            let recovery = recover(Interrupted { phase, had_old, old_is_aside, is_staged, has_current });
            prop_assert_eq!(recovery == Recovery::Finish, passed);
            if !passed && old_is_aside {
                prop_assert_eq!(recovery, Recovery::Back);
            }
            if had_old && !old_is_aside {
                prop_assert_ne!(recovery, Recovery::Back, "the data in place is the only data");
            }
        }
    }
}
