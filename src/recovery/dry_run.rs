//! `--dry-run`: reports what would be done, without changing anything.

use std::path::{Path, PathBuf};

use crate::boltdb::database::Length;
use crate::clock;
use crate::datadir::lock;
use crate::durable;
use crate::error::AppError;
use crate::etcd::data_state::data_state;
use crate::host;
use crate::job::blocking;
use crate::plan::restore as plan;
use crate::recovery::error::ResetError;
use crate::recovery::journal::OperationKind;
use crate::recovery::operation::{Operation, RESERVED_FREE_BYTES};
use crate::recovery::paths::RecoveryPaths;
use crate::recovery::report::RecoveryReport;
use crate::recovery::{replay, retired};
use crate::snapshot::inspect::{self, Inspection};
use crate::snapshot::live::PinnedDatabase;
use crate::snapshot::store::locate::RemoteSnapshot;
use crate::snapshot::verify::{self, VerifyError, VerifyOptions};
use crate::version::Version;

/// The label of the temporary directory for the download of a dry run.
const DOWNLOAD_DIR: &str = "quorate-dry-run";

impl Operation<'_> {
    /// Checks everything that the operation itself checks before it changes something.
    pub(crate) async fn dry_run(
        &self,
        kind: OperationKind,
        snapshot: Option<&Path>,
    ) -> Result<RecoveryReport, AppError> {
        if kind != OperationKind::Undo {
            self.check_flag()?;
        }
        if kind == OperationKind::Reset && lock::is_taken(self.data) {
            // Data that a running etcd is writing cannot be checked.
            lock::take(self.data)?;
        }
        let mut report = match (kind, snapshot) {
            (OperationKind::Undo, _) => self.plan_undo().await?.report,
            (_, Some(path)) => self.dry_run_restore(path).await?,
            (_, None) => self.dry_run_reset().await?,
        };
        if lock::is_taken(self.data) {
            report.notes.push("a server runs on this data directory: stop it first".into());
        }
        Ok(report)
    }

    /// Fetches a snapshot into a directory that is gone afterwards.
    pub(crate) async fn fetch_for_dry_run(
        &self,
        there: &RemoteSnapshot,
    ) -> Result<(PathBuf, durable::NewDir), AppError> {
        let temporary = std::env::temp_dir();
        let _ = durable::sweep_named(&temporary, DOWNLOAD_DIR);
        let dir = durable::new_dir(&temporary.join(DOWNLOAD_DIR))?;
        let path = there.fetch(dir.path(), self.control, &mut self.downloading()).await?;
        Ok((path, dir))
    }

    async fn dry_run_restore(&self, path: &Path) -> Result<RecoveryReport, AppError> {
        let demands = VerifyOptions { skip_hash: self.options.skip_hash };
        let (path, mut checking) = (path.to_path_buf(), self.checking("verifying the snapshot"));
        let verified = blocking(move || verify::verify(&path, demands, &mut checking));
        let verified = verified.await??;
        let inspection = verified.inspection;
        plan::check_not_empty(inspection.keys, self.options.allow_empty)?;
        let after = plan::bumped(inspection.revision, self.config.cluster_reset_bump_revision)?;
        let mut report = self.common(OperationKind::Restore, verified.database_size, &inspection, after)?;
        if let Some(written) = inspection.etcd_version().and_then(|text| text.parse::<Version>().ok()) {
            report.notes.extend(plan::check_target(written, self.program.version)?);
        }
        report.from = Some(verified.path);
        report.cleared_alarms = inspection.alarms;
        Ok(report)
    }

    async fn dry_run_reset(&self) -> Result<RecoveryReport, AppError> {
        let before = crate::cluster::file::load(self.data)?;
        self.check_data(data_state(self.data)?, before.as_ref())?;
        let held = PinnedDatabase::open_offline(self.data)?;
        let (bolt, mut checking) = (self.data.etcd_bolt(), self.checking("verifying the data in use"));
        let inspected = blocking(move || {
            let inspected = inspect::inspect(&held, held.size(), Length::Exact, &mut checking);
            inspected.map_err(|error| VerifyError::of(error, &bolt, None))
        });
        let inspection = inspected.await??;
        let needed = replay::size(self.data);
        let mut report = self.common(OperationKind::Reset, needed, &inspection, inspection.revision)?;
        report.notes.push("log entries after the database are kept, but not counted here".into());
        Ok(report)
    }

    fn common(
        &self,
        kind: OperationKind,
        needed: u64,
        inspection: &Inspection,
        after: i64,
    ) -> Result<RecoveryReport, AppError> {
        let paths = RecoveryPaths::of(self.data, clock::unix_seconds(clock::now()))?;
        let needed = needed + RESERVED_FREE_BYTES;
        let dir = paths.work.ancestors().find(|dir| dir.is_dir()).unwrap_or(Path::new("/"));
        let free = host::free_bytes(dir).unwrap_or(u64::MAX);
        if free < needed {
            return Err(ResetError::Space { needed, free, dir: dir.to_path_buf() }.into());
        }
        Ok(RecoveryReport {
            kind: Some(kind),
            old: paths.old.filter(|_| retired::is_in_use(self.data)),
            size: inspection.pages.used_pages * u64::from(inspection.page_size),
            revision: Some((inspection.revision, after)),
            keys: Some(inspection.keys),
            members_before: inspection.members.len(),
            space: Some((needed, free)),
            ..RecoveryReport::default()
        })
    }
}
