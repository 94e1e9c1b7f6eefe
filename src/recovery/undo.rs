//! `--undo-reset`: returns to the newest retired data, and retires the data in use.

use std::fs::File;
use std::path::PathBuf;

use crate::boltdb::database::Length;
use crate::clock;
use crate::cluster::record::ClusterRecord;
use crate::error::AppError;
use crate::job::blocking;
use crate::plan::start;
use crate::recovery::error::ResetError;
use crate::recovery::journal::{Journal, OperationKind};
use crate::recovery::operation::{Operation, Prepared};
use crate::recovery::paths::RecoveryPaths;
use crate::recovery::report::RecoveryReport;
use crate::recovery::retired;
use crate::snapshot::inspect;
use crate::snapshot::live::PinnedDatabase;
use crate::snapshot::verify::VerifyError;

impl Operation<'_> {
    /// Finds the data that come back, verifies them, and makes room for the journal.
    pub(crate) async fn prepare_undo(&self) -> Result<Prepared, AppError> {
        let prepared = self.plan_undo().await?;
        self.data.prepare_dir(&prepared.journal.work)?;
        Ok(prepared)
    }

    /// Finds the data that come back, and verifies them. Nothing is changed.
    pub(crate) async fn plan_undo(&self) -> Result<Prepared, AppError> {
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
        let size = self.check(held.bolt()?, member.path().join("snap/db")).await?;
        let report = RecoveryReport {
            kind: Some(OperationKind::Undo),
            from: Some(aside.path.clone()),
            old: paths.old.clone().filter(|_| retired::is_in_use(self.data)),
            members_before: labelled.as_ref().map_or(0, ClusterRecord::member_count),
            size,
            ..RecoveryReport::default()
        };
        let after = ClusterRecord { epoch, ..labelled.unwrap_or_default() };
        let mut journal = Journal::begin(OperationKind::Undo, clock::rfc3339(clock::now()), paths, after);
        journal.before = before;
        Ok(Prepared { journal, report, member: member.id()? })
    }

    /// The database must be whole. Gives its size.
    async fn check(&self, file: File, bolt: PathBuf) -> Result<u64, AppError> {
        let mut checking = self.checking("verifying the earlier data");
        let checked = blocking(move || {
            let held = PinnedDatabase::of(file, &bolt)?;
            let inspected = inspect::inspect(&held, held.size(), Length::Exact, &mut checking);
            inspected.map_err(|error| VerifyError::of(error, &bolt, None))?;
            Ok::<u64, AppError>(held.size())
        });
        checked.await?
    }
}
