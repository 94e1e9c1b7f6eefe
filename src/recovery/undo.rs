//! `--undo-reset`: the newest data that were set aside come back, and those in use are set aside.

use std::fs::File;
use std::path::Path;

use crate::boltdb::database::Length;
use crate::clock;
use crate::cluster::record::ClusterRecord;
use crate::error::AppError;
use crate::plan::start;
use crate::recovery::error::ResetError;
use crate::recovery::journal::{Journal, Operation};
use crate::recovery::retired;
use crate::recovery::run::{Report, ResetRun, Staged, VerifyMode};
use crate::recovery::workspace::RecoveryPaths;
use crate::snapshot::inspect;
use crate::snapshot::live::PinnedDatabase;
use crate::snapshot::verify::VerifyError;

impl ResetRun<'_> {
    /// What goes back to what.
    pub(crate) fn plan_undo(&self) -> Result<Staged, AppError> {
        let data = self.data;
        let mut paths = RecoveryPaths::of(data, clock::unix_seconds(clock::now()))?;
        let (aside, held) = retired::newest(data)?.ok_or_else(|| ResetError::NoEarlierData(data.db()))?;
        paths.staged.clone_from(&aside.path);
        paths.work = data.restore();
        let before = crate::cluster::file::load(data)?;
        let epoch = before.as_ref().map_or(1, |cluster| cluster.epoch + 1);
        let labelled = retired::read_record(&held.dir)?;
        if let Some(last) = labelled.as_ref().and_then(|cluster| cluster.etcd_version) {
            start::check_versions(last, self.program.version)?;
        }
        let member = held.member()?;
        let size = check(held.bolt()?, &member.path().join("snap/db"))?;
        let report = Report {
            act: Some(Operation::Undo),
            from: Some(aside.path.clone()),
            old: paths.old.clone().filter(|_| retired::is_in_use(self.data)),
            members_before: labelled.as_ref().map_or(0, |cluster| cluster.member_count()),
            size,
            ..Report::default()
        };
        let after = ClusterRecord { epoch, ..labelled.unwrap_or_default() };
        let mut journal = Journal::begin(Operation::Undo, clock::rfc3339(clock::now()), paths, after);
        journal.before = before;
        let in_place = data.open_member()?.map(|member| member.id()).transpose()?;
        Ok(Staged { journal, report, built: None, member: member.id()?, before: in_place })
    }

    /// Whether an etcd runs on them, if it can be told: of several members, one alone never does.
    pub(crate) fn is_tried(journal: &Journal) -> VerifyMode {
        if journal.after.member_count() == 1 { VerifyMode::Alone } else { VerifyMode::NotAtAll }
    }
}

/// The database must be whole.
fn check(file: File, bolt: &Path) -> Result<u64, AppError> {
    let held = PinnedDatabase::of(file, bolt)?;
    inspect::inspect(&held, held.size(), Length::Exact, &mut |_, _| {})
        .map_err(|error| VerifyError::of(error, bolt, None))?;
    Ok(held.size())
}
