//! `--dry-run`: what would be done, without touching anything.

use std::path::Path;

use crate::boltdb::database::Length;
use crate::clock;
use crate::datadir::lock;
use crate::error::AppError;
use crate::etcd::data_state::data_state;
use crate::host;
use crate::plan::restore as plan;
use crate::recovery::journal::Operation;
use crate::recovery::run::{Report, ResetRun};
use crate::recovery::workspace::RecoveryPaths;
use crate::recovery::{replay, retired};
use crate::snapshot::inspect::{self, Inspection};
use crate::snapshot::live::PinnedDatabase;
use crate::snapshot::verify::{self, VerifyError, VerifyOptions};
use crate::version::Version;

impl ResetRun<'_> {
    /// Looks at everything that the act itself looks at before it changes something.
    pub(crate) fn dry_run(&self, what: Operation, snapshot: Option<&Path>) -> Result<Report, AppError> {
        if what != Operation::Undo {
            self.check_flag()?;
        }
        if what == Operation::Reset && lock::is_taken(self.data) {
            // What a running etcd is writing cannot be looked at.
            lock::take(self.data)?;
        }
        let mut report = match (what, snapshot) {
            (Operation::Undo, _) => self.plan_undo()?.report,
            (_, Some(path)) => self.dry_run_restore(path)?,
            (_, None) => self.dry_run_reset()?,
        };
        if lock::is_taken(self.data) {
            report.notes.push("a server runs on this data directory: it has to be stopped first".into());
        }
        Ok(report)
    }

    fn dry_run_restore(&self, path: &Path) -> Result<Report, AppError> {
        let demands = VerifyOptions { skip_hash: self.asked.skip_hash };
        let verified =
            verify::verify(path, demands, &mut |done, all| (self.tell)("verifying the snapshot", done, all))?;
        let inspection = verified.inspection;
        plan::check_not_empty(inspection.keys, self.asked.allow_empty)?;
        let after = plan::bumped(inspection.revision, self.config.cluster_reset_bump_revision)?;
        let mut report = self.common(Operation::Restore, verified.database_size, &inspection, after)?;
        if let Some(written) = inspection.etcd_version().and_then(|text| text.parse::<Version>().ok()) {
            report.notes.extend(plan::check_target(written, self.program.version)?);
        }
        report.from = Some(path.to_path_buf());
        report.cleared_alarms = inspection.alarms;
        Ok(report)
    }

    fn dry_run_reset(&self) -> Result<Report, AppError> {
        let before = crate::cluster::file::load(self.data)?;
        self.check_data(data_state(self.data)?, before.as_ref())?;
        let held = PinnedDatabase::open_offline(self.data)?;
        let inspection = inspect::inspect(&held, held.size(), Length::Exact, &mut |_, _| {});
        let inspection = inspection.map_err(|error| VerifyError::of(error, &self.data.etcd_bolt(), None))?;
        let mut report = self.common(Operation::Reset, replay::size(self.data), &inspection, inspection.revision)?;
        report.notes.push("what the log holds beyond the database is not counted here; it is kept".into());
        Ok(report)
    }

    fn common(&self, act: Operation, needed: u64, inspection: &Inspection, after: i64) -> Result<Report, AppError> {
        let paths = RecoveryPaths::of(self.data, clock::unix_seconds(clock::now()))?;
        let needed = needed + crate::recovery::run::RESERVED_FREE_BYTES;
        let dir = paths.work.ancestors().find(|dir| dir.is_dir()).unwrap_or(Path::new("/"));
        let free = host::free_bytes(dir).unwrap_or(u64::MAX);
        if free < needed {
            return Err(crate::recovery::error::ResetError::Space { needed, free, dir: dir.to_path_buf() }.into());
        }
        Ok(Report {
            act: Some(act),
            old: paths.old.filter(|_| retired::is_in_use(self.data)),
            size: inspection.pages.used_pages * u64::from(inspection.page_size),
            revision: Some((inspection.revision, after)),
            keys: Some(inspection.keys),
            members_before: inspection.members.len(),
            room: Some((needed, free)),
            ..Report::default()
        })
    }
}
