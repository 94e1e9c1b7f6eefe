//! `quorate server --cluster-reset`, with or without a snapshot, and `--undo-reset`: look, plan, build, exchange, try, write down.
//!
//! Until the exchange nothing is touched. From then on a journal tells what is being done; what does not pass the gate is undone, and
//! whatever breaks off is finished or undone by the next start of any kind (`settle`).

pub use crate::recovery::error::ResetError;

use std::path::PathBuf;
use std::sync::Arc;

use crate::boltdb::wal;
use crate::cluster::record::MemberIdentity;
use crate::config::Config;
use crate::datadir::DataDir;
use crate::durable;
use crate::error::{AppError, SystemError, system_error};
use crate::etcd::client::Expected;
use crate::etcd::installed::InstalledEtcd;
use crate::etcd::settings::Addresses;
use crate::faults;
use crate::job::JobControl;
use crate::plan::restore as plan;
use crate::plan::restore::Phase;
use crate::plan::start::KnownSnapshot;
use crate::recovery::build::Built;
use crate::recovery::gate::{self, GateInput};
use crate::recovery::isolated_etcd::{self, IsolatedEtcd, IsolatedEtcdError, Program};
use crate::recovery::journal::{Journal, Operation};
use crate::recovery::{resume, retired, swap, workspace};
use crate::snapshot::store::locate::RemoteSnapshot;

/// Bytes that etcd writes beside its database when it starts: the next segment of its log, and what it is about to write.
pub(crate) const RESERVED_FREE_BYTES: u64 = 2 * wal::SEGMENT_BYTES;

/// What a directory for the download of a dry run is called, among temporary files.
pub(crate) const DRY_RUN: &str = "quorate-dry-run";

/// What is asked for.
#[derive(Clone, Debug, Default)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub struct ResetOptions {
    /// To go back to what was there before.
    pub undo: bool,
    /// Only to say what would be done.
    pub dry_run: bool,
    /// The snapshot may be a plain copy of `member/snap/db`.
    pub skip_hash: bool,
    /// The snapshot may hold no keys at all.
    pub allow_empty: bool,
    /// No snapshot of the data that are there.
    pub no_safety_net: bool,
}

/// How far something is: what, bytes done, of how many.
pub type Tell = Arc<dyn Fn(&'static str, u64, u64) + Send + Sync>;

/// What was done, or would be.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// What.
    pub act: Option<Operation>,
    /// The snapshot, or the data that came back.
    pub from: Option<PathBuf>,
    /// Where the data from before are; `None` if there were none.
    pub old: Option<PathBuf>,
    /// The snapshot that was taken of them.
    pub safety_net: Option<PathBuf>,
    /// Bytes of the database.
    pub size: u64,
    /// Its revision before and after.
    pub revision: Option<(i64, i64)>,
    /// Its keys.
    pub keys: Option<u64>,
    /// Members that the cluster had.
    pub members_before: usize,
    /// Alarms that were taken out.
    pub cleared_alarms: Vec<String>,
    /// Bytes that are needed for it, and that are free there.
    pub room: Option<(u64, u64)>,
    /// An etcd ran on the data, and passed every question.
    pub was_tried: bool,
    /// What else is worth knowing.
    pub notes: Vec<String>,
}

/// Whether an etcd is to run on the data before they count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VerifyMode {
    /// It must become healthy, and hold what was built.
    AsBuilt,
    /// It must become healthy.
    Alone,
    /// It cannot be told.
    NotAtAll,
}

/// New data that lie beside those in use.
pub(crate) struct Staged {
    pub(crate) journal: Journal,
    pub(crate) report: Report,
    pub(crate) built: Option<Built>,
    /// Device and inode of the `member` directory that is to be in place.
    pub(crate) member: (u64, u64),
    /// Of the one that is in place before it, if there is one.
    pub(crate) before: Option<(u64, u64)>,
}

/// One reset, restore or undoing of it.
pub(crate) struct ResetRun<'a> {
    pub(crate) config: &'a Config,
    pub(crate) data: &'a DataDir,
    pub(crate) program: Program,
    pub(crate) course: &'a JobControl,
    pub(crate) tell: &'a Tell,
    pub(crate) asked: &'a ResetOptions,
    /// What can be restored, if there is no data that could be reset.
    pub(crate) newest: Option<KnownSnapshot>,
    /// The lives of the data in the snapshot that is restored, if it is of this node: the server goes on with them.
    pub(crate) lineage: Vec<MemberIdentity>,
    /// Keeps one that is in memory executable.
    pub(crate) _binary: InstalledEtcd,
}

impl ResetRun<'_> {
    pub(crate) fn downloading(&self) -> impl FnMut(u64, u64) + Send + use<> {
        let tell = self.tell.clone();
        move |done, all| tell("downloading the snapshot", done, all)
    }

    /// For a dry run: into a directory that is gone afterwards.
    pub(crate) async fn fetch_for_dry_run(
        &self,
        there: &RemoteSnapshot,
    ) -> Result<(PathBuf, durable::NewDir), AppError> {
        let temporary = std::env::temp_dir();
        let _ = durable::sweep_named(&temporary, DRY_RUN);
        let dir = durable::new_dir(&temporary.join(DRY_RUN))?;
        let path = there.fetch(dir.path(), self.course, &mut self.downloading()).await?;
        Ok((path, dir))
    }

    pub(crate) fn check_flag(&self) -> Result<(), plan::RestoreRefusal> {
        let flag = self.data.reset_flag();
        if flag.exists() { Err(plan::RestoreRefusal::ResetFlag { flag: flag.display().to_string() }) } else { Ok(()) }
    }

    pub(crate) async fn all(&mut self, what: Operation, snapshot: Option<PathBuf>) -> Result<Report, AppError> {
        let act = what.word();
        let untouched = |run: &Self, why: &AppError| {
            // Swept at the next start if this does not work; the first failure is the one that matters.
            let _ = swap::clean_up(run.data);
            ResetError::Untouched { act, why: why.to_report() }
        };
        let staged = match what {
            Operation::Undo => self.plan_undo().and_then(|staged| {
                self.data.prepare_dir(&staged.journal.work)?;
                Ok(staged)
            }),
            Operation::Reset | Operation::Restore => self.stage(what, snapshot).await,
        };
        let Staged { mut journal, mut report, built, member, before } = staged.map_err(|why| untouched(self, &why))?;
        journal.write(self.data).map_err(|why| untouched(self, &why.into()))?;
        let passed = self.swap_in(&journal, built.as_ref(), member).await.and_then(|revision| {
            faults::point("restore::passed").map_err(system_error("note that the data are good"))?;
            workspace::check_in_place(self.data, member)?;
            if self.course.is_cancelled() {
                return Err(IsolatedEtcdError::Cancelled.into());
            }
            journal.phase = Phase::Passed;
            journal.write(self.data)?;
            Ok(revision)
        });
        match passed {
            Ok(revision) => {
                report.was_tried = revision.is_some();
                if let (Some(now), Some((_, after))) = (revision, &mut report.revision) {
                    *after = now;
                }
            }
            Err(why) => return Err(self.undo(&mut journal, before, &why).into()),
        }
        let finished = resume::complete(self.data, &journal);
        finished.map_err(|source| ResetError::NotRecorded { act, source: AppError::from(source).to_report() })?;
        if report.safety_net.is_some() {
            self.prune_pre_restore_snapshots().await;
        }
        Ok(report)
    }

    /// Everything goes back. First the journal must not say that the new data passed, if it does: who read that later would take what is in
    /// place for them.
    fn undo(&self, journal: &mut Journal, before: Option<(u64, u64)>, why: &AppError) -> ResetError {
        let act = journal.act.word();
        let rewritten = match std::mem::replace(&mut journal.phase, Phase::Trying) {
            Phase::Passed => journal.write(self.data).map_err(AppError::from),
            Phase::Trying => Ok(()),
        };
        let undone = rewritten.and_then(|()| Ok(resume::resume_or_roll_back(self.data, journal)?));
        // Whoever owns the directory could have exchanged them there.
        let checked =
            undone.and_then(|_| Ok(before.map_or(Ok(()), |before| workspace::check_in_place(self.data, before))?));
        match checked {
            Ok(()) => ResetError::RolledBack { act, why: why.to_report() },
            Err(source) => {
                ResetError::NotRolledBack { act, why: why.to_report().to_string(), source: source.to_report() }
            }
        }
    }

    /// Bytes of the database in use.
    pub(crate) fn size_in_use(&self) -> u64 {
        let found = self.data.bolt().ok().flatten().and_then(|bolt| bolt.metadata().ok());
        found.map_or(0, |found| found.len())
    }

    /// The exchange, and an etcd that runs on the new data before anybody else can reach them. Gives the revision then.
    async fn swap_in(
        &self,
        journal: &Journal,
        built: Option<&Built>,
        member: (u64, u64),
    ) -> Result<Option<i64>, AppError> {
        if journal.act == Operation::Undo
            && let Some(staged) = workspace::staged(self.data, journal)?
        {
            // The journal knows it too, and etcd wonders about files that are not its own.
            retired::remove_record(&staged)?;
        }
        swap::swap_in(self.data, journal)?;
        workspace::check_in_place(self.data, member)?;
        let size = built.map_or_else(|| self.size_in_use(), |built| built.size);
        let trust = isolated_etcd::trust(&self.data.restore());
        let isolated_etcd = IsolatedEtcd {
            config: self.config,
            data: self.data,
            trust: &trust,
            dir: &self.data.etcd(),
            name: &journal.after.member_name,
            quota: isolated_etcd::quota(size),
            force_new_cluster: false,
            is_gentle: false,
        };
        let tried = if built.is_some() { VerifyMode::AsBuilt } else { Self::is_tried(journal) };
        if tried == VerifyMode::NotAtAll {
            return Ok(None);
        }
        tracing::info!("the new data are in place; an etcd runs on them now, which no client can reach");
        let expected = Expected { name: journal.after.member_name.clone(), peer_url: Addresses::peer_url(self.config) };
        let question = GateInput { expected, built, size };
        let answer = gate::verify(&isolated_etcd, &self.program, &question, self.course).await?;
        tracing::info!(
            healthy_after_ms = answer.took.as_millis(),
            revision = answer.revision,
            "etcd is healthy on the new data, holds what was built, and was written to"
        );
        Ok(Some(answer.revision))
    }
}

pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, SystemError> {
    let lost = |lost| system_error("do the work")(std::io::Error::other(lost));
    tokio::task::spawn_blocking(work).await.map_err(lost)
}
